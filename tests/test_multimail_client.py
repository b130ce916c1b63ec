"""The MultiMail client over real HTTP, against a scripted server that breaks where the real one might."""

import json
import logging
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from requests import Response
from requests.adapters import HTTPAdapter

from local.host.http_server import LoopbackServer
from local.multimail.emails import Attachment as SentAttachment
from local.multimail.faults import (
    Fault,
    cut,
    cut_mid_body,
    in_order,
    malformed_json,
    quota_exhausted,
    rate_limited,
    warming_up,
)
from local.multimail.simulator import MultiMailSimulator
from shared.domain import Attachment, Contact, Email, EmailSummary, Mailbox, SubmittedReply
from shared.errors import (
    AgentError,
    ConfigurationError,
    ConflictError,
    NotFoundError,
    PermanentError,
    ThrottledError,
    TransientError,
)
from shared.mail.addressees import asks_elsewhere
from shared.mail.multimail import MultiMailClient
from shared.services.secrets import StaticSecret
from shared.settings import Secret

KEY = "mm_test_0123456789"
NEWER_KEY = "mm_test_rotated"
NOW = datetime(2026, 11, 22, 21, 15, tzinfo=UTC)
MINUTE_AGO = NOW - timedelta(minutes=1)
RECEIVED_AT = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
BODY_TEXT = "the sender's private words"


@dataclass(frozen=True)
class Answer:
    """What the scripted server does with one request."""

    body: object = field(default_factory=dict)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    cut: bool = False  # hang up in the middle of the body
    hang: bool = False  # say nothing until the test is over


