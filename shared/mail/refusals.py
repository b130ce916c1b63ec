"""What a refusal of MultiMail's means: the error that says what the caller must do."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

from shared.errors import (
    AgentError,
    ConfigurationError,
    ConflictError,
    NotFoundError,
    PermanentError,
    ThrottledError,
    TransientError,
    UnavailableError,
)
from shared.mail.call import Call
from shared.mail.parsing import UnreadableError, parse_json
from shared.services.http_session import find_retry_after

LONGEST_QUOTA_WAIT_SECONDS = 6 * 3600.0  # so that an upgraded plan is noticed within hours
LONGEST_WARM_UP_WAIT_SECONDS = 3600.0


def explain_refusal(
    call: Call, status: int, headers: Mapping[str, str], content: bytes, now: datetime
) -> AgentError:
    """The error for an answer that is not a success. `headers` are found in any case."""
    error = _explain(call, status, headers, content, now)
    error.request = f"{call} answered {status}"
    return error


def _explain(
    call: Call, status: int, headers: Mapping[str, str], content: bytes, now: datetime
) -> AgentError:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return _explain_throttling(headers, content, now)
    if status == HTTPStatus.UNAUTHORIZED:
        return ConfigurationError(
            "the MultiMail key is refused. Put a current key into MULTIMAIL_API_KEY, "
            "or into the Key Vault secret that MULTIMAIL_API_KEY_SECRET_NAME names."
        )
    if status == HTTPStatus.FORBIDDEN:
        return _explain_missing_permission(call, content)
    if status < HTTPStatus.BAD_REQUEST:
        return TransientError("MultiMail redirects, which is not followed. Check MULTIMAIL_API_URL.")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.REQUEST_TIMEOUT:
        return UnavailableError(
            f"MultiMail does not work at the moment (status {status})",
            retry_after_seconds=find_retry_after(headers),
        )
    kinds: dict[int, type[PermanentError]] = {404: NotFoundError, 409: ConflictError}
    reasons = {
        404: "MultiMail does not find it",
        409: "MultiMail has it already, or it is too late (status 409)",
    }
    reason = reasons.get(status, f"MultiMail does not take it (status {status})")
    return kinds.get(status, PermanentError)(reason, status_code=status)


def _explain_missing_permission(call: Call, content: bytes) -> AgentError:
    """A key without the scope is configured wrongly; a mode that forbids the call is a matter of one mailbox.

    The service answers both with 403. What says of itself that it is about a scope is about the key.
    """
    if call.template.startswith("/v1/oversight/"):
        return ConfigurationError("the MultiMail key lacks the oversight scope. Grant it.")
    if call.template == "/v1/audit-log":
        return ConfigurationError("the key lacks the admin scope. Use one that has it.")
    if call.method == "GET":
        return ConfigurationError("the MultiMail key lacks the read scope. Grant it.")
    if call.template.endswith("/tags") or "scope" in _read_error(content):
        return ConfigurationError("the MultiMail key lacks the send scope. Grant it.")
    return PermanentError(
        "the mailbox's oversight mode forbids this, or the MultiMail key lacks the send scope (status 403)",
        status_code=HTTPStatus.FORBIDDEN,
    )


def _read_error(content: bytes) -> str:
    try:
        return str(parse_json(content).get("error", "")).lower()
    except UnreadableError:
        return ""


def _explain_throttling(headers: Mapping[str, str], content: bytes, now: datetime) -> ThrottledError:
    """Tell the service's three kinds of 429 apart; only the first comes with a Retry-After header."""
    try:
        body = parse_json(content)
    except UnreadableError:
        body = {}
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    wait: float | None = None
    if "warmup_stage" in body or "daily_limit" in body:
        reason = "the mailbox's warm-up limit for today is reached"
        wait = _seconds_until(today + timedelta(days=1), now, LONGEST_WARM_UP_WAIT_SECONDS)
    elif "quota" in str(body.get("error", "")).lower():
        reason = "MultiMail's monthly quota of the account is used up; a larger plan would lift it"
        next_month = (today.replace(day=1) + timedelta(days=32)).replace(day=1)
        wait = _seconds_until(next_month, now, LONGEST_QUOTA_WAIT_SECONDS)
    else:
        reason = "MultiMail's rate limit is reached"
    asked = find_retry_after(headers)
    return ThrottledError(reason, retry_after_seconds=wait if asked is None else asked)


def _seconds_until(moment: datetime, now: datetime, longest: float) -> float:
    return min(max(1.0, (moment - now).total_seconds()), longest)
