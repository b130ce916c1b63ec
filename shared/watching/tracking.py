"""What became of each submitted reply: kept in the ledger, tagged on the email it answers, counted."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby

from shared.domain import Cause, Email, Rejection, Review
from shared.errors import (
    AgentError,
    DeferredError,
    LeaseLostError,
    NotFoundError,
    PermanentError,
    TransientError,
    raise_together,
)
from shared.ledger.entries import (
    APPROVED_STATUSES,
    PENDING_APPROVAL,
    UNDECIDED,
    UNSENT_STATUSES,
    Expiry,
    LedgerEntry,
    Matter,
    TrackedReply,
)
from shared.ledger.ledger import Ledger
from shared.mail.mailboxes import MailboxDirectory
from shared.mail.multimail import CLOCK_MARGIN, MultiMailClient, MultiMailReader
from shared.model.prompting import clean_line
from shared.replying.reporting import REJECT_REASON_TAG, REJECTED_WITH_REASON, STATUS_TAG, render_time
from shared.replying.submission import withdraw_reply
from shared.replying.threads import PENDING_STATUSES, find_closing_answer, read_thread
from shared.telemetry import (
    BACKLOG_MEASURED,
    REPLIES_PENDING,
    REPLY_SETTLED,
    Value,
    email_traceparent,
    in_this_context,
    record,
    span,
)

CANCELLED = "cancelled"
TURNED_DOWN = ("rejected", CANCELLED)
SETTLED = (*UNSENT_STATUSES, "delivered")
UNSETTLED = (*PENDING_STATUSES, "approved", "unknown")

MAX_REJECT_REASON_CHARACTERS = 500
MAX_REDRAFTS = 2  # of one email's reply by the model; a reviewer's own texts do not count

# How often to look, and for how long: most decisions fall within the hour, and almost none after a month.
FRESH_FOR, CHECK_FRESH_AFTER = timedelta(hours=1), timedelta(minutes=5)
CHECK_AFTER = timedelta(minutes=30)
CHECK_SAID_AFTER = timedelta(minutes=1)  # what was said of a reply counts for some minutes only
TRACK_FOR = timedelta(days=30)  # but for those that nobody has decided: these are looked at once a day
CHECK_OLD_AFTER = timedelta(days=1)
# A 404 is one reading: a reply counts as gone when it is not there at a second look, this long after.
GONE_AFTER = timedelta(hours=3)

MAILBOXES_AT_ONCE = 8
CHECKS_AT_ONCE = 200  # of one mailbox in one run, so that a run after a long standstill ends in time

log = logging.getLogger(__name__)


class ReplyTracker:
    """Follows every submitted reply until its end is known."""

    def __init__(
        self,
        *,
        multimail: MultiMailReader,
        writer: MultiMailClient | None,
        mailboxes: MailboxDirectory,
        ledger: Ledger,
        clock: Callable[[], datetime],
    ) -> None:
        self._multimail = multimail
        self._writer = writer
        self._mailboxes = mailboxes
        self._ledger = ledger
        self._clock = clock

    def track(self) -> None:
        """Look at every reply that is due for it; one mailbox that fails does not stop the others.

        Raises ConfigurationError or TransientError, after everything that could be done was done.
        """
        now = self._clock()
        tracked = self._ledger.tracked_replies()
        due = sorted(
            (reply for reply in tracked if reply.check_at <= now),
            key=lambda reply: (reply.mailbox_id, reply.check_at),
        )
        mailboxes = [list(replies) for _, replies in groupby(due, key=lambda reply: reply.mailbox_id)]
        with ThreadPoolExecutor(max_workers=MAILBOXES_AT_ONCE) as pool:
            polled = pool.map(in_this_context(self._try_mailbox), mailboxes)
            failures = [error for error in polled if error is not None]
        tracked = self._ledger.tracked_replies() if due else tracked
        now = self._clock()
        undecided = [reply for reply in tracked if reply.status is None or reply.status in UNDECIDED]
        # One reply may have closed several emails.
        since = {reply.reply_id: reply.submitted_at for reply in undecided}
        waiting = [(now - submitted_at).total_seconds() for submitted_at in since.values()]
        # Recorded also when nothing waits for a human: an alert has to see that it is over.
        record(REPLIES_PENDING, {"count": len(waiting), "oldest_seconds": round(max(waiting, default=0))})
        ages = [(now - received_at).total_seconds() for received_at in self._ledger.open_since()]
        record(BACKLOG_MEASURED, {"count": len(ages), "oldest_seconds": round(max(ages, default=0))})
        raise_together(failures, f"replies of {len(failures)} of {len(mailboxes)} mailboxes were not tracked")

    def track_one(self, mailbox_id: str, reply_id: str) -> bool:
        """Look at one reply now, due or not, for each email that it closed; say whether it is tracked at all.

        Raises what MultiMail and the ledger raise, but for a refusal, after which it stays tracked.
        """
        replies = self._ledger.find_tracked_replies(mailbox_id, reply_id)
        checked = [self._try_reply(reply, _Listing()) for reply in replies]
        self._ledger.track_replies([self._later(reply) for reply in checked if reply is not None])
        return bool(replies)

    def look_soon(self, mailbox_id: str, reply_id: str) -> None:
        """Have the next run look at a reply that is about to be rejected. Raises what the ledger raises."""
        at = self._clock() + CHECK_SAID_AFTER
        replies = self._ledger.find_tracked_replies(mailbox_id, reply_id)
        self._ledger.track_replies([replace(reply, check_at=min(at, reply.check_at)) for reply in replies])

    def _try_mailbox(self, replies: Sequence[TrackedReply]) -> AgentError | None:
        """Look at one mailbox's replies. What an error leaves undone is due at the next run."""
        try:
            self._mailboxes.get(replies[0].mailbox_id)  # else every 404 would be that of another account
            listing = self._list_outbound(replies)
            later, others = {}, []
            for reply in replies:
                is_same = reply.status == PENDING_APPROVAL and reply.reply_id in listing.pending
                if is_same and reply.thread_id not in listing.answered_threads:
                    later[reply.reply_id, reply.email_id] = self._later(reply)
                else:
                    others.append(reply)
            try:
                for reply in others[:CHECKS_AT_ONCE]:
                    # Noted before it is tried: one that always fails must not hold up those behind it.
                    later[reply.reply_id, reply.email_id] = self._later(reply)
                    checked = self._try_reply(reply, listing)
                    if checked is None:
                        del later[reply.reply_id, reply.email_id]
                    else:
                        later[reply.reply_id, reply.email_id] = self._later(checked)
            finally:
                self._ledger.track_replies(list(later.values()))
        except DeferredError as error:
            log.info("replies of mailbox %s have to wait: %s", replies[0].mailbox_id, error)
        except AgentError as error:
            log.warning("tracking replies of mailbox %s failed: %s", replies[0].mailbox_id, error)
            return error
        return None

    def _list_outbound(self, replies: Sequence[TrackedReply]) -> "_Listing":
        """What waits for approval, and the threads in which somebody else wrote since the last look.

        Two listings for what would be many reads. What they do not show is read one by one, so half a
        listing will do.
        """
        mailbox_id, oldest = replies[0].mailbox_id, min(reply.submitted_at for reply in replies)
        looked_at = max(
            oldest,
            min(r.check_at - self._find_wait(r) if r.status is not None else r.submitted_at for r in replies),
        )
        pending: set[str] = set()
        answered: set[str | None] = set()
        own = {reply.reply_id for reply in replies}
        try:
            for summary in self._multimail.list_emails(
                mailbox_id, direction="outbound", status=PENDING_APPROVAL, date_after=oldest - CLOCK_MARGIN
            ):
                pending.add(summary.id)
            for summary in self._multimail.list_emails(
                mailbox_id, direction="outbound", date_after=looked_at - CLOCK_MARGIN
            ):
                if summary.id not in own and summary.status not in PENDING_STATUSES:
                    answered.add(summary.thread_id)
        except DeferredError:
            raise
        except (PermanentError, TransientError) as error:
            log.warning("replies of mailbox %s could not be listed: %s", mailbox_id, error)
        return _Listing(frozenset(pending), frozenset(answered - {None}))

    def _try_reply(self, reply: TrackedReply, listing: "_Listing") -> TrackedReply | None:
        try:
            return self._check(reply, listing)
        except NotFoundError as error:  # an email, a thread or tags: one reading is not a fact
            log.warning("reply %s of mailbox %s: %s", reply.reply_id, reply.mailbox_id, error)
            self._mailboxes.get(reply.mailbox_id, max_age_seconds=0)
            since = reply.missing_since if reply.missing == str(error) else None
            return replace(reply, missing=str(error), missing_since=since or self._clock())
        except (LeaseLostError, PermanentError) as error:
            log.warning("reply %s of mailbox %s: %s", reply.reply_id, reply.mailbox_id, error)
            return reply

    def _check(self, reply: TrackedReply, listing: "_Listing") -> TrackedReply | None:
        """Look at one reply; give it back as it is to be tracked further, None when that is over."""
        fate = self._find_fate(reply, listing)
        if fate.status == reply.status and not fate.is_settled:
            return replace(reply, missing="", missing_since=None)
        entry = self._ledger.get(reply.work_item)
        # Its email was set back to work since, or ended otherwise.
        is_known = entry is not None and reply.reply_id in (entry.reply_id, entry.depends_on)
        if (
            entry is None
            or not is_known
            or (entry.erased_at and entry.reply_id != reply.reply_id)
            or (entry.reply_id == reply.reply_id and entry.was_judged_again)
        ):
            self._ledger.drop_reply(reply)
            return None
        if entry.finished_at is None:  # the row still belongs to a worker
            return reply
        ids: dict[str, Value] = {
            "agent.mailbox_id": reply.mailbox_id,
            "agent.email_id": reply.email_id,
            "agent.reply_id": reply.reply_id,
        }
        with span("reply seen", ids, parent=email_traceparent(reply.mailbox_id, reply.email_id)):
            if entry.reply_id == reply.reply_id:
                if entry.matter is not None and fate.status not in UNDECIDED:  # nobody has to decide it now
                    self._ledger.matters.close(entry.matter)
                is_open = self._settle_own(entry, reply, fate)
            elif is_open := fate.status in UNSENT_STATUSES:  # another's reply was to answer its email
                self._ledger.redraft(entry.judged_again(self._clock()), reply)
        if is_open:
            return None
        if fate.is_settled:
            self._ledger.drop_reply(reply)
            return None
        return replace(reply, status=fate.status, missing="", missing_since=None)

    def _settle_own(self, entry: LedgerEntry, reply: TrackedReply, fate: "_Fate") -> bool:
        """Keep what became of a row's reply; say whether the row was set back to open.

        A rejection with a reason asks for a new draft, while there were not too many; an edit is one. Of any
        other end without effect the row is judged again: its sender is still without an answer.
        """
        now = self._clock()
        if entry.erased_at:  # only counted
            self._store(entry, reply, fate)
            return False
        rejection = _find_rejection(entry, reply, fate, now)
        if rejection is not None:
            # Tagged while the row is finished: the worker with the new draft writes its own tags.
            self._tag(reply, fate.status)
            self._ledger.redraft(entry.rejected(rejection, now), reply)
            _record_settled(entry, reply, fate, now, is_redrafted=True)
            return True
        kept = self._store(entry, reply, fate)
        self._tag(reply, fate.status)
        if fate.status in UNSENT_STATUSES:
            self._ledger.redraft(kept.judged_again(now), reply)
            return True
        return False

    def _find_fate(self, reply: TrackedReply, listing: "_Listing") -> "_Fate":
        if self._is_old(reply) and reply.status not in PENDING_STATUSES:
            return _Fate(reply.status or "unknown", is_settled=True)
        if reply.reply_id in listing.pending:
            is_withdrawn = reply.thread_id in listing.answered_threads and self._withdraw_answered(reply)
            return _Fate(CANCELLED if is_withdrawn else PENDING_APPROVAL, is_settled=is_withdrawn)
        try:
            email = self._multimail.get_email(reply.mailbox_id, reply.reply_id)
        except NotFoundError as error:
            if not self._is_missing_long(reply, error):
                raise
            self._mailboxes.get(reply.mailbox_id, max_age_seconds=0)
            return _Fate("gone", is_settled=True)
        status = derive_status(email)
        # The listing missed it, as after a submission by a wrong clock: it missed answers as well.
        if status == PENDING_APPROVAL and self._withdraw_answered(reply):
            status = CANCELLED
        said = email.tags.get(REJECT_REASON_TAG, "") if status == "rejected" else ""
        return _Fate(
            status,
            status in SETTLED,
            self._clock() if status in TURNED_DOWN else email.approved_at,
            clean_line(said, MAX_REJECT_REASON_CHARACTERS),
        )

    def _withdraw_answered(self, reply: TrackedReply) -> bool:
        """Withdraw our pending reply if somebody else has answered its email; say whether that was done."""
        entry = self._ledger.get(reply.work_item)
        if entry is None or entry.reply_id != reply.reply_id:
            return False
        thread = read_thread(entry, self._multimail, self._ledger)
        others = replace(thread, emails=[email for email in thread.emails if email.id != reply.reply_id])
        answered = find_closing_answer(entry, others)
        if answered is None or answered.cause is not Cause.ANSWERED:
            return False
        return self._writer is not None and withdraw_reply(self._writer, reply.mailbox_id, reply.reply_id)

    def _store(self, entry: LedgerEntry, reply: TrackedReply, fate: "_Fate") -> LedgerEntry:
        """Keep what was seen before anything else is done about it, and count an end once."""
        unchanged = fate.status == entry.reply_status and not fate.is_settled
        if unchanged or entry.reply_settled_at is not None:
            return entry
        now = self._clock()
        changed = replace(
            entry,
            reply_status=fate.status,
            reply_decided_at=fate.decided_at,
            approval_seen_at=entry.approval_seen_at or (now if fate.status in APPROVED_STATUSES else None),
            reply_settled_at=now if fate.is_settled else None,
        )
        promise = changed.promise if entry.promise is None else None
        notes: list[Matter | Expiry] = [promise] if promise else []
        if changed.approval_seen_at == now:
            notes.append(Expiry.build(entry, now))  # by which the digest finds it
        kept = self._ledger.save(changed, *notes)
        if fate.is_settled:
            _record_settled(kept, reply, fate, now, is_redrafted=False)
        return kept

    def _tag(self, reply: TrackedReply, status: str) -> None:
        """Write the status on the answered email, next to all other tags, if it is not there yet.

        What the service refuses for good is left untagged: the ledger has the status.
        """
        try:
            existing = self._multimail.get_tags(reply.mailbox_id, reply.email_id)
            wanted = existing | {STATUS_TAG: status}
            if wanted != existing and self._writer is not None:
                self._writer.set_tags(reply.mailbox_id, reply.email_id, wanted)
        except PermanentError as error:
            if isinstance(error, NotFoundError) and not self._is_missing_long(reply, error):
                raise
            log.warning("email %s could not be tagged: %s", reply.email_id, error)

    def _is_missing_long(self, reply: TrackedReply, error: NotFoundError) -> bool:
        since = reply.missing_since if reply.missing == str(error) else None
        return since is not None and self._clock() - since >= GONE_AFTER

    def _is_old(self, reply: TrackedReply) -> bool:
        return self._clock() - reply.submitted_at >= TRACK_FOR

    def _find_wait(self, reply: TrackedReply) -> timedelta:
        """The longest time between its last look and its next."""
        return CHECK_OLD_AFTER if self._is_old(reply) else CHECK_AFTER

    def _later(self, reply: TrackedReply) -> TrackedReply:
        """The reply as it was looked at now. A look that is due sooner, for what was said of it, stays."""
        now = self._clock()
        is_fresh = now - reply.submitted_at < FRESH_FOR
        later = now + (CHECK_FRESH_AFTER if is_fresh else self._find_wait(reply))
        return reply if now < reply.check_at < later else replace(reply, check_at=later)


