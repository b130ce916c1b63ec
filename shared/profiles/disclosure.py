"""The disclosure: the line under a reply that says, in the sender's language, that an AI system wrote it."""

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

FALLBACK = "en"


def find_disclosure(language: str) -> str:
    """The line in a language, named by its BCP 47 tag; in English for one that disclosure.toml lacks.

    Regulation (EU) 2024/1689, article 50: https://eur-lex.europa.eu/eli/reg/2024/1689/oj
    """
    subtags = language.strip().lower().replace("_", "-").split("-")
    tags = ["-".join(subtags[:count]) for count in range(len(subtags), 0, -1)]
    return next((_read_lines()[tag] for tag in tags if tag in _read_lines()), _read_lines()[FALLBACK])


def drop_disclosures(text: str) -> str:
    """The text without such lines, of any language: a model that has seen one in a thread may repeat it."""
    known = set(map(_keep_letters, _read_lines().values()))
    return "\n".join(line for line in text.splitlines() if _keep_letters(line) not in known).strip()


def _keep_letters(text: str) -> str:
    """The text without what a model may put around the words: quote marks, brackets, dashes, a full stop."""
    return "".join(filter(str.isalpha, text.casefold()))


@cache
def _read_lines() -> Mapping[str, str]:
    return tomllib.loads(Path(__file__).with_name("disclosure.toml").read_text(encoding="utf-8"))
