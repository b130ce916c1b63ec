"""Business hours: open or closed at any moment, through clock changes, nights, holidays and year ends."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import settings

from shared.errors import ConfigurationError
from shared.profiles.business_hours import BusinessHours
from shared.profiles.profile_file import parse_profiles

ROOT = Path(__file__).parent.parent
MANY = settings(derandomize=True, max_examples=100, deadline=None, database=None)
OFFICE = "{time_zone: Europe/Berlin, days: {mon-thu: [08:00-12:30, 13:15-17:00], fri: 08:00-15:00}%s}"
BERLIN = OFFICE % ", holidays: [2026-12-24 to 2027-01-01, 2026-05-25]"
NIGHTS = "{time_zone: Europe/Berlin, days: {mon-sun: 22:00-06:00}, holidays: [2026-05-01]}"
ALWAYS = "{time_zone: UTC, days: {mon-sun: 00:00-24:00}}"


def read(written: str) -> BusinessHours:
    hours = parse_profiles(f"default: {{business_hours: {written}}}", "mailboxes.yaml").default.business_hours
    assert hours is not None
    return hours


def problems_of(written: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse_profiles(written, "mailboxes.yaml")
    return "\n".join(caught.value.problems)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


# Reading


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("time_zone: Europe/Berlim", "time_zone has 'Europe/Berlim', which is not an IANA time zone: did you mean Europe/Berlin."),
        ("time_zone: Europe", "time_zone has 'Europe', which is not an IANA time zone"),
        ("time_zone: ../../etc/passwd", "time_zone has '../../etc/passwd', which is not an IANA time zone"),
        ("days: {mon-fry: 09:00-17:00}", "days has 'mon-fry', which is not a weekday or a range such as mon or mon-fri"),
        ("days: {mon: 9 to 5}", "days.mon has '9 to 5'"),
        ("days: {mon: 17:00-25:00}", "has '17:00-25:00', which is not a time from and to: write it as 09:00-17:30"),
        ("days: {mon: 09:00-09:00}", "ends as it begins: write 00:00-24:00 for a whole day"),
        ("days: {mon: [09:00-12:00, 11:00-13:00]}", "has hours that overlap: correct them"),
        ("days: {mon-fri: 09:00-17:00, fri: 09:00-15:00}", "days has fri in two entries: remove it from one of them"),
        ("days: {mon: []}", "business_hours has no day with hours: write some, or remove the field"),
        ("days: mon-fri", "days must have hours for each open day (mon-fri: 09:00-17:30)"),
        ("holidays: [2026-02-30]", "holidays has '2026-02-30', of which a part is not a date"),
        ("holidays: [2026-12-24 to 2026-12-20]", "which ends before it begins"),
        ("holidays: [Christmas]", "has 'Christmas', which is not a date such as 2026-12-25 or 2026-12-24 to"),
        ("open: {}", "business_hours has 'open' as an unknown name: it must have time_zone, days"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line(line: str, problem: str) -> None:
    parts = {"time_zone": "time_zone: UTC", "days": "days: {mon: 09:00-17:00}"}
    parts[line.partition(":")[0]] = line
    found = problems_of("default:\n  business_hours:\n" + "".join(f"    {part}\n" for part in parts.values()))
    number = 3 if line.startswith("days: {mon: []") else 3 + list(parts.values()).index(line)
    assert found.startswith(f"mailboxes.yaml, line {number}, default: business_hours")
    assert problem in found


def test_every_mistake_within_the_hours_is_named_at_once() -> None:
    found = problems_of(
        "default:\n  business_hours:\n    time_zone: x\n    days:\n      mon: 1\n      tue: [08:00-09:00, x]\n    holidays: [a, b]\n"
    )
    assert [line.split(",")[1].strip() for line in found.splitlines()] == [
        "line 3",
        "line 5",
        "line 6",
        "line 7",
        "line 7",
    ]


def test_a_range_of_days_may_go_over_the_end_of_the_week() -> None:
    assert set(read("{time_zone: UTC, days: {sat-mon: 09:00-17:00}}").days) == {"sat", "sun", "mon"}


def test_a_mailbox_inherits_the_hours_of_the_default_whole() -> None:
    read_profiles = parse_profiles(f"default: {{business_hours: {BERLIN}}}\nmb_1: {{voice: x}}\n", "x")
    assert read_profiles.own["mb_1"].business_hours == read(BERLIN)


def test_time_zones_are_known_where_the_system_has_none() -> None:
    code = (
        "from shared.profiles.profile_file import parse_profiles;"
        f"print(parse_profiles('default: {{business_hours: {NIGHTS}}}', 'x').default.business_hours.time_zone)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONTZPATH": ""}, cwd=ROOT,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "Europe/Berlin\n", done.stderr


# Open or closed


def next_opening(hours: BusinessHours, moment: datetime) -> datetime | None:
    start, _ = next(hours.list_openings(moment), (None, None))
    return None if start is None else max(moment, start)


def is_open(hours: BusinessHours, moment: datetime) -> bool:
    return next_opening(hours, moment) == moment


@pytest.mark.parametrize(
    ("hours", "moment", "expected"),
    [
        (BERLIN, "2026-03-02T08:00+01:00", True),
        (BERLIN, "2026-03-02T07:59:59+01:00", False),
        (BERLIN, "2026-03-02T12:30+01:00", False),  # the break begins
        (BERLIN, "2026-03-06T15:00+01:00", False),  # a Friday
        (BERLIN, "2026-03-07T10:00+01:00", False),
        (BERLIN, "2026-05-25T10:00+02:00", False),  # a holiday
        (BERLIN, "2026-12-31T10:00+01:00", False),
        (BERLIN, "2027-01-04T08:00+01:00", True),
        (BERLIN, "2026-03-30T06:00+00:00", True),  # the Monday after the clocks went forward
        (BERLIN, "2026-03-27T06:59+00:00", False),  # the Friday before
        (NIGHTS, "2026-03-03T05:59+01:00", True),
        (NIGHTS, "2026-03-03T06:00+01:00", False),
        (NIGHTS, "2026-04-30T23:59+02:00", True),
        (NIGHTS, "2026-05-01T00:00+02:00", False),  # the night is cut by the holiday
        (NIGHTS, "2026-05-02T05:00+02:00", False),  # as is the one that would begin on it
        (ALWAYS, "2026-12-31T23:59:59+00:00", True),
    ],
)
def test_it_is_open_as_the_wall_clock_says(hours: str, moment: str, expected: bool) -> None:
    assert is_open(read(hours), at(moment)) is expected


@pytest.mark.parametrize(
    ("hours", "moment", "opening"),
    [
        (BERLIN, "2026-03-02T09:00+01:00", "2026-03-02T09:00+01:00"),
        (BERLIN, "2026-03-02T12:40+01:00", "2026-03-02T13:15+01:00"),
        (BERLIN, "2026-03-27T15:00+01:00", "2026-03-30T08:00+02:00"),  # the clocks go forward in between
        (BERLIN, "2026-10-23T15:00+02:00", "2026-10-26T08:00+01:00"),  # and back
        (BERLIN, "2026-12-23T17:00+01:00", "2027-01-04T08:00+01:00"),
        ("{time_zone: UTC, days: {thu: 09:00-10:00}}", "2025-12-31T23:00+00:00", "2026-01-01T09:00+00:00"),
        ("{time_zone: Asia/Tokyo, days: {mon: 09:00-10:00}}", "2026-03-01T20:00+00:00", "2026-03-02T00:00+00:00"),
    ],
)  # fmt: skip
def test_the_next_opening_is_the_first_open_moment_from_now_on(hours: str, moment: str, opening: str) -> None:
    assert next_opening(read(hours), at(moment)) == at(opening)


def test_hours_that_a_long_holiday_covers_have_no_opening_within_a_year() -> None:
    closed = read(OFFICE % ", holidays: [2026-01-01 to 2028-12-31]")
    moment = at("2026-03-02T09:00+01:00")
    assert next_opening(closed, moment) is None
    assert closed.describe(moment).endswith("closed, without an opening within a year.")


@pytest.mark.parametrize(
    ("hours", "start", "end"),
    [
        ("{time_zone: Europe/Berlin, days: {sun: 02:00-04:00}}", "2026-03-29T01:00+00:00", "2026-03-29T02:00+00:00"),
        ("{time_zone: Europe/Berlin, days: {sun: 02:00-04:00}}", "2026-10-25T00:00+00:00", "2026-10-25T03:00+00:00"),
        ("{time_zone: Europe/Berlin, days: {sat: 22:00-06:00}}", "2026-03-28T21:00+00:00", "2026-03-29T04:00+00:00"),
        ("{time_zone: Europe/Berlin, days: {sat: 22:00-06:00}}", "2026-10-24T20:00+00:00", "2026-10-25T05:00+00:00"),
    ],
)  # fmt: skip
def test_hours_over_a_clock_change_are_those_of_the_wall_clock(hours: str, start: str, end: str) -> None:
    found = read(hours)
    second = timedelta(seconds=1)
    assert [is_open(found, at(start) - second), is_open(found, at(start))] == [False, True]
    assert [is_open(found, at(end) - second), is_open(found, at(end))] == [True, False]


def test_hours_that_a_clock_change_leaves_out_are_no_hours() -> None:
    left_out = read("{time_zone: Europe/Berlin, days: {sun: 02:30-03:15}}")
    assert next_opening(left_out, at("2026-03-28T12:00+01:00")) == at("2026-04-05T02:30+02:00")


# The line for the prompts


@pytest.mark.parametrize(
    ("hours", "moment", "line"),
    [
        (BERLIN, "2026-03-02T09:05+00:00", "Monday 2026-03-02, 10:05 in Europe/Berlin; open until 12:30."),
        (BERLIN, "2026-03-02T12:45+01:00", "Monday 2026-03-02, 12:45 in Europe/Berlin; closed, opens at 13:15."),
        (
            BERLIN,
            "2026-12-31T23:30+00:00",
            "Friday 2027-01-01, 00:30 in Europe/Berlin; closed, opens at 08:00 on Monday 2027-01-04.",
        ),
        (NIGHTS, "2026-03-02T23:00+01:00", "Monday 2026-03-02, 23:00 in Europe/Berlin; open until 06:00 on Tuesday 2026-03-03."),
        (NIGHTS, "2026-04-30T23:00+02:00", "Thursday 2026-04-30, 23:00 in Europe/Berlin; open until 24:00."),
        (ALWAYS, "2026-03-02T09:00+00:00", "Monday 2026-03-02, 09:00 in UTC; always open."),
        (
            "{time_zone: UTC, days: {mon-fri: 00:00-24:00}}",
            "2026-03-02T09:00+00:00",
            "Monday 2026-03-02, 09:00 in UTC; open until 24:00 on Friday 2026-03-06.",
        ),
        (
            "{time_zone: UTC, days: {mon: 00:00-24:00}}",
            "2026-03-03T09:00+00:00",
            "Tuesday 2026-03-03, 09:00 in UTC; closed, opens at 00:00 on Monday 2026-03-09.",
        ),
    ],
)  # fmt: skip
def test_the_line_says_when_it_is_and_whether_it_is_open(hours: str, moment: str, line: str) -> None:
    assert read(hours).describe(at(moment)) == line


@pytest.mark.parametrize(
    ("hours", "timetable"),
    [
        (BERLIN, "Monday to Thursday 08:00-12:30, 13:15-17:00; Friday 08:00-15:00 (Europe/Berlin); "
                 "closed on 2026-12-24 to 2027-01-01, 2026-05-25"),
        (NIGHTS, "Monday to Sunday 22:00-06:00 (Europe/Berlin); closed on 2026-05-01"),
        ("{time_zone: UTC, days: {mon: 00:00-24:00, wed: 9:00–12:00}}", "Monday 00:00-24:00; Wednesday 09:00-12:00 (UTC)"),
    ],
)  # fmt: skip
def test_the_timetable_is_one_line(hours: str, timetable: str) -> None:
    assert read(hours).render() == timetable
