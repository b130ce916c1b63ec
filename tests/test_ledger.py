"""What the ledger promises over each of its stores, what both stores promise, and what each adds."""

import http.server
import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
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
    JudgedClaim,
    ModelText,
    Outcome,
    Quote,
    Rejection,
    Sentiment,
    Support,
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
from shared.ledger import sqlite_store
from shared.ledger.entries import FIRST_CHECK_AFTER, LedgerEntry, OpenWork, TrackedReply, Watermark
from shared.ledger.keys import SHARDS, name_shard
from shared.ledger.ledger import Ledger
from shared.ledger.rows import from_row, to_row
from shared.ledger.sqlite_store import SqliteStore, open_sqlite_ledger
from shared.ledger.store import MAX_CHANGES, Change, Row, Store, Verb
from shared.ledger.table_store import TableStore, build_table_ledger

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
    reopened_at=NOW + timedelta(minutes=2),
    redriven_at=NOW + timedelta(minutes=2),
    rejections=(Rejection("em_8", "too long, be brief", "Dear Zoë 😀\r\n" + "字" * 8000, NOW, LATER),) * 2,
)


@pytest.fixture
def table_ledger(azurite: Azurite) -> Ledger:
    azurite.clear()
    return build_table_ledger(azurite.endpoint, azurite.credential)


@pytest.fixture
def sqlite_path(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "ledger #1?.sqlite"


@pytest.fixture
def sqlite_ledger(sqlite_path: Path) -> Iterator[Ledger]:
    with closing(open_sqlite_ledger(sqlite_path)) as ledger:
        yield ledger


@pytest.fixture(params=["sqlite", "table"])
def ledger(request: pytest.FixtureRequest) -> Ledger:
    chosen: Ledger = request.getfixturevalue(f"{request.param}_ledger")
    return chosen


@pytest.fixture
def store(ledger: Ledger) -> Store:
    return ledger._store


def claim(ledger: Ledger, entry: LedgerEntry, now: datetime = NOW) -> LedgerEntry:
    claimed = ledger.claim(entry.work_item, now, now + LEASE)
    assert claimed is not None
    return claimed


def added_and_claimed(ledger: Ledger, entry: LedgerEntry) -> LedgerEntry:
    assert ledger.add(entry) is not None
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
    works = open_work(ledger, now)
    assert len({work.work_item for work in works}) == len(works)
    return {work.work_item for work in works}


def open_work(ledger: Ledger, now: datetime = FAR) -> list[OpenWork]:
    """The open work that is to be enqueued by then."""
    return [work for work in ledger.open_work() if work.enqueue_at <= now]


def moved(works: Sequence[OpenWork], enqueue_at: datetime) -> list[OpenWork]:
    return [replace(work, enqueue_at=enqueue_at) for work in works]


def mark(ledger: Ledger, items: Sequence[WorkItem], enqueue_at: datetime) -> Sequence[OpenWork]:
    """Mark those of these that are open."""
    works = [work for work in ledger.open_work() if work.work_item in items]
    return ledger.mark_enqueued(moved(works, enqueue_at))


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
            open_points=st.lists(st.builds(ModelText, texts)).map(tuple),
            covers=st.lists(texts).map(tuple),
        ),
        submit_intent_at=st.none() | moments,
        finished_at=st.none() | moments,
        reply_status=st.none() | texts,
        reply_decided_at=st.none() | moments,
        reply_settled_at=st.none() | moments,
        reopened_at=st.none() | moments,
        redriven_at=st.none() | moments,
        rejections=st.lists(st.builds(Rejection, submitted_at=moments, decided_at=moments), max_size=3).map(
            tuple
        ),
    )
)
def test_any_entry_survives_the_way_through_a_row_and_through_json(entry: LedgerEntry) -> None:
    row = json.loads(json.dumps(to_row(entry)))
    assert all(type(value) in (str, int) for value in row.values())
    assert from_row(LedgerEntry, row) == replace(entry, version="")


@given(st.builds(TrackedReply, submitted_at=moments, check_at=moments, status=st.none() | texts))
def test_any_tracked_reply_survives_the_way_through_a_row_and_through_json(reply: TrackedReply) -> None:
    assert from_row(TrackedReply, json.loads(json.dumps(to_row(reply)))) == reply


class Tone(StrEnum):
    FRIENDLY = "friendly"
    STERN = "stern"


class Untrusted(str):
    """A type of its own for some texts, which does not show what it has."""

    __slots__ = ()

    def __str__(self) -> str:
        return "(hidden)"


@dataclass(frozen=True)
class Finding:
    text: Untrusted
    tone: Tone | None = None
    seen_at: datetime | None = None
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Everything:
    """Each kind of field that a row may get."""

    name: str
    parent: str | None
    tone: Tone
    count: int
    share: float
    is_new: bool
    finding: Finding | None = None
    findings: tuple[Finding, ...] = ()
    tones: tuple[Tone, ...] = ()
    moments: tuple[datetime, ...] = ()
    cause: Tone | None = None
    version: str = ""


findings = st.builds(
    Finding,
    text=texts.map(Untrusted),
    seen_at=st.none() | moments,
    tone=st.none() | st.sampled_from(Tone),
    words=st.lists(texts).map(tuple),
)


@given(
    st.builds(
        Everything,
        version=st.just(""),
        share=st.floats(allow_nan=False, allow_infinity=False),
        finding=st.none() | findings,
        findings=st.lists(findings, max_size=12).map(tuple),
        tones=st.lists(st.sampled_from(Tone)).map(tuple),
        moments=st.lists(moments).map(tuple),
        cause=st.none() | st.sampled_from(Tone),
    )
)
def test_a_row_takes_fields_of_every_kind(everything: Everything) -> None:
    back = from_row(Everything, json.loads(json.dumps(to_row(everything))))
    assert back == everything
    kinds = [type(value) for value in (back.tone, back.is_new, back.finding and back.finding.text)]
    assert kinds == [Tone, bool, Untrusted if everything.finding else type(None)]


