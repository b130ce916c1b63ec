"""Reads beside the work: under way at once, and neither results, errors nor traces are lost."""

import threading

import pytest
from opentelemetry.trace import get_current_span

from shared.errors import TransientError
from shared.replying.beside import build_beside
from shared.telemetry import span


def test_a_call_runs_while_its_starter_goes_on() -> None:
    started, may_end = threading.Event(), threading.Event()

    def call() -> str:
        started.set()
        assert may_end.wait(30)
        return "read"

    wait = build_beside()(call)
    assert started.wait(30)
    may_end.set()
    assert wait() == "read"


def test_an_error_reaches_whoever_waits() -> None:
    def call() -> str:
        raise TransientError("no connection")

    wait = build_beside()(call)
    with pytest.raises(TransientError, match="no connection"):
        wait()


def test_a_call_belongs_to_the_span_that_started_it() -> None:
    with span("process", parent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"):
        here = get_current_span().get_span_context().trace_id
        assert here
        assert build_beside()(lambda: get_current_span().get_span_context().trace_id)() == here