@dataclass(frozen=True)
class Request:
    """One request as it came over the wire."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


class ScriptedServer(ThreadingHTTPServer):
    """Answers with the script's steps in order, then with `default`; every other request is unexpected."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        self.script: list[Answer] = []
        self.default: Callable[[Request], Answer] | None = None
        self.requests: list[Request] = []
        self.unexpected: list[Request] = []
        self.over = threading.Event()
        super().__init__(("127.0.0.1", 0), _ScriptedHandler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def next_answer(self, request: Request) -> Answer:
        self.requests.append(request)
        if self.script:
            return self.script.pop(0)
        if self.default is not None:
            return self.default(request)
        self.unexpected.append(request)
        return Answer(status=418)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up."""


class _ScriptedHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body leave together, or Nagle's algorithm waits 40 ms between them
    server: ScriptedServer

    def _handle(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", "0")))
        answer = self.server.next_answer(Request(self.command, url.path, query, headers, body))
        if answer.hang:
            self.server.over.wait()
            return
        content = json.dumps(answer.body).encode() if answer.raw is None else answer.raw
        self.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if answer.cut else content)
        self.close_connection = answer.cut

    do_GET = do_POST = do_PUT = _handle

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Keep the test output clean."""


@dataclass
class RotatingKey:
    """A key source that has a newer key to give, and counts how often it was asked for it."""

    value: str = KEY
    newer: str = NEWER_KEY
    refreshes: int = 0

    def get(self) -> Secret:
        return Secret(self.value)

    def refresh(self, stale: Secret) -> Secret:
        assert stale == Secret(self.value)
        self.refreshes += 1
        self.value = self.newer
        return Secret(self.value)


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    server = ScriptedServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()
    thread.join()
    assert not server.unexpected
    assert not server.script, "the client asked less often than the script says"


@pytest.fixture
def key() -> RotatingKey:
    return RotatingKey()


@pytest.fixture
def client(server: ScriptedServer, key: RotatingKey) -> MultiMailClient:
    return MultiMailClient(server.url, key, timeout=(2.0, 0.3), clock=lambda: NOW)


def summary_json(email_id: object = "em_1", /, **changes: object) -> dict[str, object]:
    return {
        "id": email_id,
        "from": "Ann <ann@example.com>",
        "to": ["support@example.org"],
        "subject": "Where is it?",
        "direction": "inbound",
        "status": "unread",
        "received_at": "2026-11-22T09:30:00Z",
        "thread_id": "th_1",
        "spam_verdict": "clean",
        **changes,
    }


def email_json(email_id: object = "em_1", /, **changes: object) -> dict[str, object]:
    fields = {**summary_json(email_id), "markdown": BODY_TEXT, **changes}
    del fields["direction"]  # the contract has none here
    return fields


SUMMARY = EmailSummary(
    id="em_1",
    sender="Ann <ann@example.com>",
    to=("support@example.org",),
    subject="Where is it?",
    direction="inbound",
    status="unread",
    received_at=RECEIVED_AT,
    thread_id="th_1",
    spam_verdict="clean",
)

CALLS: dict[str, Callable[[MultiMailClient], object]] = {
    "list_mailboxes": lambda client: client.list_mailboxes(),
    "list_emails": lambda client: list(client.list_emails("mb_1")),
    "get_email": lambda client: client.get_email("mb_1", "em_1"),
    "get_thread": lambda client: client.get_thread("mb_1", "th_1"),
    "get_allowlist": lambda client: client.get_allowlist("mb_1"),
    "get_tags": lambda client: client.get_tags("mb_1", "em_1"),
    "set_tags": lambda client: client.set_tags("mb_1", "em_1", {"a": "b"}),
    "submit_reply": lambda client: client.submit_reply("mb_1", "em_1", "Hello", "key-1"),
    "send_email": lambda client: client.send_email("mb_1", "ann@customer.example", "Hi", "Hello", "key-1"),
    "search_contacts": lambda client: client.search_contacts("ann"),
    "cancel_email": lambda client: client.cancel_email("mb_1", "em_1"),
}
READS = [name for name in CALLS if name.startswith(("list_", "get_", "search_"))]
REPEATABLE = [*READS, "set_tags"]
NEVER_REPEATED = ["submit_reply", "send_email", "cancel_email"]


# What goes out, what comes in


def test_every_request_carries_the_key_and_says_what_it_wants(
    server: ScriptedServer, client: MultiMailClient
) -> None:
    server.script = [Answer({"mailboxes": []})]
    assert client.list_mailboxes() == ()
    [request] = server.requests
    assert (request.method, request.path) == ("GET", "/v1/mailboxes")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["accept"] == "application/json"
    assert request.headers["user-agent"] == "multimail-agent/0.1.0"


def test_mailboxes_keep_an_unknown_oversight_mode_as_text(
    server: ScriptedServer, client: MultiMailClient
) -> None:
    known = {"id": "mb_1", "address": "a@example.org", "oversight_mode": "gated_send", "is_active": 1}
    unknown = {"id": "mb_2", "address": "b@example.org", "oversight_mode": "telepathic", "is_active": 0}
    server.script = [Answer({"mailboxes": [known, unknown]})]
    assert client.list_mailboxes() == (
        Mailbox("mb_1", "a@example.org", "gated_send", True),
        Mailbox("mb_2", "b@example.org", "telepathic", False),
    )


def test_listing_follows_the_cursor_to_the_end_and_shows_each_email_once(
    server: ScriptedServer, client: MultiMailClient
) -> None:
    server.script = [
        Answer({"emails": [summary_json("em_1"), summary_json("em_2")], "cursor": "c1"}),
        Answer({"emails": [summary_json("em_2"), summary_json("em_4")], "cursor": None}),
        Answer({"emails": [], "cursor": "c2"}),
        Answer({"emails": [summary_json("em_2"), summary_json("em_3")], "cursor": None}),
    ]
    since = datetime(2026, 11, 22, 10, 0, 0, 999, tzinfo=UTC) + timedelta(hours=2)
    emails = client.list_emails("mb_1", direction="inbound", status="unread", date_after=since)
    assert [email.id for email in emails] == ["em_1", "em_2", "em_4", "em_3"]
    first, boundary, second, third = (request.query for request in server.requests)
    filters = {"direction": "inbound", "status": "unread", "date_after": "2026-11-22T12:00:00Z"}
    assert first == {**filters, "limit": "100"}
    assert boundary == {**first, "date_before": "2026-11-22T09:30:01Z"}  # the second in which the page ends
    assert second == {**first, "cursor": "c1"}
    assert third == {**first, "cursor": "c2"}


def test_cursor_that_repeats_ends_the_listing_with_an_error(
    server: ScriptedServer, client: MultiMailClient
) -> None:
    page = {"emails": [summary_json()], "cursor": "c1"}
    boundary = Answer({"emails": [summary_json()], "cursor": None})
    server.script = [Answer(page), boundary, *(Answer(page) for _ in range(3))]
    emails = client.list_emails("mb_1")
    assert next(emails) == SUMMARY
    with pytest.raises(TransientError, match="same cursor twice"):
        next(emails)


def test_unreadable_email_does_not_hide_the_others_and_the_listing_says_so_at_its_end(
    server: ScriptedServer, client: MultiMailClient
) -> None:
    broken = [summary_json(id=None), summary_json("em_bad", received_at="yesterday"), "nonsense"]
    server.script = [Answer({"emails": [*broken, summary_json("em_1")]})]
    emails = client.list_emails("mb_1")
    assert next(emails) == SUMMARY
    with pytest.raises(TransientError, match="received_at is not a time in email em_bad"):
        next(emails)


def test_email_without_sender_or_subject_is_listed_with_empty_texts_and_a_warning(
    server: ScriptedServer, client: MultiMailClient, caplog: pytest.LogCaptureFixture
) -> None:
    odd = summary_json(subject=None, to=None, direction=7, **{"from": ["x"]})
    server.script = [Answer({"emails": [odd]})]
    [email] = client.list_emails("mb_1", direction="inbound")
    assert (email.sender, email.subject, email.to, email.direction) == ("", "", (), "inbound")
    assert "email em_1 is listed without a readable from, subject, direction" in caplog.text


@pytest.mark.parametrize(
    ("text", "moment"), [("2026-11-22T09:30:00Z", RECEIVED_AT), ("soon", None), (None, None)]
)
def test_a_listing_says_what_became_of_an_outbound_email_where_that_can_be_read(
    server: ScriptedServer, client: MultiMailClient, text: str | None, moment: datetime | None
) -> None:
    server.script = [Answer({"emails": [summary_json(delivered_at=text, bounced_at=text)]})]
    [email] = client.list_emails("mb_1")
    assert (email.delivered_at, email.bounced_at) == (moment, moment)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22T09:30:00Z", RECEIVED_AT),
        ("2026-11-22T09:30:00.250Z", RECEIVED_AT + timedelta(milliseconds=250)),
        ("2026-11-22T10:30:00+01:00", RECEIVED_AT),
        ("2026-11-22T09:30:00", RECEIVED_AT),
    ],
)
def test_times_are_read_as_utc(
    server: ScriptedServer, client: MultiMailClient, text: str, moment: datetime
) -> None:
    server.script = [Answer({"emails": [summary_json(received_at=text)]})]
    [email] = client.list_emails("mb_1")
    assert email.received_at == moment
    assert email.received_at.utcoffset() == timedelta(0)


