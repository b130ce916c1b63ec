"""The trust report: right figures, a cautious rule, a harmless page, and nothing asked for unless told to."""

import base64
import hashlib
import json
import math
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from math import comb
from pathlib import Path
from typing import Any

import azure.functions as func
import pytest

import function_app
from local.host.app_functions import InvocationContext, read_app_functions
from local.host.http_server import LoopbackServer
from local.multimail.faults import answer_with, in_order
from local.multimail.simulator import MultiMailSimulator
from local.testing.world import Clock, World, build_settings
from shared import composition
from shared.composition import Agent, build_agent
from shared.domain import (
    Action,
    Cause,
    Draft,
    JudgedClaim,
    Mailbox,
    ModelText,
    Outcome,
    Quote,
    Rejection,
    Sentiment,
    Support,
    Triage,
    Urgency,
    Usage,
)
from shared.ledger.entries import LedgerEntry
from shared.ledger.sqlite_store import open_sqlite_ledger
from shared.operator.odds import compute_chance, compute_lower_bound, count_approvals_missing
from shared.operator.trust import (
    ASK,
    RECENT,
    STAY,
    Fate,
    JudgedDraft,
    MailboxReport,
    Reading,
    build_report,
    build_track_record,
    describe_bound,
    format_share,
    read_drafts,
)
from shared.operator.trust_page import (
    answer_report,
    describe_edits,
    describe_statements,
    describe_usage,
    format_duration,
    list_numbers,
    list_passages,
    render_html,
    render_json,
)
from shared.replying.reporting import REJECT_REASON_TAG
from shared.settings import Secret
from tests.declared_functions import read_declared_functions

ROOT = Path(__file__).parent.parent
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SINCE = NOW - timedelta(days=30)
BOX = Mailbox("mb_1", "support@northwind.example", "gated_send")
ATTACK = "\"><img src=x onerror='alert(1)'><script>alert(1)</script>$style"


def triaged(category: str = "question", action: Action = Action.REPLY) -> Triage:
    return Triage(action, category, Urgency.NORMAL, Sentiment.NEUTRAL, 0.9, ModelText(""), ModelText(""))


def row(email_id: str = "em_1", *, at: datetime = NOW - timedelta(days=1)) -> LedgerEntry:
    """The row of an email whose reply was accepted at `at` and has not been looked at."""
    return LedgerEntry(
        mailbox_id=BOX.id, email_id=email_id, received_at=at, sender="ann@customer.example",
        thread_id=None, due_at=at, triage=triaged(), submit_intent_at=at, reply_id=f"re_{email_id}",
        outcome=Outcome.REPLY_SUBMITTED, finished_at=at,
        draft=Draft("Dear Ann", 0.9, (), (email_id,), email_id),
    )  # fmt: skip


def decided(status: str, *, after: float = 60, email_id: str = "em_1", at: datetime = SINCE) -> LedgerEntry:
    """A row whose reply was decided `after` seconds."""
    return replace(row(email_id, at=at), reply_status=status, reply_decided_at=at + timedelta(seconds=after))


def approved(count: int, category: str = "question", first: int = 0) -> list[LedgerEntry]:
    """Rows whose replies were approved and delivered, a minute after another."""
    rows = (
        decided("delivered", email_id=f"em_{category}_{n}", at=SINCE + timedelta(minutes=first + n))
        for n in range(count)
    )
    return [replace(entry, triage=triaged(category)) for entry in rows]


def rejection(at: datetime, *, after: float = 60) -> Rejection:
    return Rejection("re_0", "shorter", "Dear Ann,", at, at + timedelta(seconds=after))


def fates(*rows: LedgerEntry, since: datetime = SINCE) -> list[Fate]:
    return [draft.fate for draft in read_drafts(rows, since)]


def judge(*rows: LedgerEntry, mailbox: Mailbox = BOX) -> MailboxReport:
    (judged,) = build_report([mailbox], lambda _: iter(rows), now=NOW).mailboxes
    return judged


def missed(judged: MailboxReport) -> list[str]:
    return [check.rule for check in judged.checks if not check.is_met]


# What became of a draft


@pytest.mark.parametrize(
    ("status", "fate"),
    [
        ("delivered", Fate.APPROVED),
        ("approved", Fate.APPROVED),
        ("bounced", Fate.BOUNCED),
        ("send_failed", Fate.BOUNCED),
        ("rejected", Fate.REJECTED),
        ("cancelled", Fate.CANCELLED),
        ("gone", Fate.CANCELLED),
        ("pending_send_approval", Fate.PENDING),
        ("pending_scan", Fate.PENDING),
        ("unknown", Fate.UNKNOWN),
        ("<b>new word</b>", Fate.UNKNOWN),
    ],
)
def test_a_decided_reply_counts_by_its_status(status: str, fate: Fate) -> None:
    assert fates(decided(status)) == [fate]


def test_a_reply_that_nobody_looked_at_yet_is_pending() -> None:
    assert fates(row()) == [Fate.PENDING]


@pytest.mark.parametrize("status", ["delivered", "bounced", "send_failed"])
def test_a_reply_that_left_without_approval_is_no_approval(status: str) -> None:
    assert fates(replace(row(), reply_status=status)) == [Fate.UNKNOWN]


def test_a_rejection_with_a_redraft_counts_once_and_the_later_draft_for_itself() -> None:
    at = NOW - timedelta(days=2)
    entry = replace(decided("delivered", at=NOW - timedelta(days=1)), rejections=(rejection(at),))
    assert fates(entry) == [Fate.REDRAFTED, Fate.APPROVED]
    total = judge(entry).total
    assert (total.submitted, total.approved, total.rejected, total.decided) == (2, 1, 1, 2)


def test_a_rejection_counts_while_its_redraft_is_still_to_be_written() -> None:
    entry = row().rejected(rejection(NOW - timedelta(days=1)), NOW)
    assert fates(entry) == [Fate.REDRAFTED]


