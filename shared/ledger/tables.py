"""The ledger in Azure Table Storage: history, the open work beside it, and what is kept per mailbox."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from http import HTTPStatus
from itertools import cycle, groupby, islice
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from shared.domain import WorkItem
from shared.errors import (
    AgentError,
    ConfigurationError,
    ConflictError,
    LeaseLostError,
    NotFoundError,
    PermanentError,
    ThrottledError,
    TransientError,
)
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
from shared.telemetry import span

if TYPE_CHECKING:  # importing the SDK costs a cold start 0.15 s: only those who build a TablesLedger pay it
    from azure.core.credentials import AzureNamedKeyCredential, TokenCredential
    from azure.core.pipeline import PipelineResponse
    from azure.data.tables import TableEntity, TableServiceClient

T = TypeVar("T")
Row = Mapping[str, str | int]

# Open work and tracked replies are read over all mailboxes, but a partition serves only 2,000 entities a
# second: each is spread over so many, a mailbox always in the same one.
SHARDS = 16
ORPHAN_AGE = timedelta(hours=1)

# https://learn.microsoft.com/rest/api/storageservices/understanding-the-table-service-data-model
_MAX_TEXT_BYTES = 64 * 1024
_MAX_PAGE_ROWS = 1000
_MAX_BATCH_ROWS = 100

_MEANINGS: Mapping[int, type[AgentError]] = {
    400: PermanentError,
    404: NotFoundError,
    409: ConflictError,
    412: LeaseLostError,
    413: PermanentError,
}
# "~" comes after every character that a shard's name has.
_IN_OPEN = "PartitionKey ge 'open-' and PartitionKey lt 'open-~'"
_IN_REPLIES = "PartitionKey ge 'replies-' and PartitionKey lt 'replies-~'"

_FORBIDDEN = (401, 403)
_BUSY = (429, 503)

# Each counter is spread over rows that are written in turn, so that concurrent writers seldom meet.
_COUNTER_ROWS = 8
_COUNTER_TRIES = 40


def build_tables_ledger(
    endpoint: str, credential: "TokenCredential | AzureNamedKeyCredential"
) -> "TablesLedger":
    """Build the ledger of a storage account's Table endpoint. Nothing is asked of the account yet.

    A call fails after at most three tries of 20 seconds, and at once when the service names a delay.
    """
    from azure.core.pipeline.transport import RequestsTransport  # noqa: PLC0415 - cold start
    from azure.data.tables import TableServiceClient  # noqa: PLC0415 - cold start

    from shared.http_session import build_session  # noqa: PLC0415 - cold start

    service = TableServiceClient(
        endpoint,
        credential=credential,
        retry_total=2,
        retry_backoff_factor=0.4,
        transport=RequestsTransport(
            session=build_session(), session_owner=False, connection_timeout=5, read_timeout=15
        ),
        logging_enable=False,
        raw_response_hook=_refuse_to_sleep,
    )
    return TablesLedger(service)


class TablesLedger:
    """A Ledger in three tables, which are created when first written to. Building it does no I/O.

    `emails` is the history, one partition per mailbox. `openwork` has one row for every unfinished
    email, and for a while some more: it is written before the history row appears and deleted after
    that has finished. It also has one row for every tracked reply. Both are spread over `SHARDS`
    partitions, `open-00` and so on and `replies-00` and so on, and are read as two ranges of partitions.
    `mailboxes` has the watermarks, the reply slots and the token counters.
    """

    def __init__(self, service: "TableServiceClient") -> None:
        self._emails = _Table(service, "emails")
        self._openwork = _Table(service, "openwork")
        self._mailboxes = _Table(service, "mailboxes")
        self._counter_rows = cycle(range(_COUNTER_ROWS))

    def add(self, entry: LedgerEntry) -> bool:
        """Insert a row that is rung for at `entry.due_at`, only if absent; say whether it was new."""
        # Polls see most emails again and again: one read settles those.
        if self.get(entry.work_item) is not None:
            return False
        row = _history_row(entry)
        self._openwork.put(_dated_open_row(entry))
        return self._emails.write(row, etag=None) is not None

    def claim(self, item: WorkItem, now: datetime, lease_until: datetime) -> LedgerEntry | None:
        """Take the row's lease; None when it is unknown, done, leased, not due, or lost to another worker."""
        entry = self.get(item)
        if entry is None or entry.finished_at is not None:
            self._tidy(item, now)
            return None
        claimed = entry.claimed(now, lease_until)
        return None if claimed is None else self._write(claimed)

    def save(self, entry: LedgerEntry) -> LedgerEntry:
        """Store the row under its lease and return it with its new version. Raises LeaseLostError."""
        written = self._write(entry) if entry.version else None
        if written is None:
            raise LeaseLostError(
                f"email {entry.email_id} of mailbox {entry.mailbox_id} was written by another worker "
                f"after version {entry.version or '(none)'}"
            )
        return written

    def defer(self, entry: LedgerEntry) -> LedgerEntry:
        """Give the lease back and have the row rung for at `entry.due_at`. Raises LeaseLostError."""
        opened = _dated_open_row(entry)
        if entry.lease_until is None:
            # No worker has it: a finished row may be set back, and those have no open row yet.
            self._openwork.put(opened)
        written = self.save(released(entry))
        self._openwork.put(opened)
        return written

    def finish(self, entry: LedgerEntry) -> LedgerEntry:
        """Store the finished row, give the lease back, drop it from the open work. Raises LeaseLostError."""
        done = finished(entry)
        if done.tracked_reply is not None:
            self._openwork.put(_reply_row(done.tracked_reply))
        written = self.save(done)
        self._openwork.delete(*_open_key(entry.work_item))
        return written

    def get(self, item: WorkItem) -> LedgerEntry | None:
        """The row, or None."""
        found = self._emails.find(_key(item.mailbox_id), _key(item.email_id))
        return from_row(found.fields, found.etag) if found else None

    def entries(self, mailbox_id: str) -> Iterator[LedgerEntry]:
        """Every row of a mailbox, in no promised order. Reads history: for people, not for the work."""
        rows = self._emails.query("PartitionKey eq @mailbox", {"mailbox": _key(mailbox_id)})
        return (from_row(found.fields, found.etag) for found in rows)

    def due(self, now: datetime, limit: int) -> Sequence[WorkItem]:
        """Open work to be rung for by `now`, at most `limit` items."""
        rows = self._openwork.query(f"{_IN_OPEN} and ring_at le @now", {"now": to_text(now)}, limit)
        return [WorkItem(row.fields["mailbox_id"], row.fields["email_id"]) for row in islice(rows, limit)]

    def rung(self, items: Sequence[WorkItem], ring_again_at: datetime) -> None:
        """Remember that these were rung for, so that `due` stays quiet about them until `ring_again_at`.

        A row that finished meanwhile comes back by this, and goes when it is next claimed.
        """
        self._openwork.merge_all([_open_row(item, ring_again_at) for item in dict.fromkeys(items)])

    def next_due_at(self) -> datetime | None:
        """When open work wants to be rung for next; None when nothing is open."""
        rows = self._openwork.query(_IN_OPEN)
        return min((to_moment(row.fields["ring_at"]) for row in rows), default=None)

    def open_since(self) -> Sequence[datetime]:
        """Since when each open email is open."""
        rows = self._openwork.query(_IN_OPEN)
        # One that was finished while it was rung for comes back without this, until it is next claimed.
        return [to_moment(row.fields["open_since"]) for row in rows if "open_since" in row.fields]

    def tracked_replies(self) -> Sequence[TrackedReply]:
        """Every tracked reply, in no promised order, and perhaps some that were dropped just now."""
        return [from_reply_row(row.fields) for row in self._openwork.query(_IN_REPLIES)]

    def find_tracked_reply(self, mailbox_id: str, reply_id: str) -> TrackedReply | None:
        """The mailbox's tracked reply of that id, if it is one."""
        found = self._openwork.find(*_reply_key(mailbox_id, reply_id))
        return from_reply_row(found.fields) if found else None

    def track_replies(self, replies: Sequence[TrackedReply]) -> None:
        """Keep these tracked as they are given, each in place of what was noted about it before."""
        self._openwork.merge_all([_reply_row(reply) for reply in replies])

    def drop_reply(self, reply: TrackedReply) -> None:
        """Stop tracking a reply, once its row says that it is settled."""
        self._openwork.delete(*_reply_key(reply.mailbox_id, reply.reply_id))

    def get_watermark(self, mailbox_id: str) -> Watermark | None:
        """How far the mailbox has been polled; None before its first poll."""
        found = self._mailboxes.find(_key(mailbox_id), "watermark")
        if found is None:
            return None
        return Watermark(to_moment(found.fields["since"]), to_moment(found.fields["until"]))

    def set_watermark(self, mailbox_id: str, watermark: Watermark) -> None:
        """Remember how far the mailbox has been polled."""
        row = {"since": to_text(watermark.since), "until": to_text(watermark.until)}
        self._mailboxes.put({**_row_key(_key(mailbox_id), "watermark"), **row})

    def slots(self, scope: str) -> tuple[str, ...]:
        """The email ids that hold a reply slot in `scope`."""
        return _slots(self._mailboxes.find(_key(scope), "slots"))

    def take_slot(self, scope: str, email_id: str, seen: Sequence[str]) -> bool:
        """Add `email_id` to the slots of `scope` if they are still `seen` or hold it already."""
        found = self._mailboxes.find(_key(scope), "slots")
        held = _slots(found)
        if email_id in held:
            return True
        if set(held) != set(seen):
            return False
        row = {**_row_key(_key(scope), "slots"), "scope": scope, "email_ids": json.dumps([*held, email_id])}
        return self._mailboxes.write(row, found.etag if found else None) is not None

    def add_tokens(self, mailbox_id: str, day: str, tokens: int) -> None:
        """Add to the tokens a mailbox has used on a day (`YYYY-MM-DD`, UTC)."""
        for shard in islice(self._counter_rows, _COUNTER_TRIES):
            key = (_key(mailbox_id), f"tokens:{_key(day)}:{shard}")
            found = self._mailboxes.find(*key)
            row = {**_row_key(*key), "used": str(tokens + (int(found.fields["used"]) if found else 0))}
            if self._mailboxes.write(row, found.etag if found else None) is not None:
                return
        raise TransientError(f"the token counter of mailbox {mailbox_id} is written by too many at once")

    def tokens_used(self, mailbox_id: str, day: str) -> int:
        """The tokens a mailbox has used on a day (`YYYY-MM-DD`, UTC)."""
        first = f"tokens:{_key(day)}:"
        rows = self._mailboxes.query(
            "PartitionKey eq @mailbox and RowKey ge @first and RowKey lt @last",
            {"mailbox": _key(mailbox_id), "first": first, "last": first + "~"},
        )
        return sum(int(row.fields["used"]) for row in rows)

    def _write(self, entry: LedgerEntry) -> LedgerEntry | None:
        version = self._emails.write(_history_row(entry), entry.version)
        return None if version is None else replace(entry, version=version)

    def _tidy(self, item: WorkItem, now: datetime) -> None:
        """Drop the open row of a finished email, or of one whose `add` died before its history row.

        The history is read again after the open row, and the deletion asks for that very open row:
        who sets a finished row back, or adds the email after all, writes the open row anew.
        """
        opened = self._openwork.find(*_open_key(item))
        if opened is None:
            return
        entry = self.get(item)
        if entry is None:
            self._drop_orphan(item, opened, now)
        elif entry.finished_at is not None:
            self._openwork.delete(*_open_key(item), etag=opened.etag)

    def _drop_orphan(self, item: WorkItem, opened: "_Found", now: datetime) -> None:
        """Mark the open row, and drop it once the mark is older than any `add` can take."""
        since = opened.fields.get("orphan_since")
        if since is None:
            row = _open_row(item, to_moment(opened.fields["ring_at"]))
            self._openwork.write({**row, "orphan_since": to_text(now)}, opened.etag)
        elif to_moment(since) <= now - ORPHAN_AGE:
            self._openwork.delete(*_open_key(item), etag=opened.etag)


