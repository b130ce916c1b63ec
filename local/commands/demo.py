"""`python -m local demo`: the main job with simulated mail and a simulated model, no account anywhere."""

import json
import os
import shutil
import threading
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from local.approval.agent import AgentAccess
from local.approval.page import build_desk
from local.audit.command import build_evidence, build_trail, find_reasons
from local.audit.verify import check_trail, print_verdict
from local.backtest.command import build_plan, try_past_mail
from local.backtest.observe import write_observed
from local.commands.ask import print_answer, tool_calls_printed
from local.commands.console import STYLES, EventWatch, TableRow, build_table
from local.commands.demo_customers import CONFIG, serve_customers
from local.commands.demo_mail import LATE_ANSWERS, UNANSWERED_EMAILS, add_emails, seed_demo
from local.commands.demo_model import list_reasons, respond
from local.commands.report import print_mailbox
from local.gaps.command import find_gaps
from local.host.http_server import LoopbackServer, build_server
from local.host.run import (
    HTTP_PORT,
    OBSERVING,
    UNFINISHED,
    LocalRun,
    report_misconfigured,
    stopped_by_signals,
)
from local.model.chat_simulator import ChatSimulator
from local.multimail.simulator import MultiMailSimulator
from local.multimail.state import MultiMailAccount
from local.people.channel import TARGET, DemoChannel
from shared.composition import KNOWLEDGE_FOLDER, get_agent, open_audit_key
from shared.domain import WorkItem
from shared.errors import AgentError, ConfigurationError
from shared.knowledge.passages import PROPOSED_FOLDER
from shared.ledger.audit_chains import read_facts
from shared.ledger.matters import DIGEST
from shared.ledger.sqlite_store import open_sqlite_ledger
from shared.mail.multimail import MultiMailClient
from shared.notifying.delivery import name_variable
from shared.operator.asking import Question
from shared.operator.trust import DEFAULT_DAYS
from shared.replying.reporting import CLAIMS_TAG, build_reply_tags, render_lookups, render_reason
from shared.services.secrets import StaticSecret
from shared.settings import Secret, Settings

FOLDER = Path(".data/demo")
EVERY_SETTING = Path(__file__).parent.parent.parent / "local.settings.json.example"
PAGE_PORT = 8484
HOOK = f"http://127.0.0.1:{HTTP_PORT}/api/webhook"
EVENTS = ("oversight.approved", "oversight.rejected", "message.delivered")
QUESTION = "Which drafts are pending?"
NOTE = "Simulated mail, simulated model: nothing leaves this machine."
RIDDLE = "One of the drafts contains a mistake: find it."
# Five emails: a customer's, whose draft has looked-up facts, one in her name, whose draft has none, and three
# without a draft to approve, each for another cause.
TELLING = (
    "Where is order NW-31207?",
    "I am at another address now: where is NW-31207?",
    "Vendor assurance: one open item",
    "Battery of a T2 got very hot",
    "Quote for twelve Halden T2",
)


@dataclass(frozen=True, slots=True)
class Simulators:
    """The services of the demo, each over HTTP on loopback, with the agent's key and the reviewer's."""

    multimail_url: str
    chat_url: str
    channel_url: str
    agent_key: str
    review_key: str
    webhook_secret: str


