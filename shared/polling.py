"""Polling: every inbound email gets its ledger row, and every row that is due gets its work item."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from shared.domain import EmailSummary, Mailbox, parse_address
from shared.errors import AgentError, ConfigurationError, TransientError
from shared.ledger import Ledger, LedgerEntry, Watermark
from shared.mailboxes import MailboxDirectory
from shared.multimail import MultiMailClient
from shared.profiles import NO_PROFILES, Profiles
from shared.settings import Settings
from shared.telemetry import POLL_SUCCEEDED, record
from shared.work_queue import WorkQueue

OVERLAP = timedelta(minutes=10)  # how late an email may show up in the service's listing
MAILBOXES_AT_ONCE = 8
RINGS_AT_ONCE = 500
MAX_REMEMBERED = 200_000

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
        profiles: Profiles = NO_PROFILES,
    ) -> None:
        self._multimail = multimail
        self._mailboxes = mailboxes
        self._ledger = ledger
        self._work_queue = work_queue
        self._settings = settings
        self._clock = clock
        self._profiles = profiles
        # Rows known to be in the ledger, so that the overlap is not written again at every poll.
        self._remembered: set[tuple[str, str]] = set()

    def poll(self) -> None:
        """Poll every mailbox, then ring for all due work; one mailbox that fails does not stop the others.

        When MultiMail does not even list its mailboxes, nothing is rung for: it would only burn attempts.
        Raises ConfigurationError, TransientError or PermanentError, after all that could be done was done.
        """
        selected, problems = self._select_mailboxes()
        with ThreadPoolExecutor(max_workers=MAILBOXES_AT_ONCE) as pool:
            results = list(pool.map(self._try_mailbox, selected))
        self._ring_for_due_work()
        failures = [result for result in results if isinstance(result, AgentError)]
        problems += [p for error in failures if isinstance(error, ConfigurationError) for p in error.problems]
        if problems:
            raise ConfigurationError(list(dict.fromkeys(problems)))
        if failures:
            raise TransientError(
                f"{len(failures)} of {len(selected)} mailboxes could not be polled: {failures[0]}"
            )
        added = sum(result for result in results if isinstance(result, int))
        record(POLL_SUCCEEDED, {"mailboxes": len(selected), "added": added})

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
            f"MULTIMAIL_MAILBOX_IDS names {mailbox_id!r}, which the account does not have: correct it."
            for mailbox_id in wanted
            if mailbox_id not in known
        ]
        return [known[mailbox_id] for mailbox_id in dict.fromkeys(wanted) if mailbox_id in known], problems

    def _try_mailbox(self, mailbox: Mailbox) -> int | AgentError:
        try:
            return self._poll_mailbox(mailbox)
        except AgentError as error:
            log.warning("polling mailbox %r failed: %s", mailbox.id, error)
            return error

    def _poll_mailbox(self, mailbox: Mailbox) -> int:
        """Add a row for every inbound email; say how many were new.

        The watermark moves only when all that was listed is in the ledger.
        """
        now = self._clock()
        stored = self._ledger.get_watermark(mailbox.id)
        start = now - timedelta(hours=self._settings.initial_lookback_hours)
        watermark = stored or Watermark(since=start, until=start)
        newest, failure, added = watermark.until, None, 0
        for listing in self._list_new(mailbox.id, watermark, now):
            try:
                for summary in listing:
                    added += self._add(mailbox.id, summary, now)
                    newest = max(newest, min(summary.received_at, now))
            except AgentError as error:  # what the other listing has is worth having all the same
                failure = error
        if failure is not None:
            raise failure
        moved = Watermark(watermark.since, newest)
        if moved != stored:
            self._ledger.set_watermark(mailbox.id, moved)
        return added

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
        key = (mailbox_id, summary.id)
        if key in self._remembered:
            return False
        entry = LedgerEntry(
            mailbox_id=mailbox_id,
            email_id=summary.id,
            received_at=summary.received_at,
            sender=parse_address(summary.sender),
            thread_id=summary.thread_id,
            due_at=now,
        )
        is_new = self._ledger.add(entry)
        if len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered.add(key)
        return is_new

    def _ring_for_due_work(self) -> None:
        """Put a work item into the queue for every due row.

        Marked as rung first: the work may be done, and deferred to a moment of its own, before `send`
        returns. Whatever is marked but never rung for is rung for when its time comes round again.
        """
        while True:
            now = self._clock()
            items = self._ledger.due(now, RINGS_AT_ONCE)
            if items:
                self._ledger.rung(items, now + timedelta(seconds=self._settings.lease_seconds))
                try:
                    self._work_queue.send(items)
                except AgentError:
                    self._ledger.rung(items, now)
                    raise
            if len(items) < RINGS_AT_ONCE:
                return
