"""Threads: what they hold, and what that says about one email: answered, context, stale replies."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from shared.domain import EmailSummary, WorkItem, parse_address
from shared.errors import NotFoundError
from shared.ledger.entries import LedgerEntry
from shared.ledger.ledger import Ledger
from shared.mail.multimail import MultiMailClient

PENDING_STATUSES = frozenset({"pending_scan", "pending_send_approval", "scheduled"})
_NEVER_SENT_STATUSES = frozenset({"rejected", "cancelled", "send_failed"})


@dataclass(frozen=True, slots=True)
class ThreadView:
    """A thread as the service shows it, with the replies in it that are ours, by id.

    `slots`: the emails of the thread that took a slot for a reply, in that order. `busy_until`:
    when to look again while it is not known yet what is ours. `rejected_replies`: the ids of replies of the
    thread's other emails that were rejected and redrafted.
    """

    emails: Sequence[EmailSummary]
    slots: tuple[str, ...]
    own_replies: Mapping[str, LedgerEntry]
    busy_until: datetime | None
    rejected_replies: frozenset[str]


def thread_scope(entry: LedgerEntry) -> str | None:
    """The scope of the thread's reply slots; None for an email without a thread."""
    return f"thread/{entry.mailbox_id}/{entry.thread_id}" if entry.thread_id else None


def read_thread(entry: LedgerEntry, multimail: MultiMailClient, ledger: Ledger) -> ThreadView:
    """Read the thread of an email. Raises what client and ledger raise, but for a thread that is gone."""
    scope = thread_scope(entry)
    if scope is None or entry.thread_id is None:
        return ThreadView((), (), {}, None, frozenset())
    # The slots first: an email that takes one after this reading makes our own attempt to take one fail.
    slots = ledger.slots(scope)
    rows = [ledger.get(WorkItem(entry.mailbox_id, id_)) for id_ in slots if id_ != entry.email_id]
    others = [row for row in rows if row is not None]
    own_replies = {row.reply_id: row for row in others if row.reply_id is not None}
    try:
        emails = multimail.get_thread(entry.mailbox_id, entry.thread_id)
    except NotFoundError:
        emails = ()
    unlisted = own_replies.keys() - {email.id for email in emails}
    replies = [_find_reply(multimail, entry, reply_id) for reply_id in sorted(unlisted)]
    # A slot goes with a reply to come: emails that took one before us go first, so none wait in a circle.
    before_us = slots[: slots.index(entry.email_id)] if entry.email_id in slots else slots
    busy = [
        row.due_at
        for row in others
        if row.outcome is None and (row.submit_intent_at is not None or row.email_id in before_us)
    ]
    return ThreadView(
        emails=(*emails, *filter(None, replies)),
        slots=slots,
        own_replies=own_replies,
        busy_until=max(busy, default=None),
        rejected_replies=frozenset(said.reply_id for row in others for said in row.rejections),
    )


def _find_reply(multimail: MultiMailClient, entry: LedgerEntry, reply_id: str) -> EmailSummary | None:
    """A reply of ours that the thread does not show: nothing says that it must show pending ones."""
    try:
        reply = multimail.get_email(entry.mailbox_id, reply_id)
    except NotFoundError:
        return None
    return EmailSummary(
        id=reply.id,
        sender=reply.sender,
        to=reply.to,
        subject=reply.subject,
        direction="outbound",
        status=reply.status,
        received_at=reply.received_at,
        thread_id=entry.thread_id,
    )


def find_answer(
    email_id: str,
    received_at: datetime,
    sender: str,
    thread: Iterable[EmailSummary],
    own_replies: Mapping[str, LedgerEntry],
) -> EmailSummary | None:
    """Find what already answers an email: a newer outbound email to its sender.

    `own_replies` maps the ids of our replies in the thread to their rows. One of those answers only
    the emails that its draft was written from; what anybody else wrote answers everything before it.
    """
    for outbound in _outbound_to(sender, thread):
        own = own_replies.get(outbound.id)
        covers = own is None or (own.draft is not None and email_id in own.draft.covers)
        if covers and outbound.received_at > received_at and outbound.status not in _NEVER_SENT_STATUSES:
            return outbound
    return None


def find_stale_replies(
    sender: str, thread: Iterable[EmailSummary], own_replies: Mapping[str, LedgerEntry], covers: Sequence[str]
) -> list[str]:
    """The ids of our still pending replies to the same sender whose emails a new draft covers too."""
    return [
        outbound.id
        for outbound in _outbound_to(sender, thread)
        if outbound.status in PENDING_STATUSES
        and outbound.id in own_replies
        and own_replies[outbound.id].email_id in covers
    ]


def select_context(
    email_id: str, sender: str, thread: Sequence[EmailSummary], limit: int
) -> list[EmailSummary]:
    """The newest `limit` other emails of the thread that were exchanged with this sender, oldest first.

    A sender who forges a reference lands in another person's thread; what others wrote there, or were
    written, must not reach a draft that goes to the forger. Drafts that never left were not said.
    """
    received = [
        other
        for other in thread
        if other.direction == "inbound" and other.id != email_id and parse_address(other.sender) == sender
    ]
    unsent = PENDING_STATUSES | _NEVER_SENT_STATUSES
    sent = [other for other in _outbound_to(sender, thread) if other.status not in unsent]
    return sorted(received + sent, key=lambda other: other.received_at)[-limit:]


def _outbound_to(sender: str, thread: Iterable[EmailSummary]) -> list[EmailSummary]:
    return [
        other
        for other in thread
        if other.direction == "outbound" and sender in {parse_address(to) for to in other.to}
    ]
