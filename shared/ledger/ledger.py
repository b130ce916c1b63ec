"""The ledger: what is written in which transaction, who holds a row, what is open and what is tracked."""

import json
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import cycle, groupby, islice

from shared.domain import Cause, WorkItem
from shared.errors import LeaseLostError, TransientError
from shared.ledger.audit_chains import AuditChains
from shared.ledger.entries import Expiry, LedgerEntry, Matter, OpenWork, SenderDay, TrackedReply, Watermark
from shared.ledger.keys import AFTER, SHARDS, encode_key, name_mailbox_partition, name_shard
from shared.ledger.matters import Matters, build_matter_row
from shared.ledger.rows import from_row, to_row
from shared.ledger.store import MAX_CHANGES, Change, Row, Store, Verb

# How the keys of the kinds begin.
EMAIL, OPEN, REPLY, SLOT, EXPIRY = ("email|", "open|", "reply|", "slots|", "expiry|")
ERASING_CURSOR = ("erasing", "cursor")

# Each token counter is spread over rows that are written in turn, so that concurrent writers seldom meet.
COUNTER_ROWS = 8
COUNTER_TRIES = 40

NAME = "ledger"  # what is only observed has another: the audit trail of one is not that of the other

SUSPECTS_APART = timedelta(seconds=10)  # longer than most emails take


