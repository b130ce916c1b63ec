"""The trust report as its readers get it: a self-contained HTML page, or JSON."""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path
from typing import Any

from shared.domain import Support, Usage
from shared.operator.odds import DOUBT
from shared.operator.trust import (
    APPROVALS,
    ASK,
    DEFAULT_DAYS,
    MAX_OVERTAKEN_SHARE,
    MOST_WORDS_A_MINUTE,
    NEXT_MODE,
    REFUSALS,
    WORDS_A_MINUTE,
    Fate,
    MailboxReport,
    TrackRecord,
    TrustReport,
    describe_bound,
    format_share,
)
from shared.services.http_answer import NOT_KEPT, HttpAnswer, answer_page, build_pages, refuse_report

MAX_DAYS = 365
FORMATS = ("html", "json")
FILES = Path(__file__).parent

# The parts of the bar, in the order in which it shows them.
BAR: Mapping[str, frozenset[Fate]] = {
    "approved": APPROVALS,
    "refused": REFUSALS,
    "pending": frozenset({Fate.PENDING}),
    "other": frozenset({Fate.SUPERSEDED, Fate.OVERTAKEN, Fate.UNKNOWN}),
}
HEADINGS = (
    "category", "submitted", "approved", "bounced", "rejected", "redrafted", "edited",
    "cancelled", "superseded", "pending", "unknown", "held back", "median time", "lower bound",
)  # fmt: skip

PASSAGE_HEADINGS = ("passage", "drafts", "approved", "rejected", "statements", "verified", "asserted")
SHOWN_PASSAGES = 10  # at first
# What may carry a statement, in the order in which it is told.
FACTUAL = (Support.VERIFIED, Support.FROM_SENDER, Support.ASSERTED)


def answer_report(
    build_report: Callable[[int], TrustReport], params: Mapping[str, str], accept: str
) -> HttpAnswer:
    """Answer a request with the query `params` (`days`, `format`) and the header `accept`.

    Raises what `build_report` raises, which gets the days.
    """
    kind = params.get("format")
    if kind not in (None, *FORMATS):
        return refuse_report(f"format must be {' or '.join(FORMATS)}.")
    try:
        days = parse_days(params.get("days"))
    except ValueError as error:
        return refuse_report(str(error))
    report = build_report(days)
    if kind == "html" or (kind is None and "text/html" in accept):
        return answer_page(render_html(report), (FILES / "trust_page.css").read_text("utf-8"))
    return HttpAnswer(HTTPStatus.OK, render_json(report), headers=NOT_KEPT)


def parse_days(text: str | None) -> int:
    """Read how many days back a report goes, DEFAULT_DAYS if not said. Raises ValueError."""
    if text is None:
        return DEFAULT_DAYS
    if not re.fullmatch("[1-9][0-9]{0,2}", text) or int(text) > MAX_DAYS:
        raise ValueError(f"days must be a whole number from 1 to {MAX_DAYS}.")
    return int(text)


def render_json(report: TrustReport) -> str:
    """The report as JSON; shares are from 0 to 1, times in UTC."""
    return json.dumps(
        {
            "since": report.since.isoformat(),
            "until": report.until.isoformat(),
            "days": report.days,
            "mailboxes": [
                {
                    "mailbox_id": judged.mailbox.id,
                    "address": judged.mailbox.address,
                    "oversight_mode": judged.mailbox.oversight_mode,
                    "recommendation": judged.recommendation,
                    "usage": asdict(judged.usage),
                    "missing": judged.missing,
                    "checks": [
                        {"rule": c.rule, "is_met": c.is_met, "state": c.state, "finding": c.finding}
                        for c in judged.checks
                    ],
                    "plan": {
                        "approved": judged.plan.approved,
                        "refused": judged.plan.refused,
                        "approvals_missing": judged.plan.missing,
                        "since": judged.plan.since and judged.plan.since.isoformat(),
                    },
                    "reading": asdict(judged.reading),
                    "total": _record_to_json(judged.total),
                    "categories": [
                        {"category": name, **_record_to_json(record)}
                        for name, record in judged.categories.items()
                    ],
                    "statements": {kind: judged.statements.get(kind, 0) for kind in FACTUAL},
                    "drafts_with_a_warning": judged.warned,
                    "edit_distances": judged.edit_distances,
                    "edits_approved": judged.edits_approved,
                    "passages": [
                        dict(zip(PASSAGE_HEADINGS, figures, strict=True)) for figures in list_passages(judged)
                    ],
                }
                for judged in report.mailboxes
            ],
        },
        indent=2,
    )


def render_html(report: TrustReport) -> str:
    """The report as a page of its own, without script or anything to be loaded."""
    pages = build_pages(FILES)
    pages.filters |= {
        "share": format_share,
        "figures": describe_record,
        "usage": describe_usage,
        "statements": describe_statements,
        "edits": describe_edits,
        "numbers": list_numbers,
        "bound": describe_bound,
        "passages": list_passages,
        "parts": list_bar_parts,
    }
    return pages.get_template("trust_page.html").render(
        report=report,
        headings=HEADINGS,
        passage_headings=PASSAGE_HEADINGS,
        shown_passages=SHOWN_PASSAGES,
        ready=ASK,
        next_mode=NEXT_MODE,
        words=WORDS_A_MINUTE,
        most_words=MOST_WORDS_A_MINUTE,
        most_overtaken=round(100 * MAX_OVERTAKEN_SHARE),
    )


