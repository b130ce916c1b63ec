"""Anything that comes from outside may be anything: no exception beyond ours, and no reply that should not be."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, request
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from local.host.http_server import LoopbackServer
from local.testing.world import (
    DRAFT,
    NO_TARGETS,
    START,
    TRIAGE,
    Clock,
    ScriptedModel,
    World,
    assemble,
    build_settings,
    find_no_secret,
    find_nothing,
)
from shared.composition import Adapters, Agent
from shared.domain import WorkItem, parse_work_item
from shared.errors import AgentError, ConfigurationError, PermanentError, TransientError
from shared.knowledge.files import KnowledgeFiles
from shared.ledger.entries import LedgerEntry
from shared.ledger.sqlite_store import open_sqlite_ledger
from shared.mail.mailboxes import MailboxDirectory
from shared.mail.multimail import MultiMailClient
from shared.services.health import ServiceHealth
from shared.services.secrets import StaticSecret
from shared.services.work_queue import InProcessWorkQueue
from shared.settings import Secret, Settings

MANY = settings(derandomize=True, max_examples=400, deadline=None, database=None)
SOME = settings(
    derandomize=True, max_examples=50, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
DEEP = "[" * 5_000 + "]" * 5_000

# Text as JSON can carry it: lone surrogates, controls and what no font shows included.
any_text = st.text(st.characters(codec=None), max_size=30)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=8,
)


def dump(value: object) -> str:
    return json.dumps(value)


@st.composite
def mutated(draw: st.DrawFn, valid: Any) -> Any:
    """A valid value with one place in it, however deep, replaced, dropped or doubled."""
    if isinstance(valid, dict) and valid and draw(st.booleans()):
        name = draw(st.sampled_from(sorted(valid)))
        change = draw(st.sampled_from(["replace", "drop", "descend", "add"]))
        if change == "drop":
            return {key: value for key, value in valid.items() if key != name}
        if change == "add":
            return valid | {draw(any_text): draw(any_json)}
        return valid | {name: draw(mutated(valid[name]) if change == "descend" else any_json)}
    if isinstance(valid, list) and valid and draw(st.booleans()):
        return [draw(mutated(valid[0])), *valid[1:], *draw(st.sampled_from([[], valid]))]
    return draw(any_json)


# The work item


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        yield world


@SOME
@given(
    st.binary(max_size=60)
    | any_json.map(lambda v: dump(v).encode())
    | mutated({"mailbox_id": "mb", "email_id": "em"}).map(lambda v: dump(v).encode())
)
@example(DEEP.encode())
@example(b'{"mailbox_id": "\\ud800", "email_id": "x"}')
@example(b'{"mailbox_id": "..", "email_id": "\\u0000"}')
@example(b'\xef\xbb\xbf{"mailbox_id": "a", "email_id": "b"}')
def test_a_queue_message_of_any_bytes_is_dropped_or_looked_up(world: World, body: bytes) -> None:
    world.agent.process(body)
    assert world.simulator.accepted == []
    assert world.model.requests == []


@MANY
@given(st.binary(max_size=60))
def test_what_parses_as_a_work_item_is_one(body: bytes) -> None:
    try:
        item = parse_work_item(body)
    except PermanentError:
        return
    assert parse_work_item(item.to_json().encode()) == item


# The model's output

ANSWERS = st.one_of(any_text, any_json.map(dump))


def is_sure_reply(text: str) -> bool:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return (
        isinstance(value, dict)
        and value.get("action") == "reply"
        and not isinstance(value.get("confidence"), bool)
        and isinstance(value.get("confidence"), int | float)
        and 0.6 <= value["confidence"] <= 1
    )


def is_sure_draft(text: str) -> bool:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return (
        isinstance(value, dict)
        and isinstance(value.get("reply_markdown"), str)
        and bool(value["reply_markdown"].strip())
        and isinstance(value.get("confidence"), int | float)
        and 0.6 <= value["confidence"] <= 1
    )


def work_with_answers(world: World, triage: str, draft: str) -> str:
    """Let the model give the same answers however often it is asked; the outcome."""
    world.model.steps = [triage, triage] if not is_sure_reply(triage) else [triage, draft, draft]
    before = len(world.simulator.accepted)
    email_id = world.deliver(sender=f"guest-{before}-{len(world.simulator.requests)}@customer.example")
    world.run_until_idle()
    world.model.steps = []
    outcome = world.outcome(email_id)
    assert (outcome == "reply_submitted") == (len(world.simulator.accepted) == before + 1)
    return outcome


@SOME
@given(ANSWERS | mutated(TRIAGE).map(dump))
@example(DEEP)
@example(dump(TRIAGE | {"action": [], "category": {}}))
@example(dump(TRIAGE | {"summary": "\ud800", "reason": "\x00\u202e"}))
@example(dump(TRIAGE | {"confidence": 10**400}))
@example(dump(TRIAGE | {"confidence": float("nan")}))
def test_any_triage_ends_visibly_and_only_a_sure_one_leads_to_a_reply(world: World, text: str) -> None:
    outcome = work_with_answers(world, text, dump(DRAFT))
    assert outcome in ("reply_submitted", "escalated", "ignored")
    if not is_sure_reply(text):
        assert outcome != "reply_submitted"


@SOME
@given(ANSWERS | mutated(DRAFT).map(dump))
@example(DEEP)
@example(dump(DRAFT | {"reply_markdown": "Hello \ud800"}))
@example(dump(DRAFT | {"open_points": ["\ud800", "\x00"]}))
@example(dump(DRAFT | {"reply_markdown": "a\x00b"}))
@example(dump(DRAFT | {"confidence": True}))
def test_any_draft_ends_visibly_and_only_a_readable_one_leaves(world: World, text: str) -> None:
    outcome = work_with_answers(world, dump(TRIAGE), text)
    assert outcome in ("reply_submitted", "escalated")
    if not is_sure_draft(text):
        assert outcome == "escalated"


# The email itself


@SOME
@given(st.tuples(*[st.text(st.characters(codec="utf-8"), max_size=80)] * 3))
def test_an_email_of_any_text_ends_visibly_and_is_answered_to_its_sender_alone(
    world: World, texts: tuple[str, str, str]
) -> None:
    name, subject, markdown = texts
    before = len(world.simulator.accepted)
    email_id = world.deliver(
        markdown, sender=f"{name} <guest-{len(world.simulator.requests)}@customer.example>", subject=subject
    )
    world.run_until_idle()
    assert world.outcome(email_id) in ("reply_submitted", "skipped", "escalated", "needs_human")
    for accepted in world.simulator.accepted[before:]:
        assert len(accepted.recipients) == 1
        assert accepted.recipients[0] == world.entry(email_id).sender


# MultiMail's answers

BOX, EMAIL, THREAD = "mb_1", "em_1", "th_1"
WHEN = START.strftime("%Y-%m-%dT%H:%M:%SZ")
SUMMARY = {
    "id": EMAIL, "from": "Ann <ann@customer.example>", "to": ["support@northwind.example"], "subject": "Hello",
    "direction": "inbound", "status": "unread", "received_at": WHEN, "thread_id": THREAD,
}  # fmt: skip
VALID: Mapping[str, Any] = {
    "mailboxes": {"mailboxes": [{"id": BOX, "address": "support@northwind.example", "oversight_mode": "gated_send"}]},
    "list": {"emails": [SUMMARY], "cursor": None},
    "email": SUMMARY | {"markdown": "How long?", "tags": {"a": "b"}, "attachments": [{"name": "x.pdf"}]},
    "thread": {"thread_id": THREAD, "emails": [SUMMARY]},
    "allowlist": {"entries": [{"pattern": "boss@northwind.example"}]},
    "tags": {"tags": {"a": "b"}},
    "reply": {"id": "em_9", "status": "pending_scan"},
}  # fmt: skip
STATUSES = (200, 202, 204, 301, 400, 401, 403, 404, 409, 429, 500)  # 502 to 504 are tried again, slowly


@dataclass
class Answers:
    """What each endpoint says, and the replies that were posted."""

    said: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    posted: list[tuple[str, bytes]] = field(default_factory=list)

    def give(self, endpoint: str) -> Response:
        status, body = self.said.get(endpoint, (200, json.dumps(VALID[endpoint]).encode()))
        return Response(body, status, content_type="application/json")

    def build_app(self) -> Flask:
        """An app that answers as told, whatever it is asked."""
        app = Flask("any_answer", static_folder=None)

        @app.route("/<path:path>", methods=["GET", "PUT", "POST", "DELETE"])
        def view(path: str) -> Response:
            if "/reply/" in path:
                self.posted.append((path, request.get_data()))
                return self.give("reply")
            parts = path.split("/")
            names = {"threads": "thread", "allowlist": "allowlist", "tags": "tags"}
            found = [names[part] for part in parts if part in names]
            plain = {2: "mailboxes", 4: "list"}.get(len(parts), "email")
            return self.give(found[-1] if found else plain)

        return app


@st.composite
def answers(draw: st.DrawFn) -> dict[str, tuple[int, bytes]]:
    said = {}
    for endpoint in draw(st.sets(st.sampled_from(sorted(VALID)), min_size=1, max_size=2)):
        body = mutated(VALID[endpoint]).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=20)
        said[endpoint] = (draw(st.just(200) | st.sampled_from(STATUSES)), draw(body))
    return said


@pytest.fixture(scope="module")
def service() -> Iterator[tuple[Answers, str]]:
    answers = Answers()
    with LoopbackServer(answers.build_app()) as server:
        yield answers, server.url


def may_reply(said: Mapping[str, tuple[int, bytes]]) -> bool:
    """Whether the mailbox is said to be gated and the sender is said to be on no allowlist."""
    mode = read_answer(
        said, "mailboxes", lambda v: {m["id"]: m["oversight_mode"] for m in v["mailboxes"]}.get(BOX)
    )
    patterns = read_answer(said, "allowlist", lambda v: [entry["pattern"] for entry in v["entries"]])
    return (
        mode in ("gated_send", "gated_all")
        and patterns is not None
        and "ann@customer.example" not in patterns
    )


def read_answer(said: Mapping[str, tuple[int, bytes]], endpoint: str, read: Callable[[Any], Any]) -> Any:
    status, body = said.get(endpoint, (200, json.dumps(VALID[endpoint]).encode()))
    try:
        return read(json.loads(body)) if 200 <= status < 300 else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


@SOME
@given(answers())
@example({"list": (200, DEEP.encode())})
@example({"email": (200, DEEP.encode())})
@example(
    {
        "mailboxes": (
            200,
            b'{"mailboxes": [{"id": "mb_1", "address": "\\ud800", "oversight_mode": "\\ud800"}]}',
        )
    }
)
@example({"list": (200, json.dumps({"emails": [SUMMARY | {"id": "\ud800\x00"}], "cursor": None}).encode())})
@example(
    {"list": (200, json.dumps({"emails": [SUMMARY | {"received_at": "0001-01-01T00:00:00+14:00"}]}).encode())}
)
@example(
    {"list": (200, json.dumps({"emails": [SUMMARY | {"received_at": "9999-12-31T23:59:59-14:00"}]}).encode())}
)
@example({"email": (200, json.dumps(VALID["email"] | {"received_at": "0001-01-01T00:00:00Z"}).encode())})
@example({"tags": (200, b'{"tags": {"agent.\\ud800": "\\ud800"}}')})
@example({"reply": (200, b'{"id": "\\ud800", "status": ""}')})
@example({"mailboxes": (503, b"")})
def test_whatever_multimail_answers_ends_in_our_own_errors_and_never_in_an_ungated_reply(
    service: tuple[Answers, str], tmp_path_factory: pytest.TempPathFactory, said: dict[str, tuple[int, bytes]]
) -> None:
    server, url = service
    server.said, server.posted = said, []
    agent, queue, clock = build_agent(url, tmp_path_factory.mktemp("fuzz"))
    agent.ledger.add(LedgerEntry(BOX, EMAIL, START, "ann@customer.example", THREAD, START))
    for _ in range(3):
        try:
            agent.poll()
        except AgentError:
            queue.send([WorkItem(BOX, EMAIL)], timedelta(minutes=10))
        while not queue.bodies.empty():
            try:
                agent.process(queue.bodies.get())
            except (ConfigurationError, TransientError):
                continue
        with suppress(AgentError):
            agent.track()
        clock.advance(hours=1)
    assert len(set(server.posted)) <= len({path for path, _ in server.posted})  # the same bytes every time
    assert all(
        body.keys() == {"markdown", "idempotency_key"} for body in (json.loads(b) for _, b in server.posted)
    )
    assert not server.posted or may_reply(said)


def build_agent(url: str, folder: Path) -> tuple[Agent, InProcessWorkQueue, Clock]:
    clock, queue = Clock(), InProcessWorkQueue()
    client = MultiMailClient(url, StaticSecret(Secret("mm_test_fuzz")), timeout=(5, 5))
    mailboxes = MailboxDirectory(client, monotonic=lambda: clock().timestamp())
    chosen = build_settings(folder, max_attempts=3)
    ledger = open_sqlite_ledger(chosen.ledger_path)
    model = ScriptedModel()
    adapters = Adapters(
        multimail=client, writer=client, mailboxes=mailboxes, complete=model.complete, converse=model.converse, ledger=ledger,
        work_queue=queue, knowledge=KnowledgeFiles(folder / "no knowledge"), signing_secret=None, audit_key=StaticSecret(Secret("unused")),
        health=ServiceHealth(clock), delivery=NO_TARGETS, look_up=find_nothing, find_secret=find_no_secret,
    )  # fmt: skip
    return assemble(adapters, chosen, clock), queue, clock


# The settings

NAMES = (
    "MULTIMAIL_API_URL", "MULTIMAIL_API_KEY", "MULTIMAIL_API_KEY_SECRET_NAME", "MULTIMAIL_MAILBOX_IDS", "KEY_VAULT_URL",
    "MULTIMAIL_WEBHOOK_SECRET", "MULTIMAIL_WEBHOOK_SECRET_NAME",
    "MODEL_SDK", "MODEL_ENDPOINT", "MODEL_API_KEY", "TRIAGE_DEPLOYMENT", "DRAFT_DEPLOYMENT", "WORK_QUEUE_NAME",
    "ServiceBusConnection", "ServiceBusConnection__fullyQualifiedNamespace", "AzureWebJobsStorage__accountName",
    "AzureWebJobsStorage__tableServiceUri", "LEDGER_TABLE_ENDPOINT", "LEDGER_PATH", "IDENTITY_ENDPOINT",
    "MANAGED_IDENTITY_CLIENT_ID", "POLL_SCHEDULE", "TRACK_SCHEDULE", "INITIAL_LOOKBACK_HOURS", "MAX_EMAIL_AGE_HOURS", "MAX_ATTEMPTS",
    "LEASE_SECONDS", "RETRY_BASE_SECONDS", "RETRY_MAX_SECONDS", "MAX_REPLIES_PER_THREAD",
    "MAX_REPLIES_PER_SENDER_PER_DAY", "DAILY_TOKEN_BUDGET", "MAX_SENDER_TOKEN_SHARE", "MIN_CONFIDENCE", "ALLOW_UNGATED_REPLIES",
)  # fmt: skip
RIGHT = {
    "MULTIMAIL_API_KEY": "mm_test_1", "MODEL_ENDPOINT": "https://res.openai.azure.com", "TRIAGE_DEPLOYMENT": "small",
}  # fmt: skip
VALUES = any_text | st.sampled_from(
    ["true", "TRUE ", "1", "yes", "-1", "inf", "nan", "1e400", "0", "٣", "1_0", "3.5", "http://[::1", "https://h:99999",
     "http://127.0.0.1", "https://u:p@h", "@Microsoft.KeyVault(x)", "openai", "https://a.example?x#y"]
)  # fmt: skip


@MANY
@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=8))
@example({"MODEL_ENDPOINT": "http://[::1"})
@example({"MODEL_ENDPOINT": "https://h:99999"})
@example({"KEY_VAULT_URL": "https://\u2100.example"})
def test_any_environment_gives_settings_within_their_bounds_or_one_error_that_hides_the_keys(
    environment: dict[str, str],
) -> None:
    secret = "sk-hidden-\u00e9-" + environment.get("MODEL_API_KEY", "")
    try:
        read = Settings.from_env(
            RIGHT | environment | {"MODEL_API_KEY": secret[: 9 if len(environment) % 2 else 99]}
        )
    except ConfigurationError as error:
        shown, read = "\n".join(error.problems), None
    else:
        shown = repr(read)
    assert shown
    assert "sk-hidden" not in shown
    if read is None:
        return
    assert read.allow_ungated_replies == (
        environment.get("ALLOW_UNGATED_REPLIES", "").strip().lower() == "true"
    )
    assert 1 <= read.max_replies_per_thread <= 100
    assert 1 <= read.max_replies_per_sender_per_day <= 1000
    assert 1 <= read.max_attempts <= 100
    assert 0 <= read.min_confidence <= 1
    assert read.model_endpoint.startswith(("https://", "http://127.0.0.1"))
