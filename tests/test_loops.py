"""Mail that answers mail: whoever writes back by itself is stopped by the limits."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from local.testing.world import World

ROUNDS = 30
PER_THREAD, PER_SENDER = 3, 5  # the defaults of the settings


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        yield world


class Approver:
    """Approves whatever waits, at once, and hands out each sent reply one time: the worst approver there is."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._seen = 0

    def take_sent(self) -> list[str]:
        """The ids of the replies that left since last asked."""
        accepted = self.world.simulator.accepted[self._seen :]
        self._seen += len(accepted)
        for email in accepted:
            self.world.simulator.decide(email.email_id, "approve")
        return [email.email_id for email in accepted]


def run_against(world: World, answer: Callable[[str, int], None], rounds: int = ROUNDS) -> int:
    """Let `answer` answer every reply that leaves, until none does; the number of replies that left."""
    approver, sent = Approver(world), 0
    for _ in range(rounds):
        world.run_until_idle()
        world.clock.advance(minutes=1)
        replies = approver.take_sent()
        for reply_id in replies:
            sent += 1
            answer(reply_id, sent)
        if not replies:
            return sent
    raise AssertionError(f"still going after {rounds} rounds and {sent} replies")


def assert_all_are_visible(world: World) -> None:
    outcomes = [world.outcome(entry.email_id) for entry in world.ledger.entries(world.box)]
    assert set(outcomes) == {"reply_submitted", "escalated"}


def test_an_auto_responder_in_one_thread_is_answered_no_more_than_the_thread_limit(world: World) -> None:
    def answer(reply_id: str, n: int) -> None:
        world.deliver(f"We got your mail {n}.", sender="robot@shop.example", in_reply_to=reply_id)

    world.deliver(sender="robot@shop.example")
    assert run_against(world, answer) == PER_THREAD
    assert_all_are_visible(world)


def test_an_auto_responder_that_breaks_threading_is_answered_no_more_than_the_sender_limit(
    world: World,
) -> None:
    def answer(reply_id: str, n: int) -> None:
        world.deliver(f"We got your mail {n}.", sender="Robot <ROBOT@shop.example>", subject=f"Ticket {n}")

    world.deliver(sender="robot@shop.example")
    assert run_against(world, answer) == PER_SENDER
    assert_all_are_visible(world)
    world.clock.advance(days=1)
    world.run_until_idle()
    assert len(world.simulator.accepted) == PER_SENDER  # nothing starts again by itself


def test_an_auto_responder_that_changes_its_address_in_one_thread_is_stopped_by_the_thread_limit(
    world: World,
) -> None:
    def answer(reply_id: str, n: int) -> None:
        world.deliver(f"We got it {n}.", sender=f"ticket-{n}@shop.example", in_reply_to=reply_id)

    world.deliver(sender="ticket-0@shop.example")
    assert run_against(world, answer) == PER_THREAD


def test_an_auto_responder_that_writes_twice_for_every_reply_is_stopped_as_well(world: World) -> None:
    def answer(reply_id: str, n: int) -> None:
        for copy in ("received", "forwarded"):
            world.deliver(f"{copy} {n}", sender="robot@shop.example", subject=f"Ticket {copy} {n}")

    world.deliver(sender="robot@shop.example")
    assert run_against(world, answer) == PER_SENDER
    assert_all_are_visible(world)


@pytest.mark.parametrize(("keeps_threads", "limit"), [(True, PER_THREAD), (False, PER_SENDER)])
def test_two_agents_of_two_accounts_stop_writing_to_each_other(
    tmp_path: Path, keeps_threads: bool, limit: int
) -> None:
    with ExitStack() as stack:
        sides = [stack.enter_context(_open_side(tmp_path, name)) for name in ("one", "two")]
        sides[0].receive("Hello", "desk@two.example", "Hello", keeps_threads=False)
        sent = _exchange(sides, keeps_threads=keeps_threads)
    assert sent == [limit, limit]


def test_two_mailboxes_of_one_account_never_answer_each_other(world: World) -> None:
    other = world.simulator.add_mailbox("sales@northwind.example", "gated_send")
    emails = [
        world.deliver(sender="Sales <sales@northwind.example>"),
        world.deliver(box=other, sender="Support <Support@Northwind.example>"),
    ]
    world.run_until_idle()
    assert [world.outcome(email_id) for email_id in emails] == ["skipped", "skipped"]
    assert world.model.requests == []


class Side(World):
    """One of two agents, with a mailbox under a domain of its own."""

    desk = ""
    newest = ""  # the email that it received last

    def receive(self, markdown: str, sender: str, subject: str, *, keeps_threads: bool) -> None:
        """Let an email arrive, as an answer to its own newest thread or with a new subject."""
        reference = self.newest if keeps_threads and self.newest else None
        self.newest = self.deliver(
            markdown, box=self.desk, sender=sender, subject=subject, in_reply_to=reference
        )


def _open_side(tmp_path: Path, name: str) -> Side:
    folder = tmp_path / name
    folder.mkdir()
    side = Side(folder)
    side.desk = side.simulator.add_mailbox(f"desk@{name}.example", "gated_send")
    return side


def _exchange(sides: list[Side], *, keeps_threads: bool) -> list[int]:
    """Carry every reply that leaves one side into the other until none does; how many left on each."""
    approvers = [Approver(side) for side in sides]
    for n in range(ROUNDS):
        carried = 0
        for source, target, approver in zip(sides, reversed(sides), approvers, strict=True):
            source.run_until_idle()
            source.clock.advance(minutes=1)
            for reply_id in approver.take_sent():
                reply = source.simulator.find_email(reply_id)
                assert reply is not None
                target.receive(reply.markdown, reply.sender, f"Case {n}", keeps_threads=keeps_threads)
                carried += 1
        if not carried:
            return [len(side.simulator.accepted) for side in sides]
    raise AssertionError(f"still going after {ROUNDS} rounds")
