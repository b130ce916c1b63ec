"""Simulates Azure OpenAI: its chat completions and embeddings, faults included; it says so of itself."""

import hmac
import json
import math
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from flask import Flask, Response, request
from flask.typing import ResponseReturnValue

from local.host.http_server import cut_connection
from local.model.chat_rules import build_answer, is_blatant_attack, parse_documents, read_content
from local.model.chat_tool_rules import build_tool_turn, parse_tool_documents
from local.model.embedding_rules import build_embeddings, find_embedding_problem
from local.model.prompt_cache import PromptCache
from local.model.strict_schema import build_smallest, find_schema_problem, matches

Payload = dict[str, Any]
# Replaces the answer to one request; it is handed what would have been answered.
Fault = Callable[[Callable[[], Payload]], ResponseReturnValue]

MODEL = "simulated-chat"
EMBEDDING_MODEL = "simulated-embedding"
REASONING_EFFORTS = ("none", "low", "medium", "high", "xhigh")
REASONING_TOKENS = 640  # what a reasoning deployment thinks per answer, on the answer's token limit
TOKEN_CHARACTERS = 4  # a simulated token
KEPT_CALLS = 1_000

_FILTERS = ("hate", "self_harm", "sexual", "violence", "jailbreak", "indirect_attack")


@dataclass(frozen=True, slots=True)
class ChatCall:
    """One request as it arrived. Header names are in lower case."""

    path: str
    api_version: str | None
    deployment: str
    headers: Mapping[str, str]
    body: Payload


