"""Contact forms: emails that a website sends in the name of the person who filled in a form.

Only a form that a profile names, by its exact sender and the exact label of the address line, lets code take
the recipient of a reply from the text of an email.
"""

import html
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from shared.checks.contacts import find_addresses
from shared.domain import base_address, parse_address
from shared.mail.machine_mail import is_machine_sender

_LINE_END = re.compile(r"\n|\||<br\s*/?>", re.IGNORECASE)  # also between the cells of a table
_ESCAPED = re.compile(r"\\([\\`*_{}\[\]()#+.!-])")
_LINK = re.compile(r"\[([^\[\]\n]*)\]\((?:mailto:)?([^()\[\s]*)\)")
_MARKS = " \t*`#"


@dataclass(frozen=True, slots=True)
class ContactForm:
    """A form that a profile names: its bare, lower-case sender, and how its address line begins."""

    sender: str
    label: str


def find_form(forms: Sequence[ContactForm], sender: str) -> ContactForm | None:
    """The form that sends from this address, if the profile names one."""
    return next((form for form in forms if form.sender == sender), None)


def find_respondent(form: ContactForm, markdown: str, ours: Collection[str]) -> str | None:
    """The one address that is all of the value on the one line with the form's label; None otherwise."""
    wanted = form.label.strip(_MARKS).casefold()
    values = [
        value
        for line in markdown.splitlines()
        for label, colon, value in [line.partition(":")]
        if colon and label.lstrip("> ").strip(_MARKS).casefold() == wanted
    ]
    address = _read_address(values[0]) if len(values) == 1 else ""
    is_own = base_address(address) in ours or address == form.sender
    return address if address and not is_own and not is_machine_sender(address) else None


def looks_like_form(markdown: str, sender: str, ours: Collection[str]) -> bool:
    """Say whether the text has a stranger's address where forms have it.

    From one of our own addresses, any will do. Other machines' mail is full of addresses: there it must be
    all of a line or of a label's value, and of another domain than the sender's.
    """
    known = {*ours, sender}
    if sender in ours:
        return any(base_address(found) not in known for found in find_addresses(markdown))
    domain = sender.rpartition("@")[2]
    lines = _LINE_END.split(html.unescape(markdown))
    values = (value for line in lines for value in (line, re.split("[:：=]", line, maxsplit=1)[-1]))
    return any(
        base_address(address) not in known and address.rpartition("@")[2] != domain
        for address in filter(None, map(_read_address, values))
    )


def _read_address(value: str) -> str:
    """The address that is all that a reader sees in a value, or "": a part of one could be a stranger's."""
    text = html.unescape(value)
    text = _LINK.sub(lambda link: link[1] if link[1] == link[2] else "", text)
    text = _ESCAPED.sub(r"\1", text).lstrip("> ").strip(_MARKS)
    if text.startswith("_") and text.endswith("_"):
        text = text.strip("_")
    address = parse_address(text)
    return address if find_addresses(text) == {address} else ""
