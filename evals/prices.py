"""What model calls cost, at the prices of docs/prices.toml."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from evals.results import ModelCall

PRICES = Path(__file__).parent.parent / "docs" / "prices.toml"


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens."""

    input: float
    output: float


@dataclass(frozen=True, slots=True)
class Prices:
    """The prices by step (triage, draft, judge), as they were in the month `as_of`."""

    as_of: str
    by_step: Mapping[str, Price]

    def cost_usd(self, calls: Iterable[ModelCall]) -> float:
        """What these calls cost together, in US dollars."""
        return (
            sum(
                call.input_tokens * self.by_step[call.step].input
                + call.output_tokens * self.by_step[call.step].output
                for call in calls
            )
            / 1_000_000
        )


def load_prices(path: Path = PRICES) -> Prices:
    """Read the price file."""
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    prices = {step: Price(**price) for step, price in raw["usd_per_million_tokens"].items()}
    return Prices(raw["date"], prices)
