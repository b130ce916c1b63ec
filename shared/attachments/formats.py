"""What a file is, by its first bytes and its name, and the text in it: `read_file` is for the child alone.

Macros are never run and formulas never calculated: of a document with macros its text is read like any other.
"""

import io
import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from html.parser import HTMLParser
from itertools import islice
from typing import IO, Any

MAX_LISTED = 50  # attachments that are told apart: what becomes of them is kept in the email's row
MAX_TEXT_CHARACTERS = 60_000
MAX_PAGES = 50
MAX_ROWS = 1_000  # of a sheet
MAX_BLANK_ROWS = 10_000  # of a sheet, after those: looked through for more
MAX_COLUMNS = 40
MAX_EVENTS = 50  # of a calendar
MAX_PARTS = 2_000  # of an Office file, which is a ZIP archive
MAX_INFLATED_BYTES = 60_000_000  # of all parts together
MAX_RATIO = 200  # of a part to what it takes in the archive; text is packed to a twentieth
MAX_SMALL_PART_BYTES = 1_000_000  # whatever their ratio
MAX_PIXELS = 25_000_000
GUESSED_BYTES = 20_000  # of a text in no known encoding

_HIDDEN_STYLE = re.compile(r"display:none|visibility:hidden|font-size:0(?![.\d])")  # without white space
_SILENT_TAGS = frozenset({"title", "script", "style", "template", "noscript", "svg", "object", "iframe"})
_VOID_TAGS = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
)
_LINE_TAGS = frozenset(
    {"br", "p", "div", "li", "tr", "table", "ul", "ol", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote"}
)
# The end tag of these may be left out: one of those that follow begins what is next.
_ENDED_BY = {
    "p": _LINE_TAGS - {"br"} | {"td", "th"},
    "li": frozenset({"li"}),
    "td": frozenset({"td", "th", "tr"}),
    "th": frozenset({"td", "th", "tr"}),
    "tr": frozenset({"tr"}),
}
_HOLDERS = frozenset({"ul", "ol", "table"})  # of such elements of their own


class Unread(StrEnum):
    """Why an attachment was not read, as people are told."""

    TOO_LARGE = "too large"
    ENCRYPTED = "encrypted"
    UNREADABLE = "could not be read"
    TOOK_TOO_LONG = "took too long"
    AFTER_SLOW = "not tried after one that took too long"
    NO_TYPE = "not a type that is read"
    OTHER_CONTENT = "the content is not what the name says"
    NO_TEXT = "no text in it"
    SAME_NAME = "another one has the same name"
    TOO_MANY = "one of too many"
    NOT_LISTED = f"beyond the first {MAX_LISTED}"
    NO_ROOM = "the others left no room for its text"
    NOT_FETCHED = "could not be fetched"
    UNKNOWN_FORM = "came in an unknown form"
    PICTURE = "a picture"
    LOGO = "a small picture, as in signatures"


class Format(StrEnum):
    """The types that are read."""

    PDF = "pdf"
    DOCX = "docx"
    XLSX = "xlsx"
    CSV = "csv"
    TXT = "txt"
    HTML = "html"
    ICS = "ics"
    PICTURE = "picture"


# Without these, a file is not even fetched. What it is, its content then says.
BY_ENDING = {
    "pdf": Format.PDF, "docx": Format.DOCX, "docm": Format.DOCX, "xlsx": Format.XLSX, "xlsm": Format.XLSX,
    "csv": Format.CSV, "txt": Format.TXT, "html": Format.HTML, "htm": Format.HTML, "ics": Format.ICS,
    "png": Format.PICTURE, "jpg": Format.PICTURE, "jpeg": Format.PICTURE, "gif": Format.PICTURE,
    "webp": Format.PICTURE,
}  # fmt: skip
BY_CONTENT_TYPE = {
    "application/pdf": Format.PDF,
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": Format.DOCX,
    "application/vnd.ms-word.document.macroenabled.12": Format.DOCX,
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": Format.XLSX,
    "application/vnd.ms-excel.sheet.macroenabled.12": Format.XLSX,
    "text/csv": Format.CSV, "text/plain": Format.TXT, "text/html": Format.HTML,
    "text/calendar": Format.ICS, "image/png": Format.PICTURE, "image/jpeg": Format.PICTURE,
    "image/gif": Format.PICTURE, "image/webp": Format.PICTURE,
}  # fmt: skip
_PICTURES = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"))
_OFF = frozenset({"0", "false", "off"})  # the value of a mark that does not hold
_TEXTS = frozenset({Format.CSV, Format.TXT, Format.HTML, Format.ICS})


class UnreadError(Exception):
    """A file that is not read; `why` says why not."""

    def __init__(self, why: Unread) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, slots=True)
class FileText:
    """What was found in a file: its text, of a longer one the beginning, or that it is a picture."""

    format: Format
    text: str = ""
    is_cut: bool = False
    media_type: str = ""


