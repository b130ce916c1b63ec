"""The file with the results of backtests: what is in it is not asked of the models again."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from shared.composition import KNOWLEDGE_FOLDER
from shared.domain import NO_USAGE, TokenPrice, Usage, WorkItem
from shared.knowledge.files import KnowledgeFiles, list_folders
from shared.ledger.entries import LedgerEntry
from shared.ledger.rows import from_row, to_row
from shared.model.chat import ChatCompletion, ChatRequest
from shared.model.prompting import load_prompt
from shared.profiles.profile_file import PROFILE_FILE
from shared.settings import Settings

PROMPTS = "prompts"  # in a configuration's folder: texts in place of those of the project
STEPS = ("triage", "draft")  # the prompts that such a folder may have
# Of the settings, those that change what the agent would say.
COUNTED = (
    "model_sdk", "model_endpoint", "triage_deployment", "draft_deployment", "draft_reasoning_effort",
    "embedding_deployment", "search_endpoint", "search_index", "search_vector_field", "knowledge_tokens",
    "min_confidence", "min_draft_confidence", "allow_ungated_replies", "multimail_api_url",
)  # fmt: skip
SHARED = Path(__file__).parent.parent.parent / "shared"
# Of the agent's own code, what decides about an answer.
DECIDING = ("domain.py", "checks", "knowledge", "mail", "model", "profiles", "replying")


def compute_fingerprint(settings: Settings, code: Path = SHARED) -> str:
    """The same for settings, profiles, knowledge, prompts and code with which the agent would say the same.

    What an index at SEARCH_ENDPOINT holds cannot be told. Raises ConfigurationError for knowledge that
    cannot be read.
    """
    parts = [str(getattr(settings, name)) for name in COUNTED]
    root = settings.config_path
    for path in (root / PROFILE_FILE, *(root / PROMPTS / f"{name}.md" for name in STEPS)):
        parts.append(_hash(path.read_bytes()) if path.is_file() else "")
    if settings.search_endpoint is None:
        folder = root / KNOWLEDGE_FOLDER
        passages = KnowledgeFiles(folder).list_passages(sorted(list_folders(folder)))
        parts += [part for passage in passages for part in (passage.source, passage.title, passage.text)]
    parts += [load_prompt(name) for name in STEPS]
    for path in sorted(path for name in DECIDING for path in (code / name, *(code / name).rglob("*"))):
        if path.is_file() and path.suffix in (".py", ".toml", ".md"):
            parts += [path.relative_to(code).as_posix(), _hash(path.read_bytes())]
    return _hash(json.dumps(parts).encode())[:16]


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Meter:
    """A chat model, and what was used of it, by deployment."""

    complete: Callable[[ChatRequest], ChatCompletion]
    used: dict[str, Usage] = field(default_factory=dict)

    def __call__(self, request: ChatRequest) -> ChatCompletion:
        """Ask for a completion. Raises what `ChatModel.complete` raises."""
        completion = self.complete(request)
        self.note(request.deployment, completion.usage)
        return completion

    def note(self, name: str, usage: Usage) -> None:
        """Add to what was used."""
        self.used[name] = self.used.get(name, NO_USAGE) + usage


def price_usage(used: Mapping[str, Usage], prices: Mapping[str, TokenPrice]) -> Usage:
    """What was used of all deployments; without dollars where one of them has no price."""
    is_priced = all(name in prices for name in used)
    dollars = sum(prices[name].cost(usage) for name, usage in used.items()) if is_priced else 0.0
    return replace(sum(used.values(), NO_USAGE), dollars=dollars)


class ResultsFile:
    """A line of JSON for each email and each configuration that it was tried under.

    A line that cannot be read, as after a kill, is `damaged` and left out. What was used is stored, and
    priced when it is read. The file holds drafts and the words of customers: only its owner can read it.
    """

    def __init__(self, path: Path, prices: Mapping[str, TokenPrice]) -> None:
        self.path = path
        self.damaged = 0
        self._prices = prices
        self._lock = threading.Lock()
        self._found: dict[tuple[str, WorkItem], LedgerEntry] = {}
        for line in path.read_bytes().splitlines() if path.exists() else ():
            try:
                if line.strip():
                    self._keep(*_read_line(line))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                self.damaged += 1

    def get(self, run: str, item: WorkItem) -> LedgerEntry | None:
        """What came out for an email under a configuration; None if it was not tried."""
        return self._found.get((run, item))

    def add(self, run: str, entry: LedgerEntry, used: Mapping[str, Usage]) -> None:
        """Keep what came out, and what of each deployment that took."""
        stored = {
            "run": run,
            "row": to_row(entry),
            "used": {name: to_row(part) for name, part in used.items()},
        }
        with self._lock:
            self._keep(run, entry, used)
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.touch(mode=0o600)
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps(stored))  # the last line may be cut

    def entries(self, run: str) -> Iterator[LedgerEntry]:
        """Everything that came out under a configuration."""
        yield from (entry for (name, _), entry in self._found.items() if name == run)

    def others(self, run: str) -> Iterator[LedgerEntry]:
        """Everything that came out under other configurations."""
        yield from (entry for (name, _), entry in self._found.items() if name != run)

    def _keep(self, run: str, entry: LedgerEntry, used: Mapping[str, Usage]) -> None:
        self._found[run, entry.work_item] = replace(entry, usage=price_usage(used, self._prices))


def _read_line(line: bytes) -> tuple[str, LedgerEntry, dict[str, Usage]]:
    stored = json.loads(line)
    used = {name: from_row(Usage, row) for name, row in stored["used"].items()}
    return str(stored["run"]), from_row(LedgerEntry, stored["row"]), used
