"""The command line: `python -m local demo`, `run`, `ask`, `audit`, `report` and `redrive`."""

import argparse
import codecs
import io
import os
import sys

from rich.cells import cell_len
from rich.console import Console

PIPED_WIDTH = 150  # columns where the output is not a terminal
PLAIN = {"…": ".", "·": "-", "✓": "+", "✗": "x"}  # what the commands write themselves
INTERRUPTED = 130  # the status that shells give to a process that Ctrl-C ended


def main() -> int:
    """Parse the command line, run the command, return the exit status."""
    arguments = _build_parser().parse_args()
    codecs.register_error("plain", _write_plainly)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="plain")
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
    try:
        return _run(console, arguments)
    except KeyboardInterrupt:
        console.print("Ended at once, without waiting for what was in hand.")
        console.file.flush()
        os._exit(INTERRUPTED)  # a thread in the middle of a call would hold up an ordinary end


def _write_plainly(error: UnicodeError) -> tuple[str, int]:
    """Replace what the terminal cannot show by as many columns of what it can: tables stay in line."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(PLAIN.get(character, "?" * cell_len(character)) for character in lost), error.end


def _build_parser() -> argparse.ArgumentParser:
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
        if name == "demo":
            shown = "every email, the audit trail of one, a question to the agent and the trust report"
            command.add_argument("--all", action="store_true", help=f"show {shown}")
    text = "list what failed or was blocked and why; with ids or --all-failed, set those back to open"
    redrive = commands.add_parser("redrive", help=text, description=text)
    redrive.add_argument("email_ids", nargs="*", metavar="EMAIL_ID")
    redrive.add_argument("--all-failed", action="store_true", help="every email whose outcome is failed")
    text = "who decided what about each email, and why, of one email or of all"
    audit = commands.add_parser("audit", help=text, description=text)
    audit.add_argument("email_id", nargs="?", metavar="EMAIL_ID")
    audit.add_argument("--json", action="store_true", help="a line of JSON for each decision")
    text = "ask the agent about the mailboxes, with the settings that run takes"
    ask = commands.add_parser("ask", help=text, description=text)
    ask.add_argument("question")
    ask.add_argument(
        "--request-id", help="asked again under the same id, the same question sends nothing twice"
    )
    text = "what became of each mailbox's drafts, and whether that earns it a longer leash"
    report = commands.add_parser("report", help=text, description=text)
    report.add_argument("--days", metavar="N", help="how far back, 30 if not said")
    text = "after its report, and once confirmed, ask the account's operator for the next mode"
    report.add_argument("--request-upgrade", metavar="MAILBOX", help=text)
    return parser


def _run(console: Console, arguments: argparse.Namespace) -> int:
    # Imported when the command is known: what one does not need, it does not load.
    if arguments.command == "demo":
        from local.commands.demo import demo  # noqa: PLC0415 - only for this command

        return demo(console, until_idle=arguments.until_idle, show_all=arguments.all)
    if arguments.command == "run":
        from local.host.run import run  # noqa: PLC0415 - only for this command

        return run(console, until_idle=arguments.until_idle)
    if arguments.command == "audit":
        from local.commands.audit import audit  # noqa: PLC0415 - only for this command

        return audit(console, arguments.email_id, as_json=arguments.json)
    if arguments.command == "ask":
        from local.commands.ask import ask  # noqa: PLC0415 - only for this command

        return ask(console, arguments.question, arguments.request_id)
    if arguments.command == "report":
        from local.commands.report import report  # noqa: PLC0415 - only for this command

        return report(console, days_text=arguments.days, upgrade=arguments.request_upgrade)
    from local.commands.redrive import redrive  # noqa: PLC0415 - only for this command

    return redrive(console, arguments.email_ids, all_failed=arguments.all_failed)


if __name__ == "__main__":
    sys.exit(main())
