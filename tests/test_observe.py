"""Observing: the agent writes down what it would do, and MultiMail is only read."""

import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from local.commands.demo_customers import CONFIG
from local.commands.demo_mail import DEMO_EMAILS, UNANSWERED_EMAILS, add_emails, seed_demo
from local.commands.demo_model import respond
from local.commands.forget import Forgetting
from local.host.http_server import LoopbackServer
from local.host.run import OK, UNFINISHED
from local.model.chat_simulator import ChatSimulator
from local.multimail.faults import cut, in_order
from local.multimail.simulator import MultiMailSimulator
from local.testing.world import Clock, World
from shared.composition import Agent, build_agent
from shared.domain import Action, Cause, Outcome, parse_work_item
from shared.ledger.sqlite_store import open_sqlite_ledger
from shared.operator.asking import Question
from shared.operator.http_functions import show_report
from shared.operator.observed import SHOWN_CASES, Would, render_observed
from shared.profiles.profiles import MailboxProfile, Profiles
from shared.services.http_answer import build_policy
from shared.services.work_queue import InProcessWorkQueue
from shared.settings import OBSERVED, Settings, find_ledger_path

ROOT = Path(__file__).parent.parent
CHROMIUM = shutil.which("chromium")
RECEIVED = [email for email in DEMO_EMAILS if not email.answer_to]
ONLY_OBSERVED = Profiles(default=MailboxProfile(observe=True))


def is_reply(method: str, path: str) -> bool:
    return method == "POST" and "/reply/" in path


class Observation:
    """The demo's mail, observed by an agent as the settings build it."""

    def __init__(
        self, folder: Path, mail_url: str, chat_url: str, simulator: MultiMailSimulator, clock: Clock
    ) -> None:
        self.simulator, self.clock = simulator, clock
        self.environment = {
            "MULTIMAIL_API_URL": mail_url,
            "MULTIMAIL_API_KEY": simulator.add_key(("read", "send")),
            "MODEL_ENDPOINT": chat_url,
            "MODEL_API_KEY": "simulated",
            "TRIAGE_DEPLOYMENT": "small",
            "DRAFT_DEPLOYMENT": "large",
            "TOKEN_PRICES": "small=0.4/1.6,large=2/8",
            "LEDGER_PATH": str(folder / "ledger.sqlite"),
            "CONFIG_PATH": str(CONFIG),
            "OBSERVE_ONLY": "true",
        }
        self.settings = Settings.from_env(self.environment)
        self.queue = InProcessWorkQueue()
        self.agent: Agent = build_agent(self.settings, work_queue=self.queue, clock=self.clock)

    def run(self) -> None:
        """Everything that the triggers do, until nothing is due."""
        for _ in range(20):
            self.agent.poll()
            while not self.queue.bodies.empty():
                self.agent.pipeline.process(parse_work_item(self.queue.bodies.get()))
            self.agent.track()
            self.agent.notify()
            due_at = self.agent.ledger.next_due_at()
            if due_at is None:
                return
            self.clock.now = max(self.clock.now, due_at)
        raise AssertionError("work is still due")


@pytest.fixture
def observation(tmp_path: Path) -> Iterator[Observation]:
    clock = Clock()
    simulator = MultiMailSimulator(clock)
    seed_demo(simulator, clock())
    chat = ChatSimulator(api_key="simulated", shields=True, respond=respond)
    with LoopbackServer(simulator.app) as mail, LoopbackServer(chat.app) as model:
        yield Observation(tmp_path, mail.url, model.url, simulator, clock)


def test_only_reading_requests_reach_multimail(observation: Observation) -> None:
    observation.run()
    outcomes = Counter(str(row.outcome) for row in observation.agent.ledger.entries())
    assert outcomes.total() == len(RECEIVED)
    assert outcomes[Outcome.WOULD_REPLY] >= 10
    assert outcomes[Outcome.ESCALATED] >= 2
    assert not outcomes[Outcome.REPLY_SUBMITTED]
    assert {request.method for request in observation.simulator.requests} == {"GET"}


def test_an_operators_order_is_not_carried_out_either(observation: Observation) -> None:
    answer = observation.agent.ask(Question("Which drafts are pending?"))
    assert answer.submitted == ()
    assert {request.method for request in observation.simulator.requests} == {"GET"}
    assert observation.agent.pipeline.submitter.writer is None


