"""What the command line shows: progress while the agent works, a table and a summary at the end."""

import logging
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import parseaddr

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from shared.domain import Cause, EmailSummary, Outcome
from shared.ledger.entries import LedgerEntry
from shared.model.prompting import clean_line
from shared.replying.reporting import render_cause, render_reason, render_waiting
from shared.telemetry import EMAIL_DECIDED, EMAIL_DEFERRED, EVENT_LOGGER, POLL_SUCCEEDED

WIDE = 120  # columns of the terminal

OUTCOME_MEANINGS = {
    Outcome.REPLY_SUBMITTED: "a draft is pending approval",
    Outcome.ESCALATED: "handed to a person",
    Outcome.NEEDS_HUMAN: "the agent stopped; a person has to look",
    Outcome.FAILED: "every attempt failed",
    Outcome.BLOCKED_UNGATED: "the reply would have left without approval",
    Outcome.BLOCKED_CONTENT_SAFETY: "blocked by the model service's content filter",
    Outcome.IGNORED: "needs no answer",
    Outcome.SKIPPED: "kept from the model by a rule",
}

STYLES = {
    Outcome.REPLY_SUBMITTED: "green",
    Outcome.IGNORED: "bright_black",
    Outcome.SKIPPED: "bright_black",
    Outcome.ESCALATED: "yellow",
    Outcome.NEEDS_HUMAN: "yellow",
    Outcome.BLOCKED_UNGATED: "red",
    Outcome.BLOCKED_CONTENT_SAFETY: "red",
    Outcome.FAILED: "bold red",
}


class EventWatch(logging.Handler):
    """Follows the agent's events: counts outcomes, remembers whether the last poll went well."""

    def __init__(self, console: Console, total: int | None = None) -> None:
        super().__init__(logging.INFO)
        self.outcomes: Counter[str] = Counter()
        self.polled = threading.Event()
        self.ever_polled = False
        self.has_worked = False  # an email was ended or deferred
        self.added = 0
        self.errors: set[str] = set()  # printed since the last poll that went well
        self._console = console
        self._bar = Progress(
            TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(),
            console=console, disable=total is None, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("Reading the mail", total=total)

    def __enter__(self) -> "EventWatch":
        logger = logging.getLogger(EVENT_LOGGER)
        logger.setLevel(logging.INFO)
        logger.addHandler(self)
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        logging.getLogger(EVENT_LOGGER).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Take one event. Ids and fixed words only, so nothing of an email reaches the terminal."""
        facts = record.__dict__
        event = facts.get("agent.event")
        self.has_worked = self.has_worked or event in (EMAIL_DECIDED, EMAIL_DEFERRED)
        if event == POLL_SUCCEEDED:
            self.ever_polled = True
            self.added = facts["agent.added"]
            self.polled.set()
            self.errors.clear()
        elif event == EMAIL_DECIDED:
            self.outcomes[facts["agent.outcome"]] += 1
            self._bar.advance(self._task)
            if self._bar.disable:
                self._console.print(_describe_decision(facts))
        elif event == EMAIL_DEFERRED:
            cause = Cause(facts["agent.waiting_for"])
            reason = render_cause(cause, facts.get("agent.detail", ""))
            if cause is Cause.CONFIGURATION:  # its invocation fails too, and that is printed
                reason = "its configuration is wrong"
            line = Text(f"{facts['agent.mailbox_id']}/{facts['agent.email_id']}  ")
            line.append(f"waits {facts['agent.seconds']:.0f} s", "yellow")
            self._console.print(line.append(f"  {reason}", "bright_black"))

    @property
    def finished(self) -> int:
        """How many emails have come to their outcome since the watch began."""
        return self.outcomes.total()


def _describe_decision(facts: dict[str, object]) -> Text:
    outcome = str(facts["agent.outcome"])
    tokens = int(str(facts["agent.input_tokens"])) + int(str(facts["agent.output_tokens"]))
    line = Text(f"{facts['agent.mailbox_id']}/{facts['agent.email_id']}  ")
    line.append(outcome, STYLES[Outcome(outcome)])
    reason = render_cause(Cause(str(facts["agent.cause"])), str(facts.get("agent.detail", "")))
    if reason:
        line.append(f"  {reason}")
    return line.append(f"  {facts['agent.calls']} model calls, {tokens} tokens", "bright_black")


def print_outcomes(console: Console, outcomes: Counter[str]) -> None:
    """Print how many emails came to which outcome, and what that means."""
    total = outcomes.total()
    console.print(Text(f"{total} {'email' if total == 1 else 'emails'} processed", "bold"))
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right")
    for outcome, meaning in OUTCOME_MEANINGS.items():
        if outcomes[outcome]:
            table.add_row(f"  {outcomes[outcome]}", Text(str(outcome), STYLES[outcome]), meaning)
    console.print(table)


@dataclass(frozen=True, slots=True)
class TableRow:
    """One email as the table shows it."""

    summary: EmailSummary
    entry: LedgerEntry


def build_table(rows: Iterable[TableRow], width: int) -> RenderableType:
    """What became of each email: a table, or below WIDE columns two lines or more for each.

    Every cell is plain text: email text is never markup.
    """
    if width < WIDE:
        return Group(*(_build_lines(row) for row in rows))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("email")
    for name in ("category", "action", "outcome"):
        table.add_column(name, no_wrap=True)
    table.add_column("tokens", no_wrap=True, justify="right")
    table.add_column("why")
    for row in rows:
        triage = row.entry.triage
        table.add_row(
            _describe_email(row.summary),
            triage.category if triage else "-",
            str(triage.action) if triage else "-",
            _describe_outcome(row.entry),
            str(row.entry.usage.tokens),
            _describe_reason(row.entry),
        )
    return table


def _build_lines(row: TableRow) -> RenderableType:
    why = Text.assemble(_describe_outcome(row.entry), ": ", _describe_reason(row.entry))
    return Group(_describe_email(row.summary), Padding.indent(why, 2))


def _describe_outcome(entry: LedgerEntry) -> Text:
    outcome = entry.outcome
    return Text(str(outcome or "waiting"), STYLES[outcome] if outcome else "yellow")


def _describe_reason(entry: LedgerEntry) -> Text:
    return Text(clean_line(render_reason(entry) or render_waiting(entry), 200), "bright_black")


def _describe_email(summary: EmailSummary) -> Text:
    line = Text(clean_line(summary.subject, 60) or "(no subject)")
    name, address = parseaddr(summary.sender)
    return line.append(f" · {clean_line(name or address, 40)}", "bright_black")
