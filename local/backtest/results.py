"""The file with the results of backtests: what is in it is not asked of the models again."""

import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

from shared.domain import WorkItem
from shared.knowledge.passages import PROPOSED_FOLDER
from shared.ledger.entries import LedgerEntry
from shared.ledger.rows import from_row, to_row
from shared.model.prompting import load_prompt
from shared.settings import Settings

PROMPTS = "prompts"  # in a configuration's folder: texts in place of those of the project
# Of the settings, those that change what the agent would say.
COUNTED = (
    "model_sdk", "model_endpoint", "triage_deployment", "draft_deployment", "draft_reasoning_effort",
    "embedding_deployment", "search_endpoint", "search_index", "search_vector_field", "knowledge_tokens",
    "min_confidence", "min_draft_confidence", "allow_ungated_replies", "multimail_api_url",
)  # fmt: skip


def compute_fingerprint(settings: Settings) -> str:
    """The same for settings, profiles, knowledge and prompts with which the agent would say the same."""
    digest = hashlib.sha256(json.dumps([str(getattr(settings, name)) for name in COUNTED]).encode())
    for name in ("triage", "draft"):
        digest.update(load_prompt(name).encode())
    root = settings.config_path
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        relative = path.relative_to(root)
        if PROPOSED_FOLDER not in map(str.lower, relative.parts):
            digest.update(
                json.dumps([relative.as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()]).encode()
            )
    return digest.hexdigest()[:16]


class ResultsFile:
    """A line of JSON for each email and each configuration that it was tried under; a cut line is left out.

    It holds drafts and the words of customers: only its owner can read it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._found: dict[tuple[str, WorkItem], LedgerEntry] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                stored = json.loads(line)
                entry = from_row(LedgerEntry, stored["row"])
            except (ValueError, KeyError, TypeError):
                continue
            self._found[stored["run"], entry.work_item] = entry

    def get(self, run: str, item: WorkItem) -> LedgerEntry | None:
        """What came out for an email under a configuration; None if it was not tried."""
        return self._found.get((run, item))

    def add(self, run: str, entry: LedgerEntry) -> None:
        """Keep what came out."""
        with self._lock:
            self._found[run, entry.work_item] = entry
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.touch(mode=0o600)
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps({"run": run, "row": to_row(entry)}))  # the last line may be cut

    def entries(self) -> Iterator[LedgerEntry]:
        """Everything that came out, under whichever configuration."""
        yield from self._found.values()
