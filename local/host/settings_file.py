"""The file local.settings.json, read as `func start` reads it: with a BOM, comments and trailing commas."""

import json
import logging
import os
import re
import stat
from pathlib import Path

from shared.errors import ConfigurationError

log = logging.getLogger(__name__)

_FORM = '{"Values": {"NAME": "value"}}'
_STRING = r'"(?:[^"\\\n]|\\.)*"'
_STRING_OR_COMMENT = re.compile(rf"{_STRING}|//[^\n]*|/\*.*?\*/", re.DOTALL)
_STRING_OR_LAST_COMMA = re.compile(rf"{_STRING}|,(?=\s*[}}\]])")
_NOT_A_LINE_BREAK = re.compile(r"[^\n]")


def read_values(path: Path) -> dict[str, str]:
    """The settings in the file, as texts; one that is null is left out.

    Raises ConfigurationError that names the line, or the setting, that cannot be read, and quotes no value.
    """
    values = _parse(path).get("Values")
    if not isinstance(values, dict):
        raise ConfigurationError(
            f"{path} has no object called Values: give it the form {_FORM}, or remove it."
        )
    nested = [name for name, value in values.items() if isinstance(value, dict | list)]
    if nested:
        raise ConfigurationError(
            f"{path}: a setting is one text, and these are lists or objects: {', '.join(nested)}."
        )
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in values.items()
        if value is not None
    }


def warn_if_open(path: Path) -> None:
    """Say so when others on this machine can read the keys in the file (not told on Windows)."""
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        log.warning("other users of this machine can read the keys in %s: run chmod 600 %s", path, path)


def _parse(path: Path) -> dict[str, object]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read ({error.strerror}): it must be a file that you may read; "
            "correct or remove it."
        ) from error
    try:
        text = data.decode(json.detect_encoding(data))  # also UTF-16, as Windows PowerShell writes it
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(
            f"{path}, line {line}: a character is not UTF-8: save the file as UTF-8."
        ) from None  # the error carries the file, and so its keys
    if not text.strip():
        raise ConfigurationError(f"{path} is empty: copy local.settings.json.example, or remove it.")
    try:
        parsed = json.loads(_STRING_OR_LAST_COMMA.sub(_blank, _STRING_OR_COMMENT.sub(_blank, text)))
    except json.JSONDecodeError as error:
        raise ConfigurationError(
            f"{path}, line {error.lineno}, column {error.colno}: {error.msg}. "
            f"Correct it: the file is JSON of the form {_FORM}."
        ) from None
    except RecursionError:
        raise ConfigurationError(f"{path} is nested too deep: give it the form {_FORM}.") from None
    if not isinstance(parsed, dict):
        parsed = {}
    if parsed.get("IsEncrypted") is True:
        raise ConfigurationError(f"{path} is encrypted: run `func settings decrypt` first.")
    return parsed


def _blank(found: re.Match[str]) -> str:
    """Leave strings as they are; put blanks in place of the rest, so that lines and columns stay."""
    return found[0] if found[0].startswith('"') else _NOT_A_LINE_BREAK.sub(" ", found[0])
