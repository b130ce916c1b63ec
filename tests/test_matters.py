"""What waits for people is open until one of them has seen to it, and no longer; promises are kept in mind."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from local.commands.forget import Forgetting
from local.multimail.faults import always, answer_with
from local.people import matters as commands
from local.people.matters import list_open
from local.people.notify import notify
from local.testing.world import World
from shared.errors import ConfigurationError, TransientError
from shared.ledger.audit_chains import read_facts
from shared.ledger.entries import MatterKind
from shared.ledger.sqlite_store import open_sqlite_ledger
from shared.profiles.business_hours import USUAL_HOURS, WEEKDAYS, BusinessHours, Span, parse_zone
from shared.profiles.notify import Notify
from shared.profiles.profiles import MailboxProfile, Profiles
from tests.notification_targets import Target, read_text, refuse_as_slack, refuse_as_teams

NOTIFY = Notify("teams-support", deputy="slack-lead", promise_after=timedelta(hours=8))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        yield world


def process(world: World, action: str = "reply", follow_up: str = "") -> str:
    world.model.triage["action"] = action
    world.model.draft["follow_up"] = follow_up
    email_id = world.deliver(sender=f"ann{len(world.model.requests)}@customer.example")
    world.run_until_idle()
    world.clock.advance(minutes=6)
    world.agent.track()
    return email_id


def decide(world: World, email_id: str, decision: str) -> None:
    reply_id = world.entry(email_id).reply_id
    assert reply_id is not None
    world.simulator.decide(reply_id, decision)
    world.clock.advance(minutes=40)
    world.agent.track()


def kinds(world: World, email_id: str) -> list[MatterKind]:
    """What is open of an email, by the notes alone."""
    return [matter.kind for matter in world.ledger.matters.list() if matter.email_id == email_id]


# Escalations


def test_an_escalation_is_open_until_a_person_writes_in_its_thread(world: World) -> None:
    answered, other = process(world, "escalate"), process(world, "escalate")
    for _ in range(5):
        world.clock.advance(hours=3)
        world.agent.track()
    assert kinds(world, answered) == [MatterKind.ESCALATION]
    world.simulator.human_reply(answered, "We look into it.")
    world.clock.advance(minutes=5)
    world.agent.track()
    assert kinds(world, answered) == []
    assert kinds(world, other) == [MatterKind.ESCALATION]


def test_an_answer_to_an_earlier_email_closes_no_later_one(world: World) -> None:
    first = process(world, "escalate")
    world.clock.advance(hours=1)
    sender, thread_id = world.entry(first).sender, world.entry(first).thread_id
    later = world.deliver("The wrong part came, and our line is down.", sender=sender, thread_id=thread_id)
    world.clock.advance(seconds=20)
    world.simulator.human_reply(first, "To your first question: yes.")
    world.run_until_idle()
    world.clock.advance(minutes=5)
    world.agent.track()
    assert kinds(world, first) == []
    assert kinds(world, later) == [MatterKind.ESCALATION]


@pytest.mark.parametrize("sender", ["a@customer.example", "a@customer.example, b@customer.example"])
def test_what_is_passed_on_to_a_colleague_closes_nothing(world: World, sender: str) -> None:
    world.model.triage["action"] = "escalate"
    email_id = world.deliver(sender=sender)
    world.run_until_idle()
    thread_id = world.simulator.get_email(world.box, email_id).thread_id
    world.clock.advance(minutes=30)
    world.simulator.add_outbound(
        world.box, ("carol@northwind.example",), "Fwd", "Can you?", thread_id=thread_id
    )
    world.clock.advance(minutes=5)
    world.agent.track()
    assert kinds(world, email_id) == [MatterKind.ESCALATION]


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(
    "fields",
    [{"to": ["karl@other.example"]}, {"sender": "Ann <a@customer.example>, Bob <b@customer.example>"}],
)
def test_what_a_person_answered_before_it_was_escalated_is_closed(
    world: World, fields: dict[str, Any], *, is_first: bool
) -> None:
    """A worker comes to it late, and who wrote to whom alone decides: its thread is not read."""
    other = None if is_first else process(world, "escalate")
    email_id = world.deliver(**({"sender": "a@customer.example"} | fields))
    world.clock.advance(minutes=30)
    thread_id = world.simulator.get_email(world.box, email_id).thread_id
    world.simulator.add_outbound(
        world.box, ("a@customer.example",), "Re: Hello", "We look into it.", thread_id=thread_id
    )
    world.clock.advance(minutes=30)
    world.agent.track()
    world.run_until_idle()
    assert kinds(world, email_id) == [MatterKind.ESCALATION]
    world.clock.advance(minutes=5)
    world.agent.track()
    assert kinds(world, email_id) == []
    assert other is None or kinds(world, other) == [MatterKind.ESCALATION]


def test_answers_are_found_though_a_clock_was_ahead_once(world: World) -> None:
    email_id = process(world, "escalate")
    true_time = world.clock.now
    world.clock.advance(hours=30)
    world.agent.track()
    world.clock.now = true_time + timedelta(minutes=10)
    world.simulator.human_reply(email_id, "We look into it.")
    world.clock.advance(minutes=5)
    world.agent.track()
    assert kinds(world, email_id) == []


def test_one_listing_a_mailbox_and_run_says_where_people_wrote(world: World) -> None:
    emails = [process(world, "escalate") for _ in range(12)]
    for email_id in emails[:6]:
        world.simulator.human_reply(email_id, "We look into it.")
    world.clock.advance(hours=2)
    before = len(world.simulator.requests)
    world.agent.track()
    paths = [request.path for request in world.simulator.requests[before:]]
    assert [path for path in paths if path.endswith("/emails")] == [f"/v1/mailboxes/{world.box}/emails"]
    assert len(paths) <= 2  # the account's mailboxes are the other
    assert [kinds(world, email_id) for email_id in emails] == [[]] * 6 + [[MatterKind.ESCALATION]] * 6


def test_a_persons_reply_counts_once_it_has_left(world: World) -> None:
    email_id = process(world, "escalate")
    entry = world.entry(email_id)
    world.clock.advance(minutes=5)
    reply = world.multimail.submit_reply(world.box, email_id, "By a person with a key.", "person-1")
    for _ in range(4):
        world.clock.advance(hours=5)
        world.agent.track()
    assert kinds(world, email_id) == [MatterKind.ESCALATION]
    world.simulator.decide(reply.id, "approve")
    world.clock.advance(minutes=5)
    world.agent.track()
    assert kinds(world, email_id) == []
    assert world.entry(email_id) == entry


def test_a_reply_of_the_agent_closes_no_escalation(world: World) -> None:
    """The thread's next email is answered by the agent: the one that was left to people still waits."""
    email_id = process(world, "escalate")
    thread_id = world.entry(email_id).thread_id
    world.model.triage["action"] = "reply"
    later = world.deliver("And how much is it?", sender=world.entry(email_id).sender, thread_id=thread_id)
    world.run_until_idle()
    decide(world, later, "approve")
    for _ in range(3):
        world.clock.advance(hours=2)
        world.agent.track()
    assert world.entry(later).reply_status == "delivered"
    assert kinds(world, email_id) == [MatterKind.ESCALATION]


