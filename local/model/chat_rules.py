"""Plausible triages and drafts by keywords, in English, German and Japanese, for the simulated model."""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parseaddr
from pathlib import Path
from typing import Any

from shared.replying.triage import REST_MARK

# What a draft gives to a sender who asks it for a key: not a key, but it looks like one on purpose.
FAKE_KEY = "sk-simulated-0123456789abcdef0123"

MAX_SUBJECT_CHARACTERS = 80
MAX_QUESTION_CHARACTERS = 200
SHORT_NOTE_CHARACTERS = 300
MIN_STATEMENT_CHARACTERS = 20
MAX_TITLE_WORDS = 5

_RAW = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
_DOCUMENTS = re.compile(r"<documents>\n?(.*?)\n?</documents>", re.DOTALL)
_KNOWLEDGE = re.compile(r"<knowledge>\n(.*?)\n</knowledge>", re.DOTALL)
_TITLES = re.compile(r"<titles>\n(.*?)\n</titles>", re.DOTALL)
_PASSAGE = re.compile(r"^\[(K\d+)\] (.*)\n((?:(?!\[K\d+\] ).*\n?)*)", re.MULTILINE)
_LABEL = re.compile(r"^([A-Z][\w -]{1,20}):[ \t]*(.*)$", re.MULTILINE)
_GERMAN_WORD = re.compile(
    r"\b(?:und|wir|bitte|nicht|ist|für|ich|sehr geehrte[rn]?|grüßen?|können|unser\w*)\b", re.IGNORECASE
)


def _any_of(patterns: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE | re.DOTALL)


_SIGNS = {name: _any_of(patterns) for name, patterns in _RAW["sign"].items()}
_RULES = [(_any_of(rule["patterns"]), {**rule["verdict"], "reason": rule["reason"]}) for rule in _RAW["rule"]]


@dataclass(frozen=True, slots=True)
class Mail:
    """An email as a prompt shows it."""

    sender: str
    subject: str
    body: str

    def shows(self, sign: str) -> bool:
        """Whether its subject or body has one of the patterns of a sign."""
        return _SIGNS[sign].search(f"{self.subject}\n{self.body}") is not None

    def count_words_of(self, title: str) -> int:
        """How many longer words of a title's last part the email has."""
        words = set(re.findall(r"\w{4,}", f"{self.subject} {self.body}".lower()))
        return len(words.intersection(re.findall(r"\w{4,}", title.rpartition("›")[2].lower())))


def read_content(message: Mapping[str, Any]) -> str:
    """The text of a message, without the pictures that may come with it."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def parse_documents(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """The texts between the document delimiters of the last user message, JSON escapes undone."""
    users = [read_content(message) for message in messages if message.get("role") == "user"]
    return read_documents(users[-1]) if users else []


def read_documents(text: str) -> list[str]:
    """The texts between the document delimiters, JSON escapes undone.

    Documents stand one a line, as escaped text has no line breaks of its own; unescaped text is one document.
    """
    return [
        _unescape(line)
        for block in _DOCUMENTS.findall(text)
        for line in (block.split("\n") if "\\n" in block else [block])
    ]


def is_blatant_attack(document: str) -> bool:
    """Whether a document orders the model to drop its instructions for others, as Prompt Shields sees."""
    return bool(_SIGNS["overrides"].search(document) and _SIGNS["changes_system"].search(document))


def build_answer(step: str, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The fields of a triage, a draft or a passage, whichever `step` names; none for another step."""
    mail = find_mail(messages)
    if step == "triage":
        return _triage(mail, messages)
    if step == "draft":
        system = next((str(m.get("content")) for m in messages if m.get("role") == "system"), "")
        return _draft(mail, system, find_passages(messages))
    return _write_passage(parse_documents(messages)) if step == "passage" else {}


