"""Agreement: whether a sentence says no more and nothing else than the words of its source."""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from shared.checks.lexicon import CJK, find_language, find_pattern, find_words, load_table, lower, plain
from shared.checks.values import CODE, LINK, NUMBER, Value, find_carriers, read_values

MIN_STEM = 4  # letters in which two words are the same although their endings differ
MAX_BOUND_WORDS = 34  # characters around a number in which the words of a limit are looked for
MIN_SHARED_WORDS = 0.25
MAX_WORDS_FROM_ELSEWHERE = 0.34


class Gap(StrEnum):
    """What of a sentence its source does not carry."""

    VALUE = "value"
    NAME = "name"
    DIRECTION = "direction"
    NEGATION = "negation"
    CONDITION = "condition"
    OPPOSITE = "opposite"
    PASSAGE = "passage"
    WORDS = "words"


@dataclass(frozen=True, slots=True)
class Evidence:
    """The words of a source: the quoted ones, the sentences or rows around them, and what these stand under.

    `columns` has the cells of a quoted row, each with the header of its column; `elsewhere` is the rest of
    the source. All of it is plain text.
    """

    quote: str
    body: str
    context: str = ""
    columns: tuple[tuple[str, str], ...] = ()
    elsewhere: str = ""


@dataclass(frozen=True)
class _Text:
    """A text as it is compared."""

    text: str

    @functools.cached_property
    def low(self) -> str:
        return lower(self.text)

    @functools.cached_property
    def values(self) -> tuple[Value, ...]:
        return read_values(self.text)

    @functools.cached_property
    def language(self) -> str:
        return find_language(self.text)

    @functools.cached_property
    def words(self) -> tuple[str, ...]:
        """The words that mean something by themselves, each once."""
        return tuple(dict.fromkeys(_content_words(self.low, self.language)))


def find_gap(sentence: str, evidence: Evidence) -> Gap | None:
    """What of a sentence the evidence does not carry; None when all is in it."""
    said, quote = _Text(sentence), _Text(evidence.quote)
    body = _Text(evidence.body)
    around = _Text(f"{evidence.body} ; {evidence.context}")
    if not _carries_values(said, quote, around, evidence):
        return Gap.VALUE
    if not _agrees_in_direction(said, quote, around):
        return Gap.DIRECTION
    if not _carries_names(said, around, evidence):
        return Gap.NAME
    if not _agrees_in_opposites(said, quote, around, evidence):
        return Gap.OPPOSITE
    if _is_negative(said) != _is_negative(quote):
        return Gap.NEGATION
    if _drops_condition(said, quote, body):
        return Gap.CONDITION
    return _find_gap_in_words(said, around, evidence)


# ---- Values -----------------------------------------------------------------------------------------


def _carries_values(said: _Text, quote: _Text, around: _Text, evidence: Evidence) -> bool:
    """Each value is in the quote; or around it, unless the quote has another of its kind that goes unused."""
    used: list[Value] = []
    outside: list[Value] = []
    for value in said.values:
        if carriers := find_carriers(value, quote.values, around.text):
            used += carriers
        elif value.is_soft:
            rivals = [v for v in around.values if v.kinds & value.kinds - {NUMBER} and not v.is_soft]
            if rivals and not find_carriers(value, around.values, around.text):
                return False
        elif find_carriers(value, around.values, around.text):
            outside.append(value)
        else:
            return False
    unused = [value for value in quote.values if value not in used and not value.is_soft]
    return not any(value.kinds & other.kinds for value in outside for other in unused)


def _agrees_in_direction(said: _Text, quote: _Text, around: _Text) -> bool:
    """No limit is the other way round: "up to 5" is not "at least 5"."""
    for value in said.values:
        limits = _find_limits(said, value)
        carriers = find_carriers(value, quote.values, around.text)
        their_limits = {limit for carrier in carriers for limit in _find_limits(quote, carrier)}
        if limits and their_limits and not limits & their_limits:
            return False
    return True


@functools.cache
def _limit_patterns(language: str) -> tuple[tuple[str, re.Pattern[str], re.Pattern[str]], ...]:
    glue = r"(?:[^\w;.]{1,3}[^\W\d]{1,4}){0,2}[^\w;]{0,3}$"
    found = []
    for limit in ("at_most", "at_least"):
        before = find_pattern(f"{limit}_before", language).pattern
        after = find_pattern(f"{limit}_after", language).pattern
        found.append((limit, re.compile(f"(?P<word>{before}){glue}"), re.compile(rf"[^\w;.]{{0,3}}(?P<word>{after})")))
    return tuple(found)


