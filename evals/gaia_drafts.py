"""The drafting rubrics of amd/gaia: replies judged by what they must and must not do.

The owners' agent is asked to write a given reply in a person's voice. Ours answers by itself from approved
knowledge: what to reply is put there, and the person's sent emails into the profile's voice.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from evals.cases import Case
from evals.judge import MAX_OUTPUT_TOKENS, MAX_REASON_CHARACTERS, MAX_TEXT_TOKENS, ask_judge
from evals.knowledge_set import compute_share
from evals.stage import Stage, open_stage
from shared.model.chat import ChatCompletion, ChatRequest
from shared.model.prompting import build_documents, clean_sentence, fit_untrusted

PROMPT = Path(__file__).parent / "judge_rubric.md"
CONCURRENCY = 4
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["approved", "reason"],
    "properties": {"approved": {"type": "boolean"}, "reason": {"type": "string"}},
}


@dataclass(frozen=True, slots=True)
class Rubric:
    """An email, what to reply to it and how the person writes, and what the reply is judged by."""

    case: Case
    intent: str
    sent: tuple[str, ...]
    must: tuple[str, ...]
    must_not: tuple[str, ...]


def render_drafts(environment: Mapping[str, str], data: Path, judge: str | None) -> list[str]:
    """Have every draft written and, with a judge, scored; an email without a draft counts as rejected."""
    rubrics = load_rubrics(data)
    with TemporaryDirectory() as folder:
        write_config(rubrics, Path(folder))
        boxes = {rubric.case.mailbox: _address(rubric) for rubric in rubrics}
        with open_stage(environment, mailboxes=boxes, changes={"CONFIG_PATH": folder}) as stage:
            drafts = _write(stage, rubrics)
            said = (
                f"{sum(text is not None for text in drafts.values())} of {len(rubrics)} emails got a draft."
            )
            if judge is None:
                return [f"{said} To have them scored, name a deployment with `--judge`."]
            ask = stage.agent.pipeline.complete
            verdicts = [judge_rubric(r, drafts[r.case.id], ask, judge, stage.sleep) for r in rubrics]
    failed = [f"- `{r.case.id}`: {why}" for r, (ok, why) in zip(rubrics, verdicts, strict=True) if not ok]
    approved = compute_share([is_approved for is_approved, _ in verdicts])
    return [f"{said} Approved by the judge {judge}: {approved}.", "", *failed]


def load_rubrics(data: Path) -> list[Rubric]:
    """The rubrics, each with a mailbox of its own."""
    raw = json.loads((data / "drafting_ground_truth.json").read_text(encoding="utf-8"))
    return [
        Rubric(
            Case(
                id=case_id,
                kind=one["persona"],
                mailbox=case_id,
                language="en",
                sender=one["incoming"]["from"],
                subject=one["incoming"]["subject"],
                markdown=one["incoming"]["body"],
                actions=("reply",),
                categories=(),
                why="",
            ),
            one["reply_intent"],
            tuple(one["sent_history"]),
            tuple(one["rubric"]["must"]),
            tuple(one["rubric"]["must_not"]),
        )
        for case_id, one in raw.items()
        if not case_id.startswith("_")
    ]


def write_config(rubrics: Sequence[Rubric], folder: Path) -> None:
    """Write a profile for each rubric's mailbox, and what to reply as its approved knowledge."""
    profiles = {}
    for rubric in rubrics:
        profiles[_address(rubric)] = {
            "purpose": "The mailbox of one person, whose name ends the emails below.",
            "voice": "As in these emails of the person, name at the end:\n\n"
            + "\n\n---\n\n".join(rubric.sent),
            "knowledge": [rubric.case.id],
        }
        pages = folder / "knowledge" / rubric.case.id
        pages.mkdir(parents=True)
        (pages / "reply.md").write_text(f"# What to reply\n\n{rubric.intent}\n", encoding="utf-8")
    (folder / "mailboxes.yaml").write_text(yaml.safe_dump(profiles), encoding="utf-8")


def _address(rubric: Rubric) -> str:
    return f"{rubric.case.id}@office.example"


def _write(stage: Stage, rubrics: Sequence[Rubric]) -> Mapping[str, str | None]:
    drafts: dict[str, str | None] = {}
    by_id = {rubric.case.id: rubric.case for rubric in rubrics}
    for result in stage.run(tuple(by_id.values()), concurrency=CONCURRENCY, judge=None):
        entry = stage.find_entry(by_id[result.id])
        draft = entry.draft or entry.proposal
        drafts[result.id] = None if draft is None else draft.reply_markdown
    return drafts


def judge_rubric(
    rubric: Rubric,
    draft: str | None,
    complete: Callable[[ChatRequest], ChatCompletion],
    deployment: str,
    sleep: Callable[[float], None],
) -> tuple[bool, str]:
    """Whether a draft would be approved, and why not."""
    if draft is None:
        return False, "there is no draft"
    texts = [f"The email:\n{rubric.case.markdown}", *(f"Written before:\n{text}" for text in rubric.sent)]
    documents = build_documents([fit_untrusted(t, MAX_TEXT_TOKENS) for t in (*texts, f"The draft:\n{draft}")])
    must = "\n".join(f"- {line}" for line in rubric.must)
    must_not = "\n".join(f"- {line}" for line in rubric.must_not)
    request = ChatRequest(
        deployment=deployment,
        system=PROMPT.read_text(encoding="utf-8").strip(),
        user=f"{documents}\nThe reply must:\n{must}\nThe reply must not:\n{must_not}",
        schema_name="judge",
        schema=SCHEMA,
        max_output_tokens=MAX_OUTPUT_TOKENS,
    )
    return ask_judge(request, _parse_verdict, complete, sleep) or (False, "the judge gave no verdict")


def _parse_verdict(text: str) -> tuple[bool, str]:
    value = json.loads(text)
    approved = value.get("approved") if isinstance(value, dict) else None
    if not isinstance(approved, bool):
        raise ValueError("the verdict lacks a field")  # noqa: TRY004 - one error for any bad answer
    return approved, clean_sentence(str(value.get("reason", "")), MAX_REASON_CHARACTERS)
