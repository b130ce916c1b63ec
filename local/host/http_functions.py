"""Serves a function app's HTTP functions on this machine: under /api, behind a key where they ask for one."""

import hmac
import re
import secrets
from collections.abc import Callable
from http import HTTPStatus

import azure.functions as func
from flask import Flask, Response, request

from local.host.app_functions import HttpFunction
from local.host.host import Host
from local.host.http_server import LOOPBACK_HOST

KEY_HEADER, KEY_PARAMETER = "x-functions-key", "code"


def build_function_key() -> str:
    """A key for one run of the host: a person who sees its console may call what needs one."""
    return secrets.token_urlsafe(32)


def build_http_app(host: Host, function_key: str) -> Flask:
    """Build the app that answers /api/ROUTE with the host's HTTP functions.

    Every authLevel but anonymous asks for the key, as header or as query parameter. A function that
    raises is reported by the host and answered with 500 and nothing else.
    """
    app = Flask("http_functions", static_folder=None)
    for function in host.http_functions:
        app.add_url_rule(
            "/api/" + re.sub(r"{(\w+)}", r"<\1>", function.route),
            function.name,
            _build_view(host, function, function_key),
            methods=function.methods,
            provide_automatic_options=False,
        )
    return app


def _build_view(host: Host, function: HttpFunction, function_key: str) -> Callable[..., Response]:
    may_be_tunnelled = not function.needs_key and set(function.methods) == {"POST"}  # it knows its callers

    def view(**route_params: str) -> Response:
        if not may_be_tunnelled and not LOOPBACK_HOST.fullmatch(request.headers.get("Host", "")):
            return Response("This answers on 127.0.0.1, localhost and [::1] only.", HTTPStatus.BAD_REQUEST)
        if function.needs_key and not _has_key(function_key):
            return Response(status=HTTPStatus.UNAUTHORIZED)
        try:
            answer = host.call_http(function.name, _build_request(route_params))
        except Exception:  # noqa: BLE001 - the host has reported it
            return Response(status=HTTPStatus.INTERNAL_SERVER_ERROR)
        headers = dict(answer.headers) | {"Content-Type": f"{answer.mimetype}; charset={answer.charset}"}
        return Response(answer.get_body(), answer.status_code, headers)

    return view


def _has_key(function_key: str) -> bool:
    given = request.headers.get(KEY_HEADER) or request.args.get(KEY_PARAMETER, "")
    return hmac.compare_digest(given.encode(), function_key.encode())


def _build_request(route_params: dict[str, str]) -> func.HttpRequest:
    return func.HttpRequest(
        method=request.method,
        url=request.url,
        headers=dict(request.headers),
        params=request.args.to_dict(),
        route_params=route_params,
        body=request.get_data(),
    )
