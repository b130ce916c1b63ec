"""What the desk knows of the mailboxes: mail and queue from MultiMail, what is behind them from the agent."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import TypeVar

from local.approval.agent import DeskAgent
from local.approval.oversight import Oversight, PendingEmail
from shared.domain import Cause, Email, EmailSummary, Mailbox, Outcome, Urgency, base_address, parse_address
from shared.errors import (
    AgentError,
    ConfigurationError,
    ConflictError,
    PermanentError,
    ThrottledError,
    TransientError,
)
from shared.ledger.entries import PENDING_APPROVAL
from shared.mail.multimail import MultiMailClient
from shared.mail.paging import PAGE_SIZE
from shared.operator.review import Kind, ReviewItem
from shared.replying.reporting import REJECT_REASON_TAG, STATUS_TAG

# Tag reads of one refresh: about half a second on one machine. Ten thousand emails take fifty refreshes.
READS_PER_REFRESH = 200
# What is pending comes from MultiMail at every refresh; what the agent knows of it changes more slowly.
LISTING_SECONDS = 15.0
SHOWN_FOR = timedelta(days=30)  # mail that came earlier is shown only where something of it is open

# What closes an email only as long as something else stands: the agent may judge it again.
TAKEN_BACK = (Cause.ANSWERED, Cause.COVERED, Cause.SAME_EMAIL, Cause.DELETED)

FLOOD_CAUSES = (Cause.SENDER_FLOOD, Cause.SENDER_TOKENS)
URGENCIES = [*Urgency]  # the most urgent first

log = logging.getLogger(__name__)

T = TypeVar("T")


class RefusedError(PermanentError):
    """The desk does not do this; the message says why, for the reviewer."""


Key = tuple[str, str]
"""A mailbox's id and an email's id."""


class State(StrEnum):
    """What a person wants to know first about an email; the page counts and filters by it."""

    WAITING = "waiting"
    ANSWERED = "answered"
    ESCALATED = "escalated"
    REFUSED = "refused"
    SKIPPED = "skipped"
    PROMISED = "promised"
    DONE = "done"
    OPEN = "open"


# What a person has to look at, in this order.
TO_DO = (State.WAITING, State.ESCALATED, State.REFUSED, State.PROMISED)
OF_KIND: Mapping[Kind, State] = {Kind.OPEN: State.OPEN, Kind.PROMISE: State.PROMISED}


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
    for. `item`: what the agent says of it, where it lists it; `is_closed`: it does not. All text is hostile.
    """

    mailbox_id: str
    email: EmailSummary | Email
    tags: Mapping[str, str]
    reply: Email | None
    is_outbound: bool = False
    more: int = 0
    item: ReviewItem | None = None
    is_closed: bool = False

    @property
    def key(self) -> Key:
        """Where the email is found."""
        return self.mailbox_id, self.email.id

    @property
    def outcome(self) -> str:
        """The outcome that the agent gave it, or ""."""
        return self.tags.get("agent.outcome", "") or (self.item.outcome if self.item else "")

    @property
    def order(self) -> tuple[bool, int, float]:
        """What comes first in a list of things to do: the most urgent, then the oldest; put off, the last."""
        put_off_at = self.item.put_off_at if self.item else None
        urgency = self.tags.get("agent.urgency", "") or (self.item.urgency if self.item else "")
        rank = URGENCIES.index(Urgency(urgency)) if urgency in URGENCIES else URGENCIES.index(Urgency.NORMAL)
        return put_off_at is not None, rank, (put_off_at or self.email.received_at).timestamp()

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
        if self.item is not None and self.item.kind in OF_KIND:
            return OF_KIND[self.item.kind]
        if self.outcome == Outcome.REPLY_SUBMITTED and self.reply is not None:
            # Until the agent has seen the reason, or once it drafts no more, there is nothing else to tell.
            if self.reject_reason and self.tags.get(STATUS_TAG) != "rejected":
                return State.OPEN
            if self.reply.status in ("rejected", "cancelled", "send_failed") or self.reply.bounced_at:
                return State.ESCALATED  # it did not reach its recipient and never will
            return State.ANSWERED if self.reply.delivered_at else State.OPEN
        state = STATES.get(self.outcome, State.OPEN)
        return State.DONE if self.is_closed and state in TO_DO else state

    @property
    def is_settled(self) -> bool:
        """Whether nothing is expected to change any more, so that it needs no reading again."""
        if self.outcome == Outcome.REPLY_SUBMITTED:
            return self.state is State.ANSWERED
        return self.state is not State.OPEN and self.tags.get("agent.cause") not in TAKEN_BACK


