"""The HTTP side of a question: what it takes, what it answers, and that failures tell what to do."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import azure.functions as func
import pytest
from hypothesis import given
from hypothesis import strategies as st

import function_app
from local.host.app_functions import InvocationContext, read_app_functions
from local.model import chat_simulator as sim
from local.multimail.faults import answer_with
from local.testing.ask_world import CHECK_INBOX, MODEL_KEY, AskWorld
from shared import composition
from shared.composition import Agent, build_agent
from shared.domain import NO_USAGE
from shared.operator.ask_requests import MAX_QUESTION_CHARACTERS, answer_request
from shared.operator.asking import Answer, Question
from shared.services.http_answer import HttpAnswer
from shared.settings import Settings
from tests.declared_functions import read_declared_functions

BOB = "bob@partner.example"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AskWorld]:
    with AskWorld(tmp_path) as world:
        yield world


def post(world: AskWorld, body: Any, key: str | None = None) -> HttpAnswer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return answer_request(raw, key, lambda: world.agent)


def test_answer_says_what_was_called_and_submitted_and_never_what_was_read(world: AskWorld) -> None:
    email_id = world.deliver("Canary of the body.", subject="Canary of the subject")
    world.model.steps = [[CHECK_INBOX, world.read_call(email_id)], [world.send_call(BOB)], "It waits."]
    answer = post(world, {"question": f"Write to {BOB}."})
    body = json.loads(answer.body)
    assert answer.status_code == 200
    (accepted,) = world.mail.accepted
    assert body["submitted"] == [
        {"mailbox_id": world.box, "email_id": accepted.email_id, "status": "pending_scan", "recipient": BOB}
    ]
    assert body["tool_calls"][1] == {
        "tool": "read_email", "status": "ok", "mailbox_id": world.box, "email_id": email_id,
    }  # fmt: skip
    assert (body["answer"], body["is_complete"], body["request_id"]) == ("It waits.", True, "question-0")
    assert body["usage"]["calls"] == 3
    assert "Canary" not in answer.body


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"no JSON", "body"),
        (b"[" * 100_000, "body"),
        (b"\xff\xfe", "body"),
        ([], "body"),
        ({"question": "Hi?", "requestid": "1"}, "body"),
        ({}, "question"),
        ({"question": 7}, "question"),
        ({"question": " \n "}, "question"),
        ({"question": "x" * (MAX_QUESTION_CHARACTERS + 1)}, "question"),
        (b'{"question": "\\ud800"}', "question"),
        ({"question": "Hi?", "request_id": ""}, "request_id"),
        ({"question": "Hi?", "request_id": 7}, "request_id"),
        ({"question": "Hi?", "request_id": "x" * 129}, "request_id"),
        ({"question": "Hi?", "request_id": "a\nb"}, "request_id"),
    ],
)
def test_a_request_that_is_wrong_is_a_400_that_names_the_field_and_costs_nothing(
    world: AskWorld, body: Any, field: str
) -> None:
    answer = post(world, body)
    assert answer.status_code == 400
    assert json.loads(answer.body)["field"] == field
    assert not world.chat.calls


@given(st.binary(max_size=80) | st.dictionaries(st.text(), st.text()).map(lambda v: json.dumps(v).encode()))
def test_a_body_of_any_bytes_is_a_question_or_a_400(body: bytes) -> None:
    asked: list[Question] = []

    class Silent:
        def ask(self, question: Question) -> Answer:
            asked.append(question)
            return Answer("id", "", (), (), NO_USAGE, True)

    answer = answer_request(body, None, Silent)
    assert (answer.status_code, len(asked)) in ((200, 1), (400, 0))


@pytest.mark.parametrize("in_header", [False, True])
def test_the_same_request_id_in_body_or_header_sends_once(world: AskWorld, in_header: bool) -> None:
    for _ in range(2):
        world.model.steps = [[world.send_call(BOB)], "It waits."]
        body = {"question": f"Write to {BOB}."} | ({} if in_header else {"request_id": "req-1"})
        answer = post(world, body, "req-1" if in_header else None)
        assert json.loads(answer.body)["request_id"] == "req-1"
    assert len(world.mail.accepted) == 1


@pytest.mark.parametrize(
    ("fault", "status", "retry_after"),
    [
        (sim.throttled(retry_after="7"), 503, "7"),
        (sim.throttled(), 503, "30"),
        (sim.refused(500), 503, "30"),
        (sim.cut_before_answer, 503, "30"),
        (sim.refused(401, "401"), 500, None),
        (sim.refused(404, "DeploymentNotFound"), 500, None),
        (sim.filtered_prompt("jailbreak"), 422, None),
        (sim.refused(400, "invalid_value"), 502, None),
    ],
)
def test_a_model_that_fails_is_told_by_what_to_do(
    world: AskWorld, fault: sim.Fault, status: int, retry_after: str | None
) -> None:
    world.chat.script(fault)
    answer = post(world, {"question": "What came in today?"})
    assert (answer.status_code, answer.headers.get("Retry-After")) == (status, retry_after)
    assert json.loads(answer.body)["error"]
    assert MODEL_KEY not in answer.body


def test_a_wrong_setting_is_named_in_the_log_and_not_in_the_answer(
    world: AskWorld, caplog: pytest.LogCaptureFixture
) -> None:
    world.mail.fault = lambda _method, _path, _n: answer_with(401)
    answer = post(world, {"question": "What came in today?"})
    assert answer.status_code == 500
    assert "MULTIMAIL_API_KEY" in caplog.text
    assert "MULTIMAIL_API_KEY" not in answer.body
    assert world.settings.multimail_api_key is not None
    assert world.settings.multimail_api_key.value not in caplog.text + answer.body


def test_a_used_up_day_says_when_to_come_back(tmp_path: Path) -> None:
    with AskWorld(tmp_path, daily_token_budget=1) as world:
        post(world, {"question": "What came in today?"})
        answer = post(world, {"question": "And now?"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, str(12 * 3600))
    assert "DAILY_TOKEN_BUDGET" in answer.body


# ---- The trigger -------------------------------------------------------------------------------------


def call_trigger(body: bytes, headers: dict[str, str]) -> func.HttpResponse:
    functions = read_app_functions(
        function_app.app,
        {"POLL_SCHEDULE": "0 * * * * *", "TRACK_SCHEDULE": "0 * * * * *", "WORK_QUEUE_NAME": "q"},
        {"q"},
    )
    request = func.HttpRequest(method="POST", url="/api/ask", headers=headers, body=body)
    response = functions.http["ask_agent"].invoke(request, InvocationContext("ask_agent", "invocation"))
    assert isinstance(response, func.HttpResponse)
    return response


@pytest.fixture
def running_agent(world: AskWorld, monkeypatch: pytest.MonkeyPatch) -> Agent:
    monkeypatch.setattr(composition, "get_agent", lambda: world.agent)
    return world.agent


def test_the_trigger_needs_a_function_key_and_takes_post_only() -> None:
    (trigger,) = (b for b in read_declared_functions()["ask_agent"] if b["type"] == "httpTrigger")
    assert (trigger["authLevel"], trigger["methods"], trigger["route"]) == ("FUNCTION", ["POST"], "ask")


def test_the_trigger_answers_json(world: AskWorld, running_agent: Agent) -> None:
    for _ in range(2):
        world.model.steps = [[world.send_call(BOB)], "Es wartet, schön."]
        response = call_trigger(
            json.dumps({"question": f"Write to {BOB}."}).encode(), {"Idempotency-Key": "req-1"}
        )
    assert (response.status_code, response.mimetype) == (200, "application/json")
    assert json.loads(response.get_body())["answer"] == "Es wartet, schön."
    assert len(world.mail.accepted) == 1


def test_an_agent_that_cannot_be_built_is_a_500_and_no_trace(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(composition, "get_agent", lambda: build_agent(Settings.from_env({})))
    response = call_trigger(b'{"question": "Hi?"}', {})
    assert response.status_code == 500
    assert "MODEL_ENDPOINT" in caplog.text
