"""A small world for whole stories: real clients and ledger, a simulated MultiMail over HTTP, a scripted model."""

import json
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from local.host.http_server import LoopbackServer
from local.multimail.simulator import MultiMailSimulator
from shared.attachments.download import get_bounded
from shared.attachments.transfer import Download
from shared.composition import Adapters, Agent, assemble_agent
from shared.domain import Usage, WorkItem, parse_work_item
from shared.errors import ConfigurationError
from shared.knowledge.files import KnowledgeFiles
from shared.knowledge.lookup import LookUp
from shared.knowledge.lookups import Read
from shared.knowledge.passages import KnowledgeSource
from shared.ledger.entries import LedgerEntry
from shared.ledger.ledger import Ledger
from shared.ledger.sqlite_store import open_sqlite_ledger
from shared.mail.mailboxes import MailboxDirectory
from shared.mail.multimail import MultiMailClient
from shared.model.chat import ChatCompletion, ChatRequest, Conversation
from shared.notifying.delivery import Delivery
from shared.profiles.profiles import NO_PROFILES, Profiles
from shared.services.health import ServiceHealth
from shared.services.secrets import FindSecret, SecretSource, StaticSecret
from shared.services.work_queue import InProcessWorkQueue
from shared.settings import Secret, Settings

WEBHOOK_SECRET, AUDIT_KEY = "whsec_of_the_world", "audit-key-of-the-world"
START = datetime(2026, 3, 2, 12, tzinfo=UTC)
TRIAGE: dict[str, Any] = {
    "action": "reply", "category": "question", "urgency": "normal", "sentiment": "neutral",
    "confidence": 0.9, "summary": "A question.", "reason": "A person asks.",
    "query": "delivery time", "language": "en", "knowledge_answers": False, "needs_case_facts": False,
}  # fmt: skip
DRAFT: dict[str, Any] = {
    "reply_markdown": "Dear Ann,\n\nthank you, a colleague will follow up.\n\nSupport",
    "confidence": 0.9, "open_points": [],
}  # fmt: skip


def find_no_secret(name: str) -> SecretSource:
    """No secret of that name. See FindSecret."""
    raise ConfigurationError(f"{name} is not set: set it.")


def find_nothing(_look_up: LookUp, _url: str) -> None:
    """A look-up that finds nothing of any customer."""


NO_TARGETS = Delivery(dict[str, SecretSource]().__getitem__)  # nobody is notified


class Clock:
    """A clock that moves on request."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **duration: float) -> None:
        self.now += timedelta(**duration)


class InlineExecutor(Executor):
    """Runs each call at once, in the caller's thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Run `fn` now; its result or its error is what the future holds."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - the future raises it again
            future.set_exception(error)
        return future


class ScriptedModel:
    """Answers by what is asked for; `steps` holds answers or errors that come first, in order."""

    def __init__(self) -> None:
        self.triage: dict[str, Any] = dict(TRIAGE)
        self.draft: dict[str, Any] = dict(DRAFT)
        self.steps: list[str | Exception | ChatCompletion | Callable[[], None]] = []
        self.requests: list[ChatRequest] = []

    def complete(self, request: ChatRequest) -> ChatCompletion:
        self.requests.append(request)
        step = self.steps.pop(0) if self.steps else None
        if isinstance(step, Exception):
            raise step
        if isinstance(step, ChatCompletion):
            return step
        if callable(step):
            step()
        text = step if isinstance(step, str) else json.dumps(getattr(self, request.schema_name))
        return ChatCompletion(text, "stop", Usage(1, 100, 20), "scripted")

    def converse(self, _conversation: Conversation) -> ChatCompletion:
        raise AssertionError("handling an email needs no conversation")


def build_settings(tmp_path: Path, **changes: Any) -> Settings:
    settings = Settings.from_env(
        {
            "MULTIMAIL_API_URL": "http://127.0.0.1:1",
            "MULTIMAIL_API_KEY": "unused",
            "MODEL_ENDPOINT": "http://127.0.0.1:1",
            "MODEL_API_KEY": "unused",
            "TRIAGE_DEPLOYMENT": "small",
            "DRAFT_DEPLOYMENT": "large",
            "LEDGER_PATH": str(tmp_path / "ledger.sqlite"),
        }
    )
    return replace(settings, **changes)


def assemble(
    adapters: Adapters,
    settings: Settings,
    clock: Callable[[], datetime],
    profiles: Profiles = NO_PROFILES,
    executor: Executor | None = None,
) -> Agent:
    """The agent as it is in production, with nothing left to chance."""
    return assemble_agent(
        adapters, settings, profiles,
        clock=clock, random_share=lambda: 0.5, new_id=lambda: "question", executor=executor or InlineExecutor(),
    )  # fmt: skip


