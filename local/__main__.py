"""The command line: `python -m local demo`, `run`, `desk`, `ask`, `audit`, `report`, and so on."""

import argparse
import codecs
import io
import os
import sys
from collections.abc import Callable
from importlib import import_module

from rich.cells import cell_len
from rich.console import Console

PIPED_WIDTH = 100_000  # columns where the output is not a terminal: no line is wrapped
# Each command is the function of its name in this module, which is imported only when it is asked for.
# The function's parameters are the names of the arguments below.
COMMANDS = {
    "demo": "local.commands.demo",
    "run": "local.host.run",
    "observe": "local.backtest.observe",
    "backtest": "local.backtest.command",
    "desk": "local.approval.desk",
    "redrive": "local.commands.redrive",
    "pause": "local.commands.pause",
    "resume": "local.commands.pause",
    "forget": "local.commands.forget",
    "audit": "local.audit.command",
    "ask": "local.commands.ask",
    "report": "local.commands.report",
    "voice": "local.voice.command",
    "gaps": "local.gaps.command",
    "knowledge": "local.commands.configuration",
    "lookup": "local.commands.lookup",
    "profiles": "local.commands.configuration",
    "notify": "local.people.notify",
    "open": "local.people.matters",
    "done": "local.people.matters",
    "docs": "local.documentation.command",
}
PLAIN = {"…": ".", "·": "-", "✓": "+", "✗": "x"}  # what the commands write themselves
# Adds a command by its name and what it does.
AddCommand = Callable[[str, str], argparse.ArgumentParser]
INTERRUPTED = 130  # the status that shells give to a process that Ctrl-C ended


def main() -> int:
    """Parse the command line, run the command, return the exit status."""
    arguments = _build_parser().parse_args()
    codecs.register_error("plain", _write_plainly)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="plain")
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
    try:
        return _run(console, **vars(arguments))
    except KeyboardInterrupt:
        console.print("Stopped at once, without finishing the work in progress.")
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

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text)

    _add_for_operators(add)
    _add_trials(add)
    _add_for_people(add)
    _add_for_configuration(add)
    return parser


def _add_for_operators(add: AddCommand) -> None:
    """The commands that run the agent, and show or correct what it did."""
    demo = add(
        "demo", "show the agent with simulated mail and a simulated model, and a page to approve drafts on"
    )
    text = (
        "show every email, what was looked up and read of attachments, the audit trail of one email, "
        "a question to the agent and the trust report"
    )
    demo.add_argument("--all", dest="show_all", action="store_true", help=text)
    demo.add_argument(
        "--observe",
        dest="observes",
        action="store_true",
        help="only observe the mail, then close a gap",
    )
    run = add("run", "run the agent with your settings (environment, local.settings.json)")
    for command in (demo, run):
        command.add_argument("--until-idle", action="store_true", help="end when no work is due")
    redrive = add(
        "redrive", "list what failed or was blocked, and why; with ids or --all-failed, requeue those"
    )
    redrive.add_argument("email_ids", nargs="*", metavar="EMAIL_ID")
    redrive.add_argument("--all-failed", action="store_true", help="every email whose outcome is failed")
    for name, text in (
        ("pause", "let the new mail of a mailbox wait, unread, until it is resumed"),
        ("resume", "have the mail of a paused mailbox worked on again; it counts as received now"),
    ):
        add(name, text).add_argument("mailbox", metavar="MAILBOX", help="its id or address")
    forget = add("forget", "cancel a person's pending replies and erase what the ledger knows of the person")
    forget.add_argument("address", metavar="ADDRESS")
    _add_audit_arguments(
        add(
            "audit",
            "who decided what about each email, and why, of one email or of all; verify checks the trail",
        )
    )
    ask = add("ask", "ask the agent about the mailboxes, with the settings that run takes")
    ask.add_argument("words", metavar="QUESTION")
    ask.add_argument(
        "--request-id", help="asked again with the same id, the same question sends nothing twice"
    )


