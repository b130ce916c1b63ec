"""The text in Office files, for the child alone: ZIP archives of XML parts."""

import io
import zipfile
from collections.abc import Iterator
from typing import IO, Any

from shared.attachments.formats import Unread, UnreadError

MAX_ROWS = 1_000  # of a sheet
MAX_COLUMNS = 40
MAX_BLANK_ROWS = 1_100_000  # of a file, looked through for more: a sheet has room for 1,048,576
MAX_PARTS = 2_000
MAX_INFLATED_BYTES = 60_000_000  # of all parts together
MAX_RATIO = 200  # of a part to what it takes in the archive; text is packed to a twentieth
MAX_SMALL_PART_BYTES = 1_000_000  # whatever their ratio

_OFF = frozenset({"0", "false", "off"})  # the value of a mark that does not hold
_BESIDE = ("word/header", "word/footer", "word/footnotes.", "word/endnotes.")  # read after the text itself
_GONE = frozenset({"Fallback", "del", "moveFrom"})  # for old readers, deleted, or moved to where it is read
_UNREAD = frozenset(
    {"blip", "imagedata", "chart", "relIds", "OLEObject", "altChunk", "subDoc", "control", "commentReference"}
)
_SIGNS = {"tab": "\t", "ptab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
_PRIVATE_SIGNS = range(0xE000, 0xF900)  # whose look only their font knows
# Drawings, pictures and text boxes among them, and comments.
_UNREAD_PARTS = (
    "xl/drawings/", "xl/media/", "xl/comments", "xl/threadedComments/", "xl/chartsheets/", "xl/embeddings/",
)  # fmt: skip


def open_archive(content: bytes) -> zipfile.ZipFile:
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
    if len({part.filename.lower() for part in parts}) < len(parts):  # of two, another program reads the other
        raise UnreadError(Unread.UNREADABLE)
    return archive


def find_main_part(archive: zipfile.ZipFile) -> str:
    """The part that programs open; its folder says which one's file it is."""
    from defusedxml.ElementTree import iterparse  # noqa: PLC0415 - Office files alone

    if "_rels/.rels" not in archive.namelist():
        return "word/document.xml" if "word/document.xml" in archive.namelist() else "xl/workbook.xml"
    with archive.open("_rels/.rels") as part:
        relations = [element for _, element in iterparse(part, forbid_dtd=True)]
    main = (part for part in relations if part.get("Type", "").endswith("/officeDocument"))
    return next((part.get("Target", "") for part in main), "").lstrip("/")


def read_docx(content: bytes) -> Iterator[str | None]:
    """The text of a document, then that of its headers, footers and notes, whose pictures are logos."""
    with open_archive(content) as archive:
        with archive.open(find_main_part(archive)) as part:
            yield from _read_part(part)
        for name in archive.namelist():
            if name.startswith(_BESIDE):
                with archive.open(name) as part:
                    yield from (piece for piece in _read_part(part) if piece and piece.strip())


def _read_part(part: IO[bytes]) -> Iterator[str | None]:
    """Paragraphs and table rows, a line each, as a reader sees them."""
    line: list[str] = []
    cells = 0  # that are open: more than one in a table within a table
    for event, tag, element in _walk_shown(part):
        if tag == "tc":
            cells += 1 if event == "start" else -1
        if event == "start":
            continue
        if tag in _UNREAD or (tag == "sym" and not _read_sign(element)):
            yield None
        elif tag == "r":
            line += map(_read_sign, element)
        elif tag == "tc":
            line.append(" | ")
        elif tag == "tr" and not cells:
            yield " ".join("".join(line).split()).rstrip(" |")
            line = []
        elif tag == "p":
            if cells:
                line.append(" ")
            else:
                yield "".join(line)
                line = []
            element.clear()
    yield "".join(line)


def _walk_shown(part: IO[bytes]) -> Iterator[tuple[str, str, Any]]:
    """The elements of a part as they begin and end, without what is hidden, deleted or for old readers."""
    from defusedxml.ElementTree import iterparse  # noqa: PLC0415 - this format alone

    above: list[str] = []  # what is open
    gone = 0  # as many are open within which nothing is shown; 0 for none
    for event, element in iterparse(part, events=("start", "end"), forbid_dtd=True):
        tag = element.tag.rpartition("}")[2]
        if event == "start":
            above.append(tag)
            gone = gone or (len(above) if tag in _GONE else 0)
        if not gone:
            yield event, tag, element
        if event == "end":
            if gone == len(above):
                gone = 0
            above.pop()
            if not gone and _hides(tag, element, above):
                gone = len(above)


def _hides(tag: str, element: Any, above: list[str]) -> bool:
    """Whether these are properties of a run or table row that is not shown; they come first in it."""
    parent = above[-1] if above else ""
    marks = {("rPr", "r"): ("vanish",), ("trPr", "tr"): ("del", "hidden")}.get((tag, parent), ())
    found = (mark for mark in element if mark.tag.rpartition("}")[2] in marks)
    return any(not _OFF.intersection(mark.attrib.values()) for mark in found)


def _read_sign(element: Any) -> str:
    """What a part of a run shows: text or one sign; "" for a sign that only its font knows."""
    tag = element.tag.rpartition("}")[2]
    if tag == "t":
        return element.text or ""
    if tag == "sym":
        code = next((value for key, value in element.attrib.items() if key.endswith("char")), "")
        number = int(code or "0", 16)
        return "" if not number or number in _PRIVATE_SIGNS else chr(number)
    return _SIGNS.get(tag, "")


def read_xlsx(content: bytes) -> Iterator[str | None]:
    """The rows of the sheets that are shown, with the values that were calculated when it was saved."""
    from openpyxl import load_workbook  # noqa: PLC0415 - this format alone

    if any(name.startswith(_UNREAD_PARTS) for name in open_archive(content).namelist()):
        yield None
    # Once with the values, once with the formulas: a formula without a value looks like a blank cell.
    shown, written = (
        load_workbook(io.BytesIO(content), read_only=True, data_only=is_shown, keep_links=False).worksheets
        for is_shown in (True, False)
    )
    blank_rows = 0
    for sheet, formulas in zip(shown, written, strict=True):
        if sheet.sheet_state != "visible":
            continue
        for read_only in (sheet, formulas):
            read_only.reset_dimensions()  # what the file says of them may be wrong
        heading = [f"Sheet {sheet.title}"]
        rows = sheet.iter_rows(max_row=MAX_ROWS, max_col=MAX_COLUMNS)
        sources = formulas.iter_rows(max_row=MAX_ROWS, values_only=True)
        for row, source in zip(rows, sources, strict=True):
            cells = ["" if cell.value is None else " ".join(str(cell.value).split()) for cell in row]
            is_wider = any(value is not None for value in source[MAX_COLUMNS:])
            if is_wider or any(map(_has_no_value, row, source)):
                yield None
            if any(cells):
                yield from heading
                heading = []
                yield " | ".join(cells).rstrip(" |")
        for row in formulas.iter_rows(min_row=MAX_ROWS + 1, values_only=True):
            blank_rows += 1
            if blank_rows > MAX_BLANK_ROWS or any(cell is not None for cell in row):
                yield None
                break


def _has_no_value(cell: Any, source: Any) -> bool:
    """Whether a cell has a formula that was never calculated; of one that gives "" the type is stored."""
    return source is not None and cell.value is None and cell.data_type != "str"
