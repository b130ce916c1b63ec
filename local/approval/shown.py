"""How the desk puts rows, emails and what the agent knows of them into words."""

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from email.utils import parseaddr
from typing import Any

from local.approval.inbox import Row, State
from shared.domain import Email, EmailSummary, Outcome, Support, Urgency
from shared.ledger.entries import PENDING_APPROVAL
from shared.operator.review import Evidence, ReviewItem
from shared.operator.word_changes import compare_words
from shared.replying.reporting import SUPPORT_WORDS

MAX_CHIP_CHARACTERS = 40

OUTCOME_LABELS: Mapping[str, str] = {
    Outcome.REPLY_SUBMITTED: "Reply on its way",
    Outcome.WOULD_REPLY: "Would have replied",
    Outcome.IGNORED: "No answer needed",
    Outcome.ESCALATED: "Escalated",
    Outcome.SKIPPED: "Skipped",
    Outcome.BLOCKED_UNGATED: "Blocked: no approval",
    Outcome.BLOCKED_CONTENT_SAFETY: "Blocked: content safety",
    Outcome.NEEDS_HUMAN: "Needs a person",
    Outcome.FAILED: "Failed",
}

VERDICTS: Mapping[str, tuple[str, str]] = {
    Outcome.IGNORED: (
        "No answer needed",
        "The sender expects no answer to this email, so the agent wrote none.",
    ),
    Outcome.ESCALATED: (
        "Escalated to a person",
        "The agent left this email to your team. It sent no answer.",
    ),
    Outcome.SKIPPED: ("Skipped", "A rule kept this email from the model. The agent wrote nothing."),
    Outcome.BLOCKED_UNGATED: (
        "Blocked: this mailbox sends without approval",
        "A reply from this mailbox would leave without a person's approval, so the agent wrote none.",
    ),
    Outcome.BLOCKED_CONTENT_SAFETY: (
        "Blocked: content safety",
        "The model service flagged this email as an attack or as harmful content. It was not answered.",
    ),
    Outcome.NEEDS_HUMAN: ("Needs a person", "The agent stopped and will not try again by itself."),
    Outcome.FAILED: ("Failed", "Every attempt failed. The email is still in the mailbox."),
}
# What a decision did, before the subject of the email that it was about.
DONE: Mapping[str, str] = {
    "approve": "Approved and sent",
    "reject": "Rejected",
    "edit": "Your text replaces the draft and still has to be approved",
    "put_off": "Left for later",
    "done": "Marked as done",
}

AddressOf = Callable[..., str]
"""The address of the page with some things changed."""


def describe_row(row: Row, url: AddressOf, *, is_current: bool) -> dict[str, Any]:
    """A line of the list."""
    email = row.email
    return {
        "href": url(mailbox=row.mailbox_id, email=email.id),
        "current": is_current,
        "sender": f"To {', '.join(email.to)}" if row.is_outbound else name_of(email.sender),
        "subject": email.subject or "(no subject)",
        "time": clock_time(email.received_at),
        "datetime": email.received_at.isoformat(),
        "chips": list_chips(row),
    }


def list_chips(row: Row) -> list[dict[str, str]]:
    """The outcome in the state's colour, then the triage in quiet ones."""
    chips = [{"text": _describe_outcome(row), "kind": row.state.value}]
    if row.item is not None and row.item.put_off_at is not None:
        chips.append({"text": "left for later", "kind": "quiet"})
    if row.more:
        chips.append({"text": f"and {row.more:,} more of this sender", "kind": "loud"})
    for name in ("action", "category", "urgency", "sentiment"):
        text = row.tags.get(f"agent.{name}", "")
        if text:
            loud = text in (Urgency.CRITICAL, Urgency.HIGH)
            chips.append({"text": text[:MAX_CHIP_CHARACTERS], "kind": "loud" if loud else "quiet"})
    return chips


def _describe_outcome(row: Row) -> str:
    if row.state in (State.DONE, State.PROMISED):
        return row.state.value.capitalize()
    if row.reply is not None and row.outcome in ("", Outcome.REPLY_SUBMITTED):
        return describe_reply(row.reply)
    return OUTCOME_LABELS.get(row.outcome, row.outcome[:MAX_CHIP_CHARACTERS]) or "In progress"