def _add_for_people(add: AddCommand) -> None:
    """The commands of those who decide on drafts, see to what is left to people, and judge the agent."""
    add("desk", "approve, reject or edit your account's drafts on a page; asks for your keys, stores none")
    report = add(
        "report", "how each mailbox's drafts were decided, and whether it is ready for monitored mode"
    )
    text = "after the report, and after you confirm, ask the account's operator for the next mode"
    report.add_argument("--request-upgrade", dest="upgrade", metavar="MAILBOX", help=text)
    gaps = add(
        "gaps", "what could not be answered; propose passages and profile lines from what people did instead"
    )
    for command in (report, gaps):
        command.add_argument("--days", dest="days_text", metavar="N", help="days to look back (default 30)")
    notify = add(
        "notify",
        "check that notifications about a mailbox arrive: each target that its profile names gets a test",
    )
    notify.add_argument("--test", dest="mailbox", metavar="MAILBOX", required=True, help="its id or address")
    add("open", "list what waits for people, the oldest first: escalations, pending drafts, promises")
    done = add(
        "done",
        "mark escalations and promises as done; they are closed by themselves once a person has written",
    )
    done.add_argument("email_ids", nargs="+", metavar="EMAIL_ID")


def _add_for_configuration(add: AddCommand) -> None:
    """The commands about profiles, knowledge and the project's own documents."""
    voice = add(
        "voice",
        "show how a mailbox's sent emails are written, as a change of its profile's voice; changes nothing",
    )
    voice.add_argument("mailbox", metavar="MAILBOX", help="its id or address")
    add("profiles", "check the file with the mailbox profiles; takes no setting but CONFIG_PATH")
    knowledge = add(
        "knowledge", "show how much approved text a mailbox has, and which passages of it a question finds"
    )
    knowledge.add_argument(
        "mailbox", nargs="?", metavar="MAILBOX", help="its id or address, as profiles name it"
    )
    knowledge.add_argument("question", nargs="?", metavar="QUESTION")
    lookup = add("lookup", "ask a mailbox's look-ups about one address, and show what each answers and lacks")
    lookup.add_argument("mailbox", metavar="MAILBOX", help="its id or address, as profiles name it")
    lookup.add_argument("address", metavar="ADDRESS", help="of a customer whom the systems know")
    text = "what the customer might write, with the references to look for"
    lookup.add_argument("text", nargs="?", default="", metavar="TEXT", help=text)
    text = "write the vectors for the search by meaning next to the files: before each deployment"
    knowledge.add_argument("--embed", action="store_true", help=text)
    docs = add(
        "docs",
        "for developers: write the references of settings, the profiles' schema and the list of packages",
    )
    docs.add_argument(
        "--check", action="store_true", help="write nothing; fail if one of them is out of date"
    )


def _add_trials(add: AddCommand) -> None:
    """The commands that try the agent on real mail without writing anything at MultiMail."""
    observe = add(
        "observe", "write down what the agent would do with the mail, submit nothing, and show it on a page"
    )
    days_help = "days that the page shows (default 7)"
    observe.add_argument("--days", dest="days_text", metavar="N", default="7", help=days_help)
    backtest = add(
        "backtest", "what the agent would say to past mail, under today's configuration and under another"
    )
    backtest.add_argument(
        "--days", dest="days_text", metavar="N", default="14", help="days to look back (default 14)"
    )
    text = "a folder with another configuration: mailboxes.yaml, knowledge, and prompts if it has its own"
    backtest.add_argument("--config", metavar="FOLDER", help=text)
    text = "another value of a setting, such as DRAFT_DEPLOYMENT=large; may be repeated"
    backtest.add_argument(
        "--set", dest="changes", action="append", default=[], metavar="NAME=VALUE", help=text
    )
    backtest.add_argument(
        "--yes",
        dest="is_confirmed",
        action="store_true",
        help="start without asking whether its cost is fine",
    )


def _add_audit_arguments(audit: argparse.ArgumentParser) -> None:
    audit.add_argument("email_id", nargs="?", metavar="EMAIL_ID|verify")
    audit.add_argument("--json", dest="as_json", action="store_true", help="a line of JSON for each decision")
    text = "with verify: what an earlier check printed; the trail must still have all that it had then"
    audit.add_argument("--anchor", metavar="ANCHOR", help=text)
    text = "with verify: compare with MultiMail's audit log; asks for a key with the scope admin"
    audit.add_argument("--multimail", dest="with_service", action="store_true", help=text)


def _run(console: Console, command: str, **options: object) -> int:
    run: Callable[..., int] = getattr(import_module(COMMANDS[command]), command)
    return run(console, **options)


if __name__ == "__main__":
    sys.exit(main())
