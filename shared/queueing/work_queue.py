"""The work queue: its messages only say which ledger rows to look at."""

import queue
from collections.abc import Sequence
from typing import Protocol

from shared.domain import WorkItem


class WorkQueue(Protocol):
    """Somewhere to put work items. Losing, doubling or reordering them is harmless."""

    def send(self, items: Sequence[WorkItem]) -> None:
        """Put every item into the queue. Raises TransientError or ConfigurationError."""
        ...


class InProcessWorkQueue:
    """Work items for a host in the same process, which takes the bodies from `bodies`."""

    def __init__(self) -> None:
        self.bodies: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def send(self, items: Sequence[WorkItem]) -> None:
        """Put every item into the queue."""
        for item in items:
            self.bodies.put(item.to_json().encode())
