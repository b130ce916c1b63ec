"""Tracking replies: every end is seen, kept, tagged and counted once, and waiting for a human costs little."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from azure.data.tables import TableServiceClient

from local.multimail.faults import (
    FaultSource,
    always,
    answer_with,
    cut,
    in_order,
    is_about_tags,
    not_found,
    rate_limited,
)
from local.testing.azurite import Azurite
from local.testing.world import START, World
from shared.domain import Cause, Email, WorkItem
from shared.errors import ConfigurationError, TransientError
from shared.ledger.entries import LedgerEntry, TrackedReply
from shared.ledger.ledger import Ledger
from shared.ledger.table_store import TableStore
from shared.operator.trust import Fate, read_drafts
from shared.replying.reporting import REJECT_REASON_TAG
from shared.telemetry import EMAIL_DECIDED, EVENT_LOGGER, REPLIES_PENDING, REPLY_SETTLED, REPLY_WITHDRAWN
from shared.watching.tracking import (
    CHECKS_AT_ONCE,
    MAX_REJECT_REASON_CHARACTERS,
    SETTLED,
    UNSETTLED,
    derive_status,
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        yield world


Events = Callable[[str], list[dict[str, Any]]]


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture) -> Events:
    """The recorded events of a name, as their attributes."""
    caplog.set_level(logging.INFO, EVENT_LOGGER)

    def of(name: str) -> list[dict[str, Any]]:
        return [
            {
                key: value
                for key, value in r.__dict__.items()
                if key.startswith("agent.") and key != "agent.event"
            }
            for r in caplog.records
            if r.__dict__.get("agent.event") == name
        ]

    return of


def replied(world: World, **fields: Any) -> tuple[str, str]:
    """An email that has its reply, which waits for approval and is due to be looked at; both ids."""
    email_id = world.deliver(**fields)
    world.run_until_idle()
    reply_id = world.entry(email_id).reply_id
    assert reply_id is not None
    world.clock.advance(minutes=5)
    return email_id, reply_id


def track_after(world: World, **duration: float) -> None:
    world.clock.advance(**duration)
    world.tracker.track()


def status_of(world: World, email_id: str) -> str | None:
    """The status in the ledger, which the tag on the email must repeat."""
    status = world.entry(email_id).reply_status
    assert world.tags(email_id).get("agent.reply_status") == status
    return status


def requests_of(world: World, work: Callable[[], object]) -> list[str]:
    before = len(world.simulator.requests)
    work()
    return [f"{r.method} {r.path.rpartition('/')[2]}" for r in world.simulator.requests[before:]]


def reads(email_id: str) -> Callable[[str, str], bool]:
    return lambda method, path: method == "GET" and path.endswith(f"/emails/{email_id}")


# Every end


def test_a_reply_that_waits_for_approval_is_said_to_wait(world: World) -> None:
    email_id, _ = replied(world)
    world.tracker.track()
    assert status_of(world, email_id) == "pending_send_approval"
    assert world.entry(email_id).reply_settled_at is None


def test_an_approved_reply_is_delivered(world: World, events: Events) -> None:
    email_id, reply_id = replied(world)
    world.tracker.track()
    world.clock.advance(minutes=1)
    world.simulator.decide(reply_id, "approve")
    track_after(world, minutes=4)
    assert status_of(world, email_id) == "delivered"
    assert world.entry(email_id).reply_settled_at == world.clock()
    assert events(REPLY_SETTLED) == [
        {
            "agent.mailbox_id": world.box, "agent.email_id": email_id, "agent.reply_id": reply_id,
            "agent.reply_status": "delivered", "agent.revision": 1, "agent.redrafted": False,
            "agent.decision": "approved", "agent.seconds_to_decision": 360.0, "agent.category": "question", "agent.actor": "reviewer",
            "agent.settled_at": world.clock().isoformat(timespec="microseconds"),
        }
    ]  # fmt: skip
    assert world.entry(email_id).reply_decided_at == world.clock() - timedelta(minutes=4)


@pytest.mark.parametrize("fate", ["bounced", "send_failed"])
def test_an_approved_reply_that_cannot_be_delivered_is_seen(
    world: World, fate: Literal["bounced", "send_failed"]
) -> None:
    email_id, reply_id = replied(world)
    world.simulator.refuse_delivery("ann@customer.example", fate)
    world.simulator.decide(reply_id, "approve")
    world.tracker.track()
    assert status_of(world, email_id) == fate
    assert world.ledger.tracked_replies() == []


def test_a_rejected_reply_is_seen_and_the_decision_timed(world: World, events: Events) -> None:
    email_id, reply_id = replied(world)
    world.simulator.decide(reply_id, "reject")
    world.tracker.track()
    assert status_of(world, email_id) == "rejected"
    assert [event["agent.seconds_to_decision"] for event in events(REPLY_SETTLED)] == [300.0]


def test_a_reply_that_a_human_cancels_is_seen(world: World) -> None:
    email_id, reply_id = replied(world)
    world.tracker.track()
    world.simulator.cancel(world.box, reply_id, "operator")
    track_after(world, minutes=5)
    assert status_of(world, email_id) == "cancelled"


def test_a_reply_whose_end_opened_its_email_does_not_open_it_twice(world: World) -> None:
    """The answer to that write may be lost: the reply is then noted once more."""
    email_id, reply_id = replied(world)
    world.simulator.cancel(world.box, reply_id, "operator")
    (tracked,) = world.ledger.tracked_replies()
    world.tracker.track()
    reopened_at = world.entry(email_id).reopened_at
    assert reopened_at is not None
    world.ledger.track_replies([tracked])
    track_after(world, minutes=5)
    assert world.ledger.tracked_replies() == []
    world.run_until_idle()
    world.ledger.track_replies([tracked])
    track_after(world, minutes=5)
    assert world.ledger.tracked_replies() == []
    assert world.entry(email_id).reopened_at == reopened_at


def test_a_reply_that_no_longer_exists_is_gone(world: World, events: Events) -> None:
    email_id, reply_id = replied(world)
    world.simulator.decide(reply_id, "approve")
    world.simulator.fault = in_order(*[answer_with(404)] * 100, matching=reads(reply_id))
    world.tracker.track()
    assert status_of(world, email_id) is None
    track_after(world, hours=4)
    world.run_until_idle()
    assert status_of(world, email_id) == "gone"
    assert (world.outcome(email_id), world.entry(email_id).cause) == ("escalated", Cause.REPLY_GONE)
    (event,) = events(REPLY_SETTLED)
    assert "agent.seconds_to_decision" not in event


def test_a_reply_that_is_still_being_scanned_is_looked_at_again(world: World) -> None:
    world.simulator.scan_seconds = 480
    email_id, _ = replied(world)
    world.tracker.track()
    assert status_of(world, email_id) == "pending_scan"
    track_after(world, minutes=5)
    assert status_of(world, email_id) == "pending_send_approval"


def email(status: str, *times: str) -> Email:
    at: dict[str, Any] = dict.fromkeys(times, START)
    return Email("em_1", "", (), "", status, START, "", **at)


@pytest.mark.parametrize(
    ("shown", "status"),
    [
        (email("read", "approved_at", "delivered_at", "bounced_at"), "bounced"),
        (email("read", "approved_at", "delivered_at"), "delivered"),
        (email("read", "delivered_at"), "delivered"),
        (email("read", "approved_at"), "approved"),
        (email("send_failed", "approved_at"), "send_failed"),
        (email("cancelled", "approved_at"), "cancelled"),
        (email("rejected"), "rejected"),
        (email("pending_scan"), "pending_scan"),
        (email("pending_send_approval"), "pending_send_approval"),
        (email("scheduled"), "scheduled"),
        (email("read"), "unknown"),
        (email("<b>anything</b>"), "unknown"),
    ],
)
def test_a_status_is_one_of_a_few_words_whatever_the_service_says(shown: Email, status: str) -> None:
    assert derive_status(shown) == status
    assert status in SETTLED + UNSETTLED


def test_an_end_is_counted_once_and_never_looked_at_again(world: World, events: Events) -> None:
    _, reply_id = replied(world)
    world.simulator.decide(reply_id, "reject")
    for _ in range(3):
        track_after(world, hours=1)
    assert len(events(REPLY_SETTLED)) == 1
    assert requests_of(world, world.tracker.track) == []


def test_a_reply_that_nobody_decides_for_a_month_is_still_followed_once_a_day(world: World) -> None:
    email_id, reply_id = replied(world)
    world.tracker.track()
    track_after(world, days=31)
    (reply,) = world.ledger.tracked_replies()
    assert reply.check_at - world.clock() == timedelta(days=1)
    world.simulator.decide(reply_id, "reject")
    track_after(world, days=1)
    world.run_until_idle()
    assert (world.outcome(email_id), world.entry(email_id).cause) == ("escalated", Cause.REPLY_REJECTED)


def test_a_reply_that_waits_for_a_month_is_withdrawn_once_a_person_has_answered(world: World) -> None:
    email_id, reply_id = replied(world)
    world.tracker.track()
    track_after(world, days=31)
    world.clock.advance(hours=2)
    world.simulator.human_reply(email_id, "I have called her.")
    track_after(world, hours=22)
    kept = world.simulator.find_email(reply_id)
    assert kept is not None
    assert kept.status == "cancelled"


def test_a_reply_of_unknown_fate_is_given_up_after_a_month_with_its_last_word(
    world: World, events: Events
) -> None:
    email_id, reply_id = replied(world)
    world.simulator.decide(reply_id, "approve")
    world.ledger.track_replies(
        [replace(reply, status="approved") for reply in world.ledger.tracked_replies()]
    )
    track_after(world, days=30)
    assert [event["agent.reply_status"] for event in events(REPLY_SETTLED)] == ["approved"]
    assert status_of(world, email_id) == "approved"
    assert world.ledger.tracked_replies() == []


# Tags


def test_the_status_stands_beside_all_other_tags(world: World) -> None:
    email_id, _ = replied(world, tags={"crm.id": "77"})
    before = world.tags(email_id)
    world.tracker.track()
    assert world.tags(email_id) == before | {"agent.reply_status": "pending_send_approval"}


def test_a_status_that_cannot_be_tagged_is_kept_and_tagged_later(world: World, events: Events) -> None:
    email_id, reply_id = replied(world)
    world.simulator.decide(reply_id, "reject")
    world.simulator.fault = in_order(*[answer_with(500)] * 3, matching=lambda m, p: m == "PUT")
    with pytest.raises(TransientError, match="1 of 1 mailboxes"):
        world.tracker.track()
    assert world.entry(email_id).reply_status == "rejected"
    assert "agent.reply_status" not in world.tags(email_id)
    world.simulator.fault = in_order()
    track_after(world, minutes=5)
    assert status_of(world, email_id) == "rejected"
    assert world.ledger.tracked_replies() == []
    assert len(events(REPLY_SETTLED)) == 1


def test_a_status_that_may_never_be_tagged_is_kept_in_the_ledger(world: World) -> None:
    email_id, reply_id = replied(world)
    world.simulator.decide(reply_id, "reject")
    world.simulator.fault = always(not_found(), matching=is_about_tags)
    world.tracker.track()
    assert world.entry(email_id).reply_status == "rejected"
    track_after(world, hours=4)
    assert world.ledger.tracked_replies() == []


def test_tags_that_are_missing_for_a_while_get_the_status_later(world: World) -> None:
    email_id, reply_id = replied(world)
    world.simulator.decide(reply_id, "approve")
    world.simulator.fault = in_order(not_found(), matching=is_about_tags)
    world.tracker.track()
    assert "agent.reply_status" not in world.tags(email_id)
    track_after(world, minutes=30)
    assert status_of(world, email_id) == "delivered"
    assert world.ledger.tracked_replies() == []


# Faults


def test_a_refused_key_is_a_configuration_error_and_loses_nothing(world: World) -> None:
    email_id, reply_id = replied(world)
    world.simulator.decide(reply_id, "approve")
    key = world.simulator.rotate_key(world.key)
    with pytest.raises(ConfigurationError, match="MULTIMAIL_API_KEY"):
        world.tracker.track()
    world.simulator._keys[world.key] = world.simulator._keys[key]
    track_after(world, minutes=5)
    assert status_of(world, email_id) == "delivered"


def test_one_mailbox_that_fails_does_not_stop_the_others(world: World) -> None:
    other = world.simulator.add_mailbox("sales@northwind.example")
    broken, works = world.deliver(), world.deliver(box=other, sender="bob@customer.example")
    world.run_until_idle()
    world.simulator.fault = in_order(
        *[answer_with(500)] * 99, matching=lambda _, path: f"/{world.box}/" in path
    )
    with pytest.raises(TransientError, match="1 of 2 mailboxes"):
        track_after(world, minutes=5)
    assert world.entry(broken).reply_status is None
    assert status_of(world, works) == "pending_send_approval"


def test_a_listing_that_fails_is_made_up_for_by_reading_one_by_one(world: World) -> None:
    email_id, _ = replied(world)
    world.simulator.fault = in_order(
        *[answer_with(500)] * 3, matching=lambda _, path: path.endswith("/emails")
    )
    world.tracker.track()
    assert status_of(world, email_id) == "pending_send_approval"


def test_throttling_ends_the_run_of_a_mailbox_and_is_no_failure(world: World) -> None:
    email_id, reply_id = replied(world)
    world.simulator.decide(reply_id, "approve")
    for matching in (lambda _, path: path.endswith("/emails"), reads(reply_id)):
        world.simulator.fault = in_order(rate_limited(40), matching=matching)
        world.clock.advance(hours=1)
        calls = requests_of(world, world.tracker.track)
        assert "GET tags" not in calls
        assert world.entry(email_id).reply_status is None
    track_after(world, minutes=30)
    assert status_of(world, email_id) == "delivered"


def test_a_reply_that_always_fails_does_not_hold_up_those_behind_it(world: World) -> None:
    (_, first), (second_email, second) = replied(world), replied(world, sender="bob@customer.example")
    for reply_id in (first, second):
        world.simulator.decide(reply_id, "approve")
    world.simulator.fault = in_order(*[cut(after_effect=False)] * 99, matching=reads(first))
    with pytest.raises(TransientError):
        world.tracker.track()
    world.tracker.track()
    assert status_of(world, second_email) == "delivered"


def test_a_reply_that_is_refused_for_good_does_not_stop_the_others(world: World) -> None:
    (_, first), (second_email, second) = replied(world), replied(world, sender="bob@customer.example")
    for reply_id in (first, second):
        world.simulator.decide(reply_id, "approve")
    world.simulator.fault = in_order(answer_with(400), matching=reads(first))
    world.tracker.track()
    assert status_of(world, second_email) == "delivered"
    assert [reply.reply_id for reply in world.ledger.tracked_replies()] == [first]


def test_a_row_that_another_worker_writes_is_left_to_it(world: World) -> None:
    email_id, reply_id = replied(world)
    world.simulator.decide(reply_id, "reject")

    class Raced(Ledger):
        def get(self, item: WorkItem) -> LedgerEntry | None:
            entry = super().get(item)
            assert entry is not None
            self.save(entry)
            return entry

    world.tracker._ledger = Raced(world.ledger._store)
    world.tracker.track()
    world.tracker._ledger = world.ledger
    assert world.entry(email_id).reply_status is None
    track_after(world, minutes=5)
    assert status_of(world, email_id) == "rejected"


def test_an_email_set_back_to_work_takes_its_old_reply_out_of_sight(world: World) -> None:
    email_id, reply_id = replied(world)
    world.simulator.decide(reply_id, "reject")
    ledger = world.ledger
    back = replace(
        world.entry(email_id),
        outcome=None,
        reply_id=None,
        draft=None,
        submit_intent_at=None,
        finished_at=None,
    )
    ledger.defer(replace(back, due_at=world.clock(), attempts=0))
    world.tracker.track()
    assert ledger.tracked_replies() == []
    assert world.entry(email_id).reply_status is None


def test_a_redriven_email_has_its_reply_tracked_again(world: World) -> None:
    email_id, reply_id = replied(world)
    world.simulator.decide(reply_id, "approve")
    world.tracker.track()
    world.ledger.defer(world.entry(email_id).redriven(world.clock()))
    assert world.entry(email_id).reply_status is None
    world.run_until_idle()
    track_after(world, minutes=5)
    assert status_of(world, email_id) == "delivered"


def test_a_row_that_is_not_finished_yet_is_left_to_its_worker(world: World) -> None:
    email_id, reply_id = replied(world)
    world.simulator.decide(reply_id, "reject")
    entry = world.ledger.defer(replace(world.entry(email_id), finished_at=None, due_at=world.clock()))
    world.tracker.track()
    assert world.entry(email_id) == entry
    world.poll_and_work()
    track_after(world, minutes=5)
    assert status_of(world, email_id) == "rejected"


class Killed(BaseException):
    """The process died."""


class Mortal:
    """A part of the tracker that dies at the n-th call to it (from 0) and stays dead."""

    def __init__(self, living: object, calls: int) -> None:
        self._living = living
        self._calls_left = calls

    def __getattr__(self, name: str) -> Any:
        self._calls_left -= 1
        if self._calls_left < 0:
            raise Killed
        return getattr(self._living, name)


@pytest.mark.parametrize(
    ("part", "calls"),
    [("_ledger", calls) for calls in range(6)] + [("_multimail", calls) for calls in range(4)],
)
def test_a_run_that_died_anywhere_is_made_good_by_the_next(
    world: World, events: Events, part: str, calls: int
) -> None:
    email_id, reply_id = replied(world)
    world.simulator.decide(reply_id, "approve")
    living = getattr(world.tracker, part)
    setattr(world.tracker, part, Mortal(living, calls))
    with pytest.raises(Killed):
        world.tracker.track()
    setattr(world.tracker, part, living)
    track_after(world, minutes=5)
    assert status_of(world, email_id) == "delivered"
    assert world.ledger.tracked_replies() == []
    assert len(events(REPLY_SETTLED)) == 1


@pytest.mark.parametrize("requests", range(5))
def test_a_run_that_died_at_any_request_to_its_tables_is_made_good_by_the_next(
    azurite: Azurite, tmp_path: Path, events: Events, requests: int
) -> None:
    azurite.clear()
    left = [requests]

    def see(_: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    service = TableServiceClient(azurite.endpoint, credential=azurite.credential, retry_total=0)
    with World(tmp_path, Ledger(TableStore(service))) as world:
        email_id, reply_id = replied(world)
        world.simulator.decide(reply_id, "reject")
        struck = TableServiceClient(
            azurite.endpoint, credential=azurite.credential, retry_total=0, raw_request_hook=see
        )
        world.tracker._ledger = Ledger(TableStore(struck))
        left[0] = requests
        with pytest.raises(Killed):
            world.tracker.track()
        world.tracker._ledger = world.ledger
        track_after(world, minutes=5)
        assert status_of(world, email_id) == "rejected"
        assert world.ledger.tracked_replies() == []
    assert len(events(REPLY_SETTLED)) == 1


def fault_at(number: int) -> FaultSource:
    """Cut the connection at the n-th request from now, and at the SDK's repetitions of it."""
    return in_order(*[None] * number, *[cut(after_effect=True)] * 4)


