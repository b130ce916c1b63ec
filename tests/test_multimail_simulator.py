"""The MultiMail simulator keeps the service's contract and behaves as its operators know it.

Every answer in this file is held against the OpenAPI document that MULTIMAIL_CONTRACT names.
"""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from jsonschema import Draft202012Validator, FormatChecker

from local.host.http_server import LoopbackServer
from local.multimail.emails import Attachment
from local.multimail.faults import (
    FOREIGN,
    Fault,
    always,
    another_account,
    answer_with,
    cut,
    cut_mid_body,
    hang,
    in_order,
    is_about_a_thread,
    is_about_an_email,
    is_about_tags,
    malformed_json,
    not_found,
    quota_exhausted,
    rate_limited,
    until,
    warming_up,
)
from local.multimail.simulator import MultiMailSimulator

START = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
SENDER = "Ann Example <ann@customer.example>"
Json = dict[str, Any]
Operation = tuple[str, str, int]


class ManualClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


class Contract:
    """An OpenAPI 3.0 document that answers are held against."""

    # What the service adds to the 429 of a young account, beyond the contract's error schema.
    _warmup_fields = frozenset({"warmup_stage", "daily_sent", "daily_limit", "hint"})
    # The contract lists these refusals only for some of the operations that can give them.
    _everywhere = frozenset({400, 401, 403, 404, 405})

    def __init__(self, document: Json) -> None:
        self._document = document
        self.operations = dict(self._read_operations())
        error = self._resolve({"$ref": "#/components/responses/Error"})
        self._error = _validator(error["content"]["application/json"]["schema"])

    def check(self, method: str, path: str, response: requests.Response) -> Operation:
        operation = (method, self._template(path), response.status_code)
        if operation not in self.operations:
            assert response.status_code in self._everywhere, f"{operation} is not in the contract"
        validator = self.operations.get(operation, self._error)
        body = response.json()
        if response.status_code == 429:
            body = {name: value for name, value in body.items() if name not in self._warmup_fields}
        if validator is not None:
            validator.validate(body)
        return operation

    def _template(self, path: str) -> str:
        given = path.split("/")
        for template in self._document["paths"]:
            parts = template.split("/")
            if len(parts) == len(given) and all(
                part.startswith("{") or part == piece for part, piece in zip(parts, given, strict=True)
            ):
                return str(template)
        return path

    def _read_operations(self) -> Iterator[tuple[Operation, Draft202012Validator | None]]:
        for template, item in self._document["paths"].items():
            for method in item.keys() & {"get", "post", "put", "delete"}:
                for status, response in self._resolve(item[method]["responses"]).items():
                    content = response.get("content", {}).get("application/json")
                    validator = _validator(content["schema"]) if content else None
                    yield (method.upper(), template, int(status)), validator

    def _resolve(self, node: Any) -> Any:
        """Follow references, translate `nullable`, and close objects: an unknown field is drift."""
        if isinstance(node, list):
            return [self._resolve(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            target = self._document
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            return self._resolve(target)
        node = {name: self._resolve(value) for name, value in node.items()}
        if "properties" in node and node.get("type") == "object":
            node.setdefault("additionalProperties", False)
        if node.pop("nullable", False) is True:
            node["type"] = [node["type"], "null"]
        return node


def _validator(schema: Json) -> Draft202012Validator:
    formats = FormatChecker(("email",))
    formats.checks("date-time", raises=(ValueError, AssertionError))(_is_utc_moment)
    return Draft202012Validator(schema, format_checker=formats)


def _is_utc_moment(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).utcoffset() == timedelta()


@pytest.fixture(scope="session")
def contract() -> Contract | None:
    path = os.environ.get("MULTIMAIL_CONTRACT")
    return Contract(yaml.safe_load(Path(path).read_text(encoding="utf-8"))) if path else None


class Service:
    """A running simulator, and its clients: `agent` may read and send, `operator` decides."""

    def __init__(
        self, url: str, simulator: MultiMailSimulator, clock: ManualClock, contract: Contract | None
    ):
        self.url, self.simulator, self.clock, self.contract = url, simulator, clock, contract
        self.seen: set[Operation] = set()
        self.agent = simulator.add_key(["read", "send"])
        self.operator = simulator.add_key(["read", "oversight", "admin"])
        self.box = simulator.add_mailbox("support@shop.example", mailbox_id="box")
        self._session = requests.Session()
        self._session.trust_env = False

    def close(self) -> None:
        self._session.close()

    def raw(self, method: str, path: str, body: Json | None = None, **options: Any) -> requests.Response:
        """Call as the agent without holding the answer against the contract."""
        headers = {"Authorization": f"Bearer {options.pop('key', self.agent)}"}
        return self._session.request(
            method,
            f"{self.url}{path}",
            json=body,
            headers=headers,
            timeout=options.pop("timeout", 10),
            **options,
        )

    def call(
        self, method: str, path: str, body: Json | None = None, *, expect: int = 200, **options: Any
    ) -> Json:
        """Call, hold the answer against the contract, and return its body."""
        response = self.raw(method, path, body, **options)
        if self.contract is not None:
            self.seen.add(self.contract.check(method, path, response))
        assert response.status_code == expect, response.text
        parsed: Json = response.json()
        return parsed

    def page(self, box: str = "box", **query: str) -> Json:
        return self.call("GET", f"/v1/mailboxes/{box}/emails", params=query)

    def ids(self, **query: str) -> list[str]:
        return [email["id"] for email in self.page(**query)["emails"]]

    def read(self, email_id: str, box: str = "box") -> Json:
        return self.call("GET", f"/v1/mailboxes/{box}/emails/{email_id}")

    def deliver(self, subject: str = "Question", **options: Any) -> str:
        return self.simulator.deliver("box", SENDER, subject, "Where is my order?", **options)

    def reply(
        self,
        email_id: str,
        text: str = "It is on its way.",
        *,
        expect: int = 202,
        box: str = "box",
        **fields: Any,
    ) -> Json:
        path = f"/v1/mailboxes/{box}/reply/{email_id}"
        return self.call("POST", path, {"markdown": text, **fields}, expect=expect)

    def send(self, expect: int = 202, **fields: Any) -> Json:
        body = {"to": ["bob@partner.example"], "subject": "News", "markdown": "Hello"} | fields
        return self.call("POST", "/v1/mailboxes/box/send", body, expect=expect)

    def decide(self, email_id: str, action: str, expect: int = 200) -> Json:
        body = {"email_id": email_id, "action": action}
        return self.call("POST", "/v1/oversight/decide", body, expect=expect, key=self.operator)

    def status(self, email_id: str) -> str:
        """The email's status, read without side effect on inbound mail."""
        email = self.simulator.find_email(email_id)
        assert email is not None
        return email.status


@pytest.fixture
def service(contract: Contract | None) -> Iterator[Service]:
    clock = ManualClock()
    simulator = MultiMailSimulator(clock, scan_seconds=5)
    with LoopbackServer(simulator.app) as server:
        running = Service(server.url, simulator, clock, contract)
        yield running
        running.close()


# The contract


def test_every_operation_gives_every_answer_that_the_contract_lists(service: Service) -> None:
    if service.contract is None:
        pytest.skip("MULTIMAIL_CONTRACT does not name the service's OpenAPI document")
    _use_everything(service)
    _provoke_every_refusal(service)

    # Only a reply can conflict: a new email has no "same content" rule in the contract.
    not_to_be_had = {("POST", "/v1/mailboxes/{mailboxId}/send", 409)}
    assert service.contract.operations.keys() - service.seen == not_to_be_had


def _use_everything(service: Service) -> None:
    simulator, box = service.simulator, "/v1/mailboxes/box"
    simulator.allow("box", "*@partner.example")
    simulator.add_contact("Ann", "ann@customer.example", ["vip"])
    email_id = service.deliver(
        attachments=[Attachment("a.txt", "text/plain", b"hello")], spam_verdict="clean"
    )
    email = f"{box}/emails/{email_id}"
    for path in ("/health", "/v1/account", "/v1/mailboxes", f"{box}/emails", email, f"{box}/allowlist"):
        service.call("GET", path)
    service.call("GET", f"{email}/attachments/a.txt")
    service.call("PUT", f"{email}/tags", {"tags": {"agent.action": "reply"}})
    service.call("GET", f"{email}/tags")
    service.call("DELETE", f"{email}/tags/agent.action")
    service.call("GET", "/v1/contacts", params={"q": "ann"})
    for _ in range(3):
        service.call("POST", f"{box}/request-upgrade", {"target_mode": "monitored"})
    reply_id = service.reply(email_id, idempotency_key="r")["id"]
    service.reply(email_id, idempotency_key="r", expect=200)
    service.send(idempotency_key="s")
    service.send(idempotency_key="s", expect=200)
    service.clock.advance(seconds=5)
    service.call("GET", "/v1/oversight/pending", key=service.operator)
    service.decide(reply_id, "approve")
    service.call("POST", f"{box}/emails/{service.send(to=['x@y.example'])['id']}/cancel")
    service.call("GET", f"{box}/threads/{service.read(reply_id)['thread_id']}")
    webhook = {"url": "https://agent.example/hook", "events": ["message.received"], "mailbox_id": "box"}
    service.call("POST", "/v1/webhooks", webhook, key=service.operator, expect=201)
    service.call("GET", "/v1/audit-log", key=service.operator)


def _provoke_every_refusal(service: Service) -> None:
    simulator, box = service.simulator, "/v1/mailboxes/box"
    email_id, key = service.deliver(), "mm_test_unknown"
    new, answer = {"to": ["a@b.example"], "subject": "s", "markdown": "m"}, {"markdown": "m"}
    sends = ((f"{box}/send", new), (f"{box}/reply/{email_id}", answer))
    for path in ("/v1/account", "/v1/mailboxes", f"{box}/emails", f"{box}/emails/{email_id}"):
        service.call("GET", path, key=key, expect=401)
    for path, body in sends:
        service.call("POST", path, body, key=key, expect=401)
        service.call("POST", path, body, key=service.operator, expect=403)
        service.call("POST", path, {}, expect=400)
        service.call("POST", path.replace("/box/", "/nowhere/"), body, expect=404)
    for path in ("emails", "emails/x", "emails/x/attachments/a", "emails/x/tags", "threads/x", "allowlist"):
        service.call("GET", f"/v1/mailboxes/nowhere/{path}", expect=404)
    service.call("PUT", f"{box}/emails/x/tags", {"tags": {}}, expect=404)
    service.call("POST", f"{box}/emails/x/cancel", expect=404)
    service.call("POST", f"{box}/emails/{email_id}/cancel", expect=409)
    service.reply(email_id)
    service.reply(email_id, expect=409)
    service.call("POST", f"{box}/request-upgrade", {"target_mode": "chaos"}, expect=400)
    service.call("POST", f"{box}/request-upgrade", {"target_mode": "autonomous"}, expect=429)
    service.call("GET", "/v1/oversight/pending", expect=403)
    service.call("POST", "/v1/oversight/decide", {}, expect=403)
    service.decide("x", "approve", expect=404)
    service.call("GET", "/v1/audit-log", expect=403)
    simulator.monthly_quota = 0
    for path, body in sends:
        service.call("POST", path, body, expect=429)
    simulator.fault = in_order(answer_with(503))
    service.call("GET", "/health", expect=503)


def test_the_contract_check_notices_an_unknown_field_and_a_wrong_type(contract: Contract | None) -> None:
    if contract is None:
        pytest.skip("MULTIMAIL_CONTRACT does not name the service's OpenAPI document")
    validator = contract.operations["GET", "/v1/mailboxes/{mailboxId}/emails", 200]
    assert validator is not None
    email = {"id": "e", "from": "a@b.example", "to": [], "subject": "", "direction": "inbound"}
    email |= {"status": "unread", "received_at": "2026-11-20T09:00:00Z"}

    assert validator.is_valid({"emails": [email | {"thread_id": None}], "cursor": None})
    assert not validator.is_valid({"emails": [email | {"tags": {}}]})
    assert not validator.is_valid({"emails": [email | {"subject": None}]})
    assert not validator.is_valid({"emails": [email | {"received_at": "yesterday"}]})


# Keys and scopes


def test_a_key_may_not_hold_send_and_oversight_together(service: Service) -> None:
    with pytest.raises(ValueError, match="both send and oversight"):
        service.simulator.add_key(["read", "send", "oversight"])
    with pytest.raises(ValueError, match="unknown scopes"):
        service.simulator.add_key(["write"])


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer mm_test_unknown", "Basic abc"])
def test_a_call_without_a_valid_key_is_refused(service: Service, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    answer = requests.get(f"{service.url}/v1/account", headers=headers, timeout=10)
    assert (answer.status_code, list(answer.json())) == (401, ["error"])


def test_a_rotated_or_revoked_key_is_unknown_at_once_and_the_new_one_has_its_scopes(service: Service) -> None:
    old, service.agent = service.agent, service.simulator.rotate_key(service.agent)

    service.call("GET", "/v1/account", key=old, expect=401)
    service.reply(service.deliver())
    service.simulator.revoke_key(service.agent)
    service.call("GET", "/v1/account", expect=401)


@pytest.mark.parametrize(
    ("scopes", "method", "path"),
    [
        (["send"], "GET", "/v1/mailboxes"),
        (["send"], "GET", "/v1/mailboxes/box/emails"),
        (["read"], "PUT", "/v1/mailboxes/box/emails/x/tags"),
        (["read"], "POST", "/v1/mailboxes/box/send"),
        (["read"], "POST", "/v1/mailboxes/box/emails/x/cancel"),
        (["read", "send"], "GET", "/v1/oversight/pending"),
        (["read", "send"], "POST", "/v1/webhooks"),
    ],
)
def test_a_call_outside_the_keys_scopes_is_refused(
    service: Service, scopes: list[str], method: str, path: str
) -> None:
    key = service.simulator.add_key(scopes)
    assert "scope" in service.call(method, path, {}, key=key, expect=403)["error"]


# Listing and reading


def test_listing_pages_lose_and_repeat_nothing_when_250_emails_share_timestamps(service: Service) -> None:
    for number in range(250):
        service.deliver(received_at=START - timedelta(seconds=number // 100))
    found: list[str] = []
    page = service.page(limit="30")
    while page["cursor"] is not None:
        found += [email["id"] for email in page["emails"]]
        service.deliver("arrives in between", received_at=START)
        page = service.page(limit="30", cursor=page["cursor"])
    found += [email["id"] for email in page["emails"]]

    assert len(found) == len(set(found)) == 250


def test_ten_thousand_emails_are_listed_newest_first(service: Service) -> None:
    for number in range(10_000):
        service.deliver(received_at=START - timedelta(seconds=number))
    cursor: dict[str, str] = {}
    times: list[str] = []
    while page := service.page(limit="100", **cursor):
        times += [email["received_at"] for email in page["emails"]]
        if page["cursor"] is None:
            break
        cursor = {"cursor": page["cursor"]}

    assert len(times) == 10_000
    assert times == sorted(times, reverse=True)


def test_a_page_holds_20_emails_unless_asked_otherwise_and_never_over_100(service: Service) -> None:
    for _ in range(120):
        service.deliver()
    assert len(service.ids()) == 20
    assert len(service.ids(limit="100")) == 100


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "101"},
        {"limit": "many"},
        {"cursor": "next"},
        {"status": "sent"},
        {"direction": "sideways"},
        {"has_attachments": "yes"},
        {"date_after": "yesterday"},
        {"since": "em_1"},
    ],
)
def test_a_malformed_or_unknown_filter_is_refused(service: Service, query: dict[str, str]) -> None:
    service.call("GET", "/v1/mailboxes/box/emails", params=query, expect=400)


def test_listing_filters_each_narrow_the_result(service: Service) -> None:
    hour = timedelta(hours=1)
    old = service.simulator.deliver(
        "box", "Bob <BOB@other.example>", "Invoice", "x", received_at=START - 3 * hour
    )
    file = Attachment("a.txt", "text/plain", b"x")
    middle = service.deliver("An INVOICE question", received_at=START - 2 * hour, attachments=[file])
    sent = service.simulator.add_outbound("box", ["a@b.example"], "Ours", "x", received_at=START - hour)
    new = service.deliver("Newest", received_at=START, status="archived")

    assert service.ids() == [new, sent, middle, old]
    assert service.ids(status="unread") == [middle, old]
    assert service.ids(status="archived") == [new]
    assert service.ids(sender="bob@") == [old]
    assert service.ids(subject_contains="invoice") == [middle, old]
    assert service.ids(direction="outbound") == [sent]
    assert service.ids(has_attachments="true") == [middle]
    assert service.ids(has_attachments="false") == [new, sent, old]
    assert service.ids(since_id=middle) == [new, sent]
    assert service.ids(date_after="2026-11-20T07:00:00Z") == [new, sent]
    assert service.ids(date_after="2026-11-20T06:59:59.999Z", date_before="2026-11-20T08:00:00Z") == [middle]
    assert service.ids(date_before="2026-11-20T08:00:00.001Z") == [sent, middle, old]


def test_an_unknown_since_id_is_refused(service: Service) -> None:
    service.call("GET", "/v1/mailboxes/box/emails", params={"since_id": "em_gone"}, expect=404)


def test_only_getting_an_unread_inbound_email_marks_it_as_read(service: Service) -> None:
    email_id = service.deliver(tags={"a": "b"})
    email = f"/v1/mailboxes/box/emails/{email_id}"
    thread_id = service.page()["emails"][0]["thread_id"]
    service.call("GET", f"/v1/mailboxes/box/threads/{thread_id}")
    service.call("GET", f"{email}/tags")
    assert service.ids(status="unread") == [email_id]

    assert service.read(email_id) | {"status": "read", "tags": {"a": "b"}} == service.read(email_id)

    assert service.ids(status="unread") == []
    assert service.ids(status="read") == [email_id]
    archived = service.deliver(status="archived")
    assert service.read(archived)["status"] == "archived"


def test_an_email_of_another_mailbox_is_not_found(service: Service) -> None:
    service.simulator.add_mailbox("sales@shop.example", mailbox_id="sales")
    email_id = service.deliver()
    service.call("GET", f"/v1/mailboxes/sales/emails/{email_id}", expect=404)
    service.call("POST", f"/v1/mailboxes/sales/reply/{email_id}", {"markdown": "x"}, expect=404)


def test_a_small_attachment_comes_inline_and_a_large_one_as_an_address(service: Service) -> None:
    files = [Attachment("s.txt", "text/plain", b"hello"), Attachment("l.bin", "image/png", bytes(60_000))]
    path = f"/v1/mailboxes/box/emails/{service.deliver(attachments=files)}/attachments"

    assert service.call("GET", f"{path}/s.txt")["content_base64"] == "aGVsbG8="
    assert service.call("GET", f"{path}/l.bin")["url"].startswith("https://")
    service.call("GET", f"{path}/none.txt", expect=404)


@pytest.mark.parametrize(
    ("verdict", "status"),
    [(None, "unread"), ("clean", "unread"), ("flagged", "spam_flagged"), ("quarantined", "spam_quarantined")],
)
def test_a_spam_verdict_decides_the_status_of_what_arrives(
    service: Service, verdict: str | None, status: str
) -> None:
    service.deliver(spam_verdict=verdict)
    (email,) = service.page()["emails"]
    assert (email["spam_verdict"], email["status"]) == (verdict, status)


def test_a_thread_is_unanswered_until_something_left_the_mailbox_after_the_last_inbound(
    service: Service,
) -> None:
    first = service.deliver()
    path = f"/v1/mailboxes/box/threads/{service.page()['emails'][0]['thread_id']}"
    service.clock.advance(minutes=1)
    reply_id = service.reply(first)["id"]
    assert service.call("GET", path)["has_unanswered_inbound"] is True, "a pending reply answers nobody"

    answer = service.simulator.human_reply(first, "A human says hello")
    assert service.call("GET", path)["has_unanswered_inbound"] is False

    service.clock.advance(minutes=1)
    second = service.deliver(in_reply_to=reply_id)
    thread = service.call("GET", path)
    assert thread["has_unanswered_inbound"] is True
    assert [email["id"] for email in thread["emails"]] == [first, reply_id, answer, second]
    assert thread["message_count"] == 4
    assert thread["last_activity"] == "2026-11-20T09:02:00.000Z"


# Oversight modes


def test_gated_all_holds_inbound_mail_back_until_a_human_releases_it(service: Service) -> None:
    service.simulator.set_mode("box", "gated_all")
    email_id = service.deliver(attachments=[Attachment("a.txt", "text/plain", b"x")])

    held = service.read(email_id)
    assert (held["status"], held["markdown"], held["attachments"]) == ("pending_inbound_approval", "", [])
    service.call("GET", f"/v1/mailboxes/box/emails/{email_id}/attachments/a.txt", expect=404)
    service.reply(email_id, expect=403)
    (pending,) = service.call("GET", "/v1/oversight/pending", key=service.operator)["emails"]
    assert (pending["id"], pending["body_markdown"]) == (email_id, "Where is my order?")

    assert service.decide(email_id, "approve") == {"status": "approved"}
    assert service.ids(status="unread") == [email_id]
    assert service.read(email_id)["markdown"] == "Where is my order?"


@pytest.mark.parametrize("how", ["reject", "cancel"])
def test_inbound_mail_that_no_human_let_in_never_shows_its_body_and_cannot_be_answered(
    service: Service, how: str
) -> None:
    service.simulator.set_mode("box", "gated_all")
    email_id = service.deliver()
    if how == "reject":
        assert service.decide(email_id, "reject") == {"status": "rejected"}
    else:
        service.call("POST", f"/v1/mailboxes/box/emails/{email_id}/cancel")
    service.reply(email_id, expect=403)
    assert service.read(email_id)["markdown"] == ""


def test_a_human_releases_held_mail_in_the_dashboard(service: Service) -> None:
    service.simulator.set_mode("box", "gated_all")
    email_id = service.deliver()
    service.simulator.release_inbound(email_id)
    assert service.status(email_id) == "unread"


def test_a_read_only_or_inactive_mailbox_accepts_no_send_and_no_reply(service: Service) -> None:
    email_id = service.deliver()
    service.simulator.set_mode("box", "read_only")
    service.reply(email_id, expect=403)
    service.send(expect=403)
    service.simulator.add_mailbox("old@shop.example", "autonomous", mailbox_id="old", is_active=False)
    service.call("POST", "/v1/mailboxes/old/send", _new_email(), expect=403)
    assert service.simulator.accepted == []


def _new_email() -> Json:
    return {"to": ["a@b.example"], "subject": "s", "markdown": "m"}


def test_a_gated_reply_is_scanned_then_waits_and_is_sent_when_approved(service: Service) -> None:
    answer = service.reply(service.deliver())
    assert answer["status"] == "pending_scan"
    service.clock.advance(seconds=4.9)
    assert service.read(answer["id"])["status"] == "pending_scan"

    service.clock.advance(seconds=0.1)
    assert service.ids(direction="outbound", status="pending_send_approval") == [answer["id"]]
    assert service.read(answer["id"])["delivered_at"] is None

    service.clock.advance(hours=1)
    assert service.decide(answer["id"], "approve") == {"status": "approved_and_sent"}
    sent = service.read(answer["id"])
    assert sent["delivered_at"] == sent["approved_at"] == "2026-11-20T10:00:05.000Z"
    assert service.ids(status="pending_send_approval") == []
    service.decide(answer["id"], "approve", expect=404)


def test_a_rejected_reply_never_leaves(service: Service) -> None:
    reply_id = service.reply(service.deliver())["id"]
    service.clock.advance(seconds=5)
    assert service.decide(reply_id, "reject") == {"status": "rejected"}
    service.clock.advance(days=1)
    reply = service.read(reply_id)
    assert (reply["status"], reply["delivered_at"]) == ("rejected", None)


@pytest.mark.parametrize("waited", [0, 5])
def test_a_pending_reply_can_be_cancelled_twice_and_then_never_leaves(service: Service, waited: int) -> None:
    reply_id = service.reply(service.deliver())["id"]
    service.clock.advance(seconds=waited)
    path = f"/v1/mailboxes/box/emails/{reply_id}/cancel"
    for _ in range(2):
        assert service.call("POST", path) == {"id": reply_id, "status": "cancelled"}
    service.clock.advance(days=1)
    assert service.status(reply_id) == "cancelled"
    service.decide(reply_id, "approve", expect=404)


def test_a_sent_email_cannot_be_cancelled(service: Service) -> None:
    service.simulator.set_mode("box", "autonomous")
    reply_id = service.reply(service.deliver())["id"]
    service.clock.advance(seconds=5)
    service.call("POST", f"/v1/mailboxes/box/emails/{reply_id}/cancel", expect=409)


@pytest.mark.parametrize("mode", ["monitored", "autonomous"])
def test_an_ungated_reply_is_delivered_when_its_scan_is_over(service: Service, mode: str) -> None:
    service.simulator.set_mode("box", mode)
    reply_id = service.reply(service.deliver())["id"]
    service.clock.advance(minutes=1)
    reply = service.read(reply_id)
    assert reply["delivered_at"] == "2026-11-20T09:00:05.000Z"
    assert reply["cc"] == (["operator@example.com"] if mode == "monitored" else [])
    assert service.simulator.accepted[0].recipients == ("ann@customer.example",)


@pytest.mark.parametrize(
    ("mode", "pattern", "cc", "bypassed"),
    [
        ("gated_send", "ann@customer.example", [], True),
        ("gated_send", "ANN@Customer.Example", [], True),
        ("gated_send", "*@customer.example", [], True),
        ("gated_send", "*@customer.example", ["eve@else.example"], False),
        ("gated_send", "*@tomer.example", [], False),
        ("gated_send", "bob@customer.example", [], False),
        ("gated_all", "*@customer.example", [], False),
    ],
)
def test_an_allowlisted_recipient_bypasses_approval_in_gated_send_alone(
    service: Service, mode: str, pattern: str, cc: list[str], bypassed: bool
) -> None:
    email_id = service.deliver()
    service.simulator.set_mode("box", mode)
    service.simulator.allow("box", pattern)
    reply_id = service.reply(email_id, cc=cc)["id"]
    service.clock.advance(seconds=5)

    assert service.simulator.accepted[0].approval_bypassed is bypassed
    assert (service.read(reply_id)["delivered_at"] is not None) is bypassed
    (entry,) = service.call("GET", "/v1/mailboxes/box/allowlist")["entries"]
    assert entry["pattern"] == pattern


def test_an_email_keeps_the_mode_under_which_it_was_accepted(service: Service) -> None:
    reply_id = service.reply(service.deliver())["id"]
    service.simulator.set_mode("box", "autonomous")
    service.clock.advance(seconds=5)
    assert service.status(reply_id) == "pending_send_approval"
    assert service.simulator.accepted[0].mode == "gated_send"


def test_without_scan_time_the_state_after_the_scan_shows_at_the_next_call(service: Service) -> None:
    service.simulator.scan_seconds = 0
    answer = service.reply(service.deliver())
    assert answer["status"] == "pending_scan"
    assert service.read(answer["id"])["status"] == "pending_send_approval"


@pytest.mark.parametrize(
    ("fate", "status", "bounced"), [("bounced", "read", True), ("send_failed", "send_failed", False)]
)
def test_what_cannot_be_delivered_bounces_or_fails(
    service: Service, fate: Any, status: str, bounced: bool
) -> None:
    service.simulator.refuse_delivery("Ann@customer.example", fate)
    service.simulator.set_mode("box", "autonomous")
    email_id = service.simulator.deliver("box", "ANN@customer.example", "Hi", "x")
    reply_id = service.reply(email_id)["id"]
    service.clock.advance(seconds=5)
    reply = service.read(reply_id)
    assert (reply["status"], reply["delivered_at"]) == (status, None)
    assert (reply["bounced_at"] is not None, reply["bounce_type"] == "hard") == (bounced, bounced)


@pytest.mark.parametrize(
    ("timing", "statuses"),
    [
        ("gate_first", ["pending_send_approval", "scheduled", "read", "read"]),
        ("schedule_first", ["scheduled", "scheduled", "pending_send_approval", "read"]),
    ],
)
def test_a_scheduled_email_passes_its_gate_before_or_after_the_wait(
    service: Service, timing: str, statuses: list[str]
) -> None:
    email_id = service.send(send_at="2026-11-20T10:00:00Z", gate_timing=timing)["id"]
    seen = []
    for minutes in (1, 1, 60, 1):
        service.clock.advance(minutes=minutes)
        seen.append(service.status(email_id))
        if seen[-1] == "pending_send_approval":
            service.decide(email_id, "approve")
    assert seen == statuses


# Replies


def test_a_reply_goes_to_the_sender_in_the_same_thread_with_the_mailboxs_signature(service: Service) -> None:
    service.simulator.add_mailbox("sales@shop.example", mailbox_id="sales", signature_block="-- \nThe shop")
    email_id = service.simulator.deliver("sales", SENDER, "Order 7", "Hi")
    answer = service.reply(email_id, "Sent today.", box="sales")
    reply = service.read(answer["id"], "sales")

    assert reply["to"] == ["ann@customer.example"]
    assert (reply["from"], reply["subject"]) == ("sales@shop.example", "Re: Order 7")
    assert reply["markdown"] == "Sent today.\n\n-- \nThe shop"
    assert reply["thread_id"] == answer["thread_id"] == service.read(email_id, "sales")["thread_id"]


@pytest.mark.parametrize(
    ("reply_to", "recipients"),
    [
        ("Bob <bob@other.example>", ["bob@other.example"]),
        ("Team: bob@other.example, eve@elsewhere.example;", ["bob@other.example", "eve@elsewhere.example"]),
        ("nobody", ["ann@customer.example"]),
    ],
)
def test_a_reply_to_can_lead_replies_elsewhere(
    service: Service, reply_to: str, recipients: list[str]
) -> None:
    email_id = service.deliver(reply_to=reply_to)
    assert service.read(service.reply(email_id)["id"])["to"] == recipients


def test_headers_are_shown_where_a_test_wants_them(service: Service) -> None:
    """The contract has none; of their Reply-To it does not say whether a reply follows it."""
    headers = {"Reply-To": "bob@other.example"}
    email_id = service.deliver(headers=headers)
    assert service.raw("GET", f"/v1/mailboxes/box/emails/{email_id}").json()["headers"] == headers
    assert service.read(service.reply(email_id)["id"])["to"] == ["ann@customer.example"]


def test_a_reply_to_a_reply_does_not_pile_up_prefixes(service: Service) -> None:
    answer = service.reply(service.deliver("RE: Order 7"))
    assert service.read(answer["id"])["subject"] == "RE: Order 7"


def test_a_sender_without_an_address_cannot_be_answered(service: Service) -> None:
    service.reply(service.simulator.deliver("box", "Mail System", "Hi", "x"), expect=400)


def test_an_idempotency_key_returns_the_first_email_for_24_hours_and_is_then_forgotten(
    service: Service,
) -> None:
    email_id = service.deliver()
    first = service.reply(email_id, idempotency_key="k")["id"]
    service.clock.advance(hours=23, minutes=59, seconds=59)
    again = service.reply(email_id, "Another body", idempotency_key="k", expect=200)
    assert again == {"id": first, "status": "already_sent", "idempotent": True}
    assert len(service.simulator.accepted) == 1

    service.clock.advance(seconds=1)
    assert service.reply(email_id, idempotency_key="k")["id"] != first
    assert len(service.simulator.accepted) == 2, "this is the duplicate that a late retry makes"


def test_an_idempotency_key_counts_within_its_mailbox_alone(service: Service) -> None:
    service.simulator.add_mailbox("sales@shop.example", mailbox_id="sales")
    other = service.simulator.deliver("sales", SENDER, "Hi", "x")
    first = service.reply(service.deliver(), idempotency_key="k")
    assert service.reply(other, box="sales", idempotency_key="k")["id"] != first["id"]
    assert service.send(expect=200, idempotency_key="k")["id"] == first["id"]


def test_a_refused_reply_does_not_use_up_its_idempotency_key(service: Service) -> None:
    email_id = service.deliver()
    service.simulator.set_mode("box", "read_only")
    service.reply(email_id, idempotency_key="k", expect=403)
    service.simulator.set_mode("box", "gated_send")
    service.reply(email_id, idempotency_key="k", expect=202)


def test_one_idempotency_key_used_by_many_at_once_makes_one_email(service: Service) -> None:
    email_id = service.deliver()

    def submit(_: int) -> int:
        headers = {"Authorization": f"Bearer {service.agent}"}
        body = {"markdown": "x", "idempotency_key": "k"}
        url = f"{service.url}/v1/mailboxes/box/reply/{email_id}"
        return requests.post(url, json=body, headers=headers, timeout=10).status_code

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(submit, range(16)))
    assert sorted(answers) == [200] * 15 + [202]
    assert len(service.simulator.accepted) == 1


def test_the_same_reply_without_a_key_conflicts_for_60_seconds(service: Service) -> None:
    email_id = service.deliver()
    service.reply(email_id)
    service.clock.advance(seconds=59.9)
    service.reply(email_id, expect=409)
    service.reply(email_id, "Something else")
    service.reply(email_id, idempotency_key="k")
    service.reply(service.deliver())
    service.clock.advance(seconds=60)
    service.reply(email_id)


@pytest.mark.parametrize(
    "fields",
    [
        {"subject": "s" * 999},
        {"markdown": "m" * 262_145},
        {"to": [f"a{n}@b.example" for n in range(51)]},
        {"to": [f"a{n}@b.example" for n in range(40)], "cc": [f"c{n}@b.example" for n in range(11)]},
        {"to": []},
        {"to": "a@b.example"},
        {"to": ["not an address"]},
        {"markdown": None},
        {"idempotency_key": 7},
        {"idempotencyKey": "k"},
        {"send_at": "2026-11-20T10:00:00+01:00"},
        {"send_at": "soonZ"},
        {"gate_timing": "never"},
        {"attachments": [{"name": "a", "content_type": "b", "content_base64": "%"}]},
        {"attachments": ["a"]},
    ],
)
def test_a_send_outside_the_contracts_limits_is_refused_and_has_no_effect(
    service: Service, fields: Json
) -> None:
    service.send(expect=400, **fields)
    assert service.ids() == []


def test_a_send_at_the_contracts_limits_is_accepted(service: Service) -> None:
    to = [f"a{n}@b.example" for n in range(50)]
    service.send(to=to, subject="s" * 998, markdown="m" * 262_144)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff"])
def test_a_body_that_is_not_a_json_object_is_refused(service: Service, raw: bytes) -> None:
    path = f"/v1/mailboxes/box/reply/{service.deliver()}"
    assert service.raw("POST", path, data=raw).status_code == 400


# Limits


def test_the_months_quota_is_counted_and_starts_anew_next_month(service: Service) -> None:
    service.simulator.monthly_quota = 2
    for _ in range(2):
        service.send()
    assert "quota" in service.send(expect=429)["error"]
    account = service.call("GET", "/v1/account")
    assert (account["emails_sent_this_month"], account["monthly_email_quota"]) == (2, 2)

    service.clock.advance(days=11)
    service.send()


def test_the_plan_sets_the_quota() -> None:
    simulator = MultiMailSimulator(ManualClock(), plan="starter")
    assert (simulator.monthly_quota, simulator.max_mailboxes) == (200, 2)


def test_warm_up_is_counted_per_day(service: Service) -> None:
    service.simulator.set_warmup(stage=3, daily_limit=2)
    for _ in range(2):
        service.send()
    refusal = service.send(expect=429)
    assert (refusal["warmup_stage"], refusal["daily_sent"], refusal["daily_limit"]) == (3, 2, 2)
    assert refusal.keys() >= {"error", "hint"}

    service.clock.advance(days=1)
    service.send()


def test_a_known_idempotency_key_is_answered_even_when_the_quota_is_used_up(service: Service) -> None:
    email_id = service.deliver()
    service.reply(email_id, idempotency_key="k")
    service.simulator.monthly_quota = 1
    service.reply(email_id, idempotency_key="k", expect=200)


def test_an_upgrade_may_be_asked_for_three_times_an_hour(service: Service) -> None:
    path, body = "/v1/mailboxes/box/request-upgrade", {"target_mode": "monitored"}
    for _ in range(3):
        service.call("POST", path, body)
    service.call("POST", path, body, expect=429)
    service.clock.advance(hours=1)
    service.call("POST", path, body)
    service.call("POST", path, {"target_mode": "read_only"}, expect=400)


# Tags, contacts, webhooks, audit


def test_put_replaces_all_tags(service: Service) -> None:
    email_id = service.deliver(tags={"human": "vip"})
    path = f"/v1/mailboxes/box/emails/{email_id}/tags"
    service.call("PUT", path, {"tags": {"agent.action": "reply"}})
    assert service.call("GET", path) == {"tags": {"agent.action": "reply"}}
    assert service.call("DELETE", f"{path}/agent.action") == {"deleted": True}
    assert service.call("DELETE", f"{path}/agent.action") == {"deleted": False}
    service.call("PUT", path, {"tags": {"n": 1}}, expect=400)


def test_contacts_are_found_by_name_or_address(service: Service) -> None:
    service.simulator.add_contact("Ann", "ann@customer.example", ["vip"])
    service.simulator.add_contact("Bob", "bob@partner.example")
    for query, found in (("ANN", ["Ann"]), ("partner", ["Bob"]), ("", ["Ann", "Bob"])):
        contacts = service.call("GET", "/v1/contacts", params={"q": query})["contacts"]
        assert [contact["name"] for contact in contacts] == found


def test_a_webhook_is_stored_and_shows_its_secret_once(service: Service) -> None:
    body = {"url": "https://agent.example/hook", "events": ["message.received"]}
    created = service.call("POST", "/v1/webhooks", body, key=service.operator, expect=201)
    assert created["signing_secret"] == service.simulator.webhooks[0].signing_secret
    assert created["signing_secret"].startswith("whsec_")
    wrongs: list[Json] = [
        {"events": []},
        {"events": ["message.guessed"]},
        {"url": "ftp://x"},
        {"mailbox_id": 1},
    ]
    for wrong in wrongs:
        service.call("POST", "/v1/webhooks", body | wrong, key=service.operator, expect=400)


def test_the_audit_log_names_who_did_what_newest_first_in_pages(service: Service) -> None:
    for _ in range(5):
        service.send()
    actions: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = service.call("GET", "/v1/audit-log", params={"limit": "2"} | cursor, key=service.operator)
        actions += [entry["resource_id"] for entry in page["entries"]]
        assert {entry["action"] for entry in page["entries"]} == {"email.sent"}
        if page["cursor"] is None:
            break
        cursor = {"cursor": page["cursor"]}
    assert actions == [email.email_id for email in reversed(service.simulator.accepted)]


# What assertions look at


def test_every_request_is_logged_with_its_effect_and_without_its_key(service: Service) -> None:
    email_id = service.deliver()
    service.read(email_id)
    service.ids(limit="5")
    reply_id = service.reply(email_id, "Hi", idempotency_key="k")["id"]
    read, listed, replied = service.simulator.requests

    assert (read.number, read.method, read.status) == (1, "GET", 200)
    assert read.effect == f"marked {email_id} as read"
    assert (listed.query, listed.body, listed.effect) == ({"limit": "5"}, None, "")
    assert replied.body == {"markdown": "Hi", "idempotency_key": "k"}
    assert replied.effect == f"accepted {reply_id} to ann@customer.example"
    assert replied.at == START
    assert replied.key_id is not None
    assert service.agent not in repr(service.simulator.requests)


def test_an_accepted_reply_is_recorded_with_what_it_answers_and_under_which_key(service: Service) -> None:
    email_id = service.deliver()
    reply_id = service.reply(email_id, idempotency_key="k", bcc=["boss@shop.example"])["id"]
    (accepted,) = service.simulator.accepted
    assert (accepted.email_id, accepted.mailbox_id, accepted.in_reply_to) == (reply_id, "box", email_id)
    assert accepted.recipients == ("ann@customer.example", "boss@shop.example")
    assert (accepted.idempotency_key, accepted.approval_bypassed) == ("k", False)


def test_ids_are_opaque_and_the_same_for_the_same_seed() -> None:
    def deliver(seed: int) -> list[str]:
        simulator = MultiMailSimulator(ManualClock(), seed=seed)
        box = simulator.add_mailbox("a@b.example")
        return [simulator.deliver(box, SENDER, "s", "m") for _ in range(20)]

    ids = deliver(1)
    assert ids == deliver(1) != deliver(2)
    assert ids != sorted(ids)


def test_mail_opened_by_a_human_is_no_longer_unread(service: Service) -> None:
    email_id = service.deliver()
    service.simulator.mark_read(email_id)
    assert service.ids(status="unread") == []


# Faults

NO_ANSWER = requests.ConnectionError


@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        (cut(after_effect=False), NO_ANSWER),
        (cut(after_effect=True), NO_ANSWER),
        (cut_mid_body(), requests.exceptions.ChunkedEncodingError),
        (malformed_json(), requests.exceptions.JSONDecodeError),
        (answer_with(502, "<h1>Bad gateway</h1>", after_effect=True), requests.HTTPError),
        (answer_with(500), requests.HTTPError),
    ],
    ids=lambda value: f"{value.name} {value.after_effect}" if isinstance(value, Fault) else "",
)
def test_a_fault_spoils_the_answer_and_has_its_effect_or_not(
    service: Service, fault: Fault, raised: type[Exception]
) -> None:
    path = f"/v1/mailboxes/box/reply/{service.deliver()}"
    service.simulator.fault = in_order(fault)
    with pytest.raises(raised):
        _read_answer(lambda: service.raw("POST", path, {"markdown": "x", "idempotency_key": "k"}))

    assert len(service.simulator.accepted) == int(fault.after_effect)
    assert service.simulator.requests[0].fault is fault
    assert (service.simulator.requests[0].status is None) is fault.silent
    assert (service.simulator.requests[0].effect != "") is fault.after_effect
    expected = 200 if fault.after_effect else 202
    assert service.raw("POST", path, {"markdown": "x", "idempotency_key": "k"}).status_code == expected


