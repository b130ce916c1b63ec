"""The `az` and `azd` commands in scripts, workflows and documents, read by the shells' grammars."""

import re
import shlex
import subprocess
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import tree_sitter_bash
import tree_sitter_powershell
import yaml
from tree_sitter import Language, Node, Parser

ROOT = Path(__file__).parent.parent
PROGRAMS = ("az", "azd")
PLACEHOLDER = "x"
# What is known only when a command runs: a variable, or what another command prints.
_COMPUTED = {"simple_expansion", "expansion", "command_substitution", "variable", "sub_expression"}
_POSIX = Parser(Language(tree_sitter_bash.language()))
_POWERSHELL = Parser(Language(tree_sitter_powershell.language()))
_PARSERS = {
    "sh": _POSIX, "bash": _POSIX, "console": _POSIX,
    "pwsh": _POWERSHELL, "powershell": _POWERSHELL, "ps1": _POWERSHELL,
}  # fmt: skip
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`(azd? [^`]+)`")
_PRINTS = re.compile(r"\b(?:Write-\w+|Out-\w+|Tee-Object|Stop-Script|WriteLine|Write)\b", re.IGNORECASE)
# In messages and comments a name goes on as a sentence.
_NAME = re.compile(r"\b(azd?)((?: [a-z][a-z-]*[a-z])+)")


@dataclass(frozen=True)
class Command:
    """One command: the file, and its words with a placeholder for what is known only when it runs."""

    path: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.path}: {shlex.join(self.words)}"


class WrongSyntaxError(ValueError):
    """The text is not what its shell understands."""


def list_files(*suffixes: str) -> list[Path]:
    """The project's own files with one of these endings."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True, text=True, cwd=ROOT, check=True,
    ).stdout  # fmt: skip
    paths = [ROOT / line for line in listed.splitlines() if line.endswith(suffixes)]
    return sorted(path for path in paths if path.exists())


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from _walk(child)


def _replace_computed(node: Node, start: int) -> str:
    """The node's text from `start` on, with a placeholder for each outermost part that is computed."""
    if node.end_byte <= start or node.text is None:
        return ""
    if node.type in _COMPUTED:
        return PLACEHOLDER
    text, at = b"", max(start, node.start_byte)
    for child in node.children:
        if child.end_byte > at:
            text += node.text[at - node.start_byte : child.start_byte - node.start_byte]
            text += _replace_computed(child, at).encode()
            at = child.end_byte
    return (text + node.text[at - node.start_byte :]).decode()


def parse_script(text: str, shell: str) -> Iterator[tuple[str, ...]]:
    """Every command of the two programs in a script, in its order; raises where the grammar does not fit."""
    root = _PARSERS[shell].parse(text.encode()).root_node
    if root.has_error:
        wrong = next(node for node in _walk(root) if node.is_error or node.is_missing)
        raise WrongSyntaxError(f"line {wrong.start_point.row + 1} is not {shell}")
    for node in _walk(root):
        name = next((child for child in node.children if child.type == "command_name"), None)
        if node.type == "command" and name is not None and name.text in {b"az", b"azd"}:
            line = re.sub(r"[\\`]\n", " ", _replace_computed(node, name.start_byte))
            # PowerShell's grammar takes a redirection for a word.
            yield tuple(word for word in shlex.split(line) if not re.match(r"[\d*]>", word))


def find_printed(text: str, variables: Collection[str]) -> list[str]:
    """The statements of a PowerShell script that print one of these variables, or let it fall into the output."""
    found = []
    for node in _walk(_POWERSHELL.parse(text.encode()).root_node):
        statement = node.parent
        if node.type != "pipeline" or statement is None or statement.type != "statement_list":
            continue
        if statement.parent is not None and statement.parent.type == "sub_expression":
            continue  # a part of another statement
        parts, said = list(_walk(node)), (node.text or b"").decode()
        names = {(part.text or b"").decode().lower().lstrip("$") for part in parts if part.type == "variable"}
        kinds = {part.type for part in parts}
        is_left_over = not kinds & {"command", "assignment_expression", "invokation_expression"}
        if names & set(variables) and (is_left_over or _PRINTS.search(said)):
            found.append(said)
    return found


def _list_steps(value: Any) -> Iterator[tuple[str, str]]:
    """The text and the shell of every `run` of a workflow or of azd's hooks."""
    if isinstance(value, dict):
        if isinstance(value.get("run"), str):
            yield value["run"], value.get("shell", "bash")
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _list_steps(item)


def _read_document(text: str) -> list[tuple[str, ...]]:
    found = []
    for block in _FENCE.finditer(text):
        if block[2] in _PARSERS:
            found += [(block.start(), words) for words in parse_script(dedent(block[3]), block[2])]
    prose = _FENCE.sub(lambda block: " " * len(block[0]), text)
    found += [(span.start(), tuple(shlex.split(span[1]))) for span in _SPAN.finditer(prose)]
    return [words for _, words in sorted(found, key=lambda entry: entry[0])]


def read_commands(path: Path) -> list[Command]:
    """The commands that a machine runs, or that a reader is to run, in the order of the file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        found = _read_document(text)
    elif path.suffix in {".yml", ".yaml"}:
        steps = _list_steps(yaml.safe_load(text))
        found = [words for body, shell in steps if shell in _PARSERS for words in parse_script(body, shell)]
    else:
        found = list(parse_script(text, path.suffix.removeprefix(".") or "bash"))
    return [Command(str(path.relative_to(ROOT)), words) for words in found]


def read_names(path: Path) -> list[Command]:
    """What looks like a command in a message or a comment: its name, and the words of the sentence after it."""
    found = _NAME.findall(path.read_text(encoding="utf-8"))
    return [Command(str(path.relative_to(ROOT)), (program, *words.split())) for program, words in found]
