"""What the agent would have done with the mail that it only observed: the figures and their page."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Protocol

from markupsafe import Markup

from shared.domain import NO_USAGE, Draft, EmailSummary, Mailbox, Outcome, Support, Usage
from shared.ledger.entries import FOR_PEOPLE, LedgerEntry
from shared.operator.trust_page import format_duration, parse_days
from shared.replying.reporting import SUPPORT_WORDS, render_reason
from shared.replying.threads import has_left, is_answer_of
from shared.services.http_answer import HttpAnswer, answer_page, build_pages, build_policy, refuse_report

if TYPE_CHECKING:
    from jinja2 import Environment

FILES = Path(__file__).parent
SHOWN_CASES = 50  # of each kind in each mailbox, the newest


class Would(StrEnum):
    """What the agent would have done with an email."""

    ANSWER = "answer"  # submit a draft for approval
    PERSON = "person"  # leave it to a person
    NOTHING = "nothing"  # take it for mail that needs no answer


HEADINGS: Mapping[Would, str] = {
    Would.ANSWER: "Would have answered",
    Would.PERSON: "Would have left to a person",
    Would.NOTHING: "Would have left unanswered",
}


class ListEmails(Protocol):
    """The listing of MultiMail's client."""

    def __call__(
        self, mailbox_id: str, *, direction: str | None, date_after: datetime | None
    ) -> Iterator[EmailSummary]:
        """List a mailbox's emails."""
        ...


@dataclass(frozen=True, slots=True)
class Case:
    """One observed email. `answer`: what a person sent in its thread afterwards; None where nobody has."""

    entry: LedgerEntry
    subject: str
    answer: EmailSummary | None

    @property
    def would(self) -> Would:
        """What the agent would have done."""
        return find_would(self.entry.outcome)

    @property
    def answered_after(self) -> timedelta | None:
        """How long a person took to answer."""
        return self.answer.received_at - self.entry.received_at if self.answer else None

    @property
    def draft(self) -> Draft | None:
        """What it wrote, as a reply or as a proposal to a person."""
        return self.entry.draft or self.entry.proposal


@dataclass(frozen=True, slots=True)
class ObservedMailbox:
    """The observed emails of a mailbox, the newest first. `unfinished`: how many are still worked on."""

    mailbox: Mailbox
    cases: Sequence[Case]
    unfinished: int

    @property
    def counts(self) -> Mapping[Would, int]:
        """How many emails of each kind there are."""
        counted = Counter(case.would for case in self.cases)
        return {would: counted[would] for would in Would}

    @property
    def usage(self) -> Usage:
        """What the models were asked; without dollars where a part has no price."""
        return add_up(case.entry.usage for case in self.cases)

    @property
    def support(self) -> Mapping[Support, int]:
        """What carries the statements of the answers."""
        answers = [case.draft for case in self.cases if case.would is Would.ANSWER and case.draft]
        return Counter(claim.support for draft in answers for claim in draft.claims)

    @property
    def human_answers(self) -> str:
        """How soon people answered what the agent would have answered."""
        own = [case for case in self.cases if case.would is Would.ANSWER]
        seconds = [case.answered_after.total_seconds() for case in own if case.answered_after is not None]
        if not seconds:
            return "People have answered none of these yet."
        return (
            f"People have answered {len(seconds):,} of these {len(own):,}, half of them within "
            f"{format_duration(median(seconds))}."
        )

    def list_cases(self, would: Would) -> list[Case]:
        """The emails of one kind."""
        return [case for case in self.cases if case.would is would]


@dataclass(frozen=True, slots=True)
class ObservedReport:
    """What was observed from `since` until `until`, mailbox by mailbox."""

    since: datetime
    until: datetime
    days: int
    mailboxes: Sequence[ObservedMailbox]


def find_would(outcome: Outcome | None) -> Would:
    """The kind of an outcome."""
    if outcome in (Outcome.WOULD_REPLY, Outcome.REPLY_SUBMITTED):
        return Would.ANSWER
    return Would.PERSON if outcome in FOR_PEOPLE else Would.NOTHING


