"""Agreement: whether a sentence says no more and nothing else than the words of its source."""

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from math import ceil

from shared.checks.lexicon import CJK, find_language, find_pattern, find_words, load_table, lower
from shared.checks.values import NUMBER, Value, find_carriers, read_values

MIN_WORD = 3
MIN_STEM = 4  # letters in which two words are the same although their endings differ
STEM_SHARE = 0.6  # of the shorter one
MAX_BOUND_CHARACTERS = 34  # around a number, in which the words of a limit are looked for
MAX_MISSING_WORDS = 0.25  # of a sentence in the language of its source
MAX_WORDS_FROM_ELSEWHERE = 0.34
MIN_CLOSE_WORDS = 0.6  # in common: a sentence repeats its quote
DENYING_SYLLABLES = ("un", "in", "im", "non", "nie")
TOPIC_GROUPS = ("topic ", "subject", "remedy")
MAX_ANSWER_WORDS = 1  # of a clause that answers the customer: "No, …"


class Gap(StrEnum):
    """What of a sentence its source does not carry."""

    VALUE = "value"
    PASSAGE = "passage"
    NAME = "name"
    NEGATION = "negation"
    CONDITION = "condition"
    OPPOSITE = "opposite"
    WORDS = "words"


@dataclass(frozen=True, slots=True, repr=False)
class Evidence:
    """The words of a source: the quoted ones, the sentences or rows around them, and what these stand under.

    `columns` has the cells of a quoted row, each with the header of its column, `other_rows` the cells of the
    rest of the table; `elsewhere` is the rest of the source, `told` what the customer wrote, `units` the
    text before a table and at the start of its document, `names` those of codes in the quote. All of it is
    plain text.
    """

    language: str
    quote: str
    body: str
    context: str = ""
    columns: tuple[tuple[str, str], ...] = ()
    other_rows: tuple[tuple[str, ...], ...] = ()
    elsewhere: str = ""
    told: str = ""
    units: str = ""
    names: str = ""


_CJK_WORD = re.compile("[\u30a1-\u30fa\u30fc]{2,}|[\u4e00-\u9fff]{2,}")


@dataclass(frozen=True, repr=False)
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
        function_words, numbers = find_pattern("languages", self.language), find_pattern("numbers", "")
        found = _CJK_WORD.findall(self.low) if self.language == "ja" else []
        for word in find_words(self.low):
            is_short = len(word) < MIN_WORD or re.match(f"[{CJK}]", word) is not None
            if not is_short and not function_words.fullmatch(word) and not numbers.fullmatch(word):
                found.append(word)
        return tuple(dict.fromkeys(found))


# A source is compared with several sentences.
_read = functools.lru_cache(maxsize=1_024)(_Text)


def find_gap(sentence: str, evidence: Evidence, likely_language: str = "") -> Gap | None:
    """What of a sentence the evidence does not carry; None when all is in it."""
    said = _read(sentence, find_language(sentence, likely_language))
    quote = _read(evidence.quote, evidence.language)
    body = _read(evidence.body, evidence.language)
    around = _read(f"{evidence.body} ; {evidence.context}", evidence.language)
    checks: Sequence[tuple[Gap, Callable[[], bool]]] = (
        (Gap.VALUE, lambda: _carries_values(said, quote, around, evidence)),
        (Gap.PASSAGE, lambda: not _takes_from_elsewhere(said, quote, evidence)),
        (Gap.NAME, lambda: _carries_names(said, quote, around, evidence)),
        (Gap.OPPOSITE, lambda: _agrees_in_opposites(said, quote, around, evidence)),
        (Gap.NEGATION, lambda: _agrees_in_negation(said, quote, evidence.columns)),
        (Gap.CONDITION, lambda: not _drops_condition(said, quote, body, evidence.columns)),
        (Gap.WORDS, lambda: _agrees_in_words(said, around, evidence)),
    )
    return next((gap for gap, agrees in checks if not agrees()), None)


def denies(text: str, language: str) -> bool:
    """Whether a plain text denies something; "" is a language that has to be found."""
    return _is_negative(_read(text, language))


def find_members(text: str) -> dict[str, set[str]]:
    """The opposites and topics that a plain text speaks of, by their groups."""
    return _find_members(_read(text))


# ---- Values -----------------------------------------------------------------------------------------


