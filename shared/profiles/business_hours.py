"""When a mailbox's people are at work: weekly hours and holidays, and a line for the prompts."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from difflib import get_close_matches
from itertools import groupby, pairwise
from typing import Self
from zoneinfo import ZoneInfo, available_timezones

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_NAMES = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
HORIZON = timedelta(days=366)  # how far ahead an opening or closing is looked for
MINUTES_PER_DAY = 24 * 60
MORNING = 6 * 60  # nobody's day begins before: it is the night shift that ends


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Hours of one day in minutes after its midnight; they may `end` on the next day."""

    start: int
    end: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `09:00-17:30`. Raises ValueError."""
        hours = [int(part) for part in re.findall(r"\d+", text)]
        start, end = hours[0] * 60 + hours[1], hours[2] * 60 + hours[3]
        if start == end:
            raise ValueError(f"has {text!r}, which ends as it begins: write 00:00-24:00 for a whole day")
        return cls(start, end if start < end else end + MINUTES_PER_DAY)

    def __str__(self) -> str:
        return f"{_clock_time(self.start)}-{_clock_time(self.end)}"


@dataclass(frozen=True, slots=True)
class Holiday:
    """Days on which everything is closed from midnight to midnight, the last one included."""

    first: date
    last: date

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `2026-12-25` or `2026-12-24 to 2027-01-01`. Raises ValueError."""
        first, _, last = text.partition(" to ")
        try:
            holiday = cls(date.fromisoformat(first), date.fromisoformat(last or first))
        except ValueError:
            raise ValueError(f"has {text!r}, of which a part is not a date: correct it") from None
        if holiday.last < holiday.first:
            raise ValueError(f"has {text!r}, which ends before it begins: correct it")
        return holiday


