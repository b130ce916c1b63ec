"""The ledger: what is written in which transaction, who holds a row, what is open and what is tracked."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from itertools import cycle, groupby, islice

from shared.domain import WorkItem
from shared.errors import LeaseLostError, TransientError
from shared.ledger.entries import LedgerEntry, OpenWork, TrackedReply, Watermark
from shared.ledger.rows import from_row, to_row, to_text
from shared.ledger.store import MAX_CHANGES, Change, Row, Store, Verb

# An email's row, its open work and its tracked reply are in one partition: each step is one transaction.
# Sixteen partitions, because open work and replies are read over all mailboxes, and one serves 2,000 rows a
# second. A mailbox is always in the same one: its history is one range of keys, and a reply is found by its
# id. It takes tens of emails a second in one mailbox to fill it (docs/scaling.md).
SHARDS = tuple(f"{number:02}" for number in range(16))
EMAIL, OPEN, REPLY = "email|", "open|", "reply|"  # how the keys of the three kinds begin
AFTER = "~"  # comes after every character that the rest of a key has

# Each token counter is spread over rows that are written in turn, so that concurrent writers seldom meet.
COUNTER_ROWS = 8
COUNTER_TRIES = 40


class Ledger:
    """Emails' rows, open work and tracked replies; watermarks, reply slots and token counters.

    Every unfinished row has its open work and no finished row has any, so `due` never reads history. Tracked
    replies are a set of their own, because a reply that waits for a person is not work. Every method raises
    what its store raises.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._counter_rows = cycle(range(COUNTER_ROWS))

    def close(self) -> None:
        """Let go of what the store holds."""
        self._store.close()

    # One email

    def add(self, entry: LedgerEntry) -> OpenWork | None:
        """Insert a row, to be enqueued at `entry.due_at`; None when the email is known already."""
        if self.get(entry.work_item) is not None:  # polls see most emails again and again
            return None
        changes = [
            Change(Verb.INSERT, build_email_row(entry)),
            Change(Verb.UPSERT, _open_row(entry.open_work)),
        ]
        versions = self._store.write(changes)
        return None if versions is None else replace(entry.open_work, version=versions[1])

    def get(self, item: WorkItem) -> LedgerEntry | None:
        """The row, or None."""
        found = self._store.get(name_shard(item.mailbox_id), _email_key(item))
        return _to_entry(found) if found else None

    def entries(self, mailbox_id: str) -> Iterator[LedgerEntry]:
        """Every row of a mailbox, in no promised order. Reads history: for people, not for the work."""
        first = f"{EMAIL}{_key(mailbox_id)}|"
        return map(_to_entry, self._store.scan([name_shard(mailbox_id)], first, first + AFTER))

    def claim(self, item: WorkItem, now: datetime, lease_until: datetime) -> LedgerEntry | None:
        """Take the row's lease; None when it is unknown, done, leased, not due, or lost to another worker."""
        entry = self.get(item)
        claimed = entry.claimed(now, lease_until) if entry else None
        return None if claimed is None else self._write(claimed, _note(claimed))

    def save(self, entry: LedgerEntry) -> LedgerEntry:
        """Store the row, leased or finished, and return it with its new version. Raises LeaseLostError."""
        return self._keep(entry)

    def defer(self, entry: LedgerEntry) -> LedgerEntry:
        """Give the lease back and have the row enqueued at `entry.due_at`. Raises LeaseLostError."""
        released = replace(entry, lease_until=None)
        return self._keep(released, _note(released))

    def redraft(self, entry: LedgerEntry, reply: TrackedReply) -> LedgerEntry:
        """Set the row back to work as `defer` does and stop tracking its reply. Raises LeaseLostError."""
        released = replace(entry, lease_until=None)
        return self._keep(released, _note(released), Change(Verb.DELETE, _reply_row(reply)))

    def finish(self, entry: LedgerEntry) -> LedgerEntry:
        """Store the finished row, give the lease back, drop its open work and track the reply that closed it.

        Raises LeaseLostError, and ValueError when `finished_at` is missing: the row would be lost.
        """
        if entry.finished_at is None:
            raise ValueError(f"email {entry.email_id} of mailbox {entry.mailbox_id} has no finished_at")
        changes = [Change(Verb.DELETE, _open_row(entry.open_work))]
        if entry.tracked_reply is not None:
            changes.append(Change(Verb.UPSERT, _reply_row(entry.tracked_reply)))
        return self._keep(replace(entry, lease_until=None), *changes)

    def _keep(self, entry: LedgerEntry, *others: Change) -> LedgerEntry:
        written = self._write(entry, *others) if entry.version else None
        if written is None:
            raise LeaseLostError(
                f"email {entry.email_id} of mailbox {entry.mailbox_id} was written by another worker "
                f"after version {entry.version or '(none)'}"
            )
        return written

    def _write(self, entry: LedgerEntry, *others: Change) -> LedgerEntry | None:
        """Every write of a row asks for its version, so one who lost the lease changes nothing at all."""
        versions = self._store.write([Change(Verb.REPLACE, build_email_row(entry)), *others])
        return None if versions is None else replace(entry, version=versions[0])

    # Open work

    def due(self, now: datetime, limit: int) -> Sequence[OpenWork]:
        """Open work to be enqueued by `now`, at most `limit`, in no promised order."""
        rows = self._store.scan(SHARDS, OPEN, OPEN + AFTER, at_most=("enqueue_at", to_text(now)))
        return [_to_work(row) for row in islice(rows, limit)]

    def mark_enqueued(self, works: Sequence[OpenWork], enqueue_at: datetime) -> Sequence[OpenWork]:
        """Have `due` leave these out until `enqueue_at`, and return them with their new version.

        One that others claimed, deferred, finished or marked meanwhile keeps what they wrote and is left out.
        """
        by_shard = sorted(works, key=_get_shard)
        marked: list[OpenWork] = []
        for _, group in groupby(by_shard, key=_get_shard):
            while some := list(islice(group, MAX_CHANGES)):
                marked += self._mark([replace(work, enqueue_at=enqueue_at) for work in some])
        return marked

    def _mark(self, works: Sequence[OpenWork]) -> Sequence[OpenWork]:
        versions = self._store.write([Change(Verb.REPLACE, _open_row(work)) for work in works])
        if versions is not None:
            return [replace(work, version=version) for work, version in zip(works, versions, strict=True)]
        middle = len(works) // 2  # at least one changed: the halves show which
        return [*self._mark(works[:middle]), *self._mark(works[middle:])] if middle else []

    def next_due_at(self) -> datetime | None:
        """When open work is to be enqueued next; None when nothing is open."""
        return min((work.enqueue_at for work in self._open_work()), default=None)

    def open_since(self) -> Sequence[datetime]:
        """Since when each open email is open, in no promised order: how much work there is, and how old."""
        return [work.open_since for work in self._open_work()]

    def take_over(self) -> None:
        """Take all leases back and have all open work enqueued when it is due: no other worker is alive."""
        for work in list(self._open_work()):
            entry = self.get(work.work_item)
            if entry is not None:  # a claim whose process died says nothing against the email
                self.defer(replace(entry, attempts=entry.attempts - (entry.lease_until is not None)))

    def _open_work(self) -> Iterator[OpenWork]:
        return map(_to_work, self._store.scan(SHARDS, OPEN, OPEN + AFTER))

    # Tracked replies

    def tracked_replies(self) -> Sequence[TrackedReply]:
        """Every tracked reply, in no promised order, and perhaps some that were dropped just now."""
        return [_to_reply(row) for row in self._store.scan(SHARDS, REPLY, REPLY + AFTER)]

    def find_tracked_replies(self, mailbox_id: str, reply_id: str) -> Sequence[TrackedReply]:
        """The notes about the mailbox's reply of that id, one for each email that it closed."""
        first = f"{REPLY}{_key(mailbox_id)}|{_key(reply_id)}|"
        return [_to_reply(row) for row in self._store.scan([name_shard(mailbox_id)], first, first + AFTER)]

    def track_replies(self, replies: Sequence[TrackedReply]) -> None:
        """Keep these tracked as they are given, each in place of what was noted about it before."""
        changes = sorted((Change(Verb.UPSERT, _reply_row(reply)) for reply in replies), key=_get_partition)
        for _, group in groupby(changes, key=_get_partition):
            while some := list(islice(group, MAX_CHANGES)):
                self._store.write(some)

    def drop_reply(self, reply: TrackedReply) -> None:
        """Stop tracking a reply, once its row says that it is settled."""
        self._store.write([Change(Verb.DELETE, _reply_row(reply))])

    # Watermarks, slots, token counters

    def get_watermark(self, mailbox_id: str) -> Watermark | None:
        """How far the mailbox has been polled; None before its first poll."""
        found = self._store.get(_mailbox_partition(mailbox_id), "watermark")
        return from_row(Watermark, found.fields) if found else None

    def set_watermark(self, mailbox_id: str, watermark: Watermark) -> None:
        """Remember how far the mailbox has been polled."""
        row = Row(_mailbox_partition(mailbox_id), "watermark", to_row(watermark))
        self._store.write([Change(Verb.UPSERT, row)])

    def slots(self, scope: str) -> tuple[str, ...]:
        """The email ids that hold a reply slot in `scope` (a thread, or a sender's day)."""
        return _read_slots(self._store.get(_slots_partition(scope), "slots"))

    def take_slot(self, scope: str, email_id: str, seen: Sequence[str]) -> bool:
        """Add `email_id` to the slots of `scope` if they are still `seen` or hold it already.

        False when another email took a slot meanwhile: read again and decide again.
        """
        found = self._store.get(_slots_partition(scope), "slots")
        held = _read_slots(found)
        if email_id in held or set(held) != set(seen):
            return email_id in held
        fields: dict[str, str | int] = {"scope": scope, "email_ids": json.dumps([*held, email_id])}
        return self._put(Row(_slots_partition(scope), "slots", fields), found)

    def add_tokens(self, mailbox_id: str, day: str, tokens: int) -> None:
        """Add to the tokens a mailbox has used on a day (`YYYY-MM-DD`, UTC)."""
        partition = _mailbox_partition(mailbox_id)
        for number in islice(self._counter_rows, COUNTER_TRIES):
            key = f"tokens|{_key(day)}|{number}"
            found = self._store.get(partition, key)
            used = tokens + (int(found.fields["used"]) if found else 0)
            if self._put(Row(partition, key, {"used": str(used)}), found):
                return
        raise TransientError(f"the token counter of mailbox {mailbox_id} is written by too many at once")

    def tokens_used(self, mailbox_id: str, day: str) -> int:
        """The tokens a mailbox has used on a day (`YYYY-MM-DD`, UTC)."""
        first = f"tokens|{_key(day)}|"
        rows = self._store.scan([_mailbox_partition(mailbox_id)], first, first + AFTER)
        return sum(int(row.fields["used"]) for row in rows)

    def _put(self, row: Row, found: Row | None) -> bool:
        """Insert the row, or replace the one that was found; False when another writer was first."""
        verb, etag = (Verb.REPLACE, found.etag) if found else (Verb.INSERT, "")
        return self._store.write([Change(verb, replace(row, etag=etag))]) is not None


