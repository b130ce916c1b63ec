"""Backtests: past mail under today's configuration and another one, without anything being written."""

import io
import json
import os
import re
import shutil
import stat
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rich.console import Console

from local.backtest.command import FOLDER, PAGE, RESULTS, Backtest, Plan, backtest, bound_usage, build_plan
from local.backtest.comparison import Comparison, Really, Share, compare, estimate, find_real_end
from local.backtest.page import render_backtest
from local.backtest.past import LEFT_OUT, PastMail, read_past_mail
from local.backtest.results import PROMPTS, SHARED, ResultsFile, compute_fingerprint
from local.backtest.trial import AT_ONCE, open_observer, run_backtest
from local.commands.demo_customers import CONFIG
from local.commands.demo_mail import seed_demo
from local.commands.demo_model import respond
from local.host.http_server import LoopbackServer
from local.host.run import MISCONFIGURED, OK, UNFINISHED
from local.model.chat_simulator import ChatSimulator, Payload
from local.multimail.emails import Listing
from local.multimail.faults import answer_with, in_order
from local.multimail.simulator import MultiMailSimulator
from local.testing.world import START, Clock, World
from shared.domain import Cause, Draft, Outcome, TokenPrice, Usage, WorkItem
from shared.errors import ConfigurationError, TransientError
from shared.knowledge.passages import PROPOSED_FOLDER
from shared.ledger.entries import LedgerEntry
from shared.model.prompting import load_prompt
from shared.operator.observed import Would, find_would
from shared.settings import Settings

PROFILE = "support@northwind.example:\n  purpose: Questions about bicycles.\n"


@dataclass
class Past:
    """A mailbox whose mail people have read, and a configuration under which to try it."""

    simulator: MultiMailSimulator
    chat: ChatSimulator
    clock: Clock
    values: dict[str, str]
    folder: Path
    box: str = ""
    answer: Callable[[Payload], str | Payload] = respond

    @property
    def settings(self) -> Settings:
        return Settings.from_env(self.values)

    @property
    def results(self) -> ResultsFile:
        return ResultsFile(self.folder / RESULTS, self.settings.token_prices)

    def deliver(
        self,
        markdown: str = "How long does delivery take?",
        *,
        is_read: bool = True,
        sender: str = "Ann Lee <ann@customer.example>",
        subject: str = "Delivery",
        thread_id: str | None = None,
    ) -> str:
        self.clock.advance(minutes=10)
        email_id = self.simulator.deliver(
            self.box, sender, subject, markdown, received_at=self.clock(), thread_id=thread_id
        )
        if is_read:
            self.simulator.mark_read(email_id)
        return email_id

    def read_mail(self) -> PastMail:
        with open_observer(self.settings) as agent:
            boxes = agent.pipeline.mailboxes.read().values()
            return read_past_mail(agent.pipeline.multimail, boxes, START - timedelta(days=3))

    def run(self, results: ResultsFile | None = None, **changes: str) -> Mapping[WorkItem, LedgerEntry]:
        settings = Settings.from_env(self.values | changes)
        return run_backtest(settings, self.read_mail().emails, results or self.results, sleep=lambda _: None)

    def find(self, found: Mapping[WorkItem, LedgerEntry], email_id: str) -> LedgerEntry:
        return found[WorkItem(self.box, email_id)]

    def compare(self, **changes: str) -> Comparison:
        mail, before = self.read_mail(), self.run()
        after = self.run(None, **changes) if changes else None
        return compare(mail, lambda _: None, before, after, days=3, names=["as it is", "new"])

    def write_config(self, name: str, profile: str = PROFILE) -> Path:
        folder = self.folder / name
        folder.mkdir()
        (folder / "mailboxes.yaml").write_text(profile, encoding="utf-8")
        return folder

    @property
    def methods(self) -> set[str]:
        return {request.method for request in self.simulator.requests}


