"""The services around a worker, on loopback: the demo's mail and model, a work queue, a collector of telemetry."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from local.commands.demo_customers import CONFIG
from local.commands.demo_mail import seed_demo
from local.host.http_server import LoopbackServer
from local.model.chat_simulator import ChatSimulator, Payload
from local.multimail.simulator import MultiMailSimulator
from local.people.channel import TARGET, DemoChannel
from local.testing.amqp_peer import AmqpPeer, running_amqp_peer
from shared.ledger.entries import LedgerEntry
from shared.ledger.sqlite_store import open_sqlite_ledger
from shared.notifying.delivery import name_variable
from tests.worker.collector import Collector, build_settings
from tests.worker.worker import PATIENCE_SECONDS, ROOT, Answer, Worker

CHAT_KEY = "simulated"
WEBHOOK_SECRET = "whsec_of_the_world"


@dataclass
class Stage:
    """What is simulated, and the settings that lead there."""

    folder: Path
    multimail: MultiMailSimulator
    settings: dict[str, str]
    webhook_secret: str = WEBHOOK_SECRET
    collector: Collector = field(default_factory=Collector)

    def list_entries(self) -> list[LedgerEntry]:
        """What the ledger of the agent, which may be running, has of every email."""
        ledger = open_sqlite_ledger(Path(self.settings["LEDGER_PATH"]), read_only=True)
        try:
            return [entry for box in self.multimail.mailboxes for entry in ledger.entries(box)]
        finally:
            ledger.close()

    def describe_outcomes(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """What became of each email, whatever its id and whenever it was."""
        found: dict[tuple[str, str], tuple[str, ...]] = {}
        for entry in self.list_entries():
            email = self.multimail.find_email(entry.email_id)
            assert email is not None
            draft = entry.draft.reply_markdown if entry.draft else ""
            category = entry.triage.category if entry.triage else ""
            found[email.sender, email.subject] = (str(entry.outcome), str(entry.cause), category, draft)
        return found


@contextmanager
def build_stage(folder: Path, respond: Callable[[Payload], str | Payload]) -> Iterator[Stage]:
    """Run the simulators, with the demo's mail in the mailboxes and a model that answers by `respond`."""
    multimail = MultiMailSimulator(lambda: datetime.now(UTC))
    seed_demo(multimail, datetime.now(UTC))
    chat = ChatSimulator(api_key=CHAT_KEY, shields=True, respond=respond)
    channel = DemoChannel(Console(quiet=True))
    with (
        LoopbackServer(multimail.app) as mail_server,
        LoopbackServer(chat.app) as chat_server,
        LoopbackServer(channel.app) as channel_server,
    ):
        yield Stage(
            folder,
            multimail,
            {
                "PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(ROOT),
                "HTTPS_PROXY": "http://127.0.0.1:1", "NO_PROXY": "127.0.0.1",
                "MULTIMAIL_API_URL": mail_server.url, "MULTIMAIL_API_KEY": multimail.add_key(("read", "send")),
                "MULTIMAIL_WEBHOOK_SECRET": WEBHOOK_SECRET, "MODEL_ENDPOINT": chat_server.url,
                "MODEL_API_KEY": CHAT_KEY, "TRIAGE_DEPLOYMENT": "small", "DRAFT_DEPLOYMENT": "large",
                "LEDGER_PATH": str(folder / "ledger.sqlite"), "CONFIG_PATH": str(CONFIG),
                "RETRY_BASE_SECONDS": "0.2", "RETRY_MAX_SECONDS": "1",
                name_variable(f"notify-{TARGET}"): channel_server.url,
            },
        )  # fmt: skip


class Run:
    """A worker on a stage, with what a host does for it: timers fire, and messages of the queue are delivered."""

    def __init__(self, stage: Stage, worker: Worker, peer: AmqpPeer) -> None:
        self.stage, self.worker, self._peer = stage, worker, peer
        self._delivered = 0
        self.answers: list[Answer] = []

    def work_until_idle(self, poll_traceparent: str, process_traceparent: str, rounds: int = 30) -> None:
        """Poll, and deliver every message at once, until nothing is open; keep the answers."""
        for _ in range(rounds):
            polled = self.worker.fire("poll_inboxes", poll_traceparent)
            assert polled.error is None, polled.error
            self.answers += [future.result(PATIENCE_SECONDS) for future in self._deliver(process_traceparent)]
            if all(entry.finished_at for entry in self.stage.list_entries()):
                return
        raise AssertionError(f"not idle after {rounds} rounds")

    def _deliver(self, traceparent: str) -> Sequence["Future[Answer]"]:
        messages = self._peer.reported("message")[self._delivered :]
        self._delivered += len(messages)
        return [self.worker.deliver(message["body"], traceparent) for message in messages]


def read_deployed_telemetry() -> dict[str, str]:
    """The app settings for the worker and its telemetry, as they are deployed."""
    snapshot = json.loads((ROOT / "tests" / "infra" / "plain.snapshot.json").read_text(encoding="utf-8"))
    (deployed,) = (r for r in snapshot["predictedResources"] if r["name"].endswith("/appsettings"))
    prefixes = ("PYTHON_", "OTEL_", "APPLICATIONINSIGHTS_")
    found = {name: value for name, value in deployed["properties"].items() if name.startswith(prefixes)}
    # Without a sign-in: the identity's token goes out over TLS only. Older workers know the other switch.
    del found["APPLICATIONINSIGHTS_AUTHENTICATION_STRING"]
    return found | {"PYTHON_ENABLE_OPENTELEMETRY": "true"}


@contextmanager
def run_worker(stage: Stage, command: Sequence[str], **settings: str) -> Iterator[Run]:
    """Run the app in a worker on that stage, with its telemetry exported to the stage's collector."""
    with ExitStack() as stack:
        peer = stack.enter_context(running_amqp_peer())
        url = stack.enter_context(LoopbackServer(stage.collector.app)).url
        queue = {"ServiceBusConnection": peer.connection_string.value}
        environment = {
            **stage.settings,
            **read_deployed_telemetry(),
            **build_settings(url),
            **queue,
            **settings,
        }
        worker = stack.enter_context(Worker(command, environment, stage.folder / "worker.err"))
        yield Run(stage, worker, peer)
