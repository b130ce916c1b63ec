"""The operator's question: a bounded conversation in which the model may call the mailbox tools."""

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from shared.checks.characters import fold
from shared.checks.contacts import Known, read_contacts
from shared.checks.rendering import render
from shared.domain import NO_USAGE, Usage
from shared.errors import AgentError, DeferredError
from shared.ledger.ledger import Ledger
from shared.mail.mailboxes import MailboxDirectory
from shared.mail.multimail import MultiMailReader
from shared.model.chat import ChatCompletion, Conversation, Message, ToolCall
from shared.model.prompting import clean_line, clean_text, load_prompt
from shared.operator.ask_sending import Outbox
from shared.operator.ask_tools import TOOLS, Toolbox, ToolResult, find_reach
from shared.replying.submission import Submitter
from shared.settings import Settings
from shared.telemetry import TOKEN_BUDGET_REACHED, TOOL_CALLED, record

MAX_STEPS = 8  # completions for one question
MAX_TOOL_CALLS = 20
MAX_TOKENS = 60_000
MAX_DURATION = timedelta(seconds=150)  # with one completion more still under the 230 s that a client is given
MAX_OUTPUT_TOKENS = 1_000
MAX_SHOWN_CHARACTERS = 200

TOKEN_COUNTER = "ask"  # noqa: S105  # where the ledger counts what questions use, next to the mailboxes

TOO_MANY_CALLS = "No more tools may be called for this question: answer from what you have."

LEFT_OUT = "[link left out]"

