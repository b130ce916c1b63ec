"""Webhooks: nothing is done for who did not sign, and what is signed only says where to look."""

import hmac
import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask, request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.host.http_server import LoopbackServer
from local.multimail.emails import Webhook
from local.multimail.faults import answer_with, in_order
from local.multimail.simulator import MultiMailSimulator
from local.multimail.webhooks import WebhookSender
from local.testing.world import START, WEBHOOK_SECRET, Clock, World, build_settings, find_no_secret
from shared.domain import Cause, WorkItem
from shared.errors import ConfigurationError, TransientError
from shared.ledger.ledger import Ledger
from shared.ledger.sqlite_store import SqliteStore
from shared.mail.mailboxes import MailboxDirectory
from shared.mail.multimail import MultiMailClient
from shared.profiles.pauses import Pauses
from shared.profiles.profiles import NO_PROFILES
from shared.services.secrets import StaticSecret
from shared.services.work_queue import InProcessWorkQueue
from shared.settings import Secret
from shared.telemetry import EVENT_LOGGER
from shared.watching.polling import Poller
from shared.watching.tracking import ReplyTracker
from shared.watching.webhooks import MAX_BODY_BYTES, SignatureCheck, WebhookReceiver
from tests.test_end_to_end import Services

EVENT = {
    "event": "message.received",
    "timestamp": "2026-03-02T12:00:00.000Z",
    "data": {"email_id": "em_1", "from": "a@b.example", "to": ["c@d.example"], "direction": "inbound"},
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as made:
        yield made


def sign(body: bytes, secret: str = WEBHOOK_SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, sha256).hexdigest()


def build_event(world: World, email_id: str, name: str = "message.received", **data: Any) -> bytes:
    email = world.simulator.find_email(email_id)
    assert email is not None
    told = {
        "email_id": email_id, "mailbox_id": email.mailbox_id, "from": email.sender, "to": list(email.to),
        "subject": email.subject, "direction": email.direction, "has_attachments": False,
    }  # fmt: skip
    told = {key: value for key, value in (told | data).items() if value is not None}
    return json.dumps({"event": name, "timestamp": world.clock().isoformat(), "data": told}).encode()


def hear(world: World, body: bytes) -> int:
    return world.webhooks.receive(body, sign(body))


def results(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [
        (vars(record)["agent.webhook_event"], vars(record)["agent.result"])
        for record in caplog.records
        if vars(record).get("agent.event") == "webhook.received"
    ]


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, EVENT_LOGGER)
    return caplog


# The signature


class Untouchable:
    """Stands for a ledger, a queue or a MultiMail that nobody may as much as look at."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was touched")


class Vault:
    """A signing secret that can be changed, taken away, and counts who asks."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.known: str | Exception = self.answers[0]
        self.reads = 0

    def get(self) -> Secret:
        if isinstance(self.known, Exception):
            self.reads += 1
            self.known = self.answers[0]
        return self._give()

    def refresh(self, stale: Secret) -> Secret:
        self.reads += 1
        self.known = self.answers[0]
        return self._give()

    def _give(self) -> Secret:
        if isinstance(self.known, Exception):
            raise self.known
        return Secret(self.known)


def build_closed_receiver(tmp_path: Path, signatures: SignatureCheck, clock: Clock) -> WebhookReceiver:
    """A receiver that fails loudly as soon as it does anything for a request."""
    nobody: Any = Untouchable()
    mailboxes, chosen = MailboxDirectory(nobody), build_settings(tmp_path)
    poller = Poller(
        multimail=nobody, mailboxes=mailboxes, ledger=nobody, work_queue=nobody, settings=chosen, clock=clock,
        profiles=NO_PROFILES, pauses=Pauses(nobody, NO_PROFILES, all_paused=False), find_secret=find_no_secret,
    )  # fmt: skip
    return WebhookReceiver(
        signatures=signatures, mailboxes=mailboxes, poller=poller, settings=chosen, clock=clock,
        tracker=ReplyTracker(multimail=nobody, writer=nobody, mailboxes=mailboxes, ledger=nobody, clock=clock),
    )  # fmt: skip


@pytest.fixture
def closed(tmp_path: Path) -> WebhookReceiver:
    clock = Clock()
    check = SignatureCheck(StaticSecret(Secret(WEBHOOK_SECRET)), monotonic=lambda: clock().timestamp())
    return build_closed_receiver(tmp_path, check, clock)


BODY = json.dumps(EVENT).encode()
GOOD = sign(BODY)


@pytest.mark.parametrize(
    "signature",
    [
        None, "", "sha256=", GOOD.removeprefix("sha256="), GOOD[:-1], GOOD + "0", GOOD + "\n", " " + GOOD,
        GOOD.replace("sha256", "SHA256"), sign(BODY, "another secret"), sign(BODY + b" "), sign(b""),
        "sha1=" + hmac.new(WEBHOOK_SECRET.encode(), BODY, "sha1").hexdigest(),
        "sha512=" + hmac.new(WEBHOOK_SECRET.encode(), BODY, "sha512").hexdigest(),
        "sha256=" + "٠" * 64, "sha256=" + "g" * 64, f"{GOOD}, {GOOD}", "sha256=" + "0" * 10_000,
    ],
)  # fmt: skip
def test_nothing_is_done_for_a_request_without_the_right_signature(
    closed: WebhookReceiver, signature: str | None
) -> None:
    assert closed.receive(BODY, signature) == 401


@pytest.mark.parametrize("position", range(0, len(BODY), 7))
def test_a_body_that_was_altered_by_one_byte_is_refused(closed: WebhookReceiver, position: int) -> None:
    altered = bytearray(BODY)
    altered[position] ^= 1
    assert closed.receive(bytes(altered), GOOD) == 401


def test_what_is_not_signed_is_not_even_parsed(closed: WebhookReceiver) -> None:
    for body in (b"", b"{", b"\xff", b"[" * MAX_BODY_BYTES):
        assert closed.receive(body, sign(body, "another secret")) == 401


def test_a_signed_event_gets_through_in_either_case_of_hex(closed: WebhookReceiver) -> None:
    for signature in (GOOD, "sha256=" + GOOD.removeprefix("sha256=").upper()):
        with pytest.raises(AssertionError, match="was touched"):  # that it goes on is what is to be shown
            closed.receive(BODY, signature)


def test_a_body_over_the_limit_is_refused_whoever_signed_it(closed: WebhookReceiver) -> None:
    body = BODY + b" " * (MAX_BODY_BYTES - len(BODY) + 1)
    assert closed.receive(body, sign(body)) == 413


def test_without_a_secret_everything_is_refused(tmp_path: Path) -> None:
    receiver = build_closed_receiver(tmp_path, SignatureCheck(None), Clock())
    assert receiver.receive(BODY, GOOD) == 503
    assert receiver.receive(BODY, sign(BODY, "")) == 503


def test_a_flood_of_unsigned_requests_costs_no_call_and_no_line_each(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    before = len(world.simulator.requests)
    vault = Vault(WEBHOOK_SECRET)
    check = SignatureCheck(vault, monotonic=lambda: world.clock().timestamp())
    receiver = build_closed_receiver(world.settings.ledger_path.parent, check, world.clock)
    for number in range(10_000):
        signature = None if number % 2 else f"sha256={number:064x}"
        assert receiver.receive(BODY, signature) == 401
    assert len(world.simulator.requests) == before
    assert vault.reads == 1
    assert [record.getMessage() for record in caplog.records] == ["webhooks.refused count=1"]
    world.clock.advance(minutes=2)
    receiver.receive(BODY, None)
    assert caplog.records[-1].getMessage() == "webhooks.refused count=10000"


# The secret


def check_of(vault: Vault, clock: Clock) -> SignatureCheck:
    return SignatureCheck(vault, monotonic=lambda: clock().timestamp())


def test_a_rotated_secret_works_at_its_first_event_and_the_old_one_no_more() -> None:
    vault, clock = Vault("old"), Clock()
    check = check_of(vault, clock)
    assert check.judge(BODY, sign(BODY, "old")) == "signed"
    vault.answers = ["new"]
    assert check.judge(BODY, sign(BODY, "new")) == "signed"
    assert check.judge(BODY, sign(BODY, "old")) == "not signed"
    assert vault.reads == 1


def test_a_rotated_secret_works_within_a_minute_though_a_flood_goes_on() -> None:
    vault, clock = Vault("old"), Clock()
    check = check_of(vault, clock)
    assert check.judge(BODY, sign(BODY, "wrong")) == "not signed"
    vault.answers = ["new"]
    assert check.judge(BODY, sign(BODY, "new")) == "not signed"
    clock.advance(seconds=60)
    assert check.judge(BODY, sign(BODY, "wrong")) == "not signed"
    assert check.judge(BODY, sign(BODY, "new")) == "signed"
    assert vault.reads == 2


@pytest.mark.parametrize("error", [ConfigurationError("It is absent."), TransientError("It is far away.")])
def test_a_secret_that_cannot_be_read_is_told_once_and_asked_for_once_a_minute(
    caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    vault, clock = Vault(error), Clock()
    check = check_of(vault, clock)
    for _ in range(100):
        assert check.judge(BODY, sign(BODY, "new")) == "no secret"
    clock.advance(seconds=61)
    assert check.judge(BODY, sign(BODY, "new")) == "no secret"
    assert vault.reads == 2
    assert caplog.messages == [f"webhooks are refused: {error}"]
    vault.answers = ["new"]
    clock.advance(seconds=61)
    assert check.judge(BODY, sign(BODY, "new")) == "signed"


# Mail


def test_an_email_is_worked_on_without_a_poll(world: World, events: pytest.LogCaptureFixture) -> None:
    email_id = world.deliver()
    assert hear(world, build_event(world, email_id)) == 204
    world.work()
    assert world.outcome(email_id) == "reply_submitted"
    assert results(events) == [("message.received", "added")]


@pytest.mark.parametrize("name", ["message.received", "oversight.approved"])
@pytest.mark.parametrize("names_mailbox", [True, False])
def test_an_email_that_is_released_from_inbound_approval_is_worked_on_at_once(
    world: World, events: pytest.LogCaptureFixture, name: str, names_mailbox: bool
) -> None:
    world.simulator.set_mode(world.box, "gated_all")
    email_id = world.deliver()
    world.poll_and_work()
    assert world.entry(email_id).waiting_for is Cause.INBOUND_APPROVAL
    world.clock.advance(seconds=20)
    world.simulator.release_inbound(email_id)
    body = build_event(world, email_id, name, **({} if names_mailbox else {"mailbox_id": None}))
    assert hear(world, body) == 204
    assert world.queue.bodies.qsize() == 1
    world.work()
    assert world.outcome(email_id) == "reply_submitted"
    assert hear(world, body) == 204
    assert world.queue.bodies.empty()
    assert results(events) == [
        (name, "released"),
        (name, "known" if name == "message.received" else "ignored"),
    ]


def test_repeated_and_replayed_events_make_one_row_one_ring_and_one_reply(world: World) -> None:
    email_id = world.deliver()
    body = build_event(world, email_id)
    assert [hear(world, body) for _ in range(3)] == [204] * 3
    assert world.queue.bodies.qsize() == 1
    world.work()
    world.clock.advance(days=2)
    assert hear(world, body) == 204
    world.run_until_idle()
    assert len(world.simulator.accepted) == 1
    assert len(list(world.ledger.entries(world.box))) == 1


@pytest.mark.parametrize("polled_first", [True, False])
def test_poll_and_event_in_either_order_make_one_reply(world: World, polled_first: bool) -> None:
    email_id = world.deliver()
    steps: list[Callable[[], object]] = [world.poller.poll, lambda: hear(world, build_event(world, email_id))]
    for step in steps if polled_first else reversed(steps):
        step()
    world.run_until_idle()
    assert len(world.simulator.accepted) == 1
    assert len(list(world.ledger.entries(world.box))) == 1


def test_an_event_does_not_move_the_watermark_past_what_was_not_listed(world: World) -> None:
    world.poller.poll()
    unheard = world.deliver()
    world.clock.advance(hours=1)
    heard = world.deliver(sender="bob@customer.example")
    hear(world, build_event(world, heard))
    world.run_until_idle()
    assert [world.outcome(email_id) for email_id in (unheard, heard)] == ["reply_submitted"] * 2


@pytest.mark.parametrize("to", [["Support <SUPPORT@northwind.example>"], "support@northwind.example"])
def test_the_mailbox_is_found_by_its_address_when_the_event_does_not_name_it(world: World, to: Any) -> None:
    email_id = world.deliver()
    hear(world, build_event(world, email_id, "email.received", mailbox_id=None, to=to))
    world.work()
    assert world.outcome(email_id) == "reply_submitted"


def test_what_is_not_for_a_polled_mailbox_is_acknowledged_and_ignored(
    tmp_path: Path, events: pytest.LogCaptureFixture
) -> None:
    with World(tmp_path) as world:
        world.simulator.add_mailbox("a mailbox without a readable address")
        asleep = world.simulator.add_mailbox("asleep@northwind.example", is_active=False)
        email_id = world.deliver()
        changes: tuple[dict[str, Any], ...] = (
            {"mailbox_id": "mb_unknown"}, {"mailbox_id": asleep}, {"direction": "outbound"},
            {"mailbox_id": None, "to": ["somebody@else.example"]}, {"mailbox_id": None, "to": []},
            {"mailbox_id": None, "to": None}, {"mailbox_id": None, "to": ["", "not an address"]},
        )  # fmt: skip
        for change in changes:
            assert hear(world, build_event(world, email_id, **change)) == 204
        assert {result for _, result in results(events)} == {"ignored"}
        assert world.queue.bodies.empty()
        assert list(world.ledger.entries(world.box)) == []


def test_a_mailbox_that_is_not_chosen_is_ignored(tmp_path: Path) -> None:
    with World(tmp_path, multimail_mailbox_ids=("mb_other",)) as world:
        assert hear(world, build_event(world, world.deliver())) == 204
        assert world.queue.bodies.empty()


def test_an_email_to_two_of_our_mailboxes_is_left_to_polling_when_the_event_names_neither(
    world: World,
) -> None:
    world.simulator.add_mailbox("sales@northwind.example")
    email_id = world.deliver()
    both = ["support@northwind.example", "sales@northwind.example"]
    assert hear(world, build_event(world, email_id, mailbox_id=None, to=both)) == 204
    assert world.queue.bodies.empty()
    world.run_until_idle()
    assert world.outcome(email_id) == "reply_submitted"


def test_an_event_with_another_mailbox_s_id_replies_to_nobody_and_hides_nothing(world: World) -> None:
    other = world.simulator.add_mailbox("sales@northwind.example")
    email_id = world.deliver()
    hear(world, build_event(world, email_id, mailbox_id=other))
    world.run_until_idle()
    assert [(a.mailbox_id, a.in_reply_to) for a in world.simulator.accepted] == [(world.box, email_id)]
    lied = world.ledger.get(WorkItem(other, email_id))
    assert lied is not None
    assert str(lied.outcome) == "skipped"


def test_an_outbound_email_that_is_shown_as_inbound_is_not_answered(world: World) -> None:
    sent = world.simulator.add_outbound(world.box, ["ann@customer.example"], "News", "Here is some news.")
    hear(world, build_event(world, sent, direction="inbound", **{"from": "ann@customer.example"}))
    world.run_until_idle()
    assert world.simulator.accepted == []
    assert world.outcome(sent) == "skipped"


def test_sender_and_time_of_an_event_are_replaced_by_the_email_s_own(world: World) -> None:
    email_id = world.deliver()
    world.clock.advance(minutes=5)
    world.simulator.human_reply(email_id, "I have answered you myself.")
    world.clock.advance(minutes=5)
    hear(world, build_event(world, email_id, **{"from": "mallory@evil.example"}))
    world.run_until_idle()
    assert world.outcome(email_id) == "skipped"  # the human's answer is newer than the email
    assert (world.entry(email_id).sender, world.entry(email_id).received_at) == (
        "ann@customer.example",
        START,
    )


@pytest.mark.parametrize(
    "timestamp",
    ["2999-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00", "soon", None, 5, "0001-01-01T00:00:00+12:00"],
)
def test_a_strange_timestamp_is_no_reason_to_miss_an_email_or_to_date_it_into_the_future(
    world: World, timestamp: object
) -> None:
    email_id = world.deliver()
    body = json.dumps(json.loads(build_event(world, email_id)) | {"timestamp": timestamp}).encode()
    assert hear(world, body) == 204
    assert world.entry(email_id).received_at <= world.clock()
    world.work()
    assert world.outcome(email_id) == "reply_submitted"


def test_an_event_that_is_faster_than_the_service_s_own_listing_loses_nothing(world: World) -> None:
    email_id = world.deliver()
    world.simulator.fault = in_order(
        *[answer_with(404)] * 3, matching=lambda method, path: method == "GET" and path.endswith(email_id)
    )
    hear(world, build_event(world, email_id))
    world.run_until_idle()
    assert world.outcome(email_id) == "reply_submitted"


# Decisions


def submit_reply(world: World) -> str:
    email_id = world.deliver()
    world.run_until_idle()
    reply_id = world.entry(email_id).reply_id
    assert reply_id is not None
    return reply_id


def test_a_decision_reaches_the_reply_at_once(world: World, events: pytest.LogCaptureFixture) -> None:
    reply_id = submit_reply(world)
    world.simulator.decide(reply_id, "approve")
    assert hear(world, build_event(world, reply_id, "oversight.approved")) == 204
    (entry,) = world.ledger.entries(world.box)
    assert (entry.reply_status, entry.reply_settled_at) == ("delivered", world.clock())
    assert world.tags(entry.email_id)["agent.reply_status"] == "delivered"
    assert world.ledger.tracked_replies() == []
    assert hear(world, build_event(world, reply_id, "message.delivered")) == 204
    assert results(events)[-2:] == [("oversight.approved", "tracked"), ("message.delivered", "ignored")]


@pytest.mark.parametrize(
    ("changes", "is_found"),
    [
        ({"mailbox_id": None}, True),
        ({"mailbox_id": None, "from": "Support <support@northwind.example>"}, True),
        ({"mailbox_id": None, "from": "unknown@elsewhere.example"}, True),
        ({"mailbox_id": None, "from": None}, True),
        ({"mailbox_id": "mb_of_somebody_else"}, False),
    ],
)
def test_a_decision_is_found_by_what_the_event_names(
    world: World, changes: dict[str, Any], is_found: bool
) -> None:
    world.simulator.add_mailbox("sales@northwind.example", "gated_send")
    reply_id = submit_reply(world)
    world.simulator.decide(reply_id, "approve")
    event = json.loads(build_event(world, reply_id, "oversight.approved"))
    assert hear(world, json.dumps(event | {"data": event["data"] | changes}).encode()) == 204
    (entry,) = world.ledger.entries(world.box)
    assert (entry.reply_status == "delivered") == is_found


def test_what_an_event_says_of_a_reply_is_not_believed(world: World) -> None:
    reply_id = submit_reply(world)
    for name in ("oversight.approved", "oversight.rejected", "message.delivered", "message.complained"):
        assert hear(world, build_event(world, reply_id, name)) == 204
    (entry,) = world.ledger.entries(world.box)
    assert (entry.reply_status, entry.reply_settled_at) == ("pending_send_approval", None)
    (tracked,) = world.ledger.tracked_replies()
    assert (tracked.reply_id, tracked.status) == (reply_id, "pending_send_approval")
    assert tracked.check_at > world.clock()


def test_a_decision_about_somebody_else_s_email_reads_nothing(world: World) -> None:
    submit_reply(world)
    sent = world.simulator.add_outbound(world.box, ["ann@customer.example"], "News", "News.")
    before = len(world.simulator.requests)
    assert hear(world, build_event(world, sent, "message.delivered")) == 204
    assert len(world.simulator.requests) == before


def test_events_of_replies_out_of_order_and_after_tracking_settle_once(
    world: World, events: pytest.LogCaptureFixture
) -> None:
    reply_id = submit_reply(world)
    world.simulator.decide(reply_id, "approve")
    world.clock.advance(minutes=6)
    world.tracker.track()
    for name in ("message.delivered", "oversight.approved", "oversight.pending"):
        assert hear(world, build_event(world, reply_id, name)) == 204
    settled = [r for r in events.records if vars(r).get("agent.event") == "reply.settled"]
    assert len(settled) == 1


def test_an_event_that_is_long_under_way_loses_no_email_that_shows_late(world: World) -> None:
    email_id = world.deliver()
    event = json.loads(build_event(world, email_id)) | {"timestamp": "2026-03-02T11:30:00+00:00"}
    world.simulator.fault = in_order(
        answer_with(404), matching=lambda _method, path: path.endswith(f"/emails/{email_id}")
    )
    assert hear(world, json.dumps(event).encode()) == 204
    world.work()
    assert world.entry(email_id).finished_at is None
    world.run_until_idle()
    assert world.outcome(email_id) == "reply_submitted"


# Trouble


class BrokenLedger(Ledger):
    """Out of reach as long as `is_down`."""

    is_down = False

    def add(self, entry: Any) -> Any:
        if self.is_down:
            raise TransientError("the ledger is down")
        return super().add(entry)

    def find_tracked_replies(self, mailbox_id: str, reply_id: str) -> Any:
        if self.is_down:
            raise TransientError("the ledger is down")
        return super().find_tracked_replies(mailbox_id, reply_id)


def test_with_the_ledger_down_the_event_is_asked_for_again_and_polling_finds_the_email(
    tmp_path: Path,
) -> None:
    ledger = BrokenLedger(SqliteStore(tmp_path / "ledger.sqlite"))
    with World(tmp_path, ledger) as world:
        email_id = world.deliver()
        ledger.is_down = True
        assert hear(world, build_event(world, email_id)) == 503
        assert hear(world, build_event(world, email_id, "oversight.approved")) == 503
        ledger.is_down = False
        world.run_until_idle()
        assert world.outcome(email_id) == "reply_submitted"


def test_with_multimail_down_the_event_is_asked_for_again_and_then_taken_in(world: World) -> None:
    email_id = world.deliver()
    world.simulator.fault = lambda _method, _path, _number: answer_with(503)
    assert hear(world, build_event(world, email_id)) == 503
    world.simulator.fault = in_order()
    assert hear(world, build_event(world, email_id)) == 204
    world.work()
    assert world.outcome(email_id) == "reply_submitted"


def test_an_email_that_could_not_be_enqueued_is_enqueued_by_the_next_poll(world: World) -> None:
    class Deaf(InProcessWorkQueue):
        def send(self, items: Any, lives: Any) -> None:
            raise TransientError("the queue is down")

    email_id = world.deliver()
    client = MultiMailClient(world._server.url, StaticSecret(Secret(world.key)), clock=world.clock)
    mailboxes = MailboxDirectory(client)
    poller = Poller(
        multimail=client, mailboxes=mailboxes, ledger=world.ledger, work_queue=Deaf(),
        settings=world.settings, clock=world.clock, profiles=NO_PROFILES,
        pauses=Pauses(world.ledger, NO_PROFILES, all_paused=False), find_secret=find_no_secret,
    )  # fmt: skip
    receiver = WebhookReceiver(
        signatures=SignatureCheck(StaticSecret(Secret(WEBHOOK_SECRET))), mailboxes=mailboxes, poller=poller,
        tracker=world.tracker, settings=world.settings, clock=world.clock,
    )  # fmt: skip
    body = build_event(world, email_id)
    assert receiver.receive(body, sign(body)) == 503
    world.poll_and_work()
    assert world.outcome(email_id) == "reply_submitted"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b'"x"', b"[" * 50_000, b'{"event": 1}',
        b'{"event": "message.received"}', b'{"event": "message.received", "data": []}',
        b'{"event": "message.received", "data": {"email_id": ""}}',
        b'{"event": "message.received", "data": {"email_id": 7}}',
        b'{"event": "message.received", "data": {"email_id": "\\ud800"}}',
        b'{"event": "oversight.approved", "data": {"email_id": "a\\nb"}}',
        b'{"event": "message.received", "data": {"email_id": "' + b"x" * 300 + b'"}}',
    ],
)  # fmt: skip
def test_a_signed_body_that_is_no_event_is_refused(world: World, body: bytes) -> None:
    assert hear(world, body) == 400
    assert list(world.ledger.entries(world.box)) == []


def test_an_unknown_event_is_acknowledged_and_its_name_is_not_repeated(
    world: World, events: pytest.LogCaptureFixture
) -> None:
    for body in (b'{"event": "mailbox.created", "data": 1}', b'{"event": "<b>\\n${x}"}'):
        assert hear(world, body) == 204
    assert results(events) == [("unknown", "ignored")] * 2
    assert "<b>" not in events.text


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(
    ["message.received", "email.received", "oversight.approved", "message.bounced", "mailbox.created"]
)
fields = ("email_id", "mailbox_id", "from", "to", "subject", "direction", "has_attachments")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_signed_no_exception_leaves_and_nothing_is_sent(
    world: World, data: st.DataObject
) -> None:
    event: dict[str, Any] = {
        "event": data.draw(names | anything),
        "timestamp": data.draw(anything | st.datetimes().map(str)),
    }
    event["data"] = data.draw(anything | st.fixed_dictionaries({}, optional=dict.fromkeys(fields, anything)))
    if isinstance(event["data"], dict) and data.draw(st.booleans()):
        event["data"] |= {"email_id": data.draw(st.text(min_size=1, max_size=9)), "mailbox_id": world.box}
    body = json.dumps(event).encode()[: data.draw(st.sampled_from([None, -1]))]
    assert hear(world, body) in (204, 400)
    world.work()
    assert [r for r in world.simulator.requests if r.method != "GET" and "/tags" not in r.path] == []


# The whole way, as an operator runs it


class Running:
    """`python -m local run` whose timers fire at the start and never again."""

    def __init__(self, services: Services) -> None:
        never = "0 0 0 1 1 *"
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-m", "local", "run"],
            cwd=services.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=services.environment(
                MULTIMAIL_WEBHOOK_SECRET=WEBHOOK_SECRET, POLL_SCHEDULE=never, TRACK_SCHEDULE=never
            ),
        )  # fmt: skip
        self._watchdog = threading.Timer(60, self._process.kill)
        self._watchdog.start()

    def read_until(self, pattern: str) -> re.Match[str]:
        seen = ""
        for line in self._process.stdout or ():
            seen += line
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"the run ended without {pattern!r}: {seen}")

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()
        self._watchdog.cancel()


