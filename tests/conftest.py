"""The fixtures that several test modules share."""

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Request, ViewportSize, expect

from local.testing.azurite import Azurite, find_azurite
from local.testing.browser import open_browser
from local.testing.desk_office import Office, serve_office


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    program = find_azurite()
    if program is None:
        pytest.skip("no Azurite: install Node, then `npm install --prefix .node azurite`, or set AZURITE_BIN")
    with Azurite(program) as running:
        yield running


MEASURED = "measured"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    tests = terminalreporter.stats.get("passed", [])
    lines = [line for test in tests for name, line in test.user_properties if name == MEASURED]
    if lines:
        terminalreporter.section(MEASURED)
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Takes lines for the end of the test report: figures that were counted, not guessed."""
    return lambda line: record_property(MEASURED, line)


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with serve_office(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=15_000)
    with open_browser() as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that must neither leave this machine nor break the content security policy."""
    page = browser.new_page(viewport=ViewportSize(width=1400, height=900))
    page.set_default_timeout(10_000)
    hosts: set[str | None] = set()
    complaints: list[str] = []

    def note_host(request: Request) -> None:
        hosts.add(urlsplit(request.url).hostname)

    page.on("request", note_host)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
    yield page
    page.close()
    assert hosts <= {"127.0.0.1", None}
    assert complaints == []
