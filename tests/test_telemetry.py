"""Telemetry: one trace for an email's whole way, counted facts, an audit trail, and no word of any email in them."""

import io
import json
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import azure.functions as func
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind
from rich.console import Console

import function_app
from local.audit.command import build_trail
from local.host.app_functions import InvocationContext, TraceContext, read_app_functions
from local.testing.world import World
from shared import composition
from shared.domain import TokenPrice, Usage, WorkItem
from shared.errors import TransientError
from shared.ledger.audit_chains import read_facts
from shared.model.chat import ChatCompletion, ChatRequest
from shared.model.chat_telemetry import traced
from shared.telemetry import EMAIL_DECIDED, EVENT_LOGGER, email_traceparent, in_trace, record, span
from tests.exported_telemetry import EXPORTER, METRICS, set_providers
from tests.test_webhooks import build_event, sign

MARK = "zebra-quartz"
MODEL = "https://model.example"
INVOCATION = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"


@pytest.fixture(scope="module", autouse=True)
def _exported() -> None:
    set_providers()


@pytest.fixture(autouse=True)
def _cleared() -> None:
    EXPORTER.clear()
    METRICS.get_metrics_data()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        yield world


def work(world: World) -> None:
    """What the triggers do, each in an invocation of its own."""
    agent = world.agent
    agent.poll(INVOCATION)
    while not world.queue.bodies.empty():
        agent.process(world.queue.bodies.get(), INVOCATION)


def spans() -> tuple[ReadableSpan, ...]:
    return EXPORTER.get_finished_spans()


def trace_of(found: ReadableSpan) -> str:
    assert found.context is not None
    return f"{found.context.trace_id:032x}"


def attributes_of(found: ReadableSpan) -> dict[str, Any]:
    return dict(found.attributes or {})


def read_metrics() -> dict[str, list[tuple[dict[str, Any], float]]]:
    data = METRICS.get_metrics_data()
    found: dict[str, list[tuple[dict[str, Any], float]]] = {}
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                found[metric.name] = [
                    (dict(point.attributes or {}), float(getattr(point, "value", getattr(point, "sum", 0))))
                    for point in metric.data.data_points
                ]
    return found


# Traces


def test_one_trace_holds_an_emails_way_from_the_poll_to_the_reviewers_decision(world: World) -> None:
    email_id = world.deliver()
    work(world)
    reply_id = world.entry(email_id).reply_id
    assert reply_id is not None
    world.simulator.decide(reply_id, "approve")
    world.clock.advance(minutes=6)
    world.agent.track(INVOCATION)
    wanted = email_traceparent(world.box, email_id).split("-")[1]
    names = [found.name for found in spans() if trace_of(found) == wanted]
    assert {"add email", "process email", "reply seen"} <= set(names)
    assert "POST /v1/mailboxes/{mailbox_id}/reply/{email_id}" in names
    assert [found.name for found in spans() if found.name == "process email"] == ["process email"]


def test_an_invocation_goes_on_with_the_platforms_trace_and_the_emails_trace_links_to_it(
    world: World,
) -> None:
    world.deliver()
    work(world)
    by_name = {found.name: found for found in spans()}
    for name in ("poll", "process"):
        assert trace_of(by_name[name]) == INVOCATION.split("-")[1]
    process = by_name["process"].context
    assert process is not None
    assert [link.context.span_id for link in by_name["process email"].links] == [process.span_id]


def test_mailboxes_polled_side_by_side_stay_in_the_polls_trace(world: World) -> None:
    world.simulator.add_mailbox("sales@northwind.example", "gated_send")
    work(world)
    listings = [found for found in spans() if found.name == "GET /v1/mailboxes/{mailbox_id}/emails"]
    assert len(listings) == 4
    assert {trace_of(found) for found in listings} == {INVOCATION.split("-")[1]}


def test_an_emails_trace_is_the_same_for_every_process_and_for_no_other_email() -> None:
    assert email_traceparent("mb_1", "em_1") == email_traceparent("mb_1", "em_1")
    assert email_traceparent("mb_1", "em_1") != email_traceparent("mb_1", "em_2")
    assert email_traceparent("a", "bc") != email_traceparent("ab", "c")


def test_a_failed_call_shows_the_type_of_its_error_and_nothing_else() -> None:
    with pytest.raises(TransientError), span("call"):
        raise TransientError(MARK)
    [found] = spans()
    assert attributes_of(found) == {"error.type": "TransientError"}
    assert not found.events
    assert MARK not in found.to_json()


@pytest.mark.parametrize(
    ("server", "described"),
    [
        ("https://a.example/x?y=z", {"server.address": "a.example", "server.port": 443, "url.scheme": "https", "peer.service": "a.example"}),
        ("http://127.0.0.1:81", {"server.address": "127.0.0.1", "server.port": 81, "url.scheme": "http", "peer.service": "127.0.0.1:81"}),
        ("bus.example", {"server.address": "bus.example", "peer.service": "bus.example"}),
    ],
)  # fmt: skip
def test_a_call_outside_names_the_host_and_nothing_else_of_its_address(
    server: str, described: dict[str, Any]
) -> None:
    with span("call", server=server):
        pass
    [found] = spans()
    assert (found.kind, attributes_of(found)) == (SpanKind.CLIENT, described)


