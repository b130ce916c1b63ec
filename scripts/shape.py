"""Count how the code is cut, print each figure next to its bound, fail when a bound is broken."""

import argparse
import ast
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PIPELINE = Path("shared/replying/pipeline.py")
SEARCHED = ("function_app.py", "shared", "local")  # where a function of shared/ may be referred to
LONG_FUNCTION = 40  # lines of a body, without signature and docstring

# The bounds: 0.14 is 14 %.
MAX_ENTRIES = 18
MAX_MODULES = 12
MAX_PIPELINE_LINES = 350
MAX_CLASS_LINES = 300
MAX_LONG_SHARE = 0.01
MAX_CALLED_ONCE_SHARE = 0.14


@dataclass(frozen=True)
class Function:
    """A function or method, with what decides whether it counts as called once."""

    path: Path
    line: int
    name: str
    body_lines: int
    is_exempt: bool


@dataclass(frozen=True)
class Figure:
    """A count, its bound (None where it is only shown), and what makes it up."""

    name: str
    value: float
    bound: float | None
    places: Sequence[str] = ()
    is_share: bool = False

    @property
    def is_broken(self) -> bool:
        """Whether the value is over its bound."""
        return self.bound is not None and self.value > self.bound


def measure(root: Path) -> list[Figure]:
    """Count every figure of the tree at `root`."""
    trees = {
        path.relative_to(root): ast.parse(path.read_text(encoding="utf-8")) for path in _list_files(root)
    }
    within = {path: tree for path, tree in trees.items() if path.parts[0] == "shared"}
    functions = [function for path, tree in within.items() for function in _list_functions(path, tree)]
    return [*_measure_sizes(root, within), *_measure_functions(functions, trees)]


def _measure_sizes(root: Path, within: Mapping[Path, ast.Module]) -> Iterator[Figure]:
    entries = sorted(path.name for path in (root / "shared").iterdir() if path.name != "__pycache__")
    yield Figure("entries at the top of shared/", len(entries), MAX_ENTRIES, entries)
    modules = {
        str(path.relative_to(root)): sum(file.stem != "__init__" for file in path.glob("*.py"))
        for part in ("shared", "local")
        for path in (root / part).iterdir()
        if path.is_dir()
    }
    yield _largest("modules in the largest package", modules, MAX_MODULES)
    lines = len((root / PIPELINE).read_text(encoding="utf-8").splitlines())
    yield Figure(f"lines of {PIPELINE}", lines, MAX_PIPELINE_LINES)
    classes = {
        f"{path}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path, tree in within.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    yield _largest("lines of the longest class", classes, MAX_CLASS_LINES)


def _largest(name: str, sizes: Mapping[str, int], bound: int) -> Figure:
    places = [f"{place}: {size}" for place, size in sizes.items() if size > bound]
    return Figure(name, max(sizes.values(), default=0), bound, places)


def _measure_functions(functions: Sequence[Function], trees: Mapping[Path, ast.Module]) -> Iterator[Figure]:
    long = [function for function in functions if function.body_lines > LONG_FUNCTION]
    yield _share("functions over 40 lines", long, functions, MAX_LONG_SHARE)
    references = {path: Counter(_list_references(tree)) for path, tree in trees.items()}
    everywhere = sum(references.values(), Counter[str]())
    in_own_module = [f for f in functions if not f.is_exempt and references[f.path][f.name] == 1]
    once = [function for function in in_own_module if everywhere[function.name] == 1]
    yield _share("functions called once, in their own module", once, functions, MAX_CALLED_ONCE_SHARE)
    private = [function for function in in_own_module if function.name.startswith("_")]
    yield _share("private functions called once in their module", private, functions, None)


def _share(name: str, some: Sequence[Function], functions: Sequence[Function], bound: float | None) -> Figure:
    places = [f"{function.path}:{function.line} {function.name}" for function in some]
    return Figure(name, len(some) / max(len(functions), 1), bound, places, is_share=True)


def _list_files(root: Path) -> Iterator[Path]:
    for part in SEARCHED:
        path = root / part
        yield from [path] if path.is_file() else sorted(path.rglob("*.py"))


def _list_functions(path: Path, tree: ast.Module) -> Iterator[Function]:
    """Every function and method of a module, with those within others."""
    protocols = {
        id(function)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and any("Protocol" in ast.unparse(base) for base in node.bases)
        for function in node.body
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
        is_dunder = node.name.startswith("__") and node.name.endswith("__")
        is_registered = any(ast.unparse(decorator).startswith("app.") for decorator in node.decorator_list)
        is_exempt = is_dunder or is_registered or id(node) in protocols
        yield Function(path, node.lineno, node.name, lines, is_exempt)


def _list_references(tree: ast.Module) -> Iterator[str]:
    """Every mention of a name but its definition. An import is one; what an override hands up is none."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) != "super()":
            yield node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)


def main() -> int:
    """Print the figures; return 1 when a bound is broken."""
    parser = argparse.ArgumentParser(description="Count how the code is cut.")
    parser.add_argument(
        "--list", action="store_true", help="show what makes up each share and what is over its bound"
    )
    arguments = parser.parse_args()
    figures = measure(ROOT)
    for figure in figures:
        form = ".1%" if figure.is_share else "g"
        bound = "" if figure.bound is None else f"  at most {figure.bound:{form}}"
        print(f"{figure.name:<44}{figure.value:>7{form}}{bound}{'  BROKEN' if figure.is_broken else ''}")
        for place in figure.places if arguments.list else ():
            print(f"    {place}")
    return 1 if any(figure.is_broken for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
