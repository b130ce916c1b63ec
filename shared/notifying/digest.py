"""The digest of a working morning: what became of a mailbox's email since the last one."""

from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from shared.domain import Cause, Outcome, WorkItem
from shared.ledger.entries import APPROVED_STATUSES, FOR_PEOPLE, LedgerEntry, Matter, MatterKind
from shared.ledger.ledger import Ledger
from shared.profiles.business_hours import BusinessHours

SHOWN_CAUSES = 5


@dataclass(frozen=True, slots=True)
class Digest:
    """Counts a mailbox's email from `since` to `until`."""

    ledger: Ledger
    mailbox_id: str
    hours: BusinessHours
    since: datetime
    until: datetime

    def describe(self, matters: Sequence[Matter], pending: Container[WorkItem]) -> tuple[str, ...]:
        """The digest's lines; `pending` has the emails with an undecided reply.

        Raises what the ledger raises.
        """
        rows = [*self._read_finished()]
        waiting = [w.open_since for w in self.ledger.open_work() if w.mailbox_id == self.mailbox_id]
        arrived = [*(row.received_at for row in rows), *waiting]
        came_in = sum(self.since < moment <= self.until for moment in arrived)
        outcomes = Counter(row.outcome for row in rows)
        answered = sum(row.reply_status in APPROVED_STATUSES for row in rows)
        spam = sum(row.cause is Cause.SPAM for row in rows)
        drafts = [m.since for m in matters if m.kind is MatterKind.DRAFT and m.work_item in pending]
        escalations = [m.since for m in self._list_open(matters, MatterKind.ESCALATION)]
        promises = [m.since for m in self._list_open(matters, MatterKind.PROMISE)]
        unanswered = [row for row in rows if row.outcome in FOR_PEOPLE]
        causes = Counter(str(row.cause) for row in unanswered).most_common(SHOWN_CAUSES)
        why = ", ".join(f"{count} {cause}" for cause, count in causes)
        return (
            f"Emails since {self.hours.show(self.since)}: {came_in}. Replies approved: {answered}.",
            f"Drafts pending: {self._show(drafts)}.",
            f"Left to a person: {len(unanswered)}{f' ({why})' if why else ''}.",
            f"Open escalations of all days: {self._show(escalations)}.",
            f"Open promises: {self._show(promises)}.",
            f"Ignored: {outcomes[Outcome.IGNORED]}. Skipped: {outcomes[Outcome.SKIPPED] - spam}. "
            f"Flagged as spam: {spam}. Look through these too: a false verdict is a person who waits.",
            f"In progress: {self._show(waiting)}.",
        )

    def _read_finished(self) -> Iterator[LedgerEntry]:
        """The rows that were finished in the time, each once, as far as they are not erased."""
        after = f"{self.until + timedelta(days=1):%Y-%m-%d}"
        notes = self.ledger.expired(after, since=f"{self.since:%Y-%m-%d}")
        for item in {note.work_item for note in notes if note.mailbox_id == self.mailbox_id}:
            entry = self.ledger.get(item)
            if entry and entry.finished_at and self.since < entry.finished_at <= self.until:
                yield entry

    def _list_open(self, matters: Sequence[Matter], kind: MatterKind) -> Iterator[Matter]:
        """Those of a kind whose rows still say so; the others are closed."""
        for matter in matters:
            if matter.kind is kind:
                entry = self.ledger.get(matter.work_item)
                if entry is not None and matter.is_about(entry):
                    yield matter
                else:
                    self.ledger.matters.close(matter)

    def _show(self, moments: Sequence[datetime]) -> str:
        return f"{len(moments)}, the oldest since {self.hours.show(min(moments))}" if moments else "none"
