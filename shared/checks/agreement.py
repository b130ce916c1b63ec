"""Agreement: whether a sentence says no more and nothing else than the words of its source."""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from shared.checks.lexicon import CJK, find_language, find_pattern, find_words, load_table, lower
from shared.checks.values import NUMBER, Value, find_carriers, read_values

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

    `columns` has the cells of a quoted row, each with the header of its column, `other_rows` the cells of the
    rest of the table; `elsewhere` is the rest of the source. All of it is plain text.
    """

    language: str
    quote: str
    body: str
    context: str = ""
    columns: tuple[tuple[str, str], ...] = ()
    other_rows: tuple[tuple[str, ...], ...] = ()
    elsewhere: str = ""


@dataclass(frozen=True)
class _Text:
    """A text as it is compared."""

    text: str
    known_language: str = ""

    @functools.cached_property
    def low(self) -> str:
        return lower(self.text)

    @functools.cached_property
    def meaning(self) -> str:
        """The text in small letters, denials that state something in the word for that."""
        low = self.low
        for word in load_table("rewrites"):
            low = find_pattern("rewrites", word).sub(f" {word} ", low)
        return low

    @functools.cached_property
    def values(self) -> tuple[Value, ...]:
        return read_values(self.text)

    @functools.cached_property
    def language(self) -> str:
        return self.known_language or find_language(self.text)

    @functools.cached_property
    def words(self) -> tuple[str, ...]:
        """The words that mean something by themselves, each once."""
        return tuple(dict.fromkeys(_content_words(self.low, self.language)))


def find_gap(sentence: str, evidence: Evidence) -> Gap | None:
    """What of a sentence the evidence does not carry; None when all is in it."""
    said, quote = _Text(sentence), _Text(evidence.quote, evidence.language)
    body = _Text(evidence.body, evidence.language)
    around = _Text(f"{evidence.body} ; {evidence.context}", evidence.language)
    if not _carries_values(said, quote, around, evidence):
        return Gap.VALUE
    if _names_another_row(said, evidence):
        return Gap.PASSAGE
    if not _agrees_in_direction(said, quote, around):
        return Gap.DIRECTION
    if not _carries_names(said, quote, around, evidence):
        return Gap.NAME
    if not _agrees_in_opposites(said, quote, around, evidence):
        return Gap.OPPOSITE
    if not _agrees_in_negation(said, quote):
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
    if any(value.kinds & other.kinds for value in outside for other in unused):
        return False
    return not _takes_from_another_clause(said, quote, evidence, used)


def _takes_from_another_clause(said: _Text, quote: _Text, evidence: Evidence, used: Sequence[Value]) -> bool:
    """Whether a value of the quote is said of what the quote says of another value of its kind."""
    clauses = [_Text(f"{header} ; {cell}") for header, cell in evidence.columns] or _cut_clauses(quote)
    if len(clauses) < 2:  # noqa: PLR2004
        return False
    readings = {reading for value in used for reading in value.readings}
    for own in _cut_clauses(said):
        for value in own.values:
            theirs = [c for c in clauses if find_carriers(value, c.values, c.text)]
            rivals = [
                c
                for c in clauses
                if c not in theirs
                and any(v.kinds & value.kinds and not v.readings & readings for v in c.values)
            ]
            for_them = max(
                (_count_shared(own, clause, rival) for clause in theirs for rival in rivals), default=0
            )
            against = max(
                (_count_shared(own, rival, clause) for clause in theirs for rival in rivals), default=0
            )
            if against > for_them:
                return True
    return False


_CLAUSE_END = re.compile(r"[,;:.。、](?!\d)|(?<= )(?:and|und|et|y|i|oraz|but|aber|mais|pero|ale) ")


def _cut_clauses(text: _Text) -> list[_Text]:
    return [_Text(piece, text.language) for piece in _CLAUSE_END.split(text.text) if piece.strip()]


def _count_shared(said: _Text, clause: _Text, other: _Text) -> int:
    """How many words and concepts a sentence shares with one clause and not with the other one."""
    words = [w for w in clause.words if not any(_is_alike(w, o) for o in other.words)]
    count = sum(any(_is_alike(word, own) for own in said.words) for word in words)
    ours, theirs, others = _find_members(said), _find_members(clause), _find_members(other)
    return count + sum(bool(ours.get(g, set()) & (m - others.get(g, set()))) for g, m in theirs.items())


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
    glue = r"(?:[^\w;.]{1,3}[^\W\d]{1,5}){0,2}[^\w;]{0,3}$"
    found = []
    for limit in ("at_most", "at_least"):
        before = find_pattern(f"{limit}_before", language).pattern
        after = find_pattern(f"{limit}_after", language).pattern
        found.append(
            (
                limit,
                re.compile(f"(?P<word>{before}){glue}"),
                re.compile(rf"[^\w;.]{{0,3}}(?:(?!\d)\w{{1,20}} ){{0,2}}(?P<word>{after})"),
            )
        )
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


def _carries_names(said: _Text, quote: _Text, around: _Text, evidence: Evidence) -> bool:
    """Each name is in the quote; or around it, unless the quote has a name that the sentence does not use."""
    places = {place for word in find_words(said.low) if (place := _find_place(word)) is not None}
    if not all(find_pattern("places", place).search(around.low) for place in places):
        return False
    here = _list_sounds(quote)
    near = here + _list_sounds(around)
    far = set(find_words(lower(evidence.elsewhere)))
    is_outside = False
    for name, is_certain in _find_names(said):
        if not any(_is_alike(name, word) for word in near) and name not in around.low:
            if is_certain or (name in far and said.language != quote.language):
                return False
        elif is_certain and name not in lower(evidence.context):
            is_outside |= not any(_is_alike(name, word) for word in here)
    ours = _list_sounds(said)
    return not is_outside or all(
        any(_is_alike(name, word) for word in ours) for name, is_certain in _find_names(quote) if is_certain
    )


def _find_place(word: str) -> str | None:
    """The country that a word names."""
    return next(
        (place for place in load_table("places") if find_pattern("places", place).fullmatch(word)), None
    )


def _list_sounds(text: _Text) -> list[str]:
    """The words of a text, and those in kana as they sound in Latin letters."""
    return find_words(text.low) + find_words(_romanise(text.text))


def _find_names(text: _Text) -> Iterator[tuple[str, bool]]:
    """Words with a capital; certain ones are neither the first of a sentence nor any noun of German."""
    taken = [(value.start, value.end) for value in text.values]
    titles, none = find_pattern("names", "title"), find_pattern("names", "none")
    for match in _NAME.finditer(text.text):
        word, low = match.group(), lower(match.group())
        if not word[0].isupper() or titles.fullmatch(low) or none.fullmatch(low):
            continue
        if _find_place(low) is not None:
            continue
        if any(start <= match.start() < end for start, end in taken) or find_pattern(
            "languages", ""
        ).fullmatch(low):
            continue
        before = text.text[: match.start()].rstrip(" (-")
        is_first = not before or before[-1] in ".:!?"
        is_marked = (
            before[-1:] == '"' or titles.fullmatch(lower(before.rstrip(".").rpartition(" ")[2])) is not None
        )
        is_shaped = any(c.isupper() for c in word[1:])
        yield low.split("'")[-1], is_marked or (not is_first and (text.language != "de" or is_shaped))


@functools.cache
def _members() -> tuple[tuple[str, str, re.Pattern[str]], ...]:
    return tuple(
        (group, member, find_pattern(f"opposites.{group}", member))
        for group, members in load_table("opposites").items()
        for member in members
    )


def _find_members(text: _Text) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    low = find_pattern("no_opposite", "all").sub(" ", text.meaning)
    for group, member, pattern in _members():
        if pattern.search(low):
            found.setdefault(group, set()).add(member)
    return found


def _agrees_in_opposites(said: _Text, quote: _Text, around: _Text, evidence: Evidence) -> bool:
    theirs, near, far = (
        _find_members(quote),
        _find_members(around),
        _find_members(_Text(evidence.elsewhere, evidence.language)),
    )
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
        if any(
            find_carriers(value, values, f"{header} {cell}") for value in said.values if not value.is_soft
        ):
            used.append(header)
    return " ; ".join(used)


def _names_another_row(said: _Text, evidence: Evidence) -> bool:
    """Whether a sentence has a cell of another row of the table, and not that of the quoted row in its column."""
    own = [lower(cell) for _, cell in evidence.columns]
    text = f" {_space_words(said.low)} "
    for row in evidence.other_rows:
        for cell, ours in zip((lower(cell) for cell in row), own, strict=False):
            if cell != ours and re.search(r"[^\W\d_]", cell) and f" {_space_words(cell)} " in text:
                if f" {_space_words(ours)} " not in text:
                    return True
    return False


def _space_words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text))


# ---- Negation and conditions ------------------------------------------------------------------------


def _is_negative(text: _Text) -> bool:
    """Whether a text denies something."""
    rest = find_pattern("no_negation", text.language).sub(" ", text.meaning)
    return find_pattern("negation", text.language).search(rest) is not None


def _agrees_in_negation(said: _Text, quote: _Text) -> bool:
    """Whether both deny or neither does; "only if" is as good as "not unless".

    Two conditions are compared by themselves; where only one text has one, it may have been put in other words.
    """
    ours, theirs = _split_condition(said), _split_condition(quote)
    if len(ours) == len(theirs):
        agrees = all(map(_is_alike_in_negation, ours, theirs))
    else:
        agrees = _is_alike_in_negation(said, quote) or _is_alike_in_negation(ours[0], theirs[0])
    denied, stated = (said, quote) if _is_negative(said) else (quote, said)
    return agrees or bool(
        find_pattern("unless", denied.language).search(denied.low)
        and find_pattern("only", stated.language).search(stated.low)
    )


def _is_alike_in_negation(said: _Text, quote: _Text) -> bool:
    """Whether both deny or neither does; a denial in other words is as good as either."""
    is_open = any(text.meaning != text.low and not _is_negative(text) for text in (said, quote))
    return is_open or _is_negative(said) == _is_negative(quote)


def _split_condition(text: _Text) -> list[_Text]:
    """A text without its condition, and the condition if it begins with a word that means if."""
    match = find_pattern("if", text.language).search(text.low) if text.language in load_table("if") else None
    if match is None:
        return [text]
    end = re.compile("[,;:.]").search(text.text, match.end())
    stop = end.start() if end is not None else len(text.text)
    main = f"{text.text[: match.start()]} {text.text[stop:]}"
    return [_Text(main, text.language), _Text(text.text[match.start() : stop], text.language)]


def _drops_condition(said: _Text, quote: _Text, body: _Text) -> bool:
    """Whether the source words have a condition, or people whom they are about, of which the sentence knows nothing."""
    for people in load_table("limited_to"):
        pattern = find_pattern("limited_to", people)
        if pattern.search(quote.low) and not pattern.search(said.low):
            return True
    if any(find_pattern(table, said.language).search(said.low) for table in ("condition", "condition_kept")):
        return False
    if _drops_limit(said, quote):
        return True
    for match in find_pattern("condition", body.language).finditer(body.low):
        clause = _Text(_cut_clause(body, match), body.language)
        if not _is_kept(clause, said):
            return True
    return False


def _drops_limit(said: _Text, quote: _Text) -> bool:
    """Whether a limit ("before noon") is left out of what the quote says of the same."""
    clauses = _cut_clauses(quote)
    for clause in clauses:
        limited = [value for value in clause.values if not value.is_soft and _find_limits(clause, value)]
        if not limited or any(find_carriers(value, said.values, said.text) for value in clause.values):
            continue
        ours, theirs = _find_members(said), _find_members(clause)
        is_same = any(ours.get(group, set()) & members for group, members in theirs.items())
        if is_same or any(_is_alike(word, own) for word in clause.words for own in said.words):
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
    far = _Text(evidence.elsewhere, evidence.language)
    if said.language != around.language or not said.words:
        return None
    near = [word for word in said.words if any(_is_alike(word, other) for other in around.words)]
    strange = [word for word in said.words if word not in near]
    elsewhere = [word for word in strange if any(_is_alike(word, other) for other in far.words)]
    if len(elsewhere) > MAX_WORDS_FROM_ELSEWHERE * len(said.words):
        return Gap.PASSAGE
    has_values = any(not value.is_soft for value in said.values)
    return None if has_values or len(near) >= MIN_SHARED_WORDS * len(said.words) else Gap.WORDS


def _content_words(low: str, language: str) -> Iterator[str]:
    if language == "ja":
        yield from (
            match.group() for match in re.finditer("[\u30a1-\u30fa\u30fc]{2,}|[\u4e00-\u9fff]{2,}", low)
        )
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
