"""local.settings.json: what `func` accepts is accepted, and what cannot be read is named with its line."""

import codecs
import json
import os
from pathlib import Path

import pytest

from local.host.run import load_local_settings
from local.host.settings_file import read_values
from shared.errors import ConfigurationError

PLAIN = (
    '{\n  "IsEncrypted": false,\n  "Values": {\n    "A": "1",\n    "B": "a // b, } /* c */ \\" ,]"\n  }\n}\n'
)
COMMENTED = """// My settings
{
  /* the values,
     one a line */
  "Values": {
    "A": "1", // the first
    "B": "a // b, } /* c */ \\" ,]", // a comma after the last
  },
}
"""
READ = {"A": "1", "B": 'a // b, } /* c */ " ,]'}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "local.settings.json"


@pytest.mark.parametrize(
    "data",
    [
        PLAIN.encode(),
        PLAIN.replace("\n", "\r\n").encode(),
        codecs.BOM_UTF8 + PLAIN.encode(),
        codecs.BOM_UTF16_LE + PLAIN.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + PLAIN.encode("utf-16-be"),
        COMMENTED.encode(),
        codecs.BOM_UTF8 + COMMENTED.replace("\n", "\r\n").encode(),
    ],
    ids=["plain", "CRLF", "BOM", "UTF-16", "UTF-16 big-endian", "comments and commas", "all of it"],
)
def test_what_func_reads_is_read(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    assert read_values(path) == READ


def test_every_value_becomes_the_text_that_it_is_written_as(path: Path) -> None:
    path.write_text('{"Values": {"A": true, "B": 8, "C": 0.5, "D": null, "E": ""}}')
    assert read_values(path) == {"A": "true", "B": "8", "C": "0.5", "E": ""}


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", ("is empty", "local.settings.json.example")),
        (b" \r\n\n", ("is empty",)),
        (codecs.BOM_UTF8, ("is empty",)),
        (b'{\n  "Values": {\n    "A": "1"\n    "B": "2"\n  }\n}', ("line 4", "Expecting ',' delimiter")),
        (b'{ // "\n  "Values": {\n    "A": "secret,\n  }\n}', ("line 3",)),
        (b'{\n  "Values": {\n    "A": "secret \xfc"\n  }\n}', ("line 3", "not UTF-8")),
        (b"[1, 2]", ("no object called Values",)),
        (b'"Values"', ("no object called Values",)),
        (b'{"values": {}}', ("no object called Values",)),
        (b'{"Values": {"A": "1", "B": {"C": "secret"}, "D": ["secret"]}}', ("B, D",)),
        (b'{"IsEncrypted": true, "Values": {"A": "c2VjcmV0"}}', ("func settings decrypt",)),
        (b"[" * 100_000, ("nested too deep",)),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(path: Path, data: bytes, named: tuple[str, ...]) -> None:
    path.write_bytes(data)
    with pytest.raises(ConfigurationError) as caught:
        load_local_settings({}, path)
    message = str(caught.value)
    assert str(path) in message
    for words in named:
        assert words in message
    assert "secret" not in message


def test_a_folder_of_that_name_is_named(path: Path) -> None:
    path.mkdir()
    with pytest.raises(ConfigurationError, match=r"local\.settings\.json cannot be read \(Is a directory\)"):
        load_local_settings({}, path)


def test_the_environment_wins(path: Path) -> None:
    path.write_text(json.dumps({"Values": {"A": "file", "B": "file"}}))
    environment = {"A": "environment"}
    load_local_settings(environment, path)
    assert environment == {"A": "environment", "B": "file"}


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such modes")
@pytest.mark.parametrize(("mode", "is_open"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_a_file_that_others_can_read_is_warned_about_with_the_remedy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, is_open: bool
) -> None:
    path = tmp_path / "local.settings.json"
    path.write_text('{"Values": {"MODEL_API_KEY": "sk-hidden-1"}}', encoding="utf-8")
    path.chmod(mode)
    load_local_settings({}, path)
    assert (f"chmod 600 {path}" in caplog.text) == is_open
    assert "sk-hidden" not in caplog.text
