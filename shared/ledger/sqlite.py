"""The ledger in one SQLite file, for one process on one machine."""

import json
import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from shared.domain import WorkItem
from shared.errors import ConfigurationError, LeaseLostError, TransientError
from shared.ledger.entries import LedgerEntry, TrackedReply, Watermark
from shared.ledger.rows import (
    finished,
    from_reply_row,
    from_row,
    released,
    to_moment,
    to_reply_row,
    to_row,
    to_text,
)

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

OLDEST_SQLITE = (3, 35)  # knows RETURNING
SCHEMA_VERSION = 2

# What version 2 has on top of version 1: a row for every tracked reply.
SCHEMA_2 = (
    """
    CREATE TABLE replies (
        mailbox_id TEXT NOT NULL, reply_id TEXT NOT NULL, reply TEXT NOT NULL,
        PRIMARY KEY (mailbox_id, reply_id)
    )
    """,
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
# ring_at is NULL once a row is finished, so the partial index holds the open work and nothing else.
SCHEMA = (
    """
    CREATE TABLE emails (
        mailbox_id TEXT NOT NULL,
        email_id TEXT NOT NULL,
        version INTEGER NOT NULL,
        ring_at TEXT,
        entry TEXT NOT NULL,
        PRIMARY KEY (mailbox_id, email_id)
    )
    """,
    "CREATE INDEX open_work ON emails (ring_at, mailbox_id, email_id) WHERE ring_at IS NOT NULL",
    "CREATE TABLE watermarks (mailbox_id TEXT PRIMARY KEY, since TEXT NOT NULL, until TEXT NOT NULL)",
    "CREATE TABLE slots (scope TEXT NOT NULL, email_id TEXT NOT NULL, PRIMARY KEY (scope, email_id))",
    """
    CREATE TABLE tokens (
        mailbox_id TEXT NOT NULL, day TEXT NOT NULL, used INTEGER NOT NULL, PRIMARY KEY (mailbox_id, day)
    )
    """,
    *SCHEMA_2,
)

FIND = "SELECT entry, version FROM emails WHERE mailbox_id = ? AND email_id = ?"
WRITE = """
    UPDATE emails SET entry = ?, ring_at = ?, version = version + 1
    WHERE mailbox_id = ? AND email_id = ? AND version = ? RETURNING version
"""
OPEN = "SELECT entry, version FROM emails WHERE ring_at IS NOT NULL"
DUE = "SELECT mailbox_id, email_id FROM emails WHERE ring_at <= ? ORDER BY ring_at LIMIT ?"
RUNG = "UPDATE emails SET ring_at = ? WHERE mailbox_id = ? AND email_id = ? AND ring_at IS NOT NULL"
OPEN_SINCE = """
    SELECT max(json_extract(entry, '$.received_at'), coalesce(json_extract(entry, '$.redriven_at'), ''))
    FROM emails WHERE ring_at IS NOT NULL
"""
NEXT_DUE_AT = "SELECT min(ring_at) FROM emails WHERE ring_at IS NOT NULL"
PAGE = """
    SELECT entry, version, email_id FROM emails
    WHERE mailbox_id = ? AND email_id > ? ORDER BY email_id LIMIT ?
"""
TRACKED = "SELECT reply FROM replies"
TRACK = "INSERT OR REPLACE INTO replies VALUES (?, ?, ?)"
DROP = "DELETE FROM replies WHERE mailbox_id = ? AND reply_id = ?"
SLOTS = "SELECT email_id FROM slots WHERE scope = ? ORDER BY rowid"

_PAGE_ROWS = 500
_BUSY_SECONDS = 5.0

_WRONG_FILE = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_AUTH,
}
_PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
}


