"""What the approval page knows of the mailboxes, read through MultiMail's HTTP API."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import requests

from shared.domain import Outcome
from shared.watching.tracking import REASON_TAG, STATUS_TAG

TIMEOUT_SECONDS = 10
# Tag reads of one refresh: about half a second on one machine. Ten thousand emails take fifty refreshes.
READS_PER_REFRESH = 200

_T = TypeVar("_T")

Key = tuple[str, str]
"""A mailbox's id and an email's id."""


class State(StrEnum):
    """What a person wants to know first about an email; the page counts and filters by it."""

    WAITING = "waiting"
    ANSWERED = "answered"
    ESCALATED = "escalated"
    REFUSED = "refused"
    SKIPPED = "skipped"
    OPEN = "open"


STATES: Mapping[str, State] = {
    Outcome.ESCALATED: State.ESCALATED,
    Outcome.NEEDS_HUMAN: State.ESCALATED,
    Outcome.FAILED: State.ESCALATED,
    Outcome.BLOCKED_UNGATED: State.REFUSED,
    Outcome.BLOCKED_CONTENT_SAFETY: State.REFUSED,
    Outcome.SKIPPED: State.SKIPPED,
    Outcome.IGNORED: State.SKIPPED,
}


class ApiError(Exception):
    """MultiMail was not reached or refused. The text is fit for the person at the page."""

    def __init__(self, message: str, status_code: int | None = None) -> None:
        self.status_code = status_code
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A mailbox as the page names it."""

    id: str
    address: str
    display_name: str
    oversight_mode: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """What is known of an attachment without fetching it. `size` is in bytes."""

    name: str
    content_type: str
    size: int


