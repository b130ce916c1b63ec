"""How the desk shows texts: HTML mail as text, and quotes folded."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from justhtml import JustHTML, Node, Template, Text

from shared.mail.own_words import split_own_words

_HTML = re.compile(
    r"<(?:html|body|div|p|br|table|tr|td|span|ul|ol|li|font|center)\b[^<>]*>|&nbsp;", re.IGNORECASE
)
_BLOCKS = frozenset({
    "address", "article", "blockquote", "br", "center", "div", "dd", "dl", "dt", "h1", "h2", "h3", "h4", "h5",
    "h6", "hr", "li", "ol", "p", "pre", "section", "table", "td", "th", "tr", "ul",
})  # fmt: skip
_UNSEEN = frozenset({"script", "style"})


@dataclass(frozen=True, slots=True)
class ReadableText:
    """An email's text: what the sender wrote, what it quotes, and the source where that was HTML."""

    own: str
    quoted: str = ""
    source: str = ""

    @property
    def quoted_lines(self) -> int:
        """How many lines are folded away."""
        return sum(1 for line in self.quoted.splitlines() if line.strip())


def read_text(markdown: str) -> ReadableText:
    """Make an email's text readable. Nothing is lost: what is left out of `own` is in the others."""
    text = _html_to_text(markdown) if _HTML.search(markdown) else markdown
    words = split_own_words(text)
    return ReadableText(words.own.strip(), words.rest.strip(), markdown if text is not markdown else "")


def _html_to_text(markup: str) -> str:
    """What an HTML email says; text that a style hides is shown, too.

    Where something left open (a style, a comment, a tag) would hide the rest, it is shown as it arrived.
    """
    end = hashlib.sha256(markup.encode(errors="replace")).hexdigest()  # which no email can hold itself
    body = JustHTML(markup + end, sanitize=False, scripting_enabled=False).query_one("body")
    text = "".join(_list_texts(body)) if body is not None else ""
    if end not in text:
        return markup
    lines = [" ".join(line.split()) for line in text.replace(end, "").splitlines()]
    return "\n".join(line for before, line in pairwise(["", *lines]) if line or before)


def _list_texts(body: Node) -> Iterator[str]:
    """Its texts in their order, with a line break around each block and its target after each link."""
    stack: list[Node | Text | str] = [body]
    while stack:
        node = stack.pop()
        if isinstance(node, str):
            yield node
        elif isinstance(node, Text):
            yield node.data or ""
        elif node.name not in _UNSEEN:
            yield "\n" if node.name in _BLOCKS else ""
            stack.append("\n" if node.name in _BLOCKS else _render_target(node))
            content = node.template_content if isinstance(node, Template) else None
            stack += reversed((content or node).children or ())


def _render_target(node: Node) -> str:
    target = (node.attrs or {}).get("href") if node.name == "a" else ""
    return f" ({target})" if target else ""
