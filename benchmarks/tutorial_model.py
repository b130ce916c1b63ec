"""What the simulated model answers: to the agent by its schema, to the tutorial agent by tool calls."""

import json
from typing import Any

from benchmarks.texts import ACTIONS, REPLY, answer_in_schema


def answer_any(body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The step that a request stands for (`draft` takes long) and the assistant's message."""
    if "response_format" in body:
        text = answer_in_schema(body)
        return body["response_format"]["json_schema"]["name"], {"role": "assistant", "content": text}
    return _take_tool_step(body["messages"])


def _take_tool_step(messages: list[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Look into the inbox, then read and answer one email after the other, then stop."""
    results = {
        message["tool_call_id"]: message["content"] for message in messages if message["role"] == "tool"
    }
    calls = [call for message in messages for call in message.get("tool_calls") or ()]
    done = [
        (call["function"]["name"], json.loads(call["function"]["arguments"]), call["id"]) for call in calls
    ]
    task = str(messages[1]["content"])
    if task.startswith("Handle the email "):
        inbox = [{"id": task.rsplit(maxsplit=1)[-1]}]
    else:
        listings = [json.loads(results[id_]) for name, _, id_ in done if name == "check_inbox"]
        if not listings:
            return "step", _call_tool(len(calls), "check_inbox", {})
        inbox = listings[0]
    read = {arguments["email_id"]: results[id_] for name, arguments, id_ in done if name == "read_email"}
    answered = {arguments["email_id"] for name, arguments, _ in done if name == "reply"}
    for email in inbox:
        email_id = email["id"]
        if email_id not in read:
            return "step", _call_tool(len(calls), "read_email", {"email_id": email_id})
        wants_reply = ACTIONS.get(_kind_of(json.loads(read[email_id])["subject"])) == "reply"
        if wants_reply and email_id not in answered:
            return "draft", _call_tool(len(calls), "reply", {"email_id": email_id, "markdown": REPLY})
    return "step", {"role": "assistant", "content": "Every email was handled."}


def _kind_of(subject: str) -> str:
    words = subject.split()
    return words[1] if len(words) > 1 else ""


def _call_tool(number: int, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": f"call_{number}", "type": "function", "function": function}],
    }
