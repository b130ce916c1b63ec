"""`python -m local demo`: the main job with simulated mail and a simulated model, no account anywhere."""

import json
import os
import shutil
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.text import Text

from local.approval.page import build_approval_page
from local.commands.ask import print_answer, tool_calls_printed
from local.commands.audit import build_trail
from local.commands.audit_file import AuditFile, read_records
from local.commands.console import EventWatch, TableRow, build_table
from local.commands.demo_mail import seed_demo
from local.commands.report import print_mailbox
from local.host.http_server import LoopbackServer, build_server
from local.host.run import HTTP_PORT, LocalRun, report_misconfigured, stopped_by_signals
from local.model.chat_simulator import ChatSimulator
from local.multimail.simulator import MultiMailSimulator
from shared.composition import Agent, get_agent
from shared.domain import WorkItem
from shared.errors import AgentError, ConfigurationError
from shared.ledger.sqlite_store import open_sqlite_ledger
from shared.mail.multimail import MultiMailClient
from shared.mail.secrets import StaticSecret
from shared.operator.asking import Question
from shared.operator.trust import DEFAULT_DAYS
from shared.settings import Secret, Settings

FOLDER = Path(".data/demo")
CONFIG = Path(__file__).parent / "demo_config"
EVERY_SETTING = Path(__file__).parent.parent.parent / "local.settings.json.example"
PAGE_PORT = 8484
HOOK = f"http://127.0.0.1:{HTTP_PORT}/api/webhook"
EVENTS = ("oversight.approved", "oversight.rejected", "message.delivered")
QUESTION = "What waits for approval?"
NOTE = "Simulated mail, simulated model: nothing leaves this machine."


@dataclass(frozen=True, slots=True)
class Simulators:
    """The services of the demo, each over HTTP on loopback, with the agent's key and the page's two."""

    multimail_url: str
    chat_url: str
    agent_key: str
    mail_key: str
    oversight_key: str
    webhook_secret: str


def demo(console: Console, *, until_idle: bool) -> int:
    """Answer the demo's mail, show what became of it, serve the page until Ctrl-C; return the exit status."""
    multimail = MultiMailSimulator(lambda: datetime.now(UTC))
    seed_demo(multimail, datetime.now(UTC))
    chat = ChatSimulator(api_key="simulated", shields=True)
    with LoopbackServer(multimail.app) as multimail_server, LoopbackServer(chat.app) as chat_server:
        simulators = Simulators(
            multimail_server.url, chat_server.url,
            agent_key=multimail.add_key(("read", "send")),
            mail_key=multimail.add_key(("read", "send")),
            oversight_key=multimail.add_key(("oversight",)),
            webhook_secret=multimail.subscribe(HOOK, EVENTS, None, "demo").signing_secret,
        )  # fmt: skip
        try:
            point_settings_at(simulators, os.environ)
        except ConfigurationError as error:
            return report_misconfigured(console, error)
        return _answer_and_serve(console, simulators, until_idle=until_idle)


def point_settings_at(simulators: Simulators, environment: MutableMapping[str, str]) -> None:
    """Replace the agent's settings by the demo's, with an empty ledger of its own.

    Raises ConfigurationError when another demo is at work on it.
    """
    ledger_path = FOLDER / "ledger.sqlite"
    if ledger_path.exists():
        open_sqlite_ledger(ledger_path).close()  # fails while another process has it
    shutil.rmtree(FOLDER, ignore_errors=True)
    for name in json.loads(EVERY_SETTING.read_text(encoding="utf-8"))["Values"]:
        environment.pop(name, None)
    environment.update(
        MULTIMAIL_API_URL=simulators.multimail_url,
        MULTIMAIL_API_KEY=simulators.agent_key,
        MODEL_ENDPOINT=simulators.chat_url,
        MODEL_API_KEY="simulated",
        TRIAGE_DEPLOYMENT="small",
        DRAFT_DEPLOYMENT="large",
        MULTIMAIL_WEBHOOK_SECRET=simulators.webhook_secret,
        LEDGER_PATH=str(ledger_path),
        CONFIG_PATH=str(CONFIG),
        NO_PROXY="127.0.0.1",
    )


def _answer_and_serve(console: Console, simulators: Simulators, *, until_idle: bool) -> int:
    console.print(Text(NOTE, "bold"))
    agent, settings = get_agent(), Settings.from_env(os.environ)
    with stopped_by_signals() as stop:
        with EventWatch(console, total=_count_inbound(simulators)) as watch:
            status = LocalRun(agent, settings, console, watch, stop).run(until_idle=True)
        console.print(build_table(_rows(agent, simulators), console.width))
        _show_operator(console, agent, settings)
        if until_idle or stop.is_set():
            return status
        page = build_approval_page(
            simulators.multimail_url,
            simulators.mail_key,
            simulators.oversight_key,
            note=NOTE,
            report=agent.report,
        )
        with build_server(page, PAGE_PORT) as server, EventWatch(console) as watch:
            console.print(Text(f"\nApprove or reject the drafts: {server.url}   (Ctrl-C ends)", "bold green"))
            console.print(f"Trust report: {server.url}/report?format=html", highlight=False)
            return LocalRun(agent, settings, console, watch, stop).run(until_idle=False)


def _show_operator(console: Console, agent: Agent, settings: Settings) -> None:
    """What an operator would type next: why one email got its reply, a question, the trust report."""
    decided = [record for record in read_records(settings.ledger_path) if record.get("reply_id")]
    if decided:
        email_id = decided[0]["email_id"]
        _print_heading(console, "Who decided what about one of them, and why")
        console.print(build_trail(record for record in decided if record["email_id"] == email_id))
        command = f"LEDGER_PATH={settings.ledger_path} .venv/bin/python -m local audit"
        console.print(Text(f"All of them: {command}", "bright_black"), soft_wrap=True)
    _print_heading(console, f"Asked: {QUESTION}")
    try:
        with tool_calls_printed(console), AuditFile(settings.ledger_path):
            print_answer(console, agent.ask(Question(QUESTION)))
    except AgentError as error:
        console.print(Text(f"No answer: {error}", "red"))
    _print_heading(console, "May the leash be longer?")
    busiest = max(agent.report(DEFAULT_DAYS).mailboxes, key=lambda judged: judged.total.submitted)
    print_mailbox(console, busiest, DEFAULT_DAYS)


def _print_heading(console: Console, text: str) -> None:
    console.print(Text(f"\n{text}", "bold"))


def _count_inbound(simulators: Simulators) -> int:
    client = _reader(simulators)
    return sum(
        1 for mailbox in client.list_mailboxes() for _ in client.list_emails(mailbox.id, direction="inbound")
    )


def _rows(agent: Agent, simulators: Simulators) -> Iterator[TableRow]:
    """Every inbound email with its row, mailbox by mailbox, oldest first."""
    client = _reader(simulators)
    for mailbox in client.list_mailboxes():
        summaries = client.list_emails(mailbox.id, direction="inbound")
        for summary in sorted(summaries, key=lambda summary: summary.received_at):
            entry = agent.ledger.get(WorkItem(mailbox.id, summary.id))
            if entry is not None:
                yield TableRow(summary, entry)


def _reader(simulators: Simulators) -> MultiMailClient:
    return MultiMailClient(simulators.multimail_url, StaticSecret(Secret(simulators.mail_key)))
