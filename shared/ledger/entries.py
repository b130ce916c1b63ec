"""The ledger: one row per inbound email, the truth about how far it has come."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from shared.domain import NO_USAGE, Cause, Draft, Outcome, Rejection, Triage, Usage, WorkItem

FIRST_CHECK_AFTER = timedelta(minutes=5)  # sooner, most replies are still being scanned


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One inbound email's row. Every time is an aware UTC datetime.

    The fields fill from top to bottom: `triage`, then `draft`, then `submit_intent_at` before the
    first submission, then `reply_id`, then `outcome` (decided, still to be tagged), then
    `finished_at`. A worker that finds a field filled does not do that step again. What became of the
    reply comes later: `reply_status` is the word last seen for it, `reply_decided_at` when a human
    decided, and from `reply_settled_at` on nobody looks at it any more. `redriven_at`: when it was
    last set back to open. `rejections`: its earlier replies that were rejected with a reason.

    `due_at`: not to be worked on before. `lease_until`: a worker is at it until then.
    `attempts`: claims that count towards MAX_ATTEMPTS, the running one included.
    `waiting_for` and `waiting_detail`: why the row was deferred last. `cause` and `detail`: why it ended with
    its outcome. `version`: the store's ETag; every write needs the newest.
    """

    mailbox_id: str
    email_id: str
    received_at: datetime
    sender: str
    thread_id: str | None
    due_at: datetime
    lease_until: datetime | None = None
    attempts: int = 0
    waiting_for: Cause | None = None
    waiting_detail: str = ""
    usage: Usage = NO_USAGE
    triage: Triage | None = None
    draft: Draft | None = None
    submit_intent_at: datetime | None = None
    reply_id: str | None = None
    outcome: Outcome | None = None
    cause: Cause | None = None
    detail: str = ""
    finished_at: datetime | None = None
    reply_status: str | None = None
    reply_decided_at: datetime | None = None
    reply_settled_at: datetime | None = None
    redriven_at: datetime | None = None
    rejections: tuple[Rejection, ...] = ()
    version: str = ""

    @property
    def work_item(self) -> WorkItem:
        """The work item that rings for this row."""
        return WorkItem(self.mailbox_id, self.email_id)

    @property
    def open_since(self) -> datetime:
        """When it arrived or, if that is later, was last set back to open."""
        return max(self.received_at, self.redriven_at or self.received_at)

    @property
    def revision(self) -> int:
        """Which draft this is or will be: one more after every rejection with a reason."""
        return 1 + len(self.rejections)

    @property
    def tracked_reply(self) -> "TrackedReply | None":
        """The reply to be tracked from now on that the row is finished; None when it has none."""
        if self.outcome is not Outcome.REPLY_SUBMITTED or self.reply_id is None or self.finished_at is None:
            return None
        return TrackedReply(
            mailbox_id=self.mailbox_id,
            email_id=self.email_id,
            reply_id=self.reply_id,
            submitted_at=self.submit_intent_at or self.finished_at,
            check_at=self.finished_at + FIRST_CHECK_AFTER,
        )

    def redriven(self, now: datetime) -> "LedgerEntry":
        """The finished row set back to open, to be stored with `defer`.

        With a reply on its way the draft and its key stay, so that it is looked for or repeated, never
        written anew; without one, the email is triaged and drafted afresh.
        """
        in_doubt = self.submit_intent_at is not None
        return replace(
            self._reopened(now),
            triage=self.triage if in_doubt else None,
            draft=self.draft if in_doubt else None,
        )

    def rejected(self, rejection: Rejection, now: datetime) -> "LedgerEntry":
        """The finished row set back to open for a new draft, to be stored with `defer`."""
        return replace(
            self._reopened(now),
            draft=None,
            submit_intent_at=None,
            reply_id=None,
            rejections=(*self.rejections, rejection),
        )

    def _reopened(self, now: datetime) -> "LedgerEntry":
        return replace(
            self,
            usage=NO_USAGE,  # what it came to was told with the decision that is taken back
            outcome=None,
            cause=None,
            detail="",
            finished_at=None,
            reply_status=None,
            reply_decided_at=None,
            reply_settled_at=None,
            attempts=0,
            waiting_for=None,
            waiting_detail="",
            due_at=now,
            redriven_at=now,
        )

    def claimed(self, now: datetime, lease_until: datetime) -> "LedgerEntry | None":
        """The row as a worker who claims it now would own it; None when it is done, leased or not due."""
        leased = self.lease_until is not None and self.lease_until > now
        if self.finished_at is not None or leased or self.due_at > now:
            return None
        return replace(self, lease_until=lease_until, attempts=self.attempts + 1)


