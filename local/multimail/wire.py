"""Reads the requests of the MultiMail API and writes its answers, as the contract spells them."""

import binascii
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from urllib.parse import quote

from local.multimail.emails import (
    STATUSES,
    AllowlistEntry,
    Attachment,
    AuditEntry,
    Contact,
    Listing,
    Outgoing,
    Position,
    Refusal,
    StoredEmail,
    StoredMailbox,
    Webhook,
    epoch_ms,
)

Json = dict[str, object]

MAX_SUBJECT, MAX_MARKDOWN, MAX_RECIPIENTS, MAX_PAGE = 998, 262_144, 50, 100
INLINE_ATTACHMENT_BYTES = 50 * 1024
REPLY_FIELDS = frozenset({"markdown", "cc", "bcc", "attachments", "idempotency_key"})
SEND_FIELDS = REPLY_FIELDS | {"to", "subject", "send_at", "gate_timing"}
LISTING_PARAMETERS = frozenset(
    {"status", "limit", "cursor", "sender", "subject_contains", "date_after", "date_before"}
    | {"direction", "has_attachments", "since_id"}
)
EVENTS = frozenset(
    {f"message.{what}" for what in ("received", "sent", "delivered", "bounced", "complained")}
    | {f"oversight.{what}" for what in ("pending", "approved", "rejected")}
    | {"email.received"}
)
_ADDRESS = re.compile(r"[^@\s<>,]+@[^@\s<>,]+")
_CURSOR = re.compile(r"(\d{1,15})(?:\.(\d{1,15}))?")


def parse_body(raw: bytes, known: frozenset[str]) -> Json:
    """Read a request's JSON object. Raises Refusal 400.

    A field that the contract does not know is refused: the service may ignore it, but a misspelt
    `idempotency_key` must not pass a test.
    """
    try:
        body = json.loads(raw)
    except ValueError:
        raise bad_request("the body must be JSON") from None
    if not isinstance(body, dict):
        raise bad_request("the body must be a JSON object")
    _only_known(body, known)
    return body


def parse_reply(body: Json) -> Outgoing:
    """Read what a reply asks for. Raises Refusal 400 outside the contract's limits."""
    key = body.get("idempotency_key")
    outgoing = Outgoing(
        markdown=parse_text(body, "markdown", MAX_MARKDOWN),
        cc=_parse_addresses(body, "cc"),
        bcc=_parse_addresses(body, "bcc"),
        attachments=_parse_attachments(body.get("attachments", [])),
        idempotency_key=None if key is None else parse_text(body, "idempotency_key"),
    )
    if len(outgoing.recipients) > MAX_RECIPIENTS:
        raise bad_request(f"at most {MAX_RECIPIENTS} recipients")
    return outgoing


def parse_send(body: Json) -> Outgoing:
    """Read what a new email asks for. Raises Refusal 400 outside the contract's limits."""
    send_at, timing = body.get("send_at"), body.get("gate_timing", "gate_first")
    if timing not in ("gate_first", "schedule_first"):
        raise bad_request("gate_timing must be gate_first or schedule_first")
    if send_at is not None and not (isinstance(send_at, str) and send_at.endswith("Z")):
        raise bad_request("send_at must be ISO 8601 in UTC and end with Z")
    outgoing = replace(
        parse_reply(body),
        to=_parse_addresses(body, "to"),
        subject=parse_text(body, "subject", MAX_SUBJECT),
        send_at=_parse_moment("send_at", send_at) if isinstance(send_at, str) else None,
        schedule_first=send_at is not None and timing == "schedule_first",
    )
    if not outgoing.to or len(outgoing.recipients) > MAX_RECIPIENTS:
        raise bad_request(f"to needs at least one address; at most {MAX_RECIPIENTS} recipients")
    return outgoing


def parse_tags(body: Json) -> dict[str, str]:
    """Read a tag map. Raises Refusal 400."""
    tags = body.get("tags")
    if not isinstance(tags, dict) or not all(isinstance(value, str) for value in tags.values()):
        raise bad_request("tags must be an object with texts as values")
    return tags


def parse_text(body: Json, name: str, limit: int | None = None) -> str:
    """Read a text that must be there. Raises Refusal 400."""
    value = body.get(name)
    if not isinstance(value, str) or (limit is not None and len(value) > limit):
        raise bad_request(f"{name} must be a text{f' of at most {limit} characters' if limit else ''}")
    return value


def parse_events(body: Json) -> list[str]:
    """Read the events of a webhook subscription. Raises Refusal 400."""
    events = body.get("events")
    if not isinstance(events, list) or not events or not all(event in EVENTS for event in events):
        raise bad_request(f"events must be a list of some of {', '.join(sorted(EVENTS))}")
    return events


