"""The benchmarks' own arithmetic: a wrong figure would mislead whoever decides by it."""

import json
import re
import sys
import xml.etree.ElementTree as tree
from pathlib import Path

import pytest
from flask import Flask
from playwright.sync_api import Browser

from benchmarks import latency, lookups
from benchmarks.agent_process import Job, Run, run_agent
from benchmarks.cold_start import APPS, read_import_times
from benchmarks.counts import get_shared_prefix
from benchmarks.desk import load_page
from benchmarks.figures import (
    Figure,
    Part,
    build_report,
    find_improvements,
    find_regressions,
    read_baseline,
    write_baseline,
)
from benchmarks.growth import compare_memory
from benchmarks.pictures import Bar, draw_bars
from benchmarks.reply_cost import list_cost_figures, write_pages
from benchmarks.simulators import NO_LATENCY, ModelPlaces, Simulators, count_wire_tokens, name_route
from benchmarks.throughput import Setup, build_row, get_bound_seconds
from benchmarks.tokens import count_tokens
from benchmarks.tutorial_model import answer_any
from local.host.http_server import LoopbackServer
from local.testing.browser import CHROMIUM
from local.testing.desk_office import DeskPage
from shared.domain import TokenPrice, Usage


def test_a_ceiling_is_short_above_its_goal_and_a_floor_below() -> None:
    assert Figure("calls", 2, "", 2).verdict == "ok"
    assert Figure("calls", 3, "", 2).verdict == "short"
    assert Figure("ratio", 0.96, "", 0.95, at_least=True).verdict == "ok"
    assert Figure("ratio", 0.94, "", 0.95, at_least=True).verdict == "short"
    assert Figure("seconds", 3).verdict == ""


def test_only_a_count_that_grew_or_is_unknown_fails() -> None:
    figures = [
        Figure("grew", 3, "calls", counted=True),
        Figure("same", 3, counted=True),
        Figure("fell", 2, counted=True),
        Figure("new", 1, counted=True),
        Figure("slower but not counted", 99),
    ]
    baseline = {"grew": 2, "same": 3, "fell": 3, "slower but not counted": 1, "not measured this time": 5}
    assert find_regressions(figures, baseline) == [
        "grew is 3 calls and was 2",
        "new is 1 and is not in the baseline",
    ]
    assert find_improvements(figures, baseline) == ["fell fell from 3 to 2"]


