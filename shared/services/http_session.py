"""HTTP sessions for the adapters: why no answer came, and how long an answer asks its caller to wait."""

import logging
import math
import ssl
from collections.abc import Collection, Mapping
from contextlib import closing
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ProtocolError
from urllib3.util import Retry

from shared.errors import ConfigurationError

# Connections kept between calls, more than any host makes at once: a smaller pool drops and remakes them.
POOL_SIZE = 256
USER_AGENT = "multimail-agent/0.1.0"
SHORTEST_RETRY_AFTER_SECONDS = 1.0  # 0 or a past date would make the caller spin
LONGEST_RETRY_AFTER_SECONDS = 86_400.0  # a mistaken header must not park an email for ever


def build_session(url: str, repeatable_methods: Collection[str] | None = None) -> requests.Session:
    """Build a session for the service at `url`, to be shared by many threads.

    Without `repeatable_methods` nothing is tried twice. With them, a connection that was never made is
    tried again for every method, and what may have been sent only for these; anything longer is the
    ledger's back-off. Callers pass `timeout`, and `allow_redirects=False`: a redirect takes the key along.

    Raises ConfigurationError when the machine names a certificate bundle that does not exist.
    """
    # It warns of each broken connection with the whole URL, and so with addresses and search words.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    session = requests.Session()
    # What the machine says about proxies and certificates is read once. Left to itself, requests reads it at
    # every request, and lets a .netrc entry replace the Authorization header.
    machine = session.merge_environment_settings(url, {}, None, None, None)
    session.trust_env = False
    session.proxies, session.verify = machine["proxies"], machine["verify"]
    if isinstance(session.verify, str) and not Path(session.verify).exists():
        raise ConfigurationError(
            f"There are no certificates at {session.verify}: correct or remove REQUESTS_CA_BUNDLE or "
            "CURL_CA_BUNDLE, whichever names it."
        )
    adapter = _Adapter(repeatable_methods)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    session.headers["User-Agent"] = USER_AGENT
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return session


class _Adapter(HTTPAdapter):
    """Keeps connections for the next request, unless one broke under a request that may be sent only once.

    From then on, each such request has a connection of its own: where a gateway resets whatever is used
    again, it would never get through.
    """

    def __init__(self, repeatable_methods: Collection[str] | None) -> None:
        super().__init__(pool_maxsize=POOL_SIZE, max_retries=_build_retry(repeatable_methods))
        self._repeatable = repeatable_methods or ()
        self._has_broken = False

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        """Send one request. See HTTPAdapter."""
        if request.method in self._repeatable:
            return super().send(request, *args, **options)
        if self._has_broken:
            with closing(HTTPAdapter(max_retries=self.max_retries)) as unused:
                return unused.send(request, *args, **options)
        try:
            return super().send(request, *args, **options)
        except requests.ConnectionError as error:
            self._has_broken = isinstance(error.args[0], ProtocolError)
            raise


def _build_retry(repeatable_methods: Collection[str] | None) -> Retry:
    if repeatable_methods is None:
        return Retry(0, read=False)
    return Retry(
        total=2,
        connect=2,
        read=1,
        status=1,
        other=0,
        status_forcelist=(502, 503, 504),
        allowed_methods=repeatable_methods,
        backoff_factor=0.25,
        backoff_jitter=0.5,
        raise_on_status=False,
        respect_retry_after_header=False,
    )


def list_causes(error: BaseException) -> list[BaseException]:
    """The error and all that is behind it."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(cause)
        # azure-core names what it wraps in an attribute of its own.
        cause = cause.__cause__ or getattr(cause, "inner_exception", None) or cause.__context__
    return causes


def describe_failure(
    error: BaseException, certificates: str = "REQUESTS_CA_BUNDLE", *, is_proxied: bool = False
) -> str:
    """Say why no answer came, and what to set where TLS or a proxy is in the way.

    `certificates` is the variable from which the client takes its certificate authorities. `is_proxied`: a
    connection that was never made may have been one to the proxy, for a client that does not tell which.
    """
    causes = list_causes(error)
    names = {type(cause).__name__ for cause in causes}
    name = type(error).__name__
    if any(isinstance(cause, ssl.SSLError | requests.exceptions.SSLError) for cause in causes):
        return (
            f"{name}: TLS failed. Where a proxy inspects TLS, set {certificates} to a file with its "
            "certificate authority; otherwise correct HTTPS_PROXY"
        )
    if "ProxyError" in names or (is_proxied and "ConnectError" in names):
        return f"{name}: the proxy lets nothing through. Correct HTTPS_PROXY, or name the host in NO_PROXY"
    return name


def find_retry_after(headers: Mapping[str, str]) -> float | None:
    """How many seconds an answer asks to be left alone; None when it does not say so readably.

    `headers` are found in any case. Reads retry-after-ms (Azure OpenAI), then Retry-After in seconds or as
    an HTTP date, counted from the answer's own Date: the service's clock may differ from ours.
    """
    milliseconds = _parse_number(headers.get("retry-after-ms", ""))
    value = headers.get("retry-after", "")
    seconds = _parse_number(value) if milliseconds is None else milliseconds / 1000
    if seconds is None:
        try:
            wait = parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("date", ""))
        except (TypeError, ValueError, OverflowError):
            return None
        seconds = wait.total_seconds()
    return min(max(SHORTEST_RETRY_AFTER_SECONDS, seconds), LONGEST_RETRY_AFTER_SECONDS)


def _parse_number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
