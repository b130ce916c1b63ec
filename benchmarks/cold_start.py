"""Cold start: from the interpreter's start to the functions indexed, and to the first poll done, compared with a bare app."""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.figures import Figure, Part
from benchmarks.simulators import NO_LATENCY, Simulators

ROOT = Path(__file__).parent.parent
APPS = {"agent": ROOT, "bare": Path(__file__).parent / "bare_app"}
INDEX = "import function_app as f; found = f.app.get_functions(); "
POLL = INDEX + (
    "from types import SimpleNamespace as N; "
    "poll = next(x for x in found if x.get_function_name() == 'poll_inboxes').get_user_function(); "
    "poll(None, N(trace_context=N(trace_parent=''))); "
)
STEPS = {"functions indexed": INDEX, "first poll done": POLL}
LEAVE = "import os; os._exit(0)"  # what comes after is no start
GOAL = 1.3
# What the timer's path must never load: nothing is completed, and an idle poll enqueues nothing.
HEAVY = ("openai", "azure.ai.inference", "azure.servicebus", "azure.monitor", "azure.data.tables", "sqlite3")
NEVER_BY_POLLING = ("openai", "azure.ai.inference", "azure.servicebus", "azure.monitor")
SHOWN_PACKAGES = 8


def measure(advance: Callable[[str], None], *, quick: bool) -> Part:
    """Start both apps in turn, with byte-code caches and without, and take the medians."""
    figures: list[Figure] = []
    series: dict[str, dict[str, float]] = {}
    rounds = {True: 5 if quick else 15, False: 2 if quick else 15}  # by whether byte code is cached
    with Simulators(NO_LATENCY) as simulators, tempfile.TemporaryDirectory() as folder:
        settings = {**os.environ, **simulators.settings}
        for has_cache, count in rounds.items():
            caches = "with byte-code caches" if has_cache else "without byte-code caches"
            environment = settings if has_cache else settings | _without_caches(Path(folder))
            for step, code in STEPS.items():
                if quick and not has_cache and code == POLL:
                    continue
                advance(f"{step}, {caches}")
                times = _start_in_turn(code, environment, Path(folder), count)
                series[f"{step}, {caches}"] = times
                figures.append(
                    build_figure(f"{step}, {caches}", times, is_judged=step == "functions indexed")
                )
        advance("what is loaded")
        figures += _count_modules({**settings, "LEDGER_PATH": str(Path(folder) / "modules.sqlite")})
    packages = read_import_times(_run_importtime())
    most = ", ".join(f"{name} {ms:.0f} ms" for name, ms in packages[:SHOWN_PACKAGES])
    notes = [f"Import time by package, index and agent together (-X importtime): {most}."]
    return Part("Cold start", figures, notes, {"starts": series, "packages": dict(packages[:SHOWN_PACKAGES])})


def build_figure(name: str, times: Mapping[str, float], *, is_judged: bool) -> Figure:
    """The agent's start in terms of the bare app's."""
    note = f"agent {1000 * times['agent']:.0f} ms, bare {1000 * times['bare']:.0f} ms"
    return Figure(
        f"{name}: agent / bare", times["agent"] / times["bare"], "", GOAL if is_judged else None, note=note
    )


def _without_caches(folder: Path) -> dict[str, str]:
    return {"PYTHONPYCACHEPREFIX": str(folder / "no caches here"), "PYTHONDONTWRITEBYTECODE": "1"}


def _start_in_turn(code: str, environment: Mapping[str, str], folder: Path, count: int) -> dict[str, float]:
    """The median seconds of both apps; in turn, so that whatever else the machine does meets both."""
    seconds: dict[str, list[float]] = {name: [] for name in APPS}
    for number in range(count + 1):
        for name, place in APPS.items():
            ledger = folder / f"{time.monotonic_ns()}.sqlite"
            started = time.perf_counter()
            _run([sys.executable, "-c", code + LEAVE], place, {**environment, "LEDGER_PATH": str(ledger)})
            if number > 0:  # the first round fills the caches
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _run(command: list[str], place: Path, environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        command, cwd=place, env=dict(environment), check=True, capture_output=True, text=True
    )
    return done.stdout + done.stderr


def _count_modules(environment: Mapping[str, str]) -> list[Figure]:
    """How many modules each step has loaded, and which heavy SDKs."""
    figures = []
    for step, code in STEPS.items():
        report = "import sys, json; print(json.dumps(sorted(sys.modules))); "
        modules: list[str] = json.loads(
            _run([sys.executable, "-c", code + report], APPS["agent"], environment)
        )
        forbidden = HEAVY if step == "functions indexed" else NEVER_BY_POLLING
        heavy = [name for name in forbidden if name in modules]
        figures.append(
            Figure(f"{step}: modules loaded", len(modules), note=f"{_count_own(modules)} of them ours")
        )
        figures.append(
            Figure(f"{step}: heavy SDKs loaded", len(heavy), "", 0, counted=True, note=", ".join(heavy))
        )
    return figures


def _count_own(modules: list[str]) -> int:
    return sum(name.startswith("shared") for name in modules)


def _run_importtime() -> str:
    command = [sys.executable, "-X", "importtime", "-c", "import function_app, shared.composition"]
    return _run(command, ROOT, os.environ)


def read_import_times(report: str) -> list[tuple[str, float]]:
    """Each package's own import time in milliseconds, the longest first, from -X importtime's lines."""
    totals: Counter[str] = Counter()
    for own, module in re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+([\w.]+)$", report, re.MULTILINE):
        parts = module.split(".")
        totals[".".join(parts[:2]) if parts[0] in ("azure", "shared") else parts[0]] += int(own)
    return [(name, microseconds / 1000) for name, microseconds in totals.most_common()]
