"""People are told what waits for them, over real HTTP: at once, together, or in the morning; never twice."""

import contextlib
import hmac
import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from werkzeug import Response

from local.testing.world import World
from shared.domain import Action, Cause, ModelText, Outcome, Sentiment, Triage, Urgency
from shared.errors import ConfigurationError, TransientError
from shared.ledger.ledger import Ledger
from shared.ledger.sqlite_store import SqliteStore
from shared.ledger.store import Change
from shared.notifying.delivery import SIGNATURE_HEADER
from shared.notifying.messages import Item, Message, Section, Topic
from shared.notifying.rendering import MAX_TEAMS_BYTES, build_card, render
from shared.profiles.business_hours import WEEKDAYS, BusinessHours, Span, parse_zone
from shared.profiles.notify import Notify
from shared.profiles.profiles import MailboxProfile, Profiles
from shared.telemetry import EVENT_LOGGER
from tests.notification_targets import (
    Target,
    read_text,
    refuse_as_slack,
    refuse_as_teams,
    refuse_card,
)

ROOT = Path(__file__).parent.parent
NODE_PARTS = ROOT / ".node"
HOURS = BusinessHours(parse_zone("Europe/Berlin"), dict.fromkeys(WEEKDAYS[:5], (Span(540, 1020),)))
NOTIFY = Notify("teams-support", deputy="slack-lead")
PROFILE = MailboxProfile(notify=NOTIFY, business_hours=HOURS)


@pytest.fixture
def teams() -> Iterator[Target]:
    with Target(refuse_as_teams) as target:
        yield target
        assert target.refusals == []


@pytest.fixture
def slack() -> Iterator[Target]:
    with Target(refuse_as_slack) as target:
        yield target
        assert target.refusals == []


@pytest.fixture
def world(tmp_path: Path, teams: Target, slack: Target) -> Iterator[World]:
    """A mailbox whose digest of the day was sent, on a Monday at 13:00 in Berlin."""
    with open_world(tmp_path, teams, slack) as world:
        yield world


def open_world(
    tmp_path: Path,
    teams: Target,
    slack: Target,
    profile: MailboxProfile = PROFILE,
    ledger: Ledger | None = None,
    **settings: Any,
) -> World:
    world = World(tmp_path, ledger, Profiles(profile), **settings)
    world.targets |= {"notify-teams-support": teams.address, "notify-slack-lead": slack.address}
    world.ledger.matters.set_moment(world.box, "digest", world.clock.now)
    return world


def tell(world: World) -> None:
    world.agent.notify()


def texts(target: Target) -> list[str]:
    return [read_text(body) for body in target.accepted]


def escalate(world: World, urgency: str = "normal", **fields: str) -> str:
    world.model.triage |= {"action": "escalate", "urgency": urgency, "category": "complaint"}
    own = {
        "sender": f"ann{len(world.model.requests)}@customer.example"
    }  # no copy, and no flood of one sender
    email_id = world.deliver(**(own | fields))
    world.run_until_idle()
    assert world.outcome(email_id) == "escalated"
    return email_id


def draft(world: World) -> str:
    world.model.triage |= {"action": "reply", "urgency": "normal"}
    email_id = world.deliver(sender=f"ann{len(world.model.requests)}@customer.example")
    world.run_until_idle()
    world.clock.advance(minutes=6)
    world.tracker.track()
    assert world.outcome(email_id) == "reply_submitted"
    return email_id


def decide(world: World, email_id: str, decision: str) -> None:
    reply_id = world.entry(email_id).reply_id
    assert reply_id is not None
    world.simulator.decide(reply_id, decision)


# At once, and together


