"""What one poll read of one mailbox, and how far that goes."""

import logging
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from shared.domain import EmailSummary
from shared.errors import AgentError
from shared.ledger.entries import OpenWork
from shared.mail.multimail import CLOCK_MARGIN
from shared.mail.paging import CrowdedSecondError

OVERLAP = timedelta(minutes=10)  # how late an email may show up in the service's listing
SHOWN_AFTER = OVERLAP + CLOCK_MARGIN  # by our clock, an email that was received so long ago shows by now

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Reading:
    """What the listings of one mailbox have shown in one poll."""

    newest: datetime
    ids: set[str] = field(default_factory=set)
    new: list[OpenWork] = field(default_factory=list)
    crowded: list[CrowdedSecondError] = field(default_factory=list)
    failure: AgentError | None = None
    lists_old: bool = False

    def note(self, summary: EmailSummary, work: OpenWork | None, now: datetime, *, is_recent: bool) -> None:
        """Take down an email, with its open work if it is new."""
        self.ids.add(summary.id)
        if work is not None:
            self.new.append(work)
        self.newest = max(self.newest, min(summary.received_at, now))
        self.lists_old |= is_recent and summary.received_at < now - SHOWN_AFTER

    def conclude(self, now: datetime) -> tuple[datetime, AgentError | None]:
        """Up to where everything is in the ledger, and what the poll has to say to its caller.

        That is up to the newest email, by the service's clock. Ours counts only where that spares the next
        poll emails that no later one can stand between, because all that was received then shows by now.
        Emails of a second too full to be listed are asked for while they may still appear. Then the watermark
        passes them: no poll after that would list more.
        """
        end = max(self.newest, now - CLOCK_MARGIN) if self.lists_old else self.newest
        failure = self.failure
        for error in self.crowded:
            if self.new or max(error.seconds) > now - SHOWN_AFTER:
                failure, end = failure or error, min(end, *error.seconds)
            else:
                log.error("no longer asked for: %s", error)
        return end, failure
