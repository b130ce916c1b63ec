"""The text in a file, for the child alone. Macros are never run and formulas never calculated.

Each reader gives pieces of text, a line or more each, and None wherever the file shows more than it reads.
"""

import io
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from shared.attachments.formats import FileText, Format, Unread, UnreadError
from shared.attachments.office import find_main_part, open_archive, read_docx, read_xlsx
from shared.attachments.page import read_page

MAX_TEXT_CHARACTERS = 60_000
MAX_PAGES = 50
MAX_EVENTS = 50  # of a calendar, tasks and notes among them
MAX_PIXELS = 25_000_000
MIN_SEEN_PIXELS = 250_000  # of a picture on a page of text: a logo has fewer
MAX_DRAWN = 1_000  # things of a page that are looked through for such pictures
GUESSED_BYTES = 20_000  # of a text in no known encoding

_PICTURES = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"))
_TEXTS = frozenset({Format.CSV, Format.TXT, Format.HTML, Format.ICS})
_ENTRIES = frozenset({"VEVENT", "VTODO", "VJOURNAL"})
_UNREAD_ENTRIES = frozenset({"VFREEBUSY"})
_LABELS = (
    "SUMMARY", "DTSTART", "DTEND", "DUE", "DURATION", "RRULE", "LOCATION", "ORGANIZER", "ATTENDEE", "STATUS",
    "CATEGORIES", "CONTACT", "URL", "COMMENT", "DESCRIPTION",
)  # fmt: skip


def read_file(content: bytes, promised: Format) -> FileText:
    """The text of a file that its name or content type promises to be of a format.

    One whose content says something else is not read: a person who opens it by its name sees something else.
    Raises UnreadError, and whatever the libraries raise at a file that is broken.
    """
    if not content:
        raise UnreadError(Unread.NO_TEXT)
    found, media_type = _find_format(content)
    if found is not (Format.TXT if promised in _TEXTS else promised):
        raise UnreadError(Unread.OTHER_CONTENT)
    if found is Format.PICTURE:
        _check_picture(content)
        return FileText(media_type=media_type)
    read = {Format.PDF: _read_pdf, Format.DOCX: read_docx, Format.XLSX: read_xlsx}
    pieces = read[found](content) if found in read else _read_text(content, promised)
    text, is_cut = _join(pieces)
    if not text.strip():
        raise UnreadError(Unread.NO_TEXT)
    return FileText(text, is_cut)


def _find_format(content: bytes) -> tuple[Format | None, str]:
    """What the first bytes of a file say it is, TXT for any text, and a picture's media type."""
    for magic, media_type in _PICTURES:
        if content.startswith(magic):
            return Format.PICTURE, media_type
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return Format.PICTURE, "image/webp"
    if content[:64].removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"%PDF-"):
        return Format.PDF, ""
    if content.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):  # what Office wraps an encrypted file in
        is_encrypted = "EncryptedPackage".encode("utf-16-le") in content
        raise UnreadError(Unread.ENCRYPTED if is_encrypted else Unread.OTHER_CONTENT)
    if content.startswith(b"PK\x03\x04"):
        folder = find_main_part(open_archive(content)).partition("/")[0]
        return {"word": Format.DOCX, "xl": Format.XLSX}.get(folder), ""
    is_text = b"\0" not in content or content.startswith((b"\xff\xfe", b"\xfe\xff"))
    return (Format.TXT if is_text else None), ""


def _join(pieces: Iterable[str | None]) -> tuple[str, bool]:
    """The pieces, a line each, as far as there is room for them, and whether there is more."""
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


def _read_pdf(content: bytes) -> Iterator[str | None]:
    """The pages' texts. One without text may be scanned; what is filled in or stamped is no text."""
    from pypdf import PdfReader  # noqa: PLC0415 - a library for each format: only the one needed is loaded
    from pypdf.errors import LimitReachedError  # noqa: PLC0415 - this format alone

    try:
        reader = PdfReader(io.BytesIO(content))
        # Many are encrypted without a password, only to say what may be done with them.
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadError(Unread.ENCRYPTED)
        for number, page in enumerate(islice(reader.pages, MAX_PAGES + 1)):
            text = page.extract_text() if number < MAX_PAGES else ""
            if text.strip():
                yield text
            if not text.strip() or _has_notes(page) or _has_large_picture(page):
                yield None
    except LimitReachedError:
        raise UnreadError(Unread.TOO_LARGE) from None


def _has_notes(page: Any) -> bool:
    notes = (note.get_object() for note in page.annotations or ())
    return any(_get(note, "/Subtype") not in ("/Link", "/Popup") for note in notes)


def _has_large_picture(page: Any) -> bool:
    """Whether a picture of the page, or of what it is composed of, is large enough to show something."""
    waiting = [page]
    for _ in range(MAX_DRAWN):
        if not waiting:
            return False
        drawn = _get(_get(waiting.pop(), "/Resources"), "/XObject")
        for name in drawn if isinstance(drawn, dict) else ():
            part = _get(drawn, name)
            sides = _get(part, "/Width"), _get(part, "/Height")
            if _get(part, "/Subtype") == "/Form":
                waiting.append(part)
            elif all(isinstance(side, int) for side in sides) and sides[0] * sides[1] >= MIN_SEEN_PIXELS:
                return True
    return True  # that much is not looked through


def _get(holder: Any, key: str) -> Any:
    return holder[key] if isinstance(holder, dict) and key in holder else None


def _read_text(content: bytes, promised: Format) -> Iterator[str | None]:
    text = _decode(content)
    if promised is Format.ICS:
        return _read_calendar(text)
    return read_page(text) if promised is Format.HTML else iter(text.splitlines())


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
        entries = [part for part in calendar.walk() if part.name in _ENTRIES]
        if entries:
            yield f"Calendar {calendar.get('METHOD', '')}".strip()
        for entry in entries[:MAX_EVENTS]:
            yield from _list_properties(entry)
        if len(entries) > MAX_EVENTS or any(part.name in _UNREAD_ENTRIES for part in calendar.walk()):
            yield None


def _list_properties(entry: Mapping[str, Any]) -> Iterator[str | None]:
    for label in _LABELS:
        found = entry.get(label, [])
        for value in found if isinstance(found, list) else [found]:
            shown = value if isinstance(value, str) else getattr(value, "dt", None)
            yield f"{label.capitalize()}: {value.to_ical().decode() if shown is None else shown}"
    if "ATTACH" in entry:
        yield None


def _check_picture(content: bytes) -> None:
    import imagesize  # noqa: PLC0415 - this format alone

    width, height = imagesize.get(io.BytesIO(content))
    if width <= 0 or height <= 0:
        raise UnreadError(Unread.UNREADABLE)
    if width * height > MAX_PIXELS:
        raise UnreadError(Unread.TOO_LARGE)
