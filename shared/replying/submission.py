"""Submission: the one place where a reply leaves for approval, exactly once and never past the gate.

A draft has its idempotency key from the start. MultiMail remembers a key for 24 hours; we rely on 23.

| what is stored                 | what may have happened      | what is done                          |
| ------------------------------ | --------------------------- | ------------------------------------- |
| a draft, no intent             | nothing was sent            | slots, intent, thread, gate, POST     |
| ... and somebody answered      | nothing was sent            | the intent is taken back; skipped     |
| ... and the gate refuses       | nothing was sent            | the intent is taken back; refused     |
| ... and 404, 429 or a bad key  | nothing was sent            | the intent is taken back; tried later |
| ... and the POST is refused    | MultiMail may have it (409) | look for it; not found: a human       |
| an intent under 23 hours       | the POST may have arrived   | thread, gate, the same bytes and key  |
| ... and somebody answered      | the POST may have arrived   | look for it and withdraw it; skipped  |
| ... and the gate refuses now   | the POST may have arrived   | look for it; not found: refused       |
| an intent of 23 hours and over | the key is forgotten        | look for it; not found: a human       |
| a reply id                     | it was accepted             | read back who gets it; tags           |

Between the gate (mode and allowlist, read for this POST) and the POST lies nothing. The reply is read back
because the contract does not say to whom the service sends a reply: one with other recipients is withdrawn.
So is one with looked-up facts whose mailbox has got copies since, or lets replies out without approval.
An operator's question submits through the same `Submitter`, with its intent in memory: it asks once more at
once, and reports what stays unclear.
"""

import logging
from collections.abc import Callable, Collection
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from shared.checks.gate import find_facts_refusal, find_mode_refusal, find_recipient_refusal
from shared.domain import Cause, Decision, Draft, Mailbox, Outcome, SubmittedReply, parse_address
from shared.errors import (
    AgentError,
    ConfigurationError,
    ConflictError,
    NotFoundError,
    PermanentError,
    ThrottledError,
)
from shared.mail.mailboxes import MailboxDirectory
from shared.mail.multimail import CLOCK_MARGIN, MultiMailClient, MultiMailReader
from shared.replying.claim import SLOT_TAKEN_SECONDS, Claim, Waiting
from shared.replying.limits import Limits
from shared.replying.threads import (
    ThreadView,
    find_closing_answer,
    find_stale_replies,
    read_thread,
    thread_scope,
)
from shared.telemetry import REPLY_WITHDRAWN, in_this_context, record

SAME_KEY_FOR = timedelta(hours=23)  # MultiMail forgets an idempotency key after 24 h
WITHDRAWN = "it was withdrawn"

log = logging.getLogger(__name__)

