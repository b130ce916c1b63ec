"""The ledger's values: the row of an email, its open work, its tracked reply, a mailbox's watermark."""

import hmac
import json
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256

from shared.domain import (
    NO_USAGE,
    Cause,
    Draft,
    Outcome,
    Rejection,
    Review,
    Triage,
    Usage,
    WorkItem,
    base_address,
)

FIRST_CHECK_AFTER = timedelta(minutes=5)  # sooner, most replies are still being scanned
LONGEST_MARK = timedelta(hours=1)  # or a lease, if that is longer
# What became of a reply that reached nobody.
NEVER_SENT_STATUSES = ("rejected", "cancelled", "send_failed")
UNSENT_STATUSES = (*NEVER_SENT_STATUSES, "bounced", "gone")
APPROVED_STATUSES = ("approved", "delivered")
PENDING_APPROVAL = "pending_send_approval"
UNDECIDED = ("pending_scan", PENDING_APPROVAL)
# What is left to a person.
FOR_PEOPLE = frozenset(
    {
        Outcome.ESCALATED,
        Outcome.BLOCKED_UNGATED,
        Outcome.BLOCKED_CONTENT_SAFETY,
        Outcome.NEEDS_HUMAN,
        Outcome.FAILED,
    }
)


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One inbound email's row. Every time is an aware UTC datetime.

    The fields fill from top to bottom: `triage`, then `draft`, then `submit_intent_at` before the
    first submission, then `reply_id`, then `outcome` (decided, still to be tagged), then
    `finished_at`. A worker that finds a field filled does not do that step again. What became of the
    reply comes later: `reply_status` is the word last seen for it, `reply_decided_at` when a human
    decided, and from `reply_settled_at` on it is not checked any more; set on an open row, it says that the
    reply ended without reaching anybody. `approval_seen_at`: when the agent learned that it was approved,
    `added_at`: of the email.

    `proposal`: a draft that is not submitted, for the person who answers; also the text of a reviewer whose
    edit does not count. `depends_on`: the reply of another email or a person's that answers this one too.
    `fingerprint`: the same for copies of the email. `reopened_at`: when it was last set back to open,
    `redriven_at` when by an operator. `released_at`: when it was seen to be released from inbound approval,
    or its mailbox to be resumed. `missing`: what the email needs and was answered with 404, at every look
    since `missing_since`. `rejections`: its earlier replies that reached nobody, each of which gets a new
    draft. `review`: what a reviewer said last of a reply, which counts if that is soon rejected.
    `put_off_at`: when a reviewer left it for later. `digest_key`: a random text, under which the audit trail
    has a digest of what the row knows of people. `erased_at`: when that was removed, and this key with it;
    such a row is never worked on again. `is_observed`: nothing is submitted, tagged or told about it.

    `due_at`: not to be worked on before. `lease_until`: a worker is at it until then. `attempts`: claims
    that count towards MAX_ATTEMPTS, the running one included. `waiting_for` and `waiting_detail`: why the row
    was deferred last. `cause` and `detail`: why it ended with its outcome. `version`: the store's ETag; every
    write needs the newest.
    """

    mailbox_id: str
    email_id: str
    received_at: datetime
    sender: str
    thread_id: str | None
    due_at: datetime
    added_at: datetime | None = None
    lease_until: datetime | None = None
    attempts: int = 0
    waiting_for: Cause | None = None
    waiting_detail: str = ""
    usage: Usage = NO_USAGE
    triage: Triage | None = None
    draft: Draft | None = None
    proposal: Draft | None = None
    submit_intent_at: datetime | None = None
    reply_id: str | None = None
    depends_on: str | None = None
    fingerprint: str = ""
    outcome: Outcome | None = None
    cause: Cause | None = None
    detail: str = ""
    finished_at: datetime | None = None
    reply_status: str | None = None
    reply_decided_at: datetime | None = None
    approval_seen_at: datetime | None = None
    reply_settled_at: datetime | None = None
    reopened_at: datetime | None = None
    redriven_at: datetime | None = None
    released_at: datetime | None = None
    missing: str = ""
    missing_since: datetime | None = None
    rejections: tuple[Rejection, ...] = ()
    review: Review | None = None
    put_off_at: datetime | None = None
    digest_key: str = field(default="", repr=False)
    erased_at: datetime | None = None
    is_observed: bool = False
    version: str = ""

    @property
    def work_item(self) -> WorkItem:
        """The work item that names this row."""
        return WorkItem(self.mailbox_id, self.email_id)

    @property
    def content_digest(self) -> str:
        """A digest of the sender and of what was written to them; empty once they are erased.

        It is keyed with a random text that is erased too: without it no guess of an address can be tried.
        """
        if not self.digest_key:
            return ""
        written = self.draft or self.proposal
        content = json.dumps([self.sender, written.reply_markdown if written is not None else ""])
        return hmac.new(self.digest_key.encode(), content.encode(), sha256).hexdigest()

    @property
    def base_sender(self) -> str:
        """The sender without a subaddress: a help desk may write from a new one each time."""
        return base_address(self.sender)

    @property
    def open_since(self) -> datetime:
        """Since when it could be worked on: it arrived, was released, or was set back to open, the latest."""
        moments = (self.received_at, self.released_at, self.reopened_at)
        return max(moment for moment in moments if moment is not None)

    @property
    def intent_in_doubt(self) -> datetime | None:
        """When a reply was, or may have been, submitted of which no end is known; None without one."""
        return self.submit_intent_at if self.reply_settled_at is None else None

    @property
    def has_unsent_reply(self) -> bool:
        """Whether its reply ended without reaching anybody."""
        return self.reply_settled_at is not None and self.reply_status in UNSENT_STATUSES

    @property
    def was_judged_again(self) -> bool:
        """Whether it was set back to open since its own reply ended without reaching anybody."""
        ended, reopened = self.reply_settled_at, self.reopened_at
        return ended is not None and reopened is not None and reopened >= ended

    @property
    def open_work(self) -> "OpenWork":
        """The unfinished row's note among the open work.

        A leased row is enqueued when its lease ends: by then its worker has written again, or is dead.
        """
        return OpenWork(
            mailbox_id=self.mailbox_id,
            email_id=self.email_id,
            enqueue_at=self.lease_until or self.due_at,
            open_since=self.open_since,
            added_at=self.added_at,
            is_leased=self.lease_until is not None,
            is_paused=self.waiting_for is Cause.PAUSED and self.lease_until is None,
            is_edited=self.edit is not None,
        )

    @property
    def revision(self) -> int:
        """Which draft this is or will be: one more than there are earlier ones."""
        return 1 + len(self.rejections)

    @property
    def edit(self) -> Draft | None:
        """The reviewer's own text, which is the draft after the last rejection; None where a model drafts."""
        said, last = self.review, self.rejections[-1] if self.rejections else None
        if said is None or last is None or not last.is_edit or last.reply_id != said.reply_id:
            return None
        return said.edited

    @property
    def own_review(self) -> Review | None:
        """What a reviewer said last of the reply that it has now."""
        said = self.review
        return said if said is not None and said.reply_id == self.reply_id else None

    @property
    def abandoned_edit(self) -> Draft | None:
        """Of its own reply, the text of a reviewer which was not submitted in its place."""
        edited = self.own_review.edited if self.own_review is not None else None
        return edited or (self.proposal if self.outcome is Outcome.REPLY_SUBMITTED else None)

    @property
    def holds_facts(self) -> bool:
        """Whether any text that was written for it may hold looked-up facts of one customer."""
        written = (self.draft, self.proposal, *self.rejections)
        return any(text is not None and text.looked_up for text in written)

    @property
    def edited_by(self) -> str:
        """The fingerprint of the reviewer's key where the draft is a reviewer's own text, or ""."""
        return self.rejections[-1].edited_by if self.rejections else ""

    @property
    def tracked_reply(self) -> "TrackedReply | None":
        """The reply to be tracked from now on that the row is finished: its own, or the one it depends on."""
        is_own = self.outcome is Outcome.REPLY_SUBMITTED
        reply_id = self.reply_id if is_own else self.depends_on
        if reply_id is None or self.finished_at is None or self.is_observed:
            return None
        return TrackedReply(
            mailbox_id=self.mailbox_id,
            email_id=self.email_id,
            reply_id=reply_id,
            submitted_at=(self.submit_intent_at if is_own else None) or self.finished_at,
            check_at=self.finished_at + FIRST_CHECK_AFTER,
            thread_id=self.thread_id,
        )

    @property
    def matter(self) -> "Matter | None":
        """What a person has to see to now that the row is finished: its undecided draft, or the email."""
        is_draft = self.outcome is Outcome.REPLY_SUBMITTED and self.reply_status in (None, *UNDECIDED)
        is_for_people = is_draft or (self.outcome in FOR_PEOPLE and not self.is_observed)
        if self.finished_at is None or not is_for_people:
            return None
        kind = MatterKind.DRAFT if is_draft else MatterKind.ESCALATION
        return self._build_matter(kind, self.finished_at, self.finished_at)

    @property
    def promise(self) -> "Matter | None":
        """What its reply promised that somebody will do, once a person has approved the reply."""
        is_given = self.outcome is Outcome.REPLY_SUBMITTED and self.reply_status in APPROVED_STATUSES
        since = self.reply_decided_at or self.finished_at
        if not is_given or since is None or self.draft is None or not self.draft.follow_up:
            return None
        return self._build_matter(MatterKind.PROMISE, since, self.approval_seen_at or since)

    def _build_matter(self, kind: "MatterKind", since: datetime, noted_at: datetime) -> "Matter":
        return Matter(
            self.mailbox_id, self.email_id, kind, since,
            received_at=self.received_at, noted_at=noted_at, thread_id=self.thread_id,
        )  # fmt: skip

    def redriven(self, now: datetime) -> "LedgerEntry":
        """The finished row set back to open by an operator.

        With a reply on its way the draft and its key stay, so that it is looked for or repeated, never
        written a second time; without one, the email is triaged and drafted again, under a key of its own.
        """
        if self.has_unsent_reply and self.draft is not None and self.reply_id is not None:
            ended = self.draft.rejected(
                self.reply_id,
                "",
                submitted_at=self.submit_intent_at or now,
                decided_at=self.reply_decided_at,
                status=self.reply_status or "",
            )
            return replace(self.rejected(ended, now), triage=None, redriven_at=now)
        in_doubt = self.submit_intent_at is not None
        return replace(
            self._reopened(now),
            triage=self.triage if in_doubt else None,
            draft=self.draft if in_doubt else None,
            redriven_at=now,
        )

    def judged_again(self, now: datetime) -> "LedgerEntry":
        """The finished row set back to open because the reply that closed it ended without reaching anybody.

        What is known of a reply of its own stays.
        """
        return replace(
            self._reopened(now),
            proposal=self.abandoned_edit,
            reply_status=self.reply_status,
            reply_decided_at=self.reply_decided_at,
            reply_settled_at=self.reply_settled_at,
        )

    def erased(self, now: datetime) -> "LedgerEntry":
        """The finished row without what it knows of people: ids, times, counts, outcome and category stay.

        They keep the email from being taken for new, and the trust report right.
        """
        return replace(
            self,
            sender="",
            triage=self.triage and self.triage.erased(),
            draft=self.draft and self.draft.erased(),
            proposal=None,
            fingerprint="",
            rejections=tuple(said.erased() for said in self.rejections),
            review=None,
            digest_key="",
            erased_at=now,
        )

    def rejected(self, rejection: Rejection, now: datetime) -> "LedgerEntry":
        """The finished row set back to open for a new draft."""
        return replace(
            self._reopened(now),
            draft=None,
            submit_intent_at=None,
            reply_id=None,
            proposal=None if rejection.is_edit else self.abandoned_edit,
            rejections=(*self.rejections, rejection),
        )

    def _reopened(self, now: datetime) -> "LedgerEntry":
        return replace(
            self,
            usage=NO_USAGE,  # it was reported with the decision that is taken back
            proposal=None, outcome=None, cause=None, detail="", depends_on=None, finished_at=None,
            missing="", missing_since=None, put_off_at=None,
            reply_status=None, reply_decided_at=None, approval_seen_at=None, reply_settled_at=None,
            attempts=0, waiting_for=None, waiting_detail="", due_at=now, reopened_at=now,
        )  # fmt: skip

    def claimed(self, now: datetime, lease_until: datetime) -> "LedgerEntry | None":
        """The row as a worker who claims it now would own it; None when it is done, leased or not due.

        What says otherwise only because the clock was set back does not count: a lease more than twice as
        long as this one, and a due time in the future of a row that was never deferred.
        """
        is_leased = self.lease_until is not None and now < self.lease_until <= now + 2 * (lease_until - now)
        is_early = self.due_at > now and self.waiting_for is not None
        if self.finished_at is not None or is_leased or is_early:
            return None
        return replace(self, lease_until=lease_until, attempts=self.attempts + 1)


