"""Agents as quickstarts show them: a function-calling loop over check_inbox, read_email and reply."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter

if TYPE_CHECKING:
    from openai import OpenAI

SYSTEM = (
    "You are the email assistant of Northwind's support. Read every email in the inbox with the tools and reply to "
    "those that need an answer, courteously and in at most 150 words."
)
MAX_STEPS = 1_000


def _describe(name: str, description: str, **parameters: str) -> dict[str, Any]:
    properties = {key: {"type": "string", "description": text} for key, text in parameters.items()}
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(parameters),
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


TOOLS: Any = [
    _describe("check_inbox", "List the unread emails of the inbox with id, sender and subject."),
    _describe("read_email", "Get one email with its body.", email_id="The email's id."),
    _describe("reply", "Reply to an email.", email_id="The email's id.", markdown="The text of the reply."),
]


class Tools:
    """The three tools over MultiMail's API, on connections that are kept."""

    def __init__(self, settings: dict[str, str], mailbox_id: str) -> None:
        self._root = f"{settings['MULTIMAIL_API_URL']}/v1/mailboxes/{mailbox_id}"
        self._session = requests.Session()
        self._session.mount("http://", HTTPAdapter(pool_maxsize=64))
        self._session.headers["Authorization"] = f"Bearer {settings['MULTIMAIL_API_KEY']}"

    def call(self, name: str, arguments: dict[str, str]) -> str:
        """Carry out one tool call and return its result as the model sees it."""
        tools: dict[str, Callable[..., Any]] = {
            "check_inbox": self.check_inbox, "read_email": self._read_email, "reply": self._reply,
        }  # fmt: skip
        return json.dumps(tools[name](**arguments))

    def check_inbox(self) -> list[dict[str, str]]:
        """The unread emails, all pages."""
        found: list[dict[str, str]] = []
        query = {"status": "unread", "direction": "inbound", "limit": "100"}
        while True:
            page = self._get("/emails", query)
            found += [
                {"id": mail["id"], "from": mail["from"], "subject": mail["subject"]}
                for mail in page["emails"]
            ]
            if not page.get("cursor"):
                return found
            query["cursor"] = page["cursor"]

    def _read_email(self, email_id: str) -> dict[str, str]:
        mail = self._get(f"/emails/{email_id}", {})
        return {name: mail[name] for name in ("id", "from", "subject", "markdown")}

    def _reply(self, email_id: str, markdown: str) -> dict[str, str]:
        answer = self._session.post(f"{self._root}/reply/{email_id}", json={"markdown": markdown}, timeout=30)
        answer.raise_for_status()
        return {"status": str(answer.json()["status"])}

    def _get(self, path: str, query: dict[str, str]) -> Any:
        answer = self._session.get(self._root + path, params=query, timeout=30)
        answer.raise_for_status()
        return answer.json()


def run_loop(client: "OpenAI", tools: Tools, task: str) -> None:
    """One conversation: complete, carry out the tool calls, go on until the model asks for none."""
    messages: list[Any] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": task}]
    for _ in range(MAX_STEPS):
        answer = client.chat.completions.create(model="draft", messages=messages, tools=TOOLS)
        message = answer.choices[0].message
        messages.append(message.model_dump(exclude_none=True))
        if not message.tool_calls:
            return
        calls: list[Any] = message.tool_calls
        for call in calls:
            result = tools.call(call.function.name, json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})


def run_tutorial(settings: dict[str, str], mailbox_id: str, threads: int) -> None:
    """With one thread the whole inbox in one conversation; with more, one conversation for each email."""
    from openai import OpenAI  # noqa: PLC0415 - only this kind of process needs it

    client = OpenAI(base_url=f"{settings['MODEL_ENDPOINT']}/openai/v1/", api_key=settings["MODEL_API_KEY"])
    tools = Tools(settings, mailbox_id)
    if threads == 1:
        run_loop(client, tools, "Check the inbox and handle every email.")
        return
    with ThreadPoolExecutor(threads) as pool:
        tasks = [f"Handle the email {mail['id']}" for mail in tools.check_inbox()]
        list(pool.map(lambda task: run_loop(client, tools, task), tasks))
