"""The review desk's side of the agent: what a reviewer is shown of a row, and what one says of it."""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from heapq import nlargest

from shared.checks.draft_checks import MAX_REPLY_CHARACTERS
from shared.domain import Cause, Draft, JudgedClaim, LookedUp, Outcome, Review, WorkItem
from shared.errors import AgentError, ConflictError, LeaseLostError, NotFoundError, TransientError
from shared.ledger.entries import FOR_PEOPLE, LedgerEntry, MatterKind
from shared.ledger.ledger import Ledger
from shared.mail.mailboxes import MailboxDirectory
from shared.mail.multimail import MultiMailClient
from shared.model.prompting import clean_line
from shared.operator.word_changes import count_changed_words
from shared.profiles.pauses import Pauses
from shared.profiles.profiles import Profiles
from shared.replying.reporting import (
    MAX_WHOLE_REASON_CHARACTERS,
    REJECT_REASON_TAG,
    name_handler,
    render_cause,
    render_reason,
    render_waiting,
)
from shared.watching.tracking import MAX_REJECT_REASON_CHARACTERS, ReplyTracker

TRIES = 3  # of a write that another one came before
DECIDING_FOR = timedelta(minutes=1)  # nobody else says anything of a reply meanwhile
MAX_OPEN = 200  # rows that the agent works on in a listing, each of which is read by itself

SECOND_REVIEWER = (
    "You wrote this text, and the mailbox's profile wants another reviewer to approve what one has edited "
    "(edit_needs_second_reviewer)."
)

log = logging.getLogger(__name__)


class Kind(StrEnum):
    """What a row is to a reviewer."""

    DRAFT = "draft"  # its reply has no known end: it waits for a decision, or is on its way
    ESCALATION = "escalation"  # left to people
    PROMISE = "promise"  # its reply, which was approved, says that somebody will do something
    OPEN = "open"  # the agent is not finished with it: for the first time, or because it drafts again
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Evidence:
    """A draft with what carries it and what its approver has to know. All text but `notes` is hostile.

    `sender_facts`: how well the sender is known, then what stands out about them. `looked_up`: of which
    look-ups it may hold facts.
    """

    markdown: str = field(repr=False)
    claims: tuple[JudgedClaim, ...] = ()
    open_points: tuple[str, ...] = ()
    attachments: tuple[str, ...] = ()
    follow_up: str = field(default="", repr=False)
    notes: tuple[str, ...] = ()
    sender_facts: tuple[str, ...] = field(default=(), repr=False)
    looked_up: tuple[LookedUp, ...] = ()


@dataclass(frozen=True, slots=True)
class Earlier:
    """A draft that was followed by another, and why; `is_edit`: the next one is the reviewer's own text."""

    markdown: str = field(repr=False)
    reason: str = field(repr=False)
    is_edit: bool
    decided_at: datetime | None


@dataclass(frozen=True, slots=True)
class ReviewItem:
    """What the agent knows of an email. A listing leaves `draft`, `proposal` and `earlier` out.

    `since`: when it came to be of that kind. `promise`: what somebody is to do. `refusal`: why the reviewer
    who asks may not approve the draft, or "". `is_edited`: the draft is a reviewer's own text. `reason`: why
    it ended with its `outcome`. `waits`: why the agent does not go on with it, or would not. `proposal`: a
    text that is not submitted; of a pending draft, that of a reviewer whose edit does not count.
    """

    mailbox_id: str
    email_id: str
    kind: Kind
    since: datetime
    sender: str = field(default="", repr=False)
    reply_id: str = ""
    outcome: str = ""
    reason: str = field(default="", repr=False)
    category: str = ""
    urgency: str = ""
    escalate_to: str = ""
    refusal: str = ""
    is_edited: bool = False
    waits: str = ""
    promise: str = field(default="", repr=False)
    put_off_at: datetime | None = None
    draft: Evidence | None = None
    proposal: Evidence | None = None
    earlier: tuple[Earlier, ...] = ()


