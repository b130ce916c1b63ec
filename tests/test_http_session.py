"""The shared session: connections outlive a burst of threads, and the machine's variables are read once."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from flask import Flask, request

from local.host.http_server import LoopbackServer
from shared.errors import ConfigurationError
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
    proxy.register_error_handler(404, lambda _: (request.environ["PATH_INFO"], 200))
    with LoopbackServer(proxy) as server:
        monkeypatch.setenv("HTTP_PROXY", server.url)
        monkeypatch.setenv("http_proxy", server.url)
        with build_session() as session:
            assert session.get("http://nowhere.example/a").text == "http://nowhere.example/a"


def test_a_bundle_of_certificates_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/bundle.pem")
    with build_session() as session, pytest.raises(ConfigurationError) as caught:
        session.get("https://127.0.0.1:9/")
    assert "REQUESTS_CA_BUNDLE" in str(caught.value)
    assert "/nowhere/bundle.pem" in str(caught.value)


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("/v1/mailboxes/mb_1/emails/em%2F1~x/tags", {}),
        ("/v1/em%zz/%7Ea%2f%", {}),
        ("/v1/a.b/../c", {}),
        ("/v1/a b/ü%zz", {}),
        ("/v1/x?y=1&z=%20", {}),
        ("/v1/x", {"q": "a b&c", "n": "1"}),
        ("/?a#b", {}),
        ("", {}),
    ],
)
def test_an_address_arrives_as_requests_would_send_it(path: str, params: dict[str, str]) -> None:
    app = Flask("probe")

    @app.route("/", defaults={"_rest": ""})
    @app.route("/<path:_rest>")
    def probe(_rest: str) -> str:
        return f"{request.environ['PATH_INFO']}?{request.environ['QUERY_STRING']}"

    with LoopbackServer(app) as server, build_session() as session, requests.Session() as plain:
        wanted = plain.get(server.url + path, params=params, timeout=30).text
        assert session.get(server.url + path, params=params, timeout=30).text == wanted
        assert wanted.startswith("/")


def test_no_redirect_is_followed_and_no_cookie_kept() -> None:
    app, cookies = Flask("probe"), list[str]()

    @app.get("/")
    def probe() -> tuple[str, int, dict[str, str]]:
        cookies.append(request.headers.get("Cookie", ""))
        return "", 302, {"Location": "/elsewhere", "Set-Cookie": "seen=yes"}

    with LoopbackServer(app) as server, build_session() as session:
        assert [session.get(server.url).status_code for _ in range(2)] == [302, 302]
    assert cookies == ["", ""]


def test_a_closed_session_opens_new_connections() -> None:
    app, session = Flask("probe"), build_session()
    app.add_url_rule("/", view_func=lambda: str(request.environ["loopback.connection"].getpeername()[1]))
    with LoopbackServer(app) as server:
        ports = [session.get(server.url).text for _ in range(2)]
        session.close()
        ports.append(session.get(server.url).text)
        session.close()
    assert ports[0] == ports[1] != ports[2]