def promised_format(name: str, content_type: str) -> Format | None:
    """What a file's name, or else its content type, says it is; None for a type that is not read."""
    ending = name.rpartition(".")[2].strip().lower()
    return BY_ENDING.get(ending) or BY_CONTENT_TYPE.get(content_type.partition(";")[0].strip().lower())


def read_file(content: bytes, promised: Format) -> FileText:
    """The text of a file that its name or content type promises to be of a format.

    What its first bytes say counts more; only text has none that tell, and is what it is promised to be.
    Raises UnreadError, and whatever the libraries raise at a file that is broken.
    """
    if not content:
        raise UnreadError(Unread.NO_TEXT)
    found, media_type = _find_format(content, promised)
    if found is Format.PICTURE:
        return _read_picture(content, media_type)
    read = {Format.PDF: _read_pdf, Format.DOCX: _read_docx, Format.XLSX: _read_xlsx}
    pieces = read[found](content) if found in read else _read_text(content, found)
    text, is_cut = _join(pieces)
    if not text.strip():
        raise UnreadError(Unread.NO_TEXT)
    return FileText(found, text, is_cut)


def _find_format(content: bytes, promised: Format) -> tuple[Format, str]:
    for magic, media_type in _PICTURES:
        if content.startswith(magic):
            return Format.PICTURE, media_type
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return Format.PICTURE, "image/webp"
    if b"%PDF-" in content[:1024]:
        return Format.PDF, ""
    if content.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):  # what Office wraps an encrypted file in
        is_encrypted = "EncryptedPackage".encode("utf-16-le") in content
        raise UnreadError(Unread.ENCRYPTED if is_encrypted else Unread.OTHER_CONTENT)
    if content.startswith(b"PK\x03\x04"):
        names = set(_open_archive(content).namelist())
        if "word/document.xml" in names:
            return Format.DOCX, ""
        if "xl/workbook.xml" in names:
            return Format.XLSX, ""
        raise UnreadError(Unread.OTHER_CONTENT)
    is_text = b"\0" not in content or content.startswith((b"\xff\xfe", b"\xfe\xff"))
    if promised not in _TEXTS or not is_text:
        raise UnreadError(Unread.OTHER_CONTENT)
    return promised, ""


def _join(pieces: Iterable[str | None]) -> tuple[str, bool]:
    """The pieces, a line each, as far as there is room for them, and whether there is more.

    None among them stands for more than is read.
    """
    kept: list[str] = []
    left = MAX_TEXT_CHARACTERS
    is_cut = False
    for piece in pieces:
        if piece is None:
            is_cut = True
            continue
        kept.append(piece[:left])
        left -= len(piece) + 1
        if left < 0:
            return "\n".join(kept), True
    return "\n".join(kept), is_cut


def _open_archive(content: bytes) -> zipfile.ZipFile:
    """An Office file whose parts are small enough by what it says; no part gives more than it says."""
    archive = zipfile.ZipFile(io.BytesIO(content))
    parts = archive.infolist()
    if any(part.flag_bits & 1 for part in parts):
        raise UnreadError(Unread.ENCRYPTED)
    is_bomb = any(
        part.file_size > max(MAX_SMALL_PART_BYTES, MAX_RATIO * part.compress_size) for part in parts
    )
    if is_bomb or len(parts) > MAX_PARTS or sum(part.file_size for part in parts) > MAX_INFLATED_BYTES:
        raise UnreadError(Unread.TOO_LARGE)
    return archive


def _read_pdf(content: bytes) -> Iterator[str | None]:
    from pypdf import PdfReader  # noqa: PLC0415 - a library for each format: only the one needed is loaded
    from pypdf.errors import LimitReachedError  # noqa: PLC0415 - this format alone

    try:
        reader = PdfReader(io.BytesIO(content))
        # Many are encrypted without a password, only to say what may be done with them.
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadError(Unread.ENCRYPTED)
        for number, page in enumerate(islice(reader.pages, MAX_PAGES + 1)):
            yield page.extract_text() if number < MAX_PAGES else None
    except LimitReachedError:
        raise UnreadError(Unread.TOO_LARGE) from None


def _read_docx(content: bytes) -> Iterator[str]:
    """Paragraphs and table rows of a document, without what is deleted, hidden or there for old readers."""
    with _open_archive(content).open("word/document.xml") as part:
        line: list[str] = []
        cells = 0  # that are open: more than one in a table within a table
        for event, element in _walk_xml(part):
            tag = _drop_namespace(element.tag)
            if tag == "tc":
                cells += 1 if event == "start" else -1
            if event == "start":
                continue
            if tag == "r" and not _is_hidden(element):
                line += [_read_run_part(child) for child in element]
            elif tag == "tc":
                line.append(" | ")
            elif tag == "p" and cells:
                line.append(" ")
            elif tag == "p" or (tag == "tr" and not cells):
                text = "".join(line)
                yield text if tag == "p" else " ".join(text.split()).rstrip(" |")
                line = []
            if tag == "p":
                element.clear()
        yield "".join(line)


