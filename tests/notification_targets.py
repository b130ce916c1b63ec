"""Targets of notifications on this machine, which refuse what Teams and Slack would not take."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from werkzeug import Request, Response

from local.host.http_server import LoopbackServer

TEAMS_BYTES = 28 * 1024
CARD = {
    "type": {"AdaptiveCard"}, "$schema": str, "version": {"1.5"}, "body": list,
}  # fmt: skip
RICH_TEXT = {"type": {"RichTextBlock"}, "inlines": list, "separator": bool}
TEXT_RUN = {
    "type": {"TextRun"}, "text": str, "size": {"Small", "Default", "Medium", "Large"},
    "weight": {"Lighter", "Default", "Bolder"}, "isSubtle": bool,
}  # fmt: skip
# https://docs.slack.dev/reference/block-kit/blocks
SLACK_BLOCKS, SLACK_HEADER, SLACK_TEXT, SLACK_FALLBACK = 50, 150, 3_000, 4_000


class Target(LoopbackServer):
    """A webhook that keeps what it accepted. `answer` decides before `refuse` looks at the body."""

    def __init__(self, refuse: Callable[[Any, int], str] = lambda _body, _size: "") -> None:
        self.accepted: list[Any] = []
        self.bodies: list[bytes] = []
        self.headers: list[Mapping[str, str]] = []
        self.requests = 0
        self.refusals: list[str] = []
        self.answer: Callable[[], Response | None] = lambda: None
        self._refuse = refuse
        super().__init__(self._receive)

    def _receive(self, environ: Any, start_response: Any) -> Any:
        request = Request(environ)
        self.requests += 1
        body = request.get_data()
        answer = self.answer()
        if answer is None:
            value = json.loads(body)
            refusal = self._refuse(value, len(body))
            if refusal:
                self.refusals.append(refusal)
                answer = Response(refusal, 400)
            else:
                self.accepted.append(value)
                self.bodies.append(body)
                self.headers.append(dict(request.headers))
                answer = Response("ok", 202)
        return answer(environ, start_response)

    @property
    def address(self) -> str:
        """An address as a workflow has it, whose signature must not show anywhere."""
        return f"{self.url}/workflows/1?sig=SECRET-OF-THE-ADDRESS"


def refuse_as_teams(body: Any, size: int) -> str:
    """What is wrong with the body of a workflow's webhook: the envelope, the card or its size."""
    if size > TEAMS_BYTES:
        return f"{size} bytes"
    attachments = body.get("attachments", [])
    if body.get("type") != "message" or len(attachments) != 1:
        return "not a message with one attachment"
    if attachments[0].get("contentType") != "application/vnd.microsoft.card.adaptive":
        return "not a card"
    return refuse_card(attachments[0]["content"])


def refuse_card(card: Any) -> str:
    """What the schema of Adaptive Cards 1.5 does not have, of the elements that the agent uses."""
    problems = _judge(card, CARD, ("type", "version", "body"))
    for element in card.get("body", []):
        problems += _judge(element, RICH_TEXT, ("type", "inlines"))
        for run in element.get("inlines", []):
            problems += _judge(run, TEXT_RUN, ("type", "text"))
    return "; ".join(problems)


def _judge(value: Any, shape: Mapping[str, Any], required: tuple[str, ...]) -> list[str]:
    problems = [f"{name} is missing" for name in required if name not in value]
    for name, inner in value.items():
        allowed = shape.get(name)
        if allowed is None:
            problems.append(f"unknown {name}")
        elif isinstance(allowed, set) and inner not in allowed:
            problems.append(f"{name} {inner!r}")
        elif isinstance(allowed, type) and not isinstance(inner, allowed):
            problems.append(f"{name} is no {allowed.__name__}")
    return problems


def refuse_as_slack(body: Any, _size: int) -> str:
    """What is wrong with the body of an incoming webhook, by Slack's documented limits."""
    blocks = body.get("blocks", [])
    if not body.get("text") or len(body["text"]) > SLACK_FALLBACK:
        return "invalid text"
    if not 0 < len(blocks) <= SLACK_BLOCKS:
        return f"{len(blocks)} blocks"
    for block in blocks:
        limit = {"header": SLACK_HEADER, "section": SLACK_TEXT, "divider": 0}.get(block["type"], -1)
        text = block.get("text", {"type": "plain_text", "text": ""})
        if limit < 0 or len(text["text"]) > limit or (limit and not text["text"]):
            return f"invalid_blocks: {block['type']}"
        if block["type"] == "header" and text["type"] != "plain_text":
            return "invalid_blocks: header"
    return ""


def read_text(body: Any) -> str:
    """All that a person reads of a notification, whatever its target."""
    if "attachments" in body:
        elements = body["attachments"][0]["content"]["body"]
        return "\n".join("".join(run["text"] for run in element["inlines"]) for element in elements)
    if "blocks" in body:
        return "\n".join(block["text"]["text"] for block in body["blocks"] if "text" in block)
    return json.dumps(body)
