"""The command line: every command exists and takes what its arguments are called."""

import inspect
from importlib import import_module

import pytest

from local.__main__ import COMMANDS, _build_parser

WORDS = {"ask": ["What waits?"], "forget": ["ann@customer.example"], "voice": ["support@northwind.example"]}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_a_function_that_takes_its_arguments(name: str) -> None:
    options = vars(_build_parser().parse_args([name, *WORDS.get(name, [])]))
    assert options.pop("command") == name
    inspect.signature(getattr(import_module(COMMANDS[name]), name)).bind("console", **options)


def test_every_command_of_the_parser_is_known() -> None:
    (choices,) = (action.choices for action in _build_parser()._actions if action.dest == "command")
    assert choices is not None
    assert set(choices) == set(COMMANDS)
