"""`python -m local report`: the trust report in a terminal and, on request, a request for the next mode."""

from datetime import UTC, datetime

from rich.console import Console
from rich.prompt import Confirm
from rich.table import Table
from rich.text import Text

from local.host.run import (
    MISCONFIGURED,
    OK,
    UNFINISHED,
    read_settings,
    report_failure,
    report_misconfigured,
)
from shared.composition import open_ledger, open_multimail, open_writer
from shared.domain import Mailbox
from shared.errors import ConfigurationError, PermanentError, ThrottledError, TransientError
from shared.mail.mailboxes import find_mailbox
from shared.mail.multimail import MultiMailClient
from shared.operator.trust import ASK, JUDGED_MODE, NEXT_MODE, MailboxReport, build_report, describe_bound
from shared.operator.trust_page import (
    HEADINGS,
    PASSAGE_HEADINGS,
    SHOWN_PASSAGES,
    describe_edits,
    describe_record,
    describe_statements,
    describe_usage,
    list_numbers,
    list_passages,
    parse_days,
)

MARKS = {"met": ("✓", "green"), "missed": ("✗", "red"), "open": ("·", "bright_black")}
FULL_WIDTH = 130  # columns of the terminal that the table with all of its columns takes


def report(console: Console, *, days_text: str | None, upgrade: str | None) -> int:
    """Print what became of the drafts of the last so many days; return the exit status. Changes nothing.

    `upgrade` names the one mailbox, by id or address, for which a less restrictive mode is to be asked
    for: after its report, and only once that was confirmed.
    """
    try:
        days = parse_days(days_text)
    except ValueError as error:
        console.print(Text(f"--{error}", "red"))
        return MISCONFIGURED
    try:
        settings = read_settings("report")
        multimail, ledger = open_multimail(settings), open_ledger(settings, read_only=True)
        known = {box.id: box for box in multimail.list_mailboxes()}
        mailboxes = [find_mailbox(known, upgrade)] if upgrade else list(known.values())
        judged = build_report(mailboxes, ledger.entries, now=datetime.now(UTC), days=days).mailboxes
    except ConfigurationError as error:
        return report_misconfigured(console, error)
    except TransientError as error:
        return report_failure(console, "The report", error)
    for mailbox in judged:
        print_mailbox(console, mailbox, days)
    if not judged:
        console.print("The account has no active mailbox.")
        return UNFINISHED
    return OK if upgrade is None else _ask_for_upgrade(console, open_writer(settings), judged[0])


def print_mailbox(console: Console, judged: MailboxReport, days: int) -> None:
    """Print one mailbox's figures, the rules held against them, and what they recommend."""
    mailbox = judged.mailbox
    console.print(
        Text.assemble(
            "\n", (mailbox.address, "bold"), f"  {mailbox.id}, {mailbox.oversight_mode}, last {days} days"
        )
    )
    total = describe_record(judged.total)
    # Where the width is short, without the columns that say nothing.
    shown = [n for n, cell in enumerate(total) if console.width >= FULL_WIDTH or cell not in ("0", "-")]
    table = Table(box=None, pad_edge=False, header_style="bright_black")
    table.add_column(HEADINGS[0], overflow="fold")
    for number in shown:
        table.add_column(HEADINGS[1 + number], justify="right", overflow="fold")
    for category, record in judged.categories.items():
        cells = describe_record(record)
        table.add_row(Text(category or "none"), *(cells[number] for number in shown))
    table.add_row("all", *(total[number] for number in shown), style="bold")
    console.print(table)
    console.print(describe_usage(judged.usage), highlight=False)
    _print_passages(console, judged)
    if bound := describe_bound(judged.total):
        console.print(bound, highlight=False)
    for check in judged.checks:
        mark, style = MARKS[check.state]
        console.print(Text.assemble((f"{mark} ", style), f"{check.rule} ", (check.finding, "bright_black")))
    _print_summary(console, judged)


def _print_summary(console: Console, judged: MailboxReport) -> None:
    """Last, where a terminal stops: the three numbers, the recommendation, and what is missing."""
    console.print()
    for number, what, basis in list_numbers(judged):
        console.print(Text.assemble((number, "bold"), f" {what} ", (f"({basis})", "bright_black")))
    style = "bold green" if judged.recommendation == ASK else "bold yellow"
    console.print(Text.assemble("Recommendation: ", (judged.recommendation, style)))
    if judged.missing:
        console.print("Missing:")
    for text in judged.missing:
        console.print(Text(f"  {text}"))


def _print_passages(console: Console, judged: MailboxReport) -> None:
    console.print(describe_statements(judged), highlight=False)
    if edits := describe_edits(judged):
        console.print(edits, highlight=False)
    rows = list_passages(judged)
    if not rows:
        return
    table = Table(box=None, pad_edge=False, header_style="bright_black")
    table.add_column(PASSAGE_HEADINGS[0], overflow="fold")
    for heading in PASSAGE_HEADINGS[1:]:
        table.add_column(heading, justify="right")
    for title, *figures in rows[:SHOWN_PASSAGES]:
        table.add_row(Text(title), *map(str, figures))
    console.print(table)
    if len(rows) > SHOWN_PASSAGES:
        console.print(f"The {SHOWN_PASSAGES} most used of {len(rows)} passages; GET /api/report lists all.")


def _ask_for_upgrade(console: Console, writer: MultiMailClient | None, judged: MailboxReport) -> int:
    mailbox = judged.mailbox
    if writer is None:
        console.print(
            "Nothing was requested: with OBSERVE_ONLY=true nothing is changed at MultiMail. "
            "Set OBSERVE_ONLY=false and ask again: the report is then that of the working agent."
        )
        return UNFINISHED
    if mailbox.oversight_mode != JUDGED_MODE:
        console.print(
            Text(
                f"Nothing was requested: only a {JUDGED_MODE} mailbox can move to {NEXT_MODE}, "
                f"and this one is {mailbox.oversight_mode}."
            )
        )
        return UNFINISHED
    if not _is_confirmed(console, judged):
        console.print("Nothing was requested.")
        return UNFINISHED
    return _request_upgrade(console, writer, mailbox)


def _is_confirmed(console: Console, judged: MailboxReport) -> bool:
    question = Text(
        f"\nIn {NEXT_MODE} each reply of {judged.mailbox.address} leaves at once; the operator gets a copy. "
        f"The report says: {judged.recommendation}. Send the operator a code for {NEXT_MODE}?"
    )
    try:
        return Confirm.ask(question, console=console, default=False)
    except EOFError:
        return False


def _request_upgrade(console: Console, writer: MultiMailClient, mailbox: Mailbox) -> int:
    try:
        writer.request_upgrade(mailbox.id, NEXT_MODE)
    except ConfigurationError as error:
        return report_misconfigured(console, error)
    except ThrottledError:
        console.print(
            "MultiMail accepts three such requests an hour for each mailbox, and they are used up. "
            "Nothing has changed. Try again in an hour."
        )
        return UNFINISHED
    except (PermanentError, TransientError) as error:
        console.print(Text(f"The request failed: {error}", "red"))
        return UNFINISHED
    console.print(
        f"MultiMail has sent a code to the account's operator; nothing changes until they enter it. Then set "
        f"ALLOW_UNGATED_REPLIES=true: without it the agent refuses to answer from a mailbox in {NEXT_MODE}."
    )
    return OK
