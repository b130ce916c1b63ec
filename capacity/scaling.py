"""Scale on paper, checked by simulation: docs/scaling.md has its tables and its picture."""

from collections.abc import Callable
from dataclasses import replace
from math import ceil, log10

from benchmarks.pictures import BLUE, GREY, Bar, draw_bars
from capacity.backlog import build_backlogs
from capacity.page import DOCS, Block
from capacity.scaling_limits import (
    HOUR,
    MINUTE,
    TRACK_EVERY_SECONDS,
    Facts,
    Limit,
    Setup,
    build_flow,
    count_email_rows,
    count_poll_seconds,
    count_reply_rows,
    count_rows,
    count_worker_seconds,
    fit_setup,
    get_calls_a_minute,
    get_peak,
    list_limits,
    price_setup,
)
from capacity.scaling_simulation import Result, simulate
from shared.ledger.keys import SHARDS
from shared.settings import declared_settings

BLOCK, PICTURE = Block(DOCS / "scaling.md", "scaling"), DOCS / "scaling.svg"
DEFAULTS = Setup("defaults", 2_000, 25, plan="pro")
SIZES = (
    Setup("small team", 300, 3, plan="builder"),
    Setup("department", 10_000, 100, plan="scale"),
    Setup("10 million a day", 10_000_000, 10_000),
)
DECISION_HOURS = (1, 4, 8, 24)
POLLED_MAILBOXES = (1, 50, 500, 10_000)
LOAD = 0.9  # of what the default quotas let through, in the simulation
WINDOWS = (60, 10, 1)  # seconds
TRIED = ((2, 1), (10, 1), (40, 1), (40, 5))  # instances, and how many times the default capacities
KNOWLEDGE_TOKENS = (1_500, 12_000, 24_000)
BUSY_MAILBOX = Setup("a busy mailbox", 500, 1)


def list_trials(facts: Facts) -> list[tuple[Setup, list[Result]]]:
    """An hour of mail at LOAD of the default quotas, with other instances and quotas, judged over each of WINDOWS."""
    mail = LOAD * find_first_quota(facts).rate
    setups = [
        replace(
            DEFAULTS,
            instances=instances,
            triage_capacity=times * DEFAULTS.triage_capacity,
            draft_capacity=times * DEFAULTS.draft_capacity,
        )
        for instances, times in TRIED
    ]
    flows = [(setup, build_flow(facts, setup, mail)) for setup in setups]
    return [
        (setup, [simulate(replace(flow, triage_window=window, draft_window=window)) for window in WINDOWS])
        for setup, flow in flows
    ]


def find_first_quota(facts: Facts) -> Limit:
    """The default model quota that ends first; its rate is the emails a second that both let through."""
    return min((q for q in list_limits(facts, DEFAULTS) if "quota" in q.name), key=lambda quota: quota.rate)


def build_tables(facts: Facts) -> str:
    """The block of docs/scaling.md, in Markdown."""
    parts = (
        _build_limits(facts),
        _build_busy_mailbox(facts),
        _build_partitions(facts),
        _build_sizes(facts),
        _build_polls(facts),
        _build_trials(facts),
        build_backlogs(),
        _build_reasoning(facts),
    )
    return "\n\n".join("\n".join(lines) for lines in parts)


def _build_limits(facts: Facts) -> list[str]:
    return [
        f"### The limits of the defaults, first one first: {DEFAULTS.mailboxes} mailboxes",
        "",
        "| limit | emails an hour | emails a day | then |",
        "|---|---|---|---|",
        *(
            f"| {limit.name} | {_show(limit.rate * HOUR)} | {_show(facts.get_day(limit))} | {limit.remedy} |"
            for limit in list_limits(facts, DEFAULTS)
        ),
    ]


def with_knowledge(facts: Facts, tokens: float) -> Facts:
    """The same with so many tokens of knowledge in each draft."""
    assumption = {**facts.rates.assumption, "knowledge_tokens": tokens}
    return replace(facts, rates=replace(facts.rates, assumption=assumption))


def with_largest_emails(facts: Facts) -> Facts:
    """The same with emails and threads that use up what a call is shown of them, and answers what they may be."""
    largest = {
        f"reply: {step} {direction} tokens": facts.assumption[f"largest_{step}_{direction}_tokens"]
        for step in ("triage", "draft")
        for direction in ("input", "output")
    }
    return replace(facts, rates=replace(facts.rates, counts={**facts.rates.counts, **largest}))


