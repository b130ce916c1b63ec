"""Chat completions as the agent asks for them, whichever SDK carries them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from shared.domain import Usage


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One chat completion: trusted instructions, untrusted data, and the JSON schema of the answer.

    `system` holds instructions only; email text goes into `user` as escaped data.
    """

    deployment: str
    system: str
    user: str
    schema_name: str
    schema: Mapping[str, Any]
    max_output_tokens: int


@dataclass(frozen=True, slots=True)
class ChatCompletion:
    """The answer. `text` may be cut or not JSON: `finish_reason` "length" says it was cut."""

    text: str
    finish_reason: str
    usage: Usage
    model: str


class ChatModel(Protocol):
    """A chat-completions service."""

    def complete(self, request: ChatRequest) -> ChatCompletion:
        """Ask for one completion.

        Raises ContentFilteredError (refused prompt or completion), ThrottledError (429),
        TransientError (time-out, 5xx, no connection, unreadable answer), ConfigurationError
        (wrong endpoint, key or deployment) and PermanentError (any other refusal).
        """
        ...
