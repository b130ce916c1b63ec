"""What both chat adapters share: what a request says, what a deployment supports, what an answer means."""

import json
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from shared.domain import Usage
from shared.errors import (
    AgentError,
    ConfigurationError,
    ContentFilteredError,
    PermanentError,
    ThrottledError,
    TransientError,
    UnavailableError,
)
from shared.model.chat import ChatCompletion, ChatRequest, Conversation, Message, ToolCall
from shared.services.http_session import find_retry_after
from shared.settings import DEFAULT_EFFORT

TOKEN_SCOPE = "https://cognitiveservices.azure.com/.default"  # noqa: S105  # the name of a scope
CONNECT_TIMEOUT_SECONDS = 5.0

# A reasoning deployment thinks on the answer's token limit. The room is a ceiling, not a price, but Azure
# counts it against the deployment's tokens per minute, so it is less than the 25,000 OpenAI's guide reserves.
REASONING_HEADROOM_TOKENS = 8_192

_NEEDED = "set TRIAGE_DEPLOYMENT and DRAFT_DEPLOYMENT to chat models that have structured outputs"

# Refusals that have passed a moment later; every status from 500 on is one too.
PASSING = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.CONFLICT,
    HTTPStatus.FAILED_DEPENDENCY,
    HTTPStatus.TOO_EARLY,
    499,  # a gateway's word for a connection that was closed
}
_ABOUT_THE_MODEL = re.compile(
    r"OperationNotSupported|operation does not work with"
    r"|(?:model|deployment)_?not_?(?:found|supported|available)"
    r"|(?:unsupported|unknown|invalid|deprecated)_?(?:model|deployment)"
    r"|\b(?:model|deployment)\b.{0,80}\b(?:retired|deprecated|does not exist|not available)"
    r"|\b(?:access to|allowed to use) (?:the |this )?(?:model|deployment)\b",
    re.IGNORECASE,
)
_ABOUT_THE_FORMAT = re.compile(r"response_format|json_schema|structured.outputs?", re.IGNORECASE)
# A model that takes none says so. What is said of some (CMYK images, image/tiff) is about the one attached.
_IMAGES = r"(?:images?|image inputs?|image_url|vision)"
_ABOUT_IMAGES = re.compile(
    r"image_url is only supported"
    r"|\b(?:model|deployment)\b.{0,60}(?:not|n't|cannot) (?:support|accept|take|process|allow)\w* "
    rf"(?:an? |any )?{_IMAGES}(?!\s?[\w/-])"
    rf"|(?:^\S* |[.:;] ){_IMAGES} (?:is|are) not (?:supported|allowed|accepted) "
    r"(?:by|for|on|with) (?:this|the) (?:model|deployment)\b"
    r"|no endpoints? .{0,40}support image",
    re.IGNORECASE,
)
_ABOUT_THE_VERSION = re.compile(r"api[ _-]?versions?\b", re.IGNORECASE)

MAX_TRIES = 4  # one for each parameter that a deployment may refuse, and the one that fits


class ChatRefusal(Exception):
    """An HTTP answer other than 200, not an error yet: adapting the request may help.

    Its text stays out of every message, because it may repeat the prompt.
    """

    def __init__(self, status: int, headers: Mapping[str, str], body: str) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.error: Mapping[str, Any] = {}
        with suppress(ValueError, RecursionError):  # no JSON, or JSON that is nested too deep
            self.error = _mapping(_mapping(json.loads(body.removeprefix("\ufeff"))).get("error"))
        self.code = _name(self.error.get("code"))
        self.param = _name(self.error.get("param"))

    def find_unsupported(self, sent: Mapping[str, Any]) -> str | None:
        """The parameter that the deployment does not support as it is, if that is the objection.

        It is one of the sent ones, or `reasoning_effort`, whose default some models refuse with tools. Azure
        names it in `param` (code unsupported_parameter or unsupported_value); older deployments leave
        both null and write "Unrecognized request argument supplied: max_completion_tokens".
        """
        if self.status != HTTPStatus.BAD_REQUEST:
            return None
        names = (*sent, "reasoning_effort")
        if self.param in names:
            return self.param
        if not re.search("unsupported|unrecognized|not supported", self.text, re.IGNORECASE):
            return None
        return next((name for name in names if re.search(rf"\b{name}\b", self.text)), None)

    @property
    def text(self) -> str:
        """What the service says; it may repeat the prompt."""
        return f"{self.code} {self.error.get('message')}"


