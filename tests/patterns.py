"""Every regular expression of `shared/`, as JavaScript writes it, and where it may begin and end."""

import ast
import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from shared.checks import phrases, values
from shared.checks.lexicon import load_table, write_alternatives

ROOT = Path(__file__).parent.parent
ANCHORED = {"match": "^(?:{})", "fullmatch": "^(?:{})$"}


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern under the name of the module and of the value that holds it, and as JavaScript writes it."""

    name: str
    compiled: re.Pattern[str]
    source: str
    flags: str


def list_patterns() -> list[Pattern]:
    """All patterns that modules hold or write in a call, and those of the tables of phrases; each once."""
    sources = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "shared").rglob("*.py"))}
    everything = "\n".join(sources.values())
    found: dict[tuple[str, int], Pattern] = {}
    for path, text in sources.items():
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for key, value in vars(importlib.import_module(name)).items():
            for pattern in _list_compiled(value):
                uses = set(
                    re.findall(rf"\b{key}\.(match|fullmatch|search|sub|split|findall|finditer)\b", everything)
                )
                found[pattern.pattern, pattern.flags] = build_pattern(f"{name}.{key}", pattern, uses)
        for line, method, pattern in _list_written(text):
            found.setdefault(
                (pattern.pattern, pattern.flags), build_pattern(f"{name}, line {line}", pattern, {method})
            )
    for table in phrases.load_tables():
        for pattern in phrases.build_patterns(table):
            found[pattern.pattern, pattern.flags] = build_pattern(
                f"phrases.toml, {table}", pattern, {"finditer"}
            )
    for name, pattern in _list_lexicon():
        found.setdefault((pattern.pattern, pattern.flags), build_pattern(name, pattern, {"finditer"}))
    return list(found.values())


def _list_lexicon() -> Iterator[tuple[str, re.Pattern[str]]]:
    """The lists of lexicon.toml that repeat something before their end, and what the values are read by.

    A list without "*" has only words of a fixed length, and "*" at the end of a word takes its last letters in one way.
    """
    for name, words in _list_words("", load_table("")):
        if inner := [word for word in words.split() if "*" in word[:-1]]:
            yield f"lexicon.toml, {name}", re.compile(write_alternatives(" ".join(inner)))
    for build in (values._calendar, values._units, values._number_words):
        built = build()
        for field in fields(built):
            if isinstance(pattern := getattr(built, field.name), re.Pattern):
                yield f"shared.checks.values.{build.__name__}, {field.name}", pattern


def _list_words(name: str, table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, str):
            yield f"{name} {key}".strip(), value
        elif isinstance(value, dict):
            yield from _list_words(f"{name}.{key}".strip("."), value)


def _list_written(text: str) -> Iterator[tuple[int, str, re.Pattern[str]]]:
    """The patterns that are written in calls of `re`."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="re"), attr=method),
                args=[ast.Constant(value=str(source)), *_],
            ) if method not in ("compile", "escape"):
                yield node.lineno, method, re.compile(source)


def _list_compiled(value: object) -> Iterator[re.Pattern[str]]:
    if isinstance(value, re.Pattern):
        if isinstance(value.pattern, str):
            yield value
    elif isinstance(value, dict):
        yield from (part for item in value.values() for part in _list_compiled(item))
    elif isinstance(value, list | tuple | set | frozenset):
        yield from (part for item in value for part in _list_compiled(item))


def build_pattern(name: str, pattern: re.Pattern[str], uses: set[str]) -> Pattern:
    text = pattern.pattern
    if pattern.flags & re.VERBOSE:
        text = re.sub(r"(?<!\\)(?:\s+|#[^\n]*)", "", text)
    text = re.sub(r"\(\?P<", "(?<", text)
    text = re.sub(r"\(\?P=(\w+)\)", r"\\k<\1>", text)
    text = re.sub(r"\(\?[aimsux]+:", "(?:", text)
    anchor = ANCHORED.get(uses.pop(), "{}") if len(uses) == 1 else "{}"
    flags = "i" if pattern.flags & re.IGNORECASE else ""
    flags += "m" if pattern.flags & re.MULTILINE else ""
    return Pattern(name, pattern, anchor.replace("{}", text), flags)
