"""The few verbs that a ledger needs of the place where its rows are kept."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

MAX_CHANGES = 100  # in one `write`: https://learn.microsoft.com/rest/api/storageservices/performing-entity-group-transactions


@dataclass(frozen=True, slots=True)
class Row:
    """A flat row. `etag` is the store's, another one after every write.

    Partition and key are made of ASCII letters, digits and `._@:|!-`.
    """

    partition: str
    key: str
    fields: Mapping[str, str | int] = field(default_factory=dict)
    etag: str = ""


class Verb(StrEnum):
    """What a change does to its row."""

    INSERT = "insert"  # only if there is none
    REPLACE = "replace"  # only if it still has the ETag of `row.etag`
    UPSERT = "upsert"  # whether there is one or not
    DELETE = "delete"  # only if there is one


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a transaction; its row is all that is stored, or for a deletion only the row's name."""

    verb: Verb
    row: Row


class Store(Protocol):
    """Rows in partitions, each sorted by key.

    Every method raises TransientError when the store cannot be reached, ThrottledError when it asks to be
    left alone, ConfigurationError when it refuses us, and PermanentError for a value that it cannot keep.
    """

    def get(self, partition: str, key: str) -> Row | None:
        """The row, or None."""
        ...

    def scan(self, partitions: Sequence[str], first: str, last: str) -> Iterator[Row]:
        """The rows of these partitions with `first` <= key < `last`, page by page as they are taken."""
        ...

    def write(self, changes: Sequence[Change]) -> tuple[str, ...] | None:
        """Make all changes, at most MAX_CHANGES to different rows of one partition, in one transaction.

        Returns the new ETags in the same order ("" for a deletion), or None when the condition of one of them
        did not hold and nothing was changed. After an error all of them were made, or none.
        """
        ...

    def close(self) -> None:
        """Let go of whatever is held."""
        ...
