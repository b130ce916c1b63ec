"""The tools of the operator's question: their schemas, what they read, and how their results are shown."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Literal

from shared.domain import EmailSummary, Mailbox
from shared.errors import ConfigurationError, PermanentError, TransientError
from shared.mail.mailboxes import MailboxDirectory, select_mailboxes
from shared.mail.multimail import MultiMailReader
from shared.model.chat import Tool, ToolCall
from shared.model.prompting import build_documents, clean_line, fit_untrusted, unescape_untrusted
from shared.operator.ask_sending import Outbox, SendResult

MAX_LISTED = 20
LONGEST_LOOK_BACK_HOURS = 24 * 366
MAX_EMAIL_TOKENS = 2_000
MAX_ITEM_TOKENS = 300
MAX_FIELD_CHARACTERS = 200
MAX_ARGUMENT_CHARACTERS = 20_000

PENDING = (("outbound", "pending_send_approval"), ("inbound", "pending_inbound_approval"))

_TYPES: Mapping[str, type] = {"string": str, "boolean": bool, "integer": int, "null": type(None)}
_MAILBOX = {"type": "string", "description": "A mailbox's id."}
_ANY_MAILBOX = {"type": ["string", "null"], "description": "A mailbox's id; null for all of them."}
_EMAIL = {"type": "string", "description": "An email's id, as a listing shows it."}
_MARKDOWN = {"type": "string", "description": "The whole text, ready to send, in markdown."}


def _tool(name: str, description: str, **properties: Mapping[str, Any]) -> Tool:
    parameters = {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": properties,
    }
    return Tool(name, description, parameters)


TOOLS = (
    _tool(
        "check_inbox",
        f"List received emails, newest first, at most {MAX_LISTED}, without their texts.",
        mailbox_id=_ANY_MAILBOX,
        unread_only={"type": "boolean", "description": "Only unread email."},
        within_hours={"type": ["integer", "null"], "description": "Only the last so many hours; null: all."},
        subject_contains={"type": ["string", "null"], "description": "Words of the subject; null: any."},
    ),
    _tool(
        "read_email",
        "Read one email with its text; marks it as read.",
        mailbox_id=_MAILBOX,
        email_id=_EMAIL,
    ),
    _tool(
        "get_thread",
        "List a thread's emails of both directions, without their texts.",
        mailbox_id=_MAILBOX,
        thread_id={"type": "string", "description": "A thread's id, as a listing shows it."},
    ),
    _tool(
        "search_contacts",
        "Search the address book by name or address.",
        query={"type": "string", "description": "A part of the name or address."},
    ),
    _tool("list_pending", "List the emails that wait for a human's approval.", mailbox_id=_ANY_MAILBOX),
    _tool(
        "send_email",
        "Submit a new email, which then waits for approval. Its recipient must be an address that the "
        "operator wrote, or a contact's.",
        mailbox_id=_MAILBOX,
        to={"type": "string", "description": "One bare address."},
        subject={"type": "string", "description": "One line."},
        markdown=_MARKDOWN,
    ),
    _tool(
        "reply_email",
        "Submit a reply to a received email's sender, which then waits for approval.",
        mailbox_id=_MAILBOX,
        email_id=_EMAIL,
        markdown=_MARKDOWN,
    ),
)
_TOOLS_BY_NAME = {tool.name: tool for tool in TOOLS}


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool call came to. `text` is for the model; ids are those that the service knows.

    "invalid": no such tool, mailbox or arguments; "failed": the service could not do it.
    """

    tool: str
    state: Literal["ok", "invalid", "failed", "submitted", "refused", "in_doubt"]
    text: str
    reason: str = ""
    mailbox_id: str | None = None
    email_id: str | None = None
    sent: SendResult | None = None


class _InvalidCallError(Exception):
    """The model asked for something that there is not. Its text is for the model and names no content."""


