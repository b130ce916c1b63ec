"""`python -m local pause` and `resume`: whether the new mail of a mailbox waits."""

from collections.abc import Callable
from datetime import UTC, datetime

from rich.console import Console
from rich.text import Text

from local.host.run import OK, UNFINISHED, read_settings, report_misconfigured
from shared.composition import open_ledger, open_multimail, open_profiles
from shared.domain import Mailbox
from shared.errors import ConfigurationError, PermanentError, TransientError
from shared.ledger.ledger import Ledger
from shared.mail.mailboxes import find_mailbox
from shared.profiles import pauses
from shared.settings import Settings


def pause(console: Console, mailbox: str) -> int:
    """Let the new mail of a mailbox, named by id or address, wait; return the exit status."""

    def write(_settings: Settings, ledger: Ledger, box: Mailbox) -> str:
        since = pauses.pause(ledger, box.id, datetime.now(UTC))
        return (
            f"{box.address} is paused since {since:%Y-%m-%d %H:%M} UTC: within a minute its new mail waits, "
            f"unread. `python -m local resume {box.id}` ends it."
        )

    return _change(console, mailbox, write)


def resume(console: Console, mailbox: str) -> int:
    """Have the mail of a mailbox, named by id or address, worked on again; return the exit status."""

    def write(settings: Settings, ledger: Ledger, box: Mailbox) -> str:
        pauses.resume(ledger, box.id)
        profiles = open_profiles(settings.config_path, has_search=settings.search_endpoint is not None)
        if settings.pause_all:
            return f"{box.address} is still paused: PAUSE_ALL is true. Remove that setting, too."
        if profiles.get(box).paused:
            return f"{box.address} is still paused: its profile says so. Remove `paused` there, too."
        count = sum(work.is_paused and work.mailbox_id == box.id for work in ledger.open_work())
        return f"{box.address} is resumed: emails that waited and are now worked on: {count}."

    return _change(console, mailbox, write)


def _change(console: Console, name: str, write: Callable[[Settings, Ledger, Mailbox], str]) -> int:
    """Write to the ledger about a mailbox and print what that comes to."""
    try:
        settings = read_settings("pause")
        multimail, ledger = open_multimail(settings), open_ledger(settings)
        mailbox = find_mailbox({box.id: box for box in multimail.list_mailboxes()}, name)
        console.print(Text(write(settings, ledger, mailbox)))
    except ConfigurationError as error:
        return report_misconfigured(console, error)
    except (PermanentError, TransientError) as error:
        console.print(Text(f"Nothing was changed: {error}. Try again later.", "red"))
        return UNFINISHED
    return OK
