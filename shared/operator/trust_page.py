"""The trust report as its readers get it: a self-contained HTML page, or JSON."""

import base64
import functools
import hashlib
import html
import json
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from string import Template
from typing import Any

from shared.operator.http_answer import HttpAnswer
from shared.operator.trust import (
    APPROVALS,
    ASK,
    DEFAULT_DAYS,
    LONGEST_PENDING,
    NEXT_MODE,
    RECENT,
    REFUSALS,
    TARGET_SHARE,
    Check,
    Fate,
    MailboxReport,
    TrackRecord,
    TrustReport,
    format_share,
)

MAX_DAYS = 365
FORMATS = ("html", "json")
FILES = Path(__file__).parent

# The parts of the bar, in the order in which it shows them.
BAR: Mapping[str, frozenset[Fate]] = {
    "approved": APPROVALS,
    "refused": REFUSALS,
    "pending": frozenset({Fate.PENDING}),
    "other": frozenset({Fate.SUPERSEDED, Fate.UNKNOWN}),
}
HEADINGS = (
    "category", "submitted", "approved", "bounced", "rejected", "redrafted",
    "cancelled", "superseded", "pending", "unknown", "held back", "median time", "lower bound",
)  # fmt: skip


def answer_report(
    build_report: Callable[[int], TrustReport], params: Mapping[str, str], accept: str
) -> HttpAnswer:
    """Answer a request with the query `params` (`days`, `format`) and the header `accept`.

    Raises what `build_report` raises, which gets the days.
    """
    kind = params.get("format")
    if kind not in (None, *FORMATS):
        return _refuse(f"format must be {' or '.join(FORMATS)}.")
    try:
        days = parse_days(params.get("days"))
    except ValueError as error:
        return _refuse(str(error))
    report = build_report(days)
    if kind == "html" or (kind is None and "text/html" in accept):
        return HttpAnswer(HTTPStatus.OK, render_html(report), "text/html", _page_headers())
    return HttpAnswer(HTTPStatus.OK, render_json(report), headers=_HEADERS)


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
            "mailboxes": [_mailbox_to_json(judged) for judged in report.mailboxes],
        },
        indent=2,
    )


def render_html(report: TrustReport) -> str:
    """The report as a page of its own, without script or anything to be loaded."""
    return Template(_read("trust_page.html")).substitute(
        style=_read("trust_page.css"),
        days=report.days,
        since=f"{report.since:%Y-%m-%d %H:%M}",
        until=f"{report.until:%Y-%m-%d %H:%M}",
        mailboxes="\n".join(_mailbox_to_html(n, judged) for n, judged in enumerate(report.mailboxes))
        or "<p>The account has no active mailbox.</p>",
        next_mode=NEXT_MODE,
        target=format_share(TARGET_SHARE),
        recent=RECENT,
        pending_days=LONGEST_PENDING.days,
    )


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
        counts[Fate.CANCELLED], counts[Fate.SUPERSEDED], counts[Fate.PENDING], counts[Fate.UNKNOWN],
        counts[Fate.HELD_BACK],
    )  # fmt: skip
    bound = format_share(record.lower_bound) if record.decided else "-"
    return (*map(str, figures), format_duration(record.median_seconds_to_decision), bound)


