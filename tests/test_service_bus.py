"""The Service Bus work queue, through the unmodified SDK over real AMQP."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import pytest
from azure.core.credentials import TokenCredential
from azure.core.exceptions import ClientAuthenticationError
from azure.servicebus import ServiceBusClient

from local.testing.amqp_peer import AmqpPeer, Script, running_amqp_peer
from local.testing.world import World
from shared.domain import WorkItem, parse_work_item
from shared.errors import ConfigurationError, TransientError
from shared.ledger.entries import LedgerEntry
from shared.ledger.ledger import Ledger
from shared.services.service_bus import ServiceBusWorkQueue, build_service_bus_work_queue
from shared.settings import Secret

LIVES = timedelta(minutes=10)


@contextmanager
def queue_at(peer: AmqpPeer, queue_name: str = "inbound-email") -> Iterator[ServiceBusWorkQueue]:
    work_queue = build_service_bus_work_queue(
        namespace=None, credential=None, connection_string=peer.connection_string, queue_name=queue_name
    )
    try:
        yield work_queue
    finally:
        work_queue.close()


def items(count: int, mailbox_id: str = "mbx") -> list[WorkItem]:
    return [WorkItem(mailbox_id, f"email-{n}") for n in range(count)]


def arrived(peer: AmqpPeer, count: int) -> list[WorkItem]:
    return [parse_work_item(message["body"].encode()) for message in peer.wait_for_messages(count)]


def test_work_items_arrive_as_json_bodies_in_their_order() -> None:
    with running_amqp_peer() as peer, queue_at(peer) as work_queue:
        work_queue.send(items(3), LIVES)

        assert arrived(peer, 3) == items(3)
        assert {message["content_type"] for message in peer.wait_for_messages(3)} == {"application/json"}


def test_a_work_item_lives_as_long_as_it_is_said_to() -> None:
    with running_amqp_peer() as peer, queue_at(peer) as work_queue:
        work_queue.send(items(2), LIVES)
        work_queue.send(items(1), timedelta(minutes=20))

        assert [message["ttl"] for message in peer.wait_for_messages(3)] == [600_000, 600_000, 1_200_000]


class CountingQueue:
    """Sends on, and counts."""

    def __init__(self, work_queue: ServiceBusWorkQueue) -> None:
        self._work_queue = work_queue
        self.sent = 0

    def send(self, some: Sequence[WorkItem], lives: timedelta) -> None:
        self._work_queue.send(some, lives)
        self.sent += len(some)


def test_a_backlog_of_hours_takes_two_work_items_an_email(tmp_path: Path) -> None:
    """1,200 emails at 20 a minute: each waits for up to an hour, which is six leases."""
    emails, a_minute = 1_200, 20
    with World(tmp_path) as world, running_amqp_peer() as peer, queue_at(peer) as work_queue:
        world.ledger._store._read("PRAGMA synchronous = OFF")  # type: ignore[attr-defined]  # no need to outlive a power cut
        for number in range(emails):
            entry = LedgerEntry(world.box, f"em_{number}", world.clock(), "", None, world.clock())
            world.ledger.add(entry)
        counting = CountingQueue(work_queue)
        world.poller._work_queue = counting
        arrived_at: list[timedelta] = []
        started, taken, minutes = world.clock(), 0, 0
        while world.ledger.next_due_at() is not None:
            world.poller.poll()
            now = world.clock() - started
            messages = peer.wait_for_messages(counting.sent) if counting.sent else []
            arrived_at += [now] * (len(messages) - len(arrived_at))
            left = a_minute
            while left and taken < len(messages):
                message, age = messages[taken], now - arrived_at[taken]
                taken += 1
                if age < timedelta(milliseconds=message["ttl"]):
                    left -= finish(world.ledger, parse_work_item(message["body"].encode()), world)
            world.clock.advance(minutes=1)
            minutes += 1
        assert minutes < 1.1 * emails / a_minute
        assert counting.sent <= 2 * emails


def finish(ledger: Ledger, item: WorkItem, world: World) -> bool:
    """Do the work that a work item names; say whether there was any."""
    now = world.clock()
    claimed = ledger.claim(item, now, now + timedelta(seconds=world.settings.lease_seconds))
    if claimed is not None:
        ledger.finish(replace(claimed, finished_at=now))
    return claimed is not None


def test_nothing_to_send_opens_no_connection() -> None:
    with running_amqp_peer() as peer, queue_at(peer) as work_queue:
        work_queue.send([], LIVES)
        work_queue.send(items(1), LIVES)

        assert peer.wait_for_messages(1)
        assert peer.reported("batch") == [1]


def test_five_hundred_work_items_leave_in_one_batch_over_one_link() -> None:
    with running_amqp_peer() as peer, queue_at(peer) as work_queue:
        work_queue.send(items(500), LIVES)

        assert arrived(peer, 500) == items(500)
        assert peer.reported("batch") == [500]
        assert peer.reported("link") == ["inbound-email"]


def test_work_items_that_do_not_fit_into_one_batch_leave_in_several() -> None:
    with running_amqp_peer(Script(max_batch_bytes=4096)) as peer, queue_at(peer) as work_queue:
        work_queue.send(items(100), LIVES)

        assert arrived(peer, 100) == items(100)
        assert len(peer.reported("batch")) > 1


def test_enqueuing_a_row_again_is_never_a_duplicate_to_service_bus() -> None:
    with running_amqp_peer() as peer, queue_at(peer) as work_queue:
        work_queue.send(items(2), LIVES)
        work_queue.send(items(2), LIVES)

        message_ids = [message["message_id"] for message in peer.wait_for_messages(4)]
        assert all(message_ids)
        assert len(set(message_ids)) == 4


def test_eight_threads_share_one_link_and_every_work_item_arrives_once() -> None:
    with running_amqp_peer() as peer, queue_at(peer) as work_queue:
        lots = [items(25, mailbox_id=f"mbx-{n}") for n in range(8)]
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda lot: work_queue.send(lot, LIVES), lots))

        received = arrived(peer, 200)
        assert sorted(received, key=repr) == sorted((item for lot in lots for item in lot), key=repr)
        assert peer.reported("link") == ["inbound-email"]


def test_a_dropped_connection_is_healed_within_the_send() -> None:
    with running_amqp_peer(Script(drop_deliveries=1)) as peer, queue_at(peer) as work_queue:
        work_queue.send(items(2), LIVES)

        assert arrived(peer, 2) == items(2)
        assert peer.reported("dropped") == [True]


def test_a_send_that_failed_is_transient_and_the_next_one_uses_a_new_connection() -> None:
    with running_amqp_peer() as first, queue_at(first) as work_queue:
        work_queue.send(items(1), LIVES)
        first.stop()

        with pytest.raises(TransientError, match="sending 1 work items to the Service Bus queue"):
            work_queue.send(items(1), LIVES)

        with running_amqp_peer(Script(port=first.port)) as second:
            work_queue.send(items(1), LIVES)
            assert arrived(second, 1) == items(1)


def test_a_batch_that_service_bus_rejects_is_transient() -> None:
    with running_amqp_peer(Script(reject_deliveries=100)) as peer, queue_at(peer) as work_queue:
        with pytest.raises(TransientError, match="amqp:internal-error"):
            work_queue.send(items(1), LIVES)

        assert peer.reported("message") == []


def test_a_queue_that_does_not_exist_names_its_setting() -> None:
    with (
        running_amqp_peer() as peer,
        queue_at(peer, "no-such-queue") as work_queue,
        pytest.raises(ConfigurationError, match=r"'no-such-queue'.*WORK_QUEUE_NAME"),
    ):
        work_queue.send(items(1), LIVES)


def test_a_token_refused_because_the_queue_does_not_exist_names_its_setting() -> None:
    with (
        running_amqp_peer(Script(token_status=404)) as peer,
        queue_at(peer) as work_queue,
        pytest.raises(ConfigurationError, match="WORK_QUEUE_NAME"),
    ):
        work_queue.send(items(1), LIVES)


UNAUTHORISED = r"ServiceBusConnection__fullyQualifiedNamespace.*Azure Service Bus Data Sender"


@pytest.mark.parametrize(
    "script",
    [Script(token_status=401), Script(refuse_link="amqp:unauthorized-access")],
    ids=["token", "role"],
)
def test_a_refused_sender_names_the_setting_and_the_role(script: Script) -> None:
    with (
        running_amqp_peer(script) as peer,
        queue_at(peer) as work_queue,
        pytest.raises(ConfigurationError, match=UNAUTHORISED),
    ):
        work_queue.send(items(1), LIVES)


class NoIdentity(TokenCredential):
    """A credential on a machine that has no identity."""

    def get_token(self, *scopes: str, **options: object) -> NoReturn:
        raise ClientAuthenticationError("no identity on this machine")


def test_a_namespace_that_cannot_be_reached_is_transient() -> None:
    work_queue = build_service_bus_work_queue(
        namespace="127.0.0.1", credential=NoIdentity(), connection_string=None, queue_name="inbound-email"
    )
    with pytest.raises(TransientError, match="ServiceBusConnectionError"):
        work_queue.send(items(1), LIVES)


def test_an_identity_that_yields_no_token_names_the_setting_and_the_role() -> None:
    with running_amqp_peer() as peer:
        work_queue = ServiceBusWorkQueue(
            lambda: ServiceBusClient(f"127.0.0.1:{peer.port}", NoIdentity(), use_tls=False, retry_total=0),
            "inbound-email",
            "127.0.0.1",
        )
        with pytest.raises(ConfigurationError, match=UNAUTHORISED):
            work_queue.send(items(1), LIVES)


def test_a_closed_queue_opens_a_new_link_when_it_is_used_again() -> None:
    with running_amqp_peer() as peer, queue_at(peer) as work_queue:
        work_queue.send(items(1), LIVES)
        work_queue.close()
        work_queue.close()
        work_queue.send(items(1), LIVES)

        assert arrived(peer, 2) == items(1) * 2
        assert peer.reported("link") == ["inbound-email"] * 2


def test_a_malformed_connection_string_is_a_configuration_error_that_does_not_show_it() -> None:
    work_queue = build_service_bus_work_queue(
        namespace=None,
        credential=None,
        connection_string=Secret("SharedAccessKey=do-not-show"),
        queue_name="inbound-email",
    )

    with pytest.raises(ConfigurationError, match="ServiceBusConnection is not") as caught:
        work_queue.send(items(1), LIVES)
    assert "do-not-show" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_queue_without_namespace_and_connection_string_is_refused_when_it_is_built() -> None:
    with pytest.raises(ConfigurationError, match="ServiceBusConnection__fullyQualifiedNamespace is not set"):
        build_service_bus_work_queue(
            namespace=None, credential=None, connection_string=None, queue_name="inbound-email"
        )
