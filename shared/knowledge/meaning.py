"""Search by meaning: the vectors of the passages, kept by what the passages say, next to the query's."""

import logging
import operator
import sqlite3
import threading
from array import array
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

from shared.errors import ConfigurationError, PermanentError, TransientError
from shared.knowledge.passages import Passage
from shared.model.embeddings import BATCH, DIMENSIONS, EmbeddingModel, Vector

VECTOR_FILE = "vectors.sqlite"  # in the folder of the knowledge
MAX_EMBEDDED_CHARACTERS = 8_000  # never more tokens than the service takes, in any script
PAUSE = timedelta(seconds=60)  # after a failure, so that not every email waits for the time-out

_CREATE = "CREATE TABLE IF NOT EXISTS vectors (key TEXT PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID"
_FIND = "SELECT vector FROM vectors WHERE key = ?"

log = logging.getLogger(__name__)


class VectorFile:
    """Vectors of one deployment in a SQLite file, which the agent only reads."""

    def __init__(self, path: Path, deployment: str) -> None:
        self._path = path
        self._deployment = deployment

    def read(self, texts: Iterable[str]) -> dict[str, Vector]:
        """The vectors of the texts that the file has. Raises ConfigurationError for a file that is none."""
        if not self._path.is_file():
            return {}
        found = {}
        # Immutable: the folder of a deployed app may be read-only.
        address = f"{self._path.absolute().as_uri()}?mode=ro&immutable=1"
        try:
            with closing(sqlite3.connect(address, uri=True)) as db:
                for text in texts:
                    for (vector,) in db.execute(_FIND, (self._key(text),)):
                        found[text] = array("f", vector)
        except (sqlite3.Error, TypeError, ValueError) as error:
            raise ConfigurationError(
                f"The file {VECTOR_FILE} of the knowledge cannot be read: delete it, and run "
                "`python -m local knowledge --embed` to make a new one."
            ) from error
        return found

    def write(self, vectors: dict[str, Vector]) -> None:
        """Replace the file by these vectors."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        new.unlink(missing_ok=True)
        with closing(sqlite3.connect(new)) as db, db:
            db.execute(_CREATE)
            rows = ((self._key(text), vector.tobytes()) for text, vector in vectors.items())
            db.executemany("INSERT INTO vectors (key, vector) VALUES (?, ?)", rows)
        new.replace(self._path)

    def _key(self, text: str) -> str:
        return sha256(f"{self._deployment} {DIMENSIONS}\n{text}".encode(errors="replace")).hexdigest()


class MeaningIndex:
    """Ranks passages by how near their vectors are to the query's. Safe to share between threads.

    What `vector_file` lacks is computed at the first search and kept in memory.
    """

    def __init__(
        self, model: Callable[[], EmbeddingModel], vector_file: VectorFile, clock: Callable[[], datetime]
    ) -> None:
        self._model = model
        self._file = vector_file
        self._clock = clock
        self._lock = threading.Lock()
        self._vectors: dict[str, Vector] = {}
        self._paused_until: datetime | None = None

    def rank(self, query: str, passages: Sequence[Passage]) -> list[int]:
        """The numbers of the passages, nearest first; none while the embedding service is out of reach.

        Raises ConfigurationError.
        """
        asked = query.strip()[:MAX_EMBEDDED_CHARACTERS]
        if not asked or not passages or (self._paused_until and self._clock() < self._paused_until):
            return []
        try:
            vectors = self.prepare(passages)
            (near,) = self._model().embed([asked])
        except (TransientError, PermanentError) as error:
            if self._paused_until is None:
                log.warning("knowledge is searched by words alone until embeddings work again: %s", error)
            self._paused_until = self._clock() + PAUSE
            return []
        self._paused_until = None
        scores = [sum(map(operator.mul, near, vector)) for vector in vectors]
        return sorted(range(len(scores)), key=lambda number: -scores[number])

    def prepare(self, passages: Sequence[Passage]) -> list[Vector]:
        """The vectors of the passages, computed where none is kept. Raises as `EmbeddingModel.embed`."""
        texts = [f"{p.title}\n{p.text}"[:MAX_EMBEDDED_CHARACTERS] for p in passages]
        with self._lock:
            self._vectors |= self._file.read([text for text in texts if text not in self._vectors])
            missing = [text for text in dict.fromkeys(texts) if text not in self._vectors]
            if missing:
                log.info(
                    "%d passages of the knowledge have no vector yet: they are embedded now", len(missing)
                )
            for start in range(0, len(missing), BATCH):  # what is there already survives a failure
                batch = missing[start : start + BATCH]
                self._vectors |= dict(zip(batch, self._model().embed(batch), strict=True))
            return [self._vectors[text] for text in texts]

    def save(self, passages: Sequence[Passage]) -> int:
        """Write the vectors of these passages to the file; return how many it has. Raises as `prepare`."""
        self.prepare(passages)
        self._file.write(self._vectors)
        return len(self._vectors)
