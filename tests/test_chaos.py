"""Nothing lost, nothing sent twice, nothing sent ungated: the short form of `python -m tests.chaos`."""

import logging
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from local.testing.azurite import Azurite
from shared.telemetry import EVENT_LOGGER
from tests.chaos.faults import LEDGER, find_distinct_faults
from tests.chaos.happenings import CLOCKS, DEEDS, SPELLS, Happening
from tests.chaos.load import run_load
from tests.chaos.run import Figures, Strike, Theatre, find_moments, find_strikes, play, play_happenings
from tests.chaos.scenarios import SCENARIOS, Scenario
from tests.chaos.stage import quiet_logs
from tests.chaos.wire import WIRE_FAULTS, play_wire_faults

SINGLES_OF_A_STORY, PAIRS = 3, 15
TABLE_SINGLES, TABLE_PAIRS = 6, 2
WIRED = ("cut after", "cut mid-body")


@pytest.fixture(autouse=True)
def _no_logs() -> Iterator[None]:
    root, events = logging.getLogger(), logging.getLogger(EVENT_LOGGER)
    before = root.level, events.level, events.propagate
    quiet_logs()
    yield
    root.setLevel(before[0])
    events.setLevel(before[1])
    events.propagate = before[2]


@pytest.fixture
def theatre(tmp_path: Path) -> Theatre:
    return Theatre(tmp_path)


@pytest.fixture
def table_theatre(tmp_path: Path, azurite: Azurite) -> Theatre:
    """A theatre whose ledger is in Table Storage, as in Azure."""
    return Theatre(tmp_path, azurite)


def choose_pairs(
    chance: random.Random, theatre: Theatre, count: int
) -> Iterator[tuple[Scenario, tuple[Strike, Strike]]]:
    """So many pairs of faults, less those whose first one leaves no call for a second."""
    for _ in range(count):
        scenario = chance.choice(SCENARIOS)
        first = chance.choice(
            list(find_strikes(play(scenario, (), theatre, Figures()), find_distinct_faults))
        )
        calls = play(scenario, (first,), theatre, Figures())
        later = list(find_strikes(calls[calls.index(first[0]) + 1 :], find_distinct_faults))
        if later:
            yield scenario, (first, chance.choice(later))


def find(name: str) -> Scenario:
    return next(scenario for scenario in SCENARIOS if scenario.name == name)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_story_ends_as_it_should_without_a_fault(scenario: Scenario, theatre: Theatre) -> None:
    figures = Figures()
    play(scenario, (), theatre, figures)
    assert figures.failures == []


def test_no_single_fault_breaks_a_promise(theatre: Theatre) -> None:
    chance, figures = random.Random(3), Figures()
    for scenario in SCENARIOS:
        strikes = list(find_strikes(play(scenario, (), theatre, Figures())))
        for strike in chance.sample(strikes, min(SINGLES_OF_A_STORY, len(strikes))):
            play(scenario, (strike,), theatre, figures)
    assert figures.injected.total() > len(SCENARIOS)
    assert [str(failure) for failure in figures.failures] == []


@pytest.mark.parametrize(
    ("happenings", "count"), [(SPELLS, 1), (CLOCKS, 1), (DEEDS, 2)], ids=["vanish", "clocks", "people"]
)
def test_nothing_that_happens_between_two_calls_breaks_a_promise(
    happenings: Sequence[Happening], count: int, theatre: Theatre
) -> None:
    chance, figures = random.Random(5), Figures()
    for scenario in SCENARIOS:
        moments = find_moments(scenario, (), theatre, happenings)
        for strike in chance.sample(moments, min(count, len(moments))):
            play(scenario, (strike,), theatre, figures)
    assert figures.injected.total() > len(SCENARIOS) / 2
    assert [str(failure) for failure in figures.failures] == []


@pytest.mark.parametrize(
    ("name", "point"),
    [("human answers after the first round", "reply/*"), ("follow ups before anybody decides", "cancel")],
)
def test_a_404_for_a_while_hides_no_reply_of_ours(name: str, point: str, theatre: Theatre) -> None:
    """Neither the one that has to be found again, nor the one that a newer one replaces."""
    moments = find_moments(find(name), (), theatre, SPELLS)
    figures = Figures()
    for call, spell in moments:
        if call.name.endswith(point):
            play(find(name), ((call, spell),), theatre, figures)
    assert figures.runs >= len(SPELLS)
    assert [str(failure) for failure in figures.failures] == []


def test_a_person_may_open_the_mailbox_or_answer_before_any_call(theatre: Theatre) -> None:
    names = ("the mailbox is opened", "a person answers", "the key is rotated")
    deeds = [deed for deed in DEEDS if deed.name in names]
    figures = play_happenings(find("question"), theatre, deeds)
    assert figures.injected.total() == figures.runs > 60
    assert [str(failure) for failure in figures.failures] == []


def test_no_pair_of_faults_breaks_a_promise(theatre: Theatre) -> None:
    chance, figures = random.Random(7), Figures()
    for scenario, pair in choose_pairs(chance, theatre, PAIRS):
        play(scenario, pair, theatre, figures)
    assert figures.runs > PAIRS / 2
    assert [str(failure) for failure in figures.failures] == []


def test_no_fault_at_a_write_breaks_a_promise_with_the_ledger_in_tables(
    theatre: Theatre, table_theatre: Theatre
) -> None:
    """The calls are the same over both stores, so those of the faster one say where to strike."""
    strikes = [
        (scenario, strike)
        for scenario in SCENARIOS
        for strike in find_strikes(play(scenario, (), theatre, Figures()), find_distinct_faults)
        if strike[0].seam == LEDGER and strike[0].has_effect
    ]
    chance, figures = random.Random(11), Figures()
    for scenario, strike in chance.sample(strikes, TABLE_SINGLES):
        play(scenario, (strike,), table_theatre, figures)
    for scenario, pair in choose_pairs(chance, theatre, TABLE_PAIRS):
        play(scenario, pair, table_theatre, figures)
    assert figures.injected.total() > TABLE_SINGLES + TABLE_PAIRS
    assert [str(failure) for failure in figures.failures] == []


def test_no_fault_of_a_real_connection_breaks_a_promise(tmp_path: Path) -> None:
    faults = [fault for fault in WIRE_FAULTS if fault.name in WIRED]
    figures = play_wire_faults(find("question"), tmp_path, faults)
    assert figures.runs > len(WIRED) * 8
    assert [str(failure) for failure in figures.failures] == []


def test_a_flood_under_faults_and_real_deaths_loses_and_doubles_nothing(tmp_path: Path) -> None:
    figures = run_load(tmp_path, 90)
    assert figures.deaths > 2
    assert figures.faults > 500
    assert figures.outcomes.total() == 90
    assert figures.accepted > 10  # or else it shows nothing
    assert figures.settled > 5
    assert figures.megabytes
    assert [str(violation) for violation in figures.violations] == []
