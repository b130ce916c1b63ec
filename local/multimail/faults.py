"""Scripted faults for the simulated MultiMail: what breaks, at which call, before or after its effect."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from threading import Event

from flask import Response

from local.host.http_server import cut_connection
from local.multimail.emails import (
    EPOCH,
    GATED_SEND,
    Refusal,
    StoredMailbox,
    build_quota_refusal,
    build_rate_limit_refusal,
    build_warmup_refusal,
)
from local.multimail.wire import render_mailbox


@dataclass(frozen=True, slots=True)
class Fault:
    """What becomes of a call's answer.

    With `after_effect` the call does its work first, so that only its answer is spoilt; without it
    the work is never done. `spoil` gets the real answer, or None before the effect. `silent` tells
    that the client gets no answer at all.
    """

    name: str
    after_effect: bool
    spoil: Callable[[Response | None], Response]
    silent: bool = False


FaultSource = Callable[[str, str, int], Fault | None]
"""Decides about a call by its method, path and number (1 is the simulator's first request)."""


Matching = Callable[[str, str], bool]
"""Picks calls by their method and path."""

FOREIGN = StoredMailbox("mb_of_another_account", "info@another.example", GATED_SEND, EPOCH)

_BOX = "/v1/mailboxes/[^/]+"
_EMAIL, _THREAD = re.compile(f"{_BOX}/emails/[^/]+"), re.compile(f"{_BOX}/threads/[^/]+")
_TAGS = re.compile(f"{_BOX}/emails/[^/]+/tags(/.*)?")


def is_about_an_email(_method: str, path: str) -> bool:
    """Match reading one email, whichever."""
    return _EMAIL.fullmatch(path) is not None


def is_about_a_thread(_method: str, path: str) -> bool:
    """Match reading one thread, whichever."""
    return _THREAD.fullmatch(path) is not None


def is_about_tags(_method: str, path: str) -> bool:
    """Match reading and writing tags."""
    return _TAGS.fullmatch(path) is not None


def is_about_anything(_method: str, _path: str) -> bool:
    """Match every call."""
    return True


def no_fault(_method: str, _path: str, _number: int) -> Fault | None:
    """Let every call go well."""
    return None


def in_order(*faults: Fault | None, matching: Matching = is_about_anything) -> FaultSource:
    """Let the n-th matching call meet the n-th fault; None, and every call after the last, goes well."""
    remaining = iter(faults)

    def source(method: str, path: str, _number: int) -> Fault | None:
        return next(remaining, None) if matching(method, path) else None

    return source


def always(fault: Fault, *, matching: Matching = is_about_anything) -> FaultSource:
    """Let every matching call meet the fault."""
    return lambda method, path, _number: fault if matching(method, path) else None


def until(end: datetime, clock: Callable[[], datetime], source: FaultSource) -> FaultSource:
    """Let a source decide until the clock has reached `end`; every later call goes well."""
    return lambda method, path, number: source(method, path, number) if clock() < end else None


def another_account(method: str, path: str, _number: int) -> Fault:
    """Answer as if the key belonged to another account, which has one empty mailbox and nothing of ours."""
    if (method, path) == ("GET", "/v1/mailboxes"):
        return answer_with(200, {"mailboxes": [render_mailbox(FOREIGN, "operator@another.example")]})
    if (method, path) == ("GET", f"/v1/mailboxes/{FOREIGN.id}/emails"):
        return answer_with(200, {"emails": [], "cursor": None})
    return not_found()


def not_found() -> Fault:
    """Answer 404, as the service does for what the account does not have."""
    return answer_with(404, {"error": "Not found"})


def answer_with(
    status: int,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    *,
    after_effect: bool = False,
) -> Fault:
    """Answer with a status. A body that is a text goes out as HTML, anything else as JSON."""
    is_text = isinstance(body, str)
    content = body if isinstance(body, str) else json.dumps(body or {"error": f"Simulated {status}"})

    def spoil(_answer: Response | None) -> Response:
        kind = "text/html" if is_text else "application/json"
        return Response(content, status, dict(headers or {}), content_type=kind)

    return Fault(f"answer {status}", after_effect, spoil)


def rate_limited(retry_after_seconds: int) -> Fault:
    """Answer 429 with Retry-After."""
    return _refuse(build_rate_limit_refusal(retry_after_seconds))


def quota_exhausted() -> Fault:
    """Answer 429 for a used-up month."""
    return _refuse(build_quota_refusal())


def warming_up(stage: int = 1, sent: int = 10, limit: int = 10) -> Fault:
    """Answer 429 for a used-up day of a young account."""
    return _refuse(build_warmup_refusal(stage, sent, limit))


def cut(*, after_effect: bool) -> Fault:
    """Close the connection without an answer."""
    return Fault("cut", after_effect, lambda _answer: cut_connection(), silent=True)


def hang(*, after_effect: bool, release: Event | None = None, bound_seconds: float = 30) -> Fault:
    """Stay silent until `release` is set or the bound is reached, then close the connection."""
    released = release or Event()

    def spoil(_answer: Response | None) -> Response:
        released.wait(bound_seconds)
        return cut_connection()

    return Fault("hang", after_effect, spoil, silent=True)


def cut_mid_body() -> Fault:
    """Do the work, then close the connection in the middle of the answer's body."""

    def spoil(answer: Response | None) -> Response:
        content = _content(answer)
        return cut_connection(after=content[: len(content) // 2])

    return Fault("cut mid-body", True, spoil)


def malformed_json() -> Fault:
    """Do the work, then answer with JSON that stops in the middle, in well-formed HTTP."""

    def spoil(answer: Response | None) -> Response:
        content = _content(answer)
        return Response(content[: len(content) // 2], 200, content_type="application/json")

    return Fault("malformed JSON", True, spoil)


def _refuse(refusal: Refusal) -> Fault:
    return answer_with(refusal.status, refusal.body, refusal.headers)


def _content(answer: Response | None) -> bytes:
    if answer is None:
        raise ValueError("a fault in the body needs the effect to have happened")
    return answer.get_data()
