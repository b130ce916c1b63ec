"""The account's mailboxes, read from MultiMail and remembered for a short while."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from shared.domain import Mailbox, parse_address
from shared.errors import ConfigurationError
from shared.mail.multimail import MultiMailReader

MAX_AGE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Reading:
    mailboxes: Mapping[str, Mailbox]
    taken_at: float


class MailboxDirectory:
    """Every mailbox of the account by id. One reading, replaced whole, so no lock is needed."""

    def __init__(self, client: MultiMailReader, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._monotonic = monotonic
        self._reading: _Reading | None = None

    def read(self, max_age_seconds: float = MAX_AGE_SECONDS) -> Mapping[str, Mailbox]:
        """The mailboxes by id, read at most `max_age_seconds` ago. Raises what the client raises."""
        reading = self._reading
        if reading is None or self._monotonic() - reading.taken_at >= max_age_seconds:
            taken_at = self._monotonic()
            mailboxes = {mailbox.id: mailbox for mailbox in self._client.list_mailboxes()}
            reading = self._reading = _Reading(mailboxes, taken_at)
        return reading.mailboxes

    def get(self, mailbox_id: str, max_age_seconds: float = MAX_AGE_SECONDS) -> Mailbox:
        """One mailbox. Raises ConfigurationError when the account does not have it."""
        mailbox = self.read(max_age_seconds).get(mailbox_id)
        if mailbox is None and max_age_seconds > 0:  # it may be new
            mailbox = self.read(0).get(mailbox_id)
        if mailbox is None:
            raise ConfigurationError(
                f"The account of the MultiMail key has no mailbox {mailbox_id!r}, so nothing of it is "
                "touched: set MULTIMAIL_API_KEY (or the secret in the vault) to a key of its account. If the "
                "mailbox was deleted, take it out of MULTIMAIL_MAILBOX_IDS."
            )
        return mailbox


def find_mailbox(known: Mapping[str, Mailbox], name: str) -> Mailbox:
    """The active mailbox of that id or address. Raises ConfigurationError with those that there are."""
    found = next(iter(select_mailboxes(known, [name]).values()), None)
    if found is None:
        names = ", ".join(f"{box.id} ({box.address})" for box in known.values() if box.is_active)
        raise ConfigurationError(
            f"The account has no active mailbox {name!r}: write the id or address of one of these: "
            f"{names or 'none'}."
        )
    return found


def select_mailboxes(known: Mapping[str, Mailbox], wanted: Sequence[str]) -> dict[str, Mailbox]:
    """Those to answer, by id: the active ones, or those of them that `wanted` names by id or address."""
    names = {name for text in wanted for name in (text, parse_address(text) or text)}
    return {
        mailbox.id: mailbox
        for mailbox in known.values()
        if mailbox.is_active
        and (not wanted or mailbox.id in names or parse_address(mailbox.address) in names)
    }
