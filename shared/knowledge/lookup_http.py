"""The GET of a look-up: to an address that was judged, bounded in size and time, never redirected."""

import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from shared.errors import (
    AgentError,
    ConfigurationError,
    DeferredError,
    ThrottledError,
    UnavailableError,
)
from shared.knowledge.lookup import LookUp
from shared.services.health import Watch
from shared.services.http_session import describe_failure, find_retry_after, list_causes
from shared.services.judged_https import ForbiddenHostError, Resolve, cut_off, open_session, resolve
from shared.services.secrets import SecretSource
from shared.telemetry import span

MAX_ANSWER_BYTES = 256 * 1024
NOTHING_FOUND = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
OTHER_NAME = (62, 64)  # OpenSSL's codes for a certificate of another host name or address
REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


class LookUpReader:
    """Reads the answers of look-ups.

    `folder`: where a relative `ca_file` is. `find_secret` and `get_bearer` have what a look-up signs in with,
    by the name of its secret or its audience. `watch` sees whether each look-up works.
    """

    def __init__(
        self,
        folder: Path,
        find_secret: Callable[[str], SecretSource],
        get_bearer: Callable[[str], str],
        watch: Watch = nullcontext,
        resolve: Resolve = resolve,
    ) -> None:
        self._folder, self._find_secret, self._get_bearer = folder, find_secret, get_bearer
        self._watch, self._resolve = watch, resolve

    def read(self, look_up: LookUp, url: str) -> bytes | None:
        """The answer's content; None where the system has nothing of that customer.

        Raises ConfigurationError and TransientError, whose messages do not have the URL.
        """
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"} | self._sign_in(look_up)
        server = urlsplit(url).netloc
        with (
            self._watch(name_operation(look_up)),
            span("look up", {"agent.lookup": look_up.name}, server=server),
        ):
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
            if look_up.secret:  # it may have been renewed
                source = self._find_secret(look_up.secret)
                source.refresh(source.get())
            way = (
                "its audience and the identity's role there" if look_up.audience else "its header and secret"
            )
            is_about_all = status == HTTPStatus.UNAUTHORIZED
            return (ConfigurationError if is_about_all else DeferredError)(f"{answered}: check {way}.")
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            return DeferredError(f"{answered}: redirects are not followed, so write the final url.")
        delay = find_retry_after(headers)
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            return ThrottledError(f"{answered}.", retry_after_seconds=delay)
        kind = UnavailableError if status >= HTTPStatus.INTERNAL_SERVER_ERROR else DeferredError
        return kind(f"{answered}.", retry_after_seconds=delay)


def _explain(error: Exception, look_up: LookUp, *, is_late: bool) -> str:
    """Why no answer came, and what to set. Of the URL only host and port, which are the operator's own."""
    parts, causes = urlsplit(look_up.url), list_causes(error)
    late = (
        f"{parts.netloc} took longer than time_limit, {look_up.time_limit:g} seconds: raise it, or have it "
        "answer sooner"
    )
    untrusted = next((cause for cause in causes if isinstance(cause, ssl.SSLCertVerificationError)), None)
    tls = "correct the port in its url, and ca_file, which must have a certificate"
    if untrusted is not None and untrusted.verify_code in OTHER_NAME:
        tls = "the certificate is for another name: correct the host in its url"
    elif untrusted is not None:
        tls = (
            f"{untrusted.verify_message}: set its ca_file to the authority of the server's certificate, or "
            "where a proxy inspects TLS, of the proxy's"
        )
    known: Sequence[tuple[type[Exception] | tuple[type[Exception], ...], str]] = (
        (requests.exceptions.ProxyError, describe_failure(error)),
        ((requests.Timeout, TimeoutError), late),
        ((ssl.SSLError, requests.exceptions.SSLError), f"TLS failed with {parts.netloc}: {tls}"),
        (
            ConnectionRefusedError,
            f"{parts.netloc} refuses connections: start it, or correct host and port in its url",
        ),
        (
            (socket.gaierror, UnicodeError),
            f"the host name {parts.hostname} is unknown: correct its url, or the network's name server",
        ),
    )
    found = (words for kinds, words in known if any(isinstance(cause, kinds) for cause in causes))
    return late if is_late else next(found, f"{parts.netloc}: {type(error).__name__}")


def name_operation(look_up: LookUp) -> str:
    """What the look-up is called where it is watched."""
    return f"the look-up {look_up.name}"


def _describe(look_up: LookUp) -> str:
    return f"The look-up {look_up.name} (lookups in mailboxes.yaml)"