class Ledger:
    """Emails' rows, open work and tracked replies; watermarks, slots and token counters.

    Every unfinished row has its open work and no finished row has any, so `open_work` never reads history.
    Tracked replies are a set of their own, because a reply that waits for a person is not work. Every method
    raises what its store raises.
    """

    def __init__(self, store: Store, name: str = NAME) -> None:
        self._store = store
        self.matters = Matters(store)
        self.audit = AuditChains(store, name)
        self._counter_rows = cycle(range(COUNTER_ROWS))

    def close(self) -> None:
        """Let go of what the store holds."""
        self._store.close()

    # One email

    def add(self, entry: LedgerEntry) -> OpenWork | None:
        """Insert a row, to be enqueued at `entry.due_at`; None when the email is known already.

        A row that was closed because MultiMail no longer had its email is set back to open: it does.
        """
        found = self.get(entry.work_item)  # polls see most emails again and again
        if found is None:
            return self._open(Verb.INSERT, entry)
        was_missed = found.finished_at is not None and found.cause is Cause.DELETED and not found.erased_at
        return self._open(Verb.REPLACE, found.redriven(entry.due_at)) if was_missed else None

    def hasten(self, entry: LedgerEntry, now: datetime) -> OpenWork | None:
        """Make a row that was deferred due at once; None when somebody wrote it meanwhile."""
        return self._open(Verb.REPLACE, replace(entry, due_at=now))

    def _open(self, verb: Verb, entry: LedgerEntry) -> OpenWork | None:
        """Write an open row with its open work, which is returned; None when it is not as it was read."""
        changes = [Change(verb, build_email_row(entry)), _note(entry)]
        versions = self._store.write(changes)
        return None if versions is None else replace(entry.open_work, version=versions[1])

    def get(self, item: WorkItem) -> LedgerEntry | None:
        """The row, or None."""
        found = self._store.get(name_shard(item.mailbox_id), _email_key(item))
        return _to_entry(found) if found else None

    def entries(self, mailbox_id: str | None = None) -> Iterator[LedgerEntry]:
        """Every row of a mailbox or of all, in no promised order. Reads history: not for the work."""
        first = EMAIL if mailbox_id is None else f"{EMAIL}{encode_key(mailbox_id)}|"
        shards = SHARDS if mailbox_id is None else [name_shard(mailbox_id)]
        return map(_to_entry, self._store.scan(shards, first, first + AFTER))

    def claim(self, item: WorkItem, now: datetime, lease_until: datetime) -> LedgerEntry | None:
        """Take the row's lease; None when it is unknown, done, leased, not due, or lost to another worker."""
        entry = self.get(item)
        claimed = entry.claimed(now, lease_until) if entry else None
        return None if claimed is None else self._write(claimed, _note(claimed))

    def save(self, entry: LedgerEntry, *notes: Matter | Expiry) -> LedgerEntry:
        """Store the row and notes; return it with its new version. Raises LeaseLostError."""
        return self._keep(entry, *(Change(Verb.UPSERT, _note_row(note)) for note in notes))

    def defer(self, entry: LedgerEntry) -> LedgerEntry:
        """Give the lease back and have the row enqueued at `entry.due_at`. Raises LeaseLostError."""
        released = replace(entry, lease_until=None)
        return self._keep(released, _note(released))

    def redraft(self, entry: LedgerEntry, reply: TrackedReply) -> LedgerEntry:
        """Set the row back to work as `defer` does and stop tracking its reply. Raises LeaseLostError."""
        released = replace(entry, lease_until=None)
        return self._keep(released, _note(released), Change(Verb.DELETE, _reply_row(reply)))

    def finish(self, entry: LedgerEntry) -> LedgerEntry:
        """Store the finished row without lease and open work, with the reply to track and what people see to.

        Raises LeaseLostError, and ValueError when `finished_at` is missing: the row would be lost.
        """
        if entry.finished_at is None:
            raise ValueError(f"email {entry.email_id} of mailbox {entry.mailbox_id} has no finished_at")
        rows = [_expiry_row(Expiry.build(entry, entry.finished_at))]
        rows += [_reply_row(entry.tracked_reply)] if entry.tracked_reply else []
        rows += [build_matter_row(entry.matter)] if entry.matter else []
        changes = [Change(Verb.DELETE, _open_row(entry.open_work)), *(Change(Verb.UPSERT, r) for r in rows)]
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

    def open_work(self) -> Iterator[OpenWork]:
        """All open work, in no promised order, and perhaps some that was finished just now."""
        for row in self._store.scan(SHARDS, OPEN, OPEN + AFTER):
            yield replace(from_row(OpenWork, row.fields), version=row.etag)

    def mark_enqueued(self, works: Sequence[OpenWork]) -> Sequence[OpenWork]:
        """Store these notes as they are given and return them, in their order, with their new version.

        One that others claimed, deferred, finished or marked since it was read keeps what they wrote and is
        left out.
        """
        by_shard = sorted(works, key=_get_shard)
        marked: list[OpenWork] = []
        for _, group in groupby(by_shard, key=_get_shard):
            while some := list(islice(group, MAX_CHANGES)):
                marked += self._mark(some)
        order = {work.work_item: number for number, work in enumerate(works)}
        return sorted(marked, key=lambda work: order[work.work_item])

    def _mark(self, works: Sequence[OpenWork]) -> Sequence[OpenWork]:
        versions = self._store.write([Change(Verb.REPLACE, _open_row(work)) for work in works])
        if versions is not None:
            return [replace(work, version=version) for work, version in zip(works, versions, strict=True)]
        middle = len(works) // 2  # at least one changed: the halves show which
        return [*self._mark(works[:middle]), *self._mark(works[middle:])] if middle else []

    def next_due_at(self, mailbox_ids: Container[str] | None = None) -> datetime | None:
        """When open work, of these mailboxes or of all, is to be enqueued next; None when there is none."""
        works = (work for work in self.open_work() if mailbox_ids is None or work.mailbox_id in mailbox_ids)
        return min((work.enqueue_at for work in works if not work.is_paused), default=None)

    def open_since(self) -> Sequence[datetime]:
        """Since when each open email is open, in no promised order, but for what waits in a pause."""
        return [work.open_since for work in self.open_work() if not work.is_paused]

    def take_over(self, now: datetime) -> None:
        """Take the leases of a dead process back and have all open work enqueued when it is due.

        Its attempts count: one of the leased emails may have killed it. They come last, and one after the
        other, so that the next death tells which, and the others are done before.
        """
        suspects = 0
        for work in list(self.open_work()):
            entry = self.get(work.work_item)
            if entry is None:
                continue
            if entry.lease_until is not None:
                entry = replace(entry, due_at=now + suspects * SUSPECTS_APART)
                suspects += 1
            self.defer(entry)

    def release(self) -> None:
        """Give all leases back with their attempts, because their workers are told to stop."""
        for work in [work for work in self.open_work() if work.is_leased]:
            entry = self.get(work.work_item)
            if entry is not None and entry.lease_until is not None:
                with suppress(LeaseLostError):  # it was done just in time
                    self.defer(replace(entry, attempts=entry.attempts - 1))

    # Tracked replies

    def tracked_replies(self) -> Sequence[TrackedReply]:
        """Every tracked reply, in no promised order, and perhaps some that were dropped just now."""
        return [_to_reply(row) for row in self._store.scan(SHARDS, REPLY, REPLY + AFTER)]

    def find_tracked_replies(self, mailbox_id: str, reply_id: str) -> Sequence[TrackedReply]:
        """The notes about the mailbox's reply of that id, one for each email that it closed."""
        first = f"{REPLY}{encode_key(mailbox_id)}|{encode_key(reply_id)}|"
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

    # Watermarks, slots

    def get_watermark(self, mailbox_id: str) -> Watermark | None:
        """How far the mailbox has been polled; None before its first poll."""
        found = self._store.get(name_mailbox_partition(mailbox_id), "watermark")
        return from_row(Watermark, found.fields) if found else None

    def set_watermark(self, mailbox_id: str, watermark: Watermark) -> None:
        """Remember how far the mailbox has been polled."""
        row = Row(name_mailbox_partition(mailbox_id), "watermark", to_row(watermark))
        self._store.write([Change(Verb.UPSERT, row)])

    def slots(self, scope: str | SenderDay) -> tuple[str, ...]:
        """Who holds a slot in `scope`, in that order: replies of a thread, emails of a sender, copies."""
        return tuple(str(row.fields["email_id"]) for row in self._scan_slots(scope))

    def take_slot(self, scope: str | SenderDay, holder: str, seen: Sequence[str]) -> bool:
        """Add a holder to the slots of `scope`, which were `seen` a moment ago, unless it is there already.

        False when another one took a slot meanwhile: read again and decide again. Each slot is a row, named
        by its number, which only one can insert: no limit and no id is too much for a row.
        """
        if holder in seen:
            return True
        partition, first = _place_slots(scope)
        named = {"scope": scope} if isinstance(scope, str) else to_row(scope)
        row = Row(partition, f"{first}{len(seen):06}", {**named, "email_id": holder})
        return self._store.write([Change(Verb.INSERT, row)]) is not None or holder in self.slots(scope)

    def drop_slots(self, scope: str) -> None:
        """Forget who held a slot in `scope`."""
        self._delete(self._scan_slots(scope))

    def _scan_slots(self, scope: str | SenderDay) -> Iterator[Row]:
        partition, first = _place_slots(scope)
        return self._store.scan([partition], first, first + AFTER)

    # Erasing

    def expired(self, day: str, first: int = 0, since: str = "") -> Iterator[Expiry]:
        """The notes of days from one on and before another, from the `first` partition on."""
        rows = self._store.scan([*SHARDS[first:], *SHARDS[:first]], EXPIRY + since, EXPIRY + day)
        return (from_row(Expiry, row.fields) for row in rows)

    def move_expiry(self, note: Expiry, day: str | None = None) -> None:
        """Put the note down for a later day, or drop it."""
        changes = [Change(Verb.DELETE, _expiry_row(note))]
        if day is not None:
            changes.append(Change(Verb.UPSERT, _expiry_row(replace(note, day=day))))
        self._store.write(changes)

    def erase(self, entry: LedgerEntry, now: datetime, *others: Expiry | TrackedReply) -> LedgerEntry:
        """Remove what a finished row knows of people, and its notes. Raises LeaseLostError.

        Raises ValueError for an open row, whose work would be lost.
        """
        if entry.finished_at is None:
            raise ValueError(f"email {entry.email_id} of mailbox {entry.mailbox_id} is not finished")
        changes = [Change(Verb.DELETE, _note_row(note)) for note in others]
        if entry.cause is Cause.ERASED and entry.matter:  # instead of a reply that was cancelled
            changes.append(Change(Verb.UPSERT, build_matter_row(entry.matter)))
        return self._keep(entry.erased(now), *changes)

    def erase_sender_days(self, day: str, first: int, limit: int) -> int:
        """Delete up to `limit` of the slots and counters of senders from before a day; say how many."""
        partitions = [_days_partition(shard) for shard in (*SHARDS[first:], *SHARDS[:first])]
        return self._delete(islice(self._store.scan(partitions, SLOT, SLOT + day), limit))

    def erase_sender(self, matches: Callable[[str], bool]) -> int:
        """Delete slots and counters of the senders that match; say how many. Reads all days: for people."""
        rows = self._store.scan([_days_partition(shard) for shard in SHARDS], SLOT, SLOT + AFTER)
        return self._delete(row for row in rows if matches(str(row.fields["sender"])))

    def _delete(self, rows: Iterable[Row]) -> int:
        count = 0
        for _, group in groupby([Change(Verb.DELETE, row) for row in rows], key=_get_partition):
            while some := list(islice(group, MAX_CHANGES)):
                self._store.write(some)
                count += len(some)
        return count

    def get_erasing_shard(self) -> int:
        """The number of the partition with which the next run of erasing begins."""
        found = self._store.get(*ERASING_CURSOR)
        return int(found.fields["shard"]) if found else 0

    def set_erasing_shard(self, number: int) -> None:
        """Remember with which partition the next run of erasing begins."""
        self._store.write([Change(Verb.UPSERT, Row(*ERASING_CURSOR, {"shard": number}))])

    # Token counters

    def add_tokens(self, mailbox_id: str, day: str, tokens: int, sender: str = "") -> None:
        """Add to the tokens a mailbox has used on a day (`YYYY-MM-DD`, UTC), and to those for one sender.

        Both are counted, or neither.
        """
        scopes = [SenderDay(mailbox_id, name, day, "tokens") for name in dict.fromkeys(("", sender))]
        for number in islice(self._counter_rows, COUNTER_TRIES):
            changes = [self._count(scope, number, tokens) for scope in scopes]
            if self._store.write(changes) is not None:  # None when another writer was first
                return
        raise TransientError(f"the token counter of mailbox {mailbox_id} is written by too many at once")

    def _count(self, scope: SenderDay, number: int, tokens: int) -> Change:
        partition, first = _place_slots(scope)
        found = self._store.get(partition, f"{first}{number}")
        used = tokens + (int(found.fields["used"]) if found else 0)
        fields = {**to_row(scope), "used": str(used)}
        row = Row(partition, f"{first}{number}", fields, found.etag if found else "")
        return Change(Verb.REPLACE if found else Verb.INSERT, row)

    def tokens_used(self, mailbox_id: str, day: str, sender: str = "") -> int:
        """The tokens a mailbox has used on a day (`YYYY-MM-DD`, UTC), in all or for one sender."""
        rows = self._scan_slots(SenderDay(mailbox_id, sender, day, "tokens"))
        return sum(int(row.fields["used"]) for row in rows)


