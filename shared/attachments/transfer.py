"""From MultiMail's answer about an attachment to its bytes, and the GET that leads away from MultiMail."""

import ipaddress
import socket
import time
from base64 import b64decode
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import SplitResult, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from shared.attachments.formats import Unread, UnreadError
from shared.errors import PermanentError, TransientError
from shared.mail.connection import Answer
from shared.mail.parsing import UnreadableError, parse_json
from shared.services.http_session import build_session, describe_failure

DOWNLOAD_SECONDS = 20.0
CONNECT_SECONDS = 5.0
READ_BYTES = 65_536

Download = Callable[[str, int, float], bytes]  # an address, the most bytes, the most seconds

_CONTENT_FIELDS = ("content_base64", "content")
_URL_FIELDS = ("url", "download_url")


def read_answer(answer: Answer, max_bytes: int, download: Download) -> bytes:
    """The bytes of an attachment from MultiMail's answer. Raises UnreadError.

    The contract promises "base64 inline under 50 KB, a presigned URL above" and names no fields. Accepted:

    - `content_base64`, the name that the contract gives to the files of outgoing mail and MultiMail's MCP
      server to downloaded ones, and its short form `content`;
    - `url`, MultiMail's name where it gives nothing but an address, and `download_url`, the MCP server's;
    - the bytes themselves, in an answer that is not JSON: MultiMail's Python client takes every answer so.
    """
    if not answer.is_json:
        return _bounded(answer.content, max_bytes)
    try:
        found = parse_json(answer.content)
    except UnreadableError:
        raise UnreadError(Unread.UNKNOWN_FORM) from None
    encoded = _find_text(found, _CONTENT_FIELDS)
    if encoded is not None:
        if len(encoded) > max_bytes * 2:
            raise UnreadError(Unread.TOO_LARGE)
        try:
            return _bounded(b64decode("".join(encoded.split()), validate=True), max_bytes)
        except ValueError:
            raise UnreadError(Unread.UNKNOWN_FORM) from None
    url = _find_text(found, _URL_FIELDS)
    if url is None:
        raise UnreadError(Unread.UNKNOWN_FORM)
    try:
        return download(url, max_bytes, DOWNLOAD_SECONDS)
    except (PermanentError, TransientError):
        raise UnreadError(Unread.NOT_FETCHED) from None


def _find_text(found: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((found[name] for name in names if isinstance(found.get(name), str)), None)


def _bounded(content: bytes, max_bytes: int) -> bytes:
    if len(content) > max_bytes:
        raise UnreadError(Unread.TOO_LARGE)
    return content


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return parsed.is_global and not parsed.is_multicast


def get_bounded(
    url: str,
    max_bytes: int,
    seconds: float,
    *,
    is_allowed: Callable[[str], bool] = is_public,
    monotonic: Callable[[], float] = time.monotonic,
) -> bytes:
    """The bytes behind an https address, without a key, a cookie or a redirect, in the time and size given.

    The IP address that is judged is the one that is connected to. Behind a proxy only the proxy can judge it.
    Raises UnreadError (too large, too slow), PermanentError (an address or answer that is refused) and
    TransientError (no answer). No message has the address: who has it can read the file.
    """
    parts = _split(url)
    session = build_session(url)
    if not requests.utils.select_proxy(url, session.proxies):
        session.mount("https://", _PinnedAdapter(parts.hostname or "", _resolve(parts, is_allowed)))
    ends_at = monotonic() + seconds
    headers = {"Host": parts.netloc, "Accept-Encoding": "identity"}
    try:
        with session.get(
            url, headers=headers, timeout=(CONNECT_SECONDS, seconds), allow_redirects=False, stream=True
        ) as response:
            if response.status_code != HTTPStatus.OK or response.headers.get("Content-Encoding"):
                raise PermanentError(f"a file's address answered {response.status_code}, or packed")
            length = response.headers.get("Content-Length", "")
            if length.isdecimal() and int(length) > max_bytes:
                raise UnreadError(Unread.TOO_LARGE)
            content = bytearray()
            while piece := response.raw.read1(READ_BYTES):
                content += piece
                if len(content) > max_bytes or monotonic() > ends_at:
                    raise UnreadError(Unread.TOO_LARGE if len(content) > max_bytes else Unread.TOOK_TOO_LONG)
            return bytes(content)
    except (requests.RequestException, HTTPError, OSError) as error:
        raise TransientError(f"a file's address gave no whole answer: {describe_failure(error)}") from None
    finally:
        session.close()


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        is_refused = parts.scheme != "https" or not parts.hostname or parts.username is not None
        _ = parts.port  # raises where it is none
    except ValueError:
        is_refused = True
    if is_refused:
        raise PermanentError("a file's address is not https, or cannot be read")
    return parts


def _resolve(parts: SplitResult, is_allowed: Callable[[str], bool]) -> str:
    """One address of the host; all of them have to be allowed."""
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise TransientError("a file's host has no address") from None
    addresses = [str(entry[4][0]) for entry in found]
    if not all(map(is_allowed, addresses)):
        raise PermanentError("a file's host is in a private network")
    return addresses[0]


class _PinnedAdapter(HTTPAdapter):
    """Connects to one IP address, and verifies the certificate of the host that it was looked up for."""

    def __init__(self, host: str, address: str) -> None:
        super().__init__(max_retries=0)
        self._host, self._address = host, address

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: bool | str, cert: Any = None
    ) -> Any:  # of a type that requests keeps to itself
        """See HTTPAdapter."""
        place, options = super().build_connection_pool_key_attributes(request, verify, cert)
        names = {"server_hostname": self._host, "assert_hostname": self._host}
        return {**place, "host": self._address}, {**options, **names}
