"""Chat completions as the agent asks for them, whichever SDK carries them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from shared.domain import Usage
from shared.settings import DEFAULT_EFFORT


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture for a model that takes images: untrusted, as the text next to it."""

    media_type: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One chat completion: trusted instructions, untrusted data, and the JSON schema of the answer.

    `system` holds instructions only; email text goes into `user` as escaped data, and `pictures` follow it.
    `reasoning_effort` says how much the model is to think first; with DEFAULT_EFFORT it decides.
    """

    deployment: str
    system: str
    user: str
    schema_name: str
    schema: Mapping[str, Any]
    max_output_tokens: int
    reasoning_effort: str = DEFAULT_EFFORT
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may ask for, with the strict JSON schema of its arguments."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model's wish to have a tool called. `arguments` is what it wrote: perhaps no JSON at all."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation. A "tool" message answers the call that `tool_call_id` names."""

    role: Literal["user", "assistant", "tool"]
    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation to be continued, with the tools that the model may ask for.

    `system` holds instructions only; email text goes into "tool" messages as escaped data.
    """

    deployment: str
    system: str
    messages: Sequence[Message]
    tools: Sequence[Tool]
    max_output_tokens: int


@dataclass(frozen=True, slots=True)
class ChatCompletion:
    """The answer. `text` may be cut or not JSON: `finish_reason` "length" says it was cut.

    Only a continued conversation has `tool_calls`, and `text` may then be empty.
    """

    text: str
    finish_reason: str
    usage: Usage
    model: str
    tool_calls: tuple[ToolCall, ...] = ()


class ChatModel(Protocol):
    """A chat-completions service."""

    def complete(self, request: ChatRequest) -> ChatCompletion:
        """Ask for one completion that keeps a schema.

        Raises ContentFilteredError (refused prompt or completion), ThrottledError (429),
        UnavailableError (time-out, 5xx, no connection), TransientError (unreadable answer),
        ConfigurationError (wrong endpoint, key or deployment, unsuitable model)
        and PermanentError (any other refusal).
        """
        ...

    def converse(self, conversation: Conversation) -> ChatCompletion:
        """Ask for the next message of a conversation: a text, or tools to be called. Raises as `complete`."""
        ...
