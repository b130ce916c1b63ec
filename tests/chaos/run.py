"""Crash-point enumeration: every single fault, and every pair, at every outside call of every scenario."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local.multimail.simulator import MultiMailSimulator
from local.testing.azurite import Azurite
from local.testing.world import Clock
from tests.chaos.faults import Call, Fault, Plan, find_distinct_faults, find_faults
from tests.chaos.invariants import ENDLESS, Violation, find_violations, find_wrong_ends
from tests.chaos.scenarios import Scenario
from tests.chaos.stage import Stage

Strike = tuple[Call, Fault]
FaultsOf = Callable[[Call], Iterable[Fault]]


@dataclass(frozen=True, slots=True)
class Failure:
    """A broken promise with what it takes to break it again."""

    scenario: str
    strikes: tuple[str, ...]
    violation: Violation

    def __str__(self) -> str:
        return f"{self.scenario}\n    {'; then '.join(self.strikes) or 'no fault'}\n    -> {self.violation}"


@dataclass(slots=True)
class Figures:
    """What was tried, and what came of it."""

    runs: int = 0
    calls: int = 0
    injected: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def note(
        self, scenario: Scenario, struck: tuple[str, ...], found: Iterable[Violation], calls: int
    ) -> None:
        """Count one run."""
        self.runs += 1
        self.calls += calls
        self.failures += [Failure(scenario.name, struck, violation) for violation in found]

    def add(self, other: "Figures") -> None:
        """Count what another part of the run did."""
        self.runs += other.runs
        self.calls += other.calls
        self.injected += other.injected
        self.failures += other.failures


@dataclass(frozen=True, slots=True)
class Theatre:
    """Where stories are played, one after the other."""

    directory: Path
    azurite: Azurite | None = None
    simulator: MultiMailSimulator = field(default_factory=lambda: MultiMailSimulator(Clock()))

    def build_stage(self, plan: Plan, **settings: Any) -> Stage:
        """Make everything new for one story."""
        return Stage(self.directory, plan, self.simulator, self.azurite, **settings)


def play(scenario: Scenario, strikes: Iterable[Strike], theatre: Theatre, figures: Figures) -> list[Call]:
    """Play a scenario under faults, note what it broke, and return the calls that were made."""
    plan: Mapping[Call, Fault] = dict(strikes)
    stage = theatre.build_stage(plan.get, **scenario.settings)
    found = play_to_the_end(stage, scenario)
    struck = tuple(f"{fault.name} at {call}" for call, fault in plan.items())
    figures.note(scenario, struck, found, len(stage.seams.calls))
    figures.injected.update(f"{call.seam}: {fault.name}" for call, fault in stage.seams.injected)
    return stage.seams.calls


def play_to_the_end(stage: Stage, scenario: Scenario) -> list[Violation]:
    """Play a scenario on a stage, close it, and tell what was broken."""
    try:
        stage.play(scenario.story(stage))
        return [*find_violations(stage), *find_wrong_ends(stage, scenario)]
    except AssertionError as endless:
        return [Violation(ENDLESS, str(endless))]
    finally:
        stage.close()


def find_strikes(calls: Sequence[Call], faults: FaultsOf = find_faults) -> Iterator[Strike]:
    """Every fault at every one of the calls."""
    for call in calls:
        for fault in faults(call):
            yield call, fault


def play_singles(scenario: Scenario, theatre: Theatre, faults: FaultsOf = find_faults) -> Figures:
    """Play a scenario without a fault, then once for every fault at every call."""
    figures = Figures()
    for strike in find_strikes(play(scenario, (), theatre, figures), faults):
        play(scenario, (strike,), theatre, figures)
    return figures


def play_pairs_from(scenario: Scenario, first: Strike, theatre: Theatre) -> Figures:
    """Play a scenario with a first fault and, after it, once for every distinct fault at every later call."""
    figures = Figures()
    calls = play(scenario, (first,), theatre, Figures())
    if first[0] not in calls:  # it never struck, so nothing comes after it
        return figures
    for second in find_strikes(calls[calls.index(first[0]) + 1 :], find_distinct_faults):
        play(scenario, (first, second), theatre, figures)
    return figures
