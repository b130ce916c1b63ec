"""The review desk, in a real browser and over real HTTP, with MultiMail simulator and ledger behind it."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Browser, Locator, Page, ViewportSize, expect

from local.approval.agent import AgentAccess
from local.approval.agent import DeskAgent as RemoteAgent
from local.approval.inbox import READS_PER_REFRESH, SHOWN_FOR
from local.approval.oversight import Oversight
from local.approval.page import ROWS_PER_PAGE, build_desk
from local.approval.reading import ReadableText, read_text
from local.commands.demo import NOTE, RIDDLE
from local.commands.demo_customers import CONFIG
from local.commands.demo_mail import seed_demo
from local.commands.demo_model import DEMO_ANSWERS, list_reasons, respond
from local.host.http_server import LoopbackServer
from local.model.chat_simulator import ChatSimulator
from local.multimail.emails import Attachment, Outgoing
from local.multimail.faults import answer_with, in_order
from local.multimail.simulator import MultiMailSimulator
from local.testing.browser import CHROMIUM
from local.testing.desk_agent import FUNCTION_KEY, DeskAgent
from local.testing.desk_office import (
    CLAIMS,
    NOW,
    Office,
    plain_draft,
    report_nothing,
    serve_office,
    triaged,
    written,
)
from local.testing.world import Clock
from shared.composition import build_agent
from shared.domain import (
    Mailbox,
    ModelText,
    Outcome,
    WorkItem,
)  # fmt: skip
from shared.errors import ConfigurationError, TransientError
from shared.ledger.entries import LedgerEntry
from shared.operator.trust import Fate, JudgedDraft, TrustReport, judge_mailbox
from shared.profiles.pauses import pause
from shared.profiles.profiles import MailboxProfile, Profiles
from shared.services.secrets import StaticSecret
from shared.services.work_queue import InProcessWorkQueue
from shared.settings import Secret, Settings
from shared.watching.tracking import MAX_REJECT_REASON_CHARACTERS

NARROW = ViewportSize(width=390, height=844)

PICTURED = "LINE DOWN: Tarn P10 reads zero on the filling line"

in_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the PATH")


REASONS = ("Shorter.", "Warmer.", "Answer the second question too: it is <b>urgent</b>.")


@pytest.fixture
def offering(tmp_path: Path) -> Iterator[Office]:
    """An office whose page offers reasons, as the demo's does for its simulated model."""
    with serve_office(
        tmp_path, list_reasons=lambda subject, _draft: REASONS if subject == "Warranty" else ()
    ) as running:
        yield running


def report_hostile_text(days: int) -> TrustReport:
    """A report on one mailbox with a hostile address and category."""
    fates = {None: (Fate.APPROVED, Fate.BOUNCED), ATTACK: (Fate.APPROVED, Fate.REJECTED, Fate.PENDING)}
    drafts = [JudgedDraft("em", name, fate, NOW) for name, given in fates.items() for fate in given]
    judged = judge_mailbox(Mailbox("support", f"{ATTACK}@northwind.example", "gated_send"), drafts, NOW, NOW)
    return TrustReport(NOW - timedelta(days=days), NOW, days, [judged])


def decision(reply: str, action: str, email: str, **fields: str) -> dict[str, str]:
    """A form of the page, without its token."""
    return {"reply_id": reply, "action": action, "mailbox": "support", "email": email} | fields


def csrf_token(html: str) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', html)
    assert found
    return found[1]


# What a person sees and does


@in_browser
def test_list_and_detail_show_the_email_its_triage_and_the_waiting_draft(office: Office, page: Page) -> None:
    email = office.receive(
        "How long is the warranty?", "My caliper flickers.", "Ann Lee <ann@customer.example>"
    )
    office.draft(email, "Dear Ann, two years.", category="support", urgency="high", sentiment="neutral")
    page.goto(office.url)
    row = page.get_by_role("link", name="How long is the warranty?")
    expect(row).to_contain_text("Ann Lee")
    for chip in ("Waiting for approval", "reply", "support", "high", "neutral"):
        expect(row.get_by_text(chip, exact=True)).to_be_visible()
    row.click()
    expect(page.locator(".detail h1")).to_have_text("How long is the warranty?")
    expect(page.get_by_role("region", name="Email", exact=True)).to_contain_text("My caliper flickers.")
    expect(page.locator(".draft")).to_contain_text("Dear Ann, two years.")


def said(page: Page) -> Locator:
    """What the desk says of the last decision."""
    return page.locator("#said")


@in_browser
def test_approve_sends_the_draft_and_says_so(office: Office, page: Page) -> None:
    email = office.receive("Warranty")
    reply = office.draft(email, "Two years.")
    page.goto(office.address(email))
    page.get_by_role("button", name="Approve and send").click()
    expect(said(page)).to_have_text("Approved and sent: Warranty")
    expect(page).to_have_title(re.compile("^Approved and sent: Warranty · "))
    expect(page.locator(".detail h1")).to_have_text("Nothing is left to do")
    assert office.stored(reply).delivered_at == NOW
    assert office.agent.entry(email).reply_settled_at == NOW  # the agent was told
    page.goto(office.address(email))
    expect(page.locator(".draft h2")).to_contain_text("Answered")
    expect(page.get_by_role("button")).to_have_count(0)


@in_browser
def test_reject_sends_nothing_and_says_so(office: Office, page: Page) -> None:
    email = office.receive("Warranty")
    reply = office.draft(email, "Two years.")
    page.goto(office.address(email))
    page.get_by_text("Reject", exact=True).click()
    page.get_by_role("button", name="Reject the draft").click()
    expect(said(page)).to_have_text("Rejected: Warranty")
    page.goto(office.address(email) + "&show=all")
    expect(page.locator(".draft h2")).to_have_text("Draft rejected")
    expect(page.locator(".row .chip").first).to_have_text("Draft rejected")
    assert office.stored(reply).status == "rejected"
    assert office.stored(reply).delivered_at is None


def writes_of(office: Office) -> list[tuple[str, Any]]:
    return [(r.method, r.body) for r in office.simulator.requests if r.method != "GET"]


@in_browser
def test_a_reason_is_kept_before_the_draft_is_rejected_and_the_newer_draft_says_what_changed(
    office: Office, page: Page
) -> None:
    email = office.receive("Warranty")
    first = office.draft(email, "Two years.")
    office.simulator.set_tags("support", first, {"crm.id": "77"}, "somebody")
    page.goto(office.address(email))
    page.keyboard.press("r")
    page.get_by_role("textbox", name="Reason (optional; the agent redrafts with it)").fill(
        " Say\u200b  why. "
    )
    page.keyboard.press("Enter")
    expect(said(page)).to_have_text("Rejected: Warranty")
    assert writes_of(office)[-3:-1] == [
        ("PUT", {"tags": {"crm.id": "77", "agent.reject_reason": "Say why."}}),  # the agent, with its own key
        ("POST", {"email_id": first, "action": "reject"}),
    ]
    assert office.stored(first).status == "rejected"
    page.goto(office.address(email))
    expect(page.locator(".draft .why")).to_have_text("Reason: Say why.")
    expect(page.locator(".draft")).to_contain_text("The agent writes a new draft")
    expect(page.get_by_role("link", name=re.compile("^1 In progress$"))).to_be_visible()
    office.draft(email, "Two years, because we build it so.")
    page.get_by_role("link", name="This email has changed").click()
    expect(page.locator(".draft h2")).to_have_text("Draft, waiting for your approval")
    change = page.locator(".change")
    expect(change).to_contain_text("New draft: what has changed")
    expect(change.locator(".why")).to_have_text("Reason: Say why.")
    expect(change.locator("del")).to_have_text("years.")
    expect(change.locator("ins")).to_have_text("years, because we build it so.")
    page.locator(".thread li").nth(1).get_by_role("link").click()
    expect(page.locator(".draft .why")).to_have_text("Reason: Say why.")
    expect(page.locator(".draft")).not_to_contain_text("The agent writes a new draft")


@in_browser
def test_approving_leaves_a_typed_reason_out(office: Office, page: Page) -> None:
    email = office.receive("Gauges")
    approved = office.draft(email, "Two.")
    page.goto(office.address(email))
    page.keyboard.press("r")
    page.locator("#reason").fill("Shorter")
    page.get_by_role("button", name="Approve and send").click()
    expect(said(page)).to_have_text("Approved and sent: Gauges")
    assert office.stored(approved).tags == {}
    assert office.agent.entry(email).review is None


