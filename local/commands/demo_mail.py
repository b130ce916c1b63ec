"""The demo's mail: two mailboxes of a small company and what arrived in them today."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

from pypdf import PdfWriter
from pypdf.generic import ContentStream, DictionaryObject, NameObject

from local.multimail.emails import Attachment
from local.multimail.state import MultiMailAccount

_PDF_MARKS = str.maketrans({mark: f"\\{mark}" for mark in "()\\"})


@dataclass(frozen=True, slots=True)
class DemoMailbox:
    """A mailbox of the company; `name` is its id."""

    name: str
    address: str
    display_name: str
    oversight_mode: str


@dataclass(frozen=True, slots=True)
class DemoAttachment:
    """A file on an email: a PDF with a `text`, a web page under whatever name, or `size` bytes of zeros."""

    name: str
    content_type: str
    size: int = 0
    text: str = ""
    page: str = ""

    def build(self) -> Attachment:
        """The file as it was sent."""
        content = build_pdf(self.text.splitlines()) if self.text else self.page.encode() or bytes(self.size)
        return Attachment(self.name, self.content_type, content)


@dataclass(frozen=True, slots=True)
class DemoEmail:
    """One email of the story: received from `sender`, or sent by a person at the company to `answer_to`."""

    mailbox: str
    minutes_ago: int
    subject: str
    markdown: str
    sender: str = ""
    answer_to: str = ""
    thread: str | None = None
    spam_verdict: str = "clean"
    attachments: tuple[DemoAttachment, ...] = ()


def seed_demo(account: MultiMailAccount, now: datetime) -> None:
    """Put the mailboxes and their mail, received over the last hours before `now`, into an account."""
    for mailbox in DEMO_MAILBOXES:
        account.add_mailbox(
            mailbox.address,
            mailbox.oversight_mode,
            mailbox_id=mailbox.name,
            display_name=mailbox.display_name,
        )
    add_emails(account, DEMO_EMAILS, now)


def add_emails(account: MultiMailAccount, emails: Iterable[DemoEmail], now: datetime) -> None:
    """Put emails, each as old as it is before `now`, into an account that has their mailboxes."""
    for email in sorted(emails, key=lambda email: -email.minutes_ago):
        received_at = now - timedelta(minutes=email.minutes_ago)
        if email.answer_to:
            account.add_outbound(
                email.mailbox, [email.answer_to], email.subject, email.markdown,
                thread_id=email.thread, received_at=received_at,
            )  # fmt: skip
        else:
            account.deliver(
                email.mailbox, email.sender, email.subject, email.markdown,
                received_at=received_at, thread_id=email.thread, spam_verdict=email.spam_verdict,
                attachments=[attachment.build() for attachment in email.attachments],
            )  # fmt: skip


def build_pdf(lines: Iterable[str]) -> bytes:
    """One page with these lines of ASCII, as an office program would print them."""
    writer = PdfWriter()
    page = writer.add_blank_page(width=595, height=842)  # A4
    font = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Courier"}
    font_object = DictionaryObject({NameObject(key): NameObject(value) for key, value in font.items()})
    fonts = DictionaryObject({NameObject("/F1"): font_object})
    page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
    shown = " ".join(f"({line.translate(_PDF_MARKS)}) Tj T*" for line in lines)
    content = ContentStream(None, writer)
    content.set_data(f"BT /F1 10 Tf 14 TL 56 770 Td {shown} ET".encode("ascii"))
    page.replace_contents(content)
    written = BytesIO()
    writer.write(written)
    return written.getvalue()


def _load_emails(raw: list[dict[str, Any]]) -> tuple[DemoEmail, ...]:
    return tuple(
        DemoEmail(
            mailbox=email.get("mailbox", "support"),
            minutes_ago=email["minutes_ago"],
            subject=email["subject"],
            markdown=email["body"] + _build_log(email.get("log_lines", 0)),
            sender=email.get("from", ""),
            answer_to=email.get("answer_to", ""),
            thread=email.get("thread"),
            spam_verdict=email.get("spam", "clean"),
            attachments=tuple(DemoAttachment(**attachment) for attachment in email.get("attachments", ())),
        )
        for email in raw
    )


def _build_log(lines: int) -> str:
    """What a logger writes every thirty seconds of a night in which it loses its link now and then."""
    return "".join(
        f"{line // 120:02}:{line // 2 % 60:02}:{line % 2 * 30:02} T2-11873 seq={40_000 + line} "
        f"temp={21.2 + line % 7 / 10:.1f}C rh={43 + line % 5}% batt=3.91V rssi=-{68 + line % 11}dBm "
        f"link={'up' if line % 97 else 'lost'}\n"
        for line in range(lines)
    )


_RAW = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
DEMO_MAILBOXES = tuple(DemoMailbox(**mailbox) for mailbox in _RAW["mailbox"])
DEMO_EMAILS = _load_emails(_RAW["email"])
UNANSWERED_EMAILS = _load_emails(_RAW["unanswered"])
LATE_ANSWERS = _load_emails(_RAW["late_answer"])
