"""`python -m local forget`: a person's pending replies are cancelled, and the ledger forgets the person."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from rich.console import Console
from rich.text import Text

from local.host.run import (
    MISCONFIGURED,
    OK,
    UNFINISHED,
    read_settings,
    report_misconfigured,
    report_trail,
)
from shared.checks.contacts import find_addresses
from shared.composition import open_ledger, open_multimail, open_trail, open_writer
from shared.domain import Cause, Outcome, base_address, parse_address
from shared.errors import (
    ConfigurationError,
    LeaseLostError,
    NotFoundError,
    PermanentError,
    TransientError,
)
from shared.ledger.entries import PENDING_APPROVAL, UNSENT_STATUSES, LedgerEntry
from shared.ledger.ledger import Ledger
from shared.ledger.rows import to_row
from shared.ledger.sqlite_store import LedgerInUseError
from shared.mail.mailboxes import MailboxDirectory
from shared.mail.multimail import MultiMailClient, MultiMailReader
from shared.replying.reporting import build_tags, record_erasure, write_tags
from shared.replying.same_email import drop_copies
from shared.replying.submission import Outgoing, Submitter, withdraw_reply
from shared.replying.threads import PENDING_STATUSES
from shared.watching.tracking import CANCELLED, TURNED_DOWN, derive_status

# So long a worker may go on to submit, and MultiMail's listing may lack what was submitted.
SETTLES_WITHIN = timedelta(minutes=15)
TRIES = 3  # at a row that an agent writes at the same moment

OBSERVED_ONLY = (
    "With OBSERVE_ONLY=true only what was observed is erased, and nothing is changed at MultiMail. Run "
    "forget again with OBSERVE_ONLY=false: it cancels pending replies and erases the working agent's ledger."
)
ELSEWHERE = (
    "Mail of that address that the agent has not read yet is handled as usual: delete it at MultiMail first. "
    "What this command cannot reach: MultiMail still holds the person's emails, the replies to them, "
    "their tags (agent.*) and the address book: delete them there. The model's provider may hold the texts "
    "of calls for some time: see the terms of your model deployment. docs/privacy.md lists both."
)


def forget(console: Console, address: str) -> int:
    """Cancel an address' pending replies, then erase it in the ledger; return the exit status."""
    wanted = parse_address(address)
    if not wanted:
        console.print("forget needs one email address: write it as name@host.")
        return MISCONFIGURED
    try:
        settings = read_settings("forget")
        multimail, ledger = open_multimail(settings), open_ledger(settings)
        with closing(ledger), open_trail(settings, ledger) as trail:
            writer = open_writer(settings)
            forgetting = Forgetting(multimail, writer, ledger, wanted, lambda: datetime.now(UTC))
            forgetting.run()
    except LedgerInUseError as error:
        console.print("An agent runs on this ledger. Stop it, then run forget again.")
        return report_misconfigured(console, error)
    except ConfigurationError as error:
        return report_misconfigured(console, error)
    except (PermanentError, TransientError) as error:
        text = f"Forget failed before its end: {error}. Run it again; what is done stays done."
        console.print(Text(text, "red"))
        return UNFINISHED
    for line in forgetting.describe():
        console.print(Text(line))
    return report_trail(console, trail, UNFINISHED if forgetting.unfinished else OK)


