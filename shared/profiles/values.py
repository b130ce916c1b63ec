"""The kinds of values in the profile file: each is read from a node of YAML's tree, and has a JSON Schema."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import yaml

NULL, TEXT_TAG, DATE_TAG = (f"tag:yaml.org,2002:{name}" for name in ("null", "str", "timestamp"))
TEXT_ITEMS = "one text a line, each after a dash"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a value: its line, the names that lead to it (`.days`), a sentence's end."""

    line: int
    text: str
    path: str = ""


class WrongValueError(Exception):
    """A value that its field cannot have, with everything that is wrong in it."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Kind:
    """How a value is read, and its JSON Schema. `read` raises WrongValueError."""

    read: Callable[[yaml.Node], Any]
    schema: Mapping[str, Any]


def refuse(node: yaml.Node, text: str) -> WrongValueError:
    """The error about a node; the text goes on after the field's name."""
    return WrongValueError(Problem(node.start_mark.line + 1, text))


@contextmanager
def collected(problems: list[Problem], name: str = "") -> Iterator[None]:
    """Take up what is wrong with a part, so that its neighbours are read, too. `name` leads to it."""
    try:
        yield
    except WrongValueError as error:
        problems += [replace(problem, path=name + problem.path) for problem in error.problems]


def is_null(node: yaml.Node) -> bool:
    """Whether the node is YAML's null, as where nothing is written."""
    return bool(node.tag == NULL)


def _read_text(node: yaml.Node) -> str:
    if is_null(node) and not node.value:
        raise refuse(node, 'is empty: write a text, or "" for none')
    if isinstance(node, yaml.SequenceNode):
        raise refuse(node, "must be a text, not a list: write | after the name and the text below, indented")
    if node.tag not in (TEXT_TAG, DATE_TAG):
        raise refuse(node, "must be a text: put it in quotes")
    return str(node.value).strip()


TEXT = Kind(_read_text, {"type": "string"})


def parsed(kind: Kind, parse: Callable[[Any], Any], **schema: Any) -> Kind:
    """A kind whose value goes through `parse`, whose ValueError says what is wrong with it."""

    def read(node: yaml.Node) -> Any:
        value = kind.read(node)
        try:
            return parse(value)
        except ValueError as error:
            raise refuse(node, str(error)) from error

    return Kind(read, {**kind.schema, **schema})


SENTENCE = parsed(TEXT, lambda text: " ".join(text.split()))


def limited(kind: Kind, limit: int) -> Kind:
    """A text of at most so many characters."""

    def check(text: str) -> str:
        if len(text) > limit:
            raise ValueError(f"has {len(text):,} characters, at most {limit:,}: shorten it")
        return text

    return parsed(kind, check, maxLength=limit)


def filled(kind: Kind, problem: str) -> Kind:
    """A text that is not empty; `problem` is what is said of an empty one."""

    def check(text: str) -> str:
        if not text:
            raise ValueError(problem)
        return text

    return parsed(kind, check, pattern=r"\S")


ITEM = filled(SENTENCE, "has an empty text: remove it")


def matching(pattern: str, remedy: str, shown_pattern: str = "", *, is_secret: bool = False) -> Kind:
    """A text that all of a pattern matches; `shown_pattern` for editors, where they read it differently.

    `is_secret`: a wrong value may be one, and is not repeated.
    """
    compiled = re.compile(pattern)

    def describe(text: object) -> str:
        return f"has {'a value' if is_secret else repr(str(text)[:40])}, which is not {remedy}"

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(describe(text))
        return text

    kind = parsed(SENTENCE, check, pattern=f"^(?:{shown_pattern or pattern})$")

    def read(node: yaml.Node) -> str:
        is_other = isinstance(node, yaml.ScalarNode) and node.tag != TEXT_TAG and not is_null(node)
        if is_other and not compiled.fullmatch(str(node.value)):  # quotes alone would not help
            raise refuse(node, describe(node.value))
        return str(kind.read(node))

    return replace(kind, read=read)


def one_of(*choices: str) -> Kind:
    """One of some words."""

    def check(text: str) -> str:
        if text not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return text

    return parsed(TEXT, check, enum=list(choices))


def number(kind: type[int] | type[float], bounds: tuple[float, float]) -> Kind:
    """A number from the lower to the upper bound."""
    low, high = bounds
    name, schema_type = ("whole number", "integer") if kind is int else ("number", "number")

    def read(node: yaml.Node) -> float:
        try:
            value = kind(node.value) if isinstance(node, yaml.ScalarNode) else None
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise refuse(node, f"must be a {name} from {low:g} to {high:.15g}")
        return value

    return Kind(read, {"type": schema_type, "minimum": low, "maximum": high})


def _read_switch(node: yaml.Node) -> bool:
    value = str(node.value).lower() if isinstance(node, yaml.ScalarNode) else ""
    if value not in ("true", "false"):
        raise refuse(node, "must be true or false")
    return value == "true"