def hear_listings(simulator: MultiMailSimulator, count: int) -> threading.Event:
    """Set once that many listings were asked for."""
    heard, listings = threading.Event(), []

    def source(method: str, path: str, number: int) -> None:
        if path.endswith("/emails"):
            listings.append(number)
        if len(listings) == count:
            heard.set()

    simulator.fault = source
    return heard


def test_over_http_mail_is_answered_and_its_approval_known_while_no_timer_fires(tmp_path: Path) -> None:
    services = Services(tmp_path)
    simulator, sender = services.multimail, services.multimail.webhook_sender
    with services.multimail_server, services.chat_server:
        box = simulator.add_mailbox("support@northwind.example")
        first_poll = hear_listings(simulator, 2)
        with Running(services) as run:
            root = run.read_until(r"HTTP functions: (http://127.0.0.1:\d+/api/) .*webhook")[1]
            assert requests.get(f"{root}health", timeout=10).status_code == 200
            assert requests.post(f"{root}webhook", data=BODY, timeout=10).status_code == 401
            assert first_poll.wait(20)
            names = ("email.received", "oversight.pending", "oversight.approved", "message.delivered")
            simulator.events_name_mailbox = False
            simulator.webhooks.append(
                Webhook("wh_1", f"{root}webhook", names, None, WEBHOOK_SECRET, simulator.now())
            )
            polls = len(listings_of(simulator))
            email_id = simulator.deliver(
                box, "Ann <ann@customer.example>", "Delivery time", "How long does it take?"
            )
            run.read_until(f"{email_id}.*reply_submitted")
            reply_id = services.entries()[email_id].reply_id
            assert reply_id is not None
            simulator.decide(reply_id, "approve")
            assert sender.wait_until_idle()
            entry = services.entries()[email_id]
            assert (entry.reply_status, entry.reply_settled_at is not None) == ("delivered", True)
            tagged = simulator.find_email(email_id)
            assert tagged is not None
            assert tagged.tags["agent.reply_status"] == "delivered"
        assert len(listings_of(simulator)) == polls
        assert {delivery.event for delivery in sender.deliveries} == set(names)
        assert all(delivery.statuses == [204] for delivery in sender.deliveries)
        services.check_promises()


