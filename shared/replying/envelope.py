"""The envelope: whom an email is from and to, and what that alone says about a reply."""

import logging
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from shared.checks.characters import hides_text
from shared.domain import Cause, Contact, Decision, Email, Mailbox, Outcome, base_address, parse_address
from shared.ledger.ledger import Ledger
from shared.mail.addressees import asks_elsewhere, build_notes, choose_copies, find_others, is_for_others
from shared.mail.contact_forms import find_form, find_respondent, looks_like_form
from shared.mail.machine_mail import is_machine_mail, is_machine_sender, is_machine_subject
from shared.profiles.profiles import MailboxProfile
from shared.profiles.senders import SenderRule, find_resembled
from shared.replying.reporting import MAX_ADDRESS_CHARACTERS, shorten
from shared.replying.threads import ThreadView

_SPAM_VERDICTS = frozenset({"flagged", "quarantined"})
# What a person did with it at MultiMail before it was worked on or released.
_HANDLED_STATUSES = frozenset({"archived", "deleted", "rejected", "cancelled"})
# What a contact form's email is skipped for if nothing says that it is one.
_FORM_CAUSES = (Cause.OWN_ADDRESS, Cause.MACHINE_SENDER)
_NAMED_FORM_CAUSES = (*_FORM_CAUSES, Cause.MACHINE_SUBJECT, Cause.MACHINE_HEADERS)

MAX_HOST_CHARACTERS = 32  # strangers choose how long a name is: all warnings fit into the tag with two
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
    is a new email to them. `is_proposal`: what is drafted may only be proposed to a person. `ours`: our own
    addresses; `others`: who else is in To and Cc. `asks_elsewhere`: its Reply-To leaves open who gets the
    reply. `was_answered`: the thread has an answer of ours to the sender; `sender_facts`: what else there is
    to tell of them.
    """

    sender: str
    cc: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    is_form: bool = False
    is_proposal: bool = False
    decision: Decision | None = None
    ours: frozenset[str] = frozenset()
    others: tuple[str, ...] = ()
    asks_elsewhere: bool = False
    was_answered: bool = False
    sender_facts: tuple[str, ...] = ()

    @property
    def reaches_others(self) -> bool:
        """Whether others than the sender may get the reply."""
        return bool(self.cc) or self.asks_elsewhere

    @classmethod
    def read(
        cls,
        email: Email,
        mailbox: Mailbox,
        own_addresses: Collection[str],
        profile: MailboxProfile,
        addressing: "Addressing",
    ) -> "Envelope":
        """Read the envelope of an email that the mailbox received. Raises what the ledger raises."""
        ours = frozenset((*own_addresses, *profile.addresses))
        found = cls._read(email, mailbox, ours, profile, addressing)
        decision = _apply_rules(profile.senders.find(found.sender), found.decision)
        return replace(found, ours=ours, decision=decision)

    @classmethod
    def _read(
        cls,
        email: Email,
        mailbox: Mailbox,
        ours: Collection[str],
        profile: MailboxProfile,
        addressing: "Addressing",
    ) -> "Envelope":
        sender = parse_address(email.sender)
        decision = find_skip(email, own_addresses=ours)
        form = find_form(profile.contact_forms, sender)
        if decision is None or decision.cause in (_NAMED_FORM_CAUSES if form else _FORM_CAUSES):
            respondent = find_respondent(form, email.markdown, ours) if form else None
            if respondent is not None:
                shown = shorten(respondent, MAX_ADDRESS_CHARACTERS)
                note = f"A contact form gave the address that this goes to: {shown}"
                return cls(respondent, notes=(note,), is_form=True)
            is_to_others = bool(find_others(email, ours))
            if form or (decision and not is_to_others and looks_like_form(email.markdown, sender, ours)):
                return cls(sender, is_proposal=True)
        if decision is not None:
            return cls(sender, decision=decision)
        if not sender:
            return cls(sender, decision=Decision(Outcome.ESCALATED, Cause.UNREADABLE_SENDER))
        is_others = is_for_others(email, ours)
        is_forwarded = None
        if not profile.addresses:
            is_forwarded = addressing.count(mailbox.id, email.id, is_others=is_others)
        if is_others and not is_forwarded:
            # While the first emails are counted, nobody knows yet: a person sees them.
            is_known = bool(profile.addresses) or is_forwarded is not None
            may_ignore = is_known and profile.not_addressed == "ignore"
            outcome = Outcome.IGNORED if may_ignore else Outcome.ESCALATED
            return cls(sender, decision=Decision(outcome, Cause.NOT_ADDRESSED))
        others = find_others(email, ours)
        copies, notes = choose_copies(others, profile.reply_all), build_notes(email, mailbox, others)
        return cls(sender, copies, notes, others=others, asks_elsewhere=asks_elsewhere(email))

    def in_thread(self, email: Email, thread: ThreadView, profile: MailboxProfile) -> "Envelope":
        """The envelope with what code can tell its approver of the sender, seen in the email's thread."""
        host, ours = _host(self.sender), {_host(address) for address in self.ours}
        theirs = {_host(address) for address in (*thread.addresses, *self.others)} - ours - {host}
        known = {*profile.reply_all, *profile.senders.important}  # the operator vouches for them
        resembled = find_resembled(host, sorted(ours), sorted(theirs)) if host not in known else ""
        whose = "our domain" if resembled in ours else "a correspondent's domain"
        looks, real = (shorten(name, MAX_HOST_CHARACTERS) for name in (resembled, host))
        facts = {
            f"resembles {whose} {looks}: {real}": bool(resembled),
            "the email hides text from its readers": hides_text(f"{email.subject}\n{email.markdown}"),
            f"others in To and Cc: {len(self.others)}": bool(self.others),
            "important": SenderRule.IMPORTANT in profile.senders.find(self.sender),
        }
        return replace(
            self,
            was_answered=thread.was_answered(self.sender),
            sender_facts=tuple(fact for fact, holds in facts.items() if holds),
        )

    def describe_sender(self, contact: Contact | None) -> tuple[str, ...]:
        """Who the sender is to us, with their entry in the address book: how well known, what stands out."""
        if self.was_answered:
            return ("answered before in this thread", *self.sender_facts)
        return ("in the address book" if contact is not None else "first contact", *self.sender_facts)


