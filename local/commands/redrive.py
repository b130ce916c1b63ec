"""`python -m local redrive`: what needs a human and why, and setting chosen emails back to open."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from local.commands.console import STYLES
from local.host.run import (
    OK,
    UNFINISHED,
    read_settings,
    report_failure,
    report_misconfigured,
    report_trail,
)
from shared.composition import open_ledger, open_multimail, open_trail
from shared.domain import Outcome
from shared.errors import ConfigurationError, LeaseLostError, TransientError
from shared.ledger.entries import LedgerEntry
from shared.ledger.ledger import Ledger
from shared.replying.reporting import MAX_WHOLE_REASON_CHARACTERS, render_reason
from shared.telemetry import EMAIL_REDRIVEN, record

LISTED = frozenset(
    {Outcome.FAILED, Outcome.NEEDS_HUMAN, Outcome.BLOCKED_UNGATED, Outcome.BLOCKED_CONTENT_SAFETY}
)


def redrive(console: Console, email_ids: Sequence[str], *, all_failed: bool) -> int:
    """List what failed or was blocked, and set the named emails (or all failed ones) back to open.

    Returns the exit status. Nothing is sent from here: the agent's next poll enqueues the emails.
    """
    try:
        settings = read_settings("redrive")
        multimail = open_multimail(settings)
        ledger = open_ledger(settings, read_only=not email_ids and not all_failed)
        finished = [
            entry
            for mailbox in multimail.list_mailboxes()
            for entry in ledger.entries(mailbox.id)
            if entry.finished_at is not None
        ]
    except ConfigurationError as error:
        return report_misconfigured(console, error)
    except TransientError as error:
        return report_failure(console, "Redrive", error)
    if not email_ids and not all_failed:
        listed = [entry for entry in finished if entry.outcome in LISTED and entry.erased_at is None]
        if not listed:
            console.print("Nothing failed or was blocked.")
        _print_list(console, listed)
        return OK
    failed = {e.email_id for e in finished if e.outcome is Outcome.FAILED and e.erased_at is None}
    chosen = [e for e in finished if e.email_id in email_ids or (all_failed and e.email_id in failed)]
    unknown = set(email_ids) - {entry.email_id for entry in chosen}
    for email_id in sorted(unknown):
        console.print(
            Text(f"{email_id}: no finished email with this id; run `redrive` without arguments to list them.")
        )
    with open_trail(settings, ledger) as trail:
        answers = [_set_back(console, ledger, entry) for entry in chosen]
    return report_trail(console, trail, OK if all(answers) and not unknown else UNFINISHED)


def _set_back(console: Console, ledger: Ledger, entry: LedgerEntry) -> bool:
    if entry.outcome is Outcome.REPLY_SUBMITTED:
        console.print(
            Text(
                f"{entry.email_id}: already answered ({entry.reply_id}); redriving would send a second reply."
            )
        )
        return False
    if entry.erased_at is not None:
        console.print(Text(f"{entry.email_id}: the ledger has erased it; answer it at MultiMail."))
        return False
    try:
        ledger.defer(entry.redriven(datetime.now(UTC)))
    except (LeaseLostError, TransientError) as error:
        console.print(Text(f"{entry.email_id}: not requeued: {error}. Try again.", "red"))
        return False
    record(
        EMAIL_REDRIVEN,
        {
            "mailbox_id": entry.mailbox_id,
            "email_id": entry.email_id,
            "outcome": str(entry.outcome),
            "actor": "operator",
        },
    )
    console.print(Text(f"{entry.email_id}: requeued (was {entry.outcome}: {render_reason(entry)})"))
    return True


def _print_list(console: Console, entries: Iterable[LedgerEntry]) -> None:
    """Print two lines or more for each: an id stays whole in any width, and a reason has its remedy."""
    for entry in sorted(entries, key=lambda entry: entry.finished_at or entry.received_at):
        outcome = str(entry.outcome)
        style = STYLES[entry.outcome] if entry.outcome else ""
        when = f"  {entry.finished_at:%Y-%m-%d %H:%M} UTC, mailbox {entry.mailbox_id}"
        console.print(Text.assemble((entry.email_id, "bold"), "  ", (outcome, style), when))
        why = render_reason(entry, MAX_WHOLE_REASON_CHARACTERS)
        console.print(Padding.indent(Text(why), 4))
