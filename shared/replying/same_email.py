"""The same email in two of our mailboxes, or delivered twice: one copy is worked on, the others name it."""

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from hashlib import sha256

from shared.domain import (
    Cause,
    Decision,
    Email,
    Mailbox,
    Outcome,
    base_address,
    parse_address,
    parse_work_item,
)
from shared.errors import LeaseLostError
from shared.knowledge.words import fold
from shared.ledger.entries import LedgerEntry
from shared.ledger.ledger import Ledger
from shared.replying.claim import SLOT_TAKEN_SECONDS, Waiting

SAME_WITHIN = timedelta(hours=24)
NAMED_COPY_SECONDS = 60.0  # in which the polls find the copies in all mailboxes


def compute_fingerprint(sender: str, email: Email) -> str:
    """The same for emails of one sender with the same subject and text, whatever their case and spaces."""
    return sha256(json.dumps([sender, fold(email.subject), fold(email.markdown)]).encode()).hexdigest()


def find_copy(
    entry: LedgerEntry,
    email: Email,
    watched: Iterable[Mailbox],
    ledger: Ledger,
    get_email: Callable[[str, str], Email],
) -> Decision | None:
    """Say which other copy of the row's email is worked on.

    The first copy that is noted is worked on; one in a mailbox that To does not name waits a little first.
    What was sent again after the answer to the first had left is no copy: the sender still waits.
    `get_email` reads an email of a mailbox; what it raises is raised.
    """
    scope, own = _name_scope(entry), entry.work_item.to_json()
    noted = ledger.slots(scope)
    if own not in noted:
        to = {base_address(parse_address(address)) for address in email.to}
        named = {mailbox.id for mailbox in watched if parse_address(mailbox.address) in to}
        is_aside = bool(named) and entry.mailbox_id not in named
        if is_aside and entry.waiting_for is not Cause.NAMED_COPY:
            raise Waiting(Cause.NAMED_COPY, seconds=NAMED_COPY_SECONDS)
        if not ledger.take_slot(scope, own, noted):
            raise Waiting(Cause.SLOT_TAKEN, seconds=SLOT_TAKEN_SECONDS)
        noted = (*noted, own)
    for item in noted[: noted.index(own)]:
        row = ledger.get(parse_work_item(item.encode()))
        if row is None or abs(row.received_at - entry.received_at) > SAME_WITHIN:
            continue
        reply = get_email(row.mailbox_id, row.reply_id) if row.reply_id else None
        left_at = (reply.approved_at or reply.delivered_at) if reply else None
        is_late = left_at is not None and left_at <= entry.received_at
        if not is_late and (row.outcome is None or _is_seen(row)):
            return Decision(Outcome.SKIPPED, Cause.SAME_EMAIL, _name_row(row))
    return None


def reopen_copies(entry: LedgerEntry, ledger: Ledger, now: datetime) -> None:
    """Set the copies that name this row back to open, if it ends where neither sender nor person sees it."""
    if not entry.fingerprint or _is_seen(entry):
        return
    for item in ledger.slots(_name_scope(entry)):
        row = ledger.get(parse_work_item(item.encode()))
        if row is None or row.cause is not Cause.SAME_EMAIL or row.detail != _name_row(entry):
            continue
        if row.finished_at and not row.erased_at:
            with suppress(LeaseLostError):  # another copy has done it
                ledger.defer(row.judged_again(now))


def drop_copies(entry: LedgerEntry, ledger: Ledger) -> None:
    """Forget which copies of a row's email there are, unless the ledger still knows another one of them."""
    if not entry.fingerprint:
        return
    scope = _name_scope(entry)
    others = [parse_work_item(item.encode()) for item in ledger.slots(scope)]
    rows = [ledger.get(item) for item in others if item != entry.work_item]
    if all(row is None or row.erased_at for row in rows):
        ledger.drop_slots(scope)


def _name_row(row: LedgerEntry) -> str:
    return f"{row.email_id} of mailbox {row.mailbox_id}"


def _name_scope(entry: LedgerEntry) -> str:
    return f"same/{entry.fingerprint}"


def _is_seen(row: LedgerEntry) -> bool:
    """Whether a decided row ended with an answer, before a person, or as mail that needs none."""
    if row.outcome is Outcome.SKIPPED:
        return row.cause in (Cause.ANSWERED, Cause.COVERED)
    return row.outcome is not Outcome.FAILED