def test_email_is_read_with_attachments_tags_and_lower_case_headers(
    server: ScriptedServer, client: MultiMailClient
) -> None:
    extra = {
        "attachments": [{"name": "invoice.pdf", "size": 3}],
        "tags": {"agent.outcome": "ignored"},
        "headers": {"Auto-Submitted": "auto-replied", "X-Loop": ["a", "b"]},
    }
    server.script = [Answer(email_json(**extra))]
    assert client.get_email("mb_1", "em_1") == Email(
        id="em_1",
        sender="Ann <ann@example.com>",
        to=("support@example.org",),
        subject="Where is it?",
        status="unread",
        received_at=RECEIVED_AT,
        markdown=BODY_TEXT,
        thread_id="th_1",
        spam_verdict="clean",
        attachments=(Attachment("invoice.pdf", size=3),),
        tags={"agent.outcome": "ignored"},
        headers={"auto-submitted": "auto-replied", "x-loop": "a, b"},
    )


@pytest.mark.parametrize(
    "headers",
    [
        {"Auto-Submitted": "auto-replied", "X-Loop": ["a", "b"], "X-Odd": {}, "X-None": None},
        [
            ["Auto-Submitted", "auto-replied"],
            ["X-Loop", "a"],
            ["x-loop", "b"],
            ["X-Odd", 7],
            ["alone"],
            [],
            7,
        ],
        [
            {"name": "Auto-Submitted", "value": "auto-replied"},
            {"name": "X-Loop", "value": "a"},
            {"name": "X-Loop", "value": "b"},
        ],
        [{"key": "auto-submitted", "value": "auto-replied"}, {"key": "x-loop", "value": ["a", "b"]}],
        [
            {"key": "auto-submitted", "line": "Auto-Submitted: auto-replied"},
            {"key": "x-loop", "line": "X-Loop: a,\r\n b"},
        ],
        [{"Auto-Submitted": "auto-replied"}, {"X-Loop": "a"}, {"X-Loop": "b"}],
        ["Auto-Submitted: auto-replied", "X-Loop: a", "X-Loop: b", "no header"],
        "Auto-Submitted:\r\n auto-replied\r\nX-Loop: a\r\nX-Loop: b\r\n",
        "\nAuto-Submitted: auto-replied\nX-Loop: a\nX-Loop: b\n\nSubject: of the body",
    ],
    ids=[
        "object",
        "pairs",
        "names and values",
        "keys and values",
        "keys and lines",
        "objects",
        "lines",
        "text",
        "text with a body",
    ],
)
def test_headers_are_read_in_whichever_shape_they_come(
    server: ScriptedServer, client: MultiMailClient, headers: object
) -> None:
    server.script = [Answer(email_json(headers=headers))]
    read = client.get_email("mb_1", "em_1").headers
    assert read == {"auto-submitted": "auto-replied", "x-loop": "a, b"}


@pytest.mark.parametrize(
    "reply_to",
    [
        {"address": "eve@elsewhere.example"},
        [{"address": "eve@elsewhere.example", "name": "Eve"}],
        {"text": "Ann", "value": [{"address": "ann@customer.example"}]},
    ],
)
def test_an_address_for_replies_in_an_object_counts_as_another_one(
    server: ScriptedServer, client: MultiMailClient, reply_to: object
) -> None:
    server.script = [Answer(email_json(headers={"Reply-To": reply_to}))]
    assert asks_elsewhere(client.get_email("mb_1", "em_1"))


@pytest.mark.parametrize("headers", [None, [], {}, "", "no header", 7, True, [[[["a"]]]]])
def test_headers_that_are_none_are_left_out(
    server: ScriptedServer, client: MultiMailClient, headers: object
) -> None:
    server.script = [Answer(email_json(headers=headers))]
    assert client.get_email("mb_1", "em_1").headers == {}


