"""The composition root: builds the agent from its settings, once per process."""

import functools
import logging
import os
import random
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from shared.attachments.download import get_bounded
from shared.attachments.reading import AttachmentReader
from shared.attachments.transfer import Download
from shared.domain import parse_work_item
from shared.errors import ConfigurationError, PermanentError
from shared.knowledge.files import KnowledgeFiles, list_folders
from shared.knowledge.lookup import DEFAULT_SCOPE
from shared.knowledge.lookup_http import LookUpReader
from shared.knowledge.lookups import LookUps, Read
from shared.knowledge.meaning import VECTOR_FILE, MeaningIndex, VectorFile
from shared.knowledge.passages import KnowledgeSource
from shared.ledger.audit_trail import AuditTrail
from shared.ledger.ledger import Ledger
from shared.ledger.sqlite_store import open_sqlite_ledger
from shared.mail.mailboxes import MailboxDirectory
from shared.mail.multimail import MultiMailClient, MultiMailReader
from shared.model.chat import ChatCompletion, ChatModel, ChatRequest, Conversation
from shared.model.chat_telemetry import traced
from shared.model.embeddings import EmbeddingModel
from shared.notifying.delivery import Delivery, name_variable
from shared.notifying.notifier import Notifier
from shared.operator.asking import Answer, Asking, Question
from shared.operator.observed import ObservedReport, build_observed
from shared.operator.review import Reviews
from shared.operator.trust import TrustReport, build_report
from shared.profiles.pauses import Pauses
from shared.profiles.profiles import Profiles
from shared.replying.envelope import Addressing
from shared.replying.pipeline import Pipeline
from shared.replying.submission import Submitter
from shared.services.health import ServiceHealth, Watch
from shared.services.secrets import FindSecret, SecretFile, SecretSource, StaticSecret
from shared.services.work_queue import InProcessWorkQueue, WorkQueue
from shared.settings import (
    OBSERVED,
    Settings,
    find_config_path,
    is_observing,
    is_set,
    read_named_secrets,
)
from shared.telemetry import quieten_sdks, span
from shared.watching.answers import AnswerWatch
from shared.watching.polling import Poller
from shared.watching.retention import Retention
from shared.watching.tracking import ReplyTracker
from shared.watching.webhooks import SignatureCheck, WebhookReceiver

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

    from shared.services.credentials import TokenSource

READERS = 32  # threads for reads that run in parallel; each is busy for one short call
AUDIT_KEY_FILE = "audit.key"  # in the folder of the ledger
KNOWLEDGE_FOLDER = "knowledge"  # in the folder of the configuration

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Agent:
    """Everything the triggers call, with the trace that the platform began for the invocation."""

    poller: Poller
    pipeline: Pipeline
    tracker: ReplyTracker
    answers: AnswerWatch
    retention: Retention
    webhooks: WebhookReceiver
    asking: Asking
    reviews: Reviews
    notifier: Notifier
    ledger: Ledger
    trail: AuditTrail
    work_queue: WorkQueue

    def poll(self, traceparent: str = "") -> None:
        """Find new email and enqueue due work. Raises ConfigurationError and TransientError."""
        with span("poll", parent=traceparent):
            self.poller.poll()

    def process(self, body: bytes, traceparent: str = "") -> None:
        """Work on the email that a queue message names.

        A malformed message is logged and dropped: the ledger enqueues again whatever it named.
        """
        try:
            item = parse_work_item(body)
        except PermanentError as error:
            log.error("a queue message was dropped: %s", error)  # noqa: TRY400  # the message says it all
            return
        with span("process", parent=traceparent):
            self.pipeline.process(item)

    def track(self, traceparent: str = "") -> None:
        """See what became of the replies and what people have seen to, then erase what is kept no longer.

        Raises ConfigurationError and TransientError.
        """
        with span("track", parent=traceparent), ExitStack() as afterwards:  # whatever fails before
            afterwards.callback(self.trail.note_anchor)
            afterwards.callback(self.retention.run)
            afterwards.callback(self.answers.run)
            self.tracker.track()

    def notify(self, traceparent: str = "") -> None:
        """Tell people what waits for them, in a run of its own: no email waits for it.

        Raises ConfigurationError and TransientError.
        """
        with span("notify people", parent=traceparent):
            self.notifier.run()

    def ask(self, question: Question) -> Answer:
        """Answer an operator's question. Raises what `Asking.answer` raises."""
        with span("ask"):
            return self.asking.answer(question)

    def report(self, days: int) -> TrustReport:
        """Judge the drafts of the last `days`. Reads history: for people. Raises what tracking raises."""
        mailboxes, now = self.pipeline.mailboxes.read().values(), self.pipeline.clock()
        return build_report(mailboxes, self.ledger.entries, now=now, days=days)

    def show_observed(self, days: int) -> ObservedReport:
        """What the agent would have done with the mail of the last `days` that it only observed. For people.

        Raises what MultiMail's client and the ledger raise.
        """
        pipeline, settings = self.pipeline, self.pipeline.settings
        deployments = {settings.triage_deployment, settings.draft_deployment}
        return build_observed(
            pipeline.mailboxes.read().values(),
            self.ledger.entries,
            pipeline.multimail.list_emails,
            observes=lambda mailbox: pipeline.profiles.get(mailbox).observe,
            is_priced=deployments <= settings.token_prices.keys(),
            now=pipeline.clock(),
            days=days,
        )


