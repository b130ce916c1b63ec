"""The HTTP side of the operator's question: what is asked for, and every answer and failure as JSON."""

import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from http import HTTPStatus
from typing import Any, Protocol

from shared.errors import AgentError, ConfigurationError, ContentFilteredError, TransientError
from shared.operator.asking import Answer, Question
from shared.services.http_answer import HttpAnswer

MAX_QUESTION_CHARACTERS = 4_000
MAX_REQUEST_ID_CHARACTERS = 128
RETRY_AFTER_SECONDS = 30.0

log = logging.getLogger(__name__)


class Answerer(Protocol):
    """What answers questions: the agent."""

    def ask(self, question: Question) -> Answer:
        """Answer an operator's question. Raises AgentError."""
        ...


class BadQuestionError(ValueError):
    """The request is not a question; `field` is what to correct."""

    def __init__(self, field: str, problem: str) -> None:
        self.field = field
        super().__init__(f"{field} {problem}")


def answer_request(body: bytes, idempotency_key: str | None, get_agent: Callable[[], Answerer]) -> HttpAnswer:
    """Answer POST {"question": ..., "request_id": ...}; the header Idempotency-Key may stand for the latter.

    400 names the field; 422: the content filter refused; 500: a setting is wrong, which the log names;
    502: the model refused for good; 503 with Retry-After: ask again later, nothing was submitted.
    """
    try:
        question = parse_question(body, idempotency_key)
        answer = get_agent().ask(question)
    except BadQuestionError as error:
        return _render(HTTPStatus.BAD_REQUEST, {"error": str(error), "field": error.field})
    except AgentError as error:
        return _render_failure(error)
    calls = [
        # Its name, its end and ids, never what it read.
        {
            "tool": result.tool,
            "status": result.state,
            "mailbox_id": result.mailbox_id,
            "email_id": result.email_id,
        }
        for result in answer.tool_calls
    ]
    shown = {
        "request_id": answer.request_id,
        "answer": answer.text,
        "is_complete": answer.is_complete,
        "tool_calls": calls,
        "submitted": [asdict(sent) for sent in answer.submitted],
        "usage": asdict(answer.usage),
    }
    return _render(HTTPStatus.OK, shown)


def parse_question(body: bytes, idempotency_key: str | None) -> Question:
    """Read a request's body. Raises BadQuestionError."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadQuestionError("body", 'must be a JSON object such as {"question": "What came in today?"}')
    unknown = sorted(value.keys() - {"question", "request_id"})
    if unknown:
        raise BadQuestionError("body", "may hold question and request_id, and nothing else")
    text = check_question(value.get("question"))
    given = value.get("request_id")
    request_id = idempotency_key if given is None else given
    if request_id is not None and (
        not isinstance(request_id, str)
        or not 0 < len(request_id) <= MAX_REQUEST_ID_CHARACTERS
        or not request_id.isprintable()
    ):
        problem = f"must be a printable text of 1 to {MAX_REQUEST_ID_CHARACTERS} characters"
        raise BadQuestionError("request_id", problem)
    return Question(text, request_id)


def check_question(value: object) -> str:
    """A question's text, outer white space taken off. Raises BadQuestionError."""
    if not isinstance(value, str) or not value.strip():
        raise BadQuestionError("question", "must be a text that is not empty")
    if len(value) > MAX_QUESTION_CHARACTERS:
        raise BadQuestionError("question", f"must have at most {MAX_QUESTION_CHARACTERS} characters")
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can carry and no model can be asked with
        raise BadQuestionError("question", "holds characters that are not Unicode") from None
    return value.strip()


def _render_failure(error: AgentError) -> HttpAnswer:
    log.error("a question could not be answered: %s", error)
    if isinstance(error, TransientError):
        seconds = RETRY_AFTER_SECONDS if error.retry_after_seconds is None else error.retry_after_seconds
        body = {"error": f"Not now, nothing was submitted; ask again later. {error}"}
        headers = {"Retry-After": str(max(1, math.ceil(seconds)))}
        return _render(HTTPStatus.SERVICE_UNAVAILABLE, body, headers)
    if isinstance(error, ConfigurationError):
        body = {"error": "The agent is not configured correctly: its log names the setting."}
        return _render(HTTPStatus.INTERNAL_SERVER_ERROR, body)
    if isinstance(error, ContentFilteredError):
        fired = ", ".join(error.categories) or "unnamed"
        body = {
            "error": f"The model's content filter refused the question or an email that it reads ({fired})."
        }
        return _render(HTTPStatus.UNPROCESSABLE_ENTITY, body)
    return _render(HTTPStatus.BAD_GATEWAY, {"error": f"It could not be answered: {error}"})


def _render(status: HTTPStatus, body: Mapping[str, Any], headers: dict[str, str] | None = None) -> HttpAnswer:
    return HttpAnswer(status, json.dumps(body, ensure_ascii=False), headers=headers or {})