def test_attachment_of_an_odd_type_or_size_does_not_hide_the_email(
    server: ScriptedServer, client: MultiMailClient
) -> None:
    odd = {"name": "a.pdf", "content_type": 7, "size": "big"}
    server.script = [
        Answer(email_json(attachments=[odd, {"name": "b", "content_type": "text/plain", "size": 9}]))
    ]
    assert client.get_email("mb_1", "em_1").attachments == (
        Attachment("a.pdf"),
        Attachment("b", "text/plain", 9),
    )


def test_email_awaiting_inbound_approval_has_an_empty_body(
    server: ScriptedServer, client: MultiMailClient
) -> None:
    server.script = [Answer(email_json(status="pending_inbound_approval", markdown=None))]
    assert client.get_email("mb_1", "em_1").markdown == ""


def test_lone_surrogates_cannot_break_whoever_encodes_the_text_later(
    server: ScriptedServer, client: MultiMailClient
) -> None:
    server.script = [Answer(email_json(subject="\ud83d hi \U0001f600"))]
    assert client.get_email("mb_1", "em_1").subject == "? hi \U0001f600"


def test_emails_of_a_thread_know_their_thread(server: ScriptedServer, client: MultiMailClient) -> None:
    inbound, outbound = summary_json("em_1"), summary_json("em_2", direction="outbound", status="sent")
    for email in (inbound, outbound):
        del email["thread_id"], email["spam_verdict"]
    server.script = [Answer({"thread_id": "th_1", "emails": [inbound, outbound]})]
    first, second = client.get_thread("mb_1", "th_1")
    assert (first.thread_id, first.direction) == ("th_1", "inbound")
    assert (second.thread_id, second.direction, second.status) == ("th_1", "outbound", "sent")


def test_allowlist_is_the_patterns(server: ScriptedServer, client: MultiMailClient) -> None:
    server.script = [Answer({"entries": [{"pattern": "a@example.com"}, {"pattern": "*@example.net"}]})]
    assert client.get_allowlist("mb_1") == ("a@example.com", "*@example.net")


@pytest.mark.parametrize("body", [{}, {"entries": [{}]}, {"entries": None}])
def test_unreadable_allowlist_is_an_error_and_not_an_empty_one(
    server: ScriptedServer, client: MultiMailClient, body: object
) -> None:
    server.script = [Answer(body)]
    with pytest.raises(TransientError, match="unreadable"):
        client.get_allowlist("mb_1")


def test_reply_sends_the_text_and_the_key_and_nothing_else(
    server: ScriptedServer, client: MultiMailClient
) -> None:
    server.script = [Answer({"id": "em_2", "status": "pending_scan"}, status=202)]
    reply = client.submit_reply("mb_1", "em_1", "Hello *Ann* ☃", "key-1")
    assert reply == SubmittedReply("em_2", "pending_scan", already_sent=False)
    [request] = server.requests
    assert (request.method, request.path) == ("POST", "/v1/mailboxes/mb_1/reply/em_1")
    assert json.loads(request.body) == {"markdown": "Hello *Ann* ☃", "idempotency_key": "key-1"}


def test_reply_under_a_known_key_is_already_sent(server: ScriptedServer, client: MultiMailClient) -> None:
    server.script = [Answer({"id": "em_2", "status": "already_sent", "idempotent": True})]
    reply = client.submit_reply("mb_1", "em_1", "Hello", "key-1")
    assert reply == SubmittedReply("em_2", "already_sent", already_sent=True)


def test_new_email_goes_to_one_address_with_the_text_and_the_key_and_nothing_else(
    server: ScriptedServer, client: MultiMailClient
) -> None:
    server.script = [Answer({"id": "em_2", "status": "pending_scan"}, status=202)]
    sent = client.send_email("mb_1", "ann@customer.example", "Hi", "Hello *Ann* ☃", "key-1")
    assert sent == SubmittedReply("em_2", "pending_scan", already_sent=False)
    [request] = server.requests
    assert (request.method, request.path) == ("POST", "/v1/mailboxes/mb_1/send")
    assert json.loads(request.body) == {
        "to": ["ann@customer.example"],
        "subject": "Hi",
        "markdown": "Hello *Ann* ☃",
        "idempotency_key": "key-1",
    }


class TimedAdapter(HTTPAdapter):
    """Notes how long each call would wait, and sends it."""

    def __init__(self) -> None:
        super().__init__()
        self.timeouts: list[Any] = []

    def send(self, *arguments: Any, **options: Any) -> Response:
        self.timeouts.append(options["timeout"])
        return super().send(*arguments, **options)


@pytest.mark.parametrize(("timeout", "waits"), [((5.0, 30.0), (5.0, 4.0)), ((2.0, 0.3), (2.0, 0.3))])
def test_the_address_book_is_not_waited_for_as_long_as_the_rest(
    server: ScriptedServer, key: RotatingKey, timeout: tuple[float, float], waits: tuple[float, float]
) -> None:
    client, adapter = MultiMailClient(server.url, key, timeout=timeout, clock=lambda: NOW), TimedAdapter()
    client._connection.session.mount(server.url, adapter)
    server.script = [Answer({"contacts": []}), Answer({"mailboxes": []})]
    client.search_contacts("ann")
    client.list_mailboxes()
    assert adapter.timeouts == [waits, timeout]