def test_an_edited_draft_counts_as_not_good_enough_and_the_reviewers_text_not_at_all() -> None:
    at = NOW - timedelta(days=2)
    edit = replace(rejection(at), edited_by="a0000001", edit_distance=4)
    entry = replace(decided("delivered", at=NOW - timedelta(days=1)), rejections=(edit,))
    assert fates(entry) == [Fate.EDITED]
    judged = judge(entry)
    assert (judged.total.submitted, judged.total.approved, judged.total.rejected) == (1, 0, 1)
    assert describe_edits(judged) == (
        "1 draft was edited: a reviewer took out or put in 4 words (median; 4 to 4). "
        "Texts approved: 1; edited before: 1."
    )
    assert judge(replace(entry, reply_status="rejected")).edits_approved == 0
    redrafted = replace(
        entry, rejections=(edit, rejection(at))
    )  # the reviewer's text, turned down by another
    assert fates(redrafted) == [Fate.EDITED, Fate.APPROVED]
    assert judge(redrafted).edits_approved == 0
    assert describe_edits(judge(decided("delivered"))) == ""


def test_a_draft_that_the_agent_took_back_for_a_newer_one_is_no_refusal() -> None:
    older, newer = decided("cancelled", email_id="em_1"), row("em_2")
    assert newer.submit_intent_at is not None
    older = replace(older, reply_decided_at=newer.submit_intent_at + timedelta(minutes=5))
    assert newer.draft is not None
    covering = replace(newer, draft=replace(newer.draft, covers=("em_2", "em_1")))
    assert fates(older, covering) == [Fate.SUPERSEDED, Fate.PENDING]
    assert fates(older, newer) == [Fate.CANCELLED, Fate.PENDING]
    before = replace(older, reply_decided_at=newer.submit_intent_at - timedelta(minutes=5))
    assert fates(before, covering) == [Fate.CANCELLED, Fate.PENDING]  # a person did that
    never_sent = replace(covering, submit_intent_at=None, reply_id=None, outcome=Outcome.ESCALATED)
    assert fates(older, never_sent)[0] == Fate.CANCELLED


def test_a_late_reply_that_was_withdrawn_is_no_refusal() -> None:
    assert fates(replace(row(), outcome=Outcome.SKIPPED)) == [Fate.OVERTAKEN]


@pytest.mark.parametrize(
    ("status", "fate"),
    [("cancelled", Fate.OVERTAKEN), ("rejected", Fate.REJECTED), ("bounced", Fate.BOUNCED)],
)
def test_a_draft_whose_email_a_person_answered_later_counts_by_its_decision(status: str, fate: Fate) -> None:
    assert fates(replace(decided(status), outcome=Outcome.SKIPPED)) == [fate]


@pytest.mark.parametrize(
    ("entry", "fate"),
    [
        (decided("rejected"), Fate.REDRAFTED),
        (decided("send_failed"), Fate.BOUNCED),
        (replace(row(), reply_status="bounced"), Fate.UNKNOWN),
        (replace(row(), reply_status="gone"), Fate.CANCELLED),
    ],
)
def test_a_redrive_changes_nothing_about_what_became_of_the_draft_before(
    entry: LedgerEntry, fate: Fate
) -> None:
    ended = replace(entry, outcome=Outcome.ESCALATED, reply_settled_at=NOW)
    assert fates(ended.redriven(NOW)) == [fate]


def test_what_is_only_observed_is_no_draft_and_hides_no_rejection_before() -> None:
    observed = replace(
        row(), is_observed=True, outcome=Outcome.WOULD_REPLY, submit_intent_at=None, reply_id=None
    )
    assert fates(observed) == []
    assert fates(replace(observed, outcome=Outcome.BLOCKED_CONTENT_SAFETY)) == []
    assert fates(replace(observed, rejections=(rejection(SINCE),))) == [Fate.REDRAFTED]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"outcome": Outcome.ESCALATED, "cause": Cause.DRAFT_CHECK}, [Fate.HELD_BACK]),
        ({"outcome": Outcome.BLOCKED_CONTENT_SAFETY}, [Fate.HELD_BACK]),
        ({"outcome": Outcome.BLOCKED_CONTENT_SAFETY, "triage": None}, [Fate.HELD_BACK]),
        ({"outcome": Outcome.ESCALATED, "cause": Cause.DRAFT_UNSURE, "detail": "0.30"}, []),
        (
            {
                "outcome": Outcome.ESCALATED,
                "triage": triaged(action=Action.ESCALATE),
                "cause": Cause.TRIAGED,
            },
            [],
        ),
        ({"outcome": Outcome.IGNORED}, []),
        ({"outcome": None, "finished_at": None}, []),
        ({"outcome": Outcome.NEEDS_HUMAN, "submit_intent_at": NOW}, []),
    ],
)
def test_what_was_never_submitted_is_no_draft_unless_it_was_held_back(
    changes: dict[str, Any], expected: list[Fate]
) -> None:
    entry = replace(row(), submit_intent_at=None, reply_id=None, draft=None)
    assert fates(replace(entry, **changes)) == expected


def test_the_real_way_of_rejections_approvals_and_follow_ups_is_counted(tmp_path: Path) -> None:
    with World(tmp_path) as world:
        email_id = world.deliver()
        world.run_until_idle()
        first = world.entry(email_id).reply_id or ""
        world.simulator.set_tags(world.box, first, {REJECT_REASON_TAG: "Name the week."}, "reviewer")
        world.simulator.decide(first, "reject")
        world.clock.advance(minutes=6)
        world.tracker.track()
        world.run_until_idle()
        second = world.entry(email_id).reply_id or ""
        world.simulator.decide(second, "approve")
        follow = world.deliver("And to Oslo?", sender="bob@customer.example")
        world.run_until_idle()
        world.deliver(
            "By ship, please.", sender="bob@customer.example", in_reply_to=follow, subject="Re: Delivery time"
        )
        world.run_until_idle()
        held = world.deliver("And by air?", sender="eve@customer.example")
        world.model.draft["reply_markdown"] = "See https://evil.example/now"
        world.run_until_idle()
        world.clock.advance(minutes=6)
        world.tracker.track()
        assert world.outcome(held) == "escalated"
        drafts = read_drafts(world.ledger.entries(world.box), world.clock() - timedelta(days=30))
    counts = dict(build_track_record(drafts).counts)
    assert counts == {
        Fate.REDRAFTED: 1, Fate.APPROVED: 1, Fate.SUPERSEDED: 1, Fate.PENDING: 1, Fate.HELD_BACK: 1,
    }  # fmt: skip


