"""Throughput against the bound that the model's latency sets, and the agent's own CPU time per email."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import quantiles

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
from local.testing.azurite import Azurite, find_azurite

# MultiMail calls that one email makes one after another: email, thread, tags read, tags written; with a reply
# also the mailbox's mode (the allowlist in parallel) and the reply itself.
CHAIN, REPLY_CHAIN = 4, 2
GOALS = {1: 0.95, 8: 0.95, 32: 0.95, 128: 0.85}
CPU_GOAL_MS = 20.0
CPU_PLACES, CPU_EMAILS = 32, 96  # in each round


@dataclass(frozen=True, slots=True)
class Setup:
    """One line of the table: the model works on `places` calls at once, `per_place` emails for each.

    The agent has some more emails in work than the model has places, so that the model does not wait while
    mail is read and written; with `is_tight` it has as many.
    """

    name: str
    places: int
    reply_share: float
    per_place: int
    is_tight: bool = False
    tables: bool = False
    service_bus: bool = False

    @property
    def emails(self) -> int:
        return self.places * self.per_place

    @property
    def in_work(self) -> int:
        return self.places if self.is_tight else self.places + self.places // 4 + 1

    @property
    def title(self) -> str:
        in_work = "as many emails in work" if self.is_tight else f"{self.in_work} emails in work"
        return (
            f"{self.name}, {self.places} in flight at the model, {in_work}, reply share {self.reply_share:g}"
        )


def get_bound_seconds(emails: int, reply_share: float, places: int, *, multimail_calls: float = 0) -> float:
    """The time that model and, with `multimail_calls` in a chain per email, MultiMail alone take."""
    each = TRIAGE_SECONDS + DRAFT_SECONDS * reply_share + MULTIMAIL_SECONDS * multimail_calls
    return emails * each / places


def list_setups(*, quick: bool) -> list[Setup]:
    """SQLite first; the Tables ledger and the Service Bus queue as far as their emulators are there."""
    if quick:
        setups = [Setup("SQLite", 8, 1.0, 16)]
    else:  # long runs: at the end of each, the last drafts leave most of the places empty
        setups = [Setup("SQLite", places, 1.0, 24) for places in GOALS]
        setups += [Setup("SQLite", places, 0.5, 48) for places in (8, 32)]
        setups += [Setup("SQLite", places, 1.0, 12, is_tight=True) for places in GOALS]
    if find_azurite() is not None:
        if not quick:
            setups += [Setup("Tables (Azurite)", places, 1.0, 6, tables=True) for places in GOALS]
        name = "Tables (Azurite), Service Bus (AMQP peer)"
        setups.append(Setup(name, 8, 1.0, 3 if quick else 12, tables=True, service_bus=True))
    return setups


def measure(advance: Callable[[str], None], *, quick: bool) -> Part:
    """Run every setup. Only SQLite has goals: an emulator's speed is its own."""
    figures: list[Figure] = []
    rows: list[dict[str, float | str]] = []
    for setup in list_setups(quick=quick):
        advance(f"{setup.title}: {setup.emails} emails")
        run = _run(setup)
        row = build_row(setup, run)
        rows.append(row)
        is_judged = setup.name == "SQLite" and not setup.is_tight
        most = f"{row['most']:.2f} is the most that its MultiMail calls leave, " if setup.is_tight else ""
        figures.append(
            Figure(
                f"bound / actual, {setup.title}",
                float(row["ratio"]), "", GOALS[setup.places] if is_judged else None, at_least=True,
                note=f"{most}{run.seconds:.1f} s, {row['cpu_ms']:.1f} ms CPU each",
            )
        )  # fmt: skip
    advance("profile of the agent's own work")
    share = _profile(40 if quick else 200)
    advance("the agent's own CPU time")
    figures.append(_measure_cpu(3 if quick else 12, _describe(share)))
    return Part("Throughput against the bound", figures, [_explain()], {"rows": rows, "profile": share})


def build_row(setup: Setup, run: Run) -> dict[str, float | str]:
    """One line of the table as plain values."""
    if sum(run.outcomes.values()) != setup.emails or set(run.outcomes) - {"reply_submitted", "escalated"}:
        raise RuntimeError(f"{setup.title} came to {run.outcomes}")
    chain = CHAIN + REPLY_CHAIN * setup.reply_share
    of = (setup.emails, setup.reply_share, setup.places)
    bound = get_bound_seconds(*of)
    return {
        "setup": setup.name,
        "places": setup.places,
        "in_work": setup.in_work,
        "reply_share": setup.reply_share,
        "emails": setup.emails,
        "seconds": run.seconds,
        "poll_seconds": run.poll_seconds,
        "ratio": bound / run.seconds,
        "most": bound / get_bound_seconds(*of, multimail_calls=chain),
        "cpu_ms": 1000 * sum(run.cpu_seconds) / setup.emails,
    }


def _run(setup: Setup) -> Run:
    with ExitStack() as stack:
        latencies = Latencies(model_places=0 if setup.is_tight else setup.places)
        simulators = stack.enter_context(Simulators(latencies))
        tables = None
        if setup.tables:
            program = find_azurite()
            assert program is not None
            tables = stack.enter_context(Azurite(program)).endpoint
        job = Job(
            simulators.settings, setup.emails, setup.in_work, setup.reply_share, tables, setup.service_bus
        )
        return run_agent(job)


def _measure_cpu(rounds: int, profile: str) -> Figure:
    """The first quartile of some rounds: what else the machine does makes the others longer, never this shorter."""
    setup = Setup("SQLite", CPU_PLACES, 1.0, CPU_EMAILS // CPU_PLACES)
    with Simulators(Latencies(model_places=CPU_PLACES)) as simulators:
        run = run_agent(Job(simulators.settings, rounds * CPU_EMAILS, setup.in_work, rounds=rounds))
    each = [1000 * seconds / CPU_EMAILS for seconds in run.cpu_seconds]
    note = f"{rounds} rounds took {min(each):.1f} to {max(each):.1f} ms; {profile}"
    cores = "one core" if run.cores == 1 else f"{run.cores} cores"
    name = f"own CPU time per reply on {cores}, {CPU_PLACES} in flight at the model, SQLite"
    return Figure(name, round(quantiles(each, n=4)[0], 1), "ms", CPU_GOAL_MS, note=note)


def _profile(emails: int) -> dict[str, float]:
    """The share of each package in the agent's own time, the largest first."""
    with Simulators(NO_LATENCY) as simulators:
        own = run_agent(Job(simulators.settings, emails, 1, profile=True)).own_seconds
    total = sum(own.values())
    return {name: seconds / total for name, seconds in sorted(own.items(), key=lambda item: -item[1])[:12]}


def _describe(share: dict[str, float]) -> str:
    return ", ".join(f"{name} {part:.0%}" for name, part in list(share.items())[:6])


def _explain() -> str:
    return (
        "On Linux the agent runs on one core, as on an instance with the default memory. In flight are calls at "
        "the model: it works on so many at once, and the others wait in line. With as many "
        "emails in work as that, the model idles while mail is read and written: set maxConcurrentCalls in "
        "host.json a quarter higher than what the deployment answers at once."
    )
