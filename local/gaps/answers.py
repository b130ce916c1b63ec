"""What people answered where the agent could not, and what the customer had written: read, never changed."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import islice

from shared.domain import EmailSummary
from shared.errors import NotFoundError
from shared.ledger.entries import APPROVED_STATUSES, LedgerEntry
from shared.mail.multimail import MultiMailReader
from shared.mail.own_words import split_own_words
from shared.model.prompting import clean_text
from shared.replying.threads import PENDING_INBOUND, has_left, is_answer_of

MAX_ANSWERS = 3  # of a thread, the last ones
MAX_THREAD_EMAILS = 20  # a longer thread is left to people
MAX_THREAD_CHARACTERS = 200_000
# A customer's email in this state was never opened: reading it would mark it as read, or has no text yet.
UNOPENED = ("unread", PENDING_INBOUND, "deleted")


class UnreadableThreadError(Exception):
    """The customer's emails cannot all be read, so no text can be compared with them. Its text says why."""


@dataclass(frozen=True, slots=True)
class Customer:
    """What is the customer's in a thread: their emails' texts, and the headers with names and addresses."""

    texts: tuple[str, ...] = field(repr=False)
    headers: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class HumanAnswer:
    """What people of the company wrote after an email, without what they quote, and the customer's emails."""

    said: tuple[str, ...] = field(repr=False)
    customer: Customer


def list_model_replies(entries: Iterable[LedgerEntry]) -> frozenset[str]:
    """The ids of the replies that a model wrote: what a reviewer wrote and another approved is a person's."""
    replies: set[str] = set()
    for entry in entries:
        # An edited draft that may hold looked-up facts teaches nothing either: they are one customer's.
        is_edit = bool(entry.edited_by) and entry.reply_status in APPROVED_STATUSES and not entry.holds_facts
        if entry.reply_id is not None and not is_edit:
            replies.add(entry.reply_id)
        replies.update(rejection.reply_id for rejection in entry.rejections)
    return frozenset(replies)


def read_answer(
    entry: LedgerEntry, multimail: MultiMailReader, model_replies: Collection[str]
) -> HumanAnswer | None:
    """What people answered to an email in its thread; None where nobody did.

    Nothing that is unread is opened. Raises UnreadableThreadError, and what MultiMail's client raises.
    """
    if entry.thread_id is None:
        return None
    thread = multimail.get_thread(entry.mailbox_id, entry.thread_id)
    answers = [email for email in thread if _answers(email, entry, model_replies)][-MAX_ANSWERS:]
    if not answers:
        return None
    last = max(answer.received_at for answer in answers)
    customer = read_customer(entry, multimail, [email for email in thread if email.received_at <= last])
    read = [multimail.get_email(entry.mailbox_id, answer.id) for answer in answers]
    return HumanAnswer(tuple(_find_said(email.markdown) for email in read), customer)


def _find_said(markdown: str) -> str:
    lines = split_own_words(clean_text(markdown)).own.splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith(">"))


def _answers(email: EmailSummary, entry: LedgerEntry, model_replies: Collection[str]) -> bool:
    is_edit = email.id == entry.reply_id  # it answers this email, however soon
    return (
        email.direction == "outbound"
        and email.id not in model_replies
        and has_left(email)
        and (is_edit or is_answer_of(entry, email))
    )


def read_customer(
    entry: LedgerEntry, multimail: MultiMailReader, thread: Collection[EmailSummary] | None = None
) -> Customer:
    """The received emails of a thread; the row's email alone where the thread has no id.

    Raises UnreadableThreadError, and what MultiMail's client raises.
    """
    if thread is None:
        thread = multimail.get_thread(entry.mailbox_id, entry.thread_id) if entry.thread_id else ()
    received = {email.id: email.status for email in thread if email.direction == "inbound"}
    received.setdefault(entry.email_id, "read")
    if len(received) > MAX_THREAD_EMAILS:
        raise UnreadableThreadError(f"its thread has more than {MAX_THREAD_EMAILS} emails")
    if any(status in UNOPENED for status in received.values()):
        raise UnreadableThreadError("an email of its thread is unread")
    try:
        emails = [multimail.get_email(entry.mailbox_id, id_) for id_ in islice(received, MAX_THREAD_EMAILS)]
    except NotFoundError:
        raise UnreadableThreadError("an email of its thread is gone") from None
    if sum(len(email.markdown) for email in emails) > MAX_THREAD_CHARACTERS:
        raise UnreadableThreadError(f"its thread has more than {MAX_THREAD_CHARACTERS:,} characters")
    headers = [header for email in emails for header in (email.sender, *email.to, *email.cc)]
    texts = (f"{email.subject}\n{email.markdown}" for email in emails)
    return Customer(tuple(map(clean_text, texts)), tuple(map(clean_text, headers)))
