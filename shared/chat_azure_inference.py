"""Chat completions through the azure-ai-inference SDK."""

import json
import threading
from collections.abc import Mapping
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
    clients = _Clients(endpoint, api_key, credential, timeout_seconds)
    return WireChatModel(clients.post, endpoint, has_key=api_key is not None)


class _Clients:
    """One SDK client per deployment, because its endpoint contains the deployment; they share connections."""

    def __init__(
        self,
        endpoint: str,
        api_key: Secret | None,
        credential: "TokenCredential | None",
        timeout_seconds: float,
    ) -> None:
        from azure.core.credentials import AzureKeyCredential  # noqa: PLC0415  # cold start

        from shared.http_session import build_session  # noqa: PLC0415 - cold start

        self._root = endpoint.rstrip("/")
        self._credential = AzureKeyCredential(api_key.value) if api_key else TokenSource(credential)
        self._timeout_seconds = timeout_seconds
        self._session = build_session()
        self._clients: dict[str, ChatCompletionsClient] = {}
        self._guard = threading.Lock()

    def post(self, deployment: str, body: Mapping[str, Any]) -> Any:
        """See WireChatModel."""
        from azure.core.exceptions import AzureError, HttpResponseError  # noqa: PLC0415  # cold start
        from azure.core.rest import HttpRequest  # noqa: PLC0415 - cold start

        # Not `complete`: it lacks max_completion_tokens, and builds objects that nobody would read.
        request = HttpRequest("POST", f"chat/completions?api-version={API_VERSION}", json=dict(body))
        try:
            response = self._client(deployment).send_request(request)
            if response.status_code != HTTPStatus.OK:
                raise ChatRefusal(response.status_code, response.headers, response.text())
            return response.json()
        except HttpResponseError as error:  # the answer cannot be read
            refused: Any = error.response
            if refused is None:  # the connection broke in the middle of the body
                raise NoCompletion(type(error).__name__) from error
            if refused.status_code == HTTPStatus.OK:
                raise NoCompletion("a 200 answer that is not JSON") from None
            raise ChatRefusal(refused.status_code, refused.headers, refused.text()) from error
        except AzureError as error:  # time-outs included
            raise NoCompletion(type(error).__name__) from error
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise NoCompletion("a 200 answer that is not JSON") from None

    def _client(self, deployment: str) -> "ChatCompletionsClient":
        from azure.ai.inference import ChatCompletionsClient  # noqa: PLC0415  # cold start
        from azure.core.pipeline.policies import SansIOHTTPPolicy  # noqa: PLC0415 - cold start
        from azure.core.pipeline.transport import RequestsTransport  # noqa: PLC0415 - cold start

        nothing: SansIOHTTPPolicy[Any, Any] = SansIOHTTPPolicy()
        with self._guard:
            if deployment not in self._clients:
                self._clients[deployment] = ChatCompletionsClient(
                    endpoint=f"{self._root}/openai/deployments/{quote(deployment, safe='')}",
                    credential=self._credential,
                    credential_scopes=[TOKEN_SCOPE],
                    api_version=API_VERSION,
                    # Nothing is tried twice or elsewhere, and nothing is logged that `traced` does not say.
                    retry_policy=nothing,
                    redirect_policy=nothing,
                    logging_policy=nothing,
                    http_logging_policy=nothing,
                    transport=RequestsTransport(
                        session=self._session,
                        session_owner=False,
                        connection_timeout=CONNECT_TIMEOUT_SECONDS,
                        read_timeout=self._timeout_seconds,
                    ),
                )
            return self._clients[deployment]
