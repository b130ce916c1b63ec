"""Chat completions through the openai SDK, on Azure OpenAI's v1 API."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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
    from azure.core.credentials import TokenCredential
    from openai import OpenAI


def build_openai_model(
    endpoint: str, api_key: Secret | None, credential: "TokenCredential | None", timeout_seconds: float = 60.0
) -> ChatModel:
    """Connect to the Azure OpenAI resource at `endpoint` (its root), with the key if there is one.

    `timeout_seconds` bounds the wait for each piece of the answer. Raises ConfigurationError when there is
    neither key nor credential.
    """
    import httpx2  # noqa: PLC0415  # cold start: imported when the SDK is chosen
    from openai import DefaultHttpxClient, OpenAI  # noqa: PLC0415 - cold start

    from shared.http_session import POOL_SIZE  # noqa: PLC0415 - cold start

    client = OpenAI(
        base_url=f"{endpoint.rstrip('/')}/openai/v1/",
        api_key=api_key.value if api_key else TokenSource(credential).get_bearer,
        # Azure's own header for keys, next to the SDK's Bearer: gateways in between may know only this one.
        default_headers={"api-key": api_key.value} if api_key else None,
        max_retries=0,
        http_client=DefaultHttpxClient(
            timeout=httpx2.Timeout(timeout_seconds, connect=CONNECT_TIMEOUT_SECONDS),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=POOL_SIZE),
            follow_redirects=False,
        ),
    )

    def post(deployment: str, body: Mapping[str, Any]) -> Any:
        return _post(client, deployment, body)

    return WireChatModel(post, endpoint, has_key=api_key is not None)


def _post(client: "OpenAI", deployment: str, body: Mapping[str, Any]) -> Any:
    from openai import APIConnectionError, APIStatusError  # noqa: PLC0415  # cold start

    try:
        # Raw, because the SDK builds its completion from any JSON without looking.
        answer = client.chat.completions.with_raw_response.create(model=deployment, **body)
    except APIStatusError as error:
        raise ChatRefusal(error.status_code, error.response.headers, error.response.text) from error
    except APIConnectionError as error:  # time-outs included
        raise NoCompletion(type(error).__name__) from error
    try:
        return json.loads(answer.content)
    except (ValueError, RecursionError):  # no text, or no JSON that anybody would send
        raise NoCompletion("a 200 answer that is not JSON") from None