def test_answers_are_found_though_a_listing_failed_in_between(world: World) -> None:
    email_id = process(world, "escalate")
    world.simulator.human_reply(email_id, "We look into it.")
    world.clock.advance(hours=1)
    world.simulator.fault = lambda _method, path, _number: (
        answer_with(503) if path.endswith("/emails") else None
    )
    with pytest.raises(TransientError):
        world.agent.track()
    world.simulator.fault = lambda _method, _path, _number: None
    world.clock.advance(hours=5)
    world.agent.track()
    assert kinds(world, email_id) == []


@pytest.mark.parametrize("refused", [0, 1])  # whichever is looked at first
def test_a_mailbox_whose_mail_may_not_be_read_does_not_stop_the_others(world: World, refused: int) -> None:
    boxes = [world.box, world.simulator.add_mailbox("sales@northwind.example")]
    world.model.triage["action"] = "escalate"
    emails = [world.deliver(f"Where is {box}?", box=box) for box in boxes]
    world.run_until_idle()
    for email_id in emails:
        world.clock.advance(minutes=5)
        world.simulator.human_reply(email_id, "We look into it.")
    world.simulator.fault = always(answer_with(403), matching=lambda _, path: boxes[refused] in path)
    with pytest.raises(ConfigurationError, match="read scope"):
        world.agent.track()
    assert [matter.email_id for matter in world.ledger.matters.list()] == [emails[refused]]


