"""What is to be told now of a mailbox's matters, and to whom."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from shared.domain import Cause, Outcome, Urgency
from shared.errors import AgentError
from shared.ledger.entries import PENDING_APPROVAL, LedgerEntry, Mark, Matter, MatterKind
from shared.ledger.ledger import Ledger
from shared.mail.multimail import CLOCK_MARGIN, MultiMailReader
from shared.notifying.messages import Topic
from shared.profiles.business_hours import BusinessHours
from shared.profiles.notify import Notify

READ_AT_ONCE = 200  # rows for one message: more of them are counted, whatever they are about
COLLECTED = {MatterKind.DRAFT: Topic.DRAFT, MatterKind.ESCALATION: Topic.ESCALATED}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Due:
    """A matter that a target is to be told of, with what is then noted.

    `entry` is None where there are too many to be read.
    """

    matter: Matter
    topic: Topic
    target: str
    mark: Mark
    entry: LedgerEntry | None = None


@dataclass(frozen=True, slots=True)
class DueFinder:
    """Finds what is due in one mailbox. What one target was told of, or not, changes nothing for another."""

    multimail: MultiMailReader
    ledger: Ledger
    mailbox_id: str
    notify: Notify
    hours: BusinessHours
    now: datetime

    def find(self, matters: Sequence[Matter]) -> list[Due]:
        """What is due; what the row does not say any more is closed. Raises what the ledger raises."""
        reminders = [due for matter in matters for due in self._find_reminders(matter)]
        reminded = {due.matter for due in reminders if due.mark is Mark.REMINDED}
        untold = [
            matter
            for matter in matters
            if matter.kind in COLLECTED and matter not in reminded and not {*matter.told} - {Mark.DEPUTY}
        ]
        due = self._hold_back([*self._read(reminders), *self._find_untold(untold)])
        return self._hold_back(self._drop_decided(due))  # a decided draft makes nothing else due

    def _find_untold(self, untold: Sequence[Matter]) -> Iterator[Due]:
        """What nobody was told of; what needs a person now has a topic of its own."""
        first = self.notify.first
        found = [Due(matter, COLLECTED[matter.kind], first, Mark.NEW) for matter in untold]
        for due in self._read(found[:READ_AT_ONCE]):
            is_now = due.entry is not None and is_urgent(due.entry)
            yield Due(due.matter, Topic.NOW if is_now else due.topic, first, Mark.NEW, due.entry)
        yield from found[READ_AT_ONCE:]

    def _hold_back(self, due: Sequence[Due]) -> list[Due]:
        """Without what is collected, until the oldest of it has waited long enough."""
        collected = [one for one in due if one.topic in COLLECTED.values()]
        is_over = any(
            one.entry is None or one.matter.since + self.notify.interval <= self.now for one in collected
        )
        return [one for one in due if is_over or one.topic not in COLLECTED.values()]

    def _find_reminders(self, matter: Matter) -> Iterator[Due]:
        """The reminders of a draft or a promise: to the first target, after twice as long to the deputy."""
        notify = self.notify
        kinds = {
            MatterKind.DRAFT: (Topic.REMINDER, notify.nudge_after),
            MatterKind.PROMISE: (Topic.PROMISE, notify.promise_after),
        }
        if matter.kind not in kinds:
            return
        topic, after = kinds[matter.kind]
        steps = ((notify.first, Mark.REMINDED, after), (notify.deputy, Mark.DEPUTY, 2 * after))
        for target, mark, passed in steps:
            if target and mark not in matter.told and self._has_passed(matter.since, passed):
                yield Due(matter, topic, target, mark)

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
                yield Due(due.matter, due.topic, due.target, due.mark, entry)

    def _drop_decided(self, due: Sequence[Due]) -> Sequence[Due]:
        """Without the drafts that are decided, which the tracker may learn half an hour later.

        When MultiMail cannot say so, the tracker's word holds.
        """
        drafts = [one.entry for one in due if one.entry is not None and one.matter.kind is MatterKind.DRAFT]
        if not drafts:
            return due
        since = min(entry.submit_intent_at or entry.open_since for entry in drafts) - CLOCK_MARGIN
        try:
            listed = self.multimail.list_emails(
                self.mailbox_id, direction="outbound", status=PENDING_APPROVAL, date_after=since
            )
            undecided = {summary.id for summary in listed}
        except AgentError as error:
            log.warning("pending replies of mailbox %s could not be listed: %s", self.mailbox_id, error)
            return due
        return [
            one
            for one in due
            if one.matter.kind is not MatterKind.DRAFT or one.entry is None or one.entry.reply_id in undecided
        ]


def is_urgent(entry: LedgerEntry) -> bool:
    """Whether people are told of a finished row at once."""
    if entry.outcome in (Outcome.REPLY_SUBMITTED, None):
        return False
    is_critical = entry.triage is not None and entry.triage.urgency is Urgency.CRITICAL
    return entry.outcome is not Outcome.ESCALATED or is_critical or entry.cause is Cause.REPLY_UNDELIVERED
