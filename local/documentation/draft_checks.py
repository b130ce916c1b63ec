"""The table of the draft checks, from their declarations."""

from collections.abc import Sequence

from shared.checks.draft_checks import DRAFT_CHECKS

MAX_EXAMPLE = 60  # a longer one is described by its sentence


def render_draft_checks() -> str:
    """Render the table: each check's code, its sentence, and a draft that fails it and one that does not."""
    lines = [
        f"| `{check}` | {rule.sentence} | {_show(rule.bad)} | {_show(rule.good)} |"
        for check, rule in DRAFT_CHECKS.items()
    ]
    return "\n".join(["| code | it says | held back | may leave |", "|---|---|---|---|", *lines])


def _show(examples: Sequence[str]) -> str:
    """The first example that can be shown on one line, as code."""
    shown = (text.replace("|", "\\|") for text in examples if len(text) <= MAX_EXAMPLE and text.isprintable())
    return next((f"`` {text} ``" for text in shown if text.strip()), "")
