"""The requests session behind every adapter: one service, many threads, connections kept, no cookies."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers
from urllib3.connectionpool import ConnectionPool
from urllib3.util import Retry

from shared.errors import ConfigurationError

# Connections kept between calls, more than any host makes at once: a smaller pool drops and remakes them.
POOL_SIZE = 256
_PLAIN_URL = re.compile(r"https?://[a-z0-9.-]+(:\d+)?/[\w/~=&?-]+", re.ASCII)


class _Session(requests.Session):
    """A session that does once, not at every request, what is the same for all of them.

    requests looks up the machine's proxy, certificates and .netrc file, merges cookies, hooks and
    parameters, and looks up the connection pool each time; together that costs as much as the request.
    Here there are no cookies and no .netrc, no redirect is followed, and an answer is always read whole.
    """

    def __init__(self) -> None:
        super().__init__()
        self._merged: Mapping[str, Any] | None = None
        # A plain dictionary is added in one step.
        self.headers = {"Accept-Encoding": "gzip, deflate", "User-Agent": "multimail-agent/0.1.0"}

    def merge_environment_settings(self, *arguments: Any, **named: Any) -> dict[str, Any]:  # type: ignore[override]  # passed on
        """See requests; its holder passes the same for one host every time, but for `stream`: see `send`."""
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
        _ = response.content  # all of it, also where the caller could take it in pieces
        return response


class _Adapter(HTTPAdapter):
    """An adapter that looks up the pool of each service once, and keeps no cookies.

    requests leaves these methods to subclasses.
    """

    def __init__(self, retry: Retry) -> None:
        self._ways: dict[str, _Way] = {}
        super().__init__(pool_maxsize=POOL_SIZE, max_retries=retry)

    def get_connection_with_tls_context(
        self,
        request: requests.PreparedRequest,
        verify: Any,
        proxies: Mapping[str, str] | None = None,
        cert: Any = None,
    ) -> ConnectionPool:
        """See requests; the pool follows from the scheme and the host, as the session's settings stay."""
        origin = _get_origin(request)
        if origin not in self._ways:
            pool = super().get_connection_with_tls_context(request, verify, proxies, cert)
            self._trust(pool, request, verify, cert)
            is_direct = super().request_url(request, proxies) == request.path_url
            self._ways[origin] = _Way(pool, is_direct)
        return self._ways[origin].pool

    def cert_verify(self, *arguments: Any) -> None:
        """See requests; each pool was configured once."""

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        """See requests."""
        if self._ways[_get_origin(request)].is_direct:
            return request.path_url
        return super().request_url(request, proxies)

    def build_response(self, request: requests.PreparedRequest, raw: Any) -> requests.Response:
        """See requests."""
        response = requests.Response()
        response.status_code = raw.status
        response.headers = CaseInsensitiveDict(raw.headers)
        response.encoding = get_encoding_from_headers(response.headers)
        response.raw = raw
        response.reason = raw.reason
        response.url = request.url or ""
        response.request = request
        return response

    def _trust(self, pool: ConnectionPool, request: requests.PreparedRequest, verify: Any, cert: Any) -> None:
        try:
            super().cert_verify(pool, request.url, verify, cert)  # type: ignore[no-untyped-call]  # typeshed lacks it
        except OSError as error:
            raise ConfigurationError(
                f"{error}: correct or remove REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE, whichever names it."
            ) from None

    def close(self) -> None:
        """See requests."""
        self._ways.clear()
        super().close()


@dataclass(frozen=True, slots=True)
class _Way:
    """How to reach a service: its pool, and whether no proxy wants to see the whole URL."""

    pool: ConnectionPool
    is_direct: bool


def _get_origin(request: requests.PreparedRequest) -> str:
    return "/".join((request.url or "").split("/", 3)[:3])


def build_session(retry: Retry | None = None) -> requests.Session:
    """Build a session for one service. Without `retry` nothing is ever tried twice."""
    session = _Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, _Adapter(retry or Retry(0, read=False)))
    return session
