"""How one email is handled: read, guard, triage, draft, check, submit, tag; each stored before the next."""

import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache, cached_property

from shared.attachments.reading import AttachmentReader
from shared.domain import Action, Cause, Contact, Decision, Email, Mailbox, Outcome, WorkItem, parse_address
from shared.errors import (
    ConfigurationError,
    ContentFilteredError,
    LeaseLostError,
    NotFoundError,
    PermanentError,
    ThoughtTooLongError,
    TransientError,
)
from shared.knowledge.lookups import LookUps
from shared.knowledge.passages import KnowledgeSource
from shared.ledger.entries import LedgerEntry
from shared.ledger.ledger import Ledger
from shared.mail.mailboxes import MailboxDirectory, select_mailboxes
from shared.mail.multimail import MultiMailClient, MultiMailReader
from shared.model.chat import ChatCompletion, ChatRequest
from shared.model.thinking import ThoughtWatch
from shared.profiles.pauses import Pauses
from shared.profiles.profiles import MailboxProfile, Profiles
from shared.replying.claim import Claim, Waiting
from shared.replying.deferral import Deferral
from shared.replying.draft_request import Material, wants_proposal
from shared.replying.drafting import (
    JudgedDraft,
    bound_texts,
    find_contact,
    find_facts_obstacle,
    judge_edit,
    start_lookups,
    write_draft,
)
from shared.replying.envelope import Addressing, Envelope
from shared.replying.limits import Limits
from shared.replying.reporting import record_decision, tag_emails
from shared.replying.same_email import compute_fingerprint, find_copy, reopen_copies
from shared.replying.submission import ReplySubmission, Submitter
from shared.replying.threads import (
    PENDING_INBOUND,
    ReadTexts,
    ThreadView,
    guard_thread,
    read_texts,
    start_reading,
)
from shared.replying.triage import triage_email
from shared.services.health import ServiceHealth
from shared.settings import Settings
from shared.telemetry import Value, email_traceparent, in_this_context, span