def test_the_ledger_and_the_audit_trail_of_what_is_observed_have_a_folder_of_their_own(
    tmp_path: Path,
) -> None:
    settings = {"LEDGER_PATH": str(tmp_path / "ledger.sqlite")}
    assert find_ledger_path(settings) == tmp_path / "ledger.sqlite"
    observed = find_ledger_path(settings | {"OBSERVE_ONLY": " True "})
    assert observed == tmp_path / OBSERVED / "ledger.sqlite"


def test_the_audit_trail_of_what_is_observed_is_checked_like_any_other(
    observation: Observation, tmp_path: Path
) -> None:
    with observation.agent.trail:
        observation.run()
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}

    def verify() -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "local", "audit", "verify"], cwd=tmp_path, capture_output=True, text=True,
            env=environment | observation.environment, stdin=subprocess.DEVNULL, timeout=120, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout

    status, output = verify()
    assert status == 0, output
    assert f"Records checked: {len(RECEIVED)}. None is changed or missing; the ledger agrees." in output
    drafted = next(row for row in observation.agent.ledger.entries() if row.outcome is Outcome.WOULD_REPLY)
    change = f"UPDATE rows SET fields = replace(fields, '{drafted.sender}', 'eve@customer.example')"
    with closing(sqlite3.connect(tmp_path / OBSERVED / "ledger.sqlite")) as connection, connection:
        connection.execute(
            f"{change} WHERE fields LIKE '%{drafted.email_id}%' AND partition NOT LIKE 'audit%'"
        )
    status, output = verify()
    assert status == 1
    assert (
        f"Email {drafted.email_id}: the ledger has another sender or reply than the trail recorded" in output
    )
    assert "Differences: 1." in output


def test_the_page_shows_each_draft_with_its_evidence_and_the_cost(observation: Observation) -> None:
    observation.run()
    report = observation.agent.show_observed(7)
    support = next(found for found in report.mailboxes if found.mailbox.id == "support")
    assert sum(support.counts.values()) == len(support.cases)
    assert support.counts[Would.ANSWER] >= 10
    assert support.usage.dollars > 0
    page = render_observed(report)
    for case in support.list_cases(Would.ANSWER):
        assert case.draft is not None
        assert case.subject
    assert "verified" in page
    assert "<script" not in page
    assert not re.search(r"<[a-z]+[^>]*\s(?:src|href)=", page)
    assert "nothing was submitted, tagged or sent" in page
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    assert build_policy(style[1]) in page.replace("&#39;", "'")


def test_a_part_of_the_cost_is_not_shown_as_the_cost(observation: Observation) -> None:
    observation.run()
    prices = {"small": observation.settings.token_prices["small"]}
    settings = replace(observation.settings, token_prices=prices)
    agent = build_agent(settings, ledger=observation.agent.ledger, work_queue=observation.queue)
    report = replace(observation.agent, pipeline=agent.pipeline).show_observed(365)
    assert {found.usage.dollars for found in report.mailboxes} == {0.0}
    page = render_observed(report)
    assert "Set TOKEN_PRICES for both deployments" in page
    assert "$" not in re.sub(r"<p class=.letter.*?</p>|<q>.*?</q>", "", page, flags=re.DOTALL)


def test_the_page_is_read_with_the_policy_that_its_header_has(observation: Observation) -> None:
    observation.run()
    answer = show_report({"of": "observed", "days": "7"}, {}, lambda: observation.agent)
    assert (answer.status_code, answer.mimetype) == (200, "text/html")
    style = re.search(r"<style>(.*?)</style>", answer.body, re.DOTALL)
    assert style is not None
    policy = answer.headers["Content-Security-Policy"]
    assert policy == f"{build_policy(style[1])}; frame-ancestors 'none'"
    trust = show_report({"format": "html"}, {}, lambda: observation.agent)
    assert {**trust.headers, "Content-Security-Policy": ""} == {
        **answer.headers,
        "Content-Security-Policy": "",
    }
    assert "form-action 'none'" in trust.headers["Content-Security-Policy"]
    refused = show_report({"of": "observed", "days": "0"}, {}, lambda: observation.agent)
    assert refused.status_code == 400


def test_one_mailbox_is_observed_while_others_are_answered(tmp_path: Path) -> None:
    sales = "sales@northwind.example"
    profiles = Profiles(own={sales: MailboxProfile(observe=True)}, places={sales: "here"})
    with World(tmp_path, profiles=profiles) as world:
        other = world.simulator.add_mailbox(sales, "gated_send")
        answered = world.deliver()
        observed = world.deliver("A quote for ten, please.", box=other, sender="Bo <bo@customer.example>")
        world.run_until_idle()
        assert world.outcome(answered) == Outcome.REPLY_SUBMITTED
        assert world.entry(observed).outcome is Outcome.WOULD_REPLY
        assert world.tags(observed) == {}
        written = {request.path for request in world.simulator.requests if request.method != "GET"}
        assert written
        assert not any(other in path or observed in path for path in written)


