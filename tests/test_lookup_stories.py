"""Look-ups in whole stories: who gets facts, who never does, and where the facts are afterwards."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from local.multimail.faults import Fault
from local.testing.lookup_server import LookUpServer, run_lookup_server
from local.testing.world import DRAFT, World
from shared.domain import Cause, Outcome, Support
from shared.knowledge.files import KnowledgeFiles
from shared.knowledge.lookup_http import LookUpReader
from shared.ledger.audit_chains import read_facts
from shared.ledger.rows import to_row
from shared.operator.trust import build_report
from shared.profiles.profile_file import parse_profiles
from shared.profiles.profiles import Profiles
from shared.replying.reporting import REJECT_REASON_TAG
from shared.services.secrets import StaticSecret
from shared.settings import Secret
from tests.exported_telemetry import EXPORTER, METRICS, set_providers
from tests.notification_targets import Target

ANN, EVE = "ann@customer.example", "eve@elsewhere.example"
CARRIER = "Zebraquartz"  # a word of the facts that occurs nowhere else
ORDER = {"number": "A-1001", "status": "shipped", "carrier": CARRIER, "email": ANN}
REPLY = f"Dear Ann,\n\nYour order A-1001 was shipped with {CARRIER}.\n\nSupport"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LookUpServer]:
    with run_lookup_server(tmp_path) as known:
        known.answers[f"/customers/{ANN}"] = ORDER
        known.answers["/orders/A-1001"] = ORDER
        yield known


def build_profiles(
    server: LookUpServer, extra: str = "", lookup: str = "", url: str = "/customers/{address}"
) -> Profiles:
    return parse_profiles(
        f"""
default:
  {extra}
  lookups:
    orders:
      url: {server.url}{url}
      show:
        Order: number
        Status: status
        Carrier: carrier
      allow_private: true
      ca_file: {server.ca_file.name}
      {lookup}
