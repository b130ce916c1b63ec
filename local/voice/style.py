"""The style of a mailbox's sent emails, by language: counted by plain code, described in our own words."""

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from shared.mail.own_words import OwnWords, split_own_words

MAX_CHARACTERS = 20_000  # of an email: what is longer shows no more of its style
MIN_EMAILS = 3  # of a language: fewer say little about it
MIN_KNOWN_WORDS = 3  # in an email, by which its language is told
USUAL = 0.6  # the share of emails from which a form counts as the mailbox's own
RARE = 0.1
CLOSING_LINES = 10

_WORD = re.compile(r"[^\W\d_]+")
_LIST_LINE = re.compile(r"\s*(?:[-*+•]|\d{1,2}[.)])\s+\S")


@dataclass(frozen=True, slots=True)
class Language:
    """What is looked for in emails of one language, and the only words that a description of it may have.

    `address` tells for each form of address how often it is in a text.
    """

    name: str
    words: frozenset[str]
    greetings: Sequence[str]
    closings: Sequence[str]
    titles: frozenset[str]
    address: Mapping[str, Callable[[Sequence[str]], int]]


@dataclass(frozen=True, slots=True)
class _Traits:
    """What one email shows of its style. Every text is one of ours."""

    greeting: str
    name: str
    address: str
    closing: str
    words: int
    has_exclamation: bool
    has_list: bool


@cache
def load_languages() -> tuple[Language, ...]:
    """The languages of languages.toml."""
    tables = tomllib.loads((Path(__file__).parent / "languages.toml").read_text(encoding="utf-8"))
    return tuple(
        Language(
            name=table["name"],
            words=frozenset(table["words"]),
            greetings=_longest_first(table["greetings"]),
            closings=_longest_first(table["closings"]),
            titles=frozenset(table["titles"]),
            address={form: _build_count(words) for form, words in table.get("address", {}).items()},
        )
        for table in tables.values()
    )


def describe_style(emails: Iterable[str]) -> tuple[dict[str, str], Counter[str]]:
    """A line for the voice by each language's name, and how many emails each language has, "" for none known.

    Languages of fewer than three emails get no line.
    """
    found: dict[str, list[_Traits]] = {}
    counts = Counter[str]()
    for markdown in emails:
        words = split_own_words("\n".join(markdown[:MAX_CHARACTERS].splitlines()))
        language = _find_language(words.own)
        counts[language.name if language else ""] += 1
        if language:
            found.setdefault(language.name, []).append(_read_traits(words, language))
    lines_by_name = {
        name: f"{begin_line(name)} {_describe(traits)}."
        for name, traits in sorted(found.items())
        if len(traits) >= MIN_EMAILS
    }
    return lines_by_name, counts


def begin_line(name: str) -> str:
    """How the line of a language begins: by this it is found and replaced in a voice."""
    return f"Replies in {name}:"


def _longest_first(phrases: Sequence[str]) -> list[str]:
    return sorted(phrases, key=len, reverse=True)


def _build_count(form: Mapping[str, Any]) -> Callable[[Sequence[str]], int]:
    exact, folded = frozenset(form.get("case", ())), frozenset(form.get("words", ()))
    return lambda words: sum(word in exact or word.lower() in folded for word in words)


def _find_language(text: str) -> Language | None:
    """The language of which the text has most words; None when it has few, or as many of another."""
    words = Counter(word.lower() for word in _WORD.findall(text))
    scores = [(sum(words[word] for word in language.words), language) for language in load_languages()]
    (first, language), (second, _), *_ = sorted(scores, key=lambda score: score[0], reverse=True)
    return language if first >= MIN_KNOWN_WORDS and first > second else None


def _read_traits(text: OwnWords, language: Language) -> _Traits:
    lines = [line for line in text.own.splitlines() if line.strip()]
    words = _WORD.findall(text.own)
    greeting = _find_phrase(lines[0], language.greetings)
    # A closing begins the signature, and so the rest, or stands above it.
    ends = [*lines[1:][-CLOSING_LINES:], *text.rest.splitlines()[:1]]
    closings = [_find_phrase(line, language.closings) for line in ends]
    counts = Counter({form: count(words) for form, count in language.address.items()})
    (form, most), *others = counts.most_common() or [("", 0)]
    is_clear = most > max((count for _, count in others), default=0)
    return _Traits(
        greeting=greeting,
        name=_find_name(lines[0], greeting, language) if greeting else "",
        address=form if is_clear else "",
        closing=next((phrase for phrase in reversed(closings) if phrase), ""),
        words=len(words),
        has_exclamation="!" in text.own,
        has_list=any(map(_LIST_LINE.match, lines)),
    )


def _find_phrase(line: str, phrases: Sequence[str]) -> str:
    """The phrase with which a line begins, as our list has it."""
    start = " ".join(_WORD.findall(line)).lower() + " "
    return next((phrase for phrase in phrases if start.startswith(phrase.lower() + " ")), "")


def _find_name(line: str, greeting: str, language: Language) -> str:
    """What follows the greeting, in our words; a greeting may run on in its line after a comma."""
    words = _WORD.findall(re.split(r"[,!:;–]", line, maxsplit=1)[0])[len(greeting.split()) :]
    if not words:
        return "without a name"
    if words[0].lower() in language.titles or greeting.lower() in language.titles:
        return "with title and surname"
    if len(words) == 1 and words[0].istitle():
        return "with the first name"
    return ""


def _describe(traits: Sequence[_Traits]) -> str:
    greeting = _find_usual(trait.greeting for trait in traits)
    name = _find_usual(trait.name for trait in traits if trait.greeting)
    form = _find_usual(trait.address for trait in traits if trait.address)
    closing = _find_usual(trait.closing for trait in traits)
    length = max(10, round(median(trait.words for trait in traits), -1))
    parts = [
        f'greet with "{greeting}"' + (f" {name}" if name else "") if greeting else "",
        f"greet {name}" if name and not greeting else "",
        f'address the reader as "{form}"' if form else "",
        f"about {length:.0f} words",
        _name_share("exclamation marks", [trait.has_exclamation for trait in traits]),
        _name_share("lists", [trait.has_list for trait in traits]),
        f'close with "{closing}"' if closing else "",
    ]
    return "; ".join(filter(None, parts))


def _find_usual(texts: Iterable[str]) -> str:
    """The text that most emails share, if there is one."""
    counts = Counter(texts)
    text, count = (counts.most_common(1) or [("", 0)])[0]
    return text if count >= USUAL * counts.total() else ""


def _name_share(thing: str, has_it: Sequence[bool]) -> str:
    share = sum(has_it) / len(has_it)
    return f"no {thing}" if share <= RARE else f"often {thing}" if share >= USUAL else f"seldom {thing}"
