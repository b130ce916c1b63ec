"""Telemetry: what happened, as structured log events of ids, numbers and fixed words, never of email text."""

import logging
from collections.abc import Mapping

# Each event is one log record: its attributes become columns in Application Insights, and the same
# facts stand in its message for whoever reads the console.
POLL_SUCCEEDED = "poll.succeeded"
EMAIL_DECIDED = "email.decided"
EMAIL_DEFERRED = "email.deferred"
REPLY_SETTLED = "reply.settled"
REPLIES_PENDING = "replies.pending"
TOOL_CALLED = "tool.called"
TOKEN_BUDGET_REACHED = "tokens.budget_reached"  # noqa: S105  # not a password

EVENT_LOGGER = "agent.events"

_log = logging.getLogger(EVENT_LOGGER)


def record(event: str, attributes: Mapping[str, str | int | float | None]) -> None:
    """Write one event. Attribute names get the prefix `agent.`; absent values (None) are left out."""
    present = {name: value for name, value in attributes.items() if value is not None}
    facts = " ".join(f"{name}={_one_line(value)}" for name, value in present.items())
    _log.info(
        "%s %s", event, facts, extra={"agent.event": event} | {f"agent.{n}": v for n, v in present.items()}
    )


def _one_line(value: str | float) -> str:
    text = str(value)
    return text if text.isprintable() and " " not in text else repr(text)
