"""Values in a text: numbers, amounts, measures, dates, times, weekdays, codes and links, however written."""

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from shared.checks.lexicon import (
    CJK,
    find_language,
    find_pattern,
    load_table,
    lower,
    plain,
    write_alternatives,
)

TEN = 10
MAX_NAME = 30
MAX_DIGITS = 30  # a longer run of digits is a code, whatever stands around it
NUMBER, CLOCK, DATE, MONTH, WEEKDAY, CODE, LINK = "", "clock", "date", "month", "weekday", "code", "link"
NAMED = "named"  # a number that belongs to the word before it: "Heron 2"
NOON, HOURS_OF_HALF_DAY, MINUTES = 12, 12, 60
FIRST_YEAR, LAST_YEAR = 1900, 2100
LAST_HOUR, LAST_MONTH, LAST_DAY = 24, 12, 31
Date = tuple[int | None, int, int]
Reading = tuple[str, Fraction | Date | str]


@dataclass(frozen=True, slots=True)
class Unit:
    """A kind of quantity, and how much of it one is."""

    kind: str
    factor: Fraction


@dataclass(frozen=True, slots=True)
class Value:
    """A value with its readings: "1.500" has two, "14h" is a time of day and a duration.

    `also` is what it says besides, as a date says its month. `numbers` are those that stand there, without
    their unit. One that `is_soft` is perhaps no value ("a day"). `start` and `end` are its place.
    """

    start: int
    end: int
    readings: frozenset[Reading]
    also: frozenset[Reading] = frozenset()
    numbers: frozenset[Fraction] = frozenset()
    unit: Unit | None = None
    is_soft: bool = False

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of its readings."""
        return frozenset(kind for kind, _ in self.readings)


def read_values(text: str) -> tuple[Value, ...]:
    """Every value of a text that is plain, in its order."""
    found: list[Value] = []
    rest = lower(text)
    for match in _LINK.finditer(rest):
        bare = re.sub(r"^(?:https?://|mailto:)?(?:www\.)?", "", match.group()).rstrip("./,;:!?")
        found.append(Value(match.start(), match.end(), frozenset({(LINK, bare)})))
    rest = _LINK.sub(lambda match: "\0" * len(match.group()), rest)
    for find in _FINDERS:
        pieces, last = [], 0
        for value in sorted(find(rest, text), key=lambda value: (value.start, -value.end)):
            if value.start >= last:  # what is read is blank for those that follow
                found.append(value)
                pieces += [rest[last : value.start], "\0" * (value.end - value.start)]
                last = value.end
        rest = "".join([*pieces, rest[last:]])
    return _share_units(sorted(found, key=lambda value: value.start), text)


# ---- Links, codes -----------------------------------------------------------------------------------

_LINK = re.compile(
    r"\b(?:https?://|www\.|mailto:)[^\s<>\"')\]}]+"
    r"|(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}"
)
_TOKEN = re.compile(r"(?<![\w\0])(?<!\d[.,'])\w+(?:[-_]\w+|\.\d\w*)*")
_ORDINAL = re.compile(
    r"(?:st|nd|rd|th|er|ere|eme|e|o|a|x|ste|de|te|ter|ten|tes|szt|uhr)(?!\w)|-[^\W\d_]{3,}(?![\w-]*\d)"
)


def _find_codes(rest: str, _: str, *, begins_with_letter: bool) -> Iterator[Value]:
    """Codes that begin with a letter, or those that begin with a digit.

    The latter are numbers with letters that are neither unit nor ending, versions, and very long numbers.
    """
    units = _units().after
    for match in _TOKEN.finditer(rest):
        token = match.group()
        if begins_with_letter:
            is_code = token[0].isalpha() and re.search(r"\d", token) and not units.fullmatch(token)
        elif (number := _NUMBER.match(rest, match.start())) is None:
            is_code = False
        elif token.count(".") >= 2 or len(token) > MAX_DIGITS:  # noqa: PLR2004 - a version has two
            is_code = True
        else:
            follows = number.end()
            is_code = (
                follows < match.end()
                and re.search(r"[^\W\d_]", token)
                and not (_ORDINAL.match(rest, follows) or units.match(rest, follows))
            )
        if is_code:
            yield Value(match.start(), match.end(), frozenset({(CODE, re.sub(r"[\W_]", "", token))}))


# ---- Dates ------------------------------------------------------------------------------------------

_ISO_DATE = re.compile(r"(?<![\w.])(?P<year>\d{4})[-/.](?P<month>\d\d?)[-/.](?P<day>\d\d?)(?!\w)")
_JAPANESE_DATE = re.compile(
    r"(?<!\d)(?:(?P<year>\d{4}) 年 ?)?(?P<month>\d\d?) 月(?!間)(?: ?(?P<day>\d\d?) 日(?!間))?"
)
_SHORT_DATE = re.compile(
    r"(?<![\w.])(?P<a>\d\d?)(?P<mark>[./-])(?P<b>\d\d?)(?P=mark)(?P<year>\d{4}|\d\d)(?!\w)"
)
_DAY_AND_MONTH = re.compile(r"(?<![\w.])(?P<a>\d\d?)\. ?(?P<b>\d\d?)\.(?! ?\d)")
_BEFORE_MONTH = re.compile(
    r"(?:in|of|until|till|by|since|from|to|after|before|early|late|mid|during|and|im|bis|ab|au) ?$"
)


@dataclass(frozen=True, slots=True)
class _Calendar:
    """Patterns: a month with its day and year, one alone, a weekday, and a short one or a range of them."""

    date: re.Pattern[str]
    month: re.Pattern[str]
    weekday: re.Pattern[str]
    short_weekdays: re.Pattern[str]


@functools.cache
def _calendar() -> _Calendar:
    months, short_months, weekdays, short = (
        " ".join(load_table(table).values())
        for table in ("months", "short_months", "weekdays", "short_weekdays")
    )
    names = write_alternatives(f"{months} {short_months}")
    year = r"(?:,? ?(?:de |del |of |r\. )?(?P<{}>\d{{4}})(?!\w))?"
    date = (
        r"(?<![\w.,])(?P<day>\d\d?)(?:st|nd|rd|th|er|o|\.)?,? ?(?:de |of |di )?"
        rf"(?P<month>{names})\.?{year.format('year')}"
        rf"|(?P<month2>{names})\.? ?(?P<day2>\d\d?)(?:st|nd|rd|th|,)?(?![\w.:])(?!,\d){year.format('year2')}"
    )
    short = write_alternatives(short)
    between = "(?: ?(?:-|to|bis|a|au|do|und|and|et|y|i|/|、|から) ?)"
    in_range = rf"(?P<first>{short})\.?{between}(?P<last>{short})"
    return _Calendar(
        re.compile(date),
        re.compile(write_alternatives(months)),
        re.compile(write_alternatives(weekdays)),
        re.compile(rf"{in_range}|(?<!\w)(?P<alone>{short})(?:\.,?|,) ?(?=[\d\0])"),
    )


def _find_key(word: str, *tables: str) -> int:
    """The number that a word has in one of some tables; it is in one."""
    keys = ((table, key) for table in tables for key in load_table(table))
    return next(int(key) for table, key in keys if find_pattern(table, key).fullmatch(word))


def _find_dates_in_digits(rest: str, text: str) -> Iterator[Value]:
    for match in (*_ISO_DATE.finditer(rest), *_JAPANESE_DATE.finditer(rest)):
        yield from _build_date(match, (match["year"], match["month"], match["day"]))
    for match in _DAY_AND_MONTH.finditer(rest):
        yield from _build_date(match, (None, match["b"], match["a"]))
    for match in _SHORT_DATE.finditer(rest):
        year = match["year"] if len(match["year"]) > 2 else f"20{match['year']}"  # noqa: PLR2004 - two digits
        orders = [(year, match["b"], match["a"])]
        if match["mark"] == "/" and find_language(text) in ("en", ""):
            orders.append((year, match["a"], match["b"]))  # American
        yield from _build_date(match, *orders)


def _find_months(rest: str, text: str) -> Iterator[Value]:
    """Months in words, with a day or alone; where they are other words too, their letters decide."""
    for match in _calendar().date.finditer(rest):
        group = "month" if match["month"] else "month2"
        if match[group] not in ("may", "march") or text[match.start(group)].isupper():
            month = str(_find_key(match[group], "months", "short_months"))
            yield from _build_date(
                match, (match["year"] or match["year2"], month, match["day"] or match["day2"])
            )
    for match in _calendar().month.finditer(rest):
        if match.group() == "mai" and find_language(text) == "it":  # never
            continue
        is_capital = text[match.start()].isupper()
        is_english = match.group() in ("may", "march")
        is_other = match.group() in ("mars", "mai") and is_capital
        if (is_english or is_other) and not (
            is_capital and _BEFORE_MONTH.search(rest[: match.start()][-10:])
        ):
            continue
        yield from _build_date(match, (None, str(_find_key(match.group(), "months")), None))


def _build_date(match: re.Match[str], *orders: tuple[str | None, str, str | None]) -> Iterator[Value]:
    """The value of a date that may be read in some orders of year, month and day, if a calendar has it."""
    readings: set[Reading] = set()
    also: set[Reading] = set()
    for year, month, day in orders:
        number = Fraction(month)
        if not 1 <= number <= LAST_MONTH or not 1 <= int(day or 1) <= LAST_DAY:
            continue
        also.add((MONTH, number))
        if day is None:
            readings.add((MONTH, number))
        else:
            readings.add((DATE, (int(year) if year else None, int(month), int(day))))
            also.add((DATE, (None, int(month), int(day))))
        also |= {(NUMBER, Fraction(year))} if year else set()
    if readings:
        yield Value(match.start(), match.end(), frozenset(readings), frozenset(also))


# ---- Times and weekdays -----------------------------------------------------------------------------

_CLOCK = re.compile(
    r"(?<![\w:.,])(?:(?P<named>godz\.?|godzin\w{1,3}|klockan|kl\.) ?)?(?P<hour>\d\d?)"
    r"(?:(?P<mark>[:.]|(?: ?h ?)) ?(?P<minute>\d\d)(?!\d))?"
    r"(?: ?(?P<suffix>[ap]\.? ?m\.?(?!\w)|uhr(?!\w)|h(?!\w)))?"
    r"(?: ?(?:de|in|w)? ?(?:la |the |der )?"
    r"(?P<part>tarde|noche|evening|afternoon|soir|apres-midi|po poludniu|wieczorem|abends|nachmittags)"
    r"(?!\w))?"
)
_WORD_CLOCK = re.compile(
    r"(?<!\w)las (?P<word>\w{1,20})(?: de la (?P<part>tarde|noche|manana))?(?!\w)"
    r"|(?<!\w)godzin\w{1,3} (?P<word3>\w{1,20})"
    r"|(?<!\w)(?P<word2>\w{1,20}) (?:uhr|o'clock|heures du (?P<part2>soir))(?!\w)"
)
_JAPANESE_CLOCK = re.compile(
    r"(?:(?P<half>午前|午後|夕方|夜) ?)?(?<!\d)(?P<hour>\d\d?) 時(?!間)"
    r"(?: ?(?P<minute>\d\d?) 分|(?P<thirty>半))?"
)
_NOON = re.compile(r"(?<!\w)(?:noon|midday|midi|mediodia|mezzogiorno|w poludnie)(?!\w)|正午")


def _find_times(rest: str, _: str) -> Iterator[Value]:
    found = []
    for match in _CLOCK.finditer(rest):
        suffix, mark, part = match["suffix"] or "", (match["mark"] or "").strip(), match["part"]
        if not (suffix or match["named"] or (mark in (":", "h") and match["minute"]) or part):
            continue
        half = "pm" if suffix.startswith("p") or part else "am" if suffix.startswith("a") else ""
        unit = suffix if not match["minute"] else ""
        found += _build_time(match, int(match["hour"]), int(match["minute"] or 0), half=half, unit=unit)
    for match in _JAPANESE_CLOCK.finditer(rest):
        minute = 30 if match["thirty"] else int(match["minute"] or 0)
        half = {None: "", "午前": "am"}.get(match["half"], "pm")
        found += _build_time(match, int(match["hour"]), minute, half=half)
    for match in _WORD_CLOCK.finditer(rest):
        hour = _number_words().values.get(match["word"] or match["word2"] or match["word3"])
        if hour is not None:
            is_late = match["part"] in ("tarde", "noche") or match["part2"]
            found += _build_time(match, int(hour), half="pm" if is_late else "")
    found += [Value(m.start(), m.end(), frozenset({(CLOCK, Fraction(720))})) for m in _NOON.finditer(rest)]
    yield from found


def _build_time(
    match: re.Match[str], hour: int, minute: int = 0, *, half: str = "", unit: str = ""
) -> list[Value]:
    """The value of a time of day, in minutes, in the half "am" or "pm". "24 h" may be a duration as well."""
    number = Fraction(hour)
    if hour > LAST_HOUR or minute >= MINUTES:
        return []
    if (half == "pm" and hour < NOON) or (half == "am" and hour == NOON):
        hour = (hour + HOURS_OF_HALF_DAY) % LAST_HOUR
    readings: set[Reading] = {(CLOCK, Fraction(hour % LAST_HOUR * MINUTES + minute))}
    if unit == "h" and not minute:
        readings.add(("s", number * 3600))
    return [Value(match.start(), match.end(), frozenset(readings), numbers=frozenset({number}))]


def _find_weekdays(rest: str, _: str) -> Iterator[Value]:
    found = [(match, 0, "weekdays") for match in _calendar().weekday.finditer(rest)]
    for match in _calendar().short_weekdays.finditer(rest):
        found += [(match, group, "short_weekdays") for group in (1, 2, 3) if match[group]]
    for match, group, table in found:
        key = Fraction(_find_key(match[group], table))
        yield Value(match.start(group), match.end(group), frozenset({(WEEKDAY, key)}))


# ---- Numbers and units ------------------------------------------------------------------------------

_RUN = rf"\d{{1,{MAX_DIGITS}}}"
_DIGITS = rf"(?:\d{{1,3}}(?: \d{{3}}){{1,8}}(?!\d)(?:[.,]{_RUN})?|{_RUN}(?:[.,']{_RUN}){{0,8}}(?:⁄{_RUN})?)"
_NUMBER = re.compile(rf"(?<![\w\0])(?<!\d[.,'])(?P<sign>(?<!\S)-|minus )?(?P<digits>{_DIGITS})")
_BETWEEN = re.compile(
    r" ?(?:-|/|x|×|to|bis|a|au|al|do|and|und|et|y|e|i|or|oder|ou|o|lub|bis zu|から|または|と|tot|och|og"
    r"|till|til)?"
    rf" ?(?:[{CJK}] )?(?:the |den |dem |le |el |les )?"
)


@dataclass(frozen=True, slots=True)
class _Units:
    """Patterns: a unit after a number, each unit, and a currency before a number."""

    after: re.Pattern[str]
    each: tuple[tuple[re.Pattern[str], Unit], ...]
    before: re.Pattern[str]


@functools.cache
def _units() -> _Units:
    table = load_table("units")
    each = []
    for key, words in table.items():
        kind, _, factor = key.partition(" ")
        each.append((re.compile(write_alternatives(words)), Unit(kind, Fraction(factor or "1"))))
    every = write_alternatives(" ".join(table.values())).replace(r"(?<![^\W\d_])", "")
    adjectives = write_alternatives(load_table("unit_adjectives")["all"])
    currencies = write_alternatives(" ".join(words for key, words in table.items() if key[:2].isupper()))
    after = re.compile(rf"(?:[ -]?{adjectives}(?! ?\d)){{0,2}}[ -]?(?P<unit>{every})")
    return _Units(
        after, tuple(each), re.compile(rf"(?P<unit>{currencies.replace('(?!' + chr(92) + 'w)', '')}) ?$")
    )


@dataclass(frozen=True, slots=True)
class _NumberWords:
    """The pattern of number words, what each is, and those that are numbers only by the way."""

    pattern: re.Pattern[str]
    values: dict[str, Fraction]
    soft: frozenset[str]


_YEAR = Unit("month", Fraction(12))
_GERMAN_ONES = frozenset({"zwei", "drei", "vier", "funf", "sechs", "sieben", "acht", "neun"})


@functools.cache
def _number_words() -> _NumberWords:
    values: dict[str, Fraction] = {}
    stems: dict[str, Fraction] = {}
    soft: set[str] = set()
    for table in ("numbers", "soft_numbers"):
        for number, words in load_table(table).items():
            for word in lower(plain(words)).split():
                text = word.replace("_", " ").rstrip("*")
                (stems if word.endswith("*") else values).setdefault(text, Fraction(number))
                soft |= {text} if table == "soft_numbers" else set()
    tens = [(word, n) for word, n in values.items() if word.endswith(("zig", "dreissig"))]
    ones = [
        *((word, n) for word, n in values.items() if word in _GERMAN_ONES),
        ("ein", Fraction(1)),
    ]
    values |= {f"{one}und{ten}": n + m for one, n in ones for ten, m in tens}
    spaced = "|".join(sorted((w for w in values if not re.search(f"[{CJK}]", w)), key=len, reverse=True))
    unspaced = "|".join(sorted((w for w in values if re.search(f"[{CJK}]", w)), key=len, reverse=True))
    compound = r"(?=jahrig|tagig|monatig|wochig|stundig|minutig|letni|tygodniow|dniow|miesieczn|mal(?!\w))"
    pattern = re.compile(
        rf"(?<![\w-])(?:(?P<word>{spaced})(?:(?!\w)|{compound})|(?P<stem>{'|'.join(stems)})[^\W\d_]*)|(?P<unspaced>{unspaced})"
    )
    return _NumberWords(pattern, values | stems, frozenset(soft))


_NAMED = re.compile(r"(?<![\w'-])[^\W\d_a-z][\w'-]+ $")


def _find_numbers(rest: str, text: str) -> Iterator[Value]:
    """Numbers in digits and in words, each with the unit next to it."""
    found = []
    for match in _NUMBER.finditer(rest):
        sign = -1 if match["sign"] else 1
        numbers, end = frozenset(sign * n for n in _read_digits(match["digits"])), match.end()
        at = end + rest.startswith(" ", end)
        for factor in load_table("multipliers"):
            if follow := find_pattern("multipliers", factor).match(rest, at):
                numbers, end = frozenset(n * int(factor) for n in numbers), follow.end()
                break
        ordinal = _ORDINAL.match(rest, end)
        if ordinal and not _units().after.match(rest, end) and not ordinal.group().startswith("-"):
            end = ordinal.end()
        value = _add_unit(rest, match.start(), end, numbers, is_soft=False)
        name = _NAMED.search(text[max(0, match.start() - MAX_NAME) : match.start()])
        if name and value.unit is None and re.fullmatch(r"\d{1,2}", match["digits"]):
            word = lower(name.group().strip())
            if not find_pattern("languages", "").fullmatch(word):
                readings = frozenset((NAMED, f"{word} {n}") for n in numbers)
                value = replace(value, readings=readings, also=frozenset((NUMBER, n) for n in numbers))
        found.append(value)
    found += _find_number_words(rest)
    yield from found


def _find_number_words(rest: str) -> Iterator[Value]:
    """Numbers in words; those that follow one another are one number: "two hundred and fifty"."""
    words = _number_words()
    number, start, end, is_soft = Fraction(-1), 0, -1, False
    for match in words.pattern.finditer(rest):
        word = match["word"] or match["stem"] or match["unspaced"]
        follow = words.values[word]
        is_next = (
            number >= 0 and end >= 0 and re.fullmatch(r"[ -](?:y |and |et )?|-et-", rest[end : match.start()])
        )
        if is_next and number < follow and follow in (100, 1000):
            number, end = number * follow, match.end()
        elif (
            is_next
            and not is_soft
            and (number % 100 == 0 or (number % TEN == 0 and follow < TEN))
            and follow < number
        ):
            number, end = number + follow, match.end()
        else:
            if end >= 0:
                yield _add_unit(rest, start, end, frozenset({number}), is_soft)
            number, start, end, is_soft = follow, match.start(), match.end(), word in words.soft
    if end >= 0:
        yield _add_unit(rest, start, end, frozenset({number}), is_soft)


def _read_digits(digits: str) -> Iterable[Fraction]:
    """What a number may be, as its marks group thousands or begin decimals."""
    whole, _, below = digits.partition("⁄")
    if below:
        parts = whole.split(" ")
        rest = Fraction(int(parts[-1]), int(below) or 1)
        return {rest + (int(parts[0]) if len(parts) > 1 else 0)}
    compact = digits.replace("'", "").replace(" ", "")
    marks = re.findall("[.,]", compact)
    groups = re.split("[.,]", compact)
    if not marks:
        return {Fraction(compact)}
    is_grouped = all(len(group) == 3 for group in groups[1:]) and groups[0] != "0"  # noqa: PLR2004 - thousands
    grouped, decimal = Fraction("".join(groups)), Fraction(f"{''.join(groups[:-1])}.{groups[-1]}")
    if len(marks) == 1:
        return {grouped, decimal} if is_grouped else {decimal}
    return {grouped} if len(set(marks)) == 1 else {decimal}


def _add_unit(rest: str, start: int, end: int, numbers: frozenset[Fraction], is_soft: bool) -> Value:
    before = _units().before.search(rest[max(0, start - 8) : start])
    after = _units().after.match(rest, end)
    word = after["unit"] if after is not None else before["unit"] if before is not None else None
    unit = next((unit for pattern, unit in _units().each if word and pattern.fullmatch(word)), None)
    if unit == _YEAR and any(FIRST_YEAR <= number < LAST_YEAR for number in numbers):  # 2019年
        unit = None
    if unit is None:
        return Value(start, end, frozenset((NUMBER, n) for n in numbers), numbers=numbers, is_soft=is_soft)
    readings = frozenset((unit.kind, n * unit.factor) for n in numbers)
    if after is None and before is not None:
        start -= len(before.group())
    return Value(
        start, after.end() if after is not None else end, readings, frozenset(), numbers, unit, is_soft
    )


def _share_units(values: Sequence[Value], text: str) -> tuple[Value, ...]:
    """Give the first numbers of a range or list the unit of its last one: "3 to 5 days", "8-10 Uhr"."""
    shared = list(values)
    for index in range(len(shared) - 2, -1, -1):
        value, follow = shared[index], shared[index + 1]
        between = lower(text[value.end : follow.start])
        is_bare = value.kinds == {NUMBER} or (
            NAMED in value.kinds and between.strip() == "-"  # "Allow 6-8 weeks"
        )
        if not is_bare or value.is_soft or follow.kinds == {NUMBER} or not _BETWEEN.fullmatch(between):
            continue
        readings: set[Reading] = set()
        for kind, amount in follow.readings:
            if kind == CLOCK:
                readings |= {(CLOCK, n * 60) for n in value.numbers}
            elif kind == DATE and isinstance(amount, tuple):
                readings |= {(DATE, (amount[0], amount[1], int(n))) for n in value.numbers}
        if follow.unit is not None:
            readings |= {(follow.unit.kind, n * follow.unit.factor) for n in value.numbers}
        also = frozenset(
            (DATE, (None, *amount[1:]))
            for kind, amount in readings
            if kind == DATE and isinstance(amount, tuple)
        )
        if readings and between.strip():
            shared[index] = replace(value, readings=frozenset(readings), also=also, unit=follow.unit)
    return tuple(shared)


# ---- Comparing --------------------------------------------------------------------------------------


def find_carriers(value: Value, values: Iterable[Value], text: str) -> list[Value]:
    """Those values of a text that say what this one says.

    A number without a unit says it where the unit stands elsewhere in the text, and where it may be an hour.
    """
    available = tuple(values)
    same = [other for other in available if value.readings & (other.readings | other.also)]
    if same:
        return same
    own, *theirs = (
        {str(reading).rpartition(" ")[0] for kind, reading in v.readings if kind == NAMED}
        for v in (value, *available)
    )
    is_translated = bool(own) and not any(own & words for words in theirs)  # "Artikel 5", "article 5"
    if is_translated or value.kinds == {NUMBER}:
        return [other for other in available if value.numbers & other.numbers]
    dates = {reading for kind, reading in value.readings if kind == DATE and isinstance(reading, tuple)}
    if dates:
        said = {reading for other in available for reading in other.readings | other.also}
        kept = {(DATE, (None, *rest)) for year, *rest in dates if (NUMBER, Fraction(year or 0)) in said}
        return [other for other in available if kept & other.readings]
    bare = [other for other in available if other.kinds == {NUMBER}]
    if CLOCK in value.kinds:
        return [other for other in bare if any((CLOCK, n * 60) in value.readings for n in other.numbers)]
    if any(unit == value.unit and pattern.search(lower(text)) for pattern, unit in _units().each):
        return [other for other in bare if value.numbers & other.numbers]
    return []


_FINDERS: Sequence[Callable[[str, str], Iterator[Value]]] = (
    functools.partial(_find_codes, begins_with_letter=True),  # a part may be like a date or a time
    _find_dates_in_digits,
    _find_months,
    _find_times,
    _find_weekdays,
    functools.partial(_find_codes, begins_with_letter=False),
    _find_numbers,
)
