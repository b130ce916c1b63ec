"""Every page of the review desk for everybody: axe, Lighthouse, every width, every colour scheme, 400 % zoom."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pytest
from playwright.sync_api import Page, ViewportSize

from local.testing.browser import CHROMIUM
from local.testing.desk_office import DeskPage, serve_pages

NODE_PARTS = Path(__file__).parent.parent / ".node" / "node_modules"
AXE = NODE_PARTS / "axe-core" / "axe.min.js"
LIGHTHOUSE = NODE_PARTS / "lighthouse" / "cli" / "index.js"
NO_NODE = "install Node, then `make test` installs it in .node"
# Whether a search engine may index the page does not matter here, and has its own audit.
CATEGORIES, NOT_AUDITED, LOWEST_SCORE = ("accessibility", "best-practices", "seo"), "is-crawlable", 98
AUDITED = ("drafts", "draft", "escalations")
LIGHTHOUSE_SECONDS = 240

Scheme: TypeAlias = Literal["light", "dark", "forced colours"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark", "forced colours")
WIDTHS = (320, 390, 768, 900, 901, 1280, 1920)
# What is wider than the window, and what an ancestor that nobody can scroll cuts off. The list of emails
# ends long lines with an ellipsis: the open email has them whole.
FIND_CUT = """() => {
  const told = [];
  const name = (e) => `${e.tagName}.${e.className}: ${e.textContent.trim().slice(0, 30)}`;
  if (document.documentElement.scrollWidth > innerWidth) told.push("the page scrolls sideways");
  for (const e of document.querySelectorAll("body *")) {
    if (!e.checkVisibility({contentVisibilityAuto: true}) || e.closest(".skip, .row, svg")) continue;
    const box = e.getBoundingClientRect(), cut = getComputedStyle(e);
    if (box.width && (box.right > innerWidth + 1 || box.left < -1)) told.push("beyond the edge: " + name(e));
    if (cut.overflowX !== "visible" && e.scrollWidth > e.clientWidth + 1) told.push("cut: " + name(e));
    if (cut.overflowY === "hidden" && e.scrollHeight > e.clientHeight + 1) told.push("cut below: " + name(e));
  }
  return told;
}"""

UNFOLD = "document.querySelectorAll('details:not([name])').forEach((folded) => { folded.open = true; })"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the PATH")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[DeskPage]]:
    with serve_pages(tmp_path_factory.mktemp("desk")) as served:
        yield served


def choose_colours(page: Page, scheme: Scheme) -> None:
    if scheme == "forced colours":
        page.emulate_media(forced_colors="active")
    else:
        page.emulate_media(color_scheme=scheme)


def visit(page: Page, visited: DeskPage) -> None:
    page.goto(visited.address)
    if visited.key:
        page.evaluate("sessionStorage.clear()")  # the last visit's key may be but a moment ago
        page.keyboard.press(visited.key)


def run_axe(page: Page) -> list[str]:
    """What axe-core, given to the page by the test, finds wrong with it."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    result: dict[str, Any] = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert len(result["passes"]) > 5  # it did look
    return [
        f"{found['id']}: {node['html'][:120]}: {node['failureSummary'][:200]}"
        for found in result["violations"]
        for node in found["nodes"]
    ]


@pytest.mark.skipif(not AXE.exists(), reason=f"no axe-core: {NO_NODE}")
@pytest.mark.parametrize("scheme", SCHEMES)
def test_axe_finds_no_violation_on_any_page(
    page: Page, pages: list[DeskPage], scheme: Scheme, measured: Callable[[str], None]
) -> None:
    choose_colours(page, scheme)
    found: list[str] = []
    for visited in pages:
        for width in (390, 1400):
            page.set_viewport_size(ViewportSize(width=width, height=900))
            visit(page, visited)
            found += [f"{visited.name} at {width} px: {problem}" for problem in run_axe(page)]
    measured(f"axe-core, {scheme}: {len(found)} violations on {len(pages)} pages of the desk at two widths")
    assert "\n".join(found) == ""


@pytest.mark.parametrize("scheme", SCHEMES)
def test_from_320_to_1920_pixels_nothing_is_cut_and_nothing_scrolls_sideways(
    page: Page, pages: list[DeskPage], scheme: Scheme
) -> None:
    choose_colours(page, scheme)
    found: list[str] = []
    for visited in pages:
        visit(page, visited)
        page.evaluate(UNFOLD)
        for width in WIDTHS:
            page.set_viewport_size(ViewportSize(width=width, height=700))
            found += [f"{visited.name} at {width} px: {problem}" for problem in page.evaluate(FIND_CUT)]
    assert "\n".join(found) == ""


def test_at_400_percent_zoom_a_window_of_1280_pixels_shows_everything_and_the_decision(
    page: Page, pages: list[DeskPage]
) -> None:
    """A window of 1,280 by 1,024 pixels has 320 by 256 of the page's own at this zoom."""
    page.set_viewport_size(ViewportSize(width=320, height=256))
    for visited in pages:
        visit(page, visited)
        assert page.evaluate(FIND_CUT) == []
        if visited.name == "draft":
            box = page.get_by_role("button", name="Approve and send").bounding_box()
            assert box is not None
            assert 0 <= box["y"] <= 256 - box["height"]
            text = page.locator(".email h1").bounding_box()
            assert text is not None
            assert text["y"] < box["y"]  # the decision leaves room for what it is about


@pytest.mark.skipif(not LIGHTHOUSE.exists(), reason=f"no lighthouse: {NO_NODE}")
@pytest.mark.parametrize("name", AUDITED)
def test_lighthouse_gives_at_least_98(
    pages: list[DeskPage], name: str, tmp_path: Path, measured: Callable[[str], None]
) -> None:
    (visited,) = [served for served in pages if served.name == name]
    report = tmp_path / "report.json"
    done = subprocess.run(
        [
            "node", LIGHTHOUSE, visited.address, f"--only-categories={','.join(CATEGORIES)}",
            f"--skip-audits={NOT_AUDITED}", "--no-enable-error-reporting",
            "--chrome-flags=--headless --no-sandbox --disable-gpu --disable-background-networking",
            "--output=json", f"--output-path={report}", "--quiet",
        ],
        env={**os.environ, "CHROME_PATH": CHROMIUM or ""}, capture_output=True, text=True, check=False,
        timeout=LIGHTHOUSE_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(report.read_text(encoding="utf-8"))
    scores = {name: round(100 * told["categories"][name]["score"]) for name in CATEGORIES}
    shown = ", ".join(f"{category} {score}" for category, score in scores.items())
    measured(f"Lighthouse {told['lighthouseVersion']}, {name}: {shown}")
    failed = [audit["id"] for audit in told["audits"].values() if audit["score"] == 0]
    assert min(scores.values()) >= LOWEST_SCORE, failed
