"""The knowledge set's figures in words: for the terminal and for the scorecard."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown
from rich.text import Text

from evals.forbidden import Finding, Verdict, judge_open_points, judge_statements
from evals.knowledge_set import (
    ALL,
    FOLDER,
    PAGES,
    SEARCH_TOKENS,
    WHOLE_TOKENS,
    Judgement,
    KnowledgeCase,
    Share,
    choose_recorded,
    compute_share,
    count_support,
    load_judgements,
    load_knowledge_cases,
    measure_actions,
    measure_covered,
    measure_search,
    run_set,
    write_prompts,
)
from evals.recorded import Prompt, RecordedAnswers
from evals.results import CaseResult
from shared.domain import Support
from shared.knowledge.files import KnowledgeFiles
from shared.ledger.entries import LedgerEntry
from shared.replying.reporting import SUPPORT_WORDS

CONCURRENCY = 4
DEPLOYMENT_RUNS = 3

Found = Mapping[str, tuple[CaseResult, LedgerEntry]]

WRITTEN_BY = (
    "The triages and drafts were written by a language model that saw the prompts alone, and judged by "
    "another that saw email, pages and answer alone; neither saw the expected facts, this code or the "
    "checks. They show what a careful model makes of these prompts, not what your deployment does: run the "
    "set with it. Rules of the evidence check were changed with these drafts in view: what it makes of them "
    "is not blind."
)


def evaluate_knowledge(console: Console, environment: Mapping[str, str], record: Path | None) -> bool:
    """Print the figures of the recorded answers or, three times, of the deployment that the settings name.

    `record`: a file for the prompts that have no answer of their own. Raises ConfigurationError.
    """
    cases = load_knowledge_cases()
    if environment.get("MODEL_ENDPOINT", "").strip():
        actions, covered = [], []
        for number in range(1, DEPLOYMENT_RUNS + 1):
            found = run_set(environment, cases, None, concurrency=CONCURRENCY)
            actions.append(measure_actions(cases, found)[ALL])
            covered.append(measure_covered(cases, found))
            lines = [
                f"Run {number} of {DEPLOYMENT_RUNS}, by your deployment:",
                *render_answers(cases, found, {}, []),
            ]
            console.print(Markdown("\n".join(lines)))
        said = (
            f"{DEPLOYMENT_RUNS} runs: the one right action {_name_range(actions)}, facts covered by verified "
        )
        console.print(Text(f"{said}statements {_name_range(covered)}."), soft_wrap=True)
        return True
    lines, recorded = replay_recorded()
    if record is not None:
        console.print(f"{write_prompts(recorded, record)} prompts without an answer of their own: {record}")
    console.print(Markdown("\n".join(["# The knowledge set", "", *lines])))
    return True


def _name_range(shares: Sequence[Share]) -> str:
    found = [share.hits / share.of for share in shares if share.of]
    return f"{min(found):.1%} to {max(found):.1%}" if found else "–"


def replay_recorded() -> tuple[list[str], RecordedAnswers]:
    """The figures of the recorded answers in Markdown, and the answers; it needs no model and no network."""
    cases, recorded = load_knowledge_cases(), RecordedAnswers(FOLDER / "recorded")
    chosen = choose_recorded(cases)
    found = run_set({}, chosen, recorded, concurrency=CONCURRENCY)
    lines = [
        *render_search(cases),
        "",
        *_render_written_queries(chosen, found, recorded.prompts),
        "",
        WRITTEN_BY,
        "",
    ]
    return lines + render_answers(chosen, found, load_judgements(), recorded.prompts), recorded


def render_search(cases: Sequence[KnowledgeCase]) -> list[str]:
    """What the search finds, by kind of email and budget; it needs no model."""
    everything = KnowledgeFiles(FOLDER / "config" / "knowledge").read([PAGES], "", 10**9).passages
    tokens = sum(passage.tokens for passage in everything)
    return [
        f"The pages have about {tokens:,} tokens in {len(everything)} sections. With `KNOWLEDGE_TOKENS` of",
        f"{WHOLE_TOKENS:,}, as the answers below were written, all of them go into each draft and nothing",
        "has to be found. With a smaller budget the search by words finds every quote that the answer needs",
        "for this share of the emails (the query is the email's own text, whatever its language):",
        "",
        *_render_budgets(cases, measure_search(cases)),
    ]


def _render_written_queries(
    cases: Sequence[KnowledgeCase], found: Found, prompts: Sequence[Prompt]
) -> list[str]:
    """The same for the emails that have a recorded triage, with the query that it wrote."""
    triages = {case.id: found[case.id][1].triage for case in cases}
    queries = {case_id: triage.query.text for case_id, triage in triages.items() if triage is not None}
    return [
        "With the query that triage writes, of the emails that have a recorded triage:"
        + _mark(prompts, "triage"),
        "",
        *_render_budgets(cases, measure_search(cases, queries)),
    ]


def _render_budgets(cases: Sequence[KnowledgeCase], found: Mapping[str, Mapping[int, bool]]) -> list[str]:
    hits: dict[str, dict[int, list[bool]]] = {}
    for case in cases:
        for tokens, is_complete in found.get(case.id, {}).items():
            for kind in (case.case.kind, ALL):
                hits.setdefault(kind, {}).setdefault(tokens, []).append(is_complete)
    most = SEARCH_TOKENS[-1]
    missed = [f"`{case_id}`" for case_id, budgets in found.items() if not budgets[most]]
    lines = [
        "| emails | " + " | ".join(f"{tokens:,} tokens" for tokens in SEARCH_TOKENS) + " |",
        "|---|" + "---|" * len(SEARCH_TOKENS),
    ]
    for kind in sorted(hits, key=_put_all_last):
        shares = " | ".join(str(compute_share(hits[kind][tokens])) for tokens in SEARCH_TOKENS)
        lines.append(f"| {kind} | {shares} |")
    return [*lines, "", f"Not all found with {most:,} tokens: {', '.join(missed) or 'none'}."]


def _put_all_last(kind: str) -> tuple[bool, str]:
    return kind == ALL, kind


def _mark(prompts: Sequence[Prompt], *steps: str) -> str:
    """What marks a figure that rests on answers to these steps, if a prompt of one has changed since."""
    stale = {prompt.case_id for prompt in prompts if prompt.is_stale and prompt.step in steps}
    return f" **Stale:** the prompts of {len(stale)} emails have changed since." if stale else ""


def render_answers(
    cases: Sequence[KnowledgeCase],
    found: Found,
    judgements: Mapping[str, Judgement],
    prompts: Sequence[Prompt],
) -> list[str]:
    """Actions, drafts and claims of the emails that were answered."""
    entries = [found[case.id][1] for case in cases]
    return [
        f"{len(cases)} emails.{_mark(prompts, 'triage')}",
        "",
        *_render_table("the one right action", measure_actions(cases, found)),
        "",
        "Another action: " + (", ".join(_list_wrong_actions(cases, found)) or "none") + ".",
        "",
        ("The drafts:" if judgements else "The drafts were not judged.") + _mark(prompts, "triage", "draft"),
        "",
        *([*_render_drafts(cases, found, judgements), ""] if judgements else []),
        *_render_forbidden(cases, found, judgements),
        "",
        *_render_claims(cases, found, entries),
    ]


def _list_wrong_actions(cases: Sequence[KnowledgeCase], found: Found) -> Iterator[str]:
    for case in cases:
        triage, right = found[case.id][1].triage, case.case.actions[0]
        if triage is None or triage.action != right:
            yield f"`{case.id}` ({'no triage' if triage is None else triage.action}, right is {right})"


def _render_table(heading: str, shares: Mapping[str, Share]) -> list[str]:
    lines = [f"| emails | {heading} |", "|---|---|"]
    return [*lines, *(f"| {kind} | {shares[kind]} |" for kind in sorted(shares, key=_put_all_last))]


def _render_drafts(
    cases: Sequence[KnowledgeCase], found: Found, judgements: Mapping[str, Judgement]
) -> list[str]:
    answerable = [case for case in cases if case.facts]
    full: dict[str, list[bool]] = {}
    failures = []
    judged, outdated = 0, 0
    wrong: list[str] = []
    ungrounded: list[str] = []
    for case in answerable:
        result, entry = found[case.id]
        draft = entry.draft or entry.proposal
        judgement = judgements.get(case.id)
        if judgement is not None and draft is not None:
            judged += 1
            outdated += not judgement.is_of(draft)
            wrong += judgement.wrong
            ungrounded += judgement.ungrounded
        is_full = bool(judgement and judgement.is_full and not judgement.wrong and result.action == "reply")
        for kind in (case.case.kind, "all"):
            full.setdefault(kind, []).append(is_full)
        if not is_full:
            failures.append(f"- `{case.id}`: {_explain(result, judgement)}")
    lines = _render_table(
        "full and true answer in the approval queue",
        {kind: compute_share(hits) for kind, hits in full.items()},
    )
    lines += [
        "",
        f"{judged} drafts were judged: {len(wrong)} statements that a page contradicts, {len(ungrounded)}",
        "that no source carries.",
    ]
    if outdated:
        lines.append(f"**Stale:** {outdated} drafts are not the ones that were judged.")
    return [*lines, "", "What failed:", "", *(failures or ["- nothing"])]


def _render_forbidden(
    cases: Sequence[KnowledgeCase], found: Found, judgements: Mapping[str, Judgement]
) -> list[str]:
    """What no reply must state and what it must leave open, with the drafts that may have failed it."""
    stated: list[Finding] = []
    answered: list[Finding] = []
    number = 0
    for case in cases:
        entry = found[case.id][1]
        if (draft := entry.draft or entry.proposal) is not None:
            number += 1
            stated += judge_statements(case, draft, judgements.get(case.id))
            answered += judge_open_points(case, draft, judgements.get(case.id))
    failures = [
        f"- `{finding.case_id}`: “{finding.statement}”"
        + (f", perhaps in “{finding.sentence}”" if finding.sentence else "")
        for finding in (*stated, *answered)
        if finding.verdict is Verdict.FOUND or (finding.verdict is Verdict.UNREAD and judgements)
    ]
    return [
        f"What {number} drafts must not state, and must leave open. Code finds forbidden amounts, measures,",
        "dates and times in every language, and in English a sentence with nearly the same words, which may",
        "deny the statement. Most statements have no such value, and code cannot tell. What counts then is",
        "that the judge, who did not know the statements, found nothing wrong or ungrounded in this draft.",
        "",
        "| verdict | statements that a reply must not make | points that the pages do not answer |",
        "|---|---|---|",
        *(
            f"| {verdict} | {_count(stated, verdict)} of {len(stated)}"
            f" | {_count(answered, verdict)} of {len(answered)} |"
            for verdict in Verdict
        ),
        "",
        "Not cleared:",
        "",
        *(failures or ["- nothing"]),
    ]


def _count(findings: Iterable[Finding], verdict: Verdict) -> int:
    return sum(finding.verdict is verdict for finding in findings)


def _explain(result: CaseResult, judgement: Judgement | None) -> str:
    if result.action != "reply":
        return f"{result.action}: {result.reason}"
    if judgement is None:
        return "not judged"
    found = "; ".join((*judgement.wrong, *judgement.ungrounded, *judgement.missing))
    return found or "the answer is not complete"


def _render_claims(cases: Sequence[KnowledgeCase], found: Found, entries: Iterable[LedgerEntry]) -> list[str]:
    counts = count_support(entries)
    factual = sum(counts[support] for support in SUPPORT_WORDS)
    said = ", ".join(f"{counts[support]} {words}" for support, words in SUPPORT_WORDS.items())
    return [
        f"The drafts state {factual} facts: {said}; {counts[Support.FREE]} sentences are free. A verified",
        f"statement rests on the words that carry the fact for {measure_covered(cases, found)} of the facts",
        "that complete answers state.",
    ]
