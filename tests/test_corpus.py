"""Four hundred real emails go the whole way without one crash and without one unchecked reply."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from local.multimail.emails import Attachment
from local.testing.world import World
from shared.domain import Outcome

FOLDER = os.environ.get("EMAIL_CORPUS_DIR")
pytestmark = pytest.mark.skipif(
    not FOLDER,
    reason="set EMAIL_CORPUS_DIR to a folder with emails.jsonl.gz (from, subject, markdown per line)",
)


def read_corpus() -> list[dict[str, Any]]:
    with gzip.open(Path(FOLDER or "") / "emails.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_real_mail_comes_to_an_outcome_without_a_crash(tmp_path: Path) -> None:
    with World(tmp_path, max_replies_per_sender_per_day=1000) as world:
        emails = read_corpus()
        assert len(emails) >= 400
        ids = [
            world.deliver(
                email["markdown"], sender=email["from"], subject=email["subject"][:998],
                attachments=[Attachment("a.bin", "application/octet-stream", b"x")],
            )
            for email in emails
        ]  # fmt: skip
        world.run_until_idle()
        outcomes = [world.outcome(email_id) for email_id in ids]
        assert set(outcomes) <= {str(outcome) for outcome in Outcome}
        assert str(Outcome.FAILED) not in outcomes
        assert outcomes.count("reply_submitted") > len(ids) / 2
        assert len({accepted.in_reply_to for accepted in world.simulator.accepted}) == len(
            world.simulator.accepted
        )
        for request in world.model.requests:
            assert request.user.count("</documents>") == 1
            assert len(request.user) < 13_000