@in_browser
def test_who_approves_sees_what_carries_each_statement_and_first_what_is_doubtful(
    office: Office, page: Page
) -> None:
    email = office.receive("Warranty")
    office.draft(email, "Two years.", replace(written("Two years.", *CLAIMS), notes=("it repeats a code",)))
    page.goto(office.address(email))
    warnings = page.get_by_role("region", name="Before you decide")
    for text in ("Which colour?", "Warning: it repeats a code", "2 statements are not verified"):
        expect(warnings).to_contain_text(text)
    evidence = page.get_by_role("region", name="Evidence")
    expect(evidence.locator("summary")).to_have_text("Evidence: 1 verified, 1 from the sender, 1 asserted")
    listed = evidence.locator(".claims li")
    expect(listed).to_have_count(3)
    expect(listed.first).to_contain_text("asserted <b>It floats</b>.")  # what is doubtful comes first
    expect(listed.last).to_contain_text("for two years shop.md › Warranty")
    expect(evidence).to_contain_text("A colleague names the colours.")
    expect(evidence).not_to_contain_text("Kind regards")


@in_browser
def test_who_answers_an_escalated_email_sees_the_proposal_and_cannot_approve_it(
    office: Office, page: Page
) -> None:
    email = office.receive("Warranty")
    office.escalate(email, proposal=written("Two <i>years</i>.", *CLAIMS))
    page.goto(office.address(email))
    expect(page.locator(".draft h2")).to_have_text("Proposed answer, not submitted")
    expect(page.locator(".draft .text")).to_have_text("Two <i>years</i>.")
    expect(page.get_by_role("region", name="Evidence").locator(".claims li")).to_have_count(3)
    expect(page.get_by_role("button", name="Approve and send")).to_have_count(0)


@in_browser
def test_a_rejected_draft_that_is_not_drafted_again_needs_a_person(office: Office, page: Page) -> None:
    email = office.receive("Warranty")
    reply = office.draft(email, "Two years.", reply_status="rejected")
    office.simulator.set_tags("support", reply, {"agent.reject_reason": "No."}, "somebody")
    office.simulator.decide(reply, "reject")
    page.goto(office.address(email))
    expect(page.locator(".draft .why")).to_have_text("Reason: No.")
    expect(page.locator(".draft")).not_to_contain_text("The agent writes a new draft")
    expect(page.get_by_role("link", name=re.compile("^1 Escalated$"))).to_be_visible()


@pytest.fixture
def reporting(tmp_path: Path) -> Iterator[Office]:
    with serve_office(tmp_path, report_hostile_text) as running:
        yield running


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_trust_report_is_one_link_away_and_styled_by_itself(
    reporting: Office, page: Page, scheme: Literal["light", "dark"]
) -> None:
    page.emulate_media(color_scheme=scheme)
    page.goto(reporting.url)
    page.get_by_role("link", name="Trust report").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Trust report: ready for less oversight?")
    expect(page.get_by_role("heading", name=f"{ATTACK}@northwind.example")).to_be_visible()
    expect(page.get_by_text("3 of 4 decided drafts; with a confidence")).to_be_visible()
    page.get_by_text("Decisions by category, edits and sources").click()
    expect(
        page.get_by_role("img", name="Of 5 submitted drafts: 3 approved, 1 refused, 1 pending")
    ).to_be_visible()
    expect(page.get_by_text("1 of 2 rejected").first).to_be_visible()
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(244, 245, 243)", "dark": "rgb(18, 23, 22)"}[scheme]
    assert page.evaluate("window.hacked") is None
    assert page.locator("script, img, link").count() == 0
    page.set_viewport_size(NARROW)
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    page.go_back()
    expect(page.get_by_role("link", name="Trust report")).to_be_visible()


@in_browser
@pytest.mark.parametrize(
    ("outcome", "headline"),
    [
        ("blocked_ungated", "Blocked: this mailbox sends without approval"),
        ("blocked_content_safety", "Blocked: content safety"),
        ("escalated", "Escalated to a person"),
        ("skipped", "Skipped"),
        ("ignored", "No answer needed"),
        ("needs_human", "Needs a person"),
        ("failed", "Failed"),
    ],
)
def test_an_email_without_answer_says_why(office: Office, page: Page, outcome: str, headline: str) -> None:
    email = office.receive("Something")
    office.tag(email, outcome=outcome, reason="because of the moon")
    page.goto(office.address(email))
    box = page.locator(".verdict")
    expect(box.get_by_role("heading")).to_have_text(headline)
    expect(box).to_contain_text("because of the moon")


@in_browser
def test_counts_and_filters_tell_the_outcomes_apart(office: Office, page: Page) -> None:
    office.draft(office.receive("Waits"), "Soon.")
    office.simulator.decide(office.draft(office.receive("Done"), "There you are."), "approve")
    for subject, outcome in (("Law", "escalated"), ("Attack", "blocked_content_safety"), ("News", "skipped")):
        office.tag(office.receive(subject), outcome=outcome)
    office.receive("New")
    page.goto(office.url)
    for name in ("Waiting for you", "Escalated", "Blocked", "Answered", "Skipped", "In progress"):
        tile = page.get_by_role("link", name=re.compile(f"^1 {name}$"))
        tile.click()
        expect(page.locator(".tile[aria-current]")).to_contain_text(name)
        expect(page.locator(".row")).to_have_count(1)
    expect(page.locator(".row .subject")).to_have_text("New")
    for name, count in (("To do", 3), ("All mail", 6)):
        page.get_by_role("link", name=re.compile(f"^{count} {name}$")).click()
        expect(page.locator(".row")).to_have_count(count)


@in_browser
def test_the_conversation_is_shown_oldest_first_and_leads_to_each_email(office: Office, page: Page) -> None:
    first = office.receive("Gauges", "How long?")
    office.simulator.human_reply(first, "Five days.")
    thread = office.stored(first).thread_id
    last = office.simulator.deliver(
        "support", "ann@customer.example", "Re: Gauges", "Thanks!", thread_id=thread
    )
    page.goto(office.address(last))
    entries = page.locator(".thread li")
    expect(entries).to_contain_text(["Received", "Sent", "Received"])
    entries.nth(1).get_by_role("link").click()
    expect(page.locator(".draft")).to_contain_text("Five days.")


@in_browser
def test_the_list_follows_the_agent_while_the_open_email_is_left_alone(office: Office, page: Page) -> None:
    email = office.receive("Warranty", "Is it still covered?")
    page.goto(office.address(email) + "&show=all")
    page.evaluate("document.querySelector('.email .text').dataset.kept = 'yes'")
    office.draft(email, "Yes.")
    expect(page.locator(".row .chip").first).to_have_text("Waiting for approval")
    expect(page.locator("[data-count=waiting]")).to_have_text("1")
    assert page.evaluate("document.querySelector('.email .text').dataset.kept") == "yes"
    expect(page.locator(".draft")).to_have_count(0)
    page.get_by_role("link", name="This email has changed").click()
    expect(page.locator(".draft")).to_contain_text("Yes.")


@in_browser
def test_focus_stays_on_the_same_email_when_the_list_is_refreshed(office: Office, page: Page) -> None:
    office.receive("First")
    page.goto(f"{office.url}/?show=all")
    page.get_by_role("link", name="First").focus()
    office.receive("Second")
    expect(page.locator(".row")).to_have_count(2)
    expect(page.get_by_role("link", name="First")).to_be_focused()


@in_browser
def test_approve_and_reject_are_reached_and_pressed_with_the_keyboard(office: Office, page: Page) -> None:
    email = office.receive("Warranty")
    reply = office.draft(email, "Two years.")
    page.goto(office.address(email))
    reached: list[str] = []
    while "Not now" not in reached and len(reached) < 40:
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent.trim()"))
    assert reached[0] == "Skip to the email"
    assert reached[-4:] == ["Approve and send", "Reject", "Edit", "Not now"]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    expect(page.locator("#reason")).to_be_focused()
    page.keyboard.press("Enter")
    expect(said(page)).to_have_text("Rejected: Warranty")
    assert office.stored(reply).status == "rejected"


