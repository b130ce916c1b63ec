"""The fixtures that several test modules share."""

from collections.abc import Callable, Iterator

import pytest

from local.testing.azurite import Azurite, find_azurite


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    program = find_azurite()
    if program is None:
        pytest.skip("no Azurite: install Node, then `npm install --prefix .node azurite`, or set AZURITE_BIN")
    with Azurite(program) as running:
        yield running


REPORT = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[REPORT] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[REPORT]:
        terminalreporter.section("measured")
        for line in config.stash[REPORT]:
            terminalreporter.line(line)


@pytest.fixture
def measured(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Takes lines for the end of the test report: figures that were counted, not guessed."""
    return pytestconfig.stash[REPORT].append
