"""Growth: a long history, many mailboxes and many emails must not make the next one slower or larger."""

import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path

from azure.data.tables import TableServiceClient

from benchmarks.agent_process import Job, run_agent
from benchmarks.counts import TableCounter, build_counted_ledger
from benchmarks.figures import Figure, Part
from benchmarks.simulators import NO_LATENCY, Latencies, Simulators
from benchmarks.texts import REPLY
from local.testing.azurite import Azurite, find_azurite
from local.testing.world import START, World
from shared.composition import build_agent
from shared.domain import Action, Cause, Draft, ModelText, Outcome, Sentiment, Triage, Urgency, Usage
from shared.ledger.entries import LedgerEntry
from shared.ledger.ledger import Ledger, build_email_row
from shared.ledger.sqlite_store import SqliteStore, open_sqlite_ledger
from shared.ledger.table_store import TABLE
from shared.services.work_queue import InProcessWorkQueue
from shared.settings import Settings

GOAL = 1.2
MEMORY_GOAL = 1.05
BATCH_ROWS = 100  # the most that one transaction takes
TABLE_ROWS = 1_000  # the counts of transactions and entities would show a single row read too many
LATENCIES = Latencies()


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done: `history` finished rows, `samples` of each step, emails for the memory."""

    history: int
    samples: int
    emails: int
    mailboxes: tuple[int, ...]


QUICK = Sizes(50_000, 60, 200, (1, 50))
FULL = Sizes(1_000_000, 200, 10_000, (1, 50, 500))


def measure(advance: Callable[[str], None], *, quick: bool) -> Part:
    """All of it; on the Table ledger by counting, because an emulator's speed says nothing about Azure's."""
    sizes = QUICK if quick else FULL
    advance(f"SQLite with {sizes.history:,} finished rows")
    figures = compare_histories(sizes)
    program = find_azurite()
    if program is not None:
        advance("Tables with finished rows")
        with Azurite(program) as azurite:
            figures += count_histories(azurite)
    rows = []
    for count in sizes.mailboxes:
        advance(f"a poll of {count} mailboxes")
        rows.append(_poll_mailboxes(count))
    figures += [
        Figure(
            f"idle poll of {row['mailboxes']:.0f} mailboxes",
            row["seconds"],
            "s",
            note=f"{row['calls']:.0f} MultiMail calls",
        )
        for row in rows
    ]
    advance(f"memory over {sizes.emails:,} emails")
    with Simulators(NO_LATENCY) as simulators:
        run = run_agent(Job(simulators.settings, sizes.emails, 8, 0.5, rounds=40))
    figures.append(compare_memory(run.resident_mb, sizes.emails))
    return Part("Growth", figures, (), {"polls": rows, "resident_mb": run.resident_mb})


def compare_memory(resident_mb: list[float], emails: int) -> Figure:
    """The agent's memory in the last quarter of a run, in terms of its second quarter."""
    quarter = len(resident_mb) // 4
    second = statistics.mean(resident_mb[quarter : 2 * quarter])
    last = statistics.mean(resident_mb[-quarter:])
    note = f"{second:.1f} MB, then {last:.1f} MB"
    return Figure(
        f"memory over {emails:,} emails: last quarter / second", last / second, "", MEMORY_GOAL, note=note
    )


def compare_histories(sizes: Sizes) -> list[Figure]:
    """Each step's time on a ledger with a long history, in terms of an empty one's; taken in turn."""
    times: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        worlds = {
            name: stack.enter_context(_open_world(Path(folder) / name, rows))
            for name, rows in (("empty", 0), ("long", sizes.history))
        }
        for number in range(sizes.samples):
            # In turn, and each of them first as often as the other: the machine has other things to do.
            for name, world in sorted(worlds.items(), reverse=number % 2 == 1):
                for step, seconds in time_steps(world, number):
                    times.setdefault(step, {}).setdefault(name, []).append(seconds)
    figures = []
    for step, found in times.items():
        # The first quartile: what else the machine does lengthens the upper half, not this.
        empty, long = (statistics.quantiles(found[name], n=4)[0] for name in ("empty", "long"))
        note = f"{1000 * empty:.2f} ms, then {1000 * long:.2f} ms"
        figures.append(
            Figure(f"{step} behind {sizes.history:,} rows, SQLite", long / empty, "x", GOAL, note=note)
        )
    return figures


@contextmanager
def _open_world(folder: Path, rows: int) -> Iterator[World]:
    folder.mkdir()
    path = folder / "ledger.sqlite"
    store = SqliteStore(path)
    # Without waiting for the disk: that takes as long for both, and its noise would drown what is looked for.
    store._connection.execute("PRAGMA synchronous = OFF")
    with closing(Ledger(store)) as ledger, World(folder, ledger) as world:
        fill_sqlite(path, world.box, rows)
        world.poller.poll()
        yield world


