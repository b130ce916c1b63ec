"""Chat and embeddings through the openai SDK, on the v1 API of an Azure OpenAI resource."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx2
import requests
from azure.core.credentials import TokenCredential
from openai import APIConnectionError, APIStatusError, BaseModel, DefaultHttpxClient, OpenAI

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
from shared.services.http_session import POOL_SIZE, describe_failure
from shared.settings import Secret


def build_openai_model(
    endpoint: str, sign_in: Secret | TokenCredential, timeout_seconds: float = 60.0
) -> ChatModel:
    """Connect to the Azure OpenAI resource at `endpoint` (its root or its v1 API), with a key or an identity.

    `timeout_seconds` bounds the wait for each piece of the answer.
    """
    client = _build_client(endpoint, sign_in, timeout_seconds)
    is_proxied = bool(requests.utils.get_environ_proxies(endpoint))

    def call(deployment: str, asked: Mapping[str, Any], parameters: Mapping[str, Any]) -> Any:
        with _refusals(is_proxied=is_proxied):
            completion = client.chat.completions.create(model=deployment, **asked, **parameters)
        # The SDK makes a completion of any JSON object, and hands out everything else as it came.
        return completion.to_dict(warnings=False) if isinstance(completion, BaseModel) else completion

    return WireChatModel(call, endpoint, has_key=isinstance(sign_in, Secret))


def build_openai_embeddings(
    endpoint: str,
    sign_in: Secret | TokenCredential,
    deployment: str,
    timeout_seconds: float = EMBEDDING_TIMEOUT_SECONDS,
) -> EmbeddingModel:
    """Connect to an embedding deployment of the resource; as `build_openai_model`."""
    client = _build_client(endpoint, sign_in, timeout_seconds)
    is_proxied = bool(requests.utils.get_environ_proxies(endpoint))

    def call(name: str, texts: list[str]) -> Any:
        with _refusals(is_proxied=is_proxied):
            answer = client.embeddings.create(
                input=texts, model=name, dimensions=DIMENSIONS, encoding_format="float"
            )
        return answer.to_dict(warnings=False) if isinstance(answer, BaseModel) else answer

    return WireEmbeddingModel(call, endpoint, deployment, has_key=isinstance(sign_in, Secret))


def _build_client(endpoint: str, sign_in: Secret | TokenCredential, timeout_seconds: float) -> OpenAI:
    key = (
        sign_in.value
        if isinstance(sign_in, Secret)
        else TokenSource(sign_in, TOKEN_SCOPE, "MODEL_ENDPOINT").get_bearer
    )
    return OpenAI(
        base_url=build_base_url(endpoint),
        api_key=key,
        # Azure's own header for keys, next to the SDK's Bearer: gateways in between may know only this one.
        default_headers={"api-key": key} if isinstance(key, str) else None,
        max_retries=0,
        http_client=DefaultHttpxClient(
            timeout=httpx2.Timeout(timeout_seconds, connect=CONNECT_TIMEOUT_SECONDS),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=POOL_SIZE),
            follow_redirects=False,
        ),
    )


@contextmanager
def _refusals(*, is_proxied: bool) -> Iterator[None]:
    """Turn the SDK's errors into ChatRefusal, NoAnswer and NoCompletion."""
    try:
        yield
    except APIStatusError as error:
        raise ChatRefusal(error.status_code, error.response.headers, error.response.text) from error
    except APIConnectionError as error:  # time-outs included
        raise NoAnswer(describe_failure(error, "SSL_CERT_FILE", is_proxied=is_proxied)) from error
    except (ValueError, RecursionError):  # no text, or no JSON that anybody would send
        raise NoCompletion("an answer that is not JSON, or says no readable length of itself") from None
