"""What both ledgers promise, and what each of them promises on top."""

import http.server
import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import ServiceResponseError
from azure.data.tables import TableServiceClient
from hypothesis import given
from hypothesis import strategies as st

from local.testing.azurite import Azurite
from shared.domain import (
    Action,
    Cause,
    Draft,
    ModelText,
    Outcome,
    Rejection,
    Sentiment,
    Triage,
    Urgency,
    Usage,
    WorkItem,
)
from shared.errors import (
    ConfigurationError,
    LeaseLostError,
    PermanentError,
    ThrottledError,
    TransientError,
)
from shared.ledger import sqlite as ledger_sqlite
from shared.ledger.entries import FIRST_CHECK_AFTER, Ledger, LedgerEntry, TrackedReply, Watermark
from shared.ledger.rows import from_reply_row, from_row, to_reply_row, to_row
from shared.ledger.sqlite import SqliteLedger
from shared.ledger.tables import ORPHAN_AGE, TablesLedger, build_tables_ledger

T = TypeVar("T")

NOW = datetime(2026, 11, 22, 10, 0, 0, 123456, tzinfo=UTC)
LEASE = timedelta(minutes=10)
LATER = NOW + timedelta(hours=3)
FAR = NOW + timedelta(days=1000)
THREADS = 16

TRIAGE = Triage(
    Action.REPLY,
    "billing",
    Urgency.LOW,
    Sentiment.NEGATIVE,
    0.1 + 0.2,
    ModelText("Ünï '\"\\ 😀"),
    ModelText("line\nline"),
    Cause.CATEGORY_RULE,
    "billing",
)
DRAFT = Draft(
    "Dear Zoë,\r\n\t\u202e bye 😀\x00", 1.0, (ModelText("what?"), ModelText("")), ("em/1", "em#2"), "f" * 64
)


def new_entry(email_id: str = "em_1", mailbox_id: str = "mb_1", due_at: datetime = NOW) -> LedgerEntry:
    return LedgerEntry(
        mailbox_id, email_id, NOW - timedelta(minutes=1), "Ann <ann@example.org>", None, due_at
    )


FULL = replace(
    new_entry(),
    thread_id="th 1",
    attempts=3,
    waiting_for=Cause.THROTTLED,
    waiting_detail="the model's quota",
    usage=Usage(2, 3, 4),
    triage=TRIAGE,
    draft=DRAFT,
    submit_intent_at=NOW + timedelta(microseconds=1),
    reply_id="em_9",
    outcome=Outcome.REPLY_SUBMITTED,
    cause=Cause.OPEN_POINTS,
    detail="",
    reply_status="bounced",
    reply_decided_at=NOW + timedelta(hours=1),
    reply_settled_at=LATER,
    redriven_at=NOW + timedelta(minutes=2),
    rejections=(Rejection("em_8", "too long, be brief", "Dear Zoë 😀\r\n" + "字" * 8000, NOW, LATER),) * 2,
)


@pytest.fixture
def tables_ledger(azurite: Azurite) -> TablesLedger:
    azurite.clear()
    return build_tables_ledger(azurite.endpoint, azurite.credential)


@pytest.fixture
def sqlite_path(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "ledger #1?.sqlite"


@pytest.fixture
def sqlite_ledger(sqlite_path: Path) -> Iterator[SqliteLedger]:
    with closing(SqliteLedger(sqlite_path)) as ledger:
        yield ledger


@pytest.fixture(params=["sqlite", "tables"])
def ledger(request: pytest.FixtureRequest) -> Ledger:
    chosen: Ledger = request.getfixturevalue(f"{request.param}_ledger")
    return chosen


def claim(ledger: Ledger, entry: LedgerEntry, now: datetime = NOW) -> LedgerEntry:
    claimed = ledger.claim(entry.work_item, now, now + LEASE)
    assert claimed is not None
    return claimed


def added_and_claimed(ledger: Ledger, entry: LedgerEntry) -> LedgerEntry:
    assert ledger.add(entry)
    return claim(ledger, entry)


def finished(entry: LedgerEntry) -> LedgerEntry:
    return replace(entry, outcome=Outcome.IGNORED, finished_at=NOW)


def replied(entry: LedgerEntry, reply_id: str = "em_9") -> LedgerEntry:
    return replace(
        entry,
        outcome=Outcome.REPLY_SUBMITTED,
        reply_id=reply_id,
        submit_intent_at=NOW - timedelta(seconds=9),
        finished_at=NOW,
    )


def tracked(ledger: Ledger) -> set[TrackedReply]:
    replies = ledger.tracked_replies()
    assert len(set(replies)) == len(replies)
    return set(replies)


def due(ledger: Ledger, now: datetime = FAR) -> set[WorkItem]:
    return set(ledger.due(now, 1000))


def at_once(work: Callable[[int], T], threads: int = THREADS) -> list[T]:
    """Run the work on that many threads, all let go in the same moment."""
    gate = threading.Barrier(threads, timeout=30)

    def run(number: int) -> T:
        gate.wait()
        return work(number)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, range(threads)))


# The rows


@pytest.mark.parametrize(
    "entry",
    [new_entry(), FULL, replace(FULL, draft=replace(DRAFT, reply_markdown="ü" * 24_000), triage=None)],
    ids=["new", "full", "long draft"],
)
def test_every_field_comes_back_as_it_was_stored(ledger: Ledger, entry: LedgerEntry) -> None:
    claimed = added_and_claimed(ledger, new_entry())
    saved = ledger.save(replace(entry, lease_until=claimed.lease_until, version=claimed.version))
    stored = ledger.get(entry.work_item)
    assert stored == saved
    assert replace(saved, version="", lease_until=None) == entry


moments = st.datetimes(timezones=st.just(UTC))
texts = st.text()