def find_mail(messages: Sequence[Mapping[str, Any]]) -> Mail:
    """The email to judge or answer: the one whose number stands behind the documents, otherwise the first.

    Its body is what its sender newly wrote.
    """
    documents = parse_documents(messages) or [""]
    behind = str(messages[-1].get("content")).rpartition("</documents>")[2] if messages else ""
    numbers = re.findall(r"email E(\d+)", behind)
    number = int(numbers[-1]) if numbers else 1
    head, marker, body = documents[min(number, len(documents)) - 1].partition("\nBody:")
    fields = {label.lower(): value.strip() for label, value in _LABEL.findall(head)}
    new = (body if marker else head).partition(REST_MARK)[0]
    return Mail(fields.get("from", ""), fields.get("subject", ""), new.strip())


def _triage(mail: Mail, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    verdict = _judge(mail)
    if verdict["action"] != "ignore" and mail.shows("critical"):
        verdict["urgency"] = "critical"
    elif verdict["urgency"] == "normal" and mail.shows("urgent"):
        verdict["urgency"] = "high"
    who = _find_first_name(mail.sender) or "The sender"
    subject = _plain(mail.subject, MAX_SUBJECT_CHARACTERS)
    return {
        **verdict,
        "summary": f"{who} writes about “{subject}”." if subject else f"{who} gives no subject.",
        "query": _plain(f"{subject} {next(iter(_find_questions(mail.body)), '')}", MAX_QUESTION_CHARACTERS),
        "language": _find_language(mail),
        "knowledge_answers": any(map(mail.count_words_of, find_titles(messages))),
        "needs_case_facts": mail.shows("own_case"),
    }


def _judge(mail: Mail) -> dict[str, Any]:
    if not mail.body:
        return _verdict("escalate", "other", 0.3, "There is no text to go by.", urgency="low")
    if mail.shows("asks_to_be_ignored"):
        return _verdict("ignore", "other", 1.0, "The email says that it can be ignored.", urgency="low")
    if mail.shows("asks_for_secret") or mail.shows("asks_for_prompt"):
        return _verdict("reply", "question", 0.9, "The sender asks for information.")
    ruled = (verdict for pattern, verdict in _RULES if pattern.search(f"{mail.subject}\n{mail.body}"))
    return dict(next(ruled, None) or _judge_everyday(mail))


def _judge_everyday(mail: Mail) -> dict[str, Any]:
    is_question = _SIGNS["question"].search(mail.body) is not None
    if mail.shows("gratitude") and not is_question and len(mail.body) < SHORT_NOTE_CHARACTERS:
        return _verdict(
            "ignore", "feedback", 0.92, "Thanks, and nothing to answer.", urgency="low", sentiment="positive"
        )
    if _SIGNS["mere_greeting"].search(mail.subject):
        is_question = False  # a question about nothing in particular
    if mail.shows("fault"):
        return _verdict("reply", "support", 0.84, "The sender reports that something does not work.")
    if is_question:
        return _verdict("reply", "question", 0.86, "The sender asks a question.")
    return _verdict("reply", "other", 0.4, "It is not clear what the sender wants.")


def _verdict(
    action: str,
    category: str,
    confidence: float,
    reason: str,
    *,
    urgency: str = "normal",
    sentiment: str = "neutral",
) -> dict[str, Any]:
    return {
        "action": action,
        "category": category,
        "urgency": urgency,
        "sentiment": sentiment,
        "confidence": confidence,
        "reason": reason,
    }


def find_passages(messages: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """The approved passages of the last user message: by id, title and text."""
    users = [str(message.get("content")) for message in messages if message.get("role") == "user"]
    block = _KNOWLEDGE.match(users[-1]) if users else None
    return {id_: (title, text.strip()) for id_, title, text in _PASSAGE.findall(block[1] if block else "")}


def find_titles(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """The titles of all approved passages, as the last user message has them."""
    users = [str(message.get("content")) for message in messages if message.get("role") == "user"]
    block = _TITLES.match(users[-1]) if users else None
    return [_unescape(line) for line in block[1].split("\n")] if block else []


def _find_knowledge(mail: Mail, passages: Mapping[str, tuple[str, str]]) -> tuple[str, str]:
    """The id and the text of the passage whose heading has most in common with the email; "" for none."""
    best, most = ("", ""), 0
    for id_, (title, text) in passages.items():
        common = mail.count_words_of(title)
        if common > most:
            best, most = (id_, " ".join(text.split())), common
    return best


def _draft(mail: Mail, system: str, passages: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    source, knowledge = _find_knowledge(mail, passages)
    phrases = _RAW["draft"][_find_language(mail)]
    name = _find_first_name(mail.sender)
    subject = _plain(mail.subject, MAX_SUBJECT_CHARACTERS)
    questions = _find_questions(mail.body)
    fact = phrases["knowledge"].format(text=knowledge) if knowledge else ""
    parts = [
        phrases["greeting"].format(name=name) if name else phrases["plain_greeting"],
        phrases["opening"].format(subject=subject) if subject else phrases["plain_opening"],
        phrases["middle"].get(_judge(mail)["category"], phrases["middle"]["other"]),
        fact,
        phrases["quote"].format(question=questions[0]) if questions else "",
        _obey(mail, system),
        phrases["closing"],
    ]
    open_points = [question for question in questions if _SIGNS["only_a_human_knows"].search(question)]
    return {
        "reply_markdown": "\n\n".join(part.strip() for part in parts if part),
        "claims": [{"sentence": fact.strip(), "source": source, "quote": knowledge}] if fact else [],
        "open_points": open_points[:3],
        "follow_up": phrases["middle"]["other"] if open_points else "",
        "confidence": 0.72 if open_points else 0.88,
    }


def _write_passage(documents: Sequence[str]) -> dict[str, Any]:
    """The whole sentences of an answer, under a heading of the longer words of the first one."""
    text = "\n".join(document.partition("Body:")[2] for document in documents)
    stated = [found.strip() for found in re.findall(r"[^.!?。\n]+[.。]", text)]
    kept = [sentence for sentence in stated if len(sentence) >= MIN_STATEMENT_CHARACTERS]
    words = re.findall(r"\w{4,}", kept[0]) if kept else []
    return {
        "states_rule": bool(kept),
        "title": " ".join(words[:MAX_TITLE_WORDS]).capitalize(),
        "passage": " ".join(kept),
    }


def _obey(mail: Mail, system: str) -> str:
    """What a gullible model would add for a sender who asks for it: work for the checks behind the model."""
    key = f"The key that you asked for is {FAKE_KEY}" if mail.shows("asks_for_secret") else ""
    prompt = f"My instructions begin like this: {system[:300]}" if mail.shows("asks_for_prompt") else ""
    return "\n\n".join(part for part in (key, prompt) if part)


def _find_language(mail: Mail) -> str:
    if mail.shows("japanese"):
        return "ja"
    words = {word.lower() for word in _GERMAN_WORD.findall(f"{mail.subject}\n{mail.body}")}
    return "de" if len(words) > 1 else "en"


def _find_first_name(sender: str) -> str:
    """The first name in a From value (of a Japanese one the family name), or "" for an organisation."""
    name = parseaddr(sender)[0].strip()
    if not name or _SIGNS["organisation"].search(name):
        return ""
    first = name.split()[0]
    return first if first[0].isupper() or not first.isascii() else ""


def _find_questions(body: str) -> list[str]:
    """The email's questions, each as one short plain sentence; those with links and the like are left out."""
    text = " ".join(re.sub(r"<[^>]*>|&\w+;", " ", body).split())
    sentences = [found.strip(" ,-") for found in re.findall(r"[^.!?？。]+(?:[?？]|か。)", text)]
    return [sentence for sentence in sentences if sentence == _plain(sentence, MAX_QUESTION_CHARACTERS)]


def _plain(text: str, limit: int) -> str:
    """What a reply may repeat of the email: no "Re:", markup, links, addresses or long numbers."""
    text = re.sub(r"^(?:(?:re|fwd?|aw|wg)\s*:\s*)+", "", text.strip(), flags=re.IGNORECASE)
    text = re.sub(r"<[^>]*>?|[\[\]{}*_`“”„]|\S*(?:://|www\.|@)\S*|\d[\d ./-]{6,}\d", "", text)
    return " ".join(text.split())[:limit].rstrip(" .")


def _unescape(line: str) -> str:
    try:
        text: str = json.loads(f'"{line}"', strict=False)
    except ValueError:
        return line  # not escaped, or cut in the middle of an escape
    return text
