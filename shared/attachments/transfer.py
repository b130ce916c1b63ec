"""From MultiMail's answer about an attachment to its bytes."""

import logging
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from shared.attachments.formats import Unread, UnreadError
from shared.errors import PermanentError, TransientError
from shared.mail.connection import Answer
from shared.mail.parsing import UnreadableError, parse_json
from shared.model.prompting import clean_line

DOWNLOAD_SECONDS = 20.0

MAX_HOST_CHARACTERS = 253

Download = Callable[[str, int, float], bytes]  # an address, the most bytes, the most seconds

_CONTENT_FIELDS = ("content_base64", "content")
_URL_FIELDS = ("url", "download_url")

log = logging.getLogger(__name__)


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
    except (PermanentError, TransientError) as error:
        log.warning("an attachment was not fetched from %s: %s", _find_host(url), error)
        raise UnreadError(Unread.NOT_FETCHED) from None


def _find_host(url: str) -> str:
    """The host of an address alone: who has the rest can read the file."""
    try:
        return clean_line(urlsplit(url).hostname or "no host", MAX_HOST_CHARACTERS)
    except ValueError:
        return "no host"


def _find_text(found: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((found[name] for name in names if isinstance(found.get(name), str)), None)


def _bounded(content: bytes, max_bytes: int) -> bytes:
    if len(content) > max_bytes:
        raise UnreadError(Unread.TOO_LARGE)
    return content