@given(
    st.builds(
        LedgerEntry,
        received_at=moments,
        due_at=moments,
        lease_until=st.none() | moments,
        triage=st.none() | st.builds(Triage, confidence=st.floats(0, 1)),
        draft=st.none()
        | st.builds(
            Draft,
            confidence=st.floats(0, 1),
            unanswered=st.lists(st.builds(ModelText, texts)).map(tuple),
            covers=st.lists(texts).map(tuple),
        ),
        submit_intent_at=st.none() | moments,
        finished_at=st.none() | moments,
        reply_status=st.none() | texts,
        reply_decided_at=st.none() | moments,
        reply_settled_at=st.none() | moments,
        redriven_at=st.none() | moments,
        rejections=st.lists(st.builds(Rejection, submitted_at=moments, decided_at=moments), max_size=3).map(
            tuple
        ),
    )
)
def test_any_entry_survives_the_way_through_a_row_and_through_json(entry: LedgerEntry) -> None:
    assert from_row(json.loads(json.dumps(to_row(entry))), entry.version) == entry


@given(st.builds(TrackedReply, submitted_at=moments, check_at=moments, status=st.none() | texts))
def test_any_tracked_reply_survives_the_way_through_a_row_and_through_json(reply: TrackedReply) -> None:
    assert from_reply_row(json.loads(json.dumps(to_reply_row(reply)))) == reply


def test_a_row_that_a_newer_version_wrote_can_be_read() -> None:
    row = to_row(FULL)
    for name in ("triage", "draft", "rejection_1"):
        row[name] = json.dumps(json.loads(str(row[name])) | {"field_of_tomorrow": 1})
    assert from_row(row | {"column_of_tomorrow": 1}, "") == FULL


def test_open_work_is_as_old_as_its_arrival_or_as_the_order_to_do_it_again(ledger: Ledger) -> None:
    assert ledger.open_since() == []
    ledger.add(new_entry("em_1"))
    done = ledger.finish(finished(added_and_claimed(ledger, new_entry("em_2"))))
    assert ledger.open_since() == [NOW - timedelta(minutes=1)]
    ledger.defer(done.redriven(LATER))
    assert sorted(ledger.open_since()) == [NOW - timedelta(minutes=1), LATER]


def test_a_tracked_reply_is_found_by_its_id(ledger: Ledger) -> None:
    replies = [TrackedReply(f"mb_{n}", f"em_{n}", f"em_reply_{n}", NOW, NOW) for n in range(3)]
    ledger.track_replies(replies)
    assert ledger.find_tracked_reply("mb_1", "em_reply_1") == replies[1]
    assert ledger.find_tracked_reply("mb_2", "em_reply_1") is None


def test_a_row_from_before_replies_were_tracked_can_be_read() -> None:
    row = to_row(FULL)
    later = (
        "reply_status",
        "reply_settled_at",
        "reply_decided_at",
        "redriven_at",
        "rejection_1",
        "rejection_2",
    )
    for name in later:
        del row[name]
    before = replace(FULL, reply_status=None, reply_settled_at=None, reply_decided_at=None, redriven_at=None)
    assert from_row(row, "") == replace(before, rejections=())


@pytest.mark.parametrize(
    "strange",
    [
        "a/b\\c",
        "#?%2f%",
        'it\'s "quoted"',
        "grüße-日本-😀",
        "x" * 200,
        "😀" * 200,
        " ",
        "..",
        "a+b|c!d\n\x7f\x85",
    ],
)
def test_any_text_can_be_an_id(ledger: Ledger, strange: str) -> None:
    entry = new_entry(strange, strange)
    assert ledger.add(entry)
    assert not ledger.add(entry)
    assert due(ledger) == {entry.work_item}
    done = ledger.finish(finished(claim(ledger, entry)))
    assert list(ledger.entries(strange)) == [done]
    assert due(ledger) == set()
    reply = TrackedReply(strange, strange, strange, NOW, LATER, strange)
    ledger.track_replies([reply])
    assert tracked(ledger) == {reply}
    ledger.drop_reply(reply)
    assert tracked(ledger) == set()
    assert ledger.take_slot(strange, strange, ())
    assert ledger.slots(strange) == (strange,)
    ledger.add_tokens(strange, "2026-11-22", 5)
    assert ledger.tokens_used(strange, "2026-11-22") == 5


def test_ids_that_look_alike_are_different_rows(ledger: Ledger) -> None:
    entries = [
        new_entry(email_id, mailbox_id)
        for mailbox_id, email_id in [("a", "b|c"), ("a|b", "c"), ("A", "b|c"), ("a", "b%7Cc"), ("a", "B|c")]
    ]
    assert [ledger.add(entry) for entry in entries] == [True] * len(entries)
    assert due(ledger) == {entry.work_item for entry in entries}


def test_entries_are_those_of_one_mailbox(ledger: Ledger) -> None:
    for number in range(5):
        ledger.add(new_entry(f"em_{number}", f"mb_{number % 2}"))
    assert {entry.email_id for entry in ledger.entries("mb_0")} == {"em_0", "em_2", "em_4"}
    assert list(ledger.entries("mb_9")) == []


def test_an_unknown_email_has_no_row(ledger: Ledger) -> None:
    assert ledger.get(WorkItem("mb_1", "em_1")) is None


# Adding and claiming


def test_an_email_added_by_many_at_once_is_new_exactly_once(ledger: Ledger) -> None:
    assert sum(at_once(lambda _: ledger.add(new_entry()))) == 1
    assert due(ledger, NOW) == {new_entry().work_item}


def test_adding_a_known_email_changes_nothing(ledger: Ledger) -> None:
    done = ledger.finish(finished(added_and_claimed(ledger, new_entry())))
    assert not ledger.add(new_entry(due_at=LATER))
    assert ledger.get(done.work_item) == done
    assert due(ledger) == set()


def test_only_one_of_many_workers_gets_the_lease(ledger: Ledger) -> None:
    ledger.add(new_entry())
    claims = at_once(lambda _: ledger.claim(new_entry().work_item, NOW, NOW + LEASE))
    winners = [entry for entry in claims if entry is not None]
    assert len(winners) == 1
    assert (winners[0].attempts, winners[0].lease_until) == (1, NOW + LEASE)
    assert ledger.get(winners[0].work_item) == winners[0]