""",
        str(server.ca_file.with_name("mailboxes.yaml")),
    )


@contextmanager
def run_world(tmp_path: Path, profiles: Profiles, **settings: Any) -> Iterator[World]:
    """A world whose model repeats whatever facts it is shown, wherever it can."""

    def watch(operation: str) -> AbstractContextManager[object]:
        return world.health.watch(operation)

    reader = LookUpReader(
        tmp_path, lambda name: StaticSecret(Secret(name)), str,
        watch=watch, resolve=lambda _host, _port: ["127.0.0.1"],
    )  # fmt: skip
    with World(tmp_path, profiles=profiles, look_up=reader.read, **settings) as world:
        yield world


def obey(world: World, reply: str = REPLY) -> None:
    """Let the model tell the facts that it was shown, and nothing of them where it was shown none."""

    def write() -> None:
        shown = CARRIER in world.model.requests[-1].user
        told = {
            "reply_markdown": reply,
            "claims": [
                {"sentence": f"Your order A-1001 was shipped with {CARRIER}.", "source": "K1",
                 "quote": f"Order: A-1001\nStatus: shipped\nCarrier: {CARRIER}"},
            ],
            "open_points": [f"Does {CARRIER} deliver on Sunday?"],
            "follow_up": f"A colleague asks {CARRIER}.",
            "confidence": 0.9,
        }  # fmt: skip
        world.model.draft = told if shown else dict(DRAFT)

    world.model.steps = [json.dumps(world.model.triage), write]


def ask(world: World, markdown: str = "Where is my order A-1001?", **fields: Any) -> str:
    obey(world)
    email_id = world.deliver(markdown, **fields)
    world.run_until_idle()
    return email_id


def thread_of(world: World, email_id: str) -> str:
    email = world.simulator.find_email(email_id)
    assert email is not None
    return email.thread_id


def tags_of_reply(world: World, email_id: str) -> dict[str, str]:
    reply_id = world.entry(email_id).reply_id
    assert reply_id is not None
    return world.tags(reply_id)


def prompts(world: World) -> str:
    return "\n".join(request.user for request in world.model.requests)


# ---- In the draft


def test_facts_are_verified_like_approved_knowledge(tmp_path: Path, server: LookUpServer) -> None:
    with run_world(tmp_path, build_profiles(server)) as world:
        email_id = ask(world)
        assert world.outcome(email_id) == "reply_submitted"
        assert (
            f"[K1] Orders, looked up 2026-03-02 12:00 UTC\nOrder: A-1001\nStatus: shipped\nCarrier: {CARRIER}"
            in prompts(world)
        )
        draft = world.entry(email_id).draft
        assert draft is not None
        (claim,) = [claim for claim in draft.claims if CARRIER in claim.sentence]
        assert claim.support is Support.VERIFIED
        assert [quote.source for quote in claim.quotes] == [
            "lookup:orders › Orders, looked up 2026-03-02 12:00 UTC"
        ]
        (note,) = draft.looked_up
        assert (note.name, note.at, note.address) == ("orders", world.clock(), ANN)
        tags = tags_of_reply(world, email_id)
        assert tags["agent.lookups"] == "orders 2026-03-02 12:00 UTC"
        assert tags["agent.sources"] == claim.quotes[0].source
        assert tags["agent.open_points"].startswith("1 (shown at the desk")
        assert server.paths == [f"/customers/{ANN}"]


def test_facts_are_nowhere_but_in_prompt_draft_and_claims(
    tmp_path: Path, server: LookUpServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    set_providers()
    EXPORTER.clear()
    profiles = build_profiles(server, "notify: {first: json-desk, show_sender: true}\n  min_verified: 0.1")
    with Target() as target, run_world(tmp_path, profiles) as world, world.agent.trail:
        world.targets |= {"notify-json-desk": target.address, "notify-json-desk-key": "key"}
        told = ask(world)
        held_back = world.deliver("And where is it now?", sender=f"Ann Lee <{ANN}>", subject="Again")
        obey(world, REPLY + f"\n\nSee https://evil.example/{CARRIER}")
        world.run_until_idle()
        assert world.entry(held_back).cause is Cause.DRAFT_CHECK
        reply_id = world.entry(told).reply_id
        assert reply_id is not None
        for _ in range(4):
            world.clock.advance(hours=24)
            world.agent.notify()
        world.simulator.decide(reply_id, "approve")
        world.clock.advance(minutes=40)
        world.agent.track()
        for _ in range(4):
            world.clock.advance(hours=24)
            world.agent.notify()
        assert target.accepted
        mailboxes = world.agent.pipeline.mailboxes.read().values()
        report = build_report(mailboxes, world.ledger.entries, now=world.clock.now, days=30)
        assert list(report.mailboxes[0].passages) == ["lookup:orders"]
        logged = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
        tagged = "\n".join(str(world.tags(email_id)) for email_id in (told, held_back, reply_id))
        trail = "\n".join(str(facts) for facts in read_facts(world.ledger.audit.read()))
        spans = "\n".join(found.to_json() for found in EXPORTER.get_finished_spans())
        metrics = METRICS.get_metrics_data()
        places = {
            "log": logged, "tags": tagged, "trail": trail, "spans": spans, "report": repr(report),
            "metrics": metrics.to_json() if metrics else "", "notifications": "\n".join(map(str, target.bodies)),
        }  # fmt: skip
        assert "orders" in trail
        assert "look up" in spans
        assert {name for name, text in places.items() if CARRIER in text} == set()
        assert {name for name, text in places.items() if "A-1001" in text} == set()
        # Deleted with the draft.
        for email_id in (told, held_back):
            assert CARRIER in repr(to_texts(world, email_id))
            assert CARRIER not in repr(to_texts(world, email_id, is_erased=True))


def to_texts(world: World, email_id: str, *, is_erased: bool = False) -> list[Any]:
    entry = world.entry(email_id)
    entry = entry.erased(world.clock()) if is_erased else entry
    written = [draft for draft in (entry.draft, entry.proposal) if draft is not None]
    return [
        [draft.reply_markdown, [claim.quotes for claim in draft.claims], draft.open_points]
        for draft in written
    ]


# ---- Who gets none


def test_a_forged_reference_gets_nothing(tmp_path: Path, server: LookUpServer) -> None:
    profiles = build_profiles(
        server, url="/orders/{reference}",
        lookup='references: \'\\bA-\\d{4}\\b\'\n      address_field: email\n      cache: 10m',
    )  # fmt: skip
    with run_world(tmp_path, profiles) as world:
        told = ask(world)
        forged = ask(world, sender=f'"{ANN}" <{EVE}>', subject="My order")
        assert server.paths == ["/orders/A-1001"] * 2
        draft, other = world.entry(told).draft, world.entry(forged).draft
        assert draft is not None
        assert other is not None
        assert CARRIER in draft.reply_markdown
        assert (other.looked_up, CARRIER in other.reply_markdown) == ((), False)
        assert CARRIER not in world.model.requests[-1].user


def test_a_forged_sender_learns_nothing(tmp_path: Path, server: LookUpServer) -> None:
    """The reply goes to the address that the facts are about, whoever else the email names."""
    with run_world(tmp_path, build_profiles(server)) as world:
        email_id = ask(world, sender=f"Ann Lee <{ANN}>", to=("support@northwind.example", EVE))
        reply = world.simulator.find_email(str(world.entry(email_id).reply_id))
        assert reply is not None
        assert (reply.to, reply.cc) == ((ANN,), ())


def test_an_address_that_only_looks_the_same_gets_nothing(tmp_path: Path, server: LookUpServer) -> None:
    """The Kelvin sign, which lower case would make a k."""
    server.answers["/orders/A-1001"] = ORDER | {"email": "mark@customer.example"}
    profiles = build_profiles(
        server, url="/orders/{reference}", lookup="references: '\\bA-\\d{4}\\b'\n      address_field: email"
    )
    with run_world(tmp_path, profiles) as world:
        email_id = ask(world, sender="Mark <mar\u212a@customer.example>")
        assert server.paths == ["/orders/A-1001"]
        assert world.outcome(email_id) == "reply_submitted"
        assert CARRIER not in prompts(world)


def test_references_below_a_long_quotation_are_found(tmp_path: Path, server: LookUpServer) -> None:
    """One limit counts: of the sender's own words."""
    profiles = build_profiles(
        server, url="/orders/{reference}", lookup="references: '\\bA-\\d{4}\\b'\n      address_field: email"
    )
    with run_world(tmp_path, profiles) as world:
        quotation = "> What they wrote before, and what we wrote before that.\n" * 1_000
        assert len(quotation) > 50_000
        ask(world, f"{quotation}\nWhere is my order A-1001?")
        assert server.paths == ["/orders/A-1001"]