def test_a_new_baseline_keeps_what_was_not_counted_this_time(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    write_baseline([Figure("a", 1, counted=True), Figure("b", 2, counted=True)], path)
    write_baseline([Figure("b", 3, counted=True), Figure("seconds", 9)], path)
    assert read_baseline(path) == {"a": 1, "b": 3}
    assert read_baseline(tmp_path / "absent.json") == {}


def test_the_bound_is_the_latency_of_model_and_calls_shared_by_those_in_flight() -> None:
    assert get_bound_seconds(10, 0.5, 1) == pytest.approx(11.5)
    assert get_bound_seconds(10, 0, 2) == pytest.approx(2)
    assert get_bound_seconds(10, 1, 1, multimail_calls=7) == pytest.approx(10 * (1.9 + 0.21))


def test_a_run_that_did_not_answer_every_email_gives_no_ratio() -> None:
    setup = Setup("SQLite", 2, 1.0, 5)
    run = Run(10.0, 1.0, [0.5], 10, {"reply_submitted": 10}, {}, 1)
    assert build_row(setup, run)["ratio"] == pytest.approx(0.95)
    assert build_row(setup, run)["cpu_ms"] == pytest.approx(50)
    for outcomes in ({"reply_submitted": 9, "failed": 1}, {"reply_submitted": 9}):
        with pytest.raises(RuntimeError, match="came to"):
            build_row(setup, Run(10.0, 1.0, [0.5], 9, outcomes, {}, 1))


@pytest.mark.skipif(sys.platform != "linux", reason="Python lets a process choose its cores on Linux alone")
def test_the_measured_agent_stays_on_one_core() -> None:
    with Simulators(NO_LATENCY) as simulators:
        run = run_agent(Job(simulators.settings, emails=2, concurrency=2))
    assert run.cores == 1
    assert run.outcomes == {"reply_submitted": 2}


def test_a_model_with_two_places_lets_the_third_call_wait_for_the_first() -> None:
    model = ModelPlaces(2)
    assert [model.take(10, latency) for latency in (1.5, 0.4, 0.4, 1.5)] == pytest.approx(
        [1.5, 0.4, 0.8, 2.3]
    )
    assert model.take(20, 0.4) == pytest.approx(0.4)
    assert [ModelPlaces(0).take(10, 1.5) for _ in range(3)] == [1.5] * 3


def test_with_emails_to_spare_more_are_in_work_than_the_model_has_places() -> None:
    assert [Setup("", places, 1, 1).in_work for places in (1, 8, 128)] == [2, 11, 161]
    assert Setup("", 8, 1, 1, is_tight=True).in_work == 8


def test_memory_compares_the_last_quarter_with_the_second() -> None:
    figure = compare_memory([50, 60, 100, 100, 300, 300, 110, 110], 80)
    assert figure.value == pytest.approx(1.1)
    assert figure.verdict == "short"


def test_import_times_are_summed_by_package() -> None:
    report = (
        "import time: self [us] | cumulative | imported package\n"
        "import time:      1500 |       1500 |   azure.functions._abc\n"
        "import time:       500 |       2000 | azure.functions\n"
        "import time:       250 |        250 |   requests.models\n"
    )
    assert read_import_times(report) == [("azure.functions", 2.0), ("requests", 0.25)]


def test_tokens_are_counted_over_everything_that_is_sent() -> None:
    body = {
        "messages": [{"role": "system", "content": "You sort."}, {"role": "user", "content": "Hello there"}],
        "response_format": {"type": "json_schema"},
    }
    sent = count_tokens("You sort.") + count_tokens("Hello there") + count_tokens('{"type": "json_schema"}')
    assert count_wire_tokens(body, {"content": "Hi"}) == (sent, 1)
    assert count_tokens("hello world") == 2


def test_a_cached_prefix_costs_its_own_price() -> None:
    usage = {"triage": Usage(1, 1_000, 100), "draft": Usage(1, 10_000, 200, 8_000)}
    prices = {"triage": TokenPrice(1, 10, 0.1), "draft": TokenPrice(2, 20, 0.2)}
    tokens, cached, dear, cheap = list_cost_figures("reply", usage, 7_500, prices)
    assert (tokens.value, cached.value) == (11_300, 8_000)
    assert "11,000 in, 7,500 of them knowledge; 300 out" in tokens.note
    assert dear.value == pytest.approx(100 * (1_000 + 1_000 + 20_000 + 4_000) / 1e6)
    assert cheap.value == pytest.approx(100 * (1_000 + 1_000 + 4_000 + 1_600 + 4_000) / 1e6)


def test_pages_have_the_tokens_that_were_asked_for(tmp_path: Path) -> None:
    assert sum(map(count_tokens, write_pages(tmp_path / "small", 1_500))) == pytest.approx(1_500, rel=0.15)
    pages = write_pages(tmp_path / "large", 20_000)
    assert sum(map(count_tokens, pages)) == pytest.approx(20_000, rel=0.02)
    assert len(set(pages)) == len(pages)


def test_every_email_that_a_webhook_announces_is_timed() -> None:
    with Simulators(NO_LATENCY) as simulators:
        settings = simulators.settings | {"MULTIMAIL_WEBHOOK_SECRET": latency.SECRET}
        [seconds] = latency.run_webhooks(latency.Job(settings, workers=2, each=1))
    assert len(seconds) == 2
    assert all(second > 0 for second in seconds)


def test_the_same_emails_are_answered_with_look_ups_and_without() -> None:
    seconds, calls = lookups.run_emails(NO_LATENCY, workers=1, each=lookups.OF_A_CUSTOMER, tokens=0)
    assert {len(found) for found in seconds.values()} == {lookups.OF_A_CUSTOMER}
    assert calls == {lookups.WITHOUT: 0, lookups.WITH: 8, lookups.CACHED: 2}
    saved = lookups.count_saved(calls, lookups.OF_A_CUSTOMER)
    assert (saved.value, saved.note) == (6, "2 calls for 4 emails, 8 without a cache: 75% saved")


def test_what_look_ups_add_is_the_difference_of_the_p95() -> None:
    seconds = {
        lookups.WITHOUT: [2.0, 2.0, 2.0],
        lookups.WITH: [2.2, 2.2, 2.2],
        lookups.CACHED: [2.0, 2.0, 2.0],
    }
    added, cached = lookups.list_latency_figures("no knowledge", seconds)
    assert added.value == pytest.approx(0.2)
    assert added.verdict == "ok"
    assert (cached.value, cached.verdict) == (0, "")


def test_routes_lose_their_ids() -> None:
    assert name_route("GET", "/v1/mailboxes") == "GET mailboxes"
    assert name_route("PUT", "/v1/mailboxes/mb_1/emails/em_2/tags") == "PUT emails/{}/tags"


def test_prefixes_end_at_the_first_difference() -> None:
    assert get_shared_prefix("abcd", "abxd") == "ab"
    assert get_shared_prefix("ab", "abc") == "ab"


def test_the_tutorials_model_reads_and_answers_every_email_once_and_stops() -> None:
    inbox = [{"id": "em_1", "subject": "Case R 1"}, {"id": "em_2", "subject": "Case E 2"}]
    messages: list[dict[str, object]] = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "Check it."},
    ]
    taken = []
    for _ in range(10):
        step, message = answer_any({"messages": messages})
        messages.append(message)
        if not message.get("tool_calls"):
            break
        [call] = message["tool_calls"]
        name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
        taken.append((step, name, arguments.get("email_id")))
        found = {
            "check_inbox": inbox,
            "read_email": next((m for m in inbox if m["id"] == arguments.get("email_id")), 0),
        }
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": json.dumps(found.get(name))})
    assert taken == [
        ("step", "check_inbox", None),
        ("step", "read_email", "em_1"),
        ("draft", "reply", "em_1"),
        ("step", "read_email", "em_2"),
    ]