def test_a_row_that_is_unknown_not_due_leased_or_done_cannot_be_claimed(ledger: Ledger) -> None:
    entry = new_entry(due_at=NOW + timedelta(microseconds=1))
    item = entry.work_item
    assert ledger.claim(item, FAR, FAR) is None
    ledger.add(entry)
    assert ledger.claim(item, NOW, NOW + LEASE) is None
    claimed = claim(ledger, entry, LATER)
    assert ledger.claim(item, LATER + LEASE - timedelta(microseconds=1), FAR) is None
    ledger.finish(finished(claimed))
    assert ledger.claim(item, FAR, FAR + LEASE) is None


def test_a_lease_that_ran_out_can_be_taken_over(ledger: Ledger) -> None:
    first = added_and_claimed(ledger, new_entry())
    second = claim(ledger, first, NOW + LEASE)
    assert second.attempts == 2


# Fencing


@pytest.mark.parametrize("write", ["save", "defer", "finish"])
def test_a_worker_whose_lease_was_taken_over_cannot_write(ledger: Ledger, write: str) -> None:
    stale = added_and_claimed(ledger, new_entry())
    owner = claim(ledger, stale, NOW + LEASE)
    with pytest.raises(LeaseLostError):
        getattr(ledger, write)(finished(stale))
    assert ledger.get(owner.work_item) == owner
    assert owner.work_item in due(ledger)
    ledger.finish(finished(owner))


@pytest.mark.parametrize("write", ["save", "defer", "finish"])
def test_every_write_needs_the_newest_version(ledger: Ledger, write: str) -> None:
    unclaimed = new_entry()
    claimed = added_and_claimed(ledger, unclaimed)
    saved = ledger.save(replace(claimed, detail="newer"))
    for stale in (claimed, unclaimed, new_entry("never added")):
        with pytest.raises(LeaseLostError):
            getattr(ledger, write)(finished(stale))
    assert ledger.get(saved.work_item) == saved


def test_a_row_without_an_end_cannot_be_finished(ledger: Ledger) -> None:
    claimed = added_and_claimed(ledger, new_entry())
    with pytest.raises(ValueError, match="em_1"):
        ledger.finish(claimed)
    assert due(ledger) == {claimed.work_item}


# Ringing


def test_a_row_is_rung_for_from_its_due_time_on(ledger: Ledger) -> None:
    soon, late = new_entry("soon"), new_entry("late", due_at=LATER)
    assert ledger.next_due_at() is None
    ledger.add(late)
    assert ledger.next_due_at() == LATER
    ledger.add(soon)
    assert ledger.next_due_at() == NOW
    assert due(ledger, NOW - timedelta(microseconds=1)) == set()
    assert due(ledger, NOW) == {soon.work_item}
    assert due(ledger, LATER) == {soon.work_item, late.work_item}


def test_due_gives_no_more_than_asked_for(ledger: Ledger) -> None:
    for number in range(5):
        ledger.add(new_entry(f"em_{number}"))
    assert [len(ledger.due(NOW, limit)) for limit in (0, 1, 4, 5, 6)] == [0, 1, 4, 5, 5]


def test_a_row_that_was_rung_for_is_quiet_until_its_next_ring(ledger: Ledger) -> None:
    items = [new_entry(f"em_{number}").work_item for number in range(203)]
    for item in items[:3]:
        ledger.add(new_entry(item.email_id))
    ledger.rung([*items[:2], items[0]], LATER)
    assert due(ledger, LATER - timedelta(microseconds=1)) == {items[2]}
    assert due(ledger, LATER) == set(items[:3])
    assert ledger.next_due_at() == NOW
    ledger.rung([], FAR)
    ledger.rung(items, FAR)
    assert due(ledger, FAR - timedelta(microseconds=1)) == set()


def test_a_row_rung_for_before_its_claim_rings_again_when_the_worker_died(ledger: Ledger) -> None:
    ledger.add(new_entry())
    ledger.rung([new_entry().work_item], NOW + LEASE)
    claim(ledger, new_entry())
    assert due(ledger, NOW + LEASE) == {new_entry().work_item}
    assert ledger.claim(new_entry().work_item, NOW + LEASE, FAR) is not None


def test_a_claimed_row_that_was_never_rung_for_rings_by_the_end_of_its_lease(ledger: Ledger) -> None:
    claimed = added_and_claimed(ledger, new_entry())
    ledger.save(replace(claimed, detail="still at it"))
    assert due(ledger, NOW + LEASE) == {claimed.work_item}


def test_a_deferred_row_is_given_back_and_rings_when_it_is_due(ledger: Ledger) -> None:
    claimed = added_and_claimed(ledger, new_entry())
    ledger.rung([claimed.work_item], FAR)
    soon = NOW + timedelta(seconds=5)
    deferred = ledger.defer(replace(claimed, due_at=soon, waiting_for=Cause.THROTTLED))
    assert deferred.lease_until is None
    assert ledger.get(claimed.work_item) == deferred
    assert ledger.next_due_at() == soon
    assert due(ledger, soon - timedelta(microseconds=1)) == set()
    assert claim(ledger, deferred, soon).waiting_for is Cause.THROTTLED


def test_a_finished_row_is_kept_and_never_rings(ledger: Ledger) -> None:
    done = ledger.finish(finished(added_and_claimed(ledger, new_entry())))
    assert (done.lease_until, done.finished_at) == (None, NOW)
    assert ledger.get(done.work_item) == done
    assert due(ledger) == set()
    assert ledger.next_due_at() is None


def test_a_finished_row_rung_for_too_late_goes_quiet_when_claimed(ledger: Ledger) -> None:
    item = ledger.finish(finished(added_and_claimed(ledger, new_entry()))).work_item
    ledger.rung([item], LATER)
    assert ledger.claim(item, LATER, LATER + LEASE) is None
    assert due(ledger) == set()