@pytest.fixture
def past(tmp_path: Path) -> Iterator[Past]:
    clock = Clock()
    simulator = MultiMailSimulator(clock)

    def answer(body: Payload) -> str | Payload:
        return found.answer(body)

    chat = ChatSimulator(api_key="simulated", respond=answer)
    with LoopbackServer(simulator.app) as mail, LoopbackServer(chat.app) as model:
        values = {
            "MULTIMAIL_API_URL": mail.url,
            "MULTIMAIL_API_KEY": simulator.add_key(("read",)),
            "MODEL_ENDPOINT": model.url,
            "MODEL_API_KEY": "simulated",
            "TRIAGE_DEPLOYMENT": "small",
            "DRAFT_DEPLOYMENT": "large",
            "TOKEN_PRICES": "small=0.4/1.6,large=2/8",
            "LEDGER_PATH": str(tmp_path / "ledger.sqlite"),
            "CONFIG_PATH": str(CONFIG),
        }
        found = Past(simulator, chat, clock, values, tmp_path)
        yield found


@pytest.fixture
def box(past: Past) -> Past:
    """One mailbox with a profile."""
    past.box = past.simulator.add_mailbox("support@northwind.example", "gated_send")
    past.values["CONFIG_PATH"] = str(past.write_config("today"))
    return past


def test_the_same_configuration_flips_nothing_and_writes_nothing(past: Past) -> None:
    seed_demo(past.simulator, past.clock())
    for name in past.simulator.mailboxes:
        for email in past.simulator.list_emails(name, Listing(direction="inbound", limit=100))[0]:
            past.simulator.mark_read(email.id)
    first, second = (past.run(ResultsFile(past.folder / name, {})) for name in ("one", "two"))
    compared = compare(past.read_mail(), lambda _: None, first, second, days=3, names=["a", "b"])
    assert len(compared.cases) >= 25
    assert compared.flips == []
    assert compared.sides[0].counts[Would.ANSWER] >= 10
    assert past.methods == {"GET"}


def test_a_case_flips_for_the_reason_that_the_new_profile_gives(box: Past) -> None:
    asked, invoice = box.deliver(), box.deliver("Please send the invoice again.", subject="Invoice")
    strict = box.write_config("strict", PROFILE + "  escalate_words: [invoice]\n")
    compared = box.compare(CONFIG_PATH=str(strict))
    (flip,) = compared.flips
    assert flip.email.summary.id == invoice
    assert (find_would(flip.before.outcome), flip.newest.cause) == (Would.ANSWER, Cause.WORD_RULE)
    assert asked in {case.email.summary.id for case in compared.cases}
    assert str(compared.flip_share).startswith("1 of 2, 50% (95 %: ")
    page = render_backtest(compared, lambda _: "")
    assert "its mailbox escalates a word in it" in page
    assert "<script" not in page


def test_unread_emails_are_counted_and_never_read(box: Past) -> None:
    unread = box.deliver(is_read=False, thread_id="thread-1")
    later = box.deliver("And how much is it?", thread_id="thread-1")
    found = box.run()
    assert [item.email_id for item in found] == [later]
    assert box.read_mail().left_out == Counter({LEFT_OUT["unread"]: 1})
    stored = box.simulator.find_email(unread)
    assert stored is not None
    assert stored.status == "unread"
    assert not any(unread in request.path for request in box.simulator.requests)


def test_each_email_is_judged_as_if_it_had_just_arrived(box: Past) -> None:
    email_id = box.deliver(thread_id="thread-1")
    box.clock.advance(hours=2)
    answer = box.simulator.human_reply(email_id, "Two days.")
    box.simulator.archive(email_id)
    box.clock.advance(days=2)
    compared = box.compare()
    (case,) = compared.cases
    assert case.before.outcome is Outcome.WOULD_REPLY
    assert case.really is Really.PERSON
    assert case.answer is not None
    assert case.answer.id == answer
    assert case.answered_after == timedelta(hours=2)
    assert str(compared.share_answered(lambda c: c.before)).startswith("1 of 1, 100%")


def test_a_stopped_backtest_goes_on_where_it_was(box: Past) -> None:
    box.deliver()
    second = box.deliver("And how much is it?", sender="Bo <bo@customer.example>")
    emails = box.read_mail().emails
    run_backtest(box.settings, emails[:1], box.results)
    asked = len(box.chat.calls)
    with box.results.path.open("a", encoding="utf-8") as file:
        file.write('\n{"run": "cut in the middle')
    found = run_backtest(box.settings, emails, box.results)
    assert len(found) == 2
    assert box.find(found, second).usage.calls == len(box.chat.calls) - asked
    asked = len(box.chat.calls)
    box.run()
    assert len(box.chat.calls) == asked


