"""What can be held against the audit trail: what the ledger says, and what MultiMail says."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from shared.domain import AuditLogEntry, Cause
from shared.ledger.entries import LedgerEntry
from shared.replying.reporting import ROW_FACTS, describe_decision, render_time
from shared.telemetry import EMAIL_DECIDED, EMAIL_ERASED, REPLY_SETTLED

Facts = Mapping[str, Any]

# Of a reply that left.
LEFT = frozenset({"approved", "delivered", "bounced", "send_failed"})
# The words in the names of MultiMail's actions: its contract has no list of them.
SUBMITTING = frozenset({"reply", "replied", "send", "sent", "submit", "submitted"})
APPROVING = frozenset({"approve", "approved"})
REJECTING = frozenset({"reject", "rejected"})
TAGGING = frozenset({"tag", "tags", "tagged"})

# The reply was submitted so long before its record, at most, that a log may begin between the two.
EDGE = timedelta(hours=1)
TAGGED_WITHIN = timedelta(minutes=1)  # of the record: the agent tags an email, then records its decision

# Of each record about an email, the moment in its row that it is about.
MOMENTS = {EMAIL_DECIDED: "finished_at", EMAIL_ERASED: "erased_at", REPLY_SETTLED: "settled_at"}

EITHER = "the process ended before it was written, or the row was changed."


def compare_with_ledger(facts: Sequence[Facts], entries: Iterable[LedgerEntry]) -> Iterator[str]:
    """Say where rows and the trail's last records of them differ, and which row or record there is not.

    An open row is not compared: it is worked on again, and what it comes to is recorded. Rows without any
    record that ended before the trail began are counted: an update left them, or its beginning was removed.
    """
    by_email: defaultdict[tuple[object, object], list[Facts]] = defaultdict(list)
    begins, older = min(filter(None, map(_find_moment, facts)), default=None), 0
    for one in facts:
        if one.get("event") in MOMENTS:
            by_email[one.get("mailbox_id"), one.get("email_id")].append(one)
    for entry in entries:
        records = by_email.pop((entry.mailbox_id, entry.email_id), [])
        if entry.cause is Cause.ERASED and entry.erased_at is None:
            found = ["`forget` has closed it, and not erased it yet: run it again."]
        else:
            try:
                if not records and _ended_before(entry, begins):
                    older += 1
                    continue
                found = [*_compare_end(entry, records), *_compare_decision(entry, records)]
            except (TypeError, ValueError, AttributeError):  # a part of the row is another thing
                found = ["its row cannot be read: it was changed."]
        yield from (f"Email {entry.email_id}: {what}" for what in found)
    for _, email_id in by_email:
        yield f"Email {email_id}: the trail has records of it, and the ledger no row: it was deleted."
    if older:
        yield (
            f"Emails that ended before the trail's first record, and of which it has none: {older}. "
            "They are from before an update that began the trail, or its first records were removed."
        )


def _ended_before(entry: LedgerEntry, begins: str | None) -> bool:
    """Whether a finished row has nothing that happened since the trail began."""
    moments = (entry.finished_at, entry.reply_settled_at, entry.erased_at)
    ends = [render_time(moment) for moment in moments if moment is not None]
    return entry.finished_at is not None and (begins is None or max(ends) < begins)


def _find_moment(one: Facts) -> str:
    """When that happened which a record is about; empty for one that is about no email."""
    return str(one.get(MOMENTS.get(one.get("event", ""), ""), ""))


def _compare_decision(entry: LedgerEntry, records: Sequence[Facts]) -> Iterator[str]:
    """What is wrong with the last record of a finished row, which is the one of the same moment."""
    if entry.finished_at is None:
        return
    is_erased = entry.erased_at is not None
    event, moment = (EMAIL_ERASED, "erased_at") if is_erased else (EMAIL_DECIDED, "finished_at")
    known, wanted = [one for one in records if one["event"] == event], describe_decision(entry)
    if not is_erased and any(one["event"] == EMAIL_ERASED for one in records):
        yield "the trail has its erasure, and the ledger still has the email: the row was put back."
    elif any(str(one.get(moment)) > str(wanted[moment]) for one in known):
        yield "the trail has a later decision on it than the ledger: the row was put back."
    elif last := next((one for one in reversed(known) if one.get(moment) == wanted[moment]), None):
        names = [name for name in ROW_FACTS if last.get(name) != wanted.get(name)]
        if names:
            words = ", ".join(names).replace("content_digest", "sender or reply").replace("_", " ")
            yield f"the ledger has another {words} than the trail recorded: the row was changed."
    else:
        yield f"the trail has no record of its {'erasure' if is_erased else 'last decision'}: {EITHER}"


def _compare_end(entry: LedgerEntry, records: Sequence[Facts]) -> Iterator[str]:
    """What is wrong with what the trail has about the ends of a row's replies."""
    ended = {one.get("reply_id"): one for one in records if "settled_at" in one}
    for said in entry.rejections:
        if said.reply_id not in ended:
            yield f"the trail has no record of the end of reply {said.reply_id}: {EITHER}"
    known = ended.get(entry.reply_id, {}) if entry.reply_id else {}
    at = render_time(entry.reply_settled_at) if entry.reply_settled_at is not None else None
    if known and at is None:
        yield f"the trail has the end of reply {entry.reply_id}, the ledger has not: the row was put back."
    elif at is not None and known.get("settled_at") != at:
        yield f"the trail has no record of the end of reply {entry.reply_id}: {EITHER}"
    elif at is not None and _find_status(known) != entry.reply_status:
        yield (
            f"reply {entry.reply_id} is {entry.reply_status} in the ledger, and {_find_status(known)} in the "
            "trail: the row was changed."
        )