@dataclass(frozen=True, slots=True)
class TrackedReply:
    """A submitted reply whose end is not known yet. Every time is an aware UTC datetime.

    `status`: the word last seen for it, None before the first look. `check_at`: the next look is not
    before. It is a note beside the row that `work_item` names; where they differ, the row is right.
    """

    mailbox_id: str
    email_id: str
    reply_id: str
    submitted_at: datetime
    check_at: datetime
    status: str | None = None

    @property
    def work_item(self) -> WorkItem:
        """The row of the email that it answers."""
        return WorkItem(self.mailbox_id, self.email_id)


@dataclass(frozen=True, slots=True)
class Watermark:
    """How far a mailbox has been polled: everything received from `since` up to `until` is in the ledger."""

    since: datetime
    until: datetime


class Ledger(Protocol):
    """The rows, the open work beside them, the watermarks and the counters behind the limits.

    Every method raises TransientError when the store cannot be reached and ConfigurationError
    when it refuses us. Open work is a small set beside the history, written so that it always
    holds at least every unfinished row: `due` never reads history. So are the tracked replies, a set
    of their own: they wait for a human, which is no work.
    """

    def add(self, entry: LedgerEntry) -> bool:
        """Insert a row that is rung for at `entry.due_at`, only if absent; say whether it was new."""
        ...

    def claim(self, item: WorkItem, now: datetime, lease_until: datetime) -> LedgerEntry | None:
        """Take the row's lease; None when it is unknown, done, leased, not due, or lost to another worker."""
        ...

    def save(self, entry: LedgerEntry) -> LedgerEntry:
        """Store the row, leased or finished, and return it with its new version. Raises LeaseLostError."""
        ...

    def defer(self, entry: LedgerEntry) -> LedgerEntry:
        """Give the lease back and have the row rung for at `entry.due_at`. Raises LeaseLostError."""
        ...

    def finish(self, entry: LedgerEntry) -> LedgerEntry:
        """Store the finished row (`finished_at` set), give the lease back, drop it from the open work.

        Its `tracked_reply` is tracked from before the row says that it is finished. Raises LeaseLostError.
        """
        ...

    def get(self, item: WorkItem) -> LedgerEntry | None:
        """The row, or None."""
        ...

    def entries(self, mailbox_id: str) -> Iterator[LedgerEntry]:
        """Every row of a mailbox, in no promised order. Reads history: for people, not for the work."""
        ...

    def due(self, now: datetime, limit: int) -> Sequence[WorkItem]:
        """Open work to be rung for by `now`, at most `limit` items."""
        ...

    def rung(self, items: Sequence[WorkItem], ring_again_at: datetime) -> None:
        """Remember that these were rung for, so that `due` stays quiet about them until `ring_again_at`."""
        ...

    def next_due_at(self) -> datetime | None:
        """When open work wants to be rung for next; None when nothing is open."""
        ...

    def open_since(self) -> Sequence[datetime]:
        """Since when each open email is open, in no promised order: how much work there is, and how old."""
        ...

    def tracked_replies(self) -> Sequence[TrackedReply]:
        """Every tracked reply, in no promised order, and perhaps some that were dropped just now."""
        ...

    def find_tracked_reply(self, mailbox_id: str, reply_id: str) -> TrackedReply | None:
        """The mailbox's tracked reply of that id, if it is one."""
        ...

    def track_replies(self, replies: Sequence[TrackedReply]) -> None:
        """Keep these tracked as they are given, each in place of what was noted about it before."""
        ...

    def drop_reply(self, reply: TrackedReply) -> None:
        """Stop tracking a reply, once its row says that it is settled."""
        ...

    def get_watermark(self, mailbox_id: str) -> Watermark | None:
        """How far the mailbox has been polled; None before its first poll."""
        ...

    def set_watermark(self, mailbox_id: str, watermark: Watermark) -> None:
        """Remember how far the mailbox has been polled."""
        ...

    def slots(self, scope: str) -> tuple[str, ...]:
        """The email ids that hold a reply slot in `scope` (a thread, or a sender's day)."""
        ...

    def take_slot(self, scope: str, email_id: str, seen: Sequence[str]) -> bool:
        """Add `email_id` to the slots of `scope` if they are still `seen` or hold it already.

        False when another email took a slot meanwhile: read again and decide again.
        """
        ...

    def add_tokens(self, mailbox_id: str, day: str, tokens: int) -> None:
        """Add to the tokens a mailbox has used on a day (`YYYY-MM-DD`, UTC)."""
        ...

    def tokens_used(self, mailbox_id: str, day: str) -> int:
        """The tokens a mailbox has used on a day (`YYYY-MM-DD`, UTC)."""
        ...
