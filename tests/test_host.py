"""The single-machine host, with throw-away function apps and a clock that the tests turn."""

import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from queue import SimpleQueue
from typing import Any

import azure.functions as func
import pytest

from local.host.host import Host, SteadyClock, wait_briefly
from shared.errors import ConfigurationError

START = datetime(2026, 3, 1, 12, 0, 10, tzinfo=UTC)
PATIENCE_SECONDS = 60.0
BOUND_SECONDS = 10.0  # for what really happens on other threads


class Time:
    """A clock that stands still while the host has something in flight, and else jumps to where it waits for.

    As long as there are `steps`, one is taken per wait instead. `oversleeps` is added to every jump.
    """

    def __init__(self) -> None:
        self.now = START
        self.waits = 0
        self.oversleeps = 0.0
        self.in_flight: Callable[[], int] = lambda: 0
        self.steps: Iterator[object] = iter(())

    def __call__(self) -> datetime:
        return self.now

    def wait(self, woken: threading.Event, seconds: float) -> None:
        self.waits += 1
        if next(self.steps, self) is not self:
            return
        if self.in_flight():
            assert woken.wait(BOUND_SECONDS), "an invocation does not end"
        elif not woken.is_set():
            self.pass_by(seconds + self.oversleeps)

    def pass_by(self, seconds: float) -> None:
        self.now += timedelta(seconds=max(seconds, 0))


class Rig:
    """A host around an app, with one queue called work."""

    def __init__(self, app: func.FunctionApp, **options: Any) -> None:
        self.time = Time()
        self.stop = threading.Event()
        self.bodies: SimpleQueue[bytes] = SimpleQueue()
        self.finished = 0
        settings = {"host_json": {}, "app_settings": {}, "queues": {"work": self.bodies}} | options
        self.host = Host(app, clock=self.time, wait=self.time.wait, **settings)
        self.time.in_flight = lambda: self.host.in_flight

    def run(self) -> None:
        self.host.run_until(self.stop)

    def run_until_idle(
        self, next_work_at: Callable[[], datetime | None] = lambda: None, patience: float = PATIENCE_SECONDS
    ) -> bool:
        return self.host.run_until_idle(next_work_at, patience, lambda: self.finished, self.stop)


def add_timer(
    app: func.FunctionApp, call: Callable[[func.TimerRequest], object], schedule: str = "0 */1 * * * *"
) -> None:
    @app.function_name("tick")
    @app.timer_trigger(schedule=schedule, arg_name="timer")
    def tick(timer: func.TimerRequest) -> None:
        call(timer)


def add_worker(
    app: func.FunctionApp, call: Callable[[func.ServiceBusMessage], object], queue_name: str = "work"
) -> None:
    @app.function_name("work")
    @app.service_bus_queue_trigger(arg_name="message", queue_name=queue_name, connection="Bus")
    def work(message: func.ServiceBusMessage) -> None:
        call(message)


def timer_app(
    call: Callable[[func.TimerRequest], object], schedule: str = "0 */1 * * * *"
) -> func.FunctionApp:
    app = func.FunctionApp()
    add_timer(app, call, schedule)
    return app


def worker_app(call: Callable[[func.ServiceBusMessage], object]) -> func.FunctionApp:
    app = func.FunctionApp()
    add_worker(app, call)
    return app


def service_bus(**settings: object) -> Mapping[str, object]:
    return {"extensions": {"serviceBus": settings}}


def do_nothing(_: object) -> None: ...


# Timers


def fired_times(schedule: str, count: int) -> list[str]:
    fired: list[str] = []

    def call(timer: func.TimerRequest) -> None:
        fired.append(f"{rig.time.now:%d.%m. %H:%M:%S}")
        if len(fired) == count:
            rig.stop.set()

    rig = Rig(timer_app(call, schedule))
    rig.run()
    assert not rig.host.failures
    return fired


def test_a_clock_that_is_set_back_stops_no_timer() -> None:
    fired: list[datetime] = []

    def tick(_: object) -> None:
        fired.append(rig.time())
        if len(fired) == 3:
            rig.stop.set()

    rig = Rig(timer_app(tick))
    since = rig.time()

    def wall() -> datetime:
        """An hour back from the first minute on."""
        passed = rig.time() - since
        return rig.time() - timedelta(hours=1) if passed > timedelta(seconds=30) else rig.time()

    rig.host._clock = SteadyClock(wall, lambda: rig.time().timestamp())
    rig.run()
    assert fired[-1] - since <= timedelta(minutes=3)