@pytest.mark.parametrize("number", range(7))
def test_an_answer_lost_anywhere_is_made_good_by_the_next_run(
    world: World, events: Events, number: int
) -> None:
    email_id, reply_id = replied(world)
    world.simulator.decide(reply_id, "approve")
    world.simulator.fault = fault_at(number)
    try:
        world.tracker.track()
    except TransientError:
        assert number < 6
    world.simulator.fault = in_order()
    track_after(world, minutes=5)
    assert status_of(world, email_id) == "delivered"
    assert world.ledger.tracked_replies() == []
    assert len(events(REPLY_SETTLED)) == 1


# Cost


def test_a_fresh_reply_is_not_looked_at_and_work_until_idle_does_not_wait_for_it(world: World) -> None:
    world.deliver()
    world.run_until_idle()
    assert len(world.ledger.tracked_replies()) == 1
    assert world.ledger.next_due_at() is None
    assert requests_of(world, world.tracker.track) == []


def test_any_number_of_waiting_replies_costs_two_listings(world: World) -> None:
    for number in range(30):
        world.deliver(sender=f"ann{number}@customer.example")
    world.run_until_idle()
    track_after(world, minutes=5)
    versions = {entry.version for entry in world.ledger.entries(world.box)}
    world.clock.advance(minutes=30)
    assert requests_of(world, world.tracker.track) == ["GET mailboxes", "GET emails", "GET emails"]
    assert {entry.version for entry in world.ledger.entries(world.box)} == versions