# Windows and times


def test_the_window_is_by_submission_and_includes_its_first_moment() -> None:
    before = row("em_before", at=SINCE - timedelta(microseconds=1))
    assert fates(row("em_at", at=SINCE), before) == [Fate.PENDING]
    late = decided("delivered", after=3600, at=SINCE - timedelta(minutes=30))
    assert fates(late) == []


def test_a_redraft_inside_the_window_does_not_pull_its_rejection_in() -> None:
    entry = replace(decided("delivered"), rejections=(rejection(SINCE - timedelta(days=1)),))
    assert fates(entry) == [Fate.APPROVED]


def test_other_time_zones_change_neither_window_nor_durations() -> None:
    india = timezone(timedelta(hours=5, minutes=30))
    entry = decided("delivered", after=600)
    moved = replace(
        entry,
        submit_intent_at=SINCE.astimezone(india),
        reply_decided_at=(SINCE + timedelta(seconds=600)).astimezone(timezone(-timedelta(hours=8))),
    )
    assert judge(moved).total == judge(entry).total
    assert judge(moved).total.median_seconds_to_decision == 600
    assert fates(replace(moved, submit_intent_at=(SINCE - timedelta(seconds=1)).astimezone(india))) == []


def test_the_median_is_over_human_decisions_with_a_known_time() -> None:
    rows = [
        decided("delivered", after=100), decided("rejected", after=300), decided("cancelled", after=900),
        row(), replace(row(), reply_status="approved"), decided("delivered", after=-5, email_id="em_2"),
    ]  # fmt: skip
    assert judge(*rows[:3]).total.median_seconds_to_decision == 300
    assert judge(*rows[:2]).total.median_seconds_to_decision == 200
    assert judge(*rows).total.median_seconds_to_decision == 200  # of 0, 100, 300, 900: clocks may disagree
    assert judge(row()).total.median_seconds_to_decision is None


def test_inactive_mailboxes_are_left_out_and_history_is_streamed() -> None:
    asked: list[str] = []

    def entries(mailbox_id: str) -> Iterator[LedgerEntry]:
        asked.append(mailbox_id)
        yield row()

    boxes = [BOX, replace(BOX, id="mb_2", is_active=False)]
    report = build_report(boxes, entries, now=NOW, days=7)
    assert asked == ["mb_1"]
    assert (report.since, report.until, report.days) == (NOW - timedelta(days=7), NOW, 7)


def test_the_usage_is_that_of_every_email_in_the_time() -> None:
    usage = Usage(2, 4_000, 100, 3_000)
    rows = [
        replace(row("em_1"), usage=usage),
        replace(row("em_2"), usage=usage, outcome=Outcome.IGNORED, reply_id=None, draft=None),
        replace(row("em_3", at=SINCE - timedelta(days=1)), usage=usage),
    ]
    judged = judge(*rows)
    assert judged.usage == Usage(4, 8_000, 200, 6_000)
    assert describe_usage(judged.usage) == (
        "4 model calls: 8,000 input tokens, 75% of them cached, and 200 output tokens."
    )
    assert describe_usage(judge().usage).startswith("0 model calls")


# What drafts rest on


def resting_on(
    entry: LedgerEntry, *titles: str, support: Support = Support.VERIFIED, courtesies: int = 1
) -> LedgerEntry:
    """The row with a draft that makes a statement for each title."""
    assert entry.draft is not None
    claims = tuple(JudgedClaim("Two years.", support, (Quote(title, "for two years"),)) for title in titles)
    free = (JudgedClaim("Kind regards", Support.FREE),) * courtesies
    return replace(entry, draft=replace(entry.draft, claims=(*claims, *free)))


def test_the_share_of_verified_statements_counts_facts_of_submitted_drafts_only() -> None:
    rows = [
        resting_on(row("em_1"), "a.md › Returns", "our email of 2026-11-20", courtesies=5),
        resting_on(row("em_2"), "email of 2026-11-20", support=Support.FROM_SENDER),
        resting_on(row("em_3"), "", support=Support.ASSERTED),
        resting_on(row("em_4", at=SINCE - timedelta(days=1)), "a.md › Returns"),
        replace(resting_on(row("em_5"), "a.md › Returns"), submit_intent_at=None, reply_id=None),
    ]
    judged = judge(*rows)
    assert judged.statements == {Support.VERIFIED: 2, Support.FROM_SENDER: 1, Support.ASSERTED: 1}
    assert describe_statements(judged) == (
        "2 of 4 statements in these drafts are verified, 50 %; 1 from the sender, 1 asserted."
    )
    assert describe_statements(judge(row())) == "The drafts state no facts."


def test_drafts_with_a_warning_are_counted_erased_or_not() -> None:
    entry = row()
    assert entry.draft is not None
    entry = replace(entry, draft=replace(entry.draft, notes=("It repeats a number.", "A form sent it.")))
    for judged in (judge(entry, row("em_2")), judge(entry.erased(NOW), row("em_2"))):
        assert describe_statements(judged).endswith(" 1 of the drafts have a warning for their approver.")


def test_a_passage_has_the_decisions_on_the_drafts_that_name_it() -> None:
    both = JudgedClaim("x", Support.VERIFIED, (Quote("a.md › Returns", "x"), Quote("b.md › Cost", "y")))
    rejected = decided("rejected", email_id="em_2")
    assert rejected.draft is not None
    rows = [
        resting_on(decided("delivered", email_id="em_1"), "a.md › Returns", "a.md › Returns"),  # one draft
        replace(rejected, draft=replace(rejected.draft, claims=(both,))),
        resting_on(decided("cancelled", email_id="em_3"), "a.md › Returns", support=Support.ASSERTED),
        resting_on(row("em_4"), "a.md › Returns"),
        resting_on(decided("delivered", email_id="em_5"), "the mailbox's profile", "email of 2026-11-20"),
    ]
    assert list_passages(judge(*rows)) == [
        ("a.md › Returns", 4, 1, 2, 5, 4, 1), ("b.md › Cost", 1, 0, 1, 1, 1, 0),
    ]  # fmt: skip