class ChatSimulator:
    """Answer chat completions by fixed rules, on the v1 routes that both SDKs use; serve `app` to run it.

    `api_key` is the key or token to accept (None: any); `deployments` the names that exist (None: all);
    those in `reasoning_deployments` refuse max_tokens, temperature and thinking about tools, and think before
    they answer unless `reasoning_effort` is none; the others do not know that parameter.
    `shields` simulates Prompt Shields on documents. `respond` replaces the rules by a scripted model:
    it gets the request and returns the content, or a whole message, which nothing checks.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        deployments: Collection[str] | None = None,
        reasoning_deployments: Collection[str] = (),
        shields: bool = False,
        respond: Callable[[Payload], str | Payload] | None = None,
    ) -> None:
        self._api_key = api_key
        self._deployments = deployments
        self._reasoning_deployments = reasoning_deployments
        self._shields = shields
        self._respond = respond or respond_by_rules
        self._faults: deque[Fault] = deque()
        self._prompt_cache = PromptCache()
        self._guard = threading.Lock()
        self.calls: deque[ChatCall] = deque(maxlen=KEPT_CALLS)
        self.app = Flask("chat_simulator", static_folder=None)
        self.app.add_url_rule("/openai/v1/chat/completions", view_func=self._complete, methods=["POST"])
        self.app.add_url_rule("/openai/v1/embeddings", view_func=self._embed, methods=["POST"])

    def script(self, *faults: Fault) -> None:
        """Queue faults: each takes the place of one answer to a request that is otherwise in order."""
        with self._guard:
            self._faults.extend(faults)

    def _complete(self) -> ResponseReturnValue:
        return self._answer(self._find_completion_refusal, self._build_completion)

    def _embed(self) -> ResponseReturnValue:
        return self._answer(_find_embedding_refusal, lambda _, body: build_embeddings(body, EMBEDDING_MODEL))

    def _answer(
        self,
        find_refusal: Callable[[str, Payload], Response | None],
        build: Callable[[str, Payload], Payload],
    ) -> ResponseReturnValue:
        body = request.get_json(force=True, silent=True)
        if not isinstance(body, dict):
            return _refuse(400, "invalid_request", "The request body is not a JSON object.")
        api_version = request.args.get("api-version")
        headers = {name.lower(): value for name, value in request.headers.items()}
        name = str(body.get("model", ""))
        with self._guard:
            self.calls.append(ChatCall(request.path, api_version, name, headers, body))
        refusal = self._find_access_refusal(name, headers, api_version) or find_refusal(name, body)
        if refusal is not None:
            return refusal
        with self._guard:
            fault = self._faults.popleft() if self._faults else None
        return fault(lambda: build(name, body)) if fault else build(name, body)

    def _find_access_refusal(
        self, name: str, headers: Mapping[str, str], api_version: str | None
    ) -> Response | None:
        if not self._admits(headers):
            return _refuse(401, "401", "Access denied due to invalid subscription key or wrong API endpoint.")
        if api_version not in (None, "v1"):
            return _refuse(404, "404", "Resource not found")
        if self._deployments is not None and name not in self._deployments:
            return _refuse(404, "DeploymentNotFound", "The API deployment for this resource does not exist.")
        return None

    def _find_completion_refusal(self, name: str, body: Payload) -> Response | None:
        return (
            (_find_reasoning_refusal if name in self._reasoning_deployments else _find_effort_refusal)(body)
            or _find_format_refusal(body)
            or _find_tools_refusal(body)
            or _find_conversation_refusal(body)
            or (_find_attack_refusal(body) if self._shields else None)
        )

    def _admits(self, headers: Mapping[str, str]) -> bool:
        given = (headers.get("api-key", ""), headers.get("authorization", "").removeprefix("Bearer "))
        if self._api_key is None:
            return any(given)
        return any(hmac.compare_digest(value.encode(), self._api_key.encode()) for value in given)

    def _build_completion(self, name: str, body: Payload) -> Payload:
        answered = self._respond(body)
        message: Payload = {"content": answered} if isinstance(answered, str) else answered
        content, tool_calls = message.get("content"), message.get("tool_calls")
        text = content or ""
        is_thinking = name in self._reasoning_deployments and body.get("reasoning_effort") != "none"
        thought = REASONING_TOKENS if is_thinking else 0
        limit = body.get("max_completion_tokens") or body.get("max_tokens")
        room = math.inf if limit is None else max(0, limit - thought)
        finish_reason = "tool_calls" if tool_calls else "stop"
        if _count_tokens(text) > room:
            text, finish_reason = text[: int(room) * TOKEN_CHARACTERS], "length"
        prompt = "".join(_prompt_text(message) for message in body.get("messages", ()))
        prompt_tokens = _count_tokens(prompt)
        completion_tokens = thought + _count_tokens(text + (json.dumps(tool_calls) if tool_calls else ""))
        return {
            "id": "chatcmpl-simulated",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": MODEL,
            "system_fingerprint": "simulated",
            "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": _build_filters()}],
            "choices": [
                {
                    "index": 0,
                    "finish_reason": finish_reason,
                    "logprobs": None,
                    "message": {"role": "assistant", "refusal": None}
                    | message
                    | {"content": content and text},
                    "content_filter_results": _build_filters(),
                }
            ],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
                "prompt_tokens_details": {
                    "audio_tokens": 0,
                    "cached_tokens": self._count_cached(name, body, prompt),
                },
                "completion_tokens_details": {"reasoning_tokens": thought},
            },
        }

    def _count_cached(self, name: str, body: Payload, prompt: str) -> int:
        """The tokens from the prompt cache. Schema and tools come before the messages: they must be equal."""
        before = json.dumps([name, body.get("tools"), body.get("response_format")])
        tokens = [
            prompt[start : start + TOKEN_CHARACTERS] for start in range(0, len(prompt), TOKEN_CHARACTERS)
        ]
        with self._guard:
            return self._prompt_cache.count_cached(before, tokens)


def throttled(*, retry_after: str | None = None, retry_after_ms: str | None = None) -> Fault:
    """429, with the headers that are given."""
    given = {"Retry-After": retry_after, "retry-after-ms": retry_after_ms}
    headers = {name: value for name, value in given.items() if value is not None}
    return lambda _: _refuse(429, "429", "Requests have exceeded the call rate limit.", headers=headers)


def refused(
    status: int,
    code: str | None = None,
    message: str = "Simulated failure.",
    param: str | None = None,
    *,
    headers: Mapping[str, str] | None = None,
) -> Fault:
    """Any other status, with an error as Azure writes it."""
    return lambda _: _refuse(status, code, message, param, headers=headers)


def filtered_prompt(*categories: str) -> Fault:
    """400 content_filter: the prompt was refused by these filters."""
    return lambda _: _refuse_prompt(categories)


def filtered_completion(*categories: str) -> Fault:
    """200 with finish_reason content_filter and no content: the completion was refused by these filters."""

    def fault(answer: Callable[[], Payload]) -> Payload:
        payload = answer()
        payload["choices"][0] |= {
            "finish_reason": "content_filter",
            "message": {"role": "assistant", "content": None},
            "content_filter_results": _build_filters(categories),
        }
        return payload

    return fault


def saying(text: str | None, *, finish_reason: str = "stop") -> Fault:
    """200 with this content, whatever the schema asks for."""

    def fault(answer: Callable[[], Payload]) -> Payload:
        payload = answer()
        payload["choices"][0]["message"] = {"role": "assistant", "content": text}
        payload["choices"][0]["finish_reason"] = finish_reason
        return payload

    return fault


def calling(*calls: tuple[str, str]) -> Fault:
    """200 that asks for these tools, each a name with its arguments as the model wrote them."""

    def fault(answer: Callable[[], Payload]) -> Payload:
        payload = answer()
        payload["choices"][0] |= {"finish_reason": "tool_calls", "message": build_tool_calls(*calls)}
        return payload

    return fault


def build_tool_calls(*calls: tuple[str, str]) -> Payload:
    """The message of a model that asks for these tools, each a name with its arguments as text."""
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for n, (name, arguments) in enumerate(calls, 1)
        ],
    }


def answering(body: str | bytes, *, content_type: str = "application/json", status: int = 200) -> Fault:
    """These very bytes: `answering("<html></html>", content_type="text/html")`."""
    return lambda _: Response(body, status=status, content_type=content_type)


def cut_by_length(answer: Callable[[], Payload]) -> ResponseReturnValue:
    """200 with finish_reason length and the first half of the content."""
    payload = answer()
    content = payload["choices"][0]["message"]["content"]
    payload["choices"][0]["message"]["content"] = content[: len(content) // 2]
    payload["choices"][0]["finish_reason"] = "length"
    return payload


def without_choices(answer: Callable[[], Payload]) -> ResponseReturnValue:
    """200 with an empty list of choices."""
    return answer() | {"choices": []}


def cut_before_answer(_: Callable[[], Payload]) -> ResponseReturnValue:
    """The connection ends without an answer."""
    return cut_connection()


def cut_mid_body(answer: Callable[[], Payload]) -> ResponseReturnValue:
    """The connection ends within the body of a 200."""
    text = json.dumps(answer()).encode()
    return cut_connection(after=text[: len(text) // 2])


def hang_until(released: threading.Event, *, timeout_seconds: float = 30.0) -> Fault:
    """No answer until the event is set; then the connection ends."""

    def fault(_: Callable[[], Payload]) -> ResponseReturnValue:
        released.wait(timeout_seconds)
        return cut_connection()

    return fault


def respond_by_rules(body: Payload) -> str | Payload:
    """Answer a request by keywords, in the schema that it asks for; the simulator's own `respond`."""
    if body.get("tools"):
        turn = build_tool_turn(body["messages"])
        if isinstance(turn, str):
            return turn
        if turn.name in {tool["function"]["name"] for tool in body["tools"]}:
            return build_tool_calls((turn.name, json.dumps(turn.arguments)))
    asked = (body.get("response_format") or {}).get("json_schema")
    if asked is None:
        return "This is a simulated answer."
    schema = asked.get("schema", {})
    value = build_smallest(schema)
    if isinstance(value, dict):
        for key, found in build_answer(asked.get("name", ""), body.get("messages", [])).items():
            if key in value and matches(found, schema["properties"][key]):
                value[key] = found
    if not matches(value, schema):
        raise ValueError("the simulator's own answer does not keep the schema")
    return json.dumps(value, ensure_ascii=False)


