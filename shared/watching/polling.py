"""Polling: every inbound email gets its ledger row, and every row that is due gets its work item."""

import logging
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby, islice
from secrets import token_hex

from shared.domain import Cause, EmailSummary, Mailbox, WorkItem, parse_address
from shared.errors import AgentError, ConfigurationError, TransientError
from shared.ledger.entries import LedgerEntry, OpenWork, Watermark
from shared.ledger.ledger import Ledger
from shared.mail.mailboxes import MailboxDirectory, select_mailboxes
from shared.mail.multimail import MultiMailReader
from shared.mail.paging import CrowdedSecondError
from shared.profiles.pauses import Pauses
from shared.profiles.profiles import Profiles
from shared.services.secrets import FindSecret, list_missing_secrets
from shared.services.work_queue import WorkQueue
from shared.settings import Settings
from shared.telemetry import POLL_SUCCEEDED, email_traceparent, in_this_context, record, span
from shared.watching.reading import OVERLAP, Reading
from shared.watching.sweep import Sweep

MAILBOXES_AT_ONCE = 8
ENQUEUED_AT_ONCE = 500
FIRST_READ = (
    "mailbox %r is read for the first time: what it received since %s is handled, what is older is left "
    "alone (INITIAL_LOOKBACK_HOURS=%g)"
)

log = logging.getLogger(__name__)