def _gather_floods(rows: Iterable[Row]) -> list[Row]:
    """The rows, newest first, with one for all of a state that a sender flooded a mailbox with on a day."""
    gathered: dict[tuple[str, ...], Row] = {}
    for row in rows:
        key: tuple[str, ...] = row.key
        if row.tags.get("agent.cause") in FLOOD_CAUSES:
            sender = base_address(parse_address(row.email.sender))
            key = (row.mailbox_id, sender, f"{row.email.received_at:%Y-%m-%d}", row.state)
        newest = gathered.get(key)
        gathered[key] = replace(newest, more=newest.more + 1) if newest else row
    return list(gathered.values())


class Inbox:
    """The emails received lately with the agent's tags, kept in memory so that a page is a few requests.

    Tags of settled emails are read once; of the others, some at every refresh, in turn. Every method
    raises what the two clients raise.
    """

    def __init__(
        self,
        multimail: MultiMailClient,
        oversight: Oversight,
        agent: DeskAgent,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._multimail = multimail
        self._oversight = oversight
        self._agent = agent
        self._clock = clock
        self._monotonic = monotonic
        self._items: dict[Key, ReviewItem] = {}
        self._items_at = float("-inf")
        self.agent_problem: AgentError | None = None
        self.mailboxes: Sequence[Mailbox] = ()
        self._guard = threading.RLock()
        self._emails: dict[Key, EmailSummary] = {}
        self._tags: dict[Key, Mapping[str, str]] = {}
        self._replies: dict[str, Email] = {}
        self._pending: dict[str, PendingEmail] = {}
        self._unsettled: dict[Key, None] = {}  # a dict for its order: the next to be read comes first

    def refresh(self) -> None:
        """Read the active mailboxes, the emails that are new, and the approval queue."""
        with self._guard:
            self.mailboxes = [mailbox for mailbox in self._multimail.list_mailboxes() if mailbox.is_active]
            for mailbox in self.mailboxes:
                self._read_new(mailbox.id)
            self._read_pending()
            if self._monotonic() - self._items_at >= LISTING_SECONDS:
                self._read_items()

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

    def list_to_do(self) -> list[Row]:
        """What a person has to look at: drafts first, each kind in the order in which to take it."""
        rows = [row for row in self.rows() if row.state in TO_DO]
        return sorted(rows, key=lambda row: (row.order[0], TO_DO.index(row.state), row.order))

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
            if key not in self._emails:
                self._emails[key] = _summarise(email)
                self._unsettled[key] = None
            return replace(self._row(key), email=email), thread

    def find(self, key: Key, reply_id: str = "") -> ReviewItem | None:
        """All that the agent knows of an email, found by the id of its reply where that is open by itself."""
        found = self._agent.find(self._name(key, reply_id))
        if found is not None or not reply_id:
            return found
        with self._guard:
            self._read_items()
            if self.agent_problem is not None:
                raise self.agent_problem
        named = self._name(key, reply_id)
        return self._agent.find(named) if named != key else None

    def find_subject(self, key: Key) -> str:
        """The subject of an email that is listed, or ""."""
        email = self._emails.get(key)
        return email.subject if email is not None else ""

    def _name(self, key: Key, reply_id: str) -> Key:
        return next((k for k, item in self._items.items() if reply_id and item.reply_id == reply_id), key)

    def approve(self, key: Key, reply_id: str) -> None:
        """Approve a pending email. Raises RefusedError where somebody else has to, or may have to."""
        item = self.find(key, reply_id)
        is_of_reply = item is not None and item.reply_id == reply_id
        refusal = item.refusal if item is not None and is_of_reply else self._find_refusal(reply_id)
        if refusal:
            raise RefusedError(refusal)
        self._oversight.decide(reply_id, "approve")
        self._tell_decided(item, reply_id)

    def _find_refusal(self, reply_id: str) -> str:
        """Why a reply that the agent does not name may not be approved: it may be submitted just now."""
        with self._guard:
            self._read_pending()
            self._read_items()
            if self.agent_problem is not None:
                raise self.agent_problem
            pending = self._pending.get(reply_id)
            if pending is None:  # nothing is left to decide, as MultiMail will say
                return ""
            to = {parse_address(address) for address in pending.email.to}
            return next(
                (
                    item.refusal
                    for item in self._items.values()
                    if item.refusal and item.mailbox_id == pending.mailbox_id
                    if item.reply_id == reply_id or (item.kind is Kind.OPEN and item.sender in to)
                ),
                "",
            )

    def reject(self, key: Key, reply_id: str, reason: str) -> None:
        """Reject a pending email. The agent has the reason before it can see the rejection."""
        item = self.find(key, reply_id)
        if item is not None:
            self._reject_saying("reject", item, reply_id, reason)
        elif reason:
            raise RefusedError(
                "The agent did not write this email: it can be rejected without a reason only."
            )
        else:
            self._oversight.decide(reply_id, "reject")

    def edit(self, key: Key, reply_id: str, markdown: str) -> None:
        """Replace a pending draft: the agent has the text before the draft is rejected, and submits it."""
        item = self.find(key, reply_id)
        if item is None:
            raise RefusedError("The agent did not write this email: it cannot be edited here.")
        self._reject_saying("edit", item, reply_id, markdown)

    def _reject_saying(self, action: str, item: ReviewItem, reply_id: str, text: str) -> None:
        """Reject a draft with what the agent is to make of it, which counts only with the rejection."""
        key = _key_of(item)
        try:
            self._agent.say(action, key, reply_id=reply_id, text=text)
        except ConflictError as error:
            with self._guard:
                self._read_pending()
            if reply_id not in self._pending:
                raise
            raise RefusedError(f"Nothing was done: {error}.") from None  # and what was typed stays
        try:
            self._oversight.decide(reply_id, "reject")
        except (ConfigurationError, PermanentError, ThrottledError):  # it was not rejected by this
            try:
                self._agent.say("take_back", key, reply_id=reply_id)
            except AgentError as error:  # it counts for some minutes only
                log.info("what was said of a reply was not taken back: %s", error)
            raise
        except TransientError:  # it may be rejected all the same
            self._tell_decided(item, reply_id)
            raise
        self._tell_decided(item, reply_id)

    def say(self, action: str, key: Key) -> None:
        """Have the agent keep that an email is left for later, or that a person has taken care of it."""
        self._agent.say(action, key)
        with self._guard:
            self._read_items()

    def _tell_decided(self, item: ReviewItem | None, reply_id: str) -> None:
        """Let the agent look at once; if it cannot, it looks by itself some minutes later."""
        if item is None:
            return
        try:
            self._agent.say("decided", _key_of(item), reply_id=reply_id)
        except AgentError as error:
            log.info("the agent was not told of a decision: %s", error)
        with self._guard:
            self._read_items()

    @property
    def progress(self) -> tuple[int, int]:
        """How many received emails have had their tags read at least once, and how many there are."""
        with self._guard:
            return len(self._emails.keys() & self._tags.keys()), len(self._emails)

    def _read_new(self, mailbox_id: str) -> None:
        """Read until a page's worth holds nothing new; keep all or nothing, or an error would leave a gap."""
        found: dict[Key, EmailSummary] = {}
        known_in_a_row = 0
        since = self._clock() - SHOWN_FOR
        for summary in self._multimail.list_emails(mailbox_id, direction="inbound", date_after=since):
            key = mailbox_id, summary.id
            found[key] = summary
            known_in_a_row = known_in_a_row + 1 if key in self._emails else 0
            if known_in_a_row == PAGE_SIZE:
                break
        self._unsettled = {key: None for key in found if key not in self._emails} | self._unsettled
        self._emails |= found

    def _read_pending(self) -> None:
        self._pending = {pending.email.id: pending for pending in self._oversight.pending()}

    def _read_items(self) -> None:
        """What the agent lists; while it cannot be asked, what it last listed stays."""
        self._items_at = self._monotonic()
        try:
            self._items = {_key_of(item): item for item in self._agent.list_items()}
            self.agent_problem = None
        except AgentError as error:
            self.agent_problem = error
            return
        # Older ones; to read what the agent has not read yet would mark it as read.
        read = {key for key, item in self._items.items() if item.kind is not Kind.OPEN}
        for key in read - self._emails.keys():
            email = _unless_refused(self._multimail.get_email, key)
            if email is not None:
                self._emails[key] = _summarise(email)
                self._unsettled[key] = None

    def _look_at(self, key: Key) -> None:
        # While a draft waits, its email's tags do not change.
        if key not in self._tags or self._row(key).state is not State.WAITING:
            tags = _unless_refused(self._multimail.get_tags, key)
            if tags is None:
                del self._emails[key], self._unsettled[key]
                return
            self._tags[key] = tags
            self._read_reply(key)
            if self._row(key).state is State.DONE:  # or the agent's listing is older than the tags
                self._items_at = float("-inf")
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
        item = self._items.get(key)
        tagged = self._tags.get(key, {}).get("agent.reply_id", "")
        reply_id = item.reply_id if item is not None and item.reply_id in self._pending else tagged
        pending = self._pending.get(reply_id)
        return pending.email if pending else self._replies.get(reply_id)

    def _row(self, key: Key) -> Row:
        item = self._items.get(key)
        is_closed = item is None and self.agent_problem is None
        tags, reply = self._tags.get(key, {}), self._find_reply(key)
        return Row(key[0], self._emails[key], tags, reply, item=item, is_closed=is_closed)


def _key_of(item: ReviewItem) -> Key:
    return item.mailbox_id, item.email_id


def _summarise(email: Email) -> EmailSummary:
    return EmailSummary(
        email.id, email.sender, email.to, email.subject, "inbound", email.status, email.received_at,
        thread_id=email.thread_id,
    )  # fmt: skip


def _unless_refused(read: Callable[[str, str], T], key: Key) -> T | None:
    """What `read` finds, or None for what it never will: a deleted email, or a tag that names none."""
    try:
        return read(*key)
    except PermanentError:
        return None
