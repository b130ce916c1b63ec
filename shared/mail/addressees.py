"""Whom an email is addressed to, and who else was in the conversation, as its sender says."""

from collections.abc import Collection

from shared.domain import Email, Mailbox, base_address, parse_address
from shared.mail.machine_mail import is_machine_sender

MAX_COPIES = 10
MAX_SHOWN = 10  # addresses in a note for the approver
MAX_LONG = 254  # RFC 5321, 4.5.3.1.3, without its brackets


def find_others(email: Email, ours: Collection[str]) -> tuple[str, ...]:
    """The bare addresses in To and Cc that are neither ours nor the sender's, each once."""
    known = {*ours, base_address(parse_address(email.sender))}
    named = dict.fromkeys(filter(None, map(parse_address, (*email.to, *email.cc))))
    return tuple(name for name in named if base_address(name) not in known)


def is_for_others(email: Email, ours: Collection[str]) -> bool:
    """Say whether To and Cc name people, and none of our addresses; not of what cannot be read."""
    values = [parse_address(value) for value in (*email.to, *email.cc)]
    return all(values) and bool(values) and not any(base_address(name) in ours for name in values)


def choose_copies(others: Collection[str], domains: Collection[str]) -> tuple[str, ...]:
    """Those of the others whom a profile's `reply_all` keeps in copy: the people of its domains.

    Nobody, when they are too many to be a conversation.
    """
    people = [name for name in others if name.rpartition("@")[2] in domains and not is_machine_sender(name)]
    return tuple(people) if len(people) <= MAX_COPIES else ()


def asks_elsewhere(email: Email) -> bool:
    """Whether its Reply-To is not its sender alone: the contract does not say who gets the reply."""
    named = email.headers.get("reply-to", "").strip()
    return bool(named) and _read_reply_to(email) != parse_address(email.sender)


def _read_reply_to(email: Email) -> str:
    """Its Reply-To, or "" where it is not one address and no other "@"."""
    named = email.headers.get("reply-to", "")
    return parse_address(named) if named.count("@") == 1 else ""


def build_notes(email: Email, mailbox: Mailbox, others: Collection[str]) -> tuple[str, ...]:
    """What the approver of a reply has to know of who wrote, who read and who gets copies, in sentences."""
    reply_to = _read_reply_to(email)
    lists: dict[str, Collection[str]] = {
        "The email was also addressed to": others,
        "MultiMail sends copies to": mailbox.copies,
        "The email asks for replies to another address": [reply_to] if reply_to else [],
    }
    sender = parse_address(email.sender)
    notes = []
    for text, addresses in lists.items():
        known = [address for address in addresses if address != sender]
        shown = [a for a in known[:MAX_SHOWN] if a.isprintable() and len(a) <= MAX_LONG]
        left_out = len(known) - len(shown)
        if known:
            notes.append(f"{text}: {', '.join(shown)}" + (f" and {left_out} more" if left_out else ""))
    if asks_elsewhere(email) and not reply_to:
        notes.append("The email asks for replies to several addresses, or to one that cannot be read")
    return tuple(notes)
