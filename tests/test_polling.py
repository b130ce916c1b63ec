"""Polling: no inbound email escapes the ledger, and what is due is enqueued until it is done."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from local.multimail.faults import answer_with, in_order
from local.testing.world import START, World
from shared.domain import Cause, Outcome, WorkItem
from shared.errors import ConfigurationError, ThrottledError, TransientError
from shared.ledger.ledger import Ledger
from shared.mail.multimail import MultiMailClient
from shared.services.work_queue import InProcessWorkQueue


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        yield world


def lists_emails_of(box: str) -> object:
    return lambda method, path: path.endswith(f"{box}/emails")


def known(world: World) -> set[str]:
    return {entry.email_id for box in world.simulator.mailboxes for entry in world.ledger.entries(box)}


def test_every_new_email_gets_one_row_and_one_work_item(world: World) -> None:
    emails = {world.deliver(f"Question {n}") for n in range(250)}
    world.poller.poll()
    assert known(world) == emails
    assert world.queue.bodies.qsize() == 250


def test_polling_does_not_mark_mail_as_read(world: World) -> None:
    email_id = world.deliver()
    world.poller.poll()
    email = world.simulator.find_email(email_id)
    assert email is not None
    assert email.status == "unread"


def test_mail_that_a_human_opened_first_is_found(world: World) -> None:
    world.poller.poll()
    world.clock.advance(minutes=5)
    email_id = world.deliver()
    world.simulator.mark_read(email_id)
    world.poller.poll()
    assert email_id in known(world)


def test_mail_that_shows_up_late_is_found_within_the_overlap(world: World) -> None:
    world.deliver()
    world.poller.poll()
    late = world.deliver("late", received_at=world.clock() - timedelta(minutes=9))
    world.simulator.mark_read(late)
    world.poller.poll()
    assert late in known(world)


def test_unread_mail_released_long_after_the_watermark_is_found(world: World) -> None:
    world.poller.poll()
    world.clock.advance(hours=10)
    world.deliver()
    world.poller.poll()
    released = world.deliver("released late", received_at=world.clock() - timedelta(hours=5))
    world.poller.poll()
    assert released in known(world)


def test_the_first_poll_looks_back_only_so_far_read_or_unread(world: World) -> None:
    old = world.deliver(received_at=START - timedelta(hours=25))
    recent = world.deliver(received_at=START - timedelta(hours=23))
    world.poller.poll()
    world.clock.advance(minutes=1)
    world.poller.poll()
    assert known(world) == {recent}
    assert old not in known(world)


def test_after_a_long_standstill_everything_since_the_watermark_is_found(world: World) -> None:
    world.deliver()
    world.poller.poll()
    world.clock.advance(days=9)
    missed = world.deliver(received_at=world.clock() - timedelta(days=8))
    world.simulator.mark_read(missed)
    world.poller.poll()
    assert missed in known(world)


def test_the_watermark_does_not_move_over_mail_that_is_not_in_the_ledger(world: World) -> None:
    emails = {world.deliver(f"Question {n}") for n in range(150)}
    second_page = in_order(None, answer_with(500), matching=lists_emails_of(world.box))  # type: ignore[arg-type]  # a predicate
    world.simulator.fault = second_page
    with pytest.raises(TransientError):
        world.poller.poll()
    assert world.ledger.get_watermark(world.box) is None
    world.clock.advance(hours=3)
    for email_id in emails:
        world.simulator.mark_read(email_id)
    world.poller.poll()
    assert known(world) == emails


def test_one_mailbox_that_fails_does_not_stop_the_others(world: World) -> None:
    other = world.simulator.add_mailbox("sales@northwind.example")
    email_id = world.deliver(box=other)
    world.simulator.fault = in_order(
        *[answer_with(500)] * 9, matching=lists_emails_of(world.box)  # type: ignore[arg-type]  # a predicate
    )  # fmt: skip
    with pytest.raises(TransientError, match="1 of 2 mailboxes"):
        world.poller.poll()
    assert known(world) == {email_id}
    assert world.queue.bodies.qsize() == 1


def test_an_unknown_mailbox_is_named_and_the_known_ones_are_polled(tmp_path: Path) -> None:
    with World(tmp_path) as world:
        email_id = world.deliver()
        world.poller._settings = world.settings = world.settings.__class__.from_env(
            {
                "MULTIMAIL_API_KEY": "unused", "MODEL_ENDPOINT": "http://127.0.0.1:1", "TRIAGE_DEPLOYMENT": "x",
                "MULTIMAIL_MAILBOX_IDS": f"mb_wrong, {world.box}",
            }
        )  # fmt: skip
        with pytest.raises(ConfigurationError, match=r"MULTIMAIL_MAILBOX_IDS names 'mb_wrong'"):
            world.poller.poll()
        assert known(world) == {email_id}


def test_a_mailbox_may_be_named_by_its_address_and_who_names_another_is_told_which_there_are(
    tmp_path: Path,
) -> None:
    with World(tmp_path, multimail_mailbox_ids=("Support@northwind.example", "mb_wrong")) as world:
        other = world.simulator.add_mailbox("sales@northwind.example")
        asleep = world.simulator.add_mailbox("old@northwind.example", is_active=False)
        email_id, _ = world.deliver(), world.deliver(box=other)
        with pytest.raises(ConfigurationError) as raised:
            world.poller.poll()
        assert known(world) == {email_id}
        (problem,) = raised.value.problems
        assert f"{world.box} (support@northwind.example), {other} (sales@northwind.example)" in problem
        assert asleep not in problem


@pytest.mark.parametrize("when", ["enqueued", "due", "rejected"])
def test_a_mailbox_that_is_taken_out_gets_no_more_replies_until_it_is_named_again(
    world: World, when: str
) -> None:
    other = world.simulator.add_mailbox("sales@northwind.example", "gated_send")
    email_id = world.deliver(box=other)
    if when == "rejected":
        world.poll_and_work()
        reply_id = str(world.entry(email_id).reply_id)
        world.simulator.set_tags(other, reply_id, {"agent.reject_reason": "Too short"}, "reviewer")
        world.simulator.decide(reply_id, "reject")
        world.clock.advance(minutes=6)
        world.tracker.track()
    elif when == "due":
        world.model.steps = [ThrottledError("busy", retry_after_seconds=900)]
        world.poll_and_work()
    else:
        world.poller.poll()
    posts = len(world.posts())
    everything = world.settings
    only_support = replace(everything, multimail_mailbox_ids=(world.box,))
    world.poller._settings = only_support
    object.__setattr__(world.pipeline, "settings", only_support)
    world.work()
    for _ in range(3):
        world.clock.advance(minutes=20)
        world.poll_and_work()
    assert (len(world.posts()), world.entry(email_id).outcome) == (posts, None)
    world.poller._settings = everything
    object.__setattr__(world.pipeline, "settings", everything)
    world.poll_and_work()
    assert (len(world.posts()), world.outcome(email_id)) == (posts + 1, "reply_submitted")


def test_inactive_mailboxes_are_left_alone(world: World) -> None:
    asleep = world.simulator.add_mailbox("old@northwind.example", is_active=False)
    world.deliver(box=asleep)
    world.poller.poll()
    assert known(world) == set()


def test_a_refused_key_is_a_configuration_error_and_loses_nothing(world: World) -> None:
    email_id = world.deliver()
    world.simulator.revoke_key(world.key)
    with pytest.raises(ConfigurationError, match="MULTIMAIL_API_KEY"):
        world.poller.poll()
    assert known(world) == set()
    assert world.simulator.find_email(email_id) is not None


def test_work_that_was_not_done_is_enqueued_again_and_done_work_is_not(world: World) -> None:
    lost, done = world.deliver("lost"), world.deliver("done", sender="bob@customer.example")
    world.poller.poll()
    while not world.queue.bodies.empty():
        world.queue.bodies.get()  # the queue loses everything
    world.pipeline.process(WorkItem(world.box, done))
    world.poller.poll()
    assert world.queue.bodies.empty()
    world.clock.advance(seconds=world.settings.lease_seconds + 1)
    world.poller.poll()
    assert world.queue.bodies.qsize() == 1
    world.work()
    assert world.outcome(lost) == "reply_submitted"


class BrokenQueue(InProcessWorkQueue):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def send(self, items: Sequence[WorkItem], lives: timedelta) -> None:
        raise self.error


def test_a_crash_while_enqueuing_only_delays_the_work(world: World) -> None:
    email_id = world.deliver()
    world.poller._work_queue = BrokenQueue(MemoryError("as if the process had died"))
    with pytest.raises(MemoryError):
        world.poller.poll()
    world.poller._work_queue = world.queue
    world.clock.advance(seconds=world.settings.lease_seconds + 1)
    world.poll_and_work()
    assert world.outcome(email_id) == "reply_submitted"


def test_what_could_not_be_enqueued_is_enqueued_at_the_next_poll(world: World) -> None:
    email_id = world.deliver()
    world.poller._work_queue = BrokenQueue(TransientError("Service Bus is down"))
    with pytest.raises(TransientError, match="Service Bus is down"):
        world.poller.poll()
    world.poller._work_queue = world.queue
    world.poll_and_work()
    assert world.outcome(email_id) == "reply_submitted"


def test_a_retry_that_was_deferred_before_the_send_returned_keeps_its_own_time(world: World) -> None:
    class WorksAtOnce(InProcessWorkQueue):
        def send(self, items: Sequence[WorkItem], lives: timedelta) -> None:
            for item in items:
                world.pipeline.process(item)

    email_id = world.deliver()
    world.poller._work_queue = WorksAtOnce()
    world.model.steps = [TransientError("the model is down")]
    world.poller.poll()
    assert world.ledger.next_due_at() == world.entry(email_id).due_at


def test_an_idle_mailbox_costs_two_listings_a_poll(world: World) -> None:
    world.deliver()
    world.run_until_idle()
    before = len(world.simulator.requests)
    world.poller.poll()
    calls = [record.path.rpartition("/")[2] for record in world.simulator.requests[before:]]
    assert sorted(calls) == ["emails", "emails", "mailboxes"]


def test_after_a_burst_idle_polls_list_it_no_more(world: World) -> None:
    for number in range(300):
        received_at = world.clock() + timedelta(seconds=number)
        world.simulator.deliver(world.box, "ann@c.example", "s", "q", received_at=received_at, status="read")
    world.clock.advance(minutes=10)
    world.poller.poll()
    assert len(known(world)) == 300
    world.clock.advance(hours=1)
    world.poller.poll()
    before = len(world.simulator.requests)
    late = world.deliver("late", received_at=world.clock() - timedelta(minutes=10))
    world.simulator.mark_read(late)
    world.poller.poll()
    assert len(world.simulator.requests) - before == 3
    assert late in known(world)


@pytest.mark.parametrize("cursors", ["exact", "<", "<="])
def test_emails_of_one_second_over_the_end_of_a_page_are_found(world: World, cursors: Any) -> None:
    world.simulator.cursors = cursors
    emails = set()
    for number in range(260):  # five a second, so that pages end within one
        received_at = START - timedelta(seconds=number // 5)
        emails.add(world.deliver(f"Question {number}", received_at=received_at, status="read"))
    world.poller.poll()
    assert known(world) == emails


@pytest.mark.parametrize("cursors", ["<", "<="])
@pytest.mark.parametrize(("status", "count"), [("unread", 130), ("read", 250)])
def test_more_emails_of_one_second_than_can_be_listed_are_told_of_and_hold_up_nothing(
    world: World, cursors: Any, status: str, count: int
) -> None:
    world.simulator.cursors = cursors
    crowd = START - timedelta(minutes=5)
    crowded = {world.deliver(f"Question {n}", received_at=crowd, status=status) for n in range(count)}
    around = {
        world.deliver("Hello", received_at=crowd + timedelta(seconds=seconds), status="read")
        for seconds in (-90, -1, 1, 90)
    }
    world.model.triage["action"] = "ignore"
    with pytest.raises(TransientError, match=rf"{world.box}.*at least 100 emails.*11:55:00 UTC"):
        world.poller.poll()
    assert around < known(world)
    assert len(known(world) & crowded) == 100
    watermark = world.ledger.get_watermark(world.box)
    assert watermark is not None
    assert watermark.until <= crowd  # only as far as everything was listed
    world.work()
    for _ in range(30):
        world.clock.advance(minutes=1)
        with suppress(TransientError):
            world.poll_and_work()
    assert len(known(world) & crowded) == (130 if status == "unread" else 100)
    world.poller.poll()
    later = world.deliver("later")
    world.poller.poll()
    assert later in known(world)


@pytest.mark.parametrize("ahead", [timedelta(days=2), timedelta(hours=1)])
@pytest.mark.parametrize("polled_before", [True, False])
def test_a_clock_that_was_ahead_hides_no_mail_after_it_was_corrected(
    world: World, ahead: timedelta, polled_before: bool
) -> None:
    if polled_before:
        world.poller.poll()
    world.clock.now += ahead
    for number in range(3):  # so that its own time, too, is ahead
        world.deliver(f"Question {number}", received_at=world.clock())
    world.poller.poll()
    world.clock.now = START + timedelta(minutes=2)
    email_id = world.deliver("after the correction")
    world.simulator.mark_read(email_id)
    world.poller.poll()
    assert email_id in known(world)


def test_a_clock_that_is_set_back_by_an_hour_stops_no_work(world: World) -> None:
    enqueued = world.deliver("enqueued")
    world.poller.poll()
    held = world.deliver("held by a worker that died", sender="bob@customer.example")
    world.poller.poll()
    now = world.clock()
    lease = timedelta(seconds=world.settings.lease_seconds)
    assert world.ledger.claim(WorkItem(world.box, held), now, now + lease) is not None
    world.clock.now -= timedelta(hours=1)
    world.work()
    assert world.outcome(enqueued) == "reply_submitted"
    world.poll_and_work()
    assert world.outcome(held) == "reply_submitted"


def test_an_email_that_was_closed_as_deleted_is_taken_up_when_it_is_listed_unread(world: World) -> None:
    email_id = world.deliver()
    world.poller.poll()
    now = world.clock()
    lease = timedelta(seconds=world.settings.lease_seconds)
    claimed = world.ledger.claim(WorkItem(world.box, email_id), now, now + lease)
    assert claimed is not None
    world.ledger.finish(replace(claimed, finished_at=now, outcome=Outcome.SKIPPED, cause=Cause.DELETED))
    world.poll_and_work()
    assert world.outcome(email_id) == "reply_submitted"


def test_what_nobody_takes_is_sent_again_at_growing_distances_and_what_was_lost_soon(world: World) -> None:
    world.deliver()
    sent_after = []
    for minute in range(121):
        world.poller.poll()
        if not world.queue.bodies.empty():
            world.queue.bodies.get()  # lost
            sent_after.append(minute)
        world.clock.advance(minutes=1)
    assert sent_after == [0, 10, 30, 70]


def test_a_queue_in_memory_never_has_an_email_twice(world: World) -> None:
    for number in range(5):
        world.deliver(f"Question {number}")
    for _ in range(60):
        world.poller.poll()
        world.clock.advance(minutes=1)
    assert world.queue.bodies.qsize() == 5


class NotedLedger:
    """A ledger that notes which of its methods were called."""

    def __init__(self, ledger: object) -> None:
        self._ledger = ledger
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> object:
        self.calls.append(name)
        return getattr(self._ledger, name)


def calls_of_a_poll(world: World) -> list[str]:
    noted = NotedLedger(world.ledger)
    world.poller._ledger = cast(Ledger, noted)
    world.poller.poll()
    return noted.calls


def test_an_idle_poll_asks_the_ledger_for_due_work_once_and_a_new_email_costs_no_second_question(
    world: World,
) -> None:
    world.deliver()
    world.run_until_idle()
    world.clock.advance(minutes=1)
    assert calls_of_a_poll(world) == ["open_work", "get_watermark"]
    world.deliver("Another question", subject="Returns")
    assert calls_of_a_poll(world) == ["open_work", "get_watermark", "add", "set_watermark", "mark_enqueued"]
    assert world.queue.bodies.qsize() == 1


def test_a_process_that_dies_while_it_lists_mail_has_enqueued_its_backlog_before(world: World) -> None:
    class Dies:
        list_emails = property(lambda self: pytest.fail("as if the process had died"))

    waiting = world.deliver()
    world.poller.poll()
    world.queue.bodies.get()  # died with the process before
    world.clock.advance(seconds=world.settings.lease_seconds + 1)
    world.poller._multimail = cast(MultiMailClient, Dies())
    with pytest.raises(pytest.fail.Exception):
        world.poller.poll()
    world.work()
    assert world.outcome(waiting) == "reply_submitted"


def test_nothing_is_enqueued_while_multimail_does_not_even_list_its_mailboxes(world: World) -> None:
    world.deliver()
    world.poller.poll()
    world.queue.bodies.get()
    world.clock.advance(seconds=world.settings.lease_seconds + 1)
    world.simulator.fault = in_order(
        *[answer_with(500)] * 9, matching=lambda _method, path: path.endswith("/mailboxes")
    )
    with pytest.raises(TransientError):
        world.poller.poll()
    assert world.queue.bodies.empty()


def test_mail_is_stored_while_the_queue_is_down(world: World) -> None:
    known_before = world.deliver("first")
    world.poller._work_queue = BrokenQueue(TransientError("Service Bus is down"))
    with pytest.raises(TransientError, match="Service Bus is down"):
        world.poller.poll()
    new = world.deliver("second", sender="bob@customer.example")
    with pytest.raises(TransientError, match="Service Bus is down"):
        world.poller.poll()
    assert known(world) == {known_before, new}
