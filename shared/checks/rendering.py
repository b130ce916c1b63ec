"""Rendering: what a mail program shows of a Markdown text, what it hides, and where its links lead."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from linkify_it import LinkifyIt  # type: ignore[import-untyped]  # it has no types
from linkify_it.tlds import TLDS  # type: ignore[import-untyped]  # it has no types
from markdown_it import MarkdownIt
from markdown_it.token import Token

from shared.checks.characters import IGNORABLE

GAP_LINES = 8  # what follows so many lines without a word is out of the approver's view
GAP_SPACES = 120
# Every top-level domain, as mail programs know them: ASCII names and their international forms.
RESERVED_DOMAINS = ("example", "test", "invalid", "localhost", "local", "internal", "onion", "lan", "home")
BREAK, CELL = "\n", "\t"

_INFO = re.compile(r"[A-Za-z0-9+#.-]{0,20}")
_GAP = re.compile(rf"(?:\n[^\S\n]*){{{GAP_LINES}}}|[^\S\n]{{{GAP_SPACES}}}")
_WORD = re.compile(r"[^\W_]")
_TAG = re.compile(r"<(?:[a-z][a-z0-9-]{0,30}[\s/>]|[/!?][a-z-])", re.IGNORECASE)
_PIPE = re.compile(r"(?<!\\)\|")
_NO_WORDS = re.compile(r"[\W_]*")


@functools.cache
def top_level_domains() -> frozenset[str]:
    """Every top-level domain, in lower case; international ones in both their forms."""
    names = [name.lower() for name in TLDS]
    international = [name.encode().decode("idna") for name in names if name.startswith("xn--")]
    return frozenset((*names, *international, *RESERVED_DOMAINS))


@functools.cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("gfm-like", {"linkify": True, "html": True})
    parser.linkify = LinkifyIt({}, {"fuzzy_ip": True}).tlds(sorted(top_level_domains()))
    parser.validateLink = lambda url: True  # type: ignore[method-assign]  # noqa: ARG005 - refused links are judged
    return parser


@dataclass(frozen=True, slots=True)
class Link:
    """A link or an image: where it leads, its words that a reader sees, and where they begin in the text.

    One that `is_found` was no link in the source: mail programs make one of a name or an address.
    """

    target: str
    text: str
    start: int = 0
    is_found: bool = False


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a reader sees. `text` has empty lines between blocks, tabs after cells and a line for each row.

    `has_markup`: HTML or an image. `has_hidden`: words that are in the source alone. `has_gap`: a long
    blank run.
    """

    text: str
    links: Sequence[Link]
    has_markup: bool
    has_hidden: bool
    has_gap: bool


def render(markdown: str) -> Rendered:
    """Render a text of CommonMark with GitHub's tables, strikethrough and links."""
    environment: dict[str, object] = {}
    reader = _Reader(markdown.split("\n"))
    reader.read(_parser().parse(markdown, environment))
    text = "".join(reader.pieces)
    has_definitions = bool(environment.get("references") or environment.get("duplicate_refs"))
    return Rendered(
        text=text,
        links=tuple(reader.links),
        has_markup=reader.has_markup or _TAG.search("".join(reader.prose)) is not None,
        has_hidden=reader.has_hidden or has_definitions,
        has_gap=_has_gap(markdown) or _has_gap(text),
    )


def _has_gap(text: str) -> bool:
    shown = IGNORABLE.sub("", text).replace("\u2800", " ")
    if _GAP.search(shown):
        return True
    blank = 0
    for line in shown.split("\n"):
        blank = 0 if _WORD.search(line) else blank + 1
        if blank >= GAP_LINES:
            return True
    return False


class _Reader:
    """Walks over the parser's tokens and notes what is shown."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self._columns = self._shown = 0
        self.pieces: list[str] = []
        self.prose: list[str] = []
        self.links: list[Link] = []
        self.has_markup = self.has_hidden = False

    def read(self, tokens: Sequence[Token]) -> None:
        for token in tokens:
            match token.type:
                case "inline":
                    self._read_inline(token.children or [])
                case "fence" | "code_block":
                    self.has_hidden |= not _INFO.fullmatch(token.info.strip())
                    self._show(token.content)
                case "html_block":
                    self.has_markup = True
                case "list_item_open":
                    self._show(f"{token.info}{token.markup} " if token.info else "- ")
                case "paragraph_close" | "heading_close":
                    self._show(BREAK if token.hidden else BREAK * 2)
                case _:
                    self._read_table(token)

    def _read_table(self, token: Token) -> None:
        match token.type:
            case "table_open":
                self._columns = 0
            case "th_open":
                self._columns += 1
            case "th_close" | "td_close":
                self._show(CELL)
            case "tr_open" if token.map and self._columns:  # cells beyond the last column are not shown
                cells = _PIPE.split(self._lines[token.map[0]].lstrip(" \t>").strip().strip("|"))
                self.has_hidden |= len(cells) > self._columns
            case "tr_close":
                self._show(BREAK)
            case "table_close":
                self._show(BREAK * 2)

    def _read_inline(self, tokens: Sequence[Token]) -> None:
        targets: list[tuple[Token, int]] = []
        for token in tokens:
            match token.type:
                case "code_inline":
                    self._show(token.content)
                case "text":
                    self._show(token.content)
                    self.prose.append(token.content)
                case "softbreak" | "hardbreak":
                    self._show(BREAK)
                case "html_inline":
                    self.has_markup = True
                case "image":
                    self.has_markup = True
                    self._show(token.content)
                    start = self._shown - len(token.content)
                    self.links.append(Link(str(token.attrGet("src") or ""), token.content, start))
                case "link_open":
                    self.has_hidden |= bool(token.attrGet("title"))
                    targets.append((token, self._shown))
                case "link_close":
                    opening, start = targets.pop()
                    text = "".join(self.pieces)[start:]
                    self.has_hidden |= _NO_WORDS.fullmatch(IGNORABLE.sub("", text)) is not None
                    target = str(opening.attrGet("href") or "")
                    self.links.append(Link(target, text, start, is_found=opening.markup == "linkify"))

    def _show(self, text: str) -> None:
        self.pieces.append(text)
        self._shown += len(text)
