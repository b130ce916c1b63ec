"""One worker's claim on a ledger row, and the error that says why the row has to wait."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from shared.domain import Cause, Decision, Mailbox, Outcome
from shared.errors import DeferredError, PermanentError
from shared.ledger.entries import FOR_PEOPLE, LedgerEntry
from shared.ledger.ledger import Ledger
from shared.mail.mailboxes import select_mailboxes
from shared.profiles.pauses import Pauses
from shared.telemetry import Value

# A 404 is one reading: what is looked for this long, at growing intervals, and never found is gone.
MISSING_FOR = timedelta(hours=1)
NOT_SHOWN_YET_SECONDS = 30.0
SLOT_TAKEN_SECONDS = 2.0
MAILBOX_LEFT_OUT_SECONDS = 300.0  # no poll enqueues it before its mailbox is answered again
BUSY_THREAD_SECONDS = 2.0
BUSY_AGAIN_SECONDS = 30.0  # then its worker has died, or waits itself
PAUSED_SECONDS = 30.0  # no poll enqueues it before its mailbox is resumed


class Waiting(DeferredError):
    """The email has to wait, for a reason of the agent's own. `retry_after_seconds` is always set."""

    def __init__(self, cause: Cause, *, seconds: float) -> None:
        self.cause = cause
        super().__init__(f"waiting: {cause}", retry_after_seconds=seconds)


@dataclass(slots=True)
class Claim:
    """The row as this worker last stored it, with what it has learned since: stored by the next write.

    Every write raises LeaseLostError when another worker has taken the row over.
    """

    ledger: Ledger
    entry: LedgerEntry
    _missing: tuple[str, datetime | None] = field(init=False)

    def __post_init__(self) -> None:
        self._missing = self.entry.missing, self.entry.missing_since
        self.note(missing="", missing_since=None)  # unless this run, too, does not find it

    @property
    def ids(self) -> dict[str, Value]:
        """What every event about the email carries."""
        return {"mailbox_id": self.entry.mailbox_id, "email_id": self.entry.email_id}

    def note(self, **changes: Any) -> None:
        """Change fields of the row; the next write stores them."""
        self.entry = replace(self.entry, **changes)

    def save(self, **changes: Any) -> None:
        """Store the row with these changes."""
        self.entry = self.ledger.save(replace(self.entry, **changes))

    def decide(self, decision: Decision) -> None:
        """Store where the email ends; what was written for it and not submitted is kept as a proposal."""
        entry = self.entry
        is_unsent = entry.submit_intent_at is None or decision.cause is Cause.REPLY_REFUSED
        if decision.outcome in FOR_PEOPLE and is_unsent:
            self.note(proposal=entry.proposal or entry.draft or entry.edit)
        self.save(
            outcome=decision.outcome,
            cause=decision.cause,
            detail=decision.detail,
            reply_id=decision.reply_id or entry.reply_id,  # of a reply that ended, the trace stays
            depends_on=decision.depends_on,
        )

    def find_crash(self, max_attempts: int) -> Decision | None:
        """The end of an email at which the process ended every time; None while there are attempts left.

        Raises PermanentError for one with a reply in doubt.
        """
        if self.entry.attempts <= max_attempts:
            return None
        crashes = self.entry.attempts - 1
        if self.entry.intent_in_doubt is not None:
            raise PermanentError(f"processing crashed {crashes} times")
        return Decision(Outcome.FAILED, Cause.CRASHED, str(crashes))

    def confirm_missing(self, what: str, now: datetime) -> None:
        """Return when it was missing at every look for MISSING_FOR; raise Waiting until then."""
        before, before_since = self._missing
        since = before_since if before == what and before_since is not None else now
        self.note(missing=what, missing_since=since)
        if now - since < MISSING_FOR:
            seconds = max(NOT_SHOWN_YET_SECONDS, (now - since).total_seconds())  # twice as long each time
            raise Waiting(Cause.NOT_SHOWN_YET, seconds=seconds)

    def check_mailbox(self, mailbox: Mailbox, wanted: Sequence[str], pauses: Pauses, now: datetime) -> None:
        """Raise Waiting while the mailbox is not one of the wanted, or is paused.

        The time of a pause does not count as the email's age. A reply in doubt is looked for all the same.
        """
        if not select_mailboxes({mailbox.id: mailbox}, wanted):
            raise Waiting(Cause.MAILBOX_LEFT_OUT, seconds=MAILBOX_LEFT_OUT_SECONDS)
        if self.entry.intent_in_doubt is None and pauses.holds(mailbox):
            raise Waiting(Cause.PAUSED, seconds=PAUSED_SECONDS)
        if self.entry.waiting_for is Cause.PAUSED:
            self.note(released_at=now)

    def note_observed(self, *, is_observed: bool) -> None:
        """Note whether the email is only observed. One with a submitted reply is answered to its end."""
        was_submitted = self.entry.submit_intent_at is not None or bool(self.entry.rejections)
        self.note(is_observed=is_observed and not was_submitted)

    def wait_for_thread(self, busy_until: datetime, now: datetime) -> Waiting:
        """Return the error that lets the email wait until another worker is done with its thread."""
        waited_before = self.entry.waiting_for is Cause.THREAD_BUSY
        patience = BUSY_AGAIN_SECONDS if waited_before else BUSY_THREAD_SECONDS
        return Waiting(Cause.THREAD_BUSY, seconds=max(patience, (busy_until - now).total_seconds()))

    def defer(self, due_at: datetime, cause: Cause, detail: str) -> None:
        """Give the row back until `due_at`."""
        waiting = replace(self.entry, due_at=due_at, waiting_for=cause, waiting_detail=detail)
        self.entry = self.ledger.defer(waiting)

    def finish(self, now: datetime) -> None:
        """Give the row back for good."""
        done = replace(self.entry, finished_at=now, waiting_for=None, waiting_detail="")
        self.entry = self.ledger.finish(done)