def test_the_line_after_one_that_was_cut_is_not_lost(box: Past) -> None:
    box.results.path.write_text('{"run": "cut', encoding="utf-8")
    box.deliver()
    box.run()
    assert count_kept(box) == 1


def count_kept(box: Past) -> int:
    return len(list(box.results.entries(compute_fingerprint(box.settings))))


def test_damaged_lines_are_counted_and_tried_again(shell: Past) -> None:
    shell.deliver()
    path = FOLDER / RESULTS
    assert call()[0] == OK
    whole = path.read_bytes().strip()
    row = json.loads(whole)
    wrong: tuple[object, ...] = ([], "x", {"a": 1})
    damaged = [
        b"[]", b"1", b"null", b"\xff\xfe cut", whole[:200], b"[" * 100_000,
        *(json.dumps({key: row[key] for key in row if key != name}).encode() for name in row),
        *(json.dumps(row | {name: value}).encode() for name in ("row", "used") for value in wrong),
        json.dumps(row | {"used": {"small": {"calls": "x"}, "large": {"calls": 1}}}).encode(),
    ]  # fmt: skip
    path.write_bytes(b"\n".join(damaged))
    status, output = call()
    assert status == OK
    assert f"{len(damaged)} damaged lines of {path} count as not tried." in output
    assert "1 to be tried, 0 known from earlier" in output


def test_what_was_paid_for_is_kept_when_a_run_breaks_off(box: Past) -> None:
    waiting, released = threading.Semaphore(0), threading.Event()

    def answer(body: Payload) -> str | Payload:
        if "slow" in str(body["messages"]):
            waiting.release()
            assert released.wait(30)
        return respond(body)

    def break_off(_: LedgerEntry) -> None:
        assert all(waiting.acquire(timeout=30) for _ in range(AT_ONCE - 1))
        released.set()
        raise KeyboardInterrupt

    box.answer = answer
    box.deliver()
    for number in range(AT_ONCE - 1):
        box.deliver(f"slow {number}: how much is it?", sender=f"p{number}@customer.example")
    with pytest.raises(KeyboardInterrupt):
        run_backtest(box.settings, box.read_mail().emails, box.results, on_tried=break_off)
    assert count_kept(box) == AT_ONCE


def test_what_results_cost_goes_by_the_prices_of_now(box: Past) -> None:
    box.deliver()
    box.values["TOKEN_PRICES"] = ""
    box.run()

    def cost(prices: str) -> float:
        box.values["TOKEN_PRICES"] = prices
        return box.compare().sides[0].usage.dollars

    dear, cheap = cost("small=4/16,large=20/80"), cost("small=0.4/1.6,large=2/8")
    assert cheap > 0
    assert dear == pytest.approx(10 * cheap)
    assert cost("small=0.4/1.6") == 0.0  # a part of the cost would be a wrong cost


def test_results_are_the_owners_alone(box: Past) -> None:
    box.deliver()
    box.run()
    assert stat.S_IMODE(box.results.path.stat().st_mode) == 0o600


def test_what_multimail_has_no_more_and_what_fails_is_left_out_and_counted(box: Past) -> None:
    gone, kept = box.deliver(), box.deliver("And how much is it?", sender="Bo <bo@customer.example>")
    mail = box.read_mail()
    box.simulator.erase(gone)
    before = run_backtest(box.settings, mail.emails, box.results, sleep=lambda _: None)
    compared = compare(mail, lambda _: None, before, None, days=3, names=["as it is"])
    assert [case.email.summary.id for case in compared.cases] == [kept]
    assert compared.left_out == {"MultiMail no longer has it": 1}
    compared = compare(mail, lambda _: None, {}, None, days=3, names=["as it is"])
    assert compared.left_out == {"every attempt failed: the next backtest tries again": 2}


