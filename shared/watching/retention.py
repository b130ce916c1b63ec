"""Retention: what the ledger knows of people is removed when it is no longer needed, some rows at a time."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from shared.errors import LeaseLostError
from shared.ledger.entries import Expiry
from shared.ledger.keys import SHARDS
from shared.ledger.ledger import Ledger
from shared.replying.reporting import record_erasure
from shared.replying.same_email import drop_copies

ROWS_PER_RUN = 1_000


@dataclass(frozen=True, slots=True)
class Retention:
    """Erases finished rows, and the slots of senders, once they are `days` old."""

    ledger: Ledger
    days: int
    clock: Callable[[], datetime]

    def run(self) -> None:
        """Erase at most ROWS_PER_RUN rows; the next run goes on there. Raises what the ledger raises."""
        day = f"{self.clock() - timedelta(days=self.days):%Y-%m-%d}"
        first = self.ledger.get_erasing_shard()
        notes = list(islice(self.ledger.expired(day, first), ROWS_PER_RUN))
        for note in notes:
            self._erase(note, day)
        slots = self.ledger.erase_sender_days(day, first, ROWS_PER_RUN - len(notes))
        if len(notes) + slots >= ROWS_PER_RUN:  # the next run begins elsewhere: no mailbox waits for another
            self.ledger.set_erasing_shard((first + 1) % len(SHARDS))

    def _erase(self, note: Expiry, day: str) -> None:
        """Erase a row, unless it was opened since or is erased; wait while its reply is pending."""
        entry = self.ledger.get(note.work_item)
        if entry is None or entry.finished_at is None or entry.erased_at:
            self.ledger.move_expiry(note)
            return
        if f"{entry.finished_at:%Y-%m-%d}" >= day:  # it has a later note
            self.ledger.move_expiry(note)
            return
        reply = entry.tracked_reply
        if reply and entry.reply_settled_at is None:
            tracked = self.ledger.find_tracked_replies(reply.mailbox_id, reply.reply_id)
            if any(other.email_id == entry.email_id for other in tracked):
                self.ledger.move_expiry(note, day)
                return
        drop_copies(entry, self.ledger)
        with suppress(LeaseLostError):  # written just now: the next run looks again
            record_erasure(self.ledger.erase(entry, self.clock(), note), "agent")