def _read_answer(call: Callable[[], requests.Response]) -> object:
    response = call()
    response.raise_for_status()
    return response.json()


@pytest.mark.parametrize("after_effect", [False, True])
def test_a_hanging_call_outlasts_the_clients_patience_and_ends_when_released(
    service: Service, after_effect: bool
) -> None:
    release = threading.Event()
    service.simulator.fault = in_order(hang(after_effect=after_effect, release=release))
    path = f"/v1/mailboxes/box/reply/{service.deliver()}"
    with pytest.raises(requests.ReadTimeout):
        service.raw("POST", path, {"markdown": "x"}, timeout=0.2)
    release.set()
    assert len(service.simulator.accepted) == int(after_effect)

    released = hang(after_effect=after_effect, release=release)
    service.simulator.fault = in_order(released)
    with pytest.raises(NO_ANSWER):
        service.raw("POST", path, {"markdown": "y"})


def test_a_hang_ends_at_its_bound(service: Service) -> None:
    service.simulator.fault = in_order(hang(after_effect=False, bound_seconds=0.01))
    with pytest.raises(NO_ANSWER):
        service.raw("GET", "/v1/account")


def test_the_three_shapes_of_429_can_be_scripted_and_have_no_effect(service: Service) -> None:
    service.simulator.fault = in_order(rate_limited(7), quota_exhausted(), warming_up(stage=2))
    path = f"/v1/mailboxes/box/reply/{service.deliver()}"
    rate, quota, warmup = (service.raw("POST", path, {"markdown": "x"}) for _ in range(3))

    assert {answer.status_code for answer in (rate, quota, warmup)} == {429}
    assert rate.headers["Retry-After"] == "7"
    assert "quota" in quota.json()["error"]
    assert warmup.json().keys() == {"error", "warmup_stage", "daily_sent", "daily_limit", "hint"}
    assert service.simulator.accepted == []


