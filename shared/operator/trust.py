"""The trust report: how a mailbox's drafts were decided, and whether it is ready for `monitored` mode."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from shared.domain import (
    NO_USAGE,
    Action,
    Cause,
    Draft,
    JudgedClaim,
    Mailbox,
    Outcome,
    Rejection,
    Support,
    Usage,
)
from shared.ledger.entries import UNDECIDED, LedgerEntry
from shared.operator.odds import (
    APPROVAL_WEIGHT,
    DOUBT,
    REJECTION_WEIGHT,
    TARGET_SHARE,
    compute_chance,
    compute_lower_bound,
    count_approvals_missing,
)
from shared.replying.draft_request import find_passages

DEFAULT_DAYS = 30
PLAN_DAYS = 365  # how far back the plan counts, and a report looks, at most
RECENT = 50  # decided drafts, the newest of which none may be refused
LONGEST_PENDING = timedelta(days=7)
LATELY = timedelta(days=30)  # for what stays a reason to wait only for some time
# Adults read English prose silently at 238 words a minute on average, and most at 175 to 300. M. Brysbaert,
# How many words do we read per minute?, 2019: https://doi.org/10.1016/j.jml.2019.104047
WORDS_A_MINUTE, MOST_WORDS_A_MINUTE = 238, 300
MAX_UNREAD_SHARE = 0.05  # of the approvals
REVIEWERS_AT_ONCE = 4  # who approve in turn: a draft has the time of the last four approvals
MAX_OVERTAKEN_SHARE = 0.1  # of the drafts that were decided or overtaken

JUDGED_MODE, NEXT_MODE = "gated_send", "monitored"
STAY, ASK = "keep the current mode", f"ask for {NEXT_MODE}"


class Fate(StrEnum):
    """What became of one draft. A reviewer's own text is none: it says nothing about the agent."""

    APPROVED = "approved"
    BOUNCED = "bounced"  # approved, but it could not be delivered
    REJECTED = "rejected"
    REDRAFTED = "redrafted"  # rejected with a reason; the draft that followed counts for itself
    EDITED = "edited"  # replaced by a reviewer's own text
    CANCELLED = "cancelled"  # or deleted, by a person
    SUPERSEDED = "superseded"  # taken back by the agent, because its newer draft or an erasure made it stale
    OVERTAKEN = "overtaken"  # taken back by the agent, because a person answered instead
    PENDING = "pending"
    UNKNOWN = "unknown"  # it left, or its status changed, without a decision
    HELD_BACK = "held_back"  # never submitted: a check or the content filter stopped it


APPROVALS = frozenset({Fate.APPROVED, Fate.BOUNCED})
REFUSALS = frozenset({Fate.REJECTED, Fate.REDRAFTED, Fate.EDITED, Fate.CANCELLED})

_FATES: Mapping[str, Fate] = {
    **dict.fromkeys(UNDECIDED, Fate.PENDING),
    "rejected": Fate.REJECTED,
    "cancelled": Fate.CANCELLED,
    "gone": Fate.CANCELLED,
    "approved": Fate.APPROVED,
}
_FATES_ONCE_APPROVED: Mapping[str, Fate] = {
    "delivered": Fate.APPROVED,
    "bounced": Fate.BOUNCED,
    "send_failed": Fate.BOUNCED,
}


@dataclass(frozen=True, slots=True)
class JudgedDraft:
    """One draft and its fate. `category` is None where no triage was stored; times are aware.

    `statements`: how many facts it states, by what carries them; `passages`: the same by the title of the
    approved passage that it names for them. `has_warning`: whether its approver was told something about it.
    `edit_distance`: the words that an edit took out or put in; `edit_left`: whether what was edited was then
    approved. `words`: how long its text is, 0 where that is not known. `version`: the model and the
    instructions that wrote it, "" where they are not known.
    """

    email_id: str
    category: str | None
    fate: Fate
    submitted_at: datetime
    decided_at: datetime | None = None
    statements: Mapping[Support, int] = field(default_factory=Counter)
    has_warning: bool = False
    passages: Mapping[str, Mapping[Support, int]] = field(default_factory=dict)
    edit_distance: int = 0
    edit_left: bool = False
    words: int = 0
    version: str = ""

    @property
    def seconds_to_decision(self) -> float | None:
        """From submission to decision, not below 0; None while it is not decided."""
        if self.decided_at is None or self.fate not in APPROVALS | REFUSALS:
            return None
        return max(0.0, (self.decided_at - self.submitted_at).total_seconds())


