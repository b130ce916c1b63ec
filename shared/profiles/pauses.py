"""Pauses: which mailboxes' mail waits, because a setting, a profile or an operator's command says so."""

import time
from collections.abc import Callable
from datetime import datetime

from shared.domain import Mailbox
from shared.ledger.ledger import Ledger
from shared.profiles.profiles import Profiles

MAX_AGE_SECONDS = 30.0  # within which a command takes effect everywhere


class Pauses:
    """Whether a mailbox is paused. What the command says is in the ledger, and remembered for a while."""

    def __init__(
        self,
        ledger: Ledger,
        profiles: Profiles,
        *,
        all_paused: bool,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._profiles = profiles
        self._all_paused = all_paused
        self._monotonic = monotonic
        self._read: dict[str, tuple[bool, float]] = {}  # by mailbox, replaced whole: no lock is needed

    def holds(self, mailbox: Mailbox, max_age_seconds: float = MAX_AGE_SECONDS) -> bool:
        """Whether the mailbox's mail waits, as read at most so long ago. Raises what the ledger raises."""
        if self._all_paused or self._profiles.get(mailbox).paused:
            return True
        is_paused, read_at = self._read.get(mailbox.id, (False, float("-inf")))
        now = self._monotonic()
        if now - read_at >= max_age_seconds:
            is_paused = find_pause(self._ledger, mailbox.id) is not None
            self._read[mailbox.id] = (is_paused, now)
        return is_paused


def find_pause(ledger: Ledger, mailbox_id: str) -> datetime | None:
    """Since when the mailbox is paused by command; None if it is not."""
    since = ledger.slots(_scope(mailbox_id))
    return datetime.fromisoformat(since[0]) if since else None


def pause(ledger: Ledger, mailbox_id: str, now: datetime) -> datetime:
    """Pause the mailbox; say since when it is paused."""
    ledger.take_slot(_scope(mailbox_id), now.isoformat(), ())  # of two at once, the first counts
    return find_pause(ledger, mailbox_id) or now


def resume(ledger: Ledger, mailbox_id: str) -> None:
    """Have the mailbox's mail worked on again."""
    ledger.drop_slots(_scope(mailbox_id))


def _scope(mailbox_id: str) -> str:
    return f"paused/{mailbox_id}"