@dataclass(slots=True)
class Toolbox:
    """The tools for one question. `reach` holds the mailboxes that they may touch, by id.

    `shown` collects every text of others that the model was shown.
    """

    multimail: MultiMailReader
    clock: Callable[[], datetime]
    reach: Mapping[str, Mailbox]
    outbox: Outbox
    shown: list[str] = field(default_factory=list)

    def call(self, wanted: ToolCall) -> ToolResult:
        """Call a tool. Raises ConfigurationError; any other failure is a result that says so."""
        if wanted.name not in _TOOLS_BY_NAME:
            return _say("unknown", "invalid", f"Unknown tool. Use one of: {', '.join(_TOOLS_BY_NAME)}.")
        try:
            arguments = parse_arguments(_TOOLS_BY_NAME[wanted.name], wanted.arguments)
            if arguments.get("mailbox_id") is not None and arguments["mailbox_id"] not in self.reach:
                problem = f"mailbox_id is none of the mailboxes: {', '.join(self.reach)}."
                return _say(wanted.name, "invalid", problem)
            result: ToolResult = getattr(self, f"_{wanted.name}")(**arguments)
        except _InvalidCallError as error:
            return _say(wanted.name, "invalid", str(error))
        except (PermanentError, TransientError) as error:
            return _say(wanted.name, "failed", f"The mail service could not do this: {error}")
        return result

    def _check_inbox(
        self,
        mailbox_id: str | None,
        unread_only: bool,
        within_hours: int | None,
        subject_contains: str | None,
    ) -> ToolResult:
        since = None
        if within_hours is not None:
            since = self.clock() - timedelta(hours=min(max(within_hours, 0), LONGEST_LOOK_BACK_HOURS))
        found = [
            (box, summary)
            for box in self._select(mailbox_id)
            for summary in islice(
                self.multimail.list_emails(
                    box,
                    direction="inbound",
                    status="unread" if unread_only else None,
                    date_after=since,
                    subject_contains=subject_contains or None,
                ),
                MAX_LISTED,
            )
        ]
        found.sort(key=lambda item: item[1].received_at, reverse=True)
        return self._show_summaries("check_inbox", found[:MAX_LISTED], mailbox_id)

    def _read_email(self, mailbox_id: str, email_id: str) -> ToolResult:
        email = self.multimail.get_email(mailbox_id, email_id)
        fields = {
            "mailbox_id": mailbox_id,
            "email_id": email.id,
            "thread_id": email.thread_id or "",
            "from": email.sender,
            "to": ", ".join(email.to),
            "subject": email.subject,
            "received": _format_time(email.received_at),
            "status": email.status,
            "attachments": ", ".join(file.name for file in email.attachments),
        }
        text = f"{_format_fields(fields)}\nBody:\n{email.markdown.strip()}"
        line = fit_untrusted(text, MAX_EMAIL_TOKENS)
        self.outbox.note_read(email, unescape_untrusted(line))
        return self._show("read_email", [line], mailbox_id, email.id)

    def _get_thread(self, mailbox_id: str, thread_id: str) -> ToolResult:
        emails = self.multimail.get_thread(mailbox_id, thread_id)[-MAX_LISTED:]
        return self._show_summaries("get_thread", [(mailbox_id, email) for email in emails], mailbox_id)

    def _search_contacts(self, query: str) -> ToolResult:
        found = self.multimail.search_contacts(query)[:MAX_LISTED]
        fields = [{"name": contact.name, "address": contact.address} for contact in found]
        return self._show("search_contacts", [_fit_item(item) for item in fields])

    def _list_pending(self, mailbox_id: str | None) -> ToolResult:
        found = [
            (box, summary)
            for box in self._select(mailbox_id)
            for direction, status in PENDING
            for summary in islice(
                self.multimail.list_emails(box, direction=direction, status=status), MAX_LISTED
            )
        ]
        return self._show_summaries("list_pending", found[:MAX_LISTED], mailbox_id)

    def _send_email(self, mailbox_id: str, to: str, subject: str, markdown: str) -> ToolResult:
        sent = self.outbox.send(mailbox_id, to, subject, markdown)
        return _show_sent("send_email", sent, mailbox_id, sent.email_id)

    def _reply_email(self, mailbox_id: str, email_id: str, markdown: str) -> ToolResult:
        email = self.multimail.get_email(mailbox_id, email_id)
        return _show_sent("reply_email", self.outbox.reply(mailbox_id, email, markdown), mailbox_id, email.id)

    def _select(self, mailbox_id: str | None) -> Sequence[str]:
        return list(self.reach) if mailbox_id is None else [mailbox_id]

    def _show_summaries(
        self, tool: str, found: Sequence[tuple[str, EmailSummary]], mailbox_id: str | None
    ) -> ToolResult:
        lines = [_fit_item(_describe(box, email)) for box, email in found]
        for (_, email), line in zip(found, lines, strict=True):
            self.outbox.note_read(email, unescape_untrusted(line))
        return self._show(tool, lines, mailbox_id)

    def _show(
        self, tool: str, lines: Sequence[str], mailbox_id: str | None = None, email_id: str | None = None
    ) -> ToolResult:
        self.shown += [unescape_untrusted(line) for line in lines]
        text = build_documents(lines) if lines else "Nothing was found."
        return ToolResult(tool, "ok", text, mailbox_id=mailbox_id, email_id=email_id)