def _find_limits(text: _Text, value: Value) -> set[str]:
    """The limits that the words directly before and after a value make of it."""
    before = text.low[max(0, value.start - MAX_BOUND_WORDS) : value.start]
    after = text.low[value.end : value.end + MAX_BOUND_WORDS]
    found: dict[str, int] = {}
    for limit, left, right in _limit_patterns(text.language):
        for match in (left.search(before), right.match(after)):
            if match is not None:
                found[limit] = max(found.get(limit, 0), len(match["word"]))
    longest = max(found.values(), default=0)
    return {limit for limit, length in found.items() if length == longest}


# ---- Names and opposites ----------------------------------------------------------------------------

_NAME = re.compile(r"[^\W\d_][\w'&-]*")
_TITLES = frozenset(
    "mr mrs ms dr prof herr frau herrn mme m mlle monsieur madame sr sra senor senora pan pani pana panstwo panstwa "
    "panu i sie ihr ihre ihnen ihrem ihren ihrer usted ustedes dear hello hi vous votre".split()
)


def _carries_names(said: _Text, around: _Text, evidence: Evidence) -> bool:
    """Names are in the source words, as those of other scripts sound."""
    near = find_words(around.low) + find_words(_romanise(around.text))
    far = set(find_words(lower(evidence.elsewhere)))
    for name, is_certain in _find_names(said):
        if any(_is_alike(name, word) for word in near) or name in around.low:
            continue
        if is_certain or name in far:
            return False
    return True


def _find_names(said: _Text) -> Iterator[tuple[str, bool]]:
    """Words with a capital; certain ones are neither the first of a sentence nor any noun of German."""
    taken = [(value.start, value.end) for value in said.values]
    for match in _NAME.finditer(said.text):
        word = match.group()
        low = lower(word)
        if not word[0].isupper() or low in _TITLES or len(word) < 2:  # noqa: PLR2004
            continue
        if any(start <= match.start() < end for start, end in taken) or find_pattern("languages", "").fullmatch(low):
            continue
        before = said.text[: match.start()].rstrip(" \"'(-")
        is_first = not before or before[-1] in ".:!?"
        is_shaped = any(c.isupper() for c in word[1:]) and not word.isupper()
        is_titled = lower(before.rpartition(" ")[2]).rstrip(".") in _TITLES
        is_quoted = said.text[match.start() - 1 : match.start()] in ('"',)
        is_certain = not is_first and (said.language != "de" or is_shaped or is_titled or is_quoted)
        yield low.split("'")[-1], is_certain


@functools.cache
def _members() -> tuple[tuple[str, str, re.Pattern[str]], ...]:
    return tuple(
        (group, member, find_pattern(f"opposites.{group}", member))
        for group, members in load_table("opposites").items()
        for member in members
    )


def _find_members(text: _Text) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for group, member, pattern in _members():
        if pattern.search(text.low):
            found.setdefault(group, set()).add(member)
    return found


def _agrees_in_opposites(said: _Text, quote: _Text, around: _Text, evidence: Evidence) -> bool:
    theirs, near, far = _find_members(quote), _find_members(around), _find_members(_Text(evidence.elsewhere))
    headers = _find_used_headers(said, quote, evidence)
    heading = _find_members(_Text(headers))
    for group, members in _find_members(said).items():
        there = theirs.get(group, set()) | heading.get(group, set()) or near.get(group, set())
        if there and not members & there:
            return False
        if not there and members & far.get(group, set()):
            return False
    return True


def _find_used_headers(said: _Text, quote: _Text, evidence: Evidence) -> str:
    """The headers of those cells that carry a value of the sentence."""
    used = []
    for header, cell in evidence.columns:
        values = read_values(cell)
        if any(find_carriers(value, values, f"{header} {cell}") for value in said.values if not value.is_soft):
            used.append(header)
    return " ; ".join(used)


# ---- Negation and conditions ------------------------------------------------------------------------


def _is_negative(text: _Text) -> bool:
    """Whether a text denies something."""
    rest = find_pattern("no_negation", text.language).sub(" ", text.low)
    return find_pattern("negation", text.language).search(rest) is not None


