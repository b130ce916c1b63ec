"""The GET of a look-up: to an address that was judged, bounded in size and time, never redirected."""

import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext, suppress
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError, LocationParseError

from shared.errors import (
    AgentError,
    ConfigurationError,
    DeferredError,
    ThrottledError,
    TransientError,
    UnavailableError,
)
from shared.knowledge.lookup import LookUp
from shared.services.health import Watch
from shared.services.http_session import find_retry_after, list_causes
from shared.services.judged_https import ForbiddenHostError, Resolve, cut_off, open_session, resolve
from shared.services.secrets import FindSecret, is_sendable
from shared.telemetry import span

MAX_ANSWER_BYTES = 256 * 1024
NOTHING_FOUND = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
OTHER_NAME = (62, 64)  # OpenSSL's codes for a certificate of another host name or address
REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
EXPIRED = 10  # OpenSSL's code for a certificate whose time is over
# Of a url that is unfit too: the look-up's own was checked.
PROXY_ERRORS = (
    requests.exceptions.ProxyError,
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,
    LocationParseError,
)
REFRESH_SECONDS = 60.0  # a secret is read again at most so often, however many answers refuse it


class LookUpReader:
    """Reads the answers of look-ups.

    `folder`: where a relative `ca_file` is. `find_secret` and `get_bearer` have what a look-up signs in with,
    by the name of its secret or its audience. `watch` sees whether each look-up works.
    """

    def __init__(
        self,
        folder: Path,
        find_secret: FindSecret,
        get_bearer: Callable[[str], str],
        watch: Watch = nullcontext,
        resolve: Resolve = resolve,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._find_secret, self._get_bearer = folder, find_secret, get_bearer
        self._watch, self._resolve, self._monotonic = watch, resolve, monotonic
        self._refreshed_at = dict[str, float]()

    def read(self, look_up: LookUp, url: str) -> bytes | None:
        """The answer's content; None where the system has nothing of that customer.

        Raises ConfigurationError and TransientError, whose messages do not have the URL.
        """
        server = urlsplit(url).netloc
        with (
            self._watch(name_operation(look_up)),
            span("look up", {"agent.lookup": look_up.name}, server=server),
        ):
            headers = {"Accept": "application/json", "Accept-Encoding": "identity"} | self._sign_in(look_up)
            status, answered, content = self._get(look_up, url, headers)
            if status in NOTHING_FOUND:
                return None
            if status == HTTPStatus.OK:
                return content
            raise self._build_error(look_up, status, answered)

    def _sign_in(self, look_up: LookUp) -> dict[str, str]:
        if look_up.audience:
            return {"Authorization": f"Bearer {self._get_bearer(look_up.audience)}"}
        if not look_up.secret:
            return {}
        value = self._find_secret(look_up.secret).get().value
        if not is_sendable(value):
            raise ConfigurationError(
                f"{_describe(look_up)} cannot sign in: its secret {look_up.secret} is empty, or holds white "
                "space or characters outside ASCII. Store it again."
            )
        is_bearer = look_up.header.lower() == "authorization"
        return {look_up.header: f"Bearer {value}" if is_bearer else value}

    def _get(
        self, look_up: LookUp, url: str, headers: Mapping[str, str]
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and content of the answer."""
        limit = look_up.time_limit
        with cut_off(limit) as (guard, is_cut):
            try:
                with self._open_session(look_up, url, guard) as session:
                    asked = session.get(
                        url, headers=headers, timeout=limit, allow_redirects=False, stream=True
                    )
                    with closing(asked) as answer:  # as it comes: nothing is unpacked
                        content = answer.raw.read(MAX_ANSWER_BYTES + 1, decode_content=False)
            except (requests.RequestException, HTTPError, OSError, UnicodeError) as error:
                # Not from the error, whose text has the URL.
                reason = _explain(error, look_up, is_late=is_cut())
                raise UnavailableError(f"{_describe(look_up)} gave no answer: {reason}.") from None
        if len(content) > MAX_ANSWER_BYTES:
            raise DeferredError(
                f"{_describe(look_up)} gave more than {MAX_ANSWER_BYTES // 1024} KiB: let it answer with the "
                "fields alone that are shown."
            )
        return answer.status_code, answer.headers, content

    def _open_session(
        self, look_up: LookUp, url: str, on_connect: Callable[[socket.socket], None]
    ) -> requests.Session:
        ca_file = self._folder / look_up.ca_file
        if look_up.ca_file and not ca_file.is_file():
            raise ConfigurationError(
                f"{_describe(look_up)}: {ca_file} is not a file: put it there, or correct ca_file."
            )
        try:
            session = open_session(
                url, self._resolve, allow_private=look_up.allow_private, on_connect=on_connect
            )
        except ForbiddenHostError as error:
            raise ConfigurationError(f"{_describe(look_up)} is not asked: {error}") from None
        if look_up.ca_file:
            session.verify = str(ca_file)
        return session

    def _build_error(self, look_up: LookUp, status: int, headers: Mapping[str, str]) -> AgentError:
        """What a refusal means. All but 401 may be about this customer alone, or what the email names."""
        answered = f"{_describe(look_up)} answered HTTP {status}"
        if status in REFUSED:
            self._refresh(look_up)
            way = "let it sign in, with an audience, or a header and a secret"
            if look_up.audience:
                way = "check its audience and the identity's role there"
            elif look_up.secret:
                way = "check its header and secret"
            is_about_all = status == HTTPStatus.UNAUTHORIZED
            return (ConfigurationError if is_about_all else DeferredError)(f"{answered}: {way}.")
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            return DeferredError(f"{answered}: redirects are not followed, so write the final url.")
        delay = find_retry_after(headers)
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            return ThrottledError(
                f"{answered}: let it answer more often, or ask less with cache.", retry_after_seconds=delay
            )
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return UnavailableError(f"{answered}: see that system's own log.", retry_after_seconds=delay)
        return DeferredError(f"{answered}: check its url, and what that system's log says of it.")

    def _refresh(self, look_up: LookUp) -> None:
        """Read its secret again, which may have been renewed. If that fails, the next look-up says so."""
        now = self._monotonic()
        if (
            not look_up.secret
            or now - self._refreshed_at.get(look_up.secret, -REFRESH_SECONDS) < REFRESH_SECONDS
        ):
            return
        self._refreshed_at[look_up.secret] = now
        with suppress(ConfigurationError, TransientError):
            source = self._find_secret(look_up.secret)
            source.refresh(source.get())


def _explain(error: Exception, look_up: LookUp, *, is_late: bool) -> str:
    """Why no answer came, and what to set. Of the URL only host and port, which are the operator's own."""
    parts, causes = urlsplit(look_up.url), list_causes(error)

    def is_by(*kinds: type[Exception]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    if is_late or is_by(requests.Timeout, TimeoutError):
        limit = f"time_limit, {look_up.time_limit:g} seconds"
        return f"{parts.netloc} took longer than {limit}: raise it, or have it answer sooner"
    if is_by(*PROXY_ERRORS):
        return "the proxy lets nothing through. Correct HTTPS_PROXY, or name the host in NO_PROXY"
    if is_by(ssl.SSLError, requests.exceptions.SSLError):
        untrusted = (cause for cause in causes if isinstance(cause, ssl.SSLCertVerificationError))
        return f"TLS failed with {parts.netloc}: {_explain_tls(next(untrusted, None))}"
    if is_by(ConnectionRefusedError):
        return f"{parts.netloc} refuses connections: start it, or correct host and port in its url"
    if is_by(socket.gaierror, UnicodeError):
        return f"the host name {parts.hostname} is unknown: correct its url, or the network's name server"
    return f"{parts.netloc}: {type(error).__name__}"


def _explain_tls(untrusted: ssl.SSLCertVerificationError | None) -> str:
    if untrusted is None:
        return "correct the port in its url, and ca_file, which must have a certificate"
    if untrusted.verify_code in OTHER_NAME:
        return "the certificate is for another name: correct the host in its url"
    if untrusted.verify_code == EXPIRED:
        return "the certificate has expired: have it renewed on the server"
    return (
        f"{untrusted.verify_message}: set its ca_file to the authority of the server's certificate, or where "
        "a proxy inspects TLS, of the proxy's"
    )


def name_operation(look_up: LookUp) -> str:
    """What the look-up is called where it is watched: other mailboxes' may have its name."""
    return f"the look-up {look_up.name} at {urlsplit(look_up.url).netloc}"


def _describe(look_up: LookUp) -> str:
    return f"The look-up {look_up.name} (lookups in mailboxes.yaml)"
