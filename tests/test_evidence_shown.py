"""Where people see what carries a draft: the tags of a pending reply, the audit command; and never the logs."""

import io
import logging
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from local.audit.command import build_evidence
from local.testing.world import DRAFT, World, build_settings
from shared.domain import Cause, Draft, JudgedClaim, ModelText, Outcome, Quote, Support
from shared.ledger.audit_trail import AuditTrail
from shared.ledger.entries import LedgerEntry
from shared.ledger.sqlite_store import open_sqlite_ledger
from shared.replying.reporting import build_reply_tags, describe_decision, record_decision
from shared.services.secrets import StaticSecret
from shared.settings import Secret

ROOT = Path(__file__).parent.parent
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOSTILE = "a\r\nagent.outcome: ignored\u2028\u202eb\x00\tc"
CLAIMS = (
    JudgedClaim("Dear Ann,", Support.FREE),
    JudgedClaim("Two years.", Support.VERIFIED, (Quote("shop.md › Warranty", "for\n two years"),)),
    JudgedClaim(
        "You bought it in May.", Support.FROM_SENDER, (Quote("email of 2026-11-20", "bought in May"),)
    ),
    JudgedClaim("[bold]It floats[/bold].", Support.ASSERTED),
)
WRITTEN = Draft(
    "Dear Ann,\n\nTwo years. [bold]It floats[/bold].", 0.9, (ModelText("Which colour?"),), (), "key", CLAIMS,
    follow_up=ModelText("A colleague names the colours."),
)  # fmt: skip
ROW = LedgerEntry("mb_1", "em_1", NOW, "ann@customer.example", None, NOW, finished_at=NOW)


def named(count: int, title: str = "shop.md › Part {}") -> tuple[JudgedClaim, ...]:
    """As many verified statements, each from a passage of its own."""
    return tuple(
        JudgedClaim("Yes.", Support.VERIFIED, (Quote(title.format(n), "yes"),)) for n in range(count)
    )


# Tags


def test_the_tags_of_a_reply_say_what_carries_it() -> None:
    assert build_reply_tags(replace(WRITTEN, notes=("It came from a form.",))) == {
        "agent.claims": "1 verified, 1 from the sender, 1 asserted",
        "agent.sources": "shop.md › Warranty; email of 2026-11-20",
        "agent.open_points": "Which colour?",
        "agent.note": "It came from a form.",
    }


def test_no_note_is_so_long_that_the_next_one_is_cut_off() -> None:
    notes = ("it repeats an address: " + "a" * 300, "it repeats a number: 12", "from a form")
    note = build_reply_tags(replace(WRITTEN, notes=notes))["agent.note"]
    assert note == f"{notes[0][:199]}…; it repeats a number: 12; from a form"


def test_a_draft_without_statements_gets_no_tag() -> None:
    draft = replace(WRITTEN, claims=CLAIMS[:1], open_points=())
    assert build_reply_tags(draft) == {}
    assert build_reply_tags(replace(draft, claims=())) == {}


def test_at_most_ten_sources_are_named_each_once() -> None:
    tags = build_reply_tags(replace(WRITTEN, claims=named(12, "s.md › {}") * 2))
    assert tags["agent.sources"] == "; ".join(f"s.md › {n}" for n in range(10))
    assert tags["agent.claims"] == "24 verified"


def test_a_long_tag_is_cut_where_its_reader_sees_it() -> None:
    draft = replace(
        WRITTEN, claims=named(10, "a long title " * 3 + "{}"), open_points=(ModelText("x" * 201),)
    )
    tags = build_reply_tags(draft)
    assert {name: (len(tags[name]), tags[name][-1]) for name in ("agent.sources", "agent.open_points")} == {
        "agent.sources": (200, "…"), "agent.open_points": (200, "…"),
    }  # fmt: skip
    whole = build_reply_tags(replace(draft, open_points=(ModelText("x" * 200),)))
    assert whole["agent.open_points"] == "x" * 200


def test_hostile_text_stays_on_one_visible_line() -> None:
    claim = JudgedClaim("Yes.", Support.ASSERTED, (Quote(HOSTILE, "yes"),))
    tags = build_reply_tags(replace(WRITTEN, claims=(claim,), open_points=(ModelText(HOSTILE),)))
    for name in ("agent.sources", "agent.open_points"):
        assert tags[name].isprintable()
        assert tags[name].startswith("a agent.outcome: ignored")


def test_the_tags_stand_next_to_those_of_others(tmp_path: Path) -> None:
    with World(tmp_path) as world:
        email_id = world.deliver("I bought it in May.")
        world.model.draft = DRAFT | {
            "reply_markdown": "You bought it in May.",
            "claims": [{"sentence": "You bought it in May.", "source": "E1", "quote": "I bought it in May"}],
        }

        def tag_first(method: str, path: str, _number: int) -> None:
            ids = [accepted.email_id for accepted in world.simulator.accepted]
            if method == "GET" and any(path.endswith(f"{reply_id}/tags") for reply_id in ids):
                world.simulator.set_tags(world.box, ids[0], {"crm.id": "77"}, "an integration")

        world.simulator.fault = tag_first
        world.run_until_idle()
        assert world.tags(str(world.entry(email_id).reply_id)) == {
            "crm.id": "77",
            "agent.claims": "1 from the sender",
            "agent.sources": "email of 2026-03-02",
            "agent.sender": "first contact",
        }


