"""`python -m local run`: the app's own functions on this machine, against whatever the settings name."""

import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Collection, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

import requests
from rich.console import Console
from rich.text import Text

import function_app
from local.commands.console import EventWatch, print_outcomes
from local.host.host import Host, SteadyClock
from local.host.http_functions import build_function_key, build_http_app
from local.host.http_server import build_server
from local.host.settings_file import read_values, warn_if_open
from local.host.tracing import print_spans_if_wanted
from shared.composition import Agent, find_unset_secrets, get_agent
from shared.domain import Cause, Outcome
from shared.errors import AgentError, ConfigurationError
from shared.ledger.audit_trail import AuditTrail
from shared.ledger.entries import LedgerEntry
from shared.replying.reporting import render_waiting
from shared.services.work_queue import InProcessWorkQueue
from shared.settings import Need, Settings

LOCAL_SETTINGS = Path("local.settings.json")
HTTP_PORT = 7071  # where `func start` serves them too
HOST_JSON = Path(__file__).parent.parent.parent / "host.json"

# Without an end in sight, `--until-idle` leaves the rest to the next run: when nothing has come to its
# outcome for this long, or when the next retry is further away than this.
PATIENCE_SECONDS = 60.0
LONGEST_RETRY_SECONDS = 20  # for RETRY_MAX_SECONDS: a person who waits for the end wants it tried now
POLL_AGAIN_SECONDS = 2.0
KNOCK_SECONDS = 10.0
SHOWN_WAITING = 10

# What stays undone until an operator looks; a run that ends with one has not done its work.
NEEDS_OPERATOR = (Outcome.FAILED, Outcome.NEEDS_HUMAN)

OBSERVING = (
    "Observing only: the agent submits, tags and sends nothing. MultiMail itself marks an unread email as "
    "read when it is read."
)

NONE_TOUCHED = "No email was touched."
ALL_KEPT = "Emails listed above are done or wait; nothing is lost."

OK, UNFINISHED, MISCONFIGURED = 0, 1, 2

# What each command takes besides the ledger; any other takes what the agent takes, or no setting at all.
NEEDS: Mapping[str, Collection[Need]] = {
    "audit": (),
    "done": (),
    "forget": (Need.SEND,),
    "gaps": (Need.READ, Need.MODEL),
    "knowledge": (Need.MODEL,),
    "lookup": (),
    "notify": (Need.READ,),
    "open": (Need.READ,),
    "pause": (Need.READ,),
    "redrive": (Need.READ,),
    "report": (Need.READ,),
    "voice": (Need.READ,),
}


def run(console: Console, *, until_idle: bool) -> int:
    """Run the agent until stopped or, with `until_idle`, until no work is due; return the exit status."""
    watch = EventWatch(console)
    try:
        if until_idle:  # before the file, which may have the example's value
            os.environ.setdefault("RETRY_MAX_SECONDS", str(LONGEST_RETRY_SECONDS))
        load_local_settings(os.environ)
        settings = _read_everything(os.environ)
        check_reachable(settings)
        print_spans_if_wanted()
        agent = get_agent()
        if settings.observe_only:
            console.print(OBSERVING, style="bold green")
        where = settings.ledger_table_endpoint or settings.ledger_path
        console.print(
            f"Watching {settings.multimail_api_url}, ledger {where}. Press Ctrl-C to stop.", highlight=False
        )
        _say_what_begins(console, agent, settings)
        with watch, stopped_by_signals() as stop:
            local = LocalRun(agent, settings, console, watch, stop)
            if until_idle:
                return local.run(until_idle=True)
            with local.served_http() as (url, key):
                local.tell_http(url, key)
                return local.run(until_idle=False)
    except ConfigurationError as error:
        return report_misconfigured(console, error, ALL_KEPT if watch.has_worked else NONE_TOUCHED)


def _read_everything(environment: Mapping[str, str]) -> Settings:
    """The settings, once the profiles and the secrets that they name are right, too.

    Raises one ConfigurationError with all that is wrong.
    """
    try:
        problems = find_unset_secrets(environment)
    except ConfigurationError as error:
        problems = error.problems
    try:
        settings = Settings.from_env(environment)
    except ConfigurationError as error:
        raise ConfigurationError([*dict.fromkeys([*error.problems, *problems])]) from None
    if problems:
        raise ConfigurationError(problems)
    return settings


