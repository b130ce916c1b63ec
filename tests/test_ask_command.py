"""`python -m local ask` as an operator runs it: a process of its own, the demo's mail, the simulated model."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from local.commands.demo_mail import seed_demo
from local.host.http_server import LoopbackServer
from local.model import chat_simulator as sim
from local.model.chat_simulator import ChatSimulator
from local.multimail.simulator import MultiMailSimulator
from shared.settings import MODEL_SDKS

ROOT = Path(__file__).parent.parent


@dataclass
class Services:
    """Both services over HTTP, and the command that asks."""

    multimail: MultiMailSimulator
    chat: ChatSimulator
    environment: dict[str, str]
    folder: Path

    def ask(self, *words: str, **changes: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "local", "ask", *words],
            cwd=self.folder, env=self.environment | changes, capture_output=True, text=True, check=False,
            timeout=60,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    multimail = MultiMailSimulator(lambda: datetime.now(UTC))
    seed_demo(multimail, datetime.now(UTC))
    chat = ChatSimulator(api_key="k")
    with LoopbackServer(multimail.app) as multimail_server, LoopbackServer(chat.app) as chat_server:
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT),
            "MULTIMAIL_API_URL": multimail_server.url, "MULTIMAIL_API_KEY": multimail.add_key(),
            "MODEL_ENDPOINT": chat_server.url, "MODEL_API_KEY": "k", "TRIAGE_DEPLOYMENT": "small",
            "LEDGER_PATH": str(tmp_path / "ledger.sqlite"),
        }  # fmt: skip
        yield Services(multimail, chat, environment, tmp_path)


@pytest.mark.parametrize("sdk", MODEL_SDKS)
def test_tool_calls_are_printed_and_then_the_answer(services: Services, sdk: str) -> None:
    status, output = services.ask("What came in today?", MODEL_SDK=sdk)
    assert status == 0, output
    lines = output.splitlines()
    assert lines[0].split() == ["check_inbox", "ok"]
    assert "found:" in output
    assert "2 model calls" in lines[-1]


def test_the_simulated_model_finds_reads_and_summarises_an_email(services: Services) -> None:
    box = next(iter(services.multimail.mailboxes))
    email_id = services.multimail.deliver(
        box, "Ann <ann@customer.example>", "The blue [bold]valve[/bold]", "It leaks since Monday."
    )
    status, output = services.ask("Summarise the email about the blue")
    assert status == 0, output
    assert f"read_email  ok  {box}/{email_id}" in output
    assert "“The blue [bold]valve[/bold]” from Ann <ann@customer.example>: It leaks since Monday." in output


def test_a_new_email_is_submitted_once_per_request_id_and_waits(services: Services) -> None:
    for _ in range(2):
        status, output = services.ask("Send bob@partner.example: we are on it.", "--request-id", "monday-1")
        assert status == 0, output
        assert "Submitted" in output
    (accepted,) = services.multimail.accepted
    assert accepted.recipients == ("bob@partner.example",)
    status, output = services.ask("What waits for approval?")
    assert status == 0, output
    assert "1 waiting for approval" in output


def test_a_model_that_is_down_is_said_plainly(services: Services) -> None:
    services.chat.script(sim.refused(503))
    status, output = services.ask("What came in today?")
    assert status == 1
    assert "nothing was submitted" in output
    assert "Traceback" not in output


def test_a_missing_setting_is_named(services: Services) -> None:
    status, output = services.ask("What came in today?", TRIAGE_DEPLOYMENT="")
    assert status == 2
    assert "TRIAGE_DEPLOYMENT" in output


def test_an_empty_question_is_no_question(services: Services) -> None:
    status, output = services.ask(" ")
    assert status == 2
    assert "question must be" in output
