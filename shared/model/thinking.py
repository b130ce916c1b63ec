"""Answers that a reasoning model never began, because it thought past its limit."""

from collections import Counter

from shared.errors import ConfigurationError, ThoughtTooLongError
from shared.model.chat import ChatCompletion, ChatRequest
from shared.model.chat_wire import REASONING_HEADROOM_TOKENS

CUTS_OF_AN_UNSUITABLE_MODEL = 3

_REMEDIES = {
    "triage": "set TRIAGE_DEPLOYMENT to another model",
    "draft": "lower DRAFT_REASONING_EFFORT, or set DRAFT_DEPLOYMENT to another model",
}


class ThoughtWatch:
    """Tells a deployment that never comes to its answer from one email that kept it thinking.

    Only single reads and writes, so threads need no lock.
    """

    def __init__(self) -> None:
        self._answered: set[tuple[str, str]] = set()
        self._cut: Counter[tuple[str, str]] = Counter()

    def check(self, request: ChatRequest, completion: ChatCompletion) -> ChatCompletion:
        """The answer, if it was begun.

        Raises ThoughtTooLongError for one that was not, and ConfigurationError where the deployment's first
        CUTS_OF_AN_UNSUITABLE_MODEL answers to this step were all like that.
        """
        step = (request.deployment, request.schema_name)
        if completion.finish_reason != "length" or completion.text.strip():
            self._answered.add(step)
            return completion
        said = (
            f"the model of deployment {request.deployment!r} thought longer than its limit "
            f"({REASONING_HEADROOM_TOKENS:,} tokens): {_REMEDIES[request.schema_name]}"
        )
        if step not in self._answered:
            self._cut[step] += 1
            if self._cut[step] >= CUTS_OF_AN_UNSUITABLE_MODEL:
                raise ConfigurationError(f"In each of its first answers {said}.")
        raise ThoughtTooLongError(said)
