"""A paused mailbox: its mail waits where people see it, and none of it is lost or too old afterwards."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from local.commands.pause import pause, resume
from local.host.http_server import LoopbackServer
from local.host.run import MISCONFIGURED, OK
from local.multimail.faults import answer_with, cut
from local.multimail.simulator import MultiMailSimulator
from local.testing.world import Clock, World
from shared.domain import Cause
from shared.ledger.sqlite_store import open_sqlite_ledger
from shared.profiles import pauses
from shared.profiles.pauses import MAX_AGE_SECONDS, Pauses
from shared.profiles.profile_file import parse_profiles
from shared.profiles.profiles import NO_PROFILES


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        yield world


def is_unread(world: World, email_id: str) -> bool:
    email = world.simulator.find_email(email_id)
    return email is not None and email.status == "unread"


@pytest.mark.parametrize("way", ["command", "profile", "setting"])
def test_mail_of_a_paused_mailbox_waits_unread_with_a_tag(tmp_path: Path, way: str) -> None:
    profiles = parse_profiles("default: {paused: true}", "x") if way == "profile" else NO_PROFILES
    with World(tmp_path, profiles=profiles, pause_all=way == "setting") as world:
        if way == "command":
            pauses.pause(world.ledger, world.box, world.clock())
        email_id = world.deliver()
        world.run_until_idle()
        assert world.entry(email_id).waiting_for is Cause.PAUSED
        assert world.tags(email_id) == {"agent.waiting_for": "waiting: its mailbox is paused"}
        assert is_unread(world, email_id)
        assert world.model.requests == []


def test_what_waits_in_a_pause_costs_nothing_until_the_mailbox_is_resumed(world: World) -> None:
    pauses.pause(world.ledger, world.box, world.clock())
    emails = [world.deliver(sender=f"ann{n}@customer.example") for n in range(3)]
    world.poll_and_work()
    rows = [world.entry(email_id).version for email_id in emails]
    for _ in range(10):
        world.clock.advance(minutes=10)
        world.poll_and_work()
    assert [world.entry(email_id).version for email_id in emails] == rows
    assert world.ledger.next_due_at() is None
    pauses.resume(world.ledger, world.box)
    world.run_until_idle()
    assert {world.outcome(email_id) for email_id in emails} == {"reply_submitted"}


def deliver_into_a_long_pause(world: World) -> str:
    """Let an email wait in a pause for longer than an email may be old, and resume."""
    pauses.pause(world.ledger, world.box, world.clock())
    email_id = world.deliver()
    world.poll_and_work()
    world.clock.advance(hours=world.settings.max_email_age_hours * 3)
    pauses.resume(world.ledger, world.box)
    return email_id


def test_the_age_of_what_waited_counts_from_the_resumption(world: World) -> None:
    email_id = deliver_into_a_long_pause(world)
    world.run_until_idle()
    assert world.outcome(email_id) == "reply_submitted"


def test_a_service_that_is_down_at_the_resumption_makes_nothing_too_old(world: World) -> None:
    email_id = deliver_into_a_long_pause(world)
    world.poller.poll()
    world.simulator.fault = lambda _method, path, _number: (
        None if "/emails/" not in path else answer_with(503)
    )
    world.work()
    world.simulator.fault = lambda *_: None
    world.run_until_idle()
    assert world.outcome(email_id) == "reply_submitted"


def test_what_a_person_answered_during_the_pause_is_not_answered_again(world: World) -> None:
    pauses.pause(world.ledger, world.box, world.clock())
    email_id = world.deliver()
    world.poll_and_work()
    world.clock.advance(hours=5)
    world.simulator.human_reply(email_id, "Two weeks.")
    pauses.resume(world.ledger, world.box)
    world.run_until_idle()
    assert world.entry(email_id).cause is Cause.ANSWERED


def test_other_mailboxes_go_on(world: World) -> None:
    other = world.simulator.add_mailbox("sales@northwind.example")
    pauses.pause(world.ledger, world.box, world.clock())
    waiting, answered = world.deliver(), world.deliver("Prices?", box=other, to=["sales@northwind.example"])
    world.run_until_idle()
    assert world.entry(waiting).waiting_for is Cause.PAUSED
    assert world.outcome(answered) == "reply_submitted"


def test_a_reply_in_doubt_is_looked_for_in_a_pause_too(world: World) -> None:
    email_id = world.deliver()
    world.simulator.fault = lambda method, path, _number: (
        cut(after_effect=True) if method == "POST" and "/reply/" in path else None
    )
    world.poll_and_work()
    assert world.entry(email_id).intent_in_doubt is not None
    world.simulator.fault = lambda *_: None
    pauses.pause(world.ledger, world.box, world.clock())
    assert world.pipeline.pauses.holds(world.pipeline.mailboxes.get(world.box), max_age_seconds=0)
    world.clock.advance(minutes=30)
    world.run_until_idle()
    assert world.outcome(email_id) == "reply_submitted"


def test_what_waits_in_a_pause_is_no_backlog(world: World) -> None:
    pauses.pause(world.ledger, world.box, world.clock())
    world.deliver()
    world.poll_and_work()
    assert world.ledger.open_since() == []


def test_the_command_is_seen_everywhere_after_a_short_while(tmp_path: Path) -> None:
    ledger, now = open_sqlite_ledger(tmp_path / "ledger.sqlite"), [0.0]
    box = MultiMailSimulator(Clock())
    with World(tmp_path, ledger=ledger) as world:
        mailbox = replace(world.agent.pipeline.mailboxes.get(world.box), id="mb")
        known = Pauses(ledger, NO_PROFILES, all_paused=False, monotonic=lambda: now[0])
        assert not known.holds(mailbox)
        first = pauses.pause(ledger, "mb", box.now())
        assert pauses.pause(ledger, "mb", box.now() + timedelta(hours=1)) == first
        assert not known.holds(mailbox)
        now[0] += MAX_AGE_SECONDS
        assert known.holds(mailbox)
        pauses.resume(ledger, "mb")
        assert not known.holds(mailbox, max_age_seconds=0)


# Said before it happens


def test_how_far_back_a_first_poll_reads_is_known_before_it(world: World) -> None:
    since = world.clock() - timedelta(hours=world.settings.initial_lookback_hours)
    assert world.poller.find_first_reads() == {"support@northwind.example": since}
    assert all("/emails" not in request.path for request in world.simulator.requests)
    world.poller.poll()
    assert world.poller.find_first_reads() == {}


# The commands


@pytest.fixture
def run_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    simulator = MultiMailSimulator(Clock())
    box = simulator.add_mailbox("support@northwind.example")
    with LoopbackServer(simulator.app) as server:
        for name, value in {
            "MULTIMAIL_API_URL": server.url, "MULTIMAIL_API_KEY": simulator.add_key(),
            "MODEL_ENDPOINT": "http://127.0.0.1:1", "TRIAGE_DEPLOYMENT": "small",
            "LEDGER_PATH": str(tmp_path / "ledger.sqlite"), "CONFIG_PATH": str(tmp_path),
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)

        def run(command: Any, mailbox: str) -> tuple[int, str]:
            output = StringIO()
            status = command(Console(file=output, width=10_000), mailbox)
            return status, output.getvalue().replace(box, "BOX")

        yield run


def test_a_mailbox_is_paused_and_resumed_by_its_address(run_command: Any) -> None:
    status, output = run_command(pause, "Support@Northwind.example")
    assert status == OK
    assert "support@northwind.example is paused since" in output
    assert "`python -m local resume BOX`" in output
    status, output = run_command(resume, "support@northwind.example")
    assert (status, output) == (
        OK, "support@northwind.example is resumed: emails that waited and are now worked on: 0.\n",
    )  # fmt: skip


def test_a_wrong_mailbox_is_answered_with_those_that_there_are(run_command: Any) -> None:
    status, output = run_command(pause, "sales@northwind.example")
    assert status == MISCONFIGURED
    assert "no active mailbox 'sales@northwind.example'" in output
    assert "BOX (support@northwind.example)" in output


@pytest.mark.parametrize(
    ("way", "remedy"), [("setting", "PAUSE_ALL is true"), ("profile", "its profile says so")]
)
def test_what_else_pauses_a_mailbox_is_named(
    run_command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, remedy: str
) -> None:
    if way == "setting":
        monkeypatch.setenv("PAUSE_ALL", "true")
    else:
        (tmp_path / "mailboxes.yaml").write_text("default: {paused: true}")
    status, output = run_command(resume, "support@northwind.example")
    assert status == OK
    assert f"is still paused: {remedy}" in output
