"""The stories that the faults strike, and how each has to end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from shared.errors import ContentFilteredError, PermanentError
from shared.replying.reporting import REJECT_REASON_TAG
from tests.chaos.stage import Stage, Story

REPLIED, SKIPPED, ESCALATED = "reply_submitted", "skipped", "escalated"
SOON = timedelta(seconds=1)  # long enough for one round


@dataclass(frozen=True, slots=True)
class Scenario:
    """A story with the outcomes that each of its emails may have, and how many replies end alive.

    `ends`: by email, the settled status of its reply; the rows that are not named are never settled.
    """

    story: Callable[[Stage], Story]
    outcomes: Mapping[str, tuple[str, ...]]
    live: tuple[int, ...] = (0,)
    ends: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The story's name in words."""
        return self.story.__name__.replace("_", " ")


def question(stage: Stage) -> Story:
    stage.deliver("question")
    yield None


def machine_mail(stage: Stage) -> Story:
    stage.deliver("bounce", sender="mailer-daemon@northwind.example", asks=False)
    yield None


def ignored_mail(stage: Stage) -> Story:
    stage.model.triage["action"] = "ignore"
    stage.deliver("offer")
    yield None


def escalated_mail(stage: Stage) -> Story:
    stage.model.triage["action"] = "escalate"
    stage.deliver("threat")
    yield None


def ungated_mailbox(stage: Stage) -> Story:
    stage.simulator.set_mode(stage.box, "autonomous")
    stage.deliver("question")
    yield None


def mailbox_opened_while_drafting(stage: Stage) -> Story:
    stage.at_first_draft(lambda: stage.open_mailbox(stage.box))
    stage.deliver("question")
    yield None


def allowlisted_recipient(stage: Stage) -> Story:
    stage.simulator.allow(stage.box, "*@customer.example")
    stage.deliver("question")
    yield None


def thread_with_history(stage: Stage) -> Story:
    hour = timedelta(hours=1)
    for label, hours in (("first", 4), ("second", 2)):
        earlier = {"answers": "first"} if label == "second" else {}
        stage.deliver(label, received_at=stage.clock() - hours * hour, **earlier)
        email = stage.simulator.find_email(stage.inbound[label])
        assert email is not None
        stage.simulator.add_outbound(
            stage.box, ["ann@customer.example"], "Re: Delivery time", "Two weeks.",
            thread_id=email.thread_id, received_at=stage.clock() - (hours - 1) * hour,
        )  # fmt: skip
    stage.deliver("third", "And to France?", answers="first")
    yield None


def two_emails_waiting_together(stage: Stage) -> Story:
    stage.deliver("first")
    stage.clock.advance(minutes=1)
    stage.deliver("second", "One more thing", answers="first")
    stage.clock.advance(minutes=1)
    yield None


def follow_up_while_the_reply_is_pending(stage: Stage) -> Story:
    stage.deliver("first")
    yield None
    stage.clock.advance(minutes=5)
    stage.deliver("second", "One more thing", answers="first")
    yield None


def follow_up_while_the_draft_is_written(stage: Stage) -> Story:
    stage.at_first_draft(lambda: stage.deliver("second", "One more thing", answers="first"))
    stage.deliver("first")
    yield None
    yield None


def refused_prompt(stage: Stage) -> Story:
    stage.model.steps = [ContentFilteredError("refused", categories=["indirect_attack"])] * 20
    stage.deliver("attack")
    yield None


def model_that_cannot(stage: Stage) -> Story:
    stage.model.steps = [PermanentError("the model answered 400")] * 20
    stage.deliver("question")
    yield None


def draft_that_fails_a_check(stage: Stage) -> Story:
    stage.model.draft["reply_markdown"] = "Log in at https://evil.example/now"
    stage.deliver("question")
    yield None


def inbound_approval_released_late(stage: Stage) -> Story:
    stage.simulator.set_mode(stage.box, "gated_all")
    stage.deliver("question")
    yield timedelta(minutes=40)
    decide(stage, "approve")
    if stage.simulator.find_email(stage.inbound["question"]) is not None:
        stage.simulator.mark_read(stage.inbound["question"])
    yield None


def human_answers_after_the_first_round(stage: Stage) -> Story:
    stage.deliver("question")
    yield SOON
    stage.answer(stage.inbound["question"])
    yield None


