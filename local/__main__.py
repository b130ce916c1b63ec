"""The command line: `python -m local demo`, `run`, `redrive` and `report`."""

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
    text = "list what failed or was blocked and why; with ids or --all-failed, set those back to open"
    redrive = commands.add_parser("redrive", help=text, description=text)
    redrive.add_argument("email_ids", nargs="*", metavar="EMAIL_ID")
    redrive.add_argument("--all-failed", action="store_true", help="every email whose outcome is failed")
    text = "what became of each mailbox's drafts, and whether that earns it a longer leash"
    report = commands.add_parser("report", help=text, description=text)
    report.add_argument("--days", metavar="N", help="how far back, 30 if not said")
    text = "after its report, and once confirmed, ask the account's operator for the next mode"
    report.add_argument("--request-upgrade", metavar="MAILBOX", help=text)
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
    return _run(console, arguments)


def _run(console: Console, arguments: argparse.Namespace) -> int:
    # Imported when the command is known: what one does not need, it does not load.
    if arguments.command == "demo":
        from local.demo import demo  # noqa: PLC0415

        return demo(console, until_idle=arguments.until_idle)
    if arguments.command == "run":
        from local.run import run  # noqa: PLC0415

        return run(console, until_idle=arguments.until_idle)
    if arguments.command == "report":
        from local.report import report  # noqa: PLC0415

        return report(console, days_text=arguments.days, upgrade=arguments.request_upgrade)
    from local.redrive import redrive  # noqa: PLC0415

    return redrive(console, arguments.email_ids, all_failed=arguments.all_failed)


if __name__ == "__main__":
    sys.exit(main())