def test_a_finished_row_can_be_set_back_to_work(ledger: Ledger) -> None:
    done = ledger.finish(finished(added_and_claimed(ledger, new_entry())))
    ledger.defer(replace(done, finished_at=None, outcome=None, attempts=0, due_at=LATER))
    assert due(ledger, LATER) == {done.work_item}
    assert claim(ledger, done, LATER).attempts == 1


# Tracked replies


def test_a_finished_row_with_a_reply_has_it_tracked(ledger: Ledger) -> None:
    assert tracked(ledger) == set()
    done = ledger.finish(replied(added_and_claimed(ledger, new_entry())))
    assert done.submit_intent_at is not None
    assert tracked(ledger) == {
        TrackedReply("mb_1", "em_1", "em_9", done.submit_intent_at, NOW + FIRST_CHECK_AFTER)
    }
    assert ledger.get(done.work_item) == done


@pytest.mark.parametrize(
    "change", [{"outcome": Outcome.NEEDS_HUMAN}, {"reply_id": None}], ids=["no success", "no id"]
)
def test_a_finished_row_without_a_reply_has_none_tracked(ledger: Ledger, change: dict[str, Any]) -> None:
    ledger.finish(replace(replied(added_and_claimed(ledger, new_entry())), **change))
    assert tracked(ledger) == set()


def test_a_tracked_reply_is_no_work(ledger: Ledger) -> None:
    ledger.finish(replied(added_and_claimed(ledger, new_entry())))
    assert (due(ledger), ledger.next_due_at()) == (set(), None)


def test_a_finish_without_the_lease_finishes_nothing(ledger: Ledger) -> None:
    stale = added_and_claimed(ledger, new_entry())
    owner = claim(ledger, stale, NOW + LEASE)
    with pytest.raises(LeaseLostError):
        ledger.finish(replied(stale))
    assert ledger.get(owner.work_item) == owner


def test_what_became_of_a_reply_is_kept_while_the_reply_is_tracked_further(ledger: Ledger) -> None:
    done = ledger.finish(replied(added_and_claimed(ledger, new_entry())))
    before = tracked(ledger)
    saved = ledger.save(replace(done, reply_status="delivered", reply_settled_at=LATER))
    assert ledger.get(done.work_item) == saved
    assert tracked(ledger) == before
    with pytest.raises(LeaseLostError):
        ledger.save(done)


def test_a_tracked_reply_is_replaced_and_dropped_by_itself(ledger: Ledger) -> None:
    replies = [TrackedReply("mb_1", "em_1", f"em_{number}", NOW, NOW) for number in range(203)]
    ledger.track_replies(replies)
    ledger.track_replies([])
    moved = replace(replies[0], status="approved", check_at=LATER)
    ledger.track_replies([moved])
    assert tracked(ledger) == {moved, *replies[1:]}
    for reply in (replies[1], replies[1], replies[2]):
        ledger.drop_reply(reply)
    assert tracked(ledger) == {moved, *replies[3:]}


def test_the_work_and_the_replies_of_many_mailboxes_are_found_together(ledger: Ledger) -> None:
    entries = [new_entry("em_1", f"mb_{number}") for number in range(40)]
    for entry in entries:
        ledger.add(entry)
    items = {entry.work_item for entry in entries}
    assert due(ledger, NOW) == items
    assert len(ledger.open_since()) == len(items)
    ledger.rung(list(items), FAR)
    assert due(ledger, FAR - timedelta(microseconds=1)) == set()
    assert ledger.next_due_at() == FAR
    replies = [TrackedReply(item.mailbox_id, "em_1", "em_9", NOW, NOW) for item in items]
    ledger.track_replies(replies)
    assert tracked(ledger) == set(replies)


def test_replies_of_two_mailboxes_that_share_an_id_are_two(ledger: Ledger) -> None:
    replies = [TrackedReply(box, "em_1", "em_9", NOW, NOW) for box in ("mb_1", "mb_2")]
    ledger.track_replies(replies)
    ledger.drop_reply(replies[0])
    assert tracked(ledger) == {replies[1]}


# Watermarks, slots, tokens


def test_a_watermark_is_kept_per_mailbox(ledger: Ledger) -> None:
    assert ledger.get_watermark("mb_1") is None
    for watermark in (Watermark(NOW, LATER), Watermark(NOW, FAR)):
        ledger.set_watermark("mb_1", watermark)
        assert ledger.get_watermark("mb_1") == watermark
    assert ledger.get_watermark("mb_2") is None


def test_a_slot_goes_only_to_who_saw_every_earlier_one(ledger: Ledger) -> None:
    assert ledger.slots("th_1") == ()
    assert ledger.take_slot("th_1", "em_1", ())
    assert not ledger.take_slot("th_1", "em_2", ())
    assert ledger.take_slot("th_1", "em_2", ["em_1"])
    assert ledger.slots("th_1") == ("em_1", "em_2")
    assert ledger.slots("th_2") == ()


def test_taking_a_slot_again_takes_no_second_one(ledger: Ledger) -> None:
    ledger.take_slot("th_1", "em_1", ())
    ledger.take_slot("th_1", "em_2", ["em_1"])
    assert ledger.take_slot("th_1", "em_1", ())
    assert ledger.slots("th_1") == ("em_1", "em_2")


def test_workers_racing_for_slots_never_exceed_the_limit(ledger: Ledger) -> None:
    limit = 3

    def compete(number: int) -> bool:
        while len(seen := ledger.slots("th_1")) < limit:
            if ledger.take_slot("th_1", f"em_{number}", seen):
                return True
        return False

    assert sum(at_once(compete)) == limit
    assert len(set(ledger.slots("th_1"))) == limit


def test_no_token_is_lost_when_many_add_at_once(ledger: Ledger) -> None:
    def spend(number: int) -> None:
        for _ in range(4):
            ledger.add_tokens("mb_1", "2026-11-22", 10**9 + number)

    assert ledger.tokens_used("mb_1", "2026-11-22") == 0
    at_once(spend)
    assert ledger.tokens_used("mb_1", "2026-11-22") == 4 * sum(10**9 + number for number in range(THREADS))
    assert ledger.tokens_used("mb_1", "2026-11-23") == ledger.tokens_used("mb_2", "2026-11-22") == 0