def test_a_draft_that_was_written_again_keeps_what_it_rested_on_without_its_words(tmp_path: Path) -> None:
    with World(tmp_path) as world:
        email_id = world.deliver("I bought it in May. Is it covered?")
        world.model.draft |= {
            "reply_markdown": "You bought it in May.",
            "claims": [{"sentence": "You bought it in May.", "source": "E1", "quote": "I bought it in May"}],
        }
        world.run_until_idle()
        first = world.entry(email_id).reply_id or ""
        world.simulator.set_tags(world.box, first, {REJECT_REASON_TAG: "Say more."}, "reviewer")
        world.simulator.decide(first, "reject")
        world.clock.advance(minutes=6)
        world.tracker.track()
        (kept,) = world.entry(email_id).rejections
        assert kept.claims == (JudgedClaim("", Support.FROM_SENDER, (Quote("email of 2026-03-02"),)),)
        world.run_until_idle()
        (judged,) = world.agent.report(30).mailboxes
    assert judged.statements == {Support.FROM_SENDER: 2}
    passage = JudgedClaim("", Support.VERIFIED, (Quote("a.md › Returns"),))
    again = replace(rejection(NOW - timedelta(days=2)), claims=(passage,))
    assert list_passages(judge(replace(row(), rejections=(again,)))) == [("a.md › Returns", 1, 0, 1, 1, 1, 0)]


def test_a_passage_counts_once_for_a_statement_whatever_its_title_holds() -> None:
    title = "a.md › Returns; refunds"
    entry = resting_on(row(), title)
    assert entry.draft is not None
    (claim, *_) = entry.draft.claims
    claims = (replace(claim, quotes=claim.quotes * 2),)
    found = list_passages(judge(replace(entry, draft=replace(entry.draft, claims=claims))))
    assert [(name, statements) for name, statements, *_ in found] == [(title, 1)]


def test_ten_passages_are_shown_at_first_and_the_rest_unfolds() -> None:
    rows = [
        resting_on(decided("delivered", email_id=f"em_{n}_{use}"), f"a.md › {ATTACK}{n:02}")
        for n in range(12)
        for use in range(30 - n)
    ]
    report = build_report([BOX], lambda _: iter(rows), now=NOW)
    page = render_html(report)
    shown, folded = page.split("<summary>Other passages")
    assert [f"{ATTACK}{n:02}" in shown for n in range(12)] == [False] * 12  # escaped
    assert [f"$style{n:02}</th><td>{30 - n}</td>" in shown for n in range(12)] == [True] * 10 + [False] * 2
    assert [f"$style{n:02}</th><td>{30 - n}</td>" in folded for n in range(10, 12)] == [True] * 2
    assert folded.startswith(": 2</summary>")
    assert "294 of 294 statements in these drafts are verified, 100 %;" in page
    (mailbox,) = json.loads(render_json(report))["mailboxes"]
    assert mailbox["statements"] == {"verified": 294, "from_sender": 0, "asserted": 0}
    assert len(mailbox["passages"]) == 12
    assert mailbox["passages"][0] == {
        "passage": f"a.md › {ATTACK}00", "drafts": 30, "approved": 30, "rejected": 0,
        "statements": 30, "verified": 30, "asserted": 0,
    }  # fmt: skip
    few = render_html(build_report([BOX], lambda _: iter(rows[:200]), now=NOW))
    assert "Other passages" not in few


# The rule


@pytest.mark.parametrize(
    ("good", "bad", "bound"),
    [
        (0, 0, 0.0),
        (0, 10, 0.0),
        # without a rejection the n-th root of 0.05
        (1, 0, 0.05),
        (10, 0, 0.05 ** (1 / 10)),
        (148, 0, 0.05 ** (1 / 148)),
        (149, 0, 0.05 ** (1 / 149)),
        # with one, the root of p^n + n (1 - p) p^(n - 1) = 0.05
        (1, 1, 1 - 0.95**0.5),
        (234, 1, 0.979973),
        (235, 1, 0.980058),
        # found with exact fractions, as the two above
        (18, 2, 0.717381),
        (10, 10, 0.301954),
        (
            5_000,
            5_000,
            0.491727,
        ),  # the normal approximation: 0.5 - 1.645 * 0.5 / 100 = 0.491775, less 0.5 / 10,000
    ],
)
def test_the_lower_bound_is_the_exact_one(good: int, bad: int, bound: float) -> None:
    draft = JudgedDraft("em", None, Fate.APPROVED, NOW)
    drafts = [draft] * good + [replace(draft, fate=Fate.REJECTED)] * bad
    assert build_track_record(drafts).lower_bound == pytest.approx(bound, abs=0.000001)


def test_a_mailbox_just_under_the_target_passes_a_single_look_with_a_probability_of_at_most_5_percent() -> (
    None
):
    """Summed with exact fractions: the rejections that a look lets pass, and how probable so few are."""
    rejection = Fraction(2, 100)  # the target's own share
    for decided in range(100, 500, 7):
        passes, total = 0, Fraction(0)
        while compute_lower_bound(decided - passes, decided) >= 0.98:
            total += comb(decided, passes) * rejection**passes * (1 - rejection) ** (decided - passes)
            passes += 1
        assert total <= Fraction(5, 100)


