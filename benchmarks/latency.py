"""From a webhook to the pending reply, as the difference to the model's latency, with several emails in work at once."""

import hmac
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import requests

from benchmarks.agent_process import ROOT, stay_on_one_core
from benchmarks.figures import Figure, Part
from benchmarks.reply_cost import write_pages
from benchmarks.simulators import DRAFT_SECONDS, MULTIMAIL_SECONDS, TRIAGE_SECONDS, Latencies, Simulators
from benchmarks.texts import QUESTION, build_subject
from shared.composition import Agent, build_agent
from shared.services.work_queue import InProcessWorkQueue
from shared.settings import Settings

IN_FLIGHT = 8
MODEL_SECONDS = TRIAGE_SECONDS + DRAFT_SECONDS
GOAL_SECONDS = 0.6
# The second goes into each draft whole; the third is more than fits, and is searched.
KNOWLEDGE_TOKENS = {"no knowledge": 0, "large knowledge": 20_000, "searched knowledge": 100_000}
SECRET = "benchmark"  # noqa: S105  # signs the webhooks of the simulated service


@dataclass(frozen=True, slots=True)
class Job:
    """What to measure: `each` emails to every mailbox, one after another, in each of `workers` threads.

    A customer writes so many emails, `of_a_sender`, to each mailbox.
    """

    settings: dict[str, str]
    workers: int
    each: int
    of_a_sender: int = 1


def measure(advance: Callable[[str], None], *, quick: bool) -> Part:
    """Answer emails that webhooks announce, with as many workers as emails in work."""
    each = 4 if quick else 25
    figures, seconds_by_size = [], {}
    for size, tokens in KNOWLEDGE_TOKENS.items():
        advance(f"{IN_FLIGHT * each} emails, {size}")
        with tempfile.TemporaryDirectory() as config, Simulators(Latencies()) as simulators:
            write_pages(Path(config) / "knowledge", tokens)
            own = {"MULTIMAIL_WEBHOOK_SECRET": SECRET, "CONFIG_PATH": config}
            [seconds] = run_webhooks(Job(simulators.settings | own, IN_FLIGHT, each))
        p95 = quantiles(seconds, n=20)[-1]
        note = (
            f"p95 {p95:.2f} s, {p95 / MODEL_SECONDS:.2f} times the model's {MODEL_SECONDS:g} s; "
            f"median {median(seconds):.2f} s; {len(seconds)} emails"
        )
        name = f"from webhook to pending reply, {IN_FLIGHT} in flight, {size}: p95 over the model's latency"
        figures.append(Figure(name, p95 - MODEL_SECONDS, "s", GOAL_SECONDS, note=note))
        seconds_by_size[size] = seconds
    notes = [
        f"Triage takes {TRIAGE_SECONDS:g} s, a draft {DRAFT_SECONDS:g} s and a MultiMail call {MULTIMAIL_SECONDS:g} s. On Linux "
        "the agent runs on one core; the ledger is SQLite, the queue in the process. The end is that of the work item: the "
        "reply is pending and the email tagged."
    ]
    return Part("From webhook to pending reply", figures, notes, {"seconds": seconds_by_size})


def run_webhooks(job: Job) -> list[list[float]]:
    """The seconds of each email, by mailbox, measured in a fresh process. Raises CalledProcessError."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.latency", json.dumps(asdict(job))],
        cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return list(json.loads(done.stdout.splitlines()[-1]))


class _Arrivals:
    """Lets emails arrive and works on them; what the first email pays for is not measured."""

    def __init__(self, job: Job, agent: Agent, work_queue: InProcessWorkQueue) -> None:
        self._job = job
        self._agent = agent
        self._work_queue = work_queue
        self._guard = threading.Lock()
        self._boxes = self._ask(requests.Session(), do="boxes")
        self._seconds: list[list[float]] = [[] for _ in self._boxes]

    def run(self) -> list[list[float]]:
        for place in range(len(self._boxes)):
            self._answer(requests.Session(), place, "first", 0)
        self._seconds = [[] for _ in self._boxes]
        threads = [threading.Thread(target=self._work, args=(n,)) for n in range(self._job.workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        accepted = len(self._ask(requests.Session(), do="accepted"))
        if accepted != (self._job.workers * self._job.each + 1) * len(self._boxes):
            raise RuntimeError(f"{accepted} replies are pending")
        return self._seconds

    def _work(self, worker: int) -> None:
        desk = requests.Session()
        for number in range(self._job.each):
            for place in range(len(self._boxes)):  # at any time, the workers are at different mailboxes
                turn = (place + worker) % len(self._boxes)
                self._answer(desk, turn, f"{worker}-{number // self._job.of_a_sender}", number)

    def _answer(self, desk: requests.Session, place: int, name: str, number: int) -> None:
        """One email from its webhook on. A work item is worked on by the thread that enqueued it."""
        sender = f"Ann Lee <ann{name}@customer.example>"
        mail = {"box": place, "sender": sender, "subject": build_subject("R", number), "markdown": QUESTION}
        if place:  # in two mailboxes, it would be answered in one
            mail["markdown"] = f"{QUESTION}\n\nMy case is {place}."
        [email_id] = self._ask(desk, do="deliver", emails=[mail])
        box = self._boxes[place]
        data = {"email_id": email_id, "mailbox_id": box, "from": sender, "direction": "inbound"}
        event = {"event": "message.received", "timestamp": datetime.now(UTC).isoformat(), "data": data}
        body = json.dumps(event).encode()
        signature = "sha256=" + hmac.new(SECRET.encode(), body, sha256).hexdigest()
        started = time.perf_counter()
        with self._guard:
            status = self._agent.webhooks.receive(body, signature)
            work_item = self._work_queue.bodies.get(timeout=1)
        if status != HTTPStatus.NO_CONTENT:
            raise RuntimeError(f"the webhook was answered {status}")
        self._agent.process(work_item)
        self._seconds[place].append(time.perf_counter() - started)

    def _ask(self, desk: requests.Session, **command: Any) -> Any:
        answer = desk.post(f"{self._job.settings['MULTIMAIL_API_URL']}/desk", json=command, timeout=60)
        answer.raise_for_status()
        return answer.json()


def main(job: Job) -> list[list[float]]:
    """Run the job in this process."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.from_env({**job.settings, "LEDGER_PATH": str(Path(folder) / "ledger.sqlite")})
        work_queue = InProcessWorkQueue()
        return _Arrivals(job, build_agent(settings, work_queue=work_queue), work_queue).run()


if __name__ == "__main__":
    stay_on_one_core()
    print(json.dumps(main(Job(**json.loads(sys.argv[1])))))
