"""What could not be answered, from the ledger: which emails, why, and in which words they ask."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from shared.domain import Action, Cause, Outcome
from shared.ledger.entries import LedgerEntry


class Gap(StrEnum):
    """What was missing, as it is listed."""

    NO_KNOWLEDGE = "the knowledge has no answer"
    OPEN_POINTS = "the draft left questions open"
    UNVERIFIED = "no source carried the draft"


class LeftOut(StrEnum):
    """Why an email of the time is not among the gaps, as it is counted."""

    UNDECIDED = "are still open"
    ERASED = "are erased"
    NOT_TRIAGED = "were kept from the model by a rule"
    IGNORED = "want no answer"
    ATTACK = "look like attacks, or the content filter refused them"
    BLOCKED = "were blocked because a reply would leave without approval"
    NOTHING_ASKED = "ask for nothing that a page could have"
    ONE_CASE = "need facts of one customer's case, which no page has"
    ANSWERED = "have an answer in the knowledge"


@dataclass(frozen=True, slots=True)
class Unanswered:
    """An email that could not be answered, and the words it asks in, as the models put them."""

    entry: LedgerEntry
    gap: Gap
    words: str


def sort_out(entry: LedgerEntry) -> Unanswered | LeftOut:
    """Say of a row what was missing, or why it does not count."""
    left_out = _find_why_left_out(entry)
    triage, draft = entry.triage, entry.draft or entry.proposal
    if left_out is not None or triage is None:
        return left_out or LeftOut.NOT_TRIAGED
    # The open points of a draft that may hold looked-up facts may repeat them: they are not shown.
    is_shown = draft is not None and not draft.looked_up
    points = " ".join(point.text for point in draft.open_points) if draft is not None and is_shown else ""
    asked = triage.query.text
    if not (asked or points):
        return LeftOut.NOTHING_ASKED
    if not triage.knowledge_answers:
        return Unanswered(entry, Gap.NO_KNOWLEDGE, f"{asked} {points}")
    if points:
        return Unanswered(entry, Gap.OPEN_POINTS, points)
    is_unverified = entry.cause is Cause.DRAFT_UNVERIFIED
    return Unanswered(entry, Gap.UNVERIFIED, asked) if is_unverified else LeftOut.ANSWERED


def _find_why_left_out(entry: LedgerEntry) -> LeftOut | None:
    triage = entry.triage
    reasons = {
        LeftOut.ERASED: entry.erased_at is not None,
        LeftOut.UNDECIDED: entry.outcome is None,
        LeftOut.NOT_TRIAGED: triage is None,
        LeftOut.IGNORED: triage is not None and triage.action is Action.IGNORE,
        LeftOut.ATTACK: _is_attack(entry),
        LeftOut.BLOCKED: entry.outcome is Outcome.BLOCKED_UNGATED,
        LeftOut.ONE_CASE: triage is not None and triage.needs_case_facts,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _is_attack(entry: LedgerEntry) -> bool:
    """Whether triage or the content filter saw something hostile: a question about security is answered."""
    triage = entry.triage
    is_escalated = triage is not None and triage.action is Action.ESCALATE and triage.category == "security"
    return entry.cause in (Cause.ADDRESSES_TRIAGE, Cause.CONTENT_FILTER) or is_escalated


def select_recent(entries: Iterable[LedgerEntry], since: datetime) -> list[LedgerEntry]:
    """The rows of emails that were received since then, oldest first."""
    recent = (entry for entry in entries if entry.received_at >= since)
    return sorted(recent, key=lambda entry: (entry.received_at, entry.email_id))