def test_contacts_are_searched_by_what_is_asked_for(server: ScriptedServer, client: MultiMailClient) -> None:
    contact: dict[str, object] = {
        "id": "ct_1",
        "name": None,
        "email": "ann@customer.example",
        "tags": [],
        "created_at": 1,
    }
    server.script = [Answer({"contacts": [contact]})]
    assert client.search_contacts("a&b") == (Contact("", "ann@customer.example"),)
    [request] = server.requests
    assert (request.path, request.query) == ("/v1/contacts", {"q": "a&b"})


def test_tags_are_read_and_replaced(server: ScriptedServer, client: MultiMailClient) -> None:
    server.script = [Answer({"tags": {"a": "1"}}), Answer({"tags": {"a": "1", "b": "2"}})]
    assert client.get_tags("mb_1", "em_1") == {"a": "1"}
    client.set_tags("mb_1", "em_1", {"a": "1", "b": "2"})
    read, written = server.requests
    assert read.path == written.path == "/v1/mailboxes/mb_1/emails/em_1/tags"
    assert (written.method, json.loads(written.body)) == ("PUT", {"tags": {"a": "1", "b": "2"}})


def test_cancelling_posts_to_the_email(server: ScriptedServer, client: MultiMailClient) -> None:
    server.script = [Answer({"id": "em_2", "status": "cancelled"})]
    client.cancel_email("mb_1", "em_2")
    [request] = server.requests
    assert (request.method, request.path) == ("POST", "/v1/mailboxes/mb_1/emails/em_2/cancel")


@pytest.mark.parametrize(
    "hostile",
    ["../../account", "a/b", "a?b=c", "a#b", "%2e%2e", "%2F", "a b\r\nX: y", "ü☃", "a\\b", "...", "\x00"],
)
def test_an_id_is_one_path_segment_whatever_it_holds(
    server: ScriptedServer, client: MultiMailClient, hostile: str
) -> None:
    server.script = [Answer({"tags": {}})]
    client.get_tags("mb_1", hostile)
    [request] = server.requests
    *before, segment, after = request.path.split("/")
    assert (before, after) == (["", "v1", "mailboxes", "mb_1", "emails"], "tags")
    assert unquote(segment) == hostile


@pytest.mark.parametrize("hostile", ["", ".", ".."])
def test_an_id_that_would_name_another_resource_is_never_sent(
    server: ScriptedServer, client: MultiMailClient, hostile: str
) -> None:
    for call in (client.get_email, client.cancel_email):
        with pytest.raises(PermanentError, match="email_id"):
            call("mb_1", hostile)
    assert server.requests == []


# The key


def test_refused_key_is_read_again_and_the_request_repeated_once(
    server: ScriptedServer, client: MultiMailClient, key: RotatingKey
) -> None:
    server.script = [Answer(status=401), Answer({"mailboxes": []})]
    assert client.list_mailboxes() == ()
    assert [request.headers["authorization"] for request in server.requests] == [
        f"Bearer {KEY}",
        f"Bearer {NEWER_KEY}",
    ]
    assert key.refreshes == 1


def test_a_submission_is_not_repeated_by_itself_but_the_newer_key_is_known(
    server: ScriptedServer, client: MultiMailClient, key: RotatingKey
) -> None:
    server.script = [Answer(status=401), Answer({"id": "em_2", "status": "pending_scan"}, status=202)]
    with pytest.raises(TransientError, match="newer one"):
        client.submit_reply("mb_1", "em_1", "Hello", "key-1")
    assert len(server.requests) == 1
    assert client.submit_reply("mb_1", "em_1", "Hello", "key-1").id == "em_2"
    assert server.requests[1].headers["authorization"] == f"Bearer {NEWER_KEY}"


def test_newer_key_that_is_refused_too_stops_with_the_remedy(
    server: ScriptedServer, client: MultiMailClient, key: RotatingKey
) -> None:
    server.script = [Answer(status=401), Answer(status=401)]
    with pytest.raises(ConfigurationError, match=r"MULTIMAIL_API_KEY.*MULTIMAIL_API_KEY_SECRET_NAME"):
        client.list_mailboxes()
    assert key.refreshes == 1


def test_refused_key_without_a_newer_one_is_not_tried_again(server: ScriptedServer) -> None:
    server.script = [Answer(status=401)]
    client = MultiMailClient(server.url, RotatingKey(newer=KEY))
    with pytest.raises(ConfigurationError):
        client.list_mailboxes()