def add_up(usages: Iterable[Usage]) -> Usage:
    """The sum; without dollars where a part has none, because a deployment has no price."""
    parts = [usage for usage in usages if usage.calls]
    total = sum(parts, NO_USAGE)
    return total if all(part.dollars for part in parts) else replace(total, dollars=0.0)


def build_observed(
    mailboxes: Iterable[Mailbox],
    entries: Callable[[str], Iterable[LedgerEntry]],
    list_emails: ListEmails,
    *,
    observes: Callable[[Mailbox], bool],
    is_priced: bool,
    now: datetime,
    days: int,
) -> ObservedReport:
    """Gather what the agent observed in the last `days`, with the emails' subjects and people's answers.

    `observes`: whether the new mail of a mailbox is only observed. `is_priced`: whether every deployment has
    a price; where one has none, a row's dollars are a part of its cost, and are left out. Reads no email, so
    that none is marked as read. Raises what `entries` and `list_emails` raise.
    """
    since = now - timedelta(days=days)
    found = []
    for mailbox in mailboxes:
        will_be = observes(mailbox)  # which a row says only from its first worker on
        rows = [
            row if is_priced else replace(row, usage=replace(row.usage, dollars=0.0))
            for row in entries(mailbox.id)
            if row.received_at >= since and (row.is_observed or (will_be and _is_new(row)))
        ]
        if not rows:
            continue
        listed = partial(list_emails, mailbox.id, date_after=since)
        subjects = {email.id: email.subject for email in listed(direction="inbound")}
        sent = sorted(listed(direction="outbound"), key=lambda email: email.received_at)
        cases = [
            Case(row, subjects.get(row.email_id, ""), find_answer(row, sent))
            for row in sorted(rows, key=lambda row: row.received_at, reverse=True)
            if row.finished_at is not None
        ]
        found.append(ObservedMailbox(mailbox, cases, len(rows) - len(cases)))
    return ObservedReport(since, now, days, found)


def _is_new(row: LedgerEntry) -> bool:
    return row.finished_at is None and row.submit_intent_at is None and not row.rejections


def find_answer(row: LedgerEntry, sent: Iterable[EmailSummary]) -> EmailSummary | None:
    """The first email of a person to the sender that left in the thread; `sent` has the oldest first."""
    if row.thread_id is None:
        return None
    thread = (email for email in sent if email.thread_id == row.thread_id)
    return next((email for email in thread if has_left(email) and is_answer_of(row, email)), None)


def answer_observed(build: Callable[[int], ObservedReport], params: Mapping[str, str]) -> HttpAnswer:
    """Answer a request for the page; `days` in the query `params`. Raises what `build` raises."""
    try:
        days = parse_days(params.get("days"))
    except ValueError as error:
        return refuse_report(str(error))
    return answer_page(render_observed(build(days)), _read_style())


def render_observed(report: ObservedReport) -> str:
    """The page: self-contained, without script or anything to be loaded."""
    return build_observed_pages().get_template("observed_page.html").render(report=report, shown=SHOWN_CASES)


def build_observed_pages(*folders: Path) -> "Environment":
    """What renders the pages about observed mail, from templates in these folders too."""
    pages, style = build_pages(*folders, FILES), _read_style()
    pages.filters |= {
        "duration": lambda length: format_duration(length.total_seconds()),
        "reason": render_reason,
        "dollars": format_dollars,
        "per_cent": lambda part, whole: f"{part / whole:.0%}" if whole else "-",
    }
    pages.globals |= {
        "Would": Would,
        "headings": HEADINGS,
        "support_words": {str(kind): words for kind, words in SUPPORT_WORDS.items()},
        "style": Markup(style),  # noqa: S704  # our own file
        "policy": build_policy(style),
    }
    return pages


def format_dollars(amount: float) -> str:
    """An amount with as many digits as say something."""
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:.4f}"


def _read_style() -> str:
    return "".join((FILES / name).read_text("utf-8") for name in ("trust_page.css", "observed_page.css"))
