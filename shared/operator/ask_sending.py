"""What may leave for an operator's question: known recipients, the gate, the checks, one email per target."""

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from shared.checks.carried_words import NO_SPACES, find_carried
from shared.checks.contacts import find_addresses
from shared.checks.draft_checks import SENTENCES as CHECK_SENTENCES
from shared.checks.draft_checks import check_draft
from shared.checks.evidence import Source, SourceKind
from shared.domain import Cause, Email, EmailSummary, SubmittedReply, parse_address
from shared.errors import AgentError, PermanentError, ThrottledError
from shared.mail.mailboxes import MailboxDirectory
from shared.mail.multimail import MultiMailReader
from shared.model.prompting import clean_line, load_prompt
from shared.replying.reporting import NOTE_TAG, render_cause, render_notes, write_tags
from shared.replying.submission import Outgoing, Submitter
from shared.replying.threads import PENDING_STATUSES

MAX_SUBJECT_CHARACTERS = 200

UNKNOWN_RECIPIENT = "the recipient is neither in the operator's question nor in the contacts"
NOT_ONE_ADDRESS = "the recipient is not one readable address"
NOT_NAMED = "the operator's question names neither that email's id nor its sender, by address or as a contact"
CARRIED = "it repeats words, a number or a code that another correspondent wrote and the operator did not"
OWN_EMAIL = "one of the account's own mailboxes sent that email: only received email is replied to"
REPLY_WAITS = "the agent's own reply to that email waits for approval: decide about it first"
REPLY_ID_TAG = "agent.reply_id"
DONE_BEFORE = "for this question one was submitted to the same target already"
IN_DOUBT = "it may or may not have been accepted: look at what waits for approval before asking again"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SendResult:
    """What became of a wish to send. Submitted: `status` is the service's word, "pending_scan" at first.

    `reason` says why it was refused or is in doubt; it holds no text that an email or the model wrote.
    """

    state: Literal["submitted", "refused", "in_doubt"]
    reason: str = ""
    email_id: str | None = None
    status: str | None = None
    recipient: str | None = None


@dataclass(frozen=True, slots=True)
class _Read:
    """An email that the model saw, with whom it was exchanged, and what was written in it."""

    correspondents: frozenset[str]
    shown: str
    words: str