def _email_key(item: WorkItem) -> str:
    return f"{EMAIL}{encode_key(item.mailbox_id)}|{encode_key(item.email_id)}"


def _place_slots(scope: str | SenderDay) -> tuple[str, str]:
    """The partition of the slots or counters of `scope`, and how their keys begin.

    Those of senders are in the order of their days. Keys are named in errors: they have no address.
    """
    if isinstance(scope, str):
        return f"slots|{encode_key(scope)}", SLOT
    name = sha256(json.dumps([scope.mailbox_id, scope.sender, scope.kind]).encode()).hexdigest()
    return _days_partition(name_shard(scope.mailbox_id)), f"{SLOT}{scope.day}|{name}|"


def _days_partition(shard: str) -> str:
    return f"days|{shard}"


def build_email_row(entry: LedgerEntry) -> Row:
    """The row of an email as the store keeps it."""
    return Row(name_shard(entry.mailbox_id), _email_key(entry.work_item), to_row(entry), entry.version)


def _open_row(work: OpenWork) -> Row:
    key = f"{OPEN}{encode_key(work.mailbox_id)}|{encode_key(work.email_id)}"
    return Row(name_shard(work.mailbox_id), key, to_row(work), work.version)


def _reply_row(reply: TrackedReply) -> Row:
    # By the reply, then the email: a reply may answer several, and dropping it leaves a later one alone.
    key = f"{REPLY}{encode_key(reply.mailbox_id)}|{encode_key(reply.reply_id)}|{encode_key(reply.email_id)}"
    return Row(name_shard(reply.mailbox_id), key, to_row(reply))


def _expiry_row(note: Expiry) -> Row:
    key = f"{EXPIRY}{note.day}|{encode_key(note.mailbox_id)}|{encode_key(note.email_id)}"
    return Row(name_shard(note.mailbox_id), key, to_row(note))


def _note_row(note: Matter | Expiry | TrackedReply) -> Row:
    if isinstance(note, Matter):
        return build_matter_row(note)
    return _expiry_row(note) if isinstance(note, Expiry) else _reply_row(note)


def _note(entry: LedgerEntry) -> Change:
    return Change(Verb.UPSERT, _open_row(entry.open_work))


def _to_entry(row: Row) -> LedgerEntry:
    return replace(from_row(LedgerEntry, row.fields), version=row.etag)


def _to_reply(row: Row) -> TrackedReply:
    return from_row(TrackedReply, row.fields)


def _get_shard(work: OpenWork) -> str:
    return name_shard(work.mailbox_id)


def _get_partition(change: Change) -> str:
    return change.row.partition