def _find_embedding_refusal(_name: str, body: Payload) -> Response | None:
    problem = find_embedding_problem(body)
    return None if problem is None else _refuse(400, "invalid_value", problem[1], problem[0])


def _find_reasoning_refusal(body: Payload) -> Response | None:
    if "max_tokens" in body:
        message = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead."
        )
        return _refuse(400, "unsupported_parameter", message, "max_tokens")
    if body.get("temperature", 1) != 1:
        message = (
            f"Unsupported value: 'temperature' does not support {body['temperature']} with this model. "
            "Only the default (1) value is supported."
        )
        return _refuse(400, "unsupported_value", message, "temperature")
    if body.get("reasoning_effort", "low") not in REASONING_EFFORTS:
        message = f"Unsupported value: '{body['reasoning_effort']}' is not supported with this model."
        return _refuse(400, "unsupported_value", message, "reasoning_effort")
    if body.get("tools") and body.get("reasoning_effort") != "none":
        message = (
            "Function tools with reasoning_effort are not supported for this model in /v1/chat/completions. "
            "Use /v1/responses or set reasoning_effort to 'none'."
        )
        return _refuse(400, None, message, "reasoning_effort")
    return None


def _find_effort_refusal(body: Payload) -> Response | None:
    if "reasoning_effort" in body:
        return _refuse(400, None, "Unrecognized request argument supplied: reasoning_effort")
    return None