def test_netrc_cannot_replace_the_key(
    server: ScriptedServer, client: MultiMailClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server.script = [Answer({"mailboxes": []})]
    client.list_mailboxes()
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_cookies_are_refused(server: ScriptedServer, client: MultiMailClient) -> None:
    server.script = [
        Answer({"mailboxes": []}, headers={"Set-Cookie": "a=b; Path=/"}),
        Answer({"mailboxes": []}),
    ]
    client.list_mailboxes()
    client.list_mailboxes()
    assert "cookie" not in server.requests[1].headers


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("name", ["list_mailboxes", "submit_reply"])
def test_redirect_is_not_followed_and_gets_no_key(
    server: ScriptedServer, client: MultiMailClient, status: int, name: str
) -> None:
    server.script = [Answer(status=status, headers={"Location": f"{server.url}/elsewhere"})]
    with pytest.raises(TransientError, match=f"MULTIMAIL_API_URL.*answered {status}"):
        CALLS[name](client)


FAULTS = [
    *(Answer(status=status) for status in (302, 400, 401, 403, 404, 409, 413, 422, 429, 500)),
    Answer(raw=BODY_TEXT.encode()),
    Answer(raw=b"\xff" + BODY_TEXT.encode()),
    Answer({"id": 7, "emails": BODY_TEXT, "mailboxes": BODY_TEXT, "markdown": BODY_TEXT}),
    Answer({"error": BODY_TEXT}, status=400),
    Answer({"error": BODY_TEXT + " quota"}, status=429),
    Answer({"markdown": BODY_TEXT}, cut=True),
]


@pytest.mark.parametrize("name", CALLS)
def test_neither_the_key_nor_a_body_shows_in_errors_reprs_or_logs(
    server: ScriptedServer, client: MultiMailClient, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    caplog.set_level(logging.DEBUG)
    for fault in FAULTS:
        server.default = lambda _, fault=fault: fault
        if name == "cancel_email" and fault.status == 200 and not (fault.raw or fault.cut):
            continue  # any object will do as its answer
        with pytest.raises(AgentError) as caught:
            CALLS[name](client)
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(client)
        shown += repr(caught.value.__cause__)
        for secret in (KEY, NEWER_KEY, BODY_TEXT):
            assert secret not in shown
    for secret in (KEY, NEWER_KEY, BODY_TEXT):
        assert secret not in caplog.text


# Refusals


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, PermanentError),
        (413, PermanentError),
        (422, PermanentError),
        (404, NotFoundError),
        (409, ConflictError),
    ],
)
def test_refusals_are_permanent_and_say_their_status(
    server: ScriptedServer, client: MultiMailClient, status: int, kind: type[PermanentError]
) -> None:
    server.script = [Answer(status=status)]
    with pytest.raises(PermanentError) as caught:
        client.submit_reply("mb_1", "em_1", "Hello", "key-1")
    assert type(caught.value) is kind
    assert caught.value.status_code == status
    call = "POST /v1/mailboxes/{mailbox_id}/reply/{email_id} (mailbox_id=mb_1, email_id=em_1)"
    assert caught.value.request == f"{call} answered {status}"
    assert call not in caught.value.reason


@pytest.mark.parametrize("name", READS)
def test_forbidden_reading_means_a_missing_scope(
    server: ScriptedServer, client: MultiMailClient, name: str
) -> None:
    server.script = [Answer(status=403)]
    with pytest.raises(ConfigurationError, match="lacks the read scope"):
        CALLS[name](client)


def test_a_key_that_may_not_tag_lacks_a_scope_whatever_the_mode(
    server: ScriptedServer, client: MultiMailClient
) -> None:
    server.script = [Answer(status=403)]
    with pytest.raises(ConfigurationError, match="lacks the send scope"):
        CALLS["set_tags"](client)


@pytest.mark.parametrize("name", ["submit_reply", "cancel_email"])
def test_forbidden_writing_is_left_to_the_caller(
    server: ScriptedServer, client: MultiMailClient, name: str
) -> None:
    server.script = [Answer(status=403)]
    with pytest.raises(PermanentError, match="send scope") as caught:
        CALLS[name](client)
    assert caught.value.status_code == 403


@pytest.mark.parametrize("name", ["submit_reply", "cancel_email"])
def test_forbidden_writing_for_a_scope_is_a_wrong_key(
    server: ScriptedServer, client: MultiMailClient, name: str
) -> None:
    server.script = [Answer(status=403, body={"error": "API key lacks the send scope"})]
    with pytest.raises(ConfigurationError, match="lacks the send scope"):
        CALLS[name](client)


QUOTA = {"error": "Monthly email quota exceeded"}
WARM_UP = {"error": "warm-up", "warmup_stage": 2, "daily_sent": 50, "daily_limit": 50, "hint": "wait"}


