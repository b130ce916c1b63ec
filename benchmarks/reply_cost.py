"""What an answered email costs in tokens and dollars, by the size of the knowledge, with and without cached prefixes."""

import tempfile
import tomllib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from benchmarks.counts import CountedWorld, counted_world
from benchmarks.figures import Figure, Part
from benchmarks.texts import QUESTION, build_subject
from benchmarks.tokens import count_tokens, encode
from local.model.prompt_cache import PromptCache
from shared.domain import TokenPrice, Usage
from shared.knowledge.files import KnowledgeFiles

PRICES = Path(__file__).parent.parent / "docs" / "prices.toml"
KNOWLEDGE_TOKENS = {"small": 1_500, "large": 20_000}
STEPS = ("triage", "draft")
# Tokens of one answered email of 157 words (characters / 4, within 25 %), counted from the prompts in the
# projects' public repositories with their defaults filled in; none of them was run.
OTHERS = {
    "langchain-ai/executive-ai-assistant": (5_194, "3 calls, with five examples; 4,417 without"),
    "langchain-ai/agents-from-scratch": (4_348, "3 calls; 2,550 tokens before a person is asked"),
    "elie222/inbox-zero": (15_184, "10 calls, with knowledge and earlier mail; 9,794 in 6 calls without"),
    "kaymen99/langgraph-email-automation": (6_506, "7 calls, a question about a product"),
    "amd/gaia": (1_906, "triage alone, as its own scorecard states"),
}

PAGE = (
    "# Sensor {model}\n\nThe sensor {model} measures from minus 40 to plus 85 degrees and is calibrated at the factory in three "
    "points. A difference of up to 0.{limit} degrees from a reference is within its specification. If it is larger, first "
    "change the battery, then keep the sensor for two hours at one place with the door closed and compare again. "
    "Recalibration on site takes a reference with a valid certificate and the service key of the gateway; it is described in "
    "the manual of {model}, chapter {limit}. A recalibration in our laboratory costs {price} EUR with certificate and takes {days} "
    "working days from the day on which we receive the sensor; return shipping is included. A sensor on loan is sent the same "
    "day if you ask for it before 12:00, and is free of charge for the time of the repair.\n"
)


def measure(advance: Callable[[str], None], *, quick: bool) -> Part:  # noqa: ARG001 - the counts are the same
    """Answer two emails for each size of knowledge: the second one finds the first one's prefix in the cache."""
    prices = read_prices()
    figures: list[Figure] = []
    for size, tokens in KNOWLEDGE_TOKENS.items():
        advance(f"{size} knowledge")
        figures += list_cost_figures(f"reply, {size} knowledge", *count_second_reply(tokens), prices)
    figures += [Figure(f"{name}: tokens", tokens, note=note) for name, (tokens, note) in OTHERS.items()]
    small, large = (f"{tokens:,}" for tokens in KNOWLEDGE_TOKENS.values())
    notes = [
        f"Small: pages of {small} tokens, large: of {large}; o200k, the schema included. Prices of docs/prices.toml.",
        "The other projects: of an email of 157 words, characters / 4 (within 25 %), counted from the prompts in "
        "their public repositories with the defaults filled in, without a knowledge base unless it says so; not run.",
    ]
    return Part("Tokens and cost of an answered email", figures, notes)


def read_prices() -> Mapping[str, TokenPrice]:
    """By step, in US dollars per million tokens."""
    raw = tomllib.loads(PRICES.read_text(encoding="utf-8"))["usd_per_million_tokens"]
    return {step: TokenPrice(**raw[step]) for step in STEPS}


def write_pages(root: Path, tokens: int) -> list[str]:
    """Write help pages of so many tokens together, each about another sensor, for all mailboxes."""
    pages: list[str] = []
    (root / "shared").mkdir(parents=True)
    left = tokens
    while left > 0:
        number = len(pages) + 1
        page = PAGE.format(
            model=f"T{number}", days=3 + number % 11, price=29 + 7 * number, limit=number % 5 + 1
        )
        (root / "shared" / f"page-{number:03}.md").write_text(page, encoding="utf-8")
        pages.append(page)
        left -= count_tokens(page)
    return pages


def count_second_reply(knowledge_tokens: int) -> tuple[Mapping[str, Usage], int]:
    """The usage of each step, cached tokens included, and how many tokens of the pages the draft was shown."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pages = write_pages(root, knowledge_tokens)
        counted = stack.enter_context(counted_world(None, KnowledgeFiles(root)))
        cache = PromptCache()
        _count_reply(counted, 0, cache)
        usage, draft_prompt = _count_reply(counted, 1, cache)
    bodies = (page.partition("\n\n")[2].strip() for page in pages)
    return usage, sum(count_tokens(body) for body in bodies if body in draft_prompt)


def _count_reply(counted: CountedWorld, number: int, cache: PromptCache) -> tuple[Mapping[str, Usage], str]:
    """Answer an email from a sender of its own; the usage by step, and the draft's prompt."""
    sender = f"Ann Lee <ann{number}@customer.example>"
    email_id = counted.world.deliver(QUESTION, subject=build_subject("R", number), sender=sender)
    counted.world.poll_and_work()
    counts, outcome = counted.take(), counted.world.outcome(email_id)
    if outcome != "reply_submitted" or counts.model_calls != len(STEPS):
        raise RuntimeError(f"{email_id} came to {outcome} with {counts.model_calls} model calls")
    usage = {}
    for step, prompt in zip(STEPS, counts.prompts, strict=True):
        cached = cache.count_cached(step, encode(prompt))
        used = [counts.steps[f"{step} {direction} tokens"] for direction in ("input", "output")]
        usage[step] = Usage(1, used[0], used[1], min(cached, used[0]))
    return usage, counts.prompts[-1]


def list_cost_figures(
    name: str, usage: Mapping[str, Usage], shown: int, prices: Mapping[str, TokenPrice]
) -> list[Figure]:
    """Tokens, and the price when nothing is cached and when the prefix is, in US cents."""
    total = sum(usage.values(), Usage())
    new = {step: Usage(used.calls, used.input_tokens, used.output_tokens) for step, used in usage.items()}
    dear, cheap = (100 * sum(prices[step].cost(by[step]) for step in by) for by in (new, usage))
    note = f"{total.input_tokens:,} in, {shown:,} of them knowledge; {total.output_tokens:,} out"
    return [
        Figure(f"{name}: tokens", total.tokens, counted=True, note=note),
        Figure(f"{name}: cached tokens", total.cached_input_tokens, note="from the second email on"),
        Figure(f"{name}: cost, nothing cached", round(dear, 3), "US cents"),
        Figure(f"{name}: cost, prefix cached", round(cheap, 3), "US cents", note=f"{cheap / dear:.0%} of it"),
    ]
