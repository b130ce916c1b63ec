"""Webhooks: what MultiMail says happened, believed only if signed, and then only as a reason to look."""

import hmac
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from http import HTTPStatus
from typing import Any

from shared.domain import EmailSummary, Mailbox, parse_address
from shared.errors import AgentError, PermanentError
from shared.mail.mailboxes import MailboxDirectory, select_mailboxes
from shared.services.secrets import SecretSource
from shared.settings import Secret, Settings
from shared.telemetry import WEBHOOK_RECEIVED, WEBHOOKS_REFUSED, record
from shared.watching.polling import Poller
from shared.watching.tracking import ReplyTracker

SIGNATURE_HEADER = "X-MultiMail-Signature"
MAX_BODY_BYTES = 64 * 1024  # an event carries a subject of 998 characters and addresses, no email's body
MAX_ID_CHARACTERS = 200
ASK_AGAIN_SECONDS = 60.0  # for a secret that was absent, or after a signature that did not match
TELL_SECONDS = 60.0

ARRIVALS = ("message.received", "email.received")
RELEASED = "oversight.approved"  # also of an inbound email
FATES = (
    *("oversight.pending", RELEASED, "oversight.rejected"),
    *("message.sent", "message.delivered", "message.bounced", "message.complained"),
)

_SIGNATURE = re.compile("sha256=([0-9a-fA-F]{64})")

log = logging.getLogger(__name__)


class Verdict(StrEnum):
    """What a signature is worth."""

    SIGNED = "signed"
    NOT_SIGNED = "not signed"
    NO_SECRET = "no secret"  # noqa: S105  # not one


_REFUSALS = {
    Verdict.NOT_SIGNED: HTTPStatus.UNAUTHORIZED,
    Verdict.NO_SECRET: HTTPStatus.SERVICE_UNAVAILABLE,
}


