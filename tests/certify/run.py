"""Runs all attacks, split over the machine's processors."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from rich.console import Console

from local.testing.progress import Progress
from tests.certify.ask_run import build_ask_cases, run_ask
from tests.certify.attacks import Attack
from tests.certify.customers import CUSTOMERS
from tests.certify.facts_run import FactsResult, run_facts
from tests.certify.facts_ways import build_requests
from tests.certify.mail_run import build_cases, run_mail
from tests.certify.places import PlaceResult, load_ways, run_places
from tests.certify.results import CaseResult
from tests.chaos.stage import quiet_logs

CASES_OF_A_WORLD = 120

C = TypeVar("C")
R = TypeVar("R")


def run_all(console: Console, attacks: Sequence[Attack]) -> list[CaseResult]:
    """Run every attack as mail and in a question; the results in the order of the cases."""
    parts = [
        (runner, cases[start : start + CASES_OF_A_WORLD])
        for runner, cases in ((run_mail, build_cases(attacks)), (run_ask, build_ask_cases(attacks)))
        for start in range(0, len(cases), CASES_OF_A_WORLD)
    ]
    return _run_parts(console, f"Worlds of {CASES_OF_A_WORLD} hostile emails", parts)


def run_lookups(console: Console) -> tuple[list[FactsResult], list[PlaceResult]]:
    """Ask for other customers' facts, then lead look-ups and downloads to forbidden places."""
    requests = build_requests()
    parts = [
        (run_facts, [request for request in requests if request.victim == victim]) for victim in CUSTOMERS
    ]
    facts = _run_parts(console, "Worlds with look-ups", parts)
    return facts, _run_parts(console, "Forbidden places", [(run_places, load_ways())])


def _run_parts(
    console: Console, what: str, parts: Sequence[tuple[Callable[[Sequence[C], Path], list[R]], Sequence[C]]]
) -> list[R]:
    """Run each part in a process; the results in the order of the parts."""
    # Spawned: the servers' threads do not survive a fork.
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        futures: list[Future[list[R]]] = [pool.submit(_run, runner, cases) for runner, cases in parts]
        with Progress(console, len(parts)) as progress:
            progress.describe(what)
            for future in as_completed(futures):
                future.result()
                progress.advance()
        return [result for future in futures for result in future.result()]


def _run(runner: Callable[[Sequence[C], Path], list[R]], cases: Sequence[C]) -> list[R]:
    quiet_logs()
    with TemporaryDirectory() as folder:
        return runner(cases, Path(folder))
