"""Triage: the first chat completion, which says what to do with an inbound email."""

import html
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from shared.domain import NO_MODEL_TEXT, Action, Cause, Email, ModelText, Sentiment, Triage, Urgency
from shared.knowledge.words import fold
from shared.model.answers import parse_answer
from shared.model.chat import ChatCompletion, ChatRequest
from shared.model.prompting import (
    build_documents,
    clean_line,
    clean_sentence,
    clean_text,
    fit_untrusted,
    load_prompt,
    text_version,
)
from shared.profiles.profiles import CATEGORIES, NO_PROFILE, OTHER_CATEGORY, MailboxProfile

# Characters of escaped email in the prompt: with instructions, schema and answer the call stays under
# 1,000 tokens (4 characters a token) where no profile adds to it, whatever the size of the email.
MAX_EMAIL_CHARACTERS = 1_400
MAX_HEADER_CHARACTERS = 120
MAX_SEARCHED_CHARACTERS = 20_000
MAX_OUTPUT_TOKENS = 200
MAX_SENTENCE_CHARACTERS = 200
ATTEMPTS = 2

# An email that speaks to whatever sorts it wants to be sorted its way: it may not talk itself out of sight.
_SPEAKS_TO_TRIAGE = re.compile(
    r"\b(?:set|classify|mark|treat|label|categori[sz]e|sort|file)\s+"
    r"(?:this|that|these|it|me|my|the|all|action|triage|category|priority)\b[^.;!?]{0,60}"
    r"(?<!not )\b(?:ignored?|spam|no action|low priority)\b"
    r"|\baction\W{1,4}(?:to |is |be )?\W?ignore"
    r"|\b(?:skip|drop|discard|ignore) (?:this|it|me)\b.{0,40}\bsilently"
    r"|\bdo not\b.{0,30}\b(?:show|forward|escalate|report|notify|alert)\b.{0,60}"
    r"\b(?:human|person|anyone|staff|team)"
    r"|\bignore (?:all |any |the )?(?:previous|prior|above|your) (?:instructions|rules)"
    r"|\b(?:als|auf)\W{1,3}ignore|stillschweigend|(?:keinem|niemandem)\b.{0,40}\b(?:zeigen|melden|weiterleiten)"
    r"|無視(?:して|する|に分類)|人間に(?:は)?(?:見せ|知らせ)",
    re.IGNORECASE,
)

# What Markdown writes between the words of a phrase, or inside them, without a reader seeing it.
_BREAK_TAG = re.compile(r"<br\s*/?>|</(?:p|div|li|t[dh])>", re.IGNORECASE)
_MARKS = re.compile(
    r"^[ \t]*(?:(?:>|#{1,6}|[-+*])[ \t]*)+"  # at the beginning of a line
    r"|\]\([^()\s]*\)|[][*_~`\\]"  # a link's target; emphasis, code, escapes
    r"|</?[a-z][a-z0-9]*(?:\s[^<>]*)?/?>",
    re.IGNORECASE | re.MULTILINE,
)


def triage_email(
    email: Email,
    complete: Callable[[ChatRequest], ChatCompletion],
    *,
    deployment: str,
    min_confidence: float,
    profile: MailboxProfile = NO_PROFILE,
) -> Triage:
    """Ask what to do with an email. What cannot be read twice, or is too unsure, is escalated, never ignored.

    What the mailbox's profile says about categories and words counts more than the model's action.
    Raises what `ChatModel.complete` raises.
    """
    request = build_triage_request(email, deployment, profile)
    for _ in range(ATTEMPTS):
        completion = complete(request)
        try:
            triage = parse_triage(completion.text, profile.category_names)
        except (ValueError, RecursionError):  # the latter from JSON that is nested too deep
            continue
        triage = replace(triage, model=completion.model, prompt_version=text_version(request.system))
        return _apply_rules(triage, email, min_confidence, profile)
    return Triage(
        Action.ESCALATE, OTHER_CATEGORY, Urgency.NORMAL, Sentiment.NEUTRAL, 0.0,
        summary=NO_MODEL_TEXT, reason=NO_MODEL_TEXT, cause=Cause.TRIAGE_UNREADABLE,
    )  # fmt: skip