def test_a_critical_escalation_is_told_at_once_by_its_id_and_cause_alone(world: World, teams: Target) -> None:
    email_id = escalate(world, "critical", sender="Ann Lee <ann@customer.example>", subject="LINE DOWN")
    tell(world)
    (text,) = texts(teams)
    assert "support@northwind.example: 1 email needs a person" in text
    assert email_id in text
    assert "urgency critical" in text
    assert "complaint" in text
    assert "2026-03-02 13:00 (Europe/Berlin)" in text
    assert not any(word in text for word in ("ann@", "Ann", "LINE DOWN", "A person asks"))
    for _ in range(90):
        world.clock.advance(minutes=1)
        tell(world)
    assert len(teams.accepted) == 1


@pytest.mark.parametrize(
    ("outcome", "cause", "urgency", "is_told"),
    [
        (Outcome.NEEDS_HUMAN, Cause.REPLY_UNCONFIRMED, Urgency.NORMAL, True),
        (Outcome.BLOCKED_UNGATED, Cause.UNGATED_MODE, Urgency.LOW, True),
        (Outcome.BLOCKED_CONTENT_SAFETY, Cause.CONTENT_FILTER, Urgency.NORMAL, True),
        (Outcome.FAILED, Cause.ATTEMPTS_USED_UP, Urgency.NORMAL, True),
        (Outcome.ESCALATED, Cause.REPLY_UNDELIVERED, Urgency.NORMAL, True),
        (Outcome.ESCALATED, Cause.CATEGORY_RULE, Urgency.CRITICAL, True),
        (Outcome.ESCALATED, Cause.CATEGORY_RULE, Urgency.HIGH, False),
        (Outcome.IGNORED, Cause.TRIAGED, Urgency.CRITICAL, False),
        (Outcome.SKIPPED, Cause.SPAM, Urgency.NORMAL, False),
    ],
)
def test_what_is_told_at_once(
    world: World, teams: Target, outcome: Outcome, cause: Cause, urgency: Urgency, *, is_told: bool
) -> None:
    email_id = finish(world, outcome, cause, urgency)
    tell(world)
    assert [email_id in text for text in texts(teams)] == [True] * is_told


def finish(world: World, outcome: Outcome, cause: Cause, urgency: Urgency = Urgency.NORMAL) -> str:
    """An email that a worker brings to this end."""
    email_id = world.deliver()
    world.poller.poll()
    text = ModelText("It is about her grandmother.")
    triage = Triage(Action.REPLY, "question", urgency, Sentiment.NEUTRAL, 0.9, text, text)
    ended: dict[str, Any] = {"outcome": outcome, "cause": cause, "finished_at": world.clock.now}
    world.ledger.finish(replace(world.entry(email_id), triage=triage, **ended))
    return email_id


def test_a_reply_that_bounced_is_told_at_once(world: World, teams: Target) -> None:
    email_id = draft(world)
    world.simulator.refuse_delivery(world.entry(email_id).sender)
    decide(world, email_id, "approve")
    world.clock.advance(minutes=40)
    world.tracker.track()
    world.run_until_idle()
    assert world.entry(email_id).cause is Cause.REPLY_UNDELIVERED
    tell(world)
    (text,) = texts(teams)
    assert email_id in text
    assert "could not be delivered" in text


def test_other_escalations_and_drafts_are_told_together_after_the_interval(
    world: World, teams: Target
) -> None:
    first = escalate(world)
    second = draft(world)
    world.clock.advance(minutes=50)
    tell(world)
    assert teams.accepted == []
    third = escalate(world)
    world.clock.advance(minutes=10)
    tell(world)
    (text,) = texts(teams)
    assert all(email_id in text for email_id in (first, second, third))
    assert text.index("Left to a person") < text.index(third) < text.index("New drafts") < text.index(second)


def test_a_draft_that_was_decided_meanwhile_is_not_told(world: World, teams: Target) -> None:
    decided, pending = draft(world), draft(world)
    decide(world, decided, "approve")
    world.clock.advance(minutes=70)
    tell(world)  # the tracker has not looked since
    (text,) = texts(teams)
    assert pending in text
    assert decided not in text


