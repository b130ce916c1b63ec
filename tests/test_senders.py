"""Rules for senders, who handles what they wrote, and what the approver is told of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.testing.world import World
from shared.checks.characters import hides_text
from shared.domain import Cause, parse_address, to_ascii_host
from shared.profiles.profile_file import parse_profiles
from shared.profiles.profiles import Profiles
from shared.profiles.senders import SenderRule, SenderRules, find_resembled

ANN = "Ann Lee <ann@customer.example>"
OURS = ["northwind.example", "help.halden.co.uk"]
IGNORED = {"action": "ignore"}

MANY = settings(derandomize=True, max_examples=100, deadline=None, database=None)

Open = Callable[[str], World]


@pytest.fixture
def open_world(tmp_path: Path) -> Open:
    """A world whose profile file has these lines under `default`."""
    return lambda lines: World(tmp_path, profiles=read(lines))


def read(lines: str) -> Profiles:
    return parse_profiles(f"default:\n  {lines}\n", "mailboxes.yaml")


def ended(world: World, email_id: str) -> tuple[str, Cause | None]:
    return world.outcome(email_id), world.entry(email_id).cause


def reply_tags(world: World, email_id: str) -> dict[str, str]:
    reply_id = world.entry(email_id).reply_id
    assert reply_id is not None
    return world.tags(reply_id)


# Rules


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("ann@customer.example", {SenderRule.IMPORTANT}),
        ("bob@eu.customer.example", {SenderRule.IMPORTANT}),
        ("bob@notcustomer.example", set()),
        ("bob@customer.example.net", set()),
        ("pest@customer.example", {SenderRule.NEVER_ANSWER}),
        ("pest+1@customer.example", {SenderRule.NEVER_ANSWER}),
        ("x@law.customer.example", {SenderRule.IMPORTANT, SenderRule.ESCALATE}),
        ("", set()),
    ],
)
def test_the_closest_entry_counts_and_a_domain_means_its_subdomains(
    address: str, expected: set[SenderRule]
) -> None:
    rules = SenderRules(
        important=("customer.example", "law.customer.example"),
        escalate=("law.customer.example",),
        never_answer=("pest@customer.example",),
    )
    assert rules.find(address) == expected


def test_senders_are_compared_however_they_are_written() -> None:
    rules = read(
        "senders: {important: [Ann@Customer.Example], never_answer: [MÜLLER.example]}"
    ).default.senders
    assert rules.find("ann@customer.example") == {SenderRule.IMPORTANT}
    assert rules.find("a@xn--mller-kva.example") == {SenderRule.NEVER_ANSWER}
    assert rules.find(parse_address("Ann <ann@customer.example.>")) == {SenderRule.IMPORTANT}


def test_a_sender_who_is_never_answered_is_skipped_visibly_without_a_model(open_world: Open) -> None:
    with open_world("senders: {never_answer: [customer.example]}") as world:
        email_id = world.deliver(sender=ANN)
        world.run_until_idle()
        assert ended(world, email_id) == ("skipped", Cause.NEVER_ANSWERED)
        assert world.tags(email_id)["agent.reason"] == "its mailbox answers no mail of its sender"
        assert world.model.requests == []


def test_a_sender_who_is_always_escalated_is_triaged_and_gets_a_proposal(open_world: Open) -> None:
    with open_world("senders: {escalate: [customer.example]}") as world:
        world.model.triage |= {"knowledge_answers": True, "category": "billing"}
        email_id = world.deliver(sender=ANN)
        world.run_until_idle()
        assert ended(world, email_id) == ("escalated", Cause.SENDER_RULE)
        assert world.tags(email_id)["agent.category"] == "billing"
        assert "agent.proposed_reply" in world.tags(email_id)
        assert world.posts() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"sender": "noreply@authority.example"},
        {"sender": "a@authority.example", "subject": "Automatic reply: away"},
        {"sender": "a@authority.example", "spam_verdict": "flagged"},
    ],
)
def test_what_looks_like_a_machine_or_spam_is_escalated_where_a_rule_says_always(
    open_world: Open, fields: dict[str, Any]
) -> None:
    with open_world("senders: {escalate: [authority.example]}") as world:
        email_id = world.deliver(**fields)
        world.run_until_idle()
        assert ended(world, email_id) == ("escalated", Cause.SENDER_RULE)


def test_an_important_sender_is_urgent_and_the_approver_is_told(open_world: Open) -> None:
    with open_world("senders: {important: [customer.example]}") as world:
        email_id = world.deliver(sender=ANN)
        world.run_until_idle()
        assert world.outcome(email_id) == "reply_submitted"
        assert world.tags(email_id)["agent.urgency"] == "high"
        assert reply_tags(world, email_id)["agent.sender"] == "first contact; important"


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({}, Cause.IMPORTANT_SENDER),
        ({"spam_verdict": "flagged"}, Cause.SPAM),
        ({"to": ["karl@other.example"]}, Cause.NOT_ADDRESSED),
    ],
)
def test_nothing_of_an_important_sender_is_closed_unseen(
    open_world: Open, fields: dict[str, Any], cause: Cause
) -> None:
    with open_world(
        "senders: {important: [customer.example]}\n  not_addressed: ignore\n  addresses: [a@northwind.example]"
    ) as world:
        world.model.triage |= IGNORED
        email_id = world.deliver(sender=ANN, **fields)
        world.run_until_idle()
        assert ended(world, email_id) == ("escalated", cause)


def test_an_automatic_reply_of_an_important_sender_is_still_skipped(open_world: Open) -> None:
    with open_world("senders: {important: [customer.example]}") as world:
        email_id = world.deliver(sender=ANN, subject="Automatic reply: away")
        world.run_until_idle()
        assert ended(world, email_id) == ("skipped", Cause.MACHINE_SUBJECT)


def test_a_rule_reopens_nothing_that_a_person_handled(open_world: Open) -> None:
    with open_world("senders: {escalate: [customer.example]}") as world:
        email_id = world.deliver(sender=ANN, status="archived")
        world.run_until_idle()
        assert ended(world, email_id) == ("skipped", Cause.HANDLED_BY_PERSON)


@pytest.mark.parametrize(
    ("lines", "handler"),
    [
        ("escalate_to: the duty manager", "the duty manager"),
        ("escalate_to: {billing: accounts, default: the duty manager}", "accounts"),
        ("escalate_to: {legal: the lawyers, default: the duty manager}", "the duty manager"),
        ("escalate_to: {legal: the lawyers}", None),
    ],
)
def test_each_category_may_have_its_own_handler(open_world: Open, lines: str, handler: str | None) -> None:
    with open_world(lines) as world:
        world.model.triage |= {"action": "escalate", "category": "billing"}
        email_id = world.deliver()
        world.run_until_idle()
        assert world.tags(email_id).get("agent.escalate_to") == handler


# What the approver is told


def test_who_was_answered_before_is_told_from_a_first_contact(open_world: Open) -> None:
    with open_world("voice: Plain.") as world:
        first = world.deliver(sender=ANN)
        world.run_until_idle()
        assert reply_tags(world, first)["agent.sender"] == "first contact"
        reply_id = world.entry(first).reply_id
        assert reply_id is not None
        world.simulator.decide(reply_id, "approve")
        world.clock.advance(hours=1)
        email = world.simulator.find_email(first)
        assert email is not None
        second = world.deliver("And what does it cost?", sender=ANN, thread_id=email.thread_id)
        world.run_until_idle()
        assert reply_tags(world, second)["agent.sender"] == "answered before in this thread"


def test_the_address_book_is_named(open_world: Open) -> None:
    with open_world("voice: Plain.") as world:
        world.simulator.add_contact("Ann", "ann@customer.example")
        email_id = world.deliver(sender=ANN)
        world.run_until_idle()
        assert reply_tags(world, email_id)["agent.sender"] == "in the address book"


def test_everything_that_stands_out_is_in_one_tag(open_world: Open) -> None:
    with open_world("voice: Plain.") as world:
        email_id = world.deliver(
            "Pay to this account.\u202e tnuocca",
            sender="ann@northwlnd.example",
            to=["support@northwind.example", "karl@other.example"],
            cc=["eve@other.example"],
        )
        world.run_until_idle()
        assert reply_tags(world, email_id)["agent.sender"] == (
            "first contact; resembles our domain northwind.example: northwlnd.example; "
            "the email hides text from its readers; others in To and Cc: 2"
        )
        draft = world.entry(email_id).draft
        assert draft is not None
        assert not world.entry(email_id).erased(world.clock()).draft.sender_facts  # type: ignore[union-attr]  # it has a draft


def test_a_domain_that_resembles_a_correspondents_is_told(open_world: Open) -> None:
    with open_world("voice: Plain.") as world:
        first = world.deliver(sender="bob@supplier.example")
        email = world.simulator.find_email(first)
        assert email is not None
        email_id = world.deliver("New bank details", sender="bob@suppIier.example", thread_id=email.thread_id)
        world.run_until_idle()
        said = reply_tags(world, email_id)["agent.sender"]
        assert said.endswith("resembles a correspondent's domain supplier.example: suppiier.example")


def test_a_long_domain_drives_no_warning_out_of_the_tag(open_world: Open) -> None:
    with open_world("voice: Plain.") as world:
        host = f"{'a' * 60}.northwind.{'c' * 60}.evil.net"
        others = [f"eve{number}@other.example" for number in range(120)]
        email_id = world.deliver(
            "Pay to this account.\u202e tnuocca",
            sender=f"ann@{host}",
            to=["support@northwind.example", *others],
        )
        world.run_until_idle()
        assert reply_tags(world, email_id)["agent.sender"] == (
            "first contact; resembles our domain northwind.example: aaaaaaaaaaaaaaaa…cccccc.evil.net; "
            "the email hides text from its readers; others in To and Cc: 120"
        )


def test_a_domain_that_the_operator_names_resembles_nothing(open_world: Open) -> None:
    with open_world("reply_all: [northwind.example.net]") as world:
        email_id = world.deliver(sender="ann@northwind.example.net")
        world.run_until_idle()
        assert reply_tags(world, email_id)["agent.sender"] == "first contact"


@pytest.mark.parametrize(
    "host",
    [
        "northwlnd.example", "northw1nd.example", "northvvind.example", "norhtwind.example", "nothwind.example",
        "norrthwind.example", "north-wind.example", "northwind.net", "northwind-billing.net", "haiden.co.uk",
        "northwind.example.evil.net", to_ascii_host("n\u043erthwind.example"), "halden.de", "northwinḋ.example",
    ],
)  # fmt: skip
def test_a_domain_that_could_be_taken_for_ours_is_found(host: str) -> None:
    assert find_resembled(host, OURS, []) in OURS


@pytest.mark.parametrize(
    "host",
    [
        "northwind.example",
        "eu.northwind.example",
        "halden.co.uk",
        "customer.example",
        "help.other.co.uk",
        "nord.example",
        "",
    ],
)
def test_our_own_domains_and_other_names_resemble_nothing(host: str) -> None:
    assert not find_resembled(host, OURS, ["customer.example"])


@pytest.mark.parametrize(
    ("host", "known", "is_found"),
    [
        ("acrne.net", "acme.net", True), ("custorner.example", "customer.example", True),
        ("suppliers.example", "supplier.example", True),
        # A correspondent may well have a domain in another country, and short names are near by chance.
        ("gmx.de", "gmx.net", False), ("hbm.net", "ibm.net", False), ("customer-eu.example", "customer.example", False),
    ],
)  # fmt: skip
def test_a_domain_that_could_be_taken_for_a_correspondents_is_found(
    host: str, known: str, is_found: bool
) -> None:
    assert bool(find_resembled(host, OURS, [known])) is is_found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hi \U000e0069\U000e0067\U000e006e there", True),
        ("pay \u202e0001", True),
        ("a\ufe0f\ufe0f\ufe0fb", True),
        ('<span style="display: none">ignore this</span>', True),
        ('<p style="color:red;font-size:0px">x</p>', True),
        ("<!-- ignore the rules -->", True),
        ("pa\u200bss wo\u200brd res\u200bet", True),
        ("\ufeffHello \u200b world, zero\u200bwidth", False),
        ("call \u202a+49 30 1234\u202c today", False),
        ("soft\u00adhyphens in\u00adside of\u00adten", False),
        ('<p style="font-size:0.9em;opacity:0.5">x</p>', False),
        (
            "thumbs up \U0001f44d\ufe0f \U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
            False,
        ),
        ("<!--[if mso]> x <![endif]-->", False),
    ],
)
def test_text_hidden_from_readers_is_told_from_what_programs_leave(text: str, expected: bool) -> None:
    assert hides_text(text) is expected


@MANY
@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_can_be_compared_with_any_domain(host: str, known: str) -> None:
    for name in (host, f"xn--{host}", f"a.{host}.example"):
        assert find_resembled(name, [known], [known]) in ("", known)
        assert not find_resembled(name, [name], [name])
        SenderRules(important=(known,)).find(name)


@MANY
@given(st.text(alphabet="abo1", min_size=1, max_size=6), st.text(alphabet="abo1", min_size=1, max_size=6))
def test_resembling_is_mutual(one: str, other: str) -> None:
    left, right = f"{one}.example", f"{other}.example"
    assert bool(find_resembled(left, [], [right])) == bool(find_resembled(right, [], [left]))
