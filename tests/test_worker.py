"""Microsoft's own worker runs the app: what it finds, hands over, reports and records is what the tests of the rest assume."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.commands.demo_model import respond
from local.model.chat_simulator import Payload
from local.multimail.faults import always, answer_with
from shared.domain import Outcome
from shared.telemetry import email_traceparent
from tests.declared_functions import read_declared_functions
from tests.test_webhooks import sign
from tests.worker.environment import find_commands
from tests.worker.stage import Run, Stage, build_stage, run_worker
from tests.worker.worker import PATIENCE_SECONDS, ROOT, Answer

COMMANDS = find_commands()


def build_traceparent(function: str) -> str:
    """The platform's trace of an invocation, another one for each function."""
    return f"00-{function.encode().hex():0<32.32}-0123456789abcdef-01"
