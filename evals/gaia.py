"""The public emails of amd/gaia: what the guard skips without a model, and how triage sorts them with one.

Buckets are the owners' priority ladder. A triage is put on it like this: what is replied to or escalated is
urgent when its urgency is critical or high, and needs a response otherwise; what is ignored is promotional
in the category promotion, and for information otherwise. So is what the guard skips. Personal mail is not
on the ladder; it is left out of these figures.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from evals.cases import Case
from evals.eval_data import find_data
from evals.gaia_drafts import render_drafts
from evals.knowledge_set import Share, compute_share
from evals.results import CaseResult
from evals.stage import NO_DEPLOYMENT, START, Stage, open_stage
from shared.domain import Action, Triage, Urgency, Usage
from shared.model.chat import ChatCompletion, ChatRequest

DATA = "gaia_email"
HOLDING = "emails_clean.jsonl and drafting_ground_truth.json of amd/gaia"
MAILBOXES = {"inbox": "inbox@office.example"}
LADDER = ("PROMOTIONAL", "FYI", "NEEDS_RESPONSE", "URGENT")
CONCURRENCY = 4
DEPLOYMENT_RUNS = 3

PUBLISHED = (
    "Published by the owners for their own agent: within one bucket 84.5 %, exact 78.1 %, urgent recall "
    "1.00, drafts approved 61.1 %. They compare roughly at best: the owners count 250 of their 307 emails, "
    "of which 109 are left out here (they come from collections without a licence); their agent names the "
    "bucket, personal mail among them, while ours says what to do, which is translated; and another model "
    "judges the drafts."
)


@dataclass(frozen=True, slots=True)
class Mail:
    """A labelled email; `wants_reply` is what the owners suggest to do with it."""

    case: Case
    bucket: str
    wants_reply: bool


@dataclass(frozen=True, slots=True)
class GuardFigures:
    """What the guard skips before any model is asked: the email's id and the reason, by what is wanted."""

    wanting: int
    others: int
    skipped_wanting: Mapping[str, str]
    skipped_others: Mapping[str, str]


def evaluate_gaia(console: Console, environment: Mapping[str, str], judge: str | None) -> bool:
    """Print the guard's figures and, with a deployment, those of triage and drafts.

    `judge`: the deployment that judges the drafts. Raises ConfigurationError.
    """
    data = find_data(environment, DATA, HOLDING)
    mails = load_mails(data)
    lines = ["# The emails of amd/gaia", "", *render_guard(measure_guard(mails)), ""]
    if environment.get("MODEL_ENDPOINT", "").strip():
        for number in range(1, DEPLOYMENT_RUNS + 1):
            lines += [f"Run {number} of {DEPLOYMENT_RUNS}:", "", *_render_triage(environment, mails), ""]
            lines += [*render_drafts(environment, data, judge), ""]
    else:
        lines += ["Triage and drafts need a deployment: set MODEL_ENDPOINT.", ""]
    console.print(Markdown("\n".join([*lines, PUBLISHED])))
    return True


def load_mails(data: Path) -> list[Mail]:
    """The emails, each addressed to the one mailbox."""
    lines = (data / "emails_clean.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        Mail(
            Case(
                id=raw["id"],
                kind=raw["category"],
                mailbox=next(iter(MAILBOXES)),
                language="en",
                sender=raw["sender"],
                subject=raw["subject"] or "",
                markdown=raw["body"],
                actions=(raw["suggestedAction"],),
                categories=(),
                why="",
            ),
            raw["category"],
            raw["suggestedAction"] == "reply",
        )
        for raw in map(json.loads, lines)
    ]


def measure_guard(mails: Sequence[Mail]) -> GuardFigures:
    """Let every email arrive in front of a model that is not to be had; see what is closed without it."""
    with open_stage({}, mailboxes=MAILBOXES, changes=NO_DEPLOYMENT, clock=lambda: START) as stage:
        found = _run(stage, mails, _say_nothing)
    skipped = {case_id: result.reason for case_id, result in found.items() if result.action == "ignore"}
    wanting = {mail.case.id for mail in mails if mail.wants_reply}
    return GuardFigures(
        wanting=len(wanting),
        others=len(mails) - len(wanting),
        skipped_wanting={case_id: skipped[case_id] for case_id in sorted(skipped) if case_id in wanting},
        skipped_others={case_id: skipped[case_id] for case_id in sorted(skipped) if case_id not in wanting},
    )


def render_guard(figures: GuardFigures) -> list[str]:
    """The guard's figures, and the emails that it would wrongly skip."""
    skipped, others = figures.skipped_wanting, figures.skipped_others
    return [
        "Without a model, the guard skips of the emails that want a reply",
        f"{_share(skipped, figures.wanting)}, and spares the model of the others",
        f"{_share(others, figures.others)}. The set has no headers, by which most mail that programs send is",
        "known. Wrongly skipped:",
        "",
        *([f"- `{case_id}`: {reason}" for case_id, reason in skipped.items()] or ["- none"]),
    ]


def _share(skipped: Mapping[str, str], number: int) -> Share:
    return compute_share([True] * len(skipped) + [False] * (number - len(skipped)))


def find_bucket(triage: Triage | None) -> str:
    """Where a triage is on the ladder; None is what the guard skipped."""
    if triage is None or triage.action is Action.IGNORE:
        return "PROMOTIONAL" if triage is not None and triage.category == "promotion" else "FYI"
    is_urgent = triage.urgency in (Urgency.CRITICAL, Urgency.HIGH)
    return "URGENT" if is_urgent else "NEEDS_RESPONSE"


def measure_buckets(found: Sequence[tuple[str, str]]) -> Mapping[str, Share]:
    """The owners' three figures of pairs of the right bucket and the one found."""
    apart = [(right, abs(LADDER.index(right) - LADDER.index(got))) for right, got in found if right in LADDER]
    return {
        "within one bucket": compute_share([steps <= 1 for _, steps in apart]),
        "exact": compute_share([steps == 0 for _, steps in apart]),
        "urgent recall": compute_share([steps == 0 for right, steps in apart if right == "URGENT"]),
    }


def _render_triage(environment: Mapping[str, str], mails: Sequence[Mail]) -> list[str]:
    with open_stage(environment, mailboxes=MAILBOXES) as stage:
        ask = stage.agent.pipeline.complete
        _run(stage, mails, lambda r: ask(r) if r.schema_name == "triage" else _say_nothing(r))
        found = [(mail.bucket, find_bucket(stage.find_entry(mail.case).triage)) for mail in mails]
    shares = measure_buckets(found)
    return ["| figure | emails |", "|---|---|", *(f"| {name} | {share} |" for name, share in shares.items())]


def _run(
    stage: Stage, mails: Sequence[Mail], complete: Callable[[ChatRequest], ChatCompletion]
) -> Mapping[str, CaseResult]:
    pipeline = replace(stage.agent.pipeline, complete=complete)
    changed = replace(stage, agent=replace(stage.agent, pipeline=pipeline))
    cases = tuple(mail.case for mail in mails)
    return {result.id: result for result in changed.run(cases, concurrency=CONCURRENCY, judge=None)}


def _say_nothing(_request: ChatRequest) -> ChatCompletion:
    """What no step can read: the email is left to a person."""
    return ChatCompletion("", "stop", Usage(), "none")