def count_day_tokens(facts: Facts, setup: Setup) -> float:
    """What the mailbox's token budget counts in a day: input, cached or not, and output."""
    use = facts.email * setup.emails_a_day
    calls = {"triage": use.triages, "draft": use.drafts}
    return sum(
        number * facts.rates.count_tokens(step, direction)
        for step, number in calls.items()
        for direction in ("input", "output")
    )


def _build_busy_mailbox(facts: Facts) -> list[str]:
    sizes = [(f"{tokens:,}", with_knowledge(facts, tokens)) for tokens in KNOWLEDGE_TOKENS]
    sizes.append((f"{KNOWLEDGE_TOKENS[-1]:,}, the largest emails", with_largest_emails(sizes[-1][1])))
    budget = int(declared_settings()["daily_token_budget"].default)
    busiest = get_peak(facts, BUSY_MAILBOX) * MINUTE * facts.email.drafts
    return [
        f"### A mailbox with {BUSY_MAILBOX.emails_a_day:,} emails a day, with the defaults",
        "",
        "| tokens of knowledge | a draft reserves | drafts a minute that the quota admits | tokens a day "
        "| of `DAILY_TOKEN_BUDGET` | models, USD a day | of that saved by the cache |",
        "|---|---|---|---|---|---|---|",
        *(_describe_busy_mailbox(name, size, budget) for name, size in sizes),
        "",
        f"The busiest hour has {busiest:.2g} drafts a minute.",
    ]


def _describe_busy_mailbox(name: str, facts: Facts, budget: int) -> str:
    use = facts.email * BUSY_MAILBOX.emails_a_day
    triage, share = use.triages * facts.rates.price_call("triage"), facts.rates.get_cached_share(use.drafts)
    whole, cached = (triage + use.drafts * facts.rates.price_call("draft", hit) for hit in (0, share))
    tokens = count_day_tokens(facts, BUSY_MAILBOX)
    cells = (
        name,
        _show(facts.count_admitted_tokens("draft")),
        _show(get_calls_a_minute(facts, "draft", BUSY_MAILBOX.draft_capacity)),
        _show(tokens),
        f"{tokens / budget:.0%}",
        f"{cached:.2f}",
        f"{whole - cached:.2f}",
    )
    return f"| {' | '.join(cells)} |"


def with_reasoning(facts: Facts) -> Facts:
    """The same with models that think before they answer: more is reserved, and what they think is billed."""
    thought = facts.assumption["reasoning_tokens"]
    written = {
        name: facts.rates.counts[name] + thought
        for name in (f"reply: {step} output tokens" for step in ("triage", "draft"))
    }
    rates = replace(facts.rates, counts={**facts.rates.counts, **written})
    return replace(facts, rates=rates, assumption={**facts.assumption, "is_reasoning": 1})


def _build_reasoning(facts: Facts) -> list[str]:
    models = (
        ("answer at once (`temperature` 0, or `reasoning_effort` none)", facts),
        ("think first (the models' default effort)", with_reasoning(facts)),
    )
    rates, prices = (
        [_show(find_first_quota(case).rate * HOUR) for _, case in models],
        [f"{price_models(case):.2f}" for _, case in models],
    )
    return [
        "### Models that answer at once, and models that think first",
        "",
        "Reasoning models (o-series, gpt-5 and later) work if they have structured outputs; the agent finds out at the first call and "
        "leaves `temperature` away. gpt-5.1 and later answer at once by default (effort `none`). o-series, gpt-5 and gpt-5-mini always "
        f"think: {rates[1]} emails an hour instead of {rates[0]} with the default quotas, and {prices[1]} USD instead of {prices[0]} for "
        f"1,000 answered emails, if they think {facts.assumption['reasoning_tokens']:,.0f} tokens a call (an assumption, "
        "`reasoning_tokens`).",
        "",
        "| both models | a triage reserves | a draft reserves | emails an hour | first limit | tokens an answered email | of that output "
        "| models, USD for 1,000 answered |",
        "|---|---|---|---|---|---|---|---|",
        *(_describe_models(name, case) for name, case in models),
    ]


def price_models(facts: Facts) -> float:
    """USD for the models of 1,000 answered emails."""
    return 1_000 * sum(facts.rates.price_call(step) for step in ("triage", "draft"))


def _describe_models(name: str, facts: Facts) -> str:
    steps, rates, first = ("triage", "draft"), facts.rates, find_first_quota(facts)
    read, written = (
        sum(rates.count_tokens(step, direction) for step in steps) for direction in ("input", "output")
    )
    cells = (
        name,
        *(_show(facts.count_admitted_tokens(step)) for step in steps),
        _show(first.rate * HOUR),
        first.name,
        _show(read + written),
        _show(written),
        f"{price_models(facts):.2f}",
    )
    return f"| {' | '.join(cells)} |"


