"""Delivery: one notification on its way to its target, whose address is a secret."""

import hmac
from contextlib import closing
from hashlib import sha256
from http import HTTPStatus
from urllib.parse import urlsplit

import requests

from shared.errors import ConfigurationError, ThrottledError, UnavailableError
from shared.notifying.messages import Message
from shared.notifying.rendering import render
from shared.services.http_session import build_session, describe_failure, find_retry_after
from shared.services.secrets import FindSecret
from shared.settings import LOOPBACK
from shared.telemetry import span

SIGNATURE_HEADER = "X-Agent-Signature"
SIGNED_KIND = "json-"
KEY_SUFFIX = "-key"
PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY)


class Delivery:
    """Sends notifications. `find_secret` has the address of target `teams-support` as `notify-teams-support`.

    `timeout` is (connect, read) in seconds. Nothing is sent twice here: the ledger knows what is still to be
    told.
    """

    def __init__(self, find_secret: FindSecret, timeout: tuple[float, float] = (5.0, 15.0)) -> None:
        self._find_secret = find_secret
        self._timeout = timeout

    def send(self, target: str, message: Message) -> None:
        """Send a notification.

        Raises ConfigurationError (no address, or one that refuses it), ThrottledError (429) and
        UnavailableError (no connection, time-out, 5xx).
        """
        name = f"notify-{target}"
        address = self._find_secret(name).get().value
        self._check(name, address)
        body = render(target, message)
        headers = {"Content-Type": "application/json; charset=utf-8"}
        if target.startswith(SIGNED_KIND):
            key = self._find_secret(name + KEY_SUFFIX).get().value
            headers[SIGNATURE_HEADER] = f"sha256={hmac.digest(key.encode(), body, sha256).hex()}"
        host = urlsplit(address).hostname or ""  # all else in the address is secret
        server = f"[{host}]" if ":" in host else host
        with span("notify", {"agent.target": target}, server=server) as current:
            answer = self._post(name, address, body, headers)
            current.set_attribute("http.response.status_code", answer.status_code)
        self._judge(name, answer)

    def _check(self, name: str, address: str) -> None:
        """An address must not cross a network in the clear: http is for this machine only."""
        try:
            parts = urlsplit(address)
            is_here = parts.scheme == "http" and parts.hostname in LOOPBACK
            is_usable = bool(parts.hostname) and (parts.scheme == "https" or is_here)
        except ValueError:
            is_usable = False
        if not is_usable:
            raise ConfigurationError(f"{_describe(name)} is not an https address: store it again.")

    def _post(self, name: str, address: str, body: bytes, headers: dict[str, str]) -> requests.Response:
        try:
            with closing(build_session(address)) as session:
                return session.post(
                    address, data=body, headers=headers, timeout=self._timeout, allow_redirects=False
                )
        except requests.RequestException as error:
            # Not from the error, whose text has the address, which is a secret.
            raise UnavailableError(f"{_describe(name)} gave no answer: {describe_failure(error)}") from None

    def _judge(self, name: str, answer: requests.Response) -> None:
        status = answer.status_code
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return
        came_back = f"{_describe(name)} answered {status}"
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            raise ThrottledError(came_back, retry_after_seconds=find_retry_after(answer.headers))
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in PASSING:
            raise UnavailableError(came_back, retry_after_seconds=find_retry_after(answer.headers))
        raise ConfigurationError(
            f"{came_back}, so it takes no notifications: create the webhook again and store its address."
        )


def name_variable(name: str) -> str:
    """The variable of a secret's name: NOTIFY_TEAMS_SUPPORT for `notify-teams-support`."""
    return name.upper().replace("-", "_")


def _describe(name: str) -> str:
    return f"{name_variable(name)} (in Key Vault {name})"
