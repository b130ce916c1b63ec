"""Proposed passages: written by the draft deployment from a person's answer alone, for a person to move."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

from shared.knowledge.passages import PROPOSED_FOLDER
from shared.model.answers import parse_answer
from shared.model.chat import ChatCompletion, ChatRequest
from shared.model.prompting import build_documents, clean_line, clean_text, fit_untrusted, load_prompt
from shared.settings import Settings

MAX_ANSWER_TOKENS = 1_500  # of each email
MAX_OUTPUT_TOKENS = 1_000
MAX_TITLE_CHARACTERS = 100
MAX_REMARK_CHARACTERS = 200
MAX_NAME_CHARACTERS = 200  # of a file, before its ending: most systems take 255 bytes
ATTEMPTS = 2

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["states_rule", "title", "passage"],
    "properties": {
        "states_rule": {"type": "boolean"},
        "title": {"type": "string"},
        "passage": {"type": "string"},
    },
}


@dataclass(frozen=True, slots=True)
class PassageText:
    """What the model wrote: nothing of it has been checked. Both are empty where no rule was stated."""

    title: str = field(repr=False)
    text: str = field(repr=False)


def write_passage(
    said: Sequence[str], settings: Settings, complete: Callable[[ChatRequest], ChatCompletion]
) -> PassageText | None:
    """Have a passage written from what people answered; None when no answer of the model can be read.

    Raises what `ChatModel.complete` raises.
    """
    request = ChatRequest(
        deployment=settings.draft_deployment,
        system=load_prompt("passage"),
        user=build_documents([fit_untrusted(f"Body:\n{text}", MAX_ANSWER_TOKENS) for text in said]),
        schema_name="passage",
        schema=SCHEMA,
        max_output_tokens=MAX_OUTPUT_TOKENS,
        reasoning_effort=settings.draft_reasoning_effort,
    )
    for _ in range(ATTEMPTS):
        try:
            return _parse(complete(request).text)
        except (ValueError, RecursionError):  # the latter from JSON that is nested too deep
            continue
    return None


def _parse(text: str) -> PassageText:
    value = parse_answer(text)
    known = value if isinstance(value, dict) else {}
    title, passage = known.get("title"), known.get("passage")
    if not isinstance(title, str) or not isinstance(passage, str):
        raise ValueError("the passage has no title or no text")  # noqa: TRY004 - one error for any bad answer
    if known.get("states_rule") is not True or not title.strip() or not passage.strip():
        return PassageText("", "")
    return PassageText(clean_line(title.lstrip("# "), MAX_TITLE_CHARACTERS), clean_text(passage).strip())


def name_file(knowledge: Path, email_id: str) -> Path:
    """Where the passage that comes from the answer to an email is proposed."""
    name = quote(email_id, safe="", errors="surrogatepass")
    if len(name) > MAX_NAME_CHARACTERS:
        name = sha256(name.encode()).hexdigest()
    return knowledge / PROPOSED_FOLDER / f"{name}.md"


def render_passage(passage: PassageText, remarks: Sequence[str] = ()) -> str:
    """The file of a passage, with remarks for the person who moves it."""
    lines = (clean_line(remark, MAX_REMARK_CHARACTERS).replace("-->", "") for remark in remarks)
    comments = (f"<!-- {line} -->" for line in lines)
    return "\n".join([*comments, f"# {passage.title}", "", passage.text, ""])


def save_new(path: Path, text: str) -> None:
    """Write a file. Raises FileExistsError for one that is there: it is never overwritten."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8", newline="\n") as file:
        file.write(text)