@dataclass(frozen=True, slots=True)
class BusinessHours:
    """Weekly hours in a time zone; a day that `days` does not name is closed.

    Times are those of the wall clock, of which a clock change may leave out or repeat an hour; of a repeated
    time the first one counts. Raises ValueError where no day has hours.
    """

    time_zone: ZoneInfo
    days: Mapping[str, Sequence[Span]]
    holidays: Sequence[Holiday] = ()

    def __post_init__(self) -> None:
        if not any(self.days.values()):
            raise ValueError("has no day with hours: write some, or remove the field")

    def describe(self, now: datetime) -> str:
        """One line for the prompts: weekday, date, time and zone, and whether it is open, and until when."""
        local = now.astimezone(self.time_zone)
        moment = f"{DAY_NAMES[local.weekday()]} {local:%Y-%m-%d}, {local:%H:%M} in {self.time_zone.key}"
        start, end = next(self.list_openings(now), (None, None))
        if start is None or end is None:
            return f"{moment}; closed, without an opening within a year."
        if start > now:
            opening = start.astimezone(self.time_zone)
            return f"{moment}; closed, opens at {opening:%H:%M}{_name_day(opening, local)}."
        if end - now > HORIZON - timedelta(days=7):
            return f"{moment}; always open."
        closing = end.astimezone(self.time_zone)
        if closing.time() == time(0):  # the end of the day before
            return f"{moment}; open until 24:00{_name_day(closing - timedelta(days=1), local)}."
        return f"{moment}; open until {closing:%H:%M}{_name_day(closing, local)}."

    def render(self) -> str:
        """The timetable as one English line."""
        week = []
        for spans, days in groupby(WEEKDAYS, lambda day: sorted(self.days.get(day, ()))):
            first, *others = [DAY_NAMES[WEEKDAYS.index(day)] for day in days]
            name = f"{first} to {others[-1]}" if others else first
            week += [f"{name} {', '.join(map(str, spans))}"] if spans else []
        closed = ", ".join(
            f"{day.first}" if day.first == day.last else f"{day.first} to {day.last}" for day in self.holidays
        )
        return f"{'; '.join(week)} ({self.time_zone.key})" + (f"; closed on {closed}" if closed else "")

    def list_openings(self, at: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Begin and end, in UTC, of the open times that end after `at`, in order; touching ones are one."""
        today = at.astimezone(self.time_zone).date()
        begin: datetime | None = None
        end = at
        for offset in range(-1, HORIZON.days + 1):
            for start, close in self._list_hours(today + timedelta(days=offset)):
                if close <= at:
                    continue
                if begin is not None and start > end:
                    yield begin, end
                    begin = None
                begin, end = (start, close) if begin is None else (begin, max(end, close))
        if begin is not None:
            yield begin, end

    def add(self, moment: datetime, duration: timedelta) -> datetime | None:
        """When so much open time has passed since a moment; None where that takes more than a year."""
        left = duration
        for start, end in self.list_openings(moment):
            begin = max(start, moment)
            if end - begin >= left:
                return begin + left
            left -= end - begin
        return None

    def find_morning(self, now: datetime) -> datetime | None:
        """When people last began a working day: its first open moment from six o'clock on; None in a year."""
        today = now.astimezone(self.time_zone).date()
        for back in range(HORIZON.days):
            day = today - timedelta(days=back)
            six, midnight = self._to_utc(day, MORNING), self._to_utc(day + timedelta(days=1), 0)
            if six > now:
                continue
            start, _ = next(self.list_openings(six), (midnight, midnight))
            morning = max(start, six)
            if morning < midnight and morning <= now:
                return morning
        return None

    def show(self, moment: datetime) -> str:
        """A moment for people, in their time zone."""
        return f"{moment.astimezone(self.time_zone):%Y-%m-%d %H:%M} ({self.time_zone.key})"

    def _list_hours(self, day: date) -> Iterator[tuple[datetime, datetime]]:
        if self._is_holiday(day):
            return
        for span in sorted(self.days.get(WEEKDAYS[day.weekday()], ())):
            last = min(span.end, MINUTES_PER_DAY) if self._is_holiday(day + timedelta(days=1)) else span.end
            start, end = self._to_utc(day, span.start), self._to_utc(day, last)
            if start < end:  # neither is the case of hours within the hour that a clock change leaves out
                yield start, end

    def _to_utc(self, day: date, minute: int) -> datetime:
        wall_clock = datetime.combine(day, time(0)) + timedelta(minutes=minute)
        return wall_clock.replace(tzinfo=self.time_zone).astimezone(UTC)

    def _is_holiday(self, day: date) -> bool:
        return any(holiday.first <= day <= holiday.last for holiday in self.holidays)


# Those of people who have written none.
USUAL_HOURS = BusinessHours(ZoneInfo("UTC"), dict.fromkeys(WEEKDAYS[:5], (Span(9 * 60, 17 * 60),)))


def parse_zone(name: str) -> ZoneInfo:
    """The time zone of an IANA name. Raises ValueError with the nearest name."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # the last for the name of a region alone, which is a folder
        near = get_close_matches(name, sorted(available_timezones()), n=1)
        remedy = f"did you mean {near[0]}" if near else "write a name such as Europe/Berlin"
        raise ValueError(f"has {name[:40]!r}, which is not an IANA time zone: {remedy}") from None


def parse_days(text: str) -> tuple[str, ...]:
    """The weekdays of `mon` or `mon-fri`; a range may go over the end of the week."""
    first, _, last = text.partition("-")
    start, end = WEEKDAYS.index(first), WEEKDAYS.index(last or first)
    return (WEEKDAYS * 2)[start : (end if start <= end else end + len(WEEKDAYS)) + 1]


def check_hours(spans: Sequence[Span]) -> Sequence[Span]:
    """The hours of a day. Raises ValueError where they overlap."""
    if any(left.end > right.start for left, right in pairwise(sorted(spans))):
        raise ValueError("has hours that overlap: correct them")
    return spans


def name_each_day(hours: Mapping[tuple[str, ...], Sequence[Span]]) -> Mapping[str, Sequence[Span]]:
    """The hours by weekday instead of by ranges. Raises ValueError for a weekday in two of them."""
    pairs = [(day, spans) for days, spans in hours.items() for day in days]
    names = [day for day, _ in pairs]
    twice = [day for day in WEEKDAYS if names.count(day) > 1]
    if twice:
        raise ValueError(f"has {twice[0]} in two entries: remove it from one of them")
    return dict(pairs)


def describe_utc(now: datetime) -> str:
    """The line for the prompts where no business hours are known: weekday, date and UTC time."""
    moment = now.astimezone(UTC)
    return f"{DAY_NAMES[moment.weekday()]} {moment:%Y-%m-%d}, {moment:%H:%M} UTC."


def _name_day(moment: datetime, now: datetime) -> str:
    return "" if moment.date() == now.date() else f" on {DAY_NAMES[moment.weekday()]} {moment:%Y-%m-%d}"


def _clock_time(minute: int) -> str:
    """`09:00`; the end of a day is `24:00`, what is later is of the next day."""
    hours, minutes = divmod(minute if minute <= MINUTES_PER_DAY else minute - MINUTES_PER_DAY, 60)
    return f"{hours:02}:{minutes:02}"
