"""The gate: whether a reply from this mailbox to this recipient waits for a human's approval."""

import fnmatch
from collections.abc import Sequence

from shared.domain import Cause, Decision, Mailbox, Outcome, parse_address, to_ascii_host

GATED_MODES = frozenset({"gated_send", "gated_all"})
UNGATED_MODES = frozenset({"monitored", "autonomous"})


def find_mode_refusal(mailbox: Mailbox, *, allow_ungated: bool, observes: bool = False) -> Decision | None:
    """Say why the mailbox's oversight mode forbids a reply; None when it allows one.

    `observes`: nothing is submitted, so that a draft may be written in `read_only` too.
    """
    mode = mailbox.oversight_mode
    if mode in GATED_MODES or (mode in UNGATED_MODES and allow_ungated):
        return None
    if mode == "read_only":
        return None if observes else Decision(Outcome.ESCALATED, Cause.READ_ONLY)
    if mode in UNGATED_MODES:
        return Decision(Outcome.BLOCKED_UNGATED, Cause.UNGATED_MODE, mode)
    return Decision(Outcome.BLOCKED_UNGATED, Cause.UNKNOWN_MODE)


def find_facts_refusal(mailbox: Mailbox, recipients: Sequence[str], customer: str) -> Decision | None:
    """Say why facts that were looked up about a customer may not leave; None when only they can get them.

    They leave only from a mailbox where a person approves each reply, to the customer's address alone.
    """
    reasons = {
        f"the mailbox is {mailbox.oversight_mode}": mailbox.oversight_mode not in GATED_MODES,
        "MultiMail puts others in copy of what leaves the mailbox": bool(mailbox.copies),
        "it would go to others than the customer": set(recipients) != {customer},
    }
    holding = next((reason for reason, holds in reasons.items() if holds), None)
    return None if holding is None else Decision(Outcome.ESCALATED, Cause.LOOKED_UP_FACTS, holding)


def find_recipient_refusal(
    recipients: Sequence[str], allowlist: Sequence[str], *, allow_ungated: bool
) -> Decision | None:
    """Say whether the sending allowlist would let a reply to one of these bare addresses bypass approval.

    A pattern is `name@host` or `*@host`, letter case aside. Other forms that a service might honour
    (`Name <name@host>`, `@host`, `host`) count as well: a refusal too many is safe, one too few is not.
    """
    if allow_ungated:
        return None
    patterns = [(parse_address(one) or to_ascii_host(one.strip())).lower() for one in allowlist]
    for address in (to_ascii_host(recipient).lower() for recipient in recipients):
        domain = address.rpartition("@")[2]
        for wanted in patterns:
            if fnmatch.fnmatchcase(address, wanted) or domain == wanted.removeprefix("*").removeprefix("@"):
                return Decision(Outcome.BLOCKED_UNGATED, Cause.ALLOWLISTED)
    return None
