"""How far a long command is: a bar in a terminal, and in a file a line now and then."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

LINE_EVERY_SECONDS = 30


class Progress:
    """A count up to `total`. Outside a terminal it writes at most one line every LINE_EVERY_SECONDS."""

    def __init__(self, console: Console, total: int, now: Callable[[], float] = time.monotonic) -> None:
        columns = (
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), TimeRemainingColumn(elapsed_when_finished=True),
        )  # fmt: skip
        self._console, self._total, self._now = console, total, now
        self._bar = Bar(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=total)
        self._done, self._what = 0, ""
        self._started = self._line_at = now()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def describe(self, what: str) -> None:
        """Say what is being done."""
        self._what = what
        self._bar.update(self._task, description=what)
        self._write_line()

    def advance(self) -> None:
        """Count one more as done."""
        self._done += 1
        self._bar.advance(self._task)
        self._write_line()

    def _write_line(self) -> None:
        if self._console.is_terminal or self._now() - self._line_at < LINE_EVERY_SECONDS:
            return
        self._line_at = self._now()
        line = f"{self._line_at - self._started:.0f} s: {self._done} of {self._total} done. {self._what}"
        self._console.print(line.strip(), highlight=False, markup=False, soft_wrap=True)
