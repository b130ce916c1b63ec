"""`python -m local desk`: what it asks for, what it refuses before it serves, and the page that it serves."""

import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from packaging.specifiers import SpecifierSet
from werkzeug import Request, Response
from werkzeug.datastructures import Headers

from local.approval.agent import DeskAgent as RemoteAgent
from local.approval.desk import MULTIMAIL_URL, QUESTIONS, check_access, read_settings
from local.host.http_server import LoopbackServer
from local.multimail.simulator import MultiMailSimulator
from local.testing.desk_agent import FUNCTION_KEY, DeskAgent
from shared.errors import ConfigurationError, TransientError
from shared.operator.trust import TrustReport

ROOT = Path(__file__).parent.parent
GIVEN = {
    "REVIEWER_KEY": "mm_live_1",
    "AGENT_URL": "https://func.azurewebsites.net",
    "AGENT_KEY": "function key".replace(" ", "-"),
}


def refuse(name: str, _question: str) -> str:
    raise AssertionError(f"{name} is known already")


@dataclass
class Places:
    """Both places over HTTP, as the environment names them."""

    simulator: MultiMailSimulator
    agent: DeskAgent
    environment: dict[str, str]


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Places]:
    def now() -> datetime:
        return datetime.now(UTC)

    def report(days: int) -> TrustReport:
        return TrustReport(now(), now(), days, ())

    simulator = MultiMailSimulator(now)
    simulator.add_mailbox("support@northwind.example", mailbox_id="support")
    with LoopbackServer(simulator.app) as api:
        agent = DeskAgent(api.url, simulator.add_key(), tmp_path, now, report=report)
        with LoopbackServer(agent.app) as functions:
            environment = {
                "MULTIMAIL_API_URL": api.url,
                "REVIEWER_KEY": simulator.add_key(["read", "oversight"]),
                "AGENT_URL": functions.url,
                "AGENT_KEY": FUNCTION_KEY,
            }
            yield Places(simulator, agent, environment)
        agent.ledger.close()


def test_what_the_environment_does_not_say_is_asked_for() -> None:
    asked: list[str] = []

    def answer(name: str, question: str) -> str:
        asked.append(name)
        assert question == QUESTIONS[name]
        return f" {GIVEN[name]} "

    settings = read_settings({}, answer)
    assert asked == ["REVIEWER_KEY", "AGENT_URL", "AGENT_KEY"]
    assert settings.multimail_url == MULTIMAIL_URL
    assert settings.key.value == GIVEN["REVIEWER_KEY"]
    assert settings.agent.key.value == GIVEN["AGENT_KEY"]
    assert "mm_live" not in repr(settings)
    assert read_settings(GIVEN, refuse) == settings


@pytest.mark.parametrize("page", ["desk.md", "settings.md"])
def test_the_documents_name_every_variable_that_is_read(page: str) -> None:
    names = {"AGENT_SCOPE", *QUESTIONS}
    for name in names:
        assert f"`{name}`" in (ROOT / "docs" / page).read_text(encoding="utf-8")


def test_the_documented_commands_start_the_desk_from_files_that_exist() -> None:
    text = (ROOT / "docs" / "desk.md").read_text(encoding="utf-8")
    commands = [line.split() for line in text.splitlines() if line.startswith("uv run ")]
    assert len(commands) == 2  # for Windows, and for the others
    for words in commands:
        assert words[-4:] == ["python", "-m", "local", "desk"]
        assert (ROOT / words[words.index("--with-requirements") + 1]).exists()
        python = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
            "requires-python"
        ]
        assert SpecifierSet(python).contains(words[words.index("--python") + 1])


def test_with_entra_id_the_function_key_is_asked_for_all_the_same() -> None:
    given = {name: value for name, value in GIVEN.items() if name != "AGENT_KEY"}
    settings = read_settings(given | {"AGENT_SCOPE": "api://agent/.default"}, lambda name, _: f"typed-{name}")
    assert settings.agent.key.value == "typed-AGENT_KEY"


