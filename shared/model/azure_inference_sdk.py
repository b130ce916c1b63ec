"""Chat completions through the azure-ai-inference SDK."""

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from shared.errors import ConfigurationError
from shared.model.chat import ChatModel
from shared.model.chat_wire import (
    CONNECT_TIMEOUT_SECONDS,
    ChatRefusal,
    NoCompletion,
    TokenSource,
    WireChatModel,
)
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
    neither key nor credential, and for plain http without a key: a token goes over https only.
    """
    if api_key is None and not endpoint.startswith("https://"):
        raise ConfigurationError(
            "MODEL_ENDPOINT is plain http, over which azure-ai-inference sends no tokens: "
            "set MODEL_API_KEY, or MODEL_SDK to openai."
        )
    from azure.ai.inference import ChatCompletionsClient  # noqa: PLC0415  # cold start
    from azure.core.credentials import AzureKeyCredential  # noqa: PLC0415  # cold start
    from azure.core.pipeline.transport import RequestsTransport  # noqa: PLC0415  # cold start

    from shared.http_session import build_session  # noqa: PLC0415 - cold start

    # Without policies nothing is tried twice or elsewhere, nothing is logged, and the credential that the
    # client insists on goes nowhere: `post` signs.
    client = ChatCompletionsClient(
        endpoint.rstrip("/"),
        AzureKeyCredential("unused"),
        policies=[],
        transport=RequestsTransport(
            session=build_session(),
            session_owner=False,
            connection_timeout=CONNECT_TIMEOUT_SECONDS,
            read_timeout=timeout_seconds,
        ),
    )
    key = api_key.value if api_key else ""
    get_bearer: Callable[[], str] = (lambda: key) if key else TokenSource(credential).get_bearer
    # Azure's own header for keys, next to Bearer: gateways in between may know only one of them.
    key_header = {"api-key": key} if key else {}

    def post(deployment: str, body: Mapping[str, Any]) -> Any:
        return _post(client, deployment, body, {**key_header, "Authorization": f"Bearer {get_bearer()}"})

    return WireChatModel(post, endpoint, has_key=api_key is not None)


def _post(
    client: "ChatCompletionsClient", deployment: str, body: Mapping[str, Any], headers: Mapping[str, str]
) -> Any:
    from azure.core.exceptions import AzureError  # noqa: PLC0415  # cold start
    from azure.core.rest import HttpRequest  # noqa: PLC0415 - cold start

    # Not `complete`: it lacks max_completion_tokens, and builds objects that are never read.
    path = f"openai/deployments/{quote(deployment, safe='')}/chat/completions?api-version={API_VERSION}"
    try:
        response = client.send_request(HttpRequest("POST", path, headers=dict(headers), json=body))
    except AzureError as error:  # time-outs and bodies that break off included
        raise NoCompletion(type(error).__name__) from error
    if response.status_code != HTTPStatus.OK:
        raise ChatRefusal(response.status_code, response.headers, response.content.decode(errors="replace"))
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):  # no text, or no JSON that anybody would send
        raise NoCompletion("a 200 answer that is not JSON") from None
