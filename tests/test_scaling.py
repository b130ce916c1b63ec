"""Scale on paper: the simulation against what arithmetic knows, and the counts it stands on against the wire."""

import re
import xml.etree.ElementTree as tree
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from azure.data.tables import TableServiceClient

from capacity import scaling
from capacity.backlog import work_off
from capacity.scaling_limits import (
    EMAIL_ROWS,
    REPLY_ROWS,
    REPOSITORY,
    SETTLE_CALLS,
    SETTLE_TRANSACTIONS,
    TAKE_IN_TRANSACTIONS,
    Setup,
    count_poll_seconds,
    count_shards,
    count_worker_seconds,
    fit_setup,
    get_calls_a_minute,
    get_peak,
    get_quota_window,
    list_limits,
    read_facts,
)
from capacity.scaling_simulation import Flow, simulate
from local.testing.azurite import Azurite
from local.testing.world import World
from shared.ledger.entries import TrackedReply
from shared.ledger.keys import SHARDS, name_shard
from shared.ledger.ledger import Ledger
from shared.ledger.sqlite_store import SqliteStore
from shared.ledger.store import Change, Row
from shared.ledger.table_store import TABLE, TableStore
from shared.model.chat_wire import REASONING_HEADROOM_TOKENS
from shared.settings import declared_settings

BUSY = Flow(emails=2, places=1_000, read_seconds=1, triage_seconds=2, draft_seconds=3, end_seconds=1)


def test_what_is_in_flight_obeys_littles_law() -> None:
    result = simulate(BUSY, 1_200)
    assert result.emails == pytest.approx(2, rel=0.01)
    assert result.in_flight == pytest.approx(2 * 7, rel=0.02)
    assert result.waiting == pytest.approx(2 * 60 / 2, rel=0.02)  # half a minute for the poll, on average
    assert result.attempts == pytest.approx(1, rel=0.01)


def test_mail_goes_the_ways_of_its_shares() -> None:
    result = simulate(replace(BUSY, triaged=0.5, drafted=0.5), 1_200)
    assert result.in_flight == pytest.approx(2 * (2 + 0.5 * 2 + 0.25 * 3), rel=0.02)


@pytest.mark.parametrize(
    ("changes", "bound"),
    [
        ({"places": 7}, 1.0),
        ({"triage_quota": 0.5, "places": 8}, 0.5),
        ({"draft_quota": 0.4, "places": 8}, 0.4),
        ({"starts": 0.7}, 0.7),
    ],
)
def test_a_single_bottleneck_is_the_throughput(changes: dict[str, float], bound: float) -> None:
    emails = simulate(replace(BUSY, triage_window=60, draft_window=60, **changes), 3_600).emails
    assert emails == pytest.approx(bound, rel=0.03)


def test_no_more_comes_out_than_goes_in_nor_less_with_more_room() -> None:
    rates = [simulate(replace(BUSY, places=places), 1_200).emails for places in (1, 3, 7, 14, 28)]
    assert rates == sorted(rates)
    assert rates[0] == pytest.approx(1 / 7, rel=0.05)
    assert rates[-1] <= BUSY.emails * 1.01
    loads = [simulate(replace(BUSY, emails=emails), 1_200).emails for emails in (0.5, 1, 2, 4)]
    assert loads == sorted(loads)


def test_more_places_than_the_quota_feeds_only_multiply_the_attempts() -> None:
    few, many = (simulate(replace(BUSY, triage_quota=2.2, places=places)) for places in (15, 1_000))
    assert few.attempts == pytest.approx(1, rel=0.1)
    assert many.attempts > 5 * few.attempts
    assert many.emails < few.emails


def test_a_poll_that_is_ended_leaves_mailboxes_unseen() -> None:
    assert simulate(replace(BUSY, poll_seconds=500), 3_600).unseen_share == 0
    result = simulate(replace(BUSY, poll_seconds=1_080), 7_200)
    assert result.unseen_share == pytest.approx(0.5)
    assert result.emails < 0.6 * BUSY.emails


def test_the_limits_are_what_their_services_publish() -> None:
    facts = read_facts()
    setup = Setup("one", 1_000, 10, plan="pro")
    limits = {limit.name: limit for limit in list_limits(facts, setup)}
    assert limits["MultiMail's plan pro"].rate * 86_400 * 30 * facts.email.drafts == pytest.approx(30_000)
    assert limits["Table account"].rate * facts.email.table_transactions == pytest.approx(20_000)
    assert limits["Service Bus Standard"].rate == pytest.approx(1_000 / 3)
    assert limits["40 instances x 4 emails at once"].rate * count_worker_seconds(facts) == pytest.approx(160)
    assert get_calls_a_minute(facts, "triage", 50) == pytest.approx(33.2, abs=1)  # tokens bind
    reasoning = replace(facts, assumption={**facts.assumption, "is_reasoning": 1})
    assert get_calls_a_minute(reasoning, "triage", 50) < 6