def test_a_decided_reply_costs_three_requests_more(world: World) -> None:
    email_id, reply_id = replied(world)
    world.simulator.decide(reply_id, "approve")
    calls = requests_of(world, world.tracker.track)
    assert calls == ["GET mailboxes", *["GET emails"] * 2, f"GET {reply_id}", "GET tags", "PUT tags"]
    assert status_of(world, email_id) == "delivered"


def test_looks_become_rarer_with_age(world: World) -> None:
    replied(world)
    world.tracker.track()
    gaps = []
    for _ in range(14):
        (reply,) = world.ledger.tracked_replies()
        gaps.append((reply.check_at - world.clock()).total_seconds() / 60)
        world.clock.now = reply.check_at
        world.tracker.track()
    assert gaps == [5] * 11 + [30] * 3


def test_a_run_reads_no_more_than_it_can_and_begins_with_the_longest_due(world: World) -> None:
    known = [
        TrackedReply(world.box, f"em_{n}", f"re_{n}", START, START + timedelta(seconds=n), "approved")
        for n in reversed(range(CHECKS_AT_ONCE + 5))
    ]
    world.ledger.track_replies(known)
    track_after(world, minutes=5)
    later = {reply.reply_id for reply in world.ledger.tracked_replies() if reply.missing_since is None}
    assert later == {f"re_{CHECKS_AT_ONCE + n}" for n in range(5)}