def _carries_values(said: _Text, quote: _Text, around: _Text, evidence: Evidence) -> bool:
    """Each value is in the quote; or around it, or the customer's own.

    In the latter cases the quote has no other value of its kind that goes unused: "your 34 kg dog may ride,
    up to 40 kg" has the page's figure besides the customer's.
    """
    told, text = _read(evidence.told), f"{around.text} ; {evidence.units}"
    outside: list[Value] = []
    for value in said.values:
        if find_carriers(value, quote.values, text):
            continue
        is_near = bool(find_carriers(value, around.values, text))
        if value.is_soft:
            rivals = [v for v in around.values if v.kinds & value.kinds - {NUMBER} and not v.is_soft]
            if rivals and not is_near:
                return False
        elif not is_near and not find_carriers(value, told.values, told.text):
            return False
        else:
            outside.append(value)
    used = _find_used(said, quote, text)
    unused = [value for value in quote.values if value not in used and not value.is_soft]
    for value in outside:
        bare = {NUMBER} if evidence.columns and value.unit is not None else set()  # the unit is in the header
        if any((value.kinds | bare) & other.kinds for other in unused):
            return False
    return True


def _find_used(said: _Text, quote: _Text, text: str) -> list[Value]:
    """The values of a quote that a sentence says."""
    return [carrier for value in said.values for carrier in find_carriers(value, quote.values, text)]


def _takes_from_elsewhere(said: _Text, quote: _Text, evidence: Evidence) -> bool:
    """Whether a sentence takes a cell from another row, or a value from another clause of the quote.

    The cell of the quoted row in the same column is then not said. The value is said of what the quote says
    of another value of its kind; in another language that stays open where nothing ties it to either.
    """
    text, cells = f" {_space_words(said.low)} ", [lower(cell) for _, cell in evidence.columns]
    if any(
        f" {_space_words(cell)} " in text
        and _read(cell).words
        and f" {_space_words(ours)} " not in text
        and _space_words(cell) not in map(_space_words, re.split("[,;/]", ours))
        for row in evidence.other_rows
        for cell, ours in zip(map(lower, row), cells, strict=False)
    ):
        return True
    clauses = [_read(f"{header} ; {cell}") for header, cell in evidence.columns] or _cut_clauses(quote)
    used = {reading for value in _find_used(said, quote, quote.text) for reading in value.readings}
    for own in _cut_clauses(said):
        named = set(_list_names(own))
        for value in (value for value in own.values if not value.is_soft):
            theirs = [clause for clause in clauses if find_carriers(value, clause.values, clause.text)]
            others = [clause for clause in clauses if theirs and clause not in theirs]
            kinds = value.kinds | {NUMBER}
            kept = {name for clause in theirs for name in _list_names(clause)}
            like = [clause for clause in others if any(v.kinds & kinds for v in clause.values)]
            strange = {name for clause in like for name in _list_names(clause)} - kept
            if named & strange and not named & kept:
                return True  # it names what only a clause with another value of the kind names
            rivals = [
                clause
                for clause in like
                if any(
                    v.kinds & value.kinds and not v.is_soft and v.readings.isdisjoint(used)
                    for v in clause.values
                )
            ]
            if not rivals:
                continue
            pairs = list(product(theirs, rivals))
            for_them = max(_count_shared(own, clause, rival) for clause, rival in pairs)
            against = max(_count_shared(own, rival, clause) for clause, rival in pairs)
            is_tied = for_them > 0 or said.language == quote.language or value.kinds == {NUMBER}
            if against > for_them or not is_tied:
                return True
    return False


def _list_names(text: _Text) -> list[str]:
    return [name for name, is_certain in _find_names(text) if is_certain]


_CLAUSE_END = re.compile(r"[,;:.。、](?!\d)|(?<= )(?:and|und|et|y|i|oraz|but|aber|mais|pero|ale) ")


def _cut_clauses(text: _Text) -> list[_Text]:
    return [_read(piece, text.language) for piece in _CLAUSE_END.split(text.text) if piece.strip()]


def _count_shared(said: _Text, clause: _Text, other: _Text) -> int:
    """How many words and concepts a sentence shares with one clause and not with the other one."""
    words = [word for word in clause.words if not _is_among(word, other.words)]
    count = sum(_is_among(word, said.words) for word in words)
    ours, theirs, others = _find_members(said), _find_members(clause), _find_members(other)
    return count + sum(bool(ours.get(g, set()) & (m - others.get(g, set()))) for g, m in theirs.items())


