"""What model calls cost, at the prices of docs/prices.toml."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from evals.results import ModelCall
from shared.domain import TokenPrice, Usage

PRICES = Path(__file__).parent.parent / "docs" / "prices.toml"


@dataclass(frozen=True, slots=True)
class Prices:
    """The prices by step (triage, draft, judge), as they were in the month `as_of`."""

    as_of: str
    by_step: Mapping[str, TokenPrice]

    def cost_usd(self, calls: Iterable[ModelCall]) -> float:
        """What these calls cost together, in US dollars."""
        return sum(
            self.by_step[call.step].cost(
                Usage(1, call.input_tokens, call.output_tokens, call.cached_input_tokens)
            )
            for call in calls
        )


def load_prices(path: Path = PRICES) -> Prices:
    """Read the price file."""
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    prices = {step: TokenPrice(**price) for step, price in raw["usd_per_million_tokens"].items()}
    return Prices(raw["date"], prices)
