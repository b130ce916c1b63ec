"""`python -m local backtest`: past mail under today's configuration and under another one."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.prompt import Confirm
from rich.table import Table
from rich.text import Text

from local.backtest.comparison import Comparison, Estimate, Tried, compare, estimate
from local.backtest.page import render_backtest, write_private
from local.backtest.past import PastMail, read_past_mail
from local.backtest.results import COUNTED, ResultsFile, compute_fingerprint, price_usage
from local.backtest.trial import open_observer, run_backtest
from local.host.run import (
    MISCONFIGURED,
    OK,
    UNFINISHED,
    check_reachable,
    load_local_settings,
    report_misconfigured,
)
from shared.composition import open_ledger
from shared.domain import NO_USAGE, Usage, WorkItem
from shared.errors import AgentError, ConfigurationError
from shared.ledger.entries import LedgerEntry
from shared.mail.mailboxes import select_mailboxes
from shared.mail.multimail import MultiMailReader
from shared.model.prompting import load_prompt
from shared.model.tokens import estimate_tokens
from shared.operator.observed import HEADINGS, Would, find_would, format_dollars
from shared.operator.trust_page import parse_days
from shared.profiles.profile_file import MAX_PROFILE_CHARACTERS
from shared.replying import draft_request, drafting, threads, triage
from shared.settings import Settings, declared_settings

FOLDER = Path(".data/backtest")
RESULTS, PAGE = "results.jsonl", "backtest.html"
SHOWN_FLIPS = 20
BEFORE = "as it is"
INDEX_UNSEEN = "Whether the index at SEARCH_ENDPOINT has changed since an earlier result cannot be told:"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be tried: the settings of today and, if there are any, the new ones."""

    settings: Sequence[Settings]
    names: Sequence[str]
    days: int


def backtest(
    console: Console, *, days_text: str, config: str | None, changes: Sequence[str], is_confirmed: bool
) -> int:
    """Try the mail of the last days, print what came out, write the page; return the exit status.

    `config`: a folder with another configuration. `changes`: settings for it, each as NAME=VALUE. It asks
    before it starts, unless `is_confirmed`. At MultiMail it only reads, and no unread email.
    """
    try:
        days = parse_days(days_text)
    except ValueError as error:
        console.print(Text(f"--{error}", "red"))
        return MISCONFIGURED
    try:
        load_local_settings(os.environ)
        plan = build_plan(os.environ, days, config, changes)
        check_reachable(plan.settings[0])
        return try_past_mail(console, plan, FOLDER, is_confirmed=is_confirmed)
    except ConfigurationError as error:
        return report_misconfigured(console, error)
    except AgentError as error:
        console.print(
            Text(f"The backtest stopped: {error}. Run it again: it goes on where it stopped.", "red")
        )
        return UNFINISHED


def build_plan(environment: Mapping[str, str], days: int, config: str | None, changes: Sequence[str]) -> Plan:
    """The settings of today and the new ones. Raises ConfigurationError."""
    today = Settings.from_env(environment)
    if config is not None and not Path(config).is_dir():
        raise ConfigurationError(f"--config {config} is not a directory: name the one with mailboxes.yaml.")
    if config is None and not changes:
        return Plan([today], [BEFORE], days)
    names = {setting.name: attribute for attribute, setting in declared_settings().items()}
    changed: dict[str, str] = {} if config is None else {"CONFIG_PATH": config}
    for change in changes:
        name, is_set, value = change.partition("=")
        if not is_set or names.get(name) not in COUNTED:
            known = ", ".join(sorted(name for name, attribute in names.items() if attribute in COUNTED))
            raise ConfigurationError(f"--set {change}: write NAME=VALUE with one of these names: {known}.")
        changed[name] = value
    shown = ", ".join(f"{name}={value}" for name, value in changed.items())
    return Plan([today, Settings.from_env({**environment, **changed})], [BEFORE, f"new: {shown}"], days)


