"""Knowledge: passages that the operator has approved, from which a draft may take its facts."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

SHARED_FOLDER = "shared"  # for every mailbox
MAX_QUERY_CHARACTERS = 4_000
MAX_QUERY_WORDS = 64

# Scripts that are written without spaces, or whose words change at their end with every use.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[{UNSPACED}]+|[^\W_{UNSPACED}]{{2,}}")


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of approved text that makes sense by itself; `title` is its place in the document."""

    title: str
    text: str


class KnowledgeSource(Protocol):
    """A store of passages, each in one folder."""

    def search(self, query: str, folders: Sequence[str], limit: int) -> tuple[Passage, ...]:
        """Find the passages that fit a query best, best first, in these folders and the shared one alone.

        The query is hostile text. Raises ConfigurationError, and TransientError for a store out of reach.
        """
        ...


def find_words(text: str) -> list[str]:
    """The distinct words of a text in lower case, without any sign that a query language could know."""
    words = (match.group().casefold() for match in _WORD.finditer(text[:MAX_QUERY_CHARACTERS]))
    return list(dict.fromkeys(words))[:MAX_QUERY_WORDS]