def _record_settled(
    entry: LedgerEntry, reply: TrackedReply, fate: "_Fate", settled_at: datetime, *, is_redrafted: bool
) -> None:
    seconds = None
    if fate.decided_at is not None and fate.status != CANCELLED:  # which the agent does as well
        seconds = max(0.0, round((fate.decided_at - reply.submitted_at).total_seconds(), 1))
    said, reason = _find_said(entry, fate, fate.decided_at or settled_at)
    record(
        REPLY_SETTLED,
        {
            "mailbox_id": entry.mailbox_id,
            "email_id": entry.email_id,
            "reply_id": reply.reply_id,
            "reply_status": fate.status,
            "revision": entry.revision,
            "redrafted": is_redrafted,
            "settled_at": render_time(settled_at),
            "seconds_to_decision": seconds,
            "decision": None if seconds is None else _name_decision(said, reason, fate),
            "reviewer": said.reviewer if said is not None else None,
            "category": entry.triage.category if entry.triage else None,
            "actor": "service" if seconds is None else "reviewer",
        },
    )


def _name_decision(said: Review | None, reason: str, fate: "_Fate") -> str:
    """What the person decided who decided on the reply; its text or reason is in the row."""
    if fate.status != "rejected":
        return "approved"
    if said is not None and said.edited is not None:
        return "edited"
    return REJECTED_WITH_REASON if reason else "rejected"


