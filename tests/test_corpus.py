"""Four hundred real emails go the whole way without one crash and without one unchecked reply."""

import gzip
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from local.multimail.emails import Attachment
from local.testing.world import World
from shared.domain import Outcome
from shared.mail.own_words import split_own_words
from shared.model.prompting import clean_text
from shared.model.tokens import estimate_tokens
from shared.replying.drafting import MAX_EMAIL_TOKENS
from shared.replying.triage import MAX_MAIL_TOKENS

_SIGN_OF_MORE = re.compile(
    r"^\s*(?:>|[-_=*]{2,}\s*$|-{5}|(?:From|Date|To|Quoting|On|At) .*:|.*(?:wrote|said|writes):$|.*regards|thanks)",
    re.MULTILINE | re.IGNORECASE,
)
FOLDER = os.environ.get("EMAIL_CORPUS_DIR")
pytestmark = pytest.mark.skipif(
    not FOLDER,
    reason="set EMAIL_CORPUS_DIR to a folder with emails.jsonl.gz (from, subject, markdown per line)",
)


def read_corpus() -> list[dict[str, Any]]:
    with gzip.open(Path(FOLDER or "") / "emails.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_the_senders_own_words_are_kept(measured: Callable[[str], None]) -> None:
    """In mail without a sign of a quote, signature or list footer, all words are new; nothing is lost anywhere."""
    all_words = kept_words = parted = 0
    for email in read_corpus():
        text = clean_text(email["markdown"])
        words = split_own_words(text)
        parted += bool(words.rest)
        assert sorted(f"{words.own} {words.rest}".split()) == sorted(text.split())
        assert words.own.strip() or not text.strip()
        if not _SIGN_OF_MORE.search(text):
            all_words += len(text.split())
            kept_words += len(words.own.split())
    measured(f"own words kept: {kept_words} of {all_words}; {parted} emails of 400 parted")
    assert kept_words >= 0.99 * all_words


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
            limit = MAX_MAIL_TOKENS if request.schema_name == "triage" else MAX_EMAIL_TOKENS * 2
            assert estimate_tokens(request.user) < limit + 200
