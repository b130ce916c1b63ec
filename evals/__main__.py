"""The command line: `python -m evals` measures; with `compare A B` two runs, `scorecard` writes a page."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table
from rich.text import Text

from evals import claims
from evals.cases import Case, cases_version, load_cases
from evals.compare import compare
from evals.gaia import evaluate_gaia
from evals.judge import judge_version
from evals.knowledge_report import evaluate_knowledge
from evals.metrics import COLUMNS, Figures, measure, write_figure
from evals.prices import load_prices
from evals.report import SIMULATED, write_reports
from evals.results import CaseResult, Run, RunInfo
from evals.scorecard import write_scorecard
from evals.stage import Stage, open_stage
from evals.tau3 import evaluate_tau3
from evals.thresholds import THRESHOLDS, default_bounds, find_missed
from local.host.run import check_reachable, load_local_settings, report_misconfigured
from local.model.chat_simulator import ChatSimulator
from local.testing.progress import Progress
from shared.errors import ConfigurationError
from shared.model.prompting import load_prompt, text_version

REPORTS = Path("reports")
CONCURRENCY = 4
SECONDS_A_CASE = 8  # of a real model: a triage and, for two emails of three, a draft
OK, MISSED, MISCONFIGURED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is asked for. `bounds` are the thresholds that were given, by their names.

    The default thresholds are those of all cases: a run of some has to keep only the given ones.
    """

    concurrency: int = CONCURRENCY
    judge: str | None = None
    only: str = ""
    bounds: Mapping[str, float] = field(default_factory=dict)

    @property
    def all_bounds(self) -> Mapping[str, float]:
        """The bounds that the run has to keep."""
        return {**({} if self.only else default_bounds()), **self.bounds}