INBOUND_APPROVAL_SECONDS = 900.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Everything that handling an email needs. `random` returns 0 <= x < 1."""

    multimail: MultiMailReader
    mailboxes: MailboxDirectory
    complete: Callable[[ChatRequest], ChatCompletion]
    ledger: Ledger
    settings: Settings
    clock: Callable[[], datetime]
    random: Callable[[], float]
    profiles: Profiles
    knowledge: KnowledgeSource
    lookups: LookUps
    submitter: Submitter
    addressing: Addressing
    health: ServiceHealth
    pauses: Pauses
    attachments: AttachmentReader
    thoughts: ThoughtWatch = field(default_factory=ThoughtWatch)

    def process(self, item: WorkItem) -> None:
        """Take one email as far as it can go now, from wherever its row says it is.

        Work that has to wait is deferred in the ledger and returns normally. Raises
        ConfigurationError, after deferring, and TransientError when the ledger itself is out of reach.
        """
        now = self.clock()
        entry = self.ledger.claim(item, now, now + timedelta(seconds=self.settings.lease_seconds))
        if entry is None:
            log.info("email %r of mailbox %r: no work now", item.email_id, item.mailbox_id)
            return
        ids: dict[str, Value] = {"agent.mailbox_id": item.mailbox_id, "agent.email_id": item.email_id}
        try:
            with span("process email", ids, parent=email_traceparent(item.mailbox_id, item.email_id)):
                _EmailRun(self, Claim(self.ledger, entry)).run()
        except LeaseLostError:
            log.warning("email %r of mailbox %r: another worker took over", item.email_id, item.mailbox_id)


class _EmailRun:
    """One worker's run at one email."""

    def __init__(self, pipeline: Pipeline, claim: Claim) -> None:
        self.pipeline = pipeline
        self.claim = claim
        self.multimail = pipeline.multimail
        self.clock = pipeline.clock

    def run(self) -> None:
        misconfigured = None
        try:
            if self.claim.entry.outcome is None:
                wanted = self.pipeline.settings.multimail_mailbox_ids
                self.claim.check_mailbox(self._mailbox, wanted, self.pipeline.pauses, self.clock())
                self.claim.note_observed(is_observed=self._profile.observe)
                self.claim.decide(self._reach_decision())
            self._tag()
        except (ConfigurationError, PermanentError, TransientError) as error:
            run = self.pipeline
            deferral = Deferral(
                self.claim, self._submission, self._writer, run.settings, run.health, self.clock, run.random
            )
            misconfigured = error if isinstance(error, ConfigurationError) else None
            if not deferral.handle(error, self._tag):
                if misconfigured is not None:
                    raise
                return
        reopen_copies(self.claim.entry, self.pipeline.ledger, self.clock())
        self.claim.finish(self.clock())
        record_decision(self.claim.entry, self.clock(), self.multimail.find_key_id())
        if misconfigured is not None:  # the email has its end; the setting is wrong all the same
            raise misconfigured

    def _reach_decision(self) -> Decision:
        entry, email = self.claim.entry, None
        crashed = self.claim.find_crash(self.pipeline.settings.max_attempts)
        if crashed is not None:
            return crashed
        try:
            if entry.intent_in_doubt is not None:
                return self._submission.settle(entry.intent_in_doubt)
            finish_reading = start_reading(
                entry, self.multimail, self.pipeline.ledger, self.pipeline.submitter.executor
            )
            email = self.multimail.get_email(entry.mailbox_id, entry.email_id)
            return self._walk(email, finish_reading)
        except NotFoundError as error:
            self._confirm_missing(str(error))
            if self.claim.entry.intent_in_doubt is not None:
                raise
            if email is None:
                return Decision(Outcome.SKIPPED, Cause.DELETED)
            log.warning("email %r: a part of its thread is missing: %s", entry.email_id, error)
            return Decision(Outcome.ESCALATED, Cause.THREAD_MISSING)

    def _confirm_missing(self, what: str) -> None:
        """As the claim does; ConfigurationError when it is the mailbox that the account does not have."""
        self.pipeline.mailboxes.get(self.claim.entry.mailbox_id, max_age_seconds=0)
        self.claim.confirm_missing(what, self.clock())

    def _walk(self, email: Email, finish_reading: Callable[[LedgerEntry], ThreadView]) -> Decision:
        """Each step returns the decision that ends the work here, or None to go on."""
        if email.status == PENDING_INBOUND:
            raise Waiting(Cause.INBOUND_APPROVAL, seconds=INBOUND_APPROVAL_SECONDS)
        if self.claim.entry.waiting_for is Cause.INBOUND_APPROVAL:
            self.claim.note(released_at=self.clock())
        own_addresses = {parse_address(own.address) for own in self.pipeline.mailboxes.read().values()}
        envelope = Envelope.read(email, self._mailbox, own_addresses, self._profile, self.pipeline.addressing)
        # A form's emails may be one thread: those are not one conversation.
        thread_id = None if envelope.is_form else email.thread_id or self.claim.entry.thread_id
        self.claim.note(sender=envelope.sender, thread_id=thread_id, received_at=email.received_at)
        if envelope.decision is not None:
            return envelope.decision
        thread = finish_reading(self.claim.entry)
        if thread.busy_until is not None:
            raise self.claim.wait_for_thread(thread.busy_until, self.clock())
        try:
            return guard_thread(self.claim.entry, thread) or self._answer(email, envelope, thread)
        except ContentFilteredError as error:
            fired = ", ".join(error.categories) or "unnamed"
            return Decision(Outcome.BLOCKED_CONTENT_SAFETY, Cause.CONTENT_FILTER, fired)
        except ThoughtTooLongError as error:
            return Decision(Outcome.ESCALATED, Cause.THOUGHT_TOO_LONG, str(error))

    def _answer(self, email: Email, envelope: Envelope, thread: ThreadView) -> Decision:
        refusal = self._limits.find_flood() or self._limits.find_used_share() or self._find_copy(email)
        if refusal is not None:
            return refusal
        entry, executor = self.claim.entry, self.pipeline.submitter.executor
        envelope = envelope.in_thread(email, thread, self._profile)
        files, images = self.pipeline.attachments, self._profile.images
        texts = cache(lambda: read_texts(entry, email, thread, files, executor, images=images))
        refusal = self._triage(email, envelope, texts)
        if refusal is None:  # only now: a person is told what it is about
            refusal = self._submission.find_early_refusal(thread, self._limits, self._mailbox)
        if refusal is not None:
            self._propose(refusal, email, envelope, texts)
            return refusal
        return self._draft(email, envelope, texts) or self._submission.submit(thread, self._limits)

    @property
    def _limits(self) -> Limits:
        return Limits(self.claim.entry, self.pipeline.ledger, self._settings, self.clock())

    def _find_copy(self, email: Email) -> Decision | None:
        if not self.claim.entry.fingerprint:  # stored before any copy can come to name this row
            self.claim.save(fingerprint=compute_fingerprint(self.claim.entry.sender, email))
        wanted = self.pipeline.settings.multimail_mailbox_ids
        watched = select_mailboxes(self.pipeline.mailboxes.read(), wanted).values()
        return find_copy(self.claim.entry, email, watched, self.pipeline.ledger, self.multimail.get_email)

    # Triage and draft

    def _triage(self, email: Email, envelope: Envelope, texts: ReadTexts) -> Decision | None:
        if self.claim.entry.edit is None:  # a reviewer's own text asks no model
            self._limits.check_budget()
        triage = self.claim.entry.triage
        if triage is None:
            triage = triage_email(
                email,
                self._complete,
                deployment=self.pipeline.settings.triage_deployment,
                min_confidence=self._settings.min_confidence,
                sender=self.claim.entry.sender,
                profile=self._profile,
                titles=self.pipeline.knowledge.list_titles(self._open_profile(envelope).folders),
                # What triage says stands in tags and the trail.
                thread=[text for text in texts() if not (text.is_ours and text.looked_up)],
            )
            self.claim.save(triage=triage)
        outcome = {Action.ESCALATE: Outcome.ESCALATED, Action.IGNORE: Outcome.IGNORED}.get(triage.action)
        return None if outcome is None else Decision(outcome, triage.cause, triage.detail)

    def _propose(self, refusal: Decision, email: Email, envelope: Envelope, texts: ReadTexts) -> None:
        """Write a draft for the person who answers what is escalated, where the knowledge has the answer."""
        entry = self.claim.entry
        if not wants_proposal(entry, refusal):
            return
        try:
            judged = self._write_draft(email, replace(envelope, is_proposal=True), texts)
        except ContentFilteredError:  # a security signal
            raise
        except (ConfigurationError, PermanentError, TransientError) as error:  # nobody need wait for it
            log.info("email %r gets no proposed answer: %s", entry.email_id, type(error).__name__)
        else:
            self.claim.note(proposal=judged.proposal if isinstance(judged, JudgedDraft) else None)

    def _draft(self, email: Email, envelope: Envelope, texts: ReadTexts) -> Decision | None:
        """Write, judge and store a draft; what may not be submitted is kept as a proposal."""
        if self.claim.entry.draft is not None:
            return None
        judged = self._write_draft(email, envelope, texts)
        if isinstance(judged, Decision):
            return judged
        form = Decision(Outcome.ESCALATED, Cause.CONTACT_FORM) if envelope.is_proposal else None
        refusal = judged.refusal or form
        if refusal is None:
            self.claim.save(draft=judged.draft)
        else:
            self.claim.note(proposal=judged.proposal)
        return refusal

    def _write_draft(self, email: Email, envelope: Envelope, texts: ReadTexts) -> JudgedDraft | Decision:
        entry, profile, settings = self.claim.entry, self._open_profile(envelope), self._settings
        contact = self._contact  # all three are read at the same time
        finish_lookups = start_lookups(
            self.pipeline.lookups, profile, self._mailbox, entry, envelope=envelope, email=email
        )
        query = entry.triage.query.text if entry.triage is not None else ""
        material = Material(
            mailbox_address=self._mailbox.address,
            profile=profile,
            knowledge=self.pipeline.knowledge.read(
                profile.folders, query or f"{email.subject}\n{email.markdown}", settings.knowledge_tokens
            ),
            facts=finish_lookups(),
            contact=contact.result(),
            now=profile.describe_now(self.clock()),
            thread=bound_texts(
                texts(), email.id, with_facts=not find_facts_obstacle(self._mailbox, entry, envelope)
            ),
            answered_id=email.id,
            rejections=[said for said in entry.rejections if said.reason and not said.is_edit],
        )
        if entry.edit is not None:
            return judge_edit(entry.edit, material, entry, envelope)
        return write_draft(material, entry, envelope, settings, self._complete)

    def _complete(self, request: ChatRequest) -> ChatCompletion:
        """A completion whose tokens are counted for the email, and against the mailbox's budget."""
        completion = self.pipeline.complete(request)
        entry, used, day = self.claim.entry, completion.usage, f"{self.clock():%Y-%m-%d}"
        self.claim.note(usage=entry.usage + used)
        self.pipeline.ledger.add_tokens(entry.mailbox_id, day, used.tokens, entry.base_sender)
        return self.pipeline.thoughts.check(request, completion)

    # Submission and the end

    def _tag(self) -> None:
        entry = self.claim.entry
        try:
            tag_emails(self._writer, entry, self._profile)
        except NotFoundError as error:
            if entry.cause is not Cause.DELETED:
                self._confirm_missing(str(error))
            log.info("what is gone has no tags: %s", error)

    @property
    def _writer(self) -> MultiMailClient | None:
        """What changes things at MultiMail; None where the email is only observed."""
        return None if self.claim.entry.is_observed else self.pipeline.submitter.writer

    @property
    def _submission(self) -> ReplySubmission:
        return ReplySubmission(replace(self.pipeline.submitter, writer=self._writer), self.claim)

    @property
    def _mailbox(self) -> Mailbox:
        return self.pipeline.mailboxes.get(self.claim.entry.mailbox_id)

    @cached_property
    def _profile(self) -> MailboxProfile:
        return self.pipeline.profiles.get(self._mailbox)

    @cached_property
    def _contact(self) -> Future[Contact | None]:
        """The sender's entry in the address book: asked for once, and waited for where it is needed."""
        submit = self.pipeline.submitter.executor.submit
        return submit(in_this_context(find_contact), self.multimail, self.claim.entry.sender)

    def _open_profile(self, envelope: Envelope) -> MailboxProfile:
        """The profile without what is for contacts with other tags, or would go to others with a copy."""
        has_copies = bool(envelope.reaches_others or self._mailbox.copies)
        contact = self._contact.result() if self._profile.asks_for_tags and not has_copies else None
        return self._profile.opened_for(contact.tags if contact is not None else ())

    @cached_property
    def _settings(self) -> Settings:
        """The settings, with the limits that this mailbox's profile has of its own."""
        return self._profile.override(self.pipeline.settings)