def test_faults_in_order_meet_only_the_calls_that_match(service: Service) -> None:
    service.simulator.fault = in_order(
        None, answer_with(500), matching=lambda method, path: (method, path) == ("GET", "/v1/account")
    )
    paths = ("/v1/account", "/v1/mailboxes", "/v1/account", "/v1/account")
    assert [service.raw("GET", path).status_code for path in paths] == [200, 200, 500, 200]


def test_a_fault_can_be_chosen_by_the_calls_number(service: Service) -> None:
    service.simulator.fault = lambda _method, _path, number: answer_with(500) if number == 2 else None
    assert [service.raw("GET", "/v1/account").status_code for _ in range(3)] == [200, 500, 200]


def test_a_faulty_call_does_not_disturb_the_next_one_on_its_connection(service: Service) -> None:
    service.simulator.fault = in_order(answer_with(500))
    assert service.raw("POST", "/v1/mailboxes/box/send", _new_email()).status_code == 500
    assert service.raw("POST", "/v1/mailboxes/box/send", _new_email()).status_code == 202


@pytest.mark.parametrize(
    ("matching", "missing"), [(is_about_an_email, ""), (is_about_a_thread, "thread"), (is_about_tags, "tags")]
)
def test_what_is_missing_for_a_while_is_there_again(
    service: Service, matching: Callable[[str, str], bool], missing: str
) -> None:
    email_id = service.deliver(thread_id="th_one")
    box = "/v1/mailboxes/box"
    paths = {
        "": f"{box}/emails/{email_id}", "tags": f"{box}/emails/{email_id}/tags", "thread": f"{box}/threads/th_one",
    }  # fmt: skip
    end = service.clock.now + timedelta(minutes=2)
    service.simulator.fault = until(end, service.clock, always(not_found(), matching=matching))

    statuses = {name: service.raw("GET", path).status_code for name, path in paths.items()}
    assert statuses == {name: 404 if name == missing else 200 for name in paths}
    assert email_id in service.ids()
    service.clock.advance(minutes=2)
    assert {service.raw("GET", path).status_code for path in paths.values()} == {200}


