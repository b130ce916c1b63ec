"""The review desk's side of the agent: what it shows, and what becomes of a reason, an edit, "done" and "not now"."""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.multimail.faults import always, answer_with, in_order, is_about_tags, no_fault
from local.testing.world import World
from shared.checks.draft_checks import MAX_REPLY_CHARACTERS
from shared.domain import Cause, ModelText, Outcome, WorkItem
from shared.errors import ConfigurationError, ConflictError, NotFoundError, ThrottledError, TransientError
from shared.knowledge.files import KnowledgeFiles
from shared.ledger.entries import LedgerEntry
from shared.ledger.ledger import Ledger
from shared.ledger.rows import from_plain, to_row
from shared.operator.review import MAX_OPEN, SECOND_REVIEWER, Kind, ReviewItem, Reviews
from shared.operator.review_requests import answer_review
from shared.operator.word_changes import MAX_STEPS, Change, compare_words, count_changed_words
from shared.profiles.pauses import pause, resume
from shared.profiles.profiles import MailboxProfile, Profiles
from shared.replying.reporting import REJECT_REASON_TAG
from shared.services.http_answer import HttpAnswer
from shared.telemetry import EVENT_LOGGER, MATTER_CLOSED

ANN, BEN = "a0000001", "b0000002"
EDIT = "Dear Ann,\r\n\r\nit takes two weeks: see https://elsewhere.example/x .  \n\nSupport \u2713"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        yield world


def replied(world: World, **fields: Any) -> tuple[WorkItem, str]:
    """An email whose reply waits for approval."""
    email_id = world.deliver(**fields)
    world.run_until_idle()
    return WorkItem(world.box, email_id), reply_of(world, email_id)


def reply_of(world: World, email_id: str) -> str:
    reply_id = world.entry(email_id).reply_id
    assert reply_id is not None
    return reply_id


def reject(world: World, item: WorkItem, reply_id: str) -> str:
    """What the desk does once the agent has kept what was said; the id of the reply afterwards."""
    world.simulator.decide(reply_id, "reject")
    world.agent.reviews.note_decided(item.mailbox_id, reply_id)
    world.run_until_idle()
    return reply_of(world, item.email_id)


def edited(world: World, item: WorkItem, markdown: str = EDIT, reviewer: str = ANN) -> str:
    before = reply_of(world, item.email_id)
    world.agent.reviews.edit(item, before, reviewer, markdown)
    return reject(world, item, before)


def proposal_of(world: World, item: WorkItem) -> str | None:
    """The text that the desk shows as one that is not submitted."""
    found = world.agent.reviews.find(item, BEN)
    assert found is not None
    return found.proposal.markdown if found.proposal is not None else None


def waits_for(world: World, item: WorkItem) -> str:
    found = world.agent.reviews.find(item, ANN)
    assert found is not None
    return found.waits


def status_of(world: World, reply_id: str) -> str:
    email = world.simulator.find_email(reply_id)
    assert email is not None
    return email.status


# A reason and an edit


def test_a_reason_kept_at_the_desk_leads_to_a_new_draft_and_shows_at_multimail(world: World) -> None:
    item, first = replied(world)
    world.agent.reviews.reject(item, first, ANN, "Name the time:\n two weeks.")
    assert world.tags(first)[REJECT_REASON_TAG] == "Name the time: two weeks."
    second = reject(world, item, first)
    assert second != first
    assert world.model.requests[-1].user.endswith("said what to change: Name the time: two weeks.")
    assert [(said.reason, said.edited_by) for said in world.entry(item.email_id).rejections] == [
        ("Name the time: two weeks.", "")
    ]


def test_a_reason_needs_no_tag(world: World, caplog: pytest.LogCaptureFixture) -> None:
    item, first = replied(world)
    world.simulator.fault = always(answer_with(403), matching=is_about_tags)
    world.agent.reviews.reject(item, first, ANN, "Shorter.")
    world.simulator.fault = no_fault
    assert "could not be tagged" in caplog.text
    assert "Shorter" not in caplog.text
    assert reject(world, item, first) != first


def test_a_later_word_at_the_desk_takes_an_earlier_one_back_and_keeps_the_text_of_an_edit(
    world: World,
) -> None:
    item, first = replied(world)
    world.agent.reviews.edit(item, first, ANN, EDIT)
    world.clock.advance(minutes=1)
    world.agent.reviews.reject(item, first, BEN, "")
    assert proposal_of(world, item) == EDIT
    assert reject(world, item, first) == first
    entry = world.entry(item.email_id)
    assert (entry.outcome, entry.cause) == (Outcome.ESCALATED, Cause.REPLY_REJECTED)
    assert proposal_of(world, item) == EDIT
    assert world.tags(item.email_id)["agent.proposed_reply"] == EDIT


