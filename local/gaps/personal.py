"""Whether a text that is to be kept has anything of one customer: decided in code, on the customer's emails.

What a person stated as a rule or fact may stay, though the customer wrote it too: a sentence without the
customer's names, dates, codes and long numbers that neither asks nor reports what the customer wrote.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, cached_property
from itertools import takewhile
from pathlib import Path

from local.gaps.answers import Customer
from local.voice.style import load_languages
from shared.checks.carried_words import find_carried
from shared.checks.draft_checks import check_draft
from shared.checks.evidence import Source, SourceKind, split_sentences
from shared.checks.lexicon import plain
from shared.checks.values import (
    CODE,
    DATE,
    FIRST_YEAR,
    LAST_YEAR,
    LINK,
    NUMBER,
    Reading,
    Value,
    find_carriers,
    read_values,
)
from shared.domain import parse_address
from shared.knowledge.words import UNSPACED, fold, list_words
from shared.mail.own_words import split_own_words

LONG_NUMBER = 1_000  # a number from here on, without a unit, may be that of an order
MAX_SIGNATURE_LINES = 6
MAX_SIGNATURE_WORDS = 6
MIN_STEM = 4  # letters of a name that may have an ending: "Zanders"
MAX_ENDING = 2

_WORD = re.compile(r"[^\W\d_]+")
_QUOTED = re.compile(r"[\"“„«»”「][^\"“„«»”」\n]{3,}[\"“”«»」]")
_ENDS = ".,;:!?()"
_MARKS = "\"'“”„«»[]*_"


@dataclass(frozen=True, slots=True)
class _Patterns:
    """Where names stand, what reports a customer's words, and what addresses a customer: personal.toml."""

    names: tuple[re.Pattern[str], ...]
    reports: re.Pattern[str]
    addressed: re.Pattern[str]


@cache
def _patterns() -> _Patterns:
    table = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    either = {key: "|".join(words) for key, words in table.items()}
    before, last, after = either["before_name"], either["before_last_name"], either["after_firm"]
    word = r"[^\W\d_a-z][\w'’-]{0,40}"
    names = (
        rf"(?<!\w)(?:{before})\.? {{1,2}}(?P<name>{word}(?: {word}){{0,2}})",
        rf"(?P<name>{word}(?: {word}){{0,2}}) (?:{after})(?!\w)",
        rf"(?<!\w)(?:[A-Z]{{1,2}}-)?\d{{4,5}} (?P<name>{word}(?: {word})?)",  # a place after its postcode
        rf"(?<!\w)(?:{last}) (?P<name>\w+(?: \w+)?)(?=[^\w\s]|\n|$)",
        r"(?P<name>[\u30a0-\u30ff\u4e00-\u9fff]{2,8}) ?(?:様|さん|殿|氏|と申します|といいます)",
        r"(?:我是|我叫|我的名字是)(?P<name>[\u4e00-\u9fff]{2,4})(?![\u4e00-\u9fff])",
        r"(?:저는|제 이름은) ?(?P<name>[\uac00-\ud7a3]{2,4}?)(?:입니다|이라고|라고|이에요|예요)",
    )
    reports, addressed = (
        re.compile(rf"(?<!\w)(?:{either[key]})(?!\w)", re.IGNORECASE) for key in ("reports", "addressed")
    )
    return _Patterns(tuple(map(re.compile, names)), reports, addressed)


class Found(StrEnum):
    """What of a customer a text has, or what makes it unfit to be kept."""

    NAME = "a name of the customer's emails"
    DATE = "a date of the customer's emails"
    NUMBER = "a number or code of the customer's emails"
    QUOTE = "words of the customer's emails"
    INVENTED = "a number, date or code that the answer does not state for all"
    UNFIT = "what a draft check holds back (an address, a link, a key, markup)"