def _find_format_refusal(body: Payload) -> Response | None:
    asked = (body.get("response_format") or {}).get("json_schema")
    if asked is None or not asked.get("strict"):
        return None
    problem = find_schema_problem(asked.get("schema", {}))
    if problem is None:
        return None
    return _refuse(
        400, None, f"Invalid schema for response_format '{asked.get('name')}': {problem}", "response_format"
    )


def _find_tools_refusal(body: Payload) -> Response | None:
    for number, tool in enumerate(body.get("tools", ())):
        function = tool.get("function", {})
        problem = find_schema_problem(function.get("parameters", {})) if function.get("strict") else None
        if problem is not None:
            message = f"Invalid schema for function '{function.get('name')}': {problem}"
            return _refuse(
                400, "invalid_function_parameters", message, f"tools[{number}].function.parameters"
            )
    return None


def _find_conversation_refusal(body: Payload) -> Response | None:
    """Every tool call wants its answer, right behind the message that asks for it."""
    messages = body.get("messages", [])
    open_calls: set[str] = set()
    for message in [*messages, {}]:
        if message.get("role") == "tool":
            if message.get("tool_call_id") not in open_calls:
                return _refuse(400, None, "A message with role 'tool' answers no call.", "messages")
            open_calls.discard(message["tool_call_id"])
            continue
        if open_calls:
            text = "An assistant message with 'tool_calls' must be followed by an answer to each of them."
            return _refuse(400, None, text, "messages")
        open_calls = {call["id"] for call in message.get("tool_calls") or ()}
    return None


def _find_attack_refusal(body: Payload) -> Response | None:
    messages = body.get("messages", [])
    documents = [*parse_documents(messages), *parse_tool_documents(messages)]
    return _refuse_prompt(("indirect_attack",)) if any(map(is_blatant_attack, documents)) else None


def _refuse_prompt(categories: Collection[str]) -> Response:
    message = (
        "The response was filtered due to the prompt triggering Azure OpenAI's content management policy."
    )
    inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": _build_filters(categories)}
    return _refuse(400, "content_filter", message, "prompt", more={"status": 400, "innererror": inner})


def _refuse(
    status: int,
    code: str | None,
    message: str,
    param: str | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Response:
    error = {
        "message": message,
        "type": "invalid_request_error",
        "param": param,
        "code": code,
        **(more or {}),
    }
    return Response(
        json.dumps({"error": error}), status=status, headers=headers, content_type="application/json"
    )


def _build_filters(fired: Collection[str] = ()) -> Payload:
    def verdict(name: str) -> Payload:
        if name in ("jailbreak", "indirect_attack"):
            return {"filtered": name in fired, "detected": name in fired}
        return {"filtered": name in fired, "severity": "high" if name in fired else "safe"}

    return {name: verdict(name) for name in dict.fromkeys((*_FILTERS, *fired))}


def _prompt_text(message: Payload) -> str:
    calls = message.get("tool_calls")
    return read_content(message) + (json.dumps(calls) if calls else "")


def _count_tokens(text: str) -> int:
    return math.ceil(len(text) / TOKEN_CHARACTERS)
