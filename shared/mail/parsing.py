"""MultiMail's JSON read into domain values; what breaks the contract is an error that quotes none of it."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from email.parser import HeaderParser
from typing import Any

from shared.domain import Attachment, AuditLogEntry, Contact, Email, EmailSummary, Mailbox, SubmittedReply
from shared.mail.call import quote_id

log = logging.getLogger(__name__)


class UnreadableError(Exception):
    """What the service sent breaks its contract. The text names fields and ids, never other values."""


def parse_json(content: bytes) -> dict[str, Any]:
    """Read an answer's body, a JSON object. Raises UnreadableError, as every function here."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        # Not chained: these errors carry the text that they could not read.
        raise UnreadableError(f"{len(content)} bytes that are not JSON") from None
    return parse_object(value)


def parse_mailboxes(body: dict[str, Any]) -> tuple[Mailbox, ...]:
    """Read the list of mailboxes."""
    return tuple(
        Mailbox(
            id=_id(raw),
            address=parse_text(raw, "address"),
            oversight_mode=parse_text(raw, "oversight_mode"),
            is_active=bool(raw.get("is_active", True)),
            display_name=_find_text(raw, "display_name") or "",
            copies=tuple(copy for name in ("auto_cc", "auto_bcc") for copy in _find_texts(raw, name)),
        )
        for raw in parse_objects(body, "mailboxes")
    )


def parse_page(body: dict[str, Any]) -> tuple[list[Any], str]:
    """Read a page of a listing: its emails, for `parse_summary`, and the next page's cursor, "" at the end.

    The contract says that the cursor is a text; an epoch number reads as well.
    """
    cursor = body.get("cursor")
    if cursor is None or isinstance(cursor, str | int):
        return _list(body, "emails"), str(cursor or "")
    raise UnreadableError("cursor is not a text")


def parse_audit_page(body: dict[str, Any]) -> tuple[list[AuditLogEntry], str]:
    """Read a page of the account's audit log, and the next page's cursor, "" at the end."""
    entries = [
        AuditLogEntry(
            action=parse_text(raw, "action"),
            resource_id=parse_text(raw, "resource_id", ""),
            actor_key_id=parse_text(raw, "actor_key_id", ""),
            created_at=_time(raw, "created_at"),
        )
        for raw in parse_objects(body, "entries")
    ]
    return entries, _find_text(body, "cursor") or ""


def parse_thread(body: dict[str, Any], thread_id: str) -> tuple[EmailSummary, ...]:
    """Read the emails of a thread."""
    return tuple(parse_summary(raw, thread_id=thread_id) for raw in parse_objects(body, "emails"))


def parse_summary(raw: object, *, direction: str = "", thread_id: str | None = None) -> EmailSummary:
    """Read an email of a listing or a thread.

    Only its id and time are indispensable; what else is unreadable becomes an empty text (which
    the guard never answers), because an email is rather shown incomplete than lost. `direction`
    and `thread_id` are what was asked for, in case the email does not say.
    """
    fields = parse_object(raw)
    email_id = _id(fields)
    required = ("from", "subject", "direction", "status")
    wrong = [name for name in required if not isinstance(fields.get(name), str)]
    try:
        received_at = _time(fields, "received_at")
    except UnreadableError as error:
        raise UnreadableError(f"{error} in email {quote_id(email_id)}") from error
    if wrong:
        log.warning("email %s is listed without a readable %s", quote_id(email_id), ", ".join(wrong))
    return EmailSummary(
        id=email_id,
        sender=_find_text(fields, "from") or "",
        to=_find_texts(fields, "to"),
        subject=_find_text(fields, "subject") or "",
        direction=_find_text(fields, "direction") or direction,
        status=_find_text(fields, "status") or "",
        received_at=received_at,
        thread_id=_find_text(fields, "thread_id") or thread_id,
        spam_verdict=_find_text(fields, "spam_verdict"),
        delivered_at=_find_readable_time(fields, "delivered_at"),
        bounced_at=_find_readable_time(fields, "bounced_at"),
    )


def parse_email(raw: dict[str, Any]) -> Email:
    """Read a full email."""
    status = parse_text(raw, "status")
    unreleased = status == "pending_inbound_approval"  # has no body until a human lets it in
    attachments = parse_objects(raw, "attachments") if raw.get("attachments") else []
    tags = parse_object(raw.get("tags") or {})
    return Email(
        id=_id(raw),
        sender=parse_text(raw, "from", default=""),
        to=_find_texts(raw, "to"),
        cc=_find_texts(raw, "cc"),
        bcc=_find_texts(raw, "bcc"),
        subject=parse_text(raw, "subject", default=""),
        status=status,
        received_at=_time(raw, "received_at"),
        markdown=parse_text(raw, "markdown", default="" if unreleased else None),
        thread_id=_find_text(raw, "thread_id"),
        spam_verdict=_find_text(raw, "spam_verdict"),
        attachments=tuple(_parse_attachment(item) for item in attachments),
        tags={name: parse_text(tags, name) for name in tags},
        headers=_parse_headers(raw.get("headers")),
        approved_at=_find_time(raw, "approved_at"),
        delivered_at=_find_time(raw, "delivered_at"),
        bounced_at=_find_time(raw, "bounced_at"),
    )


