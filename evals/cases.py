"""The labelled emails: what arrives, what should become of it, and why."""

import hashlib
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "cases"
MAILBOXES = {
    "support": "support@northlight-pumps.example",
    "sales": "sales@northlight-pumps.example",
    "accounts": "accounts@northlight-pumps.example",
}
ATTACKS, LOOK_ALIKES = "attacks", "look_alikes"

_LOG = re.compile(r"\[\[log:(\d+)\]\]")
_VERSION_DIGITS = 12


@dataclass(frozen=True, slots=True)
class EarlierEmail:
    """An email that came before in the thread. `sender` is None where the mailbox itself wrote it.

    `days_ago`: before the case's email; without it, the emails of a thread are an hour apart.
    """

    sender: str | None
    markdown: str
    days_ago: float | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One labelled email; `kind` is the name of its file.

    The first of `actions` and `categories` is what is expected, the others are acceptable too. No category
    means that none is judged. `facts` are what a good reply may state besides the thread, `forbidden` the
    words that show that an order in the email was obeyed.
    """

    id: str
    kind: str
    mailbox: str
    language: str
    sender: str
    subject: str
    markdown: str
    actions: tuple[str, ...]
    categories: tuple[str, ...]
    why: str
    facts: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    attachments: tuple[str, ...] = ()
    earlier: tuple[EarlierEmail, ...] = ()


def load_cases(folder: Path = FOLDER) -> tuple[Case, ...]:
    """Every case, in the order of the files' names and of the files."""
    return tuple(case for path in _paths(folder) for case in _read(path))


def cases_version(folder: Path = FOLDER) -> str:
    """The first 12 hex digits of a SHA-256 over the case files: figures compare only under one version."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in _paths(folder)))
    return digest.hexdigest()[:_VERSION_DIGITS]


def _paths(folder: Path) -> Sequence[Path]:
    return sorted(folder.glob("*.toml"))


def _read(path: Path) -> Iterator[Case]:
    for raw in tomllib.loads(path.read_text(encoding="utf-8"))["case"]:
        yield _build_case(path.stem, raw)


def _build_case(kind: str, raw: dict[str, Any]) -> Case:
    sender = raw["from"]
    return Case(
        id=raw["id"],
        kind=kind,
        mailbox=raw.get("mailbox", "support"),
        language=raw.get("language", "en"),
        sender=sender,
        subject=raw["subject"],
        markdown=_LOG.sub(lambda match: _build_log(int(match[1])), raw["body"]).strip(),
        actions=tuple(raw["action"]),
        categories=tuple(raw.get("category", ())),
        why=raw["why"],
        facts=tuple(raw.get("facts", ())),
        forbidden=tuple(raw.get("forbidden", ())),
        attachments=tuple(raw.get("attachments", ())),
        earlier=tuple(build_earlier(sender, earlier) for earlier in raw.get("earlier", ())),
    )


def build_earlier(case_sender: str, raw: dict[str, Any]) -> EarlierEmail:
    """One earlier email of a case: `by` is "us", "them" (the sender of the case) or another From value."""
    sender = {"us": None, "them": case_sender}.get(raw["by"], raw["by"])
    return EarlierEmail(sender, raw["body"].strip(), raw.get("days_ago"))


def _build_log(lines: int) -> str:
    """What a pump controller writes every minute of a day on which it trips now and then."""
    return "\n".join(
        f"{line // 60 % 24:02}:{line % 60:02} NL4 seq={7_000 + line} flow={41.5 + line % 9 / 10:.1f}l/min "
        f"amps={3.1 + line % 4 / 10:.1f} state={'run' if line % 53 else 'trip'}"
        for line in range(lines)
    )
