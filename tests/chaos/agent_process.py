"""The agent as a process of its own, for the load run: told the time, it does a round and says how that went.

Started by `tests.chaos.load`, which serves the account and kills it. Nothing of the simulator is loaded here:
what this process holds in memory is what the agent holds.
"""

import json
import logging
import random
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from queue import Empty
from typing import Any

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter

from local.testing.memory import read_resident_megabytes
from local.testing.world import NO_TARGETS, find_no_secret, find_nothing
from shared.composition import Adapters, assemble_agent
from shared.domain import Usage
from shared.errors import ConfigurationError, TransientError
from shared.knowledge.files import KnowledgeFiles
from shared.ledger.ledger import Ledger
from shared.ledger.sqlite_store import SqliteStore
from shared.mail.mailboxes import MailboxDirectory
from shared.mail.multimail import MultiMailClient
from shared.model.chat import ChatCompletion, ChatRequest, Conversation
from shared.profiles.profiles import NO_PROFILES
from shared.services.health import ServiceHealth
from shared.services.secrets import StaticSecret
from shared.settings import Secret, Settings
from shared.telemetry import EVENT_LOGGER
from tests.chaos.faults import (
    KILLS,
    MODEL,
    MULTIMAIL,
    Call,
    Fault,
    SeamedQueue,
    SeamedStore,
    Seams,
    find_faults,
)
from tests.chaos.marks import mark_draft

WORKERS = 4  # as host.json has it
FAULTY_SHARE, FAULTY_STORE_SHARE = 0.2, 0.02
ACTIONS = ("reply",) * 6 + ("escalate",) * 2 + ("ignore",) * 2
TRIAGE = {
    "category": "question", "urgency": "normal", "sentiment": "neutral", "confidence": 0.9,
    "summary": "A question.", "reason": "A person asks.",
    "query": "delivery time", "language": "en", "knowledge_answers": False, "needs_case_facts": False,
}  # fmt: skip
DRAFT = {
    "reply_markdown": "Hello,\n\na colleague will follow up.\n\nSupport",
    "confidence": 0.9,
    "open_points": [],
}