def time_steps(world: World, number: int) -> Iterator[tuple[str, float]]:
    """One more email taken in, claimed and finished, a sweep that finds nothing, a look at the replies."""
    ledger, now = world.ledger, world.clock()
    entry = build_finished(world.box, f"new_{number}", finished=False)
    item = entry.work_item
    yield "poll", _time(world.poller.poll)
    yield "add", _time(lambda: ledger.add(entry))
    claimed: list[LedgerEntry | None] = []
    yield "claim", _time(lambda: claimed.append(ledger.claim(item, now, now + timedelta(minutes=10))))
    assert claimed[0] is not None
    done = replace(claimed[0], outcome=Outcome.IGNORED, finished_at=now)
    yield "finish", _time(lambda: ledger.finish(done))
    yield "sweep", _time(lambda: list(ledger.open_work()))
    yield "track", _time(world.tracker.track)


def _time(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def fill_sqlite(path: Path, mailbox_id: str, rows: int) -> None:
    """Put finished rows into a ledger's file, as fast as SQLite takes them."""
    row = build_email_row(build_finished(mailbox_id, "EMAIL"))
    template = json.dumps(row.fields)
    with closing(sqlite3.connect(path, timeout=60)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        values = (
            (row.partition, *(text.replace("EMAIL", f"em_{number:08}") for text in (row.key, template)))
            for number in range(rows)
        )
        connection.executemany("INSERT INTO rows VALUES (?, ?, 'an etag', ?)", values)
        connection.commit()
        connection.execute(
            "PRAGMA wal_checkpoint(TRUNCATE)"
        )  # a log that is long already is faster to write to


def build_finished(mailbox_id: str, email_id: str, *, finished: bool = True) -> LedgerEntry:
    """A row as an answered email leaves it behind, or as a new one begins."""
    entry = LedgerEntry(mailbox_id, email_id, START, "ann@customer.example", f"th_{email_id}", START)
    if not finished:
        return entry
    triage = Triage(
        Action.REPLY,
        "support",
        Urgency.NORMAL,
        Sentiment.NEUTRAL,
        0.9,
        ModelText("A question."),
        ModelText("A person asks."),
    )
    return replace(
        entry, attempts=1, usage=Usage(2, 1200, 200), triage=triage, draft=Draft(REPLY, 0.9, (), (email_id,), "f" * 64),
        submit_intent_at=START, reply_id=f"re_{email_id}", outcome=Outcome.REPLY_SUBMITTED, cause=Cause.TRIAGED,
        finished_at=START, reply_status="delivered", reply_settled_at=START,
    )  # fmt: skip


def count_histories(azurite: Azurite) -> list[Figure]:
    """Transactions and entities read of the same steps on the Table ledger, with a history and without."""
    without, behind = _count_tables(azurite, 0), _count_tables(azurite, TABLE_ROWS)
    figures = []
    for what, before, after in zip(("transactions", "entities read"), without, behind, strict=True):
        name = f"poll, add, claim, finish, sweep, track behind {TABLE_ROWS:,} rows, Tables: {what}"
        figures.append(Figure(name, after, "", before * GOAL, counted=True, note=f"{before} without"))
    return figures


def _count_tables(azurite: Azurite, rows: int) -> tuple[int, int]:
    counter = TableCounter()
    with tempfile.TemporaryDirectory() as folder:
        ledger: Ledger = build_counted_ledger(azurite, counter)
        with World(Path(folder), ledger) as world:
            fill_tables(azurite, world.box, rows)
            world.poller.poll()
            counter.transactions = counter.entities = 0
            for _ in time_steps(world, 0):
                pass
    return counter.transactions, counter.entities


def fill_tables(azurite: Azurite, mailbox_id: str, rows: int) -> None:
    """Put finished rows into the history, a transaction for each hundred."""
    with TableServiceClient(azurite.endpoint, credential=azurite.credential) as service:
        table = service.get_table_client(TABLE)
        for first in range(0, rows, BATCH_ROWS):
            entries = [
                build_finished(mailbox_id, f"em_{number:08}") for number in range(first, first + BATCH_ROWS)
            ]
            stored = [build_email_row(entry) for entry in entries]
            table.submit_transaction(
                [
                    ("create", {"PartitionKey": row.partition, "RowKey": row.key, **row.fields})
                    for row in stored
                ]
            )


def _poll_mailboxes(count: int) -> dict[str, float]:
    """The time of an idle poll, with MultiMail's latency, and its calls."""
    with Simulators(LATENCIES, mailboxes=count) as simulators, tempfile.TemporaryDirectory() as folder:
        settings = Settings.from_env(
            {**simulators.settings, "LEDGER_PATH": str(Path(folder) / "ledger.sqlite")}
        )
        with closing(open_sqlite_ledger(settings.ledger_path)) as ledger:
            agent = build_agent(settings, ledger=ledger, work_queue=InProcessWorkQueue())
            agent.poll()
            simulators.ask(do="counts")
            seconds = statistics.median(_time(agent.poll) for _ in range(3))
            calls = (
                sum(n for name, n in simulators.ask(do="counts").items() if name.startswith("multimail")) / 3
            )
    return {"mailboxes": count, "seconds": seconds, "calls": calls} | asdict(LATENCIES)
