"""The triggers: each hands its invocation to the agent and nothing else.

The agent is imported by the first invocation, not here: the host waits for this module before it sees any
function, and an instance that only answers a health check needs little of it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import azure.functions as func

from shared.telemetry import in_trace, quieten_sdks

if TYPE_CHECKING:
    from shared.composition import Agent
    from shared.services.http_answer import HttpAnswer

quieten_sdks()  # the exporter of telemetry is at work before any invocation
app = func.FunctionApp()


@app.timer_trigger(arg_name="timer", schedule="%POLL_SCHEDULE%", use_monitor=True)
def poll_inboxes(timer: func.TimerRequest, context: func.Context) -> None:  # noqa: ARG001  # the binding's
    """Poll every mailbox and enqueue the work that is due."""
    _get_agent().poll(context.trace_context.trace_parent)


@app.service_bus_queue_trigger(
    arg_name="message", queue_name="%WORK_QUEUE_NAME%", connection="ServiceBusConnection"
)
def process_email(message: func.ServiceBusMessage, context: func.Context) -> None:
    """Process one email; what has to wait is rescheduled."""
    _get_agent().process(message.get_body(), context.trace_context.trace_parent)


@app.timer_trigger(arg_name="timer", schedule="%TRACK_SCHEDULE%", use_monitor=True)
def track_replies(timer: func.TimerRequest, context: func.Context) -> None:  # noqa: ARG001  # bound by name
    """Check what became of the submitted replies."""
    _get_agent().track(context.trace_context.trace_parent)


@app.timer_trigger(arg_name="timer", schedule="%TRACK_SCHEDULE%", use_monitor=True)
def notify_people(timer: func.TimerRequest, context: func.Context) -> None:  # noqa: ARG001  # bound by name
    """Tell people what waits for them."""
    _get_agent().notify(context.trace_context.trace_parent)


@app.route(route="webhook", trigger_arg_name="request", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
def receive_webhook(request: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    """Receive a MultiMail webhook; its signature authenticates it."""
    from shared.operator.http_functions import take_in_webhook

    return _respond(context, lambda: take_in_webhook(request.get_body(), request.headers, _get_agent))


@app.route(route="ask", trigger_arg_name="request", methods=["POST"], auth_level=func.AuthLevel.FUNCTION)
def ask_agent(request: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    """Answer an operator's question about the mailboxes."""
    from shared.operator.http_functions import answer_question

    return _respond(context, lambda: answer_question(request.get_body(), request.headers, _get_agent))


@app.route(route="report", trigger_arg_name="request", methods=["GET"], auth_level=func.AuthLevel.FUNCTION)
def report(request: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    """Show how each mailbox's drafts were decided, and whether it is ready for `monitored` mode."""
    from shared.operator.http_functions import show_report

    return _respond(context, lambda: show_report(request.params, request.headers, _get_agent))


@app.route(
    route="review", trigger_arg_name="request", methods=["GET", "POST"], auth_level=func.AuthLevel.FUNCTION
)
def review(request: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    """Show the review desk what is open and why, or keep what a reviewer says of it."""
    from shared.operator.http_functions import take_in_review

    return _respond(
        context, lambda: take_in_review(request.method, request.params, request.get_body(), _get_agent)
    )


@app.route(route="health", trigger_arg_name="request", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def health(request: func.HttpRequest, context: func.Context) -> func.HttpResponse:  # noqa: ARG001  # bound by name
    """Say whether the agent could work, and nothing about why."""
    from shared.operator.http_functions import answer_health

    return _respond(context, lambda: answer_health(_get_agent))


def _get_agent() -> "Agent":
    from shared.composition import get_agent

    return get_agent()


def _respond(context: func.Context, build_answer: "Callable[[], HttpAnswer]") -> func.HttpResponse:
    with in_trace(context.trace_context.trace_parent):
        answer = build_answer()
    return func.HttpResponse(
        answer.body, status_code=answer.status_code, mimetype=answer.mimetype, headers=dict(answer.headers)
    )
