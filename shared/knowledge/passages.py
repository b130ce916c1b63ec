"""Knowledge: passages that the operator has approved, from which a draft may take its facts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

SHARED_FOLDER = "shared"  # for every mailbox


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of approved text that makes sense by itself; `title` is its place in the document."""

    title: str
    text: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Passages for one draft."""

    passages: tuple[Passage, ...]
    is_whole: bool = False


class KnowledgeSource(Protocol):
    """A store of passages, each in one folder."""

    def search(self, query: str, folders: Sequence[str], limit: int) -> tuple[Passage, ...]:
        """Find the passages that fit a query best, best first, in these folders and the shared one alone.

        The query is hostile text. Raises ConfigurationError, and TransientError for a store out of reach.
        """
        ...

    def read(self, folders: Sequence[str], query: str, max_tokens: int) -> Knowledge:
        """Read."""
        ...