@dataclass(frozen=True, slots=True)
class OpenWork:
    """An unfinished row: enqueued next at `enqueue_at`, open since `open_since` (aware UTC datetimes).

    `sends`: how often it was enqueued since a worker last wrote its row. `is_leased`: a worker has it until
    `enqueue_at`. `is_paused`: it waits until its mailbox is resumed. `is_edited`: a reviewer's own text is
    submitted next. `added_at`: when the agent first heard of the email. `version`: the store's ETag of this
    note, not of the row that `work_item` names.
    """

    mailbox_id: str
    email_id: str
    enqueue_at: datetime
    open_since: datetime
    sends: int = 0
    is_leased: bool = False
    is_paused: bool = False
    is_edited: bool = False
    added_at: datetime | None = None
    version: str = ""

    def enqueued(self, now: datetime, lease: timedelta) -> "OpenWork":
        """As it is once its work item is sent: to be sent again if nobody claims it for a lease.

        Each time nobody did, it waits twice as long, and LONGEST_MARK at most: the queue is long, or the
        workers are down, and more work items would help neither.
        """
        sends = self.sends + 1
        until = now + _count_mark(sends, lease)
        return replace(self, enqueue_at=until, sends=sends, is_leased=False)

    def is_due(self, now: datetime, lease: timedelta) -> bool:
        """Whether it is to be enqueued now.

        A mark or a lease that ends more than twice its length ahead is from before the clock was set back.
        """
        if not self.sends and not self.is_leased:
            return self.enqueue_at <= now
        longest = 2 * _count_mark(self.sends, lease)
        return not now < self.enqueue_at <= now + longest

    @property
    def work_item(self) -> WorkItem:
        """The work item to put into the queue."""
        return WorkItem(self.mailbox_id, self.email_id)


