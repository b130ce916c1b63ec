"""What the simulated model does with tools: one plausible call after another, then an answer."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from local.model.chat_rules import read_documents
from shared.operator.ask_tools import MAX_LISTED

HOURS_OF_A_DAY = 24
SHOWN_LINES = 10
SUMMARY_CHARACTERS = 300

Messages = Sequence[Mapping[str, Any]]

_FIELD = re.compile(r"^([a-z_]+): (.*)$", re.MULTILINE)
_MAILBOX = re.compile(r"^- (\S+): ", re.MULTILINE)
_ADDRESS = r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
_SEND = re.compile(rf"\b(?:send|write|email)\b.*?({_ADDRESS})\W+(?:saying |that |: ?)?(.+)", re.I | re.S)
_REPLY = re.compile(r"\breply to the (?:email|mail|message) about (.+?): ?(.+)", re.I | re.S)
_ABOUT = re.compile(r"\b(?:email|mail|message|thread)s? (?:about|on|named) [\"“]?([^\"”?.!\n]+)", re.I)
_PENDING = re.compile(r"\b(?:approv\w+|pending|waits?|waiting)\b", re.I)
_CONTACT = re.compile(r"\b(?:contacts?|address) (?:of|for|named) ([^?.!\n]+)|\bwho is ([^?.!\n]+)", re.I)


@dataclass(frozen=True, slots=True)
class WantedCall:
    """A tool that the simulated model asks for."""

    name: str
    arguments: Mapping[str, Any]


def build_tool_turn(messages: Messages) -> WantedCall | str:
    """The next call that the operator's question needs, or the answer once there is nothing left to call."""
    question = next(str(m["content"]) for m in reversed(messages) if m.get("role") == "user")
    called = [call["function"]["name"] for message in messages for call in message.get("tool_calls") or ()]
    found = [_read_fields(document) for document in parse_tool_documents(messages)]
    if not called:
        return _choose_first(question, str(messages[0]["content"]))
    if called == ["check_inbox"] and found and (reply := _REPLY.search(question)):
        return WantedCall("reply_email", _ids(found[0]) | {"markdown": reply[2].strip()})
    if called == ["check_inbox"] and found and _ABOUT.search(question):
        return WantedCall("read_email", _ids(found[0]))
    if called[-1] in ("send_email", "reply_email"):
        return f"I asked for it to be sent. The service's answer: {messages[-1]['content']}"
    return _summarise(found[-1]) if called[-1] == "read_email" and found else _list(called[-1], found)


def parse_tool_documents(messages: Messages) -> list[str]:
    """The documents of every tool result."""
    results = [str(message.get("content")) for message in messages if message.get("role") == "tool"]
    return [document for result in results for document in read_documents(result)]


def _choose_first(question: str, system: str) -> WantedCall:
    if reply := _REPLY.search(question):
        return _check_inbox(subject=reply[1])
    if send := _SEND.search(question):
        mailbox = _MAILBOX.search(system)
        return WantedCall(
            "send_email",
            {
                "mailbox_id": mailbox[1] if mailbox else "",
                "to": send[1],
                "subject": "A note",
                "markdown": send[2].strip(),
            },
        )
    if about := _ABOUT.search(question):
        return _check_inbox(subject=about[1].strip())
    if _PENDING.search(question):
        return WantedCall("list_pending", {"mailbox_id": None})
    if contact := _CONTACT.search(question):
        return WantedCall("search_contacts", {"query": (contact[1] or contact[2]).strip()})
    return _check_inbox(hours=HOURS_OF_A_DAY)


def _check_inbox(*, subject: str | None = None, hours: int | None = None) -> WantedCall:
    return WantedCall(
        "check_inbox",
        {"mailbox_id": None, "unread_only": False, "within_hours": hours, "subject_contains": subject},
    )


def _ids(fields: Mapping[str, str]) -> dict[str, str]:
    return {name: fields.get(name, "") for name in ("mailbox_id", "email_id")}


def _read_fields(document: str) -> dict[str, str]:
    head, _, body = document.partition("\nBody:\n")
    return dict(_FIELD.findall(head)) | {"body": body}


def _summarise(email: Mapping[str, str]) -> str:
    body = " ".join(email["body"].split())[:SUMMARY_CHARACTERS]
    return f"“{email.get('subject', '')}” from {email.get('from', '')}: {body}"


def _list(tool: str, found: Sequence[Mapping[str, str]]) -> str:
    what = {"list_pending": "waiting for approval", "search_contacts": "in the contacts"}.get(tool, "found")
    if not found:
        return f"There is nothing {what}."
    lines = [
        "- " + ", ".join(f[name] for name in ("subject", "name", "from", "address", "status") if f.get(name))
        for f in found[:SHOWN_LINES]
    ]
    more = f"\nand {len(found) - SHOWN_LINES} more" if len(found) > SHOWN_LINES else ""
    count = f"At least {MAX_LISTED}" if len(found) == MAX_LISTED else str(len(found))  # a tool lists no more
    return f"{count} {what}:\n" + "\n".join(lines) + more