def describe_reply(reply: Email | EmailSummary | None) -> str:
    """Where a reply stands, in a few words."""
    if reply is None:
        return ""
    if reply.status == PENDING_APPROVAL:
        return "Waiting for approval"
    if reply.bounced_at:
        return "Reply bounced"
    if reply.delivered_at:
        return "Answered"
    labels = {"rejected": "Draft rejected", "cancelled": "Draft cancelled", "send_failed": "Sending failed"}
    return labels.get(reply.status, "Reply on its way")


def describe_thread_entry(email: EmailSummary, url: AddressOf, *, is_current: bool) -> dict[str, Any]:
    """An email of the conversation."""
    outbound = email.direction == "outbound"
    return {
        "href": url(email=email.id),
        "current": is_current,
        "who": "Us" if outbound else name_of(email.sender),
        "what": describe_reply(email).replace("Answered", "Sent") if outbound else "Received",
        "time": clock_time(email.received_at),
        "datetime": email.received_at.isoformat(),
        "outbound": outbound,
    }


def describe_evidence(draft: Evidence) -> dict[str, Any]:
    """What carries the sentences of a draft: those that nothing trusted carries come first."""
    claims = [claim for claim in draft.claims if claim.support is not Support.FREE]
    counts = {kind: sum(claim.support is kind for claim in claims) for kind in SUPPORT_WORDS}
    summary = ", ".join(f"{count} {SUPPORT_WORDS[kind]}" for kind, count in counts.items() if count)
    return {
        "claims": sorted(claims, key=lambda claim: [*SUPPORT_WORDS].index(claim.support), reverse=True),
        "labels": SUPPORT_WORDS,
        "summary": summary or "It states no facts.",
        "unsupported": len(claims) - counts[Support.VERIFIED],
        "open_points": draft.open_points,
        "follow_up": draft.follow_up,
        "notes": draft.notes,
        "looked_up": draft.looked_up,
    }


def describe_sender(draft: Evidence | None) -> list[dict[str, str]]:
    """Who the sender is to us: how well known in a quiet colour, then what stands out in a loud one."""
    facts = draft.sender_facts if draft is not None else ()
    return [{"text": text, "kind": "notable" if place else "quiet"} for place, text in enumerate(facts)]


def describe_change(item: ReviewItem) -> dict[str, Any] | None:
    """Why there is a new draft, and what is different in it; None for a first one."""
    if not item.earlier or item.draft is None:
        return None
    last = item.earlier[-1]
    return {
        "is_edit": last.is_edit,
        "reason": last.reason,
        "runs": compare_words(last.markdown, item.draft.markdown),
    }


def fingerprint(row: Row | None) -> str:
    """Changes when what the page says about an email changes: its tags, its reply, whether it is done."""
    if row is None:
        return ""
    told = (sorted(row.tags.items()), row.state, describe_reply(row.reply))
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def name_of(sender: str) -> str:
    """The name in a From value, or else its address."""
    name, address = parseaddr(sender)
    return name or address or sender or "(no sender)"


def whole_name(sender: str) -> str:
    """A From value without the quotes around the name."""
    name, address = parseaddr(sender)
    return f"{name} <{address}>" if name and address and sender.count("@") == 1 else sender


def clock_time(time: datetime) -> str:
    """A moment as the reviewer's clock shows it."""
    time = time.astimezone()
    return f"{time.day} {time:%b, %H:%M}"


def describe_age(age: timedelta) -> str:
    """How old something is, in minutes, hours or days."""
    minutes = max(0, int(age.total_seconds() // 60))
    for unit, size in (("day", 24 * 60), ("hour", 60)):
        count = minutes // size
        if count:
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{minutes} minute{'' if minutes == 1 else 's'}"


def file_size(size: int) -> str:
    """A size in kB or MB."""
    return f"{size / 1_000_000:.1f} MB" if size >= 1_000_000 else f"{max(1, size // 1000)} kB"  # noqa: PLR2004 - bytes in a MB
