"""What can be held against the audit trail: what the ledger says, and what MultiMail says."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from shared.domain import AuditLogEntry
from shared.ledger.entries import LedgerEntry
from shared.telemetry import EMAIL_DECIDED, REPLY_SETTLED

Facts = Mapping[str, Any]

# Of a reply that left.
LEFT = frozenset({"approved", "delivered", "bounced", "send_failed"})
# The words in the names of MultiMail's actions: its contract has no list of them.
SUBMITTING = frozenset({"reply", "replied", "send", "sent", "submit", "submitted"})
APPROVING = frozenset({"approve", "approved"})
REJECTING = frozenset({"reject", "rejected"})


def compare_with_ledger(facts: Sequence[Facts], entries: Iterable[LedgerEntry]) -> Iterator[str]:
    """Say of which finished rows the trail has no word, and which are no longer as it recorded them.

    `entries` are read before the trail: a row is finished a moment before its record is written.
    """
    known = {one.get("email_id") for one in facts}
    decided = {one.get("email_id"): one for one in facts if one.get("event") == EMAIL_DECIDED}
    for entry in entries:
        if entry.finished_at is None:
            continue
        if entry.email_id not in known:
            yield f"Email {entry.email_id} is done, and the trail has no record of it."
            continue
        last = decided.get(entry.email_id, {})
        is_comparable = entry.content_digest and last.get("revision") == entry.revision
        if is_comparable and last.get("content_digest") not in (None, entry.content_digest):
            yield f"Email {entry.email_id}: the ledger's sender or reply is not what the trail recorded."


def compare_with_service(facts: Sequence[Facts], log: Iterable[AuditLogEntry]) -> Iterator[str]:
    """Say where MultiMail's audit log and the trail differ, reply by reply.

    Every reply that left has one submission, and one decision by another key: an approval. What the
    submitting keys sent since the trail began is in the trail. What is older than the log or than the trail
    is left out.
    """
    entries = list(log)
    if not entries:
        yield "MultiMail's audit log is empty: there is nothing to compare the trail with."
        return
    by_email: defaultdict[str, list[AuditLogEntry]] = defaultdict(list)
    for entry in entries:
        by_email[entry.resource_id].append(entry)
    known = {one["reply_id"]: one["at"] for one in reversed(facts) if one.get("reply_id")}
    statuses = {one["reply_id"]: one["reply_status"] for one in facts if one.get("event") == REPLY_SETTLED}
    log_begins = min(entry.created_at for entry in entries).isoformat()
    submitters: set[str] = set()
    for reply_id, at in known.items():
        if at >= log_begins:
            submitted = [entry.actor_key_id for entry in by_email[reply_id] if _says(entry, SUBMITTING)]
            submitters.update(submitted)
            yield from _compare_reply(reply_id, statuses.get(reply_id), by_email[reply_id], submitted)
    trail_begins = min((one["at"] for one in facts), default="")
    for entry in entries:
        is_ours = entry.actor_key_id in submitters and _says(entry, SUBMITTING)
        if is_ours and entry.resource_id not in known and entry.created_at.isoformat() >= trail_begins:
            yield (
                f"Email {entry.resource_id} was submitted with the agent's key "
                f"({entry.action}, {entry.created_at:%Y-%m-%d %H:%M} UTC), and the trail has no record of it."
            )


def _compare_reply(
    reply_id: str, status: str | None, entries: Sequence[AuditLogEntry], submitted: Sequence[str]
) -> Iterator[str]:
    if len(submitted) != 1:
        yield f"Reply {reply_id}: MultiMail's log has {len(submitted)} submissions of it, not 1."
    if status not in LEFT and status not in REJECTING:
        return
    decisions = [entry for entry in entries if _says(entry, APPROVING | REJECTING)]
    if len(decisions) != 1:
        yield f"Reply {reply_id} is {status}: MultiMail's log has {len(decisions)} decisions on it, not 1."
    for decision in decisions:
        if decision.actor_key_id in submitted:
            yield f"Reply {reply_id} was decided with the key that submitted it ({decision.actor_key_id})."
        if (status in LEFT) != _says(decision, APPROVING):
            yield f"Reply {reply_id} is {status} in the trail, and {decision.action} in MultiMail's log."


def _says(entry: AuditLogEntry, words: frozenset[str]) -> bool:
    return not words.isdisjoint(re.split("[^a-z]+", entry.action.lower()))
