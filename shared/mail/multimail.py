"""The MultiMail REST API as the agent uses it: domain values in and out, failures split by what to do."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from typing import Any

from shared.domain import AuditLogEntry, Contact, Email, EmailSummary, Mailbox, SubmittedReply, parse_address
from shared.errors import AgentError, ConfigurationError, NotFoundError, TransientError
from shared.mail.call import Call
from shared.mail.connection import Answer, Connection
from shared.mail.paging import PAGE_SIZE, CrowdedSecondError, Page, format_time, list_pages
from shared.mail.parsing import (
    UnreadableError,
    parse_allowlist,
    parse_audit_page,
    parse_contacts,
    parse_email,
    parse_mailboxes,
    parse_object,
    parse_page,
    parse_submitted,
    parse_summary,
    parse_tags,
    parse_thread,
)
from shared.services.health import Watch
from shared.services.secrets import SecretSource

CLOCK_MARGIN = timedelta(minutes=10)  # how far our clock and the service's may be apart
CONTACTS_SECONDS = 4.0  # a draft waits for the address book, which it can do without

_MAILBOX = "/v1/mailboxes/{mailbox_id}"
_EMAIL = _MAILBOX + "/emails/{email_id}"


class MultiMailReader:
    """What a MultiMail account shows, safe to share between threads. It can write nothing there.

    `api_url` is the service root without `/v1`; `timeout` is (connect, read) in seconds; `watch` sees whether
    each call works.

    Every method raises ConfigurationError (refused key, missing read scope), NotFoundError,
    ConflictError, PermanentError with its `status_code` (any other refusal), ThrottledError (429),
    UnavailableError (no connection, time-out, 5xx) and TransientError (redirect, an answer that breaks the
    contract).
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
        self._key = key
        self._connection = Connection(api_url, key, timeout=timeout, clock=clock, watch=watch)

    def find_key_id(self) -> str | None:
        """The fingerprint of the key in use; None while no key can be had.

        For the audit trail, and for the gate, which has to be read again after the key was renewed.
        """
        try:
            return self._key.get().fingerprint
        except AgentError:
            return None

    def list_mailboxes(self) -> tuple[Mailbox, ...]:
        """List every mailbox of the account, inactive ones included."""
        try:
            answer = self._connection.send(Call("GET", "/v1/mailboxes"))
        except NotFoundError as error:
            raise ConfigurationError(
                f"{error}: set MULTIMAIL_API_URL to the service's root, without /v1."
            ) from error
        return answer.read(parse_mailboxes)

    def list_emails(
        self,
        mailbox_id: str,
        *,
        direction: str | None = None,
        status: str | None = None,
        date_after: datetime | None = None,
        subject_contains: str | None = None,
    ) -> Iterator[EmailSummary]:
        """List a mailbox's emails page by page, newest first within a page, each id once.

        An email whose id or received_at cannot be read does not hide the others: the rest is
        listed first, then TransientError says so. Take emails in as they come, and do not count
        the listing as complete before it ends.
        """
        filters = {
            "direction": direction,
            "status": status,
            "date_after": None if date_after is None else format_time(date_after),
            "subject_contains": subject_contains,
        }
        params = {name: value for name, value in filters.items() if value is not None}
        call = Call("GET", _MAILBOX + "/emails", {"mailbox_id": mailbox_id}, params=params)
        seen: set[str] = set()
        unreadable: dict[str, None] = {}
        crowded: CrowdedSecondError | None = None
        try:
            fetch = partial(self._fetch_page, call, unreadable)
            for page in list_pages(fetch, params, str(call)):
                fresh = {summary.id: summary for summary in page.emails if summary.id not in seen}
                seen |= fresh.keys()
                yield from fresh.values()
        except CrowdedSecondError as error:
            crowded = error
        if unreadable:
            raise TransientError(f"{call} listed emails that cannot be read: {'; '.join(unreadable)}")
        if crowded is not None:
            raise crowded

    def _fetch_page(self, call: Call, unreadable: dict[str, None], params: Mapping[str, str]) -> Page:
        """One page of a listing; what cannot be read of it is noted in `unreadable`."""
        sized = {**params, "limit": str(PAGE_SIZE)}
        raws, cursor = self._connection.send(replace(call, params=sized)).read(parse_page)
        emails: list[EmailSummary] = []
        for raw in raws:
            try:
                emails.append(parse_summary(raw, direction=params.get("direction", "")))
            except UnreadableError as error:
                unreadable[str(error)] = None
        return Page(emails, cursor or None)

    def get_email(self, mailbox_id: str, email_id: str) -> Email:
        """Get one email with its body. The service marks an unread email as read by this."""
        return self._connection.send(_email_call("GET", _EMAIL, mailbox_id, email_id)).read(parse_email)

    def get_attachment(self, mailbox_id: str, email_id: str, name: str) -> Answer:
        """Get the answer about one attachment of an email, which has its bytes or leads to them."""
        call = _email_call("GET", _EMAIL + "/attachments/{name}", mailbox_id, email_id)
        return self._connection.send(replace(call, names={"name": name}))

    def get_thread(self, mailbox_id: str, thread_id: str) -> tuple[EmailSummary, ...]:
        """Get a thread's emails of both directions, without bodies or spam verdicts."""
        ids = {"mailbox_id": mailbox_id, "thread_id": thread_id}
        answer = self._connection.send(Call("GET", _MAILBOX + "/threads/{thread_id}", ids))
        return answer.read(lambda body: parse_thread(body, thread_id))

    def get_allowlist(self, mailbox_id: str) -> tuple[str, ...]:
        """Get the recipients that bypass approval: addresses, or patterns like `*@example.com`."""
        answer = self._connection.send(Call("GET", _MAILBOX + "/allowlist", {"mailbox_id": mailbox_id}))
        return answer.read(parse_allowlist)

    def search_contacts(self, query: str) -> tuple[Contact, ...]:
        """Search the account's address book by name or address."""
        call = Call("GET", "/v1/contacts", params={"q": query}, read_seconds=CONTACTS_SECONDS)
        answer = self._connection.send(call)
        return answer.read(parse_contacts)

    def find_contacts(self, address: str) -> tuple[Contact, ...]:
        """The entries of the address book that have exactly this address, as `parse_address` gives it."""
        return tuple(c for c in self.search_contacts(address) if parse_address(c.address) == address)

    def get_tags(self, mailbox_id: str, email_id: str) -> dict[str, str]:
        """Get an email's tags."""
        call = _email_call("GET", _EMAIL + "/tags", mailbox_id, email_id)
        return self._connection.send(call).read(parse_tags)

    def list_audit_log(self) -> Iterator[AuditLogEntry]:
        """List what was done with the account, newest first. It takes a key with the scope admin.

        Raises TransientError for a listing that would never end.
        """
        cursor, seen = "", set[str]()
        while cursor not in seen:
            seen.add(cursor)
            params = {"limit": str(PAGE_SIZE)} | ({"cursor": cursor} if cursor else {})
            answer = self._connection.send(Call("GET", "/v1/audit-log", params=params))
            entries, cursor = answer.read(parse_audit_page)
            yield from entries
            if not cursor:
                return
        raise TransientError("GET /v1/audit-log answered the same cursor twice: it would never end")