def _build_partitions(facts: Facts) -> list[str]:
    most, shards = facts.limit["table_partition_entities_a_second"], len(SHARDS)
    backlog = most / (1 / MINUTE + 1 / TRACK_EVERY_SECONDS)
    waits = [
        replace(facts, assumption={**facts.assumption, "hours_to_decision": hours})
        for hours in DECISION_HOURS
    ]
    return [
        f"An email reads or writes {count_email_rows(facts):.1f} rows of its partition until it is finished, and the polls and looks "
        f"at its reply {count_reply_rows(facts):.0f} more if it has one. So a partition's {most:,.0f} a second are reached at "
        f"{most / count_rows(facts):.0f} emails a second (one busy mailbox), and all {shards} partitions', with the mail spread evenly "
        f"over many mailboxes, at {shards * most / count_rows(facts):,.0f}. A backlog of {shards * backlog:,.0f} emails reaches them "
        "by being read alone.",
        "",
        f"| replies are decided after | rows a reply | steady emails a second, a partition | all {shards} |",
        "|---|---|---|---|",
        *(
            f"| {hours} h | {count_reply_rows(wait):.0f} | {_show(most / count_rows(wait))} "
            f"| {_show(shards * most / count_rows(wait))} |"
            for hours, wait in zip(DECISION_HOURS, waits, strict=True)
        ),
    ]


def _build_sizes(facts: Facts) -> list[str]:
    setups = [fit_setup(facts, setup) for setup in SIZES]
    rows: list[tuple[str, Callable[[Setup], str]]] = [
        ("emails a day, mailboxes", lambda s: f"{_show(s.emails_a_day)}, {_show(s.mailboxes)}"),
        ("busiest hour, emails a minute", lambda s: _show(get_peak(facts, s) * s.deployments * MINUTE)),
        ("MultiMail", lambda s: _describe_plan(facts, s)),
        ("deployments", lambda s: _show(s.deployments)),
        ("each: `maximumInstanceCount` x `maxConcurrentCalls`", lambda s: f"{s.instances} x {s.calls}"),
        ("each: in use at a time (Little's law)", lambda s: _show(ceil(get_peak(facts, s) * count_worker_seconds(facts)))),
        ("each: `triageModel.capacity`, `draftModel.capacity`", lambda s: f"{s.triage_capacity:,}, {s.draft_capacity:,}"),
        ("together: TPM, triage and draft", _describe_quota),
        ("together: cores of the region's quota", lambda s: _describe_cores(facts, s)),
        ("together: MultiMail calls a second", lambda s: _show(_count_calls(facts, s))),
        ("each: a poll takes", lambda s: f"{count_poll_seconds(facts, ceil(s.mailboxes / s.deployments)):.0f} s"),
        ("simulated: carries its busiest hour", lambda s: _describe_carried(facts, s)),
        ("first limit, of which in use", lambda s: _describe_first(facts, s)),
        ("first that no setting raises", lambda s: _describe_first(facts, s, is_setting=False)),
        ("Azure and models, USD a month", lambda s: _show(sum(price_setup(facts, s).values()))),
        ("of that, the models", lambda s: _show(sum(price_setup(facts, s)[line] for line in ("Triage", "Draft")))),
    ]  # fmt: skip
    return [
        "### Three sizes",
        "",
        "| | " + " | ".join(setup.name for setup in setups) + " |",
        "|---|" + "---|" * len(setups),
        *(f"| {title} | " + " | ".join(show(setup) for setup in setups) + " |" for title, show in rows),
        "",
        f"Some regions refuse a `maximumInstanceCount` below {DEFAULTS.instances}: keep {DEFAULTS.instances} there, and raise the "
        "models' capacities if their quota refuses calls (*What to do*, 2).",
    ]


def _describe_plan(facts: Facts, setup: Setup) -> str:
    sent = setup.emails_a_day * facts.email.drafts * facts.assumption["days_a_month"]
    if setup.plan:
        return f"{setup.plan}: {_show(sent)} of {_show(facts.plan[setup.plan]['sent_a_month'])} sent a month"
    accounts = max(
        sent / facts.plan["scale"]["sent_a_month"], setup.mailboxes / facts.plan["scale"]["mailboxes"]
    )
    return f"by contract: {_show(sent)} sent a month, as much as {_show(ceil(accounts))} plans scale"


