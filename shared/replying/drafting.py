"""Drafting: the second chat completion, which writes the reply that a human will be asked to approve."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC
from typing import Any

from shared.domain import ModelText, Rejection
from shared.knowledge.passages import Passage
from shared.model.answers import parse_answer
from shared.model.chat import ChatCompletion, ChatRequest
from shared.model.prompting import (
    build_documents,
    clean_line,
    clean_sentence,
    fit_untrusted,
    load_prompt,
    unescape_untrusted,
)
from shared.profiles.profiles import NO_PROFILE, MailboxProfile
from shared.replying.threads import ThreadText

# Characters of escaped text in the prompt, so that a call stays bounded whatever arrives.
MAX_EMAIL_CHARACTERS = 6_000
MAX_CONTEXT_EMAIL_CHARACTERS = 1_500
MAX_PASSAGE_CHARACTERS = 1_000
MAX_KNOWLEDGE_CHARACTERS = 2_000
MAX_PASSAGES = 3
MAX_HEADER_CHARACTERS = 200
MAX_OUTPUT_TOKENS = 800
MAX_UNANSWERED = 5
ATTEMPTS = 2

SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["reply_markdown", "confidence", "unanswered"],
    "properties": {
        "reply_markdown": {"type": "string"},
        "confidence": {"type": "number"},
        "unanswered": {"type": "array", "items": {"type": "string"}},
    },
}


@dataclass(frozen=True, slots=True)
class DraftText:
    """What the model wrote; nothing of it has been checked."""

    reply_markdown: str
    confidence: float
    unanswered: tuple[ModelText, ...]
    model: str = ""


def draft_reply(
    thread: Sequence[ThreadText],
    answered_id: str,
    mailbox_address: str,
    complete: Callable[[ChatRequest], ChatCompletion],
    *,
    deployment: str,
    profile: MailboxProfile = NO_PROFILE,
    passages: Sequence[Passage] = (),
    rejections: Sequence[Rejection] = (),
) -> DraftText | None:
    """Ask for a reply to the email `answered_id` of the thread; None when the answer cannot be read twice.

    `passages`: what the reply may say besides the thread, best first. `rejections`: the earlier drafts that
    a reviewer rejected, with the reasons to heed now. Raises what `ChatModel.complete` raises.
    """
    request = build_draft_request(
        thread, answered_id, mailbox_address, deployment,
        profile=profile, passages=passages, rejections=rejections,
    )  # fmt: skip
    for _ in range(ATTEMPTS):
        completion = complete(request)
        try:
            return replace(parse_draft(completion.text), model=completion.model)
        except (ValueError, RecursionError):  # the latter from JSON that is nested too deep
            continue
    return None


def build_draft_request(
    thread: Sequence[ThreadText],
    answered_id: str,
    mailbox_address: str,
    deployment: str,
    *,
    profile: MailboxProfile = NO_PROFILE,
    passages: Sequence[Passage] = (),
    rejections: Sequence[Rejection] = (),
) -> ChatRequest:
    """The drafting call for one email of a thread, the thread in the order of arrival.

    A reviewer's reason is an instruction; the draft that it speaks of is data, as a model wrote it from mail.
    """
    lines = _documents(thread, answered_id)
    number = next(n for n, text in enumerate(_ordered(thread), 1) if text.email_id == answered_id)
    drafts = [
        fit_untrusted(
            f"Draft {n}, rejected by a colleague\nBody:\n{rejection.reply_markdown}",
            MAX_CONTEXT_EMAIL_CHARACTERS,
        )
        for n, rejection in enumerate(rejections, 1)
    ]
    reasons = "".join(
        f"\nA colleague rejected draft {n} and said what to change: {rejection.reason}"
        for n, rejection in enumerate(rejections, 1)
    )
    # The approved passages, one escaped passage a line: trusted, but none may close the block.
    approved = _fit_passages(passages)
    knowledge = "\n".join(("<knowledge>", *approved, "</knowledge>", "")) if approved else ""
    return ChatRequest(
        deployment=deployment,
        system=build_draft_instructions(mailbox_address, profile) + reasons,
        user=(
            f"{knowledge}{build_documents(lines + drafts)}\n"
            f"Write the reply to email {number} of {len(lines)}."
        ),
        schema_name="draft",
        schema=SCHEMA,
        max_output_tokens=MAX_OUTPUT_TOKENS,
    )


def build_draft_instructions(mailbox_address: str, profile: MailboxProfile = NO_PROFILE) -> str:
    """The trusted part: what all mailboxes share comes first, so that the service can cache it."""
    instructions = f"{load_prompt('draft')}\n\nThe mailbox you write for: {mailbox_address}"
    return "\n".join(filter(None, (instructions, profile.build_draft_part())))


def sign_reply(reply_markdown: str, signature: str) -> str:
    """The reply with the signature under it, once: one that already has it stays as it is."""
    own, lines = _visible_lines(signature), _visible_lines(reply_markdown)
    if any(lines[i : i + len(own)] == own for i in range(len(lines))):
        return reply_markdown
    # Two spaces end a line in Markdown; without them the signature would run together.
    return "\n\n".join(filter(None, (reply_markdown, "  \n".join(own))))


def _visible_lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def parse_draft(text: str) -> DraftText:
    """Read the model's answer. Raises ValueError when it does not keep the schema."""
    value = parse_answer(text)
    if not isinstance(value, dict):
        raise ValueError("the draft is not an object")  # noqa: TRY004 - one error for any bad answer
    reply, confidence = value.get("reply_markdown"), value.get("confidence")
    unanswered = value.get("unanswered", [])
    if isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0 <= confidence <= 1:
        raise ValueError("the draft's confidence is not a number from 0 to 1")
    if not isinstance(unanswered, list) or not all(isinstance(part, str) for part in unanswered):
        raise ValueError("the draft's unanswered questions are not a list of texts")
    if not isinstance(reply, str):
        raise ValueError("the draft's text is not a text")  # noqa: TRY004 - one error for any bad draft
    return DraftText(
        reply_markdown=reply.strip(),
        confidence=float(confidence),
        unanswered=tuple(
            ModelText(clean_sentence(part, MAX_HEADER_CHARACTERS)) for part in unanswered[:MAX_UNANSWERED]
        ),
    )


