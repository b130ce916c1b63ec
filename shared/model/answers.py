"""A model's JSON answer, also from deployments that write more around it than the answer."""

import json
from typing import Any

_DECODER = json.JSONDecoder()
MAX_BRACES = (
    100  # that may begin an object; more are no answer, and each takes time in proportion to the text
)
_THOUGHT, _END_OF_THOUGHT = "<think>", "</think>"


def parse_answer(text: str) -> Any:
    """The JSON that the answer is, or the only object in it: fenced, after a thought, or between sentences.

    Raises ValueError when there is none, or more than one: an answer may quote an object from an email.
    Raises RecursionError for JSON that is nested too deep.
    """
    try:
        return json.loads(text)
    except ValueError:
        is_thoughtful = text.lstrip().startswith(_THOUGHT)
        said = text.rpartition(_END_OF_THOUGHT)[2] if is_thoughtful else text
    found = []
    start, tried = said.find("{"), 0
    while start >= 0:
        tried += 1
        if tried > MAX_BRACES:
            raise ValueError(f"the answer has more than {MAX_BRACES} braces outside of an object")
        try:
            value, end = _DECODER.raw_decode(said, start)
        except ValueError:
            end = start + 1
        else:
            found.append(value)
        start = said.find("{", end)
    if len(found) != 1:
        raise ValueError(f"the answer has {len(found)} JSON objects")
    return found[0]
