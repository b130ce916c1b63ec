"""Marks in the texts that tell, without asking the agent, which emails a reply was written from."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace

from shared.model.chat import ChatCompletion, ChatRequest

_MARK = re.compile(r"Reference ([a-z0-9 ]+)\.")
_NAMES = re.compile(r"This answers ([a-z0-9 ,]+)\.")


def mark_email(markdown: str, label: str) -> str:
    """The body of an email that a draft's prompt can be searched for."""
    return f"{markdown}\n\nReference {label}."


def mark_draft(request: ChatRequest, completion: ChatCompletion) -> ChatCompletion:
    """Have a draft name the marked emails that its prompt shows, as a person would who read them."""
    labels = find_marks(request)
    draft = json.loads(completion.text)
    draft["reply_markdown"] += f"\n\nThis answers {', '.join(labels)}."
    return replace(completion, text=json.dumps(draft))


def find_marks(request: ChatRequest) -> Sequence[str]:
    """The labels of the emails that a prompt shows."""
    return list(dict.fromkeys(_MARK.findall(request.user)))


def find_answered(markdown: str) -> Sequence[str]:
    """The labels of the emails that a reply was written from."""
    found = _NAMES.search(markdown)
    return found[1].split(", ") if found else ()
