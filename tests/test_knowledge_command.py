"""`python -m local knowledge`: how much there is, whether it goes in whole, and what a question finds."""

from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from local.commands.configuration import knowledge
from local.host.http_server import LoopbackServer
from local.host.run import MISCONFIGURED, OK
from local.model.chat_simulator import ChatSimulator

LONG = "".join(f"# Section {n}\n{'word ' * 300}\n" for n in range(5))


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration with two folders of knowledge, and the settings that name it."""
    for name, text in (("shared", "# Delivery\nThree days.\n"), ("support", "# Repair\nA week.\n")):
        (tmp_path / "knowledge" / name).mkdir(parents=True)
        (tmp_path / "knowledge" / name / "a.md").write_text(text, encoding="utf-8")
    profile = "support@northwind.example:\n  knowledge: [support]\n"
    (tmp_path / "mailboxes.yaml").write_text(profile, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "MULTIMAIL_API_KEY": "key", "MODEL_ENDPOINT": "https://x.example", "TRIAGE_DEPLOYMENT": "mini",
        "MODEL_API_KEY": "key", "CONFIG_PATH": str(tmp_path),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.fixture
def model(config: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatSimulator]:
    simulator = ChatSimulator()
    with LoopbackServer(simulator.app) as server:
        monkeypatch.setenv("MODEL_ENDPOINT", server.url)
        monkeypatch.setenv("EMBEDDING_DEPLOYMENT", "embed")
        yield simulator


def say(mailbox: str | None, question: str | None = None, *, embed: bool = False) -> tuple[int, str]:
    console = Console(file=StringIO(), width=120)
    status = knowledge(console, mailbox, question, embed=embed)
    assert isinstance(console.file, StringIO)
    return status, console.file.getvalue()


@pytest.mark.usefixtures("config")
def test_knowledge_that_fits_goes_in_whole() -> None:
    status, said = say("Support@northwind.example", "How long does a repair take?")
    assert status == OK
    assert "shared, support: 2 passages, about" in said
    assert "All of it goes into every draft (KNOWLEDGE_TOKENS 24,000)." in said
    assert "support/a.md  Repair" in said
    assert "Passages that the question finds: 1." in said


def test_of_what_does_not_fit_it_shows_what_a_draft_would_get(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (config / "knowledge" / "shared" / "long.md").write_text(LONG, encoding="utf-8")
    monkeypatch.setenv("KNOWLEDGE_TOKENS", "1000")
    _, said = say("other@northwind.example", "word")
    assert "A draft gets the passages that are found (KNOWLEDGE_TOKENS 1,000)." in said
    assert "shared/long.md" in said
    assert "Passages that the question finds: 5, of which a draft would get 3." in said
    assert "support/a.md" not in said


def test_vectors_are_written_next_to_the_files(config: Path, model: ChatSimulator) -> None:
    status, said = say(None, embed=True)
    assert status == OK
    assert "Wrote the vectors of 2 passages." in said
    assert (config / "knowledge" / "vectors.sqlite").is_file()
    model.calls.clear()
    _, said = say("support@northwind.example", "repair")
    assert [call.body["input"] for call in model.calls] == [["repair"]]
    assert "Passages that the question finds: 2." in said


@pytest.mark.usefixtures("config")
def test_vectors_without_a_deployment_are_refused_with_the_setting() -> None:
    status, said = say(None, embed=True)
    assert status == MISCONFIGURED
    assert "EMBEDDING_DEPLOYMENT" in said


def test_it_wants_a_mailbox_or_embed() -> None:
    status, said = say(None)
    assert status == MISCONFIGURED
    assert "--embed" in said
