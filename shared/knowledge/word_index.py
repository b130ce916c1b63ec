"""Search by words: SQLite's full-text search over the passages, ranked by BM25."""

import itertools
import json
import re
import sqlite3
import threading
from collections.abc import Iterator, Sequence

from shared.errors import ConfigurationError
from shared.knowledge.words import MAX_QUERY_CHARACTERS, UNSPACED, fold, list_words

MAX_TERMS = 2_000
MAX_FOUND = 400
TITLE_WEIGHT = 2.0  # of a word in the title, a word in the text being 1

_UNSPACED = re.compile(f"[{UNSPACED}]")
_CREATE = (
    "CREATE VIRTUAL TABLE passages USING fts5(title, text, folder UNINDEXED, tokenize = 'porter unicode61')"
)
_FIND = f"""
    SELECT rowid FROM passages WHERE passages MATCH ? AND folder IN (SELECT value FROM json_each(?))
    ORDER BY bm25(passages, {TITLE_WEIGHT}, 1.0), rowid LIMIT {MAX_FOUND}
"""  # noqa: S608  # constants


class WordIndex:
    """The passages' titles and texts by their words. Safe to share between threads."""

    def __init__(self, rows: Sequence[tuple[str, str, str]]) -> None:
        """`rows`: title, text and folder of each passage. Raises ConfigurationError without FTS5."""
        self._lock = threading.Lock()
        self._index = sqlite3.connect(":memory:", check_same_thread=False)
        try:
            self._index.execute(_CREATE)
        except sqlite3.OperationalError as error:
            raise ConfigurationError(
                "This Python's SQLite has no full-text search (FTS5), which the knowledge files need: "
                "use a Python whose SQLite has it, or set SEARCH_ENDPOINT."
            ) from error
        spaced = ((n, _space(title), _space(text), folder) for n, (title, text, folder) in enumerate(rows))
        self._index.executemany(
            "INSERT INTO passages (rowid, title, text, folder) VALUES (?, ?, ?, ?)", spaced
        )

    def rank(self, query: str, folders: Sequence[str]) -> list[int]:
        """The numbers of the folders' passages that have any of the query's words, best first.

        The query is hostile text: each term is quoted, so that none of it is syntax.
        """
        terms = itertools.islice(dict.fromkeys(_list_terms(query)), MAX_TERMS)
        match = " OR ".join(f'"{term}"' for term in terms)
        if not match:
            return []
        with self._lock:
            return [number for (number,) in self._index.execute(_FIND, (match, json.dumps(list(folders))))]


def _list_terms(query: str) -> Iterator[str]:
    """The query's words, and each two that follow one another, as phrases: what belongs together counts more.

    A word of an unspaced script becomes the pairs of its letters.
    """
    previous = ""
    for word in list_words(fold(query[:MAX_QUERY_CHARACTERS])):
        if _UNSPACED.match(word) and len(word) > 1:
            yield from map(" ".join, itertools.pairwise(word))
            previous = ""
            continue
        yield word
        if previous:
            yield f"{previous} {word}"
        previous = word


def _space(text: str) -> str:
    """The text to search in, with each letter of an unspaced script as a word by itself."""
    return _UNSPACED.sub(r" \g<0> ", fold(text))