def test_long_texts_have_values_of_their_own_and_the_version_has_none() -> None:
    row = to_row(replace(FULL, version="7"))
    assert row["draft__reply_markdown"] == DRAFT.reply_markdown
    assert {name for name in row if name.startswith("rejections")} == {"rejections__1", "rejections__2"}
    assert "version" not in row


def test_a_draft_with_more_statements_than_a_row_has_values_can_be_stored(ledger: Ledger) -> None:
    claims = tuple(
        JudgedClaim(f"{n}. 字", Support.VERIFIED, (Quote(f"a.md › {n}", "quote " * 40),)) for n in range(600)
    )
    entry = replace(new_entry(), draft=replace(DRAFT, claims=claims))
    ledger.add(entry)
    stored = ledger.get(entry.work_item)
    assert stored is not None
    assert stored.draft == entry.draft
    row = to_row(entry)
    assert len(row) < 100
    assert max(len(str(value).encode("utf-16-le")) for value in row.values()) < 64 * 1024


def test_a_row_that_a_newer_version_wrote_can_be_read() -> None:
    row = to_row(FULL)
    [rejection] = json.loads(str(row["rejections__1"]))
    row["rejections__1"] = json.dumps([rejection | {"field_of_tomorrow": 1}])
    more: dict[str, str | int] = {"of_tomorrow": 1, "draft__of_tomorrow": "x", "triage__of_tomorrow": "[1]"}
    assert from_row(LedgerEntry, row | more) == FULL


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
    assert ledger.find_tracked_replies("mb_1", "em_reply_1") == [replies[1]]
    assert ledger.find_tracked_replies("mb_2", "em_reply_1") == []


def test_a_row_from_before_a_field_can_be_read() -> None:
    row = to_row(FULL)
    for name in ("reply_status", "reopened_at", "usage__calls", "rejections__1", "rejections__2"):
        del row[name]
    before = replace(FULL, reply_status=None, reopened_at=None, usage=Usage(0, 3, 4), rejections=())
    assert from_row(LedgerEntry, row) == before


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
    assert all(ledger.add(entry) for entry in entries)
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
    assert sum(work is not None for work in at_once(lambda _: ledger.add(new_entry()))) == 1
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
    entry = replace(new_entry(due_at=NOW + timedelta(microseconds=1)), waiting_for=Cause.THROTTLED)
    item = entry.work_item
    assert ledger.claim(item, FAR, FAR) is None
    ledger.add(entry)
    assert ledger.claim(item, NOW, NOW + LEASE) is None
    claimed = claim(ledger, entry, LATER)
    almost = LATER + LEASE - timedelta(microseconds=1)
    assert ledger.claim(item, almost, almost + LEASE) is None
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


# Open work


def test_a_row_is_due_from_its_due_time_on(ledger: Ledger) -> None:
    soon, late = new_entry("soon"), new_entry("late", due_at=LATER)
    assert ledger.next_due_at() is None
    ledger.add(late)
    assert ledger.next_due_at() == LATER
    ledger.add(soon)
    assert ledger.next_due_at() == NOW
    assert due(ledger, NOW - timedelta(microseconds=1)) == set()
    assert due(ledger, NOW) == {soon.work_item}
    assert due(ledger, LATER) == {soon.work_item, late.work_item}


def test_a_row_that_was_enqueued_is_not_due_until_its_time(ledger: Ledger) -> None:
    items = [new_entry(f"em_{number}").work_item for number in range(3)]
    for item in items:
        ledger.add(new_entry(item.email_id))
    assert len(mark(ledger, items[:2], LATER)) == 2
    assert due(ledger, LATER - timedelta(microseconds=1)) == {items[2]}
    assert due(ledger, LATER) == set(items)
    assert ledger.next_due_at() == NOW
    assert ledger.mark_enqueued([]) == []
    mark(ledger, items, FAR)
    assert due(ledger, FAR - timedelta(microseconds=1)) == set()


def test_new_work_is_marked_as_it_was_added(ledger: Ledger) -> None:
    work = ledger.add(new_entry())
    assert work is not None
    assert open_work(ledger, NOW) == [work]
    marked = ledger.mark_enqueued(moved([work], LATER))
    assert open_work(ledger, LATER) == marked
    assert ledger.mark_enqueued(moved(marked, NOW)) == open_work(ledger, NOW)  # the queue was down


def test_many_are_marked_although_some_changed_meanwhile(ledger: Ledger) -> None:
    works = [ledger.add(new_entry(f"em_{number}", f"mb_{number % 3}")) for number in range(330)]
    found = [work for work in works if work is not None]
    changed = [found[number] for number in (0, 3, 150, 329)]
    for work in changed:
        claimed = ledger.claim(work.work_item, NOW, NOW + LEASE)
        assert claimed is not None
        ledger.finish(finished(claimed))
    marked = ledger.mark_enqueued(moved(found, LATER))
    assert {work.work_item for work in marked} == {work.work_item for work in found if work not in changed}
    assert due(ledger, LATER) == {work.work_item for work in marked}
    assert due(ledger, LATER - timedelta(microseconds=1)) == set()


@pytest.mark.parametrize("step", ["claim", "defer", "finish", "mark_enqueued"])
def test_what_others_did_meanwhile_is_not_taken_back_by_a_mark(ledger: Ledger, step: str) -> None:
    ledger.add(new_entry())
    if step in ("defer", "finish"):
        claimed = claim(ledger, new_entry())
    works = open_work(ledger, FAR)
    soon = NOW + timedelta(seconds=5)
    if step == "claim":
        claim(ledger, new_entry())
    elif step == "defer":
        ledger.defer(replace(claimed, due_at=soon))
    elif step == "finish":
        ledger.finish(finished(claimed))
    else:
        ledger.mark_enqueued(moved(works, soon))
    before = open_work(ledger, FAR)
    assert ledger.mark_enqueued(moved(works, LATER)) == []
    assert open_work(ledger, FAR) == before


