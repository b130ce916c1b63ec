"""Who is notified of what waits for a person in a mailbox, as its profile says."""

import re
from dataclasses import dataclass
from datetime import timedelta

# The first word says what is behind the address, the rest is the operator's.
TARGET = r"(?:teams|slack|json)-[a-z0-9](?:[a-z0-9-]{0,58}[a-z0-9])?"
DURATION = r"[1-9][0-9]{0,3} ?[mh]"


@dataclass(frozen=True, slots=True)
class Notify:
    """Targets of notifications by name, and when they are used.

    `first` gets everything; `deputy` is reminded of what was left undone for twice as long. `interval`: how
    long an escalation or a new draft waits for others, to be told together. Of a pending reply people are
    reminded after `nudge_after`, of a promise after `promise_after`, both in business hours. `show_sender`:
    whether the sender and the subject are shown.
    """

    first: str
    deputy: str = ""
    interval: timedelta = timedelta(hours=1)
    nudge_after: timedelta = timedelta(hours=4)
    promise_after: timedelta = timedelta(hours=16)
    show_sender: bool = False

    @property
    def targets(self) -> tuple[str, ...]:
        """Every target, each once."""
        return tuple(dict.fromkeys(filter(None, (self.first, self.deputy))))


def parse_duration(text: str) -> timedelta:
    """The duration of `30m` or `4h`, as DURATION matches it."""
    count = int(re.findall(r"\d+", text)[0])
    return timedelta(hours=count) if text.endswith("h") else timedelta(minutes=count)
