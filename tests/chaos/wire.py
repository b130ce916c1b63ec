"""The faults that only a wire can have, on real connections between the real client and the simulator."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.host.http_server import LoopbackServer
from local.multimail.faults import (
    Fault,
    answer_with,
    cut,
    cut_mid_body,
    hang,
    in_order,
    malformed_json,
    rate_limited,
)
from shared.mail.multimail import MultiMailClient
from shared.services.secrets import StaticSecret
from shared.settings import Secret
from tests.chaos.run import Figures, play_to_the_end
from tests.chaos.scenarios import Scenario
from tests.chaos.stage import Stage

READ_TIMEOUT_SECONDS = 0.5
HANG_SECONDS = 0.7


@dataclass(frozen=True, slots=True)
class WireFault:
    """What happens to one request, and to as many after it as it takes to reach the client's caller."""

    name: str
    faults: tuple[Fault, ...]


# Cuts come twice, because the client itself asks once more for what it only reads.
WIRE_FAULTS = (
    WireFault("cut before", (cut(after_effect=False),) * 2),
    WireFault("cut after", (cut(after_effect=True),) * 2),
    WireFault("cut mid-body", (cut_mid_body(),)),
    WireFault("malformed JSON", (malformed_json(),)),
    WireFault("silent before", (hang(after_effect=False, bound_seconds=HANG_SECONDS),)),
    WireFault("silent after", (hang(after_effect=True, bound_seconds=HANG_SECONDS),)),
    WireFault("500 after", (answer_with(500, after_effect=True),)),
    WireFault("HTML instead of JSON", (answer_with(200, "<html>Sign in</html>"),)),
    WireFault("429", (rate_limited(40),)),
)


class WireStage(Stage):
    """A stage whose client speaks HTTP over loopback sockets."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self._server: LoopbackServer | None = None
        super().__init__(directory, lambda _call: None, **settings)

    def close(self) -> None:
        """Stop the server and remove the ledger's file."""
        if self._server is not None:
            self._server.stop()
        super().close()

    def _connect(self) -> MultiMailClient:
        if self._server is None:
            self._server = LoopbackServer(self.simulator.app)
            self._server.start()
        key = StaticSecret(Secret(self._key))
        return MultiMailClient(self._server.url, key, timeout=(5, READ_TIMEOUT_SECONDS), clock=self.clock)


def play_wire_faults(
    scenario: Scenario, directory: Path, faults: Iterable[WireFault] = WIRE_FAULTS
) -> Figures:
    """Play a scenario over sockets, once for every wire fault at every request."""
    figures = Figures()
    requests = _play(scenario, directory, None, figures)
    for number in range(1, requests + 1):
        for fault in faults:
            _play(scenario, directory, (number, fault), figures)
    return figures


def _play(scenario: Scenario, directory: Path, strike: tuple[int, WireFault] | None, figures: Figures) -> int:
    stage = WireStage(directory, **scenario.settings)
    struck: tuple[str, ...] = ()
    if strike is not None:
        number, fault = strike
        stage.simulator.fault = in_order(*(None,) * (number - 1), *fault.faults)
        struck = (f"{fault.name} at request {number}",)
        figures.injected[f"wire: {fault.name}"] += 1
    found = play_to_the_end(stage, scenario)
    figures.note(scenario, struck, found, len(stage.simulator.requests))
    return len(stage.simulator.requests)