class Poller:
    """Fills the ledger from MultiMail and enqueues what is due."""

    def __init__(
        self,
        *,
        multimail: MultiMailReader,
        mailboxes: MailboxDirectory,
        ledger: Ledger,
        work_queue: WorkQueue,
        settings: Settings,
        clock: Callable[[], datetime],
        profiles: Profiles,
        pauses: Pauses,
        find_secret: FindSecret,
        new_key: Callable[[], str] = token_hex,
    ) -> None:
        self._multimail = multimail
        self._mailboxes = mailboxes
        self._ledger = ledger
        self._work_queue = work_queue
        self._settings = settings
        self._clock = clock
        self._profiles = profiles
        self._pauses = pauses
        self._find_secret = find_secret
        self._new_key = new_key  # for a digest of each email, see the ledger
        # Rows known to be in the ledger, so that the overlap is not written again at every poll.
        self._remembered: dict[str, set[str]] = {}
        self._sweep = Sweep()
        self.selected: Mapping[str, Mailbox] = {}

    def poll(self) -> None:
        """Enqueue all due work, poll every mailbox, and enqueue what is new.

        Due work comes first: a process that dies while it lists mail, again and again, must get to its
        backlog all the same. One mailbox that fails does not stop the others. When MultiMail does not
        even list its mailboxes, nothing is enqueued: it would only burn attempts.
        Raises ConfigurationError, TransientError or PermanentError, after all that could be done was done.
        """
        problems = self._select_mailboxes()
        selected = list(self.selected.values())
        open_ids: set[WorkItem] = set()
        sweep = _try(lambda: self._enqueue_due(open_ids, problems))
        added: list[OpenWork] = []
        with ThreadPoolExecutor(max_workers=MAILBOXES_AT_ONCE) as pool:
            try_mailbox = in_this_context(self._try_mailbox)
            polled = list(pool.map(lambda mailbox: try_mailbox(mailbox, added, open_ids), selected))
        added.sort(key=lambda work: work.mailbox_id)  # in one order, whichever mailbox answered first
        if sweep is None:  # what is not enqueued now is due at the next poll
            sweep = _try(lambda: self._enqueue(added))
        failures = [error for error in polled if error is not None]
        unwell = failures if sweep is None else [sweep, *failures]
        # So late, because no mail waits for it.
        problems += list_missing_secrets(self._profiles.lookup_secrets, self._find_secret)
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

    def find_first_reads(self) -> Mapping[str, datetime]:
        """From when on the first poll reads each mailbox, by address, that was never polled; polls nothing.

        Raises what MultiMail's client and the ledger raise.
        """
        self._select_mailboxes()
        since = self._first_read_from(self._clock())
        new = (box for box in self.selected.values() if self._ledger.get_watermark(box.id) is None)
        return {mailbox.address: since for mailbox in new}

    def find_paused(self) -> Sequence[str]:
        """The addresses of the selected mailboxes that are paused. Raises what the ledger raises."""
        return [box.address for box in self.selected.values() if self._pauses.holds(box, max_age_seconds=0)]

    def _first_read_from(self, now: datetime) -> datetime:
        return now - timedelta(hours=self._settings.initial_lookback_hours)

    def _select_mailboxes(self) -> list[str]:
        """Find the mailboxes to poll; return a sentence for each that is named and cannot be polled."""
        known = self._mailboxes.read(max_age_seconds=0)
        wanted = self._settings.multimail_mailbox_ids
        self.selected = select_mailboxes(known, wanted)
        problems = self._profiles.find_problems(known.values())
        if not wanted and not self.selected:
            problems.append(
                "The MultiMail account has no active mailbox: create one in MultiMail's dashboard."
            )
        for name in dict.fromkeys(wanted):
            if select_mailboxes(self.selected, [name]):
                continue
            has = ", ".join(
                f"{mailbox.id} ({mailbox.address})" for mailbox in known.values() if mailbox.is_active
            )
            problems.append(
                f"MULTIMAIL_MAILBOX_IDS names {name!r}, which is no active mailbox of the account: "
                f"write the id or address of one of these: {has or 'none'}."
            )
        return problems

    def _enqueue_due(self, open_ids: set[WorkItem], problems: list[str]) -> None:
        """Enqueue what is due of the selected mailboxes' open work, and add what is open to `open_ids`.

        The work of other mailboxes waits until they are named again, that of paused ones until they are
        resumed. That of one that the account does not have adds to the problems: somebody waits there.
        """
        lease = timedelta(seconds=self._settings.lease_seconds)
        works, known = [], self._mailboxes.read()
        left = Counter[str]()
        for work in self._ledger.open_work():
            if work.mailbox_id in self.selected:
                works.append(work)
            elif work.mailbox_id not in known:
                left[work.mailbox_id] += 1
        problems += [
            f"{count} emails of mailbox {mailbox_id!r} are unfinished, and the account of the MultiMail key "
            "does not have it: set MULTIMAIL_API_KEY to a key of its account, or answer them by hand."
            for mailbox_id, count in left.items()
        ]
        open_ids.update(work.work_item for work in works)
        # What waits in a pause has been looked at once; what is new is, too, and then says that it waits.
        waiting = {work.mailbox_id for work in works if work.is_paused}
        held = {id_ for id_ in waiting if self._pauses.holds(self.selected[id_], max_age_seconds=0)}
        free = [work for work in works if not (work.is_paused and work.mailbox_id in held)]
        self._enqueue(self._sweep.choose(free, self._clock(), lease))

    def _try_mailbox(
        self, mailbox: Mailbox, added: list[OpenWork], open_ids: Container[WorkItem]
    ) -> AgentError | None:
        error = _try(lambda: self._poll_mailbox(mailbox, added, open_ids))
        if error is not None:
            log.warning("polling mailbox %r failed: %s", mailbox.id, error)
        return error

    def _poll_mailbox(self, mailbox: Mailbox, added: list[OpenWork], open_ids: Container[WorkItem]) -> None:
        """Add a row for every inbound email, and what is new to `added`.

        The watermark moves only over what was listed whole and is in the ledger.
        """
        now = self._clock()
        stored = self._ledger.get_watermark(mailbox.id)
        first = self._first_read_from(now)
        oldest = now - timedelta(hours=self._settings.max_email_age_hours)
        if stored is None:
            log.info(FIRST_READ, mailbox.id, first, self._settings.initial_lookback_hours)
        watermark = stored.corrected(now, oldest) if stored else None
        watermark = watermark or Watermark(since=first, until=first)
        recent = max(watermark.since, watermark.until - OVERLAP)
        known, reading = self._remembered.get(mailbox.id, set()), Reading(newest=watermark.until)
        # Two, because each alone loses mail: a human may open an email before the poll does (not unread any
        # more), and inbound approval may release one long after it was received.
        list_inbound = partial(self._multimail.list_emails, mailbox.id, direction="inbound")
        unread = list_inbound(status="unread", date_after=max(watermark.since, oldest))
        for listing in (list_inbound(date_after=recent), unread):
            try:
                for summary in listing:
                    # An unread email that has no open row has not been read: if its row is closed, why?
                    is_unread = (
                        summary.status == "unread" and WorkItem(mailbox.id, summary.id) not in open_ids
                    )
                    is_new = summary.id not in reading.ids and (summary.id not in known or is_unread)
                    work = self._add(mailbox.id, summary, now) if is_new else None
                    reading.note(summary, work, now, is_recent=summary.received_at > recent)
            except CrowdedSecondError as error:
                reading.crowded.append(error)
            except AgentError as error:  # what the other listing has is worth having all the same
                reading.failure = error
        added += reading.new
        end, failure = reading.conclude(now)
        # What is no longer listed need not be remembered.
        self._remembered[mailbox.id] = reading.ids if failure is None else reading.ids | known
        moved = Watermark(watermark.since, max(watermark.until, end))
        if moved != stored and (failure is None or isinstance(failure, CrowdedSecondError)):
            self._ledger.set_watermark(mailbox.id, moved)
        if failure is not None:
            raise failure

    def _add(self, mailbox_id: str, summary: EmailSummary, now: datetime) -> OpenWork | None:
        entry = LedgerEntry(
            mailbox_id=mailbox_id,
            email_id=summary.id,
            received_at=summary.received_at,
            sender=parse_address(summary.sender),
            thread_id=summary.thread_id,
            due_at=now,
            digest_key=self._new_key(),
            added_at=self._clock(),  # after a long listing it is much later
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

    def hasten(self, mailbox_id: str, email_id: str) -> bool:
        """Enqueue an email now if its row waits for its release; say whether it does.

        Raises what the ledger and the work queue raise.
        """
        entry = self._ledger.get(WorkItem(mailbox_id, email_id))
        if entry is None or entry.finished_at is not None or entry.lease_until is not None:
            return False
        if entry.waiting_for is not Cause.INBOUND_APPROVAL:
            return False
        work = self._ledger.hasten(entry, self._clock())
        if work is not None:
            self._enqueue([work])
        return work is not None

    def _enqueue(self, works: Sequence[OpenWork]) -> None:
        """Put the work items of these into the queue.

        Marked as enqueued first: the work may be done, and deferred to a moment of its own, before `send`
        returns. What is marked but never reaches the queue is due again when its mark runs out; what others
        changed meanwhile is theirs.
        """
        lease = timedelta(seconds=self._settings.lease_seconds)
        for _, group in groupby(sorted(works, key=_count_sends), key=_count_sends):
            while batch := list(islice(group, ENQUEUED_AT_ONCE)):
                now = self._clock()
                before = {work.work_item: work for work in batch}
                marked = self._ledger.mark_enqueued([work.enqueued(now, lease) for work in batch])
                if not marked:
                    continue
                try:
                    self._work_queue.send([work.work_item for work in marked], marked[0].enqueue_at - now)
                except AgentError:
                    self._ledger.mark_enqueued(
                        [replace(work, enqueue_at=now, sends=before[work.work_item].sends) for work in marked]
                    )
                    raise


def _count_sends(work: OpenWork) -> int:
    return work.sends


def _try(work: Callable[[], None]) -> AgentError | None:
    try:
        work()
    except AgentError as error:
        return error
    return None
