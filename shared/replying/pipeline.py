"""The way of one email: read, guard, triage, draft, check, gate, reply, tag; each stored before the next."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from shared.domain import (
    Action,
    Decision,
    Draft,
    Email,
    Outcome,
    WorkItem,
    build_idempotency_key,
    parse_address,
)
from shared.errors import (
    AgentError,
    ConfigurationError,
    ConflictError,
    ContentFilteredError,
    DeferredError,
    LeaseLostError,
    NotFoundError,
    PermanentError,
    ThrottledError,
    TransientError,
)
from shared.knowledge.passages import KnowledgeSource
from shared.ledger.entries import LedgerEntry
from shared.ledger.ledger import Ledger
from shared.mail.draft_checks import find_draft_problems
from shared.mail.mailboxes import MailboxDirectory
from shared.mail.multimail import MultiMailClient
from shared.model.chat import ChatCompletion, ChatRequest
from shared.model.prompting import clean_line, text_version
from shared.profiles.profiles import MailboxProfile, Profiles
from shared.replying.beside import Beside
from shared.replying.drafting import (
    MAX_CONTEXT_EMAILS,
    MAX_PASSAGES,
    ThreadText,
    build_draft_instructions,
    build_shown_texts,
    draft_reply,
    sign_reply,
)
from shared.replying.gate import find_mode_refusal, find_recipient_refusal
from shared.replying.guardrails import find_skip_reason
from shared.replying.threads import (
    ThreadView,
    find_answer,
    find_stale_replies,
    read_thread,
    select_context,
    thread_scope,
)
from shared.replying.triage import triage_email
from shared.settings import Settings
from shared.telemetry import (
    EMAIL_DECIDED,
    EMAIL_DEFERRED,
    REPLY_WITHDRAWN,
    TOKEN_BUDGET_REACHED,
    Value,
    email_traceparent,
    record,
    span,
)

SAME_KEY_FOR = timedelta(hours=23)  # MultiMail forgets an idempotency key after 24 h
CLOCK_MARGIN = timedelta(minutes=10)  # how far our clock and the service's may be apart
SHOWS_WITHIN = timedelta(minutes=10)  # a webhook may be faster than what the API reads from
MAX_REASON_CHARACTERS = 200

# How long to wait, in seconds, where the service names no delay.
INBOUND_APPROVAL_SECONDS = 900.0
TOKEN_BUDGET_SECONDS = 3600.0
BUSY_THREAD_SECONDS = 2.0
BUSY_AGAIN_SECONDS = 30.0  # then its worker has died, or waits itself
NOT_SHOWN_YET_SECONDS = 30.0
THROTTLED_SECONDS = 15.0
MAX_WAIT_SECONDS = 6 * 3600.0
TOLD_WAIT_SECONDS = 600.0  # a longer wait is shown on the email

UNCONFIRMED = "its reply was submitted and cannot be found: it may or may not have been accepted"
BUSY_THREAD = "another reply in its thread comes first"
WAITS_FOR_INBOUND_APPROVAL = "it waits for inbound approval"
NOT_SHOWN_YET = "MultiMail does not show it yet"
HELD_BACK = "the draft was held back"
WAITING_TAG = "agent.waiting_for"  # gone once there is an outcome

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Everything that the way of an email needs. `random` returns 0 <= x < 1."""

    multimail: MultiMailClient
    mailboxes: MailboxDirectory
    complete: Callable[[ChatRequest], ChatCompletion]
    ledger: Ledger
    settings: Settings
    clock: Callable[[], datetime]
    random: Callable[[], float]
    profiles: Profiles
    knowledge: KnowledgeSource
    beside: Beside

    def process(self, item: WorkItem) -> None:
        """Take one email as far as it can go now, from wherever its row says it stands.

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
                _EmailRun(self, entry).run()
        except LeaseLostError:
            log.warning("email %r of mailbox %r: another worker took over", item.email_id, item.mailbox_id)


class _EmailRun:
    """One worker's run at one email. `entry` is the row as this worker last stored it, usage ahead of it."""

    def __init__(self, pipeline: Pipeline, entry: LedgerEntry) -> None:
        self.p = pipeline
        self.entry = entry
        self.sender = entry.sender
        self._read_tags = self._get_tags

    # The way, and what ends it early

    def run(self) -> None:
        try:
            if self.entry.outcome is None:
                self._decide(self._reach_decision())
            self._tag()
        except ConfigurationError as error:
            self._defer(error, self.p.settings.retry_base_seconds)
            raise
        except DeferredError as error:
            fallback = min(THROTTLED_SECONDS, self.p.settings.retry_max_seconds)
            self._defer(error, fallback if error.retry_after_seconds is None else error.retry_after_seconds)
        except TransientError as error:
            if self.entry.attempts >= self.p.settings.max_attempts:
                self._give_up(error)
            else:
                self._retry(error)
        except PermanentError as error:
            self._give_up(error)
        else:
            self._finish()

    def _reach_decision(self) -> Decision:
        if self.entry.attempts > self.p.settings.max_attempts:
            raise PermanentError(f"its worker stopped unexpectedly {self.entry.attempts - 1} times")
        if self.entry.submit_intent_at is not None:
            return self._settle_submission(self.entry.submit_intent_at)
        try:
            email = self.p.multimail.get_email(self.entry.mailbox_id, self.entry.email_id)
        except NotFoundError:
            if self.p.clock() - self.entry.received_at < SHOWS_WITHIN:
                raise DeferredError(NOT_SHOWN_YET, retry_after_seconds=NOT_SHOWN_YET_SECONDS) from None
            return Decision(Outcome.SKIPPED, "it no longer exists")
        return self._walk(email)

    def _walk(self, email: Email) -> Decision:
        """Each step returns the decision that ends the way here, or None to go on."""
        self.sender = parse_address(email.sender)
        self.entry = replace(
            self.entry,
            sender=self.sender,
            thread_id=email.thread_id or self.entry.thread_id,
            received_at=email.received_at,
        )
        reason = self._guard(email)
        if reason is not None:
            return Decision(Outcome.SKIPPED, reason)
        if not self.sender:
            return Decision(Outcome.ESCALATED, "its sender is not one readable address")
        thread = self._read_thread()
        if thread.busy_until is not None:
            patience = BUSY_AGAIN_SECONDS if self.entry.waiting_for == BUSY_THREAD else BUSY_THREAD_SECONDS
            seconds = (thread.busy_until - self.p.clock()).total_seconds()
            raise DeferredError(BUSY_THREAD, retry_after_seconds=max(patience, seconds))
        try:
            return (
                self._guard_thread(thread)
                or self._guard_limits(thread)
                or self._triage(email)
                or self._gate_mode()
                or self._draft(email, thread)
                or self._submit(thread)
            )
        except ContentFilteredError as error:
            fired = ", ".join(error.categories) or "unnamed"
            return Decision(
                Outcome.BLOCKED_CONTENT_SAFETY, f"the model's content filter refused it ({fired})"
            )

    # Guard

    def _guard(self, email: Email) -> str | None:
        settings, now = self.p.settings, self.p.clock()
        max_age = timedelta(hours=settings.max_email_age_hours)
        too_old = now - self.entry.open_since > max_age
        if email.status == "pending_inbound_approval":
            if too_old:
                return "nobody released it from inbound approval in time"
            raise DeferredError(WAITS_FOR_INBOUND_APPROVAL, retry_after_seconds=INBOUND_APPROVAL_SECONDS)
        if too_old and self.entry.waiting_for:
            raise PermanentError(f"it became too old while waiting: {self.entry.waiting_for}")
        own_addresses = {parse_address(mailbox.address) for mailbox in self.p.mailboxes.read().values()}
        return find_skip_reason(email, own_addresses=own_addresses, is_too_old=too_old)

    def _guard_thread(self, thread: ThreadView) -> Decision | None:
        answer = find_answer(
            self.entry.email_id, self.entry.received_at, self.sender, thread.emails, thread.own_replies
        )
        if answer is None:
            return None
        is_ours = answer.id in thread.own_replies
        reason = (
            "a reply to another email of its thread covers it"
            if is_ours
            else "its thread was answered after it"
        )
        return Decision(Outcome.SKIPPED, reason)

    def _guard_limits(self, thread: ThreadView) -> Decision | None:
        settings = self._settings
        if _is_full(thread.slots, settings.max_replies_per_thread, self.entry.email_id):
            # Strangers who forge references use up the places: the person whose thread it is must not suffer.
            was_answered = any(row.sender == self.sender for row in thread.own_replies.values())
            outcome = Outcome.SKIPPED if was_answered else Outcome.ESCALATED
            return Decision(outcome, f"its thread has {settings.max_replies_per_thread} replies already")
        limit = settings.max_replies_per_sender_per_day
        if _is_full(self.p.ledger.slots(self._sender_scope), limit, self.entry.email_id):
            return Decision(Outcome.SKIPPED, f"its sender was sent {limit} replies today already")
        used = self.p.ledger.tokens_used(self.entry.mailbox_id, self._day) if self.entry.draft is None else 0
        if used >= settings.daily_token_budget:
            record(TOKEN_BUDGET_REACHED, self._ids | {"tokens": used})
            raise DeferredError(
                "the mailbox's token budget for today is used up", retry_after_seconds=TOKEN_BUDGET_SECONDS
            )
        return None

    # Triage and draft

    def _read_thread(self) -> ThreadView:
        return read_thread(self.entry, self.p.multimail, self.p.ledger)

    def _triage(self, email: Email) -> Decision | None:
        triage = self.entry.triage
        if triage is None:
            triage = triage_email(
                email,
                self._complete,
                deployment=self.p.settings.triage_deployment,
                min_confidence=self._settings.min_confidence,
                profile=self._profile,
            )
            self._save(triage=triage)
        outcome = {Action.ESCALATE: Outcome.ESCALATED, Action.IGNORE: Outcome.IGNORED}.get(triage.action)
        return None if outcome is None else Decision(outcome, triage.reason)

    def _gate_mode(self) -> Decision | None:
        """Refuse early, before a draft is paid for; `_submit` asks again with a fresh reading."""
        mailbox = self.p.mailboxes.get(self.entry.mailbox_id)
        return find_mode_refusal(mailbox, allow_ungated=self.p.settings.allow_ungated_replies)

    def _draft(self, email: Email, thread: ThreadView) -> Decision | None:
        """Write, check and store a draft; only one that passed the checks is ever stored."""
        if self.entry.draft is not None:
            return None
        mailbox, profile = self.p.mailboxes.get(self.entry.mailbox_id), self._profile
        instructions = build_draft_instructions(mailbox.address, profile)
        texts = self._read_texts(email, thread)
        passages = self.p.knowledge.search(
            f"{email.subject}\n{email.markdown}", profile.knowledge, MAX_PASSAGES
        )
        written = draft_reply(
            texts, email.id, mailbox.address, self._complete,
            deployment=self.p.settings.draft_deployment, profile=profile, passages=passages,
            rejections=self.entry.rejections,
        )  # fmt: skip
        if written is None:
            return Decision(Outcome.ESCALATED, "the model's draft could not be read")
        problems = find_draft_problems(
            written.reply_markdown,
            (*build_shown_texts(texts, email.id, passages), *(said.reason for said in self.entry.rejections)),
            (parse_address(mailbox.address), self.sender),
            instructions,
        )
        if problems:
            return Decision(Outcome.ESCALATED, f"{HELD_BACK}: {'; '.join(problems)}")
        if written.confidence < self._settings.min_confidence:
            return Decision(Outcome.ESCALATED, f"the draft's confidence is only {written.confidence:.2f}")
        draft = Draft(
            reply_markdown=sign_reply(written.reply_markdown, profile.signature),
            confidence=written.confidence,
            unanswered=written.unanswered,
            covers=tuple(text.email_id for text in texts if not text.is_ours),
            idempotency_key=build_idempotency_key(self.entry.mailbox_id, email.id, self.entry.revision),
            model=written.model,
            prompt_version=text_version(instructions),
        )
        self._save(draft=draft)
        return None

    def _read_texts(self, email: Email, thread: ThreadView) -> list[ThreadText]:
        texts = [ThreadText(email.id, email.sender, email.subject, email.received_at, email.markdown, False)]
        for other in select_context(email.id, self.sender, thread.emails, MAX_CONTEXT_EMAILS):
            try:
                full = self.p.multimail.get_email(self.entry.mailbox_id, other.id)
            except NotFoundError:
                continue
            is_ours = other.direction == "outbound"
            texts.append(
                ThreadText(other.id, other.sender, other.subject, other.received_at, full.markdown, is_ours)
            )
        return texts

    def _complete(self, request: ChatRequest) -> ChatCompletion:
        completion = self.p.complete(request)
        self.entry = replace(self.entry, usage=self.entry.usage + completion.usage)
        self.p.ledger.add_tokens(self.entry.mailbox_id, self._day, completion.usage.tokens)
        return completion

    # Gate and reply

    def _submit(self, thread: ThreadView) -> Decision:
        decision = self._gate() or self._take_slots(thread)
        if decision is not None:
            return decision
        self._save(submit_intent_at=self.p.clock())
        decision = self._send(is_first=True)
        if decision.reply_id is not None:
            self._cancel_stale(thread)
        return decision

    def _cancel_stale(self, thread: ThreadView) -> None:
        """Take back what the accepted reply answers too; before it is accepted, it might never be."""
        covers = self._stored_draft.covers
        for reply_id in find_stale_replies(self.sender, thread.emails, thread.own_replies, covers):
            self._cancel(reply_id)

    def _gate(self) -> Decision | None:
        """Read the mode and the allowlist now: a human may have changed either a second ago."""
        allowlist = self.p.beside(lambda: self.p.multimail.get_allowlist(self.entry.mailbox_id))
        mailbox = self.p.mailboxes.get(self.entry.mailbox_id, max_age_seconds=0)
        allow_ungated = self.p.settings.allow_ungated_replies
        return find_mode_refusal(mailbox, allow_ungated=allow_ungated) or find_recipient_refusal(
            self.sender, allowlist(), allow_ungated=allow_ungated
        )

    def _take_slots(self, thread: ThreadView) -> Decision | None:
        """Take the places under both limits, for this email once and for all.

        The thread's place can be taken only if nobody took one since the thread was read: of two
        emails in one thread the second reads again, and finds what the first one's reply covers.
        """
        limit, email_id, ledger = (
            self._settings.max_replies_per_sender_per_day,
            self.entry.email_id,
            self.p.ledger,
        )
        day_slots = ledger.slots(self._sender_scope)
        if _is_full(day_slots, limit, email_id):
            return Decision(Outcome.SKIPPED, f"its sender was sent {limit} replies today already")
        scopes = [(self._thread_scope, thread.slots), (self._sender_scope, day_slots)]
        if not all(ledger.take_slot(scope, email_id, seen) for scope, seen in scopes if scope):
            raise DeferredError(
                "another email of its thread or sender is being answered",
                retry_after_seconds=BUSY_THREAD_SECONDS,
            )
        return None

    def _cancel(self, reply_id: str) -> bool:
        try:
            self.p.multimail.cancel_email(self.entry.mailbox_id, reply_id)
        except (ConflictError, NotFoundError):
            log.info("reply %r of mailbox %r was no longer pending", reply_id, self.entry.mailbox_id)
            return False
        record(REPLY_WITHDRAWN, self._ids | {"reply_id": reply_id, "actor": "agent"})
        return True

    def _send(self, *, is_first: bool) -> Decision:
        draft = self._stored_draft
        self._read_tags = self.p.beside(self._get_tags)
        try:
            submitted = self.p.multimail.submit_reply(
                self.entry.mailbox_id, self.entry.email_id, draft.reply_markdown, draft.idempotency_key
            )
        except ThrottledError:
            if is_first:
                self._save(submit_intent_at=None)  # refused for sure: nothing of it can be on its way
            raise
        except PermanentError as error:
            refused = Decision(Outcome.NEEDS_HUMAN, f"the service refused the reply: {error}")
            return self._find_own_reply() or refused
        return self._submitted(submitted.id)

    def _submitted(self, reply_id: str) -> Decision:
        unanswered = "; ".join(self._stored_draft.unanswered)
        reason = self.entry.triage.reason if self.entry.triage else ""
        return Decision(
            Outcome.REPLY_SUBMITTED,
            f"a human must still answer: {unanswered}" if unanswered else reason,
            reply_id,
        )

    def _settle_submission(self, intent_at: datetime) -> Decision:
        """Go on after a submission whose answer never arrived: the same bytes under the same key.

        Whatever became of the first try, the service then names the one reply. Once it has forgotten
        the key, or the gate has closed, it can only be looked for.
        """
        if self.p.clock() - intent_at >= SAME_KEY_FOR:
            decision = self._find_own_reply() or Decision(
                Outcome.NEEDS_HUMAN, f"{UNCONFIRMED}, over 23 h ago"
            )
        elif refusal := self._gate():
            decision = self._find_own_reply() or refusal
        else:
            decision = self._send(is_first=False)
        return decision if decision.reply_id is None else self._clear_up(decision, decision.reply_id)

    def _clear_up(self, decision: Decision, reply_id: str) -> Decision:
        """Take a late reply back if somebody else answered meanwhile, otherwise what it replaces."""
        thread = self._read_thread()
        others = [email for email in thread.emails if email.id != reply_id]
        answer = find_answer(
            self.entry.email_id, self.entry.received_at, self.sender, others, thread.own_replies
        )
        if answer is not None and self._cancel(reply_id):
            return Decision(
                Outcome.SKIPPED, "its thread was answered after it, a late reply withdrawn", reply_id
            )
        self._cancel_stale(thread)
        return decision

    def _find_own_reply(self) -> Decision | None:
        """Look among the outbound emails since the intent for the one that carries our draft.

        A reply that another row of the thread holds, or that was rejected before, is not this one, even
        if it says the same.
        """
        thread = self._read_thread()
        in_thread = {email.id for email in thread.emails}
        not_ours = {*thread.own_replies, *(rejection.reply_id for rejection in self.entry.rejections)}
        intent_at = self.entry.submit_intent_at or self.p.clock()
        for summary in self.p.multimail.list_emails(
            self.entry.mailbox_id, direction="outbound", date_after=intent_at - CLOCK_MARGIN
        ):
            here = self.entry.thread_id in (None, summary.thread_id) or summary.id in in_thread
            is_to_sender = self.sender in {parse_address(to) for to in summary.to}
            if here and is_to_sender and summary.id not in not_ours and self._carries_draft(summary.id):
                return self._submitted(summary.id)
        return None

    def _carries_draft(self, email_id: str) -> bool:
        """Say whether a sent text is our draft, whatever the service put around it."""
        try:
            sent = self.p.multimail.get_email(self.entry.mailbox_id, email_id)
        except NotFoundError:
            return False
        return " ".join(self._stored_draft.reply_markdown.split()) in " ".join(sent.markdown.split())

    # What the row keeps

    @property
    def _stored_draft(self) -> Draft:
        if self.entry.draft is None:
            raise PermanentError("its row holds an intent to submit but no draft")
        return self.entry.draft

    @cached_property
    def _profile(self) -> MailboxProfile:
        return self.p.profiles.get(self.p.mailboxes.get(self.entry.mailbox_id))

    @cached_property
    def _settings(self) -> Settings:
        """The settings, with the limits that this mailbox's profile has of its own."""
        return self._profile.override(self.p.settings)

    @property
    def _ids(self) -> dict[str, Value]:
        return {"mailbox_id": self.entry.mailbox_id, "email_id": self.entry.email_id}

    @property
    def _day(self) -> str:
        return f"{self.p.clock():%Y-%m-%d}"

    @property
    def _sender_scope(self) -> str:
        return f"sender/{self.sender}/{self._day}"

    @property
    def _thread_scope(self) -> str | None:
        return thread_scope(self.entry)

    def _save(self, **changes: Any) -> None:
        self.entry = self.p.ledger.save(replace(self.entry, **changes))

    def _decide(self, decision: Decision) -> None:
        reason = clean_line(decision.reason, MAX_REASON_CHARACTERS)
        self._save(outcome=decision.outcome, reason=reason, reply_id=decision.reply_id)

    def _tag(self) -> None:
        """Write the outcome on the inbound email, beside whatever tags others put there."""
        read, self._read_tags = self._read_tags, self._get_tags  # what was read beside counts once
        existing = read()
        others = {key: value for key, value in existing.items() if not key.startswith("agent.")}
        escalate_to = self._profile.escalate_to if self.entry.outcome is Outcome.ESCALATED else ""
        wanted = others | build_tags(self.entry, escalate_to)
        if wanted != existing:
            self.p.multimail.set_tags(self.entry.mailbox_id, self.entry.email_id, wanted)

    def _get_tags(self) -> Mapping[str, str]:
        return self.p.multimail.get_tags(self.entry.mailbox_id, self.entry.email_id)

    def _finish(self) -> None:
        self.entry = self.p.ledger.finish(replace(self.entry, finished_at=self.p.clock(), waiting_for=""))
        self._record_decision()

    def _record_decision(self) -> None:
        seconds = (self.p.clock() - self.entry.open_since).total_seconds()
        record(
            EMAIL_DECIDED,
            self._ids
            | describe_decision(self.entry)
            | {
                "seconds_since_received": round(seconds, 1),
                "key_id": self.p.multimail.find_key_id(),
                "actor": "agent",
            },
        )

    def _give_up(self, error: AgentError) -> None:
        """End visibly. A decision that was already made stands; only its tags may be missing."""
        log.error("email %r of mailbox %r is given up: %s", self.entry.email_id, self.entry.mailbox_id, error)
        if self.entry.outcome is None:
            self._decide(self._conclude(error))
        try:
            self._tag()
        except (ConfigurationError, PermanentError, TransientError) as tag_error:
            if isinstance(tag_error, TransientError) and self.entry.attempts < self.p.settings.max_attempts:
                self._retry(tag_error)
                return
            log.error("email %r could not be tagged: %s", self.entry.email_id, tag_error)  # noqa: TRY400  # no trace needed
        self._finish()

    def _conclude(self, error: AgentError) -> Decision:
        """What can be said of an email that is given up: with a reply on its way it did not simply fail."""
        if self.entry.submit_intent_at is None:
            return Decision(Outcome.FAILED, str(error))
        try:
            found = self._find_own_reply()
        except (ConfigurationError, PermanentError, TransientError):
            found = None
        return found or Decision(Outcome.NEEDS_HUMAN, f"{UNCONFIRMED}: {error}")

    def _retry(self, error: TransientError) -> None:
        settings = self.p.settings
        ceiling = min(
            settings.retry_max_seconds, settings.retry_base_seconds * 2 ** (self.entry.attempts - 1)
        )
        self._wait(error, error.retry_after_seconds or self.p.random() * ceiling)

    def _defer(self, error: AgentError, seconds: float) -> None:
        """Wait without counting an attempt: nothing was wrong with this email."""
        self.entry = replace(self.entry, attempts=self.entry.attempts - 1)
        self._wait(error, seconds * (1 + self.p.random() / 10))

    def _wait(self, error: AgentError, seconds: float) -> None:
        seconds = min(seconds, MAX_WAIT_SECONDS)
        due_at = self.p.clock() + timedelta(seconds=seconds)
        record(
            EMAIL_DEFERRED,
            self._ids
            | {"attempts": self.entry.attempts, "seconds": round(seconds, 1)}
            | {"error": type(error).__name__, "waiting_for": str(error)},
        )
        is_news = str(error) != self.entry.waiting_for
        self.entry = self.p.ledger.defer(replace(self.entry, due_at=due_at, waiting_for=str(error)))
        if seconds >= TOLD_WAIT_SECONDS and is_news:
            self._tell_waiting()

    def _tell_waiting(self) -> None:
        """Show on the email that it waits; best effort, because the service may be what it waits for."""
        tag = {WAITING_TAG: clean_line(self.entry.waiting_for, MAX_REASON_CHARACTERS)}
        try:
            tags = dict(self._get_tags()) | tag
            self.p.multimail.set_tags(self.entry.mailbox_id, self.entry.email_id, tags)
        except (ConfigurationError, PermanentError, TransientError) as error:
            log.warning("email %r could not be tagged as waiting: %s", self.entry.email_id, error)


