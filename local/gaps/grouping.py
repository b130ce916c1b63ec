"""Grouping by words: every email of a group has all the words that name the group."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, pairwise
from math import log

from local.gaps.found import Unanswered
from shared.checks.lexicon import find_pattern
from shared.knowledge.words import UNSPACED, fold, list_words

STEM_CHARACTERS = 6  # words that begin alike are one: "calibrate", "calibration"
PLURAL_ENDINGS = "sn"  # "probes", "Sonden"
MIN_WORD_CHARACTERS = 3
MAX_WORDS = 20  # of an email
MAX_SHARE = 0.3  # a word in more of the emails than this says nothing
MIN_EMAILS = 8  # from which on that counts
NAMED_BY = 3  # words that name an email that has none in common with others

_UNSPACED = re.compile(f"[{UNSPACED}]")


@dataclass(frozen=True, slots=True)
class Group:
    """Emails with words in common, oldest first. `words`: those that all have; of one alone, its own."""

    words: tuple[str, ...]
    emails: tuple[Unanswered, ...]


def group_by_words(emails: Sequence[Unanswered]) -> list[Group]:
    """Put each email into one group, the largest groups first.

    Again and again, one word or two that some of the emails left have in common make the next group: those
    with the highest product of how many emails there are besides the first, and how rare the words are among
    all. An email that shares no word is a group by itself.
    """
    terms = [_list_terms(email.words) for email in emails]
    counts = Counter(chain.from_iterable(terms))
    most = MAX_SHARE * len(emails) if len(emails) >= MIN_EMAILS else len(emails)
    rarities = {term: log((len(emails) + 1) / count) for term, count in counts.items() if count <= most}
    left = {number: own.keys() & rarities.keys() for number, own in enumerate(terms)}
    groups = []
    while shared := _find_shared(left.values(), rarities):
        members = [number for number, own in left.items() if own >= shared]
        common = set.intersection(*(left.pop(number) for number in members))
        written = [terms[number] for number in members]
        groups.append((members, [_name(term, written) for term in written[0] if term in common]))
    groups += [([number], list(terms[number].values())[:NAMED_BY]) for number in left]
    groups.sort(key=lambda group: -len(group[0]))
    return [Group(tuple(words), tuple(emails[number] for number in members)) for members, words in groups]


def _list_terms(text: str) -> dict[str, str]:
    """What an email is compared by: the stem of each telling word, and the word as it is shown."""
    terms: dict[str, str] = {}
    for word in _split(text):
        if len(terms) < MAX_WORDS:
            stem = word.rstrip(PLURAL_ENDINGS) if len(word) > MIN_WORD_CHARACTERS else word
            terms.setdefault(stem[:STEM_CHARACTERS], word)
    return terms


def _split(text: str) -> Iterator[str]:
    """The words that are neither codes nor frequent ones; of an unspaced script, pairs of letters."""
    for word in list_words(fold(text)):
        is_frequent = any(find_pattern(table, "").fullmatch(word) for table in ("languages", "light"))
        if _UNSPACED.match(word):
            yield from map("".join, pairwise(word))
        elif len(word) >= MIN_WORD_CHARACTERS and word.isalpha() and not is_frequent:
            yield word


def _find_shared(left: Iterable[set[str]], rarities: Mapping[str, float]) -> frozenset[str]:
    """The one or two terms that make the next group; none when no two emails have one in common."""
    found: Counter[tuple[str, ...]] = Counter()
    for own in left:
        found.update(words for size in (1, 2) for words in combinations(sorted(own), size))
    scores = {
        words: (number - 1) * sum(rarities[word] for word in words)
        for words, number in found.items()
        if number > 1
    }
    best = min(scores.items(), key=lambda item: (-item[1], item[0]), default=((), 0.0))
    return frozenset(best[0])


def _name(term: str, members: Sequence[Mapping[str, str]]) -> str:
    """The term as most members write it."""
    return Counter(own[term] for own in members).most_common(1)[0][0]