def test_a_later_rejection_without_a_reason_takes_a_reason_of_the_desk_back(world: World) -> None:
    item, first = replied(world)
    world.agent.reviews.reject(item, first, ANN, "Shorter.")
    world.clock.advance(minutes=1)
    world.agent.reviews.reject(item, first, BEN, "")
    assert world.tags(first)[REJECT_REASON_TAG] == ""
    assert reject(world, item, first) == first


@pytest.mark.parametrize("is_edit", [True, False])
def test_what_was_said_and_not_followed_by_the_rejection_is_not_revived_by_anybody_elses(
    world: World, *, is_edit: bool
) -> None:
    item, first = replied(world)
    if is_edit:
        world.agent.reviews.edit(item, first, ANN, EDIT)
    else:
        world.agent.reviews.reject(item, first, ANN, "Shorter.")
    world.clock.advance(minutes=5)
    world.tracker.track()
    assert proposal_of(world, item) is None  # it may still be followed
    world.clock.advance(minutes=6)
    world.tracker.track()
    assert proposal_of(world, item) == (EDIT if is_edit else None)
    assert reject(world, item, first) == first
    assert world.entry(item.email_id).outcome is Outcome.ESCALATED
    assert proposal_of(world, item) == (EDIT if is_edit else None)
    assert len(world.simulator.accepted) == 1


def test_an_edit_counts_though_the_agent_was_not_told_of_the_decision(world: World) -> None:
    item, first = replied(world)
    world.clock.advance(hours=2)  # from now on it is looked at every half hour
    world.tracker.track()
    world.agent.reviews.edit(item, first, ANN, EDIT)
    world.simulator.decide(first, "reject")
    world.clock.advance(minutes=5)
    world.tracker.track()
    world.run_until_idle()
    assert reply_of(world, item.email_id) != first
    assert world.entry(item.email_id).edited_by == ANN


def test_an_edit_counts_though_its_rejection_came_after_the_agent_was_told_of_it(world: World) -> None:
    item, first = replied(world)
    world.clock.advance(hours=2)  # from now on it is looked at every half hour
    world.tracker.track()
    world.agent.reviews.edit(item, first, ANN, EDIT)
    world.agent.reviews.note_decided(item.mailbox_id, first)  # though MultiMail's answer was lost
    world.simulator.decide(first, "reject")
    world.clock.advance(minutes=5)
    world.tracker.track()
    world.run_until_idle()
    assert world.entry(item.email_id).edited_by == ANN


@pytest.mark.parametrize("said", ["a reason", "an edit", "no reason"])
def test_a_reason_given_elsewhere_counts_more_than_what_the_desk_was_told_before(
    world: World, said: str
) -> None:
    item, first = replied(world)
    world.simulator.set_tags(world.box, first, {REJECT_REASON_TAG: "An old one."}, "somebody")
    if said == "an edit":
        world.agent.reviews.edit(item, first, ANN, EDIT)
    else:
        world.agent.reviews.reject(item, first, ANN, "Shorter." if said == "a reason" else "")
    world.simulator.set_tags(world.box, first, {REJECT_REASON_TAG: "The price is wrong."}, "somebody")
    assert reject(world, item, first) != first
    [rejection] = world.entry(item.email_id).rejections
    assert (rejection.reason, rejection.edited_by) == ("The price is wrong.", "")
    entry = world.entry(item.email_id)
    assert entry.draft is not None
    assert (entry.outcome, entry.draft.reply_markdown == EDIT) == (Outcome.REPLY_SUBMITTED, False)
    assert proposal_of(world, item) == (EDIT if said == "an edit" else None)
    assert "agent.proposed_reply" not in world.tags(item.email_id)


@pytest.mark.parametrize("text", ["Shorter.", ""])
def test_a_reason_given_elsewhere_before_counts_where_the_desk_gives_none(world: World, text: str) -> None:
    item, first = replied(world)
    world.simulator.set_tags(world.box, first, {REJECT_REASON_TAG: "Warmer.", "crm.id": "7"}, "somebody")
    world.agent.reviews.reject(item, first, ANN, text)
    assert world.tags(first) == {**world.tags(first), REJECT_REASON_TAG: text or "Warmer.", "crm.id": "7"}
    reject(world, item, first)
    assert [said.reason for said in world.entry(item.email_id).rejections] == [text or "Warmer."]


def test_a_reason_from_elsewhere_before_an_edit_does_not_count_and_is_not_shown_for_it(world: World) -> None:
    item, first = replied(world)
    world.simulator.set_tags(world.box, first, {REJECT_REASON_TAG: "Warmer."}, "somebody")
    edited(world, item)
    assert [(said.reason, said.edited_by) for said in world.entry(item.email_id).rejections] == [("", ANN)]