# SQLite


def test_a_write_is_on_the_disk_before_it_is_reported(sqlite_path: Path) -> None:
    syncs: list[int] = []
    with closing(SqliteLedger(sqlite_path, sync=syncs.append)) as ledger:
        for number in range(3):
            before = len(syncs)
            entry = added_and_claimed(ledger, new_entry(f"em_{number}"))
            assert len(syncs) >= before + 2
            ledger.finish(finished(entry))
            assert len(syncs) >= before + 3
        before = len(syncs)
        ledger.due(FAR, 10)
        assert len(syncs) == before  # reading waits for no disk


def test_writers_that_wait_for_the_disk_share_one_sync(sqlite_path: Path) -> None:
    is_slow, go, syncs = threading.Event(), threading.Event(), 0

    def sync(_file: int) -> None:
        nonlocal syncs
        if is_slow.is_set():
            syncs += 1
            go.wait(30)

    with closing(SqliteLedger(sqlite_path, sync=sync)) as ledger:
        ledger.add(new_entry("first of all"))
        is_slow.set()
        with ThreadPoolExecutor(THREADS) as pool:
            added = [pool.submit(ledger.add, new_entry(f"em_{number}")) for number in range(THREADS)]
            while len(due(ledger)) <= THREADS:  # all are committed, the first of them waits for the disk
                assert not any(one.done() for one in added)
            go.set()
        assert all(one.result() for one in added)
    assert syncs == 2


def test_a_disk_that_fails_is_a_transient_error(sqlite_path: Path) -> None:
    def sync(_file: int) -> None:
        raise OSError(5, "Input/output error")

    with pytest.raises(TransientError, match=r"LEDGER_PATH.*Input/output error"):
        SqliteLedger(sqlite_path, sync=sync)


PROGRAM = """
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from shared.domain import WorkItem
from shared.errors import ConfigurationError
from shared.ledger.entries import LedgerEntry
from shared.ledger.sqlite import SqliteLedger
now = datetime.fromisoformat(sys.argv[2])
try:
    ledger = SqliteLedger(Path(sys.argv[1]))
except ConfigurationError as error:
    sys.exit(str(error))
"""
CLAIM = """
ledger.rung([WorkItem("mb_1", "em_1")], now + timedelta(days=9))
print(ledger.claim(WorkItem("mb_1", "em_1"), now, now + timedelta(days=9)).attempts, flush=True)
sys.stdin.read()
"""
WORK = """
for number in range(10**6):
    entry = LedgerEntry("mb_1", f"em_{number}", now, "ann@example.org", None, now)
    ledger.add(entry)
    claimed = ledger.claim(entry.work_item, now, now + timedelta(days=9))
    ledger.finish(replace(claimed, finished_at=now))
    print(number, flush=True)
"""


@contextmanager
def other_process(path: Path, program: str = "") -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", PROGRAM + program, str(path), NOW.isoformat()]
    root = Path(__file__).parent.parent
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=root, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_claim_moves_the_ring_to_the_end_of_the_lease(sqlite_ledger: SqliteLedger) -> None:
    for ring_again_at in (NOW, FAR):
        sqlite_ledger.add(entry := new_entry(f"rung until {ring_again_at}"))
        sqlite_ledger.rung([entry.work_item], ring_again_at)
        claim(sqlite_ledger, entry)
        assert sqlite_ledger.next_due_at() == NOW + LEASE


def test_a_write_that_breaks_off_leaves_nothing_half_done(sqlite_ledger: SqliteLedger) -> None:
    sqlite_ledger.add(new_entry())
    with pytest.raises(UnicodeEncodeError):
        sqlite_ledger.rung([new_entry().work_item, WorkItem("mb_1", "\ud800")], FAR)
    assert due(sqlite_ledger, NOW) == {new_entry().work_item}


def test_a_second_process_is_refused_with_the_remedy(sqlite_ledger: SqliteLedger, sqlite_path: Path) -> None:
    with other_process(sqlite_path) as process:
        _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "LEDGER_PATH" in said
    assert "stop that run" in said


def test_a_closed_ledger_can_be_opened_again(sqlite_path: Path) -> None:
    for is_new in (True, False):
        with closing(SqliteLedger(sqlite_path)) as ledger:
            assert ledger.add(new_entry()) == is_new


def test_the_lease_of_a_killed_process_is_given_back_at_once(sqlite_path: Path) -> None:
    with closing(SqliteLedger(sqlite_path)) as ledger:
        ledger.add(new_entry())
    with other_process(sqlite_path, CLAIM) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        process.kill()
    with closing(SqliteLedger(sqlite_path)) as ledger:
        assert due(ledger, NOW) == {new_entry().work_item}
        assert claim(ledger, new_entry()).attempts == 1  # a dead process says nothing against the email


def test_what_was_written_before_a_kill_is_there_after_it(sqlite_path: Path) -> None:
    with other_process(sqlite_path, WORK) as process:
        assert process.stdout is not None
        written = [int(process.stdout.readline()) for _ in range(50)]
        process.kill()
    with closing(SqliteLedger(sqlite_path)) as ledger:
        entries = {entry.email_id: entry for entry in ledger.entries("mb_1")}
        assert all(entries[f"em_{number}"].finished_at == NOW for number in written)
        assert due(ledger) == {entry.work_item for entry in entries.values() if entry.finished_at is None}


def test_a_look_at_a_ledger_in_use_takes_no_lock_and_changes_nothing(
    sqlite_ledger: SqliteLedger, sqlite_path: Path
) -> None:
    claimed = added_and_claimed(sqlite_ledger, new_entry())
    with closing(SqliteLedger(sqlite_path, read_only=True)) as view:
        assert view.get(claimed.work_item) == claimed
        with pytest.raises(ConfigurationError):
            view.add(new_entry("em_2"))
        sqlite_ledger.add(new_entry("em_3"))
        assert len(list(view.entries("mb_1"))) == 2
    assert sqlite_ledger.get(claimed.work_item) == claimed