Change = Callable[[World], None]


def in_copy(world: World) -> None:
    world.simulator.mailboxes[world.box].auto_cc = "archive@northwind.example"


def in_blind_copy(world: World) -> None:
    world.simulator.mailboxes[world.box].auto_bcc = "archive@northwind.example"


def autonomous(world: World) -> None:
    world.simulator.set_mode(world.box, "autonomous")


@pytest.mark.parametrize("change", [in_copy, in_blind_copy, autonomous])
def test_nothing_is_looked_up_where_others_could_get_it(
    tmp_path: Path, server: LookUpServer, caplog: pytest.LogCaptureFixture, change: Change
) -> None:
    """And people are told why, or the facts would be missing for no reason that they know."""
    caplog.set_level(logging.INFO, "shared.replying")
    with run_world(tmp_path, build_profiles(server), allow_ungated_replies=True) as world:
        change(world)
        email_id = ask(world)
        assert world.outcome(email_id) == "reply_submitted"
        assert server.requests == []
        why = "no look-up is used, because "
        note = tags_of_reply(world, email_id)["agent.note"]
        assert f"{why}the mailbox is autonomous" in note or f"{why}MultiMail puts others in copy" in note
        assert why in caplog.text


def test_who_never_wanted_a_look_up_is_told_of_none(tmp_path: Path, server: LookUpServer) -> None:
    with run_world(
        tmp_path, build_profiles(server, lookup="categories: [billing]"), allow_ungated_replies=True
    ) as world:
        autonomous(world)
        assert "look-up" not in tags_of_reply(world, ask(world)).get("agent.note", "")


@pytest.mark.parametrize(
    ("extra", "fields"),
    [
        ("reply_all: [customer.example]", {"cc": ("carl@customer.example",)}),
        ("contact_forms: [{sender: forms@web.example, label: Email}]", {"sender": "forms@web.example", "markdown": f"Email: {ANN}\nWhere is my order?"}),
        ("observe: true", {}),
    ],
)  # fmt: skip
def test_nothing_is_looked_up_for_copies_forms_and_what_is_only_observed(
    tmp_path: Path, server: LookUpServer, extra: str, fields: dict[str, Any]
) -> None:
    with run_world(tmp_path, build_profiles(server, extra)) as world:
        ask(world, **fields)
        assert "draft" in [request.schema_name for request in world.model.requests]
        assert server.requests == []


