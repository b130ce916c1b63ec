"""A ledger row as flat plain values, which every store keeps: one column for each field of the dataclass."""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from itertools import count, takewhile
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from shared.domain import Draft, ModelText, Rejection
from shared.ledger.entries import LedgerEntry, TrackedReply

Row = dict[str, str | int]


def to_row(entry: LedgerEntry) -> Row:
    """Every field that is set, except `version`, which is the store's own.

    A draft's text and each rejection have a column to themselves: they are the longest values, and stores
    limit a value's length.
    """
    row = {field.name: _to_column(getattr(entry, field.name)) for field in fields(entry)}
    del row["version"], row["rejections"]
    row |= {f"rejection_{n}": _to_column(rejection) for n, rejection in enumerate(entry.rejections, 1)}
    if entry.draft is not None:
        row["draft_markdown"] = entry.draft.reply_markdown
        row["draft"] = _to_json({**_to_plain(entry.draft), "reply_markdown": ""})
    return {name: value for name, value in row.items() if value is not None}


def from_row(row: Mapping[str, Any], version: str) -> LedgerEntry:
    """Read back what `to_row` made; columns that are not known are left alone."""
    values = _read_columns(LedgerEntry, row)
    if "draft" in row:
        values["draft"] = _from_plain(
            Draft, json.loads(row["draft"]) | {"reply_markdown": row["draft_markdown"]}
        )
    texts = takewhile(bool, (row.get(f"rejection_{n}") for n in count(1)))
    values["rejections"] = tuple(_from_plain(Rejection, json.loads(str(text))) for text in texts)
    return LedgerEntry(**values | {"version": version})


def to_reply_row(reply: TrackedReply) -> Row:
    """Every field of a tracked reply that is set."""
    row = {field.name: _to_column(getattr(reply, field.name)) for field in fields(reply)}
    return {name: value for name, value in row.items() if value is not None}


def from_reply_row(row: Mapping[str, Any]) -> TrackedReply:
    """Read back what `to_reply_row` made; columns that are not known are left alone."""
    return TrackedReply(**_read_columns(TrackedReply, row))


def released(entry: LedgerEntry) -> LedgerEntry:
    """The entry without its lease."""
    return replace(entry, lease_until=None)


def finished(entry: LedgerEntry) -> LedgerEntry:
    """The entry without its lease. Raises ValueError when `finished_at` is missing: its row would be lost."""
    if entry.finished_at is None:
        raise ValueError(f"email {entry.email_id} of mailbox {entry.mailbox_id} has no finished_at")
    return released(entry)


def to_text(moment: datetime) -> str:
    """A moment in UTC as text of one width, so that texts sort as the moments do."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def to_moment(text: str) -> datetime:
    """Read back what `to_text` made."""
    return datetime.fromisoformat(text)


def _to_column(value: Any) -> str | int | None:
    plain = _to_plain(value)
    return plain if plain is None or isinstance(plain, str | int) else _to_json(plain)


def _read_columns(kind: type, row: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, hint in _hints(kind).items():
        column = row.get(name)
        if column is not None:
            values[name] = _from_plain(hint, json.loads(column) if _is_json(hint) else column)
        elif NoneType in get_args(hint):
            values[name] = None
    return values


def _to_json(plain: Any) -> str:
    return json.dumps(plain, ensure_ascii=False)


def _to_plain(value: Any) -> Any:
    """The value as JSON has it: moments and enums as texts, dataclasses as objects."""
    match value:
        case datetime():
            return to_text(value)
        case StrEnum():
            return value.value
        case ModelText():
            return value.text
        case tuple():
            return [_to_plain(item) for item in value]
        case _ if is_dataclass(value):
            return {field.name: _to_plain(getattr(value, field.name)) for field in fields(value)}
    return value


def _from_plain(kind: Any, plain: Any) -> Any:
    """Read back what `_to_plain` made of a value of this type."""
    if get_origin(kind) is UnionType:
        return None if plain is None else _from_plain(_without_none(kind), plain)
    if get_origin(kind) is tuple:
        return tuple(_from_plain(get_args(kind)[0], item) for item in plain)
    if kind is datetime:
        return to_moment(plain)
    if isinstance(plain, dict):
        hints = {name: hint for name, hint in _hints(kind).items() if name in plain}
        return kind(**{name: _from_plain(hint, plain[name]) for name, hint in hints.items()})
    return kind(plain)


def _is_json(kind: Any) -> bool:
    inner = _without_none(kind)
    return is_dataclass(inner) or get_origin(inner) is tuple


def _without_none(kind: Any) -> Any:
    return (
        next(part for part in get_args(kind) if part is not NoneType)
        if get_origin(kind) is UnionType
        else kind
    )


@cache
def _hints(kind: Any) -> Mapping[str, Any]:
    return get_type_hints(kind)