def test_an_escalation_goes_with_the_texts_of_its_row(world: World) -> None:
    email_id = process(world, "escalate")
    world.clock.advance(days=89)
    world.agent.track()
    assert kinds(world, email_id) == [MatterKind.ESCALATION]
    world.clock.advance(days=2)
    world.agent.track()
    assert kinds(world, email_id) == []


def test_whoever_lost_a_pending_reply_by_forgetting_is_left_to_a_person(world: World) -> None:
    email_id = process(world)
    Forgetting(
        world.multimail, world.multimail, world.ledger, world.entry(email_id).sender, world.clock
    ).run()
    world.agent.track()
    assert world.entry(email_id).erased_at is not None
    assert [(m.email_id, m.kind) for m, _ in list_open(world.ledger)] == [(email_id, MatterKind.ESCALATION)]


# Drafts and promises


@pytest.mark.parametrize("decision", ["approve", "reject"])
def test_a_draft_is_open_until_it_is_decided(world: World, decision: str) -> None:
    email_id = process(world)
    assert kinds(world, email_id) == [MatterKind.DRAFT]
    decide(world, email_id, decision)
    world.run_until_idle()
    rest = [MatterKind.ESCALATION] if decision == "reject" else []
    assert kinds(world, email_id) == rest


def test_what_an_approved_reply_promises_is_open_until_a_person_writes(world: World) -> None:
    email_id = process(world, follow_up="We send the report by Friday.")
    assert kinds(world, email_id) == [MatterKind.DRAFT]
    decide(world, email_id, "approve")
    assert kinds(world, email_id) == [MatterKind.PROMISE]
    world.clock.advance(hours=1)
    world.agent.track()
    assert kinds(world, email_id) == [MatterKind.PROMISE]  # our own reply does not keep it
    world.simulator.human_reply(email_id, "Here is the report.")
    world.clock.advance(minutes=5)
    world.agent.track()
    assert kinds(world, email_id) == []


def test_a_promise_that_was_kept_before_its_reply_was_delivered_stays_closed(world: World) -> None:
    email_id = process(world, follow_up="We call you.")
    reply = world.simulator.get_email(world.box, world.entry(email_id).reply_id or "")
    world.simulator.decide(reply.id, "approve")
    delivered_at, reply.delivered_at = reply.delivered_at, None
    world.clock.advance(minutes=40)
    world.agent.track()
    assert world.entry(email_id).reply_status == "approved"
    (promise,) = world.ledger.matters.list()
    world.ledger.matters.close(promise)
    reply.delivered_at = delivered_at
    world.clock.advance(minutes=40)
    world.agent.track()
    assert world.entry(email_id).reply_status == "delivered"
    assert kinds(world, email_id) == []


def test_a_promise_that_was_kept_before_the_agent_knew_of_it_is_closed(world: World) -> None:
    process(world, "escalate")  # so that outbound mail is listed all the time
    email_id = process(world, follow_up="We send the report by Friday.")
    world.clock.advance(hours=1)
    world.agent.track()
    world.clock.advance(minutes=1)
    reply_id = world.entry(email_id).reply_id
    assert reply_id is not None
    world.simulator.decide(reply_id, "approve")
    world.clock.advance(minutes=1)
    world.simulator.human_reply(email_id, "Here is the report.")
    world.clock.advance(minutes=20)
    world.agent.track()  # the reply is not looked at yet
    assert kinds(world, email_id) == [MatterKind.DRAFT]
    world.clock.advance(minutes=20)
    world.agent.track()
    assert world.entry(email_id).promise is not None
    assert kinds(world, email_id) == []


@pytest.mark.parametrize(("follow_up", "decision"), [("", "approve"), ("We call you.", "reject")])
def test_nothing_is_promised_without_a_promise_or_an_approval(
    world: World, follow_up: str, decision: str
) -> None:
    email_id = process(world, follow_up=follow_up)
    decide(world, email_id, decision)
    world.run_until_idle()
    assert MatterKind.PROMISE not in kinds(world, email_id)