def listings_of(simulator: MultiMailSimulator) -> list[str]:
    return [record.path for record in simulator.requests if record.path.endswith("/emails")]


# The simulated service's own part


class Subscriber:
    """Answers webhooks with the statuses that it is told, and keeps what it got."""

    def __init__(self, *statuses: int) -> None:
        self.got: list[tuple[str, bytes]] = []
        self._statuses = iter(statuses)
        self.app = Flask("subscriber")
        self.app.add_url_rule("/hook", "hook", self._take, methods=["POST"])

    def _take(self) -> tuple[str, int]:
        self.got.append((request.headers["X-MultiMail-Signature"], request.get_data()))
        return "", next(self._statuses, 200)


def test_the_simulator_delivers_what_was_subscribed_to_signed_and_again_when_refused() -> None:
    clock = Clock()
    simulator = MultiMailSimulator(clock)
    simulator.webhook_sender = WebhookSender(pause_seconds=0)
    box = simulator.add_mailbox("support@northwind.example")
    other = simulator.add_mailbox("sales@northwind.example")
    subscriber = Subscriber(500, 500, 200, 500, 500, 500, 500)
    with LoopbackServer(subscriber.app) as server:
        made = simulator.subscribe(f"{server.url}/hook", ["message.received"], box, "operator")
        simulator.subscribe("https://agent.example/hook", ["message.received"], None, "operator")
        simulator.deliver(other, "ann@customer.example", "Hi", "Hello.")
        email_id = simulator.deliver(box, "Ann <ann@customer.example>", "Hi", "Hello.")
        simulator.human_reply(email_id, "Hello.")
        simulator.deliver(box, "ann@customer.example", "Refused for good", "Hello.")
        assert simulator.webhook_sender.wait_until_idle()
    assert [d.statuses for d in simulator.webhook_sender.deliveries] == [[500, 500, 200], [500] * 4]
    signature, body = subscriber.got[0]
    assert signature == sign(body, made.signing_secret)
    assert json.loads(body) == {
        "event": "message.received",
        "timestamp": "2026-03-02T12:00:00.000Z",
        "data": {
            "mailbox_id": box, "email_id": email_id, "from": "Ann <ann@customer.example>",
            "to": ["support@northwind.example"], "subject": "Hi", "direction": "inbound", "has_attachments": False,
        },
    }  # fmt: skip
