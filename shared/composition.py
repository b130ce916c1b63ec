"""The composition root: builds the agent from its settings, once per process."""

import logging
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from shared.chat import ChatModel
from shared.chat_azure_inference import build_azure_inference_model
from shared.chat_openai import build_openai_model
from shared.credentials import build_credential
from shared.domain import parse_work_item
from shared.errors import AgentError, PermanentError
from shared.ledger import Ledger
from shared.ledger_sqlite import SqliteLedger
from shared.mailboxes import MailboxDirectory
from shared.multimail import MultiMailClient, SecretSource
from shared.pipeline import Pipeline
from shared.polling import Poller
from shared.replies import ReplyTracker
from shared.secret_source import KeyVaultSecret, StaticSecret
from shared.settings import Settings
from shared.trust import TrustReport, build_report
from shared.work_queue import InProcessWorkQueue, WorkQueue
from shared.work_queue_servicebus import build_service_bus_work_queue

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

HEALTH_SECONDS = 15.0
# The SDKs log every request; the worker's root logger would let it through, and every line is paid for.
CHATTY_LOGGERS = ("azure.core", "azure.identity", "azure.servicebus", "httpx2", "urllib3")

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Agent:
    """Everything the triggers call."""

    poller: Poller
    pipeline: Pipeline
    tracker: ReplyTracker
    ledger: Ledger
    work_queue: WorkQueue

    def poll(self) -> None:
        """Find new email and ring for due work. Raises ConfigurationError and TransientError."""
        self.poller.poll()

    def process(self, body: bytes) -> None:
        """Work on the email that a queue message names.

        A malformed message is logged and dropped: it holds nothing that the ledger does not ring for again.
        """
        try:
            item = parse_work_item(body)
        except PermanentError as error:
            log.error("a queue message was dropped: %s", error)  # noqa: TRY400  # the message says it all
            return
        self.pipeline.process(item)

    def track(self) -> None:
        """See what became of the submitted replies. Raises ConfigurationError and TransientError."""
        self.tracker.track()

    def report(self, days: int) -> TrustReport:
        """Judge the drafts of the last `days`. Reads history: for people. Raises what tracking raises."""
        mailboxes, now = self.pipeline.mailboxes.read().values(), self.pipeline.clock()
        return build_report(mailboxes, self.ledger.entries, now=now, days=days)


def build_agent(
    settings: Settings,
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    random_share: Callable[[], float] = random.random,
) -> Agent:
    """Build the agent. Heavy SDKs are imported here only where the settings ask for them, the chat SDK at
    the first completion. Raises ConfigurationError when a part cannot work as configured.
    """
    for name in CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    credential = _once(lambda: build_credential(settings))
    chat_model = _once(lambda: _build_chat_model(settings, credential))
    multimail = MultiMailClient(settings.multimail_api_url, _build_key_source(settings, credential))
    mailboxes = MailboxDirectory(multimail)
    ledger = _build_ledger(settings, credential)
    work_queue = _build_work_queue(settings, credential)
    poller = Poller(
        multimail=multimail,
        mailboxes=mailboxes,
        ledger=ledger,
        work_queue=work_queue,
        settings=settings,
        clock=clock,
    )
    pipeline = Pipeline(
        multimail=multimail,
        mailboxes=mailboxes,
        complete=lambda request: chat_model().complete(request),
        ledger=ledger,
        settings=settings,
        clock=clock,
        random=random_share,
    )
    tracker = ReplyTracker(multimail=multimail, ledger=ledger, clock=clock)
    return Agent(poller, pipeline, tracker, ledger, work_queue)


def open_ledger(settings: Settings, *, read_only: bool = False) -> tuple[MultiMailClient, Ledger]:
    """Open the ledger for an operator's command, with the client that knows the mailboxes.

    With `read_only` a ledger in a file is opened beside an agent that works with it.
    """
    credential = _once(lambda: build_credential(settings))
    multimail = MultiMailClient(settings.multimail_api_url, _build_key_source(settings, credential))
    return multimail, _build_ledger(settings, credential, read_only=read_only)


def _build_key_source(settings: Settings, credential: "Callable[[], TokenCredential]") -> SecretSource:
    if settings.multimail_api_key is not None:
        return StaticSecret(settings.multimail_api_key)
    return KeyVaultSecret(settings.key_vault_url or "", settings.multimail_api_key_secret, credential())


def _build_ledger(
    settings: Settings, credential: "Callable[[], TokenCredential]", *, read_only: bool = False
) -> Ledger:
    if settings.ledger_table_endpoint is None:
        return SqliteLedger(settings.ledger_path, read_only=read_only)
    # Imported here because the SDK is of no use to a ledger in a file.
    from shared.ledger_tables import build_tables_ledger  # noqa: PLC0415

    return build_tables_ledger(settings.ledger_table_endpoint, credential())


def _build_work_queue(settings: Settings, credential: "Callable[[], TokenCredential]") -> WorkQueue:
    connection_string = settings.service_bus_connection_string
    if settings.service_bus_namespace is None and connection_string is None:
        return InProcessWorkQueue()
    return build_service_bus_work_queue(
        namespace=settings.service_bus_namespace,
        credential=credential() if connection_string is None else None,
        connection_string=connection_string,
        queue_name=settings.work_queue_name,
    )


def _build_chat_model(settings: Settings, credential: "Callable[[], TokenCredential]") -> ChatModel:
    build = build_openai_model if settings.model_sdk == "openai" else build_azure_inference_model
    key = settings.model_api_key
    return build(settings.model_endpoint, key, credential() if key is None else None)


def _once(build: Callable[[], T]) -> Callable[[], T]:
    """Build at the first call, under a lock, and hand out the same thing ever after."""
    lock = threading.Lock()
    built: list[T] = []

    def get() -> T:
        with lock:
            if not built:
                built.append(build())
            return built[0]

    return get


get_agent: Callable[[], Agent] = _once(lambda: build_agent(Settings.from_env(os.environ)))


class _Health:
    """Whether the agent could work, asked at most every `HEALTH_SECONDS`: a flood must cost nothing."""

    def __init__(self) -> None:
        self._asked_at = float("-inf")
        self._answer = False

    def __call__(self) -> bool:
        if time.monotonic() - self._asked_at >= HEALTH_SECONDS:
            self._asked_at = time.monotonic()
            self._answer = self._ask()
        return self._answer

    def _ask(self) -> bool:
        try:
            get_agent().ledger.get_watermark("health")
        except AgentError:
            log.exception("the health check failed")
            return False
        return True


is_healthy: Callable[[], bool] = _Health()
