"""Throughput against the bound that the model's latency sets, and the agent's own CPU time per email."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.agent_process import Job, Run, run_agent
from benchmarks.figures import Figure, Part
from benchmarks.simulators import (
    DRAFT_SECONDS,
    MULTIMAIL_SECONDS,
    NO_LATENCY,
    TRIAGE_SECONDS,
    Latencies,
    Simulators,
)
from tests.azurite import Azurite, find_azurite

# MultiMail calls that one email makes one after another. An escalated one: email, thread, tags read, tags
# written; a reply also mailboxes, allowlist and the reply itself.
CHAIN, REPLY_CHAIN = 4, 3
# What of these no other order can hide: email first, the gate's reading before the reply, the tags last.
NEEDED_CHAIN, NEEDED_REPLY_CHAIN = 2, 2
GOALS = {1: 0.95, 8: 0.95, 32: 0.95, 128: 0.85}
CPU_GOAL_MS = 12.0
CPU_CONCURRENCY = 32  # of the run whose CPU time is judged


@dataclass(frozen=True, slots=True)
class Setup:
    """One line of the table: `per_worker` emails for each in flight."""

    name: str
    concurrency: int
    reply_share: float
    per_worker: int
    tables: bool = False
    service_bus: bool = False

    @property
    def emails(self) -> int:
        return self.concurrency * self.per_worker


def get_bound_seconds(
    emails: int, reply_share: float, concurrency: int, *, multimail_calls: float = 0
) -> float:
    """The time that model and, with `multimail_calls` in a chain per email, MultiMail alone take."""
    each = TRIAGE_SECONDS + DRAFT_SECONDS * reply_share + MULTIMAIL_SECONDS * multimail_calls
    return emails * each / concurrency


def list_setups(*, quick: bool) -> list[Setup]:
    """SQLite first; the Tables ledger and the Service Bus queue as far as their emulators are there."""
    per_worker = 3 if quick else 12
    counts = (8, 32) if quick else tuple(GOALS)
    setups = [Setup("SQLite", count, 1.0, per_worker) for count in counts]
    if not quick:
        setups += [Setup("SQLite", count, 0.5, 2 * per_worker) for count in counts]
    if find_azurite() is not None:
        setups += [
            Setup("Tables (Azurite)", count, 1.0, per_worker, tables=True)
            for count in counts[: 0 if quick else None]
        ]
        setups.append(
            Setup(
                "Tables (Azurite), Service Bus (AMQP peer)", 8, 1.0, per_worker, tables=True, service_bus=True
            )
        )
    return setups


def measure(advance: Callable[[str], None], *, quick: bool) -> Part:
    """Run every setup; the goals stand beside SQLite's, the emulators' speed is their own."""
    figures: list[Figure] = []
    rows: list[dict[str, float | str]] = []
    cpu: list[float] = []
    for setup in list_setups(quick=quick):
        advance(f"{setup.name}, {setup.concurrency} in flight, {setup.emails} emails")
        run = _run(setup)
        row = build_row(setup, run)
        rows.append(row)
        is_judged = setup.name == "SQLite" and setup.reply_share == 1
        figures.append(
            Figure(
                f"bound / actual, {setup.name}, {setup.concurrency} in flight, reply share {setup.reply_share:g}",
                float(row["ratio"]), "", GOALS[setup.concurrency] if is_judged else None, at_least=True,
                note=f"{row['ratio_with_calls']:.2f} of what the MultiMail calls leave, {run.seconds:.1f} s, "
                f"{1000 * run.cpu_seconds / setup.emails:.1f} ms CPU each",
            )
        )  # fmt: skip
        if is_judged and setup.concurrency == CPU_CONCURRENCY:
            cpu.append(1000 * run.cpu_seconds / setup.emails)
    advance("profile of the agent's own work")
    share = _profile(40 if quick else 200)
    figures.append(
        Figure("own CPU time per reply", round(cpu[0], 1), "ms", CPU_GOAL_MS, note=_describe(share))
    )
    return Part("Throughput against the bound", figures, [_explain_limit()], {"rows": rows, "profile": share})


def build_row(setup: Setup, run: Run) -> dict[str, float | str]:
    """One line of the table as plain values."""
    if sum(run.outcomes.values()) != setup.emails or set(run.outcomes) - {"reply_submitted", "escalated"}:
        raise RuntimeError(f"{setup.name}, {setup.concurrency} in flight came to {run.outcomes}")
    chain = CHAIN + REPLY_CHAIN * setup.reply_share
    of = (setup.emails, setup.reply_share, setup.concurrency)
    return {
        "setup": setup.name,
        "concurrency": setup.concurrency,
        "reply_share": setup.reply_share,
        "emails": setup.emails,
        "seconds": run.seconds,
        "poll_seconds": run.poll_seconds,
        "ratio": get_bound_seconds(*of) / run.seconds,
        "ratio_with_calls": get_bound_seconds(*of, multimail_calls=chain) / run.seconds,
        "cpu_ms": 1000 * run.cpu_seconds / setup.emails,
    }


def _run(setup: Setup) -> Run:
    with ExitStack() as stack:
        simulators = stack.enter_context(Simulators(Latencies()))
        tables = None
        if setup.tables:
            program = find_azurite()
            assert program is not None
            tables = stack.enter_context(Azurite(program)).endpoint
        job = Job(
            simulators.settings, setup.emails, setup.concurrency, setup.reply_share, tables, setup.service_bus
        )
        return run_agent(job)


def _profile(emails: int) -> dict[str, float]:
    """The share of each package in the agent's own time, the largest first."""
    with Simulators(NO_LATENCY) as simulators:
        own = run_agent(Job(simulators.settings, emails, 1, profile=True)).own_seconds
    total = sum(own.values())
    return {name: seconds / total for name, seconds in sorted(own.items(), key=lambda item: -item[1])[:12]}


def _describe(share: dict[str, float]) -> str:
    return ", ".join(f"{name} {part:.0%}" for name, part in list(share.items())[:6])


def _explain_limit() -> str:
    """What the order of the MultiMail calls leaves of the bound, whatever the agent does."""

    def best(reply_share: float, chain: float) -> float:
        bound = get_bound_seconds(1, reply_share, 1)
        return bound / get_bound_seconds(1, reply_share, 1, multimail_calls=chain)

    today, needed = CHAIN + REPLY_CHAIN, NEEDED_CHAIN + NEEDED_REPLY_CHAIN
    return (
        f"A reply makes {today} MultiMail calls in a chain: at {1000 * MULTIMAIL_SECONDS:.0f} ms each at most "
        f"{best(1, today):.3f} of the bound is left (reply share 0.5: {best(0.5, CHAIN + REPLY_CHAIN / 2):.3f}). "
        f"{needed} cannot be hidden (the email, the gate right before the reply, the reply, the tags after it): "
        f"{best(1, needed):.3f} ({best(0.5, NEEDED_CHAIN + NEEDED_REPLY_CHAIN / 2):.3f})."
    )