# What waits


def test_every_run_says_what_waits_for_a_human_also_when_nothing_does(world: World, events: Events) -> None:
    world.tracker.track()
    (_, first), (_, second) = replied(world), replied(world, sender="bob@customer.example")
    world.tracker.track()
    world.simulator.decide(first, "approve")
    track_after(world, minutes=5)
    world.simulator.decide(second, "reject")
    track_after(world, minutes=5)
    assert events(REPLIES_PENDING) == [
        {"agent.count": 0, "agent.oldest_seconds": 0},
        {"agent.count": 2, "agent.oldest_seconds": 600},
        {"agent.count": 1, "agent.oldest_seconds": 600},
        {"agent.count": 0, "agent.oldest_seconds": 0},
    ]


def test_a_reply_that_was_approved_waits_for_nobody(world: World, events: Events) -> None:
    world.ledger.track_replies(
        [TrackedReply(world.box, "em_1", "re_1", START, datetime.max.replace(tzinfo=UTC), "approved")]
    )
    world.tracker.track()
    assert events(REPLIES_PENDING)[0]["agent.count"] == 0


def test_no_word_of_the_email_reaches_the_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    world.model.draft["reply_markdown"] = "DRAFTWORD"
    _, reply_id = replied(world, subject="SUBJECTWORD")
    world.tracker.track()
    world.simulator.decide(reply_id, "approve")
    track_after(world, minutes=5)
    for word in ("DRAFTWORD", "SUBJECTWORD", world.key):
        assert word not in caplog.text
    assert "reply.settled" in caplog.text


