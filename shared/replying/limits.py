"""Limits: how many replies a thread and a sender may get. They bound replies, not attention."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from shared.domain import Cause, Decision, Outcome, WorkItem
from shared.ledger.entries import LedgerEntry, SenderDay
from shared.ledger.ledger import Ledger
from shared.replying.claim import SLOT_TAKEN_SECONDS, Waiting
from shared.replying.threads import ThreadView, may_reply
from shared.settings import Settings
from shared.telemetry import TOKEN_BUDGET_REACHED, record

# Emails of one sender to one mailbox in a day that the models are asked about; a person writes fewer.
TRIAGED_PER_SENDER_PER_DAY = 50
TOKEN_BUDGET_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits for one email at one moment. `settings` are its mailbox's."""

    entry: LedgerEntry
    ledger: Ledger
    settings: Settings
    now: datetime

    def find_flood(self) -> Decision | None:
        """Count the email among those of its sender today; the models are not asked about endless ones."""
        if self.entry.triage is not None:
            return None
        sender = self.entry.base_sender
        day = f"{self.entry.received_at:%Y-%m-%d}"
        scope = SenderDay(self.entry.mailbox_id, sender, day, "received")
        seen = self.ledger.slots(scope)
        if self.entry.email_id in seen:
            return None
        if len(seen) >= TRIAGED_PER_SENDER_PER_DAY:
            return Decision(Outcome.ESCALATED, Cause.SENDER_FLOOD, str(TRIAGED_PER_SENDER_PER_DAY))
        if not self.ledger.take_slot(scope, self.entry.email_id, seen):
            raise Waiting(Cause.SLOT_TAKEN, seconds=SLOT_TAKEN_SECONDS)
        return None

    def find_used_share(self) -> Decision | None:
        """Leave an email to a person, without a model, once its sender's share of today's tokens is used up.

        What has been triaged goes on: no sender gets past its share by more than the emails in hand.
        """
        share = self.settings.max_sender_token_share
        if self.entry.triage is not None or share >= 1:  # then the mailbox's budget is the only bound
            return None
        sender, day = self.entry.base_sender, f"{self.now:%Y-%m-%d}"
        used = self.ledger.tokens_used(self.entry.mailbox_id, day, sender)
        if used < share * self.settings.daily_token_budget:
            return None
        return Decision(Outcome.ESCALATED, Cause.SENDER_TOKENS, f"{share:.4g}")

    def check_budget(self) -> None:
        """Raise Waiting when the mailbox's tokens for today are used up and the email would need more."""
        if self.entry.draft is not None:
            return
        used = self.ledger.tokens_used(self.entry.mailbox_id, f"{self.now:%Y-%m-%d}")
        if used >= self.settings.daily_token_budget:
            record(
                TOKEN_BUDGET_REACHED,
                {"mailbox_id": self.entry.mailbox_id, "email_id": self.entry.email_id, "tokens": used},
            )
            raise Waiting(Cause.TOKEN_BUDGET, seconds=TOKEN_BUDGET_SECONDS)

    def find_refusal(self, thread: ThreadView, day_slots: Sequence[str]) -> Decision | None:
        """Say which limit forbids a reply. Only replies that were sent, are pending or may come count.

        `day_slots`: the slots of the sender's scope.
        """
        if self.is_too_old:
            return Decision(Outcome.ESCALATED, Cause.TOO_OLD)
        live = [row for row in thread.rows if may_reply(row, thread.unsent_replies)]
        if len(live) >= self.settings.max_replies_per_thread:
            return Decision(Outcome.ESCALATED, Cause.THREAD_LIMIT, str(self.settings.max_replies_per_thread))
        known = {row.email_id: row for row in thread.rows}
        others = [id_ for id_ in day_slots if id_ != self.entry.email_id]
        rows = [known.get(id_) or self.ledger.get(WorkItem(self.entry.mailbox_id, id_)) for id_ in others]
        limit = self.settings.max_replies_per_sender_per_day
        if sum(row is not None and may_reply(row, thread.unsent_replies) for row in rows) >= limit:
            return Decision(Outcome.ESCALATED, Cause.SENDER_LIMIT, str(limit))
        return None

    def name_sender_scope(self, thread: ThreadView) -> SenderDay:
        """Where the replies to this sender are counted today.

        Apart for threads in which we have answered that address: what somebody else sends in its name starts
        new threads, and must not use up the slots of the person.
        """
        kind = "answered" if thread.was_answered(self.entry.sender) else "new"
        return SenderDay(self.entry.mailbox_id, self.entry.base_sender, f"{self.now:%Y-%m-%d}", kind)

    @property
    def is_too_old(self) -> bool:
        """Whether it is too late for a reply, counted from when the email could be worked on."""
        return self.now - self.entry.open_since > timedelta(hours=self.settings.max_email_age_hours)