def test_a_tag_that_the_service_cut_is_the_reason_that_was_said(world: World) -> None:
    item, first = replied(world)
    world.agent.reviews.reject(item, first, ANN, "Name the time: two weeks.")
    world.simulator.set_tags(world.box, first, {REJECT_REASON_TAG: "Name the time"}, "somebody")
    reject(world, item, first)
    assert [said.reason for said in world.entry(item.email_id).rejections] == ["Name the time: two weeks."]


def test_tags_that_cannot_be_read_are_not_written_over(world: World) -> None:
    item, first = replied(world)
    world.simulator.set_tags(world.box, first, {"crm.id": "7"}, "somebody")
    world.simulator.fault = in_order(answer_with(403), matching=is_about_tags)
    world.agent.reviews.reject(item, first, ANN, "Shorter.")
    world.simulator.fault = no_fault
    assert world.tags(first) == {"crm.id": "7"}
    assert reject(world, item, first) != first


def test_what_is_taken_back_counts_no_more(world: World) -> None:
    item, first = replied(world)
    world.agent.reviews.reject(item, first, ANN, "Shorter.")
    world.agent.reviews.take_back(item, first, ANN)
    assert (world.tags(first)[REJECT_REASON_TAG], world.entry(item.email_id).review) == ("", None)
    world.agent.reviews.edit(item, first, BEN, EDIT)  # nobody decides it any more
    world.agent.reviews.take_back(item, first, ANN)  # who has nothing to take back
    assert world.entry(item.email_id).review is not None
    world.agent.reviews.take_back(item, first, BEN)
    assert proposal_of(world, item) == EDIT
    assert reject(world, item, first) == first
    assert proposal_of(world, item) == EDIT


def test_a_reason_of_somebody_else_stays_when_one_is_taken_back(world: World) -> None:
    item, first = replied(world)
    world.agent.reviews.reject(item, first, ANN, "Shorter.")
    world.simulator.set_tags(world.box, first, {REJECT_REASON_TAG: "The price is wrong."}, "somebody")
    world.agent.reviews.take_back(item, first, ANN)
    assert world.tags(first)[REJECT_REASON_TAG] == "The price is wrong."


def test_of_two_reviewers_at_once_the_later_one_is_told_and_the_text_of_the_first_counts(
    world: World,
) -> None:
    item, first = replied(world)
    world.agent.reviews.edit(item, first, ANN, EDIT)
    world.clock.advance(seconds=59)
    for say_it, text in ((world.agent.reviews.reject, ""), (world.agent.reviews.edit, "Dear Ann, no.")):
        with pytest.raises(ConflictError, match=r"^another reviewer is deciding this reply"):
            say_it(item, first, BEN, text)
    world.agent.reviews.edit(item, first, ANN, EDIT)  # who tries again
    second = reject(world, item, first)
    assert second != first
    assert world.entry(item.email_id).edited_by == ANN


def test_a_clock_that_was_ahead_keeps_no_reviewer_out(world: World) -> None:
    item, first = replied(world)
    world.clock.advance(hours=1)
    world.agent.reviews.reject(item, first, ANN, "Shorter.")
    world.clock.advance(hours=-1)
    world.agent.reviews.edit(item, first, BEN, EDIT)
    assert reject(world, item, first) != first


@pytest.mark.parametrize(
    ("mode", "outcome"), [("read_only", Outcome.ESCALATED), ("autonomous", Outcome.BLOCKED_UNGATED)]
)
def test_an_edit_that_the_gate_refuses_is_kept_for_the_people_it_is_left_to(
    world: World, mode: str, outcome: Outcome
) -> None:
    item, first = replied(world)
    world.agent.reviews.edit(item, first, ANN, EDIT)
    world.simulator.decide(first, "reject")
    world.simulator.set_mode(world.box, mode)
    world.agent.reviews.note_decided(item.mailbox_id, first)
    world.run_until_idle()
    entry = world.entry(item.email_id)
    assert (entry.outcome, proposal_of(world, item)) == (outcome, EDIT)
    [listed] = world.agent.reviews.list_items(ANN)
    assert listed.kind is Kind.ESCALATION


def test_an_edit_that_multimail_refuses_is_kept_too(world: World) -> None:
    item, first = replied(world)
    world.simulator.fault = always(answer_with(422), matching=lambda _method, path: "/reply/" in path)
    world.agent.reviews.edit(item, first, ANN, EDIT)
    world.simulator.decide(first, "reject")
    world.agent.reviews.note_decided(item.mailbox_id, first)
    world.run_until_idle()
    assert (world.entry(item.email_id).cause, proposal_of(world, item)) == (Cause.REPLY_REFUSED, EDIT)


def test_an_edit_during_a_pause_says_why_it_waits(world: World) -> None:
    item, first = replied(world)
    pause(world.ledger, world.box, world.clock())
    paused = "waiting: its mailbox is paused"
    assert waits_for(world, item) == paused  # before it is sent, too
    world.agent.reviews.edit(item, first, ANN, EDIT)
    world.simulator.decide(first, "reject")
    world.agent.reviews.note_decided(item.mailbox_id, first)
    assert (world.entry(item.email_id).finished_at, waits_for(world, item)) == (None, paused)
    resume(world.ledger, world.box)
    assert waits_for(world, item) == ""