def _parse_headers(value: object) -> dict[str, str]:
    """Read headers in whichever usual shape they are; what is none of them is left out.

    The contract promises no headers, so none of them may cost an email its reply.
    """
    headers: dict[str, list[str]] = {}
    for name, content in _list_headers(value):
        parts = content if isinstance(content, list) else [content]
        # An object stays as its JSON: an address in it is none that is read, and is no absent header.
        texts = [json.dumps(part) if isinstance(part, dict | list) and part else part for part in parts]
        headers.setdefault(_clean(name).strip().lower(), []).extend(
            " ".join(_clean(text).split()) for text in texts if isinstance(text, str)
        )
    return {name: ", ".join(texts) for name, texts in headers.items() if texts}


def _list_headers(value: object) -> Iterator[tuple[str, object]]:
    """The names and contents in an object, in the text of a header, or in a list of these, pairs or lines."""
    for item in value if isinstance(value, list) else [value]:
        match item:
            case str(line) | {"line": str(line)}:
                yield from HeaderParser().parsestr(_clean(line).lstrip()).items()
            case (
                [str(name), content]
                | {"name": str(name), "value": content}
                | {"key": str(name), "value": content}
            ):
                yield name, content
            case dict():
                yield from item.items()


def _parse_attachment(raw: dict[str, Any]) -> Attachment:
    size = raw.get("size")
    return Attachment(
        name=parse_text(raw, "name", default=""),
        content_type=_find_text(raw, "content_type") or "",
        size=size if isinstance(size, int) else 0,
    )


def parse_contacts(body: dict[str, Any]) -> tuple[Contact, ...]:
    """Read entries of the address book."""
    return tuple(
        Contact(
            name=parse_text(raw, "name", default=""),
            address=parse_text(raw, "email"),
            tags=_find_texts(raw, "tags"),
        )
        for raw in parse_objects(body, "contacts")
    )


def parse_submitted(raw: dict[str, Any], *, already_sent: bool) -> SubmittedReply:
    """Read the answer to a reply or a new email."""
    return SubmittedReply(_id(raw), parse_text(raw, "status", ""), already_sent)


def parse_allowlist(raw: dict[str, Any]) -> tuple[str, ...]:
    """Read the patterns; only a count of 0 may replace the list itself, because no list lets replies pass."""
    if "entries" not in raw and raw.get("count") == 0:
        return ()
    return tuple(parse_text(entry, "pattern") for entry in parse_objects(raw, "entries"))


def parse_tags(raw: dict[str, Any]) -> dict[str, str]:
    """Read an email's tags."""
    tags = parse_object(raw.get("tags"))
    return {name: parse_text(tags, name) for name in tags}


def parse_object(raw: object) -> dict[str, Any]:
    """The value as a JSON object."""
    if not isinstance(raw, dict):
        raise UnreadableError("something that is not a JSON object")
    return raw


def _list(raw: dict[str, Any], name: str) -> list[Any]:
    value = raw.get(name)
    if not isinstance(value, list):
        raise UnreadableError(f"{name} is not a list")
    return value


def parse_objects(raw: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The list of JSON objects called `name`."""
    return [parse_object(item) for item in _list(raw, name)]


def _id(raw: dict[str, Any]) -> str:
    value = parse_text(raw, "id")
    if not value:
        raise UnreadableError("id is empty")
    return value


def parse_text(raw: dict[str, Any], name: str, default: str | None = None) -> str:
    """The text called `name`; `default` replaces an absent or null one."""
    value = raw.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise UnreadableError(f"{name} is not a text")
    return _clean(value)


def _find_text(raw: dict[str, Any], name: str) -> str | None:
    value = raw.get(name)
    return _clean(value) if isinstance(value, str) else None


def _find_texts(raw: dict[str, Any], name: str) -> tuple[str, ...]:
    value = raw.get(name)
    items = value if isinstance(value, list) else [value]
    return tuple(_clean(item) for item in items if isinstance(item, str))


def _clean(value: str) -> str:
    """Replace lone surrogates, which JSON can carry and neither a store nor a model can encode."""
    return value.encode("utf-8", "replace").decode()


def _time(raw: dict[str, Any], name: str) -> datetime:
    try:
        moment = datetime.fromisoformat(parse_text(raw, name).upper())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UnreadableError(f"{name} is not a time") from None


def _find_time(raw: dict[str, Any], name: str) -> datetime | None:
    return None if raw.get(name) is None else _time(raw, name)


def _find_readable_time(raw: dict[str, Any], name: str) -> datetime | None:
    """The time called `name`, or None where a listing has none that can be read."""
    try:
        return _find_time(raw, name)
    except UnreadableError:
        return None
