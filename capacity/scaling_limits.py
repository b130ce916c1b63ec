"""Every limit of a deployment as the rate of mail that reaches it, and the setups that carry a given rate."""

import json
import math
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from capacity import bill
from capacity.bill import Rates, Use
from capacity.scaling_simulation import Flow
from shared.ledger.keys import SHARDS, name_shard
from shared.model.chat_wire import REASONING_HEADROOM_TOKENS
from shared.replying.draft_request import MAX_OUTPUT_TOKENS as DRAFT_TOKENS
from shared.replying.triage import MAX_OUTPUT_TOKENS as TRIAGE_TOKENS
from shared.watching.polling import MAILBOXES_AT_ONCE

REPOSITORY = Path(__file__).parent.parent
ASSUMPTIONS, HOST = REPOSITORY / "docs" / "scaling.toml", REPOSITORY / "host.json"
PARTITIONS = f"{len(SHARDS)} partitions of the ledger (fixed once it has rows)"
DAY, HOUR, MINUTE = 86_400, 3_600, 60

# Rows of the ledger's sixteen partitions that one email or reply reads or writes; tests/test_scaling.py counts them.
# Of an email with a reply: its row and open work from the poll to the end, its reply tracked, its erasure noted.
EMAIL_ROWS = 17
# Its row read and written as it is seen pending and as it is settled, then its note and its matter dropped, and a
# note for the digest when it was approved.
REPLY_ROWS = 7
TAKE_IN_TRANSACTIONS = 4  # looked for, added, marked as enqueued, watermark: the poll's
# Two runs: tagged as pending, then read once it is decided, and tagged again. Each asks for the mailboxes.
SETTLE_CALLS, SETTLE_TRANSACTIONS = 7, 6
OTHER_GROUPS = (
    3  # each timer and the HTTP functions run on instances of their own, if the most counts for all together
)
TRACK_EVERY_SECONDS, FRESH_SECONDS, CHECK_SECONDS = 300, 3_600, 1_800  # shared/watching/tracking.py


@dataclass(frozen=True, slots=True)
class Setup:
    """A number of equal deployments and the mail of all of them. Capacities are thousands of tokens a minute."""

    name: str
    emails_a_day: float
    mailboxes: int
    deployments: int = 1
    instances: int = 40
    calls: int = json.loads(HOST.read_text(encoding="utf-8"))["extensions"]["serviceBus"][
        "maxConcurrentCalls"
    ]
    cores: float = 1
    triage_capacity: int = 100
    draft_capacity: int = 200
    plan: str = ""  # none: by contract


@dataclass(frozen=True, slots=True)
class Limit:
    """The most emails a second and deployment that one limit lets through, and what to do when it is reached."""

    name: str
    rate: float
    remedy: str
    is_setting: bool = False  # a number to raise, not a way of building
    is_monthly: bool = False  # a busy hour does not matter


@dataclass(frozen=True, slots=True)
class Facts:
    """What docs/scaling.toml assumes, besides the bill's counts, and what one average email needs."""

    rates: Rates
    limit: Mapping[str, float]
    plan: Mapping[str, Mapping[str, float]]
    assumption: Mapping[str, float]
    date: str
    email: Use

    @property
    def call_seconds(self) -> float:
        return self.rates.assumption["multimail_call_seconds"]

    def get_day(self, limit: Limit) -> float:
        """Emails a day and deployment that reach this limit in the busiest hour."""
        return limit.rate * DAY / (1 if limit.is_monthly else self.assumption["peak"])

    def count_admitted_tokens(self, step: str) -> float:
        """What Azure counts against the quota when a call begins: its input, cached or not, and all it may answer."""
        room = REASONING_HEADROOM_TOKENS if self.assumption["is_reasoning"] else 0
        most = {"triage": TRIAGE_TOKENS, "draft": DRAFT_TOKENS}[step]
        return self.rates.count_tokens(step, "input") + most + room


