"""The claim set: how often the evidence check verifies what is false, and not what is true."""

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from shared.checks.evidence import Source, SourceKind, judge_claims
from shared.domain import Claim, Support

FOLDER = Path(__file__).parent / "claims"
FIGURES = FOLDER / "held_out_figures.toml"
TRUE = "true"
HALVES = ("development", "held_out")
MAX_FALSE_VERIFIED = 0.10
MAX_TRUE_NOT_VERIFIED = 0.05


@dataclass(frozen=True, slots=True)
class LabelledClaim:
    """A sentence with the words that it is said to come from. `kind` is "true", or what is wrong with it."""

    id: str
    language: str
    source_language: str
    kind: str
    source: str
    quote: str
    sentence: str
    why: str

    @property
    def is_right(self) -> bool:
        """Whether the check judges it as the label does."""
        source = Source("K1", SourceKind.APPROVED, "", self.source)
        claim = Claim(self.sentence, source.id, self.quote)
        judged = judge_claims(self.sentence, [claim], [source])
        return all(one.support is Support.VERIFIED for one in judged) is (self.kind == TRUE)


def load_claims(half: str) -> tuple[LabelledClaim, ...]:
    """The labelled claims of one half."""
    raw = tomllib.loads((FOLDER / f"{half}.toml").read_text(encoding="utf-8"))["claim"]
    return tuple(LabelledClaim(**{k: v.strip() for k, v in entry.items()}) for entry in raw)


def measure(half: str) -> Mapping[str, tuple[int, int]]:
    """By kind: how many claims are judged wrongly, of how many. The kind "true" comes last."""
    claims = load_claims(half)
    kinds = dict.fromkeys(sorted((claim.kind for claim in claims), key=lambda kind: kind == TRUE))
    wrong = Counter(claim.kind for claim in claims if not claim.is_right)
    return {kind: (wrong[kind], sum(claim.kind == kind for claim in claims)) for kind in kinds}


def load_measured() -> Sequence[Mapping[str, Any]]:
    """The figures that were noted when a half was measured, the first run first.

    `verified_kinds`: how many false sentences of a kind were verified; the kinds left out had none.
    """
    runs: list[dict[str, Any]] = tomllib.loads(FIGURES.read_text(encoding="utf-8"))["run"]
    return runs


def add_false(kinds: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    """The figures of every kind that is false, together."""
    false = [figures for kind, figures in kinds.items() if kind != TRUE]
    return sum(wrong for wrong, _ in false), sum(number for _, number in false)


def run(console: Console, half: str) -> bool:
    """Print the figures of one half; say whether both goals are reached."""
    kinds = measure(half)
    false, true = add_false(kinds), kinds[TRUE]
    table = Table(box=None, pad_edge=False, title=f"Claims, {half} half", title_justify="left")
    for name in ("kind", "claims", "judged wrongly"):
        table.add_column(name, justify="left" if name == "kind" else "right")
    rows = {**kinds, "all false: verified": false, "all true: not verified": true}
    for kind, (wrong, number) in rows.items():
        table.add_row(kind, str(number), _share(wrong, number))
    console.print(table)
    _print_measured(console, Counter(claim.kind for claim in load_claims(HALVES[1])))
    goals = f"Goals: false at most {MAX_FALSE_VERIFIED:.2f}, true at most {MAX_TRUE_NOT_VERIFIED:.2f}."
    console.print(Text(goals))
    if half == HALVES[0]:
        console.print(
            Text("The rules were tuned on this half, not on the held-out one (docs/evaluation.md).")
        )
    return false[0] <= MAX_FALSE_VERIFIED * false[1] and true[0] <= MAX_TRUE_NOT_VERIFIED * true[1]


def _print_measured(console: Console, numbers: Counter[str]) -> None:
    """Print the runs of the held-out half, which has so many claims of each kind, as they were noted."""
    runs = [run for run in load_measured() if "verified_kinds" in run]
    table = Table(box=None, pad_edge=False, title="\nThe held-out half, judged wrongly", title_justify="left")
    table.add_column("kind")
    table.add_column("claims", justify="right")
    for run in runs:
        table.add_column(str(run["when"]).partition(",")[0], justify="right")
    for kind, number in sorted(numbers.items()):
        if kind != TRUE:
            table.add_row(
                kind, str(number), *(_share(run["verified_kinds"].get(kind, 0), number) for run in runs)
            )
    false = (_share(run["false_verified"], run["false"]) for run in runs)
    table.add_row("all false: verified", str(numbers.total() - numbers[TRUE]), *false)
    true = (_share(run["true_not_verified"], run["true"]) for run in runs)
    table.add_row("all true: not verified", str(numbers[TRUE]), *true)
    console.print(table)


def _share(wrong: int, number: int) -> str:
    return f"{wrong} ({wrong / number:.2f})"
