"""`python -m local voice`: how a mailbox's sent emails are written, as a change of its voice."""

import os
from collections.abc import Collection, Iterator, Sequence
from difflib import unified_diff
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.text import Text

from local.host.run import OK, UNFINISHED, read_settings, report_failure, report_misconfigured
from local.voice.profile_change import replace_voice
from local.voice.style import MIN_EMAILS, begin_line, describe_style, load_languages
from shared.composition import open_ledger, open_multimail
from shared.domain import Mailbox
from shared.errors import ConfigurationError, NotFoundError, PermanentError, TransientError
from shared.mail.mailboxes import find_mailbox
from shared.mail.multimail import MultiMailReader
from shared.profiles.profile_file import PROFILE_FILE, parse_profiles
from shared.settings import Settings

MAX_EMAILS = 50
MAX_LOOKED_AT = 200
STYLES = {"+": "green", "-": "red", "@": "cyan"}


def voice(console: Console, mailbox: str) -> int:
    """Print what the sent emails say about the voice as a unified diff; return the exit status.

    `mailbox`: its id or address. Nothing is changed, and nothing of an email is printed.
    """
    try:
        settings = read_settings("voice")
        multimail = open_multimail(settings)
        known = {box.id: box for box in multimail.list_mailboxes()}
        found = find_mailbox(known, mailbox)
        emails = islice(_list_sent(multimail, found, _list_own_replies(settings, found)), MAX_EMAILS)
        return _print_change(console, settings.config_path / PROFILE_FILE, found, list(emails))
    except ConfigurationError as error:
        return report_misconfigured(console, error)
    except (PermanentError, TransientError) as error:
        return report_failure(console, "Reading the sent emails", error)


def _list_own_replies(settings: Settings, mailbox: Mailbox) -> Collection[str]:
    """The ids of the emails that the agent wrote; none before its first run."""
    if settings.ledger_table_endpoint is None and not settings.ledger_path.exists():
        return ()
    ledger = open_ledger(settings, read_only=True)
    return {entry.reply_id for entry in ledger.entries(mailbox.id) if entry.reply_id}


def _list_sent(multimail: MultiMailReader, mailbox: Mailbox, own_replies: Collection[str]) -> Iterator[str]:
    """The bodies of what was delivered, newest first, that a person wrote or approved."""
    for summary in islice(multimail.list_emails(mailbox.id, direction="outbound"), MAX_LOOKED_AT):
        if summary.delivered_at is None or summary.bounced_at is not None:
            continue
        try:
            email = multimail.get_email(mailbox.id, summary.id)
        except NotFoundError:  # deleted in between
            continue
        if email.approved_at is not None or email.id not in own_replies:
            yield email.markdown


def _print_change(console: Console, path: Path, mailbox: Mailbox, emails: list[str]) -> int:
    lines, counts = describe_style(emails)
    told = ", ".join(f"{name or 'unknown language'} {count}" for name, count in counts.most_common())
    console.print(
        Text(f"Read {len(emails)} sent emails of {mailbox.address}" + (f": {told}." if told else "."))
    )
    if not lines:
        console.print(f"Nothing was derived: it takes {MIN_EMAILS} emails of a language.")
        return UNFINISHED
    text = path.read_text(encoding="utf-8-sig") if path.exists() else ""
    written = parse_profiles(text, str(path)).get(mailbox).voice
    begins = tuple(begin_line(language.name) for language in load_languages())
    kept = [line for line in written.splitlines() if not line.startswith(begins)]
    print_voice(console, path, mailbox, [*kept, *lines.values()])
    return OK


def print_voice(console: Console, path: Path, mailbox: Mailbox, lines: Sequence[str]) -> None:
    """Print as a unified diff what gives the mailbox's profile a voice of these lines.

    Raises ConfigurationError for a file that cannot be changed so.
    """
    text = path.read_text(encoding="utf-8-sig") if path.exists() else ""
    changed = replace_voice(text, str(path), mailbox, "\n".join(lines))
    shown = os.path.relpath(path).replace(os.sep, "/")
    for line in unified_diff(
        text.splitlines(), changed.splitlines(), f"a/{shown}", f"b/{shown}", lineterm=""
    ):
        console.print(Text(line, STYLES.get(line[:1], "")), soft_wrap=True)
    if text == changed:
        console.print("The profile says so already.")
