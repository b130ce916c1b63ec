"""What became of each submitted reply: kept in the ledger, tagged on the email it answers, counted."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby

from shared.domain import Email, Rejection
from shared.errors import (
    AgentError,
    ConfigurationError,
    DeferredError,
    LeaseLostError,
    NotFoundError,
    PermanentError,
    TransientError,
)
from shared.ledger.entries import LedgerEntry, TrackedReply
from shared.ledger.ledger import Ledger
from shared.mail.multimail import CLOCK_MARGIN, MultiMailClient
from shared.model.prompting import clean_line
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

PENDING_APPROVAL = "pending_send_approval"
UNDECIDED = ("pending_scan", PENDING_APPROVAL)
CANCELLED = "cancelled"
REFUSED = ("rejected", CANCELLED)
SETTLED = (*REFUSED, "send_failed", "bounced", "delivered", "gone")
UNSETTLED = (*UNDECIDED, "scheduled", "approved", "unknown")
STATUS_TAG = "agent.reply_status"

# A reviewer writes this tag on the pending reply before rejecting it: the contract's decision has no reason.
REASON_TAG = "agent.reject_reason"
MAX_REASON_CHARACTERS = 500
MAX_REDRAFTS = 2  # of one email's reply

# How often to look, and for how long: most decisions fall within the hour, and almost none after a month.
FRESH_FOR, CHECK_FRESH_AFTER = timedelta(hours=1), timedelta(minutes=5)
CHECK_AFTER = timedelta(minutes=30)
TRACK_FOR = timedelta(days=30)

MAILBOXES_AT_ONCE = 8
CHECKS_AT_ONCE = 200  # of one mailbox in one run, so that a run after a long standstill ends in time

log = logging.getLogger(__name__)


class ReplyTracker:
    """Follows every submitted reply until its end is known."""

    def __init__(self, *, multimail: MultiMailClient, ledger: Ledger, clock: Callable[[], datetime]) -> None:
        self._multimail = multimail
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
        waiting = [
            (now - reply.submitted_at).total_seconds()
            for reply in tracked
            if reply.status is None or reply.status in UNDECIDED
        ]
        # Recorded also when nothing waits for a human: an alert has to see that it is over.
        record(REPLIES_PENDING, {"count": len(waiting), "oldest_seconds": round(max(waiting, default=0))})
        ages = [(now - received_at).total_seconds() for received_at in self._ledger.open_since()]
        record(BACKLOG_MEASURED, {"count": len(ages), "oldest_seconds": round(max(ages, default=0))})
        problems = [p for error in failures if isinstance(error, ConfigurationError) for p in error.problems]
        if problems:
            raise ConfigurationError(list(dict.fromkeys(problems)))
        if failures:
            raise TransientError(
                f"replies of {len(failures)} of {len(mailboxes)} mailboxes were not tracked: {failures[0]}"
            )

    def track_one(self, mailbox_id: str, reply_id: str) -> bool:
        """Look at one reply now, due or not; say whether it is tracked at all.

        Raises what MultiMail and the ledger raise, but for a refusal, after which it stays tracked.
        """
        reply = self._ledger.find_tracked_reply(mailbox_id, reply_id)
        if reply is None:
            return False
        checked = self._try_reply(reply, frozenset())
        if checked is not None:
            self._ledger.track_replies([self._later(checked)])
        return True

    def _try_mailbox(self, replies: Sequence[TrackedReply]) -> AgentError | None:
        """Look at one mailbox's replies. What an error leaves undone is due at the next run."""
        try:
            pending = self._list_pending(replies)
            later, others = {}, []
            for reply in replies:
                if reply.status == PENDING_APPROVAL and reply.reply_id in pending and not self._is_old(reply):
                    later[reply.reply_id] = self._later(reply)
                else:
                    others.append(reply)
            try:
                for reply in others[:CHECKS_AT_ONCE]:
                    # Noted before it is tried: one that always fails must not hold up those behind it.
                    later[reply.reply_id] = self._later(reply)
                    checked = self._try_reply(reply, pending)
                    if checked is None:
                        del later[reply.reply_id]
                    else:
                        later[reply.reply_id] = self._later(checked)
            finally:
                self._ledger.track_replies(list(later.values()))
        except DeferredError as error:
            log.info("replies of mailbox %s have to wait: %s", replies[0].mailbox_id, error)
        except AgentError as error:
            log.warning("tracking replies of mailbox %s failed: %s", replies[0].mailbox_id, error)
            return error
        return None

    def _list_pending(self, replies: Sequence[TrackedReply]) -> frozenset[str]:
        """The ids of outbound emails that wait for approval: one listing for what would be many reads.

        What it does not show is read one by one, so half a listing will do.
        """
        mailbox_id, since = replies[0].mailbox_id, min(reply.submitted_at for reply in replies)
        pending: set[str] = set()
        try:
            for summary in self._multimail.list_emails(
                mailbox_id, direction="outbound", status=PENDING_APPROVAL, date_after=since - CLOCK_MARGIN
            ):
                pending.add(summary.id)
        except DeferredError:
            raise
        except (PermanentError, TransientError) as error:
            log.warning("pending replies of mailbox %s could not be listed: %s", mailbox_id, error)
        return frozenset(pending)

    def _try_reply(self, reply: TrackedReply, pending: frozenset[str]) -> TrackedReply | None:
        try:
            return self._check(reply, pending)
        except (LeaseLostError, PermanentError) as error:
            log.warning("reply %s of mailbox %s: %s", reply.reply_id, reply.mailbox_id, error)
            return reply

    def _check(self, reply: TrackedReply, pending: frozenset[str]) -> TrackedReply | None:
        """Look at one reply; give it back as it is to be tracked further, None when that is over."""
        fate = self._find_fate(reply, pending)
        settled = fate.status in SETTLED or self._is_old(reply)
        if fate.status == reply.status and not settled:
            return reply
        entry = self._ledger.get(reply.work_item)
        if entry is None or entry.reply_id != reply.reply_id:  # its email was set back to work since
            self._ledger.drop_reply(reply)
            return None
        if entry.finished_at is None:  # the row still belongs to a worker
            return reply
        rejection = None
        # A rejection with a reason asks for a new draft, while there were not too many.
        may_redraft = entry.reply_settled_at is None and len(entry.rejections) < MAX_REDRAFTS
        if fate.reason and entry.draft is not None and may_redraft:
            rejection = Rejection(
                reply_id=reply.reply_id,
                reason=fate.reason,
                reply_markdown=entry.draft.reply_markdown,
                submitted_at=reply.submitted_at,
                decided_at=fate.decided_at or self._clock(),
            )
        with span("reply seen", _ids(reply), parent=email_traceparent(reply.mailbox_id, reply.email_id)):
            if rejection is None:
                self._store(entry, reply, fate, settled=settled)
                self._tag(reply, fate.status)
            else:  # tagged while the row is still finished: the worker with the new draft writes its own tags
                self._tag(reply, fate.status)
                self._ledger.redraft(entry.rejected(rejection, self._clock()), reply)
                self._record_settled(entry, reply, fate, is_redrafted=True)
                return None
        if settled:
            self._ledger.drop_reply(reply)
            return None
        return replace(reply, status=fate.status)

    def _find_fate(self, reply: TrackedReply, pending: frozenset[str]) -> "_Fate":
        if self._is_old(reply):
            return _Fate(reply.status or "unknown")
        if reply.reply_id in pending:
            return _Fate(PENDING_APPROVAL)
        try:
            email = self._multimail.get_email(reply.mailbox_id, reply.reply_id)
        except NotFoundError:
            return _Fate("gone")
        status = derive_status(email)
        return _Fate(
            status,
            self._clock() if status in REFUSED else email.approved_at,
            clean_line(email.tags.get(REASON_TAG, ""), MAX_REASON_CHARACTERS) if status == "rejected" else "",
        )

    def _store(self, entry: LedgerEntry, reply: TrackedReply, fate: "_Fate", *, settled: bool) -> None:
        """Keep what was seen before anything else is done about it, and count an end once."""
        unchanged = fate.status == entry.reply_status and not settled
        if unchanged or entry.reply_settled_at is not None:
            return
        self._ledger.save(
            replace(
                entry,
                reply_status=fate.status,
                reply_decided_at=fate.decided_at,
                reply_settled_at=self._clock() if settled else None,
            )
        )
        if settled:
            self._record_settled(entry, reply, fate, is_redrafted=False)

    def _record_settled(
        self, entry: LedgerEntry, reply: TrackedReply, fate: "_Fate", *, is_redrafted: bool
    ) -> None:
        seconds = None
        if fate.decided_at is not None and fate.status != CANCELLED:  # which the agent does as well
            seconds = max(0.0, round((fate.decided_at - reply.submitted_at).total_seconds(), 1))
        record(
            REPLY_SETTLED,
            {
                "mailbox_id": entry.mailbox_id,
                "email_id": entry.email_id,
                "reply_id": reply.reply_id,
                "reply_status": fate.status,
                "revision": entry.revision,
                "redrafted": is_redrafted,
                "seconds_to_decision": seconds,
                "category": entry.triage.category if entry.triage else None,
                "actor": "service" if seconds is None else "reviewer",
            },
        )

    def _tag(self, reply: TrackedReply, status: str) -> None:
        """Write the status on the answered email, next to all other tags, if it is not there yet.

        What the service refuses for good is left untagged: the ledger has the status.
        """
        try:
            existing = self._multimail.get_tags(reply.mailbox_id, reply.email_id)
            wanted = existing | {STATUS_TAG: status}
            if wanted != existing:
                self._multimail.set_tags(reply.mailbox_id, reply.email_id, wanted)
        except PermanentError as error:
            log.warning("email %s could not be tagged: %s", reply.email_id, error)

    def _is_old(self, reply: TrackedReply) -> bool:
        return self._clock() - reply.submitted_at >= TRACK_FOR

    def _later(self, reply: TrackedReply) -> TrackedReply:
        now = self._clock()
        is_fresh = now - reply.submitted_at < FRESH_FOR
        return replace(reply, check_at=now + (CHECK_FRESH_AFTER if is_fresh else CHECK_AFTER))


@dataclass(frozen=True, slots=True)
class _Fate:
    """What became of a reply so far; if a human decided, when, and the reason for a rejection, if any."""

    status: str
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


def _ids(reply: TrackedReply) -> dict[str, Value]:
    return {
        "agent.mailbox_id": reply.mailbox_id,
        "agent.email_id": reply.email_id,
        "agent.reply_id": reply.reply_id,
    }