StoreIntent = Callable[[datetime | None], None]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One email to submit: at every try the same bytes under the same key.

    `answered_id` is the email that it replies to; None for a new email, which has a `subject`. A look for it
    takes only outbound emails of `thread_id` or among `thread_emails`, where the thread is known, and none of
    `other_replies`. `facts_about`: the addresses of the customers about whom it may hold looked-up facts.
    """

    mailbox_id: str
    recipient: str
    markdown: str
    idempotency_key: str
    answered_id: str | None
    subject: str = ""
    cc: tuple[str, ...] = ()
    thread_id: str | None = None
    thread_emails: Collection[str] = ()
    other_replies: Collection[str] = ()
    facts_about: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Submitter:
    """Submits through the gate. `submit` and `resume` return what MultiMail accepted, or why it did not.

    Without a `writer` nothing is submitted: `submit` says what the gate would have.
    """

    multimail: MultiMailReader
    writer: MultiMailClient | None
    mailboxes: MailboxDirectory
    executor: Executor
    clock: Callable[[], datetime]
    allow_ungated: bool

    def submit(
        self,
        outgoing: Outgoing,
        store_intent: StoreIntent,
        find_answered: Callable[[], Decision | None] = lambda: None,
    ) -> SubmittedReply | Decision:
        """Submit for the first time. `store_intent` keeps the moment, or takes it back with None.

        `find_answered` says whether somebody answered while the text was written. Raises what MultiMail's
        client raises; the intent is kept when the POST may have arrived.
        """
        if self.writer is None:
            observed = Decision(Outcome.WOULD_REPLY, Cause.OBSERVED)
            return find_answered() or self.find_refusal(outgoing) or observed
        store_intent(self.clock())
        try:
            refusal = find_answered() or self.find_refusal(outgoing)
        except AgentError:
            store_intent(None)
            raise
        if refusal is not None:
            store_intent(None)
            return refusal
        try:
            return self._post(outgoing)
        except (ConfigurationError, NotFoundError, ThrottledError):  # not now: MultiMail took nothing
            store_intent(None)
            raise
        except PermanentError as error:
            log.warning("mailbox %r: a reply is refused: %s", outgoing.mailbox_id, error)
            in_doubt = isinstance(error, ConflictError)
            cause = Cause.REPLY_UNCONFIRMED if in_doubt else Cause.REPLY_REFUSED
            return self.find(outgoing, self.clock()) or Decision(Outcome.NEEDS_HUMAN, cause, error.reason)

    def resume(self, outgoing: Outgoing, intent_at: datetime) -> SubmittedReply | Decision:
        """Go on after a submission whose answer never arrived. Raises what MultiMail's client raises.

        Whatever became of the first try, MultiMail names the one reply for its key, as long as it knows it.
        """
        unconfirmed = Decision(Outcome.NEEDS_HUMAN, Cause.REPLY_UNCONFIRMED, "its key is over 23 hours old")
        if self.clock() - intent_at >= SAME_KEY_FOR:
            return self.find(outgoing, intent_at) or unconfirmed
        refusal = self.find_refusal(outgoing)
        if refusal is not None:
            return self.find(outgoing, intent_at) or refusal
        try:
            return self._post(outgoing)
        except NotFoundError:
            raise  # a reading like any other: looked at again before a person is asked
        except PermanentError as error:
            log.warning("mailbox %r: a reply is refused: %s", outgoing.mailbox_id, error)
            unconfirmed = Decision(Outcome.NEEDS_HUMAN, Cause.REPLY_UNCONFIRMED, error.reason)
            return self.find(outgoing, intent_at) or unconfirmed

    def find(self, outgoing: Outgoing, since: datetime) -> SubmittedReply | None:
        """Look among the outbound emails since then for the one with our text, whatever the service added.

        Raises what MultiMail's client raises; NotFoundError for a listed email that
        cannot be read: it may be ours.
        """
        text = " ".join(outgoing.markdown.split())
        for summary in self.multimail.list_emails(
            outgoing.mailbox_id, direction="outbound", date_after=since - CLOCK_MARGIN
        ):
            in_thread = (
                outgoing.thread_id in (None, summary.thread_id) or summary.id in outgoing.thread_emails
            )
            to_recipient = outgoing.recipient in {parse_address(to) for to in summary.to}
            if not (in_thread and to_recipient) or summary.id in outgoing.other_replies:
                continue
            sent = self.multimail.get_email(outgoing.mailbox_id, summary.id)  # listed: a 404 is no answer
            if text in " ".join(sent.markdown.split()):
                return SubmittedReply(sent.id, sent.status, already_sent=True)
        return None

    def find_refusal(self, outgoing: Outgoing) -> Decision | None:
        """The gate: mode and allowlist as they are now, for a person may have changed either a second ago.

        Read again if the key was renewed meanwhile: that takes so long that the first reading may be old.
        """
        key_id = self.multimail.find_key_id()
        refusal = self._read_gate(outgoing)
        is_old = refusal is None and self.multimail.find_key_id() != key_id
        return self._read_gate(outgoing) if is_old else refusal

    def _read_gate(self, outgoing: Outgoing) -> Decision | None:
        read_allowlist = in_this_context(self.multimail.get_allowlist)
        allowlist = self.executor.submit(read_allowlist, outgoing.mailbox_id)
        mailbox = self.mailboxes.get(outgoing.mailbox_id, max_age_seconds=0)
        recipients, ungated = (outgoing.recipient, *outgoing.cc), self.allow_ungated
        return (
            find_mode_refusal(mailbox, allow_ungated=ungated, observes=self.writer is None)
            or find_recipient_refusal(recipients, allowlist.result(), allow_ungated=ungated)
            or _refuse_facts(outgoing, mailbox)
        )

    def find_withdrawal_cause(self, outgoing: Outgoing, reply: SubmittedReply) -> Decision | None:
        """Read the accepted reply back, and withdraw it where it goes to others than it should; say why.

        The mailbox's own automatic copies may be there, unless it holds looked-up facts: then the mailbox's
        mode and copies are read once more, for the service does not show blind copies. Raises what
        MultiMail's client raises.
        """
        found = self._read_back(outgoing, reply)
        if found is None:
            return None
        is_withdrawn = self.withdraw(outgoing.mailbox_id, reply.id)
        end = WITHDRAWN if is_withdrawn else "it could not be withdrawn any more"
        return replace(found, detail="; ".join(filter(None, (found.detail, end))), reply_id=reply.id)

    def _read_back(self, outgoing: Outgoing, reply: SubmittedReply) -> Decision | None:
        sent = self.multimail.get_email(outgoing.mailbox_id, reply.id)
        automatic = () if outgoing.facts_about else self.mailboxes.get(outgoing.mailbox_id).copies
        copies = {parse_address(copy) for copy in automatic}
        main = [parse_address(to) for to in sent.to]
        others = {parse_address(copy) for copy in (*sent.cc, *sent.bcc)}
        if main != [outgoing.recipient] or not others <= copies.union(outgoing.cc):
            return Decision(Outcome.ESCALATED, Cause.RECIPIENTS_DIFFER)
        if not outgoing.facts_about:
            return None
        return _refuse_facts(outgoing, self.mailboxes.get(outgoing.mailbox_id, max_age_seconds=0))

    def withdraw(self, mailbox_id: str, reply_id: str) -> bool:
        """As `withdraw_reply` does."""
        return withdraw_reply(self._get_writer(), mailbox_id, reply_id)

    def _post(self, outgoing: Outgoing) -> SubmittedReply:
        mailbox_id, markdown, key = outgoing.mailbox_id, outgoing.markdown, outgoing.idempotency_key
        if outgoing.answered_id is not None:
            return self._get_writer().submit_reply(
                mailbox_id, outgoing.answered_id, markdown, key, outgoing.cc
            )
        return self._get_writer().send_email(mailbox_id, outgoing.recipient, outgoing.subject, markdown, key)

    def _get_writer(self) -> MultiMailClient:
        if self.writer is None:
            raise PermanentError("the agent only observes: it has nothing that writes")
        return self.writer


@dataclass(frozen=True, slots=True)
class ReplySubmission:
    """The submission of one row's draft."""

    submitter: Submitter
    claim: Claim

    def find_early_refusal(self, thread: ThreadView, limits: Limits, mailbox: Mailbox) -> Decision | None:
        """Say what forbids a reply already, before a draft is paid for; `submit` reads it all again."""
        refusal = limits.find_refusal(thread, self.claim.ledger.slots(limits.name_sender_scope(thread)))
        ungated, observes = self.submitter.allow_ungated, self.submitter.writer is None
        return refusal or find_mode_refusal(mailbox, allow_ungated=ungated, observes=observes)

    def submit(self, thread: ThreadView, limits: Limits) -> Decision:
        """Submit the draft for the first time, in a slot of its thread and one of its sender's day.

        A slot can be taken only if nobody took one since it was read that there is room: of two emails in one
        thread the second reads again, and finds what the first one's reply covers. Raises Waiting then.
        """
        entry, ledger = self.claim.entry, self.claim.ledger
        sender_scope = limits.name_sender_scope(thread)
        day_slots = ledger.slots(sender_scope)
        refusal = limits.find_refusal(thread, day_slots)
        if refusal is not None:
            return refusal
        scopes = [(thread_scope(entry), thread.slots), (sender_scope, day_slots)]
        if not all(ledger.take_slot(scope, entry.email_id, seen) for scope, seen in scopes if scope):
            raise Waiting(Cause.SLOT_TAKEN, seconds=SLOT_TAKEN_SECONDS)
        outgoing = self._build_outgoing(thread)
        result = self.submitter.submit(
            outgoing,
            lambda moment: self.claim.save(submit_intent_at=moment),
            lambda: find_closing_answer(self.claim.entry, self._read_thread()),
        )
        return self._end(outgoing, result, thread)

    def settle(self, intent_at: datetime) -> Decision:
        """End a submission whose answer never arrived. It is not repeated if somebody answered meanwhile."""
        thread = self._read_thread()
        outgoing = self._build_outgoing(thread)
        if find_closing_answer(self.claim.entry, thread) is None:
            return self._end(outgoing, self.submitter.resume(outgoing, intent_at), thread)
        found = self.submitter.find(outgoing, intent_at)  # the answer in the thread may be our own
        others = [email for email in thread.emails if found is None or email.id != found.id]
        answered = find_closing_answer(self.claim.entry, replace(thread, emails=others))
        if found is not None and (
            answered is None or not self.submitter.withdraw(self._mailbox_id, found.id)
        ):
            return self._end(outgoing, found, thread)
        return answered or Decision(Outcome.NEEDS_HUMAN, Cause.REPLY_UNCONFIRMED, "its thread changed")

    def find(self, intent_at: datetime) -> Decision | None:
        """The decision for a reply that MultiMail has after all; None when it cannot be found."""
        thread = self._read_thread()
        outgoing = self._build_outgoing(thread)
        found = self.submitter.find(outgoing, intent_at)
        return None if found is None else self._end(outgoing, found, thread)

    def _build_outgoing(self, thread: ThreadView) -> Outgoing:
        entry = self.claim.entry
        # A new email is in no thread that could tell whose it is.
        tracked = self.claim.ledger.tracked_replies() if self._draft.subject else ()
        return Outgoing(
            mailbox_id=entry.mailbox_id,
            recipient=entry.sender,
            markdown=self._draft.reply_markdown,
            idempotency_key=self._draft.idempotency_key,
            answered_id=None if self._draft.subject else entry.email_id,
            subject=self._draft.subject,
            cc=self._draft.cc,
            thread_id=None if self._draft.subject else entry.thread_id,
            thread_emails={email.id for email in thread.emails},
            # The replies of other rows, and all that were rejected, even if they say the same.
            other_replies={
                *thread.own_replies,
                *thread.rejected_replies,
                *(rejection.reply_id for rejection in entry.rejections),
                *(reply.reply_id for reply in tracked if reply.email_id != entry.email_id),
            },
            facts_about={note.address for note in self._draft.looked_up},
        )

    @property
    def _draft(self) -> Draft:
        if self.claim.entry.draft is None:
            raise PermanentError("its row has an intent to submit but no draft")
        return self.claim.entry.draft

    @property
    def _mailbox_id(self) -> str:
        return self.claim.entry.mailbox_id

    def _read_thread(self) -> ThreadView:
        return read_thread(self.claim.entry, self.submitter.multimail, self.claim.ledger)

    def _end(self, outgoing: Outgoing, result: SubmittedReply | Decision, thread: ThreadView) -> Decision:
        """Read an accepted reply back; then withdraw the pending ones whose emails it answers too."""
        if isinstance(result, Decision):
            return result
        self.claim.note(reply_id=result.id)  # whatever comes now, this reply is ours
        found = self.submitter.find_withdrawal_cause(outgoing, result)
        if found is not None:
            if found.detail.endswith(WITHDRAWN):
                self.claim.note(reply_status="cancelled", reply_settled_at=self.submitter.clock())
            return found
        try:
            for reply_id in find_stale_replies(
                self.claim.entry.sender, thread.emails, thread.own_replies, self._draft.covers
            ):
                self.submitter.withdraw(self._mailbox_id, reply_id)
        except PermanentError as error:
            if isinstance(error, NotFoundError):  # one reading: looked at again
                raise
            log.warning("after reply %r of mailbox %r: %s", result.id, self._mailbox_id, error)
        cause = Cause.OPEN_POINTS if self._draft.open_points else Cause.TRIAGED
        return Decision(Outcome.REPLY_SUBMITTED, cause, reply_id=result.id)


def _refuse_facts(outgoing: Outgoing, mailbox: Mailbox) -> Decision | None:
    recipients = (outgoing.recipient, *outgoing.cc)
    found = (find_facts_refusal(mailbox, recipients, customer) for customer in outgoing.facts_about)
    return next(filter(None, found), None)


def withdraw_reply(multimail: MultiMailClient, mailbox_id: str, reply_id: str) -> bool:
    """Cancel a pending reply; say whether it was still pending. Raises what MultiMail's client raises."""
    try:
        multimail.cancel_email(mailbox_id, reply_id)
    except ConflictError:
        log.info("reply %r of mailbox %r was no longer pending", reply_id, mailbox_id)
        return False
    record(REPLY_WITHDRAWN, {"mailbox_id": mailbox_id, "reply_id": reply_id, "actor": "agent"})
    return True
