"""`python -m local audit`: who decided what about which email, and why; of one email also its evidence."""

import json
from collections.abc import Iterable, Mapping
from contextlib import closing
from difflib import get_close_matches

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from local.audit.checking import Facts
from local.audit.verify import verify
from local.host.run import OK, UNFINISHED, read_settings, report_misconfigured
from shared.composition import open_ledger
from shared.domain import Cause, Rejection, Review, Support, WorkItem
from shared.errors import ConfigurationError, TransientError
from shared.ledger.audit_chains import read_facts
from shared.ledger.entries import LedgerEntry
from shared.ledger.ledger import Ledger
from shared.replying.reporting import REJECTED_WITH_REASON, SUPPORT_WORDS
from shared.telemetry import EMAIL_ERASED, MATTER_CLOSED

APPROVED = "approved"
VERIFY = "verify"  # in place of an email's id
WIDE = 130  # columns of the terminal that the table takes
HEADINGS = ("when (UTC)", "who", "email", "what", "why", "model and prompts", "tokens", "key")


def audit(
    console: Console, email_id: str | None, *, as_json: bool, anchor: str | None, with_service: bool
) -> int:
    """Print the audit trail, of one email or of all, or check it (`verify`); return the exit status."""
    try:
        if email_id == VERIFY:
            return verify(console, anchor=anchor, with_service=with_service)
        with closing(open_ledger(read_settings("audit"), read_only=True)) as ledger:
            facts = read_facts(ledger.audit.read())
            found = [one for one in facts if email_id in (None, one.get("email_id"))]
            entry = _find_row(ledger, found[0]) if email_id and found else None
            reasons = _read_reasons(ledger, found)
    except ConfigurationError as error:
        return report_misconfigured(console, error)
    except TransientError as error:
        console.print(Text(f"The audit trail cannot be read: {error}. Try again later.", "red"))
        return UNFINISHED
    if not found:
        meant = f" Did you mean {VERIFY}?" if get_close_matches(email_id or "", [VERIFY]) else ""
        about = f" about {email_id}" if email_id else ""
        console.print(Text(f"No decisions{about} found in the ledger.{meant}"))
        return UNFINISHED
    if as_json:
        for one in found:
            console.print(json.dumps(one), soft_wrap=True, markup=False, highlight=False)
        return OK
    console.print(build_trail(found, console.width, reasons))
    if entry is not None:
        console.print(build_evidence(entry))
    return OK


def _find_row(ledger: Ledger, record: Facts) -> LedgerEntry | None:
    """The row of a record's email; None where there is none that can be read, which `verify` names."""
    try:
        return ledger.get(WorkItem(str(record.get("mailbox_id", "")), str(record.get("email_id", ""))))
    except (TypeError, ValueError, AttributeError):
        return None


def _read_reasons(ledger: Ledger, records: Iterable[Facts]) -> Mapping[str, str]:
    """The reasons of the replies that were rejected with one, from their rows: the trail has no text."""
    rejected = {
        str(one.get("email_id")): one for one in records if one.get("decision") == REJECTED_WITH_REASON
    }
    rows = (_find_row(ledger, one) for one in rejected.values())
    return {reply_id: reason for row in rows if row for reply_id, reason in find_reasons(row).items()}


def find_reasons(entry: LedgerEntry) -> Mapping[str, str]:
    """Why reviewers rejected replies of this row, by the reply's id."""
    said: list[Rejection | Review] = [*entry.rejections, *([entry.review] if entry.review else [])]
    return {one.reply_id: one.reason for one in said if one.reason}