def test_a_draft_that_was_decided_makes_nothing_else_due(world: World, teams: Target) -> None:
    decided = draft(world)
    world.clock.advance(minutes=45)
    pending, escalated = draft(world), escalate(world)
    decide(world, decided, "approve")
    for _ in range(3):
        world.clock.advance(minutes=6)
        tell(world)  # the tracker has not looked since
    assert teams.accepted == []
    world.clock.advance(minutes=40)
    tell(world)
    (text,) = texts(teams)
    assert pending in text
    assert escalated in text


def test_what_was_set_back_to_open_is_not_told(world: World, teams: Target) -> None:
    email_id = escalate(world, "critical")
    world.ledger.defer(world.entry(email_id).redriven(world.clock.now))
    tell(world)
    assert teams.accepted == []
    world.run_until_idle()
    tell(world)
    assert len(teams.accepted) == 1
    assert len([*world.ledger.matters.list()]) == 1


def test_a_mailbox_without_targets_sends_nothing_and_asks_multimail_nothing(tmp_path: Path) -> None:
    with World(tmp_path) as world:
        escalate(world, "critical")
        before = len(world.simulator.requests)
        tell(world)
        assert len(world.simulator.requests) == before


# Floods


def test_a_flood_is_one_notification_with_a_count(world: World, teams: Target) -> None:
    escalated = [escalate(world, "critical") for _ in range(30)]
    tell(world)
    (text,) = texts(teams)
    assert "30 emails need a person" in text
    assert sum(email_id in text for email_id in escalated) == 20
    assert "And 10 more: python -m local open lists all." in text
    world.clock.advance(minutes=1)
    tell(world)
    assert len(teams.accepted) == 1


def test_an_hour_has_a_limited_number_of_notifications_and_nothing_is_lost(
    world: World, teams: Target
) -> None:
    told: list[str] = []
    for _ in range(20):
        told.append(escalate(world, "critical"))
        world.clock.advance(minutes=1)
        tell(world)
    assert len(teams.accepted) == 6
    world.clock.advance(minutes=60)
    tell(world)
    assert len(teams.accepted) == 7
    assert "14 emails need a person" in texts(teams)[-1]
    assert all(any(email_id in text for text in texts(teams)) for email_id in told)


# Targets that fail


def answer_with(status: int, **headers: str) -> Callable[[], Response]:
    return lambda: Response("no", status, headers)


@pytest.mark.parametrize("status", [500, 503, 429, 404, 302])
def test_a_target_that_fails_delays_neither_mail_nor_other_targets_and_is_told_later(
    world: World, teams: Target, slack: Target, status: int
) -> None:
    late = draft(world)
    world.clock.advance(days=1)  # both targets are to be reminded
    world.ledger.matters.set_moment(world.box, "digest", world.clock.now)
    teams.answer = answer_with(status, Location=f"{teams.url}/elsewhere")
    expected = ConfigurationError if status in (404, 302) else TransientError
    with pytest.raises(expected) as failed:
        tell(world)
    assert teams.requests == 1
    assert "SECRET-OF-THE-ADDRESS" not in str(failed.value)
    assert "NOTIFY_TEAMS_SUPPORT" in str(failed.value)
    email_id = escalate(world, "critical")
    teams.answer = lambda: None
    world.clock.advance(minutes=3)
    tell(world)
    (text,) = texts(teams)
    assert late in text
    assert email_id in text


def test_a_target_that_is_down_is_told_once_it_is_up(world: World, teams: Target) -> None:
    email_id = escalate(world, "critical")
    teams.stop()
    with pytest.raises(TransientError, match="gave no answer") as failed:
        tell(world)
    assert "SECRET-OF-THE-ADDRESS" not in str(failed.value)
    teams.start()
    world.clock.advance(minutes=2)
    tell(world)
    assert email_id in texts(teams)[0]


def test_a_target_may_be_an_ipv6_address(world: World) -> None:
    escalate(world, "critical")
    world.targets["notify-teams-support"] = "https://[::1]:1/workflows/1"
    with pytest.raises(TransientError, match="gave no answer"):
        tell(world)