def _drops_condition(said: _Text, quote: _Text, body: _Text) -> bool:
    """Whether the source words have a condition of which the sentence knows nothing."""
    if find_pattern("condition", said.language).search(said.low):
        return False
    for match in find_pattern("condition", body.language).finditer(body.low):
        clause = _Text(_cut_clause(body, match))
        if not _is_kept(clause, said):
            return True
    return False


def _cut_clause(text: _Text, match: re.Match[str]) -> str:
    """The words under a condition: in Japanese those before it, elsewhere those after it."""
    if text.language == "ja":
        return re.split("[、。,;:]", text.text[: match.start()])[-1]
    return re.split("[,;:.]", text.text[match.end() :], maxsplit=1)[0]


def _is_kept(clause: _Text, said: _Text) -> bool:
    values = [value for value in clause.values if not value.is_soft]
    if values and all(find_carriers(value, said.values, said.text) for value in values):
        return True
    if clause.language == said.language or not clause.language:
        shared = [word for word in clause.words if any(_is_alike(word, other) for other in said.words)]
        return len(shared) * 2 >= len(clause.words)
    members, theirs = _find_members(clause), _find_members(said)
    if any(members[group] & theirs.get(group, set()) for group in members):
        return True
    return any(_is_alike(word, other) for word in clause.words for other in said.words)


# ---- Words ------------------------------------------------------------------------------------------


def _find_gap_in_words(said: _Text, around: _Text, evidence: Evidence) -> Gap | None:
    """In one language enough words have to be shared, and few may be those of another passage alone."""
    far = _Text(evidence.elsewhere)
    if said.language != around.language or not said.words:
        return None
    near = [word for word in said.words if any(_is_alike(word, other) for other in around.words)]
    strange = [word for word in said.words if word not in near]
    elsewhere = [word for word in strange if any(_is_alike(word, other) for other in far.words)]
    if len(elsewhere) > MAX_WORDS_FROM_ELSEWHERE * len(said.words):
        return Gap.PASSAGE
    return Gap.WORDS if len(near) < MIN_SHARED_WORDS * len(said.words) else None


def _content_words(low: str, language: str) -> Iterator[str]:
    if language == "ja":
        yield from (match.group() for match in re.finditer("[\u30a1-\u30fa\u30fc]{2,}|[\u4e00-\u9fff]{2,}", low))
    function_words = find_pattern("languages", language)
    numbers = find_pattern("numbers", "")
    for word in find_words(low):
        if len(word) >= 3 and not re.match(f"[{CJK}]", word):  # noqa: PLR2004
            if not function_words.fullmatch(word) and not numbers.fullmatch(word):
                yield word


def _is_alike(word: str, other: str) -> bool:
    """Whether two words differ only in their endings, or one is part of the other."""
    if word == other:
        return True
    if re.match(f"[{CJK}]", word):
        pairs = {word[i : i + 2] for i in range(len(word) - 1)}
        return any(pair in other for pair in pairs)
    shorter, longer = sorted((word, other), key=len)
    if len(shorter) < MIN_STEM:
        return False
    same = next((i for i, (a, b) in enumerate(zip(shorter, longer, strict=False)) if a != b), len(shorter))
    return same >= max(MIN_STEM, 0.6 * len(shorter)) or (len(shorter) > MIN_STEM and shorter in longer)


_KANA_ROWS = {
    "": "アイウエオ", "k": "カキクケコ", "s": "サシスセソ", "t": "タチツテト", "n": "ナニヌネノ", "h": "ハヒフヘホ",
    "m": "マミムメモ", "r": "ラリルレロ", "g": "ガギグゲゴ", "z": "ザジズゼゾ", "d": "ダヂヅデド", "b": "バビブベボ",
    "p": "パピプペポ", "y": "ヤ_ユ_ヨ", "w": "ワ___ヲ",
}  # fmt: skip
_ROMAJI = {
    kana: {"si": "shi", "ti": "chi", "tu": "tsu", "hu": "fu", "zi": "ji"}.get(row + vowel, row + vowel)
    for row, letters in _KANA_ROWS.items()
    for kana, vowel in zip(letters, "aiueo", strict=True)
} | {"ン": "n", "ー": "", "ッ": "", "ャ": "ya", "ュ": "yu", "ョ": "yo"}


def _romanise(text: str) -> str:
    """The kana of a text in Latin letters."""
    katakana = (chr(ord(c) + 0x60) if "ぁ" <= c <= "ゖ" else c for c in text)
    return "".join(_ROMAJI.get(c, c if c == " " else " ") for c in katakana)