_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@functools.cache
def _page_headers() -> Mapping[str, str]:
    """The policy lets in the page's own style, by its hash, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(_read("trust_page.css").encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; frame-ancestors 'none'"
    return _HEADERS | {"Content-Security-Policy": policy}


@functools.cache
def _read(name: str) -> str:
    return (FILES / name).read_text(encoding="utf-8")


def _refuse(problem: str) -> HttpAnswer:
    return HttpAnswer(HTTPStatus.BAD_REQUEST, problem, "text/plain", _HEADERS)


def _mailbox_to_json(judged: MailboxReport) -> dict[str, Any]:
    return {
        "mailbox_id": judged.mailbox.id,
        "address": judged.mailbox.address,
        "oversight_mode": judged.mailbox.oversight_mode,
        "recommendation": judged.recommendation,
        "checks": [{"rule": c.rule, "is_met": c.is_met, "finding": c.finding} for c in judged.checks],
        "total": _record_to_json(judged.total),
        "categories": [
            {"category": name, **_record_to_json(record)} for name, record in judged.categories.items()
        ],
    }


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


def _mailbox_to_html(number: int, judged: MailboxReport) -> str:
    mailbox, total, is_ready = judged.mailbox, judged.total, judged.recommendation == ASK
    missed = sum(1 for check in judged.checks if not check.is_met)
    advice = "ask" if is_ready else "stay"
    why = "every rule is met" if is_ready else f"{missed} of {len(judged.checks)} rules not met"
    return f"""<section class="mailbox" aria-labelledby="mailbox-{number}">
<header><h2 id="mailbox-{number}" dir="auto">{html.escape(mailbox.address)}</h2>
<p class="ids"><span dir="auto">{html.escape(mailbox.id)}</span> · {html.escape(mailbox.oversight_mode)}</p>
<p class="advice {advice}"><strong>{judged.recommendation.capitalize()}</strong> {why}</p>
</header>
<p class="headline">{_describe_trust(total)}</p>
{_bar_to_html(total)}
<ul class="checks">{"".join(map(_check_to_html, judged.checks))}</ul>
{_table_to_html(number, judged)}
</section>"""


def _describe_trust(total: TrackRecord) -> str:
    text = f"<strong>{total.approved}</strong> of <strong>{total.decided}</strong> decided drafts"
    if not total.decided:
        return f"{text} approved"
    bound = format_share(total.lower_bound)
    return (
        f"{text} approved unchanged; true approval rate at least <strong>{bound}</strong> (95 % confidence)"
    )


def _bar_to_html(total: TrackRecord) -> str:
    """The submitted drafts as one bar; attributes, not styles, so that the policy can forbid these."""
    if not total.submitted:
        return ""
    left, parts, words, key = 0.0, [], [], []
    for name, fates in BAR.items():
        count = sum(total.counts[fate] for fate in fates)
        width = 100 * count / total.submitted
        if count:
            parts.append(f'<rect class="{name}" x="{left:.3f}" width="{width:.3f}" height="4"/>')
            words.append(f"{count} {name}")
            key.append(f'<span class="{name}">{count} {name}</span>')
        left += width
    label = f"Of {total.submitted} submitted drafts: {', '.join(words)}"
    return (
        f'<svg class="bar" viewBox="0 0 100 4" preserveAspectRatio="none" role="img" aria-label="{label}">'
        f'{"".join(parts)}</svg><p class="key" aria-hidden="true">{"".join(key)}</p>'
    )


def _check_to_html(check: Check) -> str:
    name, mark, word = ("met", "✓", "Met: ") if check.is_met else ("missed", "✗", "Not met: ")
    return (
        f'<li class="{name}"><span class="mark" aria-hidden="true">{mark}</span>'
        f'<p><span class="unseen">{word}</span>{html.escape(check.rule)}'
        f'<small dir="auto">{html.escape(check.finding)}</small></p></li>'
    )


def _table_to_html(number: int, judged: MailboxReport) -> str:
    if not judged.categories:
        return "<p>No draft in this time.</p>"
    head = "".join(f'<th scope="col">{name}</th>' for name in HEADINGS)
    rows = [(html.escape(name or "none"), record) for name, record in judged.categories.items()]
    body = "".join(map(_row_to_html, rows))
    foot = _row_to_html(("all", judged.total))
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-labelledby="mailbox-{number}"><table>'
        f'<caption class="unseen">Drafts by category</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody><tfoot>{foot}</tfoot></table></div>"
    )


def _row_to_html(row: tuple[str, TrackRecord]) -> str:
    cells = "".join(f"<td>{text}</td>" for text in describe_record(row[1]))
    return f'<tr><th scope="row" dir="auto">{row[0]}</th>{cells}</tr>'