def test_mailboxes_are_spread_over_the_shards_and_stay_in_theirs() -> None:
    names = [name_shard(f"mb_{number}") for number in range(400)]
    assert set(names) == set(SHARDS)
    assert names[7] == name_shard("mb_7")
    assert count_shards(1) == 1
    assert 1 < count_shards(25) < count_shards(10_000) <= len(SHARDS)


def test_more_of_anything_never_lowers_a_limit() -> None:
    facts, setup = read_facts(), Setup("one", 1_000, 100)
    before = list_limits(facts, setup)[0].rate
    for more in (
        {"instances": 80},
        {"calls": 8},
        {"triage_capacity": 200},
        {"draft_capacity": 400},
        {"deployments": 2},
    ):
        assert list_limits(facts, replace(setup, **more))[0].rate >= before  # type: ignore[arg-type]  # fields by name
    polls = [count_poll_seconds(facts, mailboxes) for mailboxes in (1, 8, 50, 500, 10_000)]
    assert polls == sorted(polls)


@pytest.mark.parametrize("size", scaling.SIZES, ids=lambda size: size.name)
def test_a_fitted_setup_carries_its_busiest_hour(size: Setup) -> None:
    facts = read_facts()
    setup = fit_setup(facts, size)
    peak = get_peak(facts, setup)
    for limit in list_limits(facts, setup):
        assert limit.rate >= (peak / facts.assumption["peak"] if limit.is_monthly else peak) * 0.999, (
            limit.name
        )


def test_models_that_think_first_reserve_and_cost_more_and_carry_less() -> None:
    facts = read_facts()
    thinking = scaling.with_reasoning(facts)
    for step in ("triage", "draft"):
        more = thinking.count_admitted_tokens(step) - facts.count_admitted_tokens(step)
        assert more == REASONING_HEADROOM_TOKENS
        assert thinking.rates.price_call(step) > facts.rates.price_call(step)
    assert scaling.find_first_quota(thinking).rate < 0.6 * scaling.find_first_quota(facts).rate
    first = (scaling.find_first_quota(facts).name, scaling.find_first_quota(thinking).name)
    assert first == ("draft quota, 200k TPM", "triage quota, 100k TPM")


def test_the_readme_names_both_figures() -> None:
    facts, text = read_facts(), (REPOSITORY / "README.md").read_text(encoding="utf-8")
    at_once, thinking = (
        scaling.find_first_quota(case).rate * 3_600 for case in (facts, scaling.with_reasoning(facts))
    )
    assert f"{float(f'{at_once:.3g}'):,.0f} emails an hour" in text
    assert f"{thinking:.0f} with models that think first" in text


@pytest.mark.parametrize("is_reasoning", [0, 1])
def test_a_mailbox_with_500_emails_a_day_works_with_the_defaults(is_reasoning: int) -> None:
    """Also with as much knowledge as a draft is shown, emails that use up every limit, and room for thinking."""
    facts = read_facts()
    facts = replace(facts, assumption={**facts.assumption, "is_reasoning": is_reasoning})
    budget = int(declared_settings()["daily_token_budget"].default)
    usual, most = scaling.with_knowledge(facts, 12_000), scaling.with_knowledge(facts, 24_000)
    for size in (usual, scaling.with_largest_emails(most)):
        emails = (
            scaling.BUSY_MAILBOX.emails_a_day / 86_400 * facts.assumption["peak"] * facts.assumption["spare"]
        )
        quotas = [limit for limit in list_limits(size, scaling.BUSY_MAILBOX) if "quota" in limit.name]
        assert len(quotas) == 2
        assert all(limit.rate > emails for limit in quotas)
        assert scaling.count_day_tokens(size, scaling.BUSY_MAILBOX) < budget


def test_cached_input_counts_against_the_quota() -> None:
    facts = read_facts()
    more = scaling.with_knowledge(facts, facts.rates.assumption["knowledge_tokens"] + 5_000)
    assert more.count_admitted_tokens("draft") == facts.count_admitted_tokens("draft") + 5_000
    assert more.count_admitted_tokens("triage") == facts.count_admitted_tokens("triage")


def test_a_quota_is_judged_over_a_minute_when_tokens_run_out_first() -> None:
    facts = read_facts()
    assert get_quota_window(facts, "draft", 200) == 60
    assert get_quota_window(facts, "triage", 100) == 60


def test_a_backlog_takes_few_work_items_and_keeps_every_worker_busy() -> None:
    backlog = work_off(4_000, a_minute=20)
    assert backlog.minutes == 4_000 / 20
    assert backlog.sent <= 2 * 4_000
    assert backlog.deepest <= 4_000
    recovered = work_off(4_000, a_minute=200, dead_minutes=180)  # fast workers are not held up by the measure
    assert recovered.minutes <= 180 + 4_000 / 200 + 5


