"""Lets the real Azure CLI read commands, and run none: `.azure-cli/bin/python tests/azure_cli/parse_commands.py`.

Reads {commands: [[word, ...], ...], names: [[word, ...], ...]} from standard input, without the word `az`. Writes
{commands: [...], names: [...]} with what is wrong with each, empty for nothing. Nothing is asked over the network, and nobody
has to be signed in.
"""

import contextlib
import io
import json
import logging
import os
import sys
import tempfile
from collections.abc import Sequence

os.environ["AZURE_CONFIG_DIR"] = tempfile.mkdtemp()
os.environ["AZURE_CORE_COLLECT_TELEMETRY"] = "no"
os.environ["AZURE_EXTENSION_USE_DYNAMIC_INSTALL"] = "no"

from azure.cli.core import MainCommandsLoader, get_default_cli
from knack.events import EVENT_INVOKER_POST_PARSE_ARGS

PIPED = "what was piped to it"


class ParsedError(BaseException):
    """The command is right: stop before it runs. No handler of the CLI catches it."""


def stop(_cli: object, args: object, **_kwargs: object) -> None:
    given = getattr(args, "value", None)
    raise ParsedError(
        "" if given in {None, PIPED} else f"the value {given!r} is not read from standard input"
    )


def find_problem(words: Sequence[str], errors: io.StringIO) -> str:
    """What the CLI's own parser says against a command; `@-` is filled from standard input as in a real run."""
    errors.seek(0)
    errors.truncate()
    sys.stdin = io.StringIO(PIPED)
    cli = get_default_cli()
    cli.register_event(EVENT_INVOKER_POST_PARSE_ARGS, stop)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            cli.invoke(list(words))
    except ParsedError as parsed:
        return str(parsed)
    except SystemExit:
        pass
    return (errors.getvalue().split("\n\n")[-1] or "the Azure CLI stopped without a word").strip()


def find_unknown_name(words: Sequence[str]) -> str:
    """What is wrong with a command's name that other words may follow; nothing if it is the subject of a sentence."""
    loader = MainCommandsLoader(get_default_cli())
    loader.load_command_table(list(words))
    if words[0] not in {name.split()[0] for name in loader.command_table}:
        return ""
    known = any(" ".join(words[:length]) in loader.command_table for length in range(1, len(words) + 1))
    return "" if known else f"'{' '.join(words)}' does not begin with a command"


def main() -> None:
    """Read standard input, write the verdicts."""
    given = json.load(sys.stdin)
    errors = io.StringIO()
    logger = logging.getLogger("cli")
    handler = logging.StreamHandler(errors)
    handler.setLevel(logging.ERROR)
    logger.addHandler(handler)  # with a handler there, the CLI adds none of its own
    logger.propagate = False
    commands = [find_problem(words, errors) for words in given["commands"]]
    names = [find_unknown_name(words) for words in given["names"]]
    print(json.dumps({"commands": commands, "names": names}))


main()