@dataclass(frozen=True, slots=True)
class TrackedReply:
    """A submitted reply whose end is not known yet. Every time is an aware UTC datetime.

    `status`: the word last seen for it, None before the first look. `check_at`: the next look is not
    before. `missing`: what was answered with 404 at every look since `missing_since`.
    It is a note about the row that `work_item`
    names; where they differ, the row is right.
    """

    mailbox_id: str
    email_id: str
    reply_id: str
    submitted_at: datetime
    check_at: datetime
    status: str | None = None
    thread_id: str | None = None
    missing: str = ""
    missing_since: datetime | None = None

    @property
    def work_item(self) -> WorkItem:
        """The row of the email that it closed."""
        return WorkItem(self.mailbox_id, self.email_id)


class MatterKind(StrEnum):
    """What a person has to see to."""

    ESCALATION = "escalation"  # an email that is left to people
    DRAFT = "draft"  # a reply that is pending until it is decided
    PROMISE = "promise"  # what an approved reply says that somebody will do


class Mark(StrEnum):
    """What people were told of a matter."""

    NEW = "new"  # that there is one
    REMINDED = "reminded"
    DEPUTY = "deputy"  # the deputy was reminded


@dataclass(frozen=True, slots=True)
class Matter:
    """A note that a person has to see to something about an email, since a moment (aware, UTC).

    It has ids and times, nothing about people. `received_at`: when its email arrived; `noted_at`: when the
    agent noted it, which may be later than the moment. Each finishing of a row leaves a note of its own;
    where note and row differ, the row is right. `version`: the store's ETag of this note.
    """

    mailbox_id: str
    email_id: str
    kind: MatterKind
    since: datetime
    received_at: datetime
    noted_at: datetime
    thread_id: str | None = None
    told: tuple[Mark, ...] = ()
    version: str = ""

    @property
    def work_item(self) -> WorkItem:
        """The row that it is about."""
        return WorkItem(self.mailbox_id, self.email_id)

    def is_about(self, entry: LedgerEntry) -> bool:
        """Whether the row, as it is now, still says so."""
        current = entry.promise if self.kind is MatterKind.PROMISE else entry.matter
        return current is not None and (current.kind, current.since) == (self.kind, self.since)


