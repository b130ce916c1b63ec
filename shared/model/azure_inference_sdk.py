"""Chat and embeddings through the azure-ai-inference SDK, on the v1 API of an Azure OpenAI resource."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from azure.ai.inference import ChatCompletionsClient, EmbeddingsClient
from azure.ai.inference.models import ChatCompletionsToolDefinition, EmbeddingsResult, JsonSchemaFormat
from azure.core.credentials import AzureKeyCredential, TokenCredential
from azure.core.exceptions import AzureError, HttpResponseError, IncompleteReadError
from azure.core.pipeline.transport import RequestsTransport
from azure.core.rest import HttpResponse

from shared.errors import ConfigurationError
from shared.model.chat import ChatModel
from shared.model.chat_wire import (
    CONNECT_TIMEOUT_SECONDS,
    TOKEN_SCOPE,
    ChatRefusal,
    NoAnswer,
    NoCompletion,
    WireChatModel,
    build_base_url,
)
from shared.model.embeddings import DIMENSIONS, EmbeddingModel, WireEmbeddingModel
from shared.model.embeddings import TIMEOUT_SECONDS as EMBEDDING_TIMEOUT_SECONDS
from shared.services.credentials import TokenSource
from shared.services.http_session import build_session, describe_failure
from shared.settings import Secret

# The v1 API takes it as optional, with this value alone; the SDK's default is a preview of another service.
API_VERSION = "v1"
# Arguments of the SDK's own; every other parameter is an extra, which it writes next to them.
SDK_PARAMETERS = frozenset({"temperature", "max_tokens"})


def build_azure_inference_model(
    endpoint: str, sign_in: Secret | TokenCredential, timeout_seconds: float = 60.0
) -> ChatModel:
    """Connect to the Azure OpenAI resource at `endpoint` (its root or its v1 API), with a key or an identity.

    `timeout_seconds` bounds the wait for each piece of the answer. Raises ConfigurationError for plain http
    without a key: a token goes over https only.
    """
    client = ChatCompletionsClient(
        build_base_url(endpoint), **_build_options(endpoint, sign_in, timeout_seconds)
    )

    def call(deployment: str, asked: Mapping[str, Any], parameters: Mapping[str, Any]) -> Any:
        return _complete(client, deployment, asked, parameters)

    return WireChatModel(call, endpoint, has_key=isinstance(sign_in, Secret))


def build_azure_inference_embeddings(
    endpoint: str,
    sign_in: Secret | TokenCredential,
    deployment: str,
    timeout_seconds: float = EMBEDDING_TIMEOUT_SECONDS,
) -> EmbeddingModel:
    """Connect to an embedding deployment of the resource; as `build_azure_inference_model`."""
    client = EmbeddingsClient(build_base_url(endpoint), **_build_options(endpoint, sign_in, timeout_seconds))

    def call(name: str, texts: list[str]) -> Any:
        with _refusals():
            answer = client.embed(input=texts, model=name, dimensions=DIMENSIONS)
        # The SDK hands out what is no JSON object as it came.
        return answer.as_dict() if isinstance(answer, EmbeddingsResult) else answer

    return WireEmbeddingModel(call, endpoint, deployment, has_key=isinstance(sign_in, Secret))


def _build_options(
    endpoint: str, sign_in: Secret | TokenCredential, timeout_seconds: float
) -> dict[str, Any]:
    """The arguments that the SDK's clients have in common."""
    if not isinstance(sign_in, Secret) and not endpoint.startswith("https://"):
        raise ConfigurationError(
            "MODEL_ENDPOINT is plain http, over which azure-ai-inference sends no tokens: "
            "set MODEL_API_KEY, or MODEL_SDK to openai."
        )
    credential = (
        AzureKeyCredential(sign_in.value)
        if isinstance(sign_in, Secret)
        else TokenSource(sign_in, TOKEN_SCOPE, "MODEL_ENDPOINT")
    )
    session = build_session(endpoint)
    return {
        "credential": credential,
        "credential_scopes": [TOKEN_SCOPE],
        "api_version": API_VERSION,
        "retry_total": 0,
        "permit_redirects": False,
        "transport": RequestsTransport(
            session=session,
            session_owner=False,
            connection_verify=session.verify,
            connection_timeout=CONNECT_TIMEOUT_SECONDS,
            read_timeout=timeout_seconds,
        ),
    }


def _complete(
    client: ChatCompletionsClient, deployment: str, asked: Mapping[str, Any], parameters: Mapping[str, Any]
) -> Any:
    asked_format, tools = asked.get("response_format"), asked.get("tools")
    with _refusals():
        return client.complete(
            model=deployment,
            messages=asked["messages"],
            response_format=JsonSchemaFormat(asked_format["json_schema"]) if asked_format else None,
            tools=[ChatCompletionsToolDefinition(tool) for tool in tools] if tools else None,
            model_extras={name: value for name, value in parameters.items() if name not in SDK_PARAMETERS},
            **{name: value for name, value in parameters.items() if name in SDK_PARAMETERS},
        )


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn the SDK's errors into ChatRefusal, NoAnswer and NoCompletion."""
    try:
        yield
    except IncompleteReadError as error:
        raise NoAnswer(describe_failure(error)) from error
    except HttpResponseError as error:
        response = error.response
        if not isinstance(response, HttpResponse) or response.status_code == HTTPStatus.OK:
            # The SDK cannot decode the body; where it does not know its type, it does not say the status.
            raise NoCompletion(type(error).__name__) from None
        body = response.content.decode(errors="replace")
        raise ChatRefusal(response.status_code, response.headers, body) from error
    except AzureError as error:  # time-outs included
        raise NoAnswer(describe_failure(error)) from error
    except (ValueError, RecursionError):  # no text, or no JSON that anybody would send
        raise NoCompletion("an answer that is not JSON, or says no readable length of itself") from None