def demo(console: Console, *, until_idle: bool, show_all: bool, observes: bool) -> int:
    """Answer the demo's mail, show what became of it, serve the page until Ctrl-C; return the exit status.

    `until_idle` ends without the page, `show_all` shows every email and what an operator would look at;
    `observes` submits nothing, and shows how the knowledge is extended and tried.
    """
    multimail = MultiMailSimulator(lambda: datetime.now(UTC))
    seed_demo(multimail, datetime.now(UTC))
    chat = ChatSimulator(api_key="simulated", shields=True, respond=respond)
    channel = DemoChannel(console)
    with (
        LoopbackServer(multimail.app) as multimail_server,
        LoopbackServer(chat.app) as chat_server,
        LoopbackServer(channel.app) as channel_server,
    ):
        simulators = Simulators(
            multimail_server.url, chat_server.url, channel_server.url,
            agent_key=multimail.add_key(("read", "send")),
            review_key=multimail.add_key(("read", "oversight")),
            webhook_secret=multimail.subscribe(HOOK, EVENTS, None, "demo").signing_secret,
        )  # fmt: skip
        try:
            point_settings_at(simulators, os.environ)
            if observes:
                add_emails(multimail, UNANSWERED_EMAILS, datetime.now(UTC))
                os.environ["OBSERVE_ONLY"] = "true"
            today = datetime.now(UTC).date()
            with serve_customers(FOLDER / "config", today) as settings, stopped_by_signals() as stop:
                os.environ.update(settings)
                shown = Demo(console, simulators, channel, stop, show_all=show_all)
                if observes:
                    return shown.observe(multimail)
                return shown.answer_mail() if until_idle else shown.answer_mail_and_serve()
        except ConfigurationError as error:
            return report_misconfigured(console, error)