def read_facts() -> Facts:
    """Both files and the baseline."""
    read: dict[str, Any] = tomllib.loads(ASSUMPTIONS.read_text(encoding="utf-8"))
    rates = bill.read_rates()
    return Facts(
        rates, read["limit"], read["plan"], read["assumption"], read["date"], bill.get_mixed_use(rates)
    )


# One email, one poll, one reply


def count_worker_seconds(facts: Facts) -> float:
    """How long the average email holds its place: calls, transactions and the model, one after the other."""
    rates, email = facts.rates, facts.email
    looks = rates.assumption["looks_at_a_reply"] * email.drafts
    calls, transactions = email.multimail_calls - looks, email.table_transactions - looks
    return (
        calls * facts.call_seconds
        + (transactions - TAKE_IN_TRANSACTIONS) * facts.assumption["table_call_seconds"]
        + email.triages * rates.assumption["triage_seconds"]
        + email.drafts * rates.assumption["draft_seconds"]
    )


def count_poll_seconds(facts: Facts, mailboxes: int) -> float:
    """How long a poll takes that finds nothing: calls for each mailbox, as many mailboxes at once as there may be."""
    calls = facts.rates.counts["idle poll, each mailbox: MultiMail calls"]
    transactions = facts.rates.counts["idle poll, each mailbox: Table transactions"]
    seconds = calls * facts.call_seconds + transactions * facts.assumption["table_call_seconds"]
    cpu = (calls + transactions) * facts.assumption["cpu_seconds_a_call"]
    at_once = min(mailboxes, MAILBOXES_AT_ONCE)
    sweep = len(SHARDS) * facts.assumption["table_call_seconds"]  # one partition after the other
    return facts.call_seconds + sweep + mailboxes * max(seconds / at_once, cpu)


def count_add_seconds(facts: Facts, mailboxes: int) -> float:
    """What each new email adds to its poll."""
    at_once = min(mailboxes, MAILBOXES_AT_ONCE)
    one = max(facts.assumption["table_call_seconds"] / at_once, facts.assumption["cpu_seconds_a_call"])
    return TAKE_IN_TRANSACTIONS * one


def count_reply_rows(facts: Facts) -> float:
    """Rows of a partition for one reply until it is settled: noted, seen, settled, and read by each run.

    The tracking reads its note twice; what looks for answers and what notifies people read its matter.
    """
    seconds = facts.assumption["hours_to_decision"] * HOUR
    notes = min(seconds, FRESH_SECONDS) / TRACK_EVERY_SECONDS
    notes += max(0.0, seconds - FRESH_SECONDS) / CHECK_SECONDS
    return REPLY_ROWS + (2 + 2) * seconds / TRACK_EVERY_SECONDS + notes


def count_email_rows(facts: Facts) -> float:
    """Rows of a partition for one email: its own, and its open work read by each poll and each run of the tracker."""
    seconds_open = MINUTE / 2 + count_worker_seconds(facts)
    return EMAIL_ROWS + seconds_open * (1 / MINUTE + 1 / TRACK_EVERY_SECONDS)


def count_rows(facts: Facts) -> float:
    """Rows of a partition for the average email, until its reply is settled if it has one."""
    return count_email_rows(facts) + facts.email.drafts * count_reply_rows(facts)


# The limits


def list_limits(facts: Facts, setup: Setup) -> list[Limit]:
    """Every limit of one of the setup's deployments, the first to be reached first."""
    limits = [
        *_list_quotas(facts, setup),
        *_list_places(facts, setup),
        *_list_timers(facts, setup),
        *_list_stores(facts, setup),
    ]
    return sorted(limits, key=facts.get_day)


