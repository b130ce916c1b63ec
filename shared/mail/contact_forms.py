"""Contact forms: emails that a website sends in the name of the person who filled in a form.

Only a form that a profile names, by its exact sender and the exact label of the address line, lets code take
the recipient of a reply from the text of an email.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from shared.domain import base_address, parse_address
from shared.mail.draft_checks import find_addresses
from shared.mail.machine_mail import is_machine_sender

_MARKS = re.compile(r"[*_`|>#\s]+")  # Markdown's, around a label or an address
_EMPHASIS = re.compile(r"[*_`#]")
_LABELLED = re.compile(r"\s*[^\s:][^:\n]{0,40}[:|]\s*(?P<value>\S.*)")


@dataclass(frozen=True, slots=True)
class ContactForm:
    """A form that a profile names: its bare, lower-case sender, and how its address line begins."""

    sender: str
    label: str


def find_form(forms: Sequence[ContactForm], sender: str) -> ContactForm | None:
    """The form that sends from this address, if the profile names one."""
    return next((form for form in forms if form.sender == sender), None)


def find_respondent(form: ContactForm, markdown: str, ours: Collection[str]) -> str | None:
    """The one address on the one line with the form's label; None unless there is exactly one of both."""
    found = []
    for line in markdown.splitlines():
        label, colon, value = line.partition(":")
        if colon and _plain(label) == _plain(form.label):
            found.append(value)
    addresses = find_addresses(found[0]) if len(found) == 1 else ()
    address = parse_address(next(iter(addresses))) if len(addresses) == 1 else ""
    is_own = base_address(address) in ours or address == form.sender
    return address if address and not is_own and not is_machine_sender(address) else None


def looks_like_form(markdown: str, known: Collection[str]) -> bool:
    """Say whether a line of the text is a label with an address of somebody else, as in forms."""
    for line in markdown.splitlines():
        match = _LABELLED.match(_EMPHASIS.sub("", line).lstrip("|> ").rstrip("| "))
        value = match["value"].strip() if match else ""
        # The address is all that follows the label: a sentence with an address in it is no form.
        address = parse_address(value.removeprefix("[").partition("]")[0])
        if address and address not in known:
            return True
    return False


def _plain(label: str) -> str:
    return _MARKS.sub(" ", label).strip().casefold()