@dataclass(frozen=True, slots=True)
class Expiry:
    """A note that an email's row was finished, or the approval of its reply was seen, on a day.

    The row is to be erased some time after. It may have several; where they differ, the row is right. `day`:
    `YYYY-MM-DD`, UTC.
    """

    mailbox_id: str
    email_id: str
    day: str

    @classmethod
    def build(cls, entry: LedgerEntry, moment: datetime) -> "Expiry":
        """The note of a row for the day of a moment."""
        return cls(entry.mailbox_id, entry.email_id, f"{moment:%Y-%m-%d}")

    @property
    def work_item(self) -> WorkItem:
        """The row that it is about."""
        return WorkItem(self.mailbox_id, self.email_id)


@dataclass(frozen=True, slots=True)
class SenderDay:
    """The slots or the counter of one sender on one day (`YYYY-MM-DD`, UTC), which go when it is long past.

    `sender`: empty for all senders. `kind`: what is counted.
    """

    mailbox_id: str
    sender: str
    day: str
    kind: str


@dataclass(frozen=True, slots=True)
class Watermark:
    """How far a mailbox has been polled: everything received from `since` up to `until` is in the ledger."""

    since: datetime
    until: datetime

    def corrected(self, now: datetime, oldest: datetime) -> "Watermark | None":
        """The watermark as far as the clock it is from can have been right; None if it was not at all.

        When that clock was ahead, everything from `oldest` on is to be listed again.
        """
        if self.since > now:
            return None
        return self if self.until <= now else replace(self, until=max(self.since, oldest))


def _count_mark(sends: int, lease: timedelta) -> timedelta:
    """How long a row that was enqueued so often is left to the queue."""
    doubled = lease * (1 << min(max(0, sends - 1), 16))
    return max(lease, min(doubled, LONGEST_MARK))
