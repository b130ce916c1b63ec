"""A real AMQP peer on loopback that simulates a Service Bus queue, run by Node with rhea."""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from shared.settings import Secret

_PROGRAM = Path(__file__).with_suffix(".mjs")
_NODE_MODULES = Path(os.environ.get("NODE_PATH") or _PROGRAM.parents[2] / ".node" / "node_modules")
_PATIENCE_SECONDS = 20


@dataclass(frozen=True)
class Script:
    """How the peer behaves. `refuse_link` is an AMQP error condition; port 0 picks a free one."""

    queue: str = "inbound-email"
    port: int = 0
    token_status: int = 200
    refuse_link: str | None = None
    drop_deliveries: int = 0
    reject_deliveries: int = 0
    max_batch_bytes: int = 262_144


class AmqpPeer:
    """A running peer and everything it has reported."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._reported = threading.Condition()
        self._events: list[dict[str, Any]] = []
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port: int = self._wait_for("port", 1)[0]

    @property
    def connection_string(self) -> Secret:
        """The emulator's form of connection string: plain AMQP, port kept."""
        return Secret(
            f"Endpoint=sb://127.0.0.1:{self.port};SharedAccessKeyName=name;SharedAccessKey=key;"
            "UseDevelopmentEmulator=true;"
        )

    def wait_for_messages(self, count: int) -> list[dict[str, Any]]:
        """The messages taken so far, as soon as there are `count`.

        Each has `body`, `message_id`, `content_type` and `ttl`, the milliseconds that it lives.
        """
        return self._wait_for("message", count)

    def reported(self, kind: str) -> list[Any]:
        """The values of every report of one kind so far."""
        with self._reported:
            return [event[kind] for event in self._events if kind in event]

    def stop(self) -> None:
        """End the process and read its last reports."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(_PATIENCE_SECONDS)
        self._reader.join(_PATIENCE_SECONDS)

    def _wait_for(self, kind: str, count: int) -> list[Any]:
        with self._reported:
            self._reported.wait_for(
                lambda: self._ended or len(self.reported(kind)) >= count, _PATIENCE_SECONDS
            )
        values = self.reported(kind)
        assert len(values) >= count, f"the peer reported {len(values)} of {count} expected: {kind}"
        return values

    def _read(self) -> None:
        for line in self._process.stdout or ():
            with self._reported:
                self._events.append(json.loads(line))
                self._reported.notify_all()
        with self._reported:
            self._ended = True
            self._reported.notify_all()


@contextmanager
def running_amqp_peer(script: Script | None = None) -> Iterator[AmqpPeer]:
    """Run a peer for a block; skips the test where Node or rhea is missing."""
    node = shutil.which("node")
    if node is None or not (_NODE_MODULES / "rhea").is_dir():
        pytest.skip(f"needs Node and the npm package rhea in {_NODE_MODULES} (or in NODE_PATH)")
    process = subprocess.Popen(
        [node, str(_PROGRAM), json.dumps(asdict(script or Script()))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "AMQP_PEER_NODE_MODULES": str(_NODE_MODULES)},
    )
    try:
        peer = AmqpPeer(process)
        yield peer
        peer.stop()
    finally:
        process.kill()
        process.wait(_PATIENCE_SECONDS)