def test_every_call_outside_names_its_server(world: World) -> None:
    world.deliver()
    work(world)
    calls = [attributes_of(found) for found in spans() if found.kind is SpanKind.CLIENT]
    assert {call["server.address"] for call in calls} == {"127.0.0.1"}
    urls = {call["url.full"].partition("/v1/")[2] for call in calls if "url.full" in call}
    assert {"mailboxes", "mailboxes/{mailbox_id}/emails", "mailboxes/{mailbox_id}/reply/{email_id}"} <= urls


def test_an_http_function_goes_on_with_the_platforms_trace(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(composition, "get_agent", lambda: world.agent)
    names = {"POLL_SCHEDULE": "0 * * * * *", "TRACK_SCHEDULE": "0 * * * * *", "WORK_QUEUE_NAME": "q"}
    function = read_app_functions(function_app.app, names, {"q"}).http["report"]
    request = func.HttpRequest("GET", "/api/report", headers={}, params={}, body=b"")
    function.invoke(request, InvocationContext("report", "1", trace_context=TraceContext(INVOCATION)))
    assert {trace_of(found) for found in spans()} == {INVOCATION.split("-")[1]}


def test_what_is_recorded_in_a_trace_belongs_to_it_and_nothing_after_it() -> None:
    with in_trace(INVOCATION), span("inside"):
        pass
    with in_trace(""), span("outside"):
        pass
    traces = {found.name: trace_of(found) for found in spans()}
    assert traces["inside"] == INVOCATION.split("-")[1] != traces["outside"]


def test_a_completion_is_described_as_the_conventions_ask_and_its_cost_is_counted(world: World) -> None:
    complete = traced(world.model.complete, MODEL, {"small": TokenPrice(input=2.0, output=10.0, cached=0.2)})
    object.__setattr__(world.pipeline, "complete", complete)
    world.deliver()
    work(world)
    triage = next(found for found in spans() if found.name == "chat small")
    assert attributes_of(triage) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "azure.ai.openai",
        "gen_ai.system": "azure.ai.openai",
        "gen_ai.request.model": "small",
        "gen_ai.request.max_tokens": 400,
        "gen_ai.response.model": "scripted",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "gen_ai.usage.output_tokens": 20,
        "agent.step": "triage",
        "server.address": "model.example",
        "server.port": 443,
        "url.scheme": "https",
        "peer.service": "model.example",
    }
    counted = read_metrics()
    labels = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "small"}
    [(cost_labels, cost)] = counted["agent.model.cost"]
    assert cost_labels == labels
    assert cost == pytest.approx((100 * 2 + 20 * 10) / 1e6)
    tokens = {point["gen_ai.token.type"]: value for point, value in counted["gen_ai.client.token.usage"]}
    assert tokens == {"input": 100, "output": 20}  # of the last deployment; both are there
    assert len(counted["gen_ai.client.token.usage"]) == 4


def test_outcomes_decisions_and_what_waits_are_counted(world: World) -> None:
    world.deliver()
    work(world)
    world.deliver("And where is it now?", sender="Bo <bo@customer.example>")
    world.poller.poll()
    world.clock.advance(minutes=6)
    world.agent.track()
    counted = read_metrics()
    decided = {point["agent.outcome"]: value for point, value in counted["agent.emails.decided"]}
    assert decided["reply_submitted"] >= 1
    assert counted["agent.replies.pending"][0][1] == 1
    assert counted["agent.replies.pending.oldest"][0][1] == 360
    assert counted["agent.backlog"][0][1] == 1
    assert counted["agent.backlog.oldest"][0][1] == 360


# The audit trail


def test_one_trace_and_one_audit_trail_lead_from_the_webhook_to_the_approved_reply(
    world: World,
) -> None:
    agent = world.agent
    email_id = world.deliver()

    def tell(about: str, name: str) -> None:
        body = build_event(world, about, name)
        assert agent.webhooks.receive(body, sign(body)) == 204

    with agent.trail:
        tell(email_id, "message.received")
        agent.process(world.queue.bodies.get(), INVOCATION)
        reply_id = world.entry(email_id).reply_id
        assert reply_id is not None
        world.simulator.find_email(reply_id)  # scanned, and waiting
        world.clock.advance(minutes=2)
        world.simulator.decide(reply_id, "approve")
        tell(reply_id, "oversight.approved")
    assert world.entry(email_id).reply_status == "delivered"
    wanted = email_traceparent(world.box, email_id).split("-")[1]
    way = [
        found.name
        for found in spans()
        if trace_of(found) == wanted and found.parent and found.parent.is_remote
    ]
    assert way == ["add email", "process email", "reply seen"]
    trail = read_facts(world.ledger.audit.read())
    assert [(r["actor"], r.get("outcome") or r["reply_status"], r["reply_id"]) for r in trail] == [
        ("agent", "reply_submitted", reply_id),
        ("reviewer", "delivered", reply_id),
    ]
    assert {r["email_id"] for r in trail} == {email_id}


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, EVENT_LOGGER)
    return caplog


