"""Triage: the first chat completion, which says what to do with an inbound email."""

import html
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC

from shared.attachments.documents import bound_attachments
from shared.domain import NO_MODEL_TEXT, Action, Cause, Email, ModelText, Sentiment, Triage, Urgency
from shared.knowledge.words import fold
from shared.mail.own_words import show_link_targets, split_own_words
from shared.model.answers import parse_answer
from shared.model.chat import ChatCompletion, ChatRequest
from shared.model.prompting import (
    build_documents,
    clean_line,
    clean_sentence,
    clean_text,
    escape_untrusted,
    fit_untrusted,
    load_prompt,
    text_version,
)
from shared.model.tokens import estimate_tokens
from shared.profiles.profiles import CATEGORIES, NO_PROFILE, OTHER_CATEGORY, MailboxProfile
from shared.profiles.senders import SenderRule
from shared.replying.threads import ThreadText

# Tokens of mail in the prompt, escaped: whatever arrives, the call stays bounded.
MAX_MAIL_TOKENS = 3_000
MAX_SEARCHED_CHARACTERS = 20_000
MAX_OWN_TOKENS = 1_800  # of the email's head and new words
MAX_REST_TOKENS = 400
MAX_EARLIER = 4  # emails of the thread
MAX_ATTACHMENT_TOKENS = 600
MAX_ATTACHMENTS_TOKENS = 1_200  # of all of them
MAX_TITLES_TOKENS = 1_000
MAX_HEADER_CHARACTERS = 120
MAX_OUTPUT_TOKENS = 400
MAX_SENTENCE_CHARACTERS = 200
REST_MARK = "[What this email quotes, its signature and its disclaimers]"
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

_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{1,8}){0,3}")  # BCP 47

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
    sender: str = "",
    profile: MailboxProfile = NO_PROFILE,
    thread: Sequence[ThreadText] = (),
    titles: Sequence[str] = (),
) -> Triage:
    """Ask what to do with an email. What cannot be read twice, or is too unsure, is escalated, never ignored.

    `sender`: the bare address that a reply goes to. `thread`: the emails of its thread, with its attachments.
    `titles`: those of the approved knowledge. What the mailbox's profile says about senders, categories and
    words counts more than the model's action. Raises what `ChatModel.complete` raises.
    """
    request = build_triage_request(email, deployment, profile, thread=thread, titles=titles)
    for _ in range(ATTEMPTS):
        completion = complete(request)
        try:
            triage = parse_triage(completion.text, profile.category_names)
        except (ValueError, RecursionError):  # the latter from JSON that is nested too deep
            continue
        triage = replace(triage, model=completion.model, prompt_version=text_version(request.system))
        break
    else:
        triage = Triage(
            Action.ESCALATE, OTHER_CATEGORY, Urgency.NORMAL, Sentiment.NEUTRAL, 0.0,
            summary=NO_MODEL_TEXT, reason=NO_MODEL_TEXT, cause=Cause.TRIAGE_UNREADABLE,
        )  # fmt: skip
    return _apply_sender_rules(
        _apply_rules(triage, email, min_confidence, profile, thread), profile.senders.find(sender)
    )


def build_triage_request(
    email: Email,
    deployment: str,
    profile: MailboxProfile = NO_PROFILE,
    *,
    thread: Sequence[ThreadText] = (),
    titles: Sequence[str] = (),
) -> ChatRequest:
    """The triage call for one email of a thread.

    What is the same for all emails of a mailbox comes first, so that the service caches it: the instructions
    for all, the mailbox's own, the titles of its knowledge.
    """
    schema = {
        "type": "object",
        "additionalProperties": False,
        "required": [
            "action", "category", "urgency", "sentiment", "confidence", "summary", "reason",
            "query", "language", "knowledge_answers", "needs_case_facts",
        ],
        "properties": {
            "action": {"type": "string", "enum": [str(value) for value in Action]},
            "category": {"type": "string", "enum": list(profile.category_names)},
            "urgency": {"type": "string", "enum": [str(value) for value in Urgency]},
            "sentiment": {"type": "string", "enum": [str(value) for value in Sentiment]},
            "confidence": {"type": "number"},
            "summary": {"type": "string"},
            "reason": {"type": "string"},
            "query": {"type": "string"},
            "language": {"type": "string"},
            "knowledge_answers": {"type": "boolean"},
            "needs_case_facts": {"type": "boolean"},
        },
    }  # fmt: skip
    return ChatRequest(
        deployment=deployment,
        system="\n\n".join(filter(None, (load_prompt("triage"), profile.build_triage_part()))),
        user=_render_titles(titles) + build_documents(_render_mail(email, thread)),
        schema_name="triage",
        schema=schema,
        max_output_tokens=MAX_OUTPUT_TOKENS,
    )


def _render_titles(titles: Sequence[str]) -> str:
    """The block of the knowledge's titles, as many as have room; each escaped, so that none can close it."""
    lines: list[str] = []
    left = MAX_TITLES_TOKENS
    for title in dict.fromkeys(titles):
        line = escape_untrusted(clean_line(title, MAX_HEADER_CHARACTERS))
        left -= estimate_tokens(line)
        if left < 0:
            lines.append("…")
            break
        lines.append(line)
    return "\n".join(("<titles>", *lines, "</titles>", "")) if lines else ""


