"""The agent as the desk reaches it over HTTP: what it knows of an email, and what a reviewer says of one."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import requests

from shared.errors import (
    ConfigurationError,
    ConflictError,
    NotFoundError,
    PermanentError,
    TransientError,
)
from shared.ledger.rows import from_plain
from shared.operator.review import ReviewItem
from shared.services.http_answer import HttpAnswer
from shared.services.http_session import build_session, describe_failure
from shared.settings import Secret

KEY_HEADER = "x-functions-key"
WRONG_KEY = (
    "AGENT_KEY: the agent refused it: give a key of its function `review`, or the one that `run` printed; "
    "if the app demands a token of Entra ID too, set AGENT_SCOPE."
)
NO_FUNCTION = (
    "AGENT_URL: there is no review desk at this address: give the address of the function app, with "
    "OPERATOR_FUNCTIONS_ENABLED not false."
)


class AgentAwayError(TransientError):
    """The agent gives no usable answer for now."""


@dataclass(frozen=True, slots=True)
class AgentAccess:
    """Where the agent answers and what lets the desk in: a function key, maybe a token of Entra ID too."""

    url: str
    key: Secret
    get_token: Callable[[], str] | None = field(default=None, repr=False)


class DeskAgent:
    """The agent's review functions, safe to share between threads. `reviewer`: the key's fingerprint.

    Every method raises ConfigurationError (wrong key or address), NotFoundError, ConflictError (the email has
    moved on), PermanentError (refused, with the agent's sentence) and AgentAwayError.
    """

    def __init__(self, access: AgentAccess, reviewer: str, *, timeout: tuple[float, float]) -> None:
        self.reviewer = reviewer
        self._access = access
        self._timeout = timeout
        self._session = build_session(access.url, ("GET",))

    def list_items(self) -> list[ReviewItem]:
        """What is pending, and what is or was left to people."""
        found = self._read({"reviewer": self.reviewer})
        items = found.get("items") if isinstance(found, dict) else None
        return [_parse_item(item) for item in items] if isinstance(items, list) else _refuse_form()

    def find(self, key: tuple[str, str]) -> ReviewItem | None:
        """All that the agent knows of an email; None for one that it does not know."""
        mailbox_id, email_id = key
        params = {"mailbox_id": mailbox_id, "email_id": email_id, "reviewer": self.reviewer}
        try:
            return _parse_item(self._read(params))
        except NotFoundError:
            return None

    def say(self, action: str, key: tuple[str, str], *, reply_id: str = "", text: str = "") -> None:
        """Have the agent keep what the reviewer says."""
        mailbox_id, email_id = key
        body = {
            "action": action, "mailbox_id": mailbox_id, "email_id": email_id,
            "reply_id": reply_id, "reviewer": self.reviewer, "text": text,
        }  # fmt: skip
        _check(self._send("POST", "/api/review", body=body))

    def report(self, query: Mapping[str, str]) -> HttpAnswer:
        """The trust report as a page, as the agent answers it."""
        response = self._send("GET", "/api/report", params={**query, "format": "html"})
        if response.status_code != HTTPStatus.BAD_REQUEST:
            _check(response)
        policy = "Content-Security-Policy"
        headers = {policy: response.headers[policy]} if policy in response.headers else {}
        mimetype = response.headers.get("Content-Type", "text/plain").partition(";")[0]
        return HttpAnswer(response.status_code, response.text, mimetype, headers)

    def _read(self, params: Mapping[str, str]) -> Any:
        response = self._send("GET", "/api/review", params=params)
        _check(response)
        try:
            return json.loads(response.content)
        except (ValueError, RecursionError):
            return _refuse_form()

    def _send(
        self, method: str, path: str, *, params: Mapping[str, str] | None = None, body: Any = None
    ) -> requests.Response:
        headers = {"Accept": "application/json", KEY_HEADER: self._access.key.value}
        if self._access.get_token is not None:
            headers["Authorization"] = f"Bearer {self._access.get_token()}"
        try:
            return self._session.request(
                method, self._access.url.rstrip("/") + path, params=params, json=body,
                headers=headers, timeout=self._timeout, allow_redirects=False,
            )  # fmt: skip
        except requests.RequestException as error:  # whose text has the address
            raise AgentAwayError(f"the agent gave no answer: {describe_failure(error)}") from None


def _check(response: requests.Response) -> None:
    status = response.status_code
    if status == HTTPStatus.OK:
        return
    try:
        said = str(json.loads(response.content)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        said = ""
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise ConfigurationError(WRONG_KEY)
    if status == HTTPStatus.NOT_FOUND:
        raise NotFoundError(said) if said else ConfigurationError(NO_FUNCTION)
    if status == HTTPStatus.CONFLICT:
        raise ConflictError(said)
    if status == HTTPStatus.BAD_REQUEST:
        raise PermanentError(said, status_code=status)
    raise AgentAwayError(f"the agent answered {status}: its log says why")


def _parse_item(value: Any) -> ReviewItem:
    try:
        item = from_plain(ReviewItem, value)
    except (TypeError, ValueError, AttributeError):
        item = None
    return item if isinstance(item, ReviewItem) else _refuse_form()


def _refuse_form() -> Any:
    raise AgentAwayError("the agent's answer has another form: bring desk and agent to the same version")
