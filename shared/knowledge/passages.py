"""Knowledge: passages that the operator has approved, from which a draft may take its facts."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

from shared.model.tokens import estimate_tokens

SHARED_FOLDER = "shared"  # for every mailbox
TITLE_MARK = " › "  # in a source's title, between a document and its headings, and between those
LOOKUP_MARK = "lookup:"  # before the name of a look-up, as the source of what it found
LOOKED_UP = ", looked up "  # in the title of what it found, before the time
PROPOSED_FOLDER = "proposed"  # what a person has yet to approve: never read as knowledge

_BLOCK_MARK = re.compile(r"</?(?=knowledge>|documents>)|\"\"\"", re.IGNORECASE)


@dataclass(frozen=True)
class Passage:
    """A piece of approved text that makes sense by itself.

    `source` names the document (`support/returns.md`); `title` is the place in it.
    """

    source: str
    title: str
    text: str

    @cached_property
    def tokens(self) -> int:
        """About how many tokens it takes in a prompt."""
        return estimate_tokens(f"{self.source}\n{self.title}\n{self.text}")


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What a draft gets to see: all of the mailbox's approved text, or the passages that a query finds."""

    passages: tuple[Passage, ...] = ()
    is_whole: bool = False

    def with_facts(self, facts: Iterable[Passage]) -> "Knowledge":
        """With what look-ups found, at the end: what comes before stays the same for every email."""
        return replace(self, passages=(*self.passages, *facts))

    def render(self) -> str:
        """The passages for a prompt, as their authors wrote them: trusted, but none may close the block."""
        if not self.passages:
            return ""
        found = "" if self.is_whole else "\n\n(Found by a search: there are more passages.)"
        passages = "\n\n".join(f"[K{n}] {p.title}\n{p.text.strip()}" for n, p in enumerate(self.passages, 1))
        return f"<knowledge>\n{_BLOCK_MARK.sub(' ', passages)}{found}\n</knowledge>"


class KnowledgeSource(Protocol):
    """A store of passages, each in one folder. Only the named folders and the shared one are ever read."""

    def read(self, folders: Sequence[str], query: str, max_tokens: int) -> Knowledge:
        """Read all of the folders, in an order that never changes, or what the query finds, best first.

        Everything is read where it fits into `max_tokens`; where not, as many passages as fit. The query is
        hostile text. Raises ConfigurationError, and TransientError for a store out of reach.
        """
        ...

    def list_titles(self, folders: Sequence[str]) -> tuple[str, ...]:
        """The titles of all passages, in the order of the documents. Raises as `read`."""
        ...


def fit_passages(ranked: Iterable[Passage], max_tokens: int) -> tuple[Passage, ...]:
    """The best passages that fit together; one that has no room makes place for shorter ones behind it."""
    fitting = []
    left = max_tokens
    for passage in ranked:
        if passage.tokens <= left:
            fitting.append(passage)
            left -= passage.tokens
    return tuple(fitting)
