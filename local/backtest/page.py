"""The page that a backtest writes, self-contained and without script, and how pages are written."""

from collections.abc import Callable
from pathlib import Path

from local.backtest.comparison import Comparison, Tried
from shared.ledger.entries import LedgerEntry
from shared.operator.observed import Would, build_observed_pages, find_would

TEMPLATES = Path(__file__).parent / "templates"
SHOWN_CASES = 50  # of each list


def render_backtest(found: Comparison, read_answer: Callable[[Tried], str]) -> str:
    """The page. `read_answer` reads what a person wrote, of the cases that are shown."""
    pages = build_observed_pages(TEMPLATES)
    pages.filters["would"] = _find_would
    pages.filters["answer"] = read_answer
    lists = [
        ("Cases that flip", "The agent would do something else under the new configuration.", found.flips),
        (
            "Answered by people, not by the agent",
            "What it would need to answer these is often a passage of knowledge.",
            found.missed,
        ),
        (
            "Answered by the agent only",
            "Nobody answered these, or a reviewer turned the reply down.",
            found.unasked,
        ),
    ]
    counts = [found.count(lambda case: case.before), found.count(lambda case: case.after)]
    answered = [found.share_answered(lambda case: case.before), found.share_answered(lambda case: case.after)]
    return pages.get_template("backtest.html").render(
        found=found, lists=lists, counts=counts, answered=answered, ends=found.ends, shown=SHOWN_CASES
    )


def _find_would(entry: LedgerEntry) -> Would:
    return find_would(entry.outcome)


def write_private(path: Path, text: str) -> Path:
    """Write a file that only its owner can read: it has the words of customers."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    return path
