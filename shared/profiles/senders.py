"""Senders: what an operator wants done with their mail, and whether a domain could be taken for another."""

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

import idna

from shared.checks.characters import read_as_latin
from shared.domain import base_address

MIN_LETTERS = 5  # of names that one letter may tell apart: shorter ones are near to each other by chance
_COUNTRY = re.compile("[a-z]{2}")
_SECOND_LEVEL = re.compile("[a-z]{2,3}")  # co.uk, com.au, or.jp
# Two letters that a hurried reader takes for one.
_PAIRS = {"rn": "m", "vv": "w", "cl": "d", "-": ""}


class SenderRule(StrEnum):
    """What an operator wants done with a sender's mail."""

    IMPORTANT = "important"
    ESCALATE = "escalate"
    NEVER_ANSWER = "never_answer"


@dataclass(frozen=True, slots=True)
class SenderRules:
    """The addresses and domains of each rule, bare and in lower case; a domain means its subdomains, too.

    Raises ValueError for one that is never answered and in another list.
    """

    important: tuple[str, ...] = ()
    escalate: tuple[str, ...] = ()
    never_answer: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.never_answer:
            if name in (*self.important, *self.escalate):
                raise ValueError(f"has {name!r} in never_answer and in another list: remove it from one")

    def find(self, address: str) -> frozenset[SenderRule]:
        """The rules for a sender. The closest entry counts alone: the address, then each domain upwards."""
        labels = address.rpartition("@")[2].split(".")
        domains = (".".join(labels[count:]) for count in range(len(labels)))
        for name in (address, base_address(address), *domains):
            found = frozenset(rule for rule in SenderRule if name in getattr(self, rule))
            if found:
                return found
        return frozenset()


NO_RULES = SenderRules()


def find_resembled(host: str, ours: Iterable[str], theirs: Iterable[str]) -> str:
    """The domain that `host` could be taken for, of ours first, then of the correspondents'; "" for none.

    A name that reads the same resembles one (`rn` for `m`, `1` for `l`, letters of another script, hyphens),
    and so does one of five letters or more in which one letter differs. Of our domains so do our name under
    another ending and as a part of a name (`northwind-billing.com`); correspondents may well own those.
    """
    family = _find_family(host)
    label = _find_label(family)
    parts = [_read(part) for part in re.split("[.-]", _to_unicode(host))]
    for known in ours:
        name = _read(_find_label(_find_family(known)))
        is_part = len(name) >= MIN_LETTERS and name in parts
        if _find_family(known) != family and (is_part or _resembles(_read(label), name)):
            return known
    for known in theirs:
        own = _find_label(_find_family(known))
        if own != label and _resembles(_read(label), _read(own)):
            return known
    return ""


def _resembles(name: str, known: str) -> bool:
    return name == known or (min(len(name), len(known)) >= MIN_LETTERS and _is_one_slip(name, known))


def _is_one_slip(name: str, known: str) -> bool:
    """Whether one letter is missing, too many, another, or in its neighbour's place."""
    start = 0
    while start < min(len(name), len(known)) and name[start] == known[start]:
        start += 1
    left, right = name[start:], known[start:]
    is_swapped = len(left) > 1 and left[:2] == right[1::-1] and left[2:] == right[2:]
    return is_swapped or left[1:] in (right, right[1:]) or left == right[1:]


def _find_family(host: str) -> str:
    """The domain that an organisation has registered; a short label before a country's is no name (co.uk)."""
    labels = host.split(".")
    is_long = _COUNTRY.fullmatch(labels[-1]) and _SECOND_LEVEL.fullmatch("".join(labels[-2:-1]))
    return ".".join(labels[-3 if is_long else -2 :])


def _find_label(family: str) -> str:
    return _to_unicode(family).partition(".")[0]


def _to_unicode(host: str) -> str:
    with suppress(idna.IDNAError):  # no name that DNS could have: it is read as it is
        return idna.decode(host)
    return host


def _read(label: str) -> str:
    """The label with one spelling for what looks alike."""
    read = read_as_latin(label)
    for pair, letter in _PAIRS.items():
        read = read.replace(pair, letter)
    return read
