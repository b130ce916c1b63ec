"""Foreign links: a text for an operator, without the links that nothing known has."""

import re
from collections.abc import Sequence

from shared.checks.characters import fold
from shared.checks.contacts import Known, read_contacts
from shared.checks.rendering import render

LEFT_OUT = "[link left out]"

_WORD = re.compile(r"\S+")


def drop_foreign_links(text: str, known_texts: Sequence[str]) -> str:
    """The text, or what a reader would see of it without the links that are in none of the known texts."""
    known = Known.read(known_texts)
    places = known.contacts.places | known.hosts

    def is_foreign(found: frozenset[str]) -> bool:
        return not found <= places

    rendered = render(text)
    shown = read_contacts(rendered.text, rendered.links)
    if not rendered.has_markup and not is_foreign(shown.places | shown.hosts):
        return text
    pieces = rendered.text
    for link in reversed(rendered.links):
        target = read_contacts("", [link])
        if not link.is_found and is_foreign(target.places | target.hosts):
            pieces = f"{pieces[: link.start]}{LEFT_OUT}{pieces[link.start + len(link.text) :]}"

    def judge(match: re.Match[str]) -> str:
        found = read_contacts(match.group())
        return LEFT_OUT if is_foreign(found.places | found.hosts) else match.group()

    return _WORD.sub(judge, fold(pieces)).strip()
