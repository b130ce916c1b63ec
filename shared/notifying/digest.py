"""The digest of a working morning: what became of a mailbox's email since the last one."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from shared.domain import Cause, Outcome
from shared.ledger.entries import APPROVED_STATUSES, FOR_PEOPLE, LedgerEntry, Matter, MatterKind, OpenWork
from shared.ledger.keys import AFTER
from shared.ledger.ledger import Ledger
from shared.profiles.business_hours import BusinessHours

SHOWN_CAUSES = 5
# By then what an instance noted with its time is in the ledger, however their clocks differ.
WRITTEN_AFTER = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Digest:
    """Counts a mailbox's email from `since` to `until`, by when the agent heard of it, finished it, or saw
    its reply approved: what is learned late is counted by the next digest, and nothing by two.
    """

    ledger: Ledger
    mailbox_id: str
    hours: BusinessHours
    since: datetime
    until: datetime

    def describe(self, matters: Sequence[Matter]) -> tuple[str, ...]:
        """The digest's lines. Raises what the ledger raises."""
        # Open work first: what is finished in between is among the rows, and counted once.
        works = [work for work in self.ledger.open_work() if work.mailbox_id == self.mailbox_id]
        rows = [*self._read_rows()]
        known: list[OpenWork | LedgerEntry] = [*works, *rows]
        added = {one.work_item: one.added_at for one in known}
        came_in = sum(map(self._covers, added.values()))
        answered = sum(
            row.reply_status in APPROVED_STATUSES and self._covers(row.approval_seen_at) for row in rows
        )
        finished = [row for row in rows if self._covers(row.finished_at)]
        outcomes = Counter(row.outcome for row in finished)
        spam = sum(row.cause is Cause.SPAM for row in finished)
        waiting = [work.open_since for work in works]
        drafts = [m.since for m in self._list_open(matters, MatterKind.DRAFT)]
        escalations = [m.since for m in self._list_open(matters, MatterKind.ESCALATION)]
        promises = [m.since for m in self._list_open(matters, MatterKind.PROMISE)]
        unanswered = [row for row in finished if row.outcome in FOR_PEOPLE]
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

    def _covers(self, moment: datetime | None) -> bool:
        return moment is not None and self.since < moment + WRITTEN_AFTER <= self.until

    def _read_rows(self) -> Iterator[LedgerEntry]:
        """The rows that have a note of the time or of later, each once."""
        notes = self.ledger.expired(AFTER, since=f"{self.since - WRITTEN_AFTER:%Y-%m-%d}")
        for item in {note.work_item for note in notes if note.mailbox_id == self.mailbox_id}:
            if entry := self.ledger.get(item):
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