def test_what_is_observed_is_not_told_tagged_tracked_or_counted_in_the_trust_report(tmp_path: Path) -> None:
    with World(tmp_path, profiles=ONLY_OBSERVED) as world:
        answered = world.deliver()
        world.model.steps.clear()
        world.run_until_idle()
        world.model.triage["action"] = Action.ESCALATE
        escalated = world.deliver("I want my money back.", subject="Refund")
        world.run_until_idle()
        world.agent.track()
        assert world.entry(answered).outcome is Outcome.WOULD_REPLY
        assert world.entry(answered).cause is Cause.OBSERVED
        assert world.entry(escalated).outcome is Outcome.ESCALATED
        assert world.tags(answered) == world.tags(escalated) == {}
        assert {request.method for request in world.simulator.requests} == {"GET"}
        assert list(world.ledger.matters.list()) == []
        assert world.ledger.tracked_replies() == []
        (judged,) = world.agent.report(30).mailboxes
        assert judged.total.submitted == 0


def test_a_mailbox_is_answered_again_once_it_is_no_longer_observed(tmp_path: Path) -> None:
    with World(tmp_path, profiles=ONLY_OBSERVED) as world:
        world.deliver()
        world.run_until_idle()
    with World(tmp_path, ledger=world.ledger) as again:
        again.box = again.simulator.add_mailbox("other@northwind.example", "gated_send")
        email_id = again.deliver("Do you ship to Norway?", subject="Norway")
        again.run_until_idle()
        assert again.outcome(email_id) == Outcome.REPLY_SUBMITTED


def test_a_read_only_mailbox_gets_its_drafts_written_down(tmp_path: Path) -> None:
    with World(tmp_path, profiles=ONLY_OBSERVED) as world:
        world.simulator.set_mode(world.box, "read_only")
        email_id = world.deliver()
        world.run_until_idle()
        assert world.entry(email_id).outcome is Outcome.WOULD_REPLY
        assert world.entry(email_id).draft is not None


def test_a_long_wait_of_what_is_observed_shows_on_no_email(tmp_path: Path) -> None:
    with World(tmp_path, profiles=ONLY_OBSERVED, daily_token_budget=1) as world:
        world.deliver()
        world.poll_and_work()
        waiting = world.deliver("And how much is it?", sender="Bo <bo@customer.example>")
        world.poll_and_work()
        assert world.entry(waiting).waiting_for is Cause.TOKEN_BUDGET
        assert world.tags(waiting) == {}
        assert {request.method for request in world.simulator.requests} == {"GET"}


def observe_from_now_on(world: World) -> None:
    world.pipeline = replace(world.pipeline, profiles=ONLY_OBSERVED)


def test_a_reply_in_doubt_is_followed_to_its_end_though_its_mailbox_is_observed_now(tmp_path: Path) -> None:
    with World(tmp_path) as world:
        world.simulator.fault = in_order(cut(after_effect=True), matching=is_reply)
        email_id = world.deliver()
        world.poll_and_work()
        assert world.entry(email_id).intent_in_doubt is not None
        observe_from_now_on(world)
        world.run_until_idle()
        assert world.outcome(email_id) == Outcome.REPLY_SUBMITTED


def test_a_reviewers_edit_is_submitted_though_its_mailbox_is_observed_now(tmp_path: Path) -> None:
    with World(tmp_path) as world:
        email_id = world.deliver()
        world.run_until_idle()
        world.simulator.settle()
        observe_from_now_on(world)
        row = world.entry(email_id)
        assert row.reply_id is not None
        world.agent.reviews.edit(
            row.work_item, row.reply_id, "reviewer's key", "Dear Ann,\n\nTwo days.\n\nInes"
        )
        world.simulator.decide(row.reply_id, "reject")
        world.agent.reviews.note_decided(world.box, row.reply_id)
        world.run_until_idle()
        assert world.outcome(email_id) == Outcome.REPLY_SUBMITTED
        assert "Two days." in world.posts()[-1]["markdown"]


