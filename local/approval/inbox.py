"""What the approval page knows of the mailboxes, read through MultiMail's HTTP API."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from typing import TypeVar

from local.approval.oversight import Oversight, PendingEmail
from shared.domain import Cause, Email, EmailSummary, Mailbox, Outcome, base_address, parse_address
from shared.errors import NotFoundError, PermanentError
from shared.mail.multimail import MultiMailClient
from shared.mail.paging import PAGE_SIZE
from shared.replying.reporting import REJECT_REASON_TAG, STATUS_TAG
from shared.watching.tracking import PENDING_APPROVAL

# Tag reads of one refresh: about half a second on one machine. Ten thousand emails take fifty refreshes.
READS_PER_REFRESH = 200

# What closes an email only as long as something else stands: the agent may judge it again.
TAKEN_BACK = (Cause.ANSWERED, Cause.COVERED, Cause.SAME_EMAIL, Cause.DELETED)

FLOOD_CAUSES = (Cause.SENDER_FLOOD, Cause.SENDER_TOKENS)

T = TypeVar("T")

Key = tuple[str, str]
"""A mailbox's id and an email's id."""


class State(StrEnum):
    """What a person wants to know first about an email; the page counts and filters by it."""

    WAITING = "waiting"
    ANSWERED = "answered"
    ESCALATED = "escalated"
    REFUSED = "refused"
    SKIPPED = "skipped"
    OPEN = "open"


STATES: Mapping[str, State] = {
    Outcome.ESCALATED: State.ESCALATED,
    Outcome.NEEDS_HUMAN: State.ESCALATED,
    Outcome.FAILED: State.ESCALATED,
    Outcome.BLOCKED_UNGATED: State.REFUSED,
    Outcome.BLOCKED_CONTENT_SAFETY: State.REFUSED,
    Outcome.SKIPPED: State.SKIPPED,
    Outcome.IGNORED: State.SKIPPED,
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the list: an email, the agent's tags on it, and the reply where there is one.

    A pending email that answers none is its own reply. `more`: how many older emails of a flood it stands
    for. All text is hostile.
    """

    mailbox_id: str
    email: EmailSummary | Email
    tags: Mapping[str, str]
    reply: Email | None
    is_outbound: bool = False
    more: int = 0

    @property
    def key(self) -> Key:
        """Where the email is found."""
        return self.mailbox_id, self.email.id

    @property
    def outcome(self) -> str:
        """The outcome that the agent tagged, or ""."""
        return self.tags.get("agent.outcome", "")

    @property
    def is_pending(self) -> bool:
        """Whether the reply waits for a person's decision."""
        return self.reply is not None and self.reply.status == PENDING_APPROVAL

    @property
    def reject_reason(self) -> str:
        """Why a person rejected the reply, or "" where it was not rejected, or no reason given."""
        is_rejected = self.reply is not None and self.reply.status == "rejected"
        return self.reply.tags.get(REJECT_REASON_TAG, "") if self.reply is not None and is_rejected else ""

    @property
    def state(self) -> State:
        """What a person wants to know first."""
        if self.is_pending:
            return State.WAITING
        if self.outcome == Outcome.REPLY_SUBMITTED and self.reply is not None:
            # Until the agent has seen the reason, or once it drafts no more, there is nothing else to tell.
            if self.reject_reason and self.tags.get(STATUS_TAG) != "rejected":
                return State.OPEN
            if self.reply.status in ("rejected", "cancelled", "send_failed") or self.reply.bounced_at:
                return State.ESCALATED  # it did not reach its recipient and never will
            return State.ANSWERED if self.reply.delivered_at else State.OPEN
        return STATES.get(self.outcome, State.OPEN)

    @property
    def is_settled(self) -> bool:
        """Whether nothing is expected to change any more, so that it needs no reading again."""
        if self.outcome == Outcome.REPLY_SUBMITTED:
            return self.state is State.ANSWERED
        return self.state is not State.OPEN and self.tags.get("agent.cause") not in TAKEN_BACK


def _gather_floods(rows: Iterable[Row]) -> list[Row]:
    """The rows, newest first, with one for all that a sender flooded a mailbox with on a day."""
    gathered: dict[tuple[str, ...], Row] = {}
    for row in rows:
        key: tuple[str, ...] = row.key
        if row.tags.get("agent.cause") in FLOOD_CAUSES:
            sender = base_address(parse_address(row.email.sender))
            key = (row.mailbox_id, sender, f"{row.email.received_at:%Y-%m-%d}")
        newest = gathered.get(key)
        gathered[key] = replace(newest, more=newest.more + 1) if newest else row
    return list(gathered.values())