def test_without_workers_little_is_sent() -> None:
    assert work_off(200, a_minute=20, dead_minutes=24 * 60).sent < 20 * 200


def test_the_defaults_are_those_that_are_deployed() -> None:
    bicep = (REPOSITORY / "infra" / "main.bicep").read_text(encoding="utf-8")
    setup = Setup("defaults", 1, 1)
    assert f"param maximumInstanceCount int = {setup.instances}\n" in bicep
    assert set(re.findall(r"capacity: (\d+)", bicep)) == {
        str(setup.triage_capacity),
        str(setup.draft_capacity),
    }


def test_the_tables_and_the_picture_in_the_documentation_are_current() -> None:
    facts, text = read_facts(), scaling.BLOCK.page.read_text(encoding="utf-8")
    run = "run: make capacity ARGS=--write"
    assert text == scaling.BLOCK.replace_in(text, scaling.build_tables(facts)), run
    picture = scaling.PICTURE.read_text(encoding="utf-8")
    assert picture == scaling.draw_limits(facts), run
    assert tree.fromstring(picture).tag.endswith("svg")


def test_a_reply_costs_the_tracker_as_many_calls_as_is_reckoned(tmp_path: Path) -> None:
    with World(tmp_path) as world:
        email_id = world.deliver()
        world.poll_and_work()
        world.simulator.requests.clear()
        _settle(world, email_id)
        calls = [request for request in world.simulator.requests if not request.path.endswith("/emails")]
        assert len(calls) == SETTLE_CALLS


class _ScannedLedger(Ledger):
    """Counts the readings of all tracked replies."""

    scans = 0

    def tracked_replies(self) -> Sequence[TrackedReply]:
        self.scans += 1
        return super().tracked_replies()


def test_an_event_about_a_reply_reads_that_one_alone(tmp_path: Path) -> None:
    ledger = _ScannedLedger(SqliteStore(tmp_path / "scanned.sqlite"))
    with World(tmp_path, ledger) as world:
        email_id = world.deliver()
        world.poll_and_work()
        before = ledger.scans
        assert world.tracker.track_one(world.box, str(world.entry(email_id).reply_id))
        assert ledger.scans == before


def _settle(world: World, email_id: str) -> None:
    """Seen as pending by one run, decided, and seen as delivered by the next."""
    world.clock.advance(minutes=6)
    world.tracker.track()
    world.simulator.decide(str(world.entry(email_id).reply_id), "approve")
    world.clock.advance(minutes=6)
    world.tracker.track()


class _CountedStore(TableStore):
    """Counts the rows of the ledger's sixteen partitions that are read one by one or written, by their kind."""

    def __init__(self, service: TableServiceClient) -> None:
        super().__init__(service)
        self.rows: Counter[str] = Counter()

    def get(self, partition: str, key: str) -> Row | None:
        found = super().get(partition, key)
        self._count(partition, key if found else "nothing")
        return found

    def write(self, changes: Sequence[Change]) -> tuple[str, ...] | None:
        for change in changes:
            self._count(change.row.partition, change.row.key)
        return super().write(changes)

    def _count(self, partition: str, key: str) -> None:
        if partition in SHARDS:
            self.rows[key.partition("|")[0]] += 1


def test_the_partitions_are_read_and_written_as_often_as_is_reckoned(
    tmp_path: Path, azurite: Azurite
) -> None:
    azurite.clear()
    transactions: Counter[str] = Counter()
    service = TableServiceClient(
        azurite.endpoint,
        credential=azurite.credential,
        raw_response_hook=lambda _answer: transactions.update(["all"]),
    )
    service.create_table(TABLE)
    store = _CountedStore(service)
    with World(tmp_path, Ledger(store)) as world:
        world.poller.poll()
        world.clock.advance(minutes=1)
        transactions.clear()
        world.poller.poll()
        idle = transactions.total()
        transactions.clear()
        store.rows.clear()
        email_id = world.deliver()
        world.poller.poll()
        assert transactions.total() - idle == TAKE_IN_TRANSACTIONS
        world.work()
        rows = store.rows.copy()
        assert world.outcome(email_id) == "reply_submitted"
        assert rows.total() == EMAIL_ROWS, rows
        transactions.clear()
        store.rows.clear()
        _settle(world, email_id)
        settled, notes = transactions.total(), 1
        scans, lookups = (
            2 * 3 * len(SHARDS),
            1,
        )  # two runs: replies twice and open work; `_settle` reads the row
        assert settled == SETTLE_TRANSACTIONS + scans + lookups + notes
        assert store.rows.total() == REPLY_ROWS + lookups + notes
        assert world.entry(email_id).reply_status == "delivered"
