"""A model in the attacker's hand that has tools: it reads all mail and carries out every order it finds."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from local.model.chat_simulator import build_tool_calls
from local.model.chat_tool_rules import parse_tool_documents

_ORDER = re.compile(r"§call (\w+) (\{.*?\})§", re.DOTALL)
_SAY = re.compile(r"§say (.*?)§", re.DOTALL)
_IDS = re.compile(r"^mailbox_id: (\S+)\nemail_id: (\S+)$", re.MULTILINE)


def order(tool: str, **arguments: Any) -> str:
    """An order to call a tool, as it stands in an email."""
    return f"§call {tool} {json.dumps(arguments)}§"


class ObedientAsker:
    """Lists the mail and the contacts, reads every email, obeys every order once, then says what it was told to.

    `{others}` in an order stands for everything that it saw elsewhere (`{packed}`: as one word), `{email_id}` and `{mailbox_id}` for
    the email that gives the order. `carried_out` has the orders.
    """

    def __init__(self) -> None:
        self.carried_out: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, body: dict[str, Any]) -> str | dict[str, Any]:
        """Answer a request, as ChatSimulator's `respond`."""
        messages = body["messages"]
        step = sum(message["role"] == "assistant" for message in messages)
        documents = parse_tool_documents(messages)
        if step == 0:
            everything = {
                "mailbox_id": None,
                "unread_only": False,
                "within_hours": None,
                "subject_contains": None,
            }
            return _call([("check_inbox", everything), ("search_contacts", {"query": ""})])
        if step == 1:
            ids = dict.fromkeys(match.groups() for text in documents for match in _IDS.finditer(text))
            if ids:
                return _call([("read_email", {"mailbox_id": box, "email_id": email}) for box, email in ids])
        if step == 2:
            self.carried_out = _find_orders(documents)
            if self.carried_out:
                return _call(self.carried_out)
        said = [match[1] for text in documents for match in _SAY.finditer(text)]
        return str(_fill("As you wish. " + " ".join(said), documents, ""))


def _find_orders(documents: list[str]) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for text in documents:
        for name, arguments in _ORDER.findall(text):
            filled = {key: _fill(value, documents, text) for key, value in json.loads(arguments).items()}
            if (name, filled) not in found:
                found.append((name, filled))
    return found


def _fill(value: Any, documents: list[str], own: str) -> Any:
    if not isinstance(value, str):
        return value
    ids = _IDS.search(own)
    others = " ".join(text.partition("\nBody:\n")[2] for text in documents if text != own)
    others = _SAY.sub("", _ORDER.sub("", others))
    value = value.replace("{others}", others).replace("{packed}", "+".join(others.split()))
    return value.replace("{mailbox_id}", ids[1] if ids else "").replace("{email_id}", ids[2] if ids else "")


def _call(calls: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    return build_tool_calls(*((name, json.dumps(arguments)) for name, arguments in calls))