@pytest.mark.parametrize(
    "reply_to",
    [
        EVE,
        f"{ANN}, {EVE}",
        f"Team: {EVE};",
        "\u0430nn@customer.example",
        f"eve@elsewhere (<{ANN}>) .example",
        f"<{ANN}>, eve@else where.example",
        f"<{ANN}>, eve@localhost",
    ],
)
def test_nothing_is_looked_up_where_a_reply_to_leaves_open_who_gets_the_reply(
    tmp_path: Path, server: LookUpServer, reply_to: str
) -> None:
    """The one whom it names may be on the allowlist: the reply would have left before it is read back."""
    with run_world(tmp_path, build_profiles(server)) as world:
        world.simulator.scan_seconds = 0
        world.simulator.allow(world.box, EVE)
        headers = {"Reply-To": reply_to}
        told = ask(world, sender=ANN, headers={"Reply-To": f"Ann <{ANN.upper()}>"})
        email_id = ask(world, sender=ANN, subject="Again", thread_id=thread_of(world, told), headers=headers)
        assert world.outcome(email_id) == "reply_submitted"
        assert [CARRIER in post["markdown"] for post in world.posts()] == [True, False]
        assert CARRIER not in world.model.requests[-1].user
        assert server.paths == [f"/customers/{ANN}"]


def test_a_proposal_for_an_escalated_email_is_written_without(tmp_path: Path, server: LookUpServer) -> None:
    with run_world(tmp_path, build_profiles(server, "escalate_categories: [question]")) as world:
        world.model.triage |= {"knowledge_answers": True}
        email_id = ask(world)
        assert world.entry(email_id).proposal is not None
        assert server.requests == []


def test_other_categories_are_not_looked_up(tmp_path: Path, server: LookUpServer) -> None:
    with run_world(tmp_path, build_profiles(server, lookup="categories: [billing]")) as world:
        ask(world)
        assert server.requests == []


@pytest.mark.parametrize("change", [in_copy, in_blind_copy, autonomous])
def test_the_gate_keeps_facts_back_when_others_could_get_them_now(
    tmp_path: Path, server: LookUpServer, change: Change
) -> None:
    with run_world(tmp_path, build_profiles(server), allow_ungated_replies=True) as world:
        obey(world)
        write = world.model.steps[-1]

        def write_late() -> None:
            assert callable(write)
            write()
            change(world)

        world.model.steps[-1] = write_late
        email_id = world.deliver("Where is my order A-1001?")
        world.run_until_idle()
        entry = world.entry(email_id)
        assert (world.outcome(email_id), entry.cause) == ("escalated", Cause.LOOKED_UP_FACTS)
        assert world.posts() == []
        assert CARRIER not in str(world.tags(email_id))


def test_a_reply_that_others_would_get_is_withdrawn(tmp_path: Path, server: LookUpServer) -> None:
    with run_world(tmp_path, build_profiles(server)) as world:
        world.simulator.mailboxes[world.box].diverted_to = (EVE,)
        email_id = ask(world)
        assert world.entry(email_id).cause is Cause.RECIPIENTS_DIFFER
        reply = world.simulator.find_email(str(world.entry(email_id).reply_id))
        assert reply is not None
        assert reply.status == "cancelled"


def test_a_copy_that_was_added_after_the_gate_is_not_let_through(
    tmp_path: Path, server: LookUpServer
) -> None:
    with run_world(tmp_path, build_profiles(server)) as world:

        def copy_at_the_last_moment(method: str, path: str, _number: int) -> Fault | None:
            if method == "POST" and "/reply/" in path:
                in_copy(world)
                world.clock.advance(minutes=30)  # the agent has to read the mailbox again
            return None

        world.simulator.fault = copy_at_the_last_moment
        email_id = ask(world)
        assert world.entry(email_id).cause is Cause.RECIPIENTS_DIFFER


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        (in_blind_copy, "MultiMail puts others in copy of what leaves the mailbox; it was withdrawn"),
        (autonomous, "the mailbox is autonomous; it could not be withdrawn any more"),
    ],
)
def test_what_changed_between_gate_and_submission_has_the_reply_withdrawn(
    tmp_path: Path, server: LookUpServer, change: Change, detail: str
) -> None:
    """The service does not show a reply's blind copies."""
    with run_world(tmp_path, build_profiles(server)) as world:

        def change_at_the_last_moment(method: str, path: str, _number: int) -> Fault | None:
            if method == "POST" and "/reply/" in path:
                change(world)
            return None

        world.simulator.fault = change_at_the_last_moment
        email_id = ask(world)
        entry = world.entry(email_id)
        assert (entry.outcome, entry.cause) == (Outcome.ESCALATED, Cause.LOOKED_UP_FACTS)
        assert entry.detail == detail
        reply = world.simulator.find_email(str(entry.reply_id))
        assert reply is not None
        assert (
            (reply.status == "cancelled") is (entry.reply_status == "cancelled") is (change is in_blind_copy)
        )


