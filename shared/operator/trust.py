"""The trust report: how a mailbox's drafts were decided, and whether it is ready for `monitored` mode."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache

from shared.domain import NO_USAGE, Action, Cause, JudgedClaim, Mailbox, Outcome, Support, Usage
from shared.ledger.entries import UNDECIDED, LedgerEntry
from shared.replying.draft_request import find_passages

DEFAULT_DAYS = 30
TARGET_SHARE = 0.98  # of the drafts approved unchanged
DOUBT = 0.05  # a confidence of 95 %
LEAST_DECIDED = math.ceil(math.log(DOUBT) / math.log(TARGET_SHARE))  # fewer cannot reach the target
HALVINGS = 50  # of the interval in which the lower bound is: what is left is 1e-15
RECENT = 50  # decided drafts, the newest of which none may be refused
LONGEST_PENDING = timedelta(days=7)

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
    SUPERSEDED = "superseded"  # taken back by the agent, because another answer made it stale
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
    `edit_distance`: the words that an edit took out or put in.
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


def compute_lower_bound(approved: int, decided: int) -> float:
    """The share of approvals that is exceeded with a confidence of 95 %, 0 to 1; 0 without any decision.

    It is the lower end of the one-sided Clopper-Pearson interval: the share that would make at least so many
    approvals come about with a probability of DOUBT. Unlike approximations it never promises too much, also
    where the share is near 1. C. J. Clopper and E. S. Pearson, 1934:
    https://en.wikipedia.org/wiki/Binomial_proportion_confidence_interval
    """
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if compute_chance(approved, decided, middle) <= DOUBT:
            low = middle
        else:
            high = middle
    return low


@lru_cache(maxsize=4096)
def compute_chance(approved: int, decided: int, share: float) -> float:
    """The probability of at least so many approvals if `share` (over 0, under 1) of all drafts were good."""
    return math.fsum(
        math.exp(
            math.lgamma(decided + 1) - math.lgamma(count + 1) - math.lgamma(decided - count + 1)
            + count * math.log(share) + (decided - count) * math.log1p(-share)
        )
        for count in range(approved, decided + 1)
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Check:
    """One rule, whether it is met, and the arithmetic that says so."""

    rule: str
    is_met: bool
    finding: str


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
    out or put in, the smallest first. `usage` is that of all emails, those without a draft included.
    """

    mailbox: Mailbox
    total: TrackRecord
    categories: Mapping[str | None, TrackRecord]
    checks: Sequence[Check]
    statements: Mapping[Support, int]
    warned: int
    passages: Mapping[str, PassageReport]
    edit_distances: Sequence[int] = ()
    usage: Usage = NO_USAGE

    @property
    def recommendation(self) -> str:
        """ASK when every check is met, otherwise STAY."""
        return ASK if all(check.is_met for check in self.checks) else STAY


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
            drafts = read_drafts(_note_usage(entries(mailbox.id), since, used), since)
            report = judge_mailbox(mailbox, drafts, now)
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
        # Every draft of the row's reply: those rejected with a reason, then the current one.
        after_edit = (False, *(said.is_edit for said in entry.rejections))
        found = [
            replace(
                _judge_draft(
                    entry,
                    Fate.EDITED if said.is_edit else Fate.REDRAFTED,
                    said.submitted_at,
                    said.decided_at,
                    said.claims,
                ),
                edit_distance=said.edit_distance,
            )
            for said, is_reviewers in zip(entry.rejections, after_edit, strict=False)
            if not is_reviewers
        ]
        wanted_reply = entry.triage is not None and entry.triage.action is Action.REPLY
        if entry.reply_id is not None and entry.submit_intent_at is not None and not entry.edited_by:
            fate, decided_at = _find_fate(entry), entry.reply_decided_at
            claims = entry.draft.claims if entry.draft else ()
            draft = _judge_draft(entry, fate, entry.submit_intent_at, decided_at, claims)
            found.append(replace(draft, has_warning=bool(entry.draft and entry.draft.notes)))
        elif entry.outcome is Outcome.BLOCKED_CONTENT_SAFETY or (
            wanted_reply and entry.cause is Cause.DRAFT_CHECK
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


def _count_by_passage(claims: Iterable[JudgedClaim]) -> Mapping[str, Mapping[Support, int]]:
    found: defaultdict[str, Counter[Support]] = defaultdict(Counter)
    for claim in claims:
        for title in find_passages(claim):
            found[title][claim.support] += 1
    return found


def judge_mailbox(mailbox: Mailbox, drafts: Sequence[JudgedDraft], now: datetime) -> MailboxReport:
    """Take a mailbox's figures and hold them against every rule."""
    names = sorted({draft.category for draft in drafts}, key=lambda name: name or "")
    categories = {
        name: build_track_record(draft for draft in drafts if draft.category == name) for name in names
    }
    total = build_track_record(drafts)
    return MailboxReport(
        mailbox=mailbox,
        total=total,
        categories=categories,
        checks=(
            # Every other mode is out of this report's reach: gated_all also holds back inbound email.
            Check(
                f"The mailbox is {JUDGED_MODE}.",
                mailbox.oversight_mode == JUDGED_MODE,
                f"It is {mailbox.oversight_mode}.",
            ),
            Check(
                f"At least {format_share(TARGET_SHARE)} of the drafts are approved unchanged, "
                "with a confidence of 95 %.",
                total.reaches_target,
                describe_bound(total),
            ),
            _check_categories(categories),
            *_check_drafts(drafts, total, now),
        ),
        statements=_add(draft.statements for draft in drafts),
        warned=sum(draft.has_warning for draft in drafts),
        passages=_judge_passages(drafts),
        edit_distances=sorted(draft.edit_distance for draft in drafts if draft.fate is Fate.EDITED),
    )


def _check_drafts(drafts: Sequence[JudgedDraft], total: TrackRecord, now: datetime) -> Iterator[Check]:
    """The rules about what no draft may be: rejected lately, held back, or left without a decision."""
    decided = [draft for draft in drafts if draft.fate in APPROVALS | REFUSALS]
    decided.sort(key=lambda draft: draft.decided_at or draft.submitted_at)
    recent = decided[-RECENT:]
    refused = sum(1 for draft in recent if draft.fate in REFUSALS)
    yield Check(
        f"None of the last {RECENT} decided drafts was rejected.",
        refused == 0,
        f"{refused} of the last {len(recent)} decided drafts rejected."
        if recent
        else "No drafts have been decided yet.",
    )
    held_back, unknown = total.counts[Fate.HELD_BACK], total.counts[Fate.UNKNOWN]
    yield Check(
        "No draft was held back by a check, and no email was blocked for content safety.",
        held_back == 0,
        f"{held_back} held back or blocked.",
    )
    # Who approves the easy drafts and leaves the doubtful ones has not approved those.
    old = sum(d.fate is Fate.PENDING and now - d.submitted_at > LONGEST_PENDING for d in drafts)
    yield Check(
        f"No draft is pending for more than {LONGEST_PENDING.days} days or ended without a known decision.",
        old + unknown == 0,
        f"{old} pending that long, {unknown} without a known decision.",
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
        if draft.fate in APPROVALS | REFUSALS and draft.decided_at is not None:
            seconds.append(max(0.0, (draft.decided_at - draft.submitted_at).total_seconds()))
    return TrackRecord(counts, median(seconds) if seconds else None)


def format_share(share: float) -> str:
    """A share in per cent, rounded down: one below the target never looks as if it reached it."""
    return f"{math.floor(round(share * 10_000, 6)) / 100:.2f} %"


def format_chance(chance: float) -> str:
    """A probability in per cent, rounded up: one above the limit never looks as if it kept it."""
    return f"{math.ceil(round(chance * 10_000, 6)) / 100:.2f} %"


def _find_fate(entry: LedgerEntry) -> Fate:
    status = entry.reply_status
    if entry.outcome is Outcome.SKIPPED:  # a late reply, withdrawn because another person had answered
        return Fate.SUPERSEDED
    if entry.cause is Cause.ERASED and status == "cancelled":  # by `forget`
        return Fate.SUPERSEDED
    if status is None:
        return Fate.PENDING
    if entry.reply_decided_at is not None and status in _FATES_ONCE_APPROVED:
        return _FATES_ONCE_APPROVED[status]
    return _FATES.get(status, Fate.UNKNOWN)


def describe_bound(record: TrackRecord) -> str:
    """The arithmetic of the lower bound in one sentence or two."""
    if record.decided == 0:
        return f"No drafts have been decided yet; at least {LEAST_DECIDED} decided drafts are needed."
    chance = compute_chance(record.approved, record.decided, TARGET_SHARE)
    text = (
        f"{record.approved} of {record.decided} decided drafts were approved, "
        f"{format_share(record.approved / record.decided)}; lower bound {format_share(record.lower_bound)}. "
        f"If {format_share(TARGET_SHARE)} of all drafts were good, so many approvals would have a "
        f"probability of {format_chance(chance)}; it may be at most {format_chance(DOUBT)}."
    )
    if record.decided < LEAST_DECIDED:
        text += f" At least {LEAST_DECIDED} decided drafts are needed, even with no rejections."
    return text


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
    )