# A rejection with a reason


def reject(world: World, reply_id: str, reason: str) -> None:
    """What a reviewer does: the reason as a tag on the pending reply, then the decision."""
    world.simulator.set_tags(world.box, reply_id, {REJECT_REASON_TAG: reason}, "reviewer")
    world.simulator.decide(reply_id, "reject")


def redrafted(world: World, email_id: str, reason: str) -> str:
    """Reject the reply of an email with a reason, let the agent work; the id of its reply then."""
    before = world.entry(email_id).reply_id
    assert before is not None
    reject(world, before, reason)
    track_after(world, minutes=31)
    world.run_until_idle()
    after = world.entry(email_id).reply_id
    assert after is not None
    return after


def test_a_reply_rejected_with_a_reason_gets_one_new_draft_and_waits_for_approval_again(
    world: World, events: Events
) -> None:
    email_id, first = replied(world)
    world.model.draft["reply_markdown"] = "Dear Ann,\n\nwe deliver in two weeks.\n\nSupport"
    world.model.requests.clear()
    second = redrafted(world, email_id, "Name the time:\n  two weeks.")
    assert second != first
    assert [request.schema_name for request in world.model.requests] == ["draft"]  # triage stands
    request = world.model.requests[0]
    assert request.user.endswith("said what to change: Name the time: two weeks.")
    assert "a colleague will follow up" in request.user  # the rejected draft, as data
    entry = world.entry(email_id)
    assert (entry.revision, entry.outcome, entry.reply_status) == (2, "reply_submitted", None)
    assert [(said.reply_id, said.reason) for said in entry.rejections] == [
        (first, "Name the time: two weeks.")
    ]
    new = world.simulator.find_email(second)
    assert new is not None
    assert new.status == "pending_send_approval"
    keys = [accepted.idempotency_key for accepted in world.simulator.accepted]
    assert len(keys) == len(set(keys)) == 2
    assert [(e["agent.reply_status"], e["agent.redrafted"]) for e in events(REPLY_SETTLED)] == [
        ("rejected", True)
    ]
    track_after(world, minutes=6)
    assert status_of(world, email_id) == "pending_send_approval"