@dataclass(frozen=True, slots=True)
class ShownEmail:
    """An email as listings, threads, the approval queue or a full read gave it. All text is hostile."""

    id: str
    mailbox_id: str
    sender: str
    to: tuple[str, ...]
    subject: str
    direction: str
    status: str
    received_at: datetime
    thread_id: str | None = None
    spam_verdict: str | None = None
    delivered_at: datetime | None = None
    bounced_at: datetime | None = None
    markdown: str = ""
    attachments: tuple[Attachment, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """Where the email is found."""
        return self.mailbox_id, self.id

    @property
    def is_pending(self) -> bool:
        """Whether it is an outbound email that waits for a person's decision."""
        return self.status == "pending_send_approval"

    @property
    def reject_reason(self) -> str:
        """Why a person rejected it, or "" where it was not rejected, or no reason given."""
        return self.tags.get(REASON_TAG, "") if self.status == "rejected" else ""

    @property
    def was_stopped(self) -> bool:
        """Whether it is an outbound email that did not reach its recipient and never will."""
        return self.status in ("rejected", "cancelled", "send_failed") or self.bounced_at is not None


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the list: an email, the agent's tags on it, and the reply where there is one."""

    email: ShownEmail
    tags: Mapping[str, str]
    reply: ShownEmail | None

    @property
    def outcome(self) -> str:
        """The outcome that the agent tagged, or ""."""
        return self.tags.get("agent.outcome", "")

    @property
    def state(self) -> State:
        """What a person wants to know first."""
        if self.reply is not None and self.reply.is_pending:
            return State.WAITING
        if self.outcome == Outcome.REPLY_SUBMITTED and self.reply is not None:
            # Until the agent has seen the reason, or once it drafts no more, there is nothing else to tell.
            if self.reply.reject_reason and self.tags.get(STATUS_TAG) != "rejected":
                return State.OPEN
            if self.reply.was_stopped:
                return State.ESCALATED
            return State.ANSWERED if self.reply.delivered_at else State.OPEN
        return STATES.get(self.outcome, State.OPEN)

    @property
    def is_settled(self) -> bool:
        """Whether nothing is expected to change any more, so that it needs no reading again."""
        if self.outcome == Outcome.REPLY_SUBMITTED:
            return self.state is State.ANSWERED
        return self.state is not State.OPEN


class MultiMailApi:
    """The calls the page makes: emails and tags with the mail key, the approval queue with the oversight key.

    The mail key has the scopes read and, for the tag that holds a reason, send. Every method raises ApiError.
    """

    def __init__(self, url: str, mail_key: str, oversight_key: str) -> None:
        self._url = url.rstrip("/")
        self._mail = _Bearer(mail_key)
        self._oversight = _Bearer(oversight_key)
        self._session = requests.Session()
        # A simulator on this machine is never behind the proxy that the environment may name.
        self._session.trust_env = urlsplit(url).hostname not in ("127.0.0.1", "localhost", "::1")

    def mailboxes(self) -> list[Mailbox]:
        """Every active mailbox of the account."""
        found = self._call("GET", "/v1/mailboxes", self._mail)["mailboxes"]
        return [
            Mailbox(m["id"], m["address"], m.get("display_name") or m["address"], m["oversight_mode"])
            for m in found
            if m.get("is_active", 1)
        ]

    def inbound_pages(self, mailbox_id: str) -> Iterator[list[ShownEmail]]:
        """The received emails, newest first, a page at a time."""
        params = {"direction": "inbound", "limit": "100"}
        while True:
            answer = self._call("GET", f"{_mailbox(mailbox_id)}/emails", self._mail, params=params)
            yield [_parse_email(e, mailbox_id) for e in answer["emails"]]
            if not answer.get("cursor"):
                return
            params["cursor"] = answer["cursor"]

    def tags(self, key: Key) -> Mapping[str, str]:
        """An email's tags; this does not mark it as read."""
        answer = self._call("GET", f"{_email(key)}/tags", self._mail)
        return {str(name): str(value) for name, value in answer["tags"].items()}

    def add_tag(self, key: Key, name: str, value: str) -> None:
        """Add a tag and keep those that are there: the service would replace all of them."""
        tags = {**self.tags(key), name: value}
        self._call("PUT", f"{_email(key)}/tags", self._mail, body={"tags": tags})

    def email(self, key: Key) -> ShownEmail:
        """The full email; the service marks an unread one as read."""
        return _parse_email(self._call("GET", _email(key), self._mail), key[0])

    def thread(self, mailbox_id: str, thread_id: str) -> list[ShownEmail]:
        """The emails of a thread without their bodies, oldest first."""
        path = f"{_mailbox(mailbox_id)}/threads/{quote(thread_id, safe='')}"
        emails = [_parse_email(e, mailbox_id) for e in self._call("GET", path, self._mail)["emails"]]
        return sorted(emails, key=lambda email: email.received_at)

    def pending(self) -> list[ShownEmail]:
        """The outbound emails that wait for a decision, with their bodies."""
        found = self._call("GET", "/v1/oversight/pending", self._oversight)["emails"]
        emails = (_parse_email(e, e["mailbox_id"]) for e in found)
        return [email for email in emails if email.direction == "outbound"]

    def decide(self, email_id: str, action: str) -> None:
        """Approve (which sends it at once) or reject a pending email."""
        body = {"email_id": email_id, "action": action}
        self._call("POST", "/v1/oversight/decide", self._oversight, body=body)

    def _call(
        self,
        method: str,
        path: str,
        key: "_Bearer",
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        try:
            response = self._session.request(
                method, self._url + path, auth=key, params=params, json=body,
                timeout=TIMEOUT_SECONDS, allow_redirects=False,
            )  # fmt: skip
            answer = response.json() if response.status_code == requests.codes.ok else None
        except requests.RequestException as error:
            raise ApiError(
                f"MultiMail could not be reached at {self._url}, or gave no usable answer."
            ) from error
        if not isinstance(answer, dict):
            raise ApiError(_explain(response.status_code), response.status_code)
        return answer


class Inbox:
    """The received emails with the agent's tags, kept in memory so that a page is a few requests.

    Tags of settled emails are read once; of the others, some at every refresh, in turn.
    """

    def __init__(self, api: MultiMailApi) -> None:
        self._api = api
        self._guard = threading.RLock()
        self._emails: dict[Key, ShownEmail] = {}
        self._tags: dict[Key, Mapping[str, str]] = {}
        self._replies: dict[str, ShownEmail] = {}
        self._pending: dict[str, ShownEmail] = {}
        self._unsettled: dict[Key, None] = {}  # a dict for its order: the next to be read comes first

    def refresh(self) -> list[Mailbox]:
        """Read the mailboxes, the emails that are new, and the approval queue."""
        with self._guard:
            mailboxes = self._api.mailboxes()
            for mailbox in mailboxes:
                self._read_new(mailbox.id)
            self._read_pending()
            return mailboxes

    def look_at(self, shown: Iterable[Key]) -> None:
        """Read the tags of the unsettled emails on show, then of others until the refresh's share is used."""
        with self._guard:
            first = [key for key in shown if key in self._unsettled]
            for key in dict.fromkeys([*first, *islice(self._unsettled, READS_PER_REFRESH)]):
                self._look_at(key)

    def rows(self) -> list[Row]:
        """Every received email, newest first, and the pending emails that answer none of them.

        Which those are is known once every received email has been looked at.
        """
        with self._guard:
            rows = [self._row(key) for key in self._emails]
            if self._emails.keys() <= self._tags.keys():
                answered = {row.reply.id for row in rows if row.reply is not None}
                rows += [
                    Row(email, {}, email) for email in self._pending.values() if email.id not in answered
                ]
            return sorted(rows, key=lambda row: row.email.received_at, reverse=True)

    def open(self, key: Key) -> tuple[Row, Sequence[ShownEmail]]:
        """An email in full and its thread, oldest first. An outbound email is its own reply."""
        email = self._api.email(key)
        thread = self._api.thread(key[0], email.thread_id) if email.thread_id else [email]
        with self._guard:
            self._read_pending()
            directions = {e.id: e.direction for e in (*thread, *self._pending.values())}
            email = replace(email, direction=directions.get(email.id) or "inbound")
            if email.direction == "outbound":
                email = self._pending.get(email.id, email)
                return Row(email, {}, email), thread
            self._tags[key] = email.tags
            self._read_reply(key)
            return Row(email, email.tags, self._find_reply(key)), thread

    def approve(self, email_id: str) -> None:
        """Approve a pending email."""
        self._api.decide(email_id, "approve")

    def reject(self, email_id: str, reason: str) -> None:
        """Reject a pending email. The agent finds a reason only if it stands there before the rejection."""
        if reason:
            pending = next((email for email in self._api.pending() if email.id == email_id), None)
            if pending is None:
                raise ApiError(_explain(requests.codes.not_found), requests.codes.not_found)
            self._api.add_tag(pending.key, REASON_TAG, reason)
        self._api.decide(email_id, "reject")

    @property
    def progress(self) -> tuple[int, int]:
        """How many received emails have had their tags read at least once, and how many there are."""
        with self._guard:
            return len(self._emails.keys() & self._tags.keys()), len(self._emails)

    def _read_new(self, mailbox_id: str) -> None:
        """Read pages until one holds nothing new; keep them only together, or an error would leave a gap."""
        found: dict[Key, ShownEmail] = {}
        for page in self._api.inbound_pages(mailbox_id):
            found |= {email.key: email for email in page}
            if all(email.key in self._emails for email in page):
                break
        self._unsettled = {key: None for key in found if key not in self._emails} | self._unsettled
        self._emails |= found

    def _read_pending(self) -> None:
        self._pending = {email.id: email for email in self._api.pending()}

    def _look_at(self, key: Key) -> None:
        if self._row(key).state is not State.WAITING:  # while a draft waits, its email's tags do not change
            tags = _unless_gone(self._api.tags, key)
            if tags is None:
                del self._emails[key], self._unsettled[key]
                return
            self._tags[key] = tags
            self._read_reply(key)
        del self._unsettled[key]
        if not self._row(key).is_settled:
            self._unsettled[key] = None

    def _read_reply(self, key: Key) -> None:
        reply_id = self._tags[key].get("agent.reply_id")
        if reply_id and reply_id not in self._pending:
            reply = _unless_gone(self._api.email, (key[0], reply_id))
            if reply is not None:
                self._replies[reply_id] = reply

    def _find_reply(self, key: Key) -> ShownEmail | None:
        reply_id = self._tags.get(key, {}).get("agent.reply_id", "")
        return self._pending.get(reply_id) or self._replies.get(reply_id)

    def _row(self, key: Key) -> Row:
        return Row(self._emails[key], self._tags.get(key, {}), self._find_reply(key))


class _Bearer(requests.auth.AuthBase):
    """Sends a key; as an auth object, because requests lets a .netrc entry override a bare header."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request


def _unless_gone(read: Callable[[Key], _T], key: Key) -> _T | None:
    """What `read` finds, or None where it was deleted meanwhile."""
    try:
        return read(key)
    except ApiError as error:
        if error.status_code != requests.codes.not_found:
            raise
        return None


def _mailbox(mailbox_id: str) -> str:
    return f"/v1/mailboxes/{quote(mailbox_id, safe='')}"


def _email(key: Key) -> str:
    return f"{_mailbox(key[0])}/emails/{quote(key[1], safe='')}"


def _explain(status_code: int) -> str:
    if status_code in (401, 403):
        return f"MultiMail refused the key (HTTP {status_code}): check the mail and the oversight key."
    if status_code == requests.codes.not_found:
        return "MultiMail does not know this email, or it is no longer awaiting a decision."
    if status_code == requests.codes.conflict:
        return "This email has been decided already."
    if status_code == requests.codes.too_many_requests:
        return "MultiMail asks to slow down: try again in a minute."
    return f"MultiMail answered with HTTP {status_code}: try again in a minute."


def _parse_time(value: str | None) -> datetime | None:
    if not value:
        return None
    time = datetime.fromisoformat(value)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _parse_email(value: Mapping[str, Any], mailbox_id: str) -> ShownEmail:
    return ShownEmail(
        id=value["id"],
        mailbox_id=mailbox_id,
        sender=value["from"],
        to=tuple(value["to"]),
        subject=value["subject"],
        direction=value.get("direction", ""),
        status=value["status"],
        received_at=_parse_time(value["received_at"]) or datetime.min.replace(tzinfo=UTC),
        thread_id=value.get("thread_id"),
        spam_verdict=value.get("spam_verdict"),
        delivered_at=_parse_time(value.get("delivered_at")),
        bounced_at=_parse_time(value.get("bounced_at")),
        markdown=value.get("markdown") or value.get("body_markdown") or "",
        attachments=tuple(
            Attachment(a.get("name") or "", a.get("content_type") or "", a.get("size") or 0)
            for a in value.get("attachments") or ()
        ),
        tags={str(name): str(text) for name, text in (value.get("tags") or {}).items()},
    )