def test_a_ledger_that_nobody_uses_can_be_looked_at(sqlite_path: Path) -> None:
    with closing(SqliteLedger(sqlite_path)) as ledger:
        claimed = added_and_claimed(ledger, new_entry())
    with closing(SqliteLedger(sqlite_path, read_only=True)) as view:
        assert view.get(claimed.work_item) == claimed


def test_looking_at_a_ledger_that_is_not_there_creates_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="LEDGER_PATH"):
        SqliteLedger(tmp_path / "ledger.sqlite", read_only=True)
    assert list(tmp_path.iterdir()) == []


def write_garbage(path: Path) -> None:
    path.write_bytes(b"not a database, but long enough to be looked at " * 100)


def write_other_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (id)")


def write_newer_ledger(path: Path) -> None:
    SqliteLedger(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {ledger_sqlite.SCHEMA_VERSION + 1}")


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("make", [write_garbage, write_other_database, write_newer_ledger, Path.mkdir])
def test_a_file_that_is_no_ledger_of_ours_is_refused_and_left_alone(
    tmp_path: Path, make: Callable[[Path], None], read_only: bool
) -> None:
    path = tmp_path / "ledger.sqlite"
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    for _ in range(2):  # the second time shows that the first gave the process lock back
        with pytest.raises(ConfigurationError, match=r"LEDGER_PATH(?s:.*)choose another path") as caught:
            SqliteLedger(path, read_only=read_only)
        assert "in use" not in str(caught.value)
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_a_path_that_cannot_be_created_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="LEDGER_PATH"):
        SqliteLedger(tmp_path / "file" / "ledger.sqlite")


def test_a_locked_database_is_a_passing_trouble(sqlite_ledger: SqliteLedger, sqlite_path: Path) -> None:
    sqlite_ledger._connection.execute("PRAGMA busy_timeout = 0")  # not to wait five seconds
    with closing(sqlite3.connect(sqlite_path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(TransientError, match="locked"):
            sqlite_ledger.add(new_entry())
    assert sqlite_ledger.add(new_entry())


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (ledger_sqlite.DUE, "open_work"),
        (ledger_sqlite.NEXT_DUE_AT, "open_work"),
        (ledger_sqlite.OPEN, "open_work"),
        (ledger_sqlite.FIND, "autoindex_emails"),
        (ledger_sqlite.WRITE, "autoindex_emails"),
        (ledger_sqlite.RUNG, "autoindex_emails"),
        (ledger_sqlite.PAGE, "autoindex_emails"),
    ],
)
def test_no_statement_of_the_work_reads_finished_rows(
    sqlite_ledger: SqliteLedger, sqlite_path: Path, statement: str, index: str
) -> None:
    with closing(sqlite3.connect(sqlite_path)) as connection:
        parameters = ["x"] * statement.count("?")
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)]
    assert [index in step for step in plan] == [True], plan


def test_tracked_replies_are_found_without_reading_history(
    sqlite_ledger: SqliteLedger, sqlite_path: Path
) -> None:
    assert tracked(sqlite_ledger) == set()
    with closing(sqlite3.connect(sqlite_path)) as connection:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {ledger_sqlite.TRACKED}")]
    assert plan == ["SCAN replies"]


def write_ledger_of_version_1(path: Path) -> None:
    """One finished row, as a ledger that knew no tracked replies kept it."""
    row = to_row(replied(new_entry()))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in ledger_sqlite.SCHEMA[: -len(ledger_sqlite.SCHEMA_2)]:
            connection.execute(statement)
        connection.execute("INSERT INTO emails VALUES (?, ?, 1, NULL, ?)", ("mb_1", "em_1", json.dumps(row)))
        connection.execute("PRAGMA user_version = 1")


def test_a_ledger_of_version_1_goes_on_with_everything_in_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    write_ledger_of_version_1(path)
    with closing(SqliteLedger(path, read_only=True)) as view:
        assert view.get(new_entry().work_item) == replied(replace(new_entry(), version="1"))
    for email_id in ("em_2", "em_3"):  # upgraded at the first opening, left alone at the second
        with closing(SqliteLedger(path)) as ledger:
            ledger.finish(replied(added_and_claimed(ledger, new_entry(email_id)), f"re_{email_id}"))
    with closing(SqliteLedger(path)) as ledger:
        assert {reply.email_id for reply in tracked(ledger)} == {"em_2", "em_3"}
        assert len(list(ledger.entries("mb_1"))) == 3


# Table Storage


class Killed(BaseException):
    """The process died."""


class Wire:
    """Sees every request of a ledger before it leaves, and may do something at the n-th (from 0)."""

    def __init__(self, azurite: Azurite, at: int = -1, do: Callable[[], object] | None = None) -> None:
        self.requests: list[str] = []
        self._at = at
        self._do = do
        service = TableServiceClient(
            azurite.endpoint, credential=azurite.credential, retry_total=0, raw_request_hook=self._see
        )
        self.ledger = TablesLedger(service)

    def _see(self, request: Any) -> None:
        self.requests.append(request.http_request.method)
        if len(self.requests) - 1 == self._at and self._do is not None:
            self._do()


def die() -> None:
    raise Killed


def wire_that_dies(azurite: Azurite, at: int) -> TablesLedger:
    return Wire(azurite, at, die).ledger


@pytest.mark.usefixtures("tables_ledger")
def test_building_a_ledger_asks_nothing_of_the_service(azurite: Azurite) -> None:
    assert Wire(azurite).requests == []


