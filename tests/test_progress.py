"""A long command says how far it is, and does not flood the file that its output goes to."""

from io import StringIO

from rich.console import Console

from local.testing.progress import LINE_EVERY_SECONDS, Progress


def test_a_file_gets_a_line_every_half_minute_and_no_bar() -> None:
    written, seconds = StringIO(), iter(range(0, 100_000, 1))
    with Progress(Console(file=written), 600, now=lambda: float(next(seconds))) as progress:
        progress.describe("pairs [of faults]")
        for _ in range(600):
            progress.advance()
    lines = written.getvalue().splitlines()
    assert 2 <= len(lines) <= 2 * 600 / LINE_EVERY_SECONDS
    assert lines[0].endswith("of 600 done. pairs [of faults]")
    assert not any(sign in written.getvalue() for sign in "\r\x1b")


def test_a_short_command_writes_nothing_into_a_file() -> None:
    written = StringIO()
    with Progress(Console(file=written), 3, now=lambda: 0.0) as progress:
        for _ in range(3):
            progress.advance()
    assert written.getvalue() == ""


def test_a_terminal_shows_a_bar() -> None:
    written = StringIO()
    with Progress(Console(file=written, force_terminal=True, width=80), 2) as progress:
        progress.describe("reading")
        progress.advance()
    assert "reading" in written.getvalue()
    assert "1/2" in written.getvalue()