def try_past_mail(console: Console, plan: Plan, folder: Path, *, is_confirmed: bool) -> int:
    """List the mail of the plan's days and try it, with results and page in `folder`; the exit status.

    Raises what the trials raise.
    """
    with open_observer(plan.settings[0]) as agent:
        reader, mailboxes = agent.pipeline.multimail, agent.pipeline.mailboxes.read()
        watched = select_mailboxes(mailboxes, plan.settings[0].multimail_mailbox_ids).values()
        mail = read_past_mail(reader, watched, datetime.now(UTC) - timedelta(days=plan.days))
        results = ResultsFile(folder / RESULTS, plan.settings[0].token_prices)
        return Backtest(console, plan, reader, mail, results).run(is_confirmed=is_confirmed)


@dataclass(frozen=True, slots=True)
class Backtest:
    """One backtest of listed mail."""

    console: Console
    plan: Plan
    reader: MultiMailReader
    mail: PastMail
    results: ResultsFile

    def run(self, *, is_confirmed: bool) -> int:
        """Say what it costs, try the emails, show what came out. Raises what the trials raise."""
        with ExitStack() as stack:
            history = self._open_history(stack)
            runs = {compute_fingerprint(settings): settings for settings in self.plan.settings}
            self._tell_what_comes(runs, history)
            missing = sum(map(self._count_missing, runs))
            if not self.mail.emails:
                return UNFINISHED
            if missing and not is_confirmed and not self._ask():
                self.console.print("Nothing was asked of the models.")
                return UNFINISHED
            found = self._try_all(missing)
            after = found[1] if len(found) > 1 else None
            compared = compare(
                self.mail, history, found[0], after, days=self.plan.days, names=self.plan.names
            )
        print_comparison(self.console, compared)
        path = write_private(self.results.path.with_name(PAGE), render_backtest(compared, self._read_answer))
        self.console.print(Text(f"The page with the drafts: {path}", "bold green"))
        return OK

    def _open_history(self, stack: ExitStack) -> Callable[[WorkItem], LedgerEntry | None]:
        """Open what the agent has really done, if it has worked at all."""
        settings = self.plan.settings[0]
        if settings.ledger_table_endpoint is None and not settings.ledger_path.exists():
            return lambda _: None
        ledger = open_ledger(settings, read_only=True)
        stack.callback(ledger.close)
        return ledger.get

    def _count_missing(self, run: str) -> int:
        """How many trials under a configuration are not among the results yet."""
        return sum(self.results.get(run, email.work_item) is None for email in self.mail.emails)

    def _tell_what_comes(
        self, runs: Mapping[str, Settings], history: Callable[[WorkItem], LedgerEntry | None]
    ) -> None:
        worked = [*filter(None, (history(email.work_item) for email in self.mail.emails))]
        cost = sum((self._estimate(run, settings, worked) for run, settings in runs.items()), Estimate())
        missing = sum(map(self._count_missing, runs))
        known = len(self.mail.emails) * len(runs) - missing
        console = self.console
        if len(runs) < len(self.plan.settings):
            console.print("The new configuration is the same as today's.")
        console.print(
            f"Past emails ({self.plan.days} x 24 hours): {len(self.mail.emails)}; "
            f"left out: {self.mail.left_out.total()}."
        )
        for reason, count in self.mail.left_out.items():
            console.print(Text(f"  {count}: {reason}", "bright_black"))
        if self.results.damaged:
            damaged = f"{self.results.damaged} damaged lines of {self.results.path} count as not tried."
            console.print(Text(damaged, "yellow"))
        if known and any(settings.search_endpoint for settings in runs.values()):
            console.print(Text(f"{INDEX_UNSEEN} delete {self.results.path} to try all again."))
        dollars = "set TOKEN_PRICES to see the cost" if cost.dollars is None else format_dollars(cost.dollars)
        console.print(
            f"{missing} to be tried, {known} known from earlier: about {cost.tokens:,} tokens, {dollars} "
            f"({'; '.join(cost.bases) or 'nothing is asked'}).",
            highlight=False,
        )

    def _estimate(self, run: str, settings: Settings, worked: Sequence[LedgerEntry]) -> Estimate:
        same = [entry.usage for entry in self.results.entries(run) if entry.usage.calls]
        others = [entry.usage for entry in (*self.results.others(run), *worked) if entry.usage.calls]
        deployments = settings.triage_deployment, settings.draft_deployment
        prices = [settings.token_prices.get(name) for name in deployments]
        return estimate(self._count_missing(run), same, others, bound_usage(settings), prices)

    def _ask(self) -> bool:
        try:
            return Confirm.ask("Start?", console=self.console, default=False)
        except EOFError:
            return False

    def _try_all(self, missing: int) -> list[Mapping[WorkItem, LedgerEntry]]:
        bar = Progress(
            TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=self.console, transient=True,
        )  # fmt: skip
        with bar:
            task = bar.add_task("Trying", total=missing)
            return [
                run_backtest(settings, self.mail.emails, self.results, on_tried=lambda _: bar.advance(task))
                for settings in self.plan.settings
            ]

    def _read_answer(self, case: Tried) -> str:
        """What a person wrote; outbound, so that reading marks nothing."""
        if case.answer is None:
            return ""
        try:
            return self.reader.get_email(case.email.mailbox.id, case.answer.id).markdown
        except AgentError as error:
            return f"(it cannot be read: {type(error).__name__})"


