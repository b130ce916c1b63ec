"""The MultiMail REST API as the agent uses it: domain values in and out, failures split by what to do."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

import requests
from urllib3.util import Retry

from shared.domain import Contact, Email, EmailSummary, Mailbox, SubmittedReply
from shared.errors import (
    AgentError,
    ConfigurationError,
    ConflictError,
    NotFoundError,
    PermanentError,
    ThrottledError,
    TransientError,
)
from shared.http_session import build_session
from shared.settings import Secret
from shared.telemetry import span

CLOCK_MARGIN = timedelta(minutes=10)  # how far our clock and the service's may be apart
PAGE_SIZE = 100  # the most that the service lists at once
LONGEST_QUOTA_WAIT_SECONDS = 6 * 3600.0  # so that an upgraded plan is noticed within hours
LONGEST_WARM_UP_WAIT_SECONDS = 3600.0
LONGEST_RETRY_AFTER_SECONDS = 86_400.0  # a mistaken header must not park an email for ever

_MAILBOX = "/v1/mailboxes/{mailbox_id}"
_EMAIL = _MAILBOX + "/emails/{email_id}"

_logger = logging.getLogger(__name__)

_T = TypeVar("_T")


class SecretSource(Protocol):
    """Where the API key comes from."""

    def get(self) -> Secret:
        """The key as known now. Raises ConfigurationError or TransientError."""
        ...

    def refresh(self, stale: Secret) -> Secret:
        """The key after `stale` was refused: read again, unless a newer one is known already."""
        ...


class MultiMailClient:
    """A MultiMail account, safe to share between threads.

    `api_url` is the service root without `/v1`; `timeout` is (connect, read) in seconds.

    Every method raises ConfigurationError (refused key, missing read scope), NotFoundError,
    ConflictError, PermanentError with its `status_code` (any other refusal), ThrottledError (429)
    and TransientError (no connection, time-out, 5xx, redirect, an answer that breaks the contract).
    """

    def __init__(
        self,
        api_url: str,
        key: SecretSource,
        *,
        timeout: tuple[float, float] = (5.0, 30.0),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api_url = api_url.rstrip("/")
        self._key = key
        self._timeout = timeout
        self._clock = clock
        self._session = _build_session()

    def find_key_id(self) -> str | None:
        """The fingerprint of the key in use, for the audit trail; None while no key can be had."""
        try:
            return self._key.get().fingerprint
        except AgentError:
            return None

    def list_mailboxes(self) -> tuple[Mailbox, ...]:
        """List every mailbox of the account, inactive ones included."""
        try:
            answer = self._send(_Call("GET", "/v1/mailboxes"))
        except NotFoundError as error:
            raise ConfigurationError(
                f"{error}: set MULTIMAIL_API_URL to the service's root, without /v1."
            ) from error
        return answer.read(lambda body: tuple(_parse_mailbox(raw) for raw in _objects(body, "mailboxes")))

    def list_emails(
        self,
        mailbox_id: str,
        *,
        direction: str | None = None,
        status: str | None = None,
        date_after: datetime | None = None,
        subject_contains: str | None = None,
    ) -> Iterator[EmailSummary]:
        """List a mailbox's emails page by page, each id once.

        An email whose id or received_at cannot be read does not hide the others: the rest is
        listed first, then TransientError says so. Take emails in as they come, and do not count
        the listing as complete before it ends.
        """
        filters = {
            "direction": direction,
            "status": status,
            "date_after": _format_time(date_after),
            "subject_contains": subject_contains,
        }
        params = {name: value for name, value in filters.items() if value is not None}
        call = _Call("GET", _MAILBOX + "/emails", {"mailbox_id": mailbox_id}, params=params)
        seen: set[str] = set()
        unreadable: list[str] = []
        for page in self._pages(call):
            for raw in page:
                try:
                    summary = _parse_summary(raw, direction=direction or "")
                except _UnreadableError as error:
                    unreadable.append(str(error))
                    continue
                if summary.id not in seen:
                    seen.add(summary.id)
                    yield summary
        if unreadable:
            raise TransientError(f"{call} listed emails that cannot be read: {'; '.join(unreadable)}")

    def get_email(self, mailbox_id: str, email_id: str) -> Email:
        """Get one email with its body. The service marks an unread email as read by this."""
        return self._send(_email_call("GET", _EMAIL, mailbox_id, email_id)).read(_parse_email)

    def get_thread(self, mailbox_id: str, thread_id: str) -> tuple[EmailSummary, ...]:
        """Get a thread's emails of both directions, without bodies or spam verdicts."""
        ids = {"mailbox_id": mailbox_id, "thread_id": thread_id}
        answer = self._send(_Call("GET", _MAILBOX + "/threads/{thread_id}", ids))
        return answer.read(
            lambda body: tuple(_parse_summary(raw, thread_id=thread_id) for raw in _objects(body, "emails"))
        )

    def get_allowlist(self, mailbox_id: str) -> tuple[str, ...]:
        """Get the recipients that bypass approval: addresses, or patterns like `*@example.com`."""
        answer = self._send(_Call("GET", _MAILBOX + "/allowlist", {"mailbox_id": mailbox_id}))
        return answer.read(_parse_allowlist)

    def submit_reply(
        self, mailbox_id: str, email_id: str, markdown: str, idempotency_key: str
    ) -> SubmittedReply:
        """Reply in the email's thread, to its sender alone: no other recipient can be named.

        Never repeated here once it may have been sent: on TransientError the reply may exist, and
        the same key and bytes must be submitted again. ConflictError: the same content was
        submitted within 60 s.
        """
        body = {"markdown": markdown, "idempotency_key": idempotency_key}
        return self._submit(_email_call("POST", _MAILBOX + "/reply/{email_id}", mailbox_id, email_id, body))

    def send_email(
        self, mailbox_id: str, to: str, subject: str, markdown: str, idempotency_key: str
    ) -> SubmittedReply:
        """Send a new email to one bare address. Never repeated here, as with `submit_reply`."""
        body = {"to": [to], "subject": subject, "markdown": markdown, "idempotency_key": idempotency_key}
        return self._submit(_Call("POST", _MAILBOX + "/send", {"mailbox_id": mailbox_id}, body=body))

    def search_contacts(self, query: str) -> tuple[Contact, ...]:
        """Search the account's address book by name or address."""
        answer = self._send(_Call("GET", "/v1/contacts", params={"q": query}))
        return answer.read(lambda body: tuple(_parse_contact(raw) for raw in _objects(body, "contacts")))

    def get_tags(self, mailbox_id: str, email_id: str) -> dict[str, str]:
        """Get an email's tags."""
        return self._send(_email_call("GET", _EMAIL + "/tags", mailbox_id, email_id)).read(_parse_tags)

    def set_tags(self, mailbox_id: str, email_id: str, tags: Mapping[str, str]) -> None:
        """Replace all of an email's tags: hand in the union with those already there."""
        call = _email_call("PUT", _EMAIL + "/tags", mailbox_id, email_id, {"tags": dict(tags)})
        self._send(call).read(_parse_tags)

    def cancel_email(self, mailbox_id: str, email_id: str) -> None:
        """Cancel a pending outbound email. ConflictError: it is past cancelling."""
        self._send(_email_call("POST", _EMAIL + "/cancel", mailbox_id, email_id)).read(_object)

    def request_upgrade(self, mailbox_id: str, target_mode: str) -> None:
        """Ask the account's operator for a less restrictive oversight mode; they get a code to confirm it.

        Changes no mode by itself. ThrottledError: the service takes three an hour and mailbox.
        """
        path, body = _MAILBOX + "/request-upgrade", {"target_mode": target_mode}
        self._send(_Call("POST", path, {"mailbox_id": mailbox_id}, body=body))

    def _submit(self, call: "_Call") -> SubmittedReply:
        answer = self._send(call)
        already_sent = answer.status_code == requests.codes.ok  # what is new is answered 202
        return answer.read(lambda raw: SubmittedReply(_id(raw), _text(raw, "status", ""), already_sent))

    def _pages(self, call: "_Call") -> Iterator[list[Any]]:
        cursors: set[str] = set()
        params = {**call.params, "limit": str(PAGE_SIZE)}
        while True:
            answer = self._send(_Call(call.method, call.template, call.ids, params=params))
            emails, cursor = answer.read(lambda body: (_list(body, "emails"), _parse_cursor(body)))
            yield emails
            if not cursor:
                return
            if cursor in cursors:
                raise TransientError(f"{call} answered the same cursor twice: the listing would never end")
            cursors.add(cursor)
            params["cursor"] = cursor

    def _send(self, call: "_Call") -> "_Answer":
        attributes = {"http.request.method": call.method, "url.template": call.template}
        ids = {f"agent.{name}": value for name, value in call.ids.items()}
        with span(f"{call.method} {call.template}", attributes | ids, is_client=True) as current:
            key = self._key.get()
            response = self._send_once(call, key)
            if response.status_code == requests.codes.unauthorized:
                newer = self._key.refresh(key)
                if newer != key:  # the same key would only be refused again
                    response = self._send_once(call, newer)
            current.set_attribute("http.response.status_code", response.status_code)
        if not 200 <= response.status_code < 300:  # noqa: PLR2004 - the class of success in HTTP
            raise _explain_refusal(call, response, self._clock())
        return _Answer(call, response.status_code, response.content)

    def _send_once(self, call: "_Call", key: Secret) -> requests.Response:
        try:
            return self._session.request(
                call.method,
                self._api_url + call.path,
                params=call.params,
                json=call.body,
                headers={"Authorization": f"Bearer {key.value}"},
                timeout=self._timeout,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise TransientError(f"{call} got no whole answer: {type(error).__name__}") from error


def _build_session() -> requests.Session:
    """The session with the only retries that are made on this side.

    A connection that was never made is tried again for every method; what may have been sent only
    for GET and PUT. Anything longer belongs to the ledger's back-off: no waiting for Retry-After.
    """
    retry = Retry(
        total=2,
        connect=2,
        read=1,
        status=1,
        other=0,
        status_forcelist=(502, 503, 504),
        allowed_methods=("GET", "PUT"),
        backoff_factor=0.25,
        backoff_jitter=0.5,
        raise_on_status=False,
        respect_retry_after_header=False,
    )
    session = build_session(retry)
    session.headers["Accept"] = "application/json"
    return session


@dataclass(frozen=True, slots=True)
class _Call:
    """One request. As text it is safe to log: the path's template and percent-encoded ids."""

    method: str
    template: str
    ids: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None

    @property
    def path(self) -> str:
        """The path with every id as one percent-encoded segment.

        Raises PermanentError for the three ids that would name another resource: "", "." and
        ".." (clients and servers resolve dot segments even when they are percent-encoded).
        """
        for name, value in self.ids.items():
            if value in ("", ".", ".."):
                raise PermanentError(f"{self}: {value!r} cannot be the {name} of anything")
        return self.template.format_map(self._quoted_ids())

    def __str__(self) -> str:
        ids = ", ".join(f"{name}={value}" for name, value in self._quoted_ids().items())
        return f"{self.method} {self.template}" + (f" ({ids})" if ids else "")

    def _quoted_ids(self) -> dict[str, str]:
        return {name: _quote(value) for name, value in self.ids.items()}


def _quote(value: str) -> str:
    return quote(value, safe="", errors="replace")


def _email_call(
    method: str, template: str, mailbox_id: str, email_id: str, body: Mapping[str, Any] | None = None
) -> _Call:
    return _Call(method, template, {"mailbox_id": mailbox_id, "email_id": email_id}, body=body)


class _UnreadableError(Exception):
    """What the service sent breaks its contract. The text names fields and ids, never other values."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """A successful answer, still to be read."""

    call: _Call
    status_code: int
    content: bytes = field(repr=False)

    def read(self, parse: Callable[[dict[str, Any]], _T]) -> _T:
        """Parse the body. Raises TransientError when it is not what the contract promises."""
        try:
            return parse(_parse_json(self.content))
        except _UnreadableError as error:
            raise TransientError(
                f"{self.call} answered {self.status_code}, but unreadable: {error}"
            ) from error


def _explain_refusal(call: _Call, response: requests.Response, now: datetime) -> AgentError:
    status = response.status_code
    answered = f"{call} answered {status}"
    if status == requests.codes.too_many_requests:
        return _explain_throttling(answered, response, now)
    if status == requests.codes.unauthorized:
        return ConfigurationError(
            f"{answered}: the MultiMail key is refused. Put a current key into MULTIMAIL_API_KEY, "
            "or into the Key Vault secret that MULTIMAIL_API_KEY_SECRET_NAME names."
        )
    if status == requests.codes.forbidden:
        return _explain_missing_permission(call, answered)
    if status < 400:  # noqa: PLR2004 - below the class of refusals in HTTP
        return TransientError(f"{answered}: redirects are not followed. Check MULTIMAIL_API_URL.")
    if status >= 500 or status == requests.codes.request_timeout:  # noqa: PLR2004 - server errors in HTTP
        return TransientError(answered, retry_after_seconds=_parse_retry_after(response, now))
    kind = {404: NotFoundError, 409: ConflictError}.get(status, PermanentError)
    return kind(answered, status_code=status)


def _explain_missing_permission(call: _Call, answered: str) -> AgentError:
    if call.method == "GET":
        return ConfigurationError(f"{answered}: the MultiMail key lacks the read scope. Grant it.")
    if call.template.endswith("/tags"):
        return ConfigurationError(f"{answered}: the MultiMail key lacks the send scope. Grant it.")
    return PermanentError(
        f"{answered}: the MultiMail key lacks the send scope, or the mailbox's oversight mode forbids this",
        status_code=requests.codes.forbidden,
    )


def _explain_throttling(answered: str, response: requests.Response, now: datetime) -> ThrottledError:
    """Tell the service's three kinds of 429 apart; only the first comes with a Retry-After header."""
    try:
        body = _parse_json(response.content)
    except _UnreadableError:
        body = {}
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    wait: float | None = None
    if "warmup_stage" in body or "daily_limit" in body:
        reason = "the mailbox's warm-up limit for today is reached"
        wait = _seconds_until(today + timedelta(days=1), now, LONGEST_WARM_UP_WAIT_SECONDS)
    elif "quota" in str(body.get("error", "")).lower():
        reason = "the account's monthly quota is used up; a larger plan would lift it"
        next_month = (today.replace(day=1) + timedelta(days=32)).replace(day=1)
        wait = _seconds_until(next_month, now, LONGEST_QUOTA_WAIT_SECONDS)
    else:
        reason = "the rate limit is reached"
    asked = _parse_retry_after(response, now)
    return ThrottledError(f"{answered}: {reason}", retry_after_seconds=wait if asked is None else asked)


def _seconds_until(moment: datetime, now: datetime, longest: float) -> float:
    return min(max(1.0, (moment - now).total_seconds()), longest)


def _parse_retry_after(response: requests.Response, now: datetime) -> float | None:
    """Read seconds or an HTTP date; None when there is neither. At least a second: 0 would spin."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return min(max(1.0, float(value)), LONGEST_RETRY_AFTER_SECONDS)
    try:
        return _seconds_until(_as_utc(parsedate_to_datetime(value)), now, LONGEST_RETRY_AFTER_SECONDS)
    except (ValueError, OverflowError):
        return None


def _parse_json(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        # Not chained: these errors carry the text that they could not read.
        raise _UnreadableError(f"{len(content)} bytes that are not JSON") from None
    return _object(value)


def _parse_mailbox(raw: dict[str, Any]) -> Mailbox:
    return Mailbox(
        id=_id(raw),
        address=_text(raw, "address"),
        oversight_mode=_text(raw, "oversight_mode"),
        is_active=bool(raw.get("is_active", True)),
    )


def _parse_summary(raw: object, *, direction: str = "", thread_id: str | None = None) -> EmailSummary:
    """Read an email of a listing or a thread.

    Only its id and time are indispensable; what else is unreadable becomes an empty text (which
    the guard never answers), because an email is rather shown incomplete than lost. `direction`
    and `thread_id` are what was asked for, in case the email does not say.
    """
    fields = _object(raw)
    email_id = _id(fields)
    required = ("from", "subject", "direction", "status")
    wrong = [name for name in required if not isinstance(fields.get(name), str)]
    try:
        received_at = _time(fields, "received_at")
    except _UnreadableError as error:
        raise _UnreadableError(f"{error} in email {_quote(email_id)}") from error
    if wrong:
        _logger.warning("email %s is listed without a readable %s", _quote(email_id), ", ".join(wrong))
    return EmailSummary(
        id=email_id,
        sender=_find_text(fields, "from") or "",
        to=_find_texts(fields, "to"),
        subject=_find_text(fields, "subject") or "",
        direction=_find_text(fields, "direction") or direction,
        status=_find_text(fields, "status") or "",
        received_at=received_at,
        thread_id=_find_text(fields, "thread_id") or thread_id,
        spam_verdict=_find_text(fields, "spam_verdict"),
    )


def _parse_email(raw: dict[str, Any]) -> Email:
    status = _text(raw, "status")
    unreleased = status == "pending_inbound_approval"  # has no body until a human lets it in
    attachments = _objects(raw, "attachments") if raw.get("attachments") else []
    tags, headers = (_object(raw.get(name) or {}) for name in ("tags", "headers"))
    return Email(
        id=_id(raw),
        sender=_text(raw, "from", default=""),
        to=_find_texts(raw, "to"),
        subject=_text(raw, "subject", default=""),
        status=status,
        received_at=_time(raw, "received_at"),
        markdown=_text(raw, "markdown", default="" if unreleased else None),
        thread_id=_find_text(raw, "thread_id"),
        spam_verdict=_find_text(raw, "spam_verdict"),
        attachment_names=tuple(_text(item, "name", default="") for item in attachments),
        tags={name: _text(tags, name) for name in tags},
        headers={name.lower(): ", ".join(_find_texts(headers, name)) for name in headers},
        approved_at=_find_time(raw, "approved_at"),
        delivered_at=_find_time(raw, "delivered_at"),
        bounced_at=_find_time(raw, "bounced_at"),
    )


def _parse_contact(raw: dict[str, Any]) -> Contact:
    return Contact(name=_text(raw, "name", default=""), address=_text(raw, "email"))


def _parse_allowlist(raw: dict[str, Any]) -> tuple[str, ...]:
    """The patterns; only a count of 0 may stand for the list itself, because no list lets replies pass."""
    if "entries" not in raw and raw.get("count") == 0:
        return ()
    return tuple(_text(entry, "pattern") for entry in _objects(raw, "entries"))


def _parse_tags(raw: dict[str, Any]) -> dict[str, str]:
    tags = _object(raw.get("tags"))
    return {name: _text(tags, name) for name in tags}


def _parse_cursor(raw: dict[str, Any]) -> str:
    """The next page's cursor, "" at the end. The contract says text; an epoch number reads as well."""
    cursor = raw.get("cursor")
    if cursor is None or isinstance(cursor, str | int):
        return str(cursor or "")
    raise _UnreadableError("cursor is not a text")


def _object(raw: object) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise _UnreadableError("something that is not a JSON object")
    return raw


def _list(raw: dict[str, Any], name: str) -> list[Any]:
    value = raw.get(name)
    if not isinstance(value, list):
        raise _UnreadableError(f"{name} is not a list")
    return value


def _objects(raw: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [_object(item) for item in _list(raw, name)]


def _id(raw: dict[str, Any]) -> str:
    value = _text(raw, "id")
    if not value:
        raise _UnreadableError("id is empty")
    return value


def _text(raw: dict[str, Any], name: str, default: str | None = None) -> str:
    """The text called `name`; `default` replaces an absent or null one."""
    value = raw.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise _UnreadableError(f"{name} is not a text")
    return _clean(value)


def _find_text(raw: dict[str, Any], name: str) -> str | None:
    value = raw.get(name)
    return _clean(value) if isinstance(value, str) else None


def _find_texts(raw: dict[str, Any], name: str) -> tuple[str, ...]:
    value = raw.get(name)
    items = value if isinstance(value, list) else [value]
    return tuple(_clean(item) for item in items if isinstance(item, str))


def _clean(value: str) -> str:
    """Replace lone surrogates, which JSON can carry and neither a store nor a model can encode."""
    return value.encode("utf-8", "replace").decode()


def _time(raw: dict[str, Any], name: str) -> datetime:
    try:
        return _as_utc(datetime.fromisoformat(_text(raw, name).upper()))
    except (ValueError, OverflowError):
        raise _UnreadableError(f"{name} is not a time") from None


def _find_time(raw: dict[str, Any], name: str) -> datetime | None:
    return None if raw.get(name) is None else _time(raw, name)


def _as_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _format_time(moment: datetime | None) -> str | None:
    """Whole seconds, rounded down: a listing may start a little early, never late."""
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
