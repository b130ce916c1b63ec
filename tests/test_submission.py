"""Exactly once: the order of intent, gate and POST, and what each answer to the first try leaves behind."""

import contextlib
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from local.multimail.faults import Fault, answer_with, cut, in_order, rate_limited
from local.testing.world import DRAFT, World
from shared.domain import Cause
from shared.errors import ConfigurationError


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        yield world


def posts_reply(method: str, path: str) -> bool:
    return method == "POST" and "/reply/" in path


def reads_allowlist(_method: str, path: str) -> bool:
    return path.endswith("/allowlist")


def test_the_intent_is_stored_before_the_gate_and_nothing_comes_between_the_gate_and_each_post(
    world: World,
) -> None:
    email_id = world.deliver()
    intents: list[datetime | None] = []
    lost = in_order(cut(after_effect=False), matching=posts_reply)

    def watch(method: str, path: str, number: int) -> Fault | None:
        if reads_allowlist(method, path):
            intents.append(world.entry(email_id).submit_intent_at)
        return lost(method, path, number)

    world.simulator.fault = watch
    world.run_until_idle()
    assert world.outcome(email_id) == "reply_submitted"
    assert len(intents) == 2
    assert None not in intents
    paths = [request.path for request in world.simulator.requests]
    gate = {"/v1/mailboxes", f"/v1/mailboxes/{world.box}/allowlist"}
    posts = [n for n, path in enumerate(paths) if "/reply/" in path]
    assert len(posts) == 2
    assert all(set(paths[n - 2 : n]) == gate for n in posts)


def test_slots_are_taken_before_the_intent_is_stored(world: World) -> None:
    email_id = world.deliver()
    thread_id = world.simulator.get_email(world.box, email_id).thread_id
    held: list[tuple[str, ...]] = []

    def watch(method: str, path: str, _number: int) -> Fault | None:
        if reads_allowlist(method, path):
            held.append(world.ledger.slots(f"thread/{world.box}/{thread_id}"))
        return None

    world.simulator.fault = watch
    world.run_until_idle()
    assert held == [(email_id,)]


def test_a_gate_that_refuses_the_first_try_leaves_no_intent(world: World) -> None:
    email_id = world.deliver()
    world.model.steps = [lambda: None, lambda: world.simulator.set_mode(world.box, "autonomous")]
    world.run_until_idle()
    entry = world.entry(email_id)
    assert (entry.cause, entry.detail) == (Cause.UNGATED_MODE, "autonomous")
    assert entry.submit_intent_at is None
    assert world.posts() == []


@pytest.mark.parametrize("fault", [answer_with(500), rate_limited(60)])
def test_a_gate_that_cannot_be_read_on_the_first_try_leaves_nothing_in_doubt(
    world: World, fault: Fault
) -> None:
    email_id = world.deliver()
    world.simulator.fault = in_order(*[fault] * 3, matching=reads_allowlist)
    world.poll_and_work()
    assert world.entry(email_id).outcome is None
    assert world.entry(email_id).submit_intent_at is None
    world.clock.advance(hours=25)
    world.run_until_idle()
    assert world.outcome(email_id) == "reply_submitted"


def test_a_refused_key_on_the_first_try_leaves_nothing_in_doubt(world: World) -> None:
    email_id = world.deliver()
    world.simulator.fault = in_order(answer_with(401), matching=posts_reply)
    world.poller.poll()
    with pytest.raises(ConfigurationError, match="MULTIMAIL_API_KEY"):
        world.work()
    assert world.entry(email_id).submit_intent_at is None
    assert world.entry(email_id).waiting_for is Cause.CONFIGURATION
    world.clock.advance(hours=25)
    world.run_until_idle()
    assert world.outcome(email_id) == "reply_submitted"


@pytest.mark.parametrize("second", [rate_limited(60), answer_with(401)])
def test_a_later_try_that_is_refused_for_now_leaves_the_first_one_in_doubt(
    world: World, second: Fault
) -> None:
    email_id = world.deliver()
    world.simulator.fault = in_order(cut(after_effect=False), second, matching=posts_reply)
    world.poll_and_work()
    intent_at = world.entry(email_id).submit_intent_at
    world.clock.now = world.entry(email_id).due_at
    world.poller.poll()
    with contextlib.suppress(ConfigurationError):
        world.work()
    assert len(world.posts()) == 2
    assert world.entry(email_id).submit_intent_at == intent_at is not None
    world.clock.advance(hours=24)
    world.run_until_idle()
    assert world.entry(email_id).cause is Cause.REPLY_UNCONFIRMED
    assert len(world.posts()) == 2


def test_a_reply_that_was_rejected_in_another_row_is_never_taken_for_ours(world: World) -> None:
    first = world.deliver()
    world.run_until_idle()
    rejected = world.tags(first)["agent.reply_id"]
    world.simulator.set_tags(world.box, rejected, {"agent.reject_reason": "name the day"}, "a reviewer")
    world.simulator.decide(rejected, "reject")
    world.clock.advance(minutes=5)
    world.tracker.track()
    world.model.steps = [json.dumps(DRAFT | {"reply_markdown": "On Wednesday."})]
    world.run_until_idle()
    second = world.deliver("And how much is it?", in_reply_to=first)
    world.simulator.fault = in_order(cut(after_effect=False), matching=posts_reply)
    world.poll_and_work()
    assert world.entry(second).submit_intent_at is not None
    world.clock.advance(hours=24)
    world.run_until_idle()
    entry = world.entry(second)
    assert (entry.cause, entry.reply_id) == (Cause.REPLY_UNCONFIRMED, None)
