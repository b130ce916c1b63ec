"""Runs all attacks, split over the machine's processors."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from local.testing.progress import Progress
from tests.certify.ask_run import build_ask_cases, run_ask
from tests.certify.attacks import Attack
from tests.certify.careless_model import Case
from tests.certify.mail_run import build_cases, run_mail
from tests.certify.results import CaseResult
from tests.chaos.stage import quiet_logs

CASES_OF_A_WORLD = 120

Runner = Callable[[Sequence[Case], Path], list[CaseResult]]


def run_all(console: Console, attacks: Sequence[Attack]) -> list[CaseResult]:
    """Run every attack as mail and in a question; the results in the order of the cases."""
    work: list[tuple[Runner, Sequence[Case]]] = [
        (runner, cases[start : start + CASES_OF_A_WORLD])
        for runner, cases in ((run_mail, build_cases(attacks)), (run_ask, build_ask_cases(attacks)))
        for start in range(0, len(cases), CASES_OF_A_WORLD)
    ]
    # Spawned: the servers' threads do not survive a fork.
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        futures: list[Future[list[CaseResult]]] = [pool.submit(_run, *part) for part in work]
        with Progress(console, len(work)) as progress:
            progress.describe(f"Worlds of {CASES_OF_A_WORLD} hostile emails")
            for future in as_completed(futures):
                future.result()
                progress.advance()
        return [result for future in futures for result in future.result()]


def _run(runner: Runner, cases: Sequence[Case]) -> list[CaseResult]:
    quiet_logs()
    with TemporaryDirectory() as folder:
        return runner(cases, Path(folder))