@dataclass(frozen=True, slots=True)
class Adapters:
    """Everything outside, as the agent reaches it.

    `writer` is None where the agent only observes, `signing_secret` where webhooks are off.
    """

    multimail: MultiMailReader
    writer: MultiMailClient | None
    mailboxes: MailboxDirectory
    complete: Callable[[ChatRequest], ChatCompletion]
    converse: Callable[[Conversation], ChatCompletion]
    ledger: Ledger
    audit_key: SecretSource
    work_queue: WorkQueue
    knowledge: KnowledgeSource
    look_up: Read
    find_secret: FindSecret
    signing_secret: SecretSource | None
    health: ServiceHealth
    delivery: Delivery
    download: Download = get_bounded


def build_agent(
    settings: Settings,
    *,
    ledger: Ledger | None = None,
    work_queue: WorkQueue | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    random_share: Callable[[], float] = random.random,
    new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
) -> Agent:
    """Build the agent with the adapters that the settings ask for; `ledger` and `work_queue` replace theirs.

    Heavy SDKs are imported only where the settings ask for them, the chat SDK at the first completion.
    Raises ConfigurationError when a part cannot work as configured.
    """
    quieten_sdks()
    credential = _once(lambda: _build_credential(settings))
    chat_model = _once(lambda: _build_chat_model(settings, credential))
    health, model = ServiceHealth(clock), settings.model_endpoint
    key_source = _build_key_source(settings, credential)
    url, writer = settings.multimail_api_url, None
    if not settings.observe_only:
        writer = MultiMailClient(url, key_source, watch=health.watch)
    multimail = writer or MultiMailReader(url, key_source, watch=health.watch)
    profiles, find_secret = _load_profiles(settings), _build_named_secrets(settings, credential)
    adapters = Adapters(
        multimail=multimail,
        writer=writer,
        mailboxes=MailboxDirectory(multimail),
        complete=traced(
            lambda request: chat_model().complete(request), model, settings.token_prices, health.watch
        ),
        converse=traced(
            lambda asked: chat_model().converse(asked), model, settings.token_prices, health.watch
        ),
        work_queue=work_queue or _build_work_queue(settings, credential),
        knowledge=_build_knowledge(settings, credential, health.watch, clock),
        signing_secret=_find_signing_secret(settings, credential),
        audit_key=_build_audit_key(
            settings, credential, may_create=lambda: not adapters.ledger.audit.find_heads()
        ),
        health=health,
        look_up=_build_look_up(settings, credential, find_secret, health.watch),
        find_secret=find_secret,
        delivery=Delivery(find_secret),
        # Last: a ledger in a file is locked from here on, and no wrong setting may leave it so.
        ledger=ledger or _build_ledger(settings, credential, clock),
    )
    return assemble_agent(
        adapters, settings, profiles,
        clock=clock, random_share=random_share, new_id=new_id, executor=ThreadPoolExecutor(READERS),
    )  # fmt: skip