def decisions(events: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [
        {
            key.removeprefix("agent."): value
            for key, value in found.__dict__.items()
            if key.startswith("agent.")
        }
        for found in events.records
        if found.__dict__.get("agent.event") == EMAIL_DECIDED
    ]


def test_cached_input_is_on_the_span_and_costs_its_own_price(world: World) -> None:
    usage = Usage(1, 2_000, 20, cached_input_tokens=1_536)
    prices = {"small": TokenPrice(input=2.0, output=10.0, cached=0.2), "large": TokenPrice(2.0, 10.0)}

    def complete(request: ChatRequest) -> ChatCompletion:
        return replace(world.model.complete(request), usage=usage)

    def read_costs() -> Counter[str]:
        points = read_metrics().get("agent.model.cost", ())
        return Counter({labels["gen_ai.request.model"]: cost for labels, cost in points})

    before = read_costs()
    object.__setattr__(world.pipeline, "complete", traced(complete, MODEL, prices))
    email_id = world.deliver()
    work(world)
    asked = [attributes_of(found) for found in spans() if found.name in ("chat small", "chat large")]
    assert [attributes["gen_ai.usage.cache_read.input_tokens"] for attributes in asked] == [1_536] * 2
    costs = read_costs()
    assert costs["small"] - before["small"] == pytest.approx((464 * 2 + 1_536 * 0.2 + 20 * 10) / 1e6)
    assert costs["large"] - before["large"] == pytest.approx((2_000 * 2 + 20 * 10) / 1e6)
    usage = world.entry(email_id).usage
    assert replace(usage, dollars=0.0) == Usage(2, 4_000, 40, 3_072)
    assert usage.dollars == pytest.approx(sum((costs - before).values()))


def test_a_decision_says_who_what_why_with_which_model_prompts_tokens_and_key(
    world: World, events: pytest.LogCaptureFixture
) -> None:
    email_id = world.deliver()
    work(world)
    [decided] = decisions(events)
    assert (
        decided
        | {
            "actor": "agent",
            "mailbox_id": world.box,
            "email_id": email_id,
            "outcome": "reply_submitted",
            "action": "reply",
            "category": "question",
            "confidence": 0.9,
            "triage_model": "scripted",
            "draft_model": "scripted",
            "calls": 2,
            "input_tokens": 200,
            "cached_input_tokens": 0,
            "output_tokens": 40,
            "revision": 1,
        }
        == decided
    )
    assert len(decided["key_id"]) == 8
    assert decided["key_id"] not in world.key
    assert len(decided["triage_prompt"]) == len(decided["draft_prompt"]) == 12


def test_the_reason_of_a_rule_is_recorded_and_the_models_words_are_not(
    world: World, events: pytest.LogCaptureFixture
) -> None:
    world.model.triage["reason"] = f"It speaks of {MARK}."
    world.model.triage["action"] = "escalate"
    world.deliver()
    work(world)
    world.model.triage["action"] = "reply"
    world.model.draft["open_points"] = [MARK]
    world.deliver(sender="Bo <bo@customer.example>")
    work(world)
    world.model.draft["reply_markdown"] = "See https://evil.example"
    world.deliver(sender="Cy <cy@customer.example>")
    work(world)
    escalated, replied, held_back = decisions(events)
    assert [escalated["outcome"], replied["outcome"]] == ["escalated", "reply_submitted"]
    assert "reason" not in escalated
    assert "reason" not in replied
    assert (escalated["cause"], replied["cause"]) == ("triaged", "open_points")
    assert (held_back["cause"], held_back["detail"]) == ("draft_check", "foreign_link")
    assert MARK not in "".join(found.getMessage() + str(found.__dict__) for found in events.records)


def test_the_audit_trail_is_shown_as_lines_or_as_a_table(world: World) -> None:
    email_id = world.deliver()
    with world.agent.trail:
        work(world)
        record("poll.succeeded", {"mailboxes": 1, "added": 0})  # nobody's decision
    [kept] = read_facts(world.ledger.audit.read())
    assert kept["email_id"] == email_id
    assert kept["outcome"] == "reply_submitted"
    for width in (80, 150):  # a line for each fact, and a table
        shown = io.StringIO()
        Console(file=shown, width=width).print(build_trail([kept], width, {}))
        assert shown.getvalue().count(email_id) == 1


def test_nothing_of_an_email_is_in_a_span(world: World) -> None:
    world.deliver(f"body {MARK}", subject=f"subject {MARK}", sender=f'"{MARK}" <{MARK}@customer.example>')
    work(world)
    assert spans()
    assert MARK not in "".join(found.to_json() for found in spans())


def test_the_work_item_of_an_email_carries_ids_only() -> None:
    assert json.loads(WorkItem("mb_1", "em_1").to_json()) == {"mailbox_id": "mb_1", "email_id": "em_1"}