def test_a_steady_clock_follows_the_machine_s_forwards_and_counts_on_when_it_is_set_back() -> None:
    wall, counted = START, 0.0
    clock = SteadyClock(lambda: wall, lambda: counted)
    wall += timedelta(hours=8)  # the machine slept
    assert clock() == wall
    before, wall, counted = wall, START, counted + 60
    assert clock() == before + timedelta(seconds=60)


def test_a_timer_fires_at_the_start_and_then_by_its_schedule() -> None:
    assert fired_times("30 */5 * * * *", 4) == [
        "01.03. 12:00:10",
        "01.03. 12:00:30",
        "01.03. 12:05:30",
        "01.03. 12:10:30",
    ]


def test_a_schedule_of_five_fields_starts_with_the_minutes() -> None:
    assert fired_times("*/10 * * * *", 3)[1:] == ["01.03. 12:10:00", "01.03. 12:20:00"]


def test_a_schedule_with_both_day_fields_wants_both_to_match() -> None:
    assert fired_times("0 0 9 1 * MON", 2)[1:] == ["01.06. 09:00:00"]


def test_a_timer_that_fires_late_says_so() -> None:
    past_due: list[bool] = []

    def call(timer: func.TimerRequest) -> None:
        past_due.append(timer.past_due)
        rig.time.oversleeps = 30 if len(past_due) == 2 else 0
        if len(past_due) == 3:
            rig.stop.set()

    rig = Rig(timer_app(call))
    rig.run()
    assert past_due == [False, False, True]


def test_a_timer_never_runs_twice_at_once_and_skips_what_it_missed() -> None:
    started: list[str] = []
    is_running = threading.Event()
    release = threading.Event()

    def call(timer: func.TimerRequest) -> None:
        started.append(f"{rig.time.now:%H:%M:%S} {timer.past_due}")
        is_running.set()
        if len(started) == 2:
            rig.stop.set()
        assert release.wait(BOUND_SECONDS)

    def let_five_occurrences_pass() -> Iterator[None]:
        assert is_running.wait(BOUND_SECONDS)
        for _ in range(5):
            rig.time.pass_by(60)
            yield None
        release.set()

    rig = Rig(timer_app(call))
    rig.time.steps = let_five_occurrences_pass()
    rig.run()
    assert started == ["12:00:10 False", "12:06:00 False"]


def test_an_idle_host_turns_only_when_something_is_due() -> None:
    def call(timer: func.TimerRequest) -> None:
        if rig.time.now >= START + timedelta(hours=1):
            rig.stop.set()

    rig = Rig(timer_app(call, "0 */10 * * * *"))
    rig.run()
    assert rig.time.waits < 100


# What the app has registered


def test_app_settings_fill_schedules_and_queue_names() -> None:
    app = func.FunctionApp()
    add_timer(app, lambda _: rig.bodies.put(b"x"), "%POLL_SCHEDULE%")
    add_worker(app, lambda message: bodies.append(message.get_body()), "%TEAM%-%WORK_QUEUE_NAME%")
    bodies: list[bytes] = []
    mail: SimpleQueue[bytes] = SimpleQueue()
    settings = {"POLL_SCHEDULE": "0 * * * * *", "TEAM": "a", "WORK_QUEUE_NAME": "mail"}
    rig = Rig(app, app_settings=settings, queues={"a-mail": mail})
    rig.bodies = mail

    assert rig.run_until_idle()
    assert bodies == [b"x"]


