"""The command line: `python -m local demo` and `python -m local run`."""

import argparse
import sys

from rich.console import Console

PIPED_WIDTH = 150  # columns where the output is no terminal


def main() -> int:
    """Parse the command line, run the command, return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m local", description="Run the email agent on this machine."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("demo", "the main job with simulated mail and a simulated model, then a page to approve drafts on"),
        ("run", "the agent against whatever the settings name (environment, local.settings.json)"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--until-idle", action="store_true", help="end when no work is due")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
    # Imported when the command is known: what `run` does not need, it does not load.
    if arguments.command == "demo":
        from local.demo import demo as command_to_run  # noqa: PLC0415
    else:
        from local.run import run as command_to_run  # noqa: PLC0415
    return command_to_run(console, until_idle=arguments.until_idle)


if __name__ == "__main__":
    sys.exit(main())