@dataclass(frozen=True, slots=True)
class Addressing:
    """Which mailboxes mail is forwarded to: To and Cc of most of their first emails name none of ours."""

    ledger: Ledger
    _forwarded: dict[str, bool] = field(default_factory=dict)  # of the mailboxes that had their first emails

    def count(self, mailbox_id: str, email_id: str, *, is_others: bool) -> bool | None:
        """Count one of the first emails, once; say whether mail is forwarded, None until it is known."""
        if mailbox_id in self._forwarded:
            return self._forwarded[mailbox_id]
        scopes = [f"addressed/{mailbox_id}", f"forwarded/{mailbox_id}"]
        counted = [self.ledger.slots(scope) for scope in scopes]
        total = sum(map(len, counted))
        if total >= FIRST_EMAILS:
            self._forwarded[mailbox_id] = len(counted[1]) * 2 > FIRST_EMAILS
            return self._forwarded[mailbox_id]
        is_new = email_id not in (*counted[0], *counted[1])
        if is_new and self.ledger.take_slot(scopes[is_others], email_id, counted[is_others]):
            forwarded = len(counted[1]) + is_others
            if total + 1 == FIRST_EMAILS and forwarded * 2 > FIRST_EMAILS:
                log.warning(FORWARDED, mailbox_id, FIRST_EMAILS)
        return None


def _host(address: str) -> str:
    return address.rpartition("@")[2]


def _apply_rules(rules: Collection[SenderRule], decision: Decision | None) -> Decision | None:
    """What the mailbox's rules for a sender make of a decision; what a person did stands, as for our mail."""
    cause = decision.cause if decision is not None else None
    if cause in (Cause.HANDLED_BY_PERSON, Cause.OWN_ADDRESS):
        return decision
    if SenderRule.NEVER_ANSWER in rules:
        return Decision(Outcome.SKIPPED, Cause.NEVER_ANSWERED)
    if decision is None or decision.outcome is Outcome.ESCALATED:
        return decision  # triage comes first: a person is told what it is about
    if SenderRule.ESCALATE in rules:
        return Decision(Outcome.ESCALATED, Cause.SENDER_RULE)
    if SenderRule.IMPORTANT in rules and cause in (Cause.SPAM, Cause.NOT_ADDRESSED):
        return Decision(Outcome.ESCALATED, cause)
    return decision


def find_skip(email: Email, *, own_addresses: Collection[str]) -> Decision | None:
    """Say why an email must not be answered, judged by itself alone; None when it may be."""
    sender = parse_address(email.sender)
    # Whose it is comes last: a contact form sends from such addresses.
    causes = {
        Cause.HANDLED_BY_PERSON: email.status in _HANDLED_STATUSES,
        Cause.SPAM: email.spam_verdict in _SPAM_VERDICTS or email.status.startswith("spam_"),
        Cause.MACHINE_SUBJECT: is_machine_subject(email.subject, email.sender),
        Cause.MACHINE_HEADERS: is_machine_mail(email.headers),
        Cause.OWN_ADDRESS: sender in own_addresses or base_address(sender) in own_addresses,
        Cause.MACHINE_SENDER: is_machine_sender(sender),
    }
    cause = next((cause for cause, applies in causes.items() if applies), None)
    if cause is None:
        return None
    return Decision(Outcome.SKIPPED, cause, email.status if cause is Cause.HANDLED_BY_PERSON else "")