def test_an_idle_poll_costs_three_requests(azurite: Azurite, tables_ledger: TablesLedger) -> None:
    tables_ledger.set_watermark("mb_1", Watermark(NOW, NOW))
    tables_ledger.finish(finished(added_and_claimed(tables_ledger, new_entry())))
    tables_ledger.add(new_entry("later", due_at=LATER))
    wire = Wire(azurite)
    wire.ledger.get_watermark("mb_1")
    assert wire.ledger.due(NOW, 100) == []
    wire.ledger.set_watermark("mb_1", Watermark(NOW, LATER))
    assert len(wire.requests) == 3


def test_an_email_costs_few_requests(azurite: Azurite, tables_ledger: TablesLedger) -> None:
    tables_ledger.add(new_entry("the tables exist"))
    wire = Wire(azurite)
    steps: list[Callable[[], object]] = [
        lambda: wire.ledger.add(new_entry()),
        lambda: wire.ledger.add(new_entry()),
        lambda: wire.ledger.rung([new_entry(f"em_{number}").work_item for number in range(100)], LATER),
    ]
    counts = []
    for step in steps:
        wire.requests.clear()
        step()
        counts.append(len(wire.requests))
    wire.requests.clear()
    claimed = claim(wire.ledger, new_entry())
    counts.append(len(wire.requests))
    wire.requests.clear()
    wire.ledger.finish(finished(wire.ledger.save(claimed)))
    counts.append(len(wire.requests))
    assert counts == [3, 1, 1, 2, 3]


@pytest.mark.parametrize("requests", range(4))
def test_an_add_that_died_halfway_loses_no_email(
    azurite: Azurite, tables_ledger: TablesLedger, requests: int
) -> None:
    tables_ledger.finish(finished(added_and_claimed(tables_ledger, new_entry("the tables exist"))))
    try:
        wire_that_dies(azurite, requests).add(new_entry())
    except Killed:
        assert tables_ledger.get(new_entry().work_item) is None
        assert tables_ledger.claim(new_entry().work_item, NOW, NOW + LEASE) is None
        assert tables_ledger.add(new_entry())
    else:
        assert requests == 3
    assert due(tables_ledger, NOW) == {new_entry().work_item}
    assert claim(tables_ledger, new_entry()).attempts == 1


def test_an_add_that_never_came_back_stops_ringing_after_an_hour(
    azurite: Azurite, tables_ledger: TablesLedger
) -> None:
    item = new_entry().work_item
    tables_ledger.finish(finished(added_and_claimed(tables_ledger, new_entry("the tables exist"))))
    with pytest.raises(Killed):
        wire_that_dies(azurite, 2).add(new_entry())
    for now in (NOW, NOW + ORPHAN_AGE - timedelta(seconds=1)):
        assert tables_ledger.claim(item, now, now + LEASE) is None
        tables_ledger.rung([item], now)
        assert due(tables_ledger, now) == {item}
    tables_ledger.claim(item, NOW + ORPHAN_AGE, FAR)
    assert due(tables_ledger) == set()


@pytest.mark.parametrize("requests", range(5))
def test_an_email_added_while_its_leftover_is_dropped_is_not_lost(
    azurite: Azurite, tables_ledger: TablesLedger, requests: int
) -> None:
    item = new_entry().work_item
    tables_ledger.rung([item], NOW)
    tables_ledger.claim(item, NOW, NOW + LEASE)
    meanwhile = Wire(azurite, requests, lambda: tables_ledger.add(new_entry()))
    meanwhile.ledger.claim(item, LATER, LATER + LEASE)
    tables_ledger.add(new_entry())
    assert due(tables_ledger) == {item}


@pytest.mark.parametrize("requests", range(3))
def test_a_finish_that_died_halfway_is_harmless(
    azurite: Azurite, tables_ledger: TablesLedger, requests: int
) -> None:
    claimed = added_and_claimed(tables_ledger, new_entry())
    try:
        wire_that_dies(azurite, requests).finish(finished(claimed))
    except Killed:
        assert due(tables_ledger) == {claimed.work_item}
    again = tables_ledger.claim(claimed.work_item, NOW + LEASE, LATER)
    if again is not None:
        assert requests == 0
        tables_ledger.finish(finished(again))
    assert due(tables_ledger) == set()


def test_an_idle_look_at_the_replies_costs_one_request(azurite: Azurite, tables_ledger: TablesLedger) -> None:
    for number in range(50):
        entry = new_entry(f"em_{number}")
        tables_ledger.finish(replied(added_and_claimed(tables_ledger, entry), f"re_{number}"))
    wire = Wire(azurite)
    assert len(wire.ledger.tracked_replies()) == 50
    assert wire.requests == ["GET"]
    wire.ledger.track_replies([TrackedReply("mb_1", "em_1", f"re_{n}", NOW, LATER) for n in range(100)])
    assert wire.requests == ["GET", "POST"]


@pytest.mark.parametrize("requests", range(4))
def test_a_finish_that_died_halfway_loses_no_reply(
    azurite: Azurite, tables_ledger: TablesLedger, requests: int
) -> None:
    claimed = added_and_claimed(tables_ledger, new_entry())
    try:
        wire_that_dies(azurite, requests).finish(replied(claimed))
    except Killed:
        assert requests < 3
    stored = tables_ledger.get(claimed.work_item)
    assert stored is not None
    assert stored.finished_at is None or tracked(tables_ledger)
    again = tables_ledger.claim(claimed.work_item, NOW + LEASE, LATER)
    if again is not None:
        tables_ledger.finish(replied(again))
    assert {reply.reply_id for reply in tracked(tables_ledger)} == {"em_9"}


@pytest.mark.parametrize("requests", range(3))
def test_a_defer_that_died_halfway_loses_no_email(
    azurite: Azurite, tables_ledger: TablesLedger, requests: int
) -> None:
    claimed = added_and_claimed(tables_ledger, new_entry())
    try:
        wire_that_dies(azurite, requests).defer(replace(claimed, due_at=LATER))
    except Killed:
        assert requests < 2
    assert due(tables_ledger) == {claimed.work_item}
    assert tables_ledger.claim(claimed.work_item, LATER, FAR) is not None