@dataclass(frozen=True)
class Case:
    """One customer's case: the customer's emails, what a person `said` about it, and what is `approved`."""

    customer: Customer
    said: tuple[str, ...]
    approved: tuple[str, ...]

    def find(self, text: str, instructions: str) -> Found | None:
        """What of the customer a text has; None when it may be kept. `instructions`: those of its writer."""
        if self._has_name(text):
            return Found.NAME
        free = (*self.approved, *self.statements)
        known = plain("\n".join(free))
        stated = read_values(known)
        for value in read_values(plain(text)):
            if not value.is_soft and not find_carriers(value, stated, known):
                return self._name_value(value)
        if find_carried(text, self.customer.texts, free):
            return Found.QUOTE
        sources = [Source("", SourceKind.OURS, "", said) for said in free]
        sources += [Source("", SourceKind.SENDER, "", said) for said in self.customer.texts]
        checked = check_draft(text, sources, instructions, hold_back_sender_values=True)
        return Found.UNFIT if checked.failed else None

    @cached_property
    def statements(self) -> tuple[str, ...]:
        """The sentences in which a person states something that is not of this customer alone."""
        sentences = (
            sentence
            for text in self.said
            for sentence in split_sentences(_QUOTED.sub(" ", _drop_greeting(text)))
        )
        return tuple(sentence for sentence in sentences if self._is_statement(sentence))

    def _is_statement(self, sentence: str) -> bool:
        is_other = sentence.rstrip().endswith(("?", "？")) or _patterns().reports.search(sentence) is not None
        values = read_values(plain(sentence))
        readings = {reading for value in values for reading in _identify(value)}
        # What is told the customer of an amount of theirs, as that they get it back, is no rule.
        is_addressed = _patterns().addressed.search(sentence) is not None
        is_theirs = is_addressed and any(
            _is_money(value) and find_carriers(value, self._values, self._text) for value in values
        )
        return not (is_other or is_theirs or readings & self._identifying or self._has_name(sentence))

    def _name_value(self, value: Value) -> Found:
        if not find_carriers(value, self._values, self._text):
            return Found.INVENTED
        return Found.DATE if DATE in value.kinds else Found.NUMBER

    @cached_property
    def _text(self) -> str:
        return plain("\n".join(self.customer.texts))

    @cached_property
    def _values(self) -> tuple[Value, ...]:
        return read_values(self._text)

    @cached_property
    def _identifying(self) -> frozenset[Reading]:
        """The customer's dates, codes, links and long numbers, unless approved text has them too."""
        known = {
            reading
            for value in read_values(plain("\n".join(self.approved)))
            for reading in (*value.readings, *value.also)
        }
        return frozenset(reading for value in self._values for reading in _identify(value)) - known

    def _has_name(self, text: str) -> bool:
        folded = fold(text)
        words = list_words(folded)
        for name in self._names:
            if re.match(f"[{UNSPACED}]", name):
                if name in folded:
                    return True
            elif any(_has_ending(word, name) for word in words):
                return True
        return False

    @cached_property
    def _names(self) -> frozenset[str]:
        """What names the customer and others in headers, signatures, greetings and sentences."""
        found = {
            word
            for text in (
                *_list_header_names(self.customer.headers),
                *self._list_named(),
                *self._list_capitalised(),
            )
            for word in list_words(fold(text))
        }
        common = {word for text in self.approved for word in list_words(fold(text))}
        # A word that a person writes in small letters is no name: "will", "support".
        written = (word for text in self.said for word in _drop_greeting(text).split()[:-1])
        small = {fold(word.strip(_ENDS)) for word in written if word.strip(_ENDS).islower()}
        return frozenset(found - common - small - _list_polite())

    def _list_named(self) -> Iterator[str]:
        for text in (*self.customer.texts, *self.said):
            for pattern in _patterns().names:
                for match in pattern.finditer(text):
                    # In scripts with capitals a name ends before the first word without one.
                    yield " ".join(takewhile(lambda word: not word.islower(), match["name"].split()))
        for text in self.customer.texts:
            yield from _list_signature(text)
        for text in self.said:
            yield _find_greeted(text)
            yield _list_capitals(text.rstrip().rpartition("\n")[2])  # who signs

    def _list_capitalised(self) -> Iterator[str]:
        """The customer's capitalised words within sentences: full names, and what no person wrote.

        A single one that a person wrote too may be a town or, in German, any noun: it is no name here.
        """
        written = {word for text in self.said for word in list_words(fold(text))}
        for sentence in (sentence for text in self.customer.texts for sentence in split_sentences(text)):
            words = sentence.split()[1:]
            for before, word in zip(["", *words], words, strict=False):
                name = _find_capitalised(word)
                if not name or before[-1:].isdigit():  # "3 March"
                    continue
                is_full = _find_capitalised(before) and before[-1] not in _ENDS and sentence[-1] in _ENDS
                parts = list_words(fold(name))
                if is_full:
                    yield f"{before} {name}"
                elif not any(_is_near(part, other) for part in parts for other in written):
                    yield name


