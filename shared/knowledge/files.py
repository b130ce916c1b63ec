"""Knowledge in Markdown files, a folder per name: whole where it fits, searched in memory where not."""

import re
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.errors import ConfigurationError
from shared.knowledge.meaning import MeaningIndex
from shared.knowledge.passages import PROPOSED_FOLDER, SHARED_FOLDER, Knowledge, Passage, fit_passages
from shared.knowledge.splitting import split_passages
from shared.knowledge.word_index import WordIndex

# Reciprocal rank fusion: how much the first places of a ranking count for more than the next ones.
# https://learn.microsoft.com/azure/search/hybrid-search-ranking has the same constant.
FUSION_CONSTANT = 60

_REMARK = re.compile(r"<!--.*-->\s*")


@dataclass(frozen=True, slots=True)
class _Library:
    """Everything that was read: the passages in a fixed order, the folder of each, and the index."""

    passages: Sequence[Passage]
    folders: Sequence[str]
    words: WordIndex


class KnowledgeFiles:
    """The files `FOLDER/NAME/*.md`, read once, at the first use. Safe to share between threads.

    A line that is a comment (`<!-- … -->`) is a remark for people and not part of the knowledge.

    `meaning` ranks by meaning besides words; without it, words alone count.
    """

    def __init__(self, root: Path, meaning: MeaningIndex | None = None) -> None:
        self._root = root
        self._meaning = meaning
        self._lock = threading.Lock()
        self._loaded: _Library | None = None

    def read(self, folders: Sequence[str], query: str, max_tokens: int) -> Knowledge:
        """See KnowledgeSource."""
        everything = self.list_passages(folders)
        if sum(passage.tokens for passage in everything) <= max_tokens:
            return Knowledge(everything, is_whole=True)
        return Knowledge(fit_passages(self.search(folders, query), max_tokens))

    def list_titles(self, folders: Sequence[str]) -> tuple[str, ...]:
        """See KnowledgeSource."""
        return tuple(dict.fromkeys(passage.title for passage in self.list_passages(folders)))

    def list_passages(self, folders: Sequence[str]) -> tuple[Passage, ...]:
        """Everything in the folders, the shared one first: what all mailboxes have in common."""
        library = self._load()
        return tuple(library.passages[number] for number in self._find_allowed(folders))

    def search(self, folders: Sequence[str], query: str) -> tuple[Passage, ...]:
        """Every passage that the query finds, best first: by words and by meaning, fused by their ranks."""
        library = self._load()
        rankings = [library.words.rank(query, (SHARED_FOLDER, *folders))]
        if self._meaning is not None:
            allowed = self._find_allowed(folders)
            near = self._meaning.rank(query, [library.passages[number] for number in allowed])
            rankings.append([allowed[number] for number in near])
        scores: dict[int, float] = defaultdict(float)
        for ranking in rankings:
            for place, number in enumerate(ranking, 1):
                scores[number] += 1 / (FUSION_CONSTANT + place)
        return tuple(library.passages[number] for number in sorted(scores, key=lambda n: (-scores[n], n)))

    def save_vectors(self) -> int:
        """Write the vectors of every passage next to the files, so that no search has to wait for them.

        Returns how many there are. Raises ConfigurationError, also without an embedding deployment, and
        TransientError and PermanentError.
        """
        if self._meaning is None:
            raise ConfigurationError(
                "There are no vectors without EMBEDDING_DEPLOYMENT: set it to the name of an embedding "
                "deployment at MODEL_ENDPOINT."
            )
        return self._meaning.save(self._load().passages)

    def _find_allowed(self, folders: Sequence[str]) -> list[int]:
        allowed = {SHARED_FOLDER, *folders}
        return [number for number, folder in enumerate(self._load().folders) if folder in allowed]

    def _load(self) -> _Library:
        with self._lock:
            if self._loaded is None:
                names = sorted(list_folders(self._root), key=lambda name: (name != SHARED_FOLDER, name))
                found = [(folder, passage) for folder in names for passage in self._read(folder)]
                self._loaded = _Library(
                    [passage for _, passage in found],
                    [folder for folder, _ in found],
                    WordIndex([(passage.title, passage.text, folder) for folder, passage in found]),
                )
            return self._loaded

    def _read(self, folder: str) -> list[Passage]:
        passages: list[Passage] = []
        found = (self._root / folder).glob("*.md")
        for path in sorted(path for path in found if not is_proposed(path.resolve().parent)):
            source = f"{folder}/{path.name}"
            try:
                text = path.read_text(encoding="utf-8-sig")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(
                    f"The knowledge file {source} cannot be read as UTF-8 text: "
                    "save it as UTF-8, or remove it."
                ) from error
            written = "\n".join(line for line in text.splitlines() if not _REMARK.fullmatch(line))
            passages += split_passages(written, source, path.stem)
        return passages


def list_folders(root: Path) -> frozenset[str]:
    """The names of the folders with knowledge; proposed passages are none before a person moves them."""
    found = root.iterdir() if root.is_dir() else ()
    return frozenset(path.name for path in found if path.is_dir() and not is_proposed(path))


def is_proposed(folder: Path) -> bool:
    """Whether a folder is that of proposed passages, or a link to it."""
    return PROPOSED_FOLDER in (folder.name.lower(), folder.resolve().name.lower())
