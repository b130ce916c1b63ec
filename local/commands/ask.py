"""`python -m local ask`: one question to the agent, its tool calls as they happen, then the answer."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from local.host.run import (
    MISCONFIGURED,
    OK,
    UNFINISHED,
    check_reachable,
    load_local_settings,
    report_misconfigured,
    report_trail,
)
from shared.composition import get_agent
from shared.errors import ConfigurationError, PermanentError, TransientError
from shared.ledger.sqlite_store import LedgerInUseError
from shared.operator.ask_requests import BadQuestionError, check_question
from shared.operator.asking import Answer, Question
from shared.settings import Settings
from shared.telemetry import EVENT_LOGGER, TOOL_CALLED

IN_USE = (
    "Another run works with this ledger. Ask that run: it printed its address and its key, and docs/ask.md "
    "has the request. Or stop it and ask again."
)
STYLES = {"ok": "green", "submitted": "green", "in_doubt": "bold red"}


def ask(console: Console, words: str, request_id: str | None) -> int:
    """Ask a question with the settings that `run` takes; return the exit status."""
    try:
        question = Question(check_question(words), request_id)
        load_local_settings(os.environ)
        settings = Settings.from_env(os.environ)
        check_reachable(settings)
        with tool_calls_printed(console):
            agent = get_agent()
            answer = agent.ask(question)
    except BadQuestionError as error:
        console.print(Text(str(error), "red"))
        return MISCONFIGURED
    except LedgerInUseError:
        console.print(IN_USE, style="red")
        return UNFINISHED
    except ConfigurationError as error:
        return report_misconfigured(console, error)
    except (PermanentError, TransientError) as error:
        console.print(Text(f"The question was not answered and nothing was submitted: {error}", "red"))
        return UNFINISHED
    print_answer(console, answer)
    agent.trail.flush()
    return report_trail(console, agent.trail, OK if answer.is_complete else UNFINISHED)


def print_answer(console: Console, answer: Answer) -> None:
    """As plain text: what the model wrote is never markup."""
    console.print(Text(f"\n{answer.text}\n"), soft_wrap=not console.is_terminal)
    for sent in answer.submitted:
        console.print(Text(f"Submitted {sent.email_id} to {sent.recipient}: {sent.status}", "bold green"))
    usage = answer.usage
    console.print(
        Text(f"{usage.calls} model calls, {usage.tokens} tokens, request {answer.request_id}", "bright_black")
    )


@contextmanager
def tool_calls_printed(console: Console) -> Iterator[None]:
    """Print the agent's tool calls as they happen."""
    logger, handler = logging.getLogger(EVENT_LOGGER), _ToolCallPrinter(console)
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _ToolCallPrinter(logging.Handler):
    """Prints the agent's tool calls: names, fixed words and ids only."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        facts = record.__dict__
        if facts.get("agent.event") != TOOL_CALLED:
            return
        line = Text(f"{facts['agent.tool']}  ")
        line.append(facts["agent.result"], STYLES.get(facts["agent.result"], "yellow"))
        line.append("  " + "/".join(facts[n] for n in ("agent.mailbox_id", "agent.email_id") if n in facts))
        self._console.print(line)
