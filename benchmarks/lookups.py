"""What look-ups add to the time from a webhook to the pending reply, and which of their calls the cache saves."""

import tempfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from statistics import median, quantiles

from benchmarks.figures import Figure, Part
from benchmarks.latency import IN_FLIGHT, SECRET, Job, run_webhooks
from benchmarks.reply_cost import write_pages
from benchmarks.simulators import Latencies, Simulators
from local.testing.lookup_server import LOOPBACK, LookUpServer, run_lookup_server
from shared.profiles.profile_file import PROFILE_FILE

ANSWER_SECONDS = 0.2  # that the system takes for an answer
OF_A_CUSTOMER = 4  # emails of one customer within the time that an answer is kept
GOAL_SECONDS = 0.3
# Next to no search, or to the search in more than fits into a prompt.
KNOWLEDGE_TOKENS = {"no knowledge": 0, "searched knowledge": 100_000}
WITHOUT, WITH, CACHED = MAILBOXES = ("without look-ups", "with two look-ups", "with two that are cached")
LOOK_UPS = ("orders", "contracts")
FIRST = "annfirst@"  # whose email pays for imports, and is not measured
_LOOK_UP = """
    {name}:
      url: https://{host}/{mailbox}/{name}/{{address}}
      show: {{Number: number, Status: status}}
      allow_private: true
      ca_file: {ca_file}
      {cache}
"""


def measure(advance: Callable[[str], None], *, quick: bool) -> Part:
    """Answer the same emails in three mailboxes of one agent, in turn: load on the machine meets all alike."""
    each = OF_A_CUSTOMER if quick else 3 * OF_A_CUSTOMER
    figures: list[Figure] = []
    series = {}
    for size in ("searched knowledge",) if quick else KNOWLEDGE_TOKENS:
        advance(f"{len(MAILBOXES) * IN_FLIGHT * each} emails, {size}")
        seconds, calls = run_emails(Latencies(), IN_FLIGHT, each, KNOWLEDGE_TOKENS[size])
        figures += list_latency_figures(size, seconds)
        series[size] = seconds
    figures.append(count_saved(calls, IN_FLIGHT * each))  # of the last size: it is the same for all
    notes = [
        f"Two look-ups for each email, in a system that takes {ANSWER_SECONDS:g} s for an answer; connection and TLS come on "
        f"top. They begin with the search in the knowledge, after the triage. A customer writes {OF_A_CUSTOMER} emails while an "
        "answer is kept."
    ]
    return Part("What look-ups add to a reply", figures, notes, {"seconds": series})


def list_latency_figures(size: str, seconds: dict[str, list[float]]) -> list[Figure]:
    """The difference to the mailbox without look-ups, where nothing is cached and where answers are."""
    p95 = {name: quantiles(found, n=20)[-1] for name, found in seconds.items()}
    medians = {name: median(found) for name, found in seconds.items()}
    figures = []
    for name in (WITH, CACHED):
        note = (
            f"p95 {p95[name]:.2f} s, without {p95[WITHOUT]:.2f} s; median {medians[name]:.2f} s, without "
            f"{medians[WITHOUT]:.2f} s; {len(seconds[name])} emails each"
        )
        title = f"from webhook to pending reply, {IN_FLIGHT} in flight, {size}, {name}: p95 over without"
        goal = GOAL_SECONDS if name == WITH else None
        figures.append(Figure(title, p95[name] - p95[WITHOUT], "s", goal, note=note))
    return figures


def count_saved(calls: dict[str, int], emails: int) -> Figure:
    """How many calls the cache saved of those that the same emails cost without it."""
    saved = calls[WITH] - calls[CACHED]
    note = f"{calls[CACHED]} calls for {emails} emails, {calls[WITH]} without a cache: {saved / calls[WITH]:.0%} saved"
    return Figure("calls of look-ups that the cache saves", saved, "calls", note=note)


def run_emails(
    latencies: Latencies, workers: int, each: int, tokens: int
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """The seconds of each email and the calls of look-ups, by mailbox; `tokens` of knowledge."""
    with (
        tempfile.TemporaryDirectory() as config,
        run_lookup_server(Path(config)) as system,
        Simulators(latencies, len(MAILBOXES)) as simulators,
    ):
        write_pages(Path(config) / "knowledge", tokens)
        system.seconds = ANSWER_SECONDS
        system.answers |= dict(_list_answers(workers, each))
        (Path(config) / PROFILE_FILE).write_text(_write_profiles(system), encoding="utf-8")
        own = {"MULTIMAIL_WEBHOOK_SECRET": SECRET, "CONFIG_PATH": config}
        seconds = run_webhooks(Job(simulators.settings | own, workers, each, OF_A_CUSTOMER))
        measured = [path for path in system.paths if FIRST not in path]
        calls = {
            name: sum(path.startswith(f"/{place}/") for path in measured)
            for place, name in enumerate(MAILBOXES)
        }
        if calls[WITH] != len(LOOK_UPS) * workers * each:
            raise RuntimeError(f"the system was asked {calls[WITH]} times")
        return dict(zip(MAILBOXES, seconds, strict=True)), calls


def _write_profiles(system: LookUpServer) -> str:
    """The profiles of the two mailboxes that look up."""
    text = ""
    for mailbox, cache in ((1, ""), (2, "cache: 10m")):
        text += f"support{mailbox}@northwind.example:\n  lookups:"
        for name in LOOK_UPS:
            text += _LOOK_UP.format(
                name=name,
                host=f"{LOOPBACK}:{system.port}",
                mailbox=mailbox,
                ca_file=system.ca_file.name,
                cache=cache,
            )
    return text


def _list_answers(workers: int, each: int) -> Iterator[tuple[str, object]]:
    """What the system has, about every customer."""
    numbers = [f"{worker}-{number}" for worker in range(workers) for number in range(each // OF_A_CUSTOMER)]
    for mailbox, name, number in product((1, 2), LOOK_UPS, ["first", *numbers]):
        yield (
            f"/{mailbox}/{name}/ann{number}@customer.example",
            {"number": f"A-{number}", "status": "shipped"},
        )