def parse_listing(query: Mapping[str, str], comparison: str) -> Listing:
    """Read the filters of a listing. Raises Refusal 400, also for a parameter it does not know.

    `comparison` says how a cursor is understood: "exact", or in whole seconds by "<" or "<=".
    """
    _only_known(query, LISTING_PARAMETERS)
    attachments = _one_of(query, "has_attachments", ("true", "false"))
    after, before = query.get("date_after"), query.get("date_before")
    return Listing(
        status=_one_of(query, "status", STATUSES),
        limit=parse_limit(query, default=20),
        before=_parse_cursor(query["cursor"], comparison) if "cursor" in query else None,
        sender=query.get("sender", ""),
        subject_contains=query.get("subject_contains", ""),
        date_after=_parse_moment("date_after", after) if after is not None else None,
        date_before=_parse_moment("date_before", before) if before is not None else None,
        direction=_one_of(query, "direction", ("inbound", "outbound")),
        has_attachments=None if attachments is None else attachments == "true",
        since_id=query.get("since_id"),
    )


def parse_limit(query: Mapping[str, str], default: int) -> int:
    """Read a page size from 1 to 100. Raises Refusal 400."""
    text = query.get("limit", str(default))
    if not re.fullmatch("[0-9]{1,3}", text) or not 1 <= int(text) <= MAX_PAGE:
        raise bad_request(f"limit must be from 1 to {MAX_PAGE}")
    return int(text)


def bad_request(error: str) -> Refusal:
    """Build the refusal of a malformed request."""
    return Refusal(HTTPStatus.BAD_REQUEST, error)


