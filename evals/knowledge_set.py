"""The knowledge set: an invented company's help pages, emails to it, and what a complete answer states.

What the search finds, what triage decides and what carries the drafts' statements is scored by code. Whether
a draft is a full and true answer was judged by somebody who saw the answer, the email and the pages alone.
"""

import json
import random
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.cases import Case, build_earlier
from evals.recorded import RecordedAnswers
from evals.results import CaseResult
from evals.stage import NO_DEPLOYMENT, START, open_stage
from shared.checks.evidence import split_sentences
from shared.domain import Action, Draft, Support
from shared.knowledge.files import KnowledgeFiles
from shared.knowledge.words import fold
from shared.ledger.entries import LedgerEntry

FOLDER = Path(__file__).parent / "knowledge"
MAILBOX_ID, PAGES = "help", "help"
WHOLE_TOKENS = 48_000  # a budget in which the pages fit whole
SEARCH_TOKENS = (4_000, 8_000, 24_000)  # budgets in which they do not; the last is the default
CHOICE_SEED, RECORDED_CASES = 16, 66
RESAMPLES = 2_000
ALL = "all"  # next to the kinds of emails
COVERED = 0.5  # the share of a gold quote's words that a verified claim must quote


@dataclass(frozen=True, slots=True)
class Fact:
    """What a complete answer states, and the words of the page that carry it."""

    text: str
    page: str
    quote: str


@dataclass(frozen=True, slots=True)
class KnowledgeCase:
    """An email with the one right action, and what its answer must and must not state."""

    case: Case
    facts: tuple[Fact, ...]
    must_not: tuple[str, ...]
    unanswered: tuple[str, ...]

    @property
    def id(self) -> str:
        """The case's id."""
        return self.case.id


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a reader of answer, email and pages found.

    `is_full`: it answers all that the pages answer. `wrong` and `ungrounded`: statements that a page
    contradicts, and that none carries. `missing`: what the answer lacks.
    """

    draft: str
    is_full: bool
    wrong: tuple[str, ...]
    ungrounded: tuple[str, ...]
    missing: tuple[str, ...]

    def is_of(self, draft: Draft) -> bool:
        """Whether this very draft was judged; the signature that code adds to it does not count."""
        return split_sentences(self.draft) == [claim.sentence for claim in draft.claims]


@dataclass(frozen=True, slots=True)
class Share:
    """A share of cases, with a bootstrap interval of 95 % over them."""

    hits: int
    of: int
    low: float
    high: float

    def __str__(self) -> str:
        if not self.of:
            return "–"
        return f"{self.hits} of {self.of} ({self.hits / self.of:.1%}; {self.low:.1%} to {self.high:.1%})"


def load_knowledge_cases(folder: Path = FOLDER) -> tuple[KnowledgeCase, ...]:
    """Every email of the set, in the order of the files."""
    return tuple(
        _build_case(raw)
        for path in sorted((folder / "emails").glob("*.toml"))
        for raw in tomllib.loads(path.read_text(encoding="utf-8"))["email"]
    )


def _build_case(raw: Mapping[str, Any]) -> KnowledgeCase:
    case = Case(
        id=raw["id"],
        kind=raw["kind"],
        mailbox=MAILBOX_ID,
        language=raw["language"],
        sender=raw["from"],
        subject=raw["subject"],
        markdown=raw["body"].strip(),
        actions=(raw["action"],),
        categories=(),
        why=raw["why"],
        earlier=tuple(build_earlier(raw["from"], earlier) for earlier in raw.get("earlier", ())),
    )
    facts = tuple(Fact(fact["text"], fact["page"], fact["quote"]) for fact in raw.get("facts", ()))
    return KnowledgeCase(case, facts, tuple(raw.get("must_not", ())), tuple(raw.get("unanswered", ())))


def load_judgements(folder: Path = FOLDER) -> Mapping[str, Judgement]:
    """The judgements by case id."""
    path = folder / "judgements.json"
    raw = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {
        case_id: Judgement(
            found["draft"],
            found["is_full"],
            *(tuple(found[name]) for name in ("wrong", "ungrounded", "missing")),
        )
        for case_id, found in raw.items()
    }


def compute_share(hits: Sequence[bool]) -> Share:
    """The share of cases with a true value and its bootstrap interval."""
    return compute_clustered_share([[hit] for hit in hits])


def compute_clustered_share(cases: Sequence[Sequence[bool]]) -> Share:
    """The share of true values, of which a case may have several; the interval is over the cases."""
    counts = [(sum(hits), len(hits)) for hits in cases if hits]
    if not counts:
        return Share(0, 0, 0.0, 0.0)
    chance = random.Random(0)  # noqa: S311 - figures, not secrets
    shares = []
    for _ in range(RESAMPLES):
        hits, numbers = zip(*chance.choices(counts, k=len(counts)), strict=True)
        shares.append(sum(hits) / sum(numbers))
    shares.sort()
    cut = RESAMPLES // 40
    return Share(sum(n for n, _ in counts), sum(n for _, n in counts), shares[cut], shares[-cut - 1])


def measure_search(
    cases: Iterable[KnowledgeCase], queries: Mapping[str, str] | None = None, folder: Path = FOLDER
) -> Mapping[str, Mapping[int, bool]]:
    """By case id and budget: whether the search finds every quote of the answer, if the pages have one.

    `queries`: by case id; without them the query is the email's own text, in its own language.
    """
    knowledge = KnowledgeFiles(folder / "config" / "knowledge")
    found: dict[str, dict[int, bool]] = {}
    for case in cases:
        if not case.facts:
            continue
        query = (queries or {}).get(case.id) or f"{case.case.subject}\n{case.case.markdown}"
        for tokens in SEARCH_TOKENS:
            passages = knowledge.read([PAGES], query, tokens).passages
            shown = fold(" ".join(passage.text for passage in passages))
            found.setdefault(case.id, {})[tokens] = all(fold(fact.quote) in shown for fact in case.facts)
    return found


def run_set(
    environment: Mapping[str, str],
    cases: Sequence[KnowledgeCase],
    recorded: RecordedAnswers | None,
    *,
    concurrency: int,
    folder: Path = FOLDER,
    on_result: Callable[[CaseResult], None] = lambda _result: None,
) -> Mapping[str, tuple[CaseResult, LedgerEntry]]:
    """Take every email the whole way; with `recorded`, on a clock that stands and without a model."""
    address = read_address(folder)
    changes = {"CONFIG_PATH": str(folder / "config"), "KNOWLEDGE_TOKENS": str(WHOLE_TOKENS)}
    if recorded is not None:
        changes |= NO_DEPLOYMENT
    with open_stage(
        environment,
        mailboxes={MAILBOX_ID: address},
        changes=changes,
        recorded=recorded,
        clock=None if recorded is None else lambda: START,
        sleep=time.sleep if recorded is None else _refuse_to_wait,
    ) as stage:
        found, by_id = {}, {case.id: case.case for case in cases}
        for result in stage.run(tuple(by_id.values()), concurrency=concurrency, judge=None):
            found[result.id] = result, stage.find_entry(by_id[result.id])
            on_result(result)
    return found


def _refuse_to_wait(seconds: float) -> None:
    raise AssertionError(f"an email of the recorded run waits for {seconds} s")


def read_address(folder: Path = FOLDER) -> str:
    """The mailbox's address: the name of the one profile."""
    text = (folder / "config" / "mailboxes.yaml").read_text(encoding="utf-8")
    return next(line.rstrip(":") for line in text.splitlines() if "@" in line and line.endswith(":"))


