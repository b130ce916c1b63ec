"""Service health: which calls to the services work at present, as far as this process has seen."""

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from shared.errors import UnavailableError
from shared.telemetry import SERVICE_AVAILABLE, SERVICE_UNAVAILABLE, record

RECENT = timedelta(seconds=60)
MAX_RECENT = 100  # calls that worked, and emails for which they did not
FORGOTTEN_AFTER = timedelta(minutes=30)  # longer than anybody waits before the next try

Watch = Callable[[str], AbstractContextManager[object]]  # with the name of an operation

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Operation:
    """When one operation worked recently, for which emails it did not, and since when it is down."""

    seen_at: datetime
    worked: deque[datetime] = field(default_factory=lambda: deque(maxlen=MAX_RECENT))
    failed: OrderedDict[str, datetime] = field(default_factory=OrderedDict)
    down_since: datetime | None = None

    def judge(self, now: datetime) -> None:
        """Forget what is no longer recent, and see whether the operation is down."""
        if now - self.seen_at > FORGOTTEN_AFTER:
            self.down_since = None
        self.seen_at = now
        while self.worked and now - self.worked[0] > RECENT:
            self.worked.popleft()
        while self.failed and (
            now - next(iter(self.failed.values())) > RECENT or len(self.failed) > MAX_RECENT
        ):
            self.failed.popitem(last=False)
        if len(self.failed) <= len(self.worked):
            self.down_since = None
        elif self.down_since is None:
            self.down_since = now


class ServiceHealth:
    """Tells an outage of a service from a call that fails for one email, safe to share between threads.

    An operation ("model small", "MultiMail POST /v1/...") is down when it failed for more emails in the last
    minute than it worked for, and works again when the opposite is seen. Says so once each time.
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
            raise
        with self._lock:
            now = self._clock()
            known = self._operations.setdefault(operation, _Operation(now))
            was_down_since = known.down_since
            known.worked.append(now)
            known.judge(now)
            is_down = known.down_since is not None
        if was_down_since is not None and not is_down:
            seconds = round((now - was_down_since).total_seconds(), 1)
            log.warning("%s is available again after %s seconds", operation, seconds)
            record(SERVICE_AVAILABLE, {"operation": operation, "seconds": seconds})

    def note_failure(self, error: UnavailableError, email_id: str) -> timedelta | None:
        """Note that a watched call failed for an email; say how long the operation has been down.

        None when it works for others, or when nobody watches it: then it is the email's own failure.
        """
        if not error.operation:
            return None
        with self._lock:
            now = self._clock()
            known = self._operations.setdefault(error.operation, _Operation(now))
            known.failed.pop(email_id, None)
            known.failed[email_id] = now
            was_down_since = known.down_since
            known.judge(now)
            down_since = known.down_since
        if down_since is None:
            return None
        if was_down_since is None:
            log.warning("%s is unavailable: %s", error.operation, error)
            record(SERVICE_UNAVAILABLE, {"operation": error.operation})
        return now - down_since