@dataclass(frozen=True, slots=True)
class _Found:
    """A stored row and the ETag it has now."""

    fields: Mapping[str, Any]
    etag: str


class _Table:
    """One table as rows of plain values: the only place that meets the SDK's types and errors."""

    def __init__(self, service: "TableServiceClient", name: str) -> None:
        from azure.core import MatchConditions  # noqa: PLC0415 - cold start
        from azure.data.tables import UpdateMode  # noqa: PLC0415 - cold start

        self._service = service
        self._name = name
        self._client = service.get_table_client(name)
        self._replace = UpdateMode.REPLACE
        self._merge = UpdateMode.MERGE
        self._if_unchanged = MatchConditions.IfNotModified
        self._in_any_case = MatchConditions.Unconditionally

    def find(self, partition: str, key: str) -> _Found | None:
        """The row, or None; a missing table has no rows."""
        try:
            with self._errors(f"reading row {partition} {key}"):
                return _found(self._client.get_entity(partition, key))
        except NotFoundError:
            return None

    def query(
        self, condition: str, parameters: Mapping[str, str] | None = None, limit: int = _MAX_PAGE_ROWS
    ) -> Iterator[_Found]:
        """The rows that meet the condition, page by page as they are taken."""
        pages = self._client.query_entities(
            condition, parameters=dict(parameters or {}), results_per_page=min(limit, _MAX_PAGE_ROWS)
        ).by_page()
        while True:
            try:
                with self._errors("querying rows"):
                    page = next(pages, None)
                    rows = None if page is None else [_found(row) for row in page]
            except NotFoundError:
                return
            if rows is None:  # an empty page need not be the last
                return
            yield from rows

    def put(self, row: Row) -> None:
        """Insert or replace the row, whatever is stored."""
        self._creating_table(
            f"putting row {row['RowKey']}", lambda: self._client.upsert_entity(dict(row), mode=self._replace)
        )

    def write(self, row: Row, etag: str | None) -> str | None:
        """Insert the row (no `etag`), or replace it as `etag` knows it.

        Returns its new ETag, or None when another writer was first.
        """
        sent = {**row, "write_id": uuid4().hex}
        try:
            return self._insert(sent) if etag is None else self._replace_unchanged(sent, etag)
        except (ConflictError, LeaseLostError, NotFoundError):
            found = self.find(str(row["PartitionKey"]), str(row["RowKey"]))
        if found is None and etag is None:
            raise TransientError(f"table {self._name} refused a new row: it is being deleted")
        # The SDK repeats a write whose answer was lost, and the repetition meets its own first try.
        return found.etag if found and found.fields.get("write_id") == sent["write_id"] else None

    def merge_all(self, rows: Sequence[Row]) -> None:
        """Insert or merge the rows, in one transaction for each hundred of one partition."""
        by_partition = sorted(rows, key=_get_partition)
        for _, together in groupby(by_partition, key=_get_partition):
            operations = (("upsert", dict(row), {"mode": self._merge}) for row in together)
            while batch := list(islice(operations, _MAX_BATCH_ROWS)):
                self._merge_batch(batch)

    def _merge_batch(self, operations: list[tuple[str, dict[str, str | int], dict[str, Any]]]) -> None:
        self._creating_table(
            f"merging {len(operations)} rows", lambda: self._client.submit_transaction(operations)
        )

    def delete(self, partition: str, key: str, etag: str | None = None) -> None:
        """Delete the row if it is there, and if it is still as `etag` knows it when one is given."""
        condition = self._if_unchanged if etag else self._in_any_case
        try:
            with self._errors(f"deleting row {partition} {key}"):
                self._client.delete_entity(partition, key, etag=etag, match_condition=condition)
        except (LeaseLostError, NotFoundError):
            return

    def _insert(self, row: Row) -> str:
        inserted = self._creating_table(
            f"inserting row {row['RowKey']}", lambda: self._client.create_entity(dict(row))
        )
        return str(inserted["etag"])

    def _replace_unchanged(self, row: Row, etag: str) -> str:
        with self._errors(f"replacing row {row['RowKey']}"):
            written = self._client.update_entity(
                dict(row), mode=self._replace, etag=etag, match_condition=self._if_unchanged
            )
        return str(written["etag"])

    def _creating_table(self, attempt: str, write: Callable[[], T]) -> T:
        try:
            with self._errors(attempt):
                return write()
        except NotFoundError:
            with self._errors("creating the table"):
                self._service.create_table_if_not_exists(self._name)
        with self._errors(attempt):
            return write()

    @contextmanager
    def _errors(self, attempt: str) -> Iterator[None]:
        from azure.core.exceptions import (  # noqa: PLC0415 - cold start
            AzureError,
            ClientAuthenticationError,
            DeserializationError,
            HttpResponseError,
        )

        verb = attempt.partition(" ")[0]
        attempt = f"{attempt} in table {self._name}"
        try:
            with span(f"{verb} {self._name}", {"db.collection.name": self._name}, is_client=True):
                yield
        except ClientAuthenticationError as error:
            raise _refused(attempt, type(error).__name__) from error
        except (AzureError, DeserializationError) as error:
            if isinstance(error, HttpResponseError) and error.response is not None:
                raise _error_for(attempt, error.response) from error
            raise TransientError(
                f"{attempt}: no usable answer from LEDGER_TABLE_ENDPOINT ({type(error).__name__})"
            ) from error


