"""How one email is handled: read, guard, triage, draft, check, submit, tag; each stored before the next."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from shared.domain import (
    Action,
    Cause,
    Decision,
    Draft,
    Email,
    Outcome,
    WorkItem,
    build_idempotency_key,
    parse_address,
)
from shared.errors import (
    ConfigurationError,
    ContentFilteredError,
    LeaseLostError,
    NotFoundError,
    PermanentError,
    TransientError,
)
from shared.knowledge.passages import KnowledgeSource
from shared.ledger.ledger import Ledger
from shared.mail.draft_checks import find_failed_checks
from shared.mail.mailboxes import MailboxDirectory
from shared.mail.multimail import MultiMailClient
from shared.model.chat import ChatCompletion, ChatRequest
from shared.model.prompting import text_version
from shared.profiles.profiles import MailboxProfile, Profiles
from shared.replying.claim import Claim, Waiting
from shared.replying.deferral import Deferral
from shared.replying.drafting import (
    MAX_CONTEXT_EMAILS,
    MAX_PASSAGES,
    ThreadText,
    build_draft_instructions,
    build_shown_texts,
    draft_reply,
    sign_reply,
)
from shared.replying.gate import find_mode_refusal
from shared.replying.guardrails import find_skip
from shared.replying.limits import find_flood, find_limit, is_too_old, name_sender_scope
from shared.replying.reporting import describe_decision, write_tags
from shared.replying.submission import ReplySubmission, Submitter
from shared.replying.threads import (
    UNSENT_CAUSES,
    ThreadView,
    find_closing_answer,
    find_unsent_cover,
    read_thread,
    select_context,
)
from shared.replying.triage import triage_email
from shared.settings import Settings
from shared.telemetry import EMAIL_DECIDED, TOKEN_BUDGET_REACHED, Value, email_traceparent, record, span

# A 404 is one reading: what is looked for this long, at growing intervals, and never found is gone.
MISSING_FOR = timedelta(hours=1)

# How long to wait, in seconds, for what is not a failure.
INBOUND_APPROVAL_SECONDS = 900.0
TOKEN_BUDGET_SECONDS = 3600.0
BUSY_THREAD_SECONDS = 2.0
BUSY_AGAIN_SECONDS = 30.0  # then its worker has died, or waits itself
NOT_SHOWN_YET_SECONDS = 30.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Everything that handling an email needs. `random` returns 0 <= x < 1."""

    multimail: MultiMailClient
    mailboxes: MailboxDirectory
    complete: Callable[[ChatRequest], ChatCompletion]
    ledger: Ledger
    settings: Settings
    clock: Callable[[], datetime]
    random: Callable[[], float]
    profiles: Profiles
    knowledge: KnowledgeSource
    submitter: Submitter

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


class _EmailMissing(Exception):
    """The email itself is answered with 404."""


