"""Serves a WSGI app on a loopback port, as simulators, the approval page and HTTP functions need it."""

import re
import socketserver
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from socket import SHUT_RDWR, create_server, socket
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self, cast
from wsgiref.headers import Headers
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer

from flask import Response, request

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

# Another page's script may reach a port under a name of its own (DNS rebinding); the Host tells.
LOOPBACK_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?")
_CONNECTION = "loopback.connection"
TIMEOUT_SECONDS = 60.0  # for the next bytes of a request, and so for the next request of a connection


class LoopbackServer:
    """Run one WSGI app on 127.0.0.1, a thread per connection, between `start` and `stop`.

    It speaks HTTP/1.1 with keep-alive, as the real services do (werkzeug's server closes after every
    answer), and logs no requests. A client that is silent
    for `timeout_seconds` is cut off. Port 0 takes a free one. Also a context manager.
    """

    def __init__(
        self,
        app: "WSGIApplication",
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self._app = app
        self._port = port
        self._ssl_context = ssl_context
        self._timeout_seconds = timeout_seconds
        self._running: tuple[_Server, threading.Thread] | None = None

    @property
    def url(self) -> str:
        """The root without a trailing slash, known once started; `stop` does not change it."""
        scheme = "https" if self._ssl_context else "http"
        return f"{scheme}://127.0.0.1:{self._port}"

    def start(self) -> str:
        """Listen and return the root's address. After `stop`, the same port is taken again."""
        handler = type("_Handler", (_KeepAliveHandler,), {"timeout": self._timeout_seconds})
        server = _Server(("127.0.0.1", self._port), handler)
        server.set_app(self._app)
        if self._ssl_context:
            # The handshake belongs to the connection's thread: a slow client must not hold up the others.
            server.socket = self._ssl_context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        self._running = (server, thread)
        return self.url

    def stop(self) -> None:
        """Stop listening and cut every open connection, kept-alive ones included."""
        if self._running is None:
            return
        server, thread = self._running
        self._running = None
        server.shutdown()
        thread.join()
        server.server_close()
        server.cut_open_connections()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def build_server(app: "WSGIApplication", usual_port: int) -> LoopbackServer:
    """A server on the usual port or, where that is taken, on a free one."""
    try:
        with create_server(("127.0.0.1", usual_port)):
            return LoopbackServer(app, usual_port)
    except OSError:
        return LoopbackServer(app)


def cut_connection(after: bytes = b"") -> Response:
    """Build the answer of a Flask view that breaks its connection.

    Nothing at all is answered, or, with `after`, a 200 whose JSON body stops behind these bytes.
    """
    connection: socket = request.environ[_CONNECTION]

    def body() -> Iterator[bytes]:
        if after:
            yield after
        _shut(connection)
        raise ConnectionAbortedError  # wsgiref takes it for a client that has gone: no log, no answer

    headers = {"Content-Length": str(len(after) + 1000), "Content-Type": "application/json"}
    return Response(body(), headers=headers)


MAX_BODY_BYTES = 4_000_000  # more than any email that the services take
_SIZES = {10: re.compile(r"[0-9]{1,9}"), 16: re.compile(r"[0-9A-Fa-f]{1,8}")}
MAX_TRAILERS, MAX_LINE_BYTES = 100, 65_536


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """Knows its open connections: a stopped server must not answer on a kept-alive one."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *args: Any) -> None:
        self._open: set[socket] = set()
        self._open_guard = threading.Lock()
        super().__init__(*args)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's asks DNS for the host's name
        self.server_name, self.server_port = "127.0.0.1", self.socket.getsockname()[1]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_guard:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_guard:
            self._open.discard(request)
        super().shutdown_request(request)

    def cut_open_connections(self) -> None:
        with self._open_guard:
            connections = list(self._open)
        for connection in connections:
            _shut(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that has gone is not news
            super().handle_error(request, client_address)


class _KeepAliveHandler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body leave together and at once: with Nagle's algorithm a second write waits 40 ms.
    wbufsize = -1
    disable_nagle_algorithm = True

    def handle(self) -> None:
        BaseHTTPRequestHandler.handle(self)  # many requests per connection; wsgiref's own handles one

    def _answer(self) -> None:
        # Read whole before the app runs: what an app leaves unread would be taken for the next request.
        try:
            body = self._read_body()
        except _BodyError as error:
            self.close_connection = True
            self.send_error(error.status)
            return
        environ = self.get_environ() | {_CONNECTION: self.connection, "CONTENT_LENGTH": str(len(body))}
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        out = cast(IO[bytes], self.wfile)
        answer = _Answer(BytesIO(body), out, self.get_stderr(), environ, multithread=True)
        answer.request_handler = self
        answer.run(cast("WSGIApplication", cast(_Server, self.server).get_app()))

    def _read_body(self) -> bytes:
        """The body; its length must be told once, or others may see another request."""
        lengths, codings = (
            self.headers.get_all("Content-Length", []),
            self.headers.get_all("Transfer-Encoding", []),
        )
        if len(lengths) + len(codings) > 1:
            raise _BodyError(HTTPStatus.BAD_REQUEST)
        if codings:
            if codings[0].strip().lower() != "chunked":
                raise _BodyError(HTTPStatus.NOT_IMPLEMENTED)
            return self._read_chunks()
        return self._read_exactly(_parse_size(lengths[0] if lengths else "0", 10))

    def _read_chunks(self) -> bytes:
        body = b""
        while size := _parse_size(self._read_line().partition(";")[0].strip(), 16, len(body)):
            body += self._read_exactly(size)
            if self._read_line():
                raise _BodyError(HTTPStatus.BAD_REQUEST)
        for _ in range(MAX_TRAILERS):
            if not self._read_line():
                return body
        raise _BodyError(HTTPStatus.BAD_REQUEST)

    def _read_exactly(self, size: int) -> bytes:
        data = self.rfile.read(size)
        if len(data) < size:
            raise ConnectionAbortedError  # the client has gone
        return data

    def _read_line(self) -> str:
        line = self.rfile.readline(MAX_LINE_BYTES)
        if not line.endswith(b"\n"):
            raise _BodyError(HTTPStatus.BAD_REQUEST)
        return line.decode("latin-1").rstrip("\r\n")

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _answer

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name of the overridden one
        """Stay quiet: the console belongs to the agent."""


class _BodyError(Exception):
    """A body that is not read. Its connection cannot be used again."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status)
        self.status = status


def _parse_size(digits: str, base: int, before: int = 0) -> int:
    if not _SIZES[base].fullmatch(digits):
        raise _BodyError(HTTPStatus.BAD_REQUEST)
    size = int(digits, base)
    if before + size > MAX_BODY_BYTES:
        raise _BodyError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    return size


class _Answer(ServerHandler):
    http_version = "1.1"
    headers: Headers
    request_handler: WSGIRequestHandler

    def cleanup_headers(self) -> None:
        super().cleanup_headers()
        if "Content-Length" not in self.headers:
            self.headers["Connection"] = "close"  # a body of unknown length ends with its connection
            self.request_handler.close_connection = True


def _shut(connection: socket) -> None:
    with suppress(OSError):  # the other side was faster
        connection.shutdown(SHUT_RDWR)