def test_an_edit_is_submitted_byte_for_byte_as_the_next_revision_and_asks_no_model(world: World) -> None:
    item, first = replied(world)
    world.model.requests.clear()
    second = edited(world, item)
    assert world.model.requests == []
    assert (second != first, status_of(world, second)) == (True, "pending_send_approval")
    sent = world.simulator.find_email(second)
    assert sent is not None
    assert sent.markdown == EDIT
    entry = world.entry(item.email_id)
    assert (entry.revision, entry.edited_by, entry.outcome) == (2, ANN, Outcome.REPLY_SUBMITTED)
    assert [said.edit_distance for said in entry.rejections] == [15]
    keys = [accepted.idempotency_key for accepted in world.simulator.accepted]
    assert len(keys) == len(set(keys)) == 2


def test_what_the_checks_find_in_an_edit_is_told_to_its_approver_and_holds_nothing_back(world: World) -> None:
    item, _ = replied(world)
    edited(world, item)
    found = world.agent.reviews.find(item, BEN)
    assert found is not None
    assert found.draft is not None
    assert any("a link" in note for note in found.draft.notes)
    assert "agent.note" in world.tags(reply_of(world, item.email_id))


def test_an_edit_is_none_of_the_two_redrafts_and_no_model_sees_what_it_replaced(world: World) -> None:
    item, _ = replied(world)
    for number in range(3):
        edited(world, item, f"Dear Ann, in {number} weeks.")
    for reason in ("Shorter.", "Warmer."):
        before = reply_of(world, item.email_id)
        world.agent.reviews.reject(item, before, BEN, reason)
        assert reject(world, item, before) != before
    user = world.model.requests[-1].user
    assert "Dear Ann, in 2 weeks." in user  # which a colleague turned down with a reason
    assert "Dear Ann, in 1 weeks." not in user
    last = reply_of(world, item.email_id)
    world.agent.reviews.reject(item, last, BEN, "No.")
    assert reject(world, item, last) == last
    assert world.entry(item.email_id).revision == 6


def promised(world: World, item: WorkItem, follow_up: str, before: str, after: str) -> tuple[str, list[str]]:
    """What an edited draft promises, and what is listed as promised once it is approved."""
    draft = world.entry(item.email_id).draft
    assert draft is not None
    replaced = replace(draft, reply_markdown=before, follow_up=ModelText(follow_up))
    world.ledger.save(replace(world.entry(item.email_id), draft=replaced))
    reply_id = edited(world, item, after)
    draft = world.entry(item.email_id).draft
    assert draft is not None
    world.simulator.decide(reply_id, "approve")
    world.agent.reviews.note_decided(item.mailbox_id, reply_id)
    return draft.follow_up.text, [
        found.promise for found in world.agent.reviews.list_items(ANN) if found.kind is Kind.PROMISE
    ]


CALL = "We will call you on Friday."
MADE = f"Dear Ann,\n\nthe gauge is out of stock. {CALL}\n\nSupport"


@pytest.mark.parametrize(
    ("follow_up", "before", "after", "promise"),
    [
        (CALL, MADE, f"{MADE}!", CALL),
        (CALL, MADE, MADE.replace("Friday", "Monday"), "We will call you on Monday."),
        (CALL, MADE, f"Hello Ann, {CALL}", f"Hello Ann, {CALL}"),
        (CALL, MADE, MADE.replace(CALL, "Please order again in May."), ""),
        (CALL, MADE, MADE.replace(CALL, "A colleague checks it and writes to you."),
            "A colleague checks it and writes to you."),
        ("Wir rufen an.", MADE, MADE.replace("gauge", "tarn"), "Wir rufen an."),
        ("Wir rufen an.", MADE, "Dear Ann,\n\nno, we cannot do that.\n\nSupport", ""),
        ("Ring up.", CALL, f"{CALL}\n\nSupport", "Ring up."),
        ("", "Two years.", "Two years. Ein Kollege meldet sich morgen.", "Ein Kollege meldet sich morgen."),
        ("", "Two years.", "Two years. I will call you tomorrow.", "I will call you tomorrow."),
        ("", "Two years.", "Two years. Ich werde Sie anrufen.", "Ich werde Sie anrufen."),
        ("", "Two years.", "Two years. Oddzwonię jutro.", "Oddzwonię jutro."),
        ("", "Two years.", "Two years. 明日お電話いたします。", "明日お電話いたします。"),
        ("", "Two years.", "Two years. I will not be sad. Will I call you?", ""),
        ("", "Two years.", "Two years. Please call us.", ""),
        ("", "Two years.", "Two years. Did a colleague write to you?", ""),
        ("", "A colleague will write.", "A colleague will write. Bye.", ""),
        ("", "Two years.", "Three years.", ""),
    ],
)  # fmt: skip
def test_what_an_edit_takes_out_is_not_promised_and_what_it_adds_is(
    world: World, follow_up: str, before: str, after: str, promise: str
) -> None:
    item, _ = replied(world)
    assert promised(world, item, follow_up, before, after) == (promise, [promise] if promise else [])


