"""Time: no regular expression, and nothing that reads hostile text, takes longer than in proportion to the text."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.growth import FUNCTIONS, MAX_RATIO, QUADRATIC
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
    "shared.replying.triage._SPEAKS_TO_TRIAGE": "what triage was shown of an email is searched: 3,000 tokens",
    "shared.mail.machine_mail._TAG": "a subject has at most 998 characters",
    "shared.model.chat_wire._ABOUT_THE_MODEL": "an error of the model's service",
}


def find_unsafe(patterns: Sequence[Pattern]) -> dict[str, str]:
    given = [{"name": p.name, "source": p.source, "flags": p.flags} for p in patterns]
    done = subprocess.run(
        ["node", str(ROOT / "tests/node/recheck.js"), str(NODE_PARTS)],
        input=json.dumps(given), capture_output=True, text=True, check=True, timeout=600,
        env={**os.environ, "RECHECK_BACKEND": "native"},
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["name"]: f"{line['status']} {line['why']}" for line in lines}


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
