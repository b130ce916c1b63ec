"""The counter of how the code is cut: each rule on a small made-up tree."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts import shape
from scripts.shape import Figure, measure

ROOT = Path(__file__).parent.parent
ENTRIES, MODULES, PIPELINE, CLASS, LONG, ONCE, PRIVATE = range(7)


def plant(root: Path, **files: str) -> list[Figure]:
    """Write modules of shared/ (`part__module`) into a small tree and measure it."""
    texts = {
        "function_app.py": "from shared.replying.pipeline import handle\n\nhandle()\nhandle()\n",
        "local/__init__.py": "",
        "local/host/run.py": "",
        "shared/replying/pipeline.py": "def handle():\n    return 1\n",
        **{f"shared/{name.replace('__', '/')}.py": text for name, text in files.items()},
    }
    for path, text in texts.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return measure(root)


def called_once(root: Path, **files: str) -> list[str]:
    return [place.split()[-1] for place in plant(root, **files)[ONCE].places]


def lines_of(name: str, count: int) -> str:
    return f"def {name}():\n" + "    a = 1\n" * count


def test_entries_modules_and_lines_are_counted(tmp_path: Path) -> None:
    (tmp_path / "shared" / "__pycache__").mkdir(parents=True)
    figures = plant(tmp_path, mail__client="", mail__wire="", mail____init__="", errors="", replying__gate="")
    assert figures[ENTRIES].value == 3  # replying, mail, errors
    assert figures[MODULES].value == 2
    assert figures[PIPELINE].value == 2


def test_a_package_of_local_counts_too(tmp_path: Path) -> None:
    plant(tmp_path)
    for number in range(13):
        (tmp_path / "local" / "host" / f"m{number}.py").write_text("")
    modules = measure(tmp_path)[MODULES]
    assert (modules.value, modules.is_broken) == (14, True)
    assert modules.places == ["local/host: 14"]


def test_the_longest_class_is_named_when_it_is_over_the_bound(tmp_path: Path) -> None:
    long = plant(tmp_path, a="class Long:\n" + "    x = 1\n" * 300)[CLASS]
    assert (long.value, long.is_broken, list(long.places)) == (301, True, ["shared/a.py:1 Long: 301"])
    assert not plant(tmp_path, a="class Long:\n" + "    x = 1\n" * 299)[CLASS].is_broken


def test_a_body_is_counted_without_signature_and_docstring(tmp_path: Path) -> None:
    text = 'def f(\n    a,\n    b,\n):\n    """One.\n\n    Two.\n    """\n' + "    a = 1\n" * 40
    assert plant(tmp_path, a=text)[LONG].value == 0
    figure = plant(tmp_path, a=lines_of("f", 41))[LONG]
    assert (figure.value, list(figure.places)) == (0.5, ["shared/a.py:1 f"])


@pytest.mark.parametrize(
    "text",
    [
        "def _f():\n    return 1\n\n\nx = _f()\n",
        "def public():\n    return 1\n\n\nx = public()\n",
        "class A:\n    def method(self):\n        return 1\n\n    def __init__(self):\n        self.method()\n",
        "def f():\n    return 1\n\n\nTABLE = {'f': f}\n",
    ],
)
def test_a_function_that_only_its_own_module_mentions_once_counts(tmp_path: Path, text: str) -> None:
    assert len(called_once(tmp_path, a=text)) == 1


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("def f():\n    return 1\n\n\nx = f() + f()\n", ""),
        ("def f():\n    return 1\n", "from shared.a import f\n\nf()\n"),
        ("def f():\n    return 1\n\n\nx = f()\n", "import shared.a\n\nshared.a.f()\n"),
        ("def unused():\n    return 1\n", ""),
        ("class A:\n    def __len__(self):\n        return 1\n\n\nx = A().__len__()\n", ""),
        ("@app.route()\ndef f():\n    return 1\n\n\nx = f\n", ""),
        ("class A(Protocol):\n    def f(self):\n        ...\n\n\nx = A.f\n", ""),
        ("class A(B):\n    def close(self):\n        super().close()\n", ""),
    ],
)
def test_what_others_mention_or_call_by_their_own_rules_does_not_count(
    tmp_path: Path, text: str, other: str
) -> None:
    assert called_once(tmp_path, a=text, b=other) == []


def test_a_mention_in_local_counts_as_another_user_s(tmp_path: Path) -> None:
    assert called_once(tmp_path, a="def f():\n    return 1\n\n\nx = f()\n") == ["f"]
    (tmp_path / "local" / "host" / "run.py").write_text("from shared.a import f\n")
    assert measure(tmp_path)[ONCE].value == 0


def test_private_functions_are_also_counted_where_two_modules_use_the_same_name(tmp_path: Path) -> None:
    text = "def _f():\n    return 1\n\n\nx = _f()\n"
    figures = plant(tmp_path, a=text, b=text)
    assert figures[ONCE].places == []
    assert list(figures[PRIVATE].places) == ["shared/a.py:1 _f", "shared/b.py:1 _f"]
    assert not figures[PRIVATE].is_broken


def test_the_bounds_are_those_that_were_agreed() -> None:
    assert (shape.MAX_ENTRIES, shape.MAX_MODULES, shape.MAX_PIPELINE_LINES) == (18, 12, 350)
    assert (shape.MAX_CLASS_LINES, shape.MAX_LONG_SHARE, shape.MAX_CALLED_ONCE_SHARE) == (300, 0.01, 0.14)
    assert Figure("x", 0.141, shape.MAX_CALLED_ONCE_SHARE).is_broken
    assert not Figure("x", 0.14, shape.MAX_CALLED_ONCE_SHARE).is_broken


def test_the_script_prints_each_figure_and_its_status_says_whether_a_bound_is_broken() -> None:
    command = [sys.executable, "scripts/shape.py", "--list"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    figures = measure(ROOT)
    assert all(figure.name in done.stdout for figure in figures)
    assert done.returncode == int(any(figure.is_broken for figure in figures))
    assert "    composition.py" in done.stdout
