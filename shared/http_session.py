"""HTTP sessions for the adapters, and how long an answer asks its caller to wait."""

import math
import ssl
from collections.abc import Collection, Mapping
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
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
    adapter = HTTPAdapter(pool_maxsize=POOL_SIZE, max_retries=_build_retry(repeatable_methods))
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    session.headers["User-Agent"] = USER_AGENT
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return session


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


def describe_failure(error: Exception, certificates: str = "REQUESTS_CA_BUNDLE") -> str:
    """Say why no answer came, and what to set where TLS or a proxy is in the way.

    `certificates` is the variable from which the client takes its certificate authorities. An SDK's own
    error has the reason behind it.
    """
    links: list[BaseException] = [error]
    while (behind := links[-1].__cause__ or links[-1].__context__) is not None and behind not in links:
        links.append(behind)
    name = type(error).__name__
    if any(type(link).__name__ == "ProxyError" for link in links):
        return f"{name}: the proxy does not let it through. Correct HTTPS_PROXY, or name the host in NO_PROXY"
    if any(isinstance(link, ssl.SSLError | requests.exceptions.SSLError) for link in links):
        return (
            f"{name}: TLS failed. Where a proxy inspects TLS, set {certificates} to a file with its "
            "certificate authority; otherwise correct HTTPS_PROXY"
        )
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