class World:
    """One gated mailbox `box` of Northwind's support and everything around it. A context manager."""

    def __init__(
        self,
        tmp_path: Path,
        ledger: Ledger | None = None,
        profiles: Profiles = NO_PROFILES,
        knowledge: KnowledgeSource | None = None,
        executor: Executor | None = None,
        *,
        look_up: Read = find_nothing,
        find_secret: FindSecret = find_no_secret,
        **settings: Any,
    ) -> None:
        self.profiles, self.executor = profiles, executor
        self.look_up, self.find_secret = look_up, find_secret
        self.knowledge = knowledge or KnowledgeFiles(tmp_path / "no knowledge")
        self.clock = Clock()
        self.settings = build_settings(tmp_path, **settings)
        self.simulator = MultiMailSimulator(self.clock)
        self.box = self.simulator.add_mailbox("support@northwind.example", "gated_send")
        self.key = self.simulator.add_key()
        self.model = ScriptedModel()
        self.health = ServiceHealth(self.clock)
        self.ledger = ledger or open_sqlite_ledger(self.settings.ledger_path, clock=self.clock)
        self.queue = InProcessWorkQueue()
        self.download: Download = get_bounded  # set it before the world is entered
        self.targets: dict[str, str] = {}  # the secrets of targets of notifications, by name
        self.delivery = Delivery(lambda name: StaticSecret(Secret(self.targets[name])), timeout=(2, 2))
        self._server = LoopbackServer(self.simulator.app)

    def __enter__(self) -> Self:
        self.url = self._server.start()
        client = MultiMailClient(
            self.url, StaticSecret(Secret(self.key)),
            timeout=(5, 5), clock=self.clock, watch=self.health.watch,
        )  # fmt: skip
        mailboxes = MailboxDirectory(client, monotonic=lambda: self.clock().timestamp())
        adapters = Adapters(
            multimail=client, writer=client, mailboxes=mailboxes, complete=self._complete,
            converse=self.model.converse, health=self.health, ledger=self.ledger, work_queue=self.queue, knowledge=self.knowledge,
            audit_key=StaticSecret(Secret(AUDIT_KEY)), signing_secret=StaticSecret(Secret(WEBHOOK_SECRET)), delivery=self.delivery,
            download=self.download,
            look_up=self.look_up,
            find_secret=self.find_secret,
        )  # fmt: skip
        self.multimail = client
        self.agent = assemble(adapters, self.settings, self.clock, self.profiles, self.executor)
        self.poller, self.pipeline, self.tracker = self.agent.poller, self.agent.pipeline, self.agent.tracker
        self.webhooks = self.agent.webhooks
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def _complete(self, request: ChatRequest) -> ChatCompletion:
        with self.health.watch(f"model {request.deployment}"):
            return self.model.complete(request)

    def deliver(self, markdown: str = "How long does delivery take?", **fields: Any) -> str:
        sender = fields.pop("sender", "Ann Lee <ann@customer.example>")
        subject = fields.pop("subject", "Delivery time")
        return self.simulator.deliver(fields.pop("box", self.box), sender, subject, markdown, **fields)

    def work(self) -> None:
        """Deliver every work item that is in the queue now."""
        while not self.queue.bodies.empty():
            self.pipeline.process(parse_work_item(self.queue.bodies.get()))

    def poll_and_work(self) -> None:
        self.poller.poll()
        self.work()

    def run_until_idle(self, rounds: int = 60) -> None:
        """Poll and work until nothing is open, jumping over the waiting times."""
        for _ in range(rounds):
            self.poll_and_work()
            due_at = self.ledger.next_due_at()
            if due_at is None:
                return
            self.clock.now = max(self.clock.now, due_at)
        raise AssertionError(f"still open after {rounds} rounds: {list(self.ledger.entries(self.box))}")

    def entry(self, email_id: str) -> LedgerEntry:
        found = self.ledger.get(WorkItem(self.box, email_id)) or next(
            (
                e
                for box in self.simulator.mailboxes
                for e in self.ledger.entries(box)
                if e.email_id == email_id
            ),
            None,
        )
        assert found is not None
        return found

    def tags(self, email_id: str) -> dict[str, str]:
        email = self.simulator.find_email(email_id)
        assert email is not None
        return dict(email.tags)

    def outcome(self, email_id: str) -> str:
        """The outcome in the ledger, which the tag on the email must repeat."""
        entry = self.entry(email_id)
        assert entry.finished_at is not None
        assert self.tags(email_id).get("agent.outcome") == str(entry.outcome)
        return str(entry.outcome)

    def posts(self) -> list[Any]:
        return [r.body for r in self.simulator.requests if r.method == "POST" and "/reply/" in r.path]
