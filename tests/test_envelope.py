"""Whom an email is addressed to, who stays in copy, and who filled in a contact form."""

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from local.testing.world import World
from shared.domain import Cause, Email, Mailbox
from shared.mail.addressees import build_notes
from shared.mail.contact_forms import ContactForm, find_respondent, looks_like_form
from shared.profiles.profiles import MailboxProfile, Profiles
from shared.replying.envelope import FIRST_EMAILS

FORM = ContactForm("forms@northwind.example", "E-Mail")
FORM_TEXT = "Name: Ann Lee\n**E-Mail:** ann@customer.example\nMessage: How long does delivery take?"

Open = Callable[..., World]


@pytest.fixture
def open_world(tmp_path: Path) -> Open:
    return lambda **profile: World(tmp_path, profiles=Profiles(MailboxProfile(**profile)))


def ended(world: World, email_id: str) -> tuple[str, Cause | None]:
    return world.outcome(email_id), world.entry(email_id).cause


# Addressees


@pytest.mark.parametrize(("choice", "outcome"), [("escalate", "escalated"), ("ignore", "ignored")])
def test_mail_to_others_is_not_answered_in_our_name(open_world: Open, choice: str, outcome: str) -> None:
    with open_world(not_addressed=choice, addresses=("help@northwind.example",)) as world:
        email_id = world.deliver("Hi Karl, the contract?", to=["Karl <karl@other.example>"])
        world.run_until_idle()
        assert ended(world, email_id) == (outcome, Cause.NOT_ADDRESSED)


@pytest.mark.parametrize("field", ["to", "cc"])
def test_our_addresses_are_those_of_all_mailboxes_and_of_the_profile(open_world: Open, field: str) -> None:
    with open_world(addresses=("help@northwind.example",)) as world:
        world.simulator.add_mailbox("sales@northwind.example")
        named: dict[str, Any] = {"to": ["karl@other.example"]}
        emails = [
            world.deliver(sender=f"{n}@customer.example", **named | {field: [ours]})
            for n, ours in enumerate(["Help <HELP@northwind.example>", "sales@northwind.example"])
        ]
        world.run_until_idle()
        assert {world.outcome(email_id) for email_id in emails} == {"reply_submitted"}


def test_a_mailbox_that_mail_is_forwarded_to_is_told_of_once(
    open_world: Open, caplog: pytest.LogCaptureFixture
) -> None:
    with open_world() as world, caplog.at_level(logging.WARNING):
        emails = []
        for number in range(FIRST_EMAILS + 3):
            to = ["info@shop.example"] if number % 3 else []
            emails.append(world.deliver(to=to, sender=f"{number}@customer.example"))
            world.run_until_idle()
        outcomes = [world.outcome(email_id) for email_id in emails]
        assert outcomes[1] == "escalated"
        assert outcomes[FIRST_EMAILS:] == ["reply_submitted"] * 3
        assert sum("`addresses`" in record.message for record in caplog.records) == 1


def test_triage_sees_who_is_addressed(open_world: Open) -> None:
    with open_world() as world:
        world.deliver(to=["support@northwind.example"], cc=["Karl <karl@other.example>"])
        world.run_until_idle()
        assert "To: support@northwind.example" in world.model.requests[0].user
        assert "karl@other.example" in world.model.requests[0].user


def test_people_of_chosen_domains_stay_in_copy_and_the_approver_sees_everybody(open_world: Open) -> None:
    with open_world(reply_all=("customer.example",)) as world:
        world.simulator.mailboxes[world.box].auto_bcc = "audit@northwind.example"
        email_id = world.deliver(cc=["Bob <bob@customer.example>", "eve@elsewhere.example"])
        world.run_until_idle()
        assert world.posts()[0]["cc"] == ["bob@customer.example"]
        note = world.tags(str(world.entry(email_id).reply_id))["agent.note"]
        assert all(name in note for name in ("bob@customer", "eve@elsewhere", "audit@northwind"))


def test_somebody_in_copy_whose_mail_bypasses_approval_is_refused(open_world: Open) -> None:
    with open_world(reply_all=("customer.example",)) as world:
        world.simulator.allow(world.box, "bob@customer.example")
        email_id = world.deliver(cc=["bob@customer.example"])
        world.run_until_idle()
        assert ended(world, email_id) == ("blocked_ungated", Cause.ALLOWLISTED)