def test_an_edit_keeps_what_a_person_must_still_answer(world: World) -> None:
    world.model.draft["open_points"] = ["Which invoice is meant"]
    item, _ = replied(world)
    for text in ("Dear Ann, a colleague will look.", "Dear Ann, a colleague will look!"):
        reply_id = edited(world, item, text)
        found = world.agent.reviews.find(item, BEN)
        assert found is not None
        assert found.draft is not None
        assert found.draft.open_points == ("Which invoice is meant",)
        assert world.tags(reply_id)["agent.open_points"] == "Which invoice is meant"


def test_the_profile_s_own_lines_are_no_statements_of_an_edit(tmp_path: Path) -> None:
    profile = MailboxProfile(signature="Northwind support\nhttps://northwind.example/help", disclosure=True)
    with World(tmp_path, profiles=Profiles(profile)) as world:
        item, _ = replied(world)
        draft = world.entry(item.email_id).draft
        assert draft is not None
        assert "northwind.example/help" in draft.reply_markdown
        edited(world, item, f"We have it in red.\n\n{draft.reply_markdown}")
        draft = world.entry(item.email_id).draft
        assert draft is not None
        sentences = [claim.sentence for claim in draft.claims]
        assert "We have it in red." in sentences
        assert not any("northwind" in sentence.casefold() for sentence in sentences), sentences
        assert not any("AI" in sentence for sentence in sentences), sentences


def test_an_edit_goes_through_while_the_models_budget_is_used_up(world: World) -> None:
    item, first = replied(world)
    world.ledger.add_tokens(world.box, f"{world.clock():%Y-%m-%d}", 10**9)
    assert edited(world, item) != first


def test_an_edit_keeps_the_source_of_a_sentence_that_was_left(tmp_path: Path) -> None:
    folder = tmp_path / "knowledge" / "shared"
    folder.mkdir(parents=True)
    (folder / "delivery.md").write_text("# Delivery\n\nDelivery takes 14 days.\n", encoding="utf-8")
    with World(tmp_path, knowledge=KnowledgeFiles(folder.parent)) as world:
        claim = {
            "sentence": "Delivery takes 14 days.",
            "source": "K1",
            "quote": "Delivery takes 14 days.",
        }
        world.model.draft |= {
            "reply_markdown": "Dear Ann,\n\nDelivery takes 14 days.\n\nSupport",
            "claims": [claim],
            "follow_up": "",
        }
        item, _ = replied(world)
        edited(world, item, "Dear Ann,\n\nDelivery takes 14 days. We ship 900 boxes.\n\nSupport")
        found = world.agent.reviews.find(item, ANN)
    assert found is not None
    assert found.draft is not None
    support = {claim.sentence: str(claim.support) for claim in found.draft.claims}
    assert support["Delivery takes 14 days."] == "verified"
    assert support["We ship 900 boxes."] == "asserted"


@pytest.mark.parametrize(
    "markdown", ["", " \n", "x" * (MAX_REPLY_CHARACTERS + 1)], ids=["empty", "blank", "long"]
)
def test_what_cannot_be_a_reply_is_no_edit(world: World, markdown: str) -> None:
    item, first = replied(world)
    with pytest.raises(ValueError, match="1 to 8000 characters"):
        world.agent.reviews.edit(item, first, ANN, markdown)
    draft = world.entry(item.email_id).draft
    assert draft is not None
    with pytest.raises(ValueError, match="as it is"):
        world.agent.reviews.edit(item, first, ANN, draft.reply_markdown)
    assert world.entry(item.email_id).review is None


def test_an_edit_for_which_somebody_answered_meanwhile_is_not_submitted(world: World) -> None:
    item, first = replied(world)
    world.agent.reviews.edit(item, first, ANN, EDIT)
    world.simulator.decide(first, "reject")
    world.agent.reviews.note_decided(item.mailbox_id, first)
    world.clock.advance(hours=1)
    world.simulator.human_reply(item.email_id, "I have called her.")
    world.run_until_idle()
    assert world.entry(item.email_id).outcome is Outcome.SKIPPED
    assert len(world.simulator.accepted) == 1