def _find_said(entry: LedgerEntry, fate: "_Fate", decided_at: datetime) -> tuple[Review | None, str]:
    """What was said of a rejected reply, at the desk or in its tag: the review, if it counts, and the reason.

    What was said at the desk counts if the rejection came soon after, and no other reason was given since.
    """
    said = entry.own_review
    if fate.status != "rejected":
        return None, ""
    if said is None or said.is_taken_over(fate.reason):
        return None, fate.reason
    return (None, "") if said.is_void(decided_at) else (said, said.reason)


def _find_rejection(
    entry: LedgerEntry, reply: TrackedReply, fate: "_Fate", now: datetime
) -> Rejection | None:
    """The rejection that gets a new draft; None where the row's reply is not answered by one."""
    decided_at = fate.decided_at or now
    said, reason = _find_said(entry, fate, decided_at)
    is_edit = said is not None and said.edited is not None
    redrafts = sum(1 for said in entry.rejections if said.status == "rejected" and not said.is_edit)
    if entry.draft is None or fate.status != "rejected":
        return None
    if not is_edit and not (reason and redrafts < MAX_REDRAFTS):
        return None
    return entry.draft.rejected(
        reply.reply_id,
        reason,
        submitted_at=reply.submitted_at,
        decided_at=decided_at,
        review=said,
    )


@dataclass(frozen=True, slots=True)
class _Listing:
    """A mailbox's outbound emails that wait for approval, and the threads that somebody else wrote in."""

    pending: frozenset[str] = frozenset()
    answered_threads: frozenset[str | None] = frozenset()


@dataclass(frozen=True, slots=True)
class _Fate:
    """What became of a reply so far; if a human decided, when, and the reason for a rejection, if any."""

    status: str
    is_settled: bool
    decided_at: datetime | None = None
    reason: str = ""


def derive_status(email: Email) -> str:
    """The one word for where an outbound email stands: one of SETTLED or of UNSETTLED.

    The service has no status for an email that left: `delivered_at` and `bounced_at` tell. One that was
    delivered may still bounce later; it counts as delivered all the same, unless `bounced_at` is already set.
    """
    if email.bounced_at is not None:
        return "bounced"
    if email.delivered_at is not None:
        return "delivered"
    if email.status in SETTLED:
        return email.status
    if email.approved_at is not None:
        return "approved"
    return email.status if email.status in UNSETTLED else "unknown"
