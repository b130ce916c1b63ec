"""Plain English: what people read uses the words of docs/glossary.md, and none of the retired ones."""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from local.__main__ import _build_parser

ROOT = Path(__file__).parent.parent
# What to write instead of each: enqueue, work item, oversight, again, fix, a person or a role, next to.
RETIRED = re.compile(
    r"\b(?:ring|rings|ringing|rang|rung|doorbells?|leash(?:es)?|anew|mend(?:s|ed|ing)?|whoever|beside)\b",
    re.IGNORECASE,
)
TEXTS = (
    "*.md",
    "azure.yaml",
    "docs/*.md",
    "docs/*.svg",
    "docs/*.toml",
    "config/*.yaml",
    "infra/**/*.bicep",
    "infra/**/*.bicepparam",
    "infra/**/*.kql",
    "scripts/*.sh",
    "local/approval/templates/*.html",
    "local/approval/static/*.js",
    "local/commands/demo_config/*.yaml",
    "shared/operator/*.html",
    ".github/**/*.yml",
    ".github/**/*.md",
)
CODE = (
    "function_app.py",
    "shared/**/*.py",
    "local/**/*.py",
    "evals/**/*.py",
    "benchmarks/**/*.py",
    "capacity/**/*.py",
    "scripts/*.py",
)
EXCEPTIONS = frozenset({("benchmarks/texts.py", "beside")})  # an email as a customer writes it


def find_files(patterns: Iterable[str]) -> list[str]:
    return sorted({path.relative_to(ROOT).as_posix() for pattern in patterns for path in ROOT.glob(pattern)})


def find_retired(path: str, lines: Iterable[tuple[int, str]]) -> Iterator[str]:
    for number, line in lines:
        for match in RETIRED.finditer(line):
            if (path, match.group().lower()) not in EXCEPTIONS:
                yield f"{path}:{number}: {match.group()!r} in {line.strip()[:100]!r}"


def read_strings(source: str) -> Iterator[tuple[int, str]]:
    """Every string literal with its line, docstrings and the fixed parts of f-strings included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for offset, line in enumerate(node.value.splitlines()):
                yield node.lineno + offset, line


@pytest.mark.parametrize("path", find_files(TEXTS))
def test_no_text_has_a_retired_word(path: str) -> None:
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    assert list(find_retired(path, enumerate(lines, 1))) == []


@pytest.mark.parametrize("path", find_files(CODE))
def test_no_message_or_docstring_has_a_retired_word(path: str) -> None:
    strings = read_strings((ROOT / path).read_text(encoding="utf-8"))
    assert list(find_retired(path, strings)) == []


def test_the_search_finds_words_and_not_parts_of_words() -> None:
    source = 'def ring(anew):\n    """Mend it."""\n    return f"recommend {anew} string, beside"\n'
    found = list(find_retired("x.py", read_strings(source)))
    assert [line.split(":")[1] for line in found] == ["2", "3"]
    assert "'Mend'" in found[0]
    assert "'beside'" in found[1]


def test_no_help_text_has_a_retired_word() -> None:
    parser = _build_parser()
    helps = [parser.format_help()]
    for action in parser._actions:
        if isinstance(action.choices, dict):
            helps += [command.format_help() for command in action.choices.values()]
    assert len(helps) > 1
    assert list(find_retired("--help", enumerate("\n".join(helps).splitlines(), 1))) == []


def test_the_glossary_is_sorted_and_defines_each_term_in_one_sentence() -> None:
    lines = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").partition("\n## ")[0].splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][1:]
    terms = [term for term, _ in rows]
    assert terms == sorted(set(terms))
    assert {"ledger, row", "submission", "gate", "outcome", "cause", "slot", "work item"} <= set(terms)
    assert [meaning for _, meaning in rows if not meaning.endswith(".") or ". " in meaning] == []


@pytest.mark.parametrize("path", ["README.md", "CONTRIBUTING.md"])
def test_the_glossary_is_linked(path: str) -> None:
    assert "(docs/glossary.md)" in (ROOT / path).read_text(encoding="utf-8")


def test_no_link_between_the_documents_is_broken() -> None:
    broken = []
    for path in find_files(("*.md", "docs/*.md")):
        text = (ROOT / path).read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", text):
            name, _, anchor = target.partition("#")
            file = (ROOT / path).parent / name if name else ROOT / path
            if not file.exists() or (anchor and anchor not in find_anchors(file)):
                broken.append(f"{path}: {target}")
    assert broken == []


def find_anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