def test_the_prompts_of_a_configuration_take_the_place_of_the_projects(box: Past) -> None:
    box.deliver()
    folder = box.write_config("prompts")
    (folder / PROMPTS).mkdir()
    (folder / PROMPTS / "triage.md").write_text("<!-- a note -->\nOUR TRIAGE", encoding="utf-8")
    box.run(CONFIG_PATH=str(folder))
    systems = [call.body["messages"][0]["content"] for call in box.chat.calls]
    assert systems[0].startswith("OUR TRIAGE")
    assert "Questions about bicycles." in systems[0]
    assert load_prompt("triage") not in systems[0]
    assert systems[1].startswith(load_prompt("draft"))


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        ("knowledge/help/a.md", True),
        (f"{PROMPTS}/draft.md", True),
        ("mailboxes.yaml", True),
        (f"knowledge/{PROPOSED_FOLDER}/a.md", False),
    ],
)
def test_results_hold_until_something_changes_what_the_agent_would_say(
    box: Past, path: str, counts: bool
) -> None:
    before = compute_fingerprint(box.settings)
    changed = Path(box.values["CONFIG_PATH"], path)
    changed.parent.mkdir(parents=True, exist_ok=True)
    changed.write_text("# Delivery\n\nTwo days.\n", encoding="utf-8")
    assert (compute_fingerprint(box.settings) != before) is counts


def test_results_do_not_hold_for_other_knowledge_behind_a_link(box: Past) -> None:
    wiki, knowledge = box.folder / "wiki", Path(box.values["CONFIG_PATH"], "knowledge")
    wiki.mkdir()
    knowledge.mkdir()
    (knowledge / "shared").symlink_to(wiki, target_is_directory=True)
    fingerprints = set()
    for days in ("Three", "Five"):
        (wiki / "delivery.md").write_text(f"# Delivery\n\n{days} days.\n", encoding="utf-8")
        fingerprints.add(compute_fingerprint(box.settings))
    assert len(fingerprints) == 2


def test_results_do_not_hold_for_another_version_of_the_agent(box: Past) -> None:
    code = shutil.copytree(SHARED, box.folder / "shared")
    before = compute_fingerprint(box.settings)
    assert compute_fingerprint(box.settings, code) == before
    with (code / "checks" / "phrases.toml").open("a", encoding="utf-8") as file:
        file.write("# another\n")
    assert compute_fingerprint(box.settings, code) != before


def test_that_changes_of_an_index_cannot_be_told_is_said(
    shell: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(record=True, width=200)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    shell.deliver()
    shell.run()
    search = replace(shell.settings, search_endpoint="https://search.example")
    plan = Plan([shell.settings, search], ["as it is", "new"], 2)
    with open_observer(shell.settings) as agent:
        reader, mail = agent.pipeline.multimail, shell.read_mail()
        assert Backtest(console, plan, reader, mail, shell.results).run(is_confirmed=False) == UNFINISHED
    assert "the index at SEARCH_ENDPOINT has changed" in console.export_text()


def test_a_copy_of_the_configuration_is_the_same_configuration(box: Past) -> None:
    copy = shutil.copytree(box.values["CONFIG_PATH"], box.folder / "copy")
    assert compute_fingerprint(replace(box.settings, config_path=copy)) == compute_fingerprint(box.settings)
    assert compute_fingerprint(replace(box.settings, draft_deployment="other")) != compute_fingerprint(
        box.settings
    )


def entry(**fields: object) -> LedgerEntry:
    row = LedgerEntry("box", "em_1", START, "ann@customer.example", "thread-1", START)
    return replace(row, outcome=Outcome.REPLY_SUBMITTED, **fields)  # type: ignore[arg-type]  # fields by name


def test_what_really_became_of_an_email_is_what_its_reviewers_did() -> None:
    draft = Draft("Two days.", 0.9, (), ("em_1",), "key")
    edited = draft.rejected("re_1", "", submitted_at=START, decided_at=START)
    assert find_real_end(entry(reply_status="delivered"), None) is Really.APPROVED
    by_hand = entry(reply_status="approved", rejections=(replace(edited, edited_by="key"),))
    assert find_real_end(by_hand, None) is Really.EDITED
    assert find_real_end(entry(reply_status="rejected"), None) is Really.REJECTED
    assert find_real_end(entry(rejections=(edited,)), None) is Really.REJECTED
    redriven = replace(edited, status="bounced")
    assert find_real_end(entry(rejections=(redriven,)), None) is Really.NOBODY
    assert find_real_end(None, None) is Really.NOBODY


@pytest.mark.parametrize("status", ["bounced", "send_failed"])
def test_a_reply_that_could_not_be_delivered_was_no_rejected_one(status: str) -> None:
    assert find_real_end(entry(reply_status=status), None) is Really.UNDELIVERED


def test_a_reply_that_covers_another_email_is_no_answer_of_a_person(box: Past) -> None:
    first, second = box.deliver(thread_id="thread-1"), box.deliver("And to Oslo?", thread_id="thread-1")
    reply_id = box.simulator.human_reply(second, "Two days.")
    rows = {
        second: entry(
            mailbox_id=box.box, email_id=second, reply_id=reply_id, reply_status="delivered",
            draft=Draft("Two days.", 0.9, (), (first, second), "key"),
        ),
        first: replace(entry(mailbox_id=box.box, email_id=first), outcome=Outcome.SKIPPED),
    }  # fmt: skip
    compared = compare(
        box.read_mail(), lambda item: rows.get(item.email_id), box.run(), None, days=3, names=["as it is"]
    )
    assert [(case.really, case.answer) for case in compared.cases] == [(Really.APPROVED, None)] * 2


def test_what_was_sent_has_to_be_listed_of_each_mailbox(box: Past) -> None:
    box.deliver()
    box.simulator.human_reply(box.deliver(), "Two days.")
    other = box.simulator.add_mailbox("sales@northwind.example", "gated_send")
    refused = answer_with(500)
    listing = in_order(None, refused, refused, matching=lambda _, path: path.endswith(f"{other}/emails"))
    box.simulator.fault = listing
    with pytest.raises(TransientError):
        box.read_mail()


@pytest.mark.parametrize("reason", ["", "Name the fee."])
def test_a_rejected_reply_is_one_also_once_its_email_was_judged_again(tmp_path: Path, reason: str) -> None:
    with World(tmp_path) as world:
        email_id = world.deliver()
        world.run_until_idle()
        world.simulator.settle()
        reply_id = str(world.entry(email_id).reply_id)
        world.simulator.set_tags(world.box, reply_id, {"agent.reject_reason": reason}, "a reviewer")
        world.simulator.decide(reply_id, "reject")
        world.clock.advance(minutes=6)
        world.tracker.track()
        world.run_until_idle()
        row = world.entry(email_id)
        assert (row.outcome is Outcome.REPLY_SUBMITTED) is bool(reason)
        assert find_real_end(row, None) is Really.REJECTED


def test_an_interval_is_wilsons() -> None:
    low, high = Share(8, 10).interval
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)
    assert Share(0, 20).interval[0] == 0
    assert str(Share(0, 0)) == "no cases"


