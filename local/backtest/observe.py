"""`python -m local observe`: what the agent would do with the mail of now, and the page about it."""

import os
from pathlib import Path

from rich.console import Console
from rich.text import Text

from local.backtest.page import write_private
from local.host.run import MISCONFIGURED, UNFINISHED, report_misconfigured, run
from shared.composition import Agent, get_agent
from shared.errors import AgentError, ConfigurationError
from shared.operator.observed import HEADINGS, Would, render_observed
from shared.operator.trust_page import parse_days
from shared.settings import find_ledger_path

PAGE = "observed.html"


def observe(console: Console, *, days_text: str) -> int:
    """Observe until no work is due, then write the page of the last days; return the exit status."""
    try:
        days = parse_days(days_text)
    except ValueError as error:
        console.print(Text(f"--{error}", "red"))
        return MISCONFIGURED
    os.environ["OBSERVE_ONLY"] = "true"
    status = run(console, until_idle=True)
    if status == MISCONFIGURED:
        return status
    try:
        write_observed(console, get_agent(), days, find_ledger_path(os.environ).parent)
    except ConfigurationError as error:
        return report_misconfigured(console, error)
    except AgentError as error:
        console.print(Text(f"The page was not written: {error}. Run again: nothing is asked twice.", "red"))
        return UNFINISHED
    return status


def write_observed(console: Console, agent: Agent, days: int, folder: Path) -> None:
    """Write the page of the last days and say how many emails of each kind there are.

    Raises what `show_observed` raises.
    """
    report = agent.show_observed(days)
    for observed in report.mailboxes:
        counts = ", ".join(f"{observed.counts[would]} {HEADINGS[would].lower()}" for would in Would)
        console.print(Text(f"{observed.mailbox.address}: {counts}"))
    path = write_private(folder / PAGE, render_observed(report))
    console.print(Text(f"The page with the drafts: {path}", "bold green"))
