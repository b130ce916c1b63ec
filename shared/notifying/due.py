"""What is to be told now of a mailbox's matters, and to whom."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from shared.domain import Cause, Outcome, Urgency, WorkItem
from shared.ledger.entries import LedgerEntry, Matter, MatterKind, TrackedReply
from shared.ledger.ledger import Ledger
from shared.notifying.messages import Topic
from shared.profiles.business_hours import BusinessHours
from shared.profiles.notify import Notify

READ_AT_ONCE = 200  # rows for one message: more of them are counted, whatever they are about
TOLD = 1
REMINDED = {
    MatterKind.DRAFT: 2,
    MatterKind.PROMISE: 1,
}  # how often people were told of one, with its reminder


@dataclass(frozen=True, slots=True)
class Due:
    """A matter that a target is to be told of; `told` is how often people will have been told by then.

    `entry` is None where there are too many to be read.
    """

    matter: Matter
    topic: Topic
    target: str
    told: int
    entry: LedgerEntry | None = None


@dataclass(frozen=True, slots=True)
class DueFinder:
    """Finds what is due in one mailbox. `pending` has the undecided replies by the email they answer."""

    ledger: Ledger
    notify: Notify
    hours: BusinessHours
    pending: Mapping[WorkItem, TrackedReply]
    now: datetime

    def find(self, matters: Sequence[Matter]) -> list[Due]:
        """What is due; what the row does not say any more is closed. Raises what the ledger raises."""
        live = [m for m in matters if m.kind is not MatterKind.DRAFT or m.work_item in self.pending]
        reminders = [due for matter in live if (due := self._find_reminder(matter)) is not None]
        reminded = {due.matter for due in reminders}
        untold = [m for m in live if not m.told and m.kind is not MatterKind.PROMISE and m not in reminded]
        return [*self._read(reminders), *self._find_untold(untold)]

    def _find_untold(self, untold: Sequence[Matter]) -> Iterator[Due]:
        """What needs a person now; the others once the oldest of them has waited long enough."""
        topics = {MatterKind.DRAFT: Topic.DRAFT, MatterKind.ESCALATION: Topic.ESCALATED}
        first = self.notify.first
        found = [Due(matter, topics[matter.kind], first, TOLD) for matter in untold]
        collected: list[Due] = []
        for due in self._read(found[:READ_AT_ONCE]):
            if due.entry is not None and is_urgent(due.entry):
                yield Due(due.matter, Topic.NOW, first, TOLD, due.entry)
            else:
                collected.append(due)
        rest = found[READ_AT_ONCE:]
        if rest or any(due.matter.since + self.notify.interval <= self.now for due in collected):
            yield from (*collected, *rest)

    def _find_reminder(self, matter: Matter) -> Due | None:
        """The reminder of a draft or a promise: to the first target, after twice as long to the deputy."""
        notify, first_level = self.notify, REMINDED.get(matter.kind)
        if first_level is None:
            return None
        is_draft = matter.kind is MatterKind.DRAFT
        after, topic = (
            (notify.nudge_after, Topic.REMINDER) if is_draft else (notify.promise_after, Topic.PROMISE)
        )
        if matter.told < first_level:
            due = Due(matter, topic, notify.first, first_level)
        elif matter.told == first_level and notify.deputy:
            due, after = Due(matter, topic, notify.deputy, first_level + 1), 2 * after
        else:
            return None
        return due if self._has_passed(matter.since, after) else None

    def _has_passed(self, since: datetime, duration: timedelta) -> bool:
        if since + duration > self.now:  # open time is never longer
            return False
        moment = self.hours.add(since, duration)
        return moment is not None and moment <= self.now

    def _read(self, found: Iterable[Due]) -> Iterator[Due]:
        for due in found:
            entry = self.ledger.get(due.matter.work_item)
            if entry is None or not due.matter.is_about(entry):
                self.ledger.matters.close(due.matter)
            else:
                yield Due(due.matter, due.topic, due.target, due.told, entry)


def is_urgent(entry: LedgerEntry) -> bool:
    """Whether people are told of a finished row at once."""
    if entry.outcome in (Outcome.REPLY_SUBMITTED, None):
        return False
    is_critical = entry.triage is not None and entry.triage.urgency is Urgency.CRITICAL
    return entry.outcome is not Outcome.ESCALATED or is_critical or entry.cause is Cause.REPLY_UNDELIVERED
