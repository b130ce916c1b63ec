"""Polling: every inbound email gets its ledger row, and every row that is due gets its work item."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from shared.domain import EmailSummary, Mailbox, parse_address
from shared.errors import AgentError, ConfigurationError, TransientError
from shared.ledger.entries import LedgerEntry, OpenWork, Watermark
from shared.ledger.ledger import Ledger
from shared.mail.mailboxes import MailboxDirectory
from shared.mail.multimail import MultiMailClient
from shared.profiles.profiles import Profiles
from shared.queueing.work_queue import WorkQueue
from shared.settings import Settings
from shared.telemetry import POLL_SUCCEEDED, email_traceparent, in_this_context, record, span

OVERLAP = timedelta(minutes=10)  # how late an email may show up in the service's listing
MAILBOXES_AT_ONCE = 8
ENQUEUED_AT_ONCE = 500

log = logging.getLogger(__name__)


class Poller:
    """Fills the ledger from MultiMail and enqueues what is due."""

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
        """Enqueue all due work, poll every mailbox, and enqueue what is new.

        Due work comes first: a process that dies while it lists mail, again and again, must get to its
        backlog all the same. One mailbox that fails does not stop the others. When MultiMail does not
        even list its mailboxes, nothing is enqueued: it would only burn attempts.
        Raises ConfigurationError, TransientError or PermanentError, after all that could be done was done.
        """
        selected, problems = self._select_mailboxes()
        sweep: AgentError | None = None
        try:
            is_last = False
            while not is_last:
                works = self._ledger.due(self._clock(), ENQUEUED_AT_ONCE)
                self._enqueue(works)
                is_last = len(works) < ENQUEUED_AT_ONCE
        except AgentError as error:
            sweep = error
        added: list[OpenWork] = []
        with ThreadPoolExecutor(max_workers=MAILBOXES_AT_ONCE) as pool:
            try_mailbox = in_this_context(self._try_mailbox)
            polled = list(pool.map(lambda mailbox: try_mailbox(mailbox, added), selected))
        added.sort(key=lambda work: work.mailbox_id)  # in one order, whichever mailbox answered first
        if sweep is None:  # what is not enqueued now is due at the next poll
            sweep = _try(lambda: self._enqueue(added))
        failures = [error for error in polled if error is not None]
        unwell = failures if sweep is None else [sweep, *failures]
        problems += [p for error in unwell if isinstance(error, ConfigurationError) for p in error.problems]
        if problems:
            raise ConfigurationError(list(dict.fromkeys(problems)))
        if sweep is not None:
            raise sweep
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

    def _try_mailbox(self, mailbox: Mailbox, added: list[OpenWork]) -> AgentError | None:
        error = _try(lambda: self._poll_mailbox(mailbox, added))
        if error is not None:
            log.warning("polling mailbox %r failed: %s", mailbox.id, error)
        return error

    def _poll_mailbox(self, mailbox: Mailbox, added: list[OpenWork]) -> None:
        """Add a row for every inbound email, and what is new to `added`.

        The watermark moves only when all that was listed is in the ledger.
        """
        now = self._clock()
        stored = self._ledger.get_watermark(mailbox.id)
        start = now - timedelta(hours=self._settings.initial_lookback_hours)
        watermark = stored or Watermark(since=start, until=start)
        newest, failure = watermark.until, None
        known, listed = self._remembered.get(mailbox.id, set()), set[str]()
        # Two listings, because each alone loses mail: a human may open an email before the poll does
        # (not unread any more), and inbound approval may release one long after it was received.
        recent = max(watermark.since, watermark.until - OVERLAP)
        oldest = max(watermark.since, now - timedelta(hours=self._settings.max_email_age_hours))
        listings = (
            self._multimail.list_emails(mailbox.id, direction="inbound", date_after=recent),
            self._multimail.list_emails(mailbox.id, direction="inbound", status="unread", date_after=oldest),
        )
        for listing in listings:
            try:
                for summary in listing:
                    is_known = summary.id in known or summary.id in listed
                    work = None if is_known else self._add(mailbox.id, summary, now)
                    if work is not None:
                        added.append(work)
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

    def _add(self, mailbox_id: str, summary: EmailSummary, now: datetime) -> OpenWork | None:
        entry = LedgerEntry(
            mailbox_id=mailbox_id,
            email_id=summary.id,
            received_at=summary.received_at,
            sender=parse_address(summary.sender),
            thread_id=summary.thread_id,
            due_at=now,
        )
        with span("add email", parent=email_traceparent(mailbox_id, summary.id)) as current:
            work = self._ledger.add(entry)
            current.set_attribute("agent.is_new", work is not None)
        return work

    def add_now(self, mailbox_id: str, summary: EmailSummary) -> bool:
        """Add a row for an email that was heard of between polls and enqueue it; say whether it was new.

        Raises what the ledger and the work queue raise; a later poll enqueues what this did not.
        """
        work = self._add(mailbox_id, summary, self._clock())
        if work is not None:
            self._enqueue([work])
        return work is not None

    def _enqueue(self, works: Sequence[OpenWork]) -> None:
        """Put the work items of these into the queue.

        Marked as enqueued first: the work may be done, and deferred to a moment of its own, before `send`
        returns. What is marked but never reaches the queue is due again when its mark runs out; what others
        changed meanwhile is theirs.
        """
        for start in range(0, len(works), ENQUEUED_AT_ONCE):
            batch, now = works[start : start + ENQUEUED_AT_ONCE], self._clock()
            until = now + timedelta(seconds=self._settings.lease_seconds)
            marked = self._ledger.mark_enqueued(batch, until)
            try:
                self._work_queue.send([work.work_item for work in marked])
            except AgentError:
                self._ledger.mark_enqueued(marked, now)
                raise


def _try(work: Callable[[], None]) -> AgentError | None:
    try:
        work()
    except AgentError as error:
        return error
    return None
