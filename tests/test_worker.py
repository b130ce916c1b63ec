"""Microsoft's own worker runs the app: what it hands over, reports and records is as the other tests assume.

On every machine that is the library worker of Python 3.13. AZURE_FUNCTIONS_WORKER names a checkout of the whole
worker, which then runs as well, over gRPC.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.commands.demo_model import respond
from local.model.chat_simulator import Payload
from local.multimail.faults import always, answer_with
from shared.telemetry import email_traceparent
from shared.watching.webhooks import SIGNATURE_HEADER
from tests.declared_functions import read_declared_functions
from tests.test_webhooks import sign
from tests.worker.environment import build_whole_worker, find_library_worker
from tests.worker.stage import Run, build_stage, run_worker
from tests.worker.worker import PATIENCE_SECONDS, Http

LIBRARY = "library"
BOTH_IN_TIME = 20.0  # seconds


def trace_of(function: str) -> str:
    """A trace for the invocations of a function, such as the platform begins for each."""
    return function.encode().hex()[:32].ljust(32, "0")


def traceparent(function: str) -> str:
    return f"00-{trace_of(function)}-0123456789abcdef-01"


def tell(run: Run, event: str, mailbox_id: str, email_id: str) -> Http:
    """Send a signed webhook about an outbound email."""
    data = {"email_id": email_id, "mailbox_id": mailbox_id, "direction": "outbound"}
    body = json.dumps({"event": event, "timestamp": "2026-03-02T12:00:00Z", "data": data}).encode()
    headers = {SIGNATURE_HEADER: sign(body, run.stage.webhook_secret)}
    return run.worker.request(
        "receive_webhook", body, headers=headers, traceparent=traceparent("receive_webhook")
    )


@pytest.fixture(scope="module", params=[LIBRARY, "3.11", "3.12", "3.13"])
def command(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    if request.param == LIBRARY:
        return find_library_worker()
    return build_whole_worker(request.param, tmp_path_factory.mktemp("worker") / "env")


@pytest.fixture(scope="module")
def run(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The demo's mail, worked off by a worker: the first two triages wait for each other."""
    meeting, first = threading.Barrier(2), threading.Semaphore(2)

    def respond_together(body: Payload) -> str | Payload:
        if first.acquire(blocking=False):
            meeting.wait(BOTH_IN_TIME)
        return respond(body)

    with (
        build_stage(tmp_path_factory.mktemp("stage"), respond_together) as stage,
        run_worker(stage, command) as run,
    ):
        run.work_until_idle(traceparent("poll_inboxes"), traceparent("process_email"))
        yield run


def test_the_worker_finds_every_function_with_its_trigger(run: Run) -> None:
    found = {
        name: [
            {key: binding[key] for key in ("name", "type")}
            for binding in bindings
            if binding["direction"] != "OUT"
        ]
        for name, bindings in run.worker.functions.items()
    }
    declared = {
        name: [
            {key: binding[key] for key in ("name", "type")}
            for binding in bindings
            if binding["direction"] != "OUT"
        ]
        for name, bindings in read_declared_functions().items()
    }
    assert found == declared


def test_the_worker_and_the_single_machine_host_agree_on_every_outcome_of_the_demo(
    run: Run, tmp_path: Path
) -> None:
    with build_stage(tmp_path, respond) as local:
        subprocess.run(
            [sys.executable, "-m", "local", "run", "--until-idle"],
            cwd=tmp_path, env=local.settings, capture_output=True, check=False, timeout=120,
        )  # fmt: skip
        assert run.stage.describe_outcomes() == local.describe_outcomes()


def test_invocations_run_at_once_and_each_succeeds(run: Run) -> None:
    """Two triages have met in the model, or `run` would have failed."""
    assert len(run.answers) >= 2
    assert [answer.error for answer in run.answers if answer.error] == []


def test_a_decision_that_a_webhook_tells_of_is_tracked_and_the_timer_measures_what_waits(run: Run) -> None:
    entry = next(entry for entry in run.stage.list_entries() if entry.reply_id)
    assert entry.reply_id is not None
    run.stage.multimail.decide(entry.reply_id, "approve")
    assert tell(run, "oversight.approved", entry.mailbox_id, entry.reply_id).status == 204
    seen = next(found for found in run.stage.list_entries() if found.email_id == entry.email_id)
    assert seen.reply_status == "delivered"
    trace = email_traceparent(entry.mailbox_id, entry.email_id).split("-")[1]
    run.stage.collector.wait_for(trace, "reply seen")
    assert run.worker.fire("track_replies", traceparent("track_replies")).error is None
    run.stage.collector.wait_for(trace_of("track_replies"), "replies.pending")


def test_a_question_gets_its_answer_as_json(run: Run) -> None:
    question = json.dumps({"question": "Which drafts are pending?"}).encode()
    answer = run.worker.request("ask_agent", question, traceparent=traceparent("ask_agent"))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert json.loads(answer.body)["answer"]
    wrong = run.worker.request("ask_agent", b"{}")
    assert (wrong.status, json.loads(wrong.body)["field"]) == (400, "question")


def test_the_report_is_shown_to_programs_and_to_people(run: Run) -> None:
    data = run.worker.request("report", traceparent=traceparent("report"))
    assert (data.status, data.headers["content-type"]) == (200, "application/json")
    page = run.worker.request("report", headers={"Accept": "text/html"}, query={"days": "7"})
    assert (page.status, page.headers["content-type"].split(";")[0]) == (200, "text/html")
    assert "<html" in page.body


def test_a_forged_webhook_is_refused(run: Run) -> None:
    forged = run.worker.request("receive_webhook", b"{}", headers={SIGNATURE_HEADER: "sha256=" + "0" * 64})
    assert (forged.status, forged.body) == (401, "")


def test_the_health_check_answers(run: Run) -> None:
    answer = run.worker.request("health", traceparent=traceparent("health"))
    assert (answer.status, answer.body) == (200, "ok")


def test_a_message_that_is_none_of_ours_is_dropped_with_an_error_of_its_invocation(run: Run) -> None:
    answer = run.worker.deliver("no work item", traceparent("process_email")).result(PATIENCE_SECONDS)
    assert answer.error is None
    (log,) = [log for log in run.worker.logs if log.level == "ERROR" and log.invocation_id == answer.id]
    assert log.message.startswith("a queue message was dropped")


def test_an_exception_is_reported_with_its_type_and_text(run: Run) -> None:
    run.stage.multimail.fault = always(answer_with(401, {"error": "refused"}))
    try:
        answer = run.worker.fire("poll_inboxes")
    finally:
        run.stage.multimail.fault = lambda _method, _path, _number: None
    assert answer.error is not None
    assert "ConfigurationError: " in answer.error


@pytest.mark.parametrize(
    ("function", "recorded"),
    [
        ("poll_inboxes", "poll"), ("process_email", "process"), ("receive_webhook", "webhook.received"),
        ("ask_agent", "ask"),
    ],
)  # fmt: skip
def test_what_a_function_records_belongs_to_the_platforms_trace(
    run: Run, function: str, recorded: str
) -> None:
    """The worker of 3.13 leaves it to the function; what is recorded has to be so on every version."""
    run.stage.collector.wait_for(trace_of(function), recorded)


def test_no_log_and_no_row_has_a_word_of_any_email(run: Run) -> None:
    texts = [json.dumps(row.data) for row in run.stage.collector.rows] + [
        log.message for log in run.worker.logs
    ]
    private = {"kestrel-brewing.example", "Third replacement display", "gets very hot"}
    assert [text for text in texts if any(word in text for word in private)] == []
