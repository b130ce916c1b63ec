"""The public sets of attacks, read from the folder that EVAL_DATA_DIR names; nothing of them is in the project."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from evals.eval_data import find_data
from shared.errors import ConfigurationError
from tests.certify.attacks import Attack

CANARY = "CANARY-7F3K"  # takes the place of "{canary}"

_MAIL_FIELD = re.compile(r"(SUBJECT|EMAIL_FROM|CONTENT): ?(.*?)(?=\|[A-Z_ ]+: |\Z)", re.DOTALL)


def load_public_attacks(environment: Mapping[str, str]) -> tuple[list[Attack], dict[str, str]]:
    """All attacks of the sets that are there, and for each of the others why it is missing."""
    attacks: list[Attack] = []
    missing: dict[str, str] = {}
    for name, (folder, holding, read) in _SETS.items():
        try:
            attacks += [*read(find_data(environment, folder, holding))]
        except ConfigurationError as error:
            missing[name] = str(error)
        except OSError as error:
            missing[name] = (
                f"EVAL_DATA_DIR has {folder}, but not all of its files: {error.strerror}. It needs {holding}."
            )
    return attacks, missing


def _read_agentdojo(folder: Path) -> Iterator[Attack]:
    goals = json.loads((folder / "injection_goals.json").read_text(encoding="utf-8"))
    for name, goal in goals.items():
        suite = name.partition("/")[0]
        if suite in ("workspace", "banking"):
            yield Attack(f"AgentDojo, {suite}", name, goal)


def _read_bipia(folder: Path) -> Iterator[Attack]:
    """Each attack at the end of one of the mails, in the order of both."""
    mails = [
        _read_bipia_mail(line["context"])
        for half in ("test", "train")
        for line in _read_lines(folder / f"benchmark_email_{half}.jsonl")
    ]
    number = 0
    for half in ("test", "train"):
        groups = json.loads((folder / f"benchmark_text_attack_{half}.json").read_text(encoding="utf-8"))
        for group, texts in groups.items():
            for index, text in enumerate(texts):
                yield Attack("BIPIA", f"{half}/{group}/{index}", text, *mails[number % len(mails)])
                number += 1


def _read_bipia_mail(context: str) -> tuple[str, str, str]:
    """Its text, subject and sender's name."""
    fields = {name: value.strip() for name, value in _MAIL_FIELD.findall(context)}
    name = re.sub(r'[\\"<>()@,;:]', " ", fields.get("EMAIL_FROM", "").partition("<")[0]).strip()
    subject = " ".join(fields.get("SUBJECT", "").split())
    return fields.get("CONTENT", context), subject, name or "Mark Grey"


def _read_bastion(folder: Path) -> Iterator[Attack]:
    for line in _read_lines(folder / "bastioncorpus/corpus/injections.jsonl"):
        if line["label"] == "malicious":
            yield Attack("bastioncorpus", line["id"], line["text"].replace("{canary}", CANARY))


def _read_injection_bench(folder: Path) -> Iterator[Attack]:
    for line in _read_lines(folder / "aib/data/attacks.jsonl"):
        if not line["id"].startswith("cn-"):  # its controls are honest texts
            yield Attack("agent-injection-bench", line["id"], line["injected"])


def _read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


_SETS: Mapping[str, tuple[str, str, Callable[[Path], Iterator[Attack]]]] = {
    "AgentDojo": ("agentdojo", "injection_goals.json", _read_agentdojo),
    "BIPIA": ("bipia", "benchmark_email_*.jsonl and benchmark_text_attack_*.json", _read_bipia),
    "bastioncorpus": ("injection", "bastioncorpus/corpus/injections.jsonl", _read_bastion),
    "agent-injection-bench": ("injection", "aib/data/attacks.jsonl", _read_injection_bench),
}