class SqliteLedger:
    """A Ledger in a file of its own, held by one process at a time until `close`.

    The kernel drops the process lock when a process dies, so whoever opens the file knows that
    every earlier worker is dead: it takes back their leases and rings for all open work anew.
    With `read_only` the file is only looked at, also while another process works with it.
    Raises ConfigurationError when the file is in use, cannot be opened or is not a ledger.
    """

    def __init__(
        self, path: Path, *, read_only: bool = False, sync: Callable[[int], object] = os.fsync
    ) -> None:
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise ConfigurationError(
                f"This Python's SQLite is {sqlite3.sqlite_version}; the ledger in a file needs 3.35 or "
                "newer: use another build of Python, or a Table endpoint (LEDGER_TABLE_ENDPOINT)."
            )
        self._path = path
        self._turn = threading.Lock()
        self._journal = _Journal(path, sync)
        with ExitStack() as opened:
            if not read_only:
                opened.enter_context(_lock_process(path))
            self._connection = opened.enter_context(closing(_connect(path, read_only=read_only)))
            opened.callback(self._journal.close)  # before SQLite takes the file away
            self._prepare(read_only=read_only)
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Let the file go."""
        with self._turn:
            self._opened.close()

    def add(self, entry: LedgerEntry) -> bool:
        """Insert a row that is rung for at `entry.due_at`, only if absent; say whether it was new."""
        with self._transaction() as connection:
            cursor = connection.execute(
                "INSERT INTO emails VALUES (?, ?, 1, ?, ?) ON CONFLICT DO NOTHING",
                (entry.mailbox_id, entry.email_id, _ring_at(entry), json.dumps(to_row(entry))),
            )
            return cursor.rowcount == 1

    def claim(self, item: WorkItem, now: datetime, lease_until: datetime) -> LedgerEntry | None:
        """Take the row's lease; None when it is unknown, done, leased or not due."""
        with self._transaction() as connection:
            row = connection.execute(FIND, (item.mailbox_id, item.email_id)).fetchone()
            claimed = _entry(row).claimed(now, lease_until) if row else None
            return None if claimed is None else _write(connection, claimed)

    def save(self, entry: LedgerEntry) -> LedgerEntry:
        """Store the row under its lease and return it with its new version. Raises LeaseLostError."""
        with self._transaction() as connection:
            return _write(connection, entry)

    def defer(self, entry: LedgerEntry) -> LedgerEntry:
        """Give the lease back and have the row rung for at `entry.due_at`. Raises LeaseLostError."""
        return self.save(released(entry))

    def finish(self, entry: LedgerEntry) -> LedgerEntry:
        """Store the finished row, give the lease back, drop it from the open work. Raises LeaseLostError."""
        done = finished(entry)
        with self._transaction() as connection:
            if done.tracked_reply is not None:
                connection.execute(TRACK, _reply_row(done.tracked_reply))
            return _write(connection, done)

    def get(self, item: WorkItem) -> LedgerEntry | None:
        """The row, or None."""
        rows = self._read(FIND, item.mailbox_id, item.email_id)
        return _entry(rows[0]) if rows else None

    def entries(self, mailbox_id: str) -> Iterator[LedgerEntry]:
        """Every row of a mailbox, a page at a time so that nobody waits for the reader."""
        after = ""
        while rows := self._read(PAGE, mailbox_id, after, _PAGE_ROWS):
            yield from (_entry(row) for row in rows)
            after = rows[-1][2]

    def due(self, now: datetime, limit: int) -> Sequence[WorkItem]:
        """Open work to be rung for by `now`, the longest waiting first, at most `limit` items."""
        return [WorkItem(*row) for row in self._read(DUE, to_text(now), limit)]

    def rung(self, items: Sequence[WorkItem], ring_again_at: datetime) -> None:
        """Remember that these were rung for, so that `due` stays quiet about them until `ring_again_at`."""
        with self._transaction() as connection:
            text = to_text(ring_again_at)
            connection.executemany(RUNG, [(text, item.mailbox_id, item.email_id) for item in items])

    def next_due_at(self) -> datetime | None:
        """When open work wants to be rung for next; None when nothing is open."""
        [[text]] = self._read(NEXT_DUE_AT)
        return to_moment(text) if text else None

    def open_since(self) -> Sequence[datetime]:
        """Since when each open email is open."""
        return [to_moment(row[0]) for row in self._read(OPEN_SINCE)]

    def tracked_replies(self) -> Sequence[TrackedReply]:
        """Every tracked reply, in no promised order."""
        return [from_reply_row(json.loads(row[0])) for row in self._read(TRACKED)]

    def find_tracked_reply(self, mailbox_id: str, reply_id: str) -> TrackedReply | None:
        """The mailbox's tracked reply of that id, if it is one."""
        rows = self._read(f"{TRACKED} WHERE mailbox_id = ? AND reply_id = ?", mailbox_id, reply_id)
        return from_reply_row(json.loads(rows[0][0])) if rows else None

    def track_replies(self, replies: Sequence[TrackedReply]) -> None:
        """Keep these tracked as they are given, each in place of what was noted about it before."""
        with self._transaction() as connection:
            connection.executemany(TRACK, [_reply_row(reply) for reply in replies])

    def drop_reply(self, reply: TrackedReply) -> None:
        """Stop tracking a reply, once its row says that it is settled."""
        with self._transaction() as connection:
            connection.execute(DROP, (reply.mailbox_id, reply.reply_id))

    def get_watermark(self, mailbox_id: str) -> Watermark | None:
        """How far the mailbox has been polled; None before its first poll."""
        rows = self._read("SELECT since, until FROM watermarks WHERE mailbox_id = ?", mailbox_id)
        return Watermark(to_moment(rows[0][0]), to_moment(rows[0][1])) if rows else None

    def set_watermark(self, mailbox_id: str, watermark: Watermark) -> None:
        """Remember how far the mailbox has been polled."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO watermarks VALUES (?, ?, ?)",
                (mailbox_id, to_text(watermark.since), to_text(watermark.until)),
            )

    def slots(self, scope: str) -> tuple[str, ...]:
        """The email ids that hold a reply slot in `scope`."""
        return tuple(row[0] for row in self._read(SLOTS, scope))

    def take_slot(self, scope: str, email_id: str, seen: Sequence[str]) -> bool:
        """Add `email_id` to the slots of `scope` if they are still `seen` or hold it already."""
        with self._transaction() as connection:
            held = {row[0] for row in connection.execute(SLOTS, (scope,))}
            if email_id in held:
                return True
            if held != set(seen):
                return False
            connection.execute("INSERT INTO slots VALUES (?, ?)", (scope, email_id))
            return True

    def add_tokens(self, mailbox_id: str, day: str, tokens: int) -> None:
        """Add to the tokens a mailbox has used on a day (`YYYY-MM-DD`, UTC)."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO tokens VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET used = used + excluded.used",
                (mailbox_id, day, tokens),
            )

    def tokens_used(self, mailbox_id: str, day: str) -> int:
        """The tokens a mailbox has used on a day (`YYYY-MM-DD`, UTC)."""
        rows = self._read("SELECT used FROM tokens WHERE mailbox_id = ? AND day = ?", mailbox_id, day)
        return int(rows[0][0]) if rows else 0

    def _prepare(self, *, read_only: bool) -> None:
        """Check whose file it is; make a new one, or take over from the workers that died."""
        version = self._read("PRAGMA user_version")[0][0]
        is_empty = not self._read("SELECT 1 FROM sqlite_master LIMIT 1")
        if version > SCHEMA_VERSION:
            raise ConfigurationError(
                f"LEDGER_PATH: {self._path} was written by a newer version of this program "
                f"(schema {version}, known up to {SCHEMA_VERSION}): upgrade, or choose another path."
            )
        if version == 0 and (read_only or not is_empty):
            raise ConfigurationError(f"LEDGER_PATH: {self._path} holds no ledger: choose another path.")
        if read_only:
            return
        self._read("PRAGMA journal_mode = WAL")
        # The row is the proof of what was paid for and submitted: it must outlive a power cut too. With FULL
        # every commit would bring the journal to the disk, one after the other; `_Journal` does it for all
        # that wait.
        self._read("PRAGMA synchronous = NORMAL")
        with self._transaction() as connection:
            for statement in {0: SCHEMA, 1: SCHEMA_2}.get(version, ()):
                connection.execute(statement)
            for entry in map(_entry, connection.execute(OPEN).fetchall()):
                # Who held the lease died with its process; that says nothing against the email.
                attempts = entry.attempts - 1 if entry.lease_until else entry.attempts
                _write(connection, released(replace(entry, attempts=attempts)))

    def _read(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        with self._turn, _sqlite_errors(self._path):
            return self._connection.execute(sql, parameters).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is on the disk once the block is left."""
        with self._turn, _sqlite_errors(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            with self._connection:  # commits, or rolls back when anything was raised
                yield self._connection
            commit = self._journal.count_commit()
        self._journal.bring_to_disk(commit)


class _Journal:
    """Brings SQLite's write-ahead log to the disk: one sync for all the commits that wait for one.

    In WAL mode a commit is durable as soon as the log file is (https://sqlite.org/wal.html), and what a later
    commit has read from an earlier one lies before it in the same file.
    """

    def __init__(self, path: Path, sync: Callable[[int], object]) -> None:
        self._path = path.with_name(path.name + "-wal")
        self._sync = sync
        self._file: IO[bytes] | None = None
        self._turn = threading.Lock()
        self._commits = self._on_disk = 0

    def count_commit(self) -> int:
        """The number of the commit that was just made; for whoever has the connection's turn."""
        self._commits += 1
        return self._commits

    def bring_to_disk(self, commit: int) -> None:
        """Return once this commit is on the disk. Raises TransientError."""
        with self._turn:
            if self._on_disk >= commit:
                return
            newest = self._commits
            try:
                if self._file is None:
                    self._file = self._open()
                self._sync(self._file.fileno())
            except OSError as error:
                raise TransientError(
                    f"LEDGER_PATH: {self._path} could not be written ({error.strerror})"
                ) from error
            self._on_disk = newest

    def close(self) -> None:
        """Let the file go."""
        if self._file is not None:
            self._file.close()

    def _open(self) -> IO[bytes]:
        if os.name == "posix":  # a new file is safe once its folder's entry is
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                self._sync(folder)
            finally:
                os.close(folder)
        return self._path.open("r+b", buffering=0)


def _ring_at(entry: LedgerEntry) -> str | None:
    """A leased row rings when its lease ends: by then its worker has written again, or is dead."""
    return None if entry.finished_at else to_text(entry.lease_until or entry.due_at)


def _entry(row: Sequence[Any]) -> LedgerEntry:
    return from_row(json.loads(row[0]), version=str(row[1]))


def _reply_row(reply: TrackedReply) -> tuple[str, str, str]:
    return reply.mailbox_id, reply.reply_id, json.dumps(to_reply_row(reply))


def _write(connection: sqlite3.Connection, entry: LedgerEntry) -> LedgerEntry:
    row = (json.dumps(to_row(entry)), _ring_at(entry), entry.mailbox_id, entry.email_id, entry.version)
    written = connection.execute(WRITE, row).fetchone()
    if written is None:
        raise LeaseLostError(
            f"email {entry.email_id} of mailbox {entry.mailbox_id} was written by another worker "
            f"after version {entry.version or '(none)'}"
        )
    return replace(entry, version=str(written[0]))


def _connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    if not path.is_file():
        raise ConfigurationError(
            f"LEDGER_PATH: there is no ledger in {path}: run the agent first, or choose another path."
        )
    uri = path.resolve().as_uri() + ("?mode=ro" if read_only else "?mode=rw")
    with _sqlite_errors(path):
        return sqlite3.connect(
            uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )


def _lock_process(path: Path) -> IO[bytes]:
    """Create the ledger's file if need be and hold the lock beside it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)  # it will hold drafts of private mail
        file = path.with_name(path.name + ".lock").open("ab")
    except OSError as error:
        raise ConfigurationError(
            f"LEDGER_PATH: {path} cannot be created ({error.strerror}): choose a path in a writable folder."
        ) from error
    try:
        if sys.platform == "win32":
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise ConfigurationError(
            f"LEDGER_PATH: {path} is in use by another run ({error.strerror}): "
            "stop that run, or choose another path for this one."
        ) from error
    return file


@contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    """Say what the caller must do about a failure of SQLite (https://sqlite.org/rescode.html)."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
        if code in _WRONG_FILE:
            raise ConfigurationError(
                f"LEDGER_PATH: {path} cannot be used as a ledger ({error}): choose another path."
            ) from error
        if code in _PASSING:
            raise TransientError(f"the ledger {path} did not answer ({error})") from error
        raise