def _walk_xml(part: IO[bytes]) -> Iterator[tuple[str, Any]]:
    """The elements of a part as they end, without those for readers that cannot show the first choice."""
    from defusedxml.ElementTree import iterparse  # noqa: PLC0415 - this format alone

    skipped = 0
    for event, element in iterparse(part, events=("start", "end"), forbid_dtd=True):
        is_fallback = element.tag.endswith("}Fallback")
        skipped += (event == "start") - (event == "end") if is_fallback else 0
        if not skipped:
            yield event, element


def _is_hidden(run: Any) -> bool:
    marks = (mark for part in run for mark in part if _drop_namespace(mark.tag) == "vanish")
    return any(not _OFF.intersection(mark.attrib.values()) for mark in marks)


def _drop_namespace(tag: str) -> str:
    return tag.rpartition("}")[2]


def _read_run_part(element: Any) -> str:
    tag = _drop_namespace(element.tag)
    return {"t": element.text or "", "tab": "\t", "br": "\n", "cr": "\n"}.get(tag, "")


def _read_xlsx(content: bytes) -> Iterator[str | None]:
    """The rows of the sheets that are shown, with the values that were calculated when it was saved."""
    from openpyxl import load_workbook  # noqa: PLC0415 - this format alone

    _open_archive(content)
    workbook = load_workbook(io.BytesIO(content), read_only=True, data_only=True, keep_links=False)
    for sheet in workbook.worksheets:
        if sheet.sheet_state != "visible":
            continue
        yield f"Sheet {sheet.title}"
        sheet.reset_dimensions()  # what the file says of them may be wrong
        rows = sheet.iter_rows(max_row=MAX_ROWS + MAX_BLANK_ROWS, values_only=True)
        for number, row in enumerate(rows):
            cells = ["" if cell is None else " ".join(str(cell).split()) for cell in row]
            if number >= MAX_ROWS and any(cells):
                yield None
                break
            if any(cells[MAX_COLUMNS:]):
                yield None
            if any(cells):
                yield " | ".join(cells[:MAX_COLUMNS]).rstrip(" |")


def _read_text(content: bytes, found: Format) -> Iterator[str | None]:
    text = _decode(content)
    if found is Format.ICS:
        return _read_calendar(text)
    if found is Format.HTML:
        page = _VisibleText()
        page.feed(text)
        page.close()
        return (" ".join(line.split()) for line in "".join(page.parts).splitlines() if line.strip())
    return iter(text.splitlines())


def _decode(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        from charset_normalizer import from_bytes  # noqa: PLC0415 - this format alone

        best = from_bytes(content[:GUESSED_BYTES]).best()
        return content.decode(best.encoding if best else "cp1252", "replace")


def _read_calendar(text: str) -> Iterator[str | None]:
    from icalendar import Calendar  # noqa: PLC0415 - this format alone

    for calendar in Calendar.from_ical(text, multiple=True):
        events = calendar.walk("VEVENT")
        yield f"Calendar {calendar.get('METHOD', '')}".strip()
        for event in events[:MAX_EVENTS]:
            for label in ("SUMMARY", "DTSTART", "DTEND", "RRULE", "LOCATION", "ORGANIZER", "STATUS"):
                if label in event:
                    value = getattr(event[label], "dt", event[label])
                    yield f"{label.capitalize()}: {value}"
            yield str(event.get("DESCRIPTION", ""))
        if len(events) > MAX_EVENTS:
            yield None


def _read_picture(content: bytes, media_type: str) -> FileText:
    import imagesize  # noqa: PLC0415 - this format alone

    width, height = imagesize.get(io.BytesIO(content))
    if width <= 0 or height <= 0:
        raise UnreadError(Unread.UNREADABLE)
    if width * height > MAX_PIXELS:
        raise UnreadError(Unread.TOO_LARGE)
    return FileText(Format.PICTURE, media_type=media_type)


class _VisibleText(HTMLParser):
    """The text of a page that a reader sees; `parts` has it."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._silent: list[str] = []  # what is open of an element that is not shown, itself first

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a line, or what is not shown."""
        if self._silent and tag in _ENDED_BY.get(self._silent[0], ()) and not _HOLDERS & {*self._silent}:
            self._silent = []
        values = dict(attrs)
        is_hidden = "hidden" in values or _HIDDEN_STYLE.search(
            "".join((values.get("style") or "").lower().split())
        )
        if self._silent or is_hidden or tag in _SILENT_TAGS:
            self._silent += [tag] if tag not in _VOID_TAGS else []
        elif tag in _LINE_TAGS:
            self.parts.append("\n")
        elif tag in ("td", "th"):
            self.parts.append(" | ")

    def handle_endtag(self, tag: str) -> None:
        """End a line, or what is not shown."""
        if tag in self._silent:
            while self._silent.pop() != tag:
                pass
        elif tag in _LINE_TAGS - _VOID_TAGS:
            if self._silent and self._silent[0] in _ENDED_BY:  # it ends with what it is in
                self._silent = []
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        """Keep what is shown."""
        if not self._silent:
            self.parts.append(data)
