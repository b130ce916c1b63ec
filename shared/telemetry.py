"""Telemetry: what happened, as events, spans and metrics of ids, numbers and words, never of email text."""

import functools
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span

Value = str | int | float | None

# Each event is one log record: its attributes become columns in Application Insights, and the same
# facts are in its message for the reader of the console. Those with an actor are the audit trail.
POLL_SUCCEEDED = "poll.succeeded"
EMAIL_DECIDED = "email.decided"
EMAIL_DEFERRED = "email.deferred"
EMAIL_REDRIVEN = "email.redriven"
EMAIL_ERASED = "email.erased"
REPLY_SETTLED = "reply.settled"
REPLY_WITHDRAWN = "reply.withdrawn"
REPLIES_PENDING = "replies.pending"
BACKLOG_MEASURED = "backlog.measured"
TOOL_CALLED = "tool.called"
TOKEN_BUDGET_REACHED = "tokens.budget_reached"  # noqa: S105  # not a password
WEBHOOK_RECEIVED = "webhook.received"
WEBHOOKS_REFUSED = "webhooks.refused"
MATTER_CLOSED = "matter.closed"
NOTIFICATION_SENT = "notification.sent"
NOTIFICATION_FAILED = "notification.failed"
LOOKUP_FINISHED = "lookup.finished"
AUDIT_ANCHORED = "audit.anchored"
SERVICE_UNAVAILABLE = "service.unavailable"
SERVICE_AVAILABLE = "service.available"

EVENT_LOGGER = "agent.events"
SCOPE = "multimail-agent"
NOTHING: Mapping[str, Value] = {}
CHATTY_LOGGERS = ("azure", "azure_functions_worker", "httpx2", "openai")
_PORTS = {"http": 80, "https": 443}

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger(EVENT_LOGGER)


@dataclass(frozen=True, slots=True)
class _Metric:
    """A metric that events are counted in: by the attribute `value`, or one at a time without it."""

    kind: str
    name: str
    unit: str = "1"
    value: str = ""
    dimensions: tuple[str, ...] = ()


_METRICS: Mapping[str, tuple[_Metric, ...]] = {
    POLL_SUCCEEDED: (_Metric("counter", "agent.emails.found", value="added"),),
    EMAIL_DECIDED: (
        _Metric("counter", "agent.emails.decided", dimensions=("outcome", "cause", "category")),
        _Metric("histogram", "agent.email.time_to_outcome", "s", "seconds_since_received", ("outcome",)),
    ),
    EMAIL_DEFERRED: (_Metric("counter", "agent.emails.deferred", dimensions=("error",)),),
    REPLY_SETTLED: (
        _Metric("counter", "agent.replies.settled", dimensions=("reply_status", "category")),
        _Metric("histogram", "agent.reply.time_to_decision", "s", "seconds_to_decision", ("reply_status",)),
    ),
    REPLIES_PENDING: (
        _Metric("gauge", "agent.replies.pending", value="count"),
        _Metric("gauge", "agent.replies.pending.oldest", "s", "oldest_seconds"),
    ),
    SERVICE_UNAVAILABLE: (_Metric("counter", "agent.service.outages", dimensions=("operation",)),),
    LOOKUP_FINISHED: (_Metric("counter", "agent.lookups.finished", dimensions=("lookup", "result")),),
    BACKLOG_MEASURED: (
        _Metric("gauge", "agent.backlog", value="count"),
        _Metric("gauge", "agent.backlog.oldest", "s", "oldest_seconds"),
    ),
}


def record(event: str, attributes: Mapping[str, Value]) -> None:
    """Write one event and count it. Attribute names get the prefix `agent.`; None is left out."""
    present = {name: value for name, value in attributes.items() if value is not None}
    texts = {name: str(value) for name, value in present.items()}
    facts = " ".join(
        f"{name}={text if text.isprintable() and ' ' not in text else repr(text)}"
        for name, text in texts.items()
    )
    _log.info(
        "%s %s", event, facts, extra={"agent.event": event} | {f"agent.{n}": v for n, v in present.items()}
    )
    for metric in _METRICS.get(event, ()):
        value = present.get(metric.value) if metric.value else 1
        if isinstance(value, int | float):
            dimensions = {f"agent.{n}": str(present[n]) for n in metric.dimensions if n in present}
            measure(metric.kind, metric.name, metric.unit, value, dimensions)