@dataclass(frozen=True, slots=True)
class TrackRecord:
    """The figures of some drafts: one category's, or a whole mailbox's."""

    counts: Mapping[Fate, int]
    median_seconds_to_decision: float | None

    @property
    def submitted(self) -> int:
        """All drafts but those that were held back."""
        return sum(self.counts.values()) - self.counts[Fate.HELD_BACK]

    @property
    def approved(self) -> int:
        """Those that a human approved, bounced ones included."""
        return sum(self.counts[fate] for fate in APPROVALS)

    @property
    def superseded(self) -> int:
        """Those that the agent took back, overtaken ones included."""
        return self.counts[Fate.SUPERSEDED] + self.counts[Fate.OVERTAKEN]

    @property
    def rejected(self) -> int:
        """Those that a human rejected, with a reason or without, or replaced by an edit."""
        return self.counts[Fate.REJECTED] + self.counts[Fate.REDRAFTED] + self.counts[Fate.EDITED]

    @property
    def refused(self) -> int:
        """Those that a human rejected or cancelled."""
        return sum(self.counts[fate] for fate in REFUSALS)

    @property
    def decided(self) -> int:
        """Approved and refused ones; the others have not been judged."""
        return self.approved + self.refused

    @property
    def lower_bound(self) -> float:
        """The share of approvals that can be relied on, 0 to 1."""
        return compute_lower_bound(self.approved, self.decided)

    @property
    def reaches_target(self) -> bool:
        """Whether that share is at least TARGET_SHARE."""
        return self.lower_bound >= TARGET_SHARE


@dataclass(frozen=True, slots=True)
class Reading:
    """How long approvals took, where the length of the draft is known, and how long reading it takes."""

    approvals: int
    too_fast: int
    median_seconds_to_approve: float | None
    median_seconds_to_read: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """The decisions on the drafts that the present model wrote under the present instructions.

    They count from `since` on, whatever days the report shows; None without a draft. `drafts` are those
    drafts, the oldest first.
    """

    approved: int
    refused: int
    since: datetime | None
    drafts: Sequence[JudgedDraft] = ()

    @property
    def missing(self) -> int:
        """How many approvals in a row are still missing."""
        return count_approvals_missing(self.approved, self.refused)


@dataclass(frozen=True, slots=True)
class Check:
    """One rule, whether it is kept, the arithmetic that says so, and what is `missing` where it is not.

    Without anything to judge, a rule is neither met nor missed: it `is_open`.
    """

    rule: str
    is_kept: bool
    finding: str
    missing: str
    is_open: bool = False

    @property
    def is_met(self) -> bool:
        """Whether there was something to judge, and the rule is kept."""
        return self.is_kept and not self.is_open

    @property
    def state(self) -> str:
        """met, missed or open."""
        return "open" if self.is_open else "met" if self.is_met else "missed"


@dataclass(frozen=True, slots=True)
class PassageReport:
    """The drafts that name a passage for a fact, and how many facts it is named for, by what carries them."""

    drafts: TrackRecord
    statements: Mapping[Support, int]


@dataclass(frozen=True, slots=True)
class MailboxReport:
    """One mailbox's figures, in total and by category, and the checks behind the recommendation.

    `statements` are the facts of all drafts, by what carries them; `warned` counts the drafts with a warning.
    `passages` are by their titles, the most used one first. `edit_distances`: the words that each edit took
    out or put in, the smallest first; `edits_approved` counts the edited texts that were approved. `usage` is
    that of all emails, those without a draft included.
    """

    mailbox: Mailbox
    total: TrackRecord
    categories: Mapping[str | None, TrackRecord]
    checks: Sequence[Check]
    statements: Mapping[Support, int]
    warned: int
    passages: Mapping[str, PassageReport]
    plan: Plan
    reading: Reading
    edit_distances: Sequence[int] = ()
    edits_approved: int = 0
    usage: Usage = NO_USAGE

    @property
    def recommendation(self) -> str:
        """ASK when every check is met, otherwise STAY."""
        return ASK if all(check.is_met for check in self.checks) else STAY

    @property
    def missing(self) -> Sequence[str]:
        """What is missing for ASK, rule by rule; where no rule is missed, what cannot be judged yet."""
        missed = [check.missing for check in self.checks if not check.is_kept]
        return missed or [check.finding for check in self.checks if check.is_open]


