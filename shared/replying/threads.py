"""Threads: what they hold, and what that says about one email: answered, context, stale replies."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

from shared.attachments.documents import ReadAttachment
from shared.attachments.reading import AttachmentReader
from shared.domain import Cause, Decision, Email, EmailSummary, LookedUp, Outcome, WorkItem, parse_address
from shared.errors import NotFoundError
from shared.ledger.entries import NEVER_SENT_STATUSES, LedgerEntry
from shared.ledger.ledger import Ledger
from shared.mail.multimail import MultiMailReader
from shared.model.prompting import clean_line
from shared.replying.claim import BUSY_AGAIN_SECONDS, Waiting
from shared.telemetry import in_this_context

PENDING_INBOUND = "pending_inbound_approval"
PENDING_STATUSES = frozenset({"pending_scan", "pending_send_approval", "scheduled"})
# By the status of a reply that reached nobody, where it tells more than that: why a person has to answer.
UNSENT_CAUSES: Mapping[str | None, Cause] = {
    "rejected": Cause.REPLY_REJECTED,
    "cancelled": Cause.REPLY_CANCELLED,
    "gone": Cause.REPLY_GONE,
}
# Sooner, a person can hardly have read the email: what they wrote then answers an earlier one.
WRITTEN_WITHIN = timedelta(minutes=2)
MAX_CONTEXT_EMAILS = 4
MAX_HEADER_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class ThreadText:
    """One email of the thread as the draft may see it. `is_ours` says that the mailbox wrote it.

    `attachments`: those of the email that is answered; of the others none is read. `looked_up`: of which
    look-ups it may hold facts, as a reply of ours or, among the earlier emails, as one that may quote it.
    """

    email_id: str
    sender: str
    subject: str
    received_at: datetime
    markdown: str
    is_ours: bool
    attachments: tuple[ReadAttachment, ...] = field(default=(), repr=False)
    looked_up: tuple[LookedUp, ...] = ()

    def render(self, number: int) -> str:
        """The email for a prompt, under its number in the thread."""
        return (
            f"Email E{number}, {'sent by us' if self.is_ours else 'received'}"
            f" {self.received_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC\n"
            f"From: {clean_line(self.sender, MAX_HEADER_CHARACTERS)}\n"
            f"Subject: {clean_line(self.subject, MAX_HEADER_CHARACTERS)}\n"
            f"Body:\n{self.markdown.strip()}"
        )


ReadTexts = Callable[[], Sequence[ThreadText]]


@dataclass(frozen=True, slots=True)
class ThreadView:
    """A thread as the service shows it, with the rows of its other emails that took a slot for a reply.

    `slots`: the emails that took one, in that order. `busy_until`: when to look again while it is not known
    yet what is ours.
    """

    emails: Sequence[EmailSummary] = ()
    slots: tuple[str, ...] = ()
    rows: Sequence[LedgerEntry] = ()
    busy_until: datetime | None = None

    @property
    def own_replies(self) -> Mapping[str, LedgerEntry]:
        """The rows by the ids of their replies."""
        return {row.reply_id: row for row in self.rows if row.reply_id is not None}

    @property
    def rejected_replies(self) -> frozenset[str]:
        """The ids of replies that reviewers turned down and that got a new draft."""
        return frozenset(said.reply_id for row in self.rows for said in row.rejections)

    def list_looked_up(self, entry: LedgerEntry, until: datetime) -> tuple[LookedUp, ...]:
        """Of which look-ups the replies to a row's sender hold facts that had been sent by then.

        One of them may be the row's own: it came back, and the email was redriven.
        """
        notes = {row.reply_id: row.draft.looked_up for row in self.rows if row.draft is not None}
        notes |= {said.reply_id: said.looked_up for row in (*self.rows, entry) for said in row.rejections}
        sent = [email for email in find_outbound_to(entry.sender, self.emails) if email.received_at <= until]
        return tuple(note for email in sent for note in notes.get(email.id, ()))

    @property
    def unsent_replies(self) -> frozenset[str]:
        """The ids of outbound emails that never reached anybody."""
        return frozenset(email.id for email in self.emails if is_unsent(email))

    @property
    def addresses(self) -> frozenset[str]:
        """Who wrote or was written to in this thread, bare."""
        values = (value for email in self.emails for value in (email.sender, *email.to))
        return frozenset(filter(None, map(parse_address, values)))

    def was_answered(self, address: str) -> bool:
        """Whether an email of ours to that address left in this thread."""
        return any(map(has_left, find_outbound_to(address, self.emails)))


def thread_scope(entry: LedgerEntry) -> str | None:
    """The scope of the thread's reply slots; None for an email without a thread."""
    return f"thread/{entry.mailbox_id}/{entry.thread_id}" if entry.thread_id else None


