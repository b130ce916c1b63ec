"""Reference numbers in an email, found by an operator's pattern in time that grows with the text alone."""

import re
from functools import lru_cache
from typing import Any

MAX_TEXT_CHARACTERS = 20_000
ORDINALS = ("first", "second", "third")  # of the references in an email
MAX_REFERENCES = len(ORDINALS)  # each is a request to another system
MAX_PATTERN_CHARACTERS = 200
_IN_SLASHES = re.compile(r"/.*/[a-z]*")  # as other languages write a pattern
_IGNORES_CASE = re.compile(r"\(\?[a-z]*i")


def check_pattern(pattern: str) -> str:
    """The pattern as it was written. Raises ValueError for one that cannot be used."""
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        raise ValueError(f"has {len(pattern):,} characters, at most {MAX_PATTERN_CHARACTERS}: shorten it")
    if not pattern.isprintable():
        raise ValueError("has a control character, as \\b is in double quotes: write it in single quotes")
    if _IN_SLASHES.fullmatch(pattern):
        raise ValueError("is written in slashes: remove them; (?i) at its beginning ignores letter case")
    compiled = _compile(pattern)
    if compiled.search("") is not None:
        raise ValueError("matches an empty text: write what a reference consists of")
    if compiled.groups > 1:
        raise ValueError(
            f"has {compiled.groups} groups, of which one would be the reference: write (?:...) for the others"
        )
    return pattern


def find_references(pattern: str, text: str) -> tuple[str, ...]:
    """What the pattern finds, each once, the first few; of a pattern with a group, what the group has.

    Where the pattern ignores letter case, so does the count: the first spelling is taken.
    """
    compiled = _compile(pattern)
    group = 1 if compiled.groups else 0
    folds = _IGNORES_CASE.search(pattern) is not None
    found = dict[str, str]()
    for match in compiled.finditer(text[:MAX_TEXT_CHARACTERS]):
        reference = match.group(group)
        if reference:
            found.setdefault(reference.casefold() if folds else reference, reference)
        if len(found) == MAX_REFERENCES:
            break
    return tuple(found.values())


@lru_cache(maxsize=64)
def _compile(pattern: str) -> Any:
    import re2  # noqa: PLC0415 - cold start: only where a profile has such a pattern

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if error.args else "unreadable"
        raise ValueError(
            f"is not a pattern that RE2 knows ({reason}): it has no look-around and no back-references"
        ) from None
