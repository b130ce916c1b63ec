"""The triggers: each hands its invocation to the agent and nothing else."""

import azure.functions as func

from shared.composition import get_agent, is_healthy
from shared.trust_page import answer_report

app = func.FunctionApp()


@app.timer_trigger(arg_name="timer", schedule="%POLL_SCHEDULE%", use_monitor=True)
def poll_inboxes(timer: func.TimerRequest) -> None:  # noqa: ARG001  # the binding needs its argument
    """Find new email in every mailbox and ring for all work that is due."""
    get_agent().poll()


@app.service_bus_queue_trigger(
    arg_name="message", queue_name="%WORK_QUEUE_NAME%", connection="ServiceBusConnection"
)
def process_email(message: func.ServiceBusMessage) -> None:
    """Take one email as far as it can go now."""
    get_agent().process(message.get_body())


@app.timer_trigger(arg_name="timer", schedule="%TRACK_SCHEDULE%", use_monitor=True)
def track_replies(timer: func.TimerRequest) -> None:  # noqa: ARG001  # likewise
    """See what became of the submitted replies."""
    get_agent().track()


@app.route(route="health", trigger_arg_name="request", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def health(request: func.HttpRequest) -> func.HttpResponse:  # noqa: ARG001  # likewise
    """Say whether the agent could work, and nothing about why."""
    return func.HttpResponse("ok") if is_healthy() else func.HttpResponse("not ok", status_code=503)


@app.route(route="report", trigger_arg_name="request", methods=["GET"], auth_level=func.AuthLevel.FUNCTION)
def report(request: func.HttpRequest) -> func.HttpResponse:
    """Show what became of the drafts of each mailbox, and whether that earns it a longer leash."""
    answer = answer_report(get_agent().report, request.params, request.headers.get("Accept", ""))
    return func.HttpResponse(
        answer.body, status_code=answer.status_code, mimetype=answer.mimetype, headers=dict(answer.headers)
    )
