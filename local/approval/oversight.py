"""MultiMail's approval queue, read and decided with the reviewer's key."""

from dataclasses import dataclass
from typing import Any, Literal

from shared.domain import Email
from shared.mail.call import Call
from shared.mail.connection import Connection
from shared.mail.parsing import parse_email, parse_object, parse_objects, parse_text
from shared.services.secrets import SecretSource


@dataclass(frozen=True, slots=True)
class PendingEmail:
    """An outbound email that waits for a decision, with its body and the mailbox that it is in."""

    mailbox_id: str
    email: Email


class Oversight:
    """The decisions on an account's pending emails, safe to share between threads.

    `key` has the scope oversight, `timeout` is (connect, read) in seconds. Every method raises what
    `Connection.send` raises, and TransientError for an answer that breaks the contract.
    """

    def __init__(self, api_url: str, key: SecretSource, *, timeout: tuple[float, float]) -> None:
        self._connection = Connection(api_url, key, timeout=timeout)

    def pending(self) -> tuple[PendingEmail, ...]:
        """The outbound emails that wait for a decision."""
        return self._connection.send(Call("GET", "/v1/oversight/pending")).read(_parse_pending)

    def decide(self, email_id: str, action: Literal["approve", "reject"]) -> None:
        """Approve (which sends it at once) or reject a pending email. Never repeated here."""
        body = {"email_id": email_id, "action": action}
        self._connection.send(Call("POST", "/v1/oversight/decide", body=body)).read(parse_object)


def _parse_pending(body: dict[str, Any]) -> tuple[PendingEmail, ...]:
    return tuple(
        PendingEmail(
            parse_text(raw, "mailbox_id"),
            parse_email({**raw, "markdown": parse_text(raw, "body_markdown", default="")}),
        )
        for raw in parse_objects(body, "emails")
        if raw.get("direction") == "outbound"
    )
