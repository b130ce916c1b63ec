"""The claim set: how often the evidence check verifies what is false, and not what is true."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from shared.checks.evidence import Source, SourceKind, judge_claims
from shared.domain import Claim, Support

FOLDER = Path(__file__).parent / "claims"
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
        return all(one.support is Support.VERIFIED for one in judged) is (self.kind == "true")


def load_claims(half: str) -> tuple[LabelledClaim, ...]:
    """The labelled claims of one half."""
    raw = tomllib.loads((FOLDER / f"{half}.toml").read_text(encoding="utf-8"))["claim"]
    return tuple(LabelledClaim(**{k: v.strip() for k, v in entry.items()}) for entry in raw)


def run(console: Console, half: str) -> bool:
    """Print the figures of one half; say whether both goals are reached."""
    claims = load_claims(half)
    table = Table(box=None, pad_edge=False, title=f"Claims, {half} half", title_justify="left")
    for name in ("kind", "claims", "judged wrongly", "share"):
        table.add_column(name, justify="left" if name == "kind" else "right")
    kinds = dict.fromkeys(sorted((claim.kind for claim in claims), key=lambda kind: kind == "true"))
    wrong = {claim.id for claim in claims if not claim.is_right}
    for kind in kinds:
        _add_row(table, kind, [claim for claim in claims if claim.kind == kind], wrong)
    false = [claim for claim in claims if claim.kind != "true"]
    true = [claim for claim in claims if claim.kind == "true"]
    _add_row(table, "all false: verified", false, wrong)
    _add_row(table, "all true: not verified", true, wrong)
    console.print(table)
    goals = f"Goals: false at most {MAX_FALSE_VERIFIED:.2f}, true at most {MAX_TRUE_NOT_VERIFIED:.2f}."
    console.print(Text(goals))
    return _share(false, wrong) <= MAX_FALSE_VERIFIED and _share(true, wrong) <= MAX_TRUE_NOT_VERIFIED


def _add_row(table: Table, name: str, claims: Sequence[LabelledClaim], wrong: set[str]) -> None:
    count = sum(claim.id in wrong for claim in claims)
    table.add_row(name, str(len(claims)), str(count), f"{_share(claims, wrong):.2f}")


def _share(claims: Sequence[LabelledClaim], wrong: set[str]) -> float:
    return sum(claim.id in wrong for claim in claims) / max(len(claims), 1)