def _key(value: str) -> str:
    """A PartitionKey or RowKey: a value that cannot be one becomes a hash, and its row has it in full."""
    if re.fullmatch(r"[A-Za-z0-9._@:-]{1,200}", value):
        return value
    return "!" + sha256(json.dumps(value).encode()).hexdigest()


def _row_key(partition: str, key: str) -> dict[str, str | int]:
    return {"PartitionKey": partition, "RowKey": key}


def _get_partition(row: Row) -> str:
    return str(row["PartitionKey"])


def name_shard(kind: str, mailbox_id: str) -> str:
    """The partition of `openwork` that has a mailbox's rows of a kind ("open" or "replies")."""
    return f"{kind}-{sha256(json.dumps(mailbox_id).encode()).digest()[0] % SHARDS:02}"


def _open_key(item: WorkItem) -> tuple[str, str]:
    return name_shard("open", item.mailbox_id), f"{_key(item.mailbox_id)}|{_key(item.email_id)}"


def _open_row(item: WorkItem, ring_at: datetime) -> dict[str, str | int]:
    return {
        **_row_key(*_open_key(item)),
        "mailbox_id": item.mailbox_id,
        "email_id": item.email_id,
        "ring_at": to_text(ring_at),
    }


def _dated_open_row(entry: LedgerEntry) -> dict[str, str | int]:
    return {**_open_row(entry.work_item, entry.due_at), "open_since": to_text(entry.open_since)}


