"""What an app that has nothing to do exports, and what its telemetry costs at a start; `python -m tests.worker.idle`.

It runs the app in the library worker, with the telemetry that is deployed and a collector on loopback, polls as the
timer would, and then leaves it alone. Telemetry that feeds itself shows: whatever comes then, but for the exporter's
metrics of a minute, is a failure, and so is more than docs/prices.toml counts on.
"""

import sys
import tempfile
import threading
import time
import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from local.commands.demo_model import respond
from tests.worker.collector import Row
from tests.worker.environment import find_library_worker
from tests.worker.stage import Run, build_stage, run_worker
from tests.worker.worker import ROOT

SECONDS = 61.0  # the exporter sends its metrics once a minute
STARTS = 3
TRACE = "00-{0}-0123456789abcdef-01"
POLL, TRACK = "a" * 32, "b" * 32
SOME_MORE = 1.1  # what may be over the figures that are counted on


def main() -> int:
    """Measure, print, and return 1 when more is exported than should be."""
    assumed = tomllib.loads((ROOT / "docs" / "prices.toml").read_text(encoding="utf-8"))["assumption"]
    with tempfile.TemporaryDirectory() as folder:
        delay = measure_start(Path(folder))
        counted = measure_rows(Path(folder))
    print(f"telemetry adds {delay:.2f} s to a start ({assumed['telemetry_start_seconds']} counted on)")
    problems = [
        f"a row of an app at idle: {row.table} {row.name}"
        for row in counted["idle_telemetry_kb_minute"]
        if row.table != "AppMetrics"
    ]
    for name, rows in counted.items():
        weight = sum(row.size for row in rows) / 1e3
        tables = dict(Counter(row.table for row in rows))
        print(f"{name}: {weight:.2f} ({assumed[name]} counted on), rows: {tables}")
        if weight > assumed[name] * SOME_MORE:
            problems.append(f"{name} in docs/prices.toml is too small: {weight:.2f} was measured")
    print(*problems, sep="\n")
    return 1 if problems else 0


def measure_start(folder: Path) -> float:
    """How many seconds longer the worker takes until it has told its functions, at best of some starts."""

    def start(**settings: str) -> float:
        seconds = []
        for _ in range(STARTS):
            with build_stage(folder, respond) as stage:
                began = time.monotonic()
                with run_worker(stage, find_library_worker(), **settings):
                    seconds.append(time.monotonic() - began)
        return min(seconds)

    off = {"PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY": "", "PYTHON_ENABLE_OPENTELEMETRY": ""}
    return start() - start(**off)


def measure_rows(folder: Path) -> dict[str, Sequence[Row]]:
    """The rows of a minute in which nothing happens, and of a poll and a look at replies before it."""
    with build_stage(folder, respond) as stage, run_worker(stage, find_library_worker()) as run:
        run.work_until_idle("", "")
        _fire(run, "poll_inboxes", POLL)
        _fire(run, "track_replies", TRACK)
        stage.collector.wait_for(
            "", "\\Memory", SECONDS
        )  # with this minute's metrics; the next one has its own
        rows = stage.collector.rows
        began = len(rows)
        threading.Event().wait(SECONDS)
        return {
            "idle_telemetry_kb_minute": rows[began:],
            "poll_telemetry_kb": [row for row in rows if row.trace_id == POLL],
            "track_telemetry_kb": [row for row in rows if row.trace_id == TRACK],
            "call_telemetry_kb": [
                row for row in rows if row.trace_id == POLL and row.name == "GET /v1/mailboxes"
            ],
        }


def _fire(run: Run, function: str, trace_id: str) -> None:
    """Fire a timer, and wait until what it recorded has been exported, and so all before it."""
    assert run.worker.fire(function, TRACE.format(trace_id)).error is None
    run.stage.collector.wait_for(trace_id, "poll.succeeded" if trace_id == POLL else "backlog.measured")
    run.stage.collector.wait_for(trace_id, "poll" if trace_id == POLL else "track")


if __name__ == "__main__":
    sys.exit(main())
