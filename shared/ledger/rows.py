"""A ledger entry as the flat row of plain values that every store keeps."""

import functools
import json
from collections.abc import Mapping
from dataclasses import fields as fields_of
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count, takewhile
from typing import Any

from shared.domain import Action, Draft, Outcome, Rejection, Sentiment, Triage, Urgency, Usage
from shared.ledger.entries import LedgerEntry, TrackedReply


def to_row(entry: LedgerEntry) -> dict[str, str | int]:
    """Every field that is set, except `version`, which is the store's own.

    A draft's text and each rejection have a field to themselves: they are the longest values, and stores
    limit a value's length.
    """
    row = {
        "mailbox_id": entry.mailbox_id,
        "email_id": entry.email_id,
        "received_at": to_text(entry.received_at),
        "sender": entry.sender,
        "thread_id": entry.thread_id,
        "due_at": to_text(entry.due_at),
        "lease_until": _optional_text(entry.lease_until),
        "attempts": entry.attempts,
        "waiting_for": entry.waiting_for,
        "usage": json.dumps(_values(entry.usage)),
        "triage": json.dumps(_values(entry.triage)) if entry.triage else None,
        "submit_intent_at": _optional_text(entry.submit_intent_at),
        "reply_id": entry.reply_id,
        "outcome": entry.outcome.value if entry.outcome else None,
        "reason": entry.reason,
        "finished_at": _optional_text(entry.finished_at),
        "reply_status": entry.reply_status,
        "reply_decided_at": _optional_text(entry.reply_decided_at),
        "reply_settled_at": _optional_text(entry.reply_settled_at),
        "redriven_at": _optional_text(entry.redriven_at),
        **{f"rejection_{n}": _rejection_text(rejection) for n, rejection in enumerate(entry.rejections, 1)},
        **_draft_fields(entry.draft),
    }
    return {name: value for name, value in row.items() if value is not None}


def from_row(row: Mapping[str, Any], version: str) -> LedgerEntry:
    """Read back what `to_row` made; names it does not know are left alone."""
    outcome = row.get("outcome")
    return LedgerEntry(
        mailbox_id=row["mailbox_id"],
        email_id=row["email_id"],
        received_at=to_moment(row["received_at"]),
        sender=row["sender"],
        thread_id=row.get("thread_id"),
        due_at=to_moment(row["due_at"]),
        lease_until=_optional_moment(row.get("lease_until")),
        attempts=row["attempts"],
        waiting_for=row["waiting_for"],
        usage=Usage(**json.loads(row["usage"])),
        triage=_triage(row.get("triage")),
        draft=_draft(row),
        submit_intent_at=_optional_moment(row.get("submit_intent_at")),
        reply_id=row.get("reply_id"),
        outcome=Outcome(outcome) if outcome else None,
        reason=row["reason"],
        finished_at=_optional_moment(row.get("finished_at")),
        reply_status=row.get("reply_status"),
        reply_decided_at=_optional_moment(row.get("reply_decided_at")),
        reply_settled_at=_optional_moment(row.get("reply_settled_at")),
        redriven_at=_optional_moment(row.get("redriven_at")),
        rejections=_rejections(row),
        version=version,
    )


def to_reply_row(reply: TrackedReply) -> dict[str, str]:
    """Every field of a tracked reply that is set."""
    row = {
        "mailbox_id": reply.mailbox_id,
        "email_id": reply.email_id,
        "reply_id": reply.reply_id,
        "submitted_at": to_text(reply.submitted_at),
        "check_at": to_text(reply.check_at),
        "status": reply.status,
    }
    return {name: value for name, value in row.items() if value is not None}


def from_reply_row(row: Mapping[str, Any]) -> TrackedReply:
    """Read back what `to_reply_row` made; names it does not know are left alone."""
    return TrackedReply(
        mailbox_id=row["mailbox_id"],
        email_id=row["email_id"],
        reply_id=row["reply_id"],
        submitted_at=to_moment(row["submitted_at"]),
        check_at=to_moment(row["check_at"]),
        status=row.get("status"),
    )


def released(entry: LedgerEntry) -> LedgerEntry:
    """The entry without its lease."""
    return replace(entry, lease_until=None)


def finished(entry: LedgerEntry) -> LedgerEntry:
    """The entry without its lease. Raises ValueError when `finished_at` is missing: its row would be lost."""
    if entry.finished_at is None:
        raise ValueError(f"email {entry.email_id} of mailbox {entry.mailbox_id} has no finished_at")
    return released(entry)


def to_text(moment: datetime) -> str:
    """A moment in UTC as text of one width, so that texts sort as the moments do."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def to_moment(text: str) -> datetime:
    """Read back what `to_text` made."""
    return datetime.fromisoformat(text)


def _optional_text(moment: datetime | None) -> str | None:
    return to_text(moment) if moment else None


def _optional_moment(text: str | None) -> datetime | None:
    return to_moment(text) if text else None


def _triage(text: str | None) -> Triage | None:
    if text is None:
        return None
    fields = json.loads(text)
    enums = {
        "action": Action(fields["action"]),
        "urgency": Urgency(fields["urgency"]),
        "sentiment": Sentiment(fields["sentiment"]),
    }
    return Triage(**_known(Triage, fields | enums))


def _draft_fields(draft: Draft | None) -> dict[str, str]:
    if draft is None:
        return {}
    fields = _values(draft)
    return {"draft_markdown": fields.pop("reply_markdown"), "draft": json.dumps(fields)}


def _draft(row: Mapping[str, Any]) -> Draft | None:
    if "draft" not in row:
        return None
    fields = json.loads(row["draft"])
    lists = {"unanswered": tuple(fields["unanswered"]), "covers": tuple(fields["covers"])}
    return Draft(reply_markdown=row["draft_markdown"], **_known(Draft, fields | lists))


def _rejection_text(rejection: Rejection) -> str:
    times = {"submitted_at": to_text(rejection.submitted_at), "decided_at": to_text(rejection.decided_at)}
    return json.dumps(_values(rejection) | times, ensure_ascii=False)


def _rejections(row: Mapping[str, Any]) -> tuple[Rejection, ...]:
    texts = takewhile(bool, (row.get(f"rejection_{n}") for n in count(1)))
    return tuple(_rejection(json.loads(text)) for text in texts if text)


def _rejection(fields: dict[str, Any]) -> Rejection:
    times = {name: to_moment(fields[name]) for name in ("submitted_at", "decided_at")}
    return Rejection(**_known(Rejection, fields | times))


def _known(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """The values that this version has fields for: a newer one may have written more."""
    return {name: value for name, value in values.items() if name in _names(kind)}


def _values(of: Any) -> dict[str, Any]:
    """A dataclass's own values by name, as `asdict` has them for flat ones at a tenth of the time."""
    kind: type = type(of)
    return {name: getattr(of, name) for name in _names(kind)}


@functools.cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields_of(kind))