def name_shard(mailbox_id: str) -> str:
    """The partition of a mailbox's emails, open work and tracked replies."""
    return SHARDS[sha256(json.dumps(mailbox_id).encode()).digest()[0] % len(SHARDS)]


def _key(value: str) -> str:
    """A part of a key: a value that cannot be one becomes a hash, and its row has it in full."""
    if re.fullmatch(r"[A-Za-z0-9._@:-]{1,200}", value):
        return value
    return "!" + sha256(json.dumps(value).encode()).hexdigest()


def _email_key(item: WorkItem) -> str:
    return f"{EMAIL}{_key(item.mailbox_id)}|{_key(item.email_id)}"


def _reply_key(reply: TrackedReply) -> str:
    """By the reply, then the email: a reply may answer several, and dropping it leaves a later one alone."""
    return f"{REPLY}{_key(reply.mailbox_id)}|{_key(reply.reply_id)}|{_key(reply.email_id)}"


def _mailbox_partition(mailbox_id: str) -> str:
    return f"mailbox|{_key(mailbox_id)}"


def _slots_partition(scope: str) -> str:
    return f"slots|{_key(scope)}"


def build_email_row(entry: LedgerEntry) -> Row:
    """The row of an email as the store keeps it."""
    return Row(name_shard(entry.mailbox_id), _email_key(entry.work_item), to_row(entry), entry.version)


def _open_row(work: OpenWork) -> Row:
    key = f"{OPEN}{_key(work.mailbox_id)}|{_key(work.email_id)}"
    return Row(name_shard(work.mailbox_id), key, to_row(work), work.version)


def _reply_row(reply: TrackedReply) -> Row:
    return Row(name_shard(reply.mailbox_id), _reply_key(reply), to_row(reply))


def _note(entry: LedgerEntry) -> Change:
    return Change(Verb.UPSERT, _open_row(entry.open_work))


def _to_entry(row: Row) -> LedgerEntry:
    return replace(from_row(LedgerEntry, row.fields), version=row.etag)


def _to_work(row: Row) -> OpenWork:
    return replace(from_row(OpenWork, row.fields), version=row.etag)


def _to_reply(row: Row) -> TrackedReply:
    return from_row(TrackedReply, row.fields)


def _read_slots(found: Row | None) -> tuple[str, ...]:
    return tuple(json.loads(str(found.fields["email_ids"]))) if found else ()


def _get_shard(work: OpenWork) -> str:
    return name_shard(work.mailbox_id)


def _get_partition(change: Change) -> str:
    return change.row.partition
