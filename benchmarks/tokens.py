"""Tokens as the GPT-4o family and its successors count them, with a vocabulary that the package carries."""

from bpe_openai import get_encoding

_ENCODING = get_encoding("o200k_base")


def count_tokens(text: str) -> int:
    """The number of o200k tokens."""
    return len(_ENCODING.encode(text))


def encode(text: str) -> list[int]:
    """The o200k tokens themselves."""
    return list(_ENCODING.encode(text))
