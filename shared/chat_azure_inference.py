"""Chat completions through the azure-ai-inference SDK."""

import json
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from shared.chat import ChatModel
from shared.chat_wire import (
    CONNECT_TIMEOUT_SECONDS,
    TOKEN_SCOPE,
    ChatRefusal,
    NoCompletion,
    TokenSource,
    WireChatModel,
)
from shared.errors import ConfigurationError
from shared.settings import Secret

if TYPE_CHECKING:
    from azure.ai.inference import ChatCompletionsClient
    from azure.core.credentials import TokenCredential

# The latest generally available dated version; the SDK's default is a preview of another service.
API_VERSION = "2024-10-21"


def build_azure_inference_model(
    endpoint: str, api_key: Secret | None, credential: "TokenCredential | None", timeout_seconds: float = 60.0
) -> ChatModel:
    """Connect to the Azure OpenAI resource at `endpoint` (its root), with the key if there is one.

    `timeout_seconds` bounds the wait for each piece of the answer. Raises ConfigurationError when there is
    neither key nor credential, and for plain http without a key: the SDK sends tokens over https only.
    """
    if api_key is None and not endpoint.startswith("https://"):
        raise ConfigurationError(
            "MODEL_ENDPOINT is plain http, over which azure-ai-inference sends no tokens: "
            "set MODEL_API_KEY, or MODEL_SDK to openai."
        )
    client = _build_client(endpoint.rstrip("/"), api_key, credential, timeout_seconds)
    return WireChatModel(partial(_post, client), endpoint, has_key=api_key is not None)


def _build_client(
    root: str, api_key: Secret | None, credential: "TokenCredential | None", timeout_seconds: float
) -> "ChatCompletionsClient":
    """The SDK's client of the whole resource: the path of each request names the deployment."""
    from azure.ai.inference import ChatCompletionsClient  # noqa: PLC0415  # cold start
    from azure.core.credentials import AzureKeyCredential  # noqa: PLC0415  # cold start
    from azure.core.pipeline import policies  # noqa: PLC0415  # cold start
    from azure.core.pipeline.transport import RequestsTransport  # noqa: PLC0415  # cold start

    from shared.http_session import build_session  # noqa: PLC0415 - cold start

    signed_in: AzureKeyCredential | TokenSource
    sign: Any
    if api_key:
        signed_in = AzureKeyCredential(api_key.value)
        sign = policies.AzureKeyCredentialPolicy(signed_in, "api-key")
    else:
        signed_in = TokenSource(credential)
        sign = policies.BearerTokenCredentialPolicy(signed_in, TOKEN_SCOPE)
    transport = RequestsTransport(
        session=build_session(),
        session_owner=False,
        connection_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=timeout_seconds,
    )
    # No other policy: nothing is tried twice or elsewhere, and nothing is logged that `traced` does not say.
    return ChatCompletionsClient(root, signed_in, policies=[sign], transport=transport)


def _post(client: "ChatCompletionsClient", deployment: str, body: Mapping[str, Any]) -> Any:
    """See WireChatModel."""
    from azure.core.exceptions import AzureError  # noqa: PLC0415  # cold start
    from azure.core.rest import HttpRequest  # noqa: PLC0415 - cold start

    # Not `complete`: it lacks max_completion_tokens, and builds objects that nobody would read.
    path = f"openai/deployments/{quote(deployment, safe='')}/chat/completions?api-version={API_VERSION}"
    try:
        response = client.send_request(HttpRequest("POST", path, json=dict(body)))
    except AzureError as error:  # time-outs and bodies that break off included
        raise NoCompletion(type(error).__name__) from error
    if response.status_code != HTTPStatus.OK:
        raise ChatRefusal(response.status_code, response.headers, response.content.decode(errors="replace"))
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):  # no text, or no JSON that anybody would send
        raise NoCompletion("a 200 answer that is not JSON") from None
