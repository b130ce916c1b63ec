"""A MultiMail account over HTTP: one key, one session, and an error for every answer but a success."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, TypeVar

import requests

from shared.errors import TransientError, UnavailableError
from shared.mail.call import Call
from shared.mail.parsing import UnreadableError, parse_json
from shared.mail.refusals import explain_refusal
from shared.services.health import Watch
from shared.services.http_session import build_session, describe_failure
from shared.services.secrets import SecretSource
from shared.settings import Secret
from shared.telemetry import span

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer, still to be read."""

    call: Call
    status_code: int
    content: bytes = field(repr=False)
    is_json: bool = True

    def read(self, parse: Callable[[dict[str, Any]], T]) -> T:
        """Parse the body. Raises TransientError when it is not what the contract promises."""
        try:
            return parse(parse_json(self.content))
        except UnreadableError as error:
            unreadable = TransientError("MultiMail's answer cannot be read")
            unreadable.request = f"{self.call} answered {self.status_code}, but unreadable: {error}"
            raise unreadable from error


class Connection:
    """The calls of one key to one account, safe to share between threads.

    `api_url` is the service root without `/v1`; `timeout` is (connect, read) in seconds. `watch` sees whether
    each call works. Only GET and PUT are sent again after what may have been sent once.
    """

    def __init__(
        self,
        api_url: str,
        key: SecretSource,
        *,
        timeout: tuple[float, float] = (5.0, 30.0),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        watch: Watch = nullcontext,
    ) -> None:
        self._api_url = api_url.rstrip("/")
        self._key = key
        self._timeout = timeout
        self._clock = clock
        self._watch = watch
        self.session = build_session(api_url, ("GET", "PUT"))

    def send(self, call: Call) -> Answer:
        """Send one call; once more with a newer key where the known one is refused and there is a newer one.

        A POST is not sent again here: what had to be read directly before it has to be read again.
        Raises ConfigurationError (refused key, missing scope), NotFoundError, ConflictError, PermanentError
        with its `status_code` (any other refusal), ThrottledError (429), UnavailableError (no connection,
        time-out, 5xx) and TransientError (redirect, a POST with an old key).
        """
        with self._watch(f"MultiMail {call.method} {call.template}"):
            return self._send(call)

    def _send(self, call: Call) -> Answer:
        # Azure Monitor names a call by its address: by the template, which has no ids and no search words.
        attributes = {"http.request.method": call.method, "url.full": self._api_url + call.template}
        ids = {f"agent.{name}": value for name, value in call.ids.items()}
        with span(f"{call.method} {call.template}", attributes | ids, server=self._api_url) as current:
            key = self._key.get()
            response = self._send_once(call, key)
            if response.status_code == HTTPStatus.UNAUTHORIZED:
                newer = self._key.refresh(key)
                if newer != key and call.method == "POST":
                    raise TransientError(
                        f"{call} was refused for its key, and there is a newer one: try again"
                    )
                if newer != key:  # the same key would only be refused again
                    response = self._send_once(call, newer)
            current.set_attribute("http.response.status_code", response.status_code)
        if not HTTPStatus.OK <= response.status_code < HTTPStatus.MULTIPLE_CHOICES:
            now = self._clock()
            raise explain_refusal(call, response.status_code, response.headers, response.content, now)
        is_json = "json" in response.headers.get("Content-Type", "json").lower()
        return Answer(call, response.status_code, response.content, is_json)

    def _send_once(self, call: Call, key: Secret) -> requests.Response:
        try:
            return self.session.request(
                call.method,
                self._api_url + call.path,
                params=call.params,
                json=call.body,
                headers={"Accept": "application/json", "Authorization": f"Bearer {key.value}"},
                timeout=(self._timeout[0], min(self._timeout[1], call.read_seconds)),
                allow_redirects=False,
            )
        except requests.RequestException as error:
            # Not from the error, whose text has the URL: traces and tracebacks would show its search words.
            unavailable = UnavailableError(f"MultiMail gave no whole answer: {describe_failure(error)}")
            unavailable.request = str(call)
            raise unavailable from None
