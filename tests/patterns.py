"""Every regular expression of `shared/`, however it is made, as JavaScript writes it."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FUNCTIONS = frozenset({"match", "search", "fullmatch", "sub", "subn", "split", "findall", "finditer", "compile"})


def list_patterns() -> dict[str, tuple[str, bool]]:
    """Source and case-blindness of each pattern, by where it stands."""
    found: dict[str, tuple[str, bool]] = {}
    for path in sorted((ROOT / "shared").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for line, source in _list_literals(path):
            found[f"{name}:{line}"] = (source, False)
        for key, value in vars(importlib.import_module(name)).items():
            for number, pattern in enumerate(_list_compiled(value)):
                found[f"{name}.{key}.{number}"] = (pattern.pattern, bool(pattern.flags & re.IGNORECASE))
    return found


def _list_literals(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args
        if not is_call or not isinstance(node.func.value, ast.Name) or node.func.value.id != "re":
            continue
        first = node.args[0]
        if node.func.attr in FUNCTIONS and isinstance(first, ast.Constant) and isinstance(first.value, str):
            yield node.lineno, first.value


def _list_compiled(value: object) -> Iterator[re.Pattern[str]]:
    if isinstance(value, re.Pattern):
        if isinstance(value.pattern, str):
            yield value
    elif isinstance(value, dict):
        yield from (part for item in value.values() for part in _list_compiled(item))
    elif isinstance(value, list | tuple | set | frozenset):
        yield from (part for item in value for part in _list_compiled(item))


def to_javascript(pattern: str) -> str:
    """The same pattern for a checker that reads JavaScript's."""
    text = re.sub(r"\(\?P<", "(?<", pattern)
    text = re.sub(r"\(\?[aimsux]+(?:-[imsx]+)?:", "(?:", text)
    text = re.sub(r"^\(\?[aimsux]+\)", "", text)
    text = re.sub(r"\(\?P=(\w+)\)", r"\\k<\1>", text)
    return text.replace(r"\Z", "$").replace(r"\A", "^")
