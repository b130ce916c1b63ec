"""Reads beside the work: what does not depend on the next step is fetched while that step is under way."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from shared.telemetry import in_this_context

THREADS = 32  # each is busy for one short call, so a few serve many emails at once

T = TypeVar("T")


class Beside(Protocol):
    """A way to start a call that is waited for later."""

    def __call__(self, call: Callable[[], T]) -> Callable[[], T]:
        """Start `call`, or keep it for later, and return what waits for its result or raises its error."""
        ...


def build_beside() -> Beside:
    """Calls on threads of their own, which are started as they are needed and end with the process."""
    threads = ThreadPoolExecutor(THREADS, thread_name_prefix="beside")

    def start(call: Callable[[], T]) -> Callable[[], T]:
        return threads.submit(in_this_context(call)).result

    return start