def test_whose_reply_is_rejected_is_left_to_a_person_though_its_mailbox_is_observed_now(
    tmp_path: Path,
) -> None:
    with World(tmp_path) as world:
        email_id = world.deliver()
        world.run_until_idle()
        world.simulator.settle()
        observe_from_now_on(world)
        world.simulator.decide(str(world.entry(email_id).reply_id), "reject")
        world.clock.advance(minutes=6)
        world.agent.track()
        world.run_until_idle()
        assert world.outcome(email_id) == Outcome.ESCALATED
        assert world.tags(email_id)["agent.reply_status"] == "rejected"
        assert [matter.email_id for matter in world.ledger.matters.list()] == [email_id]
        later = world.deliver("And to Oslo?", sender="Bea <bea@customer.example>")
        world.run_until_idle()
        assert world.entry(later).outcome is Outcome.WOULD_REPLY


def test_how_soon_people_answered_stands_next_to_what_the_agent_would_have_said(tmp_path: Path) -> None:
    with World(tmp_path, profiles=ONLY_OBSERVED) as world:
        email_id = world.deliver()
        world.run_until_idle()
        world.clock.advance(hours=3)
        world.simulator.human_reply(email_id, "Within two days.")
        world.clock.advance(minutes=1)
        (found,) = world.agent.show_observed(7).mailboxes
        (case,) = found.cases
        assert case.answered_after == timedelta(hours=3)
        assert "half of them within 3.0 h" in found.human_answers


def test_mail_that_no_worker_has_taken_yet_is_still_being_worked_on(tmp_path: Path) -> None:
    with World(tmp_path, profiles=ONLY_OBSERVED) as world:
        world.deliver()
        world.poller.poll()
        (found,) = world.agent.show_observed(7).mailboxes
        assert (found.unfinished, list(found.cases)) == (1, [])
        assert "Still being worked on: 1." in render_observed(world.agent.show_observed(7))
    with World(tmp_path / "answered") as world:
        world.deliver()
        world.poller.poll()
        assert world.agent.show_observed(7).mailboxes == []


def test_what_crossed_an_email_is_no_answer_to_it(tmp_path: Path) -> None:
    with World(tmp_path, profiles=ONLY_OBSERVED) as world:
        email_id = world.deliver()
        world.run_until_idle()
        received = world.entry(email_id).received_at
        world.clock.now = received + timedelta(minutes=1)
        world.simulator.human_reply(email_id, "About your earlier email: yes.")
        world.clock.now = received + timedelta(hours=1)
        (found,) = world.agent.show_observed(7).mailboxes
        assert found.cases[0].answer is None


def test_a_page_of_a_busy_mailbox_stays_short(tmp_path: Path) -> None:
    with World(tmp_path, profiles=ONLY_OBSERVED) as world:
        for number in range(SHOWN_CASES + 1):
            world.deliver(f"Question {number}?", sender=f"p{number}@customer.example", subject=f"Q {number}")
        world.run_until_idle()
        page = render_observed(world.agent.show_observed(7))
        assert page.count("<details") == SHOWN_CASES
        assert f"The newest {SHOWN_CASES} of {SHOWN_CASES + 1} are shown." in page


