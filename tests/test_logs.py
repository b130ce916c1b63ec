"""Whole stories, good and bad, with marked texts and keys: no log record carries any of them, at any level."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from azure.core.credentials import AccessToken, AzureNamedKeyCredential
from flask import Flask

from local.host.http_server import LoopbackServer, cut_connection
from local.model import chat_simulator as chat
from local.model.chat_simulator import ChatSimulator
from local.multimail.emails import Attachment
from local.multimail.faults import Fault, answer_with, cut, cut_mid_body, malformed_json, rate_limited
from local.testing.world import DRAFT, TRIAGE, World, build_settings
from shared.composition import build_agent
from shared.domain import parse_work_item
from shared.errors import AgentError
from shared.knowledge.azure_search import AzureSearchKnowledge
from shared.ledger.table_store import build_table_ledger
from shared.mail.multimail import MultiMailClient
from shared.model.azure_inference_sdk import build_azure_inference_embeddings, build_azure_inference_model
from shared.model.chat import ChatRequest, Conversation, Message
from shared.model.openai_sdk import build_openai_embeddings, build_openai_model
from shared.model.prompting import load_prompt
from shared.services.secrets import StaticSecret
from shared.settings import Secret

WORD = "qzxjkvmark"  # stands in every text, wherever that goes
HOST = logging.getLogger("shared.host")
KEY = "qzxjkvmark-model-key"
PLACES = (
    ("GET", "/mailboxes"), ("GET", "/emails"), ("GET", "/emails/"), ("GET", "/threads/"), ("GET", "/allowlist"),
    ("POST", "/reply/"), ("GET", "/tags"), ("PUT", "/tags"), ("POST", "/cancel"),
)  # fmt: skip
WIRE_FAULTS = (
    answer_with(400, {"error": WORD}), answer_with(403, {"error": WORD}), answer_with(404, {"error": WORD}),
    answer_with(409, {"error": WORD}), answer_with(429, {"error": WORD}), answer_with(500, {"error": WORD}),
    answer_with(200, f"<html>{WORD}</html>"), answer_with(200, {"emails": WORD, "markdown": WORD, "tags": WORD}),
    answer_with(500, {"error": WORD}, after_effect=True), rate_limited(40), cut(after_effect=False),
    cut(after_effect=True), cut_mid_body(), malformed_json(),
)  # fmt: skip
CHAT_FAULTS = (
    chat.throttled(retry_after="2"), chat.refused(400, "invalid_request", WORD), chat.refused(401, "401", WORD),
    chat.refused(404, "404", WORD), chat.refused(500, "500", WORD), chat.filtered_prompt("jailbreak"),
    chat.filtered_completion("violence"), chat.saying(WORD), chat.saying(None), chat.answering(WORD),
    chat.answering(json.dumps({"choices": WORD})), chat.cut_by_length, chat.without_choices,
    chat.cut_before_answer, chat.cut_mid_body,
    chat.saying(json.dumps(TRIAGE | {"action": "escalate", "reason": WORD, "summary": WORD})),
    chat.saying(json.dumps(TRIAGE | {"confidence": 0.1, "reason": WORD})),
)  # fmt: skip


def respond(body: dict[str, Any]) -> str:
    is_triage = body["response_format"]["json_schema"]["name"] == "triage"
    marked = TRIAGE | {"summary": WORD, "reason": WORD} if is_triage else DRAFT | {"open_points": [WORD]}
    if not is_triage:
        marked["reply_markdown"] = f"Dear Ann,\n\nthank you, a colleague will follow up on {WORD}.\n\nSupport"
    return json.dumps(marked)


class Mail(World):
    """A world whose agent is the composed one, with the SDK of a real chat model."""

    def __init__(self, tmp_path: Path, sdk: str, url: str) -> None:
        super().__init__(tmp_path, max_replies_per_sender_per_day=1000, model_sdk=sdk)
        self._chat_url = url
        self.arrived = 0

    def __enter__(self) -> "Mail":
        super().__enter__()
        settings = self.settings.__class__(
            **{name: getattr(self.settings, name) for name in self.settings.__slots__}
            | {
                "multimail_api_url": self._server.url, "multimail_api_key": Secret(self.key),
                "model_endpoint": self._chat_url, "model_api_key": Secret(KEY),
                "ledger_path": self.settings.ledger_path.with_name("composed.sqlite"),
            }
        )  # fmt: skip
        agent = build_agent(settings, clock=self.clock, random_share=lambda: 0.5)
        self.poller, self.pipeline, self.tracker = agent.poller, agent.pipeline, agent.tracker
        self.ledger, self.queue = agent.ledger, agent.work_queue  # type: ignore[assignment]  # the one in process
        return self

    def live_through(self, **fields: Any) -> None:
        """Let one marked email arrive and a day pass, whatever goes wrong."""
        self.arrived += 1
        attachment = Attachment(f"{WORD}.pdf", "application/pdf", WORD.encode())
        self.deliver(
            f"How long does delivery take? {WORD}",
            sender=fields.pop("sender", f'"{WORD} Lee" <ann{self.arrived}@customer.example>'),
            subject=f"Delivery {WORD}", attachments=[attachment], **fields,
        )  # fmt: skip
        for _ in range(2):
            try:
                self.poller.poll()
            except AgentError:
                HOST.exception("poll failed")  # as the host does
            while not self.queue.bodies.empty():
                self.work_once()
            self.clock.advance(hours=1)

    def work_once(self) -> None:
        try:
            self.pipeline.process(parse_work_item(self.queue.bodies.get()))
        except AgentError:
            HOST.exception("process failed")

    def track_all(self) -> None:
        try:
            self.tracker.track()
        except AgentError:
            HOST.exception("track failed")


@pytest.fixture(params=["azure-ai-inference", "openai"])
def mail(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Mail, ChatSimulator]]:
    simulator = ChatSimulator(api_key=KEY, respond=respond)
    with LoopbackServer(simulator.app) as server, Mail(tmp_path, request.param, server.url) as world:
        yield world, simulator


def find_marked(records: list[logging.LogRecord], words: tuple[str, ...]) -> set[str]:
    formatter = logging.Formatter()
    found = set()
    for record in records:
        shown = f"{formatter.format(record)} {record.__dict__}"
        found |= {f"{record.name}: {record.msg}" for word in words if word in shown}
    return found


def test_no_log_record_carries_a_text_or_a_key_whatever_goes_wrong(
    mail: tuple[Mail, ChatSimulator], caplog: pytest.LogCaptureFixture
) -> None:
    world, simulator = mail
    caplog.set_level(logging.DEBUG)
    world.live_through()
    world.live_through(sender=f"{WORD} <mailer-daemon@customer.example>")
    world.live_through(sender=f"{WORD}, two@customer.example, three@customer.example")
    for chat_fault in CHAT_FAULTS:
        simulator.script(chat_fault)
        world.live_through()
    for method, part in PLACES:
        for fault in WIRE_FAULTS:
            world.simulator.fault = strike_once(method, part, fault)
            world.live_through()
            world.track_all()
    for number, waiting in enumerate(world.simulator.list_awaiting_decision()):
        world.simulator.decide(waiting.id, ("approve", "reject")[number % 2])
    world.track_all()
    assert {entry.outcome for entry in world.ledger.entries(world.box)} >= {
        "reply_submitted", "skipped", "escalated", "failed", "needs_human", "blocked_content_safety",
    }  # fmt: skip
    assert {"shared.replying.deferral", "agent.events", "shared.watching.polling"} <= {
        r.name for r in caplog.records
    }
    prompts = [load_prompt(name)[:40] for name in ("triage", "draft")]
    assert find_marked(caplog.records, (WORD, world.key, *prompts)) == set()


def strike_once(method: str, part: str, fault: Fault) -> Any:
    struck: list[str] = []

    def choose(asked: str, path: str, _number: int) -> Fault | None:
        there = part in path if part.endswith("/") else path.endswith(part)
        if struck or asked != method or not there:
            return None
        struck.append(path)
        return fault

    return choose


ADDRESS = "qzxjkvmark@customer.example"


class Token:
    """A credential whose token everybody takes."""

    get_token_info: ClassVar[Any] = None

    def get_token(self, *_scopes: str, **_options: Any) -> AccessToken:
        return AccessToken("token-of-the-test", 2**31)


def list_outside_calls(url: str) -> dict[str, Callable[[], object]]:
    """Every call that takes personal data outside, to a service at `url`."""
    mail = MultiMailClient(url, StaticSecret(Secret("mm_test_1")))
    ledger = build_table_ledger(url, AzureNamedKeyCredential("account", "a2V5"))
    search = AzureSearchKnowledge(url, "knowledge", Token(), vector_field="vector")
    key, conversation = Secret(KEY), Conversation("large", WORD, (Message("user", ADDRESS),), (), 10)
    request = ChatRequest("small", WORD, ADDRESS, "triage", {"type": "object"}, 10)
    chats = {"openai": build_openai_model(url, key), "azure": build_azure_inference_model(url, key)}
    embeddings = (build_openai_embeddings(url, key, "e"), build_azure_inference_embeddings(url, key, "e"))
    return {
        "contacts": lambda: mail.search_contacts(ADDRESS),
        "subjects": lambda: list(mail.list_emails("mb_1", subject_contains=WORD)),
        "send": lambda: mail.send_email("mb_1", ADDRESS, WORD, WORD, "key-1"),
        "reply": lambda: mail.submit_reply("mb_1", "em_1", WORD, "key-1", (ADDRESS,)),
        "tags": lambda: mail.set_tags("mb_1", "em_1", {"agent.reason": WORD}),
        "slots": lambda: ledger.slots(f"sender/mb_1/{ADDRESS}/2026-11-22/new"),
        "take slot": lambda: ledger.take_slot(f"sender/mb_1/{ADDRESS}/2026-11-22/new", "em_1", ()),
        "tokens": lambda: ledger.tokens_used("mb_1", "2026-11-22", ADDRESS),
        "add tokens": lambda: ledger.add_tokens("mb_1", "2026-11-22", 1, ADDRESS),
        "search": lambda: search.read((), f"{WORD} {ADDRESS}", 1_000),
    } | {
        f"{name} {sdk}": call
        for sdk, model in chats.items()
        for name, call in (
            ("complete", lambda model=model: model.complete(request)),
            ("converse", lambda model=model: model.converse(conversation)),
        )
    } | {
        f"embed {number}": lambda model=model: model.embed([WORD, ADDRESS])
        for number, model in enumerate(embeddings)
    }  # fmt: skip


@pytest.mark.parametrize("after", [b"", b'{"value": ['], ids=["no answer", "half an answer"])
def test_a_broken_connection_puts_no_address_and_no_search_word_into_a_log(
    tmp_path: Path, after: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    build_agent(build_settings(tmp_path)).ledger.close()  # this sets what libraries may log
    app = Flask("broken", static_folder=None)
    app.register_error_handler(404, lambda _: cut_connection(after))
    caplog.set_level(logging.DEBUG)
    with LoopbackServer(app) as server:
        for name, call in list_outside_calls(server.url).items():
            with pytest.raises(AgentError) as caught:
                call()
            HOST.error("%s failed", name, exc_info=caught.value)  # as the host does
    assert find_marked(caplog.records, (WORD, "customer.example", "customer%2Eexample", KEY)) == set()
