"""What a backtest found: how the agent compares with what people did, and which cases flip."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum

from local.backtest.past import PastEmail, PastMail
from shared.domain import Cause, EmailSummary, Support, TokenPrice, Usage, WorkItem
from shared.ledger.entries import APPROVED_STATUSES, UNSENT_STATUSES, LedgerEntry
from shared.operator.observed import Would, add_up, find_answer, find_would

UNDELIVERED_STATUSES = ("bounced", "send_failed")
Z = 1.96  # of the normal distribution: 95 %


class Really(StrEnum):
    """What really became of an email."""

    APPROVED = "the agent's reply was approved as it was"
    EDITED = "the agent's reply was edited"
    REJECTED = "the agent's reply was rejected or taken back"
    UNDELIVERED = "the agent's reply was approved, and could not be delivered"
    PERSON = "a person answered"
    NOBODY = "nobody answered"


ANSWERED = (Really.APPROVED, Really.EDITED, Really.PERSON)
WANTED = (*ANSWERED, Really.UNDELIVERED)  # a person found that an answer is due


@dataclass(frozen=True, slots=True)
class Share:
    """A share of a number of cases, with the 95 % interval of Wilson: few cases say little."""

    part: int
    whole: int

    def __str__(self) -> str:
        return f"{self.part:,} of {self.whole:,}, {self.per_cent}" if self.whole else "no cases"

    @property
    def per_cent(self) -> str:
        """The share and its interval."""
        low, high = self.interval
        return f"{self.part / max(self.whole, 1):.0%} (95 %: {low:.0%} to {high:.0%})"

    @property
    def interval(self) -> tuple[float, float]:
        """The share that so many cases leave possible, from and to."""
        if not self.whole:
            return 0.0, 1.0
        n, p = self.whole, self.part / self.whole
        centre = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
        half = Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
        return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True, slots=True)
class Tried:
    """One past email: what really happened, and what the agent would do now and under the new configuration.

    `answer`: what a person sent; `rejections`: the reasons that reviewers gave. `after`: None without a new
    configuration.
    """

    email: PastEmail
    really: Really
    answer: EmailSummary | None
    rejections: Sequence[str]
    before: LedgerEntry
    after: LedgerEntry | None

    @property
    def newest(self) -> LedgerEntry:
        """What came out under the configuration that is judged."""
        return self.after or self.before

    @property
    def is_flip(self) -> bool:
        """Whether the agent would do something else under the new configuration."""
        return self.after is not None and find_would(self.before.outcome) != find_would(self.after.outcome)

    @property
    def answered_after(self) -> timedelta | None:
        """How long a person took to answer."""
        return self.answer.received_at - self.email.summary.received_at if self.answer else None


@dataclass(frozen=True, slots=True)
class Side:
    """One configuration's results."""

    name: str
    entries: Sequence[LedgerEntry]

    @property
    def counts(self) -> Mapping[Would, int]:
        """How many emails of each kind there are."""
        counted = Counter(find_would(entry.outcome) for entry in self.entries)
        return {would: counted[would] for would in Would}

    @property
    def usage(self) -> Usage:
        """What the models were asked for them; without dollars where a price is missing."""
        return add_up(entry.usage for entry in self.entries)

    @property
    def verified(self) -> Share:
        """How many of the answers' statements are verified."""
        claims = [claim for entry in self.entries if entry.draft for claim in entry.draft.claims]
        factual = [claim for claim in claims if claim.support is not Support.FREE]
        return Share(sum(claim.support is Support.VERIFIED for claim in factual), len(factual))


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that a backtest found. `left_out`: how many emails were not tried, by reason."""

    days: int
    cases: Sequence[Tried]
    left_out: Mapping[str, int]
    names: Sequence[str]

    @property
    def sides(self) -> list[Side]:
        """The results under today's configuration and, if there is one, under the new."""
        found = [[case.before for case in self.cases], [case.after for case in self.cases if case.after]]
        return [Side(name, side) for name, side in zip(self.names, found, strict=False)]

    @property
    def flips(self) -> list[Tried]:
        """The cases that flip."""
        return [case for case in self.cases if case.is_flip]

    @property
    def flip_share(self) -> Share:
        """How many cases flip."""
        return Share(len(self.flips), len(self.cases))

    def count(self, side: Callable[[Tried], LedgerEntry | None]) -> Mapping[tuple[Really, Would], int]:
        """How many emails with which end the agent would have treated in which way."""
        found = ((case.really, side(case)) for case in self.cases)
        return Counter((really, find_would(entry.outcome)) for really, entry in found if entry is not None)

    @property
    def ends(self) -> list[Really]:
        """What really became of at least one email."""
        return [end for end in Really if any(case.really is end for case in self.cases)]

    def share_answered(self, side: Callable[[Tried], LedgerEntry | None]) -> Share:
        """Of the emails that were answered, how many the agent would answer."""
        cells = self.count(side)
        whole = sum(count for (really, _), count in cells.items() if really in ANSWERED)
        return Share(sum(cells.get((really, Would.ANSWER), 0) for really in ANSWERED), whole)

    @property
    def missed(self) -> list[Tried]:
        """What people answered and the agent would not."""
        return [
            c for c in self.cases if c.really in ANSWERED and find_would(c.newest.outcome) is not Would.ANSWER
        ]

    @property
    def unasked(self) -> list[Tried]:
        """What the agent would answer though nobody did, or its reply was rejected."""
        return [
            c for c in self.cases if c.really not in WANTED and find_would(c.newest.outcome) is Would.ANSWER
        ]