def test_nobody_is_in_copy_unless_the_profile_says_so(open_world: Open) -> None:
    with open_world() as world:
        world.deliver(cc=["bob@customer.example"])
        world.run_until_idle()
        assert "cc" not in world.posts()[0]


def test_an_address_for_replies_that_differs_is_shown_to_the_approver() -> None:
    now = datetime(2026, 3, 2, tzinfo=UTC)
    ours, ann = "support@northwind.example", "ann@customer.example"
    email = Email("em", ann, (ours,), "x", "unread", now, "Hi", headers={"reply-to": "eve@elsewhere.example"})
    (note,) = build_notes(email, Mailbox("mb", ours, "gated_send"), ())
    assert "eve@elsewhere.example" in note
    assert build_notes(replace(email, headers={"reply-to": ann}), Mailbox("mb", ours, "gated_send"), ()) == ()


@pytest.mark.parametrize(
    "reply_to",
    [
        "eve@elsewhere.example, ann@customer.example", "Team: ann@customer.example, eve@x.example;",
        "Eve @ elsewhere <ann@customer.example>", "eve@elsewhere (<ann@customer.example>) .example",
    ],
)  # fmt: skip
def test_several_addresses_for_replies_are_told_to_the_approver(reply_to: str) -> None:
    now = datetime(2026, 3, 2, tzinfo=UTC)
    ours, ann = "support@northwind.example", "ann@customer.example"
    email = Email("em", ann, (ours,), "x", "unread", now, "Hi", headers={"reply-to": reply_to})
    assert build_notes(email, Mailbox("mb", ours, "gated_send"), ()) == (
        "The email asks for replies to several addresses, or to one that cannot be read",
    )


# Contact forms


@pytest.mark.parametrize("sender", ["support@northwind.example", "no-reply@forms.example"])
def test_a_form_that_no_profile_names_is_escalated_with_a_proposed_answer(
    open_world: Open, sender: str
) -> None:
    with open_world() as world:
        email_id = world.deliver(FORM_TEXT, sender=sender)
        world.run_until_idle()
        assert ended(world, email_id) == ("escalated", Cause.CONTACT_FORM)
        assert world.tags(email_id)["agent.proposed_reply"].startswith("Dear Ann")
        assert world.simulator.accepted == []


def test_a_form_that_the_profile_names_is_answered_to_who_filled_it_in(open_world: Open) -> None:
    with open_world(contact_forms=(FORM,)) as world:
        email_id = world.deliver(FORM_TEXT, sender=FORM.sender)
        world.run_until_idle()
        assert ended(world, email_id) == ("reply_submitted", Cause.TRIAGED)
        reply = world.simulator.find_email(str(world.entry(email_id).reply_id))
        assert reply is not None
        assert (reply.to, reply.status) == (("ann@customer.example",), "pending_send_approval")
        assert "contact form" in reply.tags["agent.note"]


def test_a_form_counts_under_the_limits_of_who_filled_it_in(tmp_path: Path) -> None:
    profiles = Profiles(MailboxProfile(contact_forms=(FORM,)))
    with World(tmp_path, profiles=profiles, max_replies_per_sender_per_day=2) as world:
        emails = [world.deliver(f"{FORM_TEXT} {n}", sender=FORM.sender) for n in range(3)]
        world.run_until_idle()
        assert sorted(world.outcome(e) for e in emails) == ["escalated", "reply_submitted", "reply_submitted"]


@pytest.mark.parametrize(
    "text",
    [
        "Message: write to me",
        "E-Mail: ann@customer.example\nE-Mail: eve@elsewhere.example",
        "E-Mail: ann@customer.example, eve@elsewhere.example",
        "E-Mail: support@northwind.example",
        "Message: my E-Mail: ann@customer.example",
    ],
)
def test_only_one_address_on_the_one_labelled_line_is_taken(text: str) -> None:
    assert find_respondent(FORM, text, {"support@northwind.example"}) is None


@pytest.mark.parametrize(
    ("text", "is_form"),
    [
        ("Email: ann@customer.example", True),
        ("| E-Mail | ann@customer.example |", True),
        ("**From:** Ann <ann@customer.example>", True),
        ("Your parcel is on its way.", False),
        ("Questions? Write to: us at help@shop.example today", False),
    ],
)
def test_a_form_is_told_by_a_labelled_address(text: str, is_form: bool) -> None:
    assert looks_like_form(text, "no-reply@forms.example", set()) is is_form
