"""The shared session: connections outlive a burst of threads, and the machine's variables are read once."""

import logging
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flask import Flask, request
from requests.structures import CaseInsensitiveDict

from local.host.http_server import LoopbackServer
from shared.errors import ConfigurationError
from shared.services.http_session import build_session, find_retry_after

THREADS = 128


def test_as_many_threads_as_a_host_may_run_keep_their_connections(caplog: pytest.LogCaptureFixture) -> None:
    app, ports, together = Flask("probe"), set[int](), threading.Barrier(THREADS)

    @app.get("/")
    def probe() -> str:
        ports.add(request.environ["loopback.connection"].getpeername()[1])
        together.wait(30)  # every request is in flight before any is answered
        return "ok"

    caplog.set_level(logging.WARNING)
    with LoopbackServer(app) as server, ThreadPoolExecutor(THREADS) as threads:
        session = build_session(server.url)
        for _ in range(2):
            assert (
                list(threads.map(lambda _: session.get(server.url).text, range(THREADS))) == ["ok"] * THREADS
            )
        session.close()
    assert len(ports) == THREADS
    assert "pool is full" not in caplog.text


def test_a_proxy_that_the_machine_names_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Flask("proxy")
    proxy.register_error_handler(404, lambda _: (request.environ["PATH_INFO"], 200))
    with LoopbackServer(proxy) as server:
        monkeypatch.setenv("HTTP_PROXY", server.url)
        monkeypatch.setenv("http_proxy", server.url)
        url = "http://nowhere.example/a"
        session = build_session(url)
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # it was read when the session was built
        assert session.get(url, timeout=30).text == url
        session.close()


def test_a_service_that_the_machine_excepts_is_reached_without_the_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("no_proxy", raising=False)
    app = Flask("probe")
    app.add_url_rule("/", view_func=lambda: "ok")
    with LoopbackServer(app) as server, build_session(server.url) as session:
        assert session.get(server.url, timeout=30).text == "ok"


def test_a_bundle_of_certificates_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/bundle.pem")
    with pytest.raises(ConfigurationError) as caught:
        build_session("https://127.0.0.1:9/")
    assert "REQUESTS_CA_BUNDLE" in str(caught.value)
    assert "/nowhere/bundle.pem" in str(caught.value)


def test_no_cookie_is_kept_and_no_netrc_entry_replaces_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    app, seen = Flask("probe"), list[tuple[str | None, str | None]]()

    @app.get("/")
    def probe() -> tuple[str, dict[str, str]]:
        seen.append((request.headers.get("Cookie"), request.headers.get("Authorization")))
        return "", {"Set-Cookie": "seen=yes"}

    with LoopbackServer(app) as server, build_session(server.url) as session:
        for _ in range(2):
            session.get(server.url, headers={"Authorization": "Bearer ours"}, timeout=30)
    assert seen == [(None, "Bearer ours")] * 2


@pytest.mark.parametrize(
    ("repeatable", "methods"),
    [(None, []), (("GET", "PUT"), ["GET", "PUT"]), (("POST",), ["POST"])],
)
def test_only_the_named_methods_are_repeated(repeatable: tuple[str, ...] | None, methods: list[str]) -> None:
    app, asked = Flask("probe"), Counter[str]()

    @app.route("/", methods=["GET", "PUT", "POST"])
    def probe() -> tuple[str, int]:
        asked[request.method] += 1
        return "", 503

    with LoopbackServer(app) as server, build_session(server.url, repeatable) as session:
        for method in ("GET", "PUT", "POST"):
            assert session.request(method, server.url, timeout=30).status_code == 503
    assert [method for method, count in asked.items() if count > 1] == methods
    assert set(asked.values()) <= {1, 2}


DATE = "Sun, 22 Nov 2026 21:15:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"Retry-After": "0"}, 1),
        ({"Retry-After": "99999999999"}, 86_400),
        ({"Retry-After": "7", "retry-after-ms": "6500"}, 6.5),
        ({"retry-after-ms": "20"}, 1),
        ({"Retry-After": "7", "retry-after-ms": "soon"}, 7),
        ({"Retry-After": "Sun, 22 Nov 2026 21:17:00 GMT", "Date": DATE}, 120),
        ({"Retry-After": "Sun, 22 Nov 2026 21:00:00 GMT", "Date": DATE}, 1),
        ({"Retry-After": "Sun, 22 Nov 2099 21:00:00 GMT", "Date": DATE}, 86_400),
        ({"Retry-After": "Sun, 22 Nov 2026 21:17:00 GMT"}, None),
        ({"Retry-After": "Sun, 22 Nov 2026 21:17:00 -0000", "Date": DATE}, None),
        ({"Retry-After": "Sun, 22 Nov 99999999999999999999 21:17:00 GMT", "Date": DATE}, None),
        *(({"Retry-After": value, "Date": DATE}, None) for value in ("", "soon", "-5", "nan", "inf", "²")),
    ],
)
def test_the_delay_that_an_answer_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    assert find_retry_after(CaseInsensitiveDict(headers)) == seconds


def test_a_closed_session_opens_new_connections() -> None:
    app = Flask("probe")
    app.add_url_rule("/", view_func=lambda: str(request.environ["loopback.connection"].getpeername()[1]))
    with LoopbackServer(app) as server:
        session = build_session(server.url)
        ports = [session.get(server.url).text for _ in range(2)]
        session.close()
        ports.append(session.get(server.url).text)
        session.close()
    assert ports[0] == ports[1] != ports[2]
