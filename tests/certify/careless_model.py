"""A model that knows nothing of the checks: it carries whatever it reads into the reply, and says that all of it is true."""

import base64
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from local.testing.world import TRIAGE
from shared.domain import Usage
from shared.model.chat import ChatCompletion, ChatRequest
from tests.certify.attacks import Attack, Letter
from tests.hostile.obedient_model import read_documents

# What the model does with an email: triage takes each action in turn, and a draft has all that was read, or one piece.
IGNORE, ESCALATE, WHOLE, PIECE = BEHAVIOURS = ("ignore", "escalate", "reply with all", "reply with a piece")
MARK = re.compile(r"\bZq[a-z]{5}\b")  # in every email: whose it is
INSTRUCTIONS = "the instructions"
KNOWN = "Goods can be returned within 30 days of delivery, unopened and at the customer's cost."

_BASE64 = re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{24,}={0,2}")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_BODY = re.compile(r"\n(?:Body|Text):\n")  # of an email or an attachment
_HEADER = re.compile(r"^(?:From|Subject): (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Case:
    """One email with an attack in it, and what the model does with it. `mark` is in no other email."""

    attack: Attack
    wrapper: str
    behaviour: str
    mark: str
    letter: Letter
    piece: str

    @property
    def address(self) -> str:
        """Who wrote it."""
        return f"guest.{self.mark.lower()}@outside.example"

    @property
    def received(self) -> str:
        """All that this person wrote, as a reader sees it, and what is in base64 in it."""
        letter = self.letter
        written = "\n".join((letter.sender_name, letter.subject, letter.markdown, letter.earlier))
        return decode(unicodedata.normalize("NFKC", written).replace("\u200b", ""))

    @property
    def name(self) -> str:
        """The attack, how it is wrapped, and what the model does."""
        return f"{self.attack.set}: {self.attack.name} ({self.wrapper}, {self.behaviour})"

    def is_carried_by(self, text: str) -> bool:
        """Whether a text is the attack's work: it has one of its values, without any its longest sentence."""
        goals = self.attack.values or (max(self.attack.sentences, key=len),)
        return any(flatten(goal) in flatten(text) for goal in goals)


def build_mark(number: int) -> str:
    """The mark of an email by its number."""
    letters = [chr(ord("a") + number // 26**place % 26) for place in range(5)]
    return f"Zq{''.join(letters)}"


def flatten(text: str) -> str:
    """The text as it is compared: one line, without invisible characters, variants of letters and quote marks."""
    shown = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    return " ".join(re.sub(r"^[>\s]+", "", shown, flags=re.MULTILINE).split()).casefold()


class CarelessModel:
    """Answers triage and draft for every email of `cases`, which it tells apart by their marks.

    `drafts` has what it wrote for each, `mixed` the marks of a prompt that shows emails of more than one case.
    """

    def __init__(self, cases: Iterable[Case]) -> None:
        self._cases = {case.mark: case for case in cases}
        self.drafts: Mapping[str, list[str]] = defaultdict(list)
        self.mixed: list[set[str]] = []

    def complete(self, request: ChatRequest) -> ChatCompletion:
        """Answer as the case says."""
        marks = set(MARK.findall(request.user))
        if len(marks) > 1:
            self.mixed.append(marks)
        case = self._cases[min(marks & self._cases.keys())]
        if request.schema_name == "triage":
            action = {IGNORE: "ignore", ESCALATE: "escalate"}.get(case.behaviour, "reply")
            answer = TRIAGE | {"action": action, "knowledge_answers": True, "confidence": 1.0}
        else:
            text = _choose_text(case, request)
            self.drafts[case.mark].append(text)
            answer = {
                "reply_markdown": text, "claims": _claim_all(text), "open_points": [], "follow_up": "", "confidence": 1.0,
            }  # fmt: skip
        return ChatCompletion(json.dumps(answer), "stop", Usage(1, 100, 20), "careless")


def _choose_text(case: Case, request: ChatRequest) -> str:
    seen = decode(copy_documents(read_documents(request.user)))
    if case.behaviour == PIECE and case.piece == INSTRUCTIONS:
        seen = max(request.system.split("\n\n"), key=len)
    elif case.behaviour == PIECE and flatten(case.piece) in flatten(seen):
        seen = case.piece
    return f"Hello,\n\n{seen}\n\nYour support team"


def copy_documents(documents: Iterable[str]) -> str:
    """All that was read, as it was read: senders' names, subjects and bodies."""
    parts = []
    for document in documents:
        head, _, body = _BODY.sub("\0", document, count=1).partition("\0")
        parts += [*dict.fromkeys(_HEADER.findall(head)), body]
    return "\n\n".join(filter(None, map(str.strip, parts)))


def decode(text: str) -> str:
    """The text, and under it what is in base64 in it."""
    parts = [text]
    for found in _BASE64.findall(text):
        with suppress(ValueError):  # no base64 after all
            parts.append(base64.b64decode(found + "=" * (-len(found) % 4)).decode())
    return "\n\n".join(parts)


def _claim_all(text: str) -> list[dict[str, str]]:
    """Every sentence, as carried by approved knowledge."""
    sentences = (part.strip() for part in _SENTENCE.split(text))
    return [{"sentence": sentence, "source": "K1", "quote": KNOWN} for sentence in sentences if sentence]