def build_base_url(endpoint: str) -> str:
    """The v1 API's address on the resource; the endpoint may have the path already, as Azure shows it."""
    return f"{endpoint.rstrip('/').removesuffix('/v1').removesuffix('/openai')}/openai/v1"


class NoCompletion(Exception):
    """A 200 without a completion. The text says what came instead."""


class NoAnswer(NoCompletion):
    """No whole answer came. The text says why."""


@dataclass(frozen=True, slots=True)
class SupportedParameters:
    """Which parameters a deployment supports: the GPT-4o class all, the reasoning class no temperature.

    The newest of the latter take tools only with `reasoning_effort` none.
    """

    token_limit: str = "max_completion_tokens"  # noqa: S105  # the name of a parameter
    has_temperature: bool = True
    reasons_with_tools: bool = True

    def build(self, max_output_tokens: int, effort: str, *, has_tools: bool) -> dict[str, Any]:
        """The parameters to send for an answer of so many tokens, with room for the thinking before it."""
        if has_tools and not self.reasons_with_tools:
            effort = "none"
        is_thinking = effort != "none" and not (self.has_temperature and effort == DEFAULT_EFFORT)
        room = REASONING_HEADROOM_TOKENS if is_thinking else 0
        return (
            {self.token_limit: max_output_tokens + room}
            | ({"temperature": 0} if self.has_temperature else {})
            | ({} if effort == DEFAULT_EFFORT else {"reasoning_effort": effort})
        )

    def without(self, parameter: str) -> "SupportedParameters":
        """What remains when the deployment has refused a parameter."""
        if parameter == "temperature":
            return replace(self, has_temperature=False)
        if parameter == "reasoning_effort":
            return replace(self, reasons_with_tools=False)
        other = "max_tokens" if parameter == "max_completion_tokens" else "max_completion_tokens"
        return replace(self, token_limit=other)


