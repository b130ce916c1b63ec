"""The command: `python -m benchmarks` measures everything, `--quick` in about three minutes."""

import argparse
import importlib
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.figures import (
    Figure,
    Part,
    build_report,
    describe_machine,
    find_improvements,
    find_regressions,
    read_baseline,
    write_baseline,
)
from local.testing.progress import Progress

QUICK_PARTS = ("counts", "reply_cost", "latency", "lookups", "cold_start", "throughput", "growth", "desk")
PARTS = (*QUICK_PARTS, "peers")
REPORTS = Path("reports")
WHOLE_FROM = 1_000
FILE_WIDTH = 150  # nobody folds a log
STYLES = {"ok": "green", "short": "yellow"}


def main(arguments: Sequence[str]) -> int:
    """Measure, show and store; 1 when a count grew against the baseline."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="fewer and smaller runs, the same counts, no peers"
    )
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part (can be repeated)")
    parser.add_argument("--update-baseline", action="store_true", help="store the counts as they are now")
    parser.add_argument("--pictures", type=Path, help="also draw the SVG pictures into this folder")
    options = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)
    console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
    expected = "three minutes" if options.quick else "25 minutes, less with --only"
    console.print(f"Measuring: about {expected}, on two cores that do nothing else.")
    machine = describe_machine()
    parts = _measure(console, options.only or (QUICK_PARTS if options.quick else PARTS), quick=options.quick)
    for part in parts:
        _print_part(console, part)
    _store(console, parts, machine, quick=options.quick)
    if options.pictures:
        from benchmarks.pictures import draw_pictures  # noqa: PLC0415 - only when asked for

        for file in draw_pictures(parts, options.pictures):
            console.print(f"Drawn: {file}", highlight=False)
    figures = [figure for part in parts for figure in part.figures]
    if options.update_baseline:
        write_baseline(figures)
        console.print("The baseline holds the counts as they are now.")
        return 0
    return _compare(console, figures)


def _measure(console: Console, names: Sequence[str], *, quick: bool) -> list[Part]:
    parts = []
    with Progress(console, len(names)) as progress:
        for name in names:

            def describe(what: str, name: str = name) -> None:
                progress.describe(f"{name}: {what}")

            describe("starts")
            measure: Callable[..., Part] = importlib.import_module(f"benchmarks.{name}").measure
            parts.append(measure(describe, quick=quick))
            progress.advance()
    return parts


def _print_part(console: Console, part: Part) -> None:
    has_goals = any(figure.goal is not None for figure in part.figures)
    table = Table(title=part.title, title_justify="left", title_style="bold", expand=False)
    table.add_column("figure", overflow="fold")
    table.add_column("value", justify="right", no_wrap=True)
    if has_goals:
        table.add_column("goal", justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for figure in part.figures:
        goal = [_show_goal(figure)] if has_goals else []
        table.add_row(figure.name, _show(figure.value, figure.unit), *goal, figure.note)
    console.print(table)
    for note in part.notes:
        console.print(note, highlight=False)


def _show(value: float, unit: str) -> str:
    number = f"{value:,.0f}" if value == int(value) or abs(value) >= WHOLE_FROM else f"{value:,.3g}"
    return f"{number} {unit}".strip()


def _show_goal(figure: Figure) -> str:
    if figure.goal is None:
        return ""
    sign, style = ">=" if figure.at_least else "<=", STYLES[figure.verdict]
    return f"{sign} {_show(figure.goal, '')} [{style}]{figure.verdict}[/]"


def _store(console: Console, parts: Sequence[Part], machine: dict[str, object], *, quick: bool) -> None:
    REPORTS.mkdir(exist_ok=True)
    file = REPORTS / "benchmarks.json"
    file.write_text(
        json.dumps(build_report(parts, machine=machine, quick=quick), indent=1) + "\n", encoding="utf-8"
    )
    console.print(f"Everything with the machine's description: {file}", highlight=False)


def _compare(console: Console, figures: Sequence[Figure]) -> int:
    baseline = read_baseline()
    short = sum(figure.verdict == "short" for figure in figures)
    goals = sum(figure.goal is not None for figure in figures)
    console.print(f"{goals - short} of {goals} goals reached.", highlight=False)
    for sentence in find_improvements(figures, baseline):
        console.print(f"Better than the baseline: {sentence}", highlight=False)
    regressions = find_regressions(figures, baseline)
    for sentence in regressions:
        console.print(f"Regression: {sentence}", style="bold red", highlight=False)
    if regressions:
        console.print("If that is wanted: make bench ARGS=--update-baseline", highlight=False)
    return 1 if regressions else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
