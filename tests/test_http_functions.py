"""HTTP functions on this machine: reached as on the platform, by whoever may."""

from collections.abc import Iterator
from datetime import UTC, datetime

import azure.functions as func
import pytest
import requests

from local.host.host import Host
from local.host.http_functions import build_function_key, build_http_app
from local.host.http_server import LoopbackServer

KEY = "function-key-of-the-test"


def build_app() -> func.FunctionApp:
    app = func.FunctionApp()

    @app.route(route="open", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
    def everybody(req: func.HttpRequest) -> func.HttpResponse:
        return func.HttpResponse(f"{req.method} {req.params.get('q')}", headers={"X-Answer": "yes"})

    @app.route(route="rows/{row}", methods=["POST"], auth_level=func.AuthLevel.FUNCTION)
    def keyed(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
        body = req.get_body() + req.headers["X-More"].encode()
        text = f"{req.route_params['row']} {body!r} {context.function_name}"
        return func.HttpResponse(text, status_code=202, mimetype="application/json")

    @app.route(route="signed", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
    def signed(req: func.HttpRequest) -> func.HttpResponse:
        return func.HttpResponse("seen")

    @app.route(route="broken", auth_level=func.AuthLevel.ANONYMOUS)
    def broken(req: func.HttpRequest) -> func.HttpResponse:
        raise ValueError("a reason that is nobody's business")

    return app


@pytest.fixture
def host() -> Host:
    return Host(build_app(), app_settings={}, queues={}, host_json={}, clock=lambda: datetime.now(UTC))


@pytest.fixture
def root(host: Host) -> Iterator[str]:
    with LoopbackServer(build_http_app(host, KEY)) as server:
        yield f"{server.url}/api"


def test_an_anonymous_function_answers_everybody_with_its_status_headers_and_body(root: str) -> None:
    answer = requests.get(f"{root}/open", params={"q": "why"}, timeout=5)
    assert (answer.status_code, answer.text, answer.headers["X-Answer"]) == (200, "GET why", "yes")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


def test_a_function_gets_the_raw_body_the_headers_the_route_and_its_context(root: str) -> None:
    headers = {"x-functions-key": KEY, "X-More": "!"}
    answer = requests.post(f"{root}/rows/7", data=b"\x00 1", headers=headers, timeout=5)
    assert (answer.status_code, answer.text) == (202, "7 b'\\x00 1!' keyed")
    assert answer.headers["Content-Type"].startswith("application/json")


@pytest.mark.parametrize("given", [{}, {"x-functions-key": "wrong"}, {"x-functions-key": ""}])
def test_a_function_with_a_key_is_not_called_without_it(root: str, given: dict[str, str]) -> None:
    answer = requests.post(f"{root}/rows/7", headers=given | {"X-More": ""}, timeout=5)
    assert (answer.status_code, answer.content) == (401, b"")
    assert (
        requests.post(f"{root}/rows/7?code=w%C3%B6rong", headers={"X-More": ""}, timeout=5).status_code == 401
    )


def test_the_key_may_stand_in_the_query_as_on_the_platform(root: str) -> None:
    answer = requests.post(f"{root}/rows/7", params={"code": KEY}, headers={"X-More": ""}, timeout=5)
    assert answer.status_code == 202


@pytest.mark.parametrize("name", ["evil.example", "127.0.0.1.evil.example:7071", ""])
def test_under_a_foreign_name_only_a_function_that_knows_its_callers_answers(root: str, name: str) -> None:
    headers = {"Host": name, "x-functions-key": KEY, "X-More": ""}
    assert requests.get(f"{root}/open", headers=headers, timeout=5).status_code == 400
    assert requests.post(f"{root}/rows/7", headers=headers, timeout=5).status_code == 400
    assert requests.post(f"{root}/signed", headers=headers, timeout=5).status_code == 200
    assert requests.get(f"{root}/open", headers={"Host": "localhost:7071"}, timeout=5).status_code == 200


def test_another_method_or_route_reaches_no_function(root: str) -> None:
    assert requests.post(f"{root}/open", timeout=5).status_code == 405
    assert requests.get(f"{root}/closed", timeout=5).status_code == 404


def test_a_function_that_raises_is_reported_and_tells_the_caller_nothing(root: str, host: Host) -> None:
    answer = requests.get(f"{root}/broken", timeout=5)
    assert (answer.status_code, answer.content) == (500, b"")
    (failure,) = host.failures
    assert (failure.function_name, failure.error_type) == ("broken", "ValueError")


def test_each_run_has_a_key_of_its_own() -> None:
    assert build_function_key() != build_function_key()