@pytest.mark.parametrize("wants_second", [True, False])
def test_who_edits_may_approve_unless_the_profile_wants_another_one(
    tmp_path: Path, *, wants_second: bool
) -> None:
    profile = MailboxProfile(edit_needs_second_reviewer=wants_second)
    with World(tmp_path, profiles=Profiles(profile)) as world:
        item, _ = replied(world)
        shown = world.agent.reviews.find(item, ANN)
        assert shown is not None
        assert shown.refusal == ""
        edited(world, item)
        refusals = [
            found.refusal for who in (ANN, BEN) if (found := world.agent.reviews.find(item, who)) is not None
        ]
    assert refusals == [SECOND_REVIEWER if wants_second else "", ""]


def test_who_reads_without_a_name_may_be_the_one_who_wrote_it(tmp_path: Path) -> None:
    with World(tmp_path, profiles=Profiles(MailboxProfile(edit_needs_second_reviewer=True))) as world:
        item, _ = replied(world)
        found = world.agent.reviews.find(item, "")
    assert found is not None
    assert found.refusal == ""


def test_what_is_erased_keeps_how_far_an_edit_went_and_no_word_of_it(world: World) -> None:
    item, _ = replied(world)
    edited(world, item)
    erased = world.entry(item.email_id).erased(world.clock())
    assert "two weeks" not in repr(to_row(erased))
    assert [(said.edited_by, said.edit_distance) for said in erased.rejections] == [(ANN, 15)]


# What has moved on


def test_what_is_decided_already_takes_no_word(world: World) -> None:
    item, first = replied(world)
    world.simulator.decide(first, "approve")
    world.agent.reviews.note_decided(item.mailbox_id, first)
    with pytest.raises(ConflictError):
        world.agent.reviews.reject(item, first, ANN, "Late.")
    with pytest.raises(ConflictError):
        world.agent.reviews.edit(item, first, ANN, EDIT)
    with pytest.raises(ConflictError):
        world.agent.reviews.reject(item, "another", ANN, "Late.")


def test_a_row_that_a_worker_has_is_left_alone(world: World) -> None:
    email_id = world.deliver()
    world.poller.poll()
    item = WorkItem(world.box, email_id)
    with pytest.raises(ConflictError, match="working on"):
        world.agent.reviews.put_off(item)
    with pytest.raises(NotFoundError):
        world.agent.reviews.put_off(WorkItem(world.box, "unknown"))
    world.run_until_idle()
    assert world.entry(email_id).outcome is Outcome.REPLY_SUBMITTED


def test_a_word_that_meets_another_write_is_said_again(world: World) -> None:
    item, first = replied(world)
    other = _Interrupted(world.ledger, item, times=2)
    reviews = replace(world.agent.reviews, ledger=other)  # type: ignore[arg-type]  # only what is called
    reviews.reject(item, first, ANN, "Shorter.")
    assert world.entry(item.email_id).review is not None
    other.times = 99
    with pytest.raises(TransientError):
        reviews.put_off(item)


class _Interrupted:
    """A ledger whose row somebody writes between a read and a write, so many times."""

    def __init__(self, ledger: Ledger, item: WorkItem, times: int) -> None:
        self._ledger, self._item, self.times = ledger, item, times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def get(self, item: WorkItem) -> Any:
        entry = self._ledger.get(item)
        if self.times and entry is not None:
            self.times -= 1
            self._ledger.save(entry)
        return entry


# The listing


def test_the_listing_has_drafts_and_escalations_until_they_are_decided_or_done(world: World) -> None:
    world.model.triage["urgency"] = "high"
    draft, reply_id = replied(world)
    world.model.triage |= {"action": "escalate", "urgency": "critical"}
    escalated = world.deliver("I will sue you.", subject="Sue", sender="bo@customer.example")
    world.run_until_idle()
    reviews = world.agent.reviews
    listed = {found.email_id: found for found in reviews.list_items(ANN)}
    assert {(found.kind, found.urgency) for found in listed.values()} == {
        (Kind.DRAFT, "high"),
        (Kind.ESCALATION, "critical"),
    }
    assert listed[draft.email_id].reply_id == reply_id
    assert listed[draft.email_id].draft is None
    reviews.put_off(draft)
    reviews.mark_done(WorkItem(world.box, escalated), ANN)
    [left] = reviews.list_items(ANN)
    assert (left.email_id, left.put_off_at) == (draft.email_id, world.clock())
    with pytest.raises(ConflictError, match="left to people"):
        reviews.mark_done(WorkItem(world.box, escalated), ANN)
    world.simulator.decide(reply_id, "approve")
    reviews.note_decided(world.box, reply_id)
    assert reviews.list_items(ANN) == []
    assert (found := reviews.find(draft, ANN)) is not None
    assert found.kind is Kind.OTHER


def test_what_an_approved_reply_promises_is_listed_until_it_is_done(world: World) -> None:
    world.model.draft["follow_up"] = "A colleague calls on Monday."
    item, reply_id = replied(world)
    world.simulator.decide(reply_id, "approve")
    world.agent.reviews.note_decided(world.box, reply_id)
    [promise] = world.agent.reviews.list_items(ANN)
    assert (promise.kind, promise.promise) == (Kind.PROMISE, "A colleague calls on Monday.")
    world.agent.reviews.mark_done(item, ANN)
    assert world.agent.reviews.list_items(ANN) == []