def assemble_agent(
    adapters: Adapters,
    settings: Settings,
    profiles: Profiles,
    *,
    clock: Callable[[], datetime],
    random_share: Callable[[], float],
    new_id: Callable[[], str],
    executor: Executor,
) -> Agent:
    """Put the agent together from its adapters."""
    multimail, mailboxes, ledger = adapters.multimail, adapters.mailboxes, adapters.ledger
    writer = adapters.writer
    if writer is None:
        profiles = profiles.observing()
    pauses = Pauses(ledger, profiles, all_paused=settings.pause_all)
    poller = Poller(
        multimail=multimail, mailboxes=mailboxes, ledger=ledger, work_queue=adapters.work_queue,
        settings=settings, clock=clock, profiles=profiles, pauses=pauses, find_secret=adapters.find_secret,
    )  # fmt: skip
    submitter = Submitter(multimail, writer, mailboxes, executor, clock, settings.allow_ungated_replies)
    pipeline = Pipeline(
        multimail=multimail, mailboxes=mailboxes, complete=adapters.complete, ledger=ledger,
        settings=settings, clock=clock, random=random_share,
        profiles=profiles, knowledge=adapters.knowledge, submitter=submitter, addressing=Addressing(ledger),
        health=adapters.health, pauses=pauses,
        lookups=LookUps(adapters.look_up, executor, clock, adapters.health),
        attachments=AttachmentReader(multimail, adapters.download),
    )  # fmt: skip
    tracker = ReplyTracker(
        multimail=multimail, writer=writer, mailboxes=mailboxes, ledger=ledger, clock=clock
    )
    webhooks = WebhookReceiver(
        signatures=SignatureCheck(adapters.signing_secret), mailboxes=mailboxes, poller=poller,
        tracker=tracker, settings=settings, clock=clock,
    )  # fmt: skip
    asking = Asking(
        multimail=multimail, mailboxes=mailboxes, converse=adapters.converse, ledger=ledger,
        settings=settings, clock=clock, new_id=new_id, submitter=submitter,
    )  # fmt: skip
    retention = Retention(ledger, settings.retention_days, clock)
    reviews = Reviews(ledger, mailboxes, writer, profiles, tracker, pauses, clock)
    answers = AnswerWatch(multimail, mailboxes, ledger, settings.retention_days, clock)
    notifier = Notifier(
        multimail, mailboxes, ledger, profiles, adapters.delivery, clock, settings.multimail_mailbox_ids
    )
    return Agent(
        poller,
        pipeline,
        tracker,
        answers,
        retention,
        webhooks,
        asking,
        reviews,
        notifier,
        ledger,
        AuditTrail(ledger.audit, adapters.audit_key),
        adapters.work_queue,
    )


def open_multimail(settings: Settings) -> MultiMailReader:
    """Build the client for an operator's command that needs no more than mail."""
    credential = _once(lambda: _build_credential(settings))
    return MultiMailReader(settings.multimail_api_url, _build_key_source(settings, credential))


def open_writer(settings: Settings) -> MultiMailClient | None:
    """Build the client for an operator's command that writes; None where the agent only observes."""
    if settings.observe_only:
        return None
    credential = _once(lambda: _build_credential(settings))
    return MultiMailClient(settings.multimail_api_url, _build_key_source(settings, credential))


def open_delivery(settings: Settings) -> tuple[Profiles, Delivery]:
    """Build what sends notifications for an operator's command, with the profiles that name its targets."""
    credential = _once(lambda: _build_credential(settings))
    return _load_profiles(settings), Delivery(_build_named_secrets(settings, credential))


