"""The command: `python -m tests.certify` runs all attacks and writes docs/attack-report.md."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.certify.attacks import load_own_attacks
from tests.certify.lookup_report import list_lookup_violations, render_lookups, replace_lookups
from tests.certify.public_sets import load_public_attacks
from tests.certify.report import list_violations, render_report
from tests.certify.results import CaseResult
from tests.certify.run import run_all, run_lookups

REPORT = Path(__file__).parent.parent.parent / "docs" / "attack-report.md"


def main(arguments: Sequence[str]) -> int:
    """Run the attacks that are there, print and write what came of them; 1 when a rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.certify", description=__doc__)
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--own", action="store_true", help="only our own attacks; writes no report")
    part.add_argument(
        "--lookups", action="store_true", help="only look-ups; writes their sections of the report"
    )
    options = parser.parse_args(arguments)
    console, started = Console(), time.monotonic()
    facts, places = run_lookups(console)
    sections, violations = render_lookups(facts, places), list_lookup_violations(facts, places)
    count = len(facts) + len(places)
    if options.lookups:
        _write(console, replace_lookups(REPORT.read_text(encoding="utf-8"), sections))
    else:
        results, missing = _run_attacks(console, only_own=options.own)
        violations += list_violations(results)
        count += len(results)
        if not options.own:
            _write(console, render_report(results, missing, sections))
    for violation in violations:
        console.print(Text(f"{violation.rule}: {violation.case}: {violation.facts}", "red"), soft_wrap=True)
    minutes = (time.monotonic() - started) / 60
    console.print(f"{count} cases in {minutes:.1f} minutes, {len(violations)} violations.")
    return 1 if violations else 0


def _run_attacks(console: Console, *, only_own: bool) -> tuple[list[CaseResult], dict[str, str]]:
    """What came of the attacks, and of each set that is not there why."""
    public, missing = ([], {}) if only_own else load_public_attacks(os.environ)
    for name, why in missing.items():
        console.print(Text(f"Not run: {name}. {why}", "yellow"), soft_wrap=True)
    attacks = [*load_own_attacks(), *public]
    console.print(f"{len(attacks)} attacks. Expected to take {len(attacks) / 60:.0f} minutes on two cores.")
    return run_all(console, attacks), missing


def _write(console: Console, report: str) -> None:
    REPORT.write_text(report, encoding="utf-8")
    console.print(f"Written: {REPORT}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
