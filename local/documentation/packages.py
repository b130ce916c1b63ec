"""The packages of `shared/`: their order in one table, and the list that the architecture page shows."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
# Each line may import from the lines above it only; what is in one line does not know of the rest of it.
LAYERS = (
    ("errors",),
    ("domain",),
    ("settings", "telemetry"),
    ("services",),
    ("model",),
    ("knowledge",),
    ("checks",),
    ("mail", "ledger"),
    ("attachments",),
    ("profiles",),
    ("replying",),
    ("watching",),
    ("notifying",),
    ("operator",),
    ("composition",),
)


def render_packages() -> str:
    """Render the layers as a table, the triggers first. Each purpose is its docstring's first sentence."""
    rows = [("function_app.py", _read_purpose(ROOT / "function_app.py"), "")]
    for layer in reversed(LAYERS):
        for name in layer:
            folder = ROOT / "shared" / name
            if folder.is_dir():
                modules = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
                rows.append((f"shared/{name}/", _read_purpose(folder / "__init__.py"), ", ".join(modules)))
            else:
                rows.append((f"shared/{name}.py", _read_purpose(folder.with_suffix(".py")), ""))
    lines = [f"| `{name}` | {purpose} | {modules} |" for name, purpose, modules in rows]
    return "\n".join(["| package or module | responsible for | modules |", "|---|---|---|", *lines])


def _read_purpose(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.partition("\n\n")[0].split())
