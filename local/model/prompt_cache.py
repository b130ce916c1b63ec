"""Simulates the prompt cache of Azure OpenAI: how much of a prompt an earlier one began with."""

from collections.abc import Hashable, Sequence

FIRST_TOKENS, STEP_TOKENS = 1_024, 128
KEPT_PREFIXES = 100_000


class PromptCache:
    """Remember the beginnings of prompts, without an end: one is only forgotten for `kept` newer ones.

    https://learn.microsoft.com/azure/ai-foundry/openai/how-to/prompt-caching
    """

    def __init__(self, kept: int = KEPT_PREFIXES) -> None:
        self._kept = kept
        self._prefixes: dict[int, None] = {}  # in the order of their last use

    def count_cached(self, deployment: str, tokens: Sequence[Hashable]) -> int:
        """How many of these tokens an earlier prompt of the deployment had at its beginning; it is kept then.

        At least FIRST_TOKENS, and from there on in steps of STEP_TOKENS; otherwise none.
        """
        cached, start, prefix = 0, 0, hash(deployment)
        for end in range(FIRST_TOKENS, len(tokens) + 1, STEP_TOKENS):
            prefix = hash((prefix, *tokens[start:end]))
            if prefix in self._prefixes:
                cached = end
                del self._prefixes[prefix]
            self._prefixes[prefix] = None
            start = end
        while len(self._prefixes) > self._kept:
            del self._prefixes[next(iter(self._prefixes))]
        return cached
