"""Past mail: which emails can be tried, and each of them as it was when it arrived."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from shared.domain import Email, EmailSummary, Mailbox, WorkItem
from shared.errors import TransientError
from shared.mail.multimail import MultiMailReader

UNREAD = "unread"
# What a person did with it later does not count.
LATER_STATUSES = ("archived", "deleted")
LEFT_OUT = {
    UNREAD: "unread: to read it would mark it as read",
    "pending_inbound_approval": "waiting for inbound approval",
    "rejected": "refused at inbound approval",
    "cancelled": "refused at inbound approval",
}
NOT_LISTED = "not listed by MultiMail, which has too many of one second or cannot show them"


@dataclass(frozen=True, slots=True)
class PastEmail:
    """An email that arrived in a mailbox, as the listing shows it now."""

    mailbox: Mailbox
    summary: EmailSummary

    @property
    def work_item(self) -> WorkItem:
        """Names the email."""
        return WorkItem(self.mailbox.id, self.summary.id)


@dataclass(frozen=True, slots=True)
class PastMail:
    """The emails that can be tried, the oldest first, how many are left out and why, and what was sent."""

    emails: tuple[PastEmail, ...]
    left_out: Counter[str]
    sent: tuple[EmailSummary, ...]


class PastReader(MultiMailReader):
    """Reads an account as it was when one email had just arrived: what came later is not there.

    It reads no unread email: MultiMail would mark it as read.
    """

    def __init__(self, reader: MultiMailReader, email: PastEmail) -> None:
        self._key, self._connection = reader._key, reader._connection  # it is the same account
        self._email = email

    def get_email(self, mailbox_id: str, email_id: str) -> Email:
        """Get one email; the one that had just arrived had been touched by nobody."""
        found = super().get_email(mailbox_id, email_id)
        is_own = email_id == self._email.summary.id
        return replace(found, status="read") if is_own and found.status in LATER_STATUSES else found

    def get_thread(self, mailbox_id: str, thread_id: str) -> tuple[EmailSummary, ...]:
        """Get what the thread had then."""
        own = self._email.summary
        return tuple(
            email
            for email in super().get_thread(mailbox_id, thread_id)
            if email.id == own.id or (email.received_at < own.received_at and email.status != UNREAD)
        )


def read_past_mail(reader: MultiMailReader, mailboxes: Iterable[Mailbox], since: datetime) -> PastMail:
    """List what these mailboxes received from `since` on. Reads no email. Raises what the reader raises."""
    emails: list[PastEmail] = []
    sent: list[EmailSummary] = []
    left_out = Counter[str]()
    for mailbox in mailboxes:
        listed: list[EmailSummary] = []
        own: list[EmailSummary] = []
        for found, direction in ((listed, "inbound"), (own, "outbound")):
            try:
                found.extend(reader.list_emails(mailbox.id, direction=direction, date_after=since))
            except TransientError as error:
                if not found:  # nothing at all could be listed
                    raise
                left_out[f"{NOT_LISTED} ({type(error).__name__})"] += 1
        sent += own
        for summary in listed:
            if summary.status in LEFT_OUT:
                left_out[LEFT_OUT[summary.status]] += 1
            else:
                emails.append(PastEmail(mailbox, summary))
    emails.sort(key=lambda email: email.summary.received_at)
    return PastMail(tuple(emails), left_out, tuple(sorted(sent, key=lambda email: email.received_at)))