# ---- Later drafts


def reject(world: World, email_id: str, reason: str) -> None:
    reply_id = world.entry(email_id).reply_id
    assert reply_id is not None
    world.simulator.set_tags(world.box, reply_id, {REJECT_REASON_TAG: reason}, "a reviewer")
    world.simulator.decide(reply_id, "reject")
    world.clock.advance(minutes=6)
    world.tracker.track()
    world.run_until_idle()


def test_a_redraft_looks_up_again(tmp_path: Path, server: LookUpServer) -> None:
    with run_world(tmp_path, build_profiles(server, lookup="cache: 4h")) as world:
        email_id = ask(world)
        server.answers[f"/customers/{ANN}"] = ORDER | {"status": "delivered"}
        reject(world, email_id, "shorter")
        assert len(server.requests) == 2
        assert "Status: delivered" in world.model.requests[-1].user
        draft = world.entry(email_id).draft
        assert draft is not None
        (note,) = draft.looked_up
        assert f"{note.at:%H:%M}" == "12:06"


def test_what_an_earlier_draft_told_stays_with_the_customer(tmp_path: Path, server: LookUpServer) -> None:
    """The next draft may repeat the rejected one, also when nothing is looked up any more."""
    with run_world(tmp_path, build_profiles(server), allow_ungated_replies=True) as world:
        email_id = ask(world)
        autonomous(world)
        reject(world, email_id, "shorter")
        assert len(server.requests) == 1
        assert world.entry(email_id).cause is Cause.LOOKED_UP_FACTS
        assert world.entry(email_id).holds_facts


def edit(world: World, email_id: str, text: str) -> None:
    """Have a reviewer's own text put in the place of the pending reply's."""
    item, reply_id = world.entry(email_id).work_item, str(world.entry(email_id).reply_id)
    world.agent.reviews.edit(item, reply_id, "a0000001", text)
    world.clock.advance(minutes=3)
    world.simulator.decide(reply_id, "reject")
    world.agent.reviews.note_decided(item.mailbox_id, reply_id)
    world.run_until_idle()


def test_an_edit_keeps_its_facts_verified_and_marked(tmp_path: Path, server: LookUpServer) -> None:
    with run_world(tmp_path, build_profiles(server)) as world:
        email_id = ask(world)
        edit(world, email_id, REPLY.replace("Dear", "Hello"))
        shown = world.agent.reviews.find(world.entry(email_id).work_item, "b0000002")
        assert shown is not None
        assert shown.draft is not None
        assert [f"{note.name} {note.at:%H:%M}" for note in shown.draft.looked_up] == ["orders 12:03"]
        claims = {claim.support for claim in shown.draft.claims if CARRIER in claim.sentence}
        assert claims == {Support.VERIFIED}


def test_the_facts_of_two_references_are_told_apart(tmp_path: Path, server: LookUpServer) -> None:
    """Also in a reviewer's own text, whose sentences keep their sources."""
    server.answers["/orders/A-1002"] = {
        "number": "A-1002",
        "status": "lost",
        "carrier": "Quillfern",
        "email": ANN,
    }
    told = ["Your order A-1001 was shipped.", "Your order A-1002 was lost."]
    both = f"The carriers are {CARRIER} and Quillfern."
    profiles = build_profiles(
        server, url="/orders/{reference}", lookup="references: '\\bA-\\d{4}\\b'\n      address_field: email"
    )
    with run_world(tmp_path, profiles) as world:
        world.model.draft = dict(DRAFT) | {
            "reply_markdown": "\n\n".join(["Dear Ann,", *told, both, "Support"]),
            "claims": [
                {"sentence": told[0], "source": "K1", "quote": "Order: A-1001\nStatus: shipped"},
                {"sentence": told[1], "source": "K2", "quote": "Order: A-1002\nStatus: lost"},
                {"sentence": both, "source": "K1", "quote": f"Carrier: {CARRIER}"},
                {"sentence": both, "source": "K2", "quote": "Carrier: Quillfern"},
            ],
        }  # fmt: skip
        email_id = world.deliver("Where are A-1001 and A-1002?")
        world.run_until_idle()
        edit(world, email_id, "\n\n".join(["Hello Ann,", *told, both, "Support"]))
        draft = world.entry(email_id).draft
        assert draft is not None
        assert draft.reply_markdown.startswith("Hello")
        found = {
            claim.sentence: (claim.support, [quote.source for quote in claim.quotes])
            for claim in draft.claims
        }
        first, second = (
            f"lookup:orders › Orders of the {ordinal} reference, looked up 2026-03-02 12:03 UTC"
            for ordinal in ("first", "second")
        )
        assert found[told[0]] == (Support.VERIFIED, [first])
        assert found[told[1]] == (Support.VERIFIED, [second])
        assert found[both] == (Support.VERIFIED, [first, second])


