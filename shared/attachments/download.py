"""The download of a larger attachment, from an address that is not MultiMail's: judged, and bounded."""

from http import HTTPStatus
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as PoolTimeoutError

from shared.attachments.formats import Unread, UnreadError
from shared.errors import ConfigurationError, PermanentError, TransientError
from shared.services.http_session import describe_failure
from shared.services.judged_https import (
    ForbiddenHostError,
    Resolve,
    check_host,
    cut_off,
    open_session,
    resolve,
)

CONNECT_SECONDS = 5.0
_TIMEOUTS = (requests.Timeout, PoolTimeoutError, TimeoutError)  # of one reading, which the cut may follow


def get_bounded(
    url: str,
    max_bytes: int,
    seconds: float,
    *,
    allow_private: bool = False,
    resolve: Resolve = resolve,
) -> bytes:
    """The bytes behind an https address, without a key, a cookie or a redirect, in the time and size given.

    The IP address that is judged is the one that is connected to. Behind a proxy only the proxy can judge it.
    Raises UnreadError (too large, too slow), PermanentError (an address or answer that is refused) and
    TransientError (no answer). No message has the address: who has it can read the file.
    """
    _check(url)
    with cut_off(seconds) as (take_socket, is_cut):
        try:
            session = open_session(url, resolve, allow_private=allow_private, on_connect=take_socket)
        except ForbiddenHostError:
            raise PermanentError("a file's host is in a private network") from None
        except ConfigurationError as error:
            raise TransientError(f"a file's host is not asked: {error.reason}") from None
        except (OSError, UnicodeError):
            raise TransientError("a file's host has no address") from None
        try:
            with session:
                content = _get(session, url, max_bytes, seconds)
        except (requests.RequestException, HTTPError, OSError) as error:
            if is_cut() or isinstance(error, _TIMEOUTS):
                raise UnreadError(Unread.TOOK_TOO_LONG) from None
            raise TransientError(f"a file's host gave no whole answer: {describe_failure(error)}") from None
        if is_cut():  # what ends with its connection seems to be whole
            raise UnreadError(Unread.TOOK_TOO_LONG)
        return content


def _get(session: requests.Session, url: str, max_bytes: int, seconds: float) -> bytes:
    headers, timeout = {"Accept-Encoding": "identity"}, (CONNECT_SECONDS, seconds)
    with session.get(url, headers=headers, timeout=timeout, allow_redirects=False, stream=True) as response:
        if response.status_code != HTTPStatus.OK or response.headers.get("Content-Encoding"):
            raise PermanentError(f"a file's host answered {response.status_code}, or packed")
        length = response.headers.get("Content-Length", "")
        is_larger = length.isdecimal() and int(length) > max_bytes
        content: bytes = b"" if is_larger else response.raw.read(max_bytes + 1, decode_content=False)
        if is_larger or len(content) > max_bytes:
            raise UnreadError(Unread.TOO_LARGE)
        return content


def _check(url: str) -> None:
    try:
        parts = urlsplit(url)
        check_host(parts.hostname or "")
        is_refused = parts.scheme != "https" or parts.username is not None
        _ = parts.port  # raises where it is none
    except ValueError:
        is_refused = True
    if is_refused:
        raise PermanentError("a file's address is not https, or cannot be read")