def test_the_cost_is_estimated_by_what_emails_have_cost_or_by_its_bound(box: Past) -> None:
    same = [Usage(2, 900, 100, dollars=0.01), Usage(2, 2_900, 100, dollars=0.03)]
    prices = [TokenPrice(1, 2), TokenPrice(10, 20)]
    most = bound_usage(box.settings)
    by_past = estimate(10, same, [], most, prices)
    assert (by_past.tokens, round(by_past.dollars or 0, 6)) == (20_000, 0.2)
    by_others = estimate(10, [], same, most, prices)
    assert (by_others.tokens, round(by_others.dollars or 0, 6)) == (20_000, 0.21)
    assert estimate(10, [], same, most, [TokenPrice(1, 2), None]).dollars is None
    assert most.dollars > 0
    bound = estimate(10, [], [], most, prices)
    assert bound.tokens == 10 * most.tokens
    assert bound.bases[0].startswith("at most")
    assert (by_past + bound).dollars == pytest.approx(0.2 + 10 * most.dollars)
    assert (by_past + estimate(1, [], same, most, [None])).dollars is None


def test_the_estimate_for_another_model_goes_by_its_own_price(shell: Past) -> None:
    shell.deliver()
    assert call()[0] == OK
    os.environ["TOKEN_PRICES"] = "small=0.4/1.6,large=2/8,huge=100/400"
    status, output = call(changes=("DRAFT_DEPLOYMENT=huge",))
    assert status == OK
    told = re.search(r"1 to be tried, 1 known from earlier: about [\d,]+ tokens, \$([\d.]+)", output)
    really = re.search(r"new: DRAFT_DEPLOYMENT=huge  [\d,]+ tokens, \$([\d.]+)", output)
    assert told is not None
    assert really is not None
    assert float(really[1]) <= float(told[1]) <= 3 * float(really[1])


def test_a_real_email_costs_less_than_the_bound(box: Past) -> None:
    box.deliver("word " * 20_000)
    (found,) = box.run().values()
    assert found.usage.tokens < bound_usage(box.settings).tokens