@pytest.mark.parametrize("on_failure", ["wait", "continue"])
def test_a_reviewers_own_text_waits_for_no_look_up(
    tmp_path: Path, server: LookUpServer, on_failure: str
) -> None:
    with run_world(tmp_path, build_profiles(server, lookup=f"on_failure: {on_failure}")) as world:
        email_id = ask(world)
        server.statuses[f"/customers/{ANN}"] = 503
        edit(world, email_id, REPLY.replace("Dear", "Hello"))
        assert len(world.posts()) == 2
        note = tags_of_reply(world, email_id)["agent.note"]
        assert "the look-up orders gave no answer: its facts could not be checked" in note
        assert "written without" not in note


# ---- Later emails of the thread


def approve(world: World, email_id: str) -> None:
    world.simulator.decide(str(world.entry(email_id).reply_id), "approve")
    world.clock.advance(minutes=40)
    world.tracker.track()


def ask_again(world: World, email_id: str, markdown: str = "And now?", **fields: Any) -> str:
    """The next email of a thread; the model repeats the facts wherever it is shown them."""
    first = world.simulator.find_email(email_id)
    assert first is not None

    def is_shown() -> bool:
        return CARRIER in world.model.requests[-1].user

    def sort() -> None:
        world.model.triage["reason"] = f"They ask about {CARRIER}." if is_shown() else "They ask."

    def write() -> None:
        told = {"reply_markdown": REPLY, "claims": [], "open_points": [f"Does {CARRIER} deliver?"]}
        world.model.draft = dict(DRAFT) | (told if is_shown() else {})

    world.model.steps = [sort, write]
    later = world.deliver(markdown, subject="Re: Delivery time", thread_id=first.thread_id, **fields)
    world.run_until_idle()
    return later


def erase(world: World, email_id: str) -> None:
    entry = world.entry(email_id)
    world.ledger.erase(entry, world.clock())


@pytest.mark.parametrize("prepare", [lambda _world, _email_id: None, erase])
def test_what_the_thread_told_stays_with_the_customer(
    tmp_path: Path, server: LookUpServer, prepare: Callable[[World, str], None]
) -> None:
    """The next draft may repeat our last reply, also when its own row looked nothing up."""
    with run_world(tmp_path, build_profiles(server)) as world:
        email_id = ask(world)
        approve(world, email_id)
        prepare(world, email_id)
        server.statuses[f"/customers/{ANN}"] = 404
        later = ask_again(world, email_id)
        draft = world.entry(later).draft
        assert draft is not None
        assert CARRIER in draft.reply_markdown
        assert [(note.name, note.address) for note in draft.looked_up] == [("orders", ANN)]
        assert world.entry(later).holds_facts
        assert CARRIER not in str((tags_of_reply(world, later), world.tags(later)))


def in_the_copies(world: World) -> None:
    in_copy(world)
    world.clock.advance(minutes=30)


def ungated(world: World) -> None:
    autonomous(world)
    world.clock.advance(minutes=30)


@pytest.mark.parametrize(
    ("change", "fields"), [(in_the_copies, {}), (ungated, {}), (lambda _world: None, {"cc": (EVE,)})]
)
def test_what_the_thread_told_is_not_shown_where_others_could_get_it(
    tmp_path: Path, server: LookUpServer, change: Change, fields: dict[str, Any]
) -> None:
    """Neither is what may quote it: the second email of the customer here."""
    profiles = build_profiles(server, "reply_all: [elsewhere.example]")
    with run_world(tmp_path, profiles, allow_ungated_replies=True) as world:
        email_id = ask(world)
        approve(world, email_id)
        quoting = ask_again(world, email_id, f"Thanks.\n\n> {CARRIER}")
        approve(world, quoting)
        change(world)
        world.model.requests.clear()
        later = ask_again(world, email_id, "Where is it?", **fields)
        assert world.outcome(later) == "reply_submitted"
        assert "Where is my order A-1001?" in prompts(world)
        assert CARRIER not in prompts(world)
        draft = world.entry(later).draft
        assert draft is not None
        assert draft.looked_up == ()