@pytest.mark.parametrize("share", [0.98, 0.975, 0.95])
def test_the_plan_is_wrong_for_at_most_5_percent_of_mailboxes_looked_at_after_each_decision(
    share: float,
) -> None:
    """Simulated: 4,000 mailboxes that miss the target, each with up to 3,000 decisions, all looked at."""
    chance = random.Random(20)  # a simulation
    passed = 0
    for _ in range(4_000):
        approved = refused = 0
        while approved + refused < 3_000 and count_approvals_missing(approved, refused):
            # Only a rejection takes something back, so the look that passes is in the approvals before it.
            in_a_row = int(math.log(1 - chance.random()) / math.log(share))
            approved += min(in_a_row, count_approvals_missing(approved, refused))
            refused += 1 if count_approvals_missing(approved, refused) else 0
        passed += count_approvals_missing(approved, refused) == 0
    assert passed / 4_000 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4_000)  # what 4,000 draws can tell
    assert passed > 0 or share < 0.98


def test_the_plan_keeps_its_confidence_exactly_where_a_bound_looked_at_daily_does_not() -> None:
    """Summed over all that can happen: how probable it is that some look of the first 1,000 passes."""

    def sum_up(passes: Callable[[int, int], bool]) -> float:
        passed, by_rejections = 0.0, {0: 1.0}
        for decided in range(1, 1001):
            drawn: dict[int, float] = {}
            for rejected, chance in by_rejections.items():
                drawn[rejected] = drawn.get(rejected, 0) + chance * 0.98
                drawn[rejected + 1] = drawn.get(rejected + 1, 0) + chance * 0.02
            passed += sum(drawn.pop(n) for n in [n for n in drawn if passes(decided - n, n)])
            by_rejections = drawn
        return passed

    assert sum_up(lambda good, bad: count_approvals_missing(good, bad) == 0) <= 0.05
    at_some_time = sum_up(lambda good, bad: bad < 20 and compute_chance(good, good + bad, 0.98) <= 0.05)
    assert f"of {at_some_time:.0%} at some time".replace("%", " %") in (ROOT / "docs/trust.md").read_text(
        "utf-8"
    )


def test_a_good_mailbox_meets_the_plan_as_soon_as_the_document_says() -> None:
    chance = random.Random(20)  # a simulation
    lengths = []
    for _ in range(1_000):
        approved = refused = 0
        while count_approvals_missing(approved, refused) and approved + refused < 3_000:
            refused, approved = (
                (refused + 1, approved) if chance.random() < 0.005 else (refused, approved + 1)
            )
        lengths.append(approved + refused)
    lengths.sort()
    text = (ROOT / "docs/trust.md").read_text("utf-8")
    assert f"half of such mailboxes after {lengths[500]} decisions, nine of ten after {lengths[900]}" in text


def test_the_smallest_sample_without_a_refusal_is_enough_and_one_fewer_is_not() -> None:
    assert judge(*approved(198)).recommendation == ASK
    short = judge(*approved(197))
    assert short.recommendation == STAY
    (finding,) = [check.finding for check in short.checks if not check.is_met]
    assert finding == (
        "Since 2026-10-24, with the present model and instructions: 197 approved, 0 rejected. "
        "Approvals in a row that are missing: 1; each rejection adds 92."
    )
    assert short.missing == ["approvals in a row: 1"]
    assert [count_approvals_missing(0, refused) for refused in range(4)] == [198, 289, 380, 472]
    assert describe_bound(short.total).startswith(
        "197 of 197 decided drafts were approved, 100.00 %; lower bound 98.49 %."
    )


def written_by(entry: LedgerEntry, model: str) -> LedgerEntry:
    assert entry.draft is not None
    return replace(entry, draft=replace(entry.draft, model=model, prompt_version="0123456789ab"))


def test_the_plan_counts_from_the_last_change_of_model_or_instructions_whatever_the_days_shown() -> None:
    old = [written_by(entry, "old") for entry in approved(150, "before")]
    new = [written_by(entry, "new") for entry in approved(100, first=200)]
    changed = judge(*old, *new)
    assert (changed.total.approved, changed.plan.approved) == (250, 100)
    assert changed.plan.since == SINCE + timedelta(minutes=200)
    assert changed.missing == ["approvals in a row: 98"]
    (later,) = build_report([BOX], lambda _: iter(new), now=NOW + timedelta(days=40)).mailboxes
    assert (later.total.decided, later.plan.approved) == (0, 100)
    rewritten = replace(new[0], rejections=(rejection(SINCE + timedelta(minutes=250)),))  # has no version
    assert judge(*old, rewritten, *new[1:]).plan.refused == 1


def test_a_new_model_answers_for_its_first_draft_while_the_next_is_not_written() -> None:
    old = [written_by(entry, "old") for entry in approved(150, "before")]
    at = SINCE + timedelta(minutes=200)
    rejected = written_by(decided("rejected", email_id="em_bad", at=at), "new")
    assert rejected.draft is not None
    turned_down = rejected.draft.rejected("re_bad", "Shorter.", submitted_at=at, decided_at=at)
    plan = judge(*old, rejected.rejected(turned_down, NOW)).plan
    assert (plan.approved, plan.refused, plan.since) == (0, 1, at)


def test_what_was_rejected_counts_again_when_its_model_comes_back() -> None:
    refusals = [decided("rejected", email_id=f"em_r{n}", at=SINCE + timedelta(hours=9)) for n in range(3)]
    first = [written_by(entry, "old") for entry in (*approved(10), *refusals)]
    between = [written_by(entry, "new") for entry in approved(5, "between", first=600)]
    again = [written_by(entry, "old") for entry in approved(20, "again", first=700)]
    plan = judge(*first, *between, *again).plan
    assert (plan.approved, plan.refused, plan.since) == (30, 3, SINCE)
    in_turn = [written_by(entry, f"model {n % 2}") for n, entry in enumerate(approved(20))]
    assert judge(*in_turn).plan.approved == 10


def test_the_days_that_are_shown_change_nothing_about_the_recommendation() -> None:
    refusal = decided("rejected", email_id="em_bad", at=NOW - timedelta(days=3))
    rows = [*approved(400), refusal]
    by_days = [
        build_report([BOX], lambda _: iter(rows), now=NOW, days=days).mailboxes[0] for days in (1, 7, 365)
    ]
    assert [judged.total.decided for judged in by_days] == [0, 1, 401]
    assert [judged.recommendation for judged in by_days] == [STAY] * 3
    assert len({str(judged.checks) for judged in by_days}) == 1


