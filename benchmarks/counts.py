"""What one email and one poll cost in calls, tokens, transactions and bytes: counts that no machine changes."""

import json
import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from azure.core.credentials import AzureNamedKeyCredential
from azure.core.pipeline import PipelineResponse
from azure.data.tables import TableServiceClient

from benchmarks.figures import Figure, Part
from benchmarks.simulators import count_wire_tokens, name_route
from benchmarks.texts import QUESTION, answer_in_schema, build_subject
from benchmarks.tokens import count_tokens
from local.host.http_server import LoopbackServer
from local.model.chat_simulator import ChatSimulator
from local.model.prompt_cache import FIRST_TOKENS
from local.testing.azurite import ACCOUNT, KEY, Azurite, find_azurite
from local.testing.world import ScriptedModel, World
from shared.knowledge.passages import KnowledgeSource
from shared.ledger.ledger import Ledger
from shared.ledger.table_store import TABLE, TableStore
from shared.model.azure_inference_sdk import build_azure_inference_model
from shared.model.chat import ChatCompletion, ChatModel, ChatRequest
from shared.settings import Secret
from shared.telemetry import EVENT_LOGGER

LONG = "x" * 60_000
MAILBOXES = 10  # of the poll that shows what one mailbox more costs


@dataclass(slots=True)
class Counts:
    """What went over the wires since the last `take`."""

    model_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    multimail_calls: int = 0
    table_transactions: int = 0
    log_bytes: int = 0
    steps: Counter[str] = field(default_factory=Counter)
    routes: Counter[str] = field(default_factory=Counter)
    prompts: list[str] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


class TableCounter:
    """Counts what the Table SDK sends (a transaction of many rows is one) and the entities that come back."""

    def __init__(self) -> None:
        self.transactions = self.entities = 0

    def __call__(self, answer: "PipelineResponse[Any, Any]") -> None:
        """Take one answer; the SDK's `raw_response_hook`."""
        self.transactions += 1
        if answer.http_request.method != "GET" or answer.http_response.status_code != HTTPStatus.OK:
            return
        body = json.loads(answer.http_response.text())
        self.entities += len(body["value"]) if "value" in body else 1


class WireModel(ScriptedModel):
    """The agent's own chat adapter over HTTP, in the place of a scripted model."""

    def __init__(self, model: ChatModel) -> None:
        super().__init__()
        self._model = model

    def complete(self, request: ChatRequest) -> ChatCompletion:
        """Ask over HTTP."""
        self.requests.append(request)
        return self._model.complete(request)


class CountedWorld:
    """A world whose every call is counted: MultiMail, the model, the ledger in tables and the log."""

    def __init__(self, world: World, chat: ChatSimulator, counter: TableCounter | None) -> None:
        self.world = world
        self._chat = chat
        self._counter = counter
        self._log = _LogBytes()
        logging.getLogger(EVENT_LOGGER).addHandler(self._log)

    def close(self) -> None:
        logging.getLogger(EVENT_LOGGER).removeHandler(self._log)

    def take(self) -> Counts:
        """The counts since the last time, and start again."""
        counts = Counts(log_bytes=self._log.take())
        for call in self._chat.calls:
            answer = {"content": answer_in_schema(call.body)}
            used = count_wire_tokens(call.body, answer)
            counts.model_calls += 1
            counts.input_tokens += used[0]
            counts.output_tokens += used[1]
            step = call.body["response_format"]["json_schema"]["name"]
            counts.steps.update({f"{step} input tokens": used[0], f"{step} output tokens": used[1]})
            counts.prompts.append(build_prompt(call.body))
        self._chat.calls.clear()
        requests = self.world.simulator.requests
        counts.routes.update(name_route(request.method, request.path) for request in requests)
        counts.multimail_calls = len(requests)
        requests.clear()
        if self._counter is not None:
            counts.table_transactions = self._counter.transactions
            self._counter.transactions = self._counter.entities = 0
        return counts


class _LogBytes(logging.Handler):
    """The bytes of the event lines as a console shows them."""

    def __init__(self) -> None:
        super().__init__()
        self._bytes = 0

    def emit(self, record: logging.LogRecord) -> None:
        self._bytes += len(record.getMessage().encode()) + 1

    def take(self) -> int:
        taken, self._bytes = self._bytes, 0
        return taken


def build_prompt(body: dict[str, Any]) -> str:
    """A request's texts in the order in which the service reads them: schema, instructions, email."""
    texts = (str(message["content"]) for message in body["messages"])
    return "\n".join([json.dumps(body.get("response_format", "")), *texts])