@pytest.mark.parametrize("change", [in_the_copies, ungated])
def test_the_emails_own_reply_that_came_back_is_not_shown_where_others_could_get_it(
    tmp_path: Path, server: LookUpServer, change: Change
) -> None:
    with run_world(tmp_path, build_profiles(server), allow_ungated_replies=True) as world:
        world.simulator.refuse_delivery(ANN, "bounced")
        email_id = ask(world)
        approve(world, email_id)
        assert world.entry(email_id).reply_status == "bounced"
        change(world)
        world.model.requests.clear()
        world.ledger.defer(world.entry(email_id).redriven(world.clock()))
        obey(world)
        world.run_until_idle()
        assert [request.schema_name for request in world.model.requests] == ["triage", "draft"]
        assert CARRIER not in prompts(world)


def test_an_erased_row_does_not_know_whom_its_drafts_were_about(tmp_path: Path, server: LookUpServer) -> None:
    with run_world(tmp_path, build_profiles(server)) as world:
        email_id = ask(world)
        reject(world, email_id, "shorter")
        assert ANN in str(to_row(world.entry(email_id)))
        erase(world, email_id)
        row = to_row(world.entry(email_id))
        assert "rejections__1" in row
        assert {name for name, value in row.items() if ANN in str(value)} == set()


# ---- Failures


def test_a_draft_is_written_without_what_gives_no_answer(tmp_path: Path, server: LookUpServer) -> None:
    server.statuses[f"/customers/{ANN}"] = 503
    with run_world(tmp_path, build_profiles(server)) as world:
        email_id = ask(world)
        assert world.outcome(email_id) == "reply_submitted"
        assert "look-up orders gave no answer" in tags_of_reply(world, email_id)["agent.note"]


def test_an_email_waits_for_a_look_up_that_it_needs(tmp_path: Path, server: LookUpServer) -> None:
    server.statuses[f"/customers/{ANN}"] = 503
    with run_world(tmp_path, build_profiles(server, lookup="on_failure: wait")) as world:
        obey(world)
        email_id = world.deliver("Where is my order A-1001?")
        world.poll_and_work()
        entry = world.entry(email_id)
        assert (entry.outcome, entry.waiting_for) == (None, Cause.UNAVAILABLE)
        assert ANN not in entry.waiting_detail
        del server.statuses[f"/customers/{ANN}"]
        world.run_until_idle()
        assert world.outcome(email_id) == "reply_submitted"
        assert CARRIER in str(world.posts())


@pytest.mark.parametrize("is_outage", [True, False])
def test_an_email_that_waits_for_a_look_up_burns_no_attempt(
    tmp_path: Path, server: LookUpServer, *, is_outage: bool
) -> None:
    """Whether the system is down, next to a healthy one of that name, or fails for one reference alone."""
    server.answers["/orders/A-1002"] = ORDER | {"number": "A-1002"}
    server.statuses |= {"/orders/A-9999": 500} | ({"/orders/A-1001": 500} if is_outage else {})
    profiles = build_profiles(
        server, url="/orders/{reference}",
        lookup="references: '\\bA-\\d{4}\\b'\n      address_field: email\n      on_failure: wait",
    )  # fmt: skip
    text = "Where is A-1001?" if is_outage else "Where are A-1001, A-1002 and A-9999?"
    with run_world(tmp_path, profiles, max_email_age_hours=6) as world:
        obey(world)
        email_id = world.deliver(text)
        begun = world.clock()
        world.poll_and_work()
        while (due_at := world.ledger.next_due_at()) is not None:
            assert world.entry(email_id).attempts == 0
            world.clock.now = max(world.clock(), due_at)
            for _ in range(3):
                with world.health.watch("the look-up orders at other.example"):
                    pass
            world.poll_and_work()
        entry = world.entry(email_id)
        assert (entry.outcome, entry.cause) == (Outcome.ESCALATED, Cause.TOO_OLD)
        assert world.clock() - begun >= timedelta(hours=6)


