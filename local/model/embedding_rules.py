"""What the simulated embedding deployment answers: vectors that are near where texts have words in common."""

import base64
from array import array
from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

from shared.knowledge.words import fold, list_words
from shared.model.embeddings import normalize

DEFAULT_DIMENSIONS = 1_536
MAX_INPUTS = 2_048
MAX_CHARACTERS = 32_000  # about as many tokens as the service takes


def find_embedding_problem(body: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with the request as the service documents it: the parameter and a message."""
    texts, dimensions = body.get("input"), body.get("dimensions", DEFAULT_DIMENSIONS)
    if not isinstance(texts, list) or not 0 < len(texts) <= MAX_INPUTS:
        return "input", f"'input' must be a list of 1 to {MAX_INPUTS} texts."
    if not all(isinstance(text, str) and 0 < len(text) <= MAX_CHARACTERS for text in texts):
        return "input", "'input' has a text that is empty or too long."
    if not isinstance(dimensions, int) or not 0 < dimensions <= DEFAULT_DIMENSIONS:
        return "dimensions", "'dimensions' is larger than the model's."
    return None


def build_embeddings(body: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The answer to a request that is in order."""
    texts: Sequence[str] = body["input"]
    vectors = [_embed(text, body.get("dimensions", DEFAULT_DIMENSIONS)) for text in texts]
    as_text = body.get("encoding_format") == "base64"
    tokens = sum(len(text) // 4 + 1 for text in texts)
    return {
        "object": "list",
        "model": model,
        "data": [
            {
                "object": "embedding",
                "index": index,
                "embedding": base64.b64encode(vector.tobytes()).decode() if as_text else vector.tolist(),
            }
            for index, vector in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _embed(text: str, dimensions: int) -> "array[float]":
    vector = [0.0] * dimensions
    for word in list_words(fold(text)) or ["?"]:
        vector[crc32(word.encode()) % dimensions] += 1
    return normalize(vector)
