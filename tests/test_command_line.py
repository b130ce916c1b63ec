"""The command line: every command exists and takes what its arguments are called."""

import inspect
import json
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from importlib import import_module
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from local.__main__ import COMMANDS, PIPED_WIDTH, _build_parser
from local.commands.console import TableRow, build_table
from shared.domain import Action, Cause, EmailSummary, ModelText, Outcome, Sentiment, Triage, Urgency
from shared.ledger.entries import LedgerEntry
from shared.ledger.sqlite_store import open_sqlite_ledger
from shared.settings import Secret

WORDS = {
    "ask": ["What waits?"],
    "forget": ["ann@customer.example"],
    "voice": ["support@northwind.example"],
    "lookup": ["support@northwind.example", "ann@customer.example"],
    "notify": ["--test", "support@northwind.example"],
    "done": ["em_1"],
    "pause": ["mb_1"],
    "resume": ["mb_1"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_a_function_that_takes_its_arguments(name: str) -> None:
    options = vars(_build_parser().parse_args([name, *WORDS.get(name, [])]))
    assert options.pop("command") == name
    inspect.signature(getattr(import_module(COMMANDS[name]), name)).bind("console", **options)


def test_every_command_of_the_parser_is_known() -> None:
    (choices,) = (action.choices for action in _build_parser()._actions if action.dest == "command")
    assert choices is not None
    assert set(choices) == set(COMMANDS)


def test_in_a_pipe_no_line_is_wrapped(tmp_path: Path) -> None:
    why = " ".join(f"reason{number}" for number in range(60))
    record = {
        "at": "2026-11-27T10:00:00.000+00:00",
        "actor": "agent",
        "email_id": "em_1",
        "mailbox_id": "mb_1",
        "cause": why,
    }
    with closing(open_sqlite_ledger(tmp_path / "ledger.sqlite")) as ledger:
        ledger.audit.append([json.dumps(record)], Secret("a-key"))
    ended = subprocess.run(
        [sys.executable, "-m", "local", "audit", "em_1"],
        env={"LEDGER_PATH": str(tmp_path / "ledger.sqlite"), "COLUMNS": "80"},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    heading, row = ended.stdout.splitlines()
    assert heading.startswith("when (UTC)")
    assert why in row


@pytest.mark.parametrize(("width", "is_table"), [(80, False), (120, True), (PIPED_WIDTH, True)])
def test_each_email_is_shown_with_its_whole_reason(width: int, *, is_table: bool) -> None:
    at = datetime(2026, 11, 27, tzinfo=UTC)
    summary = EmailSummary("em_1", "Ann <a@x.example>", (), "Logger", "inbound", "received", at)
    why = " ".join(["the email asks for more than one thing that"] * 4)
    triage = Triage(
        Action.ESCALATE, "other", Urgency.NORMAL, Sentiment.NEUTRAL, 0.9, ModelText(""), ModelText(why)
    )
    entry = LedgerEntry(
        mailbox_id="mb_1", email_id="em_1", received_at=at, sender="a@x.example", thread_id=None, due_at=at,
        triage=triage, outcome=Outcome.ESCALATED, cause=Cause.TRIAGED, finished_at=at,
    )  # fmt: skip
    file = StringIO()
    Console(file=file, width=width).print(build_table([TableRow(summary, entry)], width))
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= min(width, 400)
    assert ("category" in lines[0]) is is_table
    words = [word for line in lines for word in line.split()]
    assert words.count("that") == 4, "nothing is cut"
    assert len(lines) == 2 or width != PIPED_WIDTH
