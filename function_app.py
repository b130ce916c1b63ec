"""The triggers: each hands its invocation to the agent and nothing else."""

import azure.functions as func

from shared.ask_requests import answer_request
from shared.composition import get_agent, is_healthy, take_in_webhook
from shared.trust_page import answer_report
from shared.webhooks import SIGNATURE_HEADER

app = func.FunctionApp()


@app.timer_trigger(arg_name="timer", schedule="%POLL_SCHEDULE%", use_monitor=True)
def poll_inboxes(timer: func.TimerRequest, context: func.Context) -> None:  # noqa: ARG001  # the binding's
    """Find new email in every mailbox and ring for all work that is due."""
    get_agent().poll(context.trace_context.trace_parent)


@app.service_bus_queue_trigger(
    arg_name="message", queue_name="%WORK_QUEUE_NAME%", connection="ServiceBusConnection"
)
def process_email(message: func.ServiceBusMessage, context: func.Context) -> None:
    """Take one email as far as it can go now."""
    get_agent().process(message.get_body(), context.trace_context.trace_parent)


@app.timer_trigger(arg_name="timer", schedule="%TRACK_SCHEDULE%", use_monitor=True)
def track_replies(timer: func.TimerRequest, context: func.Context) -> None:  # noqa: ARG001  # likewise
    """See what became of the submitted replies."""
    get_agent().track(context.trace_context.trace_parent)


@app.route(route="webhook", trigger_arg_name="request", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
def receive_webhook(request: func.HttpRequest) -> func.HttpResponse:
    """Hear at once of what MultiMail has signed: its signature is the authentication."""
    status = take_in_webhook(request.get_body(), request.headers.get(SIGNATURE_HEADER))
    return func.HttpResponse(status_code=status)


@app.route(route="ask", trigger_arg_name="request", methods=["POST"], auth_level=func.AuthLevel.FUNCTION)
def ask_agent(request: func.HttpRequest) -> func.HttpResponse:
    """Answer an operator's question about the mailboxes."""
    answer = answer_request(request.get_body(), request.headers.get("Idempotency-Key"), get_agent)
    return func.HttpResponse(
        answer.body, status_code=answer.status, headers=answer.headers, mimetype="application/json"
    )


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