def test_a_reply_gets_a_new_draft_at_most_twice(world: World) -> None:
    email_id, first = replied(world)
    second = redrafted(world, email_id, "Shorter.")
    third = redrafted(world, email_id, "Still too long.")
    assert len({first, second, third}) == 3
    user = world.model.requests[-1].user
    assert user.index("Shorter.") < user.index("Still too long.")
    assert redrafted(world, email_id, "No.") == third
    assert world.entry(email_id).reply_status == "rejected"
    assert world.ledger.tracked_replies() == []


def test_a_redrive_of_a_reply_that_bounced_is_no_rejection(world: World) -> None:
    email_id, first = replied(world)
    world.simulator.refuse_delivery("ann@customer.example", "bounced")
    world.simulator.decide(first, "approve")
    track_after(world, minutes=5)
    world.run_until_idle()
    assert world.entry(email_id).cause is Cause.REPLY_UNDELIVERED
    world.ledger.defer(world.entry(email_id).redriven(world.clock()))
    world.run_until_idle()
    second = world.entry(email_id).reply_id
    assert "rejected" not in world.model.requests[-1].user
    replies = {first, second, redrafted(world, email_id, "Shorter."), redrafted(world, email_id, "Warmer.")}
    assert len(replies) == 4
    fates = [draft.fate for draft in read_drafts([world.entry(email_id)], START)]
    assert fates == [Fate.BOUNCED, Fate.REDRAFTED, Fate.REDRAFTED, Fate.PENDING]