def test_a_rule_without_anything_to_judge_is_not_met() -> None:
    unknown_length = [replace(entry, draft=None) for entry in approved(300)]
    judged = judge(*unknown_length)
    assert judged.recommendation == STAY
    assert judged.missing == ["No approval has a known time and length."]
    assert judge(*approved(300)).recommendation == ASK
    (long_ago,) = build_report([BOX], lambda _: iter(approved(300)), now=NOW + timedelta(days=60)).mailboxes
    assert long_ago.recommendation == STAY
    assert long_ago.missing == ["No drafts in these days."]


def test_who_answers_in_person_instead_has_not_approved_the_draft() -> None:
    def overtaken(count: int) -> list[LedgerEntry]:
        withdrawn = decided("cancelled", at=SINCE + timedelta(hours=8))
        return [
            replace(withdrawn, email_id=f"em_o{n}", outcome=Outcome.SKIPPED, cause=Cause.ANSWERED)
            for n in range(count)
        ]

    assert judge(*approved(270), *overtaken(30)).recommendation == ASK  # 10 % of 300
    judged = judge(*approved(270), *overtaken(31))
    assert judged.missing == ["drafts that people use: for 31 of 301 they answered themselves"]
    assert judged.total.superseded == 31


def test_nothing_is_ticked_for_no_drafts() -> None:
    judged = judge()
    assert judged.recommendation == STAY
    assert {check.state for check in judged.checks} == {"open"}
    assert judged.missing == ["approvals in a row: 198"]
    assert describe_bound(judged.total) == ""
    assert [number for number, _, _ in list_numbers(judged)] == [
        "no decisions yet", "no approvals yet", "no statements yet",
    ]  # fmt: skip
    assert not any("-" in text for numbers in list_numbers(judged) for text in numbers)
    page = render_html(build_report([BOX], lambda _: iter(()), now=NOW))
    assert "✓" not in page
    assert "Met: " not in page.replace("Not met: ", "")
    ungated = judge(mailbox=replace(BOX, oversight_mode="monitored"))
    assert [check.state for check in ungated.checks].count("missed") == 1


# How long decisions took


def timed(seconds: float, words: int, email_id: str = "em_1", status: str = "delivered") -> LedgerEntry:
    entry = decided(status, after=seconds, email_id=email_id)
    assert entry.draft is not None
    return replace(entry, draft=replace(entry.draft, reply_markdown="word " * words))


def test_an_approval_sooner_than_the_draft_can_be_read_is_too_fast() -> None:
    rows = [timed(60, 300, "em_1"), timed(59.9, 300, "em_2"), timed(600, 119, "em_3"), timed(5, 0, "em_4")]
    reading = judge(*rows, timed(1, 300, "em_5", "rejected")).reading
    assert reading == Reading(3, 1, 60.0, 300 * 60 / 238)
    erased = judge(*(entry.erased(NOW) for entry in rows)).reading
    assert erased == reading
    assert list_numbers(judge(*rows))[1] == (
        "1 of 3", "approvals came too soon to have been read",
        "half of the approvals took up to 1.0 min; reading takes 1.3 min",
    )  # fmt: skip


def test_drafts_approved_one_a_second_were_not_read_however_long_they_waited() -> None:
    def waited(count: int, seconds_apart: float) -> list[LedgerEntry]:
        return [timed(3600 + n * seconds_apart, 300, f"em_{n}") for n in range(count)]

    assert judge(*waited(50, 1)).reading.too_fast == 46  # the first four are not known
    assert judge(*waited(50, 15)).reading.too_fast == 0  # as four reviewers do who take a minute each


def test_approvals_that_nobody_can_have_read_keep_a_mailbox_where_it_is() -> None:
    fast = [timed(1, 300, f"em_{n}") for n in range(11)]
    assert judge(*approved(209), *fast).recommendation == ASK  # 5 % of 220
    judged = judge(*approved(208), *fast)
    assert judged.missing == ["approvals that leave time to read: 11 of 219 were too fast"]


def test_pending_superseded_and_unknown_drafts_make_no_sample() -> None:
    pending = [row(f"em_p{n}") for n in range(500)]
    assert judge(*approved(197), *pending).recommendation == STAY


@pytest.mark.parametrize("status", ["rejected", "cancelled", "gone"])
def test_a_refusal_among_the_last_decided_drafts_keeps_it_where_it_is(status: str) -> None:
    refusal = decided(status, email_id="em_bad", at=SINCE + timedelta(minutes=500))
    before, after = approved(500), approved(RECENT, "support", first=600)
    assert judge(*before, refusal, *after).recommendation == ASK
    too_recent = judge(*before, refusal, *after[:-1])
    assert [rule for rule in missed(too_recent) if "last 50" in rule]


def test_the_last_decided_are_told_by_when_they_were_decided() -> None:
    refusal = decided("rejected", email_id="em_bad", at=SINCE, after=20 * 86_400)
    assert [rule for rule in missed(judge(refusal, *approved(500))) if "last 50" in rule]


def test_many_easy_drafts_do_not_hide_a_category_that_is_refused() -> None:
    refusal = replace(decided("rejected", email_id="em_bad"), triage=triaged("complaint"))
    judged = judge(refusal, *approved(3, "complaint"), *approved(2000))
    assert judged.total.reaches_target
    (rule,) = missed(judged)
    assert rule == "Each category with rejected drafts also meets the target."
    (finding,) = [check.finding for check in judged.checks if check.rule == rule]
    assert finding.startswith("complaint: 1 of 4 rejected")
    assert "question" not in finding


def test_a_draft_that_was_held_back_keeps_it_where_it_is() -> None:
    held = replace(
        row("em_h"), submit_intent_at=None, reply_id=None, draft=None, outcome=Outcome.ESCALATED,
        cause=Cause.DRAFT_CHECK,
    )  # fmt: skip
    judged = judge(*approved(200), held)
    assert len(missed(judged)) == 1
    assert (judged.total.submitted, judged.recommendation) == (200, STAY)


