"""What the code records, read from its source: each event's name and the attributes it carries."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

from shared import telemetry

SHARED = Path(telemetry.__file__).parent
LOCAL = SHARED.parent / "local"
COMMANDS = [LOCAL / name for name in ("commands/redrive.py", "commands/forget.py")]
SOURCES = (*sorted(SHARED.rglob("*.py")), *COMMANDS)


def read_emitted_events() -> Mapping[str, frozenset[str]]:
    """The attributes (with their prefix) of every event that the agent or an operator's command records."""
    events: dict[str, frozenset[str]] = {}
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for call in ast.walk(tree) if _imports_record(tree) else ():
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "record":
                event, attributes = call.args
                if not isinstance(event, ast.Name):
                    raise AssertionError(f"{path.name}:{call.lineno} records an event that has no constant")
                names = frozenset(f"agent.{name}" for name in _keys(attributes, tree))
                name = str(getattr(telemetry, event.id))
                events[name] = events.get(name, frozenset()) | names
    return events


def _imports_record(tree: ast.Module) -> bool:
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    return any(
        node.module == "shared.telemetry" and "record" in {alias.name for alias in node.names}
        for node in imports
    )


def _keys(node: ast.expr, tree: ast.Module) -> set[str]:
    """The keys that an expression for a dict can have, through `|`, helpers of the module and filters."""
    match node:
        case ast.BinOp(left=left, right=right):
            return _keys(left, tree) | _keys(right, tree)
        case ast.Dict(keys=keys):
            return {str(key.value) for key in keys if isinstance(key, ast.Constant)}
        case ast.DictComp(generators=[generator]):
            left_out = {str(c.value) for test in generator.ifs for c in _constants(test)}
            return {key.removeprefix("agent.") for key in _keys(generator.iter, tree) - left_out}
        case ast.Call(func=ast.Attribute(value=ast.Name(), attr="items")):
            return set()  # a variable of the function: whatever dict it holds is read by itself
        case ast.Call(func=ast.Attribute(value=value, attr="items")):
            return _keys(value, tree)
        case ast.Call(func=ast.Name(id=name)) | ast.Attribute(attr=name):
            return {key for body in _dicts_of(name, tree) for key in _keys(body, tree)}
    raise AssertionError(f"no rule for reading the keys of {ast.unparse(node)}")


def _constants(node: ast.AST) -> Iterator[ast.Constant]:
    return (child for child in ast.walk(node) if isinstance(child, ast.Constant))


def _dicts_of(name: str, tree: ast.Module) -> Iterator[ast.expr]:
    """The dicts of a helper of that name: the module's own or, failing that, those of all modules."""
    own = [function for function in ast.walk(tree) if _is_named(function, name)]
    everywhere = (node for path in SOURCES for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    for function in own or [node for node in everywhere if _is_named(node, name)]:
        if isinstance(function, ast.FunctionDef):
            yield from (child for child in ast.walk(function) if isinstance(child, ast.Dict | ast.DictComp))
            for child in ast.walk(function):  # facts |= helper(...)
                match child:
                    case ast.AugAssign(op=ast.BitOr(), value=ast.Call(func=ast.Name(id=helper))):
                        yield from _dicts_of(helper, tree)


def _is_named(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == name