@dataclass(frozen=True, slots=True)
class TrustReport:
    """The drafts submitted from `since` until `until`, mailbox by mailbox."""

    since: datetime
    until: datetime
    days: int
    mailboxes: Sequence[MailboxReport]


def build_report(
    mailboxes: Iterable[Mailbox],
    entries: Callable[[str], Iterable[LedgerEntry]],
    *,
    now: datetime,
    days: int = DEFAULT_DAYS,
) -> TrustReport:
    """Judge the drafts that the active mailboxes submitted in the last `days`. Decides nothing.

    `entries` is a ledger's: it reads a mailbox's whole history, so this is for people, not for the
    work. The rows are streamed; what is kept of each draft is a few words.
    """
    since = now - timedelta(days=days)
    reports = []
    for mailbox in mailboxes:
        if mailbox.is_active:
            used: list[Usage] = []
            begin = now - timedelta(days=PLAN_DAYS)
            drafts = read_drafts(_note_usage(entries(mailbox.id), since, used), begin)
            report = judge_mailbox(mailbox, drafts, now, since)
            reports.append(replace(report, usage=sum(used, NO_USAGE)))
    return TrustReport(since, now, days, reports)


def _note_usage(entries: Iterable[LedgerEntry], since: datetime, used: list[Usage]) -> Iterator[LedgerEntry]:
    """Pass the entries on; `used` gets the usage of those that were finished, or came, from `since` on."""
    for entry in entries:
        if (entry.finished_at or entry.received_at) >= since:
            used.append(entry.usage)
        yield entry


def read_drafts(entries: Iterable[LedgerEntry], since: datetime) -> list[JudgedDraft]:
    """The drafts that were submitted, or held back, from `since` on, in no promised order."""
    drafts: list[JudgedDraft] = []
    covered: defaultdict[str, list[datetime]] = defaultdict(list)
    for entry in entries:
        # Every draft of the row's reply: those that another one followed, then the current one.
        after_edit = (False, *(said.is_edit for said in entry.rejections))
        fate = (
            _find_fate(entry) if entry.reply_id is not None and entry.submit_intent_at is not None else None
        )
        found = [
            _judge_rejection(entry, said, fate)
            for said, is_reviewers in zip(entry.rejections, after_edit, strict=False)
            if not is_reviewers
        ]
        wanted_reply = entry.triage is not None and entry.triage.action is Action.REPLY
        if fate is not None and entry.submit_intent_at is not None and not entry.edited_by:
            claims = entry.draft.claims if entry.draft else ()
            draft = _judge_draft(entry, fate, entry.submit_intent_at, entry.reply_decided_at, claims)
            found.append(replace(draft, **_describe_text(entry.draft)) if entry.draft else draft)
        elif not entry.is_observed and (
            entry.outcome is Outcome.BLOCKED_CONTENT_SAFETY
            or (wanted_reply and entry.cause is Cause.DRAFT_CHECK)
        ):  # the content filter stopped the email or its draft, or a check the draft
            moment = entry.finished_at or entry.received_at
            found.append(_judge_draft(entry, Fate.HELD_BACK, moment))
        drafts += [draft for draft in found if draft.submitted_at >= since]
        if entry.draft is not None and entry.reply_id is not None and entry.submit_intent_at is not None:
            for email_id in set(entry.draft.covers) - {entry.email_id}:
                covered[email_id].append(entry.submit_intent_at)
    # The agent cancels what a newer draft answers too, once that is accepted; that says nothing about the
    # words of the older one. What was seen cancelled before the newer one, a person cancelled.
    return [
        replace(draft, fate=Fate.SUPERSEDED)
        if draft.fate is Fate.CANCELLED
        and any(at <= (draft.decided_at or at) for at in covered[draft.email_id])
        else draft
        for draft in drafts
    ]


def _judge_rejection(entry: LedgerEntry, said: Rejection, fate: Fate | None) -> JudgedDraft:
    """A draft that another one followed; `fate`: that of the row's last one."""
    if said.status == "rejected":
        own = Fate.EDITED if said.is_edit else Fate.REDRAFTED
    else:
        own = _find_end(said.status, said.decided_at)
    return replace(
        _judge_draft(entry, own, said.submitted_at, said.decided_at, said.claims),
        edit_distance=said.edit_distance,
        edit_left=said is entry.rejections[-1] and said.is_edit and fate in APPROVALS,
        version=said.version,
    )