def _describe_quota(setup: Setup) -> str:
    both = (setup.triage_capacity * setup.deployments, setup.draft_capacity * setup.deployments)
    return ", ".join(f"{capacity:,}k" for capacity in both)


def _count_calls(facts: Facts, setup: Setup) -> float:
    polls = setup.mailboxes * facts.rates.counts["idle poll, each mailbox: MultiMail calls"] / MINUTE
    return get_peak(facts, setup) * setup.deployments * facts.email.multimail_calls + polls


def _describe_cores(facts: Facts, setup: Setup) -> str:
    return f"{setup.instances * setup.cores * setup.deployments:,.0f} of {facts.limit['region_cores']:.0f}"


def _describe_carried(facts: Facts, setup: Setup) -> str:
    peak = get_peak(facts, setup)
    result = simulate(build_flow(facts, setup, peak))
    return f"{result.emails / peak:.0%}, {result.attempts:.1f} attempts each"


def _describe_first(facts: Facts, setup: Setup, *, is_setting: bool = True) -> str:
    first = next(limit for limit in list_limits(facts, setup) if is_setting or not limit.is_setting)
    used = setup.emails_a_day / setup.deployments / facts.get_day(first)
    return f"{first.name}: {used:.0%}"


def _build_polls(facts: Facts) -> list[str]:
    return [
        "### A poll that finds nothing",
        "",
        "| mailboxes | it takes | which means |",
        "|---|---|---|",
        *(
            f"| {mailboxes:,} | {_show_seconds(count_poll_seconds(facts, mailboxes))} | {judge_poll(facts, mailboxes)} |"
            for mailboxes in POLLED_MAILBOXES
        ),
        "",
        f"On time (a minute) up to {_show(find_most_mailboxes(facts, MINUTE))} mailboxes; ended by `functionTimeout` above "
        f"{_show(find_most_mailboxes(facts, facts.limit['function_timeout_seconds']))}.",
    ]


def judge_poll(facts: Facts, mailboxes: int) -> str:
    """What a poll of so many mailboxes means for them."""
    seconds, timeout = count_poll_seconds(facts, mailboxes), facts.limit["function_timeout_seconds"]
    if seconds > timeout:
        lost = 1 - timeout / seconds
        return f"ended after {timeout:.0f} s: the last {lost:.0%} of the mailboxes are **never** polled"
    if seconds > MINUTE:
        return f"every {ceil(seconds / MINUTE)} minutes instead of every minute"
    return "every minute"


def find_most_mailboxes(facts: Facts, seconds: float) -> int:
    """The most mailboxes that a poll lists in so many seconds."""
    each = count_poll_seconds(facts, 10_001) - count_poll_seconds(facts, 10_000)
    return int((seconds - count_poll_seconds(facts, 10_000) + 10_000 * each) / each)


def _build_trials(facts: Facts) -> list[str]:
    rate = find_first_quota(facts).rate * HOUR
    head = " | ".join(f"quota judged over {window} s | attempts each" for window in WINDOWS)
    return [
        f"### An hour of {_show(LOAD * rate)} emails simulated, {LOAD:.0%} of the default quota: finished an hour",
        "",
        f"| instances x calls, capacities | {head} |",
        "|---|" + "---|---|" * len(WINDOWS),
        *(
            f"| {setup.instances} x {setup.calls}, {setup.triage_capacity} and {setup.draft_capacity} | "
            + " | ".join(f"{_show(result.emails * HOUR)} | {result.attempts:.1f}" for result in results)
            + " |"
            for setup, results in list_trials(facts)
        ),
    ]


def draw_limits(facts: Facts) -> str:
    """The limits of the defaults as bars of their logarithm, first one first."""
    bars = [_draw_limit(facts, limit) for limit in list_limits(facts, DEFAULTS)]
    return draw_bars(
        "How much mail one deployment with the defaults carries",
        "Emails a day until each limit is reached in the busiest hour; logarithmic. Blue: a setting. Grey: how it is built",
        bars,
    )


def _draw_limit(facts: Facts, limit: Limit) -> Bar:
    day = facts.get_day(limit)
    return Bar(limit.name, log10(max(1.0, day)), f"{_show(day)} a day", BLUE if limit.is_setting else GREY)


def _show(value: float) -> str:
    """Three digits: more would look measured."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if rounded >= 10 or rounded == int(rounded) else f"{rounded:g}"  # noqa: PLR2004 - one digit


def _show_seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < MINUTE else f"{seconds:.0f} s"
