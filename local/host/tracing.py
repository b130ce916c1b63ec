"""Traces on the console: a line for every span, to see what the agent asks of which service."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

SETTING = "OTEL_TRACES_EXPORTER"  # OpenTelemetry's own name for it
NANOSECONDS = 1_000_000


def print_spans_if_wanted() -> None:
    """Print every span as it ends when OTEL_TRACES_EXPORTER is `console`; otherwise nothing is traced."""
    if os.environ.get(SETTING, "").strip().lower() != "console":
        return
    from opentelemetry import trace  # noqa: PLC0415 - only where traces are wanted
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - only for traces
    from opentelemetry.sdk.trace.export import (  # noqa: PLC0415 - only for traces
        ConsoleSpanExporter,
        SimpleSpanProcessor,
    )

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=describe_span)))
    trace.set_tracer_provider(provider)


def describe_span(span: "ReadableSpan") -> str:
    """One span as one line: its trace, how long it took, its name, its attributes."""
    milliseconds = ((span.end_time or 0) - (span.start_time or 0)) / NANOSECONDS
    facts = " ".join(f"{name}={value!r}" for name, value in sorted((span.attributes or {}).items()))
    trace_id = f"{span.context.trace_id:032x}" if span.context else "-"
    return f"{trace_id[:8]} {milliseconds:8.1f} ms  {span.name}  {facts}\n"