@dataclass(slots=True)
class Outbox:
    """Everything that leaves for one question. `key_seed` is the same when the question is asked again.

    Raises TransientError and ConfigurationError only while nothing can have been sent.
    """

    multimail: MultiMailReader
    mailboxes: MailboxDirectory
    question: str
    key_seed: Sequence[str]
    submitter: Submitter
    _read: list["_Read"] = field(default_factory=list)
    _used_keys: set[str] = field(default_factory=set)

    @property
    def is_used(self) -> bool:
        """Whether anything was or may have been submitted."""
        return bool(self._used_keys)

    def note_read(self, email: Email | EmailSummary, shown_text: str) -> None:
        """Remember what of an email the model saw: it may go back to its correspondent, and to no other."""
        sender = parse_address(email.sender)
        parties = map(parse_address, email.to) if sender in self._own_addresses else [sender]
        words = f"{email.subject}\n{email.markdown}" if isinstance(email, Email) else email.subject
        self._read.append(_Read(frozenset(parties), shown_text, words))

    @property
    def _own_addresses(self) -> set[str]:
        return {parse_address(mailbox.address) for mailbox in self.mailboxes.read().values()}

    def send(self, mailbox_id: str, to: str, subject: str, markdown: str) -> SendResult:
        """Submit a new email to an address that the operator wrote, or that is a contact's."""
        recipient = parse_address(to)
        if not recipient:
            return SendResult("refused", NOT_ONE_ADDRESS)
        if recipient not in find_addresses(self.question) and not self.multimail.find_contacts(recipient):
            return SendResult("refused", UNKNOWN_RECIPIENT, recipient=recipient)
        if subject != clean_line(subject, MAX_SUBJECT_CHARACTERS):
            reason = f"the subject is not one line of at most {MAX_SUBJECT_CHARACTERS} visible characters"
            return SendResult("refused", reason, recipient=recipient)
        key = self._build_key(mailbox_id, f"to {recipient}")
        return self._submit(Outgoing(mailbox_id, recipient, markdown, key, None, subject))

    def reply(self, mailbox_id: str, email: Email, markdown: str) -> SendResult:
        """Submit a reply to an email that the operator's question names."""
        recipient = parse_address(email.sender)
        if not recipient:
            return SendResult("refused", NOT_ONE_ADDRESS)
        if recipient in self._own_addresses:
            return SendResult("refused", OWN_EMAIL, recipient=recipient)
        if not self._is_named(email.id, recipient):
            return SendResult("refused", NOT_NAMED, recipient=recipient)
        # While the agent's own reply to it still waits, an approver of both would answer twice.
        reply_id = email.tags.get(REPLY_ID_TAG)
        try:
            status = self.multimail.get_email(mailbox_id, reply_id).status if reply_id else None
        except PermanentError:
            status = None
        if status in PENDING_STATUSES:
            return SendResult("refused", REPLY_WAITS, recipient=recipient)
        key = self._build_key(mailbox_id, f"reply {email.id}")
        return self._submit(Outgoing(mailbox_id, recipient, markdown, key, email.id))

    def _is_named(self, email_id: str, sender: str) -> bool:
        """Whether the question has the id, the address, or the name that the address book has for it.

        A name that the sender chose for itself does not count."""
        ids = {word.rstrip(".:-") for word in re.findall(r"[\w.:-]+", self.question)}
        if sender in find_addresses(self.question) or email_id in ids:
            return True
        question = self.question.casefold()
        asked_for = set(re.findall(r"\w{3,}", question))
        names = [contact.name.casefold() for contact in self.multimail.find_contacts(sender)]
        words = {word for name in names for word in re.findall(r"\w{2,}", name)}
        return any(word in asked_for or (NO_SPACES.match(word) and word in question) for word in words)

    def _read_back(self, outgoing: Outgoing, reply: SubmittedReply) -> SendResult:
        """What was accepted, unless it turns out to go to others: that is withdrawn."""
        try:
            found = self.submitter.find_withdrawal_cause(outgoing, reply)
        except AgentError as error:
            log.warning("a submission could not be read back: %s", error)
            return SendResult("in_doubt", IN_DOUBT, reply.id, recipient=outgoing.recipient)
        if found is not None:
            reason = render_cause(found.cause, found.detail)
            return SendResult("refused", reason, reply.id, recipient=outgoing.recipient)
        return SendResult("submitted", "", reply.id, reply.status, outgoing.recipient)

    def _build_key(self, mailbox_id: str, target: str) -> str:
        """One email for each target: a question asked again has the same key, however the model words it."""
        return hashlib.sha256(json.dumps([*self.key_seed, mailbox_id, target]).encode()).hexdigest()

    def _submit(self, outgoing: Outgoing) -> SendResult:
        if outgoing.idempotency_key in self._used_keys:
            return SendResult("refused", DONE_BEFORE, recipient=outgoing.recipient)
        mailbox = self.mailboxes.get(outgoing.mailbox_id)
        own = [read for read in self._read if outgoing.recipient in read.correspondents]
        foreign = [read.words for read in self._read if outgoing.recipient not in read.correspondents]
        approved = f"{self.question}\n{parse_address(mailbox.address)} {outgoing.recipient}"
        texts = [outgoing.markdown] if outgoing.answered_id else [outgoing.subject, outgoing.markdown]
        if find_carried("\n".join(texts), foreign, (approved, *(read.words for read in own))):
            return SendResult("refused", CARRIED, recipient=outgoing.recipient)
        read = [Source("", SourceKind.SENDER, "", read.shown) for read in own]
        sources = [Source("", SourceKind.APPROVED, "", approved), *read]
        verdicts = [check_draft(text, sources, load_prompt("ask")) for text in texts]
        failed = [check for verdict in verdicts for check in verdict.failed]
        if failed:
            reason = "; ".join(CHECK_SENTENCES[check] for check in failed)
            return SendResult("refused", reason, recipient=outgoing.recipient)
        result = self._try_twice(outgoing)
        if result.state != "refused":
            self._used_keys.add(outgoing.idempotency_key)
        warnings = [warning for verdict in verdicts for warning in verdict.warnings]
        if result.email_id and warnings:
            self._warn_approver(outgoing.mailbox_id, result.email_id, warnings)
        return result

    def _warn_approver(self, mailbox_id: str, reply_id: str, warnings: Sequence[str]) -> None:
        """Say on the pending email what its approver has to know. It is submitted, tagged or not."""
        if self.submitter.writer is None:
            return
        try:
            write_tags(self.submitter.writer, mailbox_id, reply_id, {NOTE_TAG: render_notes(warnings)})
        except AgentError as error:
            log.warning("email %r of mailbox %r could not be tagged: %s", reply_id, mailbox_id, error)

    def _try_twice(self, outgoing: Outgoing) -> SendResult:
        """Submit; after an answer that never came, once more with the same key and the same bytes."""
        intents: list[datetime | None] = []
        try:
            result = self.submitter.submit(outgoing, intents.append)
        except AgentError as error:
            intent_at = intents[-1] if intents else None
            if intent_at is None and isinstance(error, ThrottledError):
                return SendResult("refused", str(error), recipient=outgoing.recipient)
            if intent_at is None:
                raise
            in_doubt = SendResult("in_doubt", IN_DOUBT, recipient=outgoing.recipient)
            try:
                result = self.submitter.resume(outgoing, intent_at)  # it may have arrived
            except AgentError as second:
                log.warning("a submission is in doubt: %s", second)
                return in_doubt
            if not isinstance(result, SubmittedReply):
                return in_doubt
        if isinstance(result, SubmittedReply):
            return self._read_back(outgoing, result)
        if result.cause is Cause.REPLY_UNCONFIRMED:
            return SendResult("in_doubt", IN_DOUBT, recipient=outgoing.recipient)
        return SendResult("refused", render_cause(result.cause, result.detail), recipient=outgoing.recipient)