def human_answers_while_the_draft_is_written(stage: Stage) -> Story:
    stage.at_first_draft(lambda: stage.answer(stage.inbound["question"]))
    stage.deliver("question", received_at=stage.clock() - timedelta(minutes=5))
    yield None


def human_decides_after_the_first_round(stage: Stage) -> Story:
    stage.deliver("question")
    yield SOON
    decide(stage, "approve")
    yield None


def inbound_approval_released_after_days(stage: Stage) -> Story:
    with stage.seams.resting():
        yield None
    stage.simulator.set_mode(stage.box, "gated_all")
    stage.deliver("question")
    yield SOON
    stage.clock.advance(hours=88)
    decide(stage, "approve")
    yield None


def agent_stands_still_for_days(stage: Stage) -> Story:
    with stage.seams.resting():
        yield None
    stage.deliver("question")
    stage.clock.advance(hours=100)
    yield None


def ungated_replies_are_allowed(stage: Stage) -> Story:
    stage.simulator.set_mode(stage.box, "autonomous")
    stage.deliver("question")
    yield None


def human_answers_while_the_reply_waits(stage: Stage) -> Story:
    with stage.seams.resting():
        stage.deliver("question")
        yield None
    stage.answer(stage.inbound["question"])
    yield "replies settled"
    yield None


def thread_at_its_limit(stage: Stage) -> Story:
    stage.deliver("first")
    yield None
    stage.clock.advance(minutes=5)
    stage.deliver("second", "And again?", answers="first")
    yield None


def sender_at_the_limit(stage: Stage) -> Story:
    stage.deliver("first")
    stage.deliver("second", "Another question", subject="Returns")
    yield None


def several_mailboxes(stage: Stage) -> Story:
    sales = stage.simulator.add_mailbox("sales@northwind.example", "gated_all")
    loose = stage.simulator.add_mailbox("loose@northwind.example", "autonomous")
    stage.deliver("support")
    stage.deliver("sales", box=sales, sender="bob@customer.example", status="unread")
    stage.deliver("loose", box=loose, sender="cy@customer.example")
    yield None


def reply_is_approved(stage: Stage) -> Story:
    stage.deliver("question")
    yield None
    decide(stage, "approve")
    yield "replies settled"


def reply_waits_and_is_rejected(stage: Stage) -> Story:
    with stage.seams.resting():
        stage.deliver("question")
        yield None
    stage.clock.advance(minutes=5)
    stage.track()
    decide(stage, "reject")
    yield "replies settled"
    yield None


def reply_to_two_emails_is_rejected(stage: Stage) -> Story:
    with stage.seams.resting():
        yield from two_emails_waiting_together(stage)
    decide(stage, "reject")
    yield "replies settled"
    yield None


def email_after_a_rejected_reply(stage: Stage) -> Story:
    with stage.seams.resting():
        stage.deliver("first")
        yield None
        decide(stage, "reject")
        yield "replies settled"
        yield None
    stage.deliver("second", "And to France?", answers="first")
    yield None


def follow_ups_before_anybody_decides(stage: Stage) -> Story:
    with stage.seams.resting():
        yield from follow_up_while_the_reply_is_pending(stage)
    stage.clock.advance(minutes=5)
    stage.deliver("third", "And to France?", answers="second")
    yield None


def reply_bounces(stage: Stage) -> Story:
    with stage.seams.resting():
        stage.simulator.refuse_delivery("ann@customer.example")
        stage.deliver("question")
        yield None
    decide(stage, "approve")
    yield "replies settled"
    yield None


def reply_is_cancelled_for_a_newer_one(stage: Stage) -> Story:
    with stage.seams.resting():
        yield from follow_up_while_the_reply_is_pending(stage)
    decide(stage, "approve")
    yield "replies settled"


def reply_is_drafted_anew(stage: Stage) -> Story:
    with stage.seams.resting():
        stage.deliver("question")
        yield None
    for email in stage.simulator.list_awaiting_decision():
        stage.simulator.set_tags(email.mailbox_id, email.id, {REJECT_REASON_TAG: "Shorter."}, "reviewer")
    decide(stage, "reject")
    yield "replies settled"
    yield None
    with stage.seams.resting():
        decide(stage, "approve")
        yield "replies settled"