def read_thread(entry: LedgerEntry, multimail: MultiMailReader, ledger: Ledger) -> ThreadView:
    """Read the thread of an email. Raises what client and ledger raise.

    NotFoundError also comes from a thread that has emails: it is no empty thread.
    """
    scope = thread_scope(entry)
    if scope is None or entry.thread_id is None:
        return ThreadView()
    # The slots first: an email that takes one after this reading makes our own attempt to take one fail.
    slots = ledger.slots(scope)
    found = [ledger.get(WorkItem(entry.mailbox_id, id_)) for id_ in slots if id_ != entry.email_id]
    rows = [row for row in found if row is not None]
    emails = multimail.get_thread(entry.mailbox_id, entry.thread_id)
    listed = {email.id for email in emails}
    replies = [_find_reply(multimail, row) for row in rows if row.reply_id and row.reply_id not in listed]
    # A slot goes with a reply to come: emails that took one before us go first, so none wait in a circle.
    before_us = slots[: slots.index(entry.email_id)] if entry.email_id in slots else slots
    busy = [
        row.due_at
        for row in rows
        if row.outcome is None
        and not row.has_unsent_reply  # it waits for others itself
        and (row.intent_in_doubt is not None or row.email_id in before_us)
    ]
    return ThreadView((*emails, *filter(None, replies)), slots, rows, max(busy, default=None))


def _find_reply(multimail: MultiMailReader, row: LedgerEntry) -> EmailSummary | None:
    """A row's reply that the thread does not show: nothing says that it must show pending ones.

    Raises NotFoundError while it is not settled: its tracking finds out whether it is gone.
    """
    try:
        reply = multimail.get_email(row.mailbox_id, row.reply_id or "")
    except NotFoundError:
        if row.reply_settled_at is None:
            raise
        return None
    return EmailSummary(
        id=reply.id,
        sender=reply.sender,
        to=reply.to,
        subject=reply.subject,
        direction="outbound",
        status=reply.status,
        received_at=reply.received_at,
        thread_id=row.thread_id,
        delivered_at=reply.delivered_at,
        bounced_at=reply.bounced_at,
    )


def is_unsent(outbound: EmailSummary) -> bool:
    """Say whether an outbound email ended without reaching anybody."""
    return outbound.status in NEVER_SENT_STATUSES or outbound.bounced_at is not None


def has_left(outbound: EmailSummary) -> bool:
    """Say whether an outbound email was sent, and did not come back."""
    return outbound.status not in PENDING_STATUSES and not is_unsent(outbound)


def is_answer_of(row: LedgerEntry, outbound: EmailSummary) -> bool:
    """Say whether a person's email in its thread answers a row's email, or will once it has left.

    It goes to the sender, and was written when the email could have been read. The agent's own replies
    answer what they were written from, however soon.
    """
    can_be_read = outbound.received_at >= row.received_at + WRITTEN_WITHIN
    return can_be_read and not is_unsent(outbound) and bool(find_outbound_to(row.sender, [outbound]))


def may_reply(row: LedgerEntry, unsent_replies: Collection[str]) -> bool:
    """Say whether a row that took a slot has a reply that was sent or is pending, or may still get one."""
    if row.outcome is None:
        return not row.has_unsent_reply
    if row.reply_id is None:
        return row.outcome is Outcome.NEEDS_HUMAN
    return row.reply_id not in unsent_replies and not row.has_unsent_reply


def find_closing_answer(entry: LedgerEntry, thread: ThreadView) -> Decision | None:
    """The decision for an email that its thread answers: by a newer outbound email, sent or pending.

    One of our replies answers only the emails that its draft was written from; what anybody else wrote
    answers everything that they can have read. The decision holds for as long as the answer is not lost.
    """
    for answer in find_outbound_to(entry.sender, thread.emails):
        row = thread.own_replies.get(answer.id)
        covers = row is not None and row.draft is not None and entry.email_id in row.draft.covers
        is_own = covers and answer.received_at > entry.received_at
        is_others = row is None and is_answer_of(entry, answer)
        if (is_own or is_others) and not is_unsent(answer):
            depends_on = answer.id if answer.delivered_at is None else None
            return Decision(
                Outcome.SKIPPED, Cause.COVERED if is_own else Cause.ANSWERED, depends_on=depends_on
            )
    return None


def find_unsent_cover(email_id: str, thread: ThreadView) -> LedgerEntry | None:
    """Find the row whose reply covered this email too and ended without reaching anybody."""
    return next(
        (
            row
            for row in thread.rows
            if row.reply_id in thread.unsent_replies
            and row.draft is not None
            and email_id in row.draft.covers
        ),
        None,
    )