def _find_limits(text: _Text, value: Value) -> set[str]:
    """The limits that the words directly before and after a value make of it."""
    before = text.low[max(0, value.start - MAX_BOUND_CHARACTERS) : value.start]
    after = text.low[value.end : value.end + MAX_BOUND_CHARACTERS]
    glue = r"(?:[^\w;.]{1,3}[^\W\d]{1,5}){0,2}[^\w;]{0,3}"
    found: dict[str, int] = {}
    for limit in ("at_most", "at_least"):
        left = find_pattern(f"{limit}_before", text.language).pattern
        right = find_pattern(f"{limit}_after", text.language).pattern
        for match in (
            re.search(f"(?P<word>{left}){glue}$", before),
            re.match(rf"[^\w;.]{{0,3}}(?:(?!\d)\w{{1,20}} ){{0,2}}(?P<word>{right})", after),
        ):
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
    far, told = set(find_words(lower(evidence.elsewhere))), find_words(lower(evidence.told))
    is_outside = False
    for name, is_certain in _find_names(said):
        if not _is_among(name, near) and name not in around.low:
            if _is_among(name, told):
                is_outside |= is_certain
            elif is_certain or (name in far and said.language != quote.language):
                return False
        elif is_certain and name not in lower(evidence.context):
            is_outside |= not _is_among(name, here)
    ours = _list_sounds(said)
    theirs = _list_names(quote) + find_words(lower(evidence.names))
    return not is_outside or all(_is_among(name, ours) for name in theirs)


def _find_place(word: str) -> str | None:
    """The country that a word names."""
    return next(
        (place for place in load_table("places") if find_pattern("places", place).fullmatch(word)), None
    )


_KANA_ROWS = {
    "": "アイウエオ", "k": "カキクケコ", "s": "サシスセソ", "t": "タチツテト", "n": "ナニヌネノ",
    "h": "ハヒフヘホ", "m": "マミムメモ", "r": "ラリルレロ", "g": "ガギグゲゴ", "z": "ザジズゼゾ",
    "d": "ダヂヅデド", "b": "バビブベボ", "p": "パピプペポ", "y": "ヤ_ユ_ヨ", "w": "ワ___ヲ",
}  # fmt: skip
_ROMAJI = {
    kana: {"si": "shi", "ti": "chi", "tu": "tsu", "hu": "fu", "zi": "ji"}.get(row + vowel, row + vowel)
    for row, letters in _KANA_ROWS.items()
    for kana, vowel in zip(letters, "aiueo", strict=True)
} | {"ン": "n", "ー": "", "ッ": "", "ャ": "ya", "ュ": "yu", "ョ": "yo"}


def _list_sounds(text: _Text) -> list[str]:
    """The words of a text, and those in kana as they sound in Latin letters."""
    katakana = (chr(ord(c) + 0x60) if "ぁ" <= c <= "ゖ" else c for c in text.text)
    sounds = "".join(_ROMAJI.get(c, c if c == " " else " ") for c in katakana)
    return find_words(text.low) + find_words(sounds)


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


@functools.lru_cache(maxsize=1_024)
def _find_members(text: _Text) -> dict[str, set[str]]:
    """The opposites and topics that a text speaks of, by their groups."""
    found: dict[str, set[str]] = {}
    low = find_pattern("no_opposite", "all").sub(" ", text.meaning)
    for group, members in load_table("opposites").items():
        if said := {member for member in members if find_pattern(f"opposites.{group}", member).search(low)}:
            found[group] = said
    for topic in load_table("topics"):
        if find_pattern("topics", topic).search(low):
            found[f"topic {topic}"] = {topic}
    return found


def _agrees_in_opposites(said: _Text, quote: _Text, around: _Text, evidence: Evidence) -> bool:
    """No limit is the other way round, "at least 5" for "up to 5", and nothing else that has an opposite."""
    outside = find_pattern("both_or_neither", "outside")
    is_said = outside.search(said.low) is not None
    if is_said != (outside.search(around.low if is_said else quote.low) is not None):
        return False
    if said.language == around.language and (_turns_word(said, around) or _turns_word(around, said)):
        return False
    for value in said.values:
        limits = _find_limits(said, value)
        carriers = find_carriers(value, quote.values, around.text)
        their_limits = {limit for carrier in carriers for limit in _find_limits(quote, carrier)}
        if limits and their_limits and not limits & their_limits:
            return False
    theirs, near = _find_members(quote), _find_members(around)
    far = _read(evidence.elsewhere, evidence.language)
    values = [value for value in said.values if not value.is_soft]
    headers = [
        header
        for header, cell in evidence.columns
        if any(find_carriers(value, _read(cell).values, f"{header} {cell}") for value in values)
    ]
    heading = _find_members(_read(" ; ".join(headers)))
    names = {name for name, _ in _find_names(said)}
    words = [word for word in said.words if word not in names]
    shared = sum(_is_among(word, quote.words) for word in words)
    is_close = bool(words) and shared >= MIN_CLOSE_WORDS * len(words)
    has_amount = any(kind.isupper() for value in quote.values for kind in value.kinds)
    for group, members in _find_members(said).items():
        there = theirs.get(group, set()) | heading.get(group, set()) or near.get(group, set())
        if there and not members & there:
            return False
        is_told = is_close or (has_amount and group == "topic payment")
        if not there and not is_told and members & _find_members(far).get(group, set()):
            return False
    return True


