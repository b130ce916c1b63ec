"""The trust report in a real browser: what matters is on one screen, the arithmetic unfolds, nothing runs."""

import os
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask, Response, request
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from local.host.http_server import LoopbackServer
from shared.domain import Mailbox, Support
from shared.operator.trust import Fate, JudgedDraft, TrustReport, judge_mailbox
from shared.operator.trust_page import answer_report

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
SINCE = NOW - timedelta(days=30)
CHROMIUM = shutil.which("chromium")
WIDE, NARROW = ViewportSize(width=1280, height=800), ViewportSize(width=390, height=800)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the PATH")


def draft(number: int, fate: Fate = Fate.APPROVED, seconds: float = 120) -> JudgedDraft:
    at = SINCE + timedelta(hours=number)
    category = ("question", "order", "complaint")[number % 3]
    stated = {Support.VERIFIED: 3, Support.FROM_SENDER: 1, Support.ASSERTED: number % 2}
    return JudgedDraft(
        f"em_{number}", category, fate, at, at + timedelta(seconds=seconds), stated, words=90,
        passages={f"shop.md › Part {number % 14:02}": {Support.VERIFIED: 3}}, version="model 0123456789ab",
    )  # fmt: skip


def build(drafts: Sequence[JudgedDraft]) -> TrustReport:
    mailbox = Mailbox("mb_support", "support@northwind.example", "gated_send")
    return TrustReport(SINCE, NOW, 30, [judge_mailbox(mailbox, drafts, NOW, SINCE)])


REPORTS = {
    "none": [],
    "some": [
        *(draft(number) for number in range(140)),
        *(draft(number, seconds=4) for number in range(140, 152)),
        *(draft(number, Fate.EDITED) for number in range(152, 155)),
        draft(155, Fate.REJECTED),
    ],
    "ready": [draft(number) for number in range(240)],
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    app = Flask("trust", static_folder=None)

    def answer(name: str) -> Response:
        found = answer_report(lambda _: build(REPORTS[name]), request.args, "text/html")
        return Response(found.body, found.status_code, dict(found.headers), mimetype=found.mimetype)

    app.add_url_rule("/<name>", "report", answer)
    with LoopbackServer(app) as server:
        yield server.url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=15_000)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that complains of nothing, least of all of its content security policy."""
    page = browser.new_page(viewport=WIDE)
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    page.close()
    assert [said for said in complaints if "favicon" not in said and "404" not in said] == []


def find_bottom(page: Page, selector: str) -> float:
    box = page.locator(selector).last.bounding_box()
    assert box is not None
    return box["y"] + box["height"]


def test_recommendation_three_numbers_and_what_is_missing_are_on_one_screen(url: str, page: Page) -> None:
    page.goto(f"{url}/some")
    expect(page.locator(".advice")).to_have_text("Keep the current mode")
    assert page.locator(".numbers .number").all_inner_texts() == ["94 % or more", "12 of 152", "66 %"]
    expect(page.locator(".numbers dt").nth(1)).to_have_text("approvals came too soon to have been read")
    expect(page.locator(".numbers .basis").nth(1)).to_have_text(
        "half of the approvals took up to 2.0 min; reading takes 23 s"
    )
    missing = page.get_by_role("list", name="Missing for “ask for monitored”:").locator("li")
    assert missing.all_inner_texts()[0] == "approvals in a row: 411"
    assert missing.count() == 4
    assert find_bottom(page, "ul.missing") <= WIDE["height"]
    assert page.locator("details[open]").count() == 0


def test_the_arithmetic_unfolds_at_a_click_or_a_key(url: str, page: Page) -> None:
    page.goto(f"{url}/some")
    rules = page.locator(".checks li")
    expect(rules.first).to_be_hidden()
    page.get_by_text("Rules and arithmetic").click()
    expect(rules).to_have_count(8)
    expect(rules.nth(1)).to_contain_text("152 approved, 4 rejected. Approvals in a row that are missing: 411")
    expect(page.locator(".arithmetic")).to_contain_text("152 of 156 decided drafts were approved")
    summary = page.locator(".figures > summary")
    summary.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("table").first).to_be_visible()
    expect(page.locator(".figures")).to_contain_text("3 drafts were edited")
    expect(page.get_by_text("Other passages: 4")).to_be_visible()


def test_nothing_is_ticked_where_nothing_was_decided(url: str, page: Page) -> None:
    page.goto(f"{url}/none")
    assert page.locator(".numbers .number").all_inner_texts() == [
        "no decisions yet", "no approvals yet", "no statements yet",
    ]  # fmt: skip
    page.get_by_text("Rules and arithmetic").click()
    assert page.locator(".checks .mark").all_inner_texts() == ["–"] * 8
    expect(page.locator(".figures")).to_have_count(0)


def test_a_mailbox_that_is_ready_lacks_nothing(url: str, page: Page) -> None:
    page.goto(f"{url}/ready")
    expect(page.locator(".advice")).to_have_text("Ask for monitored")
    expect(page.locator("p.missing")).to_have_text("Nothing is missing: every rule is met.")
    page.get_by_text("Rules and arithmetic").click()
    assert page.locator(".checks .mark").all_inner_texts() == ["✓"] * 8


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_scrolls_down_and_not_aside(url: str, browser: Browser, scheme: str) -> None:
    page = browser.new_page(viewport=NARROW, color_scheme="dark" if scheme == "dark" else "light")
    page.goto(f"{url}/some")
    for summary in page.locator("details:not(.figures details) > summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    page.close()


# The document's picture, taken on demand: SCREENSHOT_DIR=docs pytest tests/test_trust_page.py -k picture


def test_picture_of_the_report(url: str, page: Page, tmp_path: Path) -> None:
    page.set_viewport_size(ViewportSize(width=1280, height=620))
    page.goto(f"{url}/some")
    folder = Path(os.environ.get("SCREENSHOT_DIR", tmp_path))
    page.screenshot(path=folder / "trust-report.png")
    assert (folder / "trust-report.png").stat().st_size > 10_000