# The audit


def show(entry: LedgerEntry) -> str:
    shown = io.StringIO()
    Console(file=shown, width=80).print(build_evidence(entry))
    return shown.getvalue()


def test_the_audit_shows_a_draft_with_the_words_that_carry_it() -> None:
    assert show(replace(ROW, draft=WRITTEN, reply_id="re_1")).splitlines() == [
        "Submitted for approval",
        "Dear Ann,",
        "",
        "Two years. [bold]It floats[/bold].",
        "",
        "verified: Two years.",
        "  “for two years” (shop.md › Warranty)",
        "from the sender: You bought it in May.",
        "  “bought in May” (email of 2026-11-20)",
        "asserted: [bold]It floats[/bold].",
        "Open: Which colour?",
        "It promises: A colleague names the colours.",
    ]
    assert show(replace(ROW, proposal=WRITTEN)).startswith("Proposed to a person, not submitted\n")
    assert show(ROW) == "There is no draft.\n"


def test_the_audit_says_of_a_draft_whether_it_was_submitted() -> None:
    drafted = replace(ROW, draft=WRITTEN)
    assert show(drafted).startswith("Not submitted\n")
    assert show(replace(drafted, submit_intent_at=NOW)).startswith("Perhaps submitted\n")
    assert show(replace(drafted, submit_intent_at=NOW, reply_id="re_1")).startswith(
        "Submitted for approval\n"
    )


@pytest.mark.parametrize("field", ["draft", "proposal"])
def test_the_audit_command_reads_the_evidence_from_the_ledger(tmp_path: Path, field: str) -> None:
    path = build_settings(tmp_path).ledger_path
    ended = replace(ROW, outcome=Outcome.ESCALATED, cause=Cause.DRAFT_CHECK, detail="foreign_link")
    drafted = replace(ended, draft=WRITTEN, reply_id="re_1")
    entry = drafted if field == "draft" else replace(ended, proposal=WRITTEN)
    other = replace(ROW, email_id="em_2", draft=replace(WRITTEN, reply_markdown="Another reply."))
    with closing(open_sqlite_ledger(path)) as ledger, AuditTrail(ledger.audit, StaticSecret(Secret("a-key"))):
        for row in (entry, other):
            ledger.add(row)
            record_decision(row, NOW, "key")
        shown = call_audit(tmp_path, path, "em_1")  # next to an agent that holds the ledger open
        everything = call_audit(tmp_path, path)
    assert ("Submitted for approval" in shown) is (field == "draft")
    assert ("Proposed to a person, not submitted" in shown) is (field == "proposal")
    assert "“for two years” (shop.md › Warranty)" in shown
    assert "[bold]It floats[/bold]." in shown
    assert "Another reply." not in shown
    assert "em_2" in everything
    assert "Two years." not in everything
    assert "draft_check foreign_link" in shown


def call_audit(tmp_path: Path, ledger_path: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "local", "audit", *words], cwd=tmp_path, check=False, text=True,
        env={"PYTHONPATH": str(ROOT), "LEDGER_PATH": str(ledger_path), "COLUMNS": "120"},
        capture_output=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# The trail and the logs


def test_a_decision_counts_the_statements_of_its_draft_or_proposal() -> None:
    wanted = {"claims_verified": 1, "claims_from_sender": 1, "claims_asserted": 1}
    for entry in (replace(ROW, draft=WRITTEN), replace(ROW, proposal=WRITTEN)):
        facts = describe_decision(entry)
        assert {name: facts[name] for name in wanted} == wanted
    assert not set(wanted) & set(describe_decision(ROW))


@pytest.mark.parametrize("action", ["reply", "escalate"])
def test_no_statement_quote_open_point_or_promise_reaches_a_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, action: str
) -> None:
    caplog.set_level(logging.DEBUG)
    mark = "qzxjkvmark"
    with World(tmp_path) as world:
        world.model.triage |= {"action": action, "knowledge_answers": True}
        world.model.draft = DRAFT | {
            "reply_markdown": f"You bought the {mark}.",
            "claims": [
                {"sentence": f"You bought the {mark}.", "source": "E1", "quote": f"bought the {mark}"}
            ],
            "open_points": [f"the {mark}"],
            "follow_up": f"A colleague looks for the {mark}.",
        }
        email_id = world.deliver(f"I bought the {mark} in May.")
        world.run_until_idle()
        entry = world.entry(email_id)
        written = entry.draft or entry.proposal
        assert written is not None
        assert [q.text for claim in written.claims for q in claim.quotes] == [f"bought the {mark}"]
        logging.getLogger("shared.host").error("%s %r", written, entry)  # as an error's message might
    shown = "".join(f"{found.getMessage()} {found.__dict__}" for found in caplog.records if not found.args)
    assert mark not in shown + caplog.text
    assert "email.decided" in caplog.text
