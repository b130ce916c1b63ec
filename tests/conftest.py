"""The fixtures that several test modules share."""

from collections.abc import Iterator

import pytest

from tests.azurite import Azurite, find_azurite


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    program = find_azurite()
    if program is None:
        pytest.skip("no Azurite: install Node, then `npm install --prefix .node azurite`, or set AZURITE_BIN")
    with Azurite(program) as running:
        yield running