@pytest.mark.parametrize(
    ("body", "headers", "now", "seconds", "words"),
    [
        ({"error": "slow down"}, {}, NOW, None, "rate limit"),
        ({}, {"Retry-After": "7"}, NOW, 7, "rate limit"),
        ({}, {"Retry-After": "Wed, 01 Jan 2020 00:00:00 GMT"}, NOW, 1, "rate limit"),
        ({}, {"Retry-After": "0"}, NOW, 1, "rate limit"),
        ({}, {"Retry-After": "99999999999"}, NOW, 86_400, "rate limit"),
        ({}, {"Retry-After": "soon"}, NOW, None, "rate limit"),
        (QUOTA, {}, NOW, 6 * 3600, "monthly quota"),
        (QUOTA, {}, datetime(2026, 12, 31, 23, 0, tzinfo=UTC), 3600, "monthly quota"),
        (QUOTA, {"Retry-After": "9"}, NOW, 9, "monthly quota"),
        (WARM_UP, {}, NOW, 3600, "warm-up"),
        (WARM_UP, {}, datetime(2026, 11, 22, 23, 50, tzinfo=UTC), 600, "warm-up"),
        (WARM_UP, {"Retry-After": "9"}, NOW, 9, "warm-up"),
    ],
)
@pytest.mark.parametrize("name", ["submit_reply", "list_mailboxes"])
def test_throttling_names_its_kind_and_its_delay_and_is_not_repeated(
    server: ScriptedServer,
    *,
    name: str,
    body: object,
    headers: dict[str, str],
    now: datetime,
    seconds: float | None,
    words: str,
) -> None:
    server.script = [Answer(body, status=429, headers=headers)]
    client = MultiMailClient(server.url, RotatingKey(), clock=lambda: now)
    with pytest.raises(ThrottledError, match=words) as caught:
        CALLS[name](client)
    assert caught.value.retry_after_seconds == seconds


# Faults


def test_server_error_hands_on_the_delay_that_the_service_asked_for(
    server: ScriptedServer, client: MultiMailClient
) -> None:
    server.script = [Answer(status=503, headers={"Retry-After": "3600"})]
    with pytest.raises(TransientError, match="answered 503") as caught:
        client.submit_reply("mb_1", "em_1", "Hello", "key-1")
    assert caught.value.retry_after_seconds == 3600


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("raw", [b"<html>Sign in to the hotel's network</html>", b"", b"[]", b"[" * 100_000])
def test_answer_that_is_no_json_object_is_tried_again_later(
    server: ScriptedServer, client: MultiMailClient, name: str, raw: bytes
) -> None:
    server.script = [Answer(raw=raw)]
    with pytest.raises(TransientError, match="answered 200, but unreadable"):
        CALLS[name](client)


@pytest.mark.parametrize("field_name", ["id", "received_at", "markdown", "status"])
@pytest.mark.parametrize("value", [None, 7, []])
def test_email_that_breaks_the_contract_is_tried_again_later(
    server: ScriptedServer, client: MultiMailClient, field_name: str, value: object
) -> None:
    server.script = [Answer(email_json(**{field_name: value}))]
    with pytest.raises(TransientError, match=f"unreadable: {field_name} is not a text"):
        client.get_email("mb_1", "em_1")


@pytest.mark.parametrize("name", CALLS)
def test_answer_cut_in_the_middle_is_transient_and_not_repeated(
    server: ScriptedServer, client: MultiMailClient, name: str
) -> None:
    server.script = [Answer({"id": "em_1", "status": "pending_scan"}, cut=True)]
    with pytest.raises(TransientError, match="no whole answer"):
        CALLS[name](client)


@pytest.mark.parametrize("name", NEVER_REPEATED)
@pytest.mark.parametrize("fault", [Answer(hang=True), *(Answer(status=s) for s in (500, 502, 503, 504))])
def test_what_may_have_been_done_is_never_posted_again(
    server: ScriptedServer, client: MultiMailClient, name: str, fault: Answer
) -> None:
    server.script = [fault]
    with pytest.raises(TransientError):
        CALLS[name](client)
    assert len(server.requests) == 1


@pytest.mark.parametrize("name", REPEATABLE)
@pytest.mark.parametrize("fault", [Answer(hang=True), *(Answer(status=s) for s in (502, 503, 504))])
def test_reads_and_tags_are_repeated_once_and_no_more(
    server: ScriptedServer, client: MultiMailClient, name: str, fault: Answer
) -> None:
    server.script = [fault, fault]
    with pytest.raises(TransientError):
        CALLS[name](client)
    assert len(server.requests) == 2


def test_repeated_read_that_succeeds_is_nobodys_business(
    server: ScriptedServer, client: MultiMailClient
) -> None:
    server.script = [Answer(status=503), Answer({"tags": {}})]
    assert client.get_tags("mb_1", "em_1") == {}


def test_connection_that_was_never_made_is_tried_again_even_for_a_reply(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, but not listening: connections are refused
        client = MultiMailClient(f"http://127.0.0.1:{nobody.getsockname()[1]}", RotatingKey())
        caplog.set_level(logging.WARNING, "urllib3")  # it tells of each retry
        with pytest.raises(TransientError, match="ConnectionError"):
            client.submit_reply("mb_1", "em_1", "Hello", "key-1")
    retries = [record for record in caplog.records if record.name == "urllib3.connectionpool"]
    assert len(retries) == 2


def test_threads_share_one_client(server: ScriptedServer) -> None:
    together = threading.Barrier(32)
    asked_at_once = threading.Barrier(32)

    def answer(request: Request) -> Answer:
        asked_at_once.wait(timeout=10)
        return Answer(email_json(request.path.rpartition("/")[2]))

    server.default = answer
    client = MultiMailClient(server.url, RotatingKey())

    def get(number: int) -> str:
        together.wait(timeout=10)
        return client.get_email("mb_1", f"em_{number}").id

    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(get, range(32))) == [f"em_{number}" for number in range(32)]


