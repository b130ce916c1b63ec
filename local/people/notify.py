"""`python -m local notify --test`: whether the targets of a mailbox's notifications can be reached."""

from datetime import UTC, datetime

from rich.console import Console
from rich.text import Text

from local.host.run import MISCONFIGURED, OK, UNFINISHED, read_settings, report_misconfigured
from shared.composition import open_delivery, open_multimail
from shared.errors import ConfigurationError, PermanentError, TransientError
from shared.mail.mailboxes import select_mailboxes
from shared.notifying.notifier import send_test


def notify(console: Console, mailbox: str) -> int:
    """Send a test to each target that the profile of a mailbox names; return the exit status.

    `mailbox`: its id or address.
    """
    try:
        settings = read_settings("notify")
        profiles, delivery = open_delivery(settings)
        known = {box.id: box for box in open_multimail(settings).list_mailboxes()}
    except ConfigurationError as error:
        return report_misconfigured(console, error)
    except (PermanentError, TransientError) as error:
        console.print(Text(f"Reading the mailboxes failed: {error}. Try again later.", "red"))
        return UNFINISHED
    found = next(iter(select_mailboxes(known, [mailbox]).values()), None)
    if found is None:
        names = ", ".join(box.address for box in known.values() if box.is_active)
        console.print(Text(f"The account has no active mailbox {mailbox}. It has: {names}.", "red"))
        return MISCONFIGURED
    wanted = profiles.get(found).notify
    if wanted is None:
        console.print(Text(f"The profile of {found.address} has no notify: docs/notifications.md shows one."))
        return MISCONFIGURED
    results = send_test(delivery, found, wanted, datetime.now(UTC))
    for target, problem in results.items():
        failed = problem is not None
        console.print(Text(f"{target}: {problem}" if failed else f"{target}: sent.", "red" if failed else ""))
    return UNFINISHED if any(results.values()) else OK