def decide(stage: Stage, decision: str) -> None:
    """Decide about everything that waits."""
    for email in stage.simulator.list_awaiting_decision():
        stage.simulator.decide(email.id, decision)


SCENARIOS = (
    Scenario(question, {"question": (REPLIED,)}, (1,)),
    Scenario(machine_mail, {"bounce": (SKIPPED,)}),
    Scenario(ignored_mail, {"offer": ("ignored",)}),
    Scenario(escalated_mail, {"threat": (ESCALATED,)}),
    Scenario(ungated_mailbox, {"question": ("blocked_ungated",)}),
    Scenario(mailbox_opened_while_drafting, {"question": ("blocked_ungated",)}),
    Scenario(allowlisted_recipient, {"question": ("blocked_ungated",)}),
    Scenario(thread_with_history, {"first": (SKIPPED,), "second": (SKIPPED,), "third": (REPLIED,)}, (1,)),
    Scenario(
        two_emails_waiting_together, {"first": (REPLIED, SKIPPED), "second": (REPLIED, SKIPPED)}, (1,)
    ),
    Scenario(
        follow_up_while_the_reply_is_pending, {"first": (SKIPPED,), "second": (REPLIED,)}, (1,)
    ),
    Scenario(
        follow_up_while_the_draft_is_written, {"first": (REPLIED, SKIPPED), "second": (REPLIED, SKIPPED)}, (1,)
    ),
    Scenario(refused_prompt, {"attack": ("blocked_content_safety",)}),
    Scenario(model_that_cannot, {"question": ("failed",)}),
    Scenario(draft_that_fails_a_check, {"question": (ESCALATED,)}),
    Scenario(inbound_approval_released_late, {"question": (REPLIED,)}, (1,)),
    Scenario(human_answers_after_the_first_round, {"question": (REPLIED, SKIPPED)}, (0, 1)),
    Scenario(human_answers_while_the_draft_is_written, {"question": (REPLIED, SKIPPED)}, (0, 1)),
    Scenario(human_decides_after_the_first_round, {"question": (REPLIED,)}, (1,)),
    # Who had not seen it wait for its release counts its age from its arrival.
    Scenario(inbound_approval_released_after_days, {"question": (REPLIED, ESCALATED)}, (0, 1)),
    Scenario(agent_stands_still_for_days, {"question": (ESCALATED,)}),
    Scenario(ungated_replies_are_allowed, {"question": (REPLIED,)}, (1,), settings={"allow_ungated_replies": True}),
    Scenario(human_answers_while_the_reply_waits, {"question": (SKIPPED,)}),
    Scenario(
        thread_at_its_limit, {"first": (REPLIED,), "second": (ESCALATED,)}, (1,), settings={"max_replies_per_thread": 1},
    ),
    Scenario(
        sender_at_the_limit, {"first": (REPLIED, ESCALATED), "second": (REPLIED, ESCALATED)}, (1,),
        settings={"max_replies_per_sender_per_day": 1},
    ),
    Scenario(
        several_mailboxes,
        {"support": (REPLIED,), "sales": (REPLIED,), "loose": ("blocked_ungated",)},
        (2,),
    ),
    Scenario(reply_is_approved, {"question": (REPLIED,)}, (1,), {"question": "delivered"}),
    Scenario(reply_waits_and_is_rejected, {"question": (ESCALATED,)}, (0,), {"question": "rejected"}),
    Scenario(reply_bounces, {"question": (ESCALATED,)}, (1,), {"question": "bounced"}),
    Scenario(reply_is_drafted_anew, {"question": (REPLIED,)}, (1,), {"question": "delivered"}),
    Scenario(reply_to_two_emails_is_rejected, {"first": (ESCALATED,), "second": (ESCALATED,)}),
    Scenario(
        email_after_a_rejected_reply, {"first": (ESCALATED,), "second": (REPLIED,)}, (1,), settings={"max_replies_per_thread": 1},
    ),
    Scenario(
        follow_ups_before_anybody_decides, {"first": (SKIPPED,), "second": (SKIPPED,), "third": (REPLIED,)}, (1,),
        settings={"max_replies_per_thread": 2},
    ),
    Scenario(
        reply_is_cancelled_for_a_newer_one, {"first": (SKIPPED,), "second": (REPLIED,)}, (1,),
        {"first": "cancelled", "second": "delivered"},
    ),
)  # fmt: skip
