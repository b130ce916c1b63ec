"""Recorded answers to the prompts of a set, so that a run needs no model and can be repeated.

An answer is kept with the version of the prompt that it was written for. Where the prompt has changed since,
the answer is still given, and every figure that rests on it is marked as stale.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.domain import Usage
from shared.errors import PermanentError
from shared.model.chat import ChatCompletion, ChatRequest

RECORDED = "recorded answers"
_VERSION_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt of a case, and the version of it that its answer was written for, if there is one."""

    case_id: str
    step: str
    request: ChatRequest
    version: str
    answered_version: str | None

    @property
    def is_stale(self) -> bool:
        """Whether the answer was written for another prompt."""
        return self.answered_version not in (None, self.version)


@dataclass(slots=True)
class RecordedAnswers:
    """The answers in a folder, a file for each case: by step, the answer and its prompt's version."""

    folder: Path
    prompts: list[Prompt] = field(default_factory=list)

    def has(self, case_id: str) -> bool:
        """Whether there is an answer to a case."""
        return (self.folder / f"{case_id}.json").exists()

    def complete_for(self, case_id: str) -> Callable[[ChatRequest], ChatCompletion]:
        """A model that answers the prompts of one case. Raises PermanentError for one without an answer."""
        path = self.folder / f"{case_id}.json"
        steps: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

        def complete(request: ChatRequest) -> ChatCompletion:
            step, version = request.schema_name, compute_version(request)
            recorded = steps.get(step)
            answered = recorded["prompt"] if recorded else None
            self.prompts.append(Prompt(case_id, step, request, version, answered))
            if recorded is None:
                raise PermanentError(f"no {step} is recorded for {case_id}")
            text = json.dumps(recorded["answer"], ensure_ascii=False)
            return ChatCompletion(text, "stop", Usage(1), RECORDED)  # it costs no tokens

        return complete


def compute_version(request: ChatRequest) -> str:
    """The first 16 hex digits of a SHA-256 over everything that the model is shown."""
    shown = json.dumps([request.system, request.user, request.schema], sort_keys=True)
    return hashlib.sha256(shown.encode()).hexdigest()[:_VERSION_DIGITS]