def test_a_target_that_does_not_answer_in_time_is_tried_less_and_less(world: World, teams: Target) -> None:
    escalate(world, "critical")
    teams.answer = answer_with(504)
    for _ in range(120):
        world.clock.advance(minutes=1)
        try:
            tell(world)
        except TransientError:
            continue
    assert teams.requests <= 8


def test_the_alert_sees_a_target_that_is_down_until_it_accepts_something(
    world: World, teams: Target, caplog: pytest.LogCaptureFixture
) -> None:
    def read() -> list[dict[str, Any]]:
        records = [vars(record) for record in caplog.records if record.name == EVENT_LOGGER]
        return [one for one in records if one["agent.event"].startswith("notification.")]

    caplog.set_level("INFO", EVENT_LOGGER)
    escalate(world, "critical")
    teams.answer = answer_with(503)
    failed_at: list[datetime] = []
    for _ in range(60):
        with contextlib.suppress(TransientError):
            tell(world)
        failed_at += [world.clock.now] * (len(read()) - len(failed_at))
        world.clock.advance(minutes=5)
    assert [one["agent.failures"] for one in read()] == list(range(1, len(failed_at) + 1))
    assert failed_at[3] - failed_at[0] <= timedelta(minutes=20)
    assert max(b - a for a, b in pairwise(failed_at)) < timedelta(hours=2)  # the alert's window
    assert {one["agent.target"] for one in read()} == {"teams-support"}
    assert "SECRET-OF-THE-ADDRESS" not in caplog.text
    teams.answer = lambda: None
    world.clock.advance(hours=1)
    tell(world)
    assert read()[-1]["agent.event"] == "notification.sent"


def test_a_target_that_asks_for_patience_is_left_alone_for_so_long(world: World, teams: Target) -> None:
    escalate(world, "critical")
    teams.answer = answer_with(429, **{"Retry-After": "600"})
    with pytest.raises(TransientError):
        tell(world)
    teams.answer = lambda: None
    for _ in range(9):
        world.clock.advance(minutes=1)
        tell(world)
    assert teams.requests == 1
    world.clock.advance(minutes=1)
    tell(world)
    assert len(teams.accepted) == 1


def test_a_deputy_is_told_though_the_first_target_fails(world: World, teams: Target, slack: Target) -> None:
    email_id = draft(world)
    world.clock.advance(hours=4)  # until 17:06 in Berlin
    tell(world)
    world.clock.advance(hours=20)
    world.ledger.matters.set_moment(world.box, "digest", world.clock.now)
    escalate(world, "critical")
    teams.answer = answer_with(500)
    with pytest.raises(TransientError):
        tell(world)
    assert [email_id in text for text in texts(slack)] == [True]


@pytest.mark.parametrize("reason", ["gone", "never configured", "down"])
def test_a_deputy_is_told_of_what_the_first_target_never_was(
    world: World, teams: Target, slack: Target, reason: str
) -> None:
    email_id = draft(world)
    if reason == "never configured":
        world.targets["notify-teams-support"] = ""
    teams.answer = answer_with(404 if reason == "gone" else 503)
    for _ in range(4 * 24):
        world.clock.advance(hours=1)
        with contextlib.suppress(ConfigurationError, TransientError):
            tell(world)
    assert [email_id in text for text in texts(slack)] == [True]
    assert teams.accepted == []
    teams.answer = lambda: None
    world.targets["notify-teams-support"] = teams.address
    for _ in range(6):
        world.clock.advance(hours=1)
        tell(world)
    assert sum(email_id in text for text in texts(teams)) == 1
    assert len(slack.accepted) == 1


def test_both_targets_are_told_once_when_a_reminder_is_due_for_both(
    world: World, teams: Target, slack: Target
) -> None:
    email_id = draft(world)
    world.clock.advance(days=3)
    for _ in range(4):
        world.clock.advance(minutes=5)
        tell(world)
    assert sum(email_id in text for text in texts(teams)) == 1
    assert [email_id in text for text in texts(slack)] == [True]


