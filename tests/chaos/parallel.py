"""The enumeration, split over the machine's processors."""

import atexit
import multiprocessing
import os
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path

from rich.console import Console

from local.testing.azurite import Azurite, find_azurite
from local.testing.progress import Progress
from tests.chaos.faults import Call, Fault, find_distinct_faults, find_faults
from tests.chaos.happenings import CLOCKS, DEEDS, SPELLS
from tests.chaos.run import (
    Figures,
    Theatre,
    find_strikes,
    play,
    play_happenings,
    play_pairs_from,
    play_singles,
)
from tests.chaos.scenarios import SCENARIOS, Scenario
from tests.chaos.stage import quiet_logs
from tests.chaos.wire import play_wire_faults

SINGLES, VANISHED, CLOCKS_WRONG, PEOPLE, WIRE, PAIRS = (
    "single faults", "things vanish", "clocks", "people act", "wire faults", "pairs",
)  # fmt: skip
COVERED = {
    SINGLES: "every fault at every outside call: no answer, 404, 429, 500, malformed, cut, killed, another writer first",
    VANISHED: "from every call to MultiMail on: emails, threads, tags or all 404, another account's key, no mailbox",
    CLOCKS_WRONG: "before every call: a ledger that takes 50 s, an hour's standstill, a clock an hour ahead",
    PEOPLE: "before every call: a person answers, decides, opens the mailbox, lists the sender, puts the email away",
    WIRE: "every fault of a real connection at every request of three stories",
    PAIRS: "a fault, and after it another one, or a person's act, at every later call",
}
HAPPENINGS_OF = {VANISHED: SPELLS, CLOCKS_WRONG: CLOCKS, PEOPLE: DEEDS}
WIRED = ("question", "follow up while the reply is pending", "inbound approval released late")


def enumerate_faults(
    scenarios: Sequence[Scenario], directory: Path, percent: float, seed: int, *, on_azurite: bool = False
) -> dict[str, Figures]:
    """Try every single fault, everything that can happen between two calls, the wire's faults, `percent` of the pairs.

    With the ledger `on_azurite` the single faults are those that differ; the wire, which is MultiMail's, and what
    happens between two calls are left out: every story takes many times as long.
    """
    parts = {name: Figures() for name in COVERED}
    wired = [] if on_azurite else [s for s in scenarios if s.name in WIRED]
    happening = () if on_azurite else scenarios
    # Spawned: the poller's threads do not survive a fork.
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        work = {pool.submit(_singles, s.name, str(directory), on_azurite): parts[SINGLES] for s in scenarios}
        work |= {
            pool.submit(_happenings, s.name, name, str(directory)): parts[name]
            for s in happening
            for name in HAPPENINGS_OF
        }
        work |= {pool.submit(_wire, s.name, str(directory)): parts[WIRE] for s in wired}
        work |= {
            pool.submit(_pairs, s.name, call, fault.name, str(directory), on_azurite): parts[PAIRS]
            for s, (call, fault) in _choose_firsts(scenarios, directory, percent, seed)
        }
        with Progress(Console(stderr=True), len(work)) as progress:
            progress.describe("parts of the enumeration")
            for future in as_completed(work):
                work[future].add(future.result())
                progress.advance()
    return parts


def _choose_firsts(
    scenarios: Sequence[Scenario], directory: Path, percent: float, seed: int
) -> Iterator[tuple[Scenario, tuple[Call, Fault]]]:
    """The first faults of the pairs to try."""
    chance = random.Random(seed)
    for scenario in scenarios:
        calls = play(scenario, (), _theatre(str(directory), on_azurite=False), Figures())
        for strike in find_strikes(calls, find_distinct_faults):
            if chance.random() * 100 < percent:
                yield scenario, strike


# What a worker process runs. Faults hold functions, which do not travel: they are found again by name.


def _singles(name: str, directory: str, on_azurite: bool) -> Figures:
    faults = find_distinct_faults if on_azurite else find_faults
    return play_singles(_find(name), _theatre(directory, on_azurite=on_azurite), faults)


def _happenings(name: str, kind: str, directory: str) -> Figures:
    return play_happenings(_find(name), _theatre(directory, on_azurite=False), HAPPENINGS_OF[kind])


def _wire(name: str, directory: str) -> Figures:
    return play_wire_faults(_find(name), _theatre(directory, on_azurite=False).directory)


def _pairs(name: str, call: Call, fault_name: str, directory: str, on_azurite: bool) -> Figures:
    fault = next(fault for fault in find_faults(call) if fault.name == fault_name)
    return play_pairs_from(_find(name), (call, fault), _theatre(directory, on_azurite=on_azurite))


def _find(name: str) -> Scenario:
    return next(scenario for scenario in SCENARIOS if scenario.name == name)


@cache
def _theatre(directory: str, *, on_azurite: bool) -> Theatre:
    """This process' own, with an Azurite of its own that ends with it."""
    quiet_logs()
    own = Path(directory) / str(os.getpid())
    own.mkdir()
    if not on_azurite:
        return Theatre(own)
    program = find_azurite()
    assert program is not None
    azurite = Azurite(program)
    azurite.__enter__()
    atexit.register(azurite.__exit__, None, None, None)
    return Theatre(own, azurite)
