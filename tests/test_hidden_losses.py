"""Stories in which somebody waited unseen, or a reply went to the wrong person, though every step was right."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from local.multimail.faults import Fault, answer_with
from local.testing.world import World
from shared.domain import Cause, Email, Mailbox, WorkItem
from shared.ledger.ledger import Ledger
from shared.ledger.sqlite_store import open_sqlite_ledger
from shared.mail.contact_forms import ContactForm, find_respondent
from shared.profiles.profiles import MailboxProfile, Profiles
from shared.replying.envelope import Addressing, Envelope

FORM = ContactForm("forms@northwind.example", "E-Mail")
TEXT = "Name: Ann Lee\n**E-Mail:** ann@customer.example\nMessage: How long does delivery take?"


@pytest.fixture
def open_world(tmp_path: Path) -> Callable[..., World]:
    def open_it(**profile: Any) -> World:
        return World(tmp_path, profiles=Profiles(MailboxProfile(**profile)))

    return open_it


def settle(world: World) -> None:
    world.clock.advance(minutes=6)
    world.tracker.track()
    world.run_until_idle()


# Replies that ended


def test_an_email_covered_by_a_withdrawn_reply_does_not_wait_for_ever(
    open_world: Callable[..., World],
) -> None:
    with open_world() as world:
        first = world.deliver("Where is my order?")
        world.clock.advance(seconds=1)
        second = world.deliver("It is order 7.", in_reply_to=first)
        world.clock.advance(seconds=1)
        world.simulator.mailboxes[world.box].diverted_to = ("eve@elsewhere.example",)
        world.run_until_idle()
        assert {world.outcome(id_) for id_ in (first, second)} == {"escalated"}
        world.simulator.mailboxes[world.box].diverted_to = ()
        world.ledger.defer(world.entry(first).redriven(world.clock()))
        world.run_until_idle()
        assert world.outcome(first) == "reply_submitted"


def test_an_email_waits_for_the_new_draft_of_the_reply_that_covers_it(
    open_world: Callable[..., World],
) -> None:
    with open_world() as world:
        first = world.deliver("Where is my order?")
        world.run_until_idle()
        world.clock.advance(minutes=6)
        second = world.deliver("It is order 7.", in_reply_to=first)
        world.run_until_idle()
        settle(world)
        reply_id = str(world.entry(second).reply_id)
        world.simulator.set_tags(world.box, reply_id, {"agent.reject_reason": "be nicer"}, "a reviewer")
        world.simulator.decide(reply_id, "reject")
        world.model.draft["reply_markdown"] = "Dear Ann,\n\na better text.\n\nSupport"
        world.clock.advance(minutes=6)
        world.tracker.track()
        world.pipeline.process(WorkItem(world.box, first))
        world.run_until_idle()
        assert world.entry(first).cause is Cause.COVERED
        assert world.outcome(second) == "reply_submitted"


@pytest.mark.parametrize("refused", ["/tags", "/cancel"])
def test_what_is_refused_after_a_reply_was_accepted_does_not_lose_it(
    open_world: Callable[..., World], refused: str
) -> None:
    with open_world() as world:
        first = world.deliver("Where?")
        world.run_until_idle()
        world.clock.advance(minutes=6)
        second = world.deliver("Order 7", in_reply_to=first, cc=["bob@elsewhere.example"])

        def refuse(method: str, path: str, _number: int) -> Fault | None:
            is_meant = method != "GET" and path.endswith(refused) and second not in path
            return answer_with(400) if is_meant else None

        world.simulator.fault = refuse
        world.run_until_idle()
        assert world.outcome(second) == "reply_submitted"
        assert world.entry(second).reply_id in {reply.reply_id for reply in world.ledger.tracked_replies()}


def test_each_thing_that_is_missing_has_an_hour_of_its_own(open_world: Callable[..., World]) -> None:
    with open_world() as world:
        email_id = world.deliver()
        start = world.clock()
        seen: list[str] = []

        def hide(_method: str, path: str, _number: int) -> Fault | None:
            minutes = (world.clock() - start).total_seconds() / 60
            if "/threads/" in path and minutes < 60:
                return answer_with(404)
            if path.endswith(email_id) and minutes >= 60 and not seen:
                seen.append(path)
                return answer_with(404)
            return None

        world.simulator.fault = hide
        world.run_until_idle()
        assert seen
        assert world.outcome(email_id) == "reply_submitted"


# Limits


def test_two_emails_of_a_sender_at_the_same_time_get_no_more_than_the_limit(tmp_path: Path) -> None:
    with World(tmp_path, max_replies_per_sender_per_day=1) as world:
        first, second = world.deliver("one"), world.deliver("two")
        world.poller.poll()
        world.model.steps = [
            lambda: None,
            lambda: world.pipeline.process(WorkItem(world.box, first)),
            lambda: world.pipeline.process(WorkItem(world.box, second)),
        ]
        world.run_until_idle()
        assert sorted(world.outcome(id_) for id_ in (first, second)) == ["escalated", "reply_submitted"]


def test_emails_that_wait_over_midnight_are_counted_once(tmp_path: Path) -> None:
    with World(tmp_path, daily_token_budget=1000, max_sender_token_share=1) as world:
        emails = []
        for day in range(3):
            emails += [world.deliver(f"Question {day}, {number}") for number in range(25)]
            for _ in range(24):
                world.poll_and_work()
                world.clock.advance(minutes=66)
        assert Cause.SENDER_FLOOD not in {world.entry(email_id).cause for email_id in emails}


# Contact forms


@pytest.mark.parametrize(
    "text",
    [
        "E-Mail: ann@customer.example\nE-Mail: x@y.example",
        "Mail - ann@customer.example",
        "E-Mail:\nann@customer.example",
    ],
)
def test_a_named_form_without_one_address_is_never_answered_itself(
    open_world: Callable[..., World], text: str
) -> None:
    with open_world(contact_forms=(FORM,)) as world:
        email_id = world.deliver(text, sender=FORM.sender)
        world.run_until_idle()
        assert world.entry(email_id).cause is Cause.CONTACT_FORM
        assert world.simulator.accepted == []


@pytest.mark.parametrize(
    ("value", "address"),
    [
        (" ann\\_lee@customer.example", "ann_lee@customer.example"),
        ("** *ann@customer.example*", "ann@customer.example"),
        (" _ann@customer.example_", "ann@customer.example"),
        (" &lt;ann@customer.example&gt;", "ann@customer.example"),
        (" [ann@customer.example](mailto:ann@customer.example)", "ann@customer.example"),
        (" [ann@customer.example](mailto:eve@elsewhere.example)", None),
        (" ann,lee@customer.example", None),
        (" ann lee@customer.example", None),
        (" ann\u200blee@customer.example", None),
        (" ann@shop.example\u2011x.example", None),
        (" support+a@northwind.example", None),
        (" no-reply@customer.example", None),
    ],
)
def test_the_whole_value_is_the_address_or_there_is_none(value: str, address: str | None) -> None:
    assert find_respondent(FORM, f"E-Mail:{value}", {"support@northwind.example"}) == address


@pytest.mark.parametrize(
    "text",
    [
        "**E-Mail**\n\nann@customer.example\n\n**Message**\n\nHelp!",
        "メール：ann@customer.example",
        "E-Mail: Ann Lee ann@customer.example",
        "E-Mail = ann@customer.example",
        "| **E-Mail** |\n| ann@customer.example |",
        "E-Mail:\tann@customer.example<br>Message: x",
    ],
)
def test_a_form_from_our_own_address_is_seen_however_it_is_set(
    open_world: Callable[..., World], text: str
) -> None:
    with open_world() as world:
        email_id = world.deliver(text, sender="support@northwind.example")
        world.run_until_idle()
        assert world.entry(email_id).cause is Cause.CONTACT_FORM


@pytest.mark.parametrize(
    "fields", [{"status": "archived"}, {"status": "deleted"}, {"spam_verdict": "flagged"}]
)
def test_a_form_that_a_person_handled_or_that_is_spam_is_not_answered(
    open_world: Callable[..., World], fields: dict[str, Any]
) -> None:
    form = ContactForm("support@northwind.example", "E-Mail")
    with open_world(contact_forms=(form,)) as world:
        world.deliver(TEXT, sender=form.sender, **fields)
        world.run_until_idle()
        assert world.simulator.accepted == []
        assert world.model.requests == []


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return open_sqlite_ledger(tmp_path / "ledger.sqlite", clock=lambda: datetime.now(UTC))


@pytest.mark.parametrize(
    ("headers", "subject"),
    [
        ({"auto-submitted": "auto-generated"}, "New message"),
        ({"x-auto-response-suppress": "All"}, "New message"),
        ({}, "Automatic reply: x"),
    ],
)
def test_a_named_form_is_read_though_a_program_sends_it(
    ledger: Ledger, headers: dict[str, str], subject: str
) -> None:
    ours, now = "support@northwind.example", datetime.now(UTC)
    email = Email("em", FORM.sender, (ours,), subject, "unread", now, TEXT, headers=headers)
    profile = MailboxProfile(contact_forms=(FORM,))
    found = Envelope.read(email, Mailbox("mb", ours, "gated_send"), {ours}, profile, Addressing(ledger))
    assert (found.sender, found.decision) == ("ann@customer.example", None)


def test_people_whose_forms_are_one_thread_are_strangers_to_each_other(
    open_world: Callable[..., World],
) -> None:
    with open_world(contact_forms=(FORM,)) as world:
        first = world.deliver(TEXT, sender=FORM.sender)
        others = [
            world.deliver(TEXT.replace("ann@", f"{n}@"), sender=FORM.sender, in_reply_to=first)
            for n in range(5)
        ]
        world.run_until_idle()
        assert {world.outcome(id_) for id_ in (first, *others)} == {"reply_submitted"}


def test_a_form_s_reply_is_not_found_in_another_row(open_world: Callable[..., World]) -> None:
    with open_world(contact_forms=(FORM,)) as world:
        first = world.deliver(TEXT, sender=FORM.sender)
        world.run_until_idle()
        second = world.deliver(f"{TEXT} And now?", sender=FORM.sender)
        world.simulator.fault = lambda _method, path, _n: answer_with(400) if path.endswith("/send") else None
        world.run_until_idle()
        assert world.entry(first).reply_id != world.entry(second).reply_id
        assert world.outcome(second) == "needs_human"


# Addressees


@pytest.mark.parametrize(
    "to", ["support+orders@northwind.example", "support@northwind.example, karl@other.example"]
)
def test_what_may_be_for_us_is_not_taken_for_mail_to_others(
    open_world: Callable[..., World], to: str
) -> None:
    with open_world(not_addressed="ignore") as world:
        email_id = world.deliver(to=[to], cc=["karl@other.example"])
        world.run_until_idle()
        assert world.outcome(email_id) == "reply_submitted"


def test_nothing_is_ignored_while_nobody_knows_whether_mail_is_forwarded(
    open_world: Callable[..., World],
) -> None:
    with open_world(not_addressed="ignore") as world:
        emails = [world.deliver(to=["info@shop.example"], sender=f"{n}@customer.example") for n in range(22)]
        world.run_until_idle()
        assert {world.outcome(email_id) for email_id in emails} == {"escalated", "reply_submitted"}


def test_machines_ours_and_crowds_are_never_in_copy(open_world: Callable[..., World]) -> None:
    with open_world(reply_all=("northwind.example", "customer.example", "xn--bcher-kva.example")) as world:
        copies = [
            "Support+tickets@northwind.example", "no-reply@customer.example", "ann+x@customer.example",
            "BOB@customer.example", "eva@bücher.example",
        ]  # fmt: skip
        world.deliver(cc=copies)
        crowd = [f"{n}@customer.example" for n in range(50)]
        world.deliver("And this?", sender="carl@customer.example", cc=crowd)
        world.run_until_idle()
        sent = sorted(post.get("cc", []) for post in world.posts())
        assert sent == [[], ["bob@customer.example", "eva@xn--bcher-kva.example"]]


def test_an_international_mailbox_is_ours_in_both_spellings(open_world: Callable[..., World]) -> None:
    with open_world(not_addressed="ignore") as world:
        box = world.simulator.add_mailbox("support@müller.example")
        email_id = world.deliver(to=["support@xn--mller-kva.example"], box=box)
        world.run_until_idle()
        assert world.outcome(email_id) == "reply_submitted"