def count_support(entries: Iterable[LedgerEntry]) -> Counter[Support]:
    """How many sentences of the drafts have which support; proposals count too."""
    drafts = [entry.draft or entry.proposal for entry in entries]
    return Counter(claim.support for draft in drafts if draft is not None for claim in draft.claims)


def is_covered(fact: Fact, entry: LedgerEntry) -> bool:
    """Whether a verified claim of the draft rests on the words that carry the fact."""
    draft, wanted = entry.draft or entry.proposal, set(fold(fact.quote).split())
    return draft is not None and any(
        len(wanted & set(fold(" ".join(quote.text for quote in claim.quotes)).split()))
        >= COVERED * len(wanted)
        for claim in draft.claims
        if claim.support is Support.VERIFIED
    )


def measure_covered(
    cases: Iterable[KnowledgeCase], found: Mapping[str, tuple[CaseResult, LedgerEntry]]
) -> Share:
    """The share of the drafts' facts that are covered."""
    return compute_clustered_share(
        [
            [is_covered(fact, entry) for fact in case.facts]
            for case in cases
            if (entry := found[case.id][1]).draft or entry.proposal
        ]
    )


def measure_actions(
    cases: Iterable[KnowledgeCase], found: Mapping[str, tuple[CaseResult, LedgerEntry]]
) -> Mapping[str, Share]:
    """By kind: the share of emails whose triage says the one right action."""
    hits: dict[str, list[bool]] = {}
    for case in cases:
        triage = found[case.id][1].triage
        said = Action.ESCALATE if triage is None else triage.action
        for kind in (case.case.kind, ALL):
            hits.setdefault(kind, []).append(said == case.case.actions[0])
    return {kind: compute_share(values) for kind, values in hits.items()}


def choose_recorded(cases: Sequence[KnowledgeCase]) -> list[KnowledgeCase]:
    """The emails whose answers are recorded, chosen once by a seed."""
    chosen = random.Random(CHOICE_SEED).sample(range(len(cases)), RECORDED_CASES)  # noqa: S311 - a choice
    return [cases[number] for number in sorted(chosen)]


def write_prompts(recorded: RecordedAnswers, path: Path) -> int:
    """Write the prompts without an answer of their own, a line of JSON each; return how many there are."""
    open_prompts = [p for p in recorded.prompts if p.answered_version != p.version]
    lines = [
        json.dumps(
            {
                "case": prompt.case_id,
                "step": prompt.step,
                "prompt": prompt.version,
                "system": prompt.request.system,
                "user": prompt.request.user,
                "schema": prompt.request.schema,
            },
            ensure_ascii=False,
        )
        for prompt in open_prompts
    ]
    path.write_text("\n".join(lines) + "\n" if lines else "", encoding="utf-8")
    return len(open_prompts)
