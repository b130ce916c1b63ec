"""Other agents on the same work: a tutorial's function-calling loop, alone and with threads, compared with this agent."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, Part
from benchmarks.simulators import Latencies, Simulators
from benchmarks.texts import QUESTION, build_subject

ROOT = Path(__file__).parent.parent
THREADS = 8
PEERS = {
    "this agent, 8 in flight": ("agent", THREADS),
    "tutorial loop": ("tutorial", 1),
    "tutorial loop, 8 threads": ("tutorial", THREADS),
}
UNGATED_EMAILS = 4
PATIENCE_SECONDS = 600
LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one peer came to. After the restart: of the emails that wanted a reply."""

    answered: int
    seconds: float
    model_calls: int
    tokens: int
    multimail_calls: int
    twice_after_restart: int = 0
    unanswered_after_restart: int = 0
    sent_ungated: int = 0


def measure(advance: Callable[[str], None], *, quick: bool) -> Part:
    """Each peer three times: undisturbed, killed in the middle and started again, and on an ungated mailbox."""
    emails = 8 if quick else 60
    figures, rows = [], []
    for name, (kind, threads) in PEERS.items():
        advance(f"{name}, {emails} emails")
        outcome = _run_peer(kind, threads, emails)
        rows.append({"peer": name} | asdict(outcome))
        figures.append(
            Figure(
                f"{name}: {emails} emails, half of them answered", outcome.seconds, "s", note=_tell(outcome)
            )
        )
        if kind == "agent":
            figures.append(Figure("answered twice after a restart", outcome.twice_after_restart, "", 0))
            figures.append(Figure("left unanswered after a restart", outcome.unanswered_after_restart, "", 0))
            figures.append(Figure("sent ungated", outcome.sent_ungated, "", 0))
    notes = [
        "The tutorial loop: one completion a step, a step that picks a tool 0.4 s, one that writes a reply 1.5 s."
    ]
    return Part("Other agents on the same work", figures, notes, {"rows": rows})


def _tell(outcome: Outcome) -> str:
    return (
        f"{outcome.answered} answered, {outcome.model_calls} model calls, {outcome.tokens:,} tokens, "
        f"{outcome.multimail_calls} MultiMail calls; after a restart {outcome.twice_after_restart} answered twice and "
        f"{outcome.unanswered_after_restart} not at all; {outcome.sent_ungated} of {UNGATED_EMAILS} sent ungated"
    )


def _run_peer(kind: str, threads: int, emails: int) -> Outcome:
    with tempfile.TemporaryDirectory() as folder, Simulators(Latencies()) as simulators:
        job = _build_job(simulators, kind, threads, Path(folder) / "a.sqlite")
        _deliver(simulators, emails)
        started = time.perf_counter()
        _start(job).wait(PATIENCE_SECONDS)
        seconds = time.perf_counter() - started
        counts = simulators.ask(do="counts")
        answered = len({reply["answers"] for reply in simulators.ask(do="accepted")})
        twice, unanswered = _restart_in_the_middle(kind, threads, emails)
        return Outcome(
            answered=answered,
            seconds=seconds,
            model_calls=sum(n for name, n in counts.items() if name.startswith("model")),
            tokens=counts["tokens in"] + counts["tokens out"],
            multimail_calls=sum(n for name, n in counts.items() if name.startswith("multimail")),
            twice_after_restart=twice,
            unanswered_after_restart=unanswered,
            sent_ungated=_count_ungated(kind, threads),
        )


def _restart_in_the_middle(kind: str, threads: int, emails: int) -> tuple[int, int]:
    """Kill the process once half of the replies are there, start it again, and look at what came of it."""
    with tempfile.TemporaryDirectory() as folder, Simulators(Latencies()) as simulators:
        job = _build_job(simulators, kind, threads, Path(folder) / "b.sqlite")
        wanted = _deliver(simulators, emails)
        process = _start(job)
        while len(simulators.ask(do="accepted")) < len(wanted) // 2 and process.poll() is None:
            time.sleep(LOOK_SECONDS)
        process.send_signal(signal.SIGKILL)
        process.wait()
        _start(job).wait(PATIENCE_SECONDS)
        replies = Counter(reply["answers"] for reply in simulators.ask(do="accepted"))
    return sum(count > 1 for count in replies.values()), len(wanted - replies.keys())


def _count_ungated(kind: str, threads: int) -> int:
    with tempfile.TemporaryDirectory() as folder, Simulators(Latencies()) as simulators:
        job = _build_job(simulators, kind, threads, Path(folder) / "c.sqlite")
        simulators.ask(do="set_mode", mode="autonomous")
        _deliver(simulators, 2 * UNGATED_EMAILS)
        _start(job).wait(PATIENCE_SECONDS)
        return len(simulators.ask(do="accepted"))


def _deliver(simulators: Simulators, emails: int) -> set[str]:
    """Every second email wants a reply; returns the ids of those."""
    mails = [
        {
            "sender": f"Ann Lee <ann{number}@customer.example>",
            "subject": build_subject("R" if number % 2 else "E", number),
            "markdown": QUESTION,
        }
        for number in range(emails)
    ]
    return set(simulators.ask(do="deliver", emails=mails)[1::2])


def _build_job(simulators: Simulators, kind: str, threads: int, ledger: Path) -> dict[str, Any]:
    mailbox_id = simulators.ask(do="boxes")[0]
    settings = simulators.settings | {"LEDGER_PATH": str(ledger), "RETRY_BASE_SECONDS": "0.1"}
    return {"kind": kind, "threads": threads, "settings": settings, "mailbox_id": mailbox_id}


def _start(job: dict[str, Any]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.peers", json.dumps(job)], cwd=ROOT, env=os.environ
    )


def _run_agent(settings: dict[str, str], threads: int) -> None:
    """Poll and work until nothing is open."""
    from shared.composition import build_agent  # noqa: PLC0415 - the peers load none of it
    from shared.services.work_queue import InProcessWorkQueue  # noqa: PLC0415 - the peers load none of it
    from shared.settings import Settings  # noqa: PLC0415 - the peers load none of it

    agent = build_agent(Settings.from_env(settings))
    work_queue = agent.work_queue
    assert isinstance(work_queue, InProcessWorkQueue)
    with ThreadPoolExecutor(threads) as pool:
        while True:
            agent.poll()
            bodies = [work_queue.bodies.get() for _ in range(work_queue.bodies.qsize())]
            list(pool.map(agent.process, bodies))
            due_at = agent.ledger.next_due_at()
            if due_at is None:
                return
            time.sleep(max(0.0, (due_at - datetime.now(UTC)).total_seconds()))


if __name__ == "__main__":
    _job = json.loads(sys.argv[1])
    if _job["kind"] == "agent":
        _run_agent(_job["settings"], _job["threads"])
    else:
        from benchmarks.tutorial_agent import run_tutorial

        run_tutorial(_job["settings"], _job["mailbox_id"], _job["threads"])