class SignatureCheck:
    """Tells MultiMail's requests from everybody else's. Safe to share between threads.

    `source` is None where webhooks are off. However many requests come, it is asked for a secret that
    is absent, or for a newer one after a signature that did not match, at most every ASK_AGAIN_SECONDS:
    so a new secret works without a restart, and a flood costs no readings of the vault. `monotonic`
    counts seconds.
    """

    def __init__(self, source: SecretSource | None, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._absent_until = float("-inf")
        self._refresh_at = float("-inf")
        self._told = ""

    def judge(self, body: bytes, header: str | None) -> Verdict:
        """Compare the header, `sha256=` and the hex HMAC-SHA256 of the raw body, in constant time."""
        if self._source is None:
            return Verdict.NO_SECRET
        match = _SIGNATURE.fullmatch(header or "")
        if match is None:
            return Verdict.NOT_SIGNED
        if self._monotonic() < self._absent_until:
            return Verdict.NO_SECRET
        try:
            secret = self._source.get()
        except AgentError as error:
            self._absent_until = self._monotonic() + ASK_AGAIN_SECONDS
            if str(error) != self._told:
                self._told = str(error)
                log.warning("webhooks are refused: %s", error)
            return Verdict.NO_SECRET
        given = bytes.fromhex(match[1])
        if _signs(secret, body, given):
            return Verdict.SIGNED
        with self._lock:
            may_ask = self._monotonic() >= self._refresh_at
            if may_ask:
                self._refresh_at = self._monotonic() + ASK_AGAIN_SECONDS
        try:
            newer = self._source.refresh(secret) if may_ask else None
        except AgentError:  # if it lasts, the next request's `get` tells
            newer = None
        return Verdict.SIGNED if newer is not None and _signs(newer, body, given) else Verdict.NOT_SIGNED


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """One event. `email_id` is "" in an event of an unknown name, of which nothing more is read."""

    name: str
    email_id: str = ""
    mailbox_id: str | None = None
    sender: str = ""
    to: tuple[str, ...] = ()
    is_outbound: bool = False


class WebhookReceiver:
    """Takes MultiMail's events in.

    An event only says where to look: the pipeline and the tracker read from MultiMail what is true.
    Both do nothing twice, so an event that is repeated, late, out of order or replayed does no harm,
    and its timestamp needs no limit. One that is lost costs only time: polling and tracking go on.
    """

    def __init__(
        self,
        *,
        signatures: SignatureCheck,
        mailboxes: MailboxDirectory,
        poller: Poller,
        tracker: ReplyTracker,
        settings: Settings,
        clock: Callable[[], datetime],
    ) -> None:
        self._signatures = signatures
        self._mailboxes = mailboxes
        self._poller = poller
        self._tracker = tracker
        self._settings = settings
        self._clock = clock
        self._refusals = _Refusals(clock)

    def receive(self, body: bytes, signature: str | None) -> HTTPStatus:
        """Receive the raw body of a request with its signature header; return the answer's status.

        Nothing is parsed, looked up or logged for a request that MultiMail did not sign. 5xx asks
        MultiMail to send the event again.
        """
        is_large = len(body) > MAX_BODY_BYTES
        refusal = (
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            if is_large
            else _REFUSALS.get(self._signatures.judge(body, signature))
        )
        if refusal is not None:
            self._refusals.count()
            return refusal
        try:
            event = parse_event(body)
        except PermanentError as error:
            log.warning("a signed webhook event was dropped: %s", error)
            record(WEBHOOK_RECEIVED, {"webhook_event": "unknown", "result": "malformed"})
            return HTTPStatus.BAD_REQUEST
        try:
            result, status = self._follow(event), HTTPStatus.NO_CONTENT
        except AgentError as error:
            log.warning(
                "webhook event %s of email %r has to come again: %s", event.name, event.email_id, error
            )
            result, status = "failed", HTTPStatus.SERVICE_UNAVAILABLE
        record(WEBHOOK_RECEIVED, {"webhook_event": event.name, "result": result})
        return status

    def _follow(self, event: WebhookEvent) -> str:
        """Look where the event says; return one word for what came of it."""
        if event.name in ARRIVALS:
            return self._add(event)
        if event.name in FATES:
            # The mailboxes that may have sent it: the one that the event names, by id or address, or all.
            mailboxes = self._list_named(event, (event.sender,))
            if not mailboxes and event.mailbox_id is None:
                mailboxes = list(self._mailboxes.read().values())
            if any(self._tracker.track_one(mailbox.id, event.email_id) for mailbox in mailboxes):
                return "tracked"
            is_released = event.name == RELEASED and any(
                self._poller.hasten(mailbox.id, event.email_id) for mailbox in mailboxes
            )
            return "released" if is_released else "ignored"
        return "ignored"

    def _add(self, event: WebhookEvent) -> str:
        """Hand the email to the one mailbox that got it, if it is one that is polled.

        An event without a mailbox id that went to two of ours is left to polling.
        """
        selected = select_mailboxes(self._mailboxes.read(), self._settings.multimail_mailbox_ids)
        found = [] if event.is_outbound else self._list_named(event, event.to)
        if len(found) != 1 or found[0].id not in selected:
            return "ignored"
        summary = EmailSummary(
            id=event.email_id,
            sender=event.sender,
            to=event.to,
            subject="",
            direction="inbound",
            status="unread",
            received_at=self._clock(),  # its own once it is read
        )
        if self._poller.add_now(found[0].id, summary):
            return "added"
        # It may be known because it waited for the approval that lets it in.
        return "released" if self._poller.hasten(found[0].id, event.email_id) else "known"

    def _list_named(self, event: WebhookEvent, headers: Sequence[str]) -> list[Mailbox]:
        """The mailboxes that the event names: by its mailbox id or else by the addresses in these headers."""
        known = self._mailboxes.read().values()
        if event.mailbox_id is not None:
            return [mailbox for mailbox in known if mailbox.id == event.mailbox_id]
        addresses = {parse_address(header) for header in headers} - {""}
        return [mailbox for mailbox in known if parse_address(mailbox.address) in addresses]


class _Refusals:
    """Counts what was refused, and tells the count at most every TELL_SECONDS."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._count = 0
        self._told_at: datetime | None = None

    def count(self) -> None:
        now = self._clock()
        with self._lock:
            self._count += 1
            if self._told_at is not None and 0 <= (now - self._told_at).total_seconds() < TELL_SECONDS:
                return
            count, self._count, self._told_at = self._count, 0, now
        record(WEBHOOKS_REFUSED, {"count": count})


def parse_event(body: bytes) -> WebhookEvent:
    """Read an event's body. Raises PermanentError; what only helps to find the mailbox may be missing."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise PermanentError(f"it must be JSON, got {len(body)} bytes that are not") from None
    name = value.get("event") if isinstance(value, dict) else None
    if not isinstance(name, str):
        raise PermanentError("it must be a JSON object with the text event")
    if name not in ARRIVALS + FATES:
        return WebhookEvent("unknown")
    data = value.get("data")
    email_id = _find_id(data, "email_id") if isinstance(data, dict) else None
    if not isinstance(data, dict) or email_id is None:
        raise PermanentError(f"{name} must have the text email_id in its data")
    to = data.get("to")
    return WebhookEvent(
        name=name,
        email_id=email_id,
        mailbox_id=_find_id(data, "mailbox_id"),
        sender=data["from"] if isinstance(data.get("from"), str) else "",
        to=tuple(address for address in (to if isinstance(to, list) else [to]) if isinstance(address, str)),
        is_outbound=data.get("direction") == "outbound",
    )


def _find_id(data: dict[str, Any], name: str) -> str | None:
    """An id that a store can look up and a log line can show."""
    value = data.get(name)
    usable = isinstance(value, str) and 0 < len(value) <= MAX_ID_CHARACTERS and value.isprintable()
    return value if usable else None


def _signs(secret: Secret, body: bytes, signature: bytes) -> bool:
    return hmac.compare_digest(hmac.digest(secret.value.encode(), body, sha256), signature)
