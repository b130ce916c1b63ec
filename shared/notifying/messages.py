"""Notifications as they are before they are written for a target: ids, causes and counts."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from shared.ledger.entries import LedgerEntry
from shared.model.prompting import clean_line, clean_sentence
from shared.replying.reporting import MAX_ADDRESS_CHARACTERS, render_cause, shorten

MAX_REASON_CHARACTERS, MAX_SUBJECT_CHARACTERS = 200, 120


class Topic(StrEnum):
    """What the items of a section have in common."""

    NOW = "now"
    REMINDER = "reminder"
    PROMISE = "promise"
    ESCALATED = "escalated"
    DRAFT = "draft"
    DIGEST = "digest"
    TEST = "test"


HEADINGS = {
    Topic.NOW: "A person is needed now",
    Topic.REMINDER: "Reminder: approve or reject these drafts",
    Topic.PROMISE: "Reminder: promised in a reply, and no person has written since",
    Topic.ESCALATED: "Left to a person",
    Topic.DRAFT: "New drafts to approve or reject",
    Topic.DIGEST: "Digest",
    Topic.TEST: "Test",
}


@dataclass(frozen=True, slots=True)
class Item:
    """One email of a notification. `sender` and `subject` are empty unless the profile shows them.

    `since` is for people, `moment` is the same for programs.
    """

    email_id: str
    outcome: str
    reason: str
    since: str
    moment: datetime
    category: str = ""
    urgency: str = ""
    escalate_to: str = ""
    sender: str = field(default="", repr=False)
    subject: str = field(default="", repr=False)

    @property
    def text(self) -> str:
        """The line about it."""
        facts = [self.outcome, self.category, f"urgency {self.urgency}" if self.urgency else ""]
        for_whom = f" For: {self.escalate_to}." if self.escalate_to else ""
        reason = f": {self.reason}" if self.reason else ""
        return f"{', '.join(filter(None, facts))}{reason}, since {self.since}.{for_whom}"

    @property
    def origin(self) -> str:
        """Who wrote what, where that may be shown."""
        return ": ".join(filter(None, (self.sender, self.subject)))


def build_item(
    entry: LedgerEntry, moment: datetime, since: str, escalate_to: str = "", subject: str | None = None
) -> Item:
    """What is told of a row; `subject` is None where neither sender nor subject may be shown."""
    triage = entry.triage
    reason = render_cause(entry.cause, entry.detail) if entry.cause else ""
    return Item(
        email_id=entry.email_id,
        outcome=str(entry.outcome),
        reason=clean_line(reason, MAX_REASON_CHARACTERS),
        since=since,
        moment=moment,
        category=triage.category if triage else "",
        urgency=str(triage.urgency) if triage else "",
        escalate_to=clean_line(escalate_to, MAX_REASON_CHARACTERS),
        sender="" if subject is None else shorten(entry.sender, MAX_ADDRESS_CHARACTERS),
        subject="" if subject is None else clean_sentence(subject, MAX_SUBJECT_CHARACTERS),
    )


@dataclass(frozen=True, slots=True)
class Section:
    """Items of one topic, the oldest first, and how many `more` there are; or lines about no single email."""

    topic: Topic
    items: tuple[Item, ...] = ()
    lines: tuple[str, ...] = ()
    more: int = 0

    @property
    def rest(self) -> str:
        """The line about those that are not shown."""
        return f"And {self.more} more: python -m local open lists all." if self.more else ""


@dataclass(frozen=True, slots=True)
class Message:
    """A notification about a mailbox. `id` is the same if it is sent twice."""

    id: str
    mailbox_id: str
    mailbox: str
    sent_at: datetime
    sections: tuple[Section, ...]

    @property
    def title(self) -> str:
        """What it is about in one line."""
        count = sum(len(section.items) + section.more for section in self.sections)
        other = ", ".join(section.topic for section in self.sections)  # a digest or a test has no emails
        what = f"{count} {'email needs' if count == 1 else 'emails need'} a person" if count else other
        return f"{self.mailbox}: {what}"

    def shortened(self) -> "Message | None":
        """The same with one item less shown, which is counted; None when none is shown."""
        for place, section in reversed([*enumerate(self.sections)]):
            if section.items:
                shorter = replace(section, items=section.items[:-1], more=section.more + 1)
                sections = (*self.sections[:place], shorter, *self.sections[place + 1 :])
                return replace(self, sections=sections)
        return None
