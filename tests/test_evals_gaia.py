"""`python -m evals --set gaia`: what the guard skips, the buckets of triage, the drafts' rubrics; on two emails."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from evals.__main__ import MISCONFIGURED, OK, main
from evals.gaia import DATA, evaluate_gaia, find_bucket, measure_buckets
from evals.gaia_drafts import judge_rubric, load_rubrics, write_config
from local.host.http_server import LoopbackServer
from local.model.chat_simulator import ChatSimulator
from shared.domain import NO_MODEL_TEXT, Action, Sentiment, Triage, Urgency, Usage
from shared.model.chat import ChatCompletion, ChatRequest


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A person's email and a program's that want a reply, one that wants none, and one rubric."""
    folder = tmp_path / DATA
    folder.mkdir()
    emails = [
        ("a", "Ann <ann@customer.example>", "URGENT", "reply"),
        ("b", "Bot <noreply@shop.example>", "NEEDS_RESPONSE", "reply"),
        ("c", "Bot <noreply@news.example>", "PROMOTIONAL", "archive"),
    ]
    rows = [
        {
            "id": i,
            "sender": sender,
            "subject": "Hello",
            "body": f"Hello {i}",
            "category": bucket,
            "suggestedAction": action,
        }
        for i, sender, bucket, action in emails
    ]
    (folder / "emails_clean.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    rubric = {
        "persona": "terse", "incoming": {"from": "Ann <ann@customer.example>", "subject": "Tea", "body": "When do we meet?"},
        "sent_history": ["At nine.\n\nBo", "No.\n\nBo"], "reply_intent": "Say at noon.",
        "rubric": {"must": ["Say noon"], "must_not": ["Say nine"]},
    }  # fmt: skip
    (folder / "drafting_ground_truth.json").write_text(
        json.dumps({"_meta": {}, "d-1": rubric}), encoding="utf-8"
    )
    return tmp_path


def evaluate(data: Path, judge: str | None = None, **environment: str) -> str:
    console = Console(file=StringIO(), width=200)
    assert evaluate_gaia(console, {"EVAL_DATA_DIR": str(data), **environment}, judge)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_without_a_deployment_the_guard_is_measured_and_what_it_skips_is_listed(data: Path) -> None:
    said = evaluate(data)
    assert "skips of the emails that want a reply 1 of 2 (50.0%" in " ".join(said.split())
    assert "spares the model of the others 1 of 1 (100.0%" in " ".join(said.split())
    assert "b: the sender is a no-reply" in said
    assert "set MODEL_ENDPOINT" in said


def test_with_a_deployment_three_runs_of_triage_and_judged_drafts_are_shown(data: Path) -> None:
    with LoopbackServer(ChatSimulator(api_key="simulated", shields=True).app) as server:
        said = evaluate(
            data, "large", MODEL_ENDPOINT=server.url, MODEL_API_KEY="simulated",
            TRIAGE_DEPLOYMENT="small", DRAFT_DEPLOYMENT="large",
        )  # fmt: skip
    assert said.count("urgent recall") >= 3
    assert "Run 3 of 3" in said
    assert said.count("1 of 1 emails got a draft. Approved by the judge large") == 3


@pytest.mark.parametrize(
    ("action", "urgency", "category", "bucket"),
    [
        (Action.REPLY, Urgency.HIGH, "question", "URGENT"),
        (Action.ESCALATE, Urgency.CRITICAL, "support", "URGENT"),
        (Action.ESCALATE, Urgency.NORMAL, "legal", "NEEDS_RESPONSE"),
        (Action.REPLY, Urgency.LOW, "question", "NEEDS_RESPONSE"),
        (Action.IGNORE, Urgency.HIGH, "promotion", "PROMOTIONAL"),
        (Action.IGNORE, Urgency.LOW, "other", "FYI"),
    ],
)
def test_a_triage_has_its_place_on_the_owners_ladder(
    action: Action, urgency: Urgency, category: str, bucket: str
) -> None:
    triage = Triage(action, category, urgency, Sentiment.NEUTRAL, 1.0, NO_MODEL_TEXT, NO_MODEL_TEXT)
    assert find_bucket(triage) == bucket


def test_the_figures_of_the_ladder_leave_personal_mail_out() -> None:
    pairs = [("URGENT", "URGENT"), ("URGENT", "NEEDS_RESPONSE"), ("FYI", "URGENT"), ("PERSONAL", "FYI")]
    shares = measure_buckets(pairs)
    assert {name: (share.hits, share.of) for name, share in shares.items()} == {
        "within one bucket": (2, 3), "exact": (1, 3), "urgent recall": (1, 2),
    }  # fmt: skip


def test_what_to_reply_is_knowledge_and_the_sent_emails_are_the_voice(data: Path, tmp_path: Path) -> None:
    config = tmp_path / "config"
    write_config(load_rubrics(data / DATA), config)
    assert (config / "knowledge/d-1/reply.md").read_text(encoding="utf-8").endswith("Say at noon.\n")
    assert "At nine." in (config / "mailboxes.yaml").read_text(encoding="utf-8")


def test_the_judge_sees_the_rubric_and_its_answer_is_read(data: Path) -> None:
    (rubric,) = load_rubrics(data / DATA)
    asked: list[ChatRequest] = []

    def answer(request: ChatRequest) -> ChatCompletion:
        asked.append(request)
        text = "{}" if len(asked) == 1 else '{"approved": false, "reason": "It says nine."}'
        return ChatCompletion(text, "stop", Usage(1), "judge")

    assert judge_rubric(rubric, "At nine.", answer, "large", lambda _seconds: None) == (
        False,
        "It says nine.",
    )
    assert "Say noon" in asked[0].user
    assert "The reply must not:\n- Say nine" in asked[0].user
    assert judge_rubric(rubric, None, answer, "large", lambda _seconds: None) == (False, "there is no draft")


def test_without_the_data_the_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data: Path
) -> None:
    monkeypatch.delenv("MODEL_ENDPOINT", raising=False)
    monkeypatch.delenv("EVAL_DATA_DIR", raising=False)
    assert main(["--set", "gaia"]) == MISCONFIGURED
    assert "EVAL_DATA_DIR" in capsys.readouterr().out
    monkeypatch.setenv("EVAL_DATA_DIR", str(data))
    assert main(["--set", "gaia"]) == OK