def open_knowledge(
    settings: Settings, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> tuple[Profiles, KnowledgeSource]:
    """Open the knowledge for an operator's command, with the profiles that name its folders."""
    credential = _once(lambda: _build_credential(settings))
    return _load_profiles(settings), _build_knowledge(settings, credential, nullcontext, clock)


def open_lookups(settings: Settings) -> tuple[Profiles, Read]:
    """Build what reads look-ups' answers for an operator's command, with the profiles that name them."""
    credential = _once(lambda: _build_credential(settings))
    find_secret = _build_named_secrets(settings, credential)
    return _load_profiles(settings), _build_look_up(settings, credential, find_secret, nullcontext)


def open_model(settings: Settings) -> Callable[[ChatRequest], ChatCompletion]:
    """Build the chat model for an operator's command."""
    credential = _once(lambda: _build_credential(settings))
    model = _once(lambda: _build_chat_model(settings, credential))
    return traced(lambda request: model().complete(request), settings.model_endpoint, settings.token_prices)


def open_ledger(settings: Settings, *, read_only: bool = False) -> Ledger:
    """Open the ledger for an operator's command.

    With `read_only` a ledger in a file is opened while an agent works with it.
    """
    credential = _once(lambda: _build_credential(settings))
    return _build_ledger(settings, credential, read_only=read_only)


def open_trail(settings: Settings, ledger: Ledger) -> AuditTrail:
    """Build what writes the audit trail of an operator's command, as a context.

    For a trail in tables it creates no key: the one on this machine would not be the agent's.
    """
    is_local, credential = settings.ledger_table_endpoint is None, _once(lambda: _build_credential(settings))
    key = _build_audit_key(
        settings, credential, may_create=lambda: is_local and not ledger.audit.find_heads()
    )
    return AuditTrail(ledger.audit, key)


def open_audit_key(settings: Settings) -> SecretSource:
    """Find the key of the audit trail for an operator's command that writes none; it is never created."""
    credential = _once(lambda: _build_credential(settings))
    return _build_audit_key(settings, credential, may_create=lambda: False)


def _build_credential(settings: Settings) -> "TokenCredential":
    from shared.services.credentials import build_credential  # noqa: PLC0415 - its SDK, of no use with keys alone

    return build_credential(settings)


def _build_key_source(settings: Settings, credential: "Callable[[], TokenCredential]") -> SecretSource:
    if settings.multimail_api_key is not None:
        return StaticSecret(settings.multimail_api_key)
    from shared.services.key_vault import KeyVaultSecret  # noqa: PLC0415 - its SDK, only where the key is in a vault

    return KeyVaultSecret(settings.key_vault_url or "", settings.multimail_api_key_secret_name, credential())


def _build_audit_key(
    settings: Settings, credential: "Callable[[], TokenCredential]", *, may_create: Callable[[], bool]
) -> SecretSource:
    """Where the key of the audit trail is. It is asked for at the first decision.

    One in a file may be created only before the trail has a record: another key bears out none of them.
    """
    if settings.audit_key_file is not None or settings.key_vault_url is None:
        path = settings.audit_key_file or settings.ledger_path.parent / AUDIT_KEY_FILE
        return SecretFile(path, "AUDIT_KEY_FILE", may_create=may_create)
    from shared.services.key_vault import KeyVaultSecret  # noqa: PLC0415 - its SDK, only where there is a vault

    return KeyVaultSecret(
        settings.key_vault_url,
        settings.audit_key_secret_name,
        credential(),
        setting="AUDIT_KEY_SECRET_NAME",
        content="key of the audit trail",
    )


def _find_signing_secret(
    settings: Settings, credential: "Callable[[], TokenCredential]"
) -> SecretSource | None:
    """Where the signing secret may be. It is asked for at the first signed request: most have none."""
    if settings.multimail_webhook_secret is not None:
        return StaticSecret(settings.multimail_webhook_secret)
    if settings.key_vault_url is None:
        log.info("webhooks are off: set MULTIMAIL_WEBHOOK_SECRET to the signing secret to receive them")
        return None
    name = settings.multimail_webhook_secret_name
    log.info("webhooks are received once the vault has the secret %s (MULTIMAIL_WEBHOOK_SECRET_NAME)", name)
    from shared.services.key_vault import KeyVaultSecret  # noqa: PLC0415 - its SDK, only where there is a vault

    return KeyVaultSecret(
        settings.key_vault_url,
        name,
        credential(),
        setting="MULTIMAIL_WEBHOOK_SECRET_NAME",
        content="webhook's signing secret",
    )


def _build_named_secrets(settings: Settings, credential: "Callable[[], TokenCredential]") -> FindSecret:
    """Where the secrets are that profiles name: in the environment, or in the vault."""

    @functools.cache
    def find(name: str) -> SecretSource:
        variable = name_variable(name)
        known = settings.named_secrets.get(variable)
        if known is not None:
            return StaticSecret(known)
        if settings.key_vault_url is None:
            raise ConfigurationError(_explain_unset(name))
        from shared.services.key_vault import KeyVaultSecret  # noqa: PLC0415 - its SDK, only where there is a vault

        content = "secret of the target or look-up"
        return KeyVaultSecret(settings.key_vault_url, name, credential(), setting=variable, content=content)

    return find


def _explain_unset(name: str) -> str:
    return (
        f"{name_variable(name)} is not set: a profile names this secret, of a target (notify) or a look-up "
        f"(lookups), so set the variable, or set KEY_VAULT_URL to a vault that holds it as {name}."
    )


def _build_look_up(
    settings: Settings,
    credential: "Callable[[], TokenCredential]",
    find_secret: FindSecret,
    watch: Watch,
) -> Read:
    """What reads the answers of look-ups; it signs in with the secrets and audiences that they name."""

    @functools.cache
    def find_tokens(audience: str) -> "TokenSource":
        from shared.services.credentials import TokenSource  # noqa: PLC0415 - its SDK, only where it signs in

        return TokenSource(
            credential(), f"{audience}{DEFAULT_SCOPE}", f"the audience {audience} of a look-up"
        )

    return LookUpReader(
        settings.config_path, find_secret, lambda audience: find_tokens(audience).get_bearer(), watch
    ).read


def _build_ledger(
    settings: Settings,
    credential: "Callable[[], TokenCredential]",
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    *,
    read_only: bool = False,
) -> Ledger:
    if settings.ledger_table_endpoint is None:
        return open_sqlite_ledger(settings.ledger_path, read_only=read_only, clock=clock)
    from shared.ledger.table_store import TABLE, build_table_ledger  # noqa: PLC0415 - its SDK, of no use to a file

    table = OBSERVED if settings.observe_only else TABLE
    return build_table_ledger(settings.ledger_table_endpoint, credential(), table)


def _build_work_queue(settings: Settings, credential: "Callable[[], TokenCredential]") -> WorkQueue:
    connection_string = settings.service_bus_connection_string
    if settings.service_bus_namespace is None and connection_string is None:
        return InProcessWorkQueue()
    from shared.services.service_bus import (  # noqa: PLC0415 - its SDK, only where there is a namespace
        build_service_bus_work_queue,
    )

    return build_service_bus_work_queue(
        namespace=settings.service_bus_namespace,
        credential=credential() if connection_string is None else None,
        connection_string=connection_string,
        queue_name=settings.work_queue_name,
    )


def open_profiles(config_path: Path, *, has_search: bool) -> Profiles:
    """Read the profiles; with a search service, only it knows the folders that they name.

    Raises ConfigurationError.
    """
    from shared.profiles.profile_file import load_profiles  # noqa: PLC0415 - the YAML parser, for who builds an agent

    return load_profiles(config_path, None if has_search else list_folders(config_path / KNOWLEDGE_FOLDER))


def find_unset_secrets(environment: Mapping[str, str]) -> Sequence[str]:
    """A sentence for each secret of a look-up that is not set, where no vault can hold it.

    It needs no other setting. Raises ConfigurationError for what is wrong in the profiles.
    """
    known = read_named_secrets(environment)
    has_search = is_set(environment, "SEARCH_ENDPOINT")
    named = open_profiles(find_config_path(environment), has_search=has_search).lookup_secrets
    if is_observing(environment) or is_set(environment, "KEY_VAULT_URL"):
        return ()  # no look-up runs; or each poll asks the vault
    unset = ((where, name) for name, where in named.items() if name_variable(name) not in known)
    return [f"{where}: {_explain_unset(name)}" for where, name in unset]


def _load_profiles(settings: Settings) -> Profiles:
    return open_profiles(settings.config_path, has_search=settings.search_endpoint is not None)


def _build_knowledge(
    settings: Settings,
    credential: "Callable[[], TokenCredential]",
    watch: Watch,
    clock: Callable[[], datetime],
) -> KnowledgeSource:
    if settings.search_endpoint is None:
        root, deployment = settings.config_path / KNOWLEDGE_FOLDER, settings.embedding_deployment
        if not deployment:
            return KnowledgeFiles(root)
        model = _once(lambda: _build_embedding_model(settings, credential))
        return KnowledgeFiles(root, MeaningIndex(model, VectorFile(root / VECTOR_FILE, deployment), clock))
    from shared.knowledge.azure_search import AzureSearchKnowledge  # noqa: PLC0415 - only where there is an index

    return AzureSearchKnowledge(
        settings.search_endpoint,
        settings.search_index,
        credential(),
        watch,
        vector_field=settings.search_vector_field,
    )


def _build_embedding_model(settings: Settings, credential: "Callable[[], TokenCredential]") -> EmbeddingModel:
    sign_in = settings.model_api_key or credential()
    if settings.model_sdk == "openai":
        from shared.model.openai_sdk import build_openai_embeddings as build  # noqa: PLC0415 - one SDK of the two
    else:
        from shared.model.azure_inference_sdk import (  # noqa: PLC0415 - one SDK of the two
            build_azure_inference_embeddings as build,
        )
    return build(settings.model_endpoint, sign_in, settings.embedding_deployment)


def _build_chat_model(settings: Settings, credential: "Callable[[], TokenCredential]") -> ChatModel:
    sign_in = settings.model_api_key or credential()
    if settings.model_sdk == "openai":
        from shared.model.openai_sdk import build_openai_model  # noqa: PLC0415 - one SDK of the two

        return build_openai_model(settings.model_endpoint, sign_in)
    from shared.model.azure_inference_sdk import (  # noqa: PLC0415 - one SDK of the two
        build_azure_inference_model,
    )

    return build_azure_inference_model(settings.model_endpoint, sign_in)


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


def _build_recorded_agent() -> Agent:
    """The process' agent, whose decisions are in the audit trail from now on."""
    agent = build_agent(Settings.from_env(os.environ))
    agent.trail.attach()
    return agent


get_agent: Callable[[], Agent] = _once(_build_recorded_agent)
