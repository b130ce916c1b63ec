"""The requests session behind every adapter: one service, many threads, connections kept, no cookies."""

import re
from collections.abc import Mapping
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import ConnectionPool
from urllib3.util import Retry

# Connections kept between calls, more than any host makes at once: a smaller pool drops and remakes them.
POOL_SIZE = 256
_PLAIN_URL = re.compile(r"https?://[a-z0-9.-]+(:\d+)?/[\w/~=&?%-]+", re.ASCII)


class _Session(requests.Session):
    """A session that does once, not at every request, what is the same for all of them.

    requests looks up the machine's proxy, certificates and .netrc file, merges cookies, hooks and
    parameters, and finds the connection pool anew each time; together that costs as much as the request.
    Here there are no cookies and no .netrc, and no redirect is followed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._merged: Mapping[str, Any] | None = None

    def merge_environment_settings(self, *arguments: Any, **named: Any) -> dict[str, Any]:  # type: ignore[override]  # passed on
        """See requests; whoever holds this session passes the same arguments for the same host every time."""
        if self._merged is None:
            self._merged = super().merge_environment_settings(*arguments, **named)
        return dict(self._merged)

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """See requests; of the session's own values only the headers are added."""
        prepared = requests.PreparedRequest()
        prepared.prepare_method(request.method)
        if not request.params and _PLAIN_URL.fullmatch(request.url):
            prepared.url = request.url  # nothing in it would change
        else:
            prepared.prepare_url(request.url, request.params)
        prepared.prepare_headers({**self.headers, **request.headers})
        if request.method != "GET" or request.data:
            prepared.prepare_body(request.data, request.files, request.json)
        if request.auth:
            prepared.prepare_auth(request.auth)
        return prepared

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """See requests; the answer is the first one, whatever it redirects to."""
        options.pop("allow_redirects", None)
        response = self.get_adapter(request.url or "").send(request, **options)
        if not options.get("stream"):
            _ = response.content  # read while the connection is still this thread's
        return response


class _Adapter(HTTPAdapter):
    """An adapter that keeps hold of the pool of each service."""

    def __init__(self, retry: Retry) -> None:
        self._pools: dict[str, ConnectionPool] = {}
        super().__init__(pool_maxsize=POOL_SIZE, max_retries=retry)

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, *arguments: Any, **named: Any
    ) -> ConnectionPool:
        """See requests; the pool follows from the scheme and the host, as the session's settings stay."""
        origin = "/".join((request.url or "").split("/", 3)[:3])
        if origin not in self._pools:
            self._pools[origin] = super().get_connection_with_tls_context(request, *arguments, **named)
        return self._pools[origin]

    def close(self) -> None:
        """See requests."""
        self._pools.clear()
        super().close()


def build_session(retry: Retry | None = None) -> requests.Session:
    """Build a session for one service. Without `retry` nothing is ever tried twice."""
    session = _Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, _Adapter(retry or Retry(0, read=False)))
    return session