@in_browser
def test_a_narrow_screen_shows_the_list_or_the_email_and_never_scrolls_sideways(
    office: Office, page: Page
) -> None:
    email = office.receive("W" * 300, "https://" + "x" * 400, f"{'n' * 60}@customer.example")
    reply = office.draft(email, "y" * 500)
    page.set_viewport_size(NARROW)
    page.goto(office.url)
    page.locator(".row").click()
    expect(page.get_by_role("button", name="Approve and send")).to_be_visible()
    expect(page.locator(".row")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    button = page.get_by_role("button", name="Approve and send").bounding_box()
    assert button is not None
    assert button["height"] >= 44
    page.get_by_role("link", name="Back to the inbox").click()
    expect(page.locator(".row")).to_be_visible()
    page.locator(".row").click()
    page.get_by_role("button", name="Approve and send").click()
    expect(said(page)).to_contain_text("Approved and sent")
    assert office.stored(reply).delivered_at == NOW


# Hostile mail

ATTACK = '"><img src=x onerror="window.hacked=1;alert(1)"><script>window.hacked=1</script>{{7*7}}</textarea></template>'


@in_browser
def test_markup_in_any_text_of_an_email_is_shown_and_not_run(office: Office, page: Page) -> None:
    file = Attachment(f"{ATTACK}.pdf", "text/html", b"x")
    sender = f'"{ATTACK.replace(chr(34), chr(39))}" <eve@attacker.example>'
    email = office.simulator.deliver("support", sender, ATTACK, ATTACK, attachments=[file])
    names = ("category", "urgency", "sentiment", "reason")
    office.draft(email, ATTACK, None, **dict.fromkeys(names, ATTACK))
    with page.expect_response(re.compile("/updates")):
        page.goto(office.address(email))
    for place in (
        ".detail h1",
        ".email .text >> nth=0",
        ".draft .text",
        ".files",
        ".reason",
        ".row .subject",
    ):
        expect(page.locator(place)).to_contain_text("<script>window.hacked=1</script>{{7*7}}")
    expect(page.locator(".meta .from")).to_contain_text("<script>")
    expect(page.locator(".row .sender")).to_contain_text("<script>")
    expect(page.locator(".row .chip").nth(2)).to_contain_text("<img src=x")
    assert page.evaluate("window.hacked") is None
    assert page.locator("main img, main script").count() == 0


@in_browser
def test_markup_in_an_unknown_outcome_and_a_refusal_is_shown_and_not_run(office: Office, page: Page) -> None:
    refused, odd = office.receive("Refused"), office.receive("Odd")
    office.tag(refused, outcome="escalated", reason=ATTACK)
    office.tag(odd, outcome=ATTACK, action=ATTACK, reply_id="../../../oversight/pending?x=#")
    page.goto(office.address(refused) + "&show=all")
    expect(page.locator(".why").first).to_contain_text("<script>window.hacked=1</script>")
    expect(page.locator(".row", has_text="Odd").locator(".chip").first).to_contain_text("<img src=x")
    assert page.evaluate("window.hacked") is None


@in_browser
def test_a_script_that_slipped_into_the_page_would_be_stopped_by_its_policy(
    office: Office, page: Page
) -> None:
    page.goto(office.url)
    ran = page.evaluate(
        """async () => {
            const script = document.createElement("script");
            script.textContent = "window.hacked = 'script'";
            const box = document.createElement("div");
            box.innerHTML = "<img src='data:,' onerror='window.hacked = 1'>";
            const failed = new Promise((done) => box.firstChild.addEventListener("error", done));
            document.body.append(script, box);
            await failed;
            return window.hacked ?? "nothing";
        }"""
    )
    assert ran == "nothing"


# The wire: who may ask, who may decide


def test_every_answer_forbids_foreign_content_framing_and_caching(office: Office) -> None:
    for path in ("/", "/updates", "/static/approval.js", "/no-such-page"):
        headers = requests.get(office.url + path, timeout=10).headers
        policy = headers["Content-Security-Policy"].split("; ")
        assert {
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        } <= set(policy)
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:80", "localhost.evil.example", "10.0.0.1", ""]
)
def test_a_foreign_host_is_refused(office: Office, host: str) -> None:
    assert requests.get(office.url, headers={"Host": host}, timeout=10).status_code == 400


@pytest.mark.parametrize("host", ["127.0.0.1:8123", "localhost:1", "[::1]:8123", "localhost"])
def test_every_loopback_name_is_served(office: Office, host: str) -> None:
    assert requests.get(office.url, headers={"Host": host}, timeout=10).status_code == 200


@pytest.mark.parametrize("token", [None, "", "guess", "ü"])
def test_a_decision_without_the_page_s_token_changes_nothing(office: Office, token: str | None) -> None:
    reply = office.draft(office.receive("Warranty"), "Two years.")
    form = decision(reply, "approve", email="x") | ({} if token is None else {"csrf_token": token})
    assert requests.post(f"{office.url}/decide", data=form, timeout=10).status_code == 403
    assert office.stored(reply).status == "pending_send_approval"


def test_a_decision_is_taken_by_post_only_and_is_approve_or_reject(office: Office) -> None:
    email = office.receive("Warranty")
    reply = office.draft(email, "Two years.")
    token = csrf_token(requests.get(office.address(email), timeout=10).text)
    form = decision(reply, "approve", email, csrf_token=token)
    assert requests.get(f"{office.url}/decide", params=form, timeout=10).status_code == 405
    assert (
        requests.post(f"{office.url}/decide", data=form | {"action": "send"}, timeout=10).status_code == 400
    )
    assert requests.post(f"{office.url}/", data=form, timeout=10).status_code == 405
    assert office.stored(reply).status == "pending_send_approval"


