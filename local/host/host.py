"""The single-machine host: fires a function app's timers and delivers its queue messages."""

import itertools
import logging
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from queue import Queue, SimpleQueue
from typing import Any, cast

import azure.functions as func
from azure.functions.servicebus import ServiceBusMessage
from azure.functions.timer import TimerRequest

from local.host.app_functions import (
    Function,
    HttpFunction,
    InvocationContext,
    get_occurrence_after,
    read_app_functions,
    read_host_limits,
)

POLL_SECONDS = 0.05  # how long a new body in a queue, or a stop, may go unnoticed
PAST_DUE = timedelta(seconds=1)  # NCRONTAB's resolution
PAUSE = timedelta(seconds=1)  # after a round of a run until idle that has finished nothing
LONGEST_WAIT = timedelta(minutes=1)
RECORDS_KEPT = 1000  # of failures, and of dead letters

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Failure:
    """An invocation that raised."""

    function_name: str
    invocation_id: str
    error_type: str
    error_text: str
    failed_at: datetime


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was given up after its last delivery, with the last error."""

    queue_name: str
    message_id: str
    body: bytes = field(repr=False)
    delivery_count: int
    error_type: str
    error_text: str
    dead_lettered_at: datetime


def wait_briefly(woken: threading.Event, seconds: float) -> None:
    """Wait until an invocation has ended, for at most `seconds` and never longer than POLL_SECONDS."""
    woken.wait(min(max(seconds, 0), POLL_SECONDS))


class SteadyClock:
    """A clock that is right as long as it can be and never goes back.

    When the machine's clock, `clock`, is set back, it goes on by `monotonic`, which counts seconds: a timer
    that is due in a minute is not due in an hour and a minute.
    """

    def __init__(self, clock: Callable[[], datetime], monotonic: Callable[[], float]) -> None:
        self._clock, self._monotonic = clock, monotonic
        self._lock = threading.Lock()
        self._last, self._counted = clock(), monotonic()

    def __call__(self) -> datetime:
        """The time."""
        with self._lock:
            counted = self._monotonic()
            passed = timedelta(seconds=counted - self._counted)
            self._last, self._counted = max(self._clock(), self._last + passed), counted
            return self._last


class Host:
    """Drives a function app's own timer and Service Bus queue functions on the threads of one process.

    `app_settings` fill %NAME% in triggers, `queues` has the bodies by queue name, `host_json` is the
    parsed host.json: maxConcurrentCalls, maxAutoLockRenewalDuration and functionTimeout apply.
    `on_failure` gets a function's name and error, on the thread of the invocation, and must not raise.
    `on_drain` gets, before the host waits for them at its end, the names of the functions still running.
    `clock` (aware, UTC) and `wait` pass the time. HTTP functions are called through `call_http`.

    As with a prefetchCount of 0, a body leaves its queue only when a call is free for it: what was
    not started when the host stops is still there.

    Raises ConfigurationError with everything in the app or in host.json that it cannot work with.
    """

    def __init__(
        self,
        app: func.FunctionApp,
        *,
        app_settings: Mapping[str, str],
        queues: "Mapping[str, Queue[bytes] | SimpleQueue[bytes]]",
        host_json: Mapping[str, Any],
        clock: Callable[[], datetime],
        wait: Callable[[threading.Event, float], object] = wait_briefly,
        on_failure: Callable[[str, BaseException], object] = lambda _name, _error: None,
        on_drain: Callable[[Sequence[str]], object] = lambda _names: None,
        max_delivery_count: int = 10,
        drain_seconds: float = 30.0,
    ) -> None:
        self.failures: deque[Failure] = deque(maxlen=RECORDS_KEPT)
        self.dead_letters: deque[DeadLetter] = deque(maxlen=RECORDS_KEPT)
        self._clock = clock
        self._wait = wait
        self._on_failure = on_failure
        self._on_drain = on_drain
        self._max_delivery_count = max_delivery_count
        self._drain_length = timedelta(seconds=drain_seconds)
        self._limits = read_host_limits(host_json)
        functions = read_app_functions(app, app_settings, queues)
        self._timers = [_Timer(function, schedule, clock()) for function, schedule in functions.timers]
        self._queues = [_Queue(function, name, queues[name]) for function, name in functions.queues]
        self._http = functions.http
        self._sequence_numbers = itertools.count(1)
        self._workers = _Workers(0)
        self._lock = threading.RLock()  # guards _running and what an invocation leaves behind as it ends
        self._running: dict[str, _Invocation] = {}
        self._woken = threading.Event()

    @property
    def in_flight(self) -> int:
        """How many invocations are running now."""
        with self._lock:
            return len(self._running)

    @property
    def http_functions(self) -> tuple[HttpFunction, ...]:
        """The functions that `call_http` calls."""
        return tuple(self._http.values())

    def call_http(self, function_name: str, request: func.HttpRequest) -> func.HttpResponse:
        """Call an HTTP function on this thread.

        Raises KeyError for an unknown name and, after reporting it, what the function raises.
        """
        context = InvocationContext(function_name, uuid.uuid4().hex)
        try:
            return cast(func.HttpResponse, self._http[function_name].invoke(request, context))
        except Exception as error:
            self._report(function_name, context.invocation_id, error)
            raise

    def run_until(self, stop: threading.Event) -> None:
        """Run until `stop` is set: every timer once at the start, and from then on by its schedule.

        At the start, because what was missed while the host was down is unknown.
        """
        with self._working():
            self._make_timers_due()
            while not stop.is_set():
                self._woken.clear()
                self._start_due_timers()
                self._return_lapsed_messages()
                self._start_deliveries()
                self._report_hanging()
                self._wait_until(min(self._next_occurrence(), self._next_lapse()))

    def run_until_idle(
        self,
        next_work_at: Callable[[], datetime | None],
        patience_seconds: float,
        progress: Callable[[], int],
        stop: threading.Event,
    ) -> bool:
        """Run in rounds until no work is left; say whether that was reached.

        A round fires every timer once and ends when nothing is queued or in flight. Then
        `next_work_at` says when work is due next, and None ends the run with True. It ends with False
        when stopped, when the next work is more than `patience_seconds` away, when work has kept
        coming back for that long while `progress` (a number that grows with finished work) stood
        still, and when an invocation outlives functionTimeout. Nothing else ends it, and until then
        it waits for whatever is in flight.
        """
        with self._working():
            patience = _Patience(timedelta(seconds=patience_seconds), progress, self._clock)
            while not stop.is_set():
                self._make_timers_due()
                self._start_due_timers()
                if not self._work_off(stop, self._clock() + patience.length):
                    return False
                progressed = patience.renew()
                due_at = self._clock() if self._has_queued() else next_work_at()
                if due_at is None:
                    return True
                away = due_at - self._clock()
                if away > patience.length or (not progressed and patience.is_over()):
                    return False
                self._rest(stop, away if progressed else max(away, PAUSE))
            return False

    def _work_off(self, stop: threading.Event, hold_at: datetime) -> bool:
        """Deliver until nothing is queued or in flight. False when stopped or when an invocation hangs.

        From `hold_at` on nothing more is started, so that the caller gets to judge the progress
        even if the queue never runs dry.
        """
        holding = False
        while not stop.is_set():
            self._woken.clear()
            self._return_lapsed_messages()
            if not holding:
                self._start_deliveries()
            # In this order: an invocation puts bodies into queues before it ends.
            if not self.in_flight and (holding or not self._has_queued()):
                return True
            if self._report_hanging():
                return False
            self._wait_until(self._next_lapse() if holding else min(self._next_lapse(), hold_at))
            holding = self._clock() >= hold_at
        return False

    def _rest(self, stop: threading.Event, length: timedelta) -> None:
        rested_at = self._clock() + length
        while self._clock() < rested_at and not stop.is_set() and not self._has_queued():
            self._woken.clear()
            self._wait_until(rested_at)

    @contextmanager
    def _working(self) -> Iterator[None]:
        calls = len(self._queues) * self._limits.max_concurrent_calls
        self._workers = _Workers(len(self._timers) + calls)
        try:
            yield
            self._drain()
        finally:
            self._workers.end()

    def _drain(self) -> None:
        """Let what is in flight come to its end, within bounds."""
        self._on_drain(self._list_running())
        drained_by = self._clock() + self._drain_length
        while self.in_flight and self._clock() < drained_by:
            self._woken.clear()
            if self.in_flight:
                self._wait_until(drained_by)
        left = self._list_running()
        if left:
            _logger.warning("Stopped while still running: %s", ", ".join(left))

    def _list_running(self) -> list[str]:
        with self._lock:
            return sorted(invocation.function_name for invocation in self._running.values())

    def _wait_until(self, moment: datetime) -> None:
        self._wait(self._woken, (moment - self._clock()).total_seconds())

    def _next_occurrence(self) -> datetime:
        waiting = [timer.due_at for timer in self._timers if not self._calls_of(timer.function)]
        return min(waiting, default=self._clock() + LONGEST_WAIT)

    def _next_lapse(self) -> datetime:
        lapses = [delivery.locked_until for delivery in self._locked_deliveries()]
        return min(lapses, default=self._clock() + LONGEST_WAIT)

    def _has_queued(self) -> bool:
        return any(queue.returned or not queue.bodies.empty() for queue in self._queues)

    def _calls_of(self, function: Function) -> int:
        with self._lock:
            return sum(running.function_name == function.name for running in self._running.values())

    def _make_timers_due(self) -> None:
        for timer in self._timers:
            timer.due_at = self._clock()

    def _start_due_timers(self) -> None:
        for timer in self._timers:
            # In this order: a run that ends sets the next occurrence first.
            if self._calls_of(timer.function):
                continue
            late = self._clock() - timer.due_at
            if late >= timedelta(0):
                request = TimerRequest(past_due=late > PAST_DUE)
                self._start(timer.function, request, partial(self._reschedule, timer))

    def _reschedule(self, timer: "_Timer", _error: BaseException | None) -> None:
        # Occurrences that passed during the run are skipped, as on the platform.
        timer.due_at = get_occurrence_after(self._clock(), timer.schedule)

    def _start_deliveries(self) -> None:
        for queue in self._queues:
            while self._calls_of(queue.function) < self._limits.max_concurrent_calls:
                message = queue.take(self._sequence_numbers, self._clock())
                if message is None:
                    break
                message.deliveries += 1
                delivery = _Delivery(queue, message, self._clock() + self._limits.lock_renewal)
                self._start(
                    queue.function, delivery.build_argument(), partial(self._settle, delivery), delivery
                )

    def _settle(self, delivery: "_Delivery", error: BaseException | None) -> None:
        """Complete the message, or abandon it, after which Service Bus delivers it again at once."""
        if delivery.is_lapsed:
            _logger.warning("The lock of message %s had run out", delivery.message.message_id)
        elif error is not None:
            self._give_back(delivery, type(error).__name__, str(error))

    def _give_back(self, delivery: "_Delivery", error_type: str, error_text: str) -> None:
        queue, message = delivery.queue, delivery.message
        if message.deliveries < self._max_delivery_count:
            queue.returned.append(message)
            return
        dead = DeadLetter(
            queue_name=queue.name,
            message_id=message.message_id,
            body=message.body,
            delivery_count=message.deliveries,
            error_type=error_type,
            error_text=error_text,
            dead_lettered_at=self._clock(),
        )
        self.dead_letters.append(dead)
        _logger.error("Message %s is dead after %s deliveries", dead.message_id, dead.delivery_count)

    def _locked_deliveries(self) -> "list[_Delivery]":
        with self._lock:
            deliveries = [running.delivery for running in self._running.values()]
        return [delivery for delivery in deliveries if delivery is not None and not delivery.is_lapsed]

    def _return_lapsed_messages(self) -> None:
        """Deliver again what has been running for longer than its lock is renewed, as on the platform."""
        with self._lock:
            for delivery in self._locked_deliveries():
                if delivery.locked_until <= self._clock():
                    delivery.is_lapsed = True
                    self._give_back(delivery, "MessageLockLost", "the invocation outran the message's lock")

    def _report_hanging(self) -> bool:
        """Report, once, every invocation that the platform would have killed; say whether there are any."""
        with self._lock:
            running = list(self._running.values())
        oldest_allowed = self._clock() - self._limits.function_timeout
        hanging = [invocation for invocation in running if invocation.started_at < oldest_allowed]
        for invocation in hanging:
            if not invocation.is_reported:
                invocation.is_reported = True
                error = TimeoutError(f"still running after {self._limits.function_timeout} (functionTimeout)")
                self._report(invocation.function_name, invocation.invocation_id, error)
        return bool(hanging)

    def _start(
        self,
        function: Function,
        argument: object,
        settle: "Callable[[BaseException | None], None]",
        delivery: "_Delivery | None" = None,
    ) -> None:
        context = InvocationContext(function.name, uuid.uuid4().hex)
        invocation = _Invocation(function.name, context.invocation_id, self._clock(), delivery)
        with self._lock:
            self._running[context.invocation_id] = invocation
        self._workers.submit(partial(self._invoke, function, argument, context, settle))

    def _invoke(
        self,
        function: Function,
        argument: object,
        context: InvocationContext,
        settle: "Callable[[BaseException | None], None]",
    ) -> None:
        raised: BaseException | None = None
        try:
            function.invoke(argument, context)
        except BaseException as error:  # noqa: BLE001 - whatever a function raises, the host lives on
            raised = error
            self._report(function.name, context.invocation_id, error)
        finally:
            with self._lock:
                settle(raised)
                del self._running[context.invocation_id]
                self._woken.set()

    def _report(self, function_name: str, invocation_id: str, error: BaseException) -> None:
        name, text = type(error).__name__, str(error)
        _logger.error("%s failed (invocation %s): %s: %s", function_name, invocation_id, name, text)
        _logger.debug("Traceback of invocation %s", invocation_id, exc_info=error)
        self.failures.append(Failure(function_name, invocation_id, name, text, self._clock()))
        self._on_failure(function_name, error)


class _Patience:
    """How long work may keep coming back without anything being finished."""

    def __init__(self, length: timedelta, progress: Callable[[], int], clock: Callable[[], datetime]) -> None:
        self.length = length
        self._progress = progress
        self._clock = clock
        self._finished = progress()
        self._since = clock()

    def renew(self) -> bool:
        """Start again if something was finished since the last time; say whether it was."""
        finished = self._progress()
        if finished <= self._finished:
            return False
        self._finished, self._since = finished, self._clock()
        return True

    def is_over(self) -> bool:
        return self._clock() - self._since >= self.length


class _Workers:
    """Threads that live through many calls, so that what they cache per thread is of use.

    They are daemons: an executor would hold up the end of the process until the last hanging call
    returns.
    """

    def __init__(self, count: int) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._count = count
        for number in range(count):
            threading.Thread(target=self._work, name=f"host-{number}", daemon=True).start()

    def submit(self, call: Callable[[], None]) -> None:
        self._calls.put(call)

    def end(self) -> None:
        for _ in range(self._count):
            self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except BaseException:
                # A callback broke its promise not to raise; the thread is still needed.
                _logger.exception("The host's on_failure callback raised")


@dataclass(slots=True)
class _Timer:
    """A timer function and its next occurrence."""

    function: Function
    schedule: str
    due_at: datetime


@dataclass(slots=True)
class _Message:
    """A body on its way through its deliveries."""

    body: bytes = field(repr=False)
    message_id: str
    sequence_number: int
    enqueued_at: datetime
    deliveries: int = 0


@dataclass(slots=True)
class _Queue:
    """A queue function, the bodies that wait for it and the messages that came back."""

    function: Function
    name: str
    bodies: "Queue[bytes] | SimpleQueue[bytes]"
    returned: deque[_Message] = field(default_factory=deque)

    def take(self, sequence_numbers: Iterator[int], now: datetime) -> _Message | None:
        if self.returned:
            return self.returned.popleft()
        if self.bodies.empty():
            return None
        # Only the host's own thread takes bodies, so there is still one.
        return _Message(self.bodies.get_nowait(), uuid.uuid4().hex, next(sequence_numbers), now)


@dataclass(slots=True)
class _Delivery:
    """One delivery of a message. The lock is renewed until `locked_until`."""

    queue: _Queue
    message: _Message
    locked_until: datetime
    is_lapsed: bool = False

    def build_argument(self) -> ServiceBusMessage:
        return ServiceBusMessage(
            body=self.message.body,
            message_id=self.message.message_id,
            sequence_number=self.message.sequence_number,
            delivery_count=self.message.deliveries,
            enqueued_time_utc=self.message.enqueued_at,
            locked_until=self.locked_until,
            lock_token=uuid.uuid4().hex,
            application_properties={},
            user_properties={},
        )


@dataclass(slots=True)
class _Invocation:
    """An invocation in flight."""

    function_name: str
    invocation_id: str
    started_at: datetime
    delivery: _Delivery | None
    is_reported: bool = False
