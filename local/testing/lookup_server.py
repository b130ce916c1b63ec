"""A system with facts about customers on loopback: HTTPS, with a certificate made for the run."""

import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from local.host.certificates import write_certificates

HOST, LOOPBACK = "orders.northwind.example", "127.0.0.1"


@dataclass
class LookUpServer:
    """What the server answers, and what it was asked: set the one, read the other.

    `answers`: by path, percent-decoded, what is answered as JSON; bytes go out as they are. Where a path has
    a `status` of its own, that comes with its answer, and what `headers` has. What has no answer gets 404.
    Each answer takes so many `seconds`. While `is_slow`, a header is sent byte by byte until `release` is set.
    """

    answers: dict[str, Any] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    server_names: list[str | None] = field(default_factory=list)
    seconds: float = 0.0
    is_slow: bool = False
    release: threading.Event = field(default_factory=threading.Event)
    ca_file: Path = Path()
    port: int = 0

    @property
    def url(self) -> str:
        """The root, under the name that the certificate has."""
        return f"https://{HOST}:{self.port}"

    @property
    def paths(self) -> list[str]:
        """What was asked for, percent-decoded."""
        return [path for path, _ in self.requests]


@contextmanager
def run_lookup_server(directory: Path) -> Iterator[LookUpServer]:
    """Run the server; `directory` takes its certificates."""
    known = LookUpServer()
    known.ca_file, host_file = write_certificates(directory, (HOST, LOOPBACK))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(host_file)
    tls.sni_callback = lambda _socket, name, _context: known.server_names.append(name)
    server = _Server(known)
    server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    known.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield known
    finally:
        known.release.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # look-ups come all at once

    def __init__(self, known: LookUpServer) -> None:
        self.known = known
        super().__init__((LOOPBACK, 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Keep the output clean."""

    def do_GET(self) -> None:
        known, path = self.server.known, unquote(self.path)
        known.requests.append((path, dict(self.headers.items())))
        known.release.wait(known.seconds)
        answer = known.answers.get(path)
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(known.statuses.get(path, 200 if path in known.answers else 404))
        for name, value in {"Content-Type": "application/json", **known.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        if known.is_slow:
            self.flush_headers()
            self.wfile.write(b"X-Slow: ")
            while not known.release.wait(0.05):
                self.wfile.write(b"x")
            self.wfile.write(b"\r\n")
        self.end_headers()
        self.wfile.write(content)
