"""The ledger's dataclasses as flat rows of plain values, field by field: a new field needs no line here."""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from functools import cache
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")

MAX_LIST_CHARACTERS = 15_000  # a value of Table Storage has 32,000 and a row 252 values
VERSION = "version"  # a field of this name is the store's ETag and is not stored


def to_row(value: Any) -> dict[str, str | int]:
    """Every field of a dataclass that is set, as text or number.

    Stores limit a value's length and how many a row has. So a dataclass within the dataclass has a value for
    each field (`draft__reply_markdown`), and a tuple of dataclasses as few as hold it (`rejections__1`).
    """
    row: dict[str, str | int] = {}
    for field in fields(value):
        inner = getattr(value, field.name)
        if is_dataclass(inner):
            row |= {f"{field.name}__{key}": part for key, part in to_row(inner).items()}
        elif isinstance(inner, tuple) and inner and is_dataclass(inner[0]):
            # JSON lists, each of as many of the items as fit into a value.
            lists: list[list[str]] = [[]]
            for item in map(to_json, inner):
                if lists[-1] and sum(map(len, lists[-1])) + len(item) > MAX_LIST_CHARACTERS:
                    lists.append([])
                lists[-1].append(item)
            row |= {f"{field.name}__{n}": f"[{','.join(items)}]" for n, items in enumerate(lists, 1)}
        elif inner is not None and field.name != VERSION:
            is_plain = type(inner) is int or isinstance(inner, str | datetime)
            row[field.name] = _to_plain(inner) if is_plain else to_json(inner)
    return row


def from_row(kind: Callable[..., T], row: Mapping[str, Any]) -> T:
    """Read back what `to_row` made of a `kind`. Names without a field are left alone: a newer version's."""
    values: dict[str, Any] = {}
    for name, (inner, is_optional) in _hints(kind).items():
        parts = {key.removeprefix(f"{name}__"): row[key] for key in row if key.startswith(f"{name}__")}
        if name in row:
            is_plain = inner is int or (isinstance(inner, type) and issubclass(inner, str | datetime))
            values[name] = from_plain(inner, row[name] if is_plain else json.loads(row[name]))
        elif parts and get_origin(inner) is tuple:
            items = [item for key in sorted(parts, key=int) for item in json.loads(parts[key])]
            values[name] = from_plain(inner, items)
        elif parts:
            values[name] = from_row(inner, parts)
        elif is_optional:
            values[name] = None
    return kind(**values)


def to_json(value: Any) -> str:
    """A dataclass, or what JSON knows with dataclasses in it, as JSON."""
    return json.dumps(
        value, default=_to_plain, ensure_ascii=False
    )  # escapes make some texts six times as long


def _to_plain(value: Any) -> Any:
    if isinstance(value, datetime):
        # Of one width, so that texts sort as the moments do.
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return str.__str__(value) if isinstance(value, str) else value


def from_plain(kind: Any, value: Any) -> Any:
    """Give what JSON has for a value its type back. Raises TypeError or ValueError for another form."""
    if value is None:
        return None
    if get_origin(kind) is tuple:
        return tuple(from_plain(get_args(kind)[0], item) for item in value)
    if isinstance(value, dict):
        known = {name: inner for name, (inner, _) in _hints(kind).items() if name in value}
        return kind(**{name: from_plain(inner, value[name]) for name, inner in known.items()})
    if kind is datetime:
        return datetime.fromisoformat(value)
    return kind(value) if isinstance(kind, type) and issubclass(kind, str) else value


@cache
def _hints(kind: Any) -> Mapping[str, tuple[Any, bool]]:
    """By field, its type without None, and whether it may be None."""
    hints = {}
    for name, hint in get_type_hints(kind).items():
        kinds = [inner for inner in get_args(hint) if inner is not NoneType]
        is_optional = NoneType in get_args(hint)
        hints[name] = (kinds[0] if is_optional else hint, is_optional)
    return hints
