"""The knowledge set and the scorecard: sound gold, recorded answers that keep the schema, figures that repeat."""

import json
import re
import socket
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evals import scorecard
from evals.__main__ import MISCONFIGURED, main
from evals.forbidden import Verdict, judge_open_points
from evals.knowledge_report import render_answers, replay_recorded
from evals.knowledge_set import (
    FOLDER,
    RECORDED_CASES,
    Judgement,
    KnowledgeCase,
    choose_recorded,
    compute_clustered_share,
    compute_share,
    load_judgements,
    load_knowledge_cases,
    run_set,
    write_prompts,
)
from evals.recorded import RecordedAnswers, compute_version
from evals.results import CaseResult
from shared.domain import Action, Draft, JudgedClaim, ModelText, Sentiment, Support, Urgency
from shared.knowledge.words import fold
from shared.ledger.entries import LedgerEntry
from shared.model.chat import ChatRequest
from shared.model.prompting import PROMPTS
from shared.replying.draft_request import parse_draft
from shared.replying.triage import parse_triage

CASES = load_knowledge_cases()
CHOSEN = choose_recorded(CASES)
PAGES = {
    path.name: path.read_text(encoding="utf-8") for path in (FOLDER / "config/knowledge/help").glob("*.md")
}
ENUMS = {"action": Action, "urgency": Urgency, "sentiment": Sentiment}

Replayed = tuple[list[str], RecordedAnswers]
Found = Mapping[str, tuple[CaseResult, LedgerEntry]]


@pytest.fixture(scope="module")
def replayed() -> Replayed:
    """The recorded run, once for all that looks at it: it takes some seconds."""
    return replay_recorded()


def one_case() -> KnowledgeCase:
    return next(case for case in CHOSEN if case.id == "direct-01")


def run_one(folder: Path) -> tuple[Found, RecordedAnswers]:
    """The first recorded case with the answers in `folder`."""
    recorded = RecordedAnswers(folder)
    return run_set({}, [one_case()], recorded, concurrency=1), recorded


# The gold


def test_the_set_has_as_many_pages_emails_and_kinds_as_it_says() -> None:
    assert len(PAGES) >= 25
    assert len({case.id for case in CASES}) == len(CASES) >= 120
    assert len(CHOSEN) == RECORDED_CASES >= 60
    kinds = Counter(case.case.kind for case in CASES)
    assert min(kinds.values()) >= 8
    assert set(kinds) == {
        "direct", "paraphrased", "foreign", "partly", "thread", "outdated", "near_miss", "no_reply_case",
    }  # fmt: skip
    assert len({case.case.language for case in CASES}) >= 8
    assert {case.case.actions for case in CASES} == {("reply",), ("escalate",), ("ignore",)}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_words_that_carry_each_fact_are_on_its_page(case: KnowledgeCase) -> None:
    for fact in case.facts:
        assert fold(fact.quote) in fold(PAGES[Path(fact.page).name]), fact.text
    assert bool(case.facts) or case.case.actions != ("reply",)


# The recorded answers


def test_every_chosen_email_has_answers_and_no_other() -> None:
    assert {path.stem for path in (FOLDER / "recorded").glob("*.json")} == {case.id for case in CHOSEN}


def test_the_recorded_answers_keep_the_schemas_of_their_prompts(replayed: Replayed) -> None:
    for prompt in replayed[1].prompts:
        recorded = json.loads((FOLDER / "recorded" / f"{prompt.case_id}.json").read_text(encoding="utf-8"))
        answer, schema = recorded[prompt.step]["answer"], prompt.request.schema
        assert set(answer) == set(schema["required"]) == set(schema["properties"]), prompt.case_id
        text = json.dumps(answer)
        if prompt.step == "draft":
            assert parse_draft(text).reply_markdown
            continue
        parse_triage(text, schema["properties"]["category"]["enum"])
        assert all(answer[name] in list(values) for name, values in ENUMS.items())


def test_no_recorded_answer_is_stale_and_every_draft_is_the_judged_one(replayed: Replayed) -> None:
    assert "Stale" not in "\n".join(replayed[0])
    assert {prompt.case_id for prompt in replayed[1].prompts} == {case.id for case in CHOSEN}


