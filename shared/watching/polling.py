"""Polling: every inbound email gets its ledger row, and every row that is due gets its work item."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from shared.domain import EmailSummary, Mailbox, WorkItem, parse_address
from shared.errors import AgentError, ConfigurationError, TransientError
from shared.ledger.entries import Ledger, LedgerEntry, Watermark
from shared.mail.mailboxes import MailboxDirectory
from shared.mail.multimail import MultiMailClient
from shared.profiles.profiles import Profiles
from shared.queueing.work_queue import WorkQueue
from shared.settings import Settings
from shared.telemetry import POLL_SUCCEEDED, email_traceparent, in_this_context, record, span

OVERLAP = timedelta(minutes=10)  # how late an email may show up in the service's listing
MAILBOXES_AT_ONCE = 8
RINGS_AT_ONCE = 500

log = logging.getLogger(__name__)


class Poller:
    """Fills the ledger from MultiMail and rings for what is due."""

    def __init__(
        self,
        *,
        multimail: MultiMailClient,
        mailboxes: MailboxDirectory,
        ledger: Ledger,
        work_queue: WorkQueue,
        settings: Settings,
        clock: Callable[[], datetime],
        profiles: Profiles,
    ) -> None:
        self._multimail = multimail
        self._mailboxes = mailboxes
        self._ledger = ledger
        self._work_queue = work_queue
        self._settings = settings
        self._clock = clock
        self._profiles = profiles
        # Rows known to be in the ledger, so that the overlap is not written again at every poll.
        self._remembered: dict[str, set[str]] = {}

    def poll(self) -> None:
        """Ring for all due work, poll every mailbox, and ring for what is new.

        Due work comes first: a process that dies while it lists mail, again and again, must get to its
        backlog all the same. One mailbox that fails does not stop the others. When MultiMail does not
        even list its mailboxes, nothing is rung for: it would only burn attempts.
        Raises ConfigurationError, TransientError or PermanentError, after all that could be done was done.
        """
        selected, problems = self._select_mailboxes()
        ringing = _try(self._ring_for_due_work)
        added: list[WorkItem] = []
        with ThreadPoolExecutor(max_workers=MAILBOXES_AT_ONCE) as pool:
            try_mailbox = in_this_context(self._try_mailbox)
            polled = list(pool.map(lambda mailbox: try_mailbox(mailbox, added), selected))
        added.sort(key=lambda item: item.mailbox_id)  # in one order, whichever mailbox answered first
        if ringing is None:  # whoever was not rung for now is due at the next poll
            ringing = _try(lambda: self._ring(added))
        failures = [error for error in polled if error is not None]
        unwell = failures if ringing is None else [ringing, *failures]
        problems += [p for error in unwell if isinstance(error, ConfigurationError) for p in error.problems]
        if problems:
            raise ConfigurationError(list(dict.fromkeys(problems)))
        if ringing is not None:
            raise ringing
        if failures:
            raise TransientError(
                f"{len(failures)} of {len(selected)} mailboxes could not be polled: {failures[0]}"
            )
        record(POLL_SUCCEEDED, {"mailboxes": len(selected), "added": len(added)})

    def _select_mailboxes(self) -> tuple[list[Mailbox], list[str]]:
        """The mailboxes to poll, and a sentence for each named one that the account does not have."""
        known = self._mailboxes.read(max_age_seconds=0)
        problems = self._profiles.find_problems(known.values())
        wanted = self._settings.multimail_mailbox_ids
        if not wanted:
            active = [mailbox for mailbox in known.values() if mailbox.is_active]
            nothing = "The MultiMail account has no active mailbox: create one in MultiMail's dashboard."
            return active, problems if active else [*problems, nothing]
        problems += [
            f"MULTIMAIL_MAILBOX_IDS names {mailbox_id!r}, which the account does not have: write mailbox ids."
            for mailbox_id in wanted
            if mailbox_id not in known
        ]
        return [known[mailbox_id] for mailbox_id in dict.fromkeys(wanted) if mailbox_id in known], problems

    def _try_mailbox(self, mailbox: Mailbox, added: list[WorkItem]) -> AgentError | None:
        error = _try(lambda: self._poll_mailbox(mailbox, added))
        if error is not None:
            log.warning("polling mailbox %r failed: %s", mailbox.id, error)
        return error

    def _poll_mailbox(self, mailbox: Mailbox, added: list[WorkItem]) -> None:
        """Add a row for every inbound email, and what is new to `added`.

        The watermark moves only when all that was listed is in the ledger.
        """
        now = self._clock()
        stored = self._ledger.get_watermark(mailbox.id)
        start = now - timedelta(hours=self._settings.initial_lookback_hours)
        watermark = stored or Watermark(since=start, until=start)
        newest, failure = watermark.until, None
        known, listed = self._remembered.get(mailbox.id, set()), set[str]()
        for listing in self._list_new(mailbox.id, watermark, now):
            try:
                for summary in listing:
                    is_known = summary.id in known or summary.id in listed
                    if not is_known and self._add(mailbox.id, summary, now):
                        added.append(WorkItem(mailbox.id, summary.id))
                    listed.add(summary.id)
                    newest = max(newest, min(summary.received_at, now))
            except AgentError as error:  # what the other listing has is worth having all the same
                failure = error
        # What is no longer listed need not be remembered.
        self._remembered[mailbox.id] = listed if failure is None else listed | known
        if failure is not None:
            raise failure
        moved = Watermark(watermark.since, newest)
        if moved != stored:
            self._ledger.set_watermark(mailbox.id, moved)

    def _list_new(
        self, mailbox_id: str, watermark: Watermark, now: datetime
    ) -> tuple[Iterator[EmailSummary], Iterator[EmailSummary]]:
        """Two listings, because each alone loses mail: a human may open an email before the poll does
        (not unread any more), and inbound approval may release one long after it was received.
        """
        oldest = max(watermark.since, now - timedelta(hours=self._settings.max_email_age_hours))
        return (
            self._multimail.list_emails(
                mailbox_id, direction="inbound", date_after=max(watermark.since, watermark.until - OVERLAP)
            ),
            self._multimail.list_emails(mailbox_id, direction="inbound", status="unread", date_after=oldest),
        )

    def _add(self, mailbox_id: str, summary: EmailSummary, now: datetime) -> bool:
        entry = LedgerEntry(
            mailbox_id=mailbox_id,
            email_id=summary.id,
            received_at=summary.received_at,
            sender=parse_address(summary.sender),
            thread_id=summary.thread_id,
            due_at=now,
        )
        with span("add email", parent=email_traceparent(mailbox_id, summary.id)) as current:
            is_new = self._ledger.add(entry)
            current.set_attribute("agent.is_new", is_new)
        return is_new

    def add_now(self, mailbox_id: str, summary: EmailSummary) -> bool:
        """Add a row for an email that was heard of between polls and ring for it; say whether it was new.

        Raises what the ledger and the work queue raise; a later poll rings for what this left unrung.
        """
        is_new = self._add(mailbox_id, summary, self._clock())
        if is_new:
            self._ring([WorkItem(mailbox_id, summary.id)])
        return is_new

    def _ring_for_due_work(self) -> None:
        """Put a work item into the queue for every due row."""
        while True:
            items = self._ledger.due(self._clock(), RINGS_AT_ONCE)
            self._ring(items)
            if len(items) < RINGS_AT_ONCE:
                return

    def _ring(self, items: Sequence[WorkItem]) -> None:
        """Put these work items into the queue.

        Marked as rung first: the work may be done, and deferred to a moment of its own, before `send`
        returns. Whatever is marked but never rung for is rung for when its time comes round again.
        """
        for start in range(0, len(items), RINGS_AT_ONCE):
            batch, now = items[start : start + RINGS_AT_ONCE], self._clock()
            self._ledger.rung(batch, now + timedelta(seconds=self._settings.lease_seconds))
            try:
                self._work_queue.send(batch)
            except AgentError:
                self._ledger.rung(batch, now)
                raise


def _try(work: Callable[[], None]) -> AgentError | None:
    try:
        work()
    except AgentError as error:
        return error
    return None