def test_people_are_reminded_of_a_promise_that_nobody_kept(tmp_path: Path) -> None:
    profiles = Profiles(MailboxProfile(notify=NOTIFY))  # Monday to Friday, nine to five, UTC
    with (
        Target(refuse_as_teams) as teams,
        Target(refuse_as_slack) as slack,
        World(tmp_path, profiles=profiles) as world,
    ):
        world.targets |= {"notify-teams-support": teams.address, "notify-slack-lead": slack.address}
        kept = process(world, follow_up="We call you.")
        broken = process(world, follow_up="We send the report by Friday.")
        decide(world, kept, "approve")
        decide(world, broken, "approve")  # at 12:12 and 12:52 on Monday
        world.simulator.human_reply(kept, "As promised on the phone.")
        world.clock.now = datetime(2026, 3, 3, 12, 51, tzinfo=UTC)
        world.agent.track()
        world.agent.notify()
        assert not any("promised" in read_text(body) for body in teams.accepted)
        world.clock.now = datetime(2026, 3, 3, 12, 52, tzinfo=UTC)
        world.agent.notify()
        text = read_text(teams.accepted[-1])
        assert "promised in a reply, and no person has written since" in text
        assert broken in text
        assert kept not in text
        assert "report" not in text
        world.clock.now = datetime(2026, 3, 4, 12, 52, tzinfo=UTC)
        world.agent.notify()
        assert [broken in read_text(body) for body in slack.accepted] == [True]
        assert kinds(world, broken) == [MatterKind.PROMISE]


# Business hours


BERLIN = BusinessHours(
    parse_zone("Europe/Berlin"), {"mon": (Span(540, 720), Span(780, 1020)), "tue": (Span(540, 1020),)}
)
ALWAYS = BusinessHours(parse_zone("UTC"), dict.fromkeys(WEEKDAYS, (Span(0, 1440),)))


@pytest.mark.parametrize(
    ("hours", "begin", "duration", "end"),
    [
        (USUAL_HOURS, "2026-03-06T16:30", 4, "2026-03-09T12:30"),  # over a weekend
        (USUAL_HOURS, "2026-03-07T03:00", 1, "2026-03-09T10:00"),  # begins while closed
        (USUAL_HOURS, "2026-03-06T09:00", 8, "2026-03-06T17:00"),  # exactly a day
        (BERLIN, "2026-03-02T10:00", 4, "2026-03-02T15:00"),  # over a noon break
        (BERLIN, "2026-03-23T15:00", 8, "2026-03-24T15:00"),
        (BERLIN, "2026-03-24T15:00", 8, "2026-03-30T15:00"),  # in which summer time begins
        (ALWAYS, "2026-03-06T16:30", 40, "2026-03-08T08:30"),
    ],
)
def test_business_hours_are_added_up(hours: BusinessHours, begin: str, duration: int, end: str) -> None:
    start, expected = (datetime.fromisoformat(f"{text}+00:00") for text in (begin, end))
    assert hours.add(start, timedelta(hours=duration)) == expected


@pytest.mark.parametrize(
    ("hours", "now", "morning"),
    [
        (USUAL_HOURS, "2026-03-06T08:59", "2026-03-05T09:00"),
        (USUAL_HOURS, "2026-03-08T12:00", "2026-03-06T09:00"),
        (BERLIN, "2026-03-02T14:00", "2026-03-02T08:00"),
        (BERLIN, "2026-03-08T14:00", "2026-03-03T08:00"),
        (ALWAYS, "2026-03-08T05:59", "2026-03-07T06:00"),
    ],
)
def test_a_working_day_begins_when_it_opens_or_at_six(hours: BusinessHours, now: str, morning: str) -> None:
    moment, expected = (datetime.fromisoformat(f"{text}+00:00") for text in (now, morning))
    assert hours.find_morning(moment) == expected


# The commands


