"""The work queue: its messages only say which ledger rows to look at."""

import queue
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from shared.domain import WorkItem


class WorkQueue(Protocol):
    """Somewhere to put work items. Losing, doubling or reordering them is harmless."""

    def send(self, items: Sequence[WorkItem], lives: timedelta) -> None:
        """Put every item into the queue, from which it may vanish when it is older than `lives`.

        Raises TransientError or ConfigurationError.
        """
        ...


class InProcessWorkQueue:
    """Work items for a host in the same process, which takes the bodies from `bodies`."""

    def __init__(self) -> None:
        self.bodies: queue.Queue[bytes] = _Bodies()

    def send(self, items: Sequence[WorkItem], lives: timedelta) -> None:  # noqa: ARG002  # the protocol's
        """Put every item into the queue that is not in it. None is ever lost, so none has to vanish."""
        for item in items:
            self.bodies.put(item.to_json().encode())


class _Bodies(queue.Queue[bytes]):
    """A queue that has each body once, so that it is never longer than there are open rows."""

    def _init(self, maxsize: int) -> None:
        super()._init(maxsize)
        self._waiting: dict[bytes, None] = {}

    def _qsize(self) -> int:
        return len(self._waiting)

    def _put(self, item: bytes) -> None:
        self._waiting.setdefault(item)

    def _get(self) -> bytes:
        body = next(iter(self._waiting))
        del self._waiting[body]
        return body
