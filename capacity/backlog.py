"""How many work items a backlog takes: the agent's own sweep, minute by minute, with workers of a fixed speed."""

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from shared.ledger.entries import OpenWork
from shared.watching.sweep import Sweep

LEASE = timedelta(minutes=10)  # LEASE_SECONDS
POLL_EVERY = timedelta(minutes=1)
START = datetime(2026, 1, 1, tzinfo=UTC)
# Emails that come at once, how many of them the workers do a minute, and for how many minutes they are down.
BACKLOGS = (
    (500, 20, 0),
    (4_000, 20, 0),
    (10_000, 60, 0),
    (1_000, 2, 0),
    (200, 20, 1_440),
    (4_000, 200, 180),
)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a backlog came to."""

    minutes: int
    sent: int
    deepest: int  # the longest that the queue was


def work_off(emails: int, a_minute: int, dead_minutes: int = 0) -> Backlog:
    """Enqueue so many emails of one moment and have the workers do so many a minute, after they were dead for long."""
    sweep, now = Sweep(), START
    rows = {f"{number}": OpenWork("box", f"{number}", START, START) for number in range(emails)}
    queue: deque[tuple[str, datetime]] = deque()
    minute = sent = deepest = 0
    while rows:
        for work in sweep.choose(rows.values(), now, LEASE):
            marked = work.enqueued(now, LEASE)
            rows[work.email_id] = marked
            queue.append((work.email_id, marked.enqueue_at))
            sent += 1
        while queue and queue[0][1] <= now:
            queue.popleft()
        deepest = max(deepest, sum(expires_at > now for _, expires_at in queue))
        left = a_minute if minute >= dead_minutes else 0
        while queue and left:
            email_id, expires_at = queue.popleft()
            if expires_at > now and rows.pop(email_id, None) is not None:
                left -= 1
        minute, now = minute + 1, now + POLL_EVERY
    return Backlog(minute, sent, deepest)


def build_backlogs() -> list[str]:
    """The table of docs/scaling.md, in Markdown."""
    worked = [(emails, rate, dead, work_off(emails, rate, dead)) for emails, rate, dead in BACKLOGS]
    return [
        "### A backlog, simulated with the agent's own sweep",
        "",
        "| emails at once | workers do, a minute | after | all done after | work items an email | longest queue |",
        "|---|---|---|---|---|---|",
        *(
            f"| {emails:,} | {rate:,} | {f'{dead // 60} h without workers' if dead else 'at once'} "
            f"| {backlog.minutes:,} min | {backlog.sent / emails:.2f} | {backlog.deepest:,} |"
            for emails, rate, dead, backlog in worked
        ),
    ]