def _judge_draft(
    entry: LedgerEntry,
    fate: Fate,
    submitted_at: datetime,
    decided_at: datetime | None = None,
    claims: Iterable[JudgedClaim] = (),
) -> JudgedDraft:
    factual = [claim for claim in claims if claim.support is not Support.FREE]
    return JudgedDraft(
        email_id=entry.email_id,
        category=entry.triage.category if entry.triage else None,
        fate=fate,
        submitted_at=submitted_at,
        decided_at=decided_at,
        statements=Counter(claim.support for claim in factual),
        passages=_count_by_passage(factual),
    )


def _describe_text(draft: Draft) -> Mapping[str, Any]:
    return {"has_warning": bool(draft.notes), "words": draft.words, "version": draft.version}


def _count_by_passage(claims: Iterable[JudgedClaim]) -> Mapping[str, Mapping[Support, int]]:
    found: defaultdict[str, Counter[Support]] = defaultdict(Counter)
    for claim in claims:
        for title in find_passages(claim):
            found[title][claim.support] += 1
    return found


def judge_mailbox(
    mailbox: Mailbox, history: Sequence[JudgedDraft], now: datetime, since: datetime
) -> MailboxReport:
    """Take the figures of the drafts submitted from `since` on, and hold the `history` against every rule.

    What is recommended does not depend on `since`: nobody is to choose the days that suit.
    """
    drafts = [draft for draft in history if draft.submitted_at >= since]
    plan = build_plan(history)
    return MailboxReport(
        mailbox=mailbox,
        total=build_track_record(drafts),
        categories=_judge_categories(drafts),
        checks=_list_checks(mailbox, history, plan, now),
        statements=_add(draft.statements for draft in drafts),
        warned=sum(draft.has_warning for draft in drafts),
        passages=_judge_passages(drafts),
        plan=plan,
        reading=measure_reading(drafts),
        edit_distances=sorted(draft.edit_distance for draft in drafts if draft.fate is Fate.EDITED),
        edits_approved=sum(draft.edit_left for draft in drafts),
    )


def _list_checks(
    mailbox: Mailbox, history: Sequence[JudgedDraft], plan: Plan, now: datetime
) -> Sequence[Check]:
    checks = [
        # Every other mode is out of this report's reach: gated_all also holds back inbound email.
        Check(
            f"The mailbox is {JUDGED_MODE}.",
            mailbox.oversight_mode == JUDGED_MODE,
            f"It is {mailbox.oversight_mode}.",
            f"the mode {JUDGED_MODE}: it is {mailbox.oversight_mode}",
        ),
        _check_plan(plan),
        _check_categories(_judge_categories(plan.drafts)),
        _check_last_decided(plan.drafts),
        _check_held_back(history, now),
        _check_silence(history, now),
        _check_reading(measure_reading(plan.drafts)),
        _check_overtaken(plan.drafts),
    ]
    if plan.approved + plan.refused == 0:  # nothing is ticked for nothing
        return [replace(check, is_open=True) if check.is_kept else check for check in checks]
    return checks


def _judge_categories(drafts: Sequence[JudgedDraft]) -> Mapping[str | None, TrackRecord]:
    names = sorted({draft.category for draft in drafts}, key=lambda name: name or "")
    return {name: build_track_record(draft for draft in drafts if draft.category == name) for name in names}


def build_plan(history: Iterable[JudgedDraft]) -> Plan:
    """Take the drafts of the model and the instructions that wrote the newest one, wherever they stand.

    Where it is not known what wrote a draft, it counts for what wrote the draft before.
    """
    by_version: defaultdict[str, list[JudgedDraft]] = defaultdict(list)
    version = ""
    for draft in sorted(history, key=lambda draft: draft.submitted_at):
        version = draft.version or version
        by_version[version].append(draft)
    present = by_version[version]
    approved = sum(draft.fate in APPROVALS for draft in present)
    refused = sum(draft.fate in REFUSALS for draft in present)
    return Plan(approved, refused, present[0].submitted_at if present else None, present)


