"""A simulated MultiMail account: how its emails move from state to state."""

import heapq
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from email.header import decode_header, make_header
from email.utils import getaddresses, parseaddr
from functools import wraps
from http import HTTPStatus
from typing import Concatenate, Literal, ParamSpec, TypeVar

from local.multimail.emails import (
    ARCHIVED,
    CANCELLED,
    DELETED,
    EPOCH,
    GATED_ALL,
    GATED_SEND,
    MODES,
    MONITORED,
    PENDING_INBOUND,
    PENDING_SCAN,
    PENDING_SEND,
    READ,
    READ_ONLY,
    REJECTED,
    SCHEDULED,
    SEND_FAILED,
    SENT,
    UNREAD,
    AcceptedEmail,
    AllowlistEntry,
    ApiKey,
    Attachment,
    AuditEntry,
    Contact,
    Emails,
    Listing,
    Outgoing,
    Position,
    Refusal,
    StoredEmail,
    StoredMailbox,
    Webhook,
    build_quota_refusal,
    build_warmup_refusal,
    to_milliseconds,
)

# Attachment is here too: callers of `deliver` need it.
__all__ = ["OPERATOR_ADDRESS", "Attachment", "MultiMailAccount"]

CANCELLABLE = (PENDING_SCAN, SCHEDULED, PENDING_SEND, PENDING_INBOUND)
SPAM_STATUSES = {"flagged": "spam_flagged", "quarantined": "spam_quarantined"}
SCOPES = frozenset({"read", "send", "admin", "oversight"})
PLANS = {"starter": (200, 2), "builder": (5_000, 5), "pro": (30_000, 25), "scale": (150_000, 100)}
IDEMPOTENCY_LIFETIME = timedelta(hours=24)
SAME_CONTENT_WINDOW = timedelta(seconds=60)
UPGRADE_WINDOW, UPGRADES_PER_WINDOW = timedelta(hours=1), 3
OPERATOR = "operator"  # the actor of what a human does in the dashboard
OPERATOR_ADDRESS = "operator@example.com"
ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _atomic(
    method: "Callable[Concatenate[MultiMailAccount, _P], _R]",
) -> "Callable[Concatenate[MultiMailAccount, _P], _R]":
    """Run a method under the account's lock, after everything that is due by the clock."""

    @wraps(method)
    def run(account: "MultiMailAccount", /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        with account.lock:
            account.settle()
            return method(account, *args, **kwargs)

    return run


class MultiMailAccount:
    """One MultiMail account in memory, on a clock that is handed in.

    `scan_seconds` is how long an accepted email stays in `pending_scan`. Ids are opaque, and the
    same for the same `seed` and calls. `on_event` hears, under the account's lock, of what webhooks
    tell. `monthly_quota` starts at what the plan grants. Methods
    raise Refusal where the service would answer with an error.
    """

    def __init__(
        self,
        clock: Callable[[], datetime],
        *,
        scan_seconds: float = 0,
        plan: str = "pro",
        seed: int = 0,
    ) -> None:
        self.lock = threading.RLock()
        self.scan_seconds = scan_seconds
        self.plan = plan
        self.monthly_quota, self.max_mailboxes = PLANS[plan]
        self.accepted: list[AcceptedEmail] = []
        self.audit: list[AuditEntry] = []
        self.contacts: list[Contact] = []
        self.webhooks: list[Webhook] = []
        self.mailboxes: dict[str, StoredMailbox] = {}
        self.storage_used_bytes = 0
        self.on_event: Callable[[str, StoredEmail], object] = lambda _name, _email: None
        self._clock = clock
        self._random = random.Random(seed)  # noqa: S311 - ids must be repeatable, not secret
        self._keys: dict[str, ApiKey] = {}
        self._emails = Emails()
        self._awaiting_decision: dict[str, StoredEmail] = {}
        self._timers: list[tuple[datetime, int, StoredEmail]] = []
        self._undeliverable: dict[str, Literal["bounced", "send_failed"]] = {}
        self._sent: Counter[str] = Counter()  # by month ("2026-11") and by day ("2026-11-22")
        self._warmup: tuple[int, int] | None = None

    # What a test or the demo sets up, and what people do in the service's dashboard.

    @_atomic
    def add_mailbox(
        self,
        address: str,
        mode: str = GATED_SEND,
        *,
        mailbox_id: str | None = None,
        display_name: str | None = None,
        signature_block: str | None = None,
        is_active: bool = True,
    ) -> str:
        """Create a mailbox and return its id."""
        mailbox = StoredMailbox(
            mailbox_id or self._new_id("mb"), address, _known_mode(mode), self.now(), display_name
        )
        mailbox.signature_block, mailbox.is_active = signature_block, is_active
        self.mailboxes[mailbox.id] = mailbox
        return mailbox.id

    @_atomic
    def set_mode(self, mailbox_id: str, mode: str) -> None:
        """Change a mailbox's oversight mode. What was accepted before keeps the mode it came in under."""
        self.get_mailbox(mailbox_id).mode = _known_mode(mode)

    @_atomic
    def add_key(self, scopes: Iterable[str] = ("read", "send"), *, live: bool = False) -> str:
        """Create an API key and return its token.

        Raises ValueError for an unknown scope, and for send together with oversight, which the
        service refuses so that an agent cannot approve itself.
        """
        granted = frozenset(scopes)
        if not granted <= SCOPES:
            raise ValueError(f"unknown scopes {sorted(granted - SCOPES)}; there are {sorted(SCOPES)}")
        if {"send", "oversight"} <= granted:
            raise ValueError("a key may not hold both send and oversight: make two keys")
        token = self._new_id("mm_live" if live else "mm_test")
        self._keys[token] = ApiKey(self._new_id("key"), token, granted)
        return token

    @_atomic
    def revoke_key(self, token: str) -> None:
        """Make a key unknown from now on."""
        del self._keys[token]

    @_atomic
    def rotate_key(self, token: str) -> str:
        """Replace a key by a new one with the same scopes, and return the new token."""
        return self.add_key(self._keys.pop(token).scopes, live=token.startswith("mm_live_"))

    @_atomic
    def allow(self, mailbox_id: str, pattern: str) -> None:
        """Put an address or `*@domain` on a mailbox's sending allowlist."""
        entry = AllowlistEntry(self._new_id("al"), pattern, self.now())
        self.get_mailbox(mailbox_id).allowlist.append(entry)

    @_atomic
    def add_contact(self, name: str, address: str, tags: Iterable[str] = ()) -> str:
        """Put a person into the address book and return the contact's id."""
        self.contacts.append(Contact(self._new_id("ct"), name, address, tuple(tags), self.now()))
        return self.contacts[-1].id

    @_atomic
    def refuse_delivery(self, address: str, fate: Literal["bounced", "send_failed"] = "bounced") -> None:
        """Let everything that is sent to an address from now on bounce, or fail to leave."""
        self._undeliverable[address.lower()] = fate

    @_atomic
    def set_warmup(self, stage: int, daily_limit: int) -> None:
        """Put the account into warm-up: at most `daily_limit` accepted emails per UTC day."""
        self._warmup = (stage, daily_limit)

    @_atomic
    def deliver(
        self,
        mailbox_id: str,
        from_: str,
        subject: str,
        markdown: str,
        *,
        received_at: datetime | None = None,
        thread_id: str | None = None,
        in_reply_to: str | None = None,
        to: Sequence[str] = (),
        cc: Sequence[str] = (),
        attachments: Sequence[Attachment] = (),
        spam_verdict: str | None = None,
        status: str | None = None,
        tags: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        reply_to: str = "",
    ) -> str:
        """Let an inbound email arrive and return its id.

        It is addressed to the mailbox unless `to` says otherwise. It joins `thread_id`, or the thread of the
        email `in_reply_to`, or starts one. Without a `status` it is what the spam verdict and the mailbox's
        mode make it.
        """
        mailbox = self.get_mailbox(mailbox_id)
        if in_reply_to is not None:
            thread_id = self._email(in_reply_to).thread_id
        arrives_as = PENDING_INBOUND if mailbox.mode == GATED_ALL else UNREAD
        email = self._add(
            mailbox,
            "inbound",
            from_,
            Outgoing(
                markdown,
                tuple(to) or (mailbox.address,),
                tuple(cc),
                subject=subject,
                attachments=tuple(attachments),
            ),
            status=status or SPAM_STATUSES.get(spam_verdict or "", arrives_as),
            thread_id=thread_id,
            received_at=received_at,
        )
        email.spam_verdict = spam_verdict
        email.tags.update(tags or {})
        email.headers, email.reply_to = headers or {}, reply_to
        self.on_event("oversight.pending" if email.status == PENDING_INBOUND else "message.received", email)
        return email.id

    @_atomic
    def add_outbound(
        self,
        mailbox_id: str,
        to: Sequence[str],
        subject: str,
        markdown: str,
        *,
        thread_id: str | None = None,
        received_at: datetime | None = None,
    ) -> str:
        """Add an email that a human sent from the mailbox, and return its id."""
        mailbox = self.get_mailbox(mailbox_id)
        outgoing = Outgoing(markdown, tuple(to), subject=subject)
        email = self._add(
            mailbox,
            "outbound",
            mailbox.address,
            outgoing,
            status=SENT,
            thread_id=thread_id,
            received_at=received_at,
        )
        email.delivered_at = email.received_at
        self.on_event("message.sent", email)
        return email.id

    @_atomic
    def human_reply(self, email_id: str, markdown: str) -> str:
        """Let a human answer an inbound email from the dashboard: sent at once. Returns the answer's id."""
        email = self._email(email_id)
        subject, to = _reply_subject(email.subject), (parseaddr(email.sender)[1],)
        return self.add_outbound(email.mailbox_id, to, subject, markdown, thread_id=email.thread_id)

    @_atomic
    def mark_read(self, email_id: str) -> None:
        """Let a human open an email in the dashboard."""
        email = self._email(email_id)
        if email.status == UNREAD:
            self._emails.move(email, READ)

    @_atomic
    def archive(self, email_id: str) -> None:
        """Let a human archive an email: it can still be read, and no longer waits for anything."""
        self._move(self._email(email_id), ARCHIVED)

    @_atomic
    def delete(self, email_id: str) -> None:
        """Let a human move an email to the bin, where it can still be read."""
        self._move(self._email(email_id), DELETED)

    @_atomic
    def erase(self, email_id: str) -> None:
        """Let a human delete an email for good: from now on there is no such email."""
        email = self._email(email_id)
        self._emails.remove(email)
        self._awaiting_decision.pop(email_id, None)
        self._timers = [timer for timer in self._timers if timer[2] is not email]
        heapq.heapify(self._timers)

    @_atomic
    def remove_mailbox(self, mailbox_id: str) -> StoredMailbox:
        """Let a human remove a mailbox. What it holds is kept for `put_back`."""
        return self.mailboxes.pop(mailbox_id)

    @_atomic
    def put_back(self, mailbox: StoredMailbox) -> None:
        """Have a mailbox again that was removed, with all that it held."""
        self.mailboxes[mailbox.id] = mailbox

    @_atomic
    def release_inbound(self, email_id: str) -> None:
        """Let a human approve an inbound email that was held back."""
        self.decide(email_id, "approve", OPERATOR)

    @_atomic
    def find_email(self, email_id: str) -> StoredEmail | None:
        """Return a copy of an email as it is now, without marking it as read."""
        email = self._emails.find(email_id)
        return replace(email, tags=dict(email.tags)) if email else None

    @_atomic
    def find_thread(self, mailbox_id: str, thread_id: str) -> list[StoredEmail]:
        """Return copies of a thread's emails, oldest first, also while its mailbox is removed."""
        return [replace(email) for email in self._emails.thread(mailbox_id, thread_id)]

    # What the API does.

    @_atomic
    def authenticate(self, token: str, scope: str) -> ApiKey:
        """Return the key with this token. Raises Refusal 401 or, without the scope, 403."""
        key = self._keys.get(token)
        if key is None:
            raise Refusal(HTTPStatus.UNAUTHORIZED, "Invalid or missing API key")
        if scope not in key.scopes:
            raise Refusal(HTTPStatus.FORBIDDEN, f"API key lacks the {scope} scope")
        return key

    @_atomic
    def find_key_id(self, token: str) -> str | None:
        """Return the id of a key that is valid now."""
        key = self._keys.get(token)
        return key.id if key else None

    @_atomic
    def get_mailbox(self, mailbox_id: str) -> StoredMailbox:
        """Return a mailbox. Raises Refusal 404."""
        mailbox = self.mailboxes.get(mailbox_id)
        if mailbox is None:
            raise Refusal(HTTPStatus.NOT_FOUND, f"Mailbox {mailbox_id} not found")
        return mailbox

    @_atomic
    def get_email(self, mailbox_id: str, email_id: str) -> StoredEmail:
        """Return an email of a mailbox. Raises Refusal 404."""
        email = self._emails.find(email_id)
        if email is None or email.mailbox_id != self.get_mailbox(mailbox_id).id:
            raise Refusal(HTTPStatus.NOT_FOUND, f"Email {email_id} not found in mailbox {mailbox_id}")
        return email

    @_atomic
    def list_emails(self, mailbox_id: str, listing: Listing) -> tuple[list[StoredEmail], Position | None]:
        """Return one page, newest first, and the position to go on from when there is more."""
        self.get_mailbox(mailbox_id)
        since = self.get_email(mailbox_id, listing.since_id).position if listing.since_id else None
        found = self._emails.newest_first(mailbox_id, listing, since)
        page = [email for email, _ in zip(found, range(listing.limit), strict=False)]
        more = next(found, None) is not None
        return page, page[-1].position if more else None

    @_atomic
    def get_thread(self, mailbox_id: str, thread_id: str) -> list[StoredEmail]:
        """Return a thread's emails, oldest first. Raises Refusal 404."""
        emails = self._emails.thread(self.get_mailbox(mailbox_id).id, thread_id)
        if not emails:
            raise Refusal(HTTPStatus.NOT_FOUND, f"Thread {thread_id} not found in mailbox {mailbox_id}")
        return emails

    @_atomic
    def list_awaiting_decision(self) -> list[StoredEmail]:
        """Return what waits for a human's decision, in every mailbox, longest waiting first."""
        return list(self._awaiting_decision.values())

    @_atomic
    def send(self, mailbox_id: str, outgoing: Outgoing, actor: str) -> tuple[StoredEmail, bool]:
        """Take on a new email. Returns it, and whether it was known by its idempotency key."""
        mailbox = self._sending_mailbox(mailbox_id)
        known = self._find_by_idempotency_key(mailbox, outgoing.idempotency_key)
        return (known, True) if known else (self._accept(mailbox, outgoing, None, actor), False)

    @_atomic
    def reply(
        self, mailbox_id: str, email_id: str, outgoing: Outgoing, actor: str
    ) -> tuple[StoredEmail, bool]:
        """Take on a reply to the sender, in the email's thread; otherwise as `send`."""
        original = self.get_email(mailbox_id, email_id)
        mailbox = self._sending_mailbox(mailbox_id)
        if original.held_back:
            raise Refusal(HTTPStatus.FORBIDDEN, f"Email {email_id} was not let in by a human")
        known = self._find_by_idempotency_key(mailbox, outgoing.idempotency_key)
        if known:
            return known, True
        content = (email_id, replace(outgoing, idempotency_key=None))
        last = mailbox.recent_replies.get(content)
        if outgoing.idempotency_key is None and last and self.now() - last < SAME_CONTENT_WINDOW:
            raise Refusal(HTTPStatus.CONFLICT, "The same reply was submitted less than 60 seconds ago")
        addressed = replace(
            outgoing,
            to=(*_reply_recipients(original), *mailbox.diverted_to),
            subject=_reply_subject(original.subject),
        )
        email = self._accept(mailbox, addressed, original, actor)
        mailbox.recent_replies[content] = self.now()
        return email, False

    @_atomic
    def cancel(self, mailbox_id: str, email_id: str, actor: str) -> bool:
        """Cancel a pending email; False when it was cancelled before. Raises Refusal 404 or 409."""
        email = self.get_email(mailbox_id, email_id)
        if email.status == CANCELLED:
            return False
        if email.status not in CANCELLABLE:
            raise Refusal(HTTPStatus.CONFLICT, f"Email {email_id} is {email.status}, not pending")
        self._move(email, CANCELLED)
        self._record("email.cancelled", "email", email_id, actor)
        return True

    @_atomic
    def decide(self, email_id: str, action: str, actor: str = OPERATOR) -> str:
        """Approve or reject what waits for a decision, and return the service's word for what happened."""
        email = self._awaiting_decision.get(email_id)
        if email is None:
            raise Refusal(HTTPStatus.NOT_FOUND, f"Email {email_id} is not awaiting a decision")
        self._record(f"oversight.{action}", "email", email_id, actor)
        if action == "reject":
            self._move(email, REJECTED)
            self.on_event("oversight.rejected", email)
            return "rejected"
        email.approved_at, email.approved_by = self.now(), actor
        self.on_event("oversight.approved", email)
        if email.direction == "inbound":
            self._move(email, UNREAD)
            self.on_event("message.received", email)
            return "approved"
        self._send_or_schedule(email, self.now())
        return "approved" if email.status == SCHEDULED else "approved_and_sent"

    @_atomic
    def open_email(self, mailbox_id: str, email_id: str) -> tuple[StoredEmail, bool]:
        """Return an email and whether this marked it as read. Raises Refusal 404."""
        email = self.get_email(mailbox_id, email_id)
        opened = email.direction == "inbound" and email.status == UNREAD
        if opened:
            self._emails.move(email, READ)
        return email, opened

    @_atomic
    def set_tags(self, mailbox_id: str, email_id: str, tags: Mapping[str, str], actor: str) -> None:
        """Replace all tags of an email. Raises Refusal 404."""
        self.get_email(mailbox_id, email_id).tags = dict(tags)
        self._record("email.tags_set", "email", email_id, actor)

    @_atomic
    def delete_tag(self, mailbox_id: str, email_id: str, tag: str, actor: str) -> bool:
        """Delete one tag; False when there was none. Raises Refusal 404."""
        deleted = self.get_email(mailbox_id, email_id).tags.pop(tag, None) is not None
        if deleted:
            self._record("email.tag_deleted", "email", email_id, actor)
        return deleted

    @_atomic
    def request_upgrade(self, mailbox_id: str, target_mode: str, actor: str) -> None:
        """Ask the operator for a less restrictive mode. Raises Refusal 400, 404 or 429."""
        mailbox = self.get_mailbox(mailbox_id)
        if target_mode not in MODES or MODES.index(target_mode) <= MODES.index(mailbox.mode):
            raise Refusal(HTTPStatus.BAD_REQUEST, "target_mode must be less restrictive than now")
        recent = [at for at in mailbox.upgrade_requests if self.now() - at < UPGRADE_WINDOW]
        if len(recent) >= UPGRADES_PER_WINDOW:
            raise Refusal(HTTPStatus.TOO_MANY_REQUESTS, "At most 3 upgrade requests per hour and mailbox")
        mailbox.upgrade_requests = [*recent, self.now()]
        self._record("mailbox.upgrade_requested", "mailbox", mailbox_id, actor)

    @_atomic
    def subscribe(self, url: str, events: Sequence[str], mailbox_id: str | None, actor: str) -> Webhook:
        """Store a webhook subscription and return it with its signing secret."""
        if mailbox_id is not None:
            self.get_mailbox(mailbox_id)
        secret = self._new_id("whsec")
        webhook = Webhook(self._new_id("wh"), url, tuple(events), mailbox_id, secret, self.now())
        self.webhooks.append(webhook)
        self._record("webhook.created", "webhook", webhook.id, actor)
        return webhook

    @_atomic
    def count_sent_this_month(self) -> int:
        """Count the emails accepted since the first of the month, UTC."""
        return self._sent[f"{self.now():%Y-%m}"]

    def now(self) -> datetime:
        """Return the clock's time in UTC, to the millisecond that the wire shows."""
        return to_milliseconds(self._clock())

    def settle(self) -> None:
        """Let every scan and schedule that is due by now take its effect, at the time it was due."""
        now = self.now()
        while self._timers and self._timers[0][0] <= now:
            due, _, email = heapq.heappop(self._timers)
            if email.status == PENDING_SCAN and email.gated and not email.schedule_first:
                self._move(email, PENDING_SEND)
            elif email.status == PENDING_SCAN:
                self._send_or_schedule(email, due)
            elif email.status == SCHEDULED and email.gated and email.approved_at is None:
                self._move(email, PENDING_SEND)
            elif email.status == SCHEDULED:
                self._send(email, due)

    def _sending_mailbox(self, mailbox_id: str) -> StoredMailbox:
        mailbox = self.get_mailbox(mailbox_id)
        if mailbox.mode == READ_ONLY or not mailbox.is_active:
            raise Refusal(HTTPStatus.FORBIDDEN, f"Mailbox {mailbox_id} may not send")
        return mailbox

    def _find_by_idempotency_key(self, mailbox: StoredMailbox, key: str | None) -> StoredEmail | None:
        email_id, at = mailbox.idempotency.get(key or "", ("", EPOCH))
        return self._emails.find(email_id) if self.now() - at < IDEMPOTENCY_LIFETIME else None

    def _accept(
        self, mailbox: StoredMailbox, outgoing: Outgoing, original: StoredEmail | None, actor: str
    ) -> StoredEmail:
        self._check_volume()
        mode, now, key = mailbox.mode, self.now(), outgoing.idempotency_key
        bypassed = mode == GATED_SEND and all(mailbox.allows(address) for address in outgoing.recipients)
        email = self._add(
            mailbox,
            "outbound",
            mailbox.address,
            _as_mailed(mailbox, outgoing),
            status=PENDING_SCAN,
            thread_id=original.thread_id if original else None,
        )
        email.gated = mode == GATED_ALL or (mode == GATED_SEND and not bypassed)
        email.send_at, email.schedule_first = outgoing.send_at, outgoing.schedule_first
        self._call_at(now + timedelta(seconds=self.scan_seconds), email)
        if key is not None:
            mailbox.idempotency[key] = (email.id, now)
        self._sent.update((f"{now:%Y-%m}", f"{now:%Y-%m-%d}"))
        self._record("email.replied" if original else "email.sent", "email", email.id, actor)
        reply_to = original.id if original else None
        self.accepted.append(
            AcceptedEmail(email.id, mailbox.id, reply_to, outgoing.recipients, key, mode, bypassed, now)
        )
        return email

    def _check_volume(self) -> None:
        if self.count_sent_this_month() >= self.monthly_quota:
            raise build_quota_refusal()
        sent_today = self._sent[f"{self.now():%Y-%m-%d}"]
        if self._warmup is not None and sent_today >= self._warmup[1]:
            raise build_warmup_refusal(self._warmup[0], sent_today, self._warmup[1])

    def _send_or_schedule(self, email: StoredEmail, at: datetime) -> None:
        if email.send_at is not None and email.send_at > at:
            self._move(email, SCHEDULED)
            self._call_at(email.send_at, email)
        else:
            self._send(email, at)

    def _send(self, email: StoredEmail, at: datetime) -> None:
        fates = {self._undeliverable.get(address.lower()) for address in email.recipients}
        if "send_failed" in fates:
            self._move(email, SEND_FAILED)
            return
        self._move(email, SENT)
        self.on_event("message.sent", email)
        if "bounced" in fates:
            email.bounced_at = at
            self.on_event("message.bounced", email)
        else:
            email.delivered_at = at
            self.on_event("message.delivered", email)

    def _call_at(self, due: datetime, email: StoredEmail) -> None:
        heapq.heappush(self._timers, (due, email.sequence, email))

    def _move(self, email: StoredEmail, status: str) -> None:
        self._emails.move(email, status)
        self._await_decision(email)
        if status == PENDING_SEND:
            self.on_event("oversight.pending", email)

    def _await_decision(self, email: StoredEmail) -> None:
        if email.status in (PENDING_SEND, PENDING_INBOUND):
            self._awaiting_decision[email.id] = email
        else:
            self._awaiting_decision.pop(email.id, None)

    def _email(self, email_id: str) -> StoredEmail:
        email = self._emails.find(email_id)
        if email is None:
            raise KeyError(f"no email {email_id}")
        return email

    def _add(
        self,
        mailbox: StoredMailbox,
        direction: Literal["inbound", "outbound"],
        sender: str,
        content: Outgoing,
        *,
        status: str,
        thread_id: str | None,
        received_at: datetime | None = None,
    ) -> StoredEmail:
        email = StoredEmail(
            id=self._new_id("em"),
            sequence=len(self._emails),
            mailbox_id=mailbox.id,
            thread_id=thread_id or self._new_id("th"),
            direction=direction,
            sender=sender,
            to=content.to,
            subject=content.subject,
            markdown=content.markdown,
            received_at=to_milliseconds(received_at or self._clock()),
            status=status,
            cc=content.cc,
            bcc=content.bcc,
            attachments=content.attachments,
        )
        self._emails.add(email)
        self._await_decision(email)
        self.storage_used_bytes += len(email.markdown) + sum(len(a.content) for a in email.attachments)
        return email

    def _record(self, action: str, resource_type: str, resource_id: str, actor: str) -> None:
        entry = AuditEntry(self._new_id("au"), action, resource_type, resource_id, actor, self.now())
        self.audit.append(entry)

    def _new_id(self, prefix: str) -> str:
        return f"{prefix}_{''.join(self._random.choices(ID_ALPHABET, k=20))}"


def _known_mode(mode: str) -> str:
    if mode not in MODES:
        raise ValueError(f"unknown oversight mode {mode!r}; there are {', '.join(MODES)}")
    return mode


def _reply_subject(subject: str) -> str:
    return subject if subject.lower().startswith("re:") else f"Re: {subject}"


def _reply_recipients(original: StoredEmail) -> tuple[str, ...]:
    if original.direction == "outbound":
        return original.to
    reply_to = str(make_header(decode_header(original.reply_to)))
    elsewhere = [address for _, address in getaddresses([reply_to]) if "@" in address]
    if elsewhere:
        return tuple(elsewhere)
    address = parseaddr(original.sender)[1]
    if "@" not in address:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"Email {original.id} has no address to reply to")
    return (address,)


def _as_mailed(mailbox: StoredMailbox, outgoing: Outgoing) -> Outgoing:
    """Add what the service adds: the signature, automatic copies and, in monitored mode, the operator's."""
    open_copy = OPERATOR_ADDRESS if mailbox.mode == MONITORED else mailbox.auto_cc
    copies, hidden = (tuple(filter(None, [copy])) for copy in (open_copy, mailbox.auto_bcc))
    signature = f"\n\n{mailbox.signature_block}" if mailbox.signature_block else ""
    return replace(
        outgoing,
        cc=(*outgoing.cc, *copies),
        bcc=(*outgoing.bcc, *hidden),
        markdown=outgoing.markdown + signature,
    )
