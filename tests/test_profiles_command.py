"""`python -m local profiles`: the file with the profiles is checked without any setting that the agent needs."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from local.commands.configuration import profiles
from local.host.run import MISCONFIGURED, OK


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the configuration, and none of the required settings."""
    monkeypatch.chdir(tmp_path)
    for name in ("MULTIMAIL_API_KEY", "MODEL_ENDPOINT", "TRIAGE_DEPLOYMENT", "SEARCH_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CONFIG_PATH", str(tmp_path))
    (tmp_path / "knowledge" / "support").mkdir(parents=True)
    return tmp_path


def say() -> tuple[int, str]:
    console = Console(file=StringIO(), width=400)
    status = profiles(console)
    assert isinstance(console.file, StringIO)
    return status, console.file.getvalue()


def test_a_right_file_is_said_to_be_right(config: Path) -> None:
    (config / "mailboxes.yaml").write_text(
        "mb_1:\n  voice: Brief.\n  knowledge: [support]\n", encoding="utf-8"
    )
    status, said = say()
    assert status == OK
    assert "mb_1: 6 of 6,000 characters, " in said
    assert "mailboxes.yaml is right." in said


def test_each_look_up_has_a_line(config: Path) -> None:
    (config / "mailboxes.yaml").write_text(
        r"""
mb_1:
  lookups:
    orders:
      url: https://shop.example:8443/{address}/{reference}
      references: \bA-\d+\b
      address_field: email
      show: {Order: number}
      header: x-functions-key
      secret: lookup-orders
      categories: [question, support]
      only_for: [partner]
    contracts: {url: "https://facts.example/{address}", show: {Ends: ends}, audience: "api://facts"}
    news: {url: "https://news.example/{address}", show: {News: news}}
""",
        encoding="utf-8",
    )
    status, said = say()
    assert status == OK
    assert [line for line in said.splitlines() if "look-up" in line] == [
        "  look-up orders: shop.example:8443 by {address} and {reference}, signs in with lookup-orders in "
        "x-functions-key, for question, support, contacts tagged partner",
        "  look-up contracts: facts.example by {address}, signs in as the app's identity to api://facts, "
        "for every category",
        "  look-up news: news.example by {address}, does not sign in, for every category",
    ]


@pytest.mark.parametrize(
    ("written", "line", "told"),
    [
        ("mb_1:\n  voice: Brief: no jokes\n", 2, "a text with a colon and a space needs quotes"),
        ("mb_1:\n\tvoice: Brief\n", 2, "a tab: indent with spaces"),
        ("mb_1:\n  voice: @home\n", 2, "a text that begins with such a character needs quotes"),
        (
            "mb_1:\n  lookups:\n    - name: orders\n    contracts:\n", 4,
            "the indentation, or a dash, does not fit the lines above",
        ),
    ],
)  # fmt: skip
def test_what_is_no_yaml_is_told_in_plain_words(config: Path, written: str, line: int, told: str) -> None:
    (config / "mailboxes.yaml").write_text(written, encoding="utf-8")
    assert f"mailboxes.yaml, line {line}: this is not YAML ({told}): correct it." in say()[1]


def test_mistakes_are_named_with_line_and_remedy(config: Path) -> None:
    written = "mb_1:\n  min_confidence: 2\n  knowledge: [sales]\n"
    (config / "mailboxes.yaml").write_text(written, encoding="utf-8")
    status, said = say()
    assert status == MISCONFIGURED
    assert "line 2, mb_1: min_confidence must be a number from 0 to 1." in said
    assert (
        "line 3, mb_1: knowledge names 'sales', but the folder knowledge/sales does not exist: create it"
        in said
    )


def test_with_a_search_service_any_folder_may_be_named(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEARCH_ENDPOINT", "https://x.search.windows.net")
    (config / "mailboxes.yaml").write_text("mb_1:\n  knowledge: [sales]\n", encoding="utf-8")
    assert say()[0] == OK


def test_a_file_that_does_not_exist_is_no_right_one(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, said = say()
    assert status == MISCONFIGURED
    assert f"{config / 'mailboxes.yaml'} does not exist: write it, or set CONFIG_PATH to its folder." in said
    monkeypatch.setenv("CONFIG_PATH", str(config / "missing"))
    assert "CONFIG_PATH is not a directory" in say()[1]
