"""Time: no regular expression, and nothing that reads hostile text, takes longer than in proportion to the text."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.growth import FACTOR, FUNCTIONS, MAX_RATIO, QUADRATIC, compare
from tests.patterns import Pattern, build_pattern, list_patterns

ROOT = Path(__file__).parent.parent
NODE_PARTS = ROOT / ".node"
OLD_LURE = re.compile(r"\S*(?:://|@|www\.)\S*", re.IGNORECASE)
# Patterns that are not linear, and what bounds the texts that they meet.
BOUNDED = {
    "shared.domain._ADDRESS": "a header has at most 998 characters",
    "shared.domain._QUOTED": "a header has at most 998 characters",
    "shared.domain._ANGLED": "a header has at most 998 characters",
    "shared.domain._GROUP": "a header has at most 998 characters",
    "shared.knowledge.splitting._HEADING": "approved knowledge: no hostile text",
    "shared.knowledge.splitting._DELIMITER_ROW": "approved knowledge: no hostile text",
    "shared.knowledge.splitting._SENTENCE": "approved knowledge: no hostile text",
    "shared.replying.triage._SPEAKS_TO_TRIAGE": "what triage was shown, and 20,000 characters of an email are searched",
    "shared.mail.machine_mail._TAG": "a subject has at most 998 characters",
    "shared.model.chat_wire._ABOUT_THE_MODEL": "an error of the model's service",
    "shared.checks.values._units, after": "a sentence has at most 2,000 characters; the checker ends on no answer",
}
ATTACK_CHARACTERS = 200_000


def find_unsafe(patterns: Sequence[Pattern]) -> dict[str, str]:
    given = [{"name": p.name, "source": p.source, "flags": p.flags} for p in patterns]
    done = subprocess.run(
        ["node", str(ROOT / "tests/node/recheck.js"), str(NODE_PARTS)],
        input=json.dumps(given), capture_output=True, text=True, check=True, timeout=600,
        env={**os.environ, "RECHECK_BACKEND": "native"},
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    compiled = {pattern.name: pattern.compiled for pattern in patterns}
    return {
        line["name"]: f"{line['status']} {line['why']}"
        for line in lines
        if not is_withstood(compiled[line["name"]], line)
    }


def is_withstood(pattern: re.Pattern[str], finding: Mapping[str, Any]) -> bool:
    """Whether a finding is a guess, and its attack takes a time in proportion to its length here.

    Where a pattern is too large to be calculated, as those of many words are, the checker counts the steps of attacks.
    """
    if finding["status"] != "vulnerable" or not finding["why"]["isFuzz"]:
        return False
    pumps = finding["attack"]["pumps"]
    characters = sum(len(pump["pump"]) for pump in pumps)

    def build(length: int) -> str:
        parts = (pump["prefix"] + pump["pump"] * (length // characters) for pump in pumps)
        return f"{''.join(parts)}{finding['attack']['suffix']}"

    long, short = build(ATTACK_CHARACTERS), build(ATTACK_CHARACTERS // FACTOR)
    return compare(pattern.findall, long, short) <= MAX_RATIO


needs_recheck = pytest.mark.skipif(
    not (NODE_PARTS / "node_modules" / "recheck").exists(),
    reason="no recheck: install Node, then `make test` installs it in .node",
)


@needs_recheck
def test_no_pattern_can_be_made_slow() -> None:
    unsafe = find_unsafe([pattern for pattern in list_patterns() if pattern.name not in BOUNDED])
    assert unsafe == {}


@needs_recheck
def test_the_checker_finds_a_slow_pattern() -> None:
    assert "vulnerable" in find_unsafe([build_pattern("old lure", OLD_LURE, {"sub"})])["old lure"]


def test_what_is_bounded_exists() -> None:
    assert BOUNDED.keys() <= {pattern.name for pattern in list_patterns()}


def measure(name: str) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.growth", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    ratios: dict[str, float] = json.loads(done.stdout)
    return ratios


@pytest.mark.parametrize("name", FUNCTIONS)
def test_time_grows_with_the_text(name: str) -> None:
    slow = {family: round(ratio, 1) for family, ratio in measure(name).items() if ratio > MAX_RATIO}
    assert slow == {}


def test_the_measurement_finds_what_grows_faster() -> None:
    (name,) = QUADRATIC
    assert max(measure(name).values()) > MAX_RATIO