def list_numbers(judged: MailboxReport) -> list[tuple[str, str, str]]:
    """The three numbers that come first: each with what it is a number of, and what it rests on."""
    total, reading, stated = judged.total, judged.reading, sum(judged.statements.values())
    verified = judged.statements.get(Support.VERIFIED, 0)
    return [
        (
            f"{format_whole_share(total.lower_bound)} or more",
            "of the drafts are approved unchanged",
            f"{total.approved} of {total.decided} decided drafts; "
            f"with a confidence of {100 * (1 - DOUBT):.0f} %, at one look",
        )
        if total.decided
        else ("no decisions yet", "on the drafts", "they show how many are approved unchanged"),
        (
            f"{reading.too_fast} of {reading.approvals}",
            "approvals came too soon to have been read",
            f"half of the approvals took up to {format_duration(reading.median_seconds_to_approve)}; "
            f"reading takes {format_duration(reading.median_seconds_to_read)}",
        )
        if reading.approvals
        else ("no approvals yet", "of drafts", "they show whether drafts are read before they leave"),
        (
            format_whole_share(verified / stated),
            "of the statements in the drafts are verified",
            f"{verified:,} of {stated:,} statements of fact",
        )
        if stated
        else ("no statements yet", "of fact in the drafts", "the knowledge or the thread has to carry them"),
    ]


def format_whole_share(share: float) -> str:
    """A share in whole per cent, rounded down, where no rule rests on the figure."""
    return f"{math.floor(round(share * 100, 6))} %"


def list_bar_parts(total: TrackRecord) -> list[tuple[str, int, float, float]]:
    """The submitted drafts as the parts of a bar: name, count, where it begins and its width, in per cent."""
    parts, left = [], 0.0
    for name, fates in BAR.items():
        count = sum(total.counts[fate] for fate in fates)
        width = 100 * count / total.submitted
        if count:
            parts.append((name, count, left, width))
        left += width
    return parts


def format_duration(seconds: float | None) -> str:
    """A duration in the unit that suits it, or a dash for None."""
    if seconds is None:
        return "-"
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def describe_record(record: TrackRecord) -> tuple[str, ...]:
    """The figures under HEADINGS but the first, as texts."""
    counts = record.counts
    figures = (
        record.submitted, record.approved, counts[Fate.BOUNCED], record.rejected, counts[Fate.REDRAFTED],
        counts[Fate.EDITED], counts[Fate.CANCELLED], record.superseded, counts[Fate.PENDING],
        counts[Fate.UNKNOWN], counts[Fate.HELD_BACK],
    )  # fmt: skip
    bound = format_share(record.lower_bound) if record.decided else "-"
    return (*map(str, figures), format_duration(record.median_seconds_to_decision), bound)


def describe_usage(usage: Usage) -> str:
    """What the model was asked, in one sentence."""
    cached = usage.cached_input_tokens / usage.input_tokens if usage.input_tokens else 0
    calls = "model call" if usage.calls == 1 else "model calls"
    return (
        f"{usage.calls:,} {calls}: {usage.input_tokens:,} input tokens, {cached:.0%} of them cached, "
        f"and {usage.output_tokens:,} output tokens."
    )


def describe_statements(judged: MailboxReport) -> str:
    """What carries the drafts' statements, and how many drafts have a warning."""
    warned = f" {judged.warned:,} of the drafts have a warning for their approver." if judged.warned else ""
    stated = sum(judged.statements.values())
    if not stated:
        return f"The drafts state no facts.{warned}"
    verified, from_sender, asserted = (judged.statements.get(kind, 0) for kind in FACTUAL)
    return (
        f"{verified:,} of {stated:,} statements in these drafts are verified, "
        f"{format_whole_share(verified / stated)}; {from_sender:,} from the sender, {asserted:,} asserted."
        f"{warned}"
    )


def describe_edits(judged: MailboxReport) -> str:
    """How far the edits went from the drafts, in one sentence; empty without any."""
    distances = judged.edit_distances
    if not distances:
        return ""
    drafts = "draft was" if len(distances) == 1 else "drafts were"
    middle = distances[len(distances) // 2]
    left = judged.edits_approved
    return (
        f"{len(distances):,} {drafts} edited: a reviewer took out or put in {middle:,} words "
        f"(median; {distances[0]:,} to {distances[-1]:,}). "
        f"Texts approved: {judged.total.approved + left:,}; edited before: {left:,}."
    )


def list_passages(judged: MailboxReport) -> list[tuple[str, int, int, int, int, int, int]]:
    """The figures under PASSAGE_HEADINGS, the most used passage first."""
    return [
        (
            title, passage.drafts.submitted, passage.drafts.approved, passage.drafts.refused,
            sum(passage.statements.values()), passage.statements.get(Support.VERIFIED, 0),
            passage.statements.get(Support.ASSERTED, 0),
        )
        for title, passage in judged.passages.items()
    ]  # fmt: skip


def _record_to_json(record: TrackRecord) -> dict[str, Any]:
    return {
        **{str(fate): record.counts[fate] for fate in Fate},
        "submitted": record.submitted,
        "approved": record.approved,
        "rejected": record.rejected,
        "decided": record.decided,
        "lower_bound": record.lower_bound,
        "median_seconds_to_decision": record.median_seconds_to_decision,
    }