def _turns_word(text: _Text, other: _Text) -> bool:
    """Whether a text has a word with a syllable that denies it, as "uninsured", and the other one without."""
    for word in text.words:
        for bare in (word[len(begin) :] for begin in DENYING_SYLLABLES if word.startswith(begin)):
            stem = bare[: max(MIN_STEM + 1, len(bare) - 2)]
            if (
                len(bare) > MIN_STEM
                and any(theirs.startswith(stem) for theirs in other.words)
                and not any(own.startswith(stem) for own in text.words)
                and not any(theirs.startswith(word[:-2]) for theirs in other.words)
            ):
                return True
    return False


def _space_words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text))


# ---- Negation and conditions ------------------------------------------------------------------------


def _is_negative(text: _Text) -> bool:
    """Whether a text denies something."""
    rest = find_pattern("no_negation", text.language).sub(" ", text.meaning)
    return find_pattern("negation", text.language).search(rest) is not None


def _agrees_in_negation(said: _Text, quote: _Text, columns: Sequence[tuple[str, str]]) -> bool:
    """Whether both deny or neither does; "only if" is as good as "not unless".

    Two conditions are compared by themselves; where only one text has one, it may be in other words. A clause
    or cell that has nothing to do with the other text may deny whatever it does.
    """
    ours, theirs = _split_condition(said), _split_condition(quote)
    if len(ours) == len(theirs):
        agrees = all(map(_is_alike_in_negation, ours, theirs))
    else:
        agrees = _is_alike_in_negation(said, quote) or _is_alike_in_negation(ours[0], theirs[0])
    denied, stated = (said, quote) if _is_negative(said) else (quote, said)
    if agrees or (
        find_pattern("unless", denied.language).search(denied.low)
        and find_pattern("only", stated.language).search(stated.low)
    ):
        return True
    if denied is quote and any(cell for _, cell in columns):
        return _denies_apart(
            [_read(f"{header} ; {cell}", quote.language) for header, cell in columns], stated
        )
    return _denies_apart(_cut_clauses(denied), stated)


def _denies_apart(clauses: Sequence[_Text], stated: _Text) -> bool:
    """Whether only those of some clauses deny something that share nothing with a text, and others share.

    In another language words say nothing: there such a clause is an answer of one word.
    """
    apart = [clause for clause in clauses if _is_negative(clause)]
    rest = [clause for clause in clauses if clause not in apart]
    is_foreign = clauses[0].language != stated.language
    if is_foreign and any(len(find_words(clause.low)) > MAX_ANSWER_WORDS for clause in apart):
        return False
    known = [word for clause in rest for word in clause.words]
    own = [_read(" ".join(w for w in find_words(c.low) if w not in known), c.language) for c in apart]
    return not any(_has_in_common(clause, stated) for clause in own) and any(
        _has_in_common(clause, stated) for clause in rest
    )