# Against the simulated service


@pytest.fixture
def service() -> MultiMailSimulator:
    return MultiMailSimulator(lambda: NOW)


@pytest.fixture
def mailbox_id(service: MultiMailSimulator) -> str:
    return service.add_mailbox("support@example.org")


@pytest.fixture
def service_client(service: MultiMailSimulator) -> Iterator[MultiMailClient]:
    with LoopbackServer(service.app) as server:
        yield MultiMailClient(server.url, StaticSecret(Secret(service.add_key())), clock=lambda: NOW)


def test_whole_way_of_an_email_through_the_simulated_service(
    service: MultiMailSimulator, mailbox_id: str, service_client: MultiMailClient
) -> None:
    attachment = SentAttachment("note.txt", "text/plain", b"hi")
    email_id = service.deliver(mailbox_id, "Ann <ann@example.com>", "Hi", BODY_TEXT, attachments=[attachment])
    service.allow(mailbox_id, "*@example.net")

    [mailbox] = service_client.list_mailboxes()
    assert mailbox == Mailbox(mailbox_id, "support@example.org", "gated_send", True)
    assert service_client.get_allowlist(mailbox_id) == ("*@example.net",)
    [summary] = service_client.list_emails(
        mailbox_id, direction="inbound", status="unread", date_after=MINUTE_AGO
    )
    assert (summary.id, summary.sender, summary.received_at) == (email_id, "Ann <ann@example.com>", NOW)
    email = service_client.get_email(mailbox_id, email_id)
    assert (email.markdown, [file.name for file in email.attachments]) == (BODY_TEXT, ["note.txt"])

    service_client.set_tags(mailbox_id, email_id, {"agent.outcome": "reply_submitted"})
    assert service_client.get_tags(mailbox_id, email_id) == {"agent.outcome": "reply_submitted"}

    reply = service_client.submit_reply(mailbox_id, email_id, "Hello", "key-1")
    again = service_client.submit_reply(mailbox_id, email_id, "Hello", "key-1")
    assert again == SubmittedReply(reply.id, "already_sent", already_sent=True)
    assert email.thread_id is not None
    thread = service_client.get_thread(mailbox_id, email.thread_id)
    assert {(item.id, item.direction, item.thread_id) for item in thread} == {
        (email_id, "inbound", email.thread_id),
        (reply.id, "outbound", email.thread_id),
    }
    service_client.cancel_email(mailbox_id, reply.id)
    assert service_client.get_email(mailbox_id, reply.id).status == "cancelled"


def test_long_listing_of_the_simulated_service_is_complete(
    service: MultiMailSimulator, mailbox_id: str, service_client: MultiMailClient
) -> None:
    delivered = {
        service.deliver(mailbox_id, "ann@example.com", str(n), "text", received_at=NOW - timedelta(minutes=n))
        for n in range(250)
    }
    listed = [summary.id for summary in service_client.list_emails(mailbox_id)]
    assert len(listed) == 250
    assert set(listed) == delivered


def test_refusals_of_the_simulated_service_are_told_apart(
    service: MultiMailSimulator, mailbox_id: str, service_client: MultiMailClient
) -> None:
    email_id = service.deliver(mailbox_id, "ann@example.com", "Hi", "text")
    with pytest.raises(NotFoundError):
        service_client.get_email(mailbox_id, "em_unknown")
    service_client.submit_reply(mailbox_id, email_id, "Hello", "key-1")
    with pytest.raises(ConflictError):
        service_client.cancel_email(mailbox_id, email_id)
    service.set_mode(mailbox_id, "read_only")
    with pytest.raises(PermanentError) as caught:
        service_client.submit_reply(mailbox_id, email_id, "Hello again", "key-2")
    assert caught.value.status_code == 403
    waits = []
    for fault in (rate_limited(7), quota_exhausted(), warming_up()):
        service.fault = in_order(fault)
        with pytest.raises(ThrottledError) as throttled:
            service_client.submit_reply(mailbox_id, email_id, "Hello", "key-3")
        waits.append(throttled.value.retry_after_seconds)
    assert waits == [7, 6 * 3600, 3600]


@pytest.mark.parametrize("fault", [cut(after_effect=True), cut_mid_body(), malformed_json()])
def test_reply_whose_answer_was_lost_is_found_under_its_key(
    service: MultiMailSimulator, mailbox_id: str, service_client: MultiMailClient, fault: Fault
) -> None:
    email_id = service.deliver(mailbox_id, "ann@example.com", "Hi", "text")
    service.fault = in_order(fault)
    with pytest.raises(TransientError):
        service_client.submit_reply(mailbox_id, email_id, "Hello", "key-1")
    assert len(service.requests) == 1
    assert service_client.submit_reply(mailbox_id, email_id, "Hello", "key-1").already_sent
    assert len(list(service_client.list_emails(mailbox_id, direction="outbound"))) == 1
