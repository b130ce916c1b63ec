"""The triggers: each hands its invocation to the agent and nothing else.

The agent is imported by the first invocation: until this file is loaded, the host shows no function at all.
"""

import azure.functions as func

app = func.FunctionApp()


@app.timer_trigger(arg_name="timer", schedule="%POLL_SCHEDULE%", use_monitor=True)
def poll_inboxes(timer: func.TimerRequest) -> None:  # noqa: ARG001  # the binding needs its argument
    """Find new email in every mailbox and ring for all work that is due."""
    from shared.composition import get_agent  # noqa: PLC0415  # cold start

    get_agent().poll()


@app.service_bus_queue_trigger(
    arg_name="message", queue_name="%WORK_QUEUE_NAME%", connection="ServiceBusConnection"
)
def process_email(message: func.ServiceBusMessage) -> None:
    """Take one email as far as it can go now."""
    from shared.composition import get_agent  # noqa: PLC0415  # cold start

    get_agent().process(message.get_body())


@app.timer_trigger(arg_name="timer", schedule="%TRACK_SCHEDULE%", use_monitor=True)
def track_replies(timer: func.TimerRequest) -> None:  # noqa: ARG001  # likewise
    """See what became of the submitted replies."""
    from shared.composition import get_agent  # noqa: PLC0415  # cold start

    get_agent().track()


@app.route(route="health", trigger_arg_name="request", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def health(request: func.HttpRequest) -> func.HttpResponse:  # noqa: ARG001  # likewise
    """Say whether the agent could work, and nothing about why."""
    from shared.composition import is_healthy  # noqa: PLC0415  # cold start

    return func.HttpResponse("ok") if is_healthy() else func.HttpResponse("not ok", status_code=503)
