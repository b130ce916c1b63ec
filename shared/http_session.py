"""The requests session behind every adapter: one service, many threads, connections kept, no cookies."""

from collections.abc import Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

# Connections kept between calls, more than any host makes at once: a smaller pool drops and remakes them.
POOL_SIZE = 256


class _Session(requests.Session):
    """A session that asks once, not at every request, which proxy and certificates the machine names.

    requests walks through all environment variables and looks for a .netrc file each time, which costs
    more than the request itself; and a .netrc entry would take the place of a header that is set already.
    """

    def __init__(self) -> None:
        super().__init__()
        self._merged: Mapping[str, Any] | None = None
        self.auth = _keep_headers
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))

    def merge_environment_settings(self, *arguments: Any, **named: Any) -> dict[str, Any]:  # type: ignore[override]  # passed on
        """See requests; whoever holds this session passes the same arguments for the same host every time."""
        if self._merged is None:
            self._merged = super().merge_environment_settings(*arguments, **named)
        return dict(self._merged)


def build_session(retry: Retry | None = None) -> requests.Session:
    """Build a session for one service. Without `retry` nothing is ever tried twice."""
    session = _Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=POOL_SIZE, max_retries=retry or Retry(0, read=False)))
    return session


def _keep_headers(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
