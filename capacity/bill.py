"""What Azure bills, from the stored counts and the prices: docs/deploy.md has its table."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.figures import read_baseline
from capacity.page import DOCS, Block
from shared.domain import TokenPrice, Usage

PRICES = DOCS / "prices.toml"
BLOCK = Block(DOCS / "deploy.md", "cost")
EMAILS_A_MONTH = (0, 1_000, 50_000)
POLLS_A_DAY, TRACKS_A_DAY = 1_440, 288
HOURS_A_DAY, MINUTES_A_DAY = 24, 1_440


@dataclass(frozen=True, slots=True)
class Use:
    """What is billed. Seconds are GB-seconds of memory held, bytes those of the event log's lines."""

    executions: float = 0
    gb_seconds: float = 0
    service_bus_operations: float = 0
    table_transactions: float = 0
    multimail_calls: float = 0
    log_bytes: float = 0
    triages: float = 0
    drafts: float = 0

    def __add__(self, other: "Use") -> "Use":
        return Use(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    def __mul__(self, factor: float) -> "Use":
        return Use(*(getattr(self, name) * factor for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Rates:
    """The counts of the baseline, and the prices and assumptions of prices.toml."""

    counts: Mapping[str, float]
    price: Mapping[str, float]
    assumption: Mapping[str, float]
    date: str

    def count_tokens(self, step: str, direction: str) -> float:
        """Tokens of one call for an email with a reply; a draft is shown the knowledge too, which was not counted."""
        knowledge = self.assumption["knowledge_tokens"] if (step, direction) == ("draft", "input") else 0
        return self.counts[f"reply: {step} {direction} tokens"] + knowledge

    def get_cached_share(self, drafts_a_day: float) -> float:
        """The share of drafts whose knowledge the service still has from the one before, if they come by chance."""
        return 1 - math.exp(-drafts_a_day / MINUTES_A_DAY * self.assumption["cache_minutes"])

    def price_call(self, step: str, cached_share: float = 0) -> float:
        """One call in USD; of its input the knowledge is cached in this share of the calls."""
        price = TokenPrice(
            *(self.price[f"{step}_million_{kind}_tokens"] for kind in ("input", "output", "cached"))
        )
        tokens, written = (round(self.count_tokens(step, direction)) for direction in ("input", "output"))
        cached = round(cached_share * self.assumption["knowledge_tokens"]) if step == "draft" else 0
        return price.cost(Usage(1, tokens, written, cached))


def read_rates() -> Rates:
    """Both files. Raises KeyError later when a count is missing: measure with Azurite and update the baseline."""
    prices: dict[str, Any] = tomllib.loads(PRICES.read_text(encoding="utf-8"))
    tokens = {
        f"{step}_million_{kind}_tokens": price
        for step, kinds in prices["usd_per_million_tokens"].items()
        for kind, price in kinds.items()
    }
    return Rates(read_baseline(), prices["price"] | tokens, prices["assumption"], prices["date"])


def get_email_use(rates: Rates, kind: str) -> Use:
    """One email of a kind from its poll to its end, the looks at its reply included."""
    counts, assumed = rates.counts, rates.assumption
    calls = counts[f"{kind}: MultiMail calls"]
    triages = min(counts[f"{kind}: model calls"], 1)
    drafts = counts[f"{kind}: model calls"] - triages
    seconds = (
        calls * assumed["multimail_call_seconds"]
        + triages * assumed["triage_seconds"]
        + drafts * assumed["draft_seconds"]
    )
    looks = assumed["looks_at_a_reply"] if drafts else 0
    return Use(
        executions=1,
        gb_seconds=max(1.0, math.ceil(seconds * 10) / 10)
        * assumed["memory_gb"],  # by 100 ms, at least a second
        service_bus_operations=assumed["service_bus_operations_per_work_item"],
        table_transactions=counts[f"{kind}: Table transactions"] + looks,
        multimail_calls=calls + looks,
        log_bytes=counts[f"{kind}: event log"],
        triages=triages,
        drafts=drafts,
    )


def get_mixed_use(rates: Rates) -> Use:
    """The average email of the assumed mix."""
    share = rates.assumption["reply_share"]
    others = ("ignored", "escalated", "machine mail")
    rest = sum((get_email_use(rates, kind) for kind in others), Use()) * ((1 - share) / len(others))
    return get_email_use(rates, "reply") * share + rest


def get_idle_use(rates: Rates, polls: float, tracks: float) -> Use:
    """Timers that find nothing, with one mailbox."""
    counts, assumed = rates.counts, rates.assumption
    # Two timers have the tracking's schedule: people are notified in a run of its own.
    seconds = polls * assumed["poll_seconds"] + 2 * tracks * assumed["track_seconds"]
    return Use(
        executions=polls + 2 * tracks,
        gb_seconds=seconds * assumed["memory_gb"],
        table_transactions=polls * counts["idle poll, one mailbox: Table transactions"]
        + tracks * counts["idle look at replies: Table transactions"],
        multimail_calls=polls * counts["idle poll, one mailbox: MultiMail calls"],
        log_bytes=polls * counts["idle poll: event log"] + tracks * counts["idle look at replies: event log"],
    )


def price_month(rates: Rates, emails: float, mailboxes: int = 1) -> dict[str, float]:
    """The bill of a month in USD by line; `emails` come with the assumed mix, evenly to the mailboxes."""
    price, assumed = rates.price, rates.assumption
    use = get_mixed_use(rates) * emails + get_idle_use(
        rates, assumed["polls_a_month"], assumed["tracks_a_month"]
    )
    drafts_a_day = use.drafts / assumed["hours_a_month"] * HOURS_A_DAY / mailboxes
    cached_share = rates.get_cached_share(drafts_a_day)
    log_gb = (
        assumed["platform_log_gb_month"] + use.log_bytes / 1e9 + emails * assumed["log_kb_an_email"] / 1e6
    )
    return {
        "Functions": max(0.0, use.gb_seconds - price["flex_free_gb_seconds"]) * price["flex_gb_second"]
        + max(0.0, use.executions - price["flex_free_executions"]) / 1e6 * price["flex_million_executions"],
        "Service Bus": assumed["hours_a_month"] * price["service_bus_hour"]
        + max(0.0, use.service_bus_operations - price["service_bus_free_operations"]) / 1e6
        * price["service_bus_million_operations"],
        "Tables": use.table_transactions / 1e4 * price["table_10k_transactions"],
        "Logs": log_gb * price["log_gb"],
        "Alerts": price["alerts_month"],
        "Vault and blobs": price["vault_and_blobs_month"],
        "Triage": use.triages * rates.price_call("triage"),
        "Draft": use.drafts * rates.price_call("draft", cached_share),
    }  # fmt: skip


def build_table(rates: Rates) -> str:
    """The cost table of docs/deploy.md, in Markdown."""
    assumed, idle = rates.assumption, get_idle_use(rates, POLLS_A_DAY, TRACKS_A_DAY)
    thousand = get_mixed_use(rates) * 1_000
    bills = [price_month(rates, emails) for emails in EMAILS_A_MONTH]
    head = " | ".join(f"{emails:,}" for emails in EMAILS_A_MONTH)
    lines = [
        f"USD, list prices as estimated for a European region in {rates.date}: **assumptions, check them in the",
        "[calculator](https://azure.microsoft.com/pricing/calculator/)**, put your own into `docs/prices.toml` and",
        "run `make capacity ARGS=--write`. What is counted (transactions, calls, tokens, log lines) comes from",
        "`make bench`.",
        "",
        f"| | {head} emails a month |",
        "|---|" + "---|" * len(EMAILS_A_MONTH),
        *(
            f"| {_EXPLAINED.get(line, line).format(rates=rates)} | " + " | ".join(f"{bill[line]:.2f}" for bill in bills) + " |"
            for line in bills[0]
        ),
        "| **Together** | " + " | ".join(f"**{sum(bill.values()):.0f}**" for bill in bills) + " |",
        "",
        f"| used | 1,000 emails, {assumed['reply_share']:.0%} answered | an idle day, one mailbox |",
        "|---|---|---|",
        *(
            f"| {title} | {_show(getattr(thousand, name))} | {_show(getattr(idle, name))} |"
            for name, title in _USES.items()
        ),
        f"| tokens | {_show(_count_tokens(rates, thousand))} | 0 |",
    ]  # fmt: skip
    return "\n".join(lines)


_USES = {
    "executions": "executions",
    "gb_seconds": "GB-seconds",
    "service_bus_operations": "Service Bus operations",
    "table_transactions": "Table transactions",
    "multimail_calls": "MultiMail calls",
    "log_bytes": "bytes of event log",
}
_EXPLAINED = {
    "Functions": "Functions: {rates.assumption[memory_gb]:g} GB; a poll takes {rates.assumption[poll_seconds]:g} s, a "
    "triage {rates.assumption[triage_seconds]:g} s, a draft {rates.assumption[draft_seconds]:g} s",
    "Service Bus": "Service Bus Standard",
    "Logs": "Logs: {rates.assumption[platform_log_gb_month]:g} GB of the host's own, {rates.assumption[log_kb_an_email]:g} kB an email",
    "Triage": "Triage: {rates.counts[reply: triage input tokens]:,.0f} tokens in, "
    "{rates.counts[reply: triage output tokens]:.0f} out",
    "Draft": "Draft: {rates.counts[reply: draft input tokens]:,.0f} tokens in and "
    "{rates.assumption[knowledge_tokens]:,.0f} of knowledge, {rates.counts[reply: draft output tokens]:.0f} out; one mailbox, "
    "whose knowledge is in the prompt cache for {rates.assumption[cache_minutes]:g} minutes",
}


def _count_tokens(rates: Rates, use: Use) -> float:
    def each(step: str) -> float:
        return sum(rates.count_tokens(step, direction) for direction in ("input", "output"))

    return use.triages * each("triage") + use.drafts * each("draft")


def _show(value: float) -> str:
    return f"{value:,.0f}"
