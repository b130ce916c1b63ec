"""The server of this machine: a body has one length, a silent client is cut off."""

import socket
from collections.abc import Iterator

import pytest
from flask import Flask, request

from local.host.http_server import MAX_BODY_BYTES, LoopbackServer

TIMEOUT = 0.2
CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    app = Flask("echo", static_folder=None)
    app.add_url_rule("/", view_func=lambda: b"<" + request.get_data() + b">", methods=["POST"])
    with LoopbackServer(app, timeout_seconds=TIMEOUT) as server:
        yield server


def say(server: LoopbackServer, text: bytes) -> bytes:
    """What the server says until it closes the connection."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(text)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def post(headers: bytes, body: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + headers + b"\r\n" + body


def test_a_chunked_body_is_one_body_and_the_next_request_is_the_next(server: LoopbackServer) -> None:
    body = b"3;note=x\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-Trailer: y\r\n\r\n"
    said = say(server, post(CHUNKED, body) + post(b"Content-Length: 2\r\n", b"hi"))
    assert said.count(b"200 OK") == 2
    assert b"<abc0123456789>" in said
    assert b"<hi>" in said


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (CHUNKED + b"Content-Length: 3\r\n", b"0\r\n\r\n", b"400"),
        (b"Content-Length: 3\r\nContent-Length: 30\r\n", b"abc", b"400"),
        (b"Content-Length: -3\r\n", b"abc", b"400"),
        (b"Content-Length: 3, 3\r\n", b"abc", b"400"),
        (b"Content-Length: %d\r\n" % (MAX_BODY_BYTES + 1), b"", b"413"),
        (b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n", b"501"),
        (CHUNKED, b"%x\r\n" % (MAX_BODY_BYTES + 1), b"413"),
        (CHUNKED, b"-1\r\n", b"400"),
        (CHUNKED, b"0x3\r\nabc\r\n0\r\n\r\n", b"400"),
        (CHUNKED, b"3\r\nabcd\r\n0\r\n\r\n", b"400"),
        (CHUNKED, b"0\r\n" + b"X: y\r\n" * 200, b"400"),
    ],
)
def test_a_body_of_doubtful_length_is_refused_and_nothing_after_it_is_read(
    server: LoopbackServer, headers: bytes, body: bytes, status: bytes
) -> None:
    said = say(server, post(headers, body) + post(b"Content-Length: 2\r\n", b"hi"))
    assert said.startswith(b"HTTP/1.1 " + status)
    assert b"200 OK" not in said


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"POST / HT",
        post(b"Content-Length: 9\r\n", b"half"),
        post(CHUNKED, b"5\r\nha"),
        post(CHUNKED, b"5"),
    ],
)
def test_a_client_that_falls_silent_is_cut_off(server: LoopbackServer, part: bytes) -> None:
    assert b"200 OK" not in say(server, part)
