"""The guard: plain code that says, before any model call, which emails never get an answer."""

from collections.abc import Collection

from shared.domain import Cause, Decision, Email, Outcome, base_address, parse_address
from shared.mail.machine_mail import is_machine_mail, is_machine_sender, is_machine_subject

_SPAM_VERDICTS = frozenset({"flagged", "quarantined"})
# What a person did with it at MultiMail before it was worked on or released.
_HANDLED_STATUSES = frozenset({"archived", "deleted", "rejected", "cancelled"})


def find_skip(email: Email, *, own_addresses: Collection[str]) -> Decision | None:
    """Say why an email must not be answered, judged by itself alone; None when it may be."""
    sender = parse_address(email.sender)
    causes = {
        Cause.OWN_ADDRESS: sender in own_addresses or base_address(sender) in own_addresses,
        Cause.MACHINE_SENDER: is_machine_sender(sender),
        Cause.MACHINE_SUBJECT: is_machine_subject(email.subject, email.sender),
        Cause.MACHINE_HEADERS: is_machine_mail(email.headers),
        Cause.SPAM: email.spam_verdict in _SPAM_VERDICTS or email.status.startswith("spam_"),
        Cause.HANDLED_BY_PERSON: email.status in _HANDLED_STATUSES,
    }
    cause = next((cause for cause, applies in causes.items() if applies), None)
    if cause is None:
        return None
    return Decision(Outcome.SKIPPED, cause, email.status if cause is Cause.HANDLED_BY_PERSON else "")