def _say_what_begins(console: Console, agent: Agent, settings: Settings) -> None:
    """Say how far back a mailbox's first poll reads, before it does, and which mailboxes are paused."""
    with suppress(AgentError):  # the first poll meets the same error, and reports it
        hours = f"INITIAL_LOOKBACK_HOURS={settings.initial_lookback_hours:g}"
        for address, since in agent.poller.find_first_reads().items():
            console.print(
                f"First read of {address}: what it received since {since:%Y-%m-%d %H:%M} UTC is handled, "
                f"what is older is left alone ({hours}).",
                highlight=False,
            )
        for address in agent.poller.find_paused():
            console.print(f"{address} is paused: its new mail waits, unread.", highlight=False)


def load_local_settings(environment: MutableMapping[str, str], path: Path = LOCAL_SETTINGS) -> None:
    """Take the values of local.settings.json where the environment has none, as `func start` does.

    This host delivers work items itself, so a Service Bus connection is taken out of the environment.
    Raises ConfigurationError when the file cannot be read.
    """
    if path.exists():
        warn_if_open(path)
        for name, value in read_values(path).items():
            environment.setdefault(name, value)
    for name in [name for name in environment if name.partition("__")[0] == "ServiceBusConnection"]:
        del environment[name]


def read_settings(command: str) -> Settings:
    """The settings of a command, from the environment and local.settings.json. Raises ConfigurationError."""
    load_local_settings(os.environ)
    return Settings.from_env(os.environ, NEEDS[command])


def check_reachable(settings: Settings) -> None:
    """Knock at both services, so that a wrong address shows before work is begun.

    Raises one ConfigurationError that names each host that is unknown or refuses the connection.
    Where a proxy is in between, only the services' own clients can tell.
    """
    problems = []
    for name, url in (
        ("MULTIMAIL_API_URL", settings.multimail_api_url),
        ("MODEL_ENDPOINT", settings.model_endpoint),
    ):
        parts = urlsplit(url)
        if requests.utils.get_environ_proxies(url):
            continue
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
            socket.create_connection((parts.hostname or "", port), timeout=KNOCK_SECONDS).close()
        except TimeoutError:
            continue  # slow is not wrong
        except socket.gaierror:
            problems.append(
                f"{name}: the host name in {url} is unknown: "
                "correct the address, or check the network or HTTPS_PROXY."
            )
        except OSError as error:
            problems.append(
                f"{name}: nothing answers at {url} ({type(error).__name__}): "
                "correct the address, or start the service and run again."
            )
    if problems:
        raise ConfigurationError(problems)


def report_misconfigured(console: Console, error: ConfigurationError, emails: str = "") -> int:
    """Print every problem on a line of its own; return the exit status that says so.

    `emails`: a sentence on what became of those that are to be processed.
    """
    console.print(
        " ".join(filter(None, ("Configuration errors.", emails, "Fix these and run again:"))),
        style="bold red",
    )
    for problem in error.problems:
        console.print(Text(f"  - {problem}"))
    return MISCONFIGURED


def report_failure(console: Console, attempted: str, error: AgentError) -> int:
    """Print what failed for now; return the exit status that says so."""
    console.print(Text(f"{attempted} failed: {str(error).rstrip('.')}. Try again later.", "red"))
    return UNFINISHED