# At least once, and normally once


class CrashingStore(SqliteStore):
    """A ledger's file whose process dies before a write of the given number, or directly after it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.left: int | None = None
        self.is_written = False

    def write(self, changes: Sequence[Change]) -> tuple[str, ...] | None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                if self.is_written:
                    super().write(changes)
                raise KeyboardInterrupt
        return super().write(changes)


@pytest.mark.parametrize("is_written", [False, True])
def test_a_crash_between_any_two_writes_loses_no_notification_and_repeats_one_at_most(
    tmp_path: Path, teams: Target, slack: Target, *, is_written: bool
) -> None:
    for crash in range(6):
        teams.accepted.clear()
        folder = tmp_path / f"{is_written}{crash}"
        folder.mkdir()
        store = CrashingStore(folder / "ledger.sqlite")
        with open_world(folder, teams, slack, ledger=Ledger(store)) as world:
            told = [escalate(world, "critical"), escalate(world, "critical")]
            store.left, store.is_written = crash, is_written
            with contextlib.suppress(KeyboardInterrupt):
                tell(world)
            store.left = None
            for _ in range(3):
                world.clock.advance(minutes=1)
                tell(world)
        shown = [[email_id in text for text in texts(teams)].count(True) for email_id in told]
        assert all(1 <= count <= 2 for count in shown), (crash, shown)
        if crash >= 3:  # the channel, and both emails
            assert shown == [1, 1]


# What is shown


HOSTILE = "<!channel> *now* [pay](https://evil.example/x) <at>all</at> <@U1> _x_ `y` \u202egnp.exe & https://evil.example"


def test_sender_and_subject_are_shown_only_where_the_profile_allows_it_and_as_mere_text(
    tmp_path: Path, teams: Target, slack: Target
) -> None:
    profile = replace(PROFILE, notify=replace(NOTIFY, show_sender=True, first="slack-lead", deputy=""))
    with open_world(tmp_path, teams, slack, profile) as world:
        escalate(world, "critical", sender="ann@customer.example", subject=HOSTILE)
        tell(world)
    (body,) = slack.accepted
    text = read_text(body)
    assert "ann@customer.example" in text
    assert "<!channel> *now*" in text
    assert "evil.example" not in text
    assert "\u202e" not in text
    assert "<!channel>" not in body["text"]
    assert all(block["text"]["type"] == "plain_text" for block in body["blocks"] if "text" in block)


def test_a_long_address_shows_its_end(tmp_path: Path, teams: Target, slack: Target) -> None:
    profile = replace(PROFILE, notify=replace(NOTIFY, show_sender=True))
    with open_world(tmp_path, teams, slack, profile) as world:
        escalate(world, "critical", sender=f"support@northwind.example.{'a' * 60}.{'b' * 60}.evil.net")
        tell(world)
    (text,) = texts(teams)
    assert "support@northwind.example.a" in text
    assert "bbb.evil.net" in text
    assert "a" * 60 not in text


def test_an_endpoint_of_ones_own_gets_signed_json(tmp_path: Path, teams: Target, slack: Target) -> None:
    profile = replace(PROFILE, notify=replace(NOTIFY, first="json-desk"))
    with Target() as own, open_world(tmp_path, teams, slack, profile) as world:
        world.targets |= {"notify-json-desk": own.address, "notify-json-desk-key": "whsec_1"}
        email_id = escalate(world, "critical")
        tell(world)
    (body,) = own.accepted
    digest = hmac.new(b"whsec_1", own.bodies[0], sha256).hexdigest()
    assert own.headers[0][SIGNATURE_HEADER] == f"sha256={digest}"
    (section,) = body["sections"]
    (item,) = section["items"]
    assert (section["topic"], item["email_id"], item["urgency"]) == ("now", email_id, "critical")
    assert item["since"] == "2026-03-02T12:00:00+00:00"
    assert "sender" not in item


def build_largest(character: str) -> Message:
    """As many items as there are in one message, every text as long as it may be."""
    item = Item(
        "em_" + "x" * 60, "blocked_content_safety", character * 200, "2026-03-02 09:00 (America/Argentina/ComodRivadavia)",
        datetime(2026, 3, 2, tzinfo=UTC), character * 40, "critical", character * 200, character * 100, character * 120,
    )  # fmt: skip
    sections = tuple(
        Section(topic, (item,) * 4, more=1_000_000)
        for topic in Topic
        if topic not in (Topic.DIGEST, Topic.TEST)
    )
    return Message(
        "1" * 32, "mb", "a" * 300 + "@northwind.example", datetime(2026, 3, 2, tzinfo=UTC), sections
    )


@pytest.mark.parametrize("character", ["a", "ä", "語", "😀", '"', "\\", "\x01"])
def test_the_largest_notification_fits_into_every_target(character: str) -> None:
    message = build_largest(character)
    body = render("teams-support", message)
    assert len(body) <= MAX_TEAMS_BYTES
    assert refuse_as_teams(json.loads(body), len(body)) == ""
    shown = read_text(json.loads(body))
    assert shown.count("And 1000000 more") + shown.count("And 100000") >= 5  # what is left out is counted
    body = render("slack-support", message)
    assert refuse_as_slack(json.loads(body), len(body)) == ""


def test_the_checks_of_the_targets_refuse_what_these_would_refuse() -> None:
    card = build_card(build_largest("a"))["attachments"][0]["content"]
    assert refuse_card(card) == ""
    for wrong in (
        card | {"version": "1.6"},
        card | {"msteams": {}},
        card | {"body": [{"type": "RichTextBlock"}]},
        card
        | {"body": [{"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": "a", "bold": True}]}]},
    ):
        assert refuse_card(wrong)


@pytest.mark.skipif(
    not (NODE_PARTS / "node_modules" / "adaptivecards").exists(),
    reason="no adaptivecards: install Node, then `make test` installs it in .node",
)
def test_the_reader_of_adaptive_cards_understands_all_of_a_card() -> None:
    card = build_card(build_largest("ä"))["attachments"][0]["content"]
    done = subprocess.run(
        ["node", str(ROOT / "tests/node/validate_card.js"), str(NODE_PARTS)],
        input=json.dumps(card), capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert json.loads(done.stdout) == {"problems": [], "understood": card}


# The digest


def test_every_working_morning_has_one_digest(world: World, teams: Target) -> None:
    world.clock.advance(minutes=1)
    escalate(world)
    answered, pending = draft(world), draft(world)
    decide(world, answered, "approve")
    world.model.triage["action"] = "ignore"
    world.deliver(sender="bob@customer.example")
    world.deliver(sender="spam@customer.example", spam_verdict="flagged")
    world.run_until_idle()
    world.clock.advance(minutes=40)
    world.tracker.track()
    world.clock.now = datetime(2026, 3, 3, 7, 30, tzinfo=UTC)  # half past eight in Berlin
    tell(world)
    teams.accepted.clear()
    for _ in range(60):
        world.clock.advance(minutes=1)
        tell(world)
    (text,) = [text for text in texts(teams) if "support@northwind.example: digest" in text]
    assert "Emails since 2026-03-02 13:00 (Europe/Berlin): 5. Replies approved: 1." in text
    assert "Drafts pending: 1, the oldest since 2026-03-02 13:07 (Europe/Berlin)." in text
    assert "Left to a person: 1 (1 triaged)." in text
    assert "Ignored: 1. Skipped: 0. Flagged as spam: 1." in text
    assert world.entry(pending).email_id not in text


def list_digests(world: World, teams: Target, *days: int) -> list[str]:
    """The digests of these days in March, of which each is sent soon after nine in Berlin."""
    for day in days:
        world.clock.now = datetime(2026, 3, day, 8, 5, tzinfo=UTC)
        tell(world)
    return [text for text in texts(teams) if "support@northwind.example: digest" in text]


def test_a_reply_is_counted_once_it_was_approved_however_old_its_draft_is(
    world: World, teams: Target
) -> None:
    world.clock.now = datetime(2026, 3, 3, 1, tzinfo=UTC)
    late, never = draft(world), draft(world)
    assert "Replies approved: 0." in list_digests(world, teams, 3, 4)[-1]
    decide(world, late, "approve")
    decide(world, never, "reject")
    world.clock.advance(minutes=40)
    world.tracker.track()
    counted = [text.count("Replies approved: 1.") for text in list_digests(world, teams, 5, 6)]
    assert counted == [0, 0, 1, 0]


def test_an_approval_that_is_learned_after_the_digest_is_in_the_next_one(world: World, teams: Target) -> None:
    world.clock.now = datetime(2026, 3, 3, 7, 20, tzinfo=UTC)
    email_id = draft(world)
    world.clock.now = datetime(2026, 3, 3, 7, 58, tzinfo=UTC)
    decide(world, email_id, "approve")
    list_digests(world, teams, 3)
    reply = world.simulator.get_email(world.box, world.entry(email_id).reply_id or "")
    delivered_at, reply.delivered_at = reply.delivered_at, None
    world.clock.advance(minutes=40)
    world.tracker.track()
    assert world.entry(email_id).reply_status == "approved"
    list_digests(world, teams, 4)
    reply.delivered_at = delivered_at
    world.tracker.track()
    assert world.entry(email_id).reply_status == "delivered"
    counted = [text.count("Replies approved: 1.") for text in list_digests(world, teams, 5)]
    assert counted == [0, 1, 0]


@pytest.mark.parametrize(
    ("added", "finished"),
    [
        ("07:58:30", "07:58:30"), ("07:59:30", "07:59:30"), ("07:59:30", "08:00:30"), ("07:58:30", "08:30:00"),
        ("08:00:00", "08:00:00"),
    ],
)  # fmt: skip
def test_mail_around_the_morning_is_in_one_digest(
    world: World, teams: Target, added: str, finished: str
) -> None:
    world.model.triage["action"] = "ignore"
    world.clock.now = datetime.fromisoformat(f"2026-03-03T{added}Z")
    world.deliver(sender="bob@customer.example")
    world.poller.poll()
    if finished > "08:05":
        list_digests(world, teams, 3)
    world.clock.now = datetime.fromisoformat(f"2026-03-03T{finished}Z")
    world.run_until_idle()
    digests = list_digests(world, teams, 3, 4, 5)
    assert [sum(f"(Europe/Berlin): {count}." in text for text in digests) for count in (1, 2)] == [1, 0]
    assert sum("Ignored: 1." in text for text in digests) == 1


def test_a_notification_before_the_digest_counts_for_the_limit_of_the_hour(
    world: World, teams: Target
) -> None:
    escalate(world, "critical")
    world.clock.now = datetime(2026, 3, 3, 8, 5, tzinfo=UTC)

    def tick() -> datetime:
        world.clock.advance(seconds=1)
        return world.clock()

    replace(world.agent.notifier, clock=tick).run()
    assert ["digest" in text for text in texts(teams)] == [False, True]
    assert len(world.ledger.matters.get_channel(world.box, "teams-support").sent) == 1


def test_mail_that_is_heard_of_late_is_in_the_next_digest(world: World, teams: Target) -> None:
    world.clock.now = datetime(2026, 3, 3, 7, 50, tzinfo=UTC)
    world.deliver(sender="bob@customer.example")
    list_digests(world, teams, 3)
    world.run_until_idle()
    counted = [text.count("(Europe/Berlin): 1.") for text in list_digests(world, teams, 4, 5)]
    assert counted == [0, 1, 0]


def test_what_is_written_while_a_digest_is_made_is_in_the_next_one(world: World, teams: Target) -> None:
    world.clock.now = datetime(2026, 3, 3, 7, 59, 59, tzinfo=UTC)
    world.deliver(sender="bob@customer.example")
    world.poller.poll()
    (work,) = world.ledger.open_work()
    done = replace(world.entry(work.email_id), outcome=Outcome.IGNORED, finished_at=world.clock.now)
    world.clock.now = datetime(2026, 3, 3, 8, tzinfo=UTC)
    tell(world)
    world.ledger.finish(done)
    counted = [text.count("Ignored: 1.") for text in list_digests(world, teams, 4, 5)]
    assert counted == [0, 1, 0]


def test_what_is_worked_on_again_has_not_come_in_again(world: World, teams: Target) -> None:
    world.clock.advance(minutes=1)
    email_id = escalate(world)
    list_digests(world, teams, 3)
    world.clock.advance(minutes=10)
    world.ledger.defer(world.entry(email_id).redriven(world.clock.now))
    counted = [text.count("(Europe/Berlin): 1.") for text in list_digests(world, teams, 4)]
    assert counted == [1, 0]
    assert "In progress: 1" in texts(teams)[-1]


def test_a_mailbox_that_is_not_watched_has_no_digest(tmp_path: Path, teams: Target, slack: Target) -> None:
    profile = replace(PROFILE, notify=replace(NOTIFY, deputy=""))
    address = "support@northwind.example"
    with open_world(tmp_path, teams, slack, profile, multimail_mailbox_ids=(address,)) as world:
        world.simulator.add_mailbox("other@northwind.example")
        world.clock.advance(days=1)
        tell(world)
        (text,) = texts(teams)
        assert text.startswith(f"{address}: digest")


def test_a_clock_that_was_ahead_once_stops_no_digest(world: World, teams: Target) -> None:
    world.clock.now = datetime(2027, 3, 3, 8, tzinfo=UTC)
    tell(world)
    world.clock.now = datetime(2026, 3, 4, 8, tzinfo=UTC)
    teams.accepted.clear()
    tell(world)
    assert [text for text in texts(teams) if "support@northwind.example: digest" in text]


def test_no_digest_comes_on_a_day_off(world: World, teams: Target) -> None:
    world.clock.now = datetime(2026, 3, 6, 12, tzinfo=UTC)  # Friday
    tell(world)
    assert len(teams.accepted) == 1
    world.clock.now = datetime(2026, 3, 9, 7, 59, tzinfo=UTC)  # Monday, a minute before nine
    tell(world)
    assert len(teams.accepted) == 1
    world.clock.advance(minutes=1)
    tell(world)
    assert "Emails since 2026-03-06 09:00" in texts(teams)[1]


# Reminders


def test_a_pending_reply_is_nudged_and_then_its_deputy_told_in_business_hours(
    world: World, teams: Target, slack: Target
) -> None:
    email_id = draft(world)  # 13:00 on Monday in Berlin; the day ends at 17:00
    world.clock.now = datetime(2026, 3, 2, 15, 59, tzinfo=UTC)
    tell(world)
    teams.accepted.clear()
    world.clock.now = datetime(2026, 3, 2, 16, 0, tzinfo=UTC)
    tell(world)
    (text,) = texts(teams)
    assert "Reminder: approve or reject these drafts" in text
    assert email_id in text
    world.clock.now = datetime(2026, 3, 3, 11, 59, tzinfo=UTC)
    world.ledger.matters.set_moment(world.box, "digest", world.clock.now)
    tell(world)
    assert slack.accepted == []
    world.clock.now = datetime(2026, 3, 3, 12, 0, tzinfo=UTC)
    tell(world)
    assert [email_id in text for text in texts(slack)] == [True]
    for _ in range(10):
        world.clock.advance(days=1)
        tell(world)
    assert sum(email_id in text for text in [*texts(teams), *texts(slack)]) == 2
    assert world.entry(email_id).reply_status == "pending_send_approval"