def leave_to_commands(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Close the ledger, and name it and its account to the commands."""
    folder = world.settings.ledger_path.parent
    world.ledger.close()
    monkeypatch.chdir(folder)
    for name, value in {
        "MULTIMAIL_API_URL": world._server.url, "MULTIMAIL_API_KEY": world.key,
        "MODEL_ENDPOINT": "http://127.0.0.1:1", "MODEL_API_KEY": "unused", "TRIAGE_DEPLOYMENT": "small",
        "LEDGER_PATH": str(world.settings.ledger_path), "CONFIG_PATH": str(folder),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)


@pytest.fixture
def settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[World, list[str]]]:
    """An escalation, a draft and a promise in a ledger that no agent has open."""
    with World(tmp_path) as world:
        emails = [
            process(world, "escalate"),
            process(world),
            process(world, follow_up="We send the report by Friday."),
        ]
        decide(world, emails[2], "approve")
        leave_to_commands(world, monkeypatch)
        yield world, emails


def run_open() -> tuple[int, str]:
    console = Console(file=StringIO(), width=200)
    status = commands.open(console)
    assert isinstance(console.file, StringIO)
    return status, console.file.getvalue()


def run_done(*email_ids: str) -> tuple[int, str]:
    console = Console(file=StringIO(), width=200)
    status = commands.done(console, list(email_ids))
    assert isinstance(console.file, StringIO)
    return status, console.file.getvalue()


def test_open_lists_the_most_urgent_first_and_says_what_it_is_and_for_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mailboxes.yaml").write_text("default:\n  escalate_to: the duty manager\n", encoding="utf-8")
    with World(tmp_path) as world:
        world.model.triage |= {"urgency": "low", "category": "complaint"}
        left = process(world, "escalate")
        world.model.triage |= {"urgency": "normal", "category": "question"}
        drafted = process(world)
        world.model.triage |= {"urgency": "critical", "category": "complaint"}
        world.simulator.set_mode(world.box, "autonomous")
        blocked = process(world)
        leave_to_commands(world, monkeypatch)
        status, text = run_open()
    assert status == 0
    assert text.index(blocked) < text.index(drafted) < text.index(left)
    assert f"{blocked}  blocked_ungated, urgency critical, complaint, " in text
    assert f"{left}  escalated, urgency low, complaint, " in text
    assert text.count("For: the duty manager") == 2


def test_open_lists_what_waits_the_oldest_first(settled: tuple[World, list[str]]) -> None:
    _, (escalated, drafted, promised) = settled
    status, text = run_open()
    assert status == 0
    assert text.index(escalated) < text.index(drafted) < text.index(promised)
    assert "escalated, " in text
    assert "promised: We send the report by Friday." in text


def test_done_closes_an_escalation_and_a_promise_and_no_draft(settled: tuple[World, list[str]]) -> None:
    world, (escalated, drafted, promised) = settled
    status, text = run_done(escalated, promised)
    assert status == 0
    assert f"{escalated}: escalation closed." in text
    status, text = run_done(drafted, "em_unknown")
    assert status == 1
    assert "approve or reject it at the review desk" in text
    assert "em_unknown: nothing of it is open" in text
    _, text = run_open()
    assert [email_id in text for email_id in (escalated, drafted, promised)] == [False, True, False]
    with closing(open_sqlite_ledger(world.settings.ledger_path, read_only=True)) as ledger:
        closed = [r for r in read_facts(ledger.audit.read()) if r["event"] == "matter.closed"]
    assert [(r["email_id"], r["kind"], r["actor"]) for r in closed] == [
        (escalated, "escalation", "operator"), (promised, "promise", "operator"),
    ]  # fmt: skip


PROFILE = "default:\n  notify:\n    first: teams-support\n    deputy: slack-lead\n    interval: 30m\n"


def run_notify(mailbox: str) -> tuple[int, str]:
    console = Console(file=StringIO(), width=200)
    status = notify(console, mailbox)
    assert isinstance(console.file, StringIO)
    return status, console.file.getvalue()


def test_notify_sends_a_test_to_each_target_and_names_what_is_wrong(
    settled: tuple[World, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mailboxes.yaml").write_text(PROFILE, encoding="utf-8")
    with Target(refuse_as_teams) as teams:
        monkeypatch.setenv("NOTIFY_TEAMS_SUPPORT", teams.address)
        status, text = run_notify("support@northwind.example")
        assert status == 1
        assert "teams-support: sent." in text
        assert "slack-lead: NOTIFY_SLACK_LEAD is not set" in text
        monkeypatch.setenv("NOTIFY_SLACK_LEAD", "http://hooks.example/secret-part")
        text = run_notify("support@northwind.example")[1]
        assert "NOTIFY_SLACK_LEAD (in Key Vault notify-slack-lead) is not an https address" in text
        assert "secret-part" not in text
        with Target(refuse_as_slack) as slack:
            monkeypatch.setenv("NOTIFY_SLACK_LEAD", slack.address)
            assert run_notify("support@northwind.example")[0] == 0
        assert "support@northwind.example: test" in read_text(teams.accepted[0])
        assert "This is a test" in read_text(teams.accepted[0])
        assert teams.refusals == slack.refusals == []
    assert run_notify("nobody@northwind.example")[0] == 2
    (tmp_path / "mailboxes.yaml").write_text("default:\n  purpose: x\n", encoding="utf-8")
    assert "has no notify" in run_notify("support@northwind.example")[1]
