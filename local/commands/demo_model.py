"""The demo's simulated model: an answer written by hand to each email, the simulator's rules for the rest."""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local.model.chat_rules import find_mail, find_passages, find_titles
from local.model.chat_simulator import Payload, respond_by_rules
from shared.knowledge.passages import LOOKED_UP

REDRAFT = "rejected draft"  # in the line of the request that has a reviewer's reason
# Of a triage, as long as the knowledge does not have what the answer rests on.
NOT_KNOWN = {
    "action": "escalate",
    "knowledge_answers": False,
    "reason": "The knowledge says nothing about it.",
}
_LABEL = re.compile(r"\{([^{}]+)\}")
NOT_SHOWN = "what the sender asks for: no look-up gave it"
NOT_FOLLOWED = "the reviewer's reason, which the simulated model cannot follow"


@dataclass(frozen=True, slots=True)
class DemoAnswer:
    """What the model answers to one email: a triage and, where it drafts a reply, that draft.

    `source` is the title of the passage that the draft rests on, `mistake` what is wrong with it on purpose;
    `second` has, for each reason that the page offers, the draft that follows it. Of looked-up facts the
    texts have the labels in braces; `without` is the draft of a model whose prompt does not have them.
    """

    triage: Mapping[str, Any]
    source: str = ""
    draft: str = ""
    without: str = ""
    confidence: float = 0.0
    open_points: tuple[str, ...] = ()
    claims: tuple[Mapping[str, str], ...] = ()
    follow_up: str = ""
    mistake: str = ""
    second: Mapping[str, str] = field(default_factory=dict)

    def build_draft(self, last_line: str, passages: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
        """The fields of the draft. The last line of a redraft's request is the reviewer's reason."""
        text, open_points = self.draft, self.open_points
        if REDRAFT in last_line:
            followed = next(
                (text for reason, text in self.second.items() if last_line.endswith(reason)), None
            )
            text = followed or text
            open_points = open_points if followed else (*open_points, NOT_FOLLOWED)
        ids = {title.partition(LOOKED_UP)[0]: id_ for id_, (title, _) in passages.items()}
        facts = find_facts(passages.values())
        if (filled := fill_in(text, facts)) is None:
            filled, open_points = self.without, (*open_points, NOT_SHOWN)
        claims = [
            {
                "sentence": sentence,
                "source": ids.get(claim["source"], claim["source"]),
                "quote": fill_in(claim["quote"], facts) or "",
            }
            for claim in self.claims
            if (sentence := fill_in(claim["sentence"], facts)) and sentence in filled
        ]
        return {
            "reply_markdown": filled,
            "claims": claims,
            "open_points": open_points,
            "follow_up": self.follow_up,
            "confidence": self.confidence,
        }


def find_facts(passages: Iterable[tuple[str, str]]) -> dict[str, str]:
    """By label, the facts among passages, each of which is a title and a text."""
    lines = [line for title, text in passages if LOOKED_UP in title for line in text.splitlines()]
    return dict(line.split(": ", 1) for line in lines)


def fill_in(text: str, facts: Mapping[str, str]) -> str | None:
    """A text with the facts in place of their labels; None where one of them is not known."""
    if not facts.keys() >= set(_LABEL.findall(text)):
        return None
    return _LABEL.sub(lambda label: facts[label[1]], text)


def respond(body: Payload) -> str | Payload:
    """Answer one request as the chat simulator wants it: see its `respond`."""
    by_rules = respond_by_rules(body)
    asked = (body.get("response_format") or {}).get("json_schema") or {}
    subject = find_mail(body.get("messages", [])).subject
    answer = DEMO_ANSWERS.get(subject) or LEARNED_ANSWERS.get(subject)
    if answer is None or not isinstance(by_rules, str) or asked.get("name") not in ("triage", "draft"):
        return by_rules
    if asked["name"] == "triage":
        written = answer.triage
        if subject in LEARNED_ANSWERS and answer.source not in find_titles(body["messages"]):
            written = {**written, **NOT_KNOWN}
    elif answer.draft:
        request = str(body["messages"][-1]["content"])
        written = answer.build_draft(request.rstrip().rpartition("\n")[2], find_passages(body["messages"]))
    else:
        return by_rules
    return json.dumps(json.loads(by_rules) | dict(written), ensure_ascii=False)


def list_reasons(subject: str, draft: str) -> list[str]:
    """The reasons that the model can follow against a draft of the reply to the email with this subject.

    The reason that led to this draft is not among them.
    """
    answer = DEMO_ANSWERS.get(subject)
    return [reason for reason, text in answer.second.items() if not _is_in(text, draft)] if answer else []


def _is_in(text: str, draft: str) -> bool:
    """Whether a draft is this text, whatever facts are in it."""
    return re.search(r"[^.\n]+".join(map(re.escape, _LABEL.split(text)[::2])), draft) is not None


def _load_answers(raw: Iterable[Mapping[str, Any]]) -> dict[str, DemoAnswer]:
    return {
        answer["subject"]: DemoAnswer(
            triage=answer["triage"],
            source=answer.get("source", ""),
            draft=answer.get("draft", "").strip(),
            without=answer.get("without", "").strip(),
            confidence=answer.get("confidence", 0.0),
            open_points=tuple(answer.get("open_points", ())),
            claims=tuple(answer.get("claim", ())),
            follow_up=answer.get("follow_up", ""),
            mistake=answer.get("mistake", ""),
            second={second["reason"]: second["draft"].strip() for second in answer.get("second", ())},
        )
        for answer in raw
    }


_RAW = tomllib.loads(Path(__file__).with_name("demo_answers.toml").read_text(encoding="utf-8"))
DEMO_ANSWERS = _load_answers(_RAW["answer"])
LEARNED_ANSWERS = _load_answers(_RAW["learned"])
