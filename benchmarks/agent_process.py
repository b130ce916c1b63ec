"""The agent in a process of its own, as the benchmarks measure it: real clients, real ledger, a number of workers."""

import cProfile
import json
import os
import pstats
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests

from benchmarks.texts import QUESTION, build_subject
from local.testing.memory import read_resident_megabytes
from shared.composition import Agent, build_agent
from shared.domain import WorkItem
from shared.ledger.ledger import Ledger
from shared.ledger.sqlite_store import open_sqlite_ledger
from shared.services.work_queue import InProcessWorkQueue, WorkQueue
from shared.settings import Settings

ROOT = Path(__file__).parent.parent
MAX_ROUNDS = 200


@dataclass(frozen=True, slots=True)
class Job:
    """What to measure. `settings` is the agent's environment; with `tables` its ledger is that endpoint's.

    `reply_share`: the part of the emails that gets a reply, the rest is escalated after its triage.
    """

    settings: dict[str, str]
    emails: int
    concurrency: int
    reply_share: float = 1.0
    tables: str | None = None
    service_bus: bool = False
    rounds: int = 1
    profile: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """What it came to. Times in seconds, memory in MB; `requests` are those that the simulators saw.

    Processor time and memory have a value for each round. `cores`: how many the process ran on.
    """

    seconds: float
    poll_seconds: float
    cpu_seconds: list[float]
    replies: int
    outcomes: dict[str, int]
    requests: dict[str, int]
    cores: int
    resident_mb: list[float] = field(default_factory=list)
    own_seconds: dict[str, float] = field(default_factory=dict)


