"""The envelope: whom an email is from and to, and what that alone says about a reply."""

import logging
from collections.abc import Collection
from dataclasses import dataclass

from shared.domain import Cause, Decision, Email, Mailbox, Outcome, parse_address
from shared.ledger.ledger import Ledger
from shared.mail.addressees import build_notes, choose_copies, find_others, is_for_others
from shared.mail.contact_forms import find_form, find_respondent, looks_like_form
from shared.profiles.profiles import MailboxProfile
from shared.replying.guardrails import find_skip

FIRST_EMAILS = 20  # of a mailbox: whether To and Cc name it says whether all its mail is forwarded
FORWARDED = (
    "mailbox %r: most of its first %d emails name other addresses in To and Cc. They are taken for forwarded "
    "to it: set `addresses` in its profile (config/mailboxes.yaml) to the addresses that they come from."
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Envelope:
    """Who gets a reply. `decision` ends the email here.

    `is_form`: a profile names the form that sent it, and `sender` is the person who filled it in: the reply
    is a new email to them. `is_proposal`: what is drafted may only be proposed to a person.
    """

    sender: str
    cc: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    is_form: bool = False
    is_proposal: bool = False
    decision: Decision | None = None

    @classmethod
    def read(
        cls,
        email: Email,
        mailbox: Mailbox,
        own_addresses: Collection[str],
        profile: MailboxProfile,
        ledger: Ledger,
    ) -> "Envelope":
        """Read the envelope of an email that the mailbox received."""
        ours, sender = {*own_addresses, *profile.addresses}, parse_address(email.sender)
        decision = find_skip(email, own_addresses=ours)
        form = find_form(profile.contact_forms, sender)
        respondent = find_respondent(form, email.markdown, ours) if form else None
        may_be_form = decision is None or decision.cause in (Cause.OWN_ADDRESS, Cause.MACHINE_SENDER)
        if respondent is not None and may_be_form:
            return cls(
                respondent,
                notes=(f"A contact form gave the address that this goes to: {respondent}",),
                is_form=True,
            )
        if (
            decision is not None
            and may_be_form
            and (form or looks_like_form(email.markdown, {*ours, sender}))
        ):
            return cls(sender, is_proposal=True)
        if decision is not None:
            return cls(sender, decision=decision)
        if not sender:
            return cls(sender, decision=Decision(Outcome.ESCALATED, Cause.UNREADABLE_SENDER))
        if _is_not_addressed(email, mailbox, ours, profile, ledger):
            outcome = Outcome.IGNORED if profile.not_addressed == "ignore" else Outcome.ESCALATED
            return cls(sender, decision=Decision(outcome, Cause.NOT_ADDRESSED))
        others = find_others(email, ours)
        return cls(sender, choose_copies(others, profile.reply_all), build_notes(email, mailbox, others))


def _is_not_addressed(
    email: Email, mailbox: Mailbox, ours: Collection[str], profile: MailboxProfile, ledger: Ledger
) -> bool:
    """Say whether others are addressed and not we. Where most mail is, it is forwarded, and meant for us."""
    is_others = is_for_others(email, ours)
    if profile.addresses:
        return is_others
    scopes = [f"addressed/{mailbox.id}", f"forwarded/{mailbox.id}"]
    counted = [ledger.slots(scope) for scope in scopes]
    total = sum(map(len, counted))
    if total >= FIRST_EMAILS:
        return is_others and len(counted[1]) * 2 <= FIRST_EMAILS
    if email.id not in (*counted[0], *counted[1]) and ledger.take_slot(
        scopes[is_others], email.id, counted[is_others]
    ):
        forwarded = len(counted[1]) + is_others
        if total + 1 == FIRST_EMAILS and forwarded * 2 > FIRST_EMAILS:
            log.warning(FORWARDED, mailbox.id, FIRST_EMAILS)
    return is_others