@pytest.mark.parametrize("reason", ["", " \u200b\n"])
def test_a_reply_rejected_without_a_reason_is_left_to_the_reviewer(world: World, reason: str) -> None:
    email_id, first = replied(world)
    assert redrafted(world, email_id, reason) == first
    assert status_of(world, email_id) == "rejected"
    assert (world.outcome(email_id), world.entry(email_id).cause) == ("escalated", Cause.REPLY_REJECTED)


def test_a_reason_is_bounded_and_one_line(world: World) -> None:
    email_id, _ = replied(world)
    redrafted(world, email_id, "\u202eab\n" * 1000)
    [rejection] = world.entry(email_id).rejections
    assert len(rejection.reason) == MAX_REJECT_REASON_CHARACTERS
    assert rejection.reason.startswith("ab ab")


def test_a_reviewers_reason_is_no_source_of_a_link(world: World) -> None:
    email_id, reply_id = replied(world)
    world.model.draft["reply_markdown"] = "Dear Ann,\n\nsee https://elsewhere.example/delivery\n\nSupport"
    reject(world, reply_id, "Link https://elsewhere.example/delivery")
    track_after(world, minutes=31)
    world.run_until_idle()
    assert (world.outcome(email_id), world.entry(email_id).cause) == ("escalated", Cause.DRAFT_CHECK)
    assert world.entry(email_id).proposal is not None