def test_the_command_says_first_that_it_only_observes_and_writes_the_page(tmp_path: Path) -> None:
    clock = Clock()
    clock.now = datetime.now(UTC)
    simulator, chat = MultiMailSimulator(clock), ChatSimulator(api_key="simulated")
    box = simulator.add_mailbox("support@northwind.example", "gated_send")
    simulator.deliver(box, "Ann Lee <ann@customer.example>", "Delivery", "How long does delivery take?")
    with LoopbackServer(simulator.app) as mail, LoopbackServer(chat.app) as model:
        values = {
            "MULTIMAIL_API_URL": mail.url,
            "MULTIMAIL_API_KEY": simulator.add_key(("read",)),
            "MODEL_ENDPOINT": model.url,
            "MODEL_API_KEY": "simulated",
            "TRIAGE_DEPLOYMENT": "small",
            "CONFIG_PATH": str(tmp_path),
            "PYTHONPATH": str(ROOT),
            "NO_PROXY": "127.0.0.1",
        }
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        done = subprocess.run(
            [sys.executable, "-m", "local", "observe", "--days", "2"],
            cwd=tmp_path, env=kept | values, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("Observing only: the agent submits, tags and sends nothing.")
    assert "support@northwind.example: 1 would have answered" in done.stdout
    page = tmp_path / ".data" / "observed" / "observed.html"
    assert "How long does delivery" not in done.stdout
    assert "Delivery" in page.read_text(encoding="utf-8")
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert not (tmp_path / ".data" / "ledger.sqlite").exists()
    assert {request.method for request in simulator.requests} == {"GET"}


def call_observing(world: World, folder: Path, *words: str) -> tuple[int, str]:
    """Run a command of an operator with OBSERVE_ONLY, next to the ledger of the working agent."""
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(ROOT), "OBSERVE_ONLY": "true",
        "MULTIMAIL_API_URL": world.url, "MULTIMAIL_API_KEY": world.key, "TRIAGE_DEPLOYMENT": "small",
        "MODEL_ENDPOINT": "http://127.0.0.1:9", "MODEL_API_KEY": "unused",
        "LEDGER_PATH": str(folder / "ledger.sqlite"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "local", *words], cwd=folder, env=environment, input="y\n",
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout


def test_forget_changes_nothing_at_multimail_while_the_agent_only_observes(tmp_path: Path) -> None:
    with World(tmp_path) as world:
        email_id = world.deliver()
        world.run_until_idle()
        world.simulator.settle()
        reply_id, made = world.entry(email_id).reply_id, len(world.simulator.requests)
        observed = tmp_path / OBSERVED / "ledger.sqlite"
        with closing(open_sqlite_ledger(observed)) as ledger:
            is_open = replace(world.entry(email_id), reply_id=None, outcome=None, finished_at=None)
            ledger.add(replace(is_open, submit_intent_at=None, version=""))
        status, output = call_observing(world, tmp_path, "forget", "ann@customer.example")
        assert {request.method for request in world.simulator.requests[made:]} == {"GET"}
        assert status == UNFINISHED
        assert "Erased in the ledger: 1 emails." in output
        assert f"Reply {reply_id} could not be cancelled yet (it is pending_send_approval)" in output
        assert "Run forget again with OBSERVE_ONLY=false" in output
        assert world.entry(email_id).sender == "ann@customer.example"
        world.simulator.decide(str(reply_id), "reject")
        assert call_observing(world, tmp_path, "forget", "ann@customer.example")[0] == OK


def test_no_upgrade_is_requested_while_the_agent_only_observes(tmp_path: Path) -> None:
    with World(tmp_path) as world:
        open_sqlite_ledger(tmp_path / OBSERVED / "ledger.sqlite").close()
        status, output = call_observing(world, tmp_path, "report", "--request-upgrade", world.box)
        assert status == UNFINISHED
        assert "Nothing was requested: with OBSERVE_ONLY=true nothing is changed at MultiMail." in output
        assert {request.method for request in world.simulator.requests} == {"GET"}


def test_forget_tags_no_email_of_an_observed_mailbox(tmp_path: Path) -> None:
    with World(tmp_path, profiles=ONLY_OBSERVED, daily_token_budget=1) as world:
        world.deliver()
        world.poll_and_work()
        waiting = world.deliver("And how much is it?", sender="Bo <bo@customer.example>")
        world.poll_and_work()
        forgetting = Forgetting(
            world.multimail, world.multimail, world.ledger, "bo@customer.example", world.clock
        )
        forgetting.run()
        assert forgetting.erased == [waiting]
        assert world.tags(waiting) == {}


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the PATH")
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_the_page_fits_a_phone_and_its_policy_lets_its_style_in(
    tmp_path: Path, width: int, scheme: str
) -> None:
    with World(tmp_path, profiles=ONLY_OBSERVED) as world:
        world.deliver(subject="A" * 300, markdown="<script>alert(1)</script> How long?")
        world.run_until_idle()
        path = tmp_path / "page.html"
        path.write_text(render_observed(world.agent.show_observed(7)), encoding="utf-8")
    said: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        size = {"width": width, "height": 900}
        page = browser.new_page(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]  # plain texts
        page.on("console", lambda message: said.append(message.text))
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == width
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 23, 22)"
        assert dark is (scheme == "dark")
        assert page.locator("details[open]").count() == 1
        numbers = page.locator(".headline strong").first
        assert numbers.evaluate("number => getComputedStyle(number).fontSize") == "22px"
        browser.close()
    assert said == []


# The document's picture, taken on demand: SCREENSHOT_DIR=docs pytest tests/test_observe.py -k picture


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the PATH")
def test_picture_of_the_page(observation: Observation, tmp_path: Path) -> None:
    add_emails(observation.simulator, UNANSWERED_EMAILS, observation.clock())
    observation.run()
    path = tmp_path / "page.html"
    path.write_text(render_observed(observation.agent.show_observed(1)), encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 880})
        page.goto(path.as_uri())
        assert page.get_by_text("Of 44 emails it would have answered 24").is_visible()
        page.screenshot(path=Path(os.environ.get("SCREENSHOT_DIR", tmp_path)) / "observe-page.png")
        browser.close()
