"""The sweep: which open work is enqueued now, so that however long the backlog is, the queue stays short."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from shared.ledger.entries import OpenWork

SENT_AGAIN = 100  # work items in the queue that were sent before: what the default quota takes in two minutes


class Sweep:
    """Chooses what to enqueue, and remembers how many emails were waiting for a worker.

    A row that was written since it was last enqueued (new, deferred, or left by a dead worker) is enqueued at
    once. One whose work item nobody took is enqueued again, but only as fast as workers take them: of these
    there are at most SENT_AGAIN in the queue, or twice as many as were claimed since the last sweep. A
    new process does not remember it, which costs speed and nothing else.
    """

    def __init__(self) -> None:
        self._unclaimed = 0

    def choose(self, works: Iterable[OpenWork], now: datetime, lease: timedelta) -> list[OpenWork]:
        """What to enqueue of all open work, what has been due for longest first."""
        fresh: list[OpenWork] = []
        again: list[OpenWork] = []
        in_queue = 0
        for work in works:
            if work.is_due(now, lease):
                (again if work.sends else fresh).append(work)
            else:
                in_queue += work.sends > 0
        unclaimed = in_queue + len(again)
        claimed = max(0, self._unclaimed - unclaimed)
        room = max(0, max(SENT_AGAIN, 2 * claimed) - in_queue)
        self._unclaimed = unclaimed + len(fresh)
        again.sort(key=_get_due_time)
        return sorted([*fresh, *again[:room]], key=_get_due_time)


def _get_due_time(work: OpenWork) -> datetime:
    return work.enqueue_at