def _render_mail(email: Email, thread: Sequence[ThreadText]) -> list[str]:
    """The email, its attachments and its thread's last emails, a line each.

    The emails are together within MAX_MAIL_TOKENS, the attachments within tokens of their own.
    """
    head = {
        "From": email.sender,
        "To": ", ".join(email.to),
        "Cc": ", ".join(email.cc) or "nobody",
        "Subject": email.subject,
        "Attachments": ", ".join(file.name for file in email.attachments) or "none",
    }
    lines = [f"{label}: {clean_line(text, MAX_HEADER_CHARACTERS)}" for label, text in head.items()]
    words = split_own_words(clean_text(email.markdown))
    body = "\n".join((*lines, "Body:", show_link_targets(words.own)))
    shown = [fit_untrusted(body, MAX_OWN_TOKENS)]
    if words.rest:
        rest = f"\n\n{REST_MARK}\n{show_link_targets(words.rest)}"
        shown[0] += fit_untrusted(rest, MAX_REST_TOKENS)
    left = MAX_MAIL_TOKENS - estimate_tokens(shown[0])
    shown += _render_attachments(email, thread)
    earlier = [text for text in thread if text.email_id != email.id]
    last = sorted(earlier, key=lambda text: text.received_at)[-MAX_EARLIER:]
    for number, text in enumerate(last):
        whose = "sent by us" if text.is_ours else "received"
        label = f"Earlier email, {whose} {text.received_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        own = show_link_targets(split_own_words(clean_text(text.markdown)).own)
        shown.append(fit_untrusted(f"{label}\nBody:\n{own}", left // (len(last) - number)))
        left -= estimate_tokens(shown[-1])
    return shown


def _render_attachments(email: Email, thread: Sequence[ThreadText]) -> list[str]:
    read = [file for text in thread if text.email_id == email.id for file in text.attachments if file.text]
    bounded = bound_attachments(read, MAX_ATTACHMENT_TOKENS, MAX_ATTACHMENTS_TOKENS)
    return [escape_untrusted(file.render_for_triage()) for file in bounded if file.text]


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
    language = value.get("language")
    return Triage(
        action=Action(str(value.get("action"))),
        category=_one_of(categories, value.get("category"), OTHER_CATEGORY),
        urgency=Urgency(_one_of(tuple(Urgency), value.get("urgency"), Urgency.NORMAL)),
        sentiment=Sentiment(_one_of(tuple(Sentiment), value.get("sentiment"), Sentiment.NEUTRAL)),
        confidence=float(confidence),
        summary=_sentence(value.get("summary")),
        reason=_sentence(value.get("reason")),
        query=_sentence(value.get("query")),
        language=language if isinstance(language, str) and _LANGUAGE.fullmatch(language) else "",
        knowledge_answers=value.get("knowledge_answers") is True,
        needs_case_facts=value.get("needs_case_facts") is True,
    )


def _one_of(values: Sequence[str], value: object, default: str) -> str:
    return value if isinstance(value, str) and value in values else default


def _sentence(value: object) -> ModelText:
    return (
        ModelText(clean_sentence(value, MAX_SENTENCE_CHARACTERS)) if isinstance(value, str) else NO_MODEL_TEXT
    )


def _apply_rules(
    triage: Triage,
    email: Email,
    min_confidence: float,
    profile: MailboxProfile,
    thread: Sequence[ThreadText],
) -> Triage:
    """Escalating comes first; only what would have been replied to can become ignored by its category."""
    if triage.action is Action.ESCALATE:
        return triage
    if triage.category in profile.ignore_categories:
        triage = replace(triage, action=Action.IGNORE)
    escalated = replace(triage, action=Action.ESCALATE)
    if triage.category in profile.escalate_categories:
        return replace(escalated, cause=Cause.CATEGORY_RULE, detail=triage.category)
    # As it was written, and as a reader sees it.
    written = html.unescape(f"{email.subject}\n{email.markdown}")
    texts = (fold(written), fold(_MARKS.sub("", _BREAK_TAG.sub(" ", written))))
    words = [*filter(None, map(fold, profile.escalate_words))]  # what cannot be seen would be in every text
    if any(word in text for word in words for text in texts):
        return replace(escalated, cause=Cause.WORD_RULE)
    if triage.confidence < min_confidence:
        doubt = f"confidence in {triage.action} is {triage.confidence:.2f}, under {min_confidence:.2f}"
        return replace(escalated, cause=Cause.TRIAGE_UNSURE, detail=doubt)
    if triage.action is Action.IGNORE:
        # What the model was shown of it and its files, whatever else the email is full of.
        shown = (_render_mail(email, ())[0], *_render_attachments(email, thread))
        written = clean_text(f"{email.subject} {email.markdown}")[:MAX_SEARCHED_CHARACTERS]
        if any(_SPEAKS_TO_TRIAGE.search(" ".join(text.split())) for text in (*shown, written)):
            return replace(escalated, cause=Cause.ADDRESSES_TRIAGE)
    return triage


def _apply_sender_rules(triage: Triage, rules: Collection[SenderRule]) -> Triage:
    if SenderRule.IMPORTANT in rules and triage.urgency is not Urgency.CRITICAL:
        triage = replace(triage, urgency=Urgency.HIGH)
    if triage.action is Action.ESCALATE:
        return triage
    if SenderRule.ESCALATE in rules:
        return replace(triage, action=Action.ESCALATE, cause=Cause.SENDER_RULE)
    if SenderRule.IMPORTANT in rules and triage.action is Action.IGNORE:
        return replace(triage, action=Action.ESCALATE, cause=Cause.IMPORTANT_SENDER)
    return triage
