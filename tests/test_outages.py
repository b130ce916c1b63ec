"""An outage of a service is not the email's fault: what waits, what counts as an attempt, and what is said."""

import logging
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask

from local.host.http_server import LoopbackServer
from local.multimail.faults import Fault, answer_with
from local.testing.world import START, Clock, ScriptedModel, World
from shared.domain import Cause
from shared.errors import AgentError, ConfigurationError, TransientError, UnavailableError
from shared.mail.multimail import MultiMailClient
from shared.model.chat import ChatCompletion, ChatRequest
from shared.services.health import MAX_RECENT, ServiceHealth
from shared.services.secrets import StaticSecret
from shared.settings import Secret
from shared.telemetry import EVENT_LOGGER
from tests.test_chat_models import write_certificate

HOUR = timedelta(hours=1)


class FaultyModel(ScriptedModel):
    """Fails as `find_failure` says, and answers otherwise."""

    def __init__(self, find_failure: Callable[[], Exception | None]) -> None:
        super().__init__()
        self.find_failure = find_failure

    def complete(self, request: ChatRequest) -> ChatCompletion:
        completion = super().complete(request)
        failure = self.find_failure()
        if failure is not None:
            raise failure
        return completion


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        yield world


def run(world: World, until: datetime) -> None:
    """Let the agent work for a while: a poll every minute, and each row when it is due."""
    while world.clock() < until:
        with suppress(TransientError):
            world.poller.poll()
        world.work()
        due_at = world.ledger.next_due_at() or until
        world.clock.now = max(
            world.clock() + timedelta(seconds=1), min(due_at, world.clock() + timedelta(minutes=1), until)
        )


# What waits


def test_an_hour_without_the_model_fails_no_email(world: World) -> None:
    world.model = FaultyModel(lambda: UnavailableError("HTTP 503") if world.clock() < START + HOUR else None)
    emails = [world.deliver(f"Question {n}?", sender=f"p{n}@customer.example") for n in range(10)]
    run(world, START + HOUR)
    assert [world.entry(email_id).finished_at for email_id in emails] == [None] * 10
    assert {world.entry(email_id).attempts for email_id in emails} == {0}
    assert {world.entry(email_id).waiting_for for email_id in emails} == {Cause.UNAVAILABLE}
    assert len(world.model.requests) < 10 * 60, "the delay grows"
    run(world, START + 2 * HOUR)
    assert [world.outcome(email_id) for email_id in emails] == ["reply_submitted"] * 10


def test_an_hour_without_multimail_fails_no_email(world: World) -> None:
    emails = [world.deliver(f"Question {n}?", sender=f"p{n}@customer.example") for n in range(3)]
    world.poller.poll()

    def is_down(_method: str, _path: str, _number: int) -> Fault | None:
        return answer_with(500) if world.clock() < START + HOUR else None

    world.simulator.fault = is_down
    run(world, START + 2 * HOUR)
    assert [world.outcome(email_id) for email_id in emails] == ["reply_submitted"] * 3


def test_an_email_whose_reply_alone_fails_is_given_up_after_all_attempts(world: World) -> None:
    poisoned = world.deliver("Poison?")

    def fails_for_it(method: str, path: str, _number: int) -> Fault | None:
        return answer_with(500) if method == "POST" and poisoned in path else None

    world.simulator.fault = fails_for_it
    for number in range(60):
        world.deliver(f"Question {number}?", sender=f"p{number}@customer.example")
        run(world, world.clock() + timedelta(minutes=1))
    assert world.outcome(poisoned) == "needs_human"
    assert world.entry(poisoned).attempts == world.settings.max_attempts
    assert len(world.simulator.accepted) == 60