def report_trail(console: Console, trail: AuditTrail, status: int) -> int:
    """Say what the audit trail lacks of an operator's command; return its exit status."""
    if not trail.waiting:
        return status
    console.print(
        Text(
            f"Records of the audit trail that could not be written, and are lost: {trail.waiting}. What this "
            "command did is done; the log says why they are not written.",
            "red",
        )
    )
    return UNFINISHED


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; a second Ctrl-C interrupts at once."""
    stop = threading.Event()

    def on_signal(number: int, _frame: object) -> None:
        stop.set()
        signal.signal(number, signal.default_int_handler)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class LocalRun:
    """One run of the app's functions on this machine, and what it came to."""

    def __init__(
        self, agent: Agent, settings: Settings, console: Console, watch: EventWatch, stop: threading.Event
    ) -> None:
        if not isinstance(agent.work_queue, InProcessWorkQueue):
            raise TypeError("the agent has another work queue, which this host does not read")
        logging.getLogger("local.host.host").setLevel(
            logging.CRITICAL
        )  # failures are reported by `_on_failure`
        self._agent = agent
        self._observes = settings.observe_only
        self._console = console
        self._watch = watch
        self._stop = stop
        self._problems: dict[str, None] = {}  # of a wrong configuration that ends the run, each once
        self._until_idle = False
        self._host = Host(
            function_app.app,
            app_settings={
                "POLL_SCHEDULE": settings.poll_schedule,
                "TRACK_SCHEDULE": settings.track_schedule,
                "WORK_QUEUE_NAME": settings.work_queue_name,
            },
            queues={settings.work_queue_name: agent.work_queue.bodies},
            host_json=json.loads(HOST_JSON.read_text(encoding="utf-8")),
            clock=SteadyClock(lambda: datetime.now(UTC), time.monotonic),
            on_failure=self._on_failure,
            on_drain=self._on_drain,
        )

    def run(self, *, until_idle: bool) -> int:
        """Run until stopped or idle; report; return the exit status. Raises ConfigurationError."""
        self._until_idle = until_idle
        try:
            is_idle = self._work()
        finally:
            if self._stop.is_set():  # what the operator stopped did not crash
                self._agent.ledger.release()
        if self._problems:
            raise ConfigurationError([*self._problems])
        return self._report(is_idle=is_idle)

    def _work(self) -> bool:
        """Work until stopped or idle; say whether nothing is left to do."""
        if not self._until_idle:
            self._host.run_until(self._stop)
            return True
        return self._host.run_until_idle(
            stop=self._stop,
            next_work_at=self._next_work_at,
            progress=lambda: self._watch.finished,
            patience_seconds=PATIENCE_SECONDS,
        )

    @contextmanager
    def served_http(self) -> Iterator[tuple[str, str]]:
        """Serve the HTTP functions; what is handed out is their address and the key that lets in."""
        key = build_function_key()
        with build_server(build_http_app(self._host, key), HTTP_PORT) as server:
            yield server.url, key

    def tell_http(self, url: str, key: str) -> None:
        """Print where the HTTP functions are served, and the key."""
        names = ", ".join(function.route for function in self._host.http_functions)
        self._console.print(f"HTTP functions: {url}/api/ ({names})", highlight=False)
        self._console.print("For the review desk:", highlight=False)
        for name, value in (("AGENT_URL", url), ("AGENT_KEY", key)):
            self._console.print(f"{name}={value}", highlight=False, soft_wrap=True)
        if self._observes:
            page = f"{url}/api/report?of=observed&days=7&code={key}"
            self._console.print(f"What it would have done: {page}", highlight=False)

    def _on_failure(self, function_name: str, error: BaseException) -> None:
        """A wrong configuration ends a run that is to end by itself, and one that never polled well."""
        if function_name == "poll_inboxes":
            self._watch.polled.clear()
        if isinstance(error, ConfigurationError) and (self._until_idle or not self._watch.ever_polled):
            self._problems |= dict.fromkeys(error.problems)  # printed at the end
            self._stop.set()
        elif str(error) not in self._watch.errors:  # many emails may meet the same
            self._watch.errors.add(str(error))
            self._console.print(Text(f"{function_name}: {type(error).__name__}: {error}", "red"))

    def _on_drain(self, running: Sequence[str]) -> None:
        """Say what a stopped run still waits for."""
        if not self._stop.is_set():
            return
        emails = running.count("process_email")
        if emails:
            what = f"{emails} {'email is' if emails == 1 else 'emails are'} being finished"
        else:
            what = "the poll is being finished" if running else "no email is being processed"
        self._console.print(f"Stopping: {what}. Press Ctrl-C again to stop at once.", highlight=False)

    def _next_work_at(self) -> datetime | None:
        if not self._watch.polled.is_set():
            return datetime.now(UTC) + timedelta(seconds=POLL_AGAIN_SECONDS)
        if self._watch.added:
            return datetime.now(UTC)  # idle is what a poll that finds nothing new leaves behind
        return self._agent.ledger.next_due_at(self._agent.poller.selected)

    def _report(self, *, is_idle: bool) -> int:
        outcomes = self._watch.outcomes
        if outcomes or self._until_idle:
            print_outcomes(self._console, outcomes)
        waiting = [] if is_idle else self._list_waiting()
        for entry in waiting[:SHOWN_WAITING]:
            reason = render_waiting(entry) or "its turn comes"
            self._console.print(
                Text(f"{entry.email_id} queued until {entry.due_at:%H:%M:%S} UTC: {reason}", "yellow")
            )
        if waiting:
            more = " and others" if len(waiting) > SHOWN_WAITING else ""
            self._console.print(f"The next run continues with these{more}.")
        if not self._watch.polled.is_set():
            self._console.print("Polling failed: see the error above.", style="red")
        needs_operator = any(outcomes[outcome] for outcome in NEEDS_OPERATOR)
        if needs_operator:
            self._console.print(
                "Some emails need you: the tag agent.reason on each says why, and `redrive` lists them.",
                style="red",
            )
        for_humans = waiting and all(entry.waiting_for is Cause.INBOUND_APPROVAL for entry in waiting)
        return OK if (is_idle or for_humans) and not needs_operator else UNFINISHED

    def _list_waiting(self) -> list[LedgerEntry]:
        ledger = self._agent.ledger
        works = islice(ledger.open_work(), SHOWN_WAITING + 1)
        return [entry for entry in (ledger.get(work.work_item) for work in works) if entry is not None]