def bound_usage(settings: Settings) -> Usage:
    """The most that one email can cost: what bounds its two prompts and answers."""
    profile = MAX_PROFILE_CHARACTERS // 4
    context = threads.MAX_CONTEXT_EMAILS * drafting.MAX_CONTEXT_EMAIL_TOKENS + drafting.MAX_EMAIL_TOKENS
    parts = (
        (
            settings.triage_deployment,
            estimate_tokens(load_prompt("triage")) + triage.MAX_MAIL_TOKENS + triage.MAX_TITLES_TOKENS,
            triage.MAX_OUTPUT_TOKENS,
        ),
        (
            settings.draft_deployment,
            estimate_tokens(load_prompt("draft")) + settings.knowledge_tokens + context,
            draft_request.MAX_OUTPUT_TOKENS,
        ),
    )
    used: dict[str, Usage] = {}
    for deployment, given, written in parts:
        used[deployment] = used.get(deployment, NO_USAGE) + Usage(1, given + profile, written)
    return price_usage(used, settings.token_prices)


def print_comparison(console: Console, found: Comparison) -> None:
    """Print what came out: what really happened against what the agent would do, and the cases that flip."""
    views: list[Callable[[Tried], LedgerEntry | None]] = [lambda case: case.before, lambda case: case.after]
    for side, view in zip(found.sides, views, strict=False):
        usage, counts = side.usage, found.count(view)
        cost = f", {format_dollars(usage.dollars)}" if usage.dollars else ""
        console.print(Text.assemble("\n", (side.name, "bold"), f"  {usage.tokens:,} tokens{cost}"))
        table = Table(box=None, pad_edge=False, header_style="bright_black")
        table.add_column("what really happened")
        for heading in HEADINGS.values():
            table.add_column(heading.lower(), justify="right")
        for end in found.ends:
            table.add_row(str(end), *(str(counts.get((end, would), 0)) for would in Would))
        console.print(table)
        console.print(f"Of what was answered, it would answer {found.share_answered(view)}.", highlight=False)
        console.print(f"Verified facts in its answers: {side.verified}.", highlight=False)
    if len(found.names) > 1:
        console.print(Text(f"\nCases that flip: {found.flip_share}", "bold"))
        for case in found.flips[:SHOWN_FLIPS]:
            ends = [HEADINGS[find_would(side.outcome)] for side in (case.before, case.newest)]
            console.print(Text(f"  {case.email.summary.id}  {ends[0]} → {ends[1]}  ({case.really})"))
    for reason, count in found.left_out.items():
        console.print(Text(f"Left out, {count}: {reason}", "bright_black"))