def build_triage_request(email: Email, deployment: str, profile: MailboxProfile = NO_PROFILE) -> ChatRequest:
    """The triage call for one email: the instructions for all, then the mailbox's own, then the email."""
    own = profile.build_triage_part()
    attachments = ", ".join(file.name for file in email.attachments) or "none"
    text = (
        f"From: {clean_line(email.sender, MAX_HEADER_CHARACTERS)}\n"
        f"To: {clean_line(', '.join(email.to), MAX_HEADER_CHARACTERS)}\n"
        f"Cc: {clean_line(', '.join(email.cc), MAX_HEADER_CHARACTERS) or 'nobody'}\n"
        f"Subject: {clean_line(email.subject, MAX_HEADER_CHARACTERS)}\n"
        f"Attachments: {clean_line(attachments, MAX_HEADER_CHARACTERS)}\n"
        f"Body:\n{email.markdown.strip()}"
    )
    schema = {
        "type": "object",
        "additionalProperties": False,
        "required": ["action", "category", "urgency", "sentiment", "confidence", "summary", "reason"],
        "properties": {
            "action": {"type": "string", "enum": [str(value) for value in Action]},
            "category": {"type": "string", "enum": list(profile.category_names)},
            "urgency": {"type": "string", "enum": [str(value) for value in Urgency]},
            "sentiment": {"type": "string", "enum": [str(value) for value in Sentiment]},
            "confidence": {"type": "number"},
            "summary": {"type": "string"},
            "reason": {"type": "string"},
        },
    }
    return ChatRequest(
        deployment=deployment,
        system="\n\n".join(filter(None, (load_prompt("triage"), own))),
        user=build_documents([fit_untrusted(text, MAX_EMAIL_CHARACTERS)]),
        schema_name="triage",
        schema=schema,
        max_output_tokens=MAX_OUTPUT_TOKENS,
    )


def parse_triage(text: str, categories: Sequence[str] = CATEGORIES) -> Triage:
    """Read the model's answer. Raises ValueError when action or confidence cannot be read.

    Only these two decide anything; whatever else is missing or unknown gets the plain value.
    """
    value = parse_answer(text)
    if not isinstance(value, dict):
        raise ValueError("the triage is not an object")  # noqa: TRY004 - one error for any bad answer
    confidence = value.get("confidence")
    if isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0 <= confidence <= 1:
        raise ValueError("the triage's confidence is not a number from 0 to 1")
    return Triage(
        action=Action(str(value.get("action"))),
        category=_one_of(categories, value.get("category"), OTHER_CATEGORY),
        urgency=Urgency(_one_of(tuple(Urgency), value.get("urgency"), Urgency.NORMAL)),
        sentiment=Sentiment(_one_of(tuple(Sentiment), value.get("sentiment"), Sentiment.NEUTRAL)),
        confidence=float(confidence),
        summary=_sentence(value.get("summary")),
        reason=_sentence(value.get("reason")),
    )


def _one_of(values: Sequence[str], value: object, default: str) -> str:
    return value if isinstance(value, str) and value in values else default


def _sentence(value: object) -> ModelText:
    return (
        ModelText(clean_sentence(value, MAX_SENTENCE_CHARACTERS)) if isinstance(value, str) else NO_MODEL_TEXT
    )


def _apply_rules(triage: Triage, email: Email, min_confidence: float, profile: MailboxProfile) -> Triage:
    """Escalating comes first; only what would have been replied to can become ignored by its category."""
    if triage.action is Action.ESCALATE:
        return triage
    if triage.category in profile.ignore_categories:
        triage = replace(triage, action=Action.IGNORE)
    escalated = replace(triage, action=Action.ESCALATE)
    if triage.category in profile.escalate_categories:
        return replace(escalated, cause=Cause.CATEGORY_RULE, detail=triage.category)
    if _has_any(profile.escalate_words, f"{email.subject}\n{email.markdown}"):
        return replace(escalated, cause=Cause.WORD_RULE)
    if triage.confidence < min_confidence:
        doubt = f"confidence in {triage.action} is {triage.confidence:.2f}, under {min_confidence:.2f}"
        return replace(escalated, cause=Cause.TRIAGE_UNSURE, detail=doubt)
    if triage.action is Action.IGNORE:
        text = " ".join(clean_text(f"{email.subject} {email.markdown[:MAX_SEARCHED_CHARACTERS]}").split())
        if _SPEAKS_TO_TRIAGE.search(text):
            return replace(escalated, cause=Cause.ADDRESSES_TRIAGE)
    return triage


def _has_any(words: Sequence[str], markdown: str) -> bool:
    """Whether one of the words is in the text as it was written, or as a reader sees it."""
    folded = [*filter(None, map(fold, words))]  # what cannot be seen would be in every text
    if not folded:
        return False
    written = html.unescape(markdown)
    shown = _MARKS.sub("", _BREAK_TAG.sub(" ", written))
    texts = (fold(written), fold(shown))
    return any(word in text for word in folded for text in texts)
