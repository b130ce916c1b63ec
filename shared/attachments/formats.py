"""What an attachment is by its name and content type, and what becomes of it."""

from dataclasses import dataclass
from enum import StrEnum

MAX_LISTED = 50  # attachments that are told apart: what becomes of them is kept in the email's row


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


# Without these, a file is not even fetched. One whose content is something else is not read.
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


class UnreadError(Exception):
    """A file that is not read; `why` says why not."""

    def __init__(self, why: Unread) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, slots=True)
class FileText:
    """What was found in a file: its text, or that it is a picture, by its media type.

    `is_cut`: the file shows more than the text.
    """

    text: str = ""
    is_cut: bool = False
    media_type: str = ""


def promised_format(name: str, content_type: str) -> Format | None:
    """What a file's name says it is, or else its content type; None for a type that is not read."""
    ending = name.rpartition(".")[2].strip().lower()
    return BY_ENDING.get(ending) or BY_CONTENT_TYPE.get(content_type.partition(";")[0].strip().lower())
