"""How the desk shows texts: HTML mail as text, and quotes folded."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser

from shared.mail.own_words import split_own_words

_HTML = re.compile(
    r"<(?:html|body|div|p|br|table|tr|td|span|ul|ol|li|font|center)\b[^<>]*>|&nbsp;", re.IGNORECASE
)
_BLOCKS = frozenset({
    "address", "article", "blockquote", "br", "center", "div", "dd", "dl", "dt", "h1", "h2", "h3", "h4", "h5",
    "h6", "hr", "li", "ol", "p", "pre", "section", "table", "td", "th", "tr", "ul",
})  # fmt: skip
_UNSEEN = frozenset({"head", "script", "style", "title"})
_MANY_BREAKS = re.compile(r"\s*\n\s*\n\s*")


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


class _TextOfHtml(HTMLParser):
    """Collects what an HTML email says; text that a style hides is shown, too."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._unseen = 0
        self._link = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _UNSEEN:
            self._unseen += 1
        elif tag in _BLOCKS:
            self.parts.append("\n")
        elif tag == "a":
            self._link = dict(attrs).get("href") or ""

    def handle_endtag(self, tag: str) -> None:
        if tag in _UNSEEN:
            self._unseen = max(0, self._unseen - 1)
        elif tag in _BLOCKS:
            self.parts.append("\n")
        elif tag == "a" and self._link:
            self.parts.append(f" ({self._link})")
            self._link = ""

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.parts.append(data)


def _html_to_text(markup: str) -> str:
    parser = _TextOfHtml()
    parser.feed(markup)
    parser.close()
    return "\n".join(_tidy("".join(parser.parts)))


def _tidy(text: str) -> Iterator[str]:
    for paragraph in _MANY_BREAKS.split(text.replace("\xa0", " ")):
        lines = [" ".join(line.split()) for line in paragraph.splitlines()]
        yield from (line for line in lines if line)
        yield ""
