"""The HTTP side of the review desk: what is asked for or said, and every answer and failure as JSON."""

import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from shared.domain import WorkItem
from shared.errors import (
    AgentError,
    ConfigurationError,
    ConflictError,
    NotFoundError,
    PermanentError,
    TransientError,
)
from shared.ledger.rows import to_json
from shared.operator.review import Reviews
from shared.services.http_answer import HttpAnswer

MAX_ID_CHARACTERS = 512
RETRY_AFTER_SECONDS = 5.0
ACTIONS = ("reject", "edit", "take_back", "put_off", "done", "decided")
OF_A_REPLY = ("reject", "edit", "take_back", "decided")
OF_A_REVIEWER = ("reject", "edit", "take_back", "done")
HEADERS = {"Cache-Control": "no-store"}

log = logging.getLogger(__name__)


class BadReviewError(ValueError):
    """The request is none; `field` is what to correct."""

    def __init__(self, field: str, problem: str) -> None:
        self.field = field
        super().__init__(f"{field} {problem}")


@dataclass(frozen=True, slots=True)
class Said:
    """What a reviewer said of an email. `text`: the reason of a rejection, or an edit."""

    action: str
    item: WorkItem
    reply_id: str = ""
    reviewer: str = ""
    text: str = field(default="", repr=False)


def answer_review(
    method: str, params: Mapping[str, str], body: bytes, get_reviews: Callable[[], Reviews]
) -> HttpAnswer:
    """Answer GET with what is open, or with one email if the query names it; keep what a POST says.

    400 names the field; 404: the ledger does not have the email; 409: it has moved on, read it again; 500: a
    setting is wrong, which the log names; 503 with Retry-After: nothing was kept, try again.
    """
    try:
        if method == "GET":
            return _render(HTTPStatus.OK, _read(params, get_reviews()))
        _keep(parse_said(body), get_reviews())
    except BadReviewError as error:
        return _render(HTTPStatus.BAD_REQUEST, {"error": str(error), "field": error.field})
    except AgentError as error:
        return _render_failure(error)
    return _render(HTTPStatus.OK, {})


def parse_said(body: bytes) -> Said:
    """Read the body of a POST. Raises BadReviewError."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadReviewError("body", "must be a JSON object with action, mailbox_id and email_id")
    action = value.get("action")
    if action not in ACTIONS:
        raise BadReviewError("action", f"must be one of {', '.join(ACTIONS)}")
    text = value.get("text", "")
    if not isinstance(text, str) or not _is_unicode(text):
        raise BadReviewError("text", "must be a text of Unicode characters")
    return Said(
        action,
        WorkItem(_read_id(value, "mailbox_id"), _read_id(value, "email_id")),
        reply_id=_read_id(value, "reply_id") if action in OF_A_REPLY else "",
        reviewer=_read_id(value, "reviewer") if action in OF_A_REVIEWER else "",
        text=text,
    )


def _read(params: Mapping[str, str], reviews: Reviews) -> Any:
    reviewer = params.get("reviewer", "")
    if "email_id" not in params:
        return {"items": reviews.list_items(reviewer)}
    item = WorkItem(_read_id(params, "mailbox_id"), _read_id(params, "email_id"))
    found = reviews.find(item, reviewer)
    if found is None:
        raise NotFoundError(f"the ledger has no email {item.email_id} of mailbox {item.mailbox_id}")
    return found


def _keep(said: Said, reviews: Reviews) -> None:
    if said.action == "reject":
        reviews.reject(said.item, said.reply_id, said.reviewer, said.text)
    elif said.action == "edit":
        try:
            reviews.edit(said.item, said.reply_id, said.reviewer, said.text)
        except ValueError as error:
            raise BadReviewError("text", str(error)) from None
    elif said.action == "take_back":
        reviews.take_back(said.item, said.reply_id, said.reviewer)
    elif said.action == "put_off":
        reviews.put_off(said.item)
    elif said.action == "done":
        reviews.mark_done(said.item, said.reviewer)
    else:
        reviews.note_decided(said.item.mailbox_id, said.reply_id)


def _read_id(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_CHARACTERS or not value.isprintable():
        raise BadReviewError(name, f"must be a printable text of 1 to {MAX_ID_CHARACTERS} characters")
    return value


def _is_unicode(text: str) -> bool:
    """Whether no half of a character is in it, which JSON can carry and no service takes."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _render_failure(error: AgentError) -> HttpAnswer:
    if isinstance(error, NotFoundError):
        return _render(HTTPStatus.NOT_FOUND, {"error": str(error)})
    if isinstance(error, ConflictError):
        return _render(HTTPStatus.CONFLICT, {"error": str(error)})
    log.error("the review desk got no answer: %s", error)
    if isinstance(error, ConfigurationError | PermanentError):
        body = {"error": "The agent is not configured correctly: its log names the setting."}
        return _render(HTTPStatus.INTERNAL_SERVER_ERROR, body)
    seconds = error.retry_after_seconds if isinstance(error, TransientError) else None
    headers = {"Retry-After": str(max(1, math.ceil(RETRY_AFTER_SECONDS if seconds is None else seconds)))}
    return _render(HTTPStatus.SERVICE_UNAVAILABLE, {"error": "Not now: try again in a minute."}, headers)


def _render(status: HTTPStatus, body: Any, headers: Mapping[str, str] | None = None) -> HttpAnswer:
    return HttpAnswer(status, to_json(body), headers=HEADERS | dict(headers or {}))