class MultiMailClient(MultiMailReader):
    """A MultiMail account that is also written to: not built where the agent only observes.

    Every method raises what the reader's raise.
    """

    def submit_reply(
        self, mailbox_id: str, email_id: str, markdown: str, idempotency_key: str, cc: Sequence[str] = ()
    ) -> SubmittedReply:
        """Reply in the email's thread, to its sender and to those in `cc`.

        Never repeated here once it may have been sent: on TransientError the reply may exist, and
        the same key and bytes must be submitted again. ConflictError: the same content was
        submitted within 60 s.
        """
        body: dict[str, Any] = {"markdown": markdown, "idempotency_key": idempotency_key}
        if cc:
            body["cc"] = list(cc)
        return self._submit(_email_call("POST", _MAILBOX + "/reply/{email_id}", mailbox_id, email_id, body))

    def send_email(
        self, mailbox_id: str, to: str, subject: str, markdown: str, idempotency_key: str
    ) -> SubmittedReply:
        """Send a new email to one bare address. Never repeated here, as with `submit_reply`."""
        body = {"to": [to], "subject": subject, "markdown": markdown, "idempotency_key": idempotency_key}
        return self._submit(Call("POST", _MAILBOX + "/send", {"mailbox_id": mailbox_id}, body=body))

    def set_tags(self, mailbox_id: str, email_id: str, tags: Mapping[str, str]) -> None:
        """Replace all of an email's tags: hand in the union with those already there."""
        call = _email_call("PUT", _EMAIL + "/tags", mailbox_id, email_id, {"tags": dict(tags)})
        self._connection.send(call).read(parse_tags)

    def cancel_email(self, mailbox_id: str, email_id: str) -> None:
        """Cancel a pending outbound email. ConflictError: it is past cancelling."""
        call = _email_call("POST", _EMAIL + "/cancel", mailbox_id, email_id)
        self._connection.send(call).read(parse_object)

    def request_upgrade(self, mailbox_id: str, target_mode: str) -> None:
        """Ask the account's operator for a less restrictive oversight mode; they get a code to confirm it.

        Changes no mode by itself. ThrottledError: the service takes three an hour and mailbox.
        """
        path, body = _MAILBOX + "/request-upgrade", {"target_mode": target_mode}
        self._connection.send(Call("POST", path, {"mailbox_id": mailbox_id}, body=body))

    def _submit(self, call: Call) -> SubmittedReply:
        answer = self._connection.send(call)
        already_sent = answer.status_code == HTTPStatus.OK  # what is new is answered 202
        return answer.read(lambda raw: parse_submitted(raw, already_sent=already_sent))


def _email_call(
    method: str, template: str, mailbox_id: str, email_id: str, body: Mapping[str, Any] | None = None
) -> Call:
    return Call(method, template, {"mailbox_id": mailbox_id, "email_id": email_id}, body=body)