def render_cursor(position: Position | None, comparison: str) -> str | None:
    """Write where a page ended: its last email's received_at as epoch; if "exact", what breaks a tie too."""
    if position is None:
        return None
    return f"{position[0]}.{position[1]}" if comparison == "exact" else str(position[0] // 1000)


def render_summary(email: StoredEmail) -> Json:
    """Write an email as a listing shows it."""
    return {
        **render_thread_item(email),
        "spam_score": None,
        "spam_verdict": email.spam_verdict,
        "thread_id": email.thread_id,
        "bounce_type": _bounce_type(email),
    }


def render_thread_item(email: StoredEmail) -> Json:
    """Write an email as a thread shows it."""
    return {
        "id": email.id,
        "from": email.sender,
        "to": email.to,
        "subject": email.subject,
        "direction": email.direction,
        "status": email.status,
        "received_at": _render_moment(email.received_at),
        "has_attachments": bool(email.attachments),
        "delivered_at": _render_moment(email.delivered_at),
        "bounced_at": _render_moment(email.bounced_at),
    }


def render_email(email: StoredEmail) -> Json:
    """Write a full email; one that is held back keeps its body and files to itself."""
    summary = render_summary(email)
    del summary["direction"]  # the contract lists none here
    files = () if email.held_back else email.attachments
    return {
        **summary,
        "cc": email.cc,
        "markdown": "" if email.held_back else email.markdown,
        "attachments": [
            {"name": file.name, "size": len(file.content), "content_type": file.content_type}
            for file in files
        ],
        "approved_at": _render_moment(email.approved_at),
        "approved_by": email.approved_by,
        "tags": email.tags,
        **({"headers": email.headers} if email.headers else {}),
    }


def render_attachment(email: StoredEmail, filename: str, files_url: str) -> Json:
    """Write one attachment: inline under 50 KB, otherwise its address. Raises Refusal 404."""
    file = find_attachment(email, filename)
    answer: Json = {"name": file.name, "content_type": file.content_type, "size": len(file.content)}
    if len(file.content) < INLINE_ATTACHMENT_BYTES:
        return answer | {"content_base64": b64encode(file.content).decode()}
    return answer | {"url": f"{files_url}/files/{email.id}/{quote(filename, safe='')}"}


def find_attachment(email: StoredEmail, filename: str) -> Attachment:
    """The first attachment of a name. Raises Refusal 404."""
    files = () if email.held_back else email.attachments
    file = next((file for file in files if file.name == filename), None)
    if file is None:
        raise Refusal(HTTPStatus.NOT_FOUND, f"Email {email.id} has no attachment of that name")
    return file


def render_thread(thread_id: str, emails: Sequence[StoredEmail]) -> Json:
    """Write a thread. An inbound email is unanswered while nothing that left the mailbox is newer."""
    inbound = [email.position for email in emails if email.direction == "inbound"]
    left = [email.position for email in emails if email.direction == "outbound" and email.delivered_at]
    return {
        "thread_id": thread_id,
        "message_count": len(emails),
        "participants": sorted({address for email in emails for address in (email.sender, *email.to)}),
        "last_activity": _render_moment(emails[-1].received_at),
        "has_unanswered_inbound": bool(inbound) and max(inbound) > max(left, default=(0, 0)),
        "emails": [render_thread_item(email) for email in emails],
    }


def render_pending(email: StoredEmail) -> Json:
    """Write an email for the human who decides about it, body included."""
    item = render_thread_item(email)
    shown = ("id", "direction", "from", "to", "subject", "status", "received_at")
    body = {"mailbox_id": email.mailbox_id, "body_markdown": email.markdown}
    return {name: item[name] for name in shown} | body


def render_mailbox(mailbox: StoredMailbox, operator_address: str) -> Json:
    """Write a mailbox."""
    return {
        "id": mailbox.id,
        "tenant_id": "tn_simulated",
        "address": mailbox.address,
        "display_name": mailbox.display_name,
        "oversight_mode": mailbox.mode,
        "auto_cc": operator_address if mailbox.mode == "monitored" else mailbox.auto_cc,
        "auto_bcc": mailbox.auto_bcc,
        "forward_inbound": 0,
        "webhook_url": None,
        "oversight_webhook_url": None,
        "signature_block": mailbox.signature_block,
        "created_at": epoch_ms(mailbox.created_at),
        "is_active": int(mailbox.is_active),
    }


def render_allowlist(mailbox: StoredMailbox) -> Json:
    """Write a mailbox's sending allowlist."""
    entries = [_render_allowlist_entry(entry) for entry in mailbox.allowlist]
    return {"mailbox_id": mailbox.id, "count": len(entries), "entries": entries}


def render_contact(contact: Contact) -> Json:
    """Write an entry of the address book."""
    return {
        "id": contact.id,
        "name": contact.name,
        "email": contact.email,
        "tags": contact.tags,
        "created_at": epoch_ms(contact.created_at),
    }


def render_webhook(webhook: Webhook) -> Json:
    """Write a new subscription, with the secret that is shown only now."""
    return {
        "id": webhook.id,
        "url": webhook.url,
        "events": webhook.events,
        "mailbox_id": webhook.mailbox_id,
        "signing_secret": webhook.signing_secret,
        "created_at": _render_moment(webhook.created_at),
    }


def render_event(name: str, email: StoredEmail, at: datetime, *, names_mailbox: bool) -> Json:
    """Write the body of a webhook. The service does not always say which mailbox it is about."""
    return {
        "event": name,
        "timestamp": _render_moment(at),
        "data": ({"mailbox_id": email.mailbox_id} if names_mailbox else {})
        | {
            "email_id": email.id,
            "from": email.sender,
            "to": list(email.to),
            "subject": email.subject,
            "direction": email.direction,
            "has_attachments": bool(email.attachments),
        },
    }


def render_audit_page(entries: Sequence[AuditEntry], query: Mapping[str, str]) -> Json:
    """Write one page of the audit log, newest first. Raises Refusal 400."""
    _only_known(query, frozenset({"limit", "cursor"}))
    limit, cursor = parse_limit(query, default=50), query.get("cursor", str(len(entries)))
    if not re.fullmatch("[0-9]{1,15}", cursor):
        raise bad_request("cursor must come from a previous page")
    end = min(int(cursor), len(entries))
    start = max(0, end - limit)
    page = [_render_audit_entry(entry) for entry in reversed(entries[start:end])]
    return {"cursor": str(start) if start else None, "entries": page}


def _render_allowlist_entry(entry: AllowlistEntry) -> Json:
    added_at = epoch_ms(entry.added_at)
    return {
        "id": entry.id,
        "pattern": entry.pattern,
        "added_by": "operator",
        "added_at": added_at,
        "note": None,
    }


def _render_audit_entry(entry: AuditEntry) -> Json:
    return {
        "id": entry.id,
        "action": entry.action,
        "resource_type": entry.resource_type,
        "resource_id": entry.resource_id,
        "actor_key_id": entry.actor_key_id,
        "metadata": None,
        "created_at": _render_moment(entry.created_at),
    }


def _render_moment(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z") if moment else None


def _bounce_type(email: StoredEmail) -> str | None:
    return "hard" if email.bounced_at else None


def _only_known(given: Mapping[str, object], known: frozenset[str]) -> None:
    unknown = sorted(set(given) - known)
    if unknown:
        raise bad_request(f"unknown: {', '.join(unknown)}; the contract has {', '.join(sorted(known))}")


def _one_of(query: Mapping[str, str], name: str, choices: Sequence[str]) -> str | None:
    value = query.get(name)
    if value is not None and value not in choices:
        raise bad_request(f"{name} must be one of {', '.join(choices)}")
    return value


def _parse_moment(name: str, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise bad_request(f"{name} must be ISO 8601") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _parse_cursor(text: str, comparison: str) -> Position:
    match = _CURSOR.fullmatch(text)
    if match is None or (match[2] is None) != (comparison != "exact"):
        raise bad_request("cursor must come from a previous page")
    if match[2] is not None:
        return int(match[1]), int(match[2])
    return (int(match[1]) + (comparison == "<=")) * 1000, 0


def _parse_addresses(body: Json, name: str) -> tuple[str, ...]:
    value = body.get(name, [])
    if not isinstance(value, list) or not all(isinstance(a, str) and _ADDRESS.fullmatch(a) for a in value):
        raise bad_request(f"{name} must be a list of email addresses")
    return tuple(value)


def _parse_attachments(value: object) -> tuple[Attachment, ...]:
    if not isinstance(value, list):
        raise bad_request("attachments must be a list")
    return tuple(_parse_attachment(item) for item in value)


def _parse_attachment(item: object) -> Attachment:
    if not isinstance(item, dict):
        raise bad_request("an attachment must be an object")
    name, kind = parse_text(item, "name"), parse_text(item, "content_type")
    try:
        return Attachment(name, kind, b64decode(parse_text(item, "content_base64"), validate=True))
    except binascii.Error:
        raise bad_request("content_base64 must be base64") from None