def test_a_service_that_fails_most_calls_is_no_fault_of_the_email_either(world: World) -> None:
    answers = iter(range(10_000))
    world.model = FaultyModel(lambda: None if next(answers) % 8 == 7 else UnavailableError("HTTP 503"))
    emails = [world.deliver(f"Question {n}?", sender=f"p{n}@customer.example") for n in range(20)]
    run(world, START + 10 * HOUR)
    assert {world.outcome(email_id) for email_id in emails} == {"reply_submitted"}


@pytest.mark.parametrize(
    "error", [UnavailableError("HTTP 503"), ConfigurationError("MODEL_API_KEY was refused: correct it.")]
)
def test_what_a_service_never_does_has_an_end_once_the_email_is_too_old(
    tmp_path: Path, error: AgentError
) -> None:
    with World(tmp_path, max_email_age_hours=2) as world:
        email_id = world.deliver()
        world.model = FaultyModel(lambda: error)
        while world.clock() < START + 4 * HOUR:
            with suppress(ConfigurationError):
                world.poll_and_work()
            world.clock.advance(minutes=20)
        assert world.outcome(email_id) == "escalated"
        assert world.entry(email_id).cause is Cause.WAITED_TOO_LONG
        assert str(error).rstrip(".") in world.tags(email_id)["agent.reason"]


def test_old_mail_waits_before_a_wrong_setting_ends_it_and_each_run_tells_the_host(world: World) -> None:
    email_id = world.deliver()
    world.poller.poll()
    world.clock.advance(hours=96)
    world.model.steps = [ConfigurationError("MODEL_API_KEY was refused: correct it.")] * 2
    with pytest.raises(ConfigurationError):
        world.work()
    assert world.entry(email_id).outcome is None
    world.clock.advance(hours=1)
    with pytest.raises(ConfigurationError):
        world.poll_and_work()
    assert (world.outcome(email_id), world.entry(email_id).cause) == ("escalated", Cause.WAITED_TOO_LONG)
    assert world.entry(email_id).finished_at is not None


def test_a_service_that_names_its_delay_is_not_asked_earlier(world: World) -> None:
    email_id = world.deliver()
    world.model = FaultyModel(lambda: UnavailableError("HTTP 503", retry_after_seconds=700))
    world.poll_and_work()
    assert world.entry(email_id).due_at >= START + timedelta(seconds=700)


def test_a_malformed_answer_counts_as_an_attempt(world: World) -> None:
    email_id = world.deliver()
    world.model = FaultyModel(lambda: TransientError("unreadable"))
    run(world, START + HOUR)
    assert world.outcome(email_id) == "failed"
    assert len(world.model.requests) == world.settings.max_attempts


def test_an_unsuitable_model_fails_no_email(world: World) -> None:
    email_id = world.deliver()
    world.model = FaultyModel(
        lambda: ConfigurationError("set TRIAGE_DEPLOYMENT") if world.clock() < START + HOUR else None
    )
    while world.clock() < START + HOUR:
        try:
            world.poll_and_work()
        except ConfigurationError:
            world.clock.advance(minutes=5)
    run(world, START + 2 * HOUR)
    assert world.outcome(email_id) == "reply_submitted"


# Health


def succeed(health: ServiceHealth) -> None:
    with health.watch("model small"):
        pass


def fail(health: ServiceHealth, email_id: str) -> timedelta | None:
    with pytest.raises(UnavailableError) as caught, health.watch("model small"):
        raise UnavailableError("HTTP 503")
    return health.note_failure(caught.value, email_id)


def test_an_operation_is_down_while_it_fails_for_more_emails_than_it_works_for() -> None:
    clock = Clock()
    health = ServiceHealth(clock)
    succeed(health)
    assert fail(health, "em_1") is None, "it works for others"
    assert fail(health, "em_1") is None, "one email is one, however often it is tried"
    assert fail(health, "em_2") == timedelta(0)
    clock.advance(minutes=7)
    assert fail(health, "em_2") == timedelta(minutes=7)
    succeed(health)
    assert fail(health, "em_2") is None


