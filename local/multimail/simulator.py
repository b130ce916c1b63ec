"""The MultiMail API over HTTP, backed by a simulated account: the one double for tests and demo."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Literal

from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException, NotFound

from local.multimail.emails import PENDING_SCAN, Refusal, StoredEmail
from local.multimail.faults import Fault, FaultSource, no_fault
from local.multimail.state import OPERATOR_ADDRESS, MultiMailAccount
from local.multimail.webhooks import WebhookSender
from local.multimail.wire import (
    REPLY_FIELDS,
    SEND_FIELDS,
    Json,
    bad_request,
    find_attachment,
    parse_body,
    parse_events,
    parse_listing,
    parse_reply,
    parse_send,
    parse_tags,
    parse_text,
    render_allowlist,
    render_attachment,
    render_audit_page,
    render_contact,
    render_cursor,
    render_email,
    render_event,
    render_mailbox,
    render_pending,
    render_summary,
    render_thread,
    render_webhook,
)

_ALIASES = {"message.received": ("message.received", "email.received")}


@dataclass(slots=True)
class RequestRecord:
    """One request as the simulator saw it.

    `body` is the parsed JSON, None when there was none. `status` is what the client was answered, None
    when it got no answer. `effect` says in words what changed, "" when nothing did.
    """

    number: int
    at: datetime
    key_id: str | None
    method: str
    path: str
    query: dict[str, str]
    body: object
    fault: Fault | None = None
    status: int | None = None
    effect: str = ""


@dataclass(frozen=True, slots=True)
class _Answer:
    body: Json
    status: HTTPStatus = HTTPStatus.OK
    effect: str = ""


class MultiMailSimulator(MultiMailAccount):
    """A simulated account that is served as `app`.

    `requests` logs every call, refused and spoilt ones included. `fault` decides which calls go
    wrong and how; set it at any time. `webhook_sender` delivers events to the subscribers,
    with the mailbox's id as long as `events_name_mailbox`. A listing's cursor is "exact" by `cursors`,
    or a whole second that is compared by "<" or by "<=": the contract leaves it open. Larger attachments are
    served under /files without a key; `files_url` is the https root that leads there.
    """

    def __init__(
        self,
        clock: Callable[[], datetime],
        *,
        scan_seconds: float = 0,
        plan: str = "pro",
        seed: int = 0,
    ) -> None:
        super().__init__(clock, scan_seconds=scan_seconds, plan=plan, seed=seed)
        self.requests: list[RequestRecord] = []
        self.fault: FaultSource = no_fault
        self.webhook_sender = WebhookSender()
        self.events_name_mailbox = True
        self.files_url = "https://attachments.example.com"
        self.cursors: Literal["exact", "<", "<="] = "exact"
        self.on_event = self._send_event
        self.app = self._build_app()

    def _build_app(self) -> Flask:
        app = Flask("multimail_simulator", static_folder=None)
        app.before_request(self._begin)
        app.after_request(self._end)
        app.register_error_handler(HTTPException, _render_http_error)
        app.add_url_rule("/health", "health", lambda: jsonify(status="ok"))
        app.add_url_rule("/files/<email_id>/<path:filename>", "file", self._show_file)
        box = "/v1/mailboxes/<mailbox_id>"
        email = f"{box}/emails/<email_id>"
        for method, path, scope, handler in (
            ("GET", "/v1/account", "read", self._show_account),
            ("GET", "/v1/mailboxes", "read", self._show_mailboxes),
            ("GET", f"{box}/emails", "read", self._show_emails),
            ("GET", email, "read", self._show_email),
            ("GET", f"{email}/attachments/<path:filename>", "read", self._show_attachment),
            ("POST", f"{email}/cancel", "send", self._cancel),
            ("GET", f"{email}/tags", "read", self._show_tags),
            ("PUT", f"{email}/tags", "send", self._put_tags),
            ("DELETE", f"{email}/tags/<path:tag>", "send", self._delete_tag),
            ("GET", f"{box}/threads/<thread_id>", "read", self._show_thread),
            ("POST", f"{box}/send", "send", self._take_send),
            ("POST", f"{box}/reply/<email_id>", "send", self._take_reply),
            ("GET", f"{box}/allowlist", "read", self._show_allowlist),
            ("POST", f"{box}/request-upgrade", "send", self._take_upgrade_request),
            ("GET", "/v1/contacts", "read", self._show_contacts),
            ("GET", "/v1/oversight/pending", "oversight", self._show_pending),
            ("POST", "/v1/oversight/decide", "oversight", self._take_decision),
            ("POST", "/v1/webhooks", "admin", self._take_subscription),
            ("GET", "/v1/audit-log", "admin", self._show_audit_log),
        ):
            view = self._guarded(scope, handler)
            app.add_url_rule(path, f"{method} {path}", view, methods=[method])
        return app

    def _begin(self) -> Response | None:
        with self.lock:
            record = RequestRecord(
                number=len(self.requests) + 1,
                at=self.now(),
                key_id=self.find_key_id(_bearer_token()),
                method=request.method,
                path=request.path,
                query=request.args.to_dict(),
                body=_read_json(request.get_data()),
            )
            record.fault = self.fault(record.method, record.path, record.number)
            self.requests.append(record)
        g.record = record
        if record.fault is not None and not record.fault.after_effect:
            return record.fault.spoil(None)
        return None

    def _end(self, answer: Response) -> Response:
        record: RequestRecord = g.record
        if record.fault is not None and record.fault.after_effect:
            answer = record.fault.spoil(answer)
        if record.fault is None or not record.fault.silent:
            record.status = answer.status_code
        return answer

    def _guarded(self, scope: str, handler: Callable[..., _Answer]) -> Callable[..., Response]:
        def view(**ids: str) -> Response:
            try:
                with self.lock:
                    g.actor = self.authenticate(_bearer_token(), scope).id
                    answer = handler(**ids)
            except Refusal as refusal:
                return _render_refusal(refusal)
            g.record.effect = answer.effect
            response = jsonify(answer.body)
            response.status_code = answer.status
            return response

        return view

    def _show_account(self) -> _Answer:
        return _Answer(
            {
                "id": "tn_simulated",
                "name": "Simulated account",
                "slug": "simulated",
                "plan": self.plan,
                "oversight_email": OPERATOR_ADDRESS,
                "physical_address": None,
                "monthly_email_quota": self.monthly_quota,
                "emails_sent_this_month": self.count_sent_this_month(),
                "max_mailboxes": self.max_mailboxes,
                "storage_used_bytes": self.storage_used_bytes,
                "max_storage_bytes": 10**10,
                "is_active": True,
                "sending_disabled": False,
                "sending_disabled_reason": None,
            }
        )

    def _show_mailboxes(self) -> _Answer:
        return _Answer({"mailboxes": [render_mailbox(m, OPERATOR_ADDRESS) for m in self.mailboxes.values()]})

    def _show_emails(self, mailbox_id: str) -> _Answer:
        page, more = self.list_emails(mailbox_id, parse_listing(request.args, self.cursors))
        cursor = render_cursor(more, self.cursors)
        return _Answer({"emails": [render_summary(email) for email in page], "cursor": cursor})

    def _show_email(self, mailbox_id: str, email_id: str) -> _Answer:
        email, opened = self.open_email(mailbox_id, email_id)
        return _Answer(render_email(email), effect=f"marked {email_id} as read" if opened else "")

    def _show_attachment(self, mailbox_id: str, email_id: str, filename: str) -> _Answer:
        return _Answer(render_attachment(self.get_email(mailbox_id, email_id), filename, self.files_url))

    def _show_file(self, email_id: str, filename: str) -> Response:
        """A file as its signed address gives it: without a key."""
        email = self.find_email(email_id)
        if email is None:
            raise NotFound
        return Response(find_attachment(email, filename).content, content_type="application/octet-stream")

    def _cancel(self, mailbox_id: str, email_id: str) -> _Answer:
        cancelled = self.cancel(mailbox_id, email_id, g.actor)
        body: Json = {"id": email_id, "status": "cancelled"}
        return _Answer(body, effect=f"cancelled {email_id}" if cancelled else "")

    def _show_tags(self, mailbox_id: str, email_id: str) -> _Answer:
        return _Answer({"tags": self.get_email(mailbox_id, email_id).tags})

    def _put_tags(self, mailbox_id: str, email_id: str) -> _Answer:
        tags = parse_tags(parse_body(request.get_data(), frozenset({"tags"})))
        self.set_tags(mailbox_id, email_id, tags, g.actor)
        return _Answer({"tags": tags}, effect=f"tagged {email_id}")

    def _delete_tag(self, mailbox_id: str, email_id: str, tag: str) -> _Answer:
        deleted = self.delete_tag(mailbox_id, email_id, tag, g.actor)
        return _Answer({"deleted": deleted}, effect=f"untagged {email_id}" if deleted else "")

    def _show_thread(self, mailbox_id: str, thread_id: str) -> _Answer:
        return _Answer(render_thread(thread_id, self.get_thread(mailbox_id, thread_id)))

    def _take_send(self, mailbox_id: str) -> _Answer:
        outgoing = parse_send(parse_body(request.get_data(), SEND_FIELDS))
        return _answer_submission(*self.send(mailbox_id, outgoing, g.actor))

    def _take_reply(self, mailbox_id: str, email_id: str) -> _Answer:
        outgoing = parse_reply(parse_body(request.get_data(), REPLY_FIELDS))
        return _answer_submission(*self.reply(mailbox_id, email_id, outgoing, g.actor))

    def _show_allowlist(self, mailbox_id: str) -> _Answer:
        return _Answer(render_allowlist(self.get_mailbox(mailbox_id)))

    def _take_upgrade_request(self, mailbox_id: str) -> _Answer:
        body = parse_body(request.get_data(), frozenset({"target_mode"}))
        mode = parse_text(body, "target_mode")
        self.request_upgrade(mailbox_id, mode, g.actor)
        return _Answer({"message": "Code sent to the operator"}, effect=f"asked for {mode}")

    def _show_contacts(self) -> _Answer:
        wanted = request.args.get("q", "").lower()
        found = [c for c in self.contacts if wanted in c.name.lower() or wanted in c.email.lower()]
        return _Answer({"contacts": [render_contact(contact) for contact in found]})

    def _show_pending(self) -> _Answer:
        return _Answer({"emails": [render_pending(email) for email in self.list_awaiting_decision()]})

    def _take_decision(self) -> _Answer:
        body = parse_body(request.get_data(), frozenset({"email_id", "action"}))
        email_id, action = parse_text(body, "email_id"), parse_text(body, "action")
        if action not in ("approve", "reject"):
            raise bad_request("action must be approve or reject")
        status = self.decide(email_id, action, g.actor)
        return _Answer({"status": status}, effect=f"{status} {email_id}")

    def _take_subscription(self) -> _Answer:
        body = parse_body(request.get_data(), frozenset({"url", "events", "mailbox_id"}))
        url, events = parse_text(body, "url"), parse_events(body)
        if not url.startswith(("https://", "http://")):
            raise bad_request("url must be an http(s) address")
        mailbox_id = parse_text(body, "mailbox_id") if "mailbox_id" in body else None
        webhook = self.subscribe(url, events, mailbox_id, g.actor)
        return _Answer(render_webhook(webhook), HTTPStatus.CREATED, f"created {webhook.id}")

    def _show_audit_log(self) -> _Answer:
        return _Answer(render_audit_page(self.audit, request.args))

    def _send_event(self, name: str, email: StoredEmail) -> None:
        for webhook in self.webhooks:
            wanted = _ALIASES.get(name, (name,))
            told_as = next((event for event in wanted if event in webhook.events), None)
            if told_as is not None and webhook.mailbox_id in (None, email.mailbox_id):
                content = render_event(told_as, email, self.now(), names_mailbox=self.events_name_mailbox)
                self.webhook_sender.send(webhook, told_as, content)


def _answer_submission(email: StoredEmail, known: bool) -> _Answer:
    if known:
        return _Answer({"id": email.id, "status": "already_sent", "idempotent": True})
    body: Json = {
        "id": email.id,
        "status": PENDING_SCAN,
        "thread_id": email.thread_id,
        "message": "Queued: it is scanned first. Do not send it again.",
    }
    effect = f"accepted {email.id} to {', '.join(email.recipients)}"
    return _Answer(body, HTTPStatus.ACCEPTED, effect)


def _bearer_token() -> str:
    return request.headers.get("Authorization", "").removeprefix("Bearer ")


def _read_json(raw: bytes) -> object:
    try:
        return json.loads(raw)
    except ValueError:
        return None


def _render_refusal(refusal: Refusal) -> Response:
    response = jsonify(refusal.body)
    response.status_code = refusal.status
    response.headers.update(refusal.headers)
    return response


def _render_http_error(error: HTTPException) -> tuple[Response, int]:
    return jsonify(error=error.description), error.code or HTTPStatus.INTERNAL_SERVER_ERROR
