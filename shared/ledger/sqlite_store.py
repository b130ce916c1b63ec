"""The ledger's rows in one SQLite file, for one process on one machine."""

import json
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from shared.errors import ConfigurationError, TransientError
from shared.ledger.ledger import NAME, Ledger
from shared.ledger.store import Change, Row, Verb
from shared.settings import OBSERVED

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

OLDEST_SQLITE = (3, 24)  # has ON CONFLICT
SCHEMA_VERSION = 5
SCHEMA = """
    CREATE TABLE rows (
        partition TEXT NOT NULL, key TEXT NOT NULL, etag TEXT NOT NULL, fields TEXT NOT NULL,
        PRIMARY KEY (partition, key)
    )
"""
GET = "SELECT etag, fields FROM rows WHERE partition = ? AND key = ?"
# The index has the keys of a partition in order: a scan of open work reads no history.
PAGE = """
    SELECT key, etag, fields FROM rows
    WHERE partition = :partition AND key >= :first AND key < :last
    ORDER BY key LIMIT :limit
"""
WRITE = {
    Verb.INSERT: "INSERT INTO rows VALUES (:partition, :key, :new_etag, :fields) ON CONFLICT DO NOTHING",
    Verb.REPLACE: """
        UPDATE rows SET etag = :new_etag, fields = :fields
        WHERE partition = :partition AND key = :key AND etag = :etag
    """,
    Verb.UPSERT: "INSERT OR REPLACE INTO rows VALUES (:partition, :key, :new_etag, :fields)",
    Verb.DELETE: "DELETE FROM rows WHERE partition = :partition AND key = :key",
}
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
_FREE_SPACE = "free space on its disk, or check it"
_CLOSE = "close other programs that use the file"
_PASSING = {
    sqlite3.SQLITE_BUSY: _CLOSE,
    sqlite3.SQLITE_LOCKED: _CLOSE,
    sqlite3.SQLITE_PROTOCOL: _CLOSE,
    sqlite3.SQLITE_IOERR: _FREE_SPACE,
    sqlite3.SQLITE_FULL: _FREE_SPACE,
}


class LedgerInUseError(ConfigurationError):
    """Another process has the ledger's file."""


def open_sqlite_ledger(
    path: Path, *, read_only: bool = False, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Ledger:
    """Open the ledger in a file, take back the leases of a dead process, and hold the file until `close`.

    With `read_only` it is only looked at, also while another process works with it.
    Raises what `SqliteStore` raises.
    """
    try:
        name = OBSERVED if path.parent.name == OBSERVED else NAME
        ledger = Ledger(SqliteStore(path, read_only=read_only), name)
        with ExitStack() as unless_opened:
            unless_opened.callback(ledger.close)
            if not read_only:  # the kernel drops a dead process' lock: every earlier worker is dead
                ledger.take_over(clock())
            unless_opened.pop_all()
    except TransientError as error:  # nothing runs yet that could try again
        raise ConfigurationError(f"LEDGER_PATH: {error}, or choose another path.") from error
    return ledger


class SqliteStore:
    """A Store in a file of its own, held by one process at a time until `close`.

    A committed write outlives a power cut.
    Raises ConfigurationError when the file is in use, cannot be opened or is not a ledger.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise ConfigurationError(
                f"This Python's SQLite is {sqlite3.sqlite_version}; the ledger in a file needs 3.24 or "
                "newer: use another build of Python, or a Table endpoint (LEDGER_TABLE_ENDPOINT)."
            )
        if path.is_dir():
            raise ConfigurationError(
                f"LEDGER_PATH: {path} is a folder: choose another path, such as {path / 'ledger.sqlite'}."
            )
        self._path = path
        self._turn = threading.Lock()
        with ExitStack() as opened:
            if not read_only:
                opened.enter_context(_lock_process(path))
            self._connection = opened.enter_context(closing(_connect(path, read_only=read_only)))
            # Whose file is it? An empty one becomes a new ledger.
            version = self._read("PRAGMA user_version")[0][0]
            is_empty = not self._read("SELECT 1 FROM sqlite_master LIMIT 1")
            if version not in (0, SCHEMA_VERSION):
                raise ConfigurationError(
                    f"LEDGER_PATH: {path} was written by another version of this program "
                    f"(schema {version}, this one has {SCHEMA_VERSION}): use that one, "
                    "or choose another path."
                )
            if version == 0 and (read_only or not is_empty):
                raise ConfigurationError(f"LEDGER_PATH: {path} holds no ledger: choose another path.")
            if not read_only:
                self._read("PRAGMA journal_mode = WAL")
                # What was paid for and submitted must outlive a power cut too.
                self._read("PRAGMA synchronous = FULL")
                # What is erased must not stay in the free space of the file.
                self._read("PRAGMA secure_delete = ON")
            if version == 0:
                with _sqlite_errors(path), self._connection as connection:
                    connection.execute("BEGIN IMMEDIATE")
                    connection.execute(SCHEMA)
                    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Let the file go."""
        with self._turn:
            self._opened.close()

    def get(self, partition: str, key: str) -> Row | None:
        """The row, or None."""
        found = self._read(GET, (partition, key))
        return Row(partition, key, _load(found[0][1]), found[0][0]) if found else None

    def scan(self, partitions: Sequence[str], first: str, last: str) -> Iterator[Row]:
        """The rows with `first` <= key < `last`, a page at a time: writers do not wait."""
        for partition in partitions:
            named = {"partition": partition, "first": first, "last": last, "limit": _PAGE_ROWS}
            while page := self._read(PAGE, named):
                yield from (Row(partition, key, _load(fields), etag) for key, etag, fields in page)
                named["first"] = page[-1][0] + "\0"  # the next key that there can be

    def write(self, changes: Sequence[Change]) -> tuple[str, ...] | None:
        """Make all changes in one transaction, or none and return None when a condition did not hold."""
        etags = tuple("" if change.verb is Verb.DELETE else uuid4().hex for change in changes)
        with self._turn, _sqlite_errors(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            with self._connection:  # commits, or rolls back when anything was raised
                for change, etag in zip(changes, etags, strict=True):
                    row = change.row
                    named = {
                        "partition": row.partition, "key": row.key, "etag": row.etag,
                        "new_etag": etag, "fields": json.dumps(row.fields),
                    }  # fmt: skip
                    if self._connection.execute(WRITE[change.verb], named).rowcount != 1:
                        self._connection.rollback()
                        return None
        return etags

    def _read(
        self, sql: str, parameters: Sequence[object] | Mapping[str, object] = ()
    ) -> list[tuple[Any, ...]]:
        with self._turn, _sqlite_errors(self._path):
            return self._connection.execute(sql, parameters).fetchall()


def _load(fields: str | bytes) -> Mapping[str, Any]:
    """The fields of a row; none where somebody wrote something else there: so each reader knows its own."""
    try:
        loaded = json.loads(fields)
    except (ValueError, RecursionError):
        loaded = None
    return loaded if isinstance(loaded, dict) else {}


def _connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    if not path.is_file():
        raise ConfigurationError(
            f"LEDGER_PATH: no ledger found in {path}: run the agent first, or choose another path."
        )
    uri = path.resolve().as_uri() + ("?mode=ro" if read_only else "?mode=rw")
    with _sqlite_errors(path):
        return sqlite3.connect(
            uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )


def _lock_process(path: Path) -> IO[bytes]:
    """Create the ledger's file if need be and hold the lock next to it."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
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
        raise LedgerInUseError(
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
            remedy = _PASSING[code]
            raise TransientError(f"the ledger {path} cannot be used now ({error}): {remedy}") from error
        raise