def test_an_enqueued_row_is_due_again_when_its_worker_died(ledger: Ledger) -> None:
    ledger.add(new_entry())
    mark(ledger, [new_entry().work_item], NOW + timedelta(seconds=1))
    claim(ledger, new_entry())
    assert due(ledger, NOW + LEASE - timedelta(microseconds=1)) == set()
    assert due(ledger, NOW + LEASE) == {new_entry().work_item}
    assert ledger.claim(new_entry().work_item, NOW + LEASE, FAR) is not None


def test_a_claimed_row_is_due_at_the_end_of_its_lease(ledger: Ledger) -> None:
    for number, enqueue_at in enumerate((NOW, FAR)):
        ledger.add(entry := new_entry(f"em_{number}"))
        mark(ledger, [entry.work_item], enqueue_at)
        ledger.save(replace(claim(ledger, entry), detail="still at it"))
        assert ledger.next_due_at() == NOW + LEASE


def test_a_deferred_row_is_given_back_and_due_at_its_time(ledger: Ledger) -> None:
    claimed = added_and_claimed(ledger, new_entry())
    mark(ledger, [claimed.work_item], FAR)
    soon = NOW + timedelta(seconds=5)
    deferred = ledger.defer(replace(claimed, due_at=soon, waiting_for=Cause.THROTTLED))
    assert deferred.lease_until is None
    assert ledger.get(claimed.work_item) == deferred
    assert ledger.next_due_at() == soon
    assert due(ledger, soon - timedelta(microseconds=1)) == set()
    assert claim(ledger, deferred, soon).waiting_for is Cause.THROTTLED


def test_a_finished_row_is_kept_and_never_due(ledger: Ledger) -> None:
    done = ledger.finish(finished(added_and_claimed(ledger, new_entry())))
    assert (done.lease_until, done.finished_at) == (None, NOW)
    assert ledger.get(done.work_item) == done
    assert due(ledger) == set()
    assert ledger.next_due_at() is None


def test_a_row_is_finished_once(ledger: Ledger) -> None:
    done = ledger.finish(finished(added_and_claimed(ledger, new_entry())))
    with pytest.raises(LeaseLostError):
        ledger.finish(done)
    assert ledger.get(done.work_item) == done


def test_leases_are_taken_over_and_all_work_is_due_again(ledger: Ledger) -> None:
    """The attempt counts: the email may be what killed the process. It comes after what was not at work then."""
    claimed = added_and_claimed(ledger, new_entry("claimed"))
    other = added_and_claimed(ledger, new_entry("other"))
    for entry in (new_entry("enqueued"), new_entry("new"), new_entry("later", due_at=LATER)):
        ledger.add(entry)
    ledger.finish(finished(added_and_claimed(ledger, new_entry("done"))))
    mark(ledger, [WorkItem("mb_1", "enqueued")], FAR)
    ledger.take_over(NOW + timedelta(seconds=1))
    assert {item.email_id for item in due(ledger, NOW)} == {"enqueued", "new"}
    first = due(ledger, NOW + timedelta(seconds=1)) - due(ledger, NOW)
    second = due(ledger, NOW + timedelta(seconds=11)) - due(ledger, NOW + timedelta(seconds=1))
    assert (len(first), first | second) == (1, {claimed.work_item, other.work_item})  # one after the other
    assert due(ledger) - due(ledger, NOW + timedelta(seconds=11)) == {WorkItem("mb_1", "later")}
    assert claim(ledger, claimed, NOW + timedelta(minutes=1)).attempts == 2


def test_what_is_told_to_stop_gives_its_leases_and_its_attempts_back(ledger: Ledger) -> None:
    claimed = added_and_claimed(ledger, new_entry())
    ledger.add(new_entry("waiting", due_at=LATER))
    ledger.release()
    with pytest.raises(LeaseLostError):
        ledger.save(claimed)
    assert due(ledger, NOW) == {claimed.work_item}
    assert claim(ledger, claimed).attempts == 1


def test_a_lease_that_only_a_clock_set_back_keeps_does_not_hold(ledger: Ledger) -> None:
    claimed = added_and_claimed(ledger, new_entry())
    hour_before = NOW - timedelta(hours=1)
    assert (
        ledger.claim(claimed.work_item, NOW - LEASE / 2, NOW + LEASE / 2) is None
    )  # a little: it may be held
    (work,) = ledger.open_work()
    assert work.is_due(hour_before, LEASE)
    assert not work.is_due(NOW - LEASE / 2, LEASE)
    assert ledger.claim(claimed.work_item, hour_before, hour_before + LEASE) is not None


def test_a_due_time_is_waited_for_only_by_what_was_deferred(ledger: Ledger) -> None:
    new, deferred = new_entry(due_at=LATER), added_and_claimed(ledger, new_entry("deferred"))
    ledger.add(new)
    ledger.defer(replace(deferred, due_at=LATER, waiting_for=Cause.THROTTLED))
    assert ledger.claim(deferred.work_item, NOW, NOW + LEASE) is None
    assert ledger.claim(new.work_item, NOW, NOW + LEASE) is not None  # the clock was set back since


def test_an_email_that_is_listed_although_it_was_missed_is_open_again(ledger: Ledger) -> None:
    missed = added_and_claimed(ledger, new_entry("missed"))
    ledger.finish(replace(missed, finished_at=NOW, outcome=Outcome.SKIPPED, cause=Cause.DELETED))
    ledger.finish(finished(added_and_claimed(ledger, new_entry("done"))))
    assert ledger.add(new_entry("done")) is None
    work = ledger.add(new_entry("missed"))
    assert work is not None
    assert open_work(ledger) == [work]
    assert ledger.add(new_entry("missed")) is None
    again = claim(ledger, missed)
    assert (again.attempts, again.outcome, again.finished_at) == (1, None, None)


def test_a_finished_row_can_be_set_back_to_work(ledger: Ledger) -> None:
    done = ledger.finish(finished(added_and_claimed(ledger, new_entry())))
    ledger.defer(replace(done, finished_at=None, outcome=None, attempts=0, due_at=LATER))
    assert due(ledger, LATER) == {done.work_item}
    assert claim(ledger, done, LATER).attempts == 1


