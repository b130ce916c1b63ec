"""The benchmarks' pictures for the README: bars in SVG, readable on a light page and on a dark one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.figures import Part

WIDTH, LABEL_WIDTH, NUMBER_WIDTH, ROW, TOP = 900, 380, 170, 26, 62
GREY, BLUE, GREEN = "#8a8f98", "#3b7dd8", "#2e9e6b"
STYLE = (
    "<style>text{font:13px system-ui,sans-serif;fill:#24292f}.t{font-weight:600;font-size:15px}.s{fill:#6a737d}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.s{fill:#9aa4af}}</style>"
)


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its label, its length in the chart's unit, the text behind it and its colour."""

    label: str
    value: float
    text: str
    colour: str = BLUE


def draw_bars(title: str, subtitle: str, bars: Sequence[Bar], *, goal: float | None = None) -> str:
    """A chart of horizontal bars from nought, with a dashed line at the goal when there is one."""
    room = WIDTH - LABEL_WIDTH - NUMBER_WIDTH
    largest = max([bar.value for bar in bars] + [goal or 0]) or 1
    height = TOP + ROW * len(bars) + 10
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">',
        STYLE,
        f'<text class="t" x="10" y="22">{escape(title)}</text>',
        f'<text class="s" x="10" y="42">{escape(subtitle)}</text>',
    ]
    for number, bar in enumerate(bars):
        y, length = TOP + ROW * number, room * bar.value / largest
        lines += [
            f'<text x="{LABEL_WIDTH - 8}" y="{y + 14}" text-anchor="end">{escape(bar.label)}</text>',
            f'<rect x="{LABEL_WIDTH}" y="{y}" width="{length:.1f}" height="{ROW - 8}" rx="2" fill="{bar.colour}"/>',
            f'<text x="{LABEL_WIDTH + length + 6:.1f}" y="{y + 14}">{escape(bar.text)}</text>',
        ]
    if goal is not None:
        x = LABEL_WIDTH + room * goal / largest
        lines.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{height - 10}" stroke="{GREEN}" stroke-dasharray="4 3"/>'
        )
    return "\n".join([*lines, "</svg>"]) + "\n"


def draw_pictures(parts: Sequence[Part], folder: Path) -> list[Path]:
    """Draw what was measured, a file for each picture; returns the files."""
    series = {name: value for part in parts for name, value in part.series.items()}
    titles = {part.title: part.series for part in parts}
    pictures: dict[str, str] = {}
    if "Throughput against the bound" in titles:
        pictures["throughput"] = _draw_throughput(titles["Throughput against the bound"]["rows"])
    if "Other agents on the same work" in titles:
        pictures["peers"] = _draw_peers(titles["Other agents on the same work"]["rows"])
    if "starts" in series:
        pictures["cold-start"] = _draw_starts(series["starts"])
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, picture in pictures.items():
        file = folder / f"bench-{name}.svg"
        file.write_text(picture, encoding="utf-8")
        files.append(file)
    return files


def _draw_throughput(rows: Sequence[Mapping[str, Any]]) -> str:
    bars = [
        Bar(
            f"{row['setup']}, {row['places']} in flight",
            row["ratio"],
            f"{row['ratio']:.2f}",
            BLUE if row["setup"] == "SQLite" else GREY,
        )
        for row in rows
        if row["reply_share"] == 1 and row["in_work"] > row["places"]
    ]
    return draw_bars(
        "Throughput as a share of what the model's latency allows",
        "Triage 0.4 s, draft 1.5 s, each MultiMail call 30 ms; every email answered; 1 is the bound",
        bars,
        goal=1.0,
    )


def _draw_peers(rows: Sequence[Mapping[str, Any]]) -> str:
    bars = [
        Bar(
            row["peer"],
            row["seconds"],
            f"{row['seconds']:.0f} s, {row['tokens']:,} tokens",
            BLUE if number == 0 else GREY,
        )
        for number, row in enumerate(rows)
    ]
    return draw_bars(
        "The same mail, the same model", "Seconds until every email is handled; tokens next to them", bars
    )


def _draw_starts(starts: Mapping[str, Mapping[str, float]]) -> str:
    bars = []
    for step, times in starts.items():
        bars.append(Bar(f"{step}", times["agent"], f"{1000 * times['agent']:.0f} ms"))
        bars.append(Bar("the same triggers, empty", times["bare"], f"{1000 * times['bare']:.0f} ms", GREY))
    return draw_bars("Cold start", "From the interpreter's start, medians", bars)
