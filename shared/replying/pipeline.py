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
from shared.mail.mailboxes import MailboxDirectory, select_mailboxes
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
from shared.replying.reporting import describe_decision, render_waiting, write_tags
from shared.replying.submission import ReplySubmission, Submitter, is_full
from shared.replying.threads import ThreadView, find_answer, read_thread, select_context
from shared.replying.triage import triage_email
from shared.settings import Settings
from shared.telemetry import EMAIL_DECIDED, TOKEN_BUDGET_REACHED, Value, email_traceparent, record, span

SHOWS_WITHIN = timedelta(minutes=10)  # a webhook may be faster than what the API reads from

# How long to wait, in seconds, for what is not a failure.
INBOUND_APPROVAL_SECONDS = 900.0
TOKEN_BUDGET_SECONDS = 3600.0
BUSY_THREAD_SECONDS = 2.0
BUSY_AGAIN_SECONDS = 30.0  # then its worker has died, or waits itself
NOT_SHOWN_YET_SECONDS = 30.0
MAILBOX_LEFT_OUT_SECONDS = 300.0  # no poll enqueues it before its mailbox is answered again

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


class _EmailRun:
    """One worker's run at one email."""

    def __init__(self, pipeline: Pipeline, claim: Claim) -> None:
        self.pipeline = pipeline
        self.claim = claim
        self.multimail = pipeline.multimail
        self.clock = pipeline.clock

    def run(self) -> None:
        try:
            if self.claim.entry.outcome is None:
                # Nothing leaves a mailbox that its operator took out since the email was enqueued.
                wanted = self.pipeline.settings.multimail_mailbox_ids
                if self.claim.entry.mailbox_id not in select_mailboxes(
                    self.pipeline.mailboxes.read(), wanted
                ):
                    raise Waiting(Cause.MAILBOX_LEFT_OUT, seconds=MAILBOX_LEFT_OUT_SECONDS)
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
            if entry.submit_intent_at is not None:
                raise PermanentError(f"processing crashed {crashes} times")
            return Decision(Outcome.FAILED, Cause.CRASHED, str(crashes))
        if entry.submit_intent_at is not None:
            return self._submission.settle(entry.submit_intent_at)
        try:
            email = self.multimail.get_email(entry.mailbox_id, entry.email_id)
        except NotFoundError:
            if self.clock() - entry.received_at < SHOWS_WITHIN:
                raise Waiting(Cause.NOT_SHOWN_YET, seconds=NOT_SHOWN_YET_SECONDS) from None
            return Decision(Outcome.SKIPPED, Cause.DELETED)
        return self._walk(email)

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
        try:
            return (
                self._guard_thread(thread)
                or self._guard_limits(thread)
                or self._triage(email)
                or self._gate_mode()
                or self._draft(email, thread)
                or self._submission.submit(thread)
            )
        except ContentFilteredError as error:
            fired = ", ".join(error.categories) or "unnamed"
            return Decision(Outcome.BLOCKED_CONTENT_SAFETY, Cause.CONTENT_FILTER, fired)

    # Guard

    def _guard(self, email: Email) -> Decision | None:
        entry = self.claim.entry
        max_age = timedelta(hours=self.pipeline.settings.max_email_age_hours)
        too_old = self.clock() - entry.open_since > max_age
        if email.status == "pending_inbound_approval":
            if too_old:
                return Decision(Outcome.SKIPPED, Cause.NOT_RELEASED)
            raise Waiting(Cause.INBOUND_APPROVAL, seconds=INBOUND_APPROVAL_SECONDS)
        if too_old and entry.waiting_for is not None:
            return Decision(Outcome.FAILED, Cause.WAITED_TOO_LONG, render_waiting(entry))
        mailboxes = self.pipeline.mailboxes.read().values()
        own_addresses = {parse_address(mailbox.address) for mailbox in mailboxes}
        return find_skip(email, own_addresses=own_addresses, is_too_old=too_old)

    def _guard_thread(self, thread: ThreadView) -> Decision | None:
        entry = self.claim.entry
        answer = find_answer(
            entry.email_id, entry.received_at, entry.sender, thread.emails, thread.own_replies
        )
        if answer is None:
            return None
        return Decision(Outcome.SKIPPED, Cause.COVERED if answer.id in thread.own_replies else Cause.ANSWERED)

    def _guard_limits(self, thread: ThreadView) -> Decision | None:
        entry, ledger, settings = self.claim.entry, self.pipeline.ledger, self._settings
        if is_full(thread.slots, settings.max_replies_per_thread, entry.email_id):
            # Strangers who forge references use up the slots: the person whose thread it is must not suffer.
            was_answered = any(row.sender == entry.sender for row in thread.own_replies.values())
            outcome = Outcome.SKIPPED if was_answered else Outcome.ESCALATED
            return Decision(outcome, Cause.THREAD_LIMIT, str(settings.max_replies_per_thread))
        limit = settings.max_replies_per_sender_per_day
        if is_full(ledger.slots(self._submission.sender_scope), limit, entry.email_id):
            return Decision(Outcome.SKIPPED, Cause.SENDER_LIMIT, str(limit))
        used = ledger.tokens_used(entry.mailbox_id, self._day) if entry.draft is None else 0
        if used >= settings.daily_token_budget:
            record(TOKEN_BUDGET_REACHED, self.claim.ids | {"tokens": used})
            raise Waiting(Cause.TOKEN_BUDGET, seconds=TOKEN_BUDGET_SECONDS)
        return None

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
            try:
                body = self.multimail.get_email(self.claim.entry.mailbox_id, other.id).markdown
            except NotFoundError:
                continue
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
        return ReplySubmission(
            self.pipeline.submitter, self.claim, lambda: self._settings.max_replies_per_sender_per_day
        )

    def _tag(self) -> None:
        is_escalated = self.claim.entry.outcome is Outcome.ESCALATED
        write_tags(self.multimail, self.claim.entry, self._profile.escalate_to if is_escalated else "")

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
