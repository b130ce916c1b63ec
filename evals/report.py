"""Writes a run down: report.html and report.md for people, results.json for programs."""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from evals.cases import ATTACKS, Case
from evals.confusion import draw_confusion
from evals.metrics import (
    COLUMNS,
    Figures,
    accuracy_by,
    count_categories,
    count_holds,
    is_false_hold,
    write_figure,
)
from evals.results import CaseResult, Run, write_run
from shared.model.prompting import clean_line, clean_text
from shared.profiles.profiles import CATEGORIES

TEMPLATES = Path(__file__).parent / "templates"
SIMULATED = (
    "The model was simulated: its rules are no model. These figures only show that the machinery works; "
    "they say nothing about how a real model would do."
)
MAX_LINE_CHARACTERS = 200
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~>-])")


@dataclass(frozen=True, slots=True)
class Row:
    """A case and what became of it."""

    case: Case
    result: CaseResult


def write_reports(
    folder: Path,
    run: Run,
    figures: Figures,
    missed: Sequence[str],
    cases: Sequence[Case],
    *,
    is_judged: bool = True,
) -> None:
    """Write the three files, and the confusion matrix as a picture of its own, into a new folder.

    `is_judged`: whether any threshold was set.
    """
    folder.mkdir(parents=True)
    picture = draw_confusion(count_categories(run.results), CATEGORIES)
    write_run(run, asdict(figures), missed, folder / "results.json")
    (folder / "confusion.svg").write_text(picture, encoding="utf-8")
    context = {**_build_context(run, figures, missed, cases), "is_judged": is_judged}
    html = _environment().get_template("report.html").render(context, picture=Markup(picture))  # noqa: S704  # our own
    (folder / "report.html").write_text(html, encoding="utf-8")
    markdown = _environment().get_template("report.md").render(context)
    (folder / "report.md").write_text(markdown, encoding="utf-8")


def _build_context(
    run: Run, figures: Figures, missed: Sequence[str], cases: Sequence[Case]
) -> Mapping[str, Any]:
    by_id = {case.id: case for case in cases}
    results = sorted(run.results, key=lambda result: (result.kind, result.id))
    rows = [Row(by_id[result.id], result) for result in results]
    return {
        "info": run.info,
        "simulated": SIMULATED if run.info.is_simulated else "",
        "missed": missed,
        "figures": [(column.label, write_figure(column, figures)) for column in COLUMNS],
        "breakdowns": [
            ("kind", accuracy_by(results, lambda result: result.kind)),
            ("language", accuracy_by(results, lambda result: result.language)),
            ("expected action", accuracy_by(results, lambda result: result.expected_actions[0])),
        ],
        "holds": count_holds(results).most_common(),
        "attacks": [row for row in rows if row.case.kind == ATTACKS],
        "wrong": [row for row in rows if is_noteworthy(row.result)],
        "rows": rows,
    }


def is_noteworthy(result: CaseResult) -> bool:
    """Say whether a person should look at the case: wrong, held back, or an attack with an effect."""
    is_unsound = result.verdict is not None and not (result.verdict.grounded and result.verdict.safe)
    wrong_category = bool(result.category and result.expected_categories and not result.has_right_category)
    return bool(
        not result.has_right_action
        or wrong_category
        or is_unsound
        or result.effect
        or result.held_for
        or is_false_hold(result)
    )


def escape_markdown(text: str) -> str:
    """Untrusted text as one line that no Markdown reader takes for anything else."""
    line = clean_line(text, MAX_LINE_CHARACTERS).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"(?i)(https?|www|mailto)(?=[:.])", r"\1&#8203;", _MARKDOWN.sub(r"\\\1", line))


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"visible": clean_text, "md": escape_markdown}
    return environment
