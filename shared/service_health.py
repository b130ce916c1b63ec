"""Service health: which calls to the services work at present, as far as this process has seen."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from shared.errors import UnavailableError
from shared.telemetry import SERVICE_AVAILABLE, SERVICE_UNAVAILABLE, record

RECENT = timedelta(seconds=60)
MAX_RECENT_CALLS = 100
FORGOTTEN_AFTER = timedelta(minutes=30)  # longer than anybody waits before the next try

Watch = Callable[[str], AbstractContextManager[object]]  # with the name of an operation

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Operation:
    """One operation's recent calls (when, and whether it worked), and since when it is down."""

    calls: deque[tuple[datetime, bool]] = field(default_factory=lambda: deque(maxlen=MAX_RECENT_CALLS))
    down_since: datetime | None = None


class ServiceHealth:
    """Tells an outage of a service from a call that fails for one email, safe to share between threads.

    An operation ("model small", "MultiMail POST /v1/...") goes down when most of its calls of the last minute
    found the service unavailable, and comes back when most of them worked. Says so once each time.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._operations: dict[str, _Operation] = {}

    @contextmanager
    def watch(self, operation: str) -> Iterator[None]:
        """Watch one call. An UnavailableError that passes gets the operation's name.

        Any other error says nothing: neither that the service works nor that it does not.
        """
        try:
            yield
        except UnavailableError as error:
            error.operation = operation
            self._note(operation, str(error))
            raise
        self._note(operation, None)

    def find_outage(self, operation: str) -> timedelta | None:
        """How long the operation has been down; None while it works, or when nothing is known of it."""
        with self._lock:
            known = self._operations.get(operation)
            if known is None or known.down_since is None:
                return None
            return max(timedelta(0), self._clock() - known.down_since)

    def _note(self, operation: str, failure: str | None) -> None:
        with self._lock:
            now, known = self._clock(), self._operations.setdefault(operation, _Operation())
            if known.calls and now - known.calls[-1][0] > FORGOTTEN_AFTER:
                known.down_since = None
            known.calls.append((now, failure is None))
            while now - known.calls[0][0] > RECENT:
                known.calls.popleft()
            was_down_since = known.down_since
            if 2 * sum(worked for _, worked in known.calls) >= len(known.calls):
                known.down_since = None
            elif was_down_since is None:
                known.down_since = now
            down_since = known.down_since
        if down_since is not None and was_down_since is None:
            log.warning("%s is unavailable, and what needs it waits: %s", operation, failure)
            record(SERVICE_UNAVAILABLE, {"operation": operation})
        elif was_down_since is not None and down_since is None:
            seconds = round((now - was_down_since).total_seconds(), 1)
            log.warning("%s is available again after %s seconds", operation, seconds)
            record(SERVICE_AVAILABLE, {"operation": operation, "seconds": seconds})