def point_settings_at(simulators: Simulators, environment: MutableMapping[str, str]) -> None:
    """Replace the agent's settings by the demo's, with an empty ledger of its own.

    Raises ConfigurationError when another demo is running on it.
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
        POLL_SCHEDULE="*/5 * * * * *",  # a rejected draft comes back while its reviewer is still looking
        NO_PROXY="127.0.0.1",
    )
    environment[name_variable(f"notify-{TARGET}")] = simulators.channel_url


class Demo:
    """One run of the agent on the demo's mail, and what a person sees of it."""

    def __init__(
        self,
        console: Console,
        simulators: Simulators,
        channel: DemoChannel,
        stop: threading.Event,
        *,
        show_all: bool,
    ) -> None:
        self._console = console
        self._channel = channel
        self._simulators = simulators
        self._stop = stop
        self._show_all = show_all
        self._agent, self._settings = get_agent(), Settings.from_env(os.environ)
        self._client = MultiMailClient(simulators.multimail_url, StaticSecret(Secret(simulators.review_key)))

    def answer_mail_and_serve(self) -> int:
        """Answer the mail with the page open, then keep working until stopped."""
        served = self._build_run(EventWatch(self._console))
        with served.served_http() as (url, key):
            desk = build_desk(
                self._simulators.multimail_url,
                Secret(self._simulators.review_key),
                AgentAccess(url, Secret(key)),
                note=f"{NOTE} {RIDDLE}",
                list_reasons=list_reasons,
            )
            with build_server(desk, PAGE_PORT) as server:
                self._console.print(
                    Text(f"Approve or reject the drafts: {server.url}   (Ctrl-C ends)", "bold green")
                )
                status = self.answer_mail(server.url)
                if self._stop.is_set():
                    return status
                with EventWatch(self._console) as watch:
                    self._console.print()
                    served.tell_http(url, key)
                    return self._build_run(watch).run(until_idle=False)

    def answer_mail(self, page_url: str | None = None) -> int:
        """Work until nothing is due and show the result; return the exit status."""
        self._console.print(f"{NOTE}\n", highlight=False)
        emails = [
            (box.id, email)
            for box in self._client.list_mailboxes()
            for email in self._client.list_emails(box.id, direction="inbound")
        ]
        for box_id in {box_id for box_id, _ in emails}:  # a digest of before the demo would be empty
            self._agent.ledger.matters.set_moment(box_id, DIGEST, datetime.now(UTC))
        with EventWatch(self._console, total=len(emails)) as watch:
            status = self._build_run(watch).run(until_idle=True)
        if self._stop.is_set():
            return status
        rows = [
            TableRow(email, entry)
            for box_id, email in sorted(emails, key=lambda found: found[1].received_at)
            if (entry := self._agent.ledger.get(WorkItem(box_id, email.id))) is not None
        ]
        if self._show_all:
            _print_heading(self._console, "Every email")
            self._console.print(build_table(rows, self._console.width))
            self._show_looked_up(rows)
            self._show_attachments(rows)
            self._show_operator()
        else:
            self._show_telling(rows)
        self._tell_people()
        self._say_what_is_next(page_url)
        return status

    def observe(self, multimail: MultiMailAccount) -> int:
        """Observe the mail and write the page; then a person answers, and the gap is found and closed."""
        self._console.print(f"{NOTE}\n{OBSERVING}\n", highlight=False)
        with EventWatch(self._console) as watch:
            status = self._build_run(watch).run(until_idle=True)
        if self._stop.is_set():
            return status
        write_observed(self._console, self._agent, 1, FOLDER)
        self._agent.trail.detach()
        _print_heading(self._console, "Gaps: a person has meanwhile answered one of the escalated emails")
        add_emails(multimail, LATE_ANSWERS, datetime.now(UTC))
        try:
            find_gaps(self._console, self._settings, DEFAULT_DAYS)
            return self._close_gap()
        except AgentError as error:
            self._console.print(Text(f"The demo stopped: {error}", "red"))
            return UNFINISHED

    def _close_gap(self) -> int:
        """Move the proposed passage into the knowledge of a copy, and try the mail under both.

        Raises what a backtest raises.
        """
        learned = shutil.copytree(self._settings.config_path, FOLDER / "learned")
        (proposed,) = (learned / KNOWLEDGE_FOLDER / PROPOSED_FOLDER).glob("*.md")
        _print_heading(self._console, "The proposed passage, for a person to read, correct and move")
        self._console.print(Padding.indent(Text(proposed.read_text(encoding="utf-8").rstrip()), 2))
        proposed.rename(learned / KNOWLEDGE_FOLDER / "support" / "recycling.md")
        _print_heading(self._console, "Backtest: the same mail once it is in knowledge/support/")
        plan = build_plan(os.environ, 1, str(learned), ())
        return try_past_mail(self._console, plan, FOLDER / "backtest", is_confirmed=True)

    def _build_run(self, watch: EventWatch) -> LocalRun:
        return LocalRun(self._agent, self._settings, self._console, watch, self._stop)

    def _show_telling(self, rows: Sequence[TableRow]) -> None:
        _print_heading(self._console, "Five of them")
        by_subject = {row.summary.subject: row.entry for row in rows}
        for subject in TELLING:
            entry = by_subject.get(subject)
            if entry is None or entry.outcome is None:
                continue
            why = Text.assemble((str(entry.outcome), STYLES[entry.outcome]), f": {render_reason(entry)}")
            self._console.print(Text(subject), Padding.indent(why, 2), sep="\n")
            written = entry.draft or entry.proposal
            if written is not None and (claims := build_reply_tags(written).get(CLAIMS_TAG)):
                kind = "draft" if entry.draft else "proposal, not submitted"
                facts = f"; facts of look-ups: {render_lookups(written) or 'none'}" if entry.draft else ""
                self._console.print(Padding.indent(Text(f"its {kind}: {claims}{facts}", "bright_black"), 2))

    def _show_looked_up(self, rows: Sequence[TableRow]) -> None:
        """The drafts with facts of look-ups, and the one that got none, each as it is."""
        _print_heading(self._console, "Look-ups: facts for the one customer that they are about")
        for row in rows:
            draft = row.entry.draft
            if draft is None or not (draft.looked_up or row.summary.subject in TELLING):
                continue
            self._console.print(Text(f"{row.summary.subject}\nfrom {row.summary.sender}"))
            facts = Text(f"facts of look-ups: {render_lookups(draft) or 'none'}", "bright_black")
            for line in (facts, Text(draft.reply_markdown)):
                self._console.print(Padding.indent(line, 2))

    def _show_attachments(self, rows: Sequence[TableRow]) -> None:
        """What became of each attached file, and what a draft says because one of them does."""
        _print_heading(self._console, "Attachments: read as the sender's words, or left to the approver")
        for row in rows:
            written = row.entry.draft or row.entry.proposal
            if written is None or not written.attachments:
                continue
            self._console.print(Text(row.summary.subject or "(no subject)"))
            files = self._client.get_email(row.entry.mailbox_id, row.entry.email_id).attachments
            told = [f"{file.name}: {state}" for file, state in zip(files, written.attachments, strict=False)]
            told += [f"open point: {point.text}" for point in written.open_points]
            told += [
                f"from {quote.source.partition(' of ')[0]}: {claim.sentence}"
                for claim in written.claims
                for quote in claim.quotes
                if quote.source.startswith("attachment")
            ]
            self._console.print(Padding.indent(Text("\n".join(told), "bright_black"), 2))

    def _tell_people(self) -> None:
        """Notify now of what an agent in Azure tells within five minutes; show what the channel got."""
        _print_heading(self._console, "What a Teams channel was told (here: one on this machine)")
        try:
            self._agent.notify()
        except AgentError as error:
            self._console.print(Text(f"Not everything was told: {error}", "red"))
        self._channel.show()

    def _show_operator(self) -> None:
        """What an operator would type next: why one email got its reply, a question, the trust report."""
        ledger_path = self._settings.ledger_path
        facts = read_facts(self._agent.ledger.audit.read())
        decided = [record for record in facts if record.get("reply_id")]
        if decided:
            email_id = decided[0]["email_id"]
            _print_heading(self._console, "Audit trail of one email")
            of_one = [record for record in decided if record["email_id"] == email_id]
            entry = self._agent.ledger.get(WorkItem(decided[0]["mailbox_id"], email_id))
            reasons = find_reasons(entry) if entry is not None else {}
            self._console.print(build_trail(of_one, self._console.width, reasons))
            if entry is not None:
                self._console.print(build_evidence(entry))
            self._console.print(Text("All decisions:", "bright_black"))
            self._console.print(Text(f"LEDGER_PATH={ledger_path} .venv/bin/python -m local audit"))
            self._console.print(Text("audit verify:", "bright_black"))
            key = open_audit_key(self._settings).get()
            print_verdict(self._console, check_trail(self._agent.ledger, key))
        _print_heading(self._console, f"Asked: {QUESTION}")
        try:
            with tool_calls_printed(self._console):
                print_answer(self._console, self._agent.ask(Question(QUESTION)))
        except AgentError as error:
            self._console.print(Text(f"No answer: {error}", "red"))
        _print_heading(self._console, "Trust report: ready for less oversight?")
        busiest = max(self._agent.report(DEFAULT_DAYS).mailboxes, key=lambda judged: judged.total.submitted)
        print_mailbox(self._console, busiest, DEFAULT_DAYS)

    def _say_what_is_next(self, page_url: str | None) -> None:
        decide = f"Open {page_url} and decide on the drafts." if page_url else (
            "Run make demo without --until-idle and decide on the drafts on its page."
        )  # fmt: skip
        facts = (CONFIG / "knowledge").relative_to(Path(__file__).parents[2])
        steps = [
            decide,
            f"{RIDDLE} What is right is in its conversation, and in the folder {facts}.",
            "Reject it with one of the reasons on the page: the agent drafts it again.",
        ]
        if not self._show_all:
            steps.append(
                "To see every email, look-ups, attachments, the audit trail and the trust report here: "
                "make demo ARGS=--all"
            )
        _print_heading(self._console, "What to do next")
        table = Table.grid(padding=(0, 1))
        for number, step in enumerate(steps, 1):
            table.add_row(f"  {number}.", Text(step))
        self._console.print(table)


def _print_heading(console: Console, text: str) -> None:
    console.print(Text(f"\n{text}", "bold"))