def test_the_recorded_run_needs_no_model_and_no_network(
    replayed: Replayed, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve, hosts = socket.getaddrinfo, set()

    def watch(host: str, *rest: Any, **more: Any) -> Any:
        hosts.add(host)
        return resolve(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", watch)
    found, recorded = run_one(FOLDER / "recorded")
    result, entry = found["direct-01"]
    assert hosts == {"127.0.0.1"}
    assert {call.model for call in result.calls} == {"recorded answers"}
    assert entry.finished_at == entry.received_at, "the clock stands"
    before = [prompt.version for prompt in replayed[1].prompts if prompt.case_id == "direct-01"]
    assert [prompt.version for prompt in recorded.prompts] == before


def test_a_changed_prompt_marks_the_figures_as_stale(tmp_path: Path) -> None:
    answers = json.loads((FOLDER / "recorded" / "direct-01.json").read_text(encoding="utf-8"))
    answers["triage"]["prompt"] = "0" * 16
    (tmp_path / "direct-01.json").write_text(json.dumps(answers), encoding="utf-8")
    found, recorded = run_one(tmp_path)
    assert [(prompt.step, prompt.is_stale) for prompt in recorded.prompts] == [
        ("triage", True),
        ("draft", False),
    ]
    said = "\n".join(render_answers([one_case()], found, load_judgements(), recorded.prompts))
    stale = "**Stale:** the prompts of 1 emails have changed since."
    assert f"1 emails. {stale}" in said
    assert f"The drafts: {stale}" in said, "they rest on the triage"


def test_a_changed_prompt_of_drafts_marks_no_figure_of_triage(tmp_path: Path) -> None:
    answers = json.loads((FOLDER / "recorded" / "direct-01.json").read_text(encoding="utf-8"))
    answers["draft"]["prompt"] = "0" * 16
    (tmp_path / "direct-01.json").write_text(json.dumps(answers), encoding="utf-8")
    found, recorded = run_one(tmp_path)
    said = "\n".join(render_answers([one_case()], found, load_judgements(), recorded.prompts))
    assert "1 emails.\n" in said
    assert "The drafts: **Stale:**" in said


def test_a_prompts_version_changes_with_all_that_the_model_is_shown() -> None:
    request = ChatRequest("d", "system", "user", "triage", {"type": "object"}, 10)
    changed = [replace(request, system="other"), replace(request, user="other"), replace(request, schema={})]
    assert len({compute_version(one) for one in (request, *changed)}) == 4


def test_a_judgement_of_another_draft_is_marked() -> None:
    found, recorded = run_one(FOLDER / "recorded")
    judgement = load_judgements()["direct-01"]
    said = [
        "\n".join(render_answers([one_case()], found, {"direct-01": judged}, recorded.prompts))
        for judged in (judgement, replace(judgement, draft="Another text."))
    ]
    assert ["are not the ones that were judged" in one for one in said] == [False, True]


def test_drafts_that_nobody_judged_have_no_share() -> None:
    found, recorded = run_one(FOLDER / "recorded")
    said = "\n".join(render_answers([one_case()], found, {}, recorded.prompts))
    assert "The drafts were not judged." in said
    assert "full and true" not in said


def test_what_a_judge_finds_wrong_is_no_full_answer() -> None:
    found, recorded = run_one(FOLDER / "recorded")
    draft = load_judgements()["direct-01"].draft
    judged = {"direct-01": Judgement(draft, True, ("The price is old.",), (), ())}
    said = "\n".join(render_answers([one_case()], found, judged, recorded.prompts))
    assert "0 of 1" in said
    assert "- `direct-01`: The price is old." in said


# What a reply must not state


def run_planted(tmp_path: Path, sentence: str) -> tuple[Found, RecordedAnswers]:
    """The first recorded case, with a sentence more in its draft."""
    answers = json.loads((FOLDER / "recorded" / "direct-01.json").read_text(encoding="utf-8"))
    answers["draft"]["answer"]["reply_markdown"] += f"\n\n{sentence}"
    (tmp_path / "direct-01.json").write_text(json.dumps(answers), encoding="utf-8")
    return run_one(tmp_path)


@pytest.mark.parametrize(
    ("sentence", "statement"),
    [
        ("Delivery to Ireland is €159.", "Delivery to Ireland costs €159."),
        ("La livraison coûte 159 euros.", "Delivery to Ireland costs €159."),
        ("You may have to pay customs duty to the driver.", "The customer may have to pay customs duty"),
    ],
)
def test_a_planted_forbidden_statement_is_listed(tmp_path: Path, sentence: str, statement: str) -> None:
    found, recorded = run_planted(tmp_path, sentence)
    said = "\n".join(render_answers([one_case()], found, load_judgements(), recorded.prompts))
    assert f"- `direct-01`: “{statement}" in said
    assert f"perhaps in “{sentence}”" in said


def test_a_draft_without_the_forbidden_values_is_acquitted_by_code_and_the_rest_by_its_judge() -> None:
    found, recorded = run_one(FOLDER / "recorded")
    said = [
        "\n".join(render_answers([one_case()], found, judgements, recorded.prompts))
        for judgements in (load_judgements(), {})
    ]
    assert "| code: not there | 1 of 2 | 0 of 0 |" in said[0]
    assert f"| {Verdict.READ} | 1 of 2 |" in said[0]
    assert f"| {Verdict.UNREAD} | 1 of 2 |" in said[1], "nobody judged it"
    assert "Not cleared:\n\n- nothing" in said[0]


def test_what_the_pages_do_not_answer_is_left_open_or_listed() -> None:
    case = next(case for case in CASES if case.id == "partly-04")
    words = "The CH-4A works on 110 V mains."
    claims = (JudgedClaim(words, Support.ASSERTED),)
    draft = Draft(words, 0.9, (), (), "key", claims=claims)
    point = ModelText("Does the CH-4A work on 110 V?")
    verdicts = [
        judge_open_points(case, one, None)[0].verdict
        for one in (draft, replace(draft, open_points=(point,)), replace(draft, claims=()))
    ]
    assert verdicts == [Verdict.FOUND, Verdict.KEPT, Verdict.KEPT]
    foreign = replace(case, case=replace(case.case, language="de"))
    assert judge_open_points(foreign, draft, None)[0].verdict is Verdict.UNREAD


# Recording


def test_only_prompts_without_an_answer_of_their_own_are_written(tmp_path: Path) -> None:
    answers = json.loads((FOLDER / "recorded" / "direct-01.json").read_text(encoding="utf-8"))
    del answers["draft"]
    folder = tmp_path / "recorded"
    folder.mkdir()
    (folder / "direct-01.json").write_text(json.dumps(answers), encoding="utf-8")
    _, recorded = run_one(folder)
    path = tmp_path / "open.jsonl"
    assert write_prompts(recorded, path) == 1
    (written,) = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert (written["case"], written["step"]) == ("direct-01", "draft")
    _, complete = run_one(FOLDER / "recorded")
    assert write_prompts(complete, path) == 0
    assert path.read_text(encoding="utf-8") == ""


def test_a_writers_prompts_hold_nothing_of_the_gold(replayed: Replayed) -> None:
    """What a fact says is on the pages; what labels, reasons and expectations say is nowhere in a prompt."""
    by_id = {case.id: case for case in CHOSEN}
    for prompt in replayed[1].prompts:
        shown, case = fold(f"{prompt.request.system}\n{prompt.request.user}"), by_id[prompt.case_id]
        gold = [case.case.why, *case.must_not, *(fact.text for fact in case.facts if len(fact.text) > 40)]
        assert not [text for text in gold if fold(text) in shown and fold(text) not in all_pages()], case.id
        assert not re.search(rf"\b{re.escape(case.id)}\b", prompt.request.user)


def all_pages() -> str:
    return fold("\n".join(PAGES.values()))


# Intervals


def test_the_bootstrap_interval_can_be_repeated_and_holds_the_share() -> None:
    hits = [True] * 40 + [False] * 16
    share = compute_share(hits)
    assert share == compute_share(hits)
    assert 0.5 < share.low < 40 / 56 < share.high < 0.9
    assert compute_share(hits * 10).high - compute_share(hits * 10).low < (share.high - share.low) / 2
    assert (str(compute_share([])), compute_share([True]).low) == ("–", 1.0)


def test_the_interval_of_facts_is_over_the_cases() -> None:
    """Facts of one case stand and fall together: more of them in a case make no interval narrower."""
    cases = [[True]] * 10 + [[False]] * 10
    once, often = compute_clustered_share(cases), compute_clustered_share([hits * 9 for hits in cases])
    assert (often.low, often.high) == (once.low, once.high)
    assert (often.hits, often.of) == (90, 180)
    assert compute_clustered_share([[], [True]]).of == 1


# The scorecard


def test_the_scorecard_is_what_would_be_written_now(replayed: Replayed) -> None:
    written = scorecard.PAGE.read_text(encoding="utf-8")
    assert scorecard.render_scorecard(replayed[0]) == written, "run: make eval ARGS=scorecard"


def test_the_scorecard_names_failures_and_who_wrote_and_judged(replayed: Replayed) -> None:
    page = scorecard.render_scorecard(replayed[0])
    for said in (
        "`foreign-07` (reply, right is escalate)",
        "`paraphrased-10`",
        "Not all found with 24,000 tokens: `foreign-03`",
        "`no_reply_case-05`: “The order is confirmed.”",
        "judged by another",
        "not blind",
    ):
        assert said in " ".join(page.split())


@pytest.mark.parametrize("prompt", ["triage", "draft", "passage"])
def test_every_rule_of_a_prompt_is_in_the_table_with_its_measurement(prompt: str) -> None:
    text = (PROMPTS / f"{prompt}.md").read_text(encoding="utf-8")
    assert list(scorecard.load_rules()[prompt]) == re.findall(r"<!-- (.*?) -->", text)


def test_public_data_that_is_missing_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EVAL_DATA_DIR", str(tmp_path))
    assert main(["scorecard"]) == MISCONFIGURED
    assert "EVAL_DATA_DIR is not set to a folder with tau3_banking_knowledge" in capsys.readouterr().out