def _list_quotas(facts: Facts, setup: Setup) -> list[Limit]:
    limits = []
    if setup.plan:
        sent = facts.plan[setup.plan]["sent_a_month"] / facts.assumption["days_a_month"] / DAY
        limits.append(
            Limit(
                f"MultiMail's plan {setup.plan}",
                sent / facts.email.drafts,
                "a larger plan, or a contract",
                True,
                True,
            )
        )
    for step, capacity, share in (
        ("triage", setup.triage_capacity, facts.email.triages),
        ("draft", setup.draft_capacity, facts.email.drafts),
    ):
        calls = get_calls_a_minute(facts, step, capacity)
        remedy = f"`{step}Model.capacity` in `infra/main.parameters.json`"
        limits.append(Limit(f"{step} quota, {capacity:,}k TPM", calls / MINUTE / share, remedy, True))
    return limits


def get_calls_a_minute(facts: Facts, step: str, capacity: float) -> float:
    """What a deployment of this capacity (thousands of tokens a minute) admits: by tokens or by requests."""
    by_tokens = capacity * 1_000 / facts.count_admitted_tokens(step)
    return min(by_tokens, capacity * facts.limit["requests_a_minute_by_1000_tokens"])


def get_quota_window(facts: Facts, step: str, capacity: float) -> float:
    """Over how many seconds the deployment is judged, by tokens or by requests, whichever it runs out of first."""
    is_by_requests = get_calls_a_minute(
        facts, step, capacity
    ) < capacity * 1_000 / facts.count_admitted_tokens(step)
    return facts.limit["request_window_seconds" if is_by_requests else "token_window_seconds"]


def _list_places(facts: Facts, setup: Setup) -> list[Limit]:
    places = setup.instances * setup.calls
    cpu = facts.assumption["cpu_seconds_an_email"]
    return [
        Limit(
            f"{setup.instances} instances x {setup.calls} emails at once", places / count_worker_seconds(facts),
            "`maximumInstanceCount`, then `maxConcurrentCalls`", True,
        ),
        Limit(f"their CPU, {setup.cores:g} core each", setup.instances * setup.cores / cpu, "`maximumInstanceCount`", True),
    ]  # fmt: skip


def _list_timers(facts: Facts, setup: Setup) -> list[Limit]:
    """Each timer is one run at a time: what it does in the time that a run may take."""
    mailboxes, timeout = (
        math.ceil(setup.mailboxes / setup.deployments),
        facts.limit["function_timeout_seconds"],
    )
    left = max(0.0, 1 - count_poll_seconds(facts, mailboxes) / timeout)
    at_once = min(mailboxes, MAILBOXES_AT_ONCE)
    scans = 3 * len(SHARDS) * facts.assumption["table_call_seconds"]  # the replies twice and the open work
    listing = (mailboxes * facts.call_seconds / at_once + scans) / timeout
    seconds = SETTLE_CALLS * facts.call_seconds + SETTLE_TRANSACTIONS * facts.assumption["table_call_seconds"]
    settled = max(0.0, 1 - listing) * at_once / seconds
    split = "another deployment for some of the mailboxes (`MULTIMAIL_MAILBOX_IDS`)"
    return [
        Limit("one poll at a time", left / count_add_seconds(facts, mailboxes), split),
        Limit("checks of pending replies, one run at a time", settled / facts.email.drafts, split),
    ]


def count_shards(mailboxes: int) -> float:
    """Over how many partitions the ledger spreads them: all of its shards if there are many, as by chance if not."""
    fullest = max(Counter(name_shard(f"mailbox {number}") for number in range(mailboxes)).values())
    return mailboxes / fullest


def _list_stores(facts: Facts, setup: Setup) -> list[Limit]:
    limit, email = facts.limit, facts.email
    shards = count_shards(math.ceil(setup.mailboxes / setup.deployments))
    partitions = limit["table_partition_entities_a_second"] * shards
    limits = [
        Limit(
            "Table account", limit["table_account_transactions_a_second"] / email.table_transactions,
            "another deployment",
        ),
        Limit(PARTITIONS, partitions / count_rows(facts), "more of them: `SHARDS`"),
        Limit(
            "Service Bus Standard", limit["service_bus_credits_a_second"] / email.service_bus_operations,
            "Service Bus Premium",
        ),
    ]  # fmt: skip
    return limits