@dataclass(slots=True)
class Forgetting:
    """Forgets one address, with its subaddresses (`ann+orders@host` for `ann@host`).

    Rows are closed first: from then on no worker begins to submit. What one had begun before is looked for.
    Without a `writer` nothing is cancelled or tagged: what is pending is named.
    """

    multimail: MultiMailReader
    writer: MultiMailClient | None
    ledger: Ledger
    address: str
    clock: Callable[[], datetime]
    erased: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    not_cancelled: list[str] = field(default_factory=list)
    unanswered: set[str] = field(default_factory=set)
    unfinished: list[str] = field(default_factory=list)
    mentioned: list[str] = field(default_factory=list)
    with_others: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Close, cancel, erase. Raises what MultiMail's client and the ledger raise."""
        found = []
        for entry in self.ledger.entries():
            if self._is_theirs(entry.sender):
                found.append(entry)
            elif any(map(self._is_theirs, find_addresses(" ".join(map(str, to_row(entry).values()))))):
                self.mentioned.append(entry.email_id)
        for step in (self._close, self._cancel):
            found = [entry for entry in map(step, found) if entry is not None]
        self._cancel_others()
        for step in (self._uncover, self._erase):
            found = [entry for entry in map(step, found) if entry is not None]
        self.ledger.erase_sender(self._is_theirs)

    def describe(self) -> Iterable[str]:
        """What was done, and what was not."""
        yield f"Erased in the ledger: {len(self.erased)} emails."
        if not self.erased:
            yield "The ledger has no email of that address that is not erased yet: check how it is written."
        yield f"Cancelled: {len(self.cancelled)} pending replies."
        for reply_id in self.not_cancelled:
            yield f"Reply {reply_id} could not be cancelled: it was no longer pending at MultiMail."
        for reply_id in self.with_others:
            yield f"Email {reply_id} waits for approval and goes to others too: decide on it at MultiMail."
        yield from self.unfinished
        if self.writer is None:
            yield OBSERVED_ONLY
        if self.mentioned:
            yield (
                "The address occurs, in a draft or in copy, in what the ledger has about "
                f"{len(self.mentioned)} emails of other people ({', '.join(self.mentioned)}): "
                "it erases those after RETENTION_DAYS."
            )
        yield ELSEWHERE

    def _is_theirs(self, sender: str) -> bool:
        return self.address in (sender, base_address(sender))

    def _close(self, entry: LedgerEntry) -> LedgerEntry | None:
        """Close an open row for a person, but for one whose reply is submitted and only lacks its tags."""
        for _ in range(TRIES):
            now = self.clock()
            if entry.finished_at is not None:
                return entry
            closed = replace(entry, finished_at=now, waiting_for=None, waiting_detail="")
            if entry.outcome is not Outcome.REPLY_SUBMITTED:
                closed = self._leave_to_a_person(replace(closed, depends_on=None))
            try:
                closed = self.ledger.finish(closed)
            except LeaseLostError:
                entry = self.ledger.get(entry.work_item) or entry
                continue
            if entry.lease_until is not None and entry.lease_until > now:
                self.unfinished.append(
                    f"Email {entry.email_id} was being worked on, which may leave a counter with the "
                    f"address: run forget again after {entry.lease_until:%H:%M} UTC."
                )
            return closed
        self.unfinished.append(f"Email {entry.email_id} is written by an agent now: run forget again.")
        return None

    def _leave_to_a_person(self, entry: LedgerEntry) -> LedgerEntry:
        """Tag the email without the model's words, before the row says so: it is seen in any case."""
        left = replace(entry, outcome=Outcome.NEEDS_HUMAN, cause=Cause.ERASED, detail="")
        if self.writer is None or left.is_observed:
            return left
        try:
            tags = build_tags(left.erased(self.clock()))
            write_tags(self.writer, entry.mailbox_id, entry.email_id, tags)
        except PermanentError as error:
            self.unfinished.append(f"Email {entry.email_id} could not be tagged: {error}.")
        return left

    def _cancel(self, entry: LedgerEntry) -> LedgerEntry | None:
        """Cancel the row's reply, or one that may be on its way, unless its end is known."""
        if entry.erased_at is not None or entry.intent_in_doubt is None:
            return entry
        reply_id = entry.reply_id or self._find_reply(entry)
        if reply_id is None:
            if self.clock() - entry.intent_in_doubt >= SETTLES_WITHIN:
                return entry
            self.unfinished.append(
                f"Email {entry.email_id}: a reply may just have been submitted. It is closed, not erased: "
                f"run forget again in {SETTLES_WITHIN.total_seconds() / 60:.0f} minutes."
            )
            return None
        status = self._withdraw(entry.mailbox_id, reply_id)
        if status in PENDING_STATUSES:
            self._note_pending(reply_id, status)
            return None
        if status not in UNSENT_STATUSES:
            self.not_cancelled.append(reply_id)
            return replace(entry, reply_id=reply_id)
        self.unanswered.add(reply_id)
        now = self.clock()
        settled = replace(entry, reply_id=reply_id, reply_status=status, reply_settled_at=now)
        if status in TURNED_DOWN and reply_id not in self.cancelled:  # by a reviewer
            settled = replace(settled, reply_decided_at=now)
        return self._save(self._leave_to_a_person(settled))

    def _cancel_others(self) -> None:
        """Cancel what waits to go to the person alone, from any author; name what goes to others too."""
        for mailbox in MailboxDirectory(self.multimail).read().values():
            waiting = self.multimail.list_emails(mailbox.id, direction="outbound", status=PENDING_APPROVAL)
            for email in waiting:
                theirs = [self._is_theirs(parse_address(to)) for to in email.to]
                if not any(theirs) or email.id in self.cancelled:
                    continue
                if not all(theirs):
                    self.with_others.append(email.id)
                    continue
                status = self._withdraw(mailbox.id, email.id)
                if status in UNSENT_STATUSES:
                    self.unanswered.add(email.id)
                elif status in PENDING_STATUSES:
                    self._note_pending(email.id, status)

    def _note_pending(self, reply_id: str, status: str) -> None:
        self.unfinished.append(
            f"Reply {reply_id} could not be cancelled yet (it is {status}): run forget again."
        )

    def _withdraw(self, mailbox_id: str, reply_id: str) -> str:
        """Cancel the reply if it is pending; return the word for where it stands then."""
        try:
            if self.writer is not None and withdraw_reply(self.writer, mailbox_id, reply_id):
                self.cancelled.append(reply_id)
                return CANCELLED
            return derive_status(self.multimail.get_email(mailbox_id, reply_id))
        except NotFoundError:
            return "gone"

    def _uncover(self, entry: LedgerEntry) -> LedgerEntry | None:
        """Leave an email to a person when the reply that was to answer it too reaches nobody."""
        is_uncovered = entry.erased_at is None and entry.depends_on in self.unanswered
        return self._save(self._leave_to_a_person(entry)) if is_uncovered else entry

    def _save(self, entry: LedgerEntry) -> LedgerEntry | None:
        try:
            return self.ledger.save(entry)
        except LeaseLostError:
            self.unfinished.append(f"Email {entry.email_id} is written by an agent now: run forget again.")
            return None

    def _find_reply(self, entry: LedgerEntry) -> str | None:
        """The reply that MultiMail may have accepted without our knowing."""
        if entry.draft is None or entry.intent_in_doubt is None:
            return None
        outgoing = Outgoing(
            mailbox_id=entry.mailbox_id,
            recipient=entry.sender,
            markdown=entry.draft.reply_markdown,
            idempotency_key=entry.draft.idempotency_key,
            answered_id=entry.email_id,
            other_replies={said.reply_id for said in entry.rejections} | set(self.cancelled),
        )
        with ThreadPoolExecutor(1) as executor:
            directory = MailboxDirectory(self.multimail)
            submitter = Submitter(
                self.multimail, self.writer, directory, executor, self.clock, allow_ungated=False
            )
            found = submitter.find(outgoing, entry.intent_in_doubt)
        return found.id if found is not None else None

    def _erase(self, entry: LedgerEntry) -> LedgerEntry | None:
        if entry.erased_at is not None:
            return None
        drop_copies(entry, self.ledger)
        # What left or may leave stays tracked, by ids alone: the trust report counts it.
        reply_ids = {entry.reply_id, entry.depends_on} - {None, *self.not_cancelled}
        notes = [
            note
            for reply_id in reply_ids
            for note in self.ledger.find_tracked_replies(entry.mailbox_id, reply_id or "")
            if note.email_id == entry.email_id
        ]
        try:
            erased = self.ledger.erase(entry, self.clock(), *notes)
        except LeaseLostError:
            self.unfinished.append(f"Email {entry.email_id} is written by an agent now: run forget again.")
            return None
        record_erasure(erased, "operator")
        self.erased.append(entry.email_id)
        return entry