class WireChatModel:
    """A ChatModel over one function that makes an SDK's call.

    `call` takes the deployment, what is asked (messages, response_format or tools, as the API writes them)
    and the parameters, and returns the 200 answer as the SDK has decoded it. It raises ChatRefusal for any
    other answer, NoAnswer when none comes, NoCompletion when it cannot be decoded, and lets AgentErrors
    through.
    """

    def __init__(
        self,
        call: Callable[[str, Mapping[str, Any], Mapping[str, Any]], Any],
        endpoint: str,
        *,
        has_key: bool,
    ) -> None:
        self._call = call
        self._host = urlsplit(endpoint).netloc
        self._has_key = has_key
        # By deployment and effort. Only single reads and writes, so threads need no lock.
        self._supported: dict[tuple[str, str], SupportedParameters] = {}

    def complete(self, request: ChatRequest) -> ChatCompletion:
        """See ChatModel. One HTTP request; up to MAX_TRIES until a deployment's parameters are known."""
        schema = {"name": request.schema_name, "schema": dict(request.schema), "strict": True}
        asked = {
            "messages": [
                {"role": "system", "content": request.system},
                {"role": "user", "content": _build_content(request)},
            ],
            "response_format": {"type": "json_schema", "json_schema": schema},
        }
        return self._ask(request.deployment, asked, request.max_output_tokens, request.reasoning_effort)

    def converse(self, conversation: Conversation) -> ChatCompletion:
        """See ChatModel. HTTP requests as for `complete`.

        Without parallel_tool_calls, which not every deployment takes: the caller checks arguments anyway.
        """
        functions = [
            {
                "name": tool.name,
                "description": tool.description,
                "parameters": dict(tool.parameters),
                "strict": True,
            }
            for tool in conversation.tools
        ]
        messages = [_build_message(message) for message in conversation.messages]
        asked = {
            "messages": [{"role": "system", "content": conversation.system}, *messages],
            "tools": [{"type": "function", "function": function} for function in functions],
        }
        return self._ask(conversation.deployment, asked, conversation.max_output_tokens)

    def _ask(
        self,
        deployment: str,
        asked: Mapping[str, Any],
        max_output_tokens: int,
        effort: str = DEFAULT_EFFORT,
    ) -> ChatCompletion:
        has_tools = "tools" in asked
        supported = self._supported.get((deployment, effort), SupportedParameters())
        for _ in range(MAX_TRIES):
            parameters = supported.build(max_output_tokens, effort, has_tools=has_tools)
            try:
                return self._read(_mapping(self._call(deployment, asked, parameters)), deployment)
            except NoCompletion as error:
                kind = UnavailableError if isinstance(error, NoAnswer) else TransientError
                raise kind(
                    f"MODEL_ENDPOINT's host {self._host} gave no completion for deployment "
                    f"{deployment!r}: {error}."
                ) from error
            except ChatRefusal as refusal:
                rejected = refusal.find_unsupported(parameters)
                if rejected is None:
                    # From None: the SDK's exception behind the refusal prints the service's text.
                    raise self._build_error(refusal, deployment) from None
                if rejected == "reasoning_effort" and effort != DEFAULT_EFFORT:
                    raise ConfigurationError(
                        f"MODEL_ENDPOINT's host {self._host} refused the reasoning effort {effort!r} for "
                        f"deployment {deployment!r}: set DRAFT_REASONING_EFFORT to one that its model "
                        f"has, or to {DEFAULT_EFFORT}."
                    ) from None
            supported = self._supported[deployment, effort] = supported.without(rejected)
        raise ConfigurationError(
            f"MODEL_ENDPOINT's host {self._host} refused every set of parameters for deployment "
            f"{deployment!r}: {_NEEDED}."
        )

    def _read(self, payload: Mapping[str, Any], deployment: str) -> ChatCompletion:
        choices = payload.get("choices")
        choice = _mapping(choices[0]) if isinstance(choices, list) and choices else {}
        message = _mapping(choice.get("message"))
        finish_reason = _name(choice.get("finish_reason"))
        text = message.get("content")
        if finish_reason == "content_filter":
            raise self._build_filtered(deployment, _find_fired(choice))
        if message.get("refusal"):
            raise self._build_filtered(deployment, ("refusal",))
        tool_calls = _read_tool_calls(message)
        if finish_reason == "length" or tool_calls:
            text = text or ""  # a reasoning deployment may use up the limit before its first word
        elif not text:
            raise NoCompletion("a 200 answer without a choice that has content")
        if not isinstance(text, str):
            raise NoCompletion("a 200 answer whose content is not a text")
        used = _mapping(payload.get("usage"))
        prompt_tokens = _count(used.get("prompt_tokens"))  # those from the prompt cache are among them
        cached = _count(_mapping(used.get("prompt_tokens_details")).get("cached_tokens"))
        return ChatCompletion(
            text=text,
            finish_reason=finish_reason,
            usage=Usage(1, prompt_tokens, _count(used.get("completion_tokens")), min(cached, prompt_tokens)),
            model=_name(payload.get("model")) or deployment,
            tool_calls=tool_calls,
        )

    def _build_error(self, refusal: ChatRefusal, deployment: str) -> AgentError:
        inner = _mapping(refusal.error.get("innererror"))
        if refusal.code == "content_filter" or inner.get("code") == "ResponsibleAIPolicyViolation":
            return self._build_filtered(deployment, _find_fired(inner))
        answer = f"HTTP {refusal.status}" + (
            f", {refusal.code}" if refusal.code not in ("", str(refusal.status)) else ""
        )
        remedy = _explain_unsuitable(refusal, deployment) or find_access_remedy(
            refusal, has_key=self._has_key
        )
        if remedy is not None:
            return ConfigurationError(f"MODEL_ENDPOINT's host {self._host} refused ({answer}): {remedy}")
        asked = f"MODEL_ENDPOINT's host {self._host}, asked for deployment {deployment!r}, answered {answer}"
        if refusal.status == HTTPStatus.TOO_MANY_REQUESTS:
            return ThrottledError(f"{asked}.", retry_after_seconds=find_retry_after(refusal.headers))
        if refusal.status in PASSING or refusal.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return UnavailableError(f"{asked}.", retry_after_seconds=find_retry_after(refusal.headers))
        parameter = f" about {refusal.param}" if refusal.param else ""
        return PermanentError(f"{asked}{parameter}; the same request would be refused again.")

    def _build_filtered(self, deployment: str, categories: tuple[str, ...]) -> ContentFilteredError:
        fired = ", ".join(categories) or "not named"
        return ContentFilteredError(
            f"The content filter of deployment {deployment!r} refused (filters: {fired}).",
            categories=categories,
        )