# Setups


def get_peak(facts: Facts, setup: Setup) -> float:
    """Emails a second of one deployment in the busiest hour."""
    return setup.emails_a_day / DAY * facts.assumption["peak"] / setup.deployments


def fit_setup(facts: Facts, setup: Setup) -> Setup:
    """The fewest deployments, and their settings, that carry the busiest hour.

    Quotas only grow. Emails at once become as many as are used: more would only be refused by the model's quota.
    """
    spare = facts.assumption["spare"]
    while min(limit.rate for limit in list_limits(facts, setup) if not limit.is_setting) < spare * get_peak(
        facts, setup
    ):
        setup = replace(setup, deployments=setup.deployments + 1)
    rate = spare * get_peak(facts, setup)
    triage, draft = (
        math.ceil(rate * share * MINUTE / get_calls_a_minute(facts, step, 1) / 10) * 10
        for step, share in (("triage", facts.email.triages), ("draft", facts.email.drafts))
    )
    cores = rate * facts.assumption["cpu_seconds_an_email"]
    workers = math.ceil(max(rate * count_worker_seconds(facts) / setup.calls, cores / setup.cores))
    return replace(
        setup,
        instances=workers + OTHER_GROUPS,
        triage_capacity=max(setup.triage_capacity, triage),
        draft_capacity=max(setup.draft_capacity, draft),
    )


def price_setup(facts: Facts, setup: Setup) -> dict[str, float]:
    """The bill of a month in USD by line, all deployments together, with polls as long as the mailboxes make them."""
    mailboxes = math.ceil(setup.mailboxes / setup.deployments)
    each = facts.rates.counts["idle poll, each mailbox: Table transactions"]
    polled = facts.rates.counts["idle poll, one mailbox: Table transactions"] + (mailboxes - 1) * each
    rates = replace(
        facts.rates,
        assumption={**facts.rates.assumption, "poll_seconds": max(1.0, count_poll_seconds(facts, mailboxes))},
        counts={**facts.rates.counts, "idle poll, one mailbox: Table transactions": polled},
    )
    emails = setup.emails_a_day / setup.deployments * facts.assumption["days_a_month"]
    month = bill.price_month(rates, emails, mailboxes)
    return {line: usd * setup.deployments for line, usd in month.items()}


def build_flow(facts: Facts, setup: Setup, emails: float) -> Flow:
    """One deployment for the simulation, with `emails` a second."""
    mailboxes = math.ceil(setup.mailboxes / setup.deployments)
    read = 2 * facts.call_seconds  # the email and its thread
    stores = ("Table account", PARTITIONS, "Service Bus Standard")
    triage, draft = (facts.rates.assumption[f"{step}_seconds"] for step in ("triage", "draft"))
    model = facts.email.triages * triage + facts.email.drafts * draft
    return Flow(
        emails=emails,
        places=setup.instances * setup.calls,
        read_seconds=read,
        triage_seconds=triage,
        draft_seconds=draft,
        end_seconds=max(0.0, count_worker_seconds(facts) - model - read),
        triaged=facts.email.triages,
        drafted=facts.email.drafts / facts.email.triages,
        triage_quota=get_calls_a_minute(facts, "triage", setup.triage_capacity) / MINUTE,
        draft_quota=get_calls_a_minute(facts, "draft", setup.draft_capacity) / MINUTE,
        starts=min(limit.rate for limit in list_limits(facts, setup) if limit.name in stores),
        poll_seconds=count_poll_seconds(facts, mailboxes),
        poll_seconds_an_email=count_add_seconds(facts, mailboxes),
        poll_timeout=facts.limit["function_timeout_seconds"],
        triage_window=get_quota_window(facts, "triage", setup.triage_capacity),
        draft_window=get_quota_window(facts, "draft", setup.draft_capacity),
    )