class Inbox:
    """The received emails with the agent's tags, kept in memory so that a page is a few requests.

    Tags of settled emails are read once; of the others, some at every refresh, in turn. Every method
    raises what the two clients raise.
    """

    def __init__(self, multimail: MultiMailClient, oversight: Oversight) -> None:
        self._multimail = multimail
        self._oversight = oversight
        self._guard = threading.RLock()
        self._emails: dict[Key, EmailSummary] = {}
        self._tags: dict[Key, Mapping[str, str]] = {}
        self._replies: dict[str, Email] = {}
        self._pending: dict[str, PendingEmail] = {}
        self._unsettled: dict[Key, None] = {}  # a dict for its order: the next to be read comes first

    def refresh(self) -> list[Mailbox]:
        """Read the active mailboxes, the emails that are new, and the approval queue."""
        with self._guard:
            mailboxes = [mailbox for mailbox in self._multimail.list_mailboxes() if mailbox.is_active]
            for mailbox in mailboxes:
                self._read_new(mailbox.id)
            self._read_pending()
            return mailboxes

    def look_at(self, shown: Iterable[Key]) -> None:
        """Read the tags of the unsettled emails on show, then of others until the refresh's share is used."""
        with self._guard:
            first = [key for key in shown if key in self._unsettled]
            for key in dict.fromkeys([*first, *islice(self._unsettled, READS_PER_REFRESH)]):
                self._look_at(key)

    def rows(self) -> list[Row]:
        """Every received email, newest first, and the pending emails that answer none of them.

        Which those are is known once every received email has been looked at.
        """
        with self._guard:
            rows = [self._row(key) for key in self._emails]
            if self._emails.keys() <= self._tags.keys():
                answered = {row.reply.id for row in rows if row.reply is not None}
                rows += [
                    Row(pending.mailbox_id, pending.email, {}, pending.email, is_outbound=True)
                    for pending in self._pending.values()
                    if pending.email.id not in answered
                ]
            return _gather_floods(sorted(rows, key=lambda row: row.email.received_at, reverse=True))

    def open(self, key: Key) -> tuple[Row, Sequence[EmailSummary]]:
        """An email in full and its thread, oldest first. An outbound email is its own reply."""
        mailbox_id, email_id = key
        email = self._multimail.get_email(mailbox_id, email_id)
        thread = self._multimail.get_thread(mailbox_id, email.thread_id) if email.thread_id else ()
        thread = tuple(sorted(thread, key=lambda other: other.received_at))
        with self._guard:
            self._read_pending()
            pending = self._pending.get(email_id)
            if pending or any(other.id == email_id and other.direction == "outbound" for other in thread):
                email = pending.email if pending else email
                return Row(mailbox_id, email, {}, email, is_outbound=True), thread
            self._tags[key] = email.tags
            self._read_reply(key)
            return Row(mailbox_id, email, email.tags, self._find_reply(key)), thread

    def approve(self, email_id: str) -> None:
        """Approve a pending email."""
        self._oversight.decide(email_id, "approve")

    def reject(self, email_id: str, reason: str) -> None:
        """Reject a pending email. The agent finds a reason only if it is there before the rejection."""
        if reason:
            pending = next((p for p in self._oversight.pending() if p.email.id == email_id), None)
            if pending is None:
                raise NotFoundError(f"the email {email_id!r} is not pending")
            # The service replaces all tags: keep those that are there.
            tags = self._multimail.get_tags(pending.mailbox_id, email_id)
            self._multimail.set_tags(pending.mailbox_id, email_id, {**tags, REJECT_REASON_TAG: reason})
        self._oversight.decide(email_id, "reject")

    @property
    def progress(self) -> tuple[int, int]:
        """How many received emails have had their tags read at least once, and how many there are."""
        with self._guard:
            return len(self._emails.keys() & self._tags.keys()), len(self._emails)

    def _read_new(self, mailbox_id: str) -> None:
        """Read until a page's worth holds nothing new; keep all or nothing, or an error would leave a gap."""
        found: dict[Key, EmailSummary] = {}
        known_in_a_row = 0
        for summary in self._multimail.list_emails(mailbox_id, direction="inbound"):
            key = mailbox_id, summary.id
            found[key] = summary
            known_in_a_row = known_in_a_row + 1 if key in self._emails else 0
            if known_in_a_row == PAGE_SIZE:
                break
        self._unsettled = {key: None for key in found if key not in self._emails} | self._unsettled
        self._emails |= found

    def _read_pending(self) -> None:
        self._pending = {pending.email.id: pending for pending in self._oversight.pending()}

    def _look_at(self, key: Key) -> None:
        if self._row(key).state is not State.WAITING:  # while a draft waits, its email's tags do not change
            tags = _unless_refused(self._multimail.get_tags, key)
            if tags is None:
                del self._emails[key], self._unsettled[key]
                return
            self._tags[key] = tags
            self._read_reply(key)
        del self._unsettled[key]
        if not self._row(key).is_settled:
            self._unsettled[key] = None

    def _read_reply(self, key: Key) -> None:
        reply_id = self._tags[key].get("agent.reply_id")
        if reply_id and reply_id not in self._pending:
            reply = _unless_refused(self._multimail.get_email, (key[0], reply_id))
            if reply is not None:
                self._replies[reply_id] = reply

    def _find_reply(self, key: Key) -> Email | None:
        reply_id = self._tags.get(key, {}).get("agent.reply_id", "")
        pending = self._pending.get(reply_id)
        return pending.email if pending else self._replies.get(reply_id)

    def _row(self, key: Key) -> Row:
        return Row(key[0], self._emails[key], self._tags.get(key, {}), self._find_reply(key))


def _unless_refused(read: Callable[[str, str], T], key: Key) -> T | None:
    """What `read` finds, or None for what it never will: a deleted email, or a tag that names none."""
    try:
        return read(*key)
    except PermanentError:
        return None