def test_silence_is_no_consent() -> None:
    waits = row("em_w", at=NOW - timedelta(days=7))
    assert judge(*approved(200), waits).recommendation == ASK
    too_long = replace(waits, submit_intent_at=NOW - timedelta(days=7, seconds=1))
    assert judge(*approved(200), too_long).recommendation == STAY
    ungated = replace(row("em_u"), reply_status="delivered")
    assert judge(*approved(200), ungated).recommendation == STAY


@pytest.mark.parametrize("mode", ["read_only", "gated_all", "monitored", "autonomous", "new_mode"])
def test_only_a_gated_send_mailbox_can_be_recommended(mode: str) -> None:
    assert judge(*approved(200), mailbox=replace(BOX, oversight_mode=mode)).recommendation == STAY


def test_rows_without_triage_have_a_line_of_their_own() -> None:
    judged = judge(replace(decided("delivered"), triage=None), decided("rejected", email_id="em_2"))
    assert {name: record.decided for name, record in judged.categories.items()} == {None: 1, "question": 1}
    assert judged.total.decided == 2


def test_a_share_is_never_rounded_up_to_the_target() -> None:
    assert [format_share(share) for share in (0.979999, 0.98, 0.29, 1.0, 0.0)] == [
        "97.99 %", "98.00 %", "29.00 %", "100.00 %", "0.00 %",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.0, "0 s"), (59.4, "59 s"), (90.0, "1.5 min"), (5400.0, "1.5 h"), (129_600.0, "1.5 d")],
)
def test_a_duration_has_the_unit_that_suits_it(seconds: float | None, text: str) -> None:
    assert format_duration(seconds) == text


# Over HTTP


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """An agent with one watched mailbox and two decided drafts, one refused in a hostile category."""
    clock = Clock()
    simulator = MultiMailSimulator(clock)
    box = simulator.add_mailbox(f"{ATTACK}@northwind.example", "gated_send")
    with LoopbackServer(simulator.app) as server:
        settings = build_settings(tmp_path, multimail_api_url=server.url)
        settings = replace(settings, multimail_api_key=Secret(simulator.add_key()))
        built = build_agent(settings, clock=clock)
        with closing(built.ledger):
            for n, (category, status) in enumerate((("question", "delivered"), (ATTACK, "rejected"))):
                entry = decided(status, email_id=f"em_{n}", at=clock() - timedelta(days=1 + 9 * n))
                secret = replace(
                    entry, mailbox_id=box, triage=triaged(category), detail="SECRET of the email"
                )
                built.ledger.add(secret)
            yield built


def get(agent: Agent, monkeypatch: pytest.MonkeyPatch, accept: str = "", **params: str) -> func.HttpResponse:
    """Call the function that the app has registered."""
    monkeypatch.setattr(composition, "get_agent", lambda: agent)
    names = {"POLL_SCHEDULE": "0 * * * * *", "TRACK_SCHEDULE": "0 * * * * *", "WORK_QUEUE_NAME": "q"}
    function = read_app_functions(function_app.app, names, {"q"}).http["report"]
    request = func.HttpRequest(
        "GET", "/api/report", headers={"Accept": accept} if accept else {}, params=params, body=b""
    )
    answer = function.invoke(request, InvocationContext("report", "invocation"))
    assert isinstance(answer, func.HttpResponse)
    return answer