def find_reach(mailboxes: MailboxDirectory, wanted: Sequence[str]) -> Mapping[str, Mailbox]:
    """The mailboxes that the tools may touch: those that are answered.

    Raises ConfigurationError when that leaves none.
    """
    reach = select_mailboxes(mailboxes.read(), wanted)
    if not reach:
        raise ConfigurationError(
            "The account has no mailbox to ask about: create one in MultiMail's dashboard, or correct "
            "MULTIMAIL_MAILBOX_IDS."
        )
    return reach


def parse_arguments(tool: Tool, text: str) -> dict[str, Any]:
    """Read what the model wrote as a tool's arguments.

    A strict schema should have kept it right, but not where several tools are asked for at once.
    """
    try:
        value = json.loads(text) if len(text) <= MAX_ARGUMENT_CHARACTERS else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _InvalidCallError(
            f"The arguments must be a JSON object of {MAX_ARGUMENT_CHARACTERS} characters at most."
        )
    properties: Mapping[str, Any] = tool.parameters["properties"]
    if value.keys() != properties.keys():
        raise _InvalidCallError(f"The arguments must be exactly these: {', '.join(properties)}.")
    for name, schema in properties.items():
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if type(value[name]) not in [_TYPES[kind] for kind in types]:  # exactly, because True is an int too
            raise _InvalidCallError(f"{name} must be of the type {' or '.join(types)}.")
    # JSON can carry lone surrogates, which no request can.
    return {
        name: given.encode("utf-8", "replace").decode() if isinstance(given, str) else given
        for name, given in value.items()
    }


def _describe(mailbox_id: str, email: EmailSummary) -> dict[str, str]:
    return {
        "mailbox_id": mailbox_id,
        "email_id": email.id,
        "thread_id": email.thread_id or "",
        "direction": email.direction,
        "from": email.sender,
        "to": ", ".join(email.to),
        "subject": email.subject,
        "received": _format_time(email.received_at),
        "status": email.status,
    }


def _fit_item(fields: Mapping[str, str]) -> str:
    return fit_untrusted(_format_fields(fields), MAX_ITEM_TOKENS)


def _format_fields(fields: Mapping[str, str]) -> str:
    """A field a line; no value can forge another field, because it has no line breaks of its own."""
    return "\n".join(f"{name}: {clean_line(value, MAX_FIELD_CHARACTERS)}" for name, value in fields.items())


def _format_time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _show_sent(tool: str, sent: SendResult, mailbox_id: str, email_id: str | None) -> ToolResult:
    if sent.state == "submitted":
        text = f"Accepted as {sent.email_id}, status {sent.status}. Do not repeat it."
    elif sent.state == "refused":
        text = f"Refused, nothing was sent: {sent.reason}."
    else:
        text = f"No answer came: {sent.reason}. Do not repeat it."
    return ToolResult(tool, sent.state, text, sent.reason, mailbox_id, email_id, sent)


def _say(tool: str, state: Literal["invalid", "failed"], text: str) -> ToolResult:
    return ToolResult(tool, state, text, reason=text)