def test_the_key_of_another_account_shows_nothing_of_ours(service: Service) -> None:
    email_id = service.deliver()
    service.simulator.fault = another_account

    assert [box["id"] for box in service.call("GET", "/v1/mailboxes")["mailboxes"]] == [FOREIGN.id]
    assert service.page(FOREIGN.id)["emails"] == []
    for path in ("emails", f"emails/{email_id}", f"emails/{email_id}/tags", "allowlist"):
        service.call("GET", f"/v1/mailboxes/box/{path}", expect=404)
    service.reply(email_id, expect=404)
    assert service.simulator.accepted == []


def test_a_mailbox_that_was_removed_is_as_it_was_when_it_is_put_back(service: Service) -> None:
    email_id = service.deliver()
    service.simulator.allow("box", "*@partner.example")
    mailbox = service.simulator.remove_mailbox("box")

    assert service.call("GET", "/v1/mailboxes")["mailboxes"] == []
    service.call("GET", f"/v1/mailboxes/box/emails/{email_id}", expect=404)
    service.call("GET", "/v1/mailboxes/box/emails", expect=404)
    service.simulator.put_back(mailbox)
    assert service.ids() == [email_id]
    assert service.call("GET", "/v1/mailboxes/box/allowlist")["count"] == 1


def test_an_email_that_a_person_erased_is_nowhere(service: Service) -> None:
    first, second = service.deliver(thread_id="th_one"), service.deliver(thread_id="th_one")
    reply = service.reply(first)["id"]
    service.simulator.erase(first)
    service.simulator.erase(reply)
    service.clock.advance(seconds=5)  # the scan of the reply would be over

    assert service.ids() == [second]
    assert service.ids(status="unread") == [second]
    service.call("GET", f"/v1/mailboxes/box/emails/{first}", expect=404)
    thread = service.call("GET", "/v1/mailboxes/box/threads/th_one")
    assert [email["id"] for email in thread["emails"]] == [second]
    assert service.simulator.find_email(first) is None
    assert service.simulator.list_awaiting_decision() == []


def test_an_email_that_a_person_put_away_waits_for_nothing_and_can_be_read(service: Service) -> None:
    archived, deleted = service.deliver(), service.deliver(status="pending_inbound_approval")
    service.simulator.archive(archived)
    service.simulator.delete(deleted)

    assert service.simulator.list_awaiting_decision() == []
    assert service.ids(status="unread") == []
    assert [service.read(email_id)["status"] for email_id in (archived, deleted)] == ["archived", "deleted"]
