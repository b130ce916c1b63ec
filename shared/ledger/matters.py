"""Matters: what people have to see to, and what they were sent about it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from shared.ledger.entries import Mark, Matter
from shared.ledger.keys import AFTER, SHARDS, encode_key, name_mailbox_partition, name_shard
from shared.ledger.rows import from_row, to_row
from shared.ledger.store import Change, Row, Store, Verb
from shared.telemetry import MATTER_CLOSED, record

MATTER = "matter|"  # how their keys begin
# What is remembered of a mailbox: until when its digest told, and its threads were searched for answers.
DIGEST, ANSWERS = "digest", "answers"


@dataclass(frozen=True, slots=True)
class Channel:
    """What a target got about a mailbox: when in the last hour, and how often it failed since.

    `not_before`: when to try again.
    """

    mailbox_id: str
    target: str
    sent: tuple[datetime, ...] = ()
    failures: int = 0
    not_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Moment:
    """A time that is remembered of a mailbox."""

    at: datetime


class Matters:
    """The notes about what people have to see to. Every method raises what its store raises."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def list(self) -> Iterator[Matter]:
        """Every matter that is open, oldest first in each mailbox; perhaps some that were closed just now."""
        for row in self._store.scan(SHARDS, MATTER, MATTER + AFTER):
            yield replace(from_row(Matter, row.fields), version=row.etag)

    def note_told(self, matter: Matter, mark: Mark) -> Matter:
        """Remember what people were told of it, unless it was closed meanwhile; return it as it is then."""
        told = replace(matter, told=(*matter.told, mark))
        versions = self._store.write([Change(Verb.REPLACE, build_matter_row(told))])
        return matter if versions is None else replace(told, version=versions[0])

    def close(self, matter: Matter) -> None:
        """Drop a matter that nobody has to see to any more."""
        self._store.write([Change(Verb.DELETE, build_matter_row(matter))])

    def settle(self, matter: Matter, actor: str, reviewer: str | None = None) -> None:
        """Close a matter that somebody has seen to, and record who; `reviewer`: their key's fingerprint."""
        self.close(matter)
        record(
            MATTER_CLOSED,
            {
                "mailbox_id": matter.mailbox_id,
                "email_id": matter.email_id,
                "kind": matter.kind,
                "actor": actor,
                "reviewer": reviewer,
            },
        )

    def get_moment(self, mailbox_id: str, name: str) -> datetime | None:
        """What is remembered of the mailbox under DIGEST or ANSWERS."""
        found = self._store.get(name_mailbox_partition(mailbox_id), name)
        return from_row(_Moment, found.fields).at if found else None

    def set_moment(self, mailbox_id: str, name: str, at: datetime) -> None:
        """Remember a time of the mailbox."""
        row = Row(name_mailbox_partition(mailbox_id), name, to_row(_Moment(at)))
        self._store.write([Change(Verb.UPSERT, row)])

    def get_channel(self, mailbox_id: str, target: str) -> Channel:
        """What a target got about a mailbox."""
        found = self._store.get(name_mailbox_partition(mailbox_id), f"channel|{encode_key(target)}")
        return from_row(Channel, found.fields) if found else Channel(mailbox_id, target)

    def set_channel(self, channel: Channel) -> None:
        """Remember what a target got about a mailbox."""
        partition = name_mailbox_partition(channel.mailbox_id)
        row = Row(partition, f"channel|{encode_key(channel.target)}", to_row(channel))
        self._store.write([Change(Verb.UPSERT, row)])


def build_matter_row(matter: Matter) -> Row:
    """The row of a matter as the store keeps it.

    Its key has the moment: closing a matter leaves one of the same email that came after it alone.
    """
    moment = f"{matter.since.astimezone(UTC):%Y%m%dT%H%M%S.%f}"
    key = f"{MATTER}{encode_key(matter.mailbox_id)}|{moment}.{matter.kind}|{encode_key(matter.email_id)}"
    return Row(name_shard(matter.mailbox_id), key, to_row(matter), matter.version)