def test_who_marks_an_email_as_done_is_recorded(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, EVENT_LOGGER)
    world.model.triage["action"] = "escalate"
    email_id = world.deliver()
    world.run_until_idle()
    status, _ = say(world, action="done", mailbox_id=world.box, email_id=email_id, reviewer=ANN)
    assert status == 200
    [closed] = [r.__dict__ for r in caplog.records if r.__dict__.get("agent.event") == MATTER_CLOSED]
    assert (closed["agent.actor"], closed["agent.reviewer"]) == ("reviewer", ANN)


def test_what_the_agent_works_on_is_listed_as_such(world: World) -> None:
    email_id = world.deliver()
    world.poller.poll()
    [found] = world.agent.reviews.list_items(ANN)
    assert (found.email_id, found.kind) == (email_id, Kind.OPEN)


def test_a_long_backlog_is_listed_in_part_and_an_edit_always(world: World) -> None:
    item, first = replied(world)
    world.agent.reviews.edit(item, first, ANN, EDIT)
    world.simulator.decide(first, "reject")
    world.agent.reviews.note_decided(item.mailbox_id, first)
    for number in range(MAX_OPEN + 20):
        world.clock.advance(seconds=1)
        at = world.clock()
        world.ledger.add(LedgerEntry(world.box, f"em_{number}", at, "", None, at))
    listed = world.agent.reviews.list_items(ANN)
    assert [found.email_id for found in listed] == [
        item.email_id, *(f"em_{number}" for number in range(MAX_OPEN + 19, 20, -1))
    ]  # fmt: skip


def test_a_draft_that_is_finished_while_it_is_listed_is_listed_as_a_draft(world: World) -> None:
    email_id = world.deliver()
    world.poller.poll()
    finishing = _Finishing(world)
    reviews = replace(world.agent.reviews, ledger=finishing)  # type: ignore[arg-type]  # only what is called
    [found] = reviews.list_items(ANN)
    assert (found.kind, found.reply_id) == (Kind.DRAFT, reply_of(world, email_id))


class _Finishing:
    """A ledger whose open work is finished after it was listed and before its rows are read."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world.ledger, name)

    def get(self, item: WorkItem) -> Any:
        self._world.run_until_idle()
        return self._world.ledger.get(item)


def test_a_new_draft_is_wanted_at_once_though_the_one_before_was_put_off(world: World) -> None:
    item, first = replied(world)
    world.agent.reviews.put_off(item)
    edited(world, item)
    found = world.agent.reviews.find(item, ANN)
    assert found is not None
    assert (found.put_off_at, found.is_edited) == (None, True)
    [earlier] = found.earlier
    assert (earlier.is_edit, "a colleague will follow up" in earlier.markdown) == (True, True)
    assert first != found.reply_id


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [("a b c", "a b c", 0), ("a b c", "a x c", 2), ("a b", "a b c d", 2), ("", "a", 1), ("a  b", "a\nb", 0)],
)
def test_an_edit_is_measured_in_words(before: str, after: str, words: int) -> None:
    assert count_changed_words(before, after) == words


def test_a_changed_word_stands_beside_the_one_before_it_whatever_lines_come_or_go() -> None:
    before = "Dear Ann,\n\nit takes two weeks.\n  Support\n"
    after = "Dear Ann,\n\nthanks.\nit takes  three weeks.\n  Support\n"
    assert compare_words(before, after) == [
        (Change.SAME, "Dear Ann,\n\n"),
        (Change.NEW, "thanks.\n"),
        (Change.SAME, "it takes  "),
        (Change.OLD, "two "),
        (Change.NEW, "three "),
        (Change.SAME, "weeks.\n"),
        (Change.SAME, "  Support\n"),
    ]


TEXTS = st.text(st.sampled_from("ab \n\r\u2028"), max_size=40)


@given(before=TEXTS, after=TEXTS)
def test_a_comparison_loses_no_character_of_the_newer_text_and_no_word_of_the_older_one(
    before: str, after: str
) -> None:
    runs = compare_words(before, after)
    assert "".join(words for change, words in runs if change is not Change.OLD) == after
    old = [word for change, words in runs if change is not Change.NEW for word in words.split()]
    assert old == before.split()


def count_calls(function: Callable[[], object], limit: int) -> int:
    """How many calls it takes, of Python's own functions too; it is stopped at the limit."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")
        if calls > limit:
            raise OverflowError

    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
    return calls


def table(rows: int, words: str) -> str:
    return "".join(f"| {words} {row} | {row * len(words)} EUR | yes |\n" for row in range(rows))


