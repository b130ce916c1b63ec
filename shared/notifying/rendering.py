"""What a target is sent: an Adaptive Card for Teams, blocks for Slack, JSON for any other endpoint.

Texts of senders go into fields that their target shows as they are: a mark, a mention or a link in them is
no more than its characters.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from shared.notifying.messages import HEADINGS, Item, Message

# https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/add-incoming-webhook
MAX_TEAMS_BYTES = 28 * 1024
CARD_SCHEMA, CARD_VERSION = "http://adaptivecards.io/schemas/adaptive-card.json", "1.5"
# https://docs.slack.dev/reference/block-kit/blocks
MAX_SLACK_HEADER, MAX_SLACK_TEXT, MAX_SLACK_BLOCKS = 150, 3_000, 50
MAX_SLACK_BYTES = 100_000  # far more than its limits of blocks and texts come to

Json = dict[str, Any]


def render(target: str, message: Message) -> bytes:
    """The body for a target, whose name begins with what it is; what does not fit is counted instead."""
    build, limit = _KINDS[target.partition("-")[0]]
    shown: Message | None = message
    while shown is not None:
        body = json.dumps(build(shown), ensure_ascii=False).encode()
        if len(body) <= limit:
            break
        shown = shown.shortened()
    return body


def build_card(message: Message) -> Json:
    """The message of a Teams workflow. A text run knows no Markdown, unlike a text block."""
    body = [_rich_text(_run(message.title, size="Medium", weight="Bolder"))]
    for section in message.sections:
        body.append(_rich_text(_run(HEADINGS[section.topic], weight="Bolder"), separator=True))
        for item in section.items:
            origin = [_run(f" {item.origin}", isSubtle=True)] if item.origin else []
            body.append(_rich_text(_run(f"{item.email_id} ", weight="Bolder"), _run(item.text), *origin))
        body += [_rich_text(_run(line)) for line in (*section.lines, section.rest) if line]
    card = {"type": "AdaptiveCard", "$schema": CARD_SCHEMA, "version": CARD_VERSION, "body": body}
    attachment = {
        "contentType": "application/vnd.microsoft.card.adaptive",
        "contentUrl": None,
        "content": card,
    }
    return {"type": "message", "attachments": [attachment]}


def _run(text: str, **style: Any) -> Json:
    return {"type": "TextRun", "text": text, **style}


def _rich_text(*runs: Json, **style: Any) -> Json:
    return {"type": "RichTextBlock", "inlines": list(runs), **style}


def build_blocks(message: Message) -> Json:
    """The message of a Slack webhook. Plain text knows no mark-up; `text` is what a notification shows."""
    blocks: list[Json] = [{"type": "header", "text": _plain(message.title, MAX_SLACK_HEADER)}]
    for section in message.sections:
        blocks.append({"type": "divider"})
        texts = [HEADINGS[section.topic]]
        texts += ["\n".join(filter(None, (f"{i.email_id} {i.text}", i.origin))) for i in section.items]
        texts += ["\n".join(filter(None, (*section.lines, section.rest)))]
        blocks += [{"type": "section", "text": _plain(text, MAX_SLACK_TEXT)} for text in texts if text]
    # The three characters that control its marks: https://docs.slack.dev/messaging/formatting-message-text
    text = message.title.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return {"text": text, "blocks": blocks[:MAX_SLACK_BLOCKS]}


def _plain(text: str, limit: int) -> Json:
    shown = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return {"type": "plain_text", "text": shown, "emoji": False}


def build_json(message: Message) -> Json:
    """The message as facts for programs."""
    return {
        "id": message.id,
        "mailbox_id": message.mailbox_id,
        "mailbox": message.mailbox,
        "sent_at": message.sent_at.isoformat(),
        "title": message.title,
        "sections": [
            {
                "topic": section.topic,
                "lines": section.lines,
                "more": section.more,
                "items": [_build_facts(item) for item in section.items],
            }
            for section in message.sections
        ],
    }


def _build_facts(item: Item) -> Json:
    facts = {
        "email_id": item.email_id,
        "outcome": item.outcome,
        "reason": item.reason,
        "since": item.moment.isoformat(),
        "category": item.category,
        "urgency": item.urgency,
        "escalate_to": item.escalate_to,
        "sender": item.sender,
        "subject": item.subject,
    }
    return {name: value for name, value in facts.items() if value}


_KINDS: Mapping[str, tuple[Callable[[Message], Json], int]] = {
    "teams": (build_card, MAX_TEAMS_BYTES),
    "slack": (build_blocks, MAX_SLACK_BYTES),
    "json": (build_json, MAX_SLACK_BYTES),
}