def _has_in_common(clause: _Text, other: _Text) -> bool:
    ours, theirs = _find_members(clause), _find_members(other)
    return (
        any(_is_among(word, other.words) for word in clause.words)
        or any(find_carriers(value, other.values, other.text) for value in clause.values if not value.is_soft)
        or any(members & theirs.get(group, set()) for group, members in ours.items())
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
    return [_read(main, text.language), _read(text.text[match.start() : stop], text.language)]


def _drops_condition(said: _Text, quote: _Text, body: _Text, columns: Sequence[tuple[str, str]]) -> bool:
    """Whether the source words have a condition, or are about some people, and the sentence is not."""
    people = (find_pattern("limited_to", people) for people in load_table("limited_to"))
    if any(pattern.search(quote.low) and not pattern.search(said.low) for pattern in people):
        return True
    if any(find_pattern(table, said.language).search(said.low) for table in ("condition", "condition_kept")):
        return False
    # A limit ("before noon") of what the sentence speaks of.
    if any(
        any(not value.is_soft and _find_limits(clause, value) for value in clause.values)
        and not any(find_carriers(value, said.values, said.text) for value in clause.values)
        and _has_in_common(clause, said)
        for clause in _cut_clauses(quote)
    ) or not all(
        _is_kept(_read(cell, body.language), said)
        for header, cell in columns
        if find_pattern("condition_header", "all").search(lower(header))
    ):
        return True
    for match in find_pattern("condition", body.language).finditer(body.low):
        if body.language == "ja":
            clause = re.split("[、。,;:]", body.text[: match.start()])[-1]
        else:
            clause = re.split("[,;:.]", body.text[match.end() :], maxsplit=1)[0]
            main = _read(_CLAUSE_END.split(body.text[: match.start()])[-1], body.language)
            if said.language == body.language and len(main.words) > 1 and not _has_in_common(main, said):
                continue  # it is the condition of something else
        if not _is_kept(_read(clause, body.language), said):
            return True
    return False


def _is_kept(clause: _Text, said: _Text) -> bool:
    values = [value for value in clause.values if not value.is_soft]
    if values and all(find_carriers(value, said.values, said.text) for value in values):
        return True
    if clause.language == said.language or not clause.language:
        shared = [word for word in clause.words if _is_among(word, said.words)]
        return len(shared) * 2 >= len(clause.words)
    members, theirs = _find_members(clause), _find_members(said)
    if any(members[group] & theirs.get(group, set()) for group in members):
        return True
    return any(_is_among(word, said.words) for word in clause.words)


# ---- Words ------------------------------------------------------------------------------------------


def _agrees_in_words(said: _Text, around: _Text, evidence: Evidence) -> bool:
    """Whether a sentence is tied to the words of its source, and has hardly a word of another passage.

    In the language of its source all words but a few are there, or words for the same thing. In another
    language the two have something in common: a value, a word written alike, or what the lexicon knows.
    """
    ours, theirs = _find_members(said), _find_members(around)
    same = [(group, one) for group, members in ours.items() for one in members & theirs.get(group, set())]
    is_other_topic = not same and bool(_find_topics(ours)) and bool(_find_topics(theirs))
    # What only the customer told ties a sentence to no source.
    text = f"{around.text} ; {evidence.units}"
    carried = [value for value in said.values if find_carriers(value, around.values, text)]
    values = [value for value in carried if not value.is_soft]
    rest = said.text
    for value in reversed(said.values):
        rest = f"{rest[: value.start]} {rest[value.end :]}"
    compared = [find_pattern(table, said.language) for table in ("light", "negation")]
    words = _read(rest, said.language).words
    counted = [word for word in words if not any(pattern.fullmatch(word) for pattern in compared)]
    if said.language and around.language and said.language != around.language:
        sounds = _list_sounds(around)
        ties = len(values) + sum(_is_among(word, sounds) for word in counted)
        return bool(same) or ties > is_other_topic  # one equal value is no tie between two topics
    near = around.words + _read(evidence.units, evidence.language).words
    strange = [word for word in said.words if not _is_among(word, near)]
    far = _read(evidence.elsewhere, evidence.language).words if strange else ()
    if sum(_is_among(word, far) for word in strange) > MAX_WORDS_FROM_ELSEWHERE * len(said.words):
        return False
    unshared = said.low
    for group, one in same:  # perhaps in other words
        table = "topics" if group.startswith("topic ") else f"opposites.{group}"
        unshared = find_pattern(table, one).sub(" ", unshared)
    missing = [word for word in counted if word in strange and word in unshared]
    is_tied = len(missing) < len(counted) or (bool(values) and not is_other_topic)
    is_tied = is_tied or (not counted and bool(carried or not said.values))
    return is_tied and len(missing) <= max(1, MAX_MISSING_WORDS * len(counted))


def _find_topics(members: Mapping[str, set[str]]) -> set[str]:
    """What the lexicon knows a text to be about."""
    return {one for group, some in members.items() if group.startswith(TOPIC_GROUPS) for one in some}


def _is_among(word: str, others: Iterable[str]) -> bool:
    """Whether one of some words differs from a word only in its ending, or one is part of the other."""
    if re.match(f"[{CJK}]", word):
        pairs = {word[i : i + 2] for i in range(len(word) - 1)}
        return any(word == other or any(pair in other for pair in pairs) for other in others)
    for other in others:
        shorter, longer = sorted((word, other), key=len)
        stem = shorter[: max(MIN_STEM, ceil(STEM_SHARE * len(shorter)))]
        if word == other or (len(shorter) >= MIN_STEM and longer.startswith(stem)):
            return True
        if len(shorter) > MIN_STEM and shorter in longer:
            return True
    return False