class _EmailRun:
    """One worker's run at one email."""

    def __init__(self, pipeline: Pipeline, claim: Claim) -> None:
        self.pipeline = pipeline
        self.claim = claim
        self.multimail = pipeline.multimail
        self.clock = pipeline.clock
        self.missing_since: datetime | None = None

    def run(self) -> None:
        self.missing_since = self.claim.entry.missing_since
        self.claim.note(missing_since=None)  # unless it is missing still
        try:
            if self.claim.entry.outcome is None:
                self.claim.decide(self._reach_decision())
            self._tag()
        except (ConfigurationError, PermanentError, TransientError) as error:
            deferral = Deferral(
                self.claim,
                self._submission,
                self.multimail,
                self.pipeline.settings,
                self.clock,
                self.pipeline.random,
            )
            is_over = deferral.handle(error, self._tag)
            if isinstance(error, ConfigurationError):
                raise
            if not is_over:
                return
        self.claim.finish(self.clock())
        seconds = (self.clock() - self.claim.entry.open_since).total_seconds()
        record(
            EMAIL_DECIDED,
            self.claim.ids
            | describe_decision(self.claim.entry)
            | {
                "seconds_since_received": round(seconds, 1),
                "key_id": self.multimail.find_key_id(),
                "actor": "agent",
            },
        )

    def _reach_decision(self) -> Decision:
        entry, settings = self.claim.entry, self.pipeline.settings
        if entry.attempts > settings.max_attempts:
            crashes = entry.attempts - 1
            if entry.intent_in_doubt is not None:
                raise PermanentError(f"processing crashed {crashes} times")
            return Decision(Outcome.FAILED, Cause.CRASHED, str(crashes))
        try:
            if entry.intent_in_doubt is not None:
                return self._submission.settle(entry.intent_in_doubt)
            return self._walk(self._read_email())
        except NotFoundError as error:
            self._confirm_missing()
            if self.claim.entry.intent_in_doubt is not None:
                raise
            return Decision(Outcome.ESCALATED, Cause.THREAD_MISSING, str(error))
        except _EmailMissing:
            self._confirm_missing()
            return Decision(Outcome.SKIPPED, Cause.DELETED)

    def _read_email(self) -> Email:
        try:
            return self.multimail.get_email(self.claim.entry.mailbox_id, self.claim.entry.email_id)
        except NotFoundError as error:
            raise _EmailMissing from error

    def _confirm_missing(self) -> None:
        """Return when something has been missing for long, at every look; raise Waiting until then.

        Raises ConfigurationError when it is the mailbox that the account does not have.
        """
        self.pipeline.mailboxes.get(self.claim.entry.mailbox_id, max_age_seconds=0)
        now = self.clock()
        since = self.missing_since or now
        self.claim.note(missing_since=since)
        if now - since < MISSING_FOR:
            seconds = max(NOT_SHOWN_YET_SECONDS, (now - since).total_seconds())  # twice as long each time
            raise Waiting(Cause.NOT_SHOWN_YET, seconds=seconds)

    def _walk(self, email: Email) -> Decision:
        """Each step returns the decision that ends the work here, or None to go on."""
        sender = parse_address(email.sender)
        thread_id = email.thread_id or self.claim.entry.thread_id
        self.claim.note(sender=sender, thread_id=thread_id, received_at=email.received_at)
        decision = self._guard(email)
        if decision is not None:
            return decision
        if not sender:
            return Decision(Outcome.ESCALATED, Cause.UNREADABLE_SENDER)
        thread = read_thread(self.claim.entry, self.multimail, self.pipeline.ledger)
        if thread.busy_until is not None:
            waited_before = self.claim.entry.waiting_for is Cause.THREAD_BUSY
            seconds = (thread.busy_until - self.clock()).total_seconds()
            patience = BUSY_AGAIN_SECONDS if waited_before else BUSY_THREAD_SECONDS
            raise Waiting(Cause.THREAD_BUSY, seconds=max(patience, seconds))
        sender_scope = name_sender_scope(self.claim.entry, thread, self.clock())
        try:
            return (
                self._guard_thread(thread)
                or self._guard_budget()
                or self._triage(email)
                or self._guard_limits(thread, sender_scope)
                or self._gate_mode()
                or self._draft(email, thread)
                or self._submission.submit(thread, sender_scope)
            )
        except ContentFilteredError as error:
            fired = ", ".join(error.categories) or "unnamed"
            return Decision(Outcome.BLOCKED_CONTENT_SAFETY, Cause.CONTENT_FILTER, fired)

    # Guard

    def _guard(self, email: Email) -> Decision | None:
        if email.status == "pending_inbound_approval":
            raise Waiting(Cause.INBOUND_APPROVAL, seconds=INBOUND_APPROVAL_SECONDS)
        if self.claim.entry.waiting_for is Cause.INBOUND_APPROVAL:
            self.claim.note(released_at=self.clock())
        mailboxes = self.pipeline.mailboxes.read().values()
        own_addresses = {parse_address(mailbox.address) for mailbox in mailboxes}
        return find_skip(email, own_addresses=own_addresses)

    def _guard_thread(self, thread: ThreadView) -> Decision | None:
        """What was answered is closed; what a reply answered that reached nobody is left to a person."""
        entry = self.claim.entry
        answered = find_closing_answer(entry, thread)
        if answered is not None:
            return answered
        unsent = entry if entry.reply_settled_at is not None else find_unsent_cover(entry.email_id, thread)
        if unsent is None:
            return None
        if unsent.reply_settled_at is None:  # it may still be drafted anew
            raise Waiting(Cause.THREAD_BUSY, seconds=BUSY_AGAIN_SECONDS)
        return Decision(Outcome.ESCALATED, UNSENT_CAUSES.get(unsent.reply_status, Cause.REPLY_UNDELIVERED))

    def _guard_budget(self) -> Decision | None:
        entry = self.claim.entry
        flood = find_flood(entry, self.pipeline.ledger, self.clock()) if entry.triage is None else None
        used = 0
        if flood is None and entry.draft is None:
            used = self.pipeline.ledger.tokens_used(entry.mailbox_id, self._day)
        if used >= self._settings.daily_token_budget:
            record(TOKEN_BUDGET_REACHED, self.claim.ids | {"tokens": used})
            raise Waiting(Cause.TOKEN_BUDGET, seconds=TOKEN_BUDGET_SECONDS)
        return flood

    def _guard_limits(self, thread: ThreadView, sender_scope: str) -> Decision | None:
        """What may not be replied to any more is triaged all the same, and left to a person."""
        entry = self.claim.entry
        if is_too_old(entry, self.pipeline.settings, self.clock()):
            return Decision(Outcome.ESCALATED, Cause.TOO_OLD)
        return find_limit(entry, thread, self.pipeline.ledger, self._settings, sender_scope)

    # Triage and draft

    def _triage(self, email: Email) -> Decision | None:
        triage = self.claim.entry.triage
        if triage is None:
            triage = triage_email(
                email,
                self._complete,
                deployment=self.pipeline.settings.triage_deployment,
                min_confidence=self._settings.min_confidence,
                profile=self._profile,
            )
            self.claim.save(triage=triage)
        outcome = {Action.ESCALATE: Outcome.ESCALATED, Action.IGNORE: Outcome.IGNORED}.get(triage.action)
        return None if outcome is None else Decision(outcome, triage.cause, triage.detail)

    def _gate_mode(self) -> Decision | None:
        """Refuse early, before a draft is paid for; the submission asks again with a fresh reading."""
        mailbox = self.pipeline.mailboxes.get(self.claim.entry.mailbox_id)
        return find_mode_refusal(mailbox, allow_ungated=self.pipeline.settings.allow_ungated_replies)

    def _draft(self, email: Email, thread: ThreadView) -> Decision | None:
        """Write, check and store a draft; only one that passed the checks is ever stored."""
        entry, profile = self.claim.entry, self._profile
        if entry.draft is not None:
            return None
        address = self.pipeline.mailboxes.get(entry.mailbox_id).address
        texts = self._read_texts(email, thread)
        query = f"{email.subject}\n{email.markdown}"
        passages = self.pipeline.knowledge.search(query, profile.knowledge, MAX_PASSAGES)
        written = draft_reply(
            texts,
            email.id,
            address,
            self._complete,
            deployment=self.pipeline.settings.draft_deployment,
            profile=profile,
            passages=passages,
            rejections=entry.rejections,
        )
        if written is None:
            return Decision(Outcome.ESCALATED, Cause.DRAFT_UNREADABLE)
        instructions = build_draft_instructions(address, profile)
        failed = find_failed_checks(
            written.reply_markdown,
            (*build_shown_texts(texts, email.id, passages), *(said.reason for said in entry.rejections)),
            (parse_address(address), entry.sender),
            instructions,
        )
        if failed:
            return Decision(Outcome.ESCALATED, Cause.DRAFT_CHECK, ",".join(failed))
        if written.confidence < self._settings.min_confidence:
            return Decision(Outcome.ESCALATED, Cause.DRAFT_UNSURE, f"{written.confidence:.2f}")
        draft = Draft(
            reply_markdown=sign_reply(written.reply_markdown, profile.signature),
            confidence=written.confidence,
            unanswered=written.unanswered,
            covers=tuple(text.email_id for text in texts if not text.is_ours),
            idempotency_key=build_idempotency_key(entry.mailbox_id, email.id, entry.revision),
            model=written.model,
            prompt_version=text_version(instructions),
        )
        self.claim.save(draft=draft)
        return None

    def _read_texts(self, email: Email, thread: ThreadView) -> list[ThreadText]:
        """The email and what was exchanged with its sender in the thread, with their bodies."""
        texts = [ThreadText(email.id, email.sender, email.subject, email.received_at, email.markdown, False)]
        for other in select_context(email.id, self.claim.entry.sender, thread.emails, MAX_CONTEXT_EMAILS):
            body = self.multimail.get_email(self.claim.entry.mailbox_id, other.id).markdown
            is_ours = other.direction == "outbound"
            texts.append(ThreadText(other.id, other.sender, other.subject, other.received_at, body, is_ours))
        return texts

    def _complete(self, request: ChatRequest) -> ChatCompletion:
        """A completion whose tokens are counted for the email, and against the mailbox's budget."""
        completion = self.pipeline.complete(request)
        self.claim.note(usage=self.claim.entry.usage + completion.usage)
        self.pipeline.ledger.add_tokens(self.claim.entry.mailbox_id, self._day, completion.usage.tokens)
        return completion

    # Submission and the end

    @cached_property
    def _submission(self) -> ReplySubmission:
        return ReplySubmission(self.pipeline.submitter, self.claim)

    def _tag(self) -> None:
        entry = self.claim.entry
        is_escalated = entry.outcome is Outcome.ESCALATED
        try:
            write_tags(self.multimail, entry, self._profile.escalate_to if is_escalated else "")
        except NotFoundError:
            if entry.cause is not Cause.DELETED:
                self._confirm_missing()
            log.info("email %r of mailbox %r is gone: it has no tags", entry.email_id, entry.mailbox_id)

    @property
    def _day(self) -> str:
        return f"{self.clock():%Y-%m-%d}"

    @cached_property
    def _profile(self) -> MailboxProfile:
        return self.pipeline.profiles.get(self.pipeline.mailboxes.get(self.claim.entry.mailbox_id))

    @cached_property
    def _settings(self) -> Settings:
        """The settings, with the limits that this mailbox's profile has of its own."""
        return self._profile.override(self.pipeline.settings)
