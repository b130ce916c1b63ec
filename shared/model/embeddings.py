"""Embeddings as the search by meaning asks for them, whichever SDK carries them."""

import math
from array import array
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, Protocol, TypeAlias
from urllib.parse import urlsplit

from shared.errors import (
    AgentError,
    ConfigurationError,
    PermanentError,
    ThrottledError,
    TransientError,
    UnavailableError,
)
from shared.model.chat_wire import PASSING, ChatRefusal, NoAnswer, NoCompletion, find_access_remedy
from shared.services.http_session import find_retry_after
from shared.telemetry import span

DIMENSIONS = 512
BATCH = 64  # texts in one request
TIMEOUT_SECONDS = 10.0

Vector: TypeAlias = "array[float]"

# Sends a deployment and texts; returns the answer as the service gave it. Raises ChatRefusal, NoCompletion.
Call = Callable[[str, list[str]], Any]


class EmbeddingModel(Protocol):
    """An embedding service."""

    def embed(self, texts: Sequence[str]) -> list[Vector]:
        """Vectors of length one, in the order of the texts, none of which may be empty.

        Raises what `ChatModel.complete` raises, but for ContentFilteredError.
        """
        ...


class WireEmbeddingModel:
    """What both SDKs share: batches, the check of the answer, and what a refusal means."""

    def __init__(self, call: Call, endpoint: str, deployment: str, *, has_key: bool) -> None:
        self._call = call
        self._host = urlsplit(endpoint).netloc
        self._deployment = deployment
        self._has_key = has_key

    def embed(self, texts: Sequence[str]) -> list[Vector]:
        """See EmbeddingModel. One HTTP request for each batch."""
        attributes = {"gen_ai.operation.name": "embeddings", "gen_ai.request.model": self._deployment}
        vectors: list[Vector] = []
        for start in range(0, len(texts), BATCH):
            batch = list(texts[start : start + BATCH])
            try:
                with span(f"embeddings {self._deployment}", attributes, server=self._host):
                    payload = self._call(self._deployment, batch)
                    try:
                        by_index = {item["index"]: normalize(item["embedding"]) for item in payload["data"]}
                        found = [by_index[number] for number in range(len(batch))]
                    except (KeyError, TypeError, ValueError, OverflowError):
                        raise NoCompletion("a 200 answer without a vector for each text") from None
                    if len({len(vector) for vector in found}) > 1:
                        raise NoCompletion(  # noqa: TRY301  # told below
                            "a 200 answer with vectors of different lengths"
                        )
                    vectors += found
            except NoCompletion as error:
                kind = UnavailableError if isinstance(error, NoAnswer) else TransientError
                raise kind(
                    f"MODEL_ENDPOINT's host {self._host} gave no embeddings for deployment "
                    f"{self._deployment!r}: {error}."
                ) from error
            except ChatRefusal as refusal:
                raise self._build_error(refusal) from None  # the SDK's exception prints the service's text
        return vectors

    def _build_error(self, refusal: ChatRefusal) -> AgentError:
        status, delay = refusal.status, find_retry_after(refusal.headers)
        answer = f"HTTP {status}" + (f", {refusal.code}" if refusal.code not in ("", str(status)) else "")
        asked = (
            f"MODEL_ENDPOINT's host {self._host}, asked for embeddings of {self._deployment!r}, "
            f"answered {answer}"
        )
        remedy = find_access_remedy(refusal, has_key=self._has_key)
        is_unsuitable = status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE) or (
            status == HTTPStatus.BAD_REQUEST and (refusal.param in ("model", "dimensions"))
        )
        if remedy is None and (is_unsuitable or "OperationNotSupported" in refusal.text):
            remedy = (
                "set EMBEDDING_DEPLOYMENT to a deployment of text-embedding-3-small or "
                "text-embedding-3-large on this resource, or remove it to search by words alone."
            )
        if remedy is not None:
            return ConfigurationError(f"{asked}: {remedy}")
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            return ThrottledError(f"{asked}.", retry_after_seconds=delay)
        if status in PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return UnavailableError(f"{asked}.", retry_after_seconds=delay)
        return PermanentError(f"{asked}; the same request would be refused again.", status_code=status)


def normalize(values: Sequence[float]) -> Vector:
    """The vector of length one that points the same way. Raises ValueError for one without a length."""
    length = math.sqrt(math.fsum(value * value for value in values))
    if not length or not math.isfinite(length):
        raise ValueError("a vector that has no length")
    return array("f", (value / length for value in values))
