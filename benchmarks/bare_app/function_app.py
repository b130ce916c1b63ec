"""The same triggers with empty bodies: what a start costs before the agent adds anything."""

import azure.functions as func

app = func.FunctionApp()


@app.timer_trigger(arg_name="timer", schedule="%POLL_SCHEDULE%", use_monitor=True)
def poll_inboxes(timer: func.TimerRequest, context: func.Context) -> None:
    """Do nothing."""


@app.service_bus_queue_trigger(
    arg_name="message", queue_name="%WORK_QUEUE_NAME%", connection="ServiceBusConnection"
)
def process_email(message: func.ServiceBusMessage, context: func.Context) -> None:
    """Do nothing."""


@app.timer_trigger(arg_name="timer", schedule="%TRACK_SCHEDULE%", use_monitor=True)
def track_replies(timer: func.TimerRequest, context: func.Context) -> None:
    """Do nothing."""


@app.timer_trigger(arg_name="timer", schedule="%TRACK_SCHEDULE%", use_monitor=True)
def notify_people(timer: func.TimerRequest, context: func.Context) -> None:
    """Do nothing."""


@app.route(route="webhook", trigger_arg_name="request", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
def receive_webhook(request: func.HttpRequest) -> func.HttpResponse:  # noqa: ARG001 - bound by name
    """Say ok."""
    return func.HttpResponse("ok")


@app.route(route="ask", trigger_arg_name="request", methods=["POST"], auth_level=func.AuthLevel.FUNCTION)
def ask_agent(request: func.HttpRequest) -> func.HttpResponse:  # noqa: ARG001 - bound by name
    """Say ok."""
    return func.HttpResponse("ok")


@app.route(route="report", trigger_arg_name="request", methods=["GET"], auth_level=func.AuthLevel.FUNCTION)
def report(request: func.HttpRequest) -> func.HttpResponse:  # noqa: ARG001 - bound by name
    """Say ok."""
    return func.HttpResponse("ok")


@app.route(
    route="review", trigger_arg_name="request", methods=["GET", "POST"], auth_level=func.AuthLevel.FUNCTION
)
def review(request: func.HttpRequest) -> func.HttpResponse:  # noqa: ARG001 - bound by name
    """Say ok."""
    return func.HttpResponse("ok")


@app.route(route="health", trigger_arg_name="request", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def health(request: func.HttpRequest) -> func.HttpResponse:  # noqa: ARG001 - the binding needs its argument
    """Say ok."""
    return func.HttpResponse("ok")