def test_the_first_reference_is_that_of_the_text(tmp_path: Path, server: LookUpServer) -> None:
    """The subject may be of the thread's first email."""
    profiles = build_profiles(
        server, url="/orders/{reference}", lookup="references: '\\bA-\\d{4}\\b'\n      address_field: email"
    )
    with run_world(tmp_path, profiles) as world:
        ask(world, "And A-1001?", subject="Re: A-1002")
        assert server.paths == ["/orders/A-1001", "/orders/A-1002"]


@pytest.mark.parametrize("status", [403, 401])
def test_what_a_system_refuses_waits_longer_and_longer(
    tmp_path: Path, server: LookUpServer, status: int
) -> None:
    """The sender chooses the reference: neither the host fails for it, nor is the system asked all the time."""
    server.statuses[f"/customers/{ANN}"] = status
    profiles = build_profiles(server, lookup="on_failure: wait")
    with run_world(tmp_path, profiles, max_email_age_hours=6) as world:
        obey(world)
        email_id = world.deliver("Where is my order A-1001?")
        begun, asked = world.clock(), {timedelta(0): 0}
        world.poll_and_work()
        while (due_at := world.ledger.next_due_at()) is not None:
            world.clock.now = max(world.clock(), due_at)
            world.poll_and_work()
            asked[world.clock() - begun] = len(server.requests)
        entry = world.entry(email_id)
        assert (entry.outcome, entry.cause) == (Outcome.ESCALATED, Cause.TOO_OLD)
        assert max(count for age, count in asked.items() if age < timedelta(hours=1)) < 40
        assert len(server.requests) < 90


# ---- Contacts' tags


def contact_requests(world: World) -> int:
    return sum(request.path == "/v1/contacts" for request in world.simulator.requests)


@pytest.mark.parametrize(("tags", "asked"), [(("Customer", "vip"), 1), (("partner",), 0), ((), 0)])
def test_tags_open_a_look_up(tmp_path: Path, server: LookUpServer, tags: tuple[str, ...], asked: int) -> None:
    with run_world(tmp_path, build_profiles(server, lookup="only_for: [customer, employee]")) as world:
        world.simulator.add_contact("Ann Lee", ANN, tags)
        ask(world)
        assert len(server.requests) == asked
        assert contact_requests(world) == 1


@contextmanager
def run_partner_world(tmp_path: Path) -> Iterator[World]:
    folder = tmp_path / "knowledge" / "partners"
    folder.mkdir(parents=True)
    (folder / "prices.md").write_text("# Partner prices\n\nPartners pay half.", encoding="utf-8")
    profiles = parse_profiles(
        "default:\n  reply_all: [customer.example]\n  knowledge:\n    - folder: partners\n"
        "      only_for: [partner]\n",
        "x",
    )
    with World(tmp_path, profiles=profiles, knowledge=KnowledgeFiles(tmp_path / "knowledge")) as world:
        world.simulator.add_contact("Ann Lee", ANN, ["partner"])
        yield world


def test_tags_open_a_folder_of_knowledge(tmp_path: Path) -> None:
    with run_partner_world(tmp_path) as world:
        world.deliver("What do I pay?", sender=EVE)
        world.run_until_idle()
        assert "Partner" not in prompts(world)
        world.deliver("What do I pay?", sender=ANN)
        world.run_until_idle()
        assert "Partners pay half." in prompts(world)
        assert contact_requests(world) == 2


def test_a_folder_for_tags_is_closed_by_a_copy_that_comes_after_triage(tmp_path: Path) -> None:
    with run_partner_world(tmp_path) as world:

        def sort() -> None:
            assert "Partner" in world.model.requests[-1].user
            in_the_copies(world)

        world.model.steps = [sort]
        world.deliver("What do I pay?", sender=ANN)
        world.run_until_idle()
        assert [request.schema_name for request in world.model.requests] == ["triage", "draft"]
        assert "Partner" not in world.model.requests[-1].user


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        (lambda _world: None, {"cc": ("carl@customer.example",)}),
        (lambda _world: None, {"headers": {"Reply-To": EVE}}),
        (in_copy, {}),
        (in_blind_copy, {}),
    ],
)
def test_a_folder_for_tags_stays_closed_where_others_get_the_reply(
    tmp_path: Path, change: Change, fields: dict[str, Any]
) -> None:
    with run_partner_world(tmp_path) as world:
        change(world)
        email_id = world.deliver("What do I pay?", sender=ANN, **fields)
        world.run_until_idle()
        assert world.outcome(email_id) == "reply_submitted"
        assert "Partner" not in prompts(world)