HARD_PAIRS = {
    "two tables": (table(200, "part"), table(200, "piece")),
    "a table and a shorter one": (table(200, "part"), table(150, "piece")),
    "a word again and again": ("x " * 4_000, "x y " * 2_000),
    "a line again and again": ("x\n" * 4_000, "x\ny\n" * 2_000),
    "another order": (
        " ".join(map(str, range(1_000, 2_600))),
        " ".join(str(1_000 + 7 * n % 1_600) for n in range(1_600)),
    ),
    "many long lines": ("\n".join(["a b " * 40] * 49), "\n".join(["b a c " * 27] * 49)),
}


@pytest.mark.parametrize(("before", "after"), HARD_PAIRS.values(), ids=HARD_PAIRS)
def test_the_work_of_a_comparison_has_a_bound(before: str, after: str) -> None:
    assert max(len(before), len(after)) <= MAX_REPLY_CHARACTERS
    limit = 3 * MAX_STEPS
    assert count_calls(lambda: compare_words(before, after), limit) < limit


def test_a_text_beyond_the_bound_is_new_as_a_whole_but_for_its_ends() -> None:
    before, after = ("x y " * 1_000, "y x z " * 700)
    runs = compare_words(f"Dear Ann, {before}bye.", f"Dear Ann, {after}bye.")
    assert [(change, words.strip()[:9]) for change, words in runs] == [
        (Change.SAME, "Dear Ann,"), (Change.OLD, "x y x y x"), (Change.NEW, "y x z y x"), (Change.SAME, "bye."),
    ]  # fmt: skip


# Over HTTP


def ask(world: World, **params: str) -> tuple[int, Any]:
    return read(answer_review("GET", params, b"", lambda: world.agent.reviews))


def say(world: World, **body: Any) -> tuple[int, Any]:
    return read(answer_review("POST", {}, json.dumps(body).encode(), lambda: world.agent.reviews))


def read(answer: HttpAnswer) -> tuple[int, Any]:
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.status_code, json.loads(answer.body)


def test_the_desk_reads_what_the_agent_knows_and_says_what_a_reviewer_says(world: World) -> None:
    item, first = replied(world)
    ids = {"mailbox_id": item.mailbox_id, "email_id": item.email_id}
    status, shown = ask(world, **ids, reviewer=ANN)
    assert (status, from_plain(ReviewItem, shown)) == (200, world.agent.reviews.find(item, ANN))
    status, listed = ask(world)
    assert (status, [from_plain(ReviewItem, one).email_id for one in listed["items"]]) == (
        200,
        [item.email_id],
    )
    assert say(world, action="put_off", **ids)[0] == 200
    assert say(world, action="edit", **ids, reply_id=first, reviewer=ANN, text=EDIT)[0] == 200
    world.simulator.decide(first, "reject")
    assert say(world, action="decided", **ids, reply_id=first)[0] == 200
    world.run_until_idle()
    second = reply_of(world, item.email_id)
    assert say(world, action="reject", **ids, reply_id=second, reviewer=ANN, text="No.")[0] == 200
    assert say(world, action="done", **ids, reviewer=ANN)[0] == 409  # a draft is decided, not done
    assert status_of(world, second) == "pending_send_approval"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"action": "approve"}, "action"),
        ({"mailbox_id": ""}, "mailbox_id"),
        ({"email_id": "a\nb"}, "email_id"),
        ({"reply_id": None}, "reply_id"),
        ({"reviewer": 7}, "reviewer"),
        ({"text": ["x"]}, "text"),
        ({"text": "\ud800"}, "text"),
        ({"action": "edit", "text": ""}, "text"),
    ],
)
def test_a_request_that_is_none_names_the_field(world: World, changes: dict[str, Any], field: str) -> None:
    item, first = replied(world)
    body = {
        "action": "reject", "mailbox_id": item.mailbox_id, "email_id": item.email_id,
        "reply_id": first, "reviewer": ANN, "text": "",
    }  # fmt: skip
    status, answer = say(world, **(body | changes))
    assert (status, answer["field"]) == (400, field)
    assert world.entry(item.email_id).review is None


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 100_000])
def test_a_body_that_is_no_object_is_refused(world: World, body: bytes) -> None:
    assert answer_review("POST", {}, body, lambda: world.agent.reviews).status_code == 400


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFoundError("no"), 404),
        (ConflictError("no"), 409),
        (ThrottledError("no", retry_after_seconds=7), 503),
        (ConfigurationError("KEY_VAULT_URL is wrong"), 500),
    ],
)
def test_each_failure_has_its_status_and_a_setting_is_named_in_the_log_only(
    error: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)

    def fail() -> Reviews:
        raise error

    answer = answer_review("GET", {}, b"", fail)
    assert answer.status_code == status
    assert "KEY_VAULT_URL" not in answer.body
    assert ("KEY_VAULT_URL" in caplog.text) == (status == 500)
    assert answer.headers.get("Retry-After") == ("7" if status == 503 else None)