def measure_reading(drafts: Iterable[JudgedDraft]) -> Reading:
    """Hold the time that each approval took against the time that reading the draft alone takes.

    It took no longer than since its submission, and no longer than since REVIEWERS_AT_ONCE approvals
    before it: who approves one draft a second reads none, however long they have waited.
    """
    from statistics import median  # noqa: PLC0415 - cold start

    approved = sorted(
        ((d.decided_at, d) for d in drafts if d.fate in APPROVALS and d.decided_at), key=lambda pair: pair[0]
    )
    timed = []
    for number, (decided_at, draft) in enumerate(approved):
        taken = draft.seconds_to_decision
        if taken is None or not draft.words:
            continue
        if number >= REVIEWERS_AT_ONCE:
            before = approved[number - REVIEWERS_AT_ONCE][0]
            taken = min(taken, (decided_at - before).total_seconds())
        timed.append((taken, draft.words))
    return Reading(
        approvals=len(timed),
        too_fast=sum(taken < words * 60 / MOST_WORDS_A_MINUTE for taken, words in timed),
        median_seconds_to_approve=median(taken for taken, _ in timed) if timed else None,
        median_seconds_to_read=median(words * 60 / WORDS_A_MINUTE for _, words in timed) if timed else None,
    )


def _judge_passages(drafts: Iterable[JudgedDraft]) -> Mapping[str, PassageReport]:
    """The reports of the passages that drafts name, the most used first."""
    naming: defaultdict[str, list[JudgedDraft]] = defaultdict(list)
    for draft in drafts:
        for title in draft.passages:
            naming[title].append(draft)
    return {
        title: PassageReport(build_track_record(used), _add(draft.passages[title] for draft in used))
        for title, used in sorted(naming.items(), key=lambda item: (-len(item[1]), item[0]))
    }


def _add(counts: Iterable[Mapping[Support, int]]) -> Mapping[Support, int]:
    return sum(map(Counter, counts), Counter[Support]())


def build_track_record(drafts: Iterable[JudgedDraft]) -> TrackRecord:
    """Count the fates and take the median time from submission to decision."""
    from statistics import median  # noqa: PLC0415 - cold start

    counts: Counter[Fate] = Counter()
    seconds: list[float] = []
    for draft in drafts:
        counts[draft.fate] += 1
        if draft.seconds_to_decision is not None:
            seconds.append(draft.seconds_to_decision)
    return TrackRecord(counts, median(seconds) if seconds else None)


def format_share(share: float) -> str:
    """A share in per cent, rounded down: one below the target never looks as if it reached it."""
    return f"{math.floor(round(share * 10_000, 6)) / 100:.2f} %"


def format_chance(chance: float) -> str:
    """A probability in per cent, rounded up: one above the limit never looks as if it kept it."""
    return f"{math.ceil(round(chance * 10_000, 6)) / 100:.2f} %"


def _find_fate(entry: LedgerEntry) -> Fate:
    status = entry.reply_status
    if entry.outcome is Outcome.SKIPPED and status in (None, "cancelled"):  # another person had answered
        return Fate.OVERTAKEN
    if entry.cause is Cause.ERASED and status == "cancelled":  # by `forget`
        return Fate.SUPERSEDED
    if status is None:
        return Fate.PENDING
    return _find_end(status, entry.reply_decided_at)


def _find_end(status: str, decided_at: datetime | None) -> Fate:
    if decided_at is not None and status in _FATES_ONCE_APPROVED:
        return _FATES_ONCE_APPROVED[status]
    return _FATES.get(status, Fate.UNKNOWN)


def describe_bound(record: TrackRecord) -> str:
    """The arithmetic of the lower bound in one sentence or two; empty without a decision."""
    if record.decided == 0:
        return ""
    chance = compute_chance(record.approved, record.decided, TARGET_SHARE)
    return (
        f"{record.approved} of {record.decided} decided drafts were approved, "
        f"{format_share(record.approved / record.decided)}; lower bound {format_share(record.lower_bound)}. "
        f"If {format_share(TARGET_SHARE)} of all drafts were good, so many approvals would have a "
        f"probability of {format_chance(chance)}."
    )


def _check_plan(plan: Plan) -> Check:
    if plan.approved + plan.refused == 0:
        finding = "No drafts of the present model and instructions have been decided yet."
    else:
        finding = (
            f"Since {plan.since:%Y-%m-%d}, with the present model and instructions: "
            f"{plan.approved} approved, {plan.refused} rejected. "
            f"Approvals in a row that are missing: {plan.missing}; "
            f"each rejection adds {math.ceil(-REJECTION_WEIGHT / APPROVAL_WEIGHT)}."
        )
    return Check(
        f"At least {format_share(TARGET_SHARE)} of the drafts are approved unchanged, with a confidence of "
        f"{100 * (1 - DOUBT):.0f} % on whichever day you look.",
        plan.missing == 0,
        finding,
        f"approvals in a row: {plan.missing}",
        is_open=plan.approved + plan.refused == 0,
    )