def test_the_report_says_what_it_was_measured_on() -> None:
    part = Part("Calls", [Figure("a", 1, "", 2)])
    report = build_report([part], machine={"cores": 2}, quick=True)
    assert report["machine"] == {"cores": 2}
    assert report["quick"] is True
    assert report["parts"][0]["figures"][0]["verdict"] == "ok"
    json.dumps(report)


def test_a_picture_is_well_formed_and_escapes_its_labels() -> None:
    picture = draw_bars("<Title>", "a & b", [Bar("one <b>", 1, "1"), Bar("two", 2, "2")], goal=4)
    bars = [
        float(rect.get("width", 0))
        for rect in tree.fromstring(picture).iter("{http://www.w3.org/2000/svg}rect")
    ]
    assert bars[1] == pytest.approx(2 * bars[0], rel=0.01)


def test_the_bare_app_has_the_agents_triggers() -> None:
    place = APPS["bare"]
    names = [
        sorted(
            re.findall(
                r"^def (\w+)\((?:timer|message|request)", path.read_text(encoding="utf-8"), re.MULTILINE
            )
        )
        for path in (place / "function_app.py", APPS["agent"] / "function_app.py")
    ]
    assert names[0] == names[1]


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the PATH")
def test_a_page_that_moves_while_it_loads_and_all_its_files_are_counted(browser: Browser) -> None:
    parts = {
        "/": "<!doctype html><title>x</title><link rel=icon href=/icon><script src=/move defer></script><p>Text",
        "/move": """requestAnimationFrame(() => requestAnimationFrame(() => {
            document.body.prepend(Object.assign(document.createElement("div"), {style: "height: 300px"}));
            fetch("/updates");
        }))""",
        "/icon": "i" * 100,
        "/updates": "not counted",
    }  # fmt: skip
    app = Flask("moving", static_folder=None)
    app.add_url_rule("/", "page", lambda: parts["/"])
    app.add_url_rule("/<name>", "file", lambda name: parts[f"/{name}"])
    with LoopbackServer(app) as server:
        load = load_page(browser, DeskPage("moving", server.url), 800, 600)
    assert load.bytes_of_page == len(parts["/"])
    assert load.bytes_of_files == len(parts["/move"]) + len(parts["/icon"])
    assert load.shift > 0