def test_the_report_is_json_unless_a_browser_asks(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = get(agent, monkeypatch)
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    report = json.loads(answer.get_body())
    assert (report["days"], report["until"]) == (30, "2026-03-02T12:00:00+00:00")
    (mailbox,) = report["mailboxes"]
    assert mailbox["recommendation"] == STAY
    assert mailbox["oversight_mode"] == "gated_send"
    assert [check["is_met"] for check in mailbox["checks"]] == [
        True,
        False,
        False,
        False,
        True,
        True,
        True,
        True,
    ]
    assert mailbox["plan"] == {
        "approved": 1, "refused": 1, "approvals_missing": 288, "since": "2026-02-20T12:00:00+00:00",
    }  # fmt: skip
    assert mailbox["reading"]["approvals"] == 1
    assert [line["category"] for line in mailbox["categories"]] == [ATTACK, "question"]
    total = mailbox["total"]
    assert (total["submitted"], total["approved"], total["decided"]) == (2, 1, 2)
    assert total["median_seconds_to_decision"] == 60
    assert total["lower_bound"] == pytest.approx(1 - 0.95**0.5)
    browser = "text/html,application/xhtml+xml,*/*;q=0.8"
    assert get(agent, monkeypatch, browser).mimetype == "text/html"
    assert get(agent, monkeypatch, browser, format="json").mimetype == "application/json"
    assert get(agent, monkeypatch, format="html").mimetype == "text/html"


def test_days_choose_the_window(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    (mailbox,) = json.loads(get(agent, monkeypatch, days="5").get_body())["mailboxes"]
    assert mailbox["total"]["submitted"] == 1


@pytest.mark.parametrize("days", ["0", "366", "-1", "1.5", "", " 7", "٣", "<script>", "9" * 5000])
def test_days_out_of_range_are_refused_by_name(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, days: str
) -> None:
    answer = get(agent, monkeypatch, days=days)
    assert answer.status_code == 400
    assert answer.get_body().decode() == "days must be a whole number from 1 to 365."
    assert answer.mimetype == "text/plain"


def test_an_unknown_format_is_refused_by_name(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = get(agent, monkeypatch, format="pdf")
    assert (answer.status_code, answer.get_body()) == (400, b"format must be html or json.")


def test_the_page_escapes_everything_and_lets_nothing_run(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = get(agent, monkeypatch, format="html")
    html = answer.get_body().decode()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;$style" in html
    assert (
        html.count("&lt;script&gt;alert(1)&lt;/script&gt;$style") == 4
    )  # heading, what is missing, finding, row
    assert "<script" not in html
    assert "<img" not in html
    assert "style=" not in html
    assert "SECRET" not in html
    assert "ann@customer.example" not in html
    styles = re.findall("<style>(.*?)</style>", html, re.DOTALL)
    assert len(styles) == 1
    digest = base64.b64encode(hashlib.sha256(styles[0].encode()).digest()).decode()
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'")
    assert answer.headers["Cache-Control"] == "no-store"


def test_the_report_wants_a_function_key() -> None:
    (trigger,) = [b for b in read_declared_functions()["report"] if b["type"] == "httpTrigger"]
    assert (trigger["authLevel"], trigger["methods"]) == ("FUNCTION", ["GET"])


def test_the_report_asks_for_nothing_and_reads_no_email(
    tmp_path: Path,
) -> None:
    with World(tmp_path) as world:
        email_id = world.deliver()
        world.run_until_idle()
        before = len(world.simulator.requests)
        answer = answer_report(world.agent.report, {"request_upgrade": world.box}, "text/html")
        later = world.simulator.requests[before:]
        assert answer.status_code == 200
        assert email_id not in answer.body
        assert {(r.method, r.path) for r in later} <= {("GET", "/v1/mailboxes")}


# The command


@dataclass
class Operator:
    """A simulated account and the command line of whoever runs the agent."""

    simulator: MultiMailSimulator
    box: str
    environment: dict[str, str]

    def call(self, *words: str, types: str = "") -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "local", "report", *words],
            cwd=Path(self.environment["HOME"]), env=self.environment, input=types,
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout

    def asked(self) -> list[object]:
        """The bodies of the requests for another mode; nothing else may ever be written."""
        written = [r for r in self.simulator.requests if r.method != "GET"]
        assert all(r.path == f"/v1/mailboxes/{self.box}/request-upgrade" for r in written)
        return [r.body for r in written]


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    simulator = MultiMailSimulator(lambda: datetime.now(UTC))
    box = simulator.add_mailbox("support@northwind.example")
    path = tmp_path / "ledger.sqlite"
    # Held open, as by an agent at work: the report only reads next to it.
    with closing(open_sqlite_ledger(path)) as ledger, LoopbackServer(simulator.app) as server:
        since = datetime.now(UTC) - timedelta(days=1)
        for n in range(200):
            entry = decided("delivered", email_id=f"em_{n}", at=since + timedelta(minutes=n))
            entry = resting_on(entry, f"a.md › [bold]{n % 11:02}")
            ledger.add(replace(entry, mailbox_id=box))
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT),
            "MULTIMAIL_API_URL": server.url, "MULTIMAIL_API_KEY": simulator.add_key(),
            "MODEL_ENDPOINT": "http://127.0.0.1:9", "MODEL_API_KEY": "unused", "TRIAGE_DEPLOYMENT": "small",
            "LEDGER_PATH": str(path),
        }  # fmt: skip
        yield Operator(simulator, box, environment)


def test_the_command_shows_figures_arithmetic_and_advice_beside_a_running_agent(operator: Operator) -> None:
    status, output = operator.call("--days", "7")
    assert status == 0
    assert "last 7 days" in output
    assert "200 of 200 decided drafts were approved, 100.00 %" in output
    assert "Recommendation: ask for monitored" in output
    assert (
        "200 of 200 statements in these drafts are verified, 100 %; 0 from the sender, 0 asserted." in output
    )
    assert [f"a.md › [bold]{n:02}" in output for n in range(11)] == [True] * 10 + [False]
    assert "The 10 most used of 11 passages; GET /api/report lists all." in output
    assert operator.asked() == []


def test_days_out_of_range_are_named_by_the_command(operator: Operator) -> None:
    status, output = operator.call("--days", "366")
    assert (status, output.strip()) == (2, "--days must be a whole number from 1 to 365.")


@pytest.mark.parametrize("types", ["", "n\n", "\n"])
def test_nothing_is_asked_for_without_a_yes(operator: Operator, types: str) -> None:
    status, output = operator.call("--request-upgrade", operator.box, types=types)
    assert status == 1
    assert "The report says: ask for monitored." in " ".join(output.split())
    assert "Nothing was requested." in output
    assert operator.asked() == []


def test_another_mode_is_asked_for_by_name_and_after_a_yes(operator: Operator) -> None:
    status, output = operator.call("--request-upgrade", "support@northwind.example", types="y\n")
    assert status == 0
    assert operator.asked() == [{"target_mode": "monitored"}]
    assert "ALLOW_UNGATED_REPLIES=true" in output
    assert operator.simulator.mailboxes[operator.box].mode == "gated_send"


def test_too_many_requests_are_explained(operator: Operator) -> None:
    for _ in range(3):
        operator.simulator.request_upgrade(operator.box, "monitored", "operator")
    status, output = operator.call("--request-upgrade", operator.box, types="y\n")
    assert status == 1
    assert "three such requests an hour" in output
    assert len(operator.asked()) == 1  # and not repeated


def test_a_key_that_may_not_ask_is_explained(operator: Operator) -> None:
    operator.environment["MULTIMAIL_API_KEY"] = operator.simulator.add_key(("read",))
    status, output = operator.call("--request-upgrade", operator.box, types="y\n")
    assert status == 2
    assert "lacks the send scope" in " ".join(output.split())


def test_no_other_mailbox_and_no_other_mode_is_asked_for(operator: Operator) -> None:
    status, output = operator.call("--request-upgrade", "mb_unknown", types="y\n")
    assert (status, f"write the id or address of one of these: {operator.box}" in output) == (2, True)
    operator.simulator.set_mode(operator.box, "gated_all")
    status, output = operator.call("--request-upgrade", operator.box, types="y\n")
    assert status == 1
    assert "only a gated_send mailbox can move" in output
    assert operator.asked() == []


def test_a_service_that_is_away_is_explained(operator: Operator) -> None:
    operator.simulator.fault = in_order(*[answer_with(503)] * 9)
    status, output = operator.call()
    assert status == 1
    assert "The report failed:" in output