def test_a_success_of_over_a_minute_ago_says_nothing() -> None:
    clock = Clock()
    health = ServiceHealth(clock)
    succeed(health)
    clock.advance(seconds=61)
    assert fail(health, "em_1") == timedelta(0)


def test_operations_are_judged_apart() -> None:
    health = ServiceHealth(Clock())
    with health.watch("model large"):
        pass
    assert fail(health, "em_1") == timedelta(0)


def test_a_failure_that_nobody_watched_is_the_emails_own() -> None:
    assert ServiceHealth(Clock()).note_failure(UnavailableError("HTTP 503"), "em_1") is None


def test_an_outage_that_nobody_saw_for_half_an_hour_is_another_one() -> None:
    clock = Clock()
    health = ServiceHealth(clock)
    fail(health, "em_1")
    clock.advance(minutes=31)
    assert fail(health, "em_1") == timedelta(0)


def test_any_other_error_says_nothing_about_the_service() -> None:
    health = ServiceHealth(Clock())
    with pytest.raises(ConfigurationError), health.watch("model small"):
        raise ConfigurationError("wrong key")
    assert fail(health, "em_1") == timedelta(0)


def test_a_burst_is_remembered_in_bounds() -> None:
    health = ServiceHealth(Clock())
    for number in range(2 * MAX_RECENT):
        fail(health, f"em_{number}")
    for _ in range(MAX_RECENT):
        succeed(health)
    assert fail(health, "em_1") is None


def test_an_outage_is_told_once_when_it_begins_and_once_when_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, EVENT_LOGGER)
    clock = Clock()
    health = ServiceHealth(clock)
    for email_id in ("em_1", "em_2", "em_1"):
        fail(health, email_id)
        clock.advance(seconds=70)
    succeed(health)
    succeed(health)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [
        "model small is unavailable: HTTP 503",
        "model small is available again after 210.0 seconds",
    ]
    events = [record.getMessage() for record in caplog.records if record.name == EVENT_LOGGER]
    assert events == [
        "service.unavailable operation='model small'",
        "service.available operation='model small' seconds=210.0",
    ]


# MultiMail over real connections


def build_client(url: str) -> MultiMailClient:
    health = ServiceHealth(Clock())
    return MultiMailClient(url, StaticSecret(Secret("key")), timeout=(2, 2), watch=health.watch)


def test_a_certificate_that_nobody_vouches_for_names_the_variable(tmp_path: Path) -> None:
    certificate = tmp_path / "loopback.pem"
    write_certificate(certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with (
        LoopbackServer(Flask("nothing"), ssl_context=context) as server,
        pytest.raises(UnavailableError, match="set REQUESTS_CA_BUNDLE to a file") as caught,
    ):
        build_client(server.url).list_mailboxes()
    assert caught.value.operation == "MultiMail GET /v1/mailboxes"


def test_a_proxy_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    with pytest.raises(UnavailableError, match="Correct HTTPS_PROXY, or name the host in NO_PROXY"):
        build_client("https://multimail.invalid").list_mailboxes()


@contextmanager
def resetting_whatever_is_used_again() -> Iterator[str]:
    """A service that answers the first request of each connection and resets it at the second."""
    body = b'{"id": "em_2", "status": "pending_send_approval", "tags": {}}'
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)

    def serve(connection: socket.socket) -> None:
        with connection:
            connection.recv(65_536)
            connection.sendall(answer + body)
            connection.recv(65_536)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def test_a_reply_gets_through_a_gateway_that_resets_whatever_is_used_again() -> None:
    with resetting_whatever_is_used_again() as url:
        client = build_client(url)
        client.get_tags("mb_1", "em_1")
        with pytest.raises(UnavailableError):
            client.submit_reply("mb_1", "em_1", "Hello", "key-1")
        for _ in range(3):
            client.get_tags("mb_1", "em_1")
            assert client.submit_reply("mb_1", "em_1", "Hello", "key-1").id == "em_2"