@dataclass(frozen=True, slots=True)
class Reviews:
    """What the desk asks of the agent. Every method raises what the ledger raises.

    `reviewer` is the fingerprint of the reviewer's key. What is said of a row raises NotFoundError for one
    that the ledger does not have, and ConflictError where the row has moved on.
    """

    ledger: Ledger
    mailboxes: MailboxDirectory
    writer: MultiMailClient | None
    profiles: Profiles
    tracker: ReplyTracker
    pauses: Pauses
    clock: Callable[[], datetime]

    def list_items(self, reviewer: str) -> list[ReviewItem]:
        """What waits for an approver, what is left to people or promised, and what the agent works on.

        Of the last, MAX_OPEN at most: those with a reviewer's own text, those with a worker, the newest.
        """
        known = self.mailboxes.read().keys()
        open_work = nlargest(
            MAX_OPEN,
            (work for work in self.ledger.open_work() if work.mailbox_id in known),
            key=lambda work: (work.is_edited, work.is_leased, work.open_since),
        )
        works = [(work.work_item, Kind.OPEN, None) for work in open_work]
        matters = [(m.work_item, Kind(m.kind), m) for m in self.ledger.matters.list()]
        items: dict[tuple[WorkItem, Kind], ReviewItem] = {}
        for item, kind, matter in (*matters, *works):
            entry = self.ledger.get(item) if item.mailbox_id in known else None
            if entry is None or (matter is not None and not matter.is_about(entry)):
                continue
            shown = self._describe(entry, reviewer)
            if kind is Kind.PROMISE or shown.kind is kind:
                since = matter.since if matter is not None else shown.since
                items[item, kind] = replace(shown, kind=kind, since=since)
            elif kind is Kind.OPEN and shown.kind is Kind.DRAFT:  # finished since the matters were read
                items.setdefault((item, Kind.DRAFT), shown)
        return [*items.values()]

    def find(self, item: WorkItem, reviewer: str) -> ReviewItem | None:
        """All about one email; None for one that the ledger does not have, or whose data was erased."""
        entry = self.ledger.get(item)
        if entry is None or entry.erased_at is not None:
            return None
        is_paused = self.pauses.holds(self.mailboxes.get(item.mailbox_id), max_age_seconds=0)
        shown, said = self._describe(entry, reviewer), entry.own_review
        is_void = shown.kind is Kind.DRAFT and said is not None and said.is_void(self.clock())
        return replace(
            shown,
            waits=render_cause(Cause.PAUSED) if is_paused else shown.waits,
            draft=_show(entry.draft),
            proposal=_show(entry.abandoned_edit if is_void else entry.proposal),
            earlier=tuple(
                Earlier(said.reply_markdown, said.reason, said.is_edit, said.decided_at)
                for said in entry.rejections
            ),
        )

    def reject(self, item: WorkItem, reply_id: str, reviewer: str, reason: str) -> None:
        """Keep why a pending reply is about to be rejected; an empty reason takes an earlier one back.

        Raises ConflictError while another reviewer decides it.
        """
        said = clean_line(reason, MAX_REJECT_REASON_CHARACTERS)
        self._keep(item, Review(reply_id, reviewer, self.clock(), said), lambda _, review: review)

    def edit(self, item: WorkItem, reply_id: str, reviewer: str, markdown: str) -> None:
        """Keep the text that is to be submitted in place of a pending reply, which is about to be rejected.

        Raises ValueError for a text that cannot be a reply, or is the one that is pending, and ConflictError
        while another reviewer decides it.
        """
        if not markdown.strip() or len(markdown) > MAX_REPLY_CHARACTERS:
            raise ValueError(f"must have 1 to {MAX_REPLY_CHARACTERS} characters")

        def put_in(draft: Draft | None, review: Review) -> Review:
            if draft is None:
                raise ConflictError(
                    f"the reply {reply_id} has no draft here: reject it with a reason instead"
                )
            if markdown == draft.reply_markdown:
                raise ValueError("is the draft as it is: change it, or approve it")
            edited = replace(draft, reply_markdown=markdown)
            distance = count_changed_words(draft.reply_markdown, markdown)
            return replace(review, edited=edited, edit_distance=distance)

        self._keep(item, Review(reply_id, reviewer, self.clock()), put_in)

    def take_back(self, item: WorkItem, reply_id: str, reviewer: str) -> None:
        """Let what this reviewer said of a reply count no more: it was not rejected for it.

        An edit stays as a proposal. Raises what MultiMail raises, too.
        """
        said = self._get(item).review
        is_tagged = said is not None and _is_by(said, reply_id, reviewer) and bool(said.reason)
        if self.writer is not None and said is not None and is_tagged:
            tags = self.writer.get_tags(item.mailbox_id, reply_id)
            if tags.get(REJECT_REASON_TAG) == said.reason:
                self.writer.set_tags(item.mailbox_id, reply_id, {**tags, REJECT_REASON_TAG: ""})

        def change(entry: LedgerEntry) -> LedgerEntry:
            if entry.review is None or not _is_by(entry.review, reply_id, reviewer):
                return entry
            return replace(entry, review=None, proposal=entry.abandoned_edit)

        self._change(item, change)

    def put_off(self, item: WorkItem) -> None:
        """Leave an email for later: it comes after all others."""
        self._change(item, lambda entry: replace(entry, put_off_at=self.clock()))

    def mark_done(self, item: WorkItem, reviewer: str) -> None:
        """Say that a person has seen to what was left to people, or was promised."""
        found = [
            matter
            for matter in self.ledger.matters.list()
            if matter.work_item == item and matter.kind is not MatterKind.DRAFT
        ]
        if not found:
            raise ConflictError(f"nothing of email {item.email_id} is left to people any more")
        for matter in found:
            self.ledger.matters.settle(matter, "reviewer", reviewer)

    def note_decided(self, mailbox_id: str, reply_id: str) -> None:
        """See what became of a reply that was decided just now. Raises what MultiMail raises, too."""
        self.tracker.track_one(mailbox_id, reply_id)

    def _describe(self, entry: LedgerEntry, reviewer: str) -> ReviewItem:
        triage, profile = entry.triage, self.profiles.get(self.mailboxes.get(entry.mailbox_id))
        is_refused = profile.edit_needs_second_reviewer and entry.edited_by == reviewer != ""
        return ReviewItem(
            mailbox_id=entry.mailbox_id,
            email_id=entry.email_id,
            kind=_find_kind(entry),
            since=entry.finished_at or entry.open_since,
            sender=entry.sender,
            reply_id=entry.reply_id or "",
            outcome=entry.outcome or "",
            reason=render_reason(entry, MAX_WHOLE_REASON_CHARACTERS),
            category=triage.category if triage is not None else "",
            urgency=triage.urgency if triage is not None else "",
            escalate_to=name_handler(entry, profile),
            refusal=SECOND_REVIEWER if is_refused else "",
            is_edited=bool(entry.edited_by),
            promise=entry.draft.follow_up.text if entry.draft is not None and entry.promise else "",
            waits=render_waiting(entry) if entry.finished_at is None else "",
            put_off_at=entry.put_off_at,
        )

    def _keep(
        self, item: WorkItem, review: Review, complete: Callable[[Draft | None, Review], Review]
    ) -> None:
        """Keep a review with what `complete` adds for the draft, then bring the tag for a reason in line."""
        ids = item.mailbox_id, review.reply_id
        tags = self._read_tags(*ids)
        tagged = clean_line((tags or {}).get(REJECT_REASON_TAG, ""), MAX_REJECT_REASON_CHARACTERS)

        def change(entry: LedgerEntry) -> LedgerEntry:
            earlier = _pending(entry, review.reply_id).own_review
            is_others = earlier is not None and earlier.reviewer != review.reviewer
            if earlier is not None and is_others and abs(review.said_at - earlier.said_at) < DECIDING_FOR:
                raise ConflictError("another reviewer is deciding this reply: look again in a minute")
            said = complete(entry.draft, review)
            # A reason from elsewhere counts with a rejection that has none of its own.
            from_elsewhere = earlier is None or earlier.is_taken_over(tagged)
            is_plain = not said.reason and said.edited is None
            said = replace(said, superseded="" if is_plain and from_elsewhere else tagged)
            return replace(entry, review=said, proposal=entry.abandoned_edit)

        kept = self._change(item, change).review
        self.tracker.look_soon(*ids)
        if self.writer is None or tags is None or kept is None:
            return
        if tagged == kept.reason or not (kept.reason or kept.superseded):
            return
        try:  # to show it to who looks at MultiMail; the row has it already
            self.writer.set_tags(*ids, {**tags, REJECT_REASON_TAG: kept.reason})
        except AgentError as error:
            log.warning("reply %s of mailbox %s could not be tagged: %s", *ids, error)

    def _get(self, item: WorkItem) -> LedgerEntry:
        entry = self.ledger.get(item)
        if entry is None or entry.erased_at is not None:
            raise NotFoundError(f"the ledger has no email {item.email_id} of mailbox {item.mailbox_id}")
        return entry

    def _change(self, item: WorkItem, change: Callable[[LedgerEntry], LedgerEntry]) -> LedgerEntry:
        for _ in range(TRIES):
            entry = self._get(item)
            if entry.finished_at is None:
                raise ConflictError(f"the agent is working on email {item.email_id}: look again in a minute")
            with suppress(LeaseLostError):
                return self.ledger.save(change(entry))
        raise TransientError(f"email {item.email_id} is written by others all the time: try again")

    def _read_tags(self, mailbox_id: str, reply_id: str) -> Mapping[str, str] | None:
        """The tags of a reply; None where they cannot be read: the row is what counts."""
        if self.writer is None:
            return None
        try:
            return self.writer.get_tags(mailbox_id, reply_id)
        except AgentError as error:
            log.warning("reply %s of mailbox %s could not be tagged: %s", reply_id, mailbox_id, error)
            return None