@dataclass(frozen=True, slots=True)
class _Reply:
    """A reply that the trail knows: since when, how it ended there, and what MultiMail's log has about it.

    `is_whole`: the log has everything about it.
    """

    id: str
    status: str | None
    is_whole: bool
    submissions: Sequence[AuditLogEntry]
    decisions: Sequence[AuditLogEntry]


def compare_with_service(facts: Sequence[Facts], log: Iterable[AuditLogEntry]) -> Iterator[str]:
    """Say where MultiMail's audit log and the trail differ, reply by reply.

    Every reply has one submission, and no decision by a key that submits; one that left has an approval.
    What the agent's keys sent since the trail began is in the trail. What the log is too young for is left
    out.
    """
    entries = list(log)
    if not entries:
        yield "MultiMail's audit log is empty: there is nothing to compare the trail with."
        return
    replies = {reply.id: reply for reply in _list_replies(facts, entries)}
    # Who has no key is no key: the dashboard's users are not the agent.
    submitters = {one.actor_key_id for reply in replies.values() for one in reply.submissions} - {""}
    for reply in replies.values():
        yield from _compare_reply(reply, submitters)
    own_keys = (submitters | _find_tagging_keys(facts, entries)) - {""}
    begins = min((moment for one in facts if (moment := _read_time(one))), default=None)
    for entry in entries:
        is_ours = entry.actor_key_id in own_keys and _says(entry, SUBMITTING)
        if is_ours and entry.resource_id not in replies and begins and entry.created_at >= begins:
            yield (
                f"Email {entry.resource_id} was submitted with the agent's key "
                f"({entry.action}, {entry.created_at:%Y-%m-%d %H:%M} UTC), and the trail has no record of it."
            )


def _list_replies(facts: Sequence[Facts], log: Sequence[AuditLogEntry]) -> Iterator[_Reply]:
    by_email: defaultdict[str, list[AuditLogEntry]] = defaultdict(list)
    for entry in log:
        by_email[entry.resource_id].append(entry)
    log_begins = min(entry.created_at for entry in log)
    since = {str(one["reply_id"]): _read_time(one) for one in reversed(facts) if one.get("reply_id")}
    statuses = {str(one.get("reply_id")): _find_status(one) for one in facts if _find_status(one)}
    for reply_id, at in since.items():
        entries = by_email[reply_id]
        decisions = [entry for entry in entries if _says(entry, APPROVING | REJECTING)]
        submitting = [entry for entry in entries if _says(entry, SUBMITTING)]
        # A delivery may be logged as `sent`, after the decision: what it was submitted with came first.
        first = min((entry.created_at for entry in decisions), default=None)
        before = [entry for entry in submitting if first is None or entry.created_at < first]
        submissions = before or [entry for entry in submitting if entry.created_at == first]
        is_whole = at is not None and at >= log_begins + EDGE
        yield _Reply(reply_id, statuses.get(reply_id), is_whole, submissions, decisions)


def _compare_reply(reply: _Reply, submitters: set[str]) -> Iterator[str]:
    count, status = len(reply.submissions), reply.status
    if count > 1 or (reply.is_whole and not count):
        yield f"Reply {reply.id}: MultiMail's log has {count} submissions of it, not 1."
    count = len(reply.decisions)
    is_decided = status in LEFT or status in REJECTING
    if count > 1 or (reply.is_whole and is_decided and not count):
        yield f"Reply {reply.id} is {status or 'open'}: MultiMail's log has {count} decisions on it, not 1."
    wanted = APPROVING if status in LEFT else REJECTING if status in REJECTING else frozenset[str]()
    for decision in reply.decisions:
        if decision.actor_key_id in submitters:
            yield f"Reply {reply.id} was decided with a key that submits replies ({decision.actor_key_id})."
        if (is_decided or status == "cancelled") and not _says(decision, wanted):
            yield f"Reply {reply.id} is {status} in the trail, and {decision.action} in MultiMail's log."


def _find_tagging_keys(facts: Sequence[Facts], log: Iterable[AuditLogEntry]) -> set[str]:
    """The keys that tagged an email just when the trail says that the agent had decided on it."""
    decided = {one.get("email_id"): _read_time(one) for one in facts if one.get("event") == EMAIL_DECIDED}
    return {
        entry.actor_key_id
        for entry in log
        if (at := decided.get(entry.resource_id)) and _says(entry, TAGGING)
        if abs(entry.created_at - at) <= TAGGED_WITHIN
    }


def _find_status(one: Facts) -> str | None:
    """How the reply ended that a record names."""
    return one.get("reply_status") or one.get("settled_as")


def _read_time(one: Facts) -> datetime | None:
    try:
        return datetime.fromisoformat(one["at"]).astimezone(UTC)
    except ValueError:
        return None


def _says(entry: AuditLogEntry, words: frozenset[str]) -> bool:
    """Whether the action has one of the words. Where it says a decision, other words do not count."""
    said = set(re.split("[^a-z]+", entry.action.lower()))
    return not words.isdisjoint(said & (APPROVING | REJECTING) or said)