def compare(
    mail: PastMail,
    history: Callable[[WorkItem], LedgerEntry | None],
    before: Mapping[WorkItem, LedgerEntry],
    after: Mapping[WorkItem, LedgerEntry] | None,
    *,
    days: int,
    names: Sequence[str],
) -> Comparison:
    """Hold the results against what really happened. `history` has the rows of the working ledger."""
    left_out, cases = Counter(mail.left_out), list[Tried]()
    rows = {email.work_item: row for email in mail.emails if (row := history(email.work_item)) is not None}
    own, answering = {row.reply_id for row in rows.values()}, find_answering(rows.values())
    by_people = [email for email in mail.sent if email.id not in own]
    for email in mail.emails:
        old, new = before.get(email.work_item), None if after is None else after.get(email.work_item)
        if old is None or (after is not None and new is None):
            left_out["every attempt failed: the next backtest tries again"] += 1
        elif Cause.DELETED in (old.cause, new.cause if new else None):
            left_out["MultiMail no longer has it"] += 1
        else:
            row, answer = rows.get(email.work_item), find_answer(old, by_people)
            reasons = [said.reason for said in row.rejections if said.reason] if row else []
            really = find_real_end(answering.get(email.work_item, row), answer)
            cases.append(Tried(email, really, answer, reasons, old, new))
    return Comparison(days, cases, left_out, names)


def find_answering(rows: Collection[LedgerEntry]) -> Mapping[WorkItem, LedgerEntry]:
    """By email, the row of the approved reply that answers it: its own, or one that covers it too."""
    approved = [row for row in rows if row.reply_status in APPROVED_STATUSES]
    covering = {
        WorkItem(row.mailbox_id, email_id): row
        for row in approved
        if row.draft is not None
        for email_id in row.draft.covers
    }
    return covering | {row.work_item: row for row in approved}


def find_real_end(row: LedgerEntry | None, answer: EmailSummary | None) -> Really:
    """What became of an email, by its row and what a person sent.

    The row of a rejected reply was judged again since, or has a new draft.
    """
    if row is not None and row.reply_status in APPROVED_STATUSES:
        return Really.EDITED if row.edited_by else Really.APPROVED
    if answer is not None:
        return Really.PERSON
    if row is None:
        return Really.NOBODY
    if row.reply_status in UNDELIVERED_STATUSES:
        return Really.UNDELIVERED
    was_rejected = any(said.status == "rejected" and not said.is_edit for said in row.rejections)
    return Really.REJECTED if was_rejected or row.reply_status in UNSENT_STATUSES else Really.NOBODY


@dataclass(frozen=True, slots=True)
class Estimate:
    """What trials would cost. `bases`: what that rests on; `dollars`: None where a price is missing."""

    tokens: int = 0
    dollars: float | None = 0.0
    bases: tuple[str, ...] = ()

    def __add__(self, other: "Estimate") -> "Estimate":
        is_priced = self.dollars is not None and other.dollars is not None
        dollars = (self.dollars or 0.0) + (other.dollars or 0.0) if is_priced else None
        bases = tuple(dict.fromkeys((*self.bases, *other.bases)))
        return Estimate(self.tokens + other.tokens, dollars, bases)


def estimate(
    runs: int,
    same: Sequence[Usage],
    others: Sequence[Usage],
    most: Usage,
    prices: Sequence[TokenPrice | None],
) -> Estimate:
    """What `runs` trials under one configuration cost.

    By what emails have cost under the `same` one; or else by the tokens that they took under `others`, at the
    highest of the `prices` of its deployments; or else by `most` for one email.
    """
    if not runs:
        return Estimate()
    if same:
        total, count, basis = add_up(same), len(same), f"as {len(same):,} emails before"
    elif others:
        total, count = add_up(others), len(others)
        costs = [price.cost(total) for price in prices if price is not None]
        total = replace(total, dollars=max(costs) if len(costs) == len(prices) else 0.0)
        basis = f"the tokens of {count:,} emails before, at the price of the dearer deployment"
    else:
        total, count, basis = most, 1, "at most: nothing was measured before"
    share = runs / count
    return Estimate(round(total.tokens * share), total.dollars * share or None, (basis,))