@pytest.mark.parametrize("requests", range(4))
def test_setting_a_row_back_that_died_halfway_loses_no_email(
    azurite: Azurite, tables_ledger: TablesLedger, requests: int
) -> None:
    done = tables_ledger.finish(finished(added_and_claimed(tables_ledger, new_entry())))
    try:
        wire_that_dies(azurite, requests).defer(replace(done, finished_at=None, due_at=LATER))
    except Killed:
        assert requests < 3
    stored = tables_ledger.get(done.work_item)
    assert stored is not None
    assert stored.finished_at or due(tables_ledger) == {done.work_item}


@pytest.mark.parametrize("requests", range(5))
def test_a_row_set_back_while_its_leftover_is_dropped_is_not_lost(
    azurite: Azurite, tables_ledger: TablesLedger, requests: int
) -> None:
    done = tables_ledger.finish(finished(added_and_claimed(tables_ledger, new_entry())))
    tables_ledger.rung([done.work_item], NOW)
    back = replace(done, finished_at=None, due_at=LATER)
    meanwhile = Wire(azurite, requests, lambda: tables_ledger.defer(back))
    meanwhile.ledger.claim(done.work_item, NOW, NOW + LEASE)
    stored = tables_ledger.get(done.work_item)
    assert stored is not None
    assert due(tables_ledger) == ({done.work_item} if stored.finished_at is None else set())


@pytest.mark.parametrize("write", ["claim", "save", "finish", "take_slot", "add_tokens"])
def test_a_write_whose_answer_was_lost_counts_once(azurite: Azurite, write: str) -> None:
    azurite.clear()
    lost: list[str] = []
    armed = False

    def lose_first_put(response: Any) -> None:
        if armed and response.http_request.method == "PUT" and not lost:
            lost.append(response.http_request.url)
            raise ServiceResponseError("the connection broke")

    ledger = TablesLedger(
        TableServiceClient(
            azurite.endpoint, credential=azurite.credential, retry_total=2, raw_response_hook=lose_first_put
        )
    )
    ledger.add(new_entry())
    ledger.take_slot("th_1", "em_0", ())
    for _ in range(8):
        ledger.add_tokens("mb_1", "2026-11-22", 1)
    claimed = None if write == "claim" else claim(ledger, new_entry())
    armed = True
    if write == "take_slot":
        assert ledger.take_slot("th_1", "em_1", ["em_0"])
    elif write == "add_tokens":
        ledger.add_tokens("mb_1", "2026-11-22", 1)
        assert ledger.tokens_used("mb_1", "2026-11-22") == 9
    elif claimed is None:
        claimed = claim(ledger, new_entry())
    else:
        getattr(ledger, write)(finished(claimed))
    assert len(lost) == 1
    if claimed is not None and write == "claim":
        ledger.save(claimed)


def test_a_draft_too_long_for_the_service_is_for_a_human(tables_ledger: TablesLedger) -> None:
    claimed = added_and_claimed(tables_ledger, new_entry())
    too_long = replace(DRAFT, reply_markdown="x" * 32_769)
    with pytest.raises(PermanentError, match="draft_markdown of email em_1"):
        tables_ledger.save(replace(claimed, draft=too_long))
    tables_ledger.save(replace(claimed, draft=replace(DRAFT, reply_markdown="x" * 32_768)))


def test_an_entry_too_long_for_the_service_leaves_nothing_behind(tables_ledger: TablesLedger) -> None:
    with pytest.raises(PermanentError, match="sender of email em_1"):
        tables_ledger.add(replace(new_entry(), sender="x" * 40_000))
    assert due(tables_ledger) == set()


def test_a_wrong_key_names_the_setting_and_the_role(azurite: Azurite) -> None:
    ledger = build_tables_ledger(azurite.endpoint, AzureNamedKeyCredential("devstoreaccount1", "d3Jvbmc="))
    with pytest.raises(ConfigurationError, match=r"LEDGER_TABLE_ENDPOINT.*Storage Table Data Contributor"):
        ledger.add(new_entry())


@contextmanager
def answering(status: int, headers: Sequence[tuple[str, str]]) -> Iterator[tuple[str, list[str]]]:
    """A service on this machine that gives one answer to everything; yields its address and what it was asked."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/account", asked
        finally:
            server.shutdown()
            thread.join()


BODY = b"<html>from something in between</html>"
CREDENTIAL = AzureNamedKeyCredential("account", "a2V5")


@pytest.mark.parametrize("status", [429, 503])
def test_a_delay_the_service_asks_for_is_handed_on_at_once(status: int) -> None:
    with (
        answering(status, [("Retry-After", "7")]) as (endpoint, asked),
        pytest.raises(ThrottledError) as caught,
    ):
        build_tables_ledger(endpoint, CREDENTIAL).get(new_entry().work_item)
    assert caught.value.retry_after_seconds == 7
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("status", "kind", "tries"),
    [
        (500, TransientError, 3),
        (502, TransientError, 3),
        (503, ThrottledError, 3),
        (401, ConfigurationError, 1),
        (403, ConfigurationError, 1),
        (400, PermanentError, 1),
        (200, TransientError, 1),
    ],
)
def test_an_answer_says_what_to_do(status: int, kind: type[Exception], tries: int) -> None:
    with (
        answering(status, [("Content-Type", "text/html")]) as (endpoint, asked),
        pytest.raises(kind) as caught,
    ):
        build_tables_ledger(endpoint, CREDENTIAL).get(new_entry().work_item)
    assert type(caught.value) is kind
    assert len(asked) == tries


def test_a_service_that_is_not_there_is_a_passing_trouble() -> None:
    with answering(200, []) as (endpoint, _):
        pass
    with pytest.raises(TransientError, match="LEDGER_TABLE_ENDPOINT"):
        build_tables_ledger(endpoint, CREDENTIAL).due(NOW, 10)


def test_the_module_is_imported_without_the_sdk() -> None:
    program = "import sys, shared.ledger.tables; sys.exit('azure.core' in sys.modules)"
    root = Path(__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == 0
