"""What an email costs: model calls and tokens, estimated from the requests themselves."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from local.testing.world import World
from shared.knowledge.passages import Knowledge, Passage
from shared.model.chat import ChatCompletion, ChatRequest
from shared.model.tokens import estimate_tokens
from shared.profiles.fields import MAX_OWN_CATEGORIES, MAX_SIGNATURE_CHARACTERS
from shared.profiles.profile_file import MAX_PROFILE_CHARACTERS
from shared.profiles.profiles import MailboxProfile, Profiles
from shared.replying.triage import MAX_MAIL_TOKENS, MAX_TITLES_TOKENS

QUESTION = (
    "Hello, we have used your T2 sensors in our three cold stores since last spring and are happy with them. "
    "Last week one of them began to report a value that is about two degrees higher than the thermometer beside "
    "it, and the difference seems to grow when the door stays open for a while. We changed the battery, moved the "
    "sensor to another shelf and restarted the gateway, but nothing helped. Before I send it in I would like to "
    "know whether it can be recalibrated here on site, which reference you recommend for that, and how long we "
    "would have to do without it if it has to go back to you. Our next inspection is in about three weeks, so it "
    "would help me a lot to know by then what to plan for. I have attached the readings of the last ten days as a "
    "table. Many thanks for your help and best regards from the coast, Ann Lee, Customer Cold Stores"
)
REPLY = (
    "Dear Ann,\n\nthank you for the careful description and for the readings that you attached. It is good to know "
    "that you already changed the battery, moved the sensor and restarted the gateway: that rules out the usual "
    "reasons. A colleague from our calibration team will look at your readings and write to you about whether the "
    "sensor can be recalibrated on site, which reference to use, and how long a return would take, in time for your "
    "inspection in three weeks. Until then please keep the sensor where it is, so that the readings stay "
    "comparable.\n\nKind regards\nYour support team"
)


@dataclass
class Cost:
    calls: int = 0
    tokens: int = 0


def count(world: World) -> Cost:
    """Watch every completion of a world: all texts that go out, the schema included, and the answer."""
    cost, complete = Cost(), world.model.complete

    def counted(request: ChatRequest) -> ChatCompletion:
        completion = complete(request)
        texts = (request.system, request.user, json.dumps(request.schema), completion.text)
        cost.calls += 1
        cost.tokens += sum(map(estimate_tokens, texts))
        return completion

    object.__setattr__(world.pipeline, "complete", counted)
    return cost


TRIAGE_TOKENS = 1_300  # instructions, schema and answer
PROFILE_TOKENS = 2_000  # of the largest one, and of its categories in the schema
MOST_TOKENS = PROFILE_TOKENS + MAX_TITLES_TOKENS  # of what a mailbox adds to triage
HUGE = TRIAGE_TOKENS + MAX_MAIL_TOKENS
CASES = [
    ("machine mail", "skipped", {"sender": "noreply@shop.example"}, 0, 0),
    ("ignored", "ignored", {}, 1, 1_600),
    ("escalated", "escalated", {}, 1, 1_600),
    ("reply, 150 words, fresh thread", "reply_submitted", {}, 2, 3_000),
]


@pytest.mark.parametrize(("name", "outcome", "fields", "calls", "tokens"), CASES)
def test_an_email_costs_no_more_than_its_bound(
    tmp_path: Path, measured: Callable[[str], None],
    name: str, outcome: str, fields: dict[str, str], calls: int, tokens: int,
) -> None:  # fmt: skip
    with World(tmp_path) as world:
        cost = count(world)
        world.model.triage["action"] = {"ignored": "ignore", "escalated": "escalate"}.get(outcome, "reply")
        world.model.draft["reply_markdown"] = REPLY
        email_id = world.deliver(QUESTION, **fields)
        world.run_until_idle()
        assert world.outcome(email_id) == outcome
    measured(f"{name:42} {cost.calls} calls  {cost.tokens:5} tokens  (bound {tokens})")
    assert cost.calls == calls
    assert cost.tokens <= tokens


@pytest.mark.parametrize("letter", ["x", "<", "漢"])
def test_triage_of_a_huge_email_stays_within_its_bound(
    tmp_path: Path, measured: Callable[[str], None], letter: str
) -> None:
    with World(tmp_path) as world:
        cost = count(world)
        world.model.triage["action"] = "ignore"
        world.deliver(letter * 60_000, subject=letter * 998)
        world.run_until_idle()
    measured(
        f"{f'ignored, 60,000 times {letter!r}':42} {cost.calls} calls  {cost.tokens:5} tokens  (bound {HUGE})"
    )
    assert cost.calls == 1
    assert cost.tokens <= HUGE


def build_largest_profile() -> MailboxProfile:
    """As much as a profile may add to both prompts, which show the purpose, with the most own categories."""
    categories = {f"category-of-mail-{n:02}": "a kind of mail, long" for n in range(MAX_OWN_CATEGORIES)}
    profile = MailboxProfile(categories=categories, signature="s" * MAX_SIGNATURE_CHARACTERS)
    return replace(profile, purpose=("word " * 1_200)[: MAX_PROFILE_CHARACTERS - profile.prompt_characters])


class EndlessKnowledge:
    """As much as a draft may show, whatever it is asked for, and more titles than triage may show."""

    def read(self, _folders: Sequence[str], _query: str, max_tokens: int) -> Knowledge:
        return Knowledge((Passage(title="Endless", text="word " * (max_tokens - 20), source="a.md"),))

    def list_titles(self, _folders: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"Endless {number}" for number in range(1_000))


@pytest.mark.parametrize(
    ("name", "action", "body", "calls", "bound"),
    [
        ("escalated, largest profile", "escalate", QUESTION, 1, 1_600 + MOST_TOKENS),
        ("60,000 times 'x', largest profile", "ignore", "x" * 60_000, 1, HUGE + MOST_TOKENS),
        ("60,000 times '<', largest profile", "ignore", "<" * 60_000, 1, HUGE + MOST_TOKENS),
        (
            "reply, largest profile, most knowledge",
            "reply",
            QUESTION,
            2,
            3_000 + MOST_TOKENS + PROFILE_TOKENS + 24_000,
        ),
    ],
)
def test_the_largest_profile_and_knowledge_stay_within_their_bounds(
    tmp_path: Path, measured: Callable[[str], None], name: str, action: str, body: str, calls: int, bound: int
) -> None:
    profiles = Profiles(default=build_largest_profile())
    with World(tmp_path, profiles=profiles, knowledge=EndlessKnowledge()) as world:
        cost = count(world)
        world.model.triage |= {"action": action, "category": "category-of-mail-00"}
        world.model.draft["reply_markdown"] = REPLY
        email_id = world.deliver(body)
        world.run_until_idle()
        assert world.outcome(email_id) == {"escalate": "escalated", "ignore": "ignored"}.get(
            action, "reply_submitted"
        )
    measured(f"{name:42} {cost.calls} calls  {cost.tokens:5} tokens  (bound {bound})")
    assert cost.calls == calls
    assert cost.tokens <= bound


def test_a_long_thread_of_long_emails_stays_bounded(tmp_path: Path, measured: Callable[[str], None]) -> None:
    with World(tmp_path) as world:
        cost = count(world)
        email_id = world.deliver("x" * 60_000)
        world.simulator.mark_read(email_id)
        for _ in range(12):
            world.simulator.human_reply(email_id, "y" * 60_000)
            world.clock.advance(minutes=1)
            email_id = world.deliver("x" * 60_000, in_reply_to=email_id)
        world.run_until_idle()
        assert world.outcome(email_id) == "reply_submitted"
    measured(
        f"{'reply, 25 emails of 60,000 characters':42} {cost.calls} calls  {cost.tokens:5} tokens  (bound 20000)"
    )
    assert cost.calls == 2
    assert cost.tokens <= 20_000