def _find_capitalised(word: str) -> str:
    """The word without its marks if a capital begins it; "" for a pronoun that some languages write so."""
    bare = word.strip(_ENDS + _MARKS)
    is_pronoun = _patterns().addressed.fullmatch(bare) is not None
    return bare if bare[:1].isupper() and len(bare) > 1 and not is_pronoun else ""


def _is_near(one: str, other: str) -> bool:
    return _has_ending(one, other) or _has_ending(other, one)


def _has_ending(word: str, stem: str) -> bool:
    """Whether a word is another one, or that with an ending."""
    is_long = len(stem) >= MIN_STEM and len(word) <= len(stem) + MAX_ENDING
    return word == stem or (is_long and word.startswith(stem))


def _is_money(value: Value) -> bool:
    return value.unit is not None and value.unit.kind.isupper()


def _identify(value: Value) -> Iterator[Reading]:
    """Those readings of a value that may tell one customer from others."""
    years = range(FIRST_YEAR, LAST_YEAR)
    is_long = value.unit is None and any(n >= LONG_NUMBER and n not in years for n in value.numbers)
    for kind, reading in value.readings | value.also:
        if kind in (DATE, CODE, LINK) or (kind == NUMBER and is_long):
            yield kind, reading


def _list_header_names(headers: Iterable[str]) -> Iterator[str]:
    for header in headers:
        address = parse_address(header)
        local, _, host = address.rpartition("@")
        yield header.partition("<")[0].replace(address, " ")
        yield re.sub(r"[._+-]", " ", f"{local} {host.rpartition('.')[0]}")


def _list_signature(text: str) -> Iterator[str]:
    """The capitalised words of the short lines with which an email ends."""
    words = split_own_words(text)
    ends = [*words.own.splitlines()[-MAX_SIGNATURE_LINES:], *words.rest.splitlines()]
    return (_list_capitals(line) for line in ends)


def _list_capitals(line: str) -> str:
    """The words of a line as signatures have them that are not in small letters."""
    found = _WORD.findall(line)
    is_text = (
        line.startswith(">") or line.rstrip().endswith((*".?。？！؟।",)) or len(found) > MAX_SIGNATURE_WORDS
    )
    return "" if is_text else " ".join(word for word in found if not word.islower())


@cache
def _list_polite() -> frozenset[str]:
    """The words with which emails begin and end."""
    phrases = (p for language in load_languages() for p in (*language.greetings, *language.closings))
    titles = (title for language in load_languages() for title in language.titles)
    return frozenset(word for text in (*phrases, *titles) for word in list_words(fold(text)))


def _split_greeting(text: str) -> tuple[str, str]:
    """What an email's greeting says besides its usual words, and the rest of the email."""
    first, _, rest = text.strip().partition("\n")
    line = f"{' '.join(_WORD.findall(first))} ".lower()
    for language in load_languages():
        for phrase in language.greetings:
            if line.startswith(f"{phrase.lower()} "):
                greeted, mark, more = _partition(first)
                names = _WORD.findall(greeted)[len(phrase.split()) :]
                told = " ".join(name for name in names if name.lower() not in language.titles)
                return told, f"{more}\n{rest}" if mark else rest
    return "", text


def _partition(line: str) -> tuple[str, str, str]:
    mark = re.search(r"[,!:;–]", line)
    return (line[: mark.start()], mark.group(), line[mark.end() :]) if mark else (line, "", "")


def _find_greeted(text: str) -> str:
    return _split_greeting(text)[0]


def _drop_greeting(text: str) -> str:
    return _split_greeting(text)[1]
