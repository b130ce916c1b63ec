"""Reading what is attached to one email: which files are fetched, in what order, and until when."""

import logging
import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from shared.attachments.documents import ReadAttachment
from shared.attachments.download import get_bounded
from shared.attachments.extraction import MAX_SECONDS, extract_text, take_child
from shared.attachments.formats import (
    MAX_LISTED,
    FileText,
    Format,
    Unread,
    UnreadError,
    promised_format,
)
from shared.attachments.transfer import Download, read_answer
from shared.domain import Attachment, Email
from shared.errors import ConfigurationError, PermanentError, ThrottledError, TransientError
from shared.mail.multimail import MultiMailReader
from shared.model.chat import Picture

MAX_FILES = 5
MAX_FILE_BYTES = 10_000_000
MAX_PICTURES = 3
MAX_PICTURE_BYTES = 3_000_000
MAX_LOGO_BYTES = 20_000
MAX_TOGETHER_SECONDS = 60.0  # for all files of an email: its lease lasts ten minutes
# As mail programs name what stands in a signature. The service does not say which files stand in the text.
_LOGO = re.compile(r"image\d{3}|outlook-\w+")


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AttachmentReader:
    """Reads the attachments of emails. Nothing of them is kept."""

    multimail: MultiMailReader
    download: Download = get_bounded
    monotonic: Callable[[], float] = time.monotonic
    take_child: Callable[[], AbstractContextManager[None]] = take_child

    def read(self, mailbox_id: str, email: Email, *, images: bool = False) -> tuple[ReadAttachment, ...]:
        """Read each attachment of an email, in their order; one that cannot be read says why.

        The last one stands for all that are beyond MAX_LISTED.
        `images`: whether pictures are fetched for a model that takes them. Raises ThrottledError only, also
        while other emails' files keep all children busy: what else goes wrong with a file, MultiMail's
        refusal included, costs the email nothing but that file. One slow file ends the reading of the rest.
        """
        files = _Files(self, mailbox_id, email, images=images)
        read: list[ReadAttachment] = []
        listed = enumerate(email.attachments[:MAX_LISTED], 1)
        for number, attachment in sorted(listed, key=lambda numbered: _is_logo(numbered[1])):
            try:
                file, picture = files.take(attachment)
                read.append(ReadAttachment(number, attachment.name, file.text, file.is_cut, picture=picture))
            except UnreadError as error:
                files.is_slow |= error.why is Unread.TOOK_TOO_LONG
                read.append(ReadAttachment(number, attachment.name, unread=error.why))
        read.sort(key=lambda attachment: attachment.number)
        more = len(email.attachments) - MAX_LISTED
        if more > 0:
            read.append(ReadAttachment(MAX_LISTED + 1, f"{more} more", unread=Unread.NOT_LISTED))
        return tuple(read)


def _is_logo(attachment: Attachment) -> bool:
    """Whether it looks like what stands in a signature: it is taken last."""
    stem = attachment.name.lower().rpartition(".")[0]
    is_named_so = "logo" in stem or _LOGO.fullmatch(stem) is not None
    is_picture = promised_format(attachment.name, attachment.content_type) is Format.PICTURE
    return is_picture and is_named_so and 0 < attachment.size <= MAX_LOGO_BYTES


class _Files:
    """The files of one email, as far as they are taken."""

    def __init__(self, reader: AttachmentReader, mailbox_id: str, email: Email, *, images: bool) -> None:
        self._reader, self._mailbox_id, self._email_id, self._images = reader, mailbox_id, email.id, images
        self._listed = Counter(attachment.name for attachment in email.attachments)
        self._contents: dict[str, bytes] = {}  # by name, not taken yet
        self._names: set[str] = set()
        self._pictures = self._others = 0  # that were fetched
        self._ends_at = reader.monotonic() + MAX_TOGETHER_SECONDS  # later by each waiting for a child
        self.is_slow = False  # one took too long

    def take(self, attachment: Attachment) -> tuple[FileText, Picture | None]:
        """What is in a file, if it is to be read. Raises UnreadError and ThrottledError."""
        promised = self._judge(attachment)
        is_picture = promised is Format.PICTURE
        self._pictures += is_picture
        self._others += not is_picture
        content = self._fetch(attachment, MAX_PICTURE_BYTES if is_picture else MAX_FILE_BYTES)
        waits_from = self._reader.monotonic()
        with self._reader.take_child():
            self._ends_at += self._reader.monotonic() - waits_from
            file = extract_text(content, promised, min(MAX_SECONDS, self._left()))
        return file, Picture(file.media_type, content) if is_picture else None

    def _judge(self, attachment: Attachment) -> Format:
        """What a file promises to be, if that is read. Raises UnreadError for all that needs no bytes."""
        promised = promised_format(attachment.name, attachment.content_type)
        # What is JSON could not be told from MultiMail's own answer.
        if promised is None or "json" in attachment.content_type.lower():
            raise UnreadError(Unread.NO_TYPE)
        is_picture = promised is Format.PICTURE
        if is_picture and not self._images:
            raise UnreadError(Unread.LOGO if _is_logo(attachment) else Unread.PICTURE)
        if attachment.size > (MAX_PICTURE_BYTES if is_picture else MAX_FILE_BYTES):
            raise UnreadError(Unread.TOO_LARGE)
        if (self._pictures >= MAX_PICTURES) if is_picture else (self._others >= MAX_FILES):
            raise UnreadError(Unread.LOGO if is_picture and _is_logo(attachment) else Unread.TOO_MANY)
        if self.is_slow or self._left() <= 0:
            raise UnreadError(Unread.AFTER_SLOW)
        return promised

    def _left(self) -> float:
        return self._ends_at - self._reader.monotonic()

    def _fetch(self, attachment: Attachment, max_bytes: int) -> bytes:
        """The bytes of a file, which the service finds by its name alone.

        Of several with one name it gives the same one each time: the first here whose size matches gets it.
        """
        name = attachment.name
        if name not in self._names:
            self._names.add(name)
            try:
                answer = self._reader.multimail.get_attachment(self._mailbox_id, self._email_id, name)
            except ThrottledError:
                raise
            except (ConfigurationError, PermanentError, TransientError) as error:
                log.warning("MultiMail gave no attachment: %s", type(error).__name__)
                raise UnreadError(Unread.NOT_FETCHED) from None
            self._contents[name] = read_answer(answer, max_bytes, self._reader.download)
        content = self._contents.get(name)
        if content is None or (self._listed[name] > 1 and attachment.size not in (0, len(content))):
            raise UnreadError(Unread.SAME_NAME)
        del self._contents[name]
        return content
