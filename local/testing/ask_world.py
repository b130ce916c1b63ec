"""A small world for questions: the built agent, both services simulated over HTTP, a scripted model."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from local.host.http_server import LoopbackServer
from local.model.chat_simulator import ChatSimulator, build_tool_calls
from local.multimail.simulator import MultiMailSimulator
from local.testing.world import Clock, build_settings
from shared.composition import build_agent
from shared.operator.asking import Answer, Question
from shared.settings import Secret

MODEL_KEY = "model-key-of-the-test"
Body = dict[str, Any]
# What the model says next: a text, tools to call, or a function of the request that says either.
Step = str | list[tuple[str, Any]] | Callable[[Body], Any]


class ScriptedConversation:
    """Takes one step per request; `bodies` has what the model was sent."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.bodies: list[Body] = []

    def __call__(self, body: Body) -> str | Body:
        self.bodies.append(body)
        step = self.steps.pop(0) if self.steps else "Nothing more."
        said = step(body) if callable(step) else step
        return said if isinstance(said, str) else build_tool_calls(*((n, _write(a)) for n, a in said))

    def results(self) -> list[str]:
        """What the tools told the model, up to its last request."""
        return [str(m["content"]) for m in self.bodies[-1]["messages"] if m["role"] == "tool"]


def _write(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


class AskWorld:
    """One gated mailbox `box` and an agent that is built from its settings. A context manager."""

    def __init__(
        self,
        tmp_path: Path,
        respond: Callable[[Body], str | Body] | None = None,
        *,
        sdk: str = "openai",
        **settings: Any,
    ) -> None:
        self.clock = Clock()
        self.mail = MultiMailSimulator(self.clock)
        self.box = self.mail.add_mailbox("support@northwind.example", "gated_send")
        self.model = ScriptedConversation()
        self.chat = ChatSimulator(api_key=MODEL_KEY, respond=respond or self.model)
        self._servers = LoopbackServer(self.mail.app), LoopbackServer(self.chat.app)
        self._ids = iter(f"question-{number}" for number in range(1_000))
        self.settings = build_settings(
            tmp_path,
            multimail_api_key=Secret(self.mail.add_key()),
            model_api_key=Secret(MODEL_KEY),
            model_sdk=sdk,
            **settings,
        )

    def __enter__(self) -> Self:
        urls = [server.start() for server in self._servers]
        self.settings = replace(self.settings, multimail_api_url=urls[0], model_endpoint=urls[1])
        self.agent = build_agent(self.settings, clock=self.clock, new_id=lambda: next(self._ids))
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.stop()

    def ask(self, text: str, *steps: Step, request_id: str | None = None) -> Answer:
        self.model.steps = list(steps)
        return self.agent.ask(Question(text, request_id))

    def deliver(self, markdown: str = "How long does delivery take?", **fields: Any) -> str:
        sender = fields.pop("sender", "Ann Lee <ann@customer.example>")
        subject = fields.pop("subject", "Delivery time")
        return self.mail.deliver(fields.pop("box", self.box), sender, subject, markdown, **fields)

    def send_call(self, to: Any, markdown: str = "Hello, we are on it.", **more: Any) -> tuple[str, Any]:
        return "send_email", {
            "mailbox_id": self.box, "to": to, "subject": "A note", "markdown": markdown,
        } | more  # fmt: skip

    def reply_call(self, email_id: str, markdown: str = "Hello, we are on it.") -> tuple[str, Any]:
        return "reply_email", {"mailbox_id": self.box, "email_id": email_id, "markdown": markdown}

    def read_call(self, email_id: str, box: str | None = None) -> tuple[str, Any]:
        return "read_email", {"mailbox_id": box or self.box, "email_id": email_id}

    def recipients(self) -> list[str]:
        return [address for accepted in self.mail.accepted for address in accepted.recipients]

    def posts(self) -> list[Mapping[str, Any]]:
        return [r.body for r in self.mail.requests if r.method == "POST" and isinstance(r.body, dict)]


CHECK_INBOX = (
    "check_inbox",
    {"mailbox_id": None, "unread_only": False, "within_hours": None, "subject_contains": None},
)
