"""Figures, their goals, and the comparison of the counted ones with the stored baseline."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

BASELINE = Path(__file__).with_name("baseline.json")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. `goal` is a ceiling, or with `at_least` a floor.

    `counted`: it does not depend on the machine, so the baseline holds it.
    """

    name: str
    value: float
    unit: str = ""
    goal: float | None = None
    at_least: bool = False
    counted: bool = False
    note: str = ""

    @property
    def verdict(self) -> str:
        """`ok` or `short` next to a goal, nothing without one."""
        if self.goal is None:
            return ""
        reached = self.value >= self.goal if self.at_least else self.value <= self.goal
        return "ok" if reached else "short"


@dataclass(frozen=True, slots=True)
class Part:
    """One part's figures, the sentences under its table, and the series that its picture shows."""

    title: str
    figures: Sequence[Figure]
    notes: Sequence[str] = ()
    series: Mapping[str, Any] = field(default_factory=dict)


def read_baseline(path: Path = BASELINE) -> dict[str, float]:
    """The stored counts by name; none when there is no file yet."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def write_baseline(figures: Sequence[Figure], path: Path = BASELINE) -> None:
    """Store the counts; what was not counted this time stays as it was."""
    counts = read_baseline(path) | {figure.name: figure.value for figure in figures if figure.counted}
    path.write_text(json.dumps(dict(sorted(counts.items())), indent=1) + "\n", encoding="utf-8")


def find_regressions(figures: Sequence[Figure], baseline: Mapping[str, float]) -> list[str]:
    """A sentence for each count that grew or that the baseline does not know."""
    problems = []
    for figure in figures:
        stored = baseline.get(figure.name)
        if not figure.counted or (stored is not None and figure.value <= stored):
            continue
        was = "is not in the baseline" if stored is None else f"was {stored:g}"
        problems.append(f"{figure.name} is {figure.value:g} {figure.unit}".rstrip() + f" and {was}")
    return problems


def find_improvements(figures: Sequence[Figure], baseline: Mapping[str, float]) -> list[str]:
    """A sentence for each count that fell, so that the baseline can follow."""
    return [
        f"{figure.name} fell from {baseline[figure.name]:g} to {figure.value:g}"
        for figure in figures
        if figure.counted and figure.value < baseline.get(figure.name, figure.value)
    ]


def describe_machine() -> dict[str, Any]:
    """What the timings depend on."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _read_lines("/proc/cpuinfo") if "model name" in line),
        platform.processor(),
    )
    memory = next((int(line.split()[1]) for line in _read_lines("/proc/meminfo") if "MemTotal" in line), 0)
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**20, 1),
        "load_average_at_start": [round(load, 2) for load in os.getloadavg()],
    }


def build_report(parts: Sequence[Part], *, machine: Mapping[str, Any], quick: bool) -> dict[str, Any]:
    """Everything that was measured, as plain values for JSON."""
    return {
        "taken_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%MZ}",
        "quick": quick,
        "machine": dict(machine),
        "parts": [
            {
                "title": part.title,
                "figures": [asdict(figure) | {"verdict": figure.verdict} for figure in part.figures],
                "notes": list(part.notes),
                "series": dict(part.series),
            }
            for part in parts
        ],
    }


def _read_lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []
