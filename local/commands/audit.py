"""`python -m local audit`: who decided what about which email, and why; of one email also its evidence."""

import json
import os
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from local.host.audit_file import FILE_NAME, Record, read_records
from local.host.run import OK, UNFINISHED, load_local_settings, report_misconfigured
from shared.domain import Cause, Support, WorkItem
from shared.errors import ConfigurationError
from shared.ledger.entries import LedgerEntry
from shared.ledger.sqlite_store import open_sqlite_ledger
from shared.replying.reporting import SUPPORT_WORDS
from shared.settings import find_ledger_path

WIDE = 130  # columns of the terminal that the table takes
HEADINGS = ("when (UTC)", "who", "email", "what", "why", "model and prompts", "tokens", "key")


def audit(console: Console, email_id: str | None, *, as_json: bool) -> int:
    """Print the audit trail, of one email or of all; return the exit status."""
    try:
        load_local_settings(os.environ)
    except ConfigurationError as error:
        return report_misconfigured(console, error)
    ledger_path = find_ledger_path(os.environ)
    records = [record for record in read_records(ledger_path) if email_id in (None, record.get("email_id"))]
    if not records:
        whose = f" about {email_id}" if email_id else ""
        where = ledger_path.parent / FILE_NAME
        console.print(Text(f"No decisions{whose} found in {where} (the folder of LEDGER_PATH)."))
        return UNFINISHED
    if as_json:
        for record in records:
            console.print(json.dumps(record), soft_wrap=True, markup=False, highlight=False)
        return OK
    console.print(build_trail(records, console.width))
    entry = _find_entry(ledger_path, records[-1]) if email_id else None
    if entry is not None:
        console.print(build_evidence(entry))
    return OK


def _find_entry(ledger_path: Path, record: Record) -> LedgerEntry | None:
    if not ledger_path.exists():  # the trail is kept longer than a ledger that somebody removed
        return None
    with closing(open_sqlite_ledger(ledger_path, read_only=True)) as ledger:
        return ledger.get(WorkItem(record["mailbox_id"], record["email_id"]))


def build_evidence(entry: LedgerEntry) -> RenderableType:
    """The text that was submitted, or is only proposed, and what carries each of its statements."""
    if entry.erased_at is not None:
        return Text("The ledger has erased the texts of this email.")
    draft = entry.draft or entry.proposal
    if draft is None:
        return Text("There is no draft.")
    lines = [Text("Submitted for approval" if entry.draft else "Proposed to a person, not submitted", "bold")]
    lines.append(Text(f"{draft.reply_markdown}\n"))
    for claim in draft.claims:
        if claim.support is Support.FREE:
            continue
        lines.append(Text.assemble((SUPPORT_WORDS[claim.support], "bold"), f": {claim.sentence}"))
        if claim.source:
            lines.append(Text(f"  “{' '.join(claim.quote.split())}” ({claim.source})", "bright_black"))
    lines += [Text(f"Note: {note}", "yellow") for note in draft.notes]
    lines += [Text(f"Open: {point.text}") for point in draft.open_points]
    if draft.follow_up:
        lines.append(Text(f"It promises: {draft.follow_up.text}"))
    return Group(*lines)


def build_trail(records: Iterable[Record], width: int) -> RenderableType:
    """Who decided what about which email, why, with which model, prompts and key.

    A table, or below WIDE columns a line for each fact.
    """
    if width < WIDE:
        return Group(*(_build_card(record) for record in records))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in HEADINGS:
        table.add_column(name, overflow="fold", no_wrap=name == "email")  # an id is there to be copied
    for record in records:
        table.add_row(*map(Text, _describe(record)))
    return table


def _build_card(record: Record) -> Table:
    card = Table.grid(padding=(0, 2))
    card.add_column(style="bold")
    card.add_column(overflow="fold")
    for name, text in zip(HEADINGS, _describe(record), strict=True):
        if text:
            card.add_row(name, Text(text))
    card.add_row("")
    return card


def _describe(record: Record) -> tuple[str, ...]:
    """One text for each of the headings."""
    tokens = record.get("input_tokens", 0) + record.get("output_tokens", 0)
    cached = record.get("cached_input_tokens", 0)
    return (
        str(record["at"])[:19].replace("T", " "),
        str(record["actor"]),
        str(record.get("email_id", "")),
        _describe_what(record),
        _describe_why(record),
        _describe_models(record),
        f"{tokens or ''}{f', {cached} cached' if cached else ''}",
        str(record.get("key_id", "")),
    )


def _describe_what(record: Record) -> str:
    what = record.get("reply_status") or record.get("outcome") or record.get("event", "")
    reply_id = record.get("reply_id")
    return f"{what} {reply_id}" if reply_id else str(what)


def _describe_why(record: Record) -> str:
    triage = " ".join(str(record[name]) for name in ("action", "category", "confidence") if name in record)
    cause = " ".join(str(record[name]) for name in ("cause", "detail") if name in record)
    return cause if cause not in ("", Cause.TRIAGED) else triage


def _describe_models(record: Record) -> str:
    steps = ("triage", "draft")
    pairs = [(record.get(f"{step}_model"), record.get(f"{step}_prompt")) for step in steps]
    return ", ".join(f"{model} ({prompt})" for model, prompt in pairs if model)