@pytest.mark.parametrize("back", ["redriven", "redrafted"])
@pytest.mark.parametrize("write", ["save", "defer", "finish", "redraft", "mark", "drop"])
def test_an_email_set_back_to_work_stays_open_whatever_an_earlier_worker_still_writes(
    ledger: Ledger, back: str, write: str
) -> None:
    """A worker that slept through the end of its lease has the row, its open work and its reply of before."""
    claimed = added_and_claimed(ledger, new_entry())
    works = open_work(ledger, FAR)
    done = ledger.finish(replied(claimed))
    (reply,) = ledger.tracked_replies()
    if back == "redriven":
        ledger.defer(done.redriven(LATER))
    else:
        ledger.redraft(done.rejected(Rejection("em_9", "too long", "x", NOW, LATER), LATER), reply)
    writes: Mapping[str, Callable[[], object]] = {
        "save": lambda: ledger.save(replace(claimed, triage=TRIAGE)),
        "defer": lambda: ledger.defer(claimed),
        "finish": lambda: ledger.finish(finished(claimed)),
        "redraft": lambda: ledger.redraft(claimed, reply),
        "mark": lambda: ledger.mark_enqueued(moved(works, FAR)),
        "drop": lambda: ledger.drop_reply(reply),
    }
    with suppress(LeaseLostError):
        writes[write]()
    assert due(ledger, LATER) == {claimed.work_item}
    assert ledger.next_due_at() == LATER
    assert claim(ledger, claimed, LATER).attempts == 1


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


def test_a_redraft_opens_the_row_and_stops_tracking_its_reply(ledger: Ledger) -> None:
    done = ledger.finish(replied(added_and_claimed(ledger, new_entry())))
    (reply,) = tracked(ledger)
    rejection = Rejection("em_9", "too long", "Dear Zoë", NOW, LATER)
    back = ledger.redraft(done.rejected(rejection, LATER), reply)
    assert ledger.get(done.work_item) == back
    assert (back.reply_id, back.finished_at, back.rejections) == (None, None, (rejection,))
    assert tracked(ledger) == set()
    assert (due(ledger, LATER), ledger.open_since()) == ({done.work_item}, [LATER])


def test_a_redraft_of_a_row_that_changed_meanwhile_changes_nothing(ledger: Ledger) -> None:
    done = ledger.finish(replied(added_and_claimed(ledger, new_entry())))
    newer = ledger.save(replace(done, reply_status="rejected"))
    (reply,) = tracked(ledger)
    with pytest.raises(LeaseLostError):
        ledger.redraft(done.rejected(Rejection("em_9", "too long", "x", NOW, LATER), LATER), reply)
    assert ledger.get(done.work_item) == newer
    assert (tracked(ledger), due(ledger)) == ({reply}, set())


def test_the_work_and_the_replies_of_many_mailboxes_are_found_together(ledger: Ledger) -> None:
    entries = [new_entry("em_1", f"mb_{number}") for number in range(80)]
    for entry in entries:
        ledger.add(entry)
    items = {entry.work_item for entry in entries}
    assert due(ledger, NOW) == items
    assert len(ledger.open_since()) == len(items)
    assert len({name_shard(item.mailbox_id) for item in items}) > 10
    assert len(mark(ledger, list(items), FAR)) == len(items)
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


def test_slots_of_long_ids_fit_whatever_the_limit_is(ledger: Ledger) -> None:
    """Together they are longer than what Table Storage stores in one value."""
    taken = tuple(f"em_{number}_{'x' * 1500}" for number in range(25))
    for number, email_id in enumerate(taken):
        assert ledger.take_slot("sender/ann", email_id, taken[:number])
    assert ledger.slots("sender/ann") == taken
    assert not ledger.take_slot("sender/ann", "em_late", taken[:-1])


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


def test_tokens_for_a_sender_count_for_the_mailbox_too_and_no_key_names_the_sender(ledger: Ledger) -> None:
    ledger.add_tokens("mb_1", "2026-11-22", 5, "ann@customer.example")
    ledger.add_tokens("mb_1", "2026-11-22", 7, "bob@customer.example")
    ledger.add_tokens("mb_1", "2026-11-22", 1)
    assert ledger.tokens_used("mb_1", "2026-11-22") == 13
    assert ledger.tokens_used("mb_1", "2026-11-22", "ann@customer.example") == 5
    assert ledger.tokens_used("mb_1", "2026-11-23", "ann@customer.example") == 0
    assert ledger.tokens_used("mb_2", "2026-11-22", "ann@customer.example") == 0
    keys = [row.key for row in ledger._store.scan(["mailbox|mb_1"], "", "~")]
    assert "customer" not in "".join(keys)


def test_the_folder_of_a_ledger_in_a_file_is_its_owner_s_alone(tmp_path: Path) -> None:
    open_sqlite_ledger(tmp_path / ".data" / "ledger.sqlite").close()
    assert (tmp_path / ".data").stat().st_mode & 0o777 == 0o700


# The stores


SNAPSHOT_PARTITIONS = [*SHARDS, *(f"days|{shard}" for shard in SHARDS), "mailbox|mb_1", "slots|th_1"]


def rows_of(store: Store) -> dict[tuple[str, str], dict[str, Any]]:
    """All that is stored, without the ETags."""
    found = store.scan(SNAPSHOT_PARTITIONS, "", "~")
    return {(row.partition, row.key): dict(row.fields) for row in found}


def insert(store: Store, *rows: Row) -> tuple[str, ...]:
    etags = store.write([Change(Verb.INSERT, row) for row in rows])
    assert etags is not None
    return etags


def test_a_row_is_inserted_only_if_there_is_none(store: Store) -> None:
    row = Row("00", "a|1", {"text": "ä😀\x00\r\n", "number": 7})
    assert store.get("00", "a|1") is None
    (etag,) = insert(store, row)
    assert store.get("00", "a|1") == replace(row, etag=etag)
    assert store.write([Change(Verb.INSERT, replace(row, fields={"text": "other"}))]) is None
    assert store.get("00", "a|1") == replace(row, etag=etag)