def test_everything_the_host_cannot_work_with_is_named_at_once() -> None:
    app = func.FunctionApp()
    add_timer(app, do_nothing, "%POLL_SCHEDULE%")
    add_worker(app, do_nothing, "%WORK_QUEUE_NAME%")

    @app.blob_trigger(arg_name="blob", path="x", connection="Storage")
    def watch_blobs(blob: object) -> None: ...

    @app.timer_trigger(schedule="every minute", arg_name="timer")
    def badly_scheduled(timer: func.TimerRequest) -> None: ...

    @app.timer_trigger(schedule="0 0 0 30 2 *", arg_name="timer")
    def never_scheduled(timer: func.TimerRequest) -> None: ...

    @app.timer_trigger(schedule="0 * * * * *", arg_name="timer")
    async def asynchronous(timer: func.TimerRequest) -> None: ...

    @app.service_bus_queue_trigger(
        arg_name="messages", queue_name="work", connection="Bus", cardinality=func.Cardinality.MANY
    )
    def batches(messages: object) -> None: ...

    @app.service_bus_topic_trigger(
        arg_name="message", topic_name="t", subscription_name="s", connection="Bus"
    )
    def topic(message: object) -> None: ...

    @app.service_bus_queue_trigger(arg_name="message", queue_name="elsewhere", connection="Bus")
    @app.queue_output(arg_name="out", queue_name="x", connection="Storage")
    def elsewhere(message: object, out: object) -> None: ...

    with pytest.raises(ConfigurationError) as caught:
        Rig(app)
    patterns = [
        r"function tick .* POLL_SCHEDULE, which is not set",
        r"function work .* WORK_QUEUE_NAME, which is not set",
        r"function watch_blobs .* blobTrigger is not supported",
        r"function badly_scheduled .* 'every minute' is not an NCRONTAB",
        r"function never_scheduled .* '0 0 0 30 2 \*' is not an NCRONTAB",
        r"function asynchronous .* async",
        r"function batches .* \(cardinality many\)",
        r"function topic .* topics are not supported",
        r"function elsewhere .* binding out \(queue\) is not supported",
        r"function elsewhere .* no queue 'elsewhere'",
    ]
    problems = list(caught.value.problems)
    for pattern in patterns:
        assert any(re.search(pattern, problem) for problem in problems), pattern
    assert len(problems) == len(patterns)