class Weather:
    """A plan that strikes at random, unless the weather `is_fine`. Deaths are not its matter: they are real."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.is_fine = False
        self.calls = self.faults = 0

    def __call__(self, call: Call) -> Fault | None:
        self.calls += 1
        share = FAULTY_SHARE if call.seam in (MULTIMAIL, MODEL) else FAULTY_STORE_SHARE
        if self.is_fine or self._chance.random() >= share:
            return None
        self.faults += 1
        return self._chance.choice([fault for fault in find_faults(call) if fault not in KILLS])


class StruckTransport(HTTPAdapter):
    """HTTP whose every request is an outside call."""

    def __init__(self, seams: Seams) -> None:
        super().__init__(pool_maxsize=16)
        self._seams = seams

    def send(self, request: PreparedRequest, *args: Any, **options: Any) -> Response:
        """Send the request, or do what a fault makes of it."""
        send = super().send
        return self._seams.meet(MULTIMAIL, "", request.method or "", lambda: send(request, *args, **options))


class AgentProcess:
    """Poller, pipeline and tracker on a clock that is told, and a model that decides by what it is shown."""

    def __init__(self, *, url: str, key: str, ledger_path: str, seed: int) -> None:
        chance = random.Random(seed)
        self._weather = Weather(chance)
        self._seams = Seams(self._weather, forgets=True)
        self._now = datetime.fromtimestamp(0, UTC)
        self._bugs: list[str] = []
        store = SqliteStore(Path(ledger_path))
        self._ledger = Ledger(store)
        self._ledger.take_over(self._clock())
        self._queue = SeamedQueue(self._seams)
        settings = Settings.from_env(
            {
                "MULTIMAIL_API_URL": url, "MULTIMAIL_API_KEY": key, "MODEL_ENDPOINT": "http://127.0.0.1:1",
                "MODEL_API_KEY": "unused", "TRIAGE_DEPLOYMENT": "small", "LEDGER_PATH": ledger_path,
            }
        )  # fmt: skip
        client = MultiMailClient(url, StaticSecret(Secret(key)), clock=self._clock)
        client._connection.session.mount("http://", StruckTransport(self._seams))
        mailboxes = MailboxDirectory(client, monotonic=lambda: self._clock().timestamp())
        ledger = Ledger(SeamedStore(store, self._seams))
        adapters = Adapters(
            multimail=client, writer=client, mailboxes=mailboxes, complete=self._complete, converse=refuse_to_converse,
            ledger=ledger, work_queue=self._queue, signing_secret=None, audit_key=StaticSecret(Secret("unused")),
            knowledge=KnowledgeFiles(Path(ledger_path).parent / "no knowledge"), health=ServiceHealth(self._clock),
            delivery=NO_TARGETS, look_up=find_nothing, find_secret=find_no_secret,
        )  # fmt: skip
        self._agent = assemble_agent(
            adapters, settings, NO_PROFILES,
            clock=self._clock, random_share=chance.random, new_id=lambda: "question", executor=ThreadPoolExecutor(8),
        )  # fmt: skip

    def play_round(self, order: dict[str, Any]) -> dict[str, Any]:
        """Poll and work side by side, then track when told so, at the given moment; say how it went."""
        self._now, self._weather.is_fine = datetime.fromisoformat(order["now"]), order["is_fine"]
        with ThreadPoolExecutor(WORKERS + 1) as threads:
            polling = threads.submit(self._try, self._agent.poll)
            working = [threads.submit(self._work, polling) for _ in range(WORKERS)]
        went_well = polling.result() and all(worker.result() for worker in working)
        if order["tracks"]:
            went_well = self._try(self._agent.track) and went_well
        due_at = self._ledger.next_due_at()
        answer = {
            "went_well": went_well,
            "due_at": due_at.isoformat() if due_at else None,
            "calls": self._weather.calls,
            "faults": self._weather.faults,
            "bugs": self._bugs,
            "megabytes": read_resident_megabytes(),
        }
        self._weather.calls = self._weather.faults = 0
        self._bugs = []
        return answer

    def _work(self, polling: Future[bool]) -> bool:
        """Process what is in the queue until it is empty and nobody fills it any more."""
        went_well = True
        while True:
            is_last = polling.done()
            try:
                body = self._queue.bodies.get_nowait()
            except Empty:
                if is_last:
                    return went_well
                wait([polling], timeout=0.02)
                continue
            work = partial(self._agent.process, body)
            went_well = self._try(work) and went_well

    def _clock(self) -> datetime:
        return self._now

    def _try(self, run: Callable[[], None]) -> bool:
        try:
            run()
        except (TransientError, ConfigurationError):
            return False
        except Exception as bug:  # noqa: BLE001 - whatever it is, it is what we are looking for
            self._bugs.append(f"{type(bug).__name__}: {bug}")
            return False
        return True

    def _complete(self, request: ChatRequest) -> ChatCompletion:
        return self._seams.meet(MODEL, "", request.schema_name, lambda: answer_by_text(request))


def refuse_to_converse(_conversation: Conversation) -> ChatCompletion:
    """Nobody asks anything here."""
    raise AssertionError("the way of an email needs no conversation")


def answer_by_text(request: ChatRequest) -> ChatCompletion:
    """Judge the same email always the same: reply to six of ten, escalate two, ignore two."""
    action = ACTIONS[zlib.crc32(request.user.encode()) % len(ACTIONS)]
    answer = TRIAGE | {"action": action} if request.schema_name == "triage" else DRAFT
    completion = ChatCompletion(json.dumps(answer), "stop", Usage(1, 100, 20), "by text")
    return completion if request.schema_name == "triage" else mark_draft(request, completion)


def main() -> None:
    """Obey one order a line until there are no more. The events go to stderr as they happen."""
    logging.getLogger().setLevel(logging.CRITICAL + 1)
    events = logging.getLogger(EVENT_LOGGER)
    events.setLevel(logging.INFO)
    events.addHandler(logging.StreamHandler())
    events.propagate = False
    process = AgentProcess(**json.loads(sys.argv[1]))
    for line in sys.stdin:
        print(json.dumps(process.play_round(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
