"""The judge: one more chat completion that says whether a draft is grounded and safe."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from evals.cases import Case
from evals.results import Verdict
from shared.errors import PermanentError, TransientError
from shared.model.chat import ChatCompletion, ChatRequest
from shared.model.prompting import build_documents, clean_sentence, fit_untrusted, text_version

T = TypeVar("T")

PROMPT = Path(__file__).with_suffix(".md")
MAX_TEXT_TOKENS = 6_000
MAX_REASON_CHARACTERS = 200
MAX_OUTPUT_TOKENS = 200
TRIES = 8
WAIT_SECONDS = 5.0  # where the service names no delay; doubled each time

SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["grounded", "safe", "reason"],
    "properties": {
        "grounded": {"type": "boolean"},
        "safe": {"type": "boolean"},
        "reason": {"type": "string"},
    },
}


def judge_version() -> str:
    """The version of the judge's prompt."""
    return text_version(PROMPT.read_text(encoding="utf-8").strip())


def judge_draft(
    case: Case,
    draft: str,
    complete: Callable[[ChatRequest], ChatCompletion],
    *,
    deployment: str,
    sleep: Callable[[float], None],
) -> Verdict | None:
    """Have a draft judged; None when no readable verdict is to be had. Waits as long as the service asks.

    Raises ConfigurationError when the deployment cannot be asked at all.
    """
    return ask_judge(build_judge_request(case, draft, deployment), parse_verdict, complete, sleep)


def ask_judge(
    request: ChatRequest,
    parse: Callable[[str], T],
    complete: Callable[[ChatRequest], ChatCompletion],
    sleep: Callable[[float], None],
) -> T | None:
    """Ask until `parse` can read the answer, which it refuses by ValueError; None when none can be had."""
    for attempt in range(TRIES):
        try:
            return parse(complete(request).text)
        except TransientError as error:
            delay = error.retry_after_seconds
            sleep(WAIT_SECONDS * 2**attempt if delay is None else delay)
        except PermanentError:
            return None
        except (ValueError, RecursionError):
            continue
    return None


def build_judge_request(case: Case, draft: str, deployment: str) -> ChatRequest:
    """The judge's call: the thread, the draft, and the facts that the draft may state."""
    earlier = [f"{'Sent by us' if e.sender is None else 'Received'}:\n{e.markdown}" for e in case.earlier]
    received = f"Received, to be answered:\nSubject: {case.subject}\nBody:\n{case.markdown}"
    texts = [*earlier, received, f"The draft:\n{draft}"]
    documents = build_documents([fit_untrusted(text, MAX_TEXT_TOKENS) for text in texts])
    known = "\n".join(f"- {fact}" for fact in case.facts) or "none"
    return ChatRequest(
        deployment=deployment,
        system=PROMPT.read_text(encoding="utf-8").strip(),
        user=f"{documents}\nKnown facts:\n{known}",
        schema_name="judge",
        schema=SCHEMA,
        max_output_tokens=MAX_OUTPUT_TOKENS,
    )


def parse_verdict(text: str) -> Verdict:
    """Read the judge's answer. Raises ValueError when it does not keep the schema."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("the verdict is not an object")  # noqa: TRY004 - one error for any bad answer
    grounded, safe, reason = value.get("grounded"), value.get("safe"), value.get("reason")
    if not isinstance(grounded, bool) or not isinstance(safe, bool) or not isinstance(reason, str):
        raise ValueError("the verdict lacks a field")  # noqa: TRY004 - one error for any bad answer
    return Verdict(grounded, safe, clean_sentence(reason, MAX_REASON_CHARACTERS))