def test_a_rejected_reply_with_the_same_words_is_not_taken_for_the_new_one(world: World) -> None:
    email_id, first = replied(world)
    reject(world, first, "Shorter.")
    track_after(world, minutes=31)
    world.simulator.fault = in_order(
        cut(after_effect=False), matching=lambda _method, path: "/reply/" in path
    )
    world.poll_and_work()
    assert world.entry(email_id).submit_intent_at is not None
    world.clock.advance(hours=30)
    world.run_until_idle()
    entry = world.entry(email_id)
    assert entry.reply_id != first
    assert entry.outcome == "needs_human"


def test_a_rejection_that_could_not_be_tagged_is_taken_up_again(world: World) -> None:
    email_id, first = replied(world)
    reject(world, first, "Shorter.")
    world.clock.advance(minutes=31)
    world.simulator.fault = in_order(
        *[answer_with(503)] * 9, matching=lambda _method, path: path.endswith("/tags")
    )
    with pytest.raises(TransientError):
        world.tracker.track()
    world.simulator.fault = in_order()
    assert world.entry(email_id).reply_id == first
    track_after(world, minutes=31)
    world.run_until_idle()
    second = world.entry(email_id).reply_id
    assert second not in (first, None)
    assert world.tags(email_id)["agent.reply_id"] == second
    assert [reply.reply_id for reply in world.ledger.tracked_replies()] == [second]


def test_what_each_draft_came_to_is_told_once(world: World, events: Events) -> None:
    email_id, _ = replied(world)
    world.clock.advance(hours=20)
    redrafted(world, email_id, "Shorter.")
    first, second = events(EMAIL_DECIDED)
    assert (first["agent.calls"], second["agent.calls"]) == (2, 1)
    assert second["agent.seconds_since_received"] < 3600  # not the reviewer's time


def test_a_reply_that_the_agent_takes_back_is_not_a_reviewers_decision(world: World, events: Events) -> None:
    email_id, first = replied(world)
    follow_up = world.deliver("And where is it?", in_reply_to=email_id)
    world.run_until_idle()
    assert world.entry(follow_up).reply_id not in (first, None)
    assert [(e["agent.reply_id"], e["agent.actor"]) for e in events(REPLY_WITHDRAWN)] == [(first, "agent")]
    track_after(world, minutes=31)
    [settled] = [e for e in events(REPLY_SETTLED) if e["agent.reply_id"] == first]
    assert settled["agent.reply_status"] == "cancelled"
    assert settled["agent.actor"] == "service"
    assert "agent.seconds_to_decision" not in settled