def get_shared_prefix(first: str, second: str) -> str:
    """What two prompts have in common from their beginning."""
    length = next(
        (n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
        min(len(first), len(second)),
    )
    return first[:length]


@contextmanager
def counted_world(
    azurite: Azurite | None, knowledge: KnowledgeSource | None = None
) -> Iterator[CountedWorld]:
    """A fresh world, on empty tables when there is an Azurite, otherwise on SQLite."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        chat = ChatSimulator(respond=answer_in_schema)
        url = stack.enter_context(LoopbackServer(chat.app)).url
        counter = None if azurite is None else TableCounter()
        ledger = None if azurite is None or counter is None else build_counted_ledger(azurite, counter)
        world = World(folder, ledger, knowledge=knowledge)
        world.model = WireModel(build_azure_inference_model(url, Secret("key")))
        stack.enter_context(world)
        counted = CountedWorld(world, chat, counter)
        stack.callback(counted.close)
        level = logging.root.manager.disable
        logging.disable(logging.NOTSET)
        logging.getLogger(EVENT_LOGGER).setLevel(logging.INFO)
        logging.getLogger(EVENT_LOGGER).propagate = False
        stack.callback(logging.disable, level)
        yield counted


def build_counted_ledger(azurite: Azurite, counter: TableCounter) -> Ledger:
    """A ledger on an empty table that counts. The table is there already, as after the first email."""
    azurite.clear()
    credential = AzureNamedKeyCredential(ACCOUNT, KEY)
    service = TableServiceClient(azurite.endpoint, credential=credential, raw_response_hook=counter)
    service.create_table(TABLE)
    counter.transactions = counter.entities = 0
    return Ledger(TableStore(service))


def count_email(azurite: Azurite | None, kind: str) -> tuple[Counts, Counts]:
    """What an email of this kind costs on its way, and what its poll costs on top of an idle one."""
    with counted_world(azurite) as counted:
        _deliver_kind(counted.world, "ignored", 0)  # pays for what is remembered: mailboxes, the watermark
        counted.world.poll_and_work()
        counted.world.clock.advance(minutes=1)
        counted.take()
        counted.world.poller.poll()
        idle = counted.take()
        email_id = _deliver_kind(counted.world, kind, 1)
        counted.world.poller.poll()
        polled = counted.take()
        counted.world.work()
        counts = counted.take()
        outcome = counted.world.outcome(email_id)
        if outcome != OUTCOMES[kind]:
            raise RuntimeError(f"{kind} came to {outcome}")
    polled.table_transactions -= idle.table_transactions
    return counts, polled


OUTCOMES = {
    "machine mail": "skipped",
    "ignored": "ignored",
    "ignored, 60 kB": "ignored",
    "escalated": "escalated",
    "reply": "reply_submitted",
    "reply, 25 emails of 60 kB": "reply_submitted",
}
GOALS: dict[str, tuple[int, int]] = {  # model calls, tokens
    "machine mail": (0, 0),
    "ignored": (1, 1_000),
    "ignored, 60 kB": (1, 1_000),
    "escalated": (1, 1_000),
    "reply": (2, 2_500),
    "reply, 25 emails of 60 kB": (2, 5_000),
}


def _deliver_kind(world: World, kind: str, number: int) -> str:
    letter = {"ignored": "I", "ignored, 60 kB": "I", "escalated": "E"}.get(kind, "R")
    fields: dict[str, Any] = {"subject": build_subject(letter, number)}
    if kind == "machine mail":
        fields["sender"] = "noreply@shop.example"
    if "60 kB" not in kind:
        return world.deliver(QUESTION, **fields)
    email_id = world.deliver(LONG, **fields)
    for _ in range(12 if kind.startswith("reply") else 0):
        world.simulator.human_reply(email_id, LONG)
        world.simulator.mark_read(email_id)
        world.clock.advance(minutes=1)
        email_id = world.deliver(LONG, **fields, in_reply_to=email_id)
    return email_id


def measure(advance: Callable[[str], None], *, quick: bool) -> Part:  # noqa: ARG001 - the counts are the same
    """Count every kind of email and idle polls, on Azurite where it is there."""
    with ExitStack() as stack:
        program = find_azurite()
        azurite = stack.enter_context(Azurite(program)) if program else None
        figures: list[Figure] = []
        prompts: dict[str, list[str]] = {}
        for kind in OUTCOMES:
            advance(kind)
            counts, polled = count_email(azurite, kind)
            figures += list_email_figures(kind, counts, polled, has_tables=azurite is not None)
            prompts[kind] = counts.prompts
        advance("idle polls")
        figures += count_idle_polls(azurite)
    figures += list_prefix_figures(prompts)
    notes = [] if azurite else ["No Azurite (see CONTRIBUTING.md): Table transactions were not counted."]
    notes.append(
        "Tokens: o200k, every text that goes over the wire, the schema included, without any knowledge. "
        f"Prompt caching starts at {FIRST_TOKENS:,} tokens of common prefix."
    )
    return Part("Calls, tokens, transactions", figures, notes)


def list_email_figures(kind: str, counts: Counts, polled: Counts, *, has_tables: bool) -> list[Figure]:
    """The counts of one kind of email."""
    calls, tokens = GOALS[kind]
    routes = ", ".join(f"{count} {name}" for name, count in counts.routes.items())
    figures = [
        Figure(f"{kind}: model calls", counts.model_calls, "", calls, counted=True),
        Figure(
            f"{kind}: tokens", counts.tokens, "", tokens, counted=True,
            note=f"{counts.input_tokens} in, {counts.output_tokens} out",
        ),
    ]  # fmt: skip
    if "60 kB" in kind:  # the other emails of the thread are in the rest
        return figures
    if kind == "reply":
        figures += [Figure(f"{kind}: {step}", tokens, counted=True) for step, tokens in counts.steps.items()]
    figures += [
        Figure(f"{kind}: MultiMail calls", counts.multimail_calls, "", counted=True, note=routes),
        Figure(f"{kind}: event log", counts.log_bytes, "B", counted=True),
    ]
    if has_tables:
        transactions = counts.table_transactions + polled.table_transactions
        note = f"{polled.table_transactions} of them to take it in"
        figures.append(Figure(f"{kind}: Table transactions", transactions, "", counted=True, note=note))
    return figures


def count_idle_polls(azurite: Azurite | None) -> list[Figure]:
    """What a poll costs when nothing is new, and what one mailbox more adds."""
    with counted_world(azurite) as counted:
        one = _count_idle(counted)
        for number in range(MAILBOXES):
            counted.world.simulator.add_mailbox(f"box{number}@northwind.example")
        more = _count_idle(counted)
        counted.world.tracker.track()
        track = counted.take()
    a_mailbox = (more.multimail_calls - one.multimail_calls) / MAILBOXES
    figures = [
        Figure(
            "idle poll, one mailbox: MultiMail calls",
            one.multimail_calls,
            counted=True,
            note=_list_routes(one),
        ),
        Figure("idle poll, each mailbox: MultiMail calls", a_mailbox, "", 2, counted=True),
        Figure("idle poll: event log", one.log_bytes, "B", counted=True),
        Figure("idle look at replies: event log", track.log_bytes, "B", counted=True),
    ]
    if azurite is not None:
        figures += [
            Figure("idle poll, one mailbox: Table transactions", one.table_transactions, "", 18, counted=True,
                note="the open work of sixteen partitions, and the watermark",
            ),
            Figure(
                "idle poll, each mailbox: Table transactions",
                (more.table_transactions - one.table_transactions) / MAILBOXES, "", 3, counted=True,
            ),
            Figure("idle look at replies: Table transactions", track.table_transactions, "", counted=True),
        ]  # fmt: skip
    return figures


def _count_idle(counted: CountedWorld) -> Counts:
    """The second of two polls that find nothing: the first one sets the watermark."""
    counted.world.poller.poll()
    counted.world.clock.advance(minutes=1)
    counted.take()
    counted.world.poller.poll()
    return counted.take()


def _list_routes(counts: Counts) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.routes.items())


def list_prefix_figures(prompts: dict[str, list[str]]) -> list[Figure]:
    """How much of each prompt is the same on every call, from its beginning."""
    figures = []
    for step, first, second in (
        ("triage", prompts["escalated"][0], prompts["reply, 25 emails of 60 kB"][0]),
        ("draft", prompts["reply"][1], prompts["reply, 25 emails of 60 kB"][1]),
    ):
        shared, whole = count_tokens(get_shared_prefix(first, second)), count_tokens(first)
        note = f"{shared} of {whole} tokens"
        figures.append(Figure(f"shared prefix of the {step} prompt", shared / whole, "of it", note=note))
    return figures
