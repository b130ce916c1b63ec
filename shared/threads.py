"""What a thread says about one of its emails: is it answered, what belongs to its context, what is stale."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from shared.domain import EmailSummary, parse_address
from shared.ledger import LedgerEntry

PENDING_STATUSES = frozenset({"pending_scan", "pending_send_approval", "scheduled"})
_NEVER_SENT_STATUSES = frozenset({"rejected", "cancelled", "send_failed"})


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

    Whoever forges a reference lands in somebody else's thread; what others wrote there, or were
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
