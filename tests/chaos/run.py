"""Crash-point enumeration: every single fault, and every pair, at every outside call of every scenario."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local.multimail.simulator import MultiMailSimulator
from local.testing.azurite import Azurite
from local.testing.world import Clock
from tests.chaos.faults import Call, Fault, Plan, find_distinct_faults, find_faults
from tests.chaos.happenings import DEEDS, HAPPENINGS, Happening
from tests.chaos.invariants import ENDLESS, Violation, find_broken_orders, find_violations, find_wrong_ends
from tests.chaos.scenarios import Scenario
from tests.chaos.stage import Stage

Strike = tuple[Call, Fault | Happening]
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
    chosen, plan = list(strikes), dict[Call, Fault]()
    stage = theatre.build_stage(plan.get, **scenario.settings)
    for call, what in chosen:
        plan[call] = what.bind(stage, call) if isinstance(what, Happening) else what
    ends_as_told = all(not isinstance(what, Happening) or what.is_passing for _, what in chosen)
    found = play_to_the_end(stage, scenario, ends_as_told=ends_as_told)
    struck = tuple(f"{what.name} at {call}" for call, what in chosen)
    figures.note(scenario, struck, found, len(stage.seams.calls))
    figures.injected.update(f"{call.seam}: {fault.name}" for call, fault in stage.seams.injected)
    return stage.seams.calls


def play_to_the_end(stage: Stage, scenario: Scenario, *, ends_as_told: bool = True) -> list[Violation]:
    """Play a scenario on a stage, close it, and tell what was broken.

    It need not end as the scenario says (not `ends_as_told`) when people did what is not in the story.
    """
    try:
        stage.play(scenario.story(stage))
        wrong_ends = find_wrong_ends(stage, scenario) if ends_as_told else ()
        return [*find_violations(stage), *find_broken_orders(stage), *wrong_ends]
    except AssertionError as endless:
        return [Violation(ENDLESS, str(endless))]
    finally:
        stage.close()


def find_strikes(calls: Sequence[Call], faults: FaultsOf = find_faults) -> Iterator[tuple[Call, Fault]]:
    """Every fault at every one of the calls."""
    for call in calls:
        for fault in faults(call):
            yield call, fault


def find_moments(
    scenario: Scenario,
    before: Iterable[Strike],
    theatre: Theatre,
    happenings: Sequence[Happening] = HAPPENINGS,
) -> list[Strike]:
    """Every happening at every call that it can come before, in a story that some faults struck `before`."""
    moments: list[Strike] = []
    plan = {call: what for call, what in before if isinstance(what, Fault)}

    def watch(call: Call) -> Fault | None:
        moments.extend((call, what) for what in happenings if what.can_come_before(stage, call))
        return plan.get(call)

    stage = theatre.build_stage(watch, **scenario.settings)
    play_to_the_end(stage, scenario)
    return moments


def play_happenings(
    scenario: Scenario, theatre: Theatre, happenings: Sequence[Happening] = HAPPENINGS
) -> Figures:
    """Play a scenario once for every happening at every call that it can come before."""
    figures = Figures()
    for strike in find_moments(scenario, (), theatre, happenings):
        play(scenario, (strike,), theatre, figures)
    return figures


def play_singles(scenario: Scenario, theatre: Theatre, faults: FaultsOf = find_faults) -> Figures:
    """Play a scenario without a fault, then once for every fault at every call."""
    figures = Figures()
    for strike in find_strikes(play(scenario, (), theatre, figures), faults):
        play(scenario, (strike,), theatre, figures)
    return figures


def play_pairs_from(scenario: Scenario, first: tuple[Call, Fault], theatre: Theatre) -> Figures:
    """Play a scenario with a first fault and, after it, once for every distinct fault and deed at every later call."""
    figures = Figures()
    calls = play(scenario, (first,), theatre, Figures())
    if first[0] not in calls:  # it never struck, so nothing comes after it
        return figures
    later = calls[calls.index(first[0]) + 1 :]
    deeds = [strike for strike in find_moments(scenario, (first,), theatre, DEEDS) if strike[0] in set(later)]
    for second in [*find_strikes(later, find_distinct_faults), *deeds]:
        play(scenario, (first, second), theatre, figures)
    return figures
