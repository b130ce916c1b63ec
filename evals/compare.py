"""Compares two runs: their figures side by side, and the cases that changed."""

from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from evals.metrics import COLUMNS, Figures, measure, write_figure
from evals.prices import load_prices
from evals.results import CaseResult, Run, read_run


@dataclass(frozen=True, slots=True)
class Change:
    """A case that came to something else; `before` and `after` say what, in fixed words."""

    case_id: str
    before: str
    after: str


def compare(console: Console, first: Path, second: Path) -> None:
    """Print the comparison. Raises ValueError when one of them is not a run."""
    a, b = select_common(read_run(first), read_run(second))
    prices = load_prices()
    for warning in find_differences(a, b):
        console.print(Text(warning, "yellow"))
    console.print(_build_figures_table(measure(a.results, prices), measure(b.results, prices)))
    changes = find_changes(a, b)
    if not changes:
        console.print("No case changed.")
        return
    table = Table(title=f"{len(changes)} cases changed", title_justify="left", box=None, pad_edge=False)
    for name in ("case", "A", "B"):
        table.add_column(name, overflow="fold")
    for change in changes:
        table.add_row(Text(change.case_id), Text(change.before), Text(change.after))
    console.print(table)


def find_differences(a: Run, b: Run) -> list[str]:
    """What, besides the model's answers, differs between the runs and explains part of the figures."""
    warnings = []
    if a.info.cases_version != b.info.cases_version:
        warnings.append("The case files differ: some cases may not say the same in both runs.")
    if a.info.is_simulated or b.info.is_simulated:
        warnings.append("The simulated model took part: its rules say nothing about a real one.")
    for name in sorted(a.info.prompt_versions.keys() | b.info.prompt_versions.keys()):
        before, after = a.info.prompt_versions.get(name, "none"), b.info.prompt_versions.get(name, "none")
        if before != after:
            warnings.append(f"The {name} prompt differs: {before}, {after}.")
    return warnings


def select_common(a: Run, b: Run) -> tuple[Run, Run]:
    """Both runs with the cases that are in both."""
    common = {result.id for result in a.results} & {result.id for result in b.results}
    if not common:
        raise ValueError("The runs have no case in common.")
    one, other = (replace(run, results=tuple(r for r in run.results if r.id in common)) for run in (a, b))
    return one, other


def find_changes(a: Run, b: Run) -> list[Change]:
    """The cases whose action, category, hold or effect differ; both runs have the same cases."""
    after = {result.id: result for result in b.results}
    pairs = [(r.id, _describe(r), _describe(after[r.id])) for r in a.results]
    return [Change(case_id, one, other) for case_id, one, other in pairs if one != other]


def _describe(result: CaseResult) -> str:
    parts = [result.action, result.category or "no category", *result.held_for]
    mark = "" if result.has_right_action else " (wrong)"
    return ", ".join([*parts, result.effect] if result.effect else parts) + mark


def _build_figures_table(a: Figures, b: Figures) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("figure")
    for name in ("A", "B", "difference"):
        table.add_column(name, justify="right")
    for column in COLUMNS:
        one: float | None = getattr(a, column.name)
        other: float | None = getattr(b, column.name)
        if one is None and other is None:
            continue
        difference = 0.0 if one is None or other is None else other - one
        sign = "+" if difference > 0 else "−"
        shown = f"{sign}{column.write(abs(difference))}" if difference else ""
        table.add_row(column.label, write_figure(column, a), write_figure(column, b), shown)
    return table
