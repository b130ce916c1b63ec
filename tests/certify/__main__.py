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
from tests.certify.public_sets import load_public_attacks
from tests.certify.report import list_violations, render_report
from tests.certify.run import run_all

REPORT = Path(__file__).parent.parent.parent / "docs" / "attack-report.md"


def main(arguments: Sequence[str]) -> int:
    """Run the attacks that are there, print and write what came of them; 1 when a rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.certify", description=__doc__)
    parser.add_argument("--own", action="store_true", help="only our own attacks; writes no report")
    only_own = parser.parse_args(arguments).own
    console, started = Console(), time.monotonic()
    public, missing = ([], {}) if only_own else load_public_attacks(os.environ)
    for name, why in missing.items():
        console.print(Text(f"Not run: {name}. {why}", "yellow"), soft_wrap=True)
    attacks = [*load_own_attacks(), *public]
    console.print(f"{len(attacks)} attacks. Expected to take {len(attacks) / 60:.0f} minutes on two cores.")
    results = run_all(console, attacks)
    report = render_report(results, missing)
    violations = list_violations(results)
    for violation in violations:
        console.print(Text(f"{violation.rule}: {violation.case}: {violation.facts}", "red"), soft_wrap=True)
    if not only_own:
        REPORT.write_text(report, encoding="utf-8")
        console.print(f"Written: {REPORT}", soft_wrap=True)
    minutes = (time.monotonic() - started) / 60
    console.print(f"{len(results)} cases in {minutes:.1f} minutes, {len(violations)} violations.")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