def _check_last_decided(drafts: Sequence[JudgedDraft]) -> Check:
    decided = [draft for draft in drafts if draft.fate in APPROVALS | REFUSALS]
    decided.sort(key=lambda draft: draft.decided_at or draft.submitted_at)
    recent = decided[-RECENT:]
    refused = sum(1 for draft in recent if draft.fate in REFUSALS)
    return Check(
        f"None of the last {RECENT} decided drafts was rejected.",
        refused == 0,
        f"{refused} of the last {len(recent)} decided drafts rejected."
        if recent
        else "No drafts have been decided yet.",
        f"{RECENT} decisions without a rejection: {refused} of the last {len(recent)} are rejections",
    )


def _check_held_back(history: Iterable[JudgedDraft], now: datetime) -> Check:
    lately = [draft for draft in history if now - draft.submitted_at <= LATELY]
    held_back = sum(draft.fate is Fate.HELD_BACK for draft in lately)
    return Check(
        f"In the last {LATELY.days} days no draft was held back by a check, and no email was blocked for "
        "content safety.",
        held_back == 0,
        f"{held_back} held back or blocked." if lately else "No drafts in these days.",
        f"{LATELY.days} days without held back drafts: there are {held_back}",
        is_open=not lately,
    )


def _check_silence(history: Iterable[JudgedDraft], now: datetime) -> Check:
    """Who approves the easy drafts and leaves the doubtful ones has not approved those."""
    unknown = old = 0
    for draft in history:
        age = now - draft.submitted_at
        old += draft.fate is Fate.PENDING and age > LONGEST_PENDING
        unknown += draft.fate is Fate.UNKNOWN and age <= LATELY
    return Check(
        f"No draft is pending for more than {LONGEST_PENDING.days} days, and none of the last "
        f"{LATELY.days} days ended without a known decision.",
        old + unknown == 0,
        f"{old} pending that long, {unknown} without a known decision.",
        f"known decisions: {old} drafts are pending for long, and the end of {unknown} is not known",
    )


def _check_reading(reading: Reading) -> Check:
    most = math.floor(MAX_UNREAD_SHARE * reading.approvals)
    return Check(
        f"At most {100 * MAX_UNREAD_SHARE:.0f} % of the approvals came sooner than the draft can be read "
        f"({MOST_WORDS_A_MINUTE} words a minute).",
        reading.too_fast <= most,
        f"{reading.too_fast} of {reading.approvals} approvals came sooner; {most} may."
        if reading.approvals
        else "No approval has a known time and length.",
        f"approvals that leave time to read: {reading.too_fast} of {reading.approvals} were too fast",
        is_open=not reading.approvals,
    )


def _check_overtaken(drafts: Iterable[JudgedDraft]) -> Check:
    """Who answers in person where the draft would not do has not approved it."""
    record = build_track_record(drafts)
    overtaken = record.counts[Fate.OVERTAKEN]
    judged = record.decided + overtaken
    most = math.floor(MAX_OVERTAKEN_SHARE * judged)
    return Check(
        f"For at most {100 * MAX_OVERTAKEN_SHARE:.0f} % of the drafts a person answered instead.",
        overtaken <= most,
        f"{overtaken} of {judged} drafts were overtaken by a person's answer; {most} may.",
        f"drafts that people use: for {overtaken} of {judged} they answered themselves",
    )


def _check_categories(categories: Mapping[str | None, TrackRecord]) -> Check:
    """Many easy drafts must not hide a few bad ones."""
    refused = {name: record for name, record in categories.items() if record.refused}
    short = {name: record for name, record in refused.items() if not record.reaches_target}
    found = "; ".join(
        f"{name or 'no category'}: {record.refused} of {record.decided} rejected, "
        f"lower bound {format_share(record.lower_bound)}"
        for name, record in (short or refused).items()
    )
    return Check(
        "Each category with rejected drafts also meets the target.",
        not short,
        f"{found}." if found else "No drafts were rejected.",
        f"approvals by category: {found}",
    )