# What else can be measured than the labelled emails; each says whether its goals are reached.
SETS: Mapping[str, Callable[[Console, argparse.Namespace], bool]] = {
    "claims": lambda console, parsed: claims.run(console, parsed.half),
    "gaia": lambda console, parsed: evaluate_gaia(console, os.environ, parsed.judge),
    "knowledge": lambda console, parsed: evaluate_knowledge(console, os.environ, parsed.record),
    "tau3": lambda console, _: evaluate_tau3(console, os.environ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, run the command, return the exit status."""
    console = Console()
    parsed = _build_parser().parse_args(arguments)
    # The simulated services are on this machine, whatever proxy the way to the model takes.
    os.environ["NO_PROXY"] = ",".join(filter(None, (os.environ.get("NO_PROXY"), "127.0.0.1")))
    try:
        return _run(console, parsed)
    except ConfigurationError as error:
        return report_misconfigured(console, error)


def _run(console: Console, parsed: argparse.Namespace) -> int:
    if parsed.command == "compare":
        try:
            compare(console, parsed.a, parsed.b)
        except ValueError as error:
            console.print(Text(str(error), "red"), soft_wrap=True)
            return MISCONFIGURED
        return OK
    if parsed.command == "scorecard":
        write_scorecard(console, os.environ, datetime.now(UTC))
        return OK
    if parsed.set is not None:
        return OK if SETS[parsed.set](console, parsed) else MISSED
    given = {t.name: getattr(parsed, t.name) for t in THRESHOLDS if getattr(parsed, t.name) is not None}
    environment = dict(os.environ)
    load_local_settings(environment)
    options = Options(parsed.concurrency, parsed.judge, parsed.only, given)
    return evaluate(console, environment, options, REPORTS)


def evaluate(console: Console, environment: Mapping[str, str], options: Options, reports: Path) -> int:
    """Run the cases, print the figures, write the reports; return the exit status.

    Raises ConfigurationError when the model cannot be asked as configured.
    """
    cases = tuple(case for case in load_cases() if case.id.startswith(options.only))
    if not cases:
        raise ConfigurationError(f"--only {options.only}: no case id starts with this.")
    is_simulated = not environment.get("MODEL_ENDPOINT", "").strip()
    if is_simulated and options.judge is not None:
        raise ConfigurationError(
            "--judge needs a real deployment: set MODEL_ENDPOINT, the simulated model is no judge."
        )
    if is_simulated:
        console.print(Text(SIMULATED, "yellow"))
    chat = ChatSimulator(api_key="simulated", shields=True) if is_simulated else None
    started_at = datetime.now(UTC)
    with open_stage(environment, chat=chat) as stage:
        check_reachable(stage.settings)
        info = _build_info(stage, options, started_at, is_simulated=is_simulated)
        models = f"triage by {info.triage_deployment}, drafts by {info.draft_deployment}"
        console.print(Text(f"{len(cases)} emails, {models}, at {info.model_host}"), soft_wrap=True)
        expected = (
            "a few seconds" if is_simulated else f"about {_expect_minutes(len(cases), options):.0f} minutes"
        )
        console.print(Text(f"Expected to take {expected}."), soft_wrap=True)
        run = Run(info, _collect(console, stage, cases, options))
    return _conclude(console, run, cases, options, reports / f"eval-{started_at:%Y%m%dT%H%M%SZ}")


def _collect(
    console: Console, stage: Stage, cases: tuple[Case, ...], options: Options
) -> tuple[CaseResult, ...]:
    found = []
    with Progress(console, len(cases)) as progress:
        progress.describe("Reading the mail")
        for result in stage.run(cases, concurrency=options.concurrency, judge=options.judge):
            found.append(result)
            progress.advance()
    return tuple(sorted(found, key=lambda result: result.id))


def _expect_minutes(cases: int, options: Options) -> float:
    return max(1.0, cases * SECONDS_A_CASE / options.concurrency / 60)


def _conclude(console: Console, run: Run, cases: Sequence[Case], options: Options, folder: Path) -> int:
    figures = measure(run.results, load_prices())
    missed = find_missed(figures, options.all_bounds)
    write_reports(folder, run, figures, missed, cases, is_judged=bool(options.all_bounds))
    console.print(_build_table(figures))
    for line in missed:
        console.print(Text(line, "red"))
    console.print(Text(str(folder / "report.html")), soft_wrap=True)
    return MISSED if missed else OK


def _build_info(stage: Stage, options: Options, started_at: datetime, *, is_simulated: bool) -> RunInfo:
    settings = stage.settings
    versions = {name: text_version(load_prompt(name)) for name in ("triage", "draft")}
    return RunInfo(
        started_at=started_at.isoformat(timespec="seconds"),
        is_simulated=is_simulated,
        model_sdk=settings.model_sdk,
        model_host="a simulator on this machine"
        if is_simulated
        else urlsplit(settings.model_endpoint).netloc,
        triage_deployment=settings.triage_deployment,
        draft_deployment=settings.draft_deployment,
        judge_deployment=options.judge,
        min_confidence=settings.min_confidence,
        prompt_versions=versions | ({"judge": judge_version()} if options.judge else {}),
        cases_version=cases_version(),
        prices_as_of=load_prices().as_of,
        concurrency=options.concurrency,
    )


def _build_table(figures: Figures) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("figure")
    table.add_column("value", justify="right", style="bold")
    for column in COLUMNS:
        value = write_figure(column, figures)
        if value != "–":
            table.add_row(column.label, value)
    return table


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evals", description="Measure the agent on labelled emails."
    )
    parser.add_argument("--concurrency", type=int, choices=range(1, 33), metavar="1..32", default=CONCURRENCY)
    parser.add_argument("--judge", metavar="DEPLOYMENT", help="have this deployment judge every draft")
    parser.add_argument("--only", metavar="PREFIX", default="", help="only cases whose id begins like this")
    parser.add_argument("--set", choices=SETS, help="measure this instead: see docs/evaluation.md")
    parser.add_argument("--half", choices=claims.HALVES, default=claims.HALVES[0], help="of the claims")
    parser.add_argument("--record", metavar="FILE", type=Path, help="write the knowledge set's open prompts")
    for threshold in THRESHOLDS:
        parser.add_argument(threshold.option, type=float, metavar="X", help=f"default {threshold.bound:g}")
    commands = parser.add_subparsers(dest="command", required=False)
    comparison = commands.add_parser("compare", help="two runs side by side, and the cases that changed")
    for name in ("a", "b"):
        comparison.add_argument(name, type=Path, metavar=name.upper(), help="a run's folder or results.json")
    commands.add_parser("scorecard", help="write docs/scorecard.md; with EVAL_DATA_DIR, measure first")
    return parser


if __name__ == "__main__":
    sys.exit(main())
