"""The command: `python -m tests.chaos` tries every fault, whatever can happen between two calls, pairs of them, every state
of the protocol and every attack; `load` works off a flood of mail.
"""

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from local.testing.azurite import find_azurite
from tests.chaos.invariants import DOUBLED, KINDS, LOST, UNGATED, UNSEEN
from tests.chaos.load import print_load, run_load
from tests.chaos.parallel import COVERED, PAIRS, enumerate_faults
from tests.chaos.run import Figures
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.stage import quiet_logs
from tests.hostile.report import run_attacks
from tests.protocol_model import explore

SHOWN = 20
# Minutes on two cores; a part of the scenarios takes its part of them.
SINGLES_MINUTES, MINUTES_A_PERCENT_OF_THE_PAIRS, MINUTES_AN_EMAIL = 36, 30, 0.0016


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("faults", "load"), default="faults")
    parser.add_argument("--scenario", default="", help="only scenarios whose name contains this")
    parser.add_argument(
        "--pairs", type=float, default=100, help="percent of the pairs to try, chosen by a seed"
    )
    parser.add_argument(
        "--store", choices=("sqlite", "azurite"), default="sqlite", help="where the ledger is"
    )
    parser.add_argument("--emails", type=int, default=10_000, help="how many emails the load run delivers")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    quiet_logs()
    with tempfile.TemporaryDirectory(dir=find_fast_directory()) as directory:
        if options.what == "load":
            _announce(MINUTES_AN_EMAIL * options.emails)
            return print_load(run_load(Path(directory), options.emails, seed=options.seed, progress=print))
        chosen = [scenario for scenario in SCENARIOS if options.scenario in scenario.name]
        if options.store == "azurite" and find_azurite() is None:
            parser.error("--store azurite needs the program azurite-table (see CONTRIBUTING.md)")
        minutes = SINGLES_MINUTES + MINUTES_A_PERCENT_OF_THE_PAIRS * options.pairs
        _announce(minutes * len(chosen) / len(SCENARIOS))
        parts = enumerate_faults(
            chosen, Path(directory), options.pairs, options.seed, on_azurite=options.store == "azurite"
        )
        print_figures(parts)
        return print_summary(len(chosen), parts, Path(directory))


def _announce(minutes: float) -> None:
    """Say how long it takes before it starts."""
    took = f"{minutes / 60:.0f} hours" if minutes > 90 else f"{max(1, minutes):.0f} minutes"
    print(f"Expected to take about {took} on two cores.", flush=True)


def find_fast_directory() -> str | None:
    """A directory in memory where there is one: the ledger waits for the disk at every write."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def print_figures(parts: dict[str, Figures]) -> None:
    """Print what was tried and what broke."""
    total = Figures()
    print(f"\n{'':16}{'runs':>9}{'calls':>12}{'faults':>9}{'violations':>12}")
    for name, figures in parts.items():
        total.add(figures)
        _print_row(name, figures)
    _print_row("together", total)
    print()
    for name, covered in COVERED.items():
        print(f"{name:16}{covered}")
    print()
    for name, count in sorted(total.injected.items()):
        print(f"  {name:36}{count:9}")
    for failure in sorted(total.failures, key=lambda failure: len(failure.strikes))[:SHOWN]:
        print(f"\n{failure}")
    if len(total.failures) > SHOWN:
        print(f"\n... and {len(total.failures) - SHOWN} more, none with fewer faults")


def print_summary(scenarios: int, parts: dict[str, Figures], directory: Path) -> int:
    """Explore the protocol, try the attacks, and print all that was tried in a few lines; 1 when anything broke."""
    model, attacks = explore(), run_attacks(directory)
    failures = [failure for figures in parts.values() for failure in figures.failures]
    broken = Counter(failure.violation.kind for failure in failures)
    first = (LOST, UNSEEN, DOUBLED, UNGATED)
    others = ", ".join(f"{kind} {broken[kind]}" for kind in KINDS if kind not in first)
    singles = sum(figures.runs for name, figures in parts.items() if name != PAIRS)
    print(
        f"\n{scenarios} scenarios, {singles} runs in which one thing happened or none, {parts[PAIRS].runs} pairs\n"
        f"{model.states} states of the protocol explored: {model.broken or 'every promise holds'}\n"
        f"{len(attacks.results)} attacks tried: {len(attacks.violations)} unwanted effects\n"
        f"{others}\n"
        f"{', '.join(f'{kind} {broken[kind]}' for kind in first)}"
    )
    return 1 if failures or model.broken or attacks.violations else 0


def _print_row(name: str, figures: Figures) -> None:
    injected, broken = figures.injected.total(), len(figures.failures)
    print(f"{name:16}{figures.runs:9}{figures.calls:12}{injected:9}{broken:12}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