@pytest.fixture
def shell(box: Past, monkeypatch: pytest.MonkeyPatch) -> Past:
    """The environment and folder of a command."""
    monkeypatch.chdir(box.folder)
    for name, value in box.values.items():
        monkeypatch.setenv(name, value)
    box.clock.now = datetime.now(UTC) - timedelta(hours=5)
    return box


def call(answer: bool = True, config: str | None = None, changes: tuple[str, ...] = ()) -> tuple[int, str]:
    console = Console(record=True, width=200)
    status = backtest(console, days_text="2", config=config, changes=changes, is_confirmed=answer)
    return status, console.export_text()


def test_the_command_tells_the_cost_first_and_then_what_flips(shell: Past) -> None:
    shell.deliver()
    invoice = shell.deliver("Please send the invoice again.", subject="Invoice")
    shell.deliver(is_read=False)
    strict = shell.write_config("strict", PROFILE + "  escalate_words: [invoice]\n")
    status, output = call(config="/nope")
    assert (status, "--config /nope is not a directory" in output) == (2, True)
    status, output = call(config=str(strict))
    assert status == OK
    assert "Past emails (2 x 24 hours): 2; left out: 1." in output
    assert re.search(r"4 to be tried, 0 known from earlier: about [\d,]+ tokens, \$", output)
    assert "Cases that flip: 1 of 2" in output
    assert invoice in output
    page = (FOLDER / PAGE).read_text(encoding="utf-8")
    assert stat.S_IMODE((FOLDER / PAGE).stat().st_mode) == 0o600
    assert "Cases that flip: 1" in page
    assert "1: unread: to read it would mark it as read." in page
    assert shell.methods == {"GET"}


def test_a_new_configuration_that_is_the_same_is_called_so(shell: Past) -> None:
    shell.deliver()
    same = shutil.copytree(shell.values["CONFIG_PATH"], shell.folder / "copy")
    status, output = call(config=str(same))
    assert status == OK
    assert "The new configuration is the same as today's." in output
    assert "1 to be tried, 0 known from earlier" in output
    assert "1 to be tried" not in call(config=str(same))[1]


def test_only_the_days_are_to_blame_for_wrong_days(shell: Past) -> None:
    class Mistaken(Console):
        mistakes: ClassVar[list[str]] = ["a mistake in the program"]

        def print(self, *args: Any, **options: Any) -> None:
            if self.mistakes:
                raise ValueError(self.mistakes.pop())
            super().print(*args, **options)

    console = Console(record=True)
    status = backtest(console, days_text="x", config=None, changes=(), is_confirmed=True)
    assert status == MISCONFIGURED
    assert console.export_text().strip() == "--days must be a whole number from 1 to 365."
    shell.deliver()
    with pytest.raises(ValueError, match="a mistake in the program"):
        backtest(Mistaken(), days_text="2", config=None, changes=(), is_confirmed=True)


def test_nothing_is_asked_of_a_model_before_the_cost_is_confirmed(
    shell: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.deliver()
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    status, output = call(answer=False)
    assert status == UNFINISHED
    assert "Nothing was asked of the models." in output
    assert list(shell.chat.calls) == []


def test_only_settings_that_change_the_answers_can_be_tried(shell: Past) -> None:
    with pytest.raises(ConfigurationError, match=r"--set RETENTION_DAYS=1: write NAME=VALUE"):
        build_plan(shell.values, 2, None, ["RETENTION_DAYS=1"])
    plan = build_plan(shell.values, 2, None, ["DRAFT_DEPLOYMENT=other"])
    assert [settings.draft_deployment for settings in plan.settings] == ["large", "other"]
    assert call(changes=("RETENTION_DAYS=1",))[0] == MISCONFIGURED


def test_a_page_shows_what_people_wrote(shell: Past) -> None:
    email_id = shell.deliver("Please send the invoice again.", subject="Invoice")
    shell.clock.advance(hours=1)
    shell.simulator.human_reply(email_id, "Here it is <again>.")
    strict = shell.write_config("strict", PROFILE + "  escalate_words: [invoice]\n")
    assert call(config=str(strict))[0] == OK
    page = (FOLDER / PAGE).read_text(encoding="utf-8")
    assert "Here it is &lt;again&gt;." in page
    assert json.dumps(email_id)[1:-1] in page