def guard_thread(entry: LedgerEntry, thread: ThreadView) -> Decision | None:
    """What was answered is closed; what a reply answered that reached nobody is left to a person.

    Raises Waiting while that reply is not at its end.
    """
    answered = find_closing_answer(entry, thread)
    if answered is not None:
        return answered
    unsent = (None if entry.redriven_at else find_unsent_cover(entry.email_id, thread)) or entry
    if unsent is entry and not entry.has_unsent_reply:
        return None
    is_redrafted = any(row.outcome is None and row.rejections for row in thread.rows)
    if is_redrafted or (unsent.reply_settled_at is None and unsent.outcome is Outcome.REPLY_SUBMITTED):
        raise Waiting(Cause.THREAD_BUSY, seconds=BUSY_AGAIN_SECONDS)
    return Decision(Outcome.ESCALATED, UNSENT_CAUSES.get(unsent.reply_status, Cause.REPLY_UNDELIVERED))


def find_stale_replies(
    sender: str, thread: Iterable[EmailSummary], own_replies: Mapping[str, LedgerEntry], covers: Sequence[str]
) -> list[str]:
    """The ids of our still pending replies to the same sender whose emails a new draft covers too."""
    return [
        outbound.id
        for outbound in find_outbound_to(sender, thread)
        if outbound.status in PENDING_STATUSES
        and outbound.id in own_replies
        and own_replies[outbound.id].email_id in covers
    ]


def select_context(
    email_id: str, sender: str, thread: Sequence[EmailSummary], limit: int
) -> list[EmailSummary]:
    """The newest `limit` other emails of the thread that were exchanged with this sender, oldest first.

    A sender who forges a reference lands in another person's thread; what others wrote there, or were
    written, must not reach a draft that goes to the forger. Drafts that never left were not said. An email
    that waits for inbound approval has no body yet: a draft cannot answer it.
    """
    received = [
        other
        for other in thread
        if other.direction == "inbound"
        and other.id != email_id
        and other.status not in ("deleted", PENDING_INBOUND)
        and parse_address(other.sender) == sender
    ]
    sent = [
        other
        for other in find_outbound_to(sender, thread)
        if other.status not in PENDING_STATUSES and other.status not in NEVER_SENT_STATUSES
    ]
    return sorted(received + sent, key=lambda other: other.received_at)[-limit:]


def find_outbound_to(sender: str, thread: Iterable[EmailSummary]) -> list[EmailSummary]:
    """The outbound emails of a thread that go to the sender, from people and the agent alike."""
    return [
        other
        for other in thread
        if other.direction == "outbound" and sender in {parse_address(to) for to in other.to}
    ]


def start_reading(
    entry: LedgerEntry, multimail: MultiMailReader, ledger: Ledger, executor: Executor
) -> Callable[[LedgerEntry], ThreadView]:
    """Begin to read the thread that an email's row names; the call waits for it, given the row as it is then.

    A row that names another thread by then, which only the email itself tells, has it read again.
    The call raises what `read_thread` raises.
    """
    known = entry.thread_id
    begun = executor.submit(in_this_context(read_thread), entry, multimail, ledger) if known else None

    def finish(now: LedgerEntry) -> ThreadView:
        if begun is not None and now.thread_id == known:
            return begun.result()
        return read_thread(now, multimail, ledger)

    return finish


def read_texts(
    entry: LedgerEntry,
    email: Email,
    thread: ThreadView,
    attachments: AttachmentReader,
    executor: Executor,
    *,
    images: bool,
) -> list[ThreadText]:
    """The row's email and what was exchanged with its sender in the thread, with their bodies, read at once.

    The email comes with its attachments: with its pictures where a model takes `images`. Raises what
    MultiMail's client raises.
    """
    multimail = attachments.multimail
    files = attachments.read(entry.mailbox_id, email, images=images)
    texts = [
        ThreadText(email.id, email.sender, email.subject, email.received_at, email.markdown, False, files)
    ]
    context = select_context(email.id, entry.sender, thread.emails, MAX_CONTEXT_EMAILS)
    get = in_this_context(partial(multimail.get_email, entry.mailbox_id))
    for other, read in zip(context, executor.map(get, [other.id for other in context]), strict=True):
        text = ThreadText(
            other.id, other.sender, other.subject, other.received_at, read.markdown,
            is_ours=other.direction == "outbound",
            looked_up=thread.list_looked_up(entry, other.received_at),
        )  # fmt: skip
        texts.append(text)
    return texts