def _find_kind(entry: LedgerEntry) -> Kind:
    if entry.erased_at is not None:
        return Kind.OTHER
    if entry.finished_at is None:
        return Kind.OPEN
    if entry.outcome is Outcome.REPLY_SUBMITTED and entry.reply_settled_at is None:
        return Kind.DRAFT
    return Kind.ESCALATION if entry.outcome in FOR_PEOPLE else Kind.OTHER


def _is_by(said: Review, reply_id: str, reviewer: str) -> bool:
    return (said.reply_id, said.reviewer) == (reply_id, reviewer)


def _pending(entry: LedgerEntry, reply_id: str) -> LedgerEntry:
    """The row, which still waits for the end of this reply. Raises ConflictError."""
    if entry.reply_id != reply_id or _find_kind(entry) is not Kind.DRAFT:
        raise ConflictError(f"the reply {reply_id} is not pending any more")
    return entry


def _show(draft: Draft | None) -> Evidence | None:
    if draft is None:
        return None
    return Evidence(
        markdown=draft.reply_markdown,
        claims=draft.claims,
        open_points=tuple(point.text for point in draft.open_points),
        follow_up=draft.follow_up.text,
        notes=draft.notes,
        attachments=draft.attachments,
        sender_facts=draft.sender_facts,
        looked_up=draft.looked_up,
    )
