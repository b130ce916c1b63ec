"""The values a simulated MultiMail account is made of, and the index that finds its emails."""

from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Literal

READ_ONLY, GATED_ALL, GATED_SEND = "read_only", "gated_all", "gated_send"
MONITORED, AUTONOMOUS = "monitored", "autonomous"
MODES = (READ_ONLY, GATED_ALL, GATED_SEND, MONITORED, AUTONOMOUS)  # from most to least restrictive

UNREAD, READ, REJECTED, CANCELLED = "unread", "read", "rejected", "cancelled"
ARCHIVED, DELETED = "archived", "deleted"
PENDING_SCAN, SCHEDULED, SEND_FAILED = "pending_scan", "scheduled", "send_failed"
PENDING_SEND, PENDING_INBOUND = "pending_send_approval", "pending_inbound_approval"
# The contract's vocabulary has no "sent". A sent email is shown as read, which is true of our own
# words; delivered_at or bounced_at say that it left, and a client should look at those.
SENT = READ
STATUSES = (
    *(UNREAD, READ, ARCHIVED, DELETED, PENDING_SEND, PENDING_INBOUND, REJECTED, CANCELLED),
    *(SEND_FAILED, SCHEDULED, "spam_flagged", "spam_quarantined"),
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Position = tuple[int, int]  # received_at in epoch milliseconds, then the order of arrival


class Refusal(Exception):
    """The service's no: an HTTP status, its error text, and what else the answer carries."""

    def __init__(
        self,
        status: HTTPStatus,
        error: str,
        *,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        self.status, self.headers = status, dict(headers or {})
        self.body: dict[str, object] = {"error": error, **(details or {})}
        super().__init__(error)


def build_rate_limit_refusal(retry_after_seconds: int) -> Refusal:
    """The 429 of a key that calls too often."""
    return Refusal(
        HTTPStatus.TOO_MANY_REQUESTS,
        "Rate limit exceeded",
        headers={"Retry-After": str(retry_after_seconds)},
    )


def build_quota_refusal() -> Refusal:
    """The 429 of an account that has used up its month."""
    return Refusal(HTTPStatus.TOO_MANY_REQUESTS, "Monthly email quota exceeded")


def build_warmup_refusal(stage: int, sent: int, limit: int) -> Refusal:
    """The 429 of a young account that has used up its day."""
    hint = "Sending volume grows day by day; try again tomorrow."
    details = {"warmup_stage": stage, "daily_sent": sent, "daily_limit": limit, "hint": hint}
    return Refusal(HTTPStatus.TOO_MANY_REQUESTS, "Warm-up limit reached", details=details)


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file on an email."""

    name: str
    content_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key; `token` is what the client sends, `id` what logs may show."""

    id: str
    token: str = field(repr=False)
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class AllowlistEntry:
    """An address or `*@domain` that bypasses approval in gated_send."""

    id: str
    pattern: str
    added_at: datetime


@dataclass(frozen=True, slots=True)
class Contact:
    """An entry of the address book."""

    id: str
    name: str
    email: str
    tags: tuple[str, ...]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Webhook:
    """A subscription to events, of one mailbox or of all."""

    id: str
    url: str
    events: tuple[str, ...]
    mailbox_id: str | None
    signing_secret: str = field(repr=False)
    created_at: datetime


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that was done to the account."""

    id: str
    action: str
    resource_type: str
    resource_id: str
    actor_key_id: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What a client asks to have sent. A reply leaves `to` and `subject` to the service."""

    markdown: str
    to: tuple[str, ...] = ()
    cc: tuple[str, ...] = ()
    bcc: tuple[str, ...] = ()
    subject: str = ""
    attachments: tuple[Attachment, ...] = ()
    idempotency_key: str | None = None
    send_at: datetime | None = None
    schedule_first: bool = False

    @property
    def recipients(self) -> tuple[str, ...]:
        """Everybody who would get it."""
        return (*self.to, *self.cc, *self.bcc)


@dataclass(frozen=True, slots=True)
class AcceptedEmail:
    """A send or reply that the service took on: what assertions about effects look at."""

    email_id: str
    mailbox_id: str
    in_reply_to: str | None
    recipients: tuple[str, ...]
    idempotency_key: str | None
    mode: str
    approval_bypassed: bool
    at: datetime


@dataclass(slots=True)
class StoredEmail:
    """One email. `sequence` is its order of arrival and breaks ties between equal `received_at`.

    The contract leaves two things open: `headers` are those that the service shows, and a `reply_to` is
    where it sends replies to instead of the sender.
    """

    id: str
    sequence: int
    mailbox_id: str
    thread_id: str
    direction: Literal["inbound", "outbound"]
    sender: str
    to: tuple[str, ...]
    subject: str
    markdown: str
    received_at: datetime
    status: str
    cc: tuple[str, ...] = ()
    bcc: tuple[str, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    spam_verdict: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    reply_to: str = ""
    gated: bool = False
    send_at: datetime | None = None
    schedule_first: bool = False
    delivered_at: datetime | None = None
    bounced_at: datetime | None = None
    approved_at: datetime | None = None
    approved_by: str | None = None

    @property
    def position(self) -> Position:
        """Where the email is in a listing, oldest first."""
        return epoch_ms(self.received_at), self.sequence

    @property
    def held_back(self) -> bool:
        """Say whether an inbound email was not let in by a human, so that its body is hidden."""
        return self.direction == "inbound" and self.status in (PENDING_INBOUND, REJECTED, CANCELLED)

    @property
    def recipients(self) -> tuple[str, ...]:
        """Everybody who gets it."""
        return (*self.to, *self.cc, *self.bcc)


@dataclass(slots=True)
class StoredMailbox:
    """One mailbox with its allowlist and what it remembers about recent sends.

    `diverted_to`: who gets its replies besides the sender.
    """

    id: str
    address: str
    mode: str
    created_at: datetime
    display_name: str | None = None
    signature_block: str | None = None
    auto_cc: str | None = None
    auto_bcc: str | None = None
    diverted_to: tuple[str, ...] = ()
    is_active: bool = True
    allowlist: list[AllowlistEntry] = field(default_factory=list)
    idempotency: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    recent_replies: dict[tuple[str, Outgoing], datetime] = field(default_factory=dict)
    upgrade_requests: list[datetime] = field(default_factory=list)

    def allows(self, address: str) -> bool:
        """Say whether the allowlist covers an address."""
        address = address.lower()
        patterns = (entry.pattern.lower() for entry in self.allowlist)
        return any(address.endswith(p[1:]) if p.startswith("*@") else address == p for p in patterns)


@dataclass(frozen=True, slots=True)
class Listing:
    """The filters of a listing. Times are exclusive; `before` is where the last page ended."""

    status: str | None = None
    limit: int = 20
    before: Position | None = None
    sender: str = ""
    subject_contains: str = ""
    date_after: datetime | None = None
    date_before: datetime | None = None
    direction: str | None = None
    has_attachments: bool | None = None
    since_id: str | None = None

    def matches(self, email: StoredEmail) -> bool:
        """Say whether an email passes the filters that no index answers."""
        return (
            self.sender.lower() in email.sender.lower()
            and self.subject_contains.lower() in email.subject.lower()
            and self.has_attachments in (None, bool(email.attachments))
        )


class Emails:
    """Every email, found by id, by thread, and in a listing's order by mailbox, direction and status."""

    def __init__(self) -> None:
        self._in_order: list[StoredEmail] = []
        self._by_id: dict[str, StoredEmail] = {}
        self._by_thread: dict[tuple[str, str], list[StoredEmail]] = defaultdict(list)
        self._positions: dict[tuple[str, str | None, str | None], list[Position]] = defaultdict(list)

    def __len__(self) -> int:
        return len(self._in_order)

    def add(self, email: StoredEmail) -> None:
        """Add an email."""
        self._in_order.append(email)
        self._by_id[email.id] = email
        self._by_thread[email.mailbox_id, email.thread_id].append(email)
        for direction in (None, email.direction):
            for status in (None, email.status):
                insort(self._positions[email.mailbox_id, direction, status], email.position)

    def remove(self, email: StoredEmail) -> None:
        """Forget an email. Its sequence number stays taken."""
        del self._by_id[email.id]
        self._by_thread[email.mailbox_id, email.thread_id].remove(email)
        for direction in (None, email.direction):
            for status in (None, email.status):
                self._positions[email.mailbox_id, direction, status].remove(email.position)

    def find(self, email_id: str) -> StoredEmail | None:
        """Return an email, or None."""
        return self._by_id.get(email_id)

    def thread(self, mailbox_id: str, thread_id: str) -> list[StoredEmail]:
        """Return the emails of a thread, oldest first."""
        return sorted(self._by_thread.get((mailbox_id, thread_id), ()), key=lambda email: email.position)

    def move(self, email: StoredEmail, status: str) -> None:
        """Change an email's status; nothing else may, or the index by status goes stale."""
        for direction in (None, email.direction):
            old = self._positions[email.mailbox_id, direction, email.status]
            del old[bisect_left(old, email.position)]
            insort(self._positions[email.mailbox_id, direction, status], email.position)
        email.status = status

    def newest_first(
        self, mailbox_id: str, listing: Listing, since: Position | None
    ) -> Iterator[StoredEmail]:
        """Go through what a listing asks for; only its other filters cost a look at an email."""
        positions = self._positions.get((mailbox_id, listing.direction, listing.status), [])
        low, high = 0, len(positions)
        if since is not None:
            low = bisect_right(positions, since)
        if listing.date_after is not None:
            low = max(low, bisect_left(positions, (epoch_ms(listing.date_after) + 1, 0)))
        if listing.date_before is not None:
            last = epoch_ms(listing.date_before - timedelta(microseconds=1))
            high = min(high, bisect_left(positions, (last + 1, 0)))
        if listing.before is not None:
            high = min(high, bisect_left(positions, listing.before))
        emails = (self._in_order[positions[i][1]] for i in range(high - 1, low - 1, -1))
        return (email for email in emails if listing.matches(email))


def to_milliseconds(moment: datetime) -> datetime:
    """Return a time in UTC, cut to what the wire shows."""
    moment = moment.astimezone(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def epoch_ms(moment: datetime) -> int:
    """Return whole milliseconds since 1970, rounded down."""
    return (moment - EPOCH) // timedelta(milliseconds=1)