SWITCH = Kind(_read_switch, {"type": "boolean"})


def list_of(kind: Kind, remedy: str = TEXT_ITEMS, *, limit: int | None = None) -> Kind:
    """A list, each item once."""

    def read(node: yaml.Node) -> tuple[Any, ...]:
        if not isinstance(node, yaml.SequenceNode):
            raise refuse(node, f"must be a list: {remedy}")
        if limit is not None and len(node.value) > limit:
            raise refuse(node, f"has {len(node.value)} entries, at most {limit}: remove some")
        values, problems = dict[Any, None](), list[Problem]()
        for item in node.value:
            with collected(problems):
                values[kind.read(item)] = None
        if problems:
            raise WrongValueError(*problems)
        return tuple(values)

    schema = {"type": "array", "items": kind.schema}
    return Kind(read, schema if limit is None else {**schema, "maxItems": limit})


def some(kind: Kind, problem: str) -> Kind:
    """A list or a mapping that is not empty; `problem` is what is said of an empty one."""

    def check(values: Any) -> Any:
        if not values:
            raise ValueError(problem)
        return values

    least = "minItems" if kind.schema["type"] == "array" else "minProperties"
    return Kind(parsed(kind, check).read, {**kind.schema, least: 1})


def one_or_more(kind: Kind) -> Kind:
    """One value, or a list of them."""
    many = list_of(kind)

    def read(node: yaml.Node) -> tuple[Any, ...]:
        values: tuple[Any, ...] = (
            many.read(node) if isinstance(node, yaml.SequenceNode) else (kind.read(node),)
        )
        return values

    return Kind(read, {"anyOf": [kind.schema, many.schema]})


def one_or_named(kind: Kind, named: Kind, name: str, remedy: str) -> Kind:
    """A mapping; or one value alone, which is then read as the one under that name.

    `remedy` says what the mapping has.
    """

    def read(node: yaml.Node) -> Any:
        if isinstance(node, yaml.SequenceNode):
            raise refuse(node, f"must be one text, not a list; or {remedy}")
        return named.read(node) if isinstance(node, yaml.MappingNode) else {name: kind.read(node)}

    return Kind(read, {"anyOf": [kind.schema, named.schema]})


def mapping_of(key: Kind, value: Kind, remedy: str, *, limit: int) -> Kind:
    """Values under names of one kind, each name once."""

    def read(node: yaml.Node) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise refuse(node, f"must have {remedy}")
        values, problems = dict[Any, Any](), list[Problem]()
        for key_node, value_node in node.value:
            with collected(problems):
                name = key.read(key_node)
                if name in values:
                    raise refuse(key_node, f"has {name} twice: remove one of them")
                values[name] = None
                with collected(problems, f".{key_node.value}"):
                    values[name] = value.read(value_node)
        if len(values) > limit:
            problems += refuse(node, f"has {len(values)} entries, at most {limit}: merge some").problems
        if problems:
            raise WrongValueError(*problems)
        return values

    schema = {"type": "object", "propertyNames": key.schema, "additionalProperties": value.schema}
    return Kind(read, {**schema, "maxProperties": limit})


def built(build: Callable[..., Any], required: Mapping[str, Kind], optional: Mapping[str, Kind]) -> Kind:
    """Values under fixed names, handed to `build` by name, whose ValueError says what is wrong with them."""
    kinds = {**required, **optional}

    def read(node: yaml.Node) -> Any:
        names = ", and may have ".join(filter(None, (", ".join(required), ", ".join(optional))))
        verb = "must" if required else "may"
        if not isinstance(node, yaml.MappingNode):
            raise refuse(node, f"must have names with values (name: value): {names}")
        values, problems = dict[str, Any](), list[Problem]()
        seen = set[str]()
        for key_node, value_node in node.value:
            with collected(problems):
                name = str(key_node.value)
                if name not in kinds or name in seen:
                    wrong = "twice" if name in seen else "as an unknown name"
                    near = get_close_matches(name, kinds.keys() - seen, 1)
                    remedy = f"did you mean {near[0]!r}" if near else f"it {verb} have {names}"
                    raise refuse(key_node, f"has {name[:40]!r} {wrong}: {remedy}")
                seen.add(name)
                with collected(problems, f".{name}"):
                    values[name] = kinds[name].read(value_node)
        problems += [
            problem
            for name in required
            if name not in seen
            for problem in refuse(node, f"lacks {name}: write it").problems
        ]
        if problems:
            raise WrongValueError(*problems)
        try:
            return build(**values)
        except ValueError as error:
            raise refuse(node, str(error)) from error

    return Kind(
        read,
        {
            "type": "object",
            "additionalProperties": False,
            "required": list(required),
            "properties": {name: kind.schema for name, kind in kinds.items()},
        },
    )