@pytest.mark.parametrize(
    "host_json",
    [
        service_bus(maxConcurrentCalls=0),
        service_bus(maxConcurrentCalls="16"),
        service_bus(maxAutoLockRenewalDuration="5 minutes"),
        {"functionTimeout": "00:90"},
    ],
    ids=str,
)
def test_a_host_json_that_makes_no_sense_is_refused(host_json: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^host\.json: "):
        Rig(timer_app(do_nothing), host_json=host_json)


def test_one_app_can_be_hosted_more_than_once() -> None:
    app = timer_app(do_nothing)
    assert Rig(app).run_until_idle()
    assert Rig(app).run_until_idle()


def test_a_function_that_asks_for_its_context_gets_one() -> None:
    app = func.FunctionApp()
    contexts: list[func.Context] = []

    @app.timer_trigger(schedule="0 * * * * *", arg_name="timer")
    def traced(timer: func.TimerRequest, context: func.Context) -> None:
        contexts.append(context)

    rig = Rig(app)
    assert rig.run_until_idle()
    assert rig.run_until_idle()
    assert [context.function_name for context in contexts] == ["traced", "traced"]
    assert contexts[0].invocation_id != contexts[1].invocation_id
    assert contexts[0].trace_context.trace_parent == ""


# Queue messages


def test_a_body_is_delivered_as_a_service_bus_message() -> None:
    messages: list[func.ServiceBusMessage] = []
    rig = Rig(worker_app(messages.append), host_json=service_bus(maxAutoLockRenewalDuration="00:10:00"))
    rig.bodies.put(b"one")
    rig.bodies.put(b"two")

    assert rig.run_until_idle()
    first, second = sorted(messages, key=lambda message: message.sequence_number or 0)
    assert isinstance(first, func.ServiceBusMessage)
    assert (first.get_body(), second.get_body()) == (b"one", b"two")
    assert first.message_id != second.message_id
    assert first.delivery_count == 1
    assert first.enqueued_time_utc == START
    assert first.locked_until == START + timedelta(minutes=10)


def test_a_poison_message_is_delivered_ten_times_at_once_and_then_dead() -> None:
    counts: list[int | None] = []

    def call(message: func.ServiceBusMessage) -> None:
        counts.append(message.delivery_count)
        raise ValueError("not a work item")

    rig = Rig(worker_app(call))
    rig.bodies.put(b"poison")

    assert rig.run_until_idle()
    assert counts == list(range(1, 11))
    assert rig.time.now == START
    (dead,) = rig.host.dead_letters
    assert (dead.queue_name, dead.body, dead.delivery_count) == ("work", b"poison", 10)
    assert (dead.error_type, dead.error_text) == ("ValueError", "not a work item")
    assert "poison" not in repr(dead)


def test_a_message_that_succeeds_in_the_end_is_not_dead() -> None:
    def call(message: func.ServiceBusMessage) -> None:
        if message.delivery_count != 3:
            raise OSError("not yet")

    rig = Rig(worker_app(call), max_delivery_count=3)
    rig.bodies.put(b"x")

    assert rig.run_until_idle()
    assert not rig.host.dead_letters
    assert len(rig.host.failures) == 2


def test_as_many_messages_run_at_once_as_host_json_allows_and_never_more() -> None:
    limit = 3
    together = threading.Barrier(limit)
    lock = threading.Lock()
    running = 0
    most = 0

    def call(message: func.ServiceBusMessage) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait(BOUND_SECONDS)  # passes only when the limit is reached
        with lock:
            running -= 1

    rig = Rig(worker_app(call), host_json=service_bus(maxConcurrentCalls=limit))
    for _ in range(4 * limit):
        rig.bodies.put(b"x")

    assert rig.run_until_idle()
    assert not rig.host.failures
    assert most == limit


def test_a_body_leaves_its_queue_only_when_a_call_is_free_for_it() -> None:
    waiting: list[int] = []

    def call(message: func.ServiceBusMessage) -> None:
        waiting.append(rig.bodies.qsize())

    rig = Rig(worker_app(call), host_json=service_bus(maxConcurrentCalls=1))
    for _ in range(3):
        rig.bodies.put(b"x")

    assert rig.run_until_idle()
    assert waiting == [2, 1, 0]


def test_a_message_whose_lock_ran_out_is_delivered_again_and_how_the_first_call_ends_is_no_matter() -> None:
    counts: list[int | None] = []
    delivered = threading.Event()
    delivered_again = threading.Event()

    def call(message: func.ServiceBusMessage) -> None:
        counts.append(message.delivery_count)
        delivered.set()
        if message.delivery_count == 1:
            assert delivered_again.wait(BOUND_SECONDS)
            raise OSError("too late to abandon")
        delivered_again.set()

    def outrun_the_lock() -> Iterator[None]:
        assert delivered.wait(BOUND_SECONDS)
        rig.time.pass_by(59)
        yield None
        assert counts == [1]
        rig.time.pass_by(1)
        yield None

    rig = Rig(worker_app(call), host_json=service_bus(maxAutoLockRenewalDuration="00:01:00"))
    rig.bodies.put(b"slow")
    rig.time.steps = outrun_the_lock()

    assert rig.run_until_idle(patience=600)
    assert counts == [1, 2]
    assert not rig.host.dead_letters


# Failures


def test_a_function_that_raises_is_recorded_and_stops_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    def call(timer: func.TimerRequest) -> None:
        rig.bodies.put(b"the body")
        raise SystemExit("tired")

    app = timer_app(call)
    add_worker(app, lambda message: delivered.append(message.get_body()))
    delivered: list[bytes] = []
    seen: list[tuple[str, BaseException]] = []
    rig = Rig(app, on_failure=lambda name, error: seen.append((name, error)))

    with caplog.at_level(logging.INFO):
        assert rig.run_until_idle()
    assert delivered == [b"the body"]
    (failure,) = rig.host.failures
    assert (failure.function_name, failure.error_type, failure.error_text) == ("tick", "SystemExit", "tired")
    assert [(name, type(error)) for name, error in seen] == [("tick", SystemExit)]
    assert f"tick failed (invocation {failure.invocation_id}): SystemExit: tired" in caplog.text
    assert "the body" not in caplog.text


def test_a_failure_callback_that_raises_neither_loses_nor_hangs_anything() -> None:
    def call(message: func.ServiceBusMessage) -> None:
        raise ValueError("no")

    def break_promise(name: str, error: BaseException) -> None:
        raise RuntimeError("must not happen")

    one_thread = service_bus(maxConcurrentCalls=1)
    rig = Rig(worker_app(call), on_failure=break_promise, max_delivery_count=2, host_json=one_thread)
    rig.bodies.put(b"x")

    assert rig.run_until_idle()
    assert len(rig.host.dead_letters) == 1


# Running until idle


def test_nothing_due_after_the_first_round_is_idle() -> None:
    fired: list[datetime] = []
    rig = Rig(timer_app(lambda _: fired.append(rig.time.now)))

    assert rig.run_until_idle()
    assert fired == [START]
    assert rig.time.now == START


def test_idle_is_asked_only_when_queue_and_flight_are_empty() -> None:
    handled: list[bytes] = []

    def call(message: func.ServiceBusMessage) -> None:
        body = message.get_body()
        if body != b"leaf":
            for _ in range(3):
                rig.bodies.put(b"leaf" if body == b"branch" else b"branch")
        handled.append(body)

    def next_work_at() -> None:
        assert rig.host.in_flight == 0
        assert rig.bodies.empty()
        assert len(handled) == 13

    app = timer_app(lambda _: rig.bodies.put(b"root"))
    add_worker(app, call)
    rig = Rig(app, host_json=service_bus(maxConcurrentCalls=2))

    assert rig.run_until_idle(next_work_at)
    assert len(handled) == 13


def test_work_due_within_the_patience_is_waited_for_and_the_timers_fire_again() -> None:
    fired: list[datetime] = []
    due = iter([START + timedelta(seconds=5), START + timedelta(seconds=60), None])

    def call(timer: func.TimerRequest) -> None:
        fired.append(rig.time.now)
        rig.finished += 1

    rig = Rig(timer_app(call))

    assert rig.run_until_idle(lambda: next(due))
    assert [(at - START).total_seconds() for at in fired] == [0, 5, 60]


def test_work_due_beyond_the_patience_is_left_for_later() -> None:
    rig = Rig(timer_app(do_nothing))

    assert not rig.run_until_idle(lambda: START + timedelta(seconds=PATIENCE_SECONDS + 1))
    assert rig.time.now == START


def test_work_that_keeps_coming_back_unfinished_ends_the_run_after_the_patience() -> None:
    fired: list[datetime] = []
    rig = Rig(timer_app(lambda _: fired.append(rig.time.now)))

    assert not rig.run_until_idle(lambda: rig.time.now)
    assert rig.time.now == START + timedelta(seconds=PATIENCE_SECONDS)
    assert len(fired) == PATIENCE_SECONDS + 1, "rounds without progress must be a second apart"


def test_progress_renews_the_patience() -> None:
    rounds = 0

    def call(timer: func.TimerRequest) -> None:
        nonlocal rounds
        rounds += 1
        rig.finished = rounds // 2  # every other round finishes something

    def next_work_at() -> datetime | None:
        return None if rounds == 10 else rig.time.now + timedelta(seconds=40)

    rig = Rig(timer_app(call))

    assert rig.run_until_idle(next_work_at)
    assert rig.time.now == START + timedelta(seconds=9 * 40)


def test_a_queue_that_never_runs_dry_without_progress_ends_the_run() -> None:
    def call(message: func.ServiceBusMessage) -> None:
        rig.time.pass_by(1)
        rig.bodies.put(message.get_body())

    rig = Rig(worker_app(call), host_json=service_bus(maxConcurrentCalls=1))
    rig.bodies.put(b"again")

    assert not rig.run_until_idle(lambda: pytest.fail("there is still work queued"))
    assert rig.host.in_flight == 0
    assert rig.time.now <= START + timedelta(seconds=2 * PATIENCE_SECONDS)


def test_a_queue_that_is_worked_off_slowly_is_worked_off_to_the_end() -> None:
    def call(message: func.ServiceBusMessage) -> None:
        rig.time.pass_by(50)
        rig.finished += 1

    rig = Rig(worker_app(call), host_json=service_bus(maxConcurrentCalls=1))
    for _ in range(10):
        rig.bodies.put(b"x")

    assert rig.run_until_idle()
    assert rig.finished == 10


def test_an_invocation_longer_than_the_patience_is_waited_for() -> None:
    release = threading.Event()

    def call(message: func.ServiceBusMessage) -> None:
        assert release.wait(BOUND_SECONDS)
        rig.finished += 1

    def outlast_the_patience() -> Iterator[None]:
        for _ in range(5):
            rig.time.pass_by(PATIENCE_SECONDS)
            yield None
        release.set()

    limits = service_bus(maxConcurrentCalls=1, maxAutoLockRenewalDuration="01:00:00")
    rig = Rig(worker_app(call), host_json=limits)
    rig.bodies.put(b"slow")
    rig.bodies.put(b"next")
    rig.time.steps = outlast_the_patience()

    assert rig.run_until_idle()
    assert rig.finished == 2


def test_an_invocation_that_outlives_function_timeout_ends_the_run() -> None:
    release = threading.Event()

    def outlast_function_timeout() -> Iterator[None]:
        rig.time.pass_by(600)
        yield None
        rig.time.pass_by(1)
        yield None
        rig.time.pass_by(31)  # the drain's bound
        yield None

    rig = Rig(timer_app(lambda _: release.wait()), host_json={"functionTimeout": "00:10:00"})
    rig.time.steps = outlast_function_timeout()

    assert not rig.run_until_idle()
    assert [failure.error_type for failure in rig.host.failures] == ["TimeoutError"]
    assert "tick" in [failure.function_name for failure in rig.host.failures]
    release.set()


def test_a_body_that_arrives_during_the_wait_for_due_work_is_delivered_at_once() -> None:
    delivered: list[datetime] = []

    def bring_a_body() -> Iterator[None]:
        rig.time.pass_by(1)
        rig.bodies.put(b"x")
        yield None

    def next_work_at() -> datetime | None:
        rig.time.steps = iter(()) if delivered else bring_a_body()
        return None if delivered else START + timedelta(seconds=50)

    rig = Rig(worker_app(lambda _: delivered.append(rig.time.now)))

    assert rig.run_until_idle(next_work_at)
    assert delivered == [START + timedelta(seconds=1)]


# Stopping


def test_a_stop_lets_what_is_in_flight_end_and_starts_nothing_more() -> None:
    ended: list[bytes] = []
    started = threading.Event()
    release = threading.Event()

    def call(message: func.ServiceBusMessage) -> None:
        started.set()
        assert release.wait(BOUND_SECONDS)
        ended.append(message.get_body())

    def stop_while_busy() -> Iterator[None]:
        assert started.wait(BOUND_SECONDS)
        rig.stop.set()
        release.set()
        yield None

    rig = Rig(worker_app(call), host_json=service_bus(maxConcurrentCalls=1))
    for body in (b"first", b"second"):
        rig.bodies.put(body)
    rig.time.steps = stop_while_busy()

    rig.run()
    assert ended == [b"first"]
    assert rig.host.in_flight == 0
    assert rig.bodies.get_nowait() == b"second"


def test_a_stop_names_what_is_still_running_before_it_waits_for_it() -> None:
    started, release = threading.Event(), threading.Event()
    named: list[list[str]] = []

    def call(_: func.ServiceBusMessage) -> None:
        started.set()
        assert release.wait(BOUND_SECONDS)

    def note(names: Sequence[str]) -> None:
        named.append(list(names))
        release.set()

    def stop_while_busy() -> Iterator[None]:
        assert started.wait(BOUND_SECONDS)
        rig.stop.set()
        yield None

    rig = Rig(worker_app(call), on_drain=note)
    rig.bodies.put(b"x")
    rig.time.steps = stop_while_busy()

    rig.run()
    assert named == [["work"]]


def test_a_message_that_failed_before_a_stop_goes_on_where_it_was_in_the_next_run() -> None:
    counts: list[int | None] = []

    def call(message: func.ServiceBusMessage) -> None:
        counts.append(message.delivery_count)
        if len(counts) == 1:
            rig.stop.set()
            raise OSError("once")

    rig = Rig(worker_app(call))
    rig.bodies.put(b"x")

    rig.run()
    assert counts == [1]
    rig.stop.clear()
    assert rig.run_until_idle()
    assert counts == [1, 2]


def test_a_drain_gives_up_on_what_does_not_end_and_names_it(caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()

    def stop_and_let_the_bound_pass() -> Iterator[None]:
        rig.stop.set()
        yield None
        rig.time.pass_by(4.9)
        yield None
        assert "tick" not in caplog.text
        rig.time.pass_by(0.2)
        yield None

    rig = Rig(timer_app(lambda _: release.wait()), drain_seconds=5)
    rig.time.steps = stop_and_let_the_bound_pass()

    rig.run()
    assert "Stopped while still running: tick" in caplog.text
    release.set()


def test_a_stop_ends_a_run_until_idle_that_waits_for_due_work() -> None:
    fired: list[datetime] = []

    def stop() -> Iterator[None]:
        rig.stop.set()
        yield None

    def next_work_at() -> datetime:
        rig.time.steps = stop()
        return START + timedelta(seconds=30)

    rig = Rig(timer_app(lambda _: fired.append(rig.time.now)))

    assert not rig.run_until_idle(next_work_at)
    assert fired == [START]
    assert rig.time.now == START


def test_a_stop_is_noticed_at_once_by_the_real_clock() -> None:
    fired = threading.Event()
    stop = threading.Event()
    host = Host(
        timer_app(lambda _: fired.set()),
        app_settings={},
        queues={},
        host_json={},
        clock=lambda: datetime.now(UTC),
    )
    running = threading.Thread(target=host.run_until, args=[stop])
    running.start()
    assert fired.wait(BOUND_SECONDS)
    stop.set()
    running.join(BOUND_SECONDS)
    assert not running.is_alive()


def test_a_wait_ends_as_soon_as_an_invocation_has_ended() -> None:
    woken = threading.Event()
    woken.set()
    wait_briefly(woken, 3600)
    wait_briefly(threading.Event(), -1)
