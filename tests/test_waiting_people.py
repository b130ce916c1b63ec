"""Nobody is left waiting unseen: a reading is confirmed, and what closed an email can be taken back."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local.multimail.faults import Fault, answer_with
from local.testing.world import World
from shared.domain import Cause
from shared.errors import ConfigurationError, PermanentError, TransientError
from shared.mail.mailboxes import MAX_AGE_SECONDS
from shared.profiles.profile_file import parse_profiles


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        yield world


def missing(matching: Callable[[str, str], bool]) -> Callable[[str, str, int], Fault | None]:
    """Answer 404 to every matching request."""
    return lambda method, path, _number: answer_with(404) if matching(method, path) else None


def finished(world: World, email_id: str) -> tuple[str | None, Cause | None]:
    return world.outcome(email_id), world.entry(email_id).cause


# A 404 is a reading


@pytest.mark.parametrize("part", ["/emails/", "/threads/", "/tags", "/reply/", "/allowlist", "/emails"])
def test_a_spell_of_404_costs_nothing(world: World, part: str) -> None:
    emails = [world.deliver(sender=f"ann{n}@customer.example") for n in range(5)]
    world.poller.poll()
    world.simulator.fault = missing(lambda _method, path: part in path)
    for _ in range(10):
        with contextlib.suppress(TransientError):  # a poll that cannot list
            world.poll_and_work()
        world.work()
        world.clock.advance(minutes=2)
    world.simulator.fault = lambda *_: None
    world.run_until_idle()
    assert {finished(world, email_id) for email_id in emails} == {("reply_submitted", Cause.TRIAGED)}


def test_a_thread_that_is_not_found_for_long_is_left_to_a_person(world: World) -> None:
    email_id = world.deliver()
    world.simulator.fault = missing(lambda _method, path: "/threads/" in path)
    world.run_until_idle()
    assert finished(world, email_id) == ("escalated", Cause.THREAD_MISSING)
    assert world.model.requests == []


def test_the_key_of_another_account_touches_nothing(world: World) -> None:
    emails = [world.deliver(sender=f"ann{n}@customer.example") for n in range(3)]
    world.run_until_idle()
    late = world.deliver(sender="bob@customer.example")
    world.poller.poll()
    mailbox = world.simulator.mailboxes.pop(world.box)
    world.clock.advance(seconds=MAX_AGE_SECONDS)
    with pytest.raises(ConfigurationError, match="MULTIMAIL_API_KEY"):
        world.work()
    world.clock.advance(hours=5)
    with pytest.raises(ConfigurationError, match="MULTIMAIL_API_KEY"):
        world.tracker.track()
    world.simulator.mailboxes[world.box] = mailbox
    world.run_until_idle()
    world.tracker.track()
    assert {finished(world, id_)[0] for id_ in [*emails, late]} == {"reply_submitted"}
    statuses = {reply.email_id: reply.status for reply in world.ledger.tracked_replies()}
    assert {statuses[email_id] for email_id in emails} == {"pending_send_approval"}


def test_a_reply_does_not_cover_what_nobody_could_read_yet(world: World) -> None:
    """An email that waits for inbound approval has no body: the reply to another one cannot answer it."""
    world.simulator.set_mode(world.box, "gated_all")
    first = world.deliver("How long does delivery take?", thread_id="th_1")
    second = world.deliver("And do you deliver to Norway?", thread_id="th_1")
    world.simulator.release_inbound(first)
    world.poll_and_work()
    draft = world.entry(first).draft
    assert draft is not None
    assert draft.covers == (first,)
    reply_id = world.entry(first).reply_id
    assert reply_id is not None
    world.simulator.decide(reply_id, "approve")
    world.simulator.release_inbound(second)
    world.run_until_idle()
    assert finished(world, second) == ("reply_submitted", Cause.TRIAGED)


def test_an_email_that_failed_is_tagged_once_its_own_account_answers_again(world: World) -> None:
    email_id, mailbox = world.deliver(), world.simulator.mailboxes[world.box]

    def leave() -> None:
        del world.simulator.mailboxes[world.box]
        world.clock.advance(seconds=MAX_AGE_SECONDS)
        raise PermanentError("the model refused")

    world.model.steps = [leave]
    world.poll_and_work()
    assert world.entry(email_id).finished_at is None
    world.simulator.mailboxes[world.box] = mailbox
    world.run_until_idle()
    assert finished(world, email_id) == ("failed", Cause.REFUSED)


# What closed an email may end


def follow_up(world: World) -> tuple[str, str, str]:
    """Two emails of a thread that one pending reply answers: the ids of both and of the reply."""
    first = world.deliver("Where is my order?")
    world.clock.advance(seconds=1)
    second = world.deliver("It is order 7.", in_reply_to=first)
    world.clock.advance(seconds=1)
    world.run_until_idle()
    rows = [world.entry(first), world.entry(second)]
    (reply_id,) = {row.reply_id for row in rows if row.reply_id}
    world.clock.advance(minutes=6)
    return first, second, reply_id


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        ("reject", Cause.REPLY_REJECTED),
        ("cancel", Cause.REPLY_CANCELLED),
        ("bounce", Cause.REPLY_UNDELIVERED),
    ],
)
def test_everything_that_an_unsent_reply_was_to_answer_is_escalated(
    world: World, end: str, cause: Cause
) -> None:
    first, second, reply_id = follow_up(world)
    if end == "bounce":
        world.simulator.refuse_delivery("ann@customer.example")
        world.simulator.decide(reply_id, "approve")
    elif end == "reject":
        world.simulator.decide(reply_id, "reject")
    else:
        world.simulator.cancel(world.box, reply_id, "operator")
    world.tracker.track()
    world.run_until_idle()
    assert [finished(world, id_) for id_ in (first, second)] == [("escalated", cause)] * 2
    assert len(world.simulator.accepted) == 1


def test_a_reply_that_is_delivered_leaves_everything_closed(world: World) -> None:
    first, second, reply_id = follow_up(world)
    world.simulator.decide(reply_id, "approve")
    world.tracker.track()
    world.run_until_idle()
    assert sorted(str(world.outcome(id_)) for id_ in (first, second)) == ["reply_submitted", "skipped"]
    assert world.ledger.tracked_replies() == []


def test_an_email_whose_reply_was_replaced_is_covered_by_the_newer_one(world: World) -> None:
    first = world.deliver("Where is my order?")
    world.run_until_idle()
    world.clock.advance(minutes=6)
    second = world.deliver("It is order 7.", in_reply_to=first)
    world.run_until_idle()
    world.clock.advance(minutes=6)
    world.tracker.track()
    world.run_until_idle()
    assert finished(world, first) == ("skipped", Cause.COVERED)
    world.simulator.decide(str(world.entry(second).reply_id), "reject")
    world.clock.advance(minutes=6)
    world.tracker.track()
    world.run_until_idle()
    world.clock.advance(minutes=6)
    world.tracker.track()
    world.run_until_idle()
    assert {finished(world, id_) for id_ in (first, second)} == {("escalated", Cause.REPLY_REJECTED)}


def test_a_pending_reply_of_others_closes_an_email_only_until_it_is_rejected(world: World) -> None:
    email_id = world.deliver()
    world.clock.advance(minutes=3)
    other = world.multimail.submit_reply(world.box, email_id, "We will look.", "key of a question")
    world.run_until_idle()
    assert finished(world, email_id) == ("skipped", Cause.ANSWERED)
    world.simulator.decide(other.id, "reject")
    world.clock.advance(minutes=6)
    world.tracker.track()
    world.run_until_idle()
    assert world.outcome(email_id) == "reply_submitted"


def test_a_person_cannot_have_answered_what_arrived_a_moment_before(world: World) -> None:
    first = world.deliver("When do you open?")
    second = world.deliver("Please cancel my order.", in_reply_to=first)
    world.clock.advance(seconds=15)
    world.simulator.human_reply(first, "At nine.")
    world.run_until_idle()
    assert "reply_submitted" in {world.outcome(first), world.outcome(second)}


def test_nothing_is_submitted_when_a_person_answers_while_the_draft_is_written(world: World) -> None:
    email_id = world.deliver()
    world.clock.advance(minutes=5)

    def answer() -> None:
        world.simulator.human_reply(email_id, "Two weeks.")

    world.model.steps = [lambda: None, answer]
    world.run_until_idle()
    assert finished(world, email_id) == ("skipped", Cause.ANSWERED)
    assert world.posts() == []


def test_a_pending_reply_is_withdrawn_when_somebody_else_answers(world: World) -> None:
    email_id = world.deliver()
    world.run_until_idle()
    reply_id = str(world.entry(email_id).reply_id)
    world.clock.advance(minutes=6)
    world.tracker.track()
    world.clock.advance(minutes=6)
    world.simulator.human_reply(email_id, "Two weeks.")
    world.tracker.track()
    world.run_until_idle()
    assert world.simulator.get_email(world.box, reply_id).status == "cancelled"
    assert finished(world, email_id) == ("skipped", Cause.ANSWERED)


# Limits bound replies, not attention


def test_rejected_drafts_use_up_no_limit(tmp_path: Path) -> None:
    with World(tmp_path, max_replies_per_sender_per_day=2, max_replies_per_thread=2) as world:
        email_id = world.deliver("One?")
        for number in range(3):
            world.run_until_idle()
            world.simulator.decide(str(world.entry(email_id).reply_id), "reject")
            world.clock.advance(minutes=6)
            world.tracker.track()
            world.run_until_idle()
            email_id = world.deliver(f"And again, {number}?", in_reply_to=email_id)
        world.run_until_idle()
        assert world.outcome(email_id) == "reply_submitted"


def test_a_forger_does_not_use_up_the_slots_of_the_person(tmp_path: Path) -> None:
    with World(tmp_path, max_replies_per_sender_per_day=2) as world:
        email_id = world.deliver("One?")
        world.run_until_idle()
        world.simulator.decide(str(world.entry(email_id).reply_id), "approve")
        for number in range(4):
            world.deliver(f"Forged {number}")
            world.run_until_idle()
        world.clock.advance(minutes=6)
        answer = world.deliver("Thank you. And when?", in_reply_to=email_id)
        world.run_until_idle()
        assert world.outcome(answer) == "reply_submitted"


def test_a_flood_is_escalated_without_asking_a_model(world: World) -> None:
    emails = [world.deliver(f"Hello {number}") for number in range(53)]
    world.run_until_idle()
    causes = [world.entry(email_id).cause for email_id in emails]
    assert causes.count(Cause.SENDER_FLOOD) == 3
    assert {world.tags(e)["agent.outcome"] for e in emails} == {"reply_submitted", "escalated"}
    assert sum(request.schema_name == "triage" for request in world.model.requests) == 50


def test_a_sender_whose_share_of_the_tokens_is_used_up_goes_to_a_person_and_others_are_answered(
    tmp_path: Path,
) -> None:
    own = parse_profiles("support@northwind.example:\n  max_sender_token_share: 0.25\n", "mailboxes.yaml")
    with World(tmp_path, profiles=own, daily_token_budget=1000, max_sender_token_share=0.01) as world:
        flood = [world.deliver(f"Hello {n}", sender=f"eve+{n}@elsewhere.example") for n in range(6)]
        for _ in flood:
            world.poll_and_work()
        asked = len(world.model.requests)
        causes = [world.entry(email_id).cause for email_id in flood]
        assert causes.count(Cause.SENDER_TOKENS) == 4
        assert asked * 120 < 1000  # the budget would have let more of them through
        (tags,) = [world.tags(e) for e in flood if world.tags(e)["agent.cause"] == "sender_tokens"][:1]
        assert "share (0.25) of the mailbox's tokens" in tags["agent.reason"]
        other = world.deliver("When?")
        world.run_until_idle()
        assert world.outcome(other) == "reply_submitted"
        world.clock.advance(days=1)
        tomorrow = world.deliver("Again", sender="eve@elsewhere.example")
        world.run_until_idle()
        assert world.entry(tomorrow).cause is not Cause.SENDER_TOKENS


def test_an_email_that_was_begun_is_finished_over_its_sender_s_share(tmp_path: Path) -> None:
    with World(tmp_path, daily_token_budget=1000, max_sender_token_share=0.1) as world:
        email_id = world.deliver()
        world.run_until_idle()
        assert world.outcome(email_id) == "reply_submitted"


def test_a_help_desk_with_a_new_subaddress_each_time_is_one_sender(tmp_path: Path) -> None:
    with World(tmp_path, max_replies_per_sender_per_day=2) as world:
        emails = [world.deliver(f"Ticket {n}", sender=f"desk+{n}@shop.example") for n in range(4)]
        world.run_until_idle()
        assert [world.outcome(email_id) for email_id in emails].count("reply_submitted") == 2


# Recipients


def test_a_reply_that_would_go_to_others_is_withdrawn(world: World) -> None:
    email_id = world.deliver()
    world.simulator.mailboxes[world.box].diverted_to = ("eve@elsewhere.example",)
    world.run_until_idle()
    assert finished(world, email_id) == ("escalated", Cause.RECIPIENTS_DIFFER)
    reply = world.simulator.find_email(str(world.entry(email_id).reply_id))
    assert reply is not None
    assert reply.status == "cancelled"


def test_a_reply_may_have_the_automatic_copies_of_its_mailbox(world: World) -> None:
    mailbox = world.simulator.mailboxes[world.box]
    mailbox.auto_cc, mailbox.auto_bcc = "archive@northwind.example", "audit@northwind.example"
    email_id = world.deliver()
    world.run_until_idle()
    assert finished(world, email_id) == ("reply_submitted", Cause.TRIAGED)


# The same email twice

TWICE = {"subject": "Order 7", "markdown": "Where is my order?"}


def test_an_email_to_two_mailboxes_is_answered_once_from_the_one_that_to_names(world: World) -> None:
    sales = world.simulator.add_mailbox("sales@northwind.example")
    both: dict[str, Any] = {"to": ["support@northwind.example"], "cc": ["sales@northwind.example"]}
    aside = world.deliver(box=sales, **TWICE, **both)
    named = world.deliver(**TWICE | {"markdown": "where  is my\norder?"}, **both)
    world.run_until_idle()
    assert finished(world, named) == ("reply_submitted", Cause.TRIAGED)
    assert finished(world, aside) == ("skipped", Cause.SAME_EMAIL)
    assert named in world.tags(aside)["agent.reason"]


def test_a_copy_is_worked_on_when_the_other_ends_unanswered(world: World) -> None:
    sales = world.simulator.add_mailbox("sales@northwind.example")
    both: dict[str, Any] = {"to": ["support@northwind.example"], "cc": ["sales@northwind.example"]}
    named, aside = world.deliver(**TWICE, **both), world.deliver(box=sales, **TWICE, **both)
    world.model.steps = [TransientError("unreadable")] * 6
    for _ in range(3):  # the copy is closed while the other is tried again and again
        world.poll_and_work()
        world.clock.advance(minutes=2)
    assert world.entry(aside).cause is Cause.SAME_EMAIL
    world.simulator.fault = missing(lambda _method, path: f"/emails/{named}" in path)
    world.clock.advance(hours=2)
    world.run_until_idle()
    assert world.entry(named).cause is Cause.DELETED
    assert finished(world, aside) == ("reply_submitted", Cause.TRIAGED)


def test_copies_that_are_closed_leave_each_other_closed(world: World) -> None:
    """What comes three times: otherwise, the end of each copy would open the other one, for ever."""
    first, second, third = (world.deliver(**TWICE) for _ in range(3))
    world.run_until_idle()
    outcomes = [finished(world, id_) for id_ in (first, second, third)]
    assert outcomes.count(("reply_submitted", Cause.TRIAGED)) == 1
    assert outcomes.count(("skipped", Cause.SAME_EMAIL)) == 2


def test_a_copy_that_arrives_again_is_answered_once_unless_the_answer_had_left(world: World) -> None:
    first = world.deliver(**TWICE)
    world.clock.advance(minutes=1)
    again = world.deliver(**TWICE)
    world.run_until_idle()
    assert sorted(world.outcome(id_) for id_ in (first, again)) == ["reply_submitted", "skipped"]
    (reply,) = world.simulator.accepted
    world.simulator.decide(reply.email_id, "approve")
    world.clock.advance(minutes=6)
    world.tracker.track()
    world.clock.advance(minutes=6)
    later = world.deliver(**TWICE)
    world.run_until_idle()
    assert world.outcome(later) == "reply_submitted"