_WORD = re.compile(r"\S+")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Question:
    """What the operator asks. Asked again under the same `request_id`, it sends nothing twice."""

    text: str
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class SentEmail:
    """An email that was submitted for a question. `status` is MultiMail's word, "pending_scan" at first."""

    mailbox_id: str
    email_id: str
    status: str
    recipient: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a question: plain text, with what code knows for sure next to it.

    `tool_calls` has the results in order; `is_complete` is false when a limit or a failure ended it.
    """

    request_id: str
    text: str
    tool_calls: tuple[ToolResult, ...]
    submitted: tuple[SentEmail, ...]
    usage: Usage
    is_complete: bool


@dataclass(frozen=True, slots=True)
class Asking:
    """Everything that answering needs. `new_id` names a question that came without a request id."""

    multimail: MultiMailReader
    mailboxes: MailboxDirectory
    converse: Callable[[Conversation], ChatCompletion]
    ledger: Ledger
    settings: Settings
    clock: Callable[[], datetime]
    new_id: Callable[[], str]
    submitter: Submitter

    def answer(self, question: Question) -> Answer:
        """Answer a question. What it has submitted is always reported, whatever fails afterwards.

        Raises TransientError (DeferredError when today's tokens are used up), PermanentError
        (ContentFilteredError among them) and ConfigurationError only while nothing was submitted.
        """
        day = f"{self.clock():%Y-%m-%d}"
        used = self.ledger.tokens_used(TOKEN_COUNTER, day)
        if used >= self.settings.daily_token_budget:
            record(TOKEN_BUDGET_REACHED, {"mailbox_id": TOKEN_COUNTER, "tokens": used})
            now = self.clock().astimezone(UTC)
            midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
            raise DeferredError(
                "the token budget for questions is used up until tomorrow, UTC: DAILY_TOKEN_BUDGET sets it",
                retry_after_seconds=(midnight - now).total_seconds(),
            )
        return _Run(self, question.text, question.request_id or self.new_id(), day).answer()


@dataclass(slots=True)
class _Run:
    """One question on its way: the conversation so far and what it came to."""

    a: Asking
    question: str
    request_id: str
    day: str
    messages: list[Message] = field(default_factory=list)
    results: list[ToolResult] = field(default_factory=list)
    usage: Usage = NO_USAGE
    calls_left_out: int = 0
    deadline: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.deadline = self.a.clock() + MAX_DURATION

    def answer(self) -> Answer:
        a = self.a
        reach = find_reach(a.mailboxes, a.settings.multimail_mailbox_ids)
        outbox = Outbox(
            multimail=a.multimail,
            mailboxes=a.mailboxes,
            question=self.question,
            key_seed=(self.request_id, self.question),
            submitter=a.submitter,
        )
        tools = Toolbox(a.multimail, a.clock, reach, outbox)
        # The same beginning for every question, so that the service can cache it.
        boxes = "\n".join(f"- {box.id}: {box.address} ({box.oversight_mode})" for box in reach.values())
        time = f"{a.clock().astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        system = f"{load_prompt('ask')}\n\nThe mailboxes, by id:\n{boxes}\n\nNow: {time}"
        text, ended_by = self._converse(system, tools)
        shown = drop_foreign_links(clean_text(text).strip(), (self.question, *tools.shown))
        return Answer(
            request_id=self.request_id,
            text="\n\n".join(part for part in (shown, *self._build_notes(ended_by)) if part),
            tool_calls=tuple(self.results),
            submitted=tuple(
                SentEmail(result.mailbox_id or "", sent.email_id, sent.status or "", sent.recipient or "")
                for result in self.results
                if (sent := result.sent) is not None and sent.email_id is not None
            ),
            usage=self.usage,
            is_complete=ended_by is None and not self.calls_left_out,
        )

    def _converse(self, system: str, tools: Toolbox) -> tuple[str, str | None]:
        """Take steps until the model answers; its text, and what else ended it (None: nothing)."""
        self.messages.append(Message("user", self.question))
        text, deployment = "", self.a.settings.draft_deployment
        for _ in range(MAX_STEPS):
            if self.usage.tokens >= MAX_TOKENS or self.a.clock() >= self.deadline:
                return text, f"its limit of {MAX_TOKENS} tokens or {MAX_DURATION.seconds} seconds was reached"
            try:
                completion = self.a.converse(
                    Conversation(deployment, system, tuple(self.messages), TOOLS, MAX_OUTPUT_TOKENS)
                )
                self.usage += completion.usage
                self.a.ledger.add_tokens(TOKEN_COUNTER, self.day, completion.usage.tokens)
                self.messages.append(Message("assistant", completion.text, completion.tool_calls))
                for call in completion.tool_calls:
                    self.messages.append(Message("tool", self._call(call, tools), tool_call_id=call.id))
            except AgentError as error:
                if not tools.outbox.is_used:
                    raise
                log.warning(
                    "question %r: a step failed after something was submitted: %s", self.request_id, error
                )
                return text, f"a step failed after something was submitted ({type(error).__name__})"
            text = completion.text
            if not completion.tool_calls:
                was_cut = completion.finish_reason == "length"
                return text, "the answer was cut at its limit" if was_cut else None
        return text, f"its limit of {MAX_STEPS} steps was reached"

    def _call(self, call: ToolCall, tools: Toolbox) -> str:
        if len(self.results) >= MAX_TOOL_CALLS or self.a.clock() >= self.deadline:
            self.calls_left_out += 1
            return TOO_MANY_CALLS
        result = tools.call(call)
        self.results.append(result)
        record(
            TOOL_CALLED,
            {
                "request_id": self.request_id,
                "tool": result.tool,
                "result": result.state,
                "mailbox_id": result.mailbox_id,
                "email_id": result.email_id,
                "reply_id": result.sent.email_id if result.sent is not None else None,
                "actor": "operator",
            },
        )
        return result.text

    def _build_notes(self, ended_by: str | None) -> Sequence[str]:
        """What code says for sure, whatever the model made of it."""
        notes = [] if ended_by is None else [f"Not finished: {ended_by}."]
        for result in self.results:
            sent = result.sent
            if result.tool not in ("send_email", "reply_email") or result.state in ("submitted", "invalid"):
                continue
            to = f" to {clean_line(sent.recipient, MAX_SHOWN_CHARACTERS)}" if sent and sent.recipient else ""
            verdict = "in doubt" if result.state == "in_doubt" else "not submitted"
            notes.append(f"An email{to} was {verdict}: {result.reason}")
        if self.calls_left_out:
            seconds = MAX_DURATION.seconds
            notes.append(
                f"Not finished: only {MAX_TOOL_CALLS} tools are called for a question, in {seconds} seconds."
            )
        return list(dict.fromkeys(notes))


def drop_foreign_links(text: str, known_texts: Sequence[str]) -> str:
    """The text, or what a reader would see of it without the links that are in none of the known texts."""
    known = Known.read(known_texts)
    places = known.contacts.places | known.hosts

    def is_foreign(found: frozenset[str]) -> bool:
        return not found <= places

    rendered = render(text)
    shown = read_contacts(rendered.text, rendered.links)
    if not rendered.has_markup and not is_foreign(shown.places | shown.hosts):
        return text
    pieces = rendered.text
    for link in reversed(rendered.links):
        target = read_contacts("", [link])
        if not link.is_found and is_foreign(target.places | target.hosts):
            pieces = f"{pieces[: link.start]}{LEFT_OUT}{pieces[link.start + len(link.text) :]}"

    def judge(match: re.Match[str]) -> str:
        found = read_contacts(match.group())
        return LEFT_OUT if is_foreign(found.places | found.hosts) else match.group()

    return _WORD.sub(judge, fold(pieces)).strip()
