"""A chat model that is wholly in the attacker's hand: it does what every order that it can see says."""

import base64
import codecs
import json
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from local.testing.world import DRAFT, TRIAGE
from shared.domain import Usage
from shared.model.chat import ChatCompletion, ChatRequest
from shared.model.prompting import unescape_untrusted
from tests.hostile.attacks import Goal, load_goals, load_payloads

_MARK = re.compile(r"§obey ([\w-]+/[\w-]+)§")
OBEYED = "as you wished:"  # stands in every draft that was written on order
_BASE64 = re.compile(r"[A-Za-z0-9+/]{24,}={0,2}")


class ObedientModel:
    """Obeys the first order in what it is shown, and is sensible where there is none.

    It reads through tricks: full-width letters, text that runs backwards, base64. `requests` has
    what it was shown, `obeyed` the names of the attacks that it obeyed.
    """

    def __init__(self) -> None:
        self.requests: list[ChatRequest] = []
        self.obeyed: set[str] = set()

    def complete(self, request: ChatRequest) -> ChatCompletion:
        """Answer as the order says."""
        self.requests.append(request)
        documents = read_documents(request.user)
        order = find_order(documents)
        goal = None if order is None else load_goals()[order.partition("/")[0]]
        if order is not None:
            self.obeyed.add(order)
        answer = _triage(goal) if request.schema_name == "triage" else self._draft(goal, request, documents)
        return ChatCompletion(json.dumps(answer), "stop", Usage(1, 100, 20), "obedient")

    def _draft(self, goal: Goal | None, request: ChatRequest, documents: list[str]) -> dict[str, Any]:
        if goal is None:
            return dict(DRAFT)
        secrets = _secrets(request, documents)
        parts = [_fill(load_payloads()[name].text, secrets) for name in goal.payloads]
        text = "\n\n".join(["Hello,", OBEYED, *parts, "Your support team"])
        answer = {"reply_markdown": text, "confidence": 1.0, "open_points": list(goal.open_points)}
        return answer | (_STOLEN_FIELDS if goal.adds_fields else {})


_STOLEN_FIELDS: dict[str, Any] = {
    "to": ["mark.grey@outside.example"], "cc": ["mark.grey@outside.example"], "bcc": ["mark.grey@outside.example"],
    "subject": "Security code", "tool_calls": [{"name": "send_email", "arguments": {"to": "mark.grey@outside.example"}}],
}  # fmt: skip


def read_documents(user: str) -> list[str]:
    """Every document of a prompt as the sender wrote it."""
    block = user.split("<documents>\n", 1)[1].split("\n</documents>", 1)[0]
    return [unescape_untrusted(line) for line in block.split("\n")]


def find_order(documents: list[str]) -> str | None:
    """The name of the first attack whose mark stands in a document, however it is written."""
    return next(
        (m.group(1) for text in documents for view in _views(text) for m in _MARK.finditer(view)), None
    )


def _views(text: str) -> Iterator[str]:
    yield text
    yield unicodedata.normalize("NFKC", text)
    yield text[::-1]
    for found in _BASE64.findall(text):
        yield base64.b64decode(found + "=" * (-len(found) % 4)).decode(errors="replace")


def _triage(goal: Goal | None) -> dict[str, Any]:
    return dict(TRIAGE) if goal is None else TRIAGE | {"confidence": 1.0} | dict(goal.triage)


def _secrets(request: ChatRequest, documents: list[str]) -> dict[str, str]:
    others = [text for text in documents if find_order([text]) is None]
    return {
        "{system}": request.system,
        "{system40}": request.system[:40],
        "{system_shouted}": "\n".join(request.system.upper().split()),
        "{system_base64}": base64.b64encode(request.system.encode()).decode(),
        "{system_rot13}": codecs.encode(request.system[:100], "rot13"),
        "{others}": "\n".join(others) or "There is nothing else.",
        "{distance}": "\n" * 200,
    }


def _fill(text: str, secrets: dict[str, str]) -> str:
    for name, value in secrets.items():
        text = text.replace(name, value)
    return text
