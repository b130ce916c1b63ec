"""The shared session: connections outlive a burst of threads, and the machine's variables are read once."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask, request

from local.http_server import LoopbackServer
from shared.http_session import build_session

THREADS = 128


def test_as_many_threads_as_a_host_may_run_keep_their_connections(caplog: pytest.LogCaptureFixture) -> None:
    app, ports, together = Flask("probe"), set[int](), threading.Barrier(THREADS)

    @app.get("/")
    def probe() -> str:
        ports.add(request.environ["loopback.connection"].getpeername()[1])
        together.wait(30)  # every request is in flight before any is answered
        return "ok"

    caplog.set_level(logging.WARNING)
    session = build_session()
    with LoopbackServer(app) as server, ThreadPoolExecutor(THREADS) as threads:
        for _ in range(2):
            assert (
                list(threads.map(lambda _: session.get(server.url).text, range(THREADS))) == ["ok"] * THREADS
            )
        session.close()
    assert len(ports) == THREADS
    assert "pool is full" not in caplog.text


def test_the_proxy_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Flask("probe")
    app.add_url_rule("/", view_func=lambda: "ok")
    session = build_session()
    with LoopbackServer(app) as server:
        assert session.get(server.url).text == "ok"
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert session.get(server.url).text == "ok"
        session.close()


def test_a_proxy_that_the_machine_names_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Flask("proxy")
    proxy.register_error_handler(404, lambda _: ("through the proxy", 200))
    with LoopbackServer(proxy) as server:
        monkeypatch.setenv("HTTP_PROXY", server.url)
        monkeypatch.setenv("http_proxy", server.url)
        with build_session() as session:
            assert session.get("http://nowhere.example/").text == "through the proxy"