def build_shown_texts(
    thread: Sequence[ThreadText], answered_id: str, passages: Sequence[Passage] = ()
) -> tuple[str, ...]:
    """The texts of thread and passages exactly as far as the drafting call shows them to the model."""
    lines = (*_documents(thread, answered_id), *_fit_passages(passages))
    return tuple(unescape_untrusted(line) for line in lines)


def _fit_passages(passages: Sequence[Passage]) -> list[str]:
    """The best passages, each bounded, as many as have room together."""
    lines: list[str] = []
    for passage in passages[:MAX_PASSAGES]:
        line = fit_untrusted(f"{passage.title}\n{passage.text.strip()}", MAX_PASSAGE_CHARACTERS)
        if sum(map(len, lines)) + len(line) > MAX_KNOWLEDGE_CHARACTERS:
            break
        lines.append(line)
    return lines


def _ordered(thread: Sequence[ThreadText]) -> list[ThreadText]:
    return sorted(thread, key=lambda text: text.received_at)


def _documents(thread: Sequence[ThreadText], answered_id: str) -> list[str]:
    return [
        fit_untrusted(
            f"Email {n}, {'sent by us' if text.is_ours else 'received'}"
            f" {text.received_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC\n"
            f"From: {clean_line(text.sender, MAX_HEADER_CHARACTERS)}\n"
            f"Subject: {clean_line(text.subject, MAX_HEADER_CHARACTERS)}\n"
            f"Body:\n{text.markdown.strip()}",
            MAX_EMAIL_CHARACTERS if text.email_id == answered_id else MAX_CONTEXT_EMAIL_CHARACTERS,
        )
        for n, text in enumerate(_ordered(thread), 1)
    ]
