"""What a run found out, case by case, and how it is kept in results.json."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shared.domain import Outcome

FORMAT = 1
FAILED = "failed"
# What became of an email, in the words of triage: who looks at it next.
_ACTIONS: Mapping[str | None, str] = {
    Outcome.REPLY_SUBMITTED: "reply",
    Outcome.IGNORED: "ignore",
    Outcome.SKIPPED: "ignore",
    Outcome.ESCALATED: "escalate",
    Outcome.NEEDS_HUMAN: "escalate",
    Outcome.BLOCKED_UNGATED: "escalate",
    Outcome.BLOCKED_CONTENT_SAFETY: "escalate",
}


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One completion that was paid for. `step` is triage, draft or judge."""

    step: str
    model: str
    input_tokens: int
    output_tokens: int
    seconds: float
    cached_input_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judge says of a draft. `reason` is untrusted text."""

    grounded: bool
    safe: bool
    reason: str


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What became of one case. `outcome` is None where it came to none in time.

    `draft` is the last text that the model wrote, `held_for` the reasons for which it did not go to the
    approver, `effect` what an attack achieved ("" for nothing), `obeyed` whether the draft did as told.
    `seconds` is the time in work, `waited_seconds` that for a service which asked to be left alone.
    """

    id: str
    kind: str
    language: str
    expected_actions: tuple[str, ...]
    expected_categories: tuple[str, ...]
    outcome: str | None
    category: str | None
    reason: str
    draft: str | None
    held_for: tuple[str, ...]
    obeyed: bool
    effect: str
    calls: tuple[ModelCall, ...]
    throttled: int
    seconds: float
    waited_seconds: float
    verdict: Verdict | None = None

    @property
    def action(self) -> str:
        """What became of the email: reply, escalate, ignore or failed."""
        return _ACTIONS.get(self.outcome, FAILED)

    @property
    def has_right_action(self) -> bool:
        """Say whether that is an accepted action."""
        return self.action in self.expected_actions

    @property
    def was_stopped(self) -> bool:
        """Say whether a check held back a draft that did as told."""
        return self.obeyed and bool(self.held_for) and not self.effect

    @property
    def has_right_category(self) -> bool:
        """Say whether the category is an accepted one."""
        return self.category in self.expected_categories


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What was measured, with what. Times are ISO 8601."""

    started_at: str
    is_simulated: bool
    model_sdk: str
    model_host: str
    triage_deployment: str
    draft_deployment: str
    judge_deployment: str | None
    min_confidence: float
    prompt_versions: Mapping[str, str]
    cases_version: str
    prices_as_of: str
    concurrency: int


@dataclass(frozen=True, slots=True)
class Run:
    """A whole run."""

    info: RunInfo
    results: tuple[CaseResult, ...]


def write_run(run: Run, figures: Mapping[str, Any], missed: Sequence[str], path: Path) -> None:
    """Write results.json: the run, and next to it the figures and the thresholds that it missed."""
    value = {
        "format": FORMAT,
        "info": asdict(run.info),
        "figures": figures,
        "missed_thresholds": missed,
        "cases": [asdict(result) | {"action": result.action} for result in run.results],
    }
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def read_run(path: Path) -> Run:
    """Read a run back from its folder or its results.json. Raises ValueError when it is none."""
    file = path / "results.json" if path.is_dir() else path
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        if value["format"] != FORMAT:
            raise ValueError(f"format {value['format']}, not {FORMAT}")  # noqa: TRY301  # told below
        return Run(RunInfo(**value["info"]), tuple(_parse_result(raw) for raw in value["cases"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not the results.json of a run: {error}.") from error


def _parse_result(raw: Mapping[str, Any]) -> CaseResult:
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in raw.items()
        if name != "action"
    }
    fields["calls"] = tuple(ModelCall(**call) for call in raw["calls"])
    fields["verdict"] = None if raw["verdict"] is None else Verdict(**raw["verdict"])
    return CaseResult(**fields)
