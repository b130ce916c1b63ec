"""What a page of the review desk weighs with all its files, and how far its parts move while it loads."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Response

from benchmarks.figures import Figure, Part
from local.testing.browser import CHROMIUM, open_browser
from local.testing.desk_office import DeskPage, serve_pages

TITLE = "Review desk: pages in a browser, 21 drafts waiting"
MAX_PAGE_BYTES = 150_000
GOOD_SHIFT = 0.1  # https://web.dev/articles/cls
QUICK_PAGES = ("drafts", "draft", "escalations")
SIZES = {"desktop": (1400, 900), "phone": (390, 844)}
# Every shift that no input caused; the page's whole life counts, which is never less than its worst window.
COLLECT_SHIFTS = """
window.shifts = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifts += entry.value;
}).observe({type: "layout-shift", buffered: true});
"""
AFTER_PAINT = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(shifts))))"


@dataclass(frozen=True, slots=True)
class Load:
    """One page as a browser loaded it, with its first update."""

    bytes_of_page: int
    bytes_of_files: int
    shift: float


def measure(progress: Callable[[str], None], *, quick: bool) -> Part:
    """Load every page that needs no key; `quick` those of QUICK_PAGES only."""
    if CHROMIUM is None:
        return Part(TITLE, (), ["Left out: needs chromium on the PATH."])
    figures = []
    with (
        tempfile.TemporaryDirectory() as folder,
        serve_pages(Path(folder)) as pages,
        open_browser() as browser,
    ):
        for page in pages:
            if page.key or (quick and page.name not in QUICK_PAGES):
                continue
            progress(page.name)
            loads = {size: load_page(browser, page, *SIZES[size]) for size in SIZES}
            figures += list_figures(page, loads)
    return Part(
        TITLE, figures, ["Nothing is compressed, and nothing is cached: the desk is on the same machine."]
    )


def load_page(browser: Browser, page: DeskPage, width: int, height: int) -> Load:
    """Load a page in a browser that has no file of it, and wait for what its script changes."""
    opened = browser.new_page(viewport={"width": width, "height": height})
    answers: list[Response] = []

    def keep(answer: Response) -> None:
        answers.append(answer)

    opened.on("response", keep)
    opened.add_init_script(COLLECT_SHIFTS)
    opened.goto(page.address)
    if opened.locator("script").count() and not any(is_update(answer) for answer in answers):
        opened.wait_for_event("response", is_update)
    shift = float(opened.evaluate(AFTER_PAINT))
    icons: list[str] = opened.locator("link[rel=icon]").evaluate_all(
        "links => links.map((link) => link.href)"
    )
    files = {answer.url: len(answer.body()) for answer in answers if not is_update(answer)}
    files |= {
        icon: len(opened.request.get(icon).body()) for icon in icons
    }  # without a window, seldom asked for
    opened.close()
    whole, (bytes_of_page, *_) = sum(files.values()), files.values()
    return Load(bytes_of_page, whole - bytes_of_page, shift)


def is_update(answer: Response) -> bool:
    """Whether it answers the page's script, which asks again and again."""
    return urlsplit(answer.url).path == "/updates"


def list_figures(page: DeskPage, loads: dict[str, Load]) -> list[Figure]:
    """A page's weight, which its width does not change, and the larger of its layout shifts."""
    load = loads["desktop"]
    note = f"{load.bytes_of_page:,} of the page, {load.bytes_of_files:,} of its files"
    whole = load.bytes_of_page + load.bytes_of_files
    weight = Figure(f"desk, {page.name}: weight", whole, "bytes", goal=MAX_PAGE_BYTES, note=note)
    shifts = {size: round(load.shift, 4) for size, load in loads.items()}
    told = ", ".join(f"{shift:g} on a {size}" for size, shift in shifts.items())
    return [
        weight,
        Figure(f"desk, {page.name}: layout shift", max(shifts.values()), goal=GOOD_SHIFT, note=told),
    ]