def measure(kind: str, name: str, unit: str, value: float, attributes: Mapping[str, str]) -> None:
    """Add a value to a `counter`, or record it in a `histogram` or `gauge`, of that name and unit."""
    _find_instrument(kind, name, unit)(value, attributes)


def quieten_sdks() -> None:
    """Keep what the SDKs and the worker log of each request out of the log, where each line is paid for.

    Azure Monitor's exporter is one of them: it would export that it has exported.
    """
    for name in CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def in_trace(traceparent: str) -> Iterator[None]:
    """What is recorded inside belongs to the trace of this W3C traceparent; "" changes nothing."""
    from opentelemetry.context import attach, detach  # noqa: PLC0415 - cold start

    context, _links = _follow(traceparent)
    if context is None:
        yield
        return
    token = attach(context)
    try:
        yield
    finally:
        detach(token)


@contextmanager
def span(
    name: str, attributes: Mapping[str, Value] = NOTHING, *, parent: str = "", server: str = ""
) -> Iterator["Span"]:
    """A span around what is done inside; it notes the type of an exception that goes through.

    `parent` is a W3C traceparent: the span then belongs to that trace and is linked to the span that
    was current. Without it the span is a child of the current one. An outside call names the host or the
    address of its `server`.
    """
    from opentelemetry.context import attach, detach  # noqa: PLC0415 - cold start
    from opentelemetry.trace import (  # noqa: PLC0415 - cold start
        SpanKind,
        Status,
        StatusCode,
        get_tracer,
        set_span_in_context,
    )

    context, links = _follow(parent)
    current = get_tracer(SCOPE).start_span(
        name,
        context,
        SpanKind.CLIENT if server else SpanKind.INTERNAL,
        {
            key: value
            for key, value in {**attributes, **_describe_server(server)}.items()
            if value is not None
        },
        links,
    )
    token = attach(set_span_in_context(current))
    try:
        yield current
    except BaseException as error:
        # Not the exception itself: its message and stack may show what must not be logged.
        current.set_attribute("error.type", type(error).__name__)
        current.set_status(Status(StatusCode.ERROR, type(error).__name__))
        raise
    finally:
        detach(token)
        current.end()


def email_traceparent(mailbox_id: str, email_id: str) -> str:
    """The parent of every span about an email: the same ids always give the same trace.

    So one trace holds an email's whole way, over processes, retries and days, without being stored.
    """
    digest = hashlib.sha256(json.dumps([mailbox_id, email_id]).encode()).hexdigest()
    return f"00-{digest[:32]}-{digest[32:48]}-01"


def in_this_context(call: Callable[P, R]) -> Callable[P, R]:
    """The same call for other threads, where it runs under the span that is current here."""
    context = copy_context()
    return lambda *args, **kwargs: context.copy().run(call, *args, **kwargs)


def _describe_server(server: str) -> Mapping[str, Value]:
    """OpenTelemetry's names for it; `peer.service` is Azure Monitor's target of any call but HTTP."""
    if not server:
        return NOTHING
    parts = urlsplit(server if "//" in server else f"//{server}")
    port = parts.port or _PORTS.get(parts.scheme)
    return {
        "server.address": parts.hostname,
        "server.port": port,
        "url.scheme": parts.scheme or None,
        "peer.service": parts.netloc,
    }


def _follow(parent: str) -> "tuple[Context | None, Sequence[Link]]":
    if not parent:
        return None, ()
    from opentelemetry.trace import Link, get_current_span  # noqa: PLC0415 - cold start
    from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415 - cold start
        TraceContextTextMapPropagator,
    )

    current = get_current_span().get_span_context()
    context = TraceContextTextMapPropagator().extract({"traceparent": parent})
    return context, [Link(current)] if current.is_valid else []


@functools.cache
def _find_instrument(kind: str, name: str, unit: str) -> Callable[[float, Mapping[str, str]], None]:
    from opentelemetry.metrics import get_meter  # noqa: PLC0415 - cold start

    meter = get_meter(SCOPE)
    if kind == "counter":
        return meter.create_counter(name, unit).add
    if kind == "gauge":
        return meter.create_gauge(name, unit).set
    return meter.create_histogram(name, unit).record