def test_a_row_is_replaced_only_as_it_was_read(store: Store) -> None:
    (etag,) = insert(store, Row("00", "a", {"text": "one", "gone": 1}))
    written = store.write([Change(Verb.REPLACE, Row("00", "a", {"text": "two"}, etag))])
    assert written is not None
    assert store.get("00", "a") == Row("00", "a", {"text": "two"}, written[0])
    assert store.write([Change(Verb.REPLACE, Row("00", "a", {"text": "three"}, etag))]) is None
    assert store.write([Change(Verb.REPLACE, Row("00", "b", {"text": "three"}, etag))]) is None
    assert store.get("00", "a") == Row("00", "a", {"text": "two"}, written[0])


def test_a_row_that_was_deleted_and_inserted_again_is_another_one(store: Store) -> None:
    row = Row("00", "a", {"text": "one"})
    (etag,) = insert(store, row)
    assert store.write([Change(Verb.DELETE, row)]) == ("",)
    assert store.get("00", "a") is None
    insert(store, row)
    assert store.write([Change(Verb.REPLACE, replace(row, etag=etag))]) is None


def test_only_a_row_that_is_there_is_deleted(store: Store) -> None:
    insert(store, Row("00", "b", {"text": "one"}))
    assert store.write([Change(Verb.DELETE, Row("00", "a"))]) is None


def test_an_upsert_takes_the_place_of_whatever_is_there(store: Store) -> None:
    values: list[dict[str, str | int]] = [{"text": "one", "gone": 1}, {"text": "two"}]
    for fields in values:
        written = store.write([Change(Verb.UPSERT, Row("00", "a", fields))])
        assert written is not None
        assert store.get("00", "a") == Row("00", "a", fields, written[0])


@pytest.mark.parametrize("place", [0, 1, 3])
@pytest.mark.parametrize(
    "refused",
    [
        Change(Verb.INSERT, Row("00", "there", {"text": "x"})),
        Change(Verb.REPLACE, Row("00", "there", {"text": "x"}, "W/\"datetime'2020-01-01T00%3A00%3A00Z'\"")),
        Change(Verb.REPLACE, Row("00", "missing", {"text": "x"}, "W/\"datetime'2020-01-01T00%3A00%3A00Z'\"")),
        Change(Verb.DELETE, Row("00", "missing")),
    ],
    ids=lambda change: f"{change.verb} {change.row.key}",
)
def test_a_write_is_made_whole_or_not_at_all(store: Store, refused: Change, place: int) -> None:
    insert(store, *(Row("00", key, {"text": "old"}) for key in ("there", "dropped", "changed")))
    before = rows_of(store)
    changes = [
        Change(Verb.INSERT, Row("00", "new", {"text": "new"})),
        Change(Verb.UPSERT, Row("00", "changed", {"text": "new"})),
        Change(Verb.DELETE, Row("00", "dropped")),
    ]
    assert store.write([*changes[:place], refused, *changes[place:]]) is None
    assert rows_of(store) == before
    assert store.write(changes) is not None
    assert {key for _, key in rows_of(store)} == {"there", "changed", "new"}


def test_a_scan_finds_a_range_of_keys_in_some_partitions(store: Store) -> None:
    for partition in ("00", "01", "02"):
        insert(store, *(Row(partition, key, {"text": partition + key}) for key in ("a", "b|1", "b|2", "c")))
    found = list(store.scan(["00", "02", "07"], "b|", "b|~"))
    assert [row.fields["text"] for row in found] == ["00b|1", "00b|2", "02b|1", "02b|2"]
    assert store.get("02", "b|2") == found[-1]
    assert [row.key for row in store.scan(["01"], "b|1", "c")] == ["b|1", "b|2"]


def test_a_scan_reads_page_after_page(store: Store) -> None:
    keys = [f"a{number:04}" for number in range(13 * MAX_CHANGES)]
    for first in range(0, len(keys), MAX_CHANGES):
        insert(store, *(Row("00", key, {"number": 1}) for key in keys[first : first + MAX_CHANGES]))
    assert [row.key for row in store.scan(["00"], "a", "b")] == keys


# SQLite


def sqlite_connection(ledger: Ledger) -> sqlite3.Connection:
    store = ledger._store
    assert isinstance(store, SqliteStore)
    return store._connection


def test_a_committed_write_outlives_a_power_cut(sqlite_ledger: Ledger) -> None:
    """With WAL and FULL every commit waits for the disk (https://sqlite.org/pragma.html#pragma_synchronous)."""
    pragmas = [
        sqlite_connection(sqlite_ledger).execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous")
    ]
    assert pragmas == ["wal", 2]


def test_a_full_disk_is_a_passing_trouble(sqlite_ledger: Ledger) -> None:
    sqlite_ledger.add(new_entry("first"))
    sqlite_connection(sqlite_ledger).execute("PRAGMA max_page_count = 1")
    long = replace(new_entry("long"), sender="x" * 10_000)
    with pytest.raises(TransientError, match=r"full\): free space on its disk"):
        sqlite_ledger.add(long)
    assert sqlite_ledger.get(new_entry("first").work_item) is not None


@pytest.mark.parametrize("is_new", [True, False])
def test_a_full_disk_at_the_start_is_named_with_its_remedy(sqlite_path: Path, is_new: bool) -> None:
    """Seen by a process that may not write to files."""
    if not is_new:
        with closing(open_sqlite_ledger(sqlite_path)) as ledger:
            added_and_claimed(ledger, new_entry())
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
    with other_process(sqlite_path, before=limit) as process:
        _, told = process.communicate()
    assert process.returncode == 1
    assert told.startswith(f"LEDGER_PATH: the ledger {sqlite_path} cannot be used now (")
    assert "): free space on its disk, or check it, or choose another path." in told


