"""What a function app has registered: its functions, their triggers, and the limits in host.json."""

import inspect
import os
import re
import threading
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import azure.functions as func
from croniter import CroniterError, croniter

from shared.errors import ConfigurationError

HTTP_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
ENDLESS = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class TraceContext:
    """No trace to join: each invocation starts its own."""

    trace_parent: str = ""
    trace_state: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class InvocationContext:
    """What a function sees in a parameter named context: the attributes of azure.functions.Context."""

    function_name: str
    invocation_id: str
    function_directory: str = ""
    trace_context: Any = field(default_factory=TraceContext)
    retry_context: Any = None
    thread_local_storage: Any = field(default_factory=threading.local)


@dataclass(frozen=True, slots=True)
class Function:
    """A registered function and the parameter that its trigger fills."""

    name: str
    call: Callable[..., Any]
    parameter: str

    def invoke(self, argument: object, context: InvocationContext) -> object:
        """Call it as the Functions worker does. Raises what the function raises."""
        arguments: dict[str, object] = {self.parameter: argument}
        if "context" in inspect.signature(self.call).parameters:
            arguments.setdefault("context", context)
        return self.call(**arguments)


@dataclass(frozen=True, slots=True)
class HttpFunction(Function):
    """A function that an HTTP request calls; `route` is what stands behind /api/."""

    route: str
    methods: tuple[str, ...]
    needs_key: bool


@dataclass(frozen=True, slots=True)
class AppFunctions:
    """The functions by trigger, in the order of registration: timers with schedule, queues with name."""

    timers: list[tuple[Function, str]]
    queues: list[tuple[Function, str]]
    http: dict[str, HttpFunction]


@dataclass(frozen=True, slots=True)
class HostLimits:
    """The limits of host.json; the platform's defaults (Flex Consumption) where it is silent."""

    max_concurrent_calls: int
    lock_renewal: timedelta
    function_timeout: timedelta


def read_app_functions(
    app: func.FunctionApp, app_settings: Mapping[str, str], queue_names: Container[str]
) -> AppFunctions:
    """Read every function and fill %NAME% in its trigger from the app settings.

    Raises one ConfigurationError with everything that a single-machine host cannot work with.
    """
    # get_functions() remembers the names it has seen and takes them for duplicates the next time.
    app.functions_bindings = None
    reader = _Reader(app_settings, queue_names)
    for registered in app.get_functions():
        reader.read(registered)
    if reader.problems:
        raise ConfigurationError(reader.problems)
    return reader.functions


def read_host_limits(host_json: Mapping[str, Any]) -> HostLimits:
    """Read a parsed host.json. Raises ConfigurationError."""
    service_bus = host_json.get("extensions", {}).get("serviceBus", {})
    calls = service_bus.get("maxConcurrentCalls", 16 * (os.cpu_count() or 1))
    if not isinstance(calls, int) or calls < 1:
        raise ConfigurationError(
            f"host.json: maxConcurrentCalls must be a whole number over 0, not {calls!r}."
        )
    return HostLimits(
        max_concurrent_calls=calls,
        lock_renewal=_parse_timespan(service_bus.get("maxAutoLockRenewalDuration", "00:05:00")),
        function_timeout=_parse_timespan(host_json.get("functionTimeout", "00:30:00")),
    )


def get_occurrence_after(moment: datetime, schedule: str) -> datetime:
    """The first occurrence of an NCRONTAB expression after a moment. Raises CroniterError.

    Its seconds come first and may be absent. Unlike in crontab both day fields have to match.
    """
    if len(schedule.split()) not in (5, 6):
        raise CroniterError("it must have 5 or 6 fields")
    return croniter(schedule, moment, second_at_beginning=True, day_or=False).get_next(datetime)


@dataclass
class _Reader:
    """Reads one function at a time and collects a sentence for everything it cannot work with."""

    app_settings: Mapping[str, str]
    queue_names: Container[str]
    functions: AppFunctions = field(default_factory=lambda: AppFunctions([], [], {}))
    problems: list[str] = field(default_factory=list)

    def read(self, registered: Any) -> None:
        trigger = registered.get_trigger()
        binding = trigger.get_dict_repr()
        function = Function(registered.get_function_name(), registered.get_user_function(), binding["name"])
        if binding["type"] == "httpTrigger":
            self.read_http(function, binding)
            return
        for other in registered.get_bindings():
            if other.name != trigger.name:
                self.refuse(function, f"the binding {other.name} ({other.type}) is not supported")
        if inspect.iscoroutinefunction(function.call):
            self.refuse(function, "async functions are not supported")
        if binding["type"] == "timerTrigger":
            self.read_timer(function, binding)
        elif binding["type"] == "serviceBusTrigger":
            self.read_queue(function, binding)
        else:
            self.refuse(function, f"the trigger {binding['type']} is not supported")

    def read_http(self, function: Function, binding: Mapping[str, Any]) -> None:
        self.functions.http[function.name] = HttpFunction(
            function.name,
            function.call,
            function.parameter,
            route=binding.get("route") or function.name,
            methods=tuple(str(method) for method in binding.get("methods") or HTTP_METHODS),
            needs_key=binding.get("authLevel") != func.AuthLevel.ANONYMOUS,
        )

    def read_timer(self, function: Function, binding: Mapping[str, Any]) -> None:
        schedule = self.resolve(function, binding["schedule"])
        if schedule is None:
            return
        try:
            get_occurrence_after(datetime.now(UTC), schedule)
        except CroniterError as error:
            self.refuse(function, f"the schedule {schedule!r} is not an NCRONTAB expression ({error})")
        else:
            self.functions.timers.append((function, schedule))

    def read_queue(self, function: Function, binding: Mapping[str, Any]) -> None:
        if "queueName" not in binding:
            self.refuse(function, "Service Bus topics are not supported")
            return
        if binding.get("cardinality") == func.Cardinality.MANY:
            self.refuse(function, "batches (cardinality many) are not supported")
        name = self.resolve(function, binding["queueName"])
        if name is not None and name not in self.queue_names:
            self.refuse(function, f"this host has no queue {name!r}")
        elif name is not None:
            self.functions.queues.append((function, name))

    def resolve(self, function: Function, text: str) -> str | None:
        missing = [name for name in re.findall("%([^%]+)%", text) if not self.app_settings.get(name)]
        for name in missing:
            self.refuse(function, f"its trigger names the app setting {name}, which is not set")
        if missing:
            return None
        return re.sub("%([^%]+)%", lambda match: self.app_settings[match[1]], text)

    def refuse(self, function: Function, problem: str) -> None:
        self.problems.append(f"The function {function.name} cannot run here: {problem}.")


def _parse_timespan(text: str) -> timedelta:
    """A .NET time span as host.json writes it, [days.]hh:mm:ss; "-1" stands for no end."""
    if text == "-1":
        return ENDLESS
    match = re.fullmatch(r"(?:(\d+)\.)?(\d+):(\d\d):(\d\d)", text)
    if match is None:
        raise ConfigurationError(f"host.json: {text!r} is not a time span such as 00:10:00.")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
