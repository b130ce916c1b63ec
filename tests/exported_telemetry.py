"""What a test process exports: OpenTelemetry's providers are set once in a process, for all test files."""

from functools import cache

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

EXPORTER = InMemorySpanExporter()
# What was counted since the last reading, not since the process began: test files share it.
METRICS = InMemoryMetricReader(dict.fromkeys((Counter, Histogram), AggregationTemporality.DELTA))


@cache
def set_providers() -> None:
    """Have spans and metrics exported to EXPORTER and METRICS from now on."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(EXPORTER))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider([METRICS]))
