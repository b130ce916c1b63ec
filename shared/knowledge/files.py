"""Knowledge in Markdown files, a folder per name, searched in memory with SQLite's full-text search."""

import itertools
import json
import re
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from shared.errors import ConfigurationError
from shared.knowledge.passages import SHARED_FOLDER, Knowledge, Passage
from shared.knowledge.words import MAX_QUERY_CHARACTERS, UNSPACED, find_words, fold

MAX_PASSAGE_CHARACTERS = 850  # with its title it fits into what a draft is shown of a passage
MAX_TITLE_CHARACTERS = 120
MAX_TERMS = 200

_HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*\s*")
_FENCE = re.compile(r"\s{0,3}(?:```|~~~)")
_UNSPACED = re.compile(f"[{UNSPACED}]")
_CREATE = (
    "CREATE VIRTUAL TABLE passages USING fts5(title, text, folder UNINDEXED, tokenize = 'porter unicode61')"
)
_FIND = """
    SELECT rowid FROM passages WHERE passages MATCH ? AND folder IN (SELECT value FROM json_each(?))
    ORDER BY bm25(passages, 3.0, 1.0), rowid LIMIT ?
"""


class KnowledgeFiles:
    """The files `FOLDER/NAME/*.md`, read once, at the first search. Safe to share between threads."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._passages: list[Passage] = []
        self._index: sqlite3.Connection | None = None

    def read(self, folders: Sequence[str], query: str, max_tokens: int) -> Knowledge:
        """Read."""
        return Knowledge(self.search(query, folders, 3 if max_tokens else 0))

    def search(self, query: str, folders: Sequence[str], limit: int) -> tuple[Passage, ...]:
        """See KnowledgeSource."""
        with self._lock:
            if self._index is None:
                self._index = self._build_index()
        # An FTS5 expression for any of the words: each quoted, so that none of it is syntax.
        # A word of an unspaced script becomes the pairs of its letters, as phrases.
        terms: list[str] = []
        for word in find_words(fold(query[:MAX_QUERY_CHARACTERS])):
            is_unspaced = _UNSPACED.match(word) and len(word) > 1
            terms.extend(map(" ".join, itertools.pairwise(word)) if is_unspaced else [word])
        match = " OR ".join(f'"{term}"' for term in dict.fromkeys(terms[:MAX_TERMS]))
        if not self._passages or not match:
            return ()
        with self._lock:
            names = json.dumps([*folders, SHARED_FOLDER])
            rows = self._index.execute(_FIND, (match, names, limit)).fetchall()
        return tuple(self._passages[number] for (number,) in rows)

    def _build_index(self) -> sqlite3.Connection:
        index = sqlite3.connect(":memory:", check_same_thread=False)
        try:
            index.execute(_CREATE)
        except sqlite3.OperationalError as error:
            raise ConfigurationError(
                "This Python's SQLite has no full-text search (FTS5), which the knowledge files need: "
                "use a Python whose SQLite has it, or set SEARCH_ENDPOINT."
            ) from error
        found: list[tuple[str, Passage]] = []
        for folder in sorted(list_folders(self._root)):
            for path in sorted((self._root / folder).glob("*.md")):
                try:
                    text = path.read_text(encoding="utf-8-sig")
                except (OSError, UnicodeDecodeError) as error:
                    raise ConfigurationError(
                        f"The knowledge file {folder}/{path.name} cannot be read as UTF-8 text: "
                        "save it as UTF-8, or remove it."
                    ) from error
                found += ((folder, passage) for passage in split_passages(text, path.stem))
        rows = ((n, _spaced(p.title), _spaced(p.text), folder) for n, (folder, p) in enumerate(found))
        index.executemany("INSERT INTO passages (rowid, title, text, folder) VALUES (?, ?, ?, ?)", rows)
        self._passages = [passage for _, passage in found]
        return index


def list_folders(root: Path) -> frozenset[str]:
    """The names of the folders with knowledge."""
    return frozenset(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else frozenset()


def split_passages(markdown: str, name: str) -> Iterator[Passage]:
    """Split a document at its headings, and what is still too long at its paragraphs.

    A passage's title has the headings above it, or `name` before the first one.
    """
    for headings, body in _split_sections(markdown, name):
        title = headings[:MAX_TITLE_CHARACTERS]
        piece = ""
        for paragraph in re.split(r"\n\s*\n", body.strip()):
            if piece and len(piece) + len(paragraph) + 2 > MAX_PASSAGE_CHARACTERS:
                yield Passage(title, piece)
                piece = ""
            piece = f"{piece}\n\n{paragraph}" if piece else paragraph
            while len(piece) > MAX_PASSAGE_CHARACTERS:
                cut = piece.rfind(" ", 1, MAX_PASSAGE_CHARACTERS)
                cut = MAX_PASSAGE_CHARACTERS if cut < 0 else cut
                yield Passage(title, piece[:cut])
                piece = piece[cut:].lstrip()
        if piece:
            yield Passage(title, piece)


def _split_sections(markdown: str, name: str) -> Iterator[tuple[str, str]]:
    trail: dict[int, str] = {}
    lines: list[str] = []
    in_code = False
    for line in markdown.splitlines():
        in_code ^= _FENCE.match(line) is not None
        heading = None if in_code else _HEADING.fullmatch(line)
        if heading is None:
            lines.append(line)
            continue
        yield " › ".join(trail.values()) or name, "\n".join(lines)
        level = len(heading[1])
        trail = {above: text for above, text in trail.items() if above < level} | {level: heading[2]}
        lines = []
    yield " › ".join(trail.values()) or name, "\n".join(lines)


def _spaced(text: str) -> str:
    """The text to search in, with each letter of an unspaced script as a word by itself."""
    return _UNSPACED.sub(r" \g<0> ", fold(text))