def build_evidence(entry: LedgerEntry) -> RenderableType:
    """The text of the draft or of what is proposed, whether it was submitted, and what carries it."""
    if entry.erased_at is not None:
        return Text("The ledger has erased the texts of this email.")
    draft = entry.draft or entry.proposal
    if draft is None:
        return Text("There is no draft.")
    fate = "Perhaps submitted" if entry.intent_in_doubt else "Not submitted"
    if entry.reply_id:
        fate = "Submitted for approval"
    if draft is entry.proposal:
        fate = "Proposed to a person, not submitted"
    lines = [Text(fate, "bold"), Text(f"{draft.reply_markdown}\n")]
    for claim in draft.claims:
        if claim.support is Support.FREE:
            continue
        lines.append(Text.assemble((SUPPORT_WORDS[claim.support], "bold"), f": {claim.sentence}"))
        for quote in claim.quotes:
            lines.append(Text(f"  “{' '.join(quote.text.split())}” ({quote.source})", "bright_black"))
    lines += [Text(f"Note: {note}", "yellow") for note in draft.notes]
    lines += [Text(f"Open: {point.text}") for point in draft.open_points]
    if draft.follow_up:
        lines.append(Text(f"It promises: {draft.follow_up.text}"))
    return Group(*lines)


def build_trail(records: Iterable[Facts], width: int, reasons: Mapping[str, str]) -> RenderableType:
    """Who decided what about which email, why, with which model, prompts and key.

    A table, or below WIDE columns a line for each fact. `reasons`: those of rejected replies, by their ids.
    """
    if width < WIDE:
        return Group(*(_build_card(record, reasons) for record in records))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in HEADINGS:
        table.add_column(name, overflow="fold", no_wrap=name == "email")  # an id is there to be copied
    for record in records:
        table.add_row(*map(Text, _describe(record, reasons)))
    return table


def _build_card(record: Facts, reasons: Mapping[str, str]) -> Table:
    card = Table.grid(padding=(0, 2))
    card.add_column(style="bold")
    card.add_column(overflow="fold")
    for name, text in zip(HEADINGS, _describe(record, reasons), strict=True):
        if text:
            card.add_row(name, Text(text))
    card.add_row("")
    return card


def _describe(record: Facts, reasons: Mapping[str, str]) -> tuple[str, ...]:
    """One text for each of the headings."""
    counts = {name: count for name, count in record.items() if isinstance(count, int)}
    tokens = counts.get("input_tokens", 0) + counts.get("output_tokens", 0)
    cached = counts.get("cached_input_tokens", 0)
    return (
        str(record["at"])[:19].replace("T", " "),
        str(record.get("actor", "")),
        str(record.get("email_id", "")),
        _describe_what(record),
        _describe_why(record, reasons),
        _describe_models(record),
        f"{tokens or ''}{f', {cached} cached' if cached else ''}",
        str(record.get("key_id") or record.get("reviewer") or ""),
    )


def _describe_what(record: Facts) -> str:
    event, status, decision = (record.get(name, "") for name in ("event", "reply_status", "decision"))
    what = event if event == EMAIL_ERASED else status or record.get("outcome") or event
    if decision:
        came_of_it = f", {status}" if decision == APPROVED != status else ""
        what = f"{str(decision).removesuffix(' with a reason')}{came_of_it}"
    elif event == MATTER_CLOSED:
        what = f"closed: {record.get('kind', '')}"
    reply_id = record.get("reply_id")
    return f"{what} {reply_id}" if reply_id else str(what)


def _describe_why(record: Facts, reasons: Mapping[str, str]) -> str:
    if decision := record.get("decision"):
        default = "a reason that the row has not any more" if decision == REJECTED_WITH_REASON else ""
        return reasons.get(str(record.get("reply_id")), default)
    triage = " ".join(str(record[name]) for name in ("action", "category", "confidence") if name in record)
    cause = " ".join(str(record[name]) for name in ("cause", "detail") if name in record)
    return cause if cause not in ("", Cause.TRIAGED) else triage


def _describe_models(record: Facts) -> str:
    if "edited_by" in record:
        return f"none: the text of reviewer {record['edited_by']}"
    steps = ("triage", "draft")
    pairs = [(record.get(f"{step}_model"), record.get(f"{step}_prompt")) for step in steps]
    return ", ".join(f"{model} ({prompt})" for model, prompt in pairs if model)