def test_a_decision_leads_back_to_this_page_whatever_the_form_says(office: Office) -> None:
    email = office.receive("Warranty")
    reply = office.draft(email, "Two years.")
    token = csrf_token(requests.get(office.address(email), timeout=10).text)
    form = {
        "reply_id": reply,
        "action": "reject",
        "csrf_token": token,
        "mailbox": "//evil.example",
        "email": "x",
    }
    answer = requests.post(f"{office.url}/decide", data=form, timeout=10, allow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith("/?")


def test_what_the_agent_cannot_keep_leaves_the_draft_undecided_and_the_words_in_their_form(
    office: Office,
) -> None:
    email = office.receive("Warranty")
    reply = office.draft(email, "Two years.")
    token = csrf_token(requests.get(office.address(email), timeout=10).text)
    office.agent.is_away = True
    for action, name in (("reject", "reason"), ("edit", "text")):
        form = decision(reply, action, email, csrf_token=token) | {name: "My own <words>"}
        answer = requests.post(f"{office.url}/decide", data=form, timeout=10)
        assert answer.status_code == 502
        assert "try again in a minute" in answer.text
        if action == "reject":
            assert 'value="My own &lt;words&gt;"' in answer.text
        assert office.stored(reply).status == "pending_send_approval"
    office.agent.is_away = False
    answer = requests.post(
        f"{office.url}/decide",
        data=decision(reply, "edit", email, csrf_token=token, text="x" * 9_000), timeout=10,
    )  # fmt: skip
    assert answer.status_code == 502
    assert "must have 1 to 8000 characters" in answer.text
    assert "x" * 9_000 in answer.text
    assert office.stored(reply).status == "pending_send_approval"


def test_a_reason_goes_only_to_a_draft_that_waits(office: Office) -> None:
    email = office.receive("Warranty")
    reply = office.draft(email, "Two years.")
    token = csrf_token(requests.get(office.address(email), timeout=10).text)
    form = decision(email, "reject", email, csrf_token=token, reason="Shorter")
    before = office.stored(email).tags
    answer = requests.post(f"{office.url}/decide", data=form, timeout=10)
    assert "so nothing was done. It is now: Waiting for approval" in answer.text
    assert office.stored(email).tags == before
    long = form | {"reply_id": reply, "reason": "x" * 2000}
    assert (
        requests.post(f"{office.url}/decide", data=long, timeout=10, allow_redirects=False).status_code == 303
    )
    assert len(office.stored(reply).tags["agent.reject_reason"]) == MAX_REJECT_REASON_CHARACTERS


def test_the_report_names_what_is_wrong_and_keeps_the_page_s_headers(office: Office) -> None:
    answer = requests.get(f"{office.url}/report?days=0", timeout=10)
    assert (answer.status_code, answer.text) == (400, "days must be a whole number from 1 to 365.")
    headers = requests.get(f"{office.url}/report?format=html", timeout=10).headers
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert headers["Cache-Control"] == "no-store"
    assert (
        requests.get(f"{office.url}/report", headers={"Host": "evil.example"}, timeout=10).status_code == 400
    )


@pytest.mark.parametrize("action", ["approve", "reject", "edit"])
def test_a_decision_that_meets_another_one_does_nothing_and_says_what_it_is_now(
    office: Office, action: str
) -> None:
    email = office.receive("Warranty")
    reply = office.draft(email, "Two years.")
    token = csrf_token(requests.get(office.address(email), timeout=10).text)
    office.simulator.decide(reply, "approve" if action == "reject" else "reject")
    form = decision(reply, action, email, csrf_token=token, text="Three years.", reason="No")
    answer = requests.post(f"{office.url}/decide", data=form, timeout=10)
    now = "Answered" if action == "reject" else "Draft rejected"
    assert f"so nothing was done. It is now: {now}." in answer.text
    assert (office.stored(reply).delivered_at is None) == (action != "reject")
    assert office.agent.entry(email).review is None  # what was said was taken back


def is_a_decision(method: str, path: str) -> bool:
    return (method, path) == ("POST", "/v1/oversight/decide")


@pytest.mark.parametrize("status", [400, 403, 409, 429])
def test_what_was_said_is_taken_back_when_the_draft_was_certainly_not_rejected(
    office: Office, status: int
) -> None:
    email = office.receive("Warranty")
    reply = office.draft(email, "Two years.")
    token = csrf_token(requests.get(office.address(email), timeout=10).text)
    for action, name in (("reject", "reason"), ("edit", "text")):
        office.simulator.fault = in_order(answer_with(status), matching=is_a_decision)
        form = decision(reply, action, email, csrf_token=token) | {name: "Three <years>."}
        requests.post(f"{office.url}/decide", data=form, timeout=10)
        assert office.agent.entry(email).review is None
    assert office.stored(reply).tags == {"agent.reject_reason": ""}
    html = requests.get(office.address(email), timeout=10).text
    assert "A reviewer's text that does not count" in html
    assert "Three &lt;years&gt;." in html
    with other_desk(office) as url:  # where nobody keeps the next reviewer out
        form = decision(reply, "reject", email, csrf_token=csrf_token(requests.get(url, timeout=10).text))
        requests.post(f"{url}/decide", data=form, timeout=10)
    assert office.stored(reply).status == "rejected"


@pytest.mark.parametrize("is_done", [True, False])
def test_a_decision_without_an_answer_leaves_what_was_said_and_the_agent_looks_at_once(
    office: Office, *, is_done: bool
) -> None:
    email = office.receive("Warranty")
    reply = office.draft(email, "Two years.")
    token = csrf_token(requests.get(office.address(email), timeout=10).text)
    office.simulator.fault = in_order(answer_with(503, after_effect=is_done), matching=is_a_decision)
    form = decision(reply, "edit", email, csrf_token=token, text="Three years.")
    assert requests.post(f"{office.url}/decide", data=form, timeout=10).status_code == 502
    entry = office.agent.entry(email)
    assert entry.review is not None
    assert (entry.finished_at is None, entry.edit is not None) == (is_done, is_done)


def test_a_service_that_is_away_is_explained_and_no_key_is_shown(office: Office) -> None:
    office.simulator.revoke_key(office.key)
    answer = requests.get(office.url, timeout=10)
    assert answer.status_code == 502
    assert "MultiMail refused the key" in answer.text
    assert office.key not in answer.text


def test_without_the_agent_the_mail_is_shown_and_nothing_is_decided(office: Office) -> None:
    email = office.receive("Warranty")
    reply = office.draft(email, "Two years.")
    token = csrf_token(requests.get(office.address(email), timeout=10).text)
    office.agent.is_away = True
    html = requests.get(office.address(email), timeout=10).text
    assert "The agent cannot be reached, so nothing can be decided here" in html
    assert "Two years." in html
    assert "<button" not in html  # none would do anything
    form = decision(reply, "approve", email, csrf_token=token)
    answer = requests.post(f"{office.url}/decide", data=form, timeout=10)
    assert answer.status_code == 502
    assert answer.text.count("be reached") == 1  # it is said once
    assert office.stored(reply).status == "pending_send_approval"


def test_what_was_typed_stays_while_the_agent_is_away_and_no_other_button_does(office: Office) -> None:
    email = office.receive("Warranty")
    reply = office.draft(email, "Two years.")
    token = csrf_token(requests.get(office.address(email), timeout=10).text)
    office.agent.is_away = True
    form = decision(reply, "edit", email, csrf_token=token, text="Dear Ann, two years.")
    html = requests.post(f"{office.url}/decide", data=form, timeout=10).text
    assert re.findall(r'<button[^>]*value="(\w+)"', html) == ["edit"]
    assert "Dear Ann, two years." in html


def test_a_wrong_function_key_is_named(office: Office) -> None:
    agent = RemoteAgent(AgentAccess(office.url, Secret("wrong")), "a", timeout=(5, 5))
    with pytest.raises(ConfigurationError, match="AGENT_URL"):
        agent.list_items()  # the desk's own address: there is no such function
    with LoopbackServer(office.agent.app) as functions:
        agent = RemoteAgent(AgentAccess(functions.url, Secret("wrong")), "a", timeout=(5, 5))
        with pytest.raises(ConfigurationError, match="AGENT_KEY"):
            agent.list_items()


def test_the_page_recovers_from_a_service_that_failed_for_a_while(office: Office) -> None:
    email = office.receive("Warranty")
    office.tag(email, outcome="escalated")

    office.simulator.fault = in_order(
        answer_with(500, {"error": "down"}), matching=lambda _method, path: path.endswith("/tags")
    )
    assert requests.get(office.url, timeout=10).status_code == 502
    (row,) = requests.get(f"{office.url}/updates", timeout=10).json()["rows"]
    assert row["chips"][0]["text"] == "Escalated"


def test_a_listing_that_broke_off_leaves_no_gap(office: Office) -> None:
    for number in range(250):
        office.tag(office.receive(f"Email {number}"), outcome="skipped")
    listing = in_order(None, answer_with(500), matching=lambda _method, path: path.endswith("/emails"))
    office.simulator.fault = listing
    assert requests.get(office.url, timeout=10).status_code == 502
    assert requests.get(f"{office.url}/updates", timeout=10).json()["counts"]["all"] == 250


def test_an_oversized_form_is_refused_on_a_page_that_leads_back(office: Office) -> None:
    answer = requests.post(f"{office.url}/decide", data={"csrf_token": "x" * 200_000}, timeout=10)
    assert answer.status_code == 413
    assert 'href="/"' in answer.text


# Reading without disturbing


def test_listing_marks_no_email_as_read(office: Office) -> None:
    emails = [office.receive("Handled"), office.receive("New")]
    office.draft(emails[0], "Done.")
    requests.get(f"{office.url}/?show=all", timeout=10)
    requests.get(f"{office.url}/updates", timeout=10)
    assert [office.stored(email).status for email in emails] == ["unread", "unread"]


def test_older_mail_that_the_agent_has_not_read_stays_unread(office: Office) -> None:
    ago = 60 * 24 * (SHOWN_FOR.days + 10)
    waiting, escalated = office.receive("Waits", ago=ago), office.receive("Escalated", ago=ago)
    office.agent.ledger.add(LedgerEntry("support", waiting, NOW, "ann@customer.example", None, NOW))
    office.escalate(escalated)
    assert "Escalated" in requests.get(f"{office.url}/?show=all", timeout=10).text
    assert (office.stored(waiting).status, office.stored(escalated).status) == ("unread", "read")
    assert office.reads_of(waiting) == []


def test_tags_of_a_settled_email_are_read_once_and_of_an_open_one_again(office: Office) -> None:
    settled, open_email = office.receive("Settled"), office.receive("Open")
    office.tag(settled, outcome="escalated")
    for _ in range(3):
        requests.get(f"{office.url}/updates", timeout=10)
    assert office.reads_of(settled) == ["/tags"]
    assert office.reads_of(open_email) == ["/tags"] * 3


def test_an_email_that_the_agent_may_open_again_is_looked_at_again(office: Office) -> None:
    email = office.receive("Covered")
    office.tag(email, outcome="skipped", cause="covered")
    assert "Skipped" in requests.get(f"{office.url}/?show=all", timeout=10).text
    office.tag(email, outcome="escalated", cause="reply_rejected")
    assert "Escalated" in requests.get(f"{office.url}/?show=escalated", timeout=10).text
    assert len(office.reads_of(email)) == 2


def test_a_flood_is_one_entry_with_a_count(office: Office) -> None:
    for number in range(7):
        email = office.receive("Again", sender=f"eve+{number}@elsewhere.example")
        cause = "sender_flood" if number % 2 else "sender_tokens"
        office.tag(email, outcome="escalated", cause=cause)
    text = requests.get(f"{office.url}/?show=all", timeout=10).text
    assert text.count("eve+") == 1
    assert "and 6 more of this sender" in text
    seen_to = office.receive("Again", sender="eve+8@elsewhere.example")
    office.tag(seen_to, outcome="skipped", cause="sender_flood")  # hides none of the others
    for show in ("escalated", "skipped"):
        assert requests.get(f"{office.url}/?show={show}", timeout=10).text.count("eve+") == 1


def test_a_long_inbox_is_paged_and_looked_at_bit_by_bit(office: Office) -> None:
    emails = [office.receive(f"Email {number}") for number in range(READS_PER_REFRESH + ROWS_PER_PAGE + 1)]
    office.draft(emails[0], "The oldest is looked at last, yet its draft is not listed twice.")
    for email in emails[1:]:
        office.tag(email, outcome="skipped")
    first = requests.get(f"{office.url}/updates?show=all", timeout=10).json()
    assert len(first["rows"]) == ROWS_PER_PAGE
    assert first["rows"][0]["subject"] == f"Email {len(emails) - 1}"
    assert first["catching_up"]
    assert first["counts"]["all"] == len(emails)
    assert first["counts"]["skipped"] < len(emails) - 1
    second = requests.get(f"{office.url}/updates?show=all&page=2", timeout=10).json()
    assert second["rows"][0]["subject"] == f"Email {len(emails) - 1 - ROWS_PER_PAGE}"
    assert not second["catching_up"]
    assert second["counts"]["all"] == len(emails)
    assert second["counts"]["skipped"] == len(emails) - 1
    before = len(office.simulator.requests)
    requests.get(f"{office.url}/updates?show=all", timeout=10)
    assert len(office.simulator.requests) - before == 3  # mailboxes, the newest page, the approval queue


def test_a_deleted_email_s_tags_do_not_take_the_page_down(office: Office) -> None:
    email = office.receive("Warranty")
    office.tag(email, outcome="reply_submitted", reply_id="em_gone")
    assert requests.get(office.url, timeout=10).status_code == 200


@pytest.mark.parametrize("reply_id", ["..", "../../../oversight/pending?x=#"])
def test_a_tag_that_names_no_email_does_not_take_the_page_down(office: Office, reply_id: str) -> None:
    office.tag(office.receive("Warranty"), outcome="reply_submitted", reply_id=reply_id)
    assert requests.get(office.url, timeout=10).status_code == 200


def test_a_key_without_the_oversight_scope_is_named(office: Office) -> None:
    key = Secret(office.simulator.add_key())
    oversight = Oversight(office.api_url, StaticSecret(key), timeout=(5, 5))
    with pytest.raises(ConfigurationError, match="lacks the oversight scope"):
        oversight.pending()
    with pytest.raises(ConfigurationError, match="lacks the oversight scope"):
        oversight.decide("em_1", "approve")


def test_a_decision_is_never_sent_twice(office: Office) -> None:
    """An approval whose answer was lost may have sent the email."""
    reply = office.draft(office.receive("Warranty"), "Two years.")
    oversight = Oversight(office.api_url, StaticSecret(Secret(office.key)), timeout=(5, 5))
    office.simulator.fault = in_order(answer_with(503), matching=lambda method, _path: method == "POST")
    with pytest.raises(TransientError):
        oversight.decide(reply, "approve")
    assert [r.path for r in office.simulator.requests if r.method == "POST"] == ["/v1/oversight/decide"]


def test_a_waiting_email_that_answers_none_is_listed_too_and_can_be_approved(office: Office) -> None:
    outgoing = Outgoing("We moved.", to=("bob@partner.example",), subject="Our new address")
    email, _ = office.simulator.send("support", outgoing, "agent")
    update = requests.get(f"{office.url}/updates", timeout=10).json()
    assert not update["catching_up"]
    (row,) = update["rows"]
    assert (row["sender"], row["subject"]) == ("To bob@partner.example", "Our new address")
    html = requests.get(office.address(email.id), timeout=10).text
    assert "Approve and send" in html
    assert 'value="edit"' not in html
    form = decision(email.id, "reject", email.id, csrf_token=csrf_token(html))
    refused = requests.post(f"{office.url}/decide", data=form | {"reason": "No"}, timeout=10)
    assert "without a reason only" in refused.text
    assert office.stored(email.id).status == "pending_send_approval"
    requests.post(f"{office.url}/decide", data=form | {"action": "approve"}, timeout=10)
    assert office.stored(email.id).delivered_at == NOW


# Reasons on offer, where a simulated model can follow some only


@in_browser
def test_an_offered_reason_is_chosen_and_sent_with_the_keyboard_alone(offering: Office, page: Page) -> None:
    email = offering.receive("Warranty")
    reply = offering.draft(email, "Two years.")
    page.goto(offering.address(email))
    page.keyboard.press("r")
    page.keyboard.press("Shift+Tab")
    expect(page.get_by_label("No reason: no new draft")).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(said(page)).to_have_text("Rejected: Warranty")
    assert offering.stored(reply).tags == {"agent.reject_reason": "Warmer."}
    page.goto(offering.address(email))
    expect(page.locator(".draft")).to_contain_text("The agent writes a new draft with this reason")


@in_browser
def test_words_typed_after_r_are_the_reason_where_reasons_are_offered_too(
    offering: Office, page: Page
) -> None:
    email = offering.receive("Warranty")
    reply = offering.draft(email, "Two years.")
    page.goto(offering.address(email))
    page.keyboard.press("r")
    page.keyboard.type("a shorter one")
    page.keyboard.press("Enter")
    expect(said(page)).to_have_text("Rejected: Warranty")
    assert offering.stored(reply).tags == {"agent.reject_reason": "a shorter one"}


@in_browser
def test_while_a_form_is_open_no_key_chooses_another_decision(offering: Office, page: Page) -> None:
    email = offering.receive("Warranty")
    offering.draft(email, "Two years.")
    page.clock.install()
    page.goto(offering.address(email))
    keyboard = Keyboard(page)
    keyboard.press("r")
    page.get_by_label("Warmer.").check()
    for key in ("a", "n", "r"):
        keyboard.press(key)
        expect(page.locator("details.reject[open]")).to_have_count(1)
        expect(page.get_by_role("button", name="Approve and send")).not_to_be_focused()
        expect(page.get_by_role("button", name="Not now")).not_to_be_focused()
    expect(page.locator("#reason")).to_be_focused()
    expect(page.get_by_label("Warmer.")).to_be_checked()


@in_browser
def test_a_written_reason_replaces_the_chosen_one_and_the_page_says_what_the_model_cannot(
    offering: Office, page: Page
) -> None:
    email = offering.receive("Warranty")
    reply = offering.draft(email, "Two years.")
    page.goto(offering.address(email))
    page.keyboard.press("r")
    page.get_by_label("Shorter.").check()
    written = page.get_by_role("textbox", name="Another reason")
    written.fill("As a poem")
    expect(page.get_by_label("Shorter.")).not_to_be_checked()
    page.get_by_label("Warmer.").check()
    expect(written).to_have_value("")
    written.fill("As a poem")
    expect(page.locator("#reason-hint")).to_contain_text("cannot follow another reason")
    page.get_by_role("button", name="Reject the draft").click()
    expect(said(page)).to_have_text("Rejected: Warranty")
    page.goto(offering.address(email))
    expect(page.locator(".draft")).to_contain_text("The simulated model cannot follow this reason")
    assert offering.stored(reply).tags == {"agent.reject_reason": "As a poem"}


@in_browser
def test_the_reasons_can_be_used_on_a_phone(offering: Office, page: Page) -> None:
    email = offering.receive("Warranty")
    reply = offering.draft(email, "Two years.")
    page.set_viewport_size(NARROW)
    page.goto(offering.address(email))
    page.get_by_text("Reject", exact=True).click()
    for reason in REASONS:
        box = page.locator(".reasons label", has_text=reason).bounding_box()
        assert box is not None
        assert box["height"] >= 36
        assert box["x"] + box["width"] <= NARROW["width"]
    page.get_by_text(REASONS[2]).click()
    page.get_by_role("button", name="Reject the draft").click()
    expect(said(page)).to_have_text("Rejected: Warranty")
    assert offering.stored(reply).tags == {"agent.reject_reason": REASONS[2]}


def test_without_its_script_a_written_reason_counts_more_than_a_chosen_one(offering: Office) -> None:
    email = offering.receive("Warranty")
    reply = offering.draft(email, "Two years.")
    html = requests.get(offering.address(email), timeout=10).text
    assert "<b>urgent" not in html
    form = decision(reply, "reject", email, csrf_token=csrf_token(html))
    both = form | {"offered_reason": "Shorter.", "reason": "As a poem"}
    assert requests.post(f"{offering.url}/decide", data=both, timeout=10).status_code == 200
    assert offering.stored(reply).tags == {"agent.reject_reason": "As a poem"}


def test_the_page_of_a_real_account_offers_no_reasons_and_speaks_of_no_simulated_model(
    office: Office,
) -> None:
    email = office.receive("Warranty")
    office.draft(email, "Two years.")
    html = requests.get(office.address(email), timeout=10).text
    assert "Reason (optional; the agent redrafts with it)" in html
    assert "offered_reason" not in html
    assert "simulated" not in html


def list_subjects(office: Office, query: str = "") -> list[str]:
    rows = requests.get(f"{office.url}/updates{query}", timeout=10).json()["rows"]
    return [row["subject"] for row in rows]


def test_the_most_urgent_comes_first_whatever_it_is(office: Office) -> None:
    for subject, urgency in (("Low draft", "low"), ("High draft", "high")):
        office.draft(office.receive(subject, ago=9), "Yes.", urgency=urgency)
    office.escalate(office.receive("Line down"), triage=triaged(urgency="critical"))
    office.escalate(office.receive("High, left to people", ago=10), triage=triaged(urgency="high"))
    assert list_subjects(office) == ["Line down", "High draft", "High, left to people", "Low draft"]


def test_the_id_that_a_notification_names_is_on_the_page_and_is_found(office: Office) -> None:
    office.escalate(office.receive("Others"))
    email = office.receive("Law")
    office.escalate(email)
    assert list_subjects(office, f"?show=all&q={email}") == ["Law"]
    assert list_subjects(office, f"?show=all&q={email[:-1]}") == []
    assert f"id {email}" in requests.get(office.address(email), timeout=10).text


def test_the_id_of_an_email_of_a_flood_is_found(office: Office) -> None:
    emails = [office.receive(f"Flood {n}", ago=n) for n in range(3)]
    for email in emails:
        office.tag(email, outcome="escalated", cause="sender_flood")
    assert list_subjects(office, "?show=all") == ["Flood 0"]
    assert list_subjects(office, f"?show=all&q={emails[2]}") == ["Flood 2"]


@in_browser
def test_what_is_left_to_people_says_how_to_answer_it_and_its_proposal_can_be_copied(
    office: Office, page: Page
) -> None:
    email = office.receive("Warranty")
    office.escalate(email, proposal=plain_draft("Two **years**.\n\nYours"))
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(office.address(email))
    expect(page.locator(".verdict")).to_contain_text("To answer: write in MultiMail's dashboard")
    page.get_by_role("button", name="Copy the proposed answer").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "Two **years**.\n\nYours"


@in_browser
@pytest.mark.parametrize("key", ["r", "e"])
def test_a_form_that_was_opened_can_be_cancelled(office: Office, page: Page, key: str) -> None:
    reply = office.draft(office.receive("Warranty"), "Two years.")
    page.set_viewport_size(ViewportSize(width=1280, height=900))
    page.goto(office.url)
    page.keyboard.press(key)
    box = page.locator(".decision").bounding_box()
    assert box is not None
    assert box["height"] <= 450  # the rest is for what one needs to read
    page.get_by_role("link", name="Cancel").locator("visible=true").click()
    expect(page.locator(".decision details[open]")).to_have_count(0)
    expect(page.get_by_role("button", name="Approve and send")).to_be_visible()
    assert office.stored(reply).status == "pending_send_approval"


# Twenty drafts in a row


@dataclass
class Keyboard:
    """Presses keys and counts them; typed words do not count."""

    page: Page
    pressed: int = 0

    def press(self, *keys: str) -> None:
        self.page.wait_for_load_state("domcontentloaded")  # the page's script has run
        pause_keys(self.page)
        for key in keys:
            self.page.keyboard.press(key)
            self.pressed += 1


def pause_keys(page: Page) -> None:
    """As long as one who types a word would not pause."""
    page.clock.fast_forward(700)


@in_browser
def test_a_person_decides_twenty_drafts_by_keyboard_alone_the_most_urgent_first(
    office: Office, page: Page, measured: Callable[[str], None]
) -> None:
    urgencies = ["low", "normal", "high", "critical"] * 5
    emails = [office.receive(f"Email {n}", ago=20 - n) for n in range(20)]
    replies = [
        office.draft(email, f"Answer {n}.", urgency=urgency)
        for n, (email, urgency) in enumerate(zip(emails, urgencies, strict=True))
    ]
    order = sorted(range(20), key=lambda n: (-("low", "normal", "high", "critical").index(urgencies[n]), n))
    keyboard = Keyboard(page)
    page.clock.install()
    page.goto(office.url)
    decided = {}
    for place, n in enumerate(order):
        expect(page.locator(".detail h1")).to_have_text(f"Email {n}")
        if place % 4 == 0:
            keyboard.press("r")
            page.keyboard.type(f"Because {n}")
            keyboard.press("Enter")
            decided[n] = "Rejected"
        elif place % 4 == 1:
            keyboard.press("e")
            page.keyboard.press("Control+End")
            page.keyboard.type(" Yes.")
            keyboard.press("Control+Enter")
            decided[n] = "Your text replaces the draft and still has to be approved"
        else:
            keyboard.press("a", "Enter")
            decided[n] = "Approved and sent"
        expect(said(page)).to_have_text(f"{decided[n]}: Email {n}")
    expect(page.locator(".detail h1")).to_have_text("Nothing is left to do")
    assert keyboard.pressed == 40
    measured(f"20 drafts decided with {keyboard.pressed} keys, without the words of reasons and edits")
    for n, reply in enumerate(replies):
        approved = decided[n] == "Approved and sent"
        assert (office.stored(reply).status == "rejected", office.stored(reply).delivered_at == NOW) == (
            not approved,
            approved,
        )
        review = office.agent.entry(emails[n]).review
        if decided[n] == "Rejected":
            assert review is not None
            assert review.reason == f"Because {n}"
        elif not approved:
            assert review is not None
            assert review.edited is not None
            assert review.edited.reply_markdown == f"Answer {n}. Yes."


@in_browser
def test_not_now_next_previous_search_and_done_are_one_or_two_keys(office: Office, page: Page) -> None:
    for ago, name in enumerate(("Second", "First"), 1):
        office.draft(office.receive(name, ago=ago), f"To the {name}.")
    office.escalate(office.receive("Law"))
    keyboard = Keyboard(page)
    heading = page.locator(".detail h1")
    page.clock.install()
    page.goto(office.url)
    expect(heading).to_have_text("First")
    keyboard.press("j")
    expect(heading).to_have_text("Second")
    keyboard.press("k")
    expect(heading).to_have_text("First")
    keyboard.press("n", "Enter")
    expect(said(page)).to_have_text("Left for later: First")
    expect(heading).to_have_text("Second")
    keyboard.press("j")
    expect(heading).to_have_text("Law")
    keyboard.press("d", "Enter")
    expect(said(page)).to_have_text("Marked as done: Law")
    expect(heading).to_have_text("First")  # put off, it came last
    keyboard.press("/")
    page.keyboard.type("law")
    keyboard.press("Enter")
    expect(page.locator(".row")).to_have_count(1)
    expect(page.locator(".row .chip").first).to_have_text("Done")


@in_browser
@pytest.mark.parametrize(
    "words",
    ["say a word, as a guest, with a", "great news", "merry", "on", "add", "ja", "so", "in a word", "a "],
)
def test_words_typed_where_no_form_is_open_decide_nothing(office: Office, page: Page, words: str) -> None:
    reply = office.draft(office.receive("First", ago=2), "Yes.")
    office.escalate(office.receive("Second"))
    page.clock.install()
    page.goto(office.url)
    for letter in words:
        page.keyboard.press(letter)
        page.wait_for_load_state("domcontentloaded")
        page.clock.fast_forward(200)
    page.keyboard.press("Enter")
    pause_keys(page)
    page.keyboard.press("n")
    expect(page.get_by_role("button", name="Not now")).to_be_focused()
    expect(page.locator(".decision details[open]")).to_have_count(0)
    expect(said(page)).to_be_hidden()
    assert office.stored(reply).status == "pending_send_approval"
    assert [item.put_off_at for item in office.agent.reviews.list_items("")] == [None, None]


@in_browser
def test_the_first_letter_of_a_reason_is_not_lost_however_fast_it_is_typed(
    office: Office, page: Page
) -> None:
    office.draft(office.receive("First"), "Yes.")
    page.goto(office.url)
    typed = page.evaluate(
        """() => {
            const press = (target, key) => target.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
            press(document.body, "r");
            return document.activeElement.id;
        }"""
    )
    assert typed == "reason"


@in_browser
def test_who_has_begun_to_edit_cannot_send_the_draft_as_it_was_by_mistake(office: Office, page: Page) -> None:
    office.draft(office.receive("First"), "Yes.")
    page.goto(office.url)
    approve = page.get_by_role("button", name="Approve and send")
    expect(approve).to_be_visible()
    page.keyboard.press("e")
    expect(approve).to_be_hidden()
    page.keyboard.press("Escape")
    expect(approve).to_be_visible()


@in_browser
def test_who_approves_sees_who_the_sender_is_to_us(office: Office, page: Page) -> None:
    known, new = office.receive("Known"), office.receive("New", sender=f"eve@{'n' * 40}orthwind.example")
    facts = ("first contact", "resembles our domain northwind.example: northw1nd.example", "<b>x</b>")
    office.draft(new, "Yes.", replace(plain_draft("Yes."), sender_facts=facts))
    office.escalate(known, proposal=replace(plain_draft("No."), sender_facts=("in the address book",)))
    page.goto(office.address(new))
    listed = page.get_by_role("list", name="Who the sender is to us").get_by_role("listitem")
    expect(listed).to_have_text(facts)
    page.goto(office.address(known))
    expect(listed).to_have_text(["in the address book"])


@in_browser
def test_the_keys_can_be_switched_off(office: Office, page: Page) -> None:
    office.draft(office.receive("First"), "Yes.")
    page.goto(office.url)
    page.get_by_text("Keys", exact=True).click()
    page.get_by_label("Use these keys").uncheck()
    page.reload()
    page.keyboard.press("a")
    expect(page.get_by_role("button", name="Approve and send")).not_to_be_focused()


@in_browser
def test_nothing_to_decide_still_shows_what_is_left_to_people(office: Office, page: Page) -> None:
    office.escalate(office.receive("Law"))
    office.escalate(office.receive("Broken"), Outcome.NEEDS_HUMAN)
    page.goto(office.url)
    expect(page.locator(".row")).to_have_count(2)
    expect(page.locator(".verdict")).to_be_visible()
    expect(page.locator("[data-count=waiting]")).to_have_text("0")


@in_browser
@pytest.mark.parametrize("width", [320, 390, 1920])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_decision_is_in_reach_however_long_the_mail_is(
    office: Office, page: Page, width: int, scheme: Literal["light", "dark"]
) -> None:
    email = office.receive("Long", "\n\n".join(f"Line {n} of a long mail." for n in range(800)))
    office.draft(email, "Short.", replace(written("Short.", *CLAIMS), notes=("w" * 200,)))
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(ViewportSize(width=width, height=640))
    page.goto(office.address(email))
    for name in ("Approve and send", "Not now"):
        box = page.get_by_role("button", name=name).bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= 640
        assert box["height"] >= 44
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@in_browser
def test_mail_is_readable_its_quotes_are_counted_and_its_files_named(office: Office, page: Page) -> None:
    body = (
        "<div>Is&nbsp;it <b>covered</b>?<br>Ann</div><style>p{}</style><p>See <a href='https://a.example/x'>this</a></p>"
        "\n\nOn Mon, 2 Nov 2026 at 10:00, Support <support@northwind.example> wrote:\n> One\n> Two\n> Three\n"
    )
    file = Attachment("invoice.pdf", "application/pdf", b"x" * 5000)
    email = office.simulator.deliver(
        "support", "ann@customer.example", "Warranty", body, attachments=[file, file]
    )
    states = ("read", "not read: another one has the same name")
    office.draft(email, "Yes.", replace(plain_draft("Yes."), attachments=states))
    page.goto(office.address(email))
    card = page.get_by_role("region", name="Email", exact=True)
    expect(card.get_by_role("listitem")).to_have_text([re.compile(f", {state}$") for state in states])
    expect(card.locator(".text").first).to_contain_text("Is it covered?")
    expect(card.locator(".text").first).to_contain_text("this (https://a.example/x)")
    expect(card.locator(".text").first).not_to_contain_text("<div>")
    expect(card).to_contain_text("As it arrived, in HTML")
    expect(card).to_contain_text(re.compile(r"Quoted text and signature: \d+ lines"))
    expect(card).to_contain_text("2 attachments")
    expect(card).to_contain_text("invoice.pdf")


ORDER = "please cancel order 17."


@pytest.mark.parametrize(
    "body",
    [
        f"<html><head><title>Shop</title><body><p>{ORDER}</p></body></html>",
        f"<html><head><title>Shop</title><p>{ORDER}",
        f"Hi, I put <title>Shop in my <div> and now: {ORDER}",
        f"<title>Shop<body><p>{ORDER}</p>",
        f"<p>Thanks!</p><style>p{{}}<p>{ORDER}</p>",
        f"<p>Thanks!</p><script>{ORDER}",
        f"<p>Thanks!</p><!-- {ORDER}",
        f"<p>Thanks!</p><a href='{ORDER}",
        f"<p>Thanks!</p><template>{ORDER}",
        f"<p>Thanks!</p><template>{ORDER}</template>",
        f"<p>Thanks!</p><select><option>{ORDER}",
        f"<p>Thanks!</p><plaintext>{ORDER}",
        f"<frameset><p>{ORDER}",
        f"<p><![what[ ever]> {ORDER}",
    ],
)
def test_nothing_that_is_left_open_hides_what_follows(body: str) -> None:
    assert ORDER in read_text(body).own


def test_what_a_browser_hides_is_in_the_source_alone() -> None:
    body = "<head><title>News</title><style>p {}</style></head><p>One</p><!-- Two --><script>Three</script>"
    assert read_text(body) == ReadableText("One", "", body)


MARKUP = st.lists(
    st.sampled_from([
        "<p>", "</p>", "<a href='", "'", ">", "<!--", "-->", "<![x[", "<style>", "</style>", "<title>", "</title>", "<svg>",
        "<table>", "<tr>", "<template>", "</template>", "<frameset>", "&#xFDD0;", "&am", "\ud800", "\0", "word ", "\n\n",
    ])
)  # fmt: skip


@given(pieces=MARKUP)
def test_any_markup_can_be_read(pieces: list[str]) -> None:
    text = read_text(f"{''.join(pieces)} last words")
    assert "last words" in text.own + text.quoted


def test_a_decision_is_told_once_and_no_address_can_claim_one(office: Office) -> None:
    email = office.receive("Warranty")
    reply = office.draft(email, "Two years.")
    told = "Approved and sent: Warranty"
    for name in ("did=approve", "decision=approve", "decision=late"):
        html = requests.get(f"{office.url}/?{name}&of=support%20{email}", timeout=10).text
        assert "Approved and sent" not in html
        assert "nothing was done" not in html
    form = decision(reply, "approve", email, csrf_token=csrf_token(html))
    answer = requests.post(f"{office.url}/decide", data=form, timeout=10)
    assert told in answer.text
    assert told not in requests.get(answer.url, timeout=10).text


# Two reviewers


def test_who_edited_cannot_approve_where_the_profile_wants_another_one(tmp_path: Path) -> None:
    profiles = Profiles(MailboxProfile(edit_needs_second_reviewer=True))
    with serve_office(tmp_path, profiles=profiles) as office:
        email = office.receive("Warranty")
        first = office.draft(email, "Two years.")
        token = csrf_token(requests.get(office.address(email), timeout=10).text)
        form = decision(first, "edit", email, csrf_token=token, text="Three\r\nyears.\r\n")
        assert requests.post(f"{office.url}/decide", data=form, timeout=10).status_code == 200
        review = office.agent.entry(email).review
        assert review is not None
        assert review.edited is not None
        assert review.edited.reply_markdown == "Three\nyears.\n"
        second = office.draft(email, "Three\nyears.\n", review.edited)
        html = requests.get(office.address(email), timeout=10).text
        assert "wants another reviewer to approve" in html
        assert "Approve and send" not in html
        for address in (email, second):  # the reply itself, too, opened from the conversation
            form = decision(second, "approve", address, csrf_token=token)
            answer = requests.post(f"{office.url}/decide", data=form, timeout=10)
            assert answer.status_code == 502
            assert "wants another reviewer to approve" in answer.text
        assert office.stored(second).status == "pending_send_approval"
        with other_desk(office) as url:
            html = requests.get(f"{url}/?mailbox=support&email={email}", timeout=10).text
            form = decision(second, "approve", email, csrf_token=csrf_token(html))
            requests.post(f"{url}/decide", data=form, timeout=10)
        assert office.stored(second).delivered_at == NOW


def test_who_approves_an_edit_is_asked_whether_it_answers_what_was_open(office: Office) -> None:
    email = office.receive("Warranty")
    draft = replace(plain_draft("Two years."), open_points=(ModelText("Which gauge"),))
    first = office.draft(email, "Two years.", draft)
    html = requests.get(office.address(email), timeout=10).text
    assert "A person must still see to" in html
    form = decision(first, "edit", email, csrf_token=csrf_token(html), text="Three years.")
    requests.post(f"{office.url}/decide", data=form, timeout=10)
    office.draft(email, "Three years.", replace(draft, reply_markdown="Three years."))
    html = requests.get(office.address(email), timeout=10).text
    assert "Open in the draft before the edit" in html
    assert "Which gauge" in html
    assert "A person must still see to" not in html


def test_who_edited_cannot_approve_a_reply_that_the_agent_has_no_id_of_yet(tmp_path: Path) -> None:
    profiles = Profiles(MailboxProfile(edit_needs_second_reviewer=True))
    with serve_office(tmp_path, profiles=profiles) as office:
        email = office.receive("Warranty")
        first = office.draft(email, "Two years.")
        token = csrf_token(requests.get(office.address(email), timeout=10).text)
        form = decision(first, "edit", email, csrf_token=token, text="Three years.")
        assert requests.post(f"{office.url}/decide", data=form, timeout=10).status_code == 200
        assert office.agent.entry(email).finished_at is None
        second, _ = office.simulator.reply("support", email, Outgoing("Three years."), "agent")
        other, _ = office.simulator.send(
            "support", Outgoing("We moved.", to=("bob@partner.example",), subject="Our new address"), "agent"
        )
        for address in (email, second.id, other.id):
            form = decision(second.id, "approve", address, csrf_token=token)
            answer = requests.post(f"{office.url}/decide", data=form, timeout=10)
            assert "wants another reviewer to approve" in answer.text
        assert office.stored(second.id).status == "pending_send_approval"
        form = decision(other.id, "approve", other.id, csrf_token=token)
        requests.post(f"{office.url}/decide", data=form, timeout=10)
        assert office.stored(other.id).delivered_at == NOW
        with other_desk(office) as url:
            html = requests.get(f"{url}/?mailbox=support&email={second.id}", timeout=10).text
            form = decision(second.id, "approve", second.id, csrf_token=csrf_token(html))
            requests.post(f"{url}/decide", data=form, timeout=10)
        assert office.stored(second.id).delivered_at == NOW


@contextmanager
def other_desk(office: Office) -> Iterator[str]:
    """The desk of another reviewer, with a key of their own."""
    key = Secret(office.simulator.add_key(["read", "oversight"]))
    with LoopbackServer(office.agent.app) as functions:
        access = AgentAccess(functions.url, Secret(FUNCTION_KEY))
        with LoopbackServer(build_desk(office.api_url, key, access, clock=lambda: NOW)) as server:
            yield server.url


@in_browser
def test_two_reviewers_see_each_other_s_decisions(office: Office, page: Page) -> None:
    emails = [office.receive("First", ago=2), office.receive("Second", ago=1)]
    replies = [office.draft(email, "Yes.") for email in emails]
    page.goto(office.url)
    expect(page.locator(".row")).to_have_count(2)
    with other_desk(office) as url:
        html = requests.get(url, timeout=10).text
        form = decision(replies[0], "approve", emails[0], csrf_token=csrf_token(html))
        requests.post(f"{url}/decide", data=form, timeout=10)
    expect(page.locator(".row")).to_have_count(1)
    expect(page.get_by_role("link", name="This email has changed")).to_be_visible()
    page.keyboard.press("a")
    page.keyboard.press("Enter")
    expect(said(page)).to_contain_text("so nothing was done. It is now: Answered.")
    expect(page.locator(".draft h2")).to_contain_text("Answered")


def test_of_two_reviewers_at_once_the_later_one_keeps_what_was_typed_and_the_first_one_decides(
    office: Office,
) -> None:
    email = office.receive("Warranty")
    reply = office.draft(email, "Two years.")
    item = WorkItem("support", email)
    ann = Secret(office.key).fingerprint
    office.agent.reviews.edit(item, reply, ann, "Ann's text.")  # her desk is about to reject the draft
    with other_desk(office) as url:
        token = csrf_token(requests.get(f"{url}/?mailbox=support&email={email}", timeout=10).text)
        for action, name in (("edit", "text"), ("reject", "reason")):
            form = decision(reply, action, email, csrf_token=token) | {name: "The words of Ben"}
            answer = requests.post(f"{url}/decide", data=form, timeout=10)
            assert "Nothing was done: another reviewer is deciding this reply" in answer.text
            assert "The words of Ben" in answer.text
            assert "Waiting for approval" in answer.text  # what it is now
            assert ann not in answer.text
        assert office.stored(reply).status == "pending_send_approval"
        token = csrf_token(requests.get(office.address(email), timeout=10).text)
        form = decision(reply, "edit", email, csrf_token=token, text="Ann's text.")
        requests.post(f"{office.url}/decide", data=form, timeout=10)
        assert office.agent.entry(email).edited_by == ann
        form = decision(reply, "edit", email, csrf_token=token, text="Too late")
        late = requests.post(f"{url}/decide", data=form | {"csrf_token": csrf_token(answer.text)}, timeout=10)
        assert "so nothing was done. It is now: Draft rejected." in late.text
    edit = office.agent.entry(email).edit
    assert edit is not None
    assert edit.reply_markdown == "Ann's text."


def test_the_desk_says_that_an_edit_waits_while_the_mailbox_is_paused(office: Office) -> None:
    email = office.receive("Warranty")
    reply = office.draft(email, "Two years.")
    assert "mailbox is paused" not in requests.get(office.address(email), timeout=10).text
    pause(office.agent.ledger, "support", NOW)
    html = requests.get(office.address(email), timeout=10).text
    assert "It would not be submitted yet: its mailbox is paused." in html
    form = decision(reply, "edit", email, csrf_token=csrf_token(html), text="Three years.")
    answer = requests.post(f"{office.url}/decide", data=form, timeout=10)
    assert "Your text replaces the draft and still has to be approved: Warranty" in answer.text
    assert "Waiting: its mailbox is paused." in requests.get(office.address(email), timeout=10).text


# The README's picture, taken on demand: SCREENSHOT_DIR=docs pytest tests/test_approval_page.py -k picture


@in_browser
def test_picture_of_the_demo(browser: Browser, tmp_path: Path) -> None:
    clock = Clock()
    simulator = MultiMailSimulator(clock)
    seed_demo(simulator, clock())
    key = simulator.add_key(["read", "oversight"])
    with (
        LoopbackServer(simulator.app) as api,
        LoopbackServer(ChatSimulator(shields=True, respond=respond).app) as model,
    ):
        agent = DeskAgent(api.url, simulator.add_key(), tmp_path, clock, report=report_nothing)
        built = build_agent(
            Settings.from_env(
                {
                    "MULTIMAIL_API_URL": api.url,
                    "MULTIMAIL_API_KEY": simulator.add_key(["read", "send"]),
                    "MODEL_ENDPOINT": model.url,
                    "MODEL_API_KEY": "simulated",
                    "TRIAGE_DEPLOYMENT": "simulated",
                    "CONFIG_PATH": str(CONFIG),
                }
            ),
            clock=clock, ledger=agent.ledger,
        )  # fmt: skip
        assert isinstance(built.work_queue, InProcessWorkQueue)
        due_at: datetime | None = clock.now
        while due_at is not None:
            clock.now = max(clock.now, due_at)
            built.poll()
            while not built.work_queue.bodies.empty():
                built.process(built.work_queue.bodies.get())
            due_at = agent.ledger.next_due_at()
        kept = (f"Re: {PICTURED}", *(s for s, answer in DEMO_ANSWERS.items() if answer.mistake))
        others = [email for email in simulator.list_awaiting_decision() if email.subject not in kept]
        for waiting in others[:4]:
            simulator.decide(waiting.id, "approve")
        with LoopbackServer(agent.app) as functions:
            desk = build_desk(
                api.url, Secret(key), AgentAccess(functions.url, Secret(FUNCTION_KEY)),
                note=f"{NOTE} {RIDDLE}", list_reasons=list_reasons, clock=clock,
            )  # fmt: skip
            with LoopbackServer(desk) as server:
                page = browser.new_page(viewport=ViewportSize(width=1400, height=1780))
                page.goto(server.url)
                page.get_by_role("link", name=PICTURED).click()
                assert page.get_by_role("button", name="Approve").is_visible()
                assert page.get_by_role("region", name="Evidence").locator(".claims li").count() > 1
                # The README's picture is taken with SCREENSHOT_DIR=docs.
                page.screenshot(path=Path(os.environ.get("SCREENSHOT_DIR", tmp_path)) / "approval-page.png")
                page.close()