def run_agent(job: Job) -> Run:
    """Run a job in a fresh process and return its figures. Raises CalledProcessError."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.agent_process", json.dumps(asdict(job))],
        cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return Run(**json.loads(done.stdout.splitlines()[-1]))


class _Measured:
    """One agent and the counters around it."""

    def __init__(self, job: Job, agent: Agent, collect: Callable[[], list[bytes]]) -> None:
        self._job = job
        self._agent = agent
        self._collect = collect
        self._desk = requests.Session()
        self._delivered: list[str] = []
        self._profile = cProfile.Profile(time.thread_time)

    def run(self) -> Run:
        """A first email pays for imports and connections; then everything is measured."""
        self._deliver(1, reply_share=1.0)
        self._agent.poll()
        self._work(self._collect())
        self._ask(do="counts")
        self._delivered.clear()
        resident: list[float] = []
        cpu_seconds: list[float] = []
        seconds = poll_seconds = 0.0
        if self._job.profile:
            self._profile.enable()
        for _ in range(self._job.rounds):
            self._deliver(self._job.emails // self._job.rounds, self._job.reply_share)
            started, cpu = time.perf_counter(), time.process_time()
            self._agent.poll()
            polled = time.perf_counter()
            self._work_until_done()
            poll_seconds += polled - started
            seconds += time.perf_counter() - polled
            cpu_seconds.append(time.process_time() - cpu)
            resident.append(read_resident_megabytes())
        self._profile.disable()
        outcomes = self._count_outcomes()
        return Run(
            seconds=seconds, poll_seconds=poll_seconds, cpu_seconds=cpu_seconds, replies=outcomes["reply_submitted"],
            outcomes=dict(outcomes), requests=self._ask(do="counts"), cores=count_cores(), resident_mb=resident,
            own_seconds=sum_by_package(self._profile) if self._job.profile else {},
        )  # fmt: skip

    def _deliver(self, count: int, reply_share: float) -> None:
        """Every email from a sender of its own; the replies spread evenly."""
        first = len(self._delivered)
        emails = []
        for number in range(first, first + count):
            is_reply = int((number + 1) * reply_share) > int(number * reply_share)
            subject = build_subject("R" if is_reply else "E", number)
            sender = f"Ann Lee <ann{number}-{count}@customer.example>"
            emails.append({"sender": sender, "subject": subject, "markdown": QUESTION})
        self._delivered += self._ask(do="deliver", emails=emails)

    def _work_until_done(self) -> None:
        for _ in range(MAX_ROUNDS):
            self._work(self._collect())
            due_at = self._agent.ledger.next_due_at()
            if due_at is None:
                return
            time.sleep(max(0.0, (due_at - datetime.now(UTC)).total_seconds()))
            self._agent.poll()
        raise RuntimeError("emails stay open")

    def _work(self, bodies: list[bytes]) -> None:
        waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        for body in bodies:
            waiting.put(body)

        def work() -> None:
            while True:
                try:
                    body = waiting.get_nowait()
                except queue.Empty:
                    return
                self._agent.process(body)

        if self._job.profile:  # the profiler sees its own thread alone
            work()
            return
        threads = [threading.Thread(target=work) for _ in range(self._job.concurrency)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _count_outcomes(self) -> Counter[str]:
        box = self._ask(do="boxes")[0]
        entries = [self._agent.ledger.get(WorkItem(box, email_id)) for email_id in self._delivered]
        return Counter(str(entry.outcome) if entry else "no row" for entry in entries)

    def _ask(self, **command: Any) -> Any:
        answer = self._desk.post(f"{self._job.settings['MULTIMAIL_API_URL']}/desk", json=command, timeout=60)
        answer.raise_for_status()
        return answer.json()


def stay_on_one_core() -> None:
    """As on an instance of Flex Consumption with its default memory, 2,048 MB; Python can do it on Linux.

    https://learn.microsoft.com/azure/azure-functions/flex-consumption-plan#instance-sizes
    """
    if sys.platform == "linux":
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def count_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def sum_by_package(profile: cProfile.Profile) -> dict[str, float]:
    """Processor seconds in each package's own code, and in each C module's."""
    totals: Counter[str] = Counter()
    for (file, _, function), (_, _, own, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]  # typeshed lacks it
        totals[_name_package(file, function)] += own
    return dict(totals)


def _name_package(file: str, function: str) -> str:
    path = Path(file)
    if file == "~":
        owner = re.search(r"of '([\w.]+)' objects|built-in method (\w+)", function)
        name = (owner[1] or owner[2]).split(".")[0] if owner else "built-in"
        return {"sqlite3": "sqlite3", "_socket": "socket", "re": "re"}.get(name, "built-in")
    if "site-packages" in path.parts:
        parts = path.parts[path.parts.index("site-packages") + 1 :]
        return ".".join(parts[:2]) if parts[0] == "azure" else parts[0]
    if "shared" in path.parts:
        return ".".join(path.with_suffix("").parts[path.parts.index("shared") :])
    return f"python {path.parent.name}"


@contextmanager
def _open_queue(job: Job) -> Iterator[tuple[WorkQueue, Callable[[], list[bytes]]]]:
    """The work queue, and a function that takes out what was enqueued since."""
    if not job.service_bus:
        in_process = InProcessWorkQueue()

        def drain() -> list[bytes]:
            return [in_process.bodies.get() for _ in range(in_process.bodies.qsize())]

        yield in_process, drain
        return
    from local.testing.amqp_peer import running_amqp_peer  # noqa: PLC0415 - memory is measured
    from shared.services.service_bus import build_service_bus_work_queue  # noqa: PLC0415 - memory is measured

    with running_amqp_peer() as peer:
        sent: list[int] = [0]
        taken: list[int] = [0]
        real = build_service_bus_work_queue(
            namespace=None, credential=None, connection_string=peer.connection_string,
            queue_name="inbound-email",
        )  # fmt: skip

        class Counting:
            def send(self, items: Any, lives: Any) -> None:
                real.send(items, lives)
                sent[0] += len(items)

        def collect() -> list[bytes]:
            messages = peer.wait_for_messages(sent[0])[taken[0] :]
            taken[0] += len(messages)
            return [message["body"].encode() for message in messages]

        yield Counting(), collect
        real.close()


def main(job: Job) -> Run:
    """Run the job in this process."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        settings = Settings.from_env({**job.settings, "LEDGER_PATH": str(Path(folder) / "ledger.sqlite")})
        work_queue, collect = stack.enter_context(_open_queue(job))
        ledger = _open_ledger(job, settings)
        return _Measured(job, build_agent(settings, ledger=ledger, work_queue=work_queue), collect).run()


def _open_ledger(job: Job, settings: Settings) -> Ledger:
    if job.tables is None:
        return open_sqlite_ledger(settings.ledger_path)
    from azure.core.credentials import AzureNamedKeyCredential  # noqa: PLC0415 - memory is measured

    from local.testing.azurite import ACCOUNT, KEY  # noqa: PLC0415 - memory is measured
    from shared.ledger.table_store import build_table_ledger  # noqa: PLC0415 - memory is measured

    return build_table_ledger(job.tables, AzureNamedKeyCredential(ACCOUNT, KEY))


if __name__ == "__main__":
    stay_on_one_core()
    print(json.dumps(asdict(main(Job(**json.loads(sys.argv[1]))))))