def test_with_entra_id_a_call_has_a_token_besides_the_function_key() -> None:
    settings = read_settings(GIVEN | {"AGENT_SCOPE": "api://agent/.default"}, refuse)
    assert settings.agent.get_token is not None
    received: list[Headers] = []

    def answer(environ: Any, start_response: Any) -> Any:
        received.append(Request(environ).headers)
        return Response("{}")(environ, start_response)

    with LoopbackServer(answer) as app:
        access = replace(settings.agent, url=app.url, get_token=lambda: "token-of-the-tenant")
        RemoteAgent(access, "a", timeout=(5, 5)).say("done", ("support", "em_1"))
    (sent,) = received
    assert sent["Authorization"] == "Bearer token-of-the-tenant"
    assert sent["X-Functions-Key"] == GIVEN["AGENT_KEY"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"AGENT_URL": "http://func.azurewebsites.net"}, "AGENT_URL"),
        ({"AGENT_URL": "func.azurewebsites.net"}, "AGENT_URL"),
        ({"AGENT_URL": "https://["}, "AGENT_URL"),
        ({"MULTIMAIL_API_URL": "http://api.multimail.dev"}, "MULTIMAIL_API_URL"),
        ({"REVIEWER_KEY": "mm live"}, "REVIEWER_KEY"),
        ({"AGENT_KEY": "schl\u00fcssel"}, "AGENT_KEY"),
    ],
)
def test_what_cannot_work_is_named_before_anything_is_sent(changes: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as caught:
        read_settings(GIVEN | changes, refuse)
    assert len(caught.value.problems) == 1


def test_both_places_are_knocked_at_and_every_wrong_key_is_named(places: Places) -> None:
    check_access(read_settings(places.environment, refuse))
    wrong = places.environment | {"AGENT_KEY": "wrong", "REVIEWER_KEY": places.simulator.add_key(["read"])}
    with pytest.raises(ConfigurationError) as caught:
        check_access(read_settings(wrong, refuse))
    assert len(caught.value.problems) == 2
    assert "lacks the scope oversight" in caught.value.problems[0]
    assert caught.value.problems[1].startswith("AGENT_KEY")
    places.agent.is_away = True
    with pytest.raises(TransientError):
        check_access(read_settings(places.environment, refuse))


def test_a_wrong_reviewer_key_is_explained_to_a_reviewer(places: Places) -> None:
    for key, told in (("unknown", "does not know this key"), (places.simulator.add_key(), "the agent's own")):
        with pytest.raises(ConfigurationError) as caught:
            check_access(read_settings(places.environment | {"REVIEWER_KEY": key}, refuse))
        (problem,) = caught.value.problems
        assert problem.startswith("REVIEWER_KEY")
        assert told in problem
        assert "make a key of your own in MultiMail's dashboard" in problem
        assert "SECRET_NAME" not in problem


@pytest.mark.parametrize("ending", ["/", "/api", "/api/"])
def test_the_agent_s_address_may_end_as_its_functions_do(places: Places, ending: str) -> None:
    given = places.environment | {"AGENT_URL": places.environment["AGENT_URL"] + ending}
    check_access(read_settings(given, refuse))


def test_a_scope_without_a_token_is_named_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # where nobody can sign in
    settings = read_settings(GIVEN | {"AGENT_SCOPE": "api://wrong/.default"}, refuse)
    assert settings.agent.get_token is not None
    with pytest.raises(ConfigurationError, match=r"^AGENT_SCOPE: Entra ID gave no token for it"):
        settings.agent.get_token()
    assert caplog.records == []


def test_the_desk_is_served_until_it_is_stopped(places: Places, tmp_path: Path) -> None:
    places.simulator.deliver("support", "ann@customer.example", "Warranty", "How long?")
    environment = places.environment | {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1",
    }  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-m", "local", "desk"], cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        line = running.stdout.readline()
        assert line.startswith("Review desk: http://127.0.0.1:")
        html = requests.get(f"{line.split()[2]}/?show=all", timeout=30).text
        running.send_signal(signal.SIGTERM)
        rest = running.stdout.read()
    assert "Warranty" in html
    assert (running.returncode, rest) == (0, "")


def test_without_a_terminal_a_missing_key_is_named(places: Places, tmp_path: Path) -> None:
    environment = places.environment | {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "REVIEWER_KEY": "",
    }
    done = subprocess.run(
        [sys.executable, "-m", "local", "desk"], cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "REVIEWER_KEY is not set: your MultiMail key, with the scopes read and oversight." in done.stdout