def find_access_remedy(refusal: ChatRefusal, *, has_key: bool) -> str | None:
    """What to set when the request was not admitted, or reached the wrong place."""
    status = refusal.status
    is_auth = status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
    if is_auth and has_key:
        return "set MODEL_API_KEY to a key of this resource, or remove it to sign in with the identity."
    if is_auth:
        return (
            'give the identity the role "Cognitive Services OpenAI User" on this resource, '
            "and let its network rules admit the app."
        )
    # Redirects are not followed: they take the key along.
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return "it redirects: set MODEL_ENDPOINT to the resource's own root."
    return None


def _explain_unsuitable(refusal: ChatRefusal, deployment: str) -> str | None:
    """What to set when the deployment is missing, or its model gone, forbidden or unable to answer."""
    is_bad_request = refusal.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY)
    is_refused = is_bad_request or refusal.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
    param, text = refusal.param, "" if refusal.param else refusal.text
    about_model = is_refused and (param == "model" or _ABOUT_THE_MODEL.search(text))
    if refusal.status == HTTPStatus.GONE or about_model:
        return f"deployment {deployment!r} is of a retired, forbidden or unsuitable model: {_NEEDED}."
    if is_bad_request and (param.startswith("response_format") or _ABOUT_THE_FORMAT.search(text)):
        return f"deployment {deployment!r} takes no response_format of type json_schema: {_NEEDED}."
    if is_bad_request and _ABOUT_IMAGES.search(refusal.text):
        return (
            f"the model of deployment {deployment!r} takes no images: set DRAFT_DEPLOYMENT to one that does, "
            "or images to false in the mailbox's profile."
        )
    if is_bad_request and _ABOUT_THE_VERSION.search(text):
        return (
            "it does not serve this version of the API: set MODEL_ENDPOINT to the root of a resource that "
            f"has the v1 API, and {_NEEDED}."
        )
    if refusal.status == HTTPStatus.NOT_FOUND:
        return (
            f"the deployment {deployment!r} does not exist: {_NEEDED}, deployed on this resource, and "
            "MODEL_ENDPOINT to its root."
        )
    return None


def _build_content(request: ChatRequest) -> str | list[dict[str, Any]]:
    """What the user message holds: its text, and behind it the pictures, inline."""
    if not request.pictures:
        return request.user
    urls = [f"data:{p.media_type};base64,{b64encode(p.content).decode()}" for p in request.pictures]
    shown = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"type": "text", "text": request.user}, *shown]


def _build_message(message: Message) -> dict[str, Any]:
    built: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.tool_calls:
        built["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        built["tool_call_id"] = message.tool_call_id
    return built


def _read_tool_calls(message: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    listed = message.get("tool_calls")
    calls = []
    for call in map(_mapping, listed if isinstance(listed, list) else ()):
        function = _mapping(call.get("function"))
        call_id, name, arguments = call.get("id"), function.get("name"), function.get("arguments")
        if not (isinstance(call_id, str) and isinstance(name, str) and isinstance(arguments, str)):
            raise NoCompletion("a 200 answer with a tool call that has no id, name or arguments")
        calls.append(ToolCall(call_id, name, arguments))
    return tuple(calls)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _name(value: Any) -> str:
    """The value if it looks like an identifier, so that no sentence of the service's gets into a message."""
    return value if isinstance(value, str) and re.fullmatch(r"[\w.:\[\]/-]{1,80}", value) else ""


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _find_fired(holder: Mapping[str, Any]) -> tuple[str, ...]:
    """The filters that fired; prompts carry them as content_filter_result, completions in the plural."""
    results = _mapping(holder.get("content_filter_result") or holder.get("content_filter_results"))
    return tuple(
        sorted(_name(name) for name, found in results.items() if _mapping(found).get("filtered") is True)
    )
