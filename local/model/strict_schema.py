"""The subset of JSON Schema that Azure OpenAI's strict structured outputs accept: check, match, fill."""

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

# Length, range, pattern and format keywords are refused: Azure OpenAI, "Structured outputs",
# "Unsupported type-specific keywords". $defs and recursion exist there, but not here.
_KEYWORDS = frozenset(
    {"type", "enum", "const", "properties", "required", "additionalProperties", "items", "anyOf"}
    | {"description", "title"}
)
_PYTHON_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "null": type(None),
}


def find_schema_problem(schema: Schema, context: tuple[str, ...] = ()) -> str | None:
    """Say, in the service's words, why a strict schema is refused; None when it is accepted."""
    where = f"In context={context}, "
    unknown = sorted(schema.keys() - _KEYWORDS)
    if unknown:
        return f"{where}'{unknown[0]}' is not permitted."
    if "object" in _types(schema):
        if schema.get("additionalProperties") is not False:
            return f"{where}'additionalProperties' is required to be supplied and to be false."
        missing = sorted(schema.get("properties", {}).keys() - set(schema.get("required", ())))
        if missing:
            return (
                f"{where}'required' is required to be supplied and to be an array including every key in "
                f"properties. Missing '{missing[0]}'."
            )
    problems = (find_schema_problem(inner, context + step) for step, inner in _inner_schemas(schema))
    return next((problem for problem in problems if problem), None)


def matches(value: Any, schema: Schema) -> bool:
    """Whether a decoded JSON value keeps an accepted schema."""
    if "anyOf" in schema and not any(matches(value, choice) for choice in schema["anyOf"]):
        return False
    if value not in schema.get("enum", [value]) or value != schema.get("const", value):
        return False
    types = _types(schema)
    if types and not any(_has_type(value, name) for name in types):
        return False
    if isinstance(value, list):
        return all(matches(item, schema.get("items", {})) for item in value)
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        return value.keys() == properties.keys() and all(
            matches(value[key], properties[key]) for key in value
        )
    return True


def build_smallest(schema: Schema) -> Any:
    """The plainest value that keeps an accepted schema: first choices, zeros and empty texts."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return build_smallest(schema["anyOf"][0])
    types = _types(schema) or ("string",)
    if types[0] == "object":
        return {key: build_smallest(inner) for key, inner in schema.get("properties", {}).items()}
    plain = {"array": [], "string": "", "number": 0, "integer": 0, "boolean": False}
    return plain.get(types[0])


def _types(schema: Schema) -> tuple[str, ...]:
    named = schema.get("type", ())
    return (named,) if isinstance(named, str) else tuple(named)


def _has_type(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    return isinstance(value, _PYTHON_TYPES[name])


def _inner_schemas(schema: Schema) -> Iterator[tuple[tuple[str, ...], Schema]]:
    for key, inner in schema.get("properties", {}).items():
        yield ("properties", key), inner
    if "items" in schema:
        yield ("items",), schema["items"]
    for number, choice in enumerate(schema.get("anyOf", ())):
        yield ("anyOf", str(number)), choice
