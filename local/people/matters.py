"""`python -m local open` and `done`: what waits for people, and marking it as seen to."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from local.host.run import OK, UNFINISHED, read_settings, report_misconfigured, report_trail
from shared.composition import open_delivery, open_ledger, open_multimail, open_trail
from shared.domain import Urgency
from shared.errors import ConfigurationError, PermanentError, TransientError
from shared.ledger.entries import LedgerEntry, Matter, MatterKind
from shared.ledger.ledger import Ledger
from shared.model.prompting import clean_line
from shared.replying.reporting import MAX_WHOLE_REASON_CHARACTERS, name_handler, render_reason


def open(console: Console) -> int:  # noqa: A001 - the command's name
    """List escalations, pending drafts and promises, the most urgent first; return the exit status."""
    try:
        settings = read_settings("open")
        profiles, _ = open_delivery(settings)
        multimail, ledger = open_multimail(settings), open_ledger(settings, read_only=True)
        mailboxes = {mailbox.id: mailbox for mailbox in multimail.list_mailboxes()}
        with closing(ledger):
            found = sorted(list_open(ledger), key=_rank)
    except ConfigurationError as error:
        return report_misconfigured(console, error)
    except (PermanentError, TransientError) as error:
        console.print(Text(f"Listing failed: {error}. Try again later.", "red"))
        return UNFINISHED
    now = datetime.now(UTC)
    for matter, entry in found:
        mailbox = mailboxes.get(matter.mailbox_id)
        address = mailbox.address if mailbox is not None else matter.mailbox_id
        facts = (*_list_facts(matter, entry), _render_age(now - matter.since), address)
        console.print(Text.assemble((matter.email_id, "bold"), f"  {', '.join(filter(None, facts))}"))
        console.print(Padding.indent(Text(_describe(matter, entry)), 4))
        if handler := name_handler(entry, profiles.get(mailbox)) if mailbox is not None else "":
            console.print(Padding.indent(Text(f"For: {handler}"), 4))
    if not found:
        console.print("Nothing waits for a person.")
    return OK


def list_open(ledger: Ledger) -> Iterator[tuple[Matter, LedgerEntry]]:
    """Each open matter with its row. Raises what the ledger raises."""
    for matter in ledger.matters.list():
        entry = ledger.get(matter.work_item)
        if entry is not None and matter.is_about(entry):
            yield matter, entry


def done(console: Console, email_ids: list[str]) -> int:
    """Close the escalation or the promise of each email; return the exit status. Nothing is sent."""
    try:
        settings = read_settings("done")
        ledger = open_ledger(settings)
        with closing(ledger), open_trail(settings, ledger) as trail:
            results = [_close(console, ledger, email_id) for email_id in dict.fromkeys(email_ids)]
    except ConfigurationError as error:
        return report_misconfigured(console, error)
    except TransientError as error:
        console.print(Text(f"Done failed: {error}. Try again later.", "red"))
        return UNFINISHED
    return report_trail(console, trail, OK if all(results) else UNFINISHED)


def _close(console: Console, ledger: Ledger, email_id: str) -> bool:
    matters = [matter for matter in ledger.matters.list() if matter.email_id == email_id]
    closable = [matter for matter in matters if matter.kind is not MatterKind.DRAFT]
    for matter in closable:
        ledger.matters.settle(matter, "operator")
        console.print(Text(f"{email_id}: {matter.kind} closed."))
    if matters and not closable:
        console.print(
            Text(
                f"{email_id}: its draft is pending: approve or reject it at the review desk, or at MultiMail."
            )
        )
    elif not matters:
        console.print(Text(f"{email_id}: nothing of it is open; run `open` to list what is."))
    return bool(closable)


def _rank(found: tuple[Matter, LedgerEntry]) -> tuple[int, datetime]:
    """The most urgent first, then the oldest; without a triage, it is as urgent as usual."""
    matter, entry = found
    urgency = entry.triage.urgency if entry.triage is not None else Urgency.NORMAL
    return [*Urgency].index(urgency), matter.since


def _list_facts(matter: Matter, entry: LedgerEntry) -> tuple[str, ...]:
    """What it is, how urgent, and of which category."""
    is_outcome = matter.kind is MatterKind.ESCALATION and entry.outcome is not None
    kind = str(entry.outcome) if is_outcome else str(matter.kind)
    triage = entry.triage
    return (kind, f"urgency {triage.urgency}", triage.category) if triage is not None else (kind,)


def _describe(matter: Matter, entry: LedgerEntry) -> str:
    """What a person has to see to, which may quote the model: for this terminal only."""
    if matter.kind is MatterKind.PROMISE and entry.draft is not None:
        return f"promised: {clean_line(entry.draft.follow_up.text, MAX_WHOLE_REASON_CHARACTERS)}"
    return render_reason(entry, MAX_WHOLE_REASON_CHARACTERS) or "its draft is pending"


def _render_age(age: timedelta) -> str:
    if age.days:
        return f"{age.days} {'day' if age.days == 1 else 'days'}"
    hours, minutes = divmod(max(age, timedelta(0)).seconds // 60, 60)
    return f"{hours} h {minutes} min"