@pytest.mark.parametrize("read_only", [True, False])
def test_a_folder_is_named_as_one_and_left_alone(tmp_path: Path, read_only: bool) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with pytest.raises(ConfigurationError, match=r"LEDGER_PATH: .*data is a folder: .*data/ledger\.sqlite"):
        open_sqlite_ledger(folder, read_only=read_only)
    assert [*tmp_path.iterdir()] == [folder]


PROGRAM = """
import sys
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from shared.domain import WorkItem
from shared.errors import ConfigurationError
from shared.ledger.entries import LedgerEntry
from shared.ledger.sqlite_store import open_sqlite_ledger
now = datetime.fromisoformat(sys.argv[2])
try:
    ledger = open_sqlite_ledger(Path(sys.argv[1]))
except ConfigurationError as error:
    sys.exit(str(error))
"""
CLAIM = """
ledger.mark_enqueued([replace(work, enqueue_at=now + timedelta(days=9)) for work in ledger.open_work()])
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
def other_process(path: Path, program: str = "", before: str = "") -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", before + PROGRAM + program, str(path), NOW.isoformat()]
    root = Path(__file__).parent.parent
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=root, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_with_the_remedy(sqlite_ledger: Ledger, sqlite_path: Path) -> None:
    with other_process(sqlite_path) as process:
        _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "LEDGER_PATH" in said
    assert "stop that run" in said


def test_a_closed_ledger_can_be_opened_again(sqlite_path: Path) -> None:
    for is_new in (True, False):
        with closing(open_sqlite_ledger(sqlite_path)) as ledger:
            assert (ledger.add(new_entry()) is not None) == is_new


def test_the_lease_of_a_killed_process_is_given_back_at_once(sqlite_path: Path) -> None:
    with closing(open_sqlite_ledger(sqlite_path)) as ledger:
        ledger.add(new_entry())
    with other_process(sqlite_path, CLAIM) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        process.kill()
    with closing(open_sqlite_ledger(sqlite_path, clock=lambda: NOW)) as ledger:
        assert due(ledger, NOW) == {new_entry().work_item}
        assert claim(ledger, new_entry()).attempts == 2  # its email may be what killed the process


def test_a_ledger_whose_work_cannot_be_taken_over_is_let_go(sqlite_path: Path) -> None:
    with closing(open_sqlite_ledger(sqlite_path)) as ledger:
        added_and_claimed(ledger, new_entry())
    with closing(sqlite3.connect(sqlite_path)) as connection:
        (fields,) = connection.execute("SELECT fields FROM rows WHERE key LIKE 'open|%'").fetchone()
        connection.execute("UPDATE rows SET fields = '{}' WHERE key LIKE 'open|%'")
        connection.commit()
        with pytest.raises(TypeError) as caught:  # what is caught keeps the store alive
            open_sqlite_ledger(sqlite_path)
        connection.execute("UPDATE rows SET fields = ? WHERE key LIKE 'open|%'", [fields])
        connection.commit()
    open_sqlite_ledger(sqlite_path).close()
    assert caught.tb is not None


def test_what_was_written_before_a_kill_is_there_after_it(sqlite_path: Path) -> None:
    with other_process(sqlite_path, WORK) as process:
        assert process.stdout is not None
        written = [int(process.stdout.readline()) for _ in range(50)]
        process.kill()
    with closing(open_sqlite_ledger(sqlite_path)) as ledger:
        entries = {entry.email_id: entry for entry in ledger.entries("mb_1")}
        assert all(entries[f"em_{number}"].finished_at == NOW for number in written)
        assert due(ledger) == {entry.work_item for entry in entries.values() if entry.finished_at is None}


def test_a_look_at_a_ledger_in_use_takes_no_lock_and_changes_nothing(
    sqlite_ledger: Ledger, sqlite_path: Path
) -> None:
    claimed = added_and_claimed(sqlite_ledger, new_entry())
    with closing(open_sqlite_ledger(sqlite_path, read_only=True)) as view:
        assert view.get(claimed.work_item) == claimed
        with pytest.raises(ConfigurationError):
            view.add(new_entry("em_2"))
        sqlite_ledger.add(new_entry("em_3"))
        assert len(list(view.entries("mb_1"))) == 2
    assert sqlite_ledger.get(claimed.work_item) == claimed


def test_a_ledger_that_nobody_uses_can_be_looked_at(sqlite_path: Path) -> None:
    with closing(open_sqlite_ledger(sqlite_path)) as ledger:
        claimed = added_and_claimed(ledger, new_entry())
    with closing(open_sqlite_ledger(sqlite_path, read_only=True)) as view:
        assert view.get(claimed.work_item) == claimed


def test_looking_at_a_ledger_that_is_not_there_creates_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="LEDGER_PATH"):
        open_sqlite_ledger(tmp_path / "ledger.sqlite", read_only=True)
    assert list(tmp_path.iterdir()) == []


def write_garbage(path: Path) -> None:
    path.write_bytes(b"not a database, but long enough to be looked at " * 100)


def write_other_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (id)")


def write_newer_ledger(path: Path) -> None:
    open_sqlite_ledger(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {sqlite_store.SCHEMA_VERSION + 1}")


def write_older_ledger(path: Path) -> None:
    open_sqlite_ledger(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {sqlite_store.SCHEMA_VERSION - 1}")


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    "make", [write_garbage, write_other_database, write_newer_ledger, write_older_ledger, Path.mkdir]
)
def test_a_file_that_is_no_ledger_of_ours_is_refused_and_left_alone(
    tmp_path: Path, make: Callable[[Path], None], read_only: bool
) -> None:
    path = tmp_path / "ledger.sqlite"
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    for _ in range(2):  # the second time shows that the first gave the process lock back
        with pytest.raises(ConfigurationError, match=r"LEDGER_PATH(?s:.*)choose another path") as caught:
            open_sqlite_ledger(path, read_only=read_only)
        assert "in use" not in str(caught.value)
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_a_path_that_cannot_be_created_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="LEDGER_PATH"):
        open_sqlite_ledger(tmp_path / "file" / "ledger.sqlite")


def test_a_locked_database_is_a_passing_trouble(sqlite_ledger: Ledger, sqlite_path: Path) -> None:
    sqlite_connection(sqlite_ledger).execute("PRAGMA busy_timeout = 0")  # not to wait five seconds
    with closing(sqlite3.connect(sqlite_path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(TransientError, match="locked"):
            sqlite_ledger.add(new_entry())
    assert sqlite_ledger.add(new_entry()) is not None


@pytest.mark.parametrize(
    "statement",
    [sqlite_store.GET, sqlite_store.PAGE, sqlite_store.WRITE[Verb.REPLACE], sqlite_store.WRITE[Verb.DELETE]],
)
def test_no_statement_reads_more_than_its_range_of_keys(sqlite_ledger: Ledger, statement: str) -> None:
    names = ("partition", "key", "first", "last", "field", "most", "limit", "etag", "new_etag", "fields")
    parameters = ("x", "x") if "?" in statement else dict.fromkeys(names, 1)
    rows = sqlite_connection(sqlite_ledger).execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
    (step,) = [row[3] for row in rows]
    assert "SEARCH rows USING INDEX sqlite_autoindex_rows_1 (partition=? AND key" in step


# Table Storage


class Killed(BaseException):
    """The process died."""


def build_struck_ledger(azurite: Azurite, **hooks: Any) -> Ledger:
    """A ledger whose requests (`raw_request_hook`) or answers (`raw_response_hook`) meet what a test has for them."""
    return Ledger(TableStore(TableServiceClient(azurite.endpoint, credential=azurite.credential, **hooks)))


class Wire:
    """Notes the method of every request and kills the process before the n-th (from 0), or after its answer."""

    def __init__(self, azurite: Azurite, before: int = -1, after: int = -1) -> None:
        self.requests: list[str] = []
        self._before, self._after = before, after
        self.ledger = build_struck_ledger(
            azurite, raw_request_hook=self._send, raw_response_hook=self._answer
        )

    def _send(self, request: Any) -> None:
        if len(self.requests) == self._before:
            raise Killed
        self.requests.append(request.http_request.method)

    def _answer(self, _answer: object) -> None:
        if len(self.requests) - 1 == self._after:
            raise Killed


@pytest.mark.usefixtures("table_ledger")
def test_building_a_ledger_asks_nothing_of_the_service(azurite: Azurite) -> None:
    assert Wire(azurite).requests == []


def test_an_idle_poll_costs_a_request_for_each_partition_and_one_for_each_mailbox(
    azurite: Azurite, table_ledger: Ledger
) -> None:
    table_ledger.set_watermark("mb_1", Watermark(NOW, NOW))
    table_ledger.finish(finished(added_and_claimed(table_ledger, new_entry())))
    table_ledger.add(new_entry("later", due_at=LATER))
    wire = Wire(azurite)
    assert open_work(wire.ledger, NOW) == []
    assert wire.requests == ["GET"] * len(SHARDS)
    wire.requests.clear()
    wire.ledger.get_watermark("mb_1")
    assert wire.requests == ["GET"]


def test_an_email_costs_few_requests(azurite: Azurite, table_ledger: Ledger) -> None:
    works = [table_ledger.add(new_entry(f"the table exists {number}")) for number in range(MAX_CHANGES)]
    wire = Wire(azurite)
    steps: list[Callable[[], object]] = [
        lambda: wire.ledger.add(new_entry()),
        lambda: wire.ledger.add(new_entry()),
        lambda: wire.ledger.mark_enqueued(moved([work for work in works if work], LATER)),
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
    wire.ledger.finish(replied(wire.ledger.save(claimed)))
    counts.append(len(wire.requests))
    assert counts == [2, 1, 1, 2, 2]


def test_an_idle_look_at_the_replies_reads_each_partition_once(
    azurite: Azurite, table_ledger: Ledger
) -> None:
    for number in range(20):
        entry = new_entry(f"em_{number}")
        table_ledger.finish(replied(added_and_claimed(table_ledger, entry), f"re_{number}"))
    wire = Wire(azurite)
    assert len(wire.ledger.tracked_replies()) == 20
    assert wire.requests == ["GET"] * len(SHARDS)
    wire.requests.clear()
    wire.ledger.track_replies([TrackedReply("mb_1", "em_1", f"re_{n}", NOW, LATER) for n in range(100)])
    assert wire.requests == ["POST"]


@dataclass(frozen=True)
class Scene:
    """What each step of the ledger finds."""

    claimed: LedgerEntry
    done: LedgerEntry
    reply: TrackedReply
    works: Sequence[OpenWork]


def set_scene(azurite: Azurite) -> Scene:
    azurite.clear()
    ledger = build_table_ledger(azurite.endpoint, azurite.credential)
    done = ledger.finish(replied(added_and_claimed(ledger, new_entry("em_done"))))
    ledger.add(new_entry("em_new"))
    works = open_work(ledger, NOW)
    claimed = added_and_claimed(ledger, new_entry("em_claimed"))
    ledger.take_slot("th_1", "em_done", ())
    ledger.set_watermark("mb_1", Watermark(NOW, NOW))
    for _ in range(8):
        ledger.add_tokens("mb_1", "2026-11-22", 1)
    return Scene(claimed, done, TrackedReply("mb_1", "em_done", "em_9", NOW, NOW), works)


def redraft(ledger: Ledger, scene: Scene) -> None:
    rejection = Rejection("em_9", "too long", "x", NOW, LATER)
    ledger.redraft(scene.done.rejected(rejection, LATER), scene.reply)


STEPS: Mapping[str, Callable[[Ledger, Scene], object]] = {
    "add": lambda ledger, _: ledger.add(new_entry("em_next")),
    "claim": lambda ledger, _: ledger.claim(WorkItem("mb_1", "em_new"), NOW, NOW + LEASE),
    "save": lambda ledger, scene: ledger.save(replace(scene.claimed, triage=TRIAGE)),
    "defer": lambda ledger, scene: ledger.defer(replace(scene.claimed, due_at=LATER)),
    "set back": lambda ledger, scene: ledger.defer(scene.done.redriven(LATER)),
    "redraft": redraft,
    "finish": lambda ledger, scene: ledger.finish(finished(scene.claimed)),
    "finish with a reply": lambda ledger, scene: ledger.finish(replied(scene.claimed, "em_8")),
    "mark enqueued": lambda ledger, scene: ledger.mark_enqueued(moved(scene.works, LATER)),
    "track replies": lambda ledger, scene: ledger.track_replies([replace(scene.reply, status="approved")]),
    "drop reply": lambda ledger, scene: ledger.drop_reply(scene.reply),
    "set watermark": lambda ledger, _: ledger.set_watermark("mb_1", Watermark(NOW, LATER)),
    "take slot": lambda ledger, _: ledger.take_slot("th_1", "em_1", ["em_done"]),
    "add tokens": lambda ledger, _: ledger.add_tokens("mb_1", "2026-11-22", 1),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_step_is_one_transaction_that_dies_whole_at_each_of_its_requests(
    azurite: Azurite, step: str
) -> None:
    wire = Wire(azurite)
    scene = set_scene(azurite)
    before = rows_of(wire.ledger._store)
    wire.requests.clear()
    STEPS[step](wire.ledger, scene)
    requests = list(wire.requests)
    after = rows_of(wire.ledger._store)
    assert after != before
    assert [method for method in requests if method != "GET"] == ["POST"]
    for number, method in enumerate(requests):
        for is_before in (True, False):
            scene = set_scene(azurite)
            struck = Wire(azurite, before=number) if is_before else Wire(azurite, after=number)
            with pytest.raises(Killed):
                STEPS[step](struck.ledger, scene)
            is_made = method == "POST" and not is_before
            assert rows_of(wire.ledger._store) == (after if is_made else before)


@pytest.mark.parametrize("step", STEPS)
def test_a_write_whose_answer_was_lost_counts_once(azurite: Azurite, step: str) -> None:
    """The SDK sends it again, and it meets what its own first try wrote."""
    scene = set_scene(azurite)
    undisturbed = build_table_ledger(azurite.endpoint, azurite.credential)
    told = STEPS[step](undisturbed, scene)
    after = rows_of(undisturbed._store)
    lost: list[str] = []

    def lose_first_answer(response: Any) -> None:
        if response.http_request.method == "POST" and not lost:
            lost.append(response.http_request.url)
            raise ServiceResponseError("the connection broke")

    scene = set_scene(azurite)
    ledger = build_struck_ledger(azurite, raw_response_hook=lose_first_answer)
    said = STEPS[step](ledger, scene)
    assert len(lost) == 1
    assert rows_of(undisturbed._store) == after
    assert type(said) is type(told)
    if isinstance(said, LedgerEntry):
        assert undisturbed.get(said.work_item) == said
    elif isinstance(said, list):
        assert set(said) <= set(open_work(undisturbed, LATER))


def test_a_lost_answer_after_which_another_worker_wrote_is_a_lost_lease(azurite: Azurite) -> None:
    scene = set_scene(azurite)
    other = build_table_ledger(azurite.endpoint, azurite.credential)
    lost: list[str] = []

    def lose_first_answer(response: Any) -> None:
        if response.http_request.method == "POST" and not lost:
            lost.append(response.http_request.url)
            newer = other.get(scene.claimed.work_item)
            assert newer is not None
            other.save(replace(newer, detail="newer"))
            raise ServiceResponseError("the connection broke")

    ledger = build_struck_ledger(azurite, raw_response_hook=lose_first_answer)
    with pytest.raises(LeaseLostError):
        ledger.save(replace(scene.claimed, triage=TRIAGE))


def test_a_draft_too_long_for_the_service_is_for_a_human(table_ledger: Ledger) -> None:
    claimed = added_and_claimed(table_ledger, new_entry())
    too_long = replace(DRAFT, reply_markdown="x" * 32_769)
    with pytest.raises(PermanentError, match=r"draft__reply_markdown of row .*em_1"):
        table_ledger.save(replace(claimed, draft=too_long))
    table_ledger.save(replace(claimed, draft=replace(DRAFT, reply_markdown="x" * 32_768)))


def test_an_entry_too_long_for_the_service_leaves_nothing_behind(table_ledger: Ledger) -> None:
    with pytest.raises(PermanentError, match=r"sender of row .*em_1"):
        table_ledger.add(replace(new_entry(), sender="x" * 40_000))
    assert due(table_ledger) == set()


def test_a_wrong_key_names_the_setting_and_the_role(azurite: Azurite) -> None:
    ledger = build_table_ledger(azurite.endpoint, AzureNamedKeyCredential("devstoreaccount1", "d3Jvbmc="))
    with pytest.raises(ConfigurationError, match=r"LEDGER_TABLE_ENDPOINT.*Storage Table Data Contributor"):
        ledger.add(new_entry())


@contextmanager
def answering(status: int, headers: Sequence[tuple[str, str]]) -> Iterator[tuple[str, list[str]]]:
    """A service on this machine that gives one answer to everything; yields its address and what it was asked."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY)

        do_POST = do_GET

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
        build_table_ledger(endpoint, CREDENTIAL).get(new_entry().work_item)
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
        build_table_ledger(endpoint, CREDENTIAL).get(new_entry().work_item)
    assert type(caught.value) is kind
    assert len(asked) == tries


def test_a_table_that_is_being_deleted_refuses_no_row_for_good() -> None:
    """The service answers 409, as it does for a row that is there already."""
    headers = [("x-ms-error-code", "TableBeingDeleted")]
    row = Row("00", "a", {"text": "x"})
    with answering(409, headers) as (endpoint, _), pytest.raises(TransientError, match="being deleted"):
        build_table_ledger(endpoint, CREDENTIAL)._store.write([Change(Verb.INSERT, row)])


def test_a_service_that_is_not_there_is_a_passing_trouble() -> None:
    with answering(200, []) as (endpoint, _):
        pass
    with pytest.raises(TransientError, match="LEDGER_TABLE_ENDPOINT"):
        list(build_table_ledger(endpoint, CREDENTIAL).open_work())