def _reply_key(mailbox_id: str, reply_id: str) -> tuple[str, str]:
    """By the reply, not by the email: whoever drops an earlier reply leaves a later one alone."""
    return name_shard("replies", mailbox_id), f"{_key(mailbox_id)}|{_key(reply_id)}"


def _reply_row(reply: TrackedReply) -> Row:
    return {**_row_key(*_reply_key(reply.mailbox_id, reply.reply_id)), **to_reply_row(reply)}


def _history_row(entry: LedgerEntry) -> Row:
    """The row of `emails`. Raises PermanentError when a value is longer than the service stores."""
    row = to_row(entry)
    for name, value in row.items():
        if isinstance(value, str) and len(value.encode("utf-16-le", "surrogatepass")) > _MAX_TEXT_BYTES:
            raise PermanentError(
                f"{name} of email {entry.email_id} in mailbox {entry.mailbox_id} has {len(value)} "
                "characters: Table Storage stores 64 KiB of UTF-16 in one value"
            )
    return {**_row_key(_key(entry.mailbox_id), _key(entry.email_id)), **row}


def _slots(found: _Found | None) -> tuple[str, ...]:
    return tuple(json.loads(found.fields["email_ids"])) if found else ()


def _found(entity: "TableEntity") -> _Found:
    return _Found(entity, str(entity.metadata["etag"]))


def _refuse_to_sleep(response: "PipelineResponse[Any, Any]") -> None:
    """Hand on a delay that the service asks for: azure-core would sleep it off, however long it is."""
    answer = response.http_response
    if answer.status_code >= HTTPStatus.BAD_REQUEST and "Retry-After" in answer.headers:
        raise _error_for("a call to Table Storage", answer)


def _error_for(attempt: str, answer: Any) -> AgentError:
    """What the caller must do about an HTTP answer (either of azure-core's two response types)."""
    status = answer.status_code
    came_back = f"{attempt}: status {status}"
    if status in _FORBIDDEN:
        return _refused(attempt, f"status {status}")
    if status in _MEANINGS:
        return _MEANINGS[status](came_back)
    delay = answer.headers.get("Retry-After", "")
    error = ThrottledError if status in _BUSY else TransientError
    return error(came_back, retry_after_seconds=float(delay) if delay.isdecimal() else None)


def _refused(attempt: str, came_back: str) -> ConfigurationError:
    return ConfigurationError(
        f"LEDGER_TABLE_ENDPOINT: {attempt} was refused ({came_back}): give the app's identity the role "
        "Storage Table Data Contributor on that storage account (a new role takes up to ten minutes)."
    )