def build_tags(entry: LedgerEntry, escalate_to: str = "") -> dict[str, str]:
    """The tags that show a decided row on its inbound email; absent facts have no tag.

    `escalate_to`: whom the mailbox's profile names for what it escalates.
    """
    triage = entry.triage
    values = {
        "agent.outcome": entry.outcome,
        "agent.action": triage and triage.action,
        "agent.category": triage and triage.category,
        "agent.urgency": triage and triage.urgency,
        "agent.sentiment": triage and triage.sentiment,
        "agent.reply_id": entry.reply_id,
        "agent.reason": entry.reason,
        "agent.escalate_to": escalate_to,
    }
    return {key: str(value) for key, value in values.items() if value}


def describe_decision(entry: LedgerEntry) -> dict[str, Value]:
    """What the audit trail has about a decided row.

    The model's own words may quote the email: they stay in the ledger and the tags, out of the log.
    """
    triage, draft, usage = entry.triage, entry.draft, entry.usage
    facts: dict[str, Value] = {
        key.removeprefix("agent."): value for key, value in build_tags(entry).items() if key != "agent.reason"
    }
    said_by_model = entry.outcome is Outcome.REPLY_SUBMITTED or (
        triage is not None and entry.reason == clean_line(triage.reason, MAX_REASON_CHARACTERS)
    )
    if not said_by_model:
        facts |= {"reason": entry.reason}
    if triage is not None:
        facts |= {"confidence": triage.confidence, "triage_model": triage.model}
        facts |= {"triage_prompt": triage.prompt_version}
    if draft is not None:
        facts |= {"draft_model": draft.model, "draft_prompt": draft.prompt_version}
    return facts | {
        "revision": entry.revision,
        "attempts": entry.attempts,
        "calls": usage.calls,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
    }


def _is_full(slots: Sequence[str], limit: int, email_id: str) -> bool:
    return len(slots) >= limit and email_id not in slots
