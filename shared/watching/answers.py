"""What people have seen to: an escalation or a promise is closed once a person has written in its thread."""

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from shared.domain import EmailSummary, WorkItem, parse_address
from shared.errors import AgentError, DeferredError, raise_together
from shared.ledger.entries import LedgerEntry, Matter, MatterKind
from shared.ledger.ledger import Ledger
from shared.ledger.matters import ANSWERS
from shared.mail.mailboxes import MailboxDirectory
from shared.mail.multimail import CLOCK_MARGIN, MultiMailReader
from shared.replying.threads import (
    PENDING_STATUSES,
    WRITTEN_WITHIN,
    is_answer_of,
    is_unsent,
    thread_scope,
)

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Written:
    """What left a mailbox, by thread; `waiting_since` has when what still waits for approval was written."""

    by_thread: defaultdict[str | None, list[EmailSummary]] = field(default_factory=lambda: defaultdict(list))
    waiting_since: list[datetime] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class AnswerWatch:
    """Closes the matters that nobody has to see to any more.

    It costs one listing for each mailbox that has an open escalation or promise, and reads a row only where
    something was written in its thread. `days`: how long a matter stays, as long as its row has texts.
    """

    multimail: MultiMailReader
    mailboxes: MailboxDirectory
    ledger: Ledger
    days: int
    clock: Callable[[], datetime]

    def run(self) -> None:
        """Close what is seen to; one mailbox that fails does not stop the others.

        Raises ConfigurationError or TransientError, after everything that could be done was done.
        """
        by_mailbox: defaultdict[str, list[Matter]] = defaultdict(list)
        oldest = self.clock() - timedelta(days=self.days)
        for matter in list(self.ledger.matters.list()):
            if matter.since <= oldest:
                self.ledger.matters.close(matter)
            elif matter.kind is not MatterKind.DRAFT and matter.thread_id is not None:
                by_mailbox[matter.mailbox_id].append(matter)
        known = self.mailboxes.read() if by_mailbox else {}
        ours = frozenset(_host(mailbox.address) for mailbox in known.values())
        failures: list[AgentError] = []
        for mailbox_id in by_mailbox.keys() & known.keys():
            try:
                self._close_answered(mailbox_id, by_mailbox[mailbox_id], ours)
            except DeferredError as error:
                log.info("the answers of mailbox %s have to wait: %s", mailbox_id, error)
            except AgentError as error:
                log.warning("the answers of mailbox %s could not be listed: %s", mailbox_id, error)
                failures.append(error)
        raise_together(failures, f"answers of {len(failures)} mailboxes were not listed")

    def _close_answered(self, mailbox_id: str, matters: Sequence[Matter], ours: frozenset[str]) -> None:
        """Look at what was written since the last time, or since what was noted meanwhile can be answered."""
        now, looked = self.clock(), self.ledger.matters.get_moment(mailbox_id, ANSWERS)
        looked = looked and min(looked, now)  # if a clock was ahead
        begin = min(_list_from(matter, looked) for matter in matters)
        begin = max(begin, now - timedelta(days=self.days))  # what a service says of a time may be anything
        written = _Written()
        listed = self.multimail.list_emails(mailbox_id, direction="outbound", date_after=begin - CLOCK_MARGIN)
        for summary in listed:
            if summary.status not in PENDING_STATUSES and not is_unsent(summary):
                written.by_thread[summary.thread_id].append(summary)
            elif not is_unsent(summary) and not self.ledger.find_tracked_replies(mailbox_id, summary.id):
                written.waiting_since.append(summary.received_at)  # a person's
        for matter in matters:
            self._close_if_answered(matter, written.by_thread.get(matter.thread_id, ()), ours)
        # What waits for approval is listed again: it may leave, and is then listed by when it was written.
        self.ledger.matters.set_moment(mailbox_id, ANSWERS, min([now, *written.waiting_since]))

    def _close_if_answered(
        self, matter: Matter, emails: Sequence[EmailSummary], ours: frozenset[str]
    ) -> None:
        entry = self.ledger.get(matter.work_item) if emails else None
        if entry is None:
            return
        # Who wrote to somebody else, or before the email can have been read, has not answered it.
        read_by = entry.received_at + WRITTEN_WITHIN
        since = matter.since if matter.kind is MatterKind.PROMISE else read_by
        replies = self._list_own_replies(entry)
        # Where no sender is known, it may be anybody outside our own domains.
        answers = (
            [email for email in emails if is_answer_of(entry, email)]
            if entry.sender
            else [email for email in emails if not {_host(to) for to in email.to} <= ours]
        )
        if any(email.received_at >= since and email.id not in replies for email in answers):
            self.ledger.matters.settle(matter, "person")

    def _list_own_replies(self, entry: LedgerEntry) -> set[str]:
        """The ids of the thread's emails that the agent wrote."""
        scope = thread_scope(entry)
        holders = self.ledger.slots(scope) if scope else ()
        rows = [self.ledger.get(WorkItem(entry.mailbox_id, holder)) for holder in {*holders, entry.email_id}]
        replies = {row.reply_id for row in rows if row is not None and row.reply_id is not None}
        return replies | {said.reply_id for row in rows if row is not None for said in row.rejections}


def _host(address: str) -> str:
    return parse_address(address).rpartition("@")[2]


def _list_from(matter: Matter, looked: datetime | None) -> datetime:
    """From when on an answer to it is not listed yet: people may write before it is noted."""
    begin = matter.since if matter.kind is MatterKind.PROMISE else matter.received_at
    if looked is None or matter.noted_at > looked - CLOCK_MARGIN:
        return begin
    return max(begin, looked)
