"""The text of an HTML page that a reader sees, by the tree that a browser makes of it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from justhtml import Node, Text

_UNSEEN = frozenset(
    {"head", "title", "script", "style", "template", "datalist", "noembed", "noframes", "rp", "param"}
)
# What shows something that is not read: pictures, what is embedded or filled in, what is for other browsers.
_UNREAD = frozenset({
    "audio", "canvas", "embed", "frame", "iframe", "img", "input", "noscript", "object", "picture", "svg",
    "video",
})  # fmt: skip
_BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "br", "caption", "center", "dd", "details", "dialog", "div",
    "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6",
    "header", "hr", "legend", "li", "main", "nav", "ol", "option", "p", "pre", "section", "summary", "table",
    "tr", "ul",
})  # fmt: skip
_CELLS = frozenset({"td", "th"})
_AMBIGUOUS = re.compile(r"""[\\"'({]|/\*""")  # in a style: escapes, comments, and what may hold a declaration
_DECISIVE = re.compile(r"display|visibility|\\", re.IGNORECASE)
_SHOWN = frozenset({"visible", "initial"})
_HIDDEN = frozenset({"hidden", "collapse"})


@dataclass(frozen=True, slots=True)
class _Style:
    """What an element's own style says of being seen; None where it says nothing."""

    is_none: bool | None = None
    is_visible: bool | None = None
    is_clear: bool = True


def read_page(markup: str) -> Iterator[str | None]:
    """The lines of a page; None where it shows more. What a style sheet, a size or a colour hides is read."""
    from justhtml import JustHTML  # noqa: PLC0415 - this format alone

    pieces = list(_walk(JustHTML(markup, sanitize=False, scripting_enabled=True).root))
    for line in "".join(piece for piece in pieces if piece is not None).splitlines():
        if line.strip(" |\t"):
            yield " ".join(line.split())
    if None in pieces:
        yield None


def _walk(root: "Node") -> Iterator[str | None]:
    stack: list[tuple[Node | Text | str, bool]] = [(root, True)]  # with whether its text is visible
    while stack:
        node, is_visible = stack.pop()
        if isinstance(node, str):
            yield node
        elif node.name == "#text":
            yield str(node.data or "") if is_visible else ""
        elif node.name not in _UNSEEN and node.name not in ("#comment", "!doctype"):
            attributes = getattr(node, "attrs", None) or {}
            style = _read_style(attributes.get("style") or "")
            is_shown = is_visible if style.is_visible is None else style.is_visible
            is_unread = is_shown and node.name in _UNREAD and attributes.get("type") != "hidden"
            is_gone = style.is_none
            if is_gone is None:
                is_gone = "hidden" in attributes or (node.name == "dialog" and "open" not in attributes)
            if not style.is_clear or (is_unread and not is_gone):
                yield None
            if is_gone or node.name in _UNREAD:
                continue
            edge = "\n" if node.name in _BLOCKS else ""
            yield " | " if node.name in _CELLS else edge
            stack.append((edge, True))
            stack += [(child, is_shown) for child in reversed(node.children or ())]


def _read_style(style: str) -> _Style:
    """What decides whether an element is seen; not clear where it is written in an unusual way."""
    if not _DECISIVE.search(style):
        return _Style()
    declared: dict[str, list[str]] = {"display": [], "visibility": []}
    for declaration in style.lower().split(";"):
        name, _, value = declaration.partition(":")
        declared.setdefault(name.strip(), []).append(value.partition("!")[0].strip())
    displays = [value == "none" for value in declared["display"]]
    sights = [value in _SHOWN for value in declared["visibility"] if value in _SHOWN | _HIDDEN]
    is_clear = len(set(displays)) <= 1 and len(set(sights)) <= 1 and not _AMBIGUOUS.search(style)
    return _Style(displays[-1] if displays else None, sights[-1] if sights else None, is_clear)
