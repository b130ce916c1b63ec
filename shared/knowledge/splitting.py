"""Splitting a Markdown document into passages: whole sections, unless a section is too long for one."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from shared.knowledge.passages import TITLE_MARK, Passage
from shared.model.tokens import estimate_tokens

MAX_PASSAGE_TOKENS = 800

_HEADING = re.compile(r"\s{0,3}(#{1,6})\s+(.*?)(?:\s+#+)?\s*")
_FENCE = re.compile(r"\s{0,3}(```+|~~~+)")
_DELIMITER_ROW = re.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*")
_SENTENCE = re.compile(r".+?(?:[.!?]\s+|[。！？]|$)")
_WORD = re.compile(r"\S{1,200}\s*|\s+")


@dataclass
class _Section:
    """The text under one heading, up to the next one. `level` is 0 before the first heading."""

    title: str
    level: int = 0
    lines: list[str] = field(default_factory=list)


def split_passages(markdown: str, source: str, name: str) -> Iterator[Passage]:
    """Split a document at its headings, and a section that is too long at its paragraphs and table rows.

    A passage's title has the headings above it, or `name` before the first one. Each piece of a table that
    is too long has the header row. A heading without text is a passage where nothing deeper follows it.
    """
    sections = list(_split_sections(markdown, name))
    for number, section in enumerate(sections):
        body = "\n".join(section.lines).strip("\n")
        if body.strip():
            parts = (part for block in _split_blocks(body.splitlines()) for part in _split_block(block))
            is_short = estimate_tokens(body) <= MAX_PASSAGE_TOKENS
            pieces = [body] if is_short else _fill(parts, "\n\n", MAX_PASSAGE_TOKENS)
            yield from (Passage(source, section.title, piece) for piece in pieces)
        elif section.level and not any(s.level > section.level for s in sections[number + 1 : number + 2]):
            yield Passage(source, section.title, "")


def _split_sections(markdown: str, name: str) -> Iterator[_Section]:
    trail: dict[int, str] = {}
    section = _Section(name)
    fence = ""
    for line in markdown.splitlines():
        fence = _follow_fence(fence, line)
        heading = None if fence else _HEADING.fullmatch(line)
        if heading is None:
            section.lines.append(line)
            continue
        yield section
        level = len(heading[1])
        trail = {above: text for above, text in trail.items() if above < level} | {level: heading[2]}
        section = _Section(TITLE_MARK.join(filter(None, trail.values())) or name, level)
    yield section


def _follow_fence(fence: str, line: str) -> str:
    """The mark of the code block that goes on after this line, if one does."""
    mark = _FENCE.match(line)
    if mark is None:
        return fence
    if not fence:
        return mark[1]
    return "" if mark[1].startswith(fence) else fence


def _split_blocks(lines: list[str]) -> Iterator[list[str]]:
    """The paragraphs, tables and code blocks, each as its lines. A table may follow a text directly."""
    block: list[str] = []
    fence = ""
    for number, line in enumerate(lines):
        was_code, fence = bool(fence), _follow_fence(fence, line)
        is_code = was_code or bool(fence)
        starts_table = not is_code and "|" in line and _is_delimiter_row(lines[number + 1 : number + 2])
        ends_table = not is_code and "|" not in line and _is_table(block)
        if block and ((not is_code and not line.strip()) or starts_table or ends_table):
            yield block
            block = []
        if is_code or line.strip():
            block.append(line)
    if block:
        yield block


def _is_delimiter_row(lines: list[str]) -> bool:
    return any("-" in line and "|" in line and _DELIMITER_ROW.fullmatch(line) for line in lines)


def _is_table(block: list[str]) -> bool:
    return _is_delimiter_row(block[1:2])


def _split_block(block: list[str]) -> Iterator[str]:
    if estimate_tokens("\n".join(block)) <= MAX_PASSAGE_TOKENS:
        yield "\n".join(block)
    elif _is_table(block):
        header = "\n".join(block[:2])
        room = MAX_PASSAGE_TOKENS - estimate_tokens(header)
        yield from (f"{header}\n{rows}" for rows in _fill(block[2:], "\n", max(room, 0)))
    else:
        yield from _fill(_split_lines(block), "\n", MAX_PASSAGE_TOKENS)


def _split_lines(lines: Iterable[str]) -> Iterator[str]:
    """The lines, and of one that is too long its sentences, and of such a sentence its words."""
    for line in lines:
        if estimate_tokens(line) <= MAX_PASSAGE_TOKENS:
            yield line
            continue
        parts: list[str] = []
        for sentence in _SENTENCE.findall(line):
            is_short = estimate_tokens(sentence) <= MAX_PASSAGE_TOKENS
            parts += [sentence] if is_short else _WORD.findall(sentence)
        yield from _fill(parts, "", MAX_PASSAGE_TOKENS)


def _fill(parts: Iterable[str], joint: str, room: int) -> Iterator[str]:
    """Join as many parts as fit into the room; a part that does not fit by itself stays whole."""
    piece: list[str] = []
    tokens = 0
    for part in parts:
        part_tokens = estimate_tokens(part)
        if piece and tokens + part_tokens > room:
            yield joint.join(piece)
            piece, tokens = [], 0
        piece.append(part)
        tokens += part_tokens
    if piece:
        yield joint.join(piece)
