"""What may leave for an operator's question: known recipients, the gate, the checks, one email per target."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from shared.checks.contacts import find_addresses
from shared.checks.draft_checks import SENTENCES as CHECK_SENTENCES
from shared.checks.draft_checks import check_draft
from shared.checks.evidence import Source, SourceKind
from shared.domain import Cause, Email, SubmittedReply, parse_address
from shared.errors import AgentError, PermanentError, ThrottledError
from shared.mail.mailboxes import MailboxDirectory
from shared.mail.multimail import MultiMailClient
from shared.model.prompting import clean_line, load_prompt
from shared.replying.reporting import render_cause
from shared.replying.submission import Outgoing, Submitter
from shared.replying.threads import PENDING_STATUSES

MAX_SUBJECT_CHARACTERS = 200

UNKNOWN_RECIPIENT = "the recipient is neither in the operator's question nor in the contacts"
NOT_ONE_ADDRESS = "the recipient is not one readable address"
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


@dataclass(slots=True)
class Outbox:
    """Everything that leaves for one question. `key_seed` is the same when the question is asked again.

    Raises TransientError and ConfigurationError only while nothing can have been sent.
    """

    multimail: MultiMailClient
    mailboxes: MailboxDirectory
    question: str
    key_seed: Sequence[str]
    submitter: Submitter
    _read: list[tuple[str, str]] = field(default_factory=list)
    _used_keys: set[str] = field(default_factory=set)

    @property
    def is_used(self) -> bool:
        """Whether anything was or may have been submitted."""
        return bool(self._used_keys)

    def note_read(self, email: Email, shown_text: str) -> None:
        """Remember what of an email the model saw: links and numbers may be taken from there."""
        self._read.append((parse_address(email.sender), shown_text))

    def send(self, mailbox_id: str, to: str, subject: str, markdown: str) -> SendResult:
        """Submit a new email to an address that the operator wrote, or that is a contact's."""
        recipient = parse_address(to)
        if not recipient:
            return SendResult("refused", NOT_ONE_ADDRESS)
        if recipient not in find_addresses(self.question):
            contacts = self.multimail.search_contacts(recipient)
            if recipient not in {parse_address(contact.address) for contact in contacts}:
                return SendResult("refused", UNKNOWN_RECIPIENT, recipient=recipient)
        if subject != clean_line(subject, MAX_SUBJECT_CHARACTERS):
            reason = f"the subject is not one line of at most {MAX_SUBJECT_CHARACTERS} visible characters"
            return SendResult("refused", reason, recipient=recipient)
        # The operator has named whom to write to; what was read may be sent on.
        texts = (self.question, *(text for _, text in self._read))
        sources = [Source("", SourceKind.APPROVED, "", text) for text in texts]
        key = self._build_key(mailbox_id, f"to {recipient}")
        return self._submit(Outgoing(mailbox_id, recipient, markdown, key, None, subject), sources)

    def reply(self, mailbox_id: str, email: Email, markdown: str) -> SendResult:
        """Submit a reply to an email's sender. What others wrote is not to be repeated to them."""
        recipient = parse_address(email.sender)
        if not recipient:
            return SendResult("refused", NOT_ONE_ADDRESS)
        if recipient in {parse_address(mailbox.address) for mailbox in self.mailboxes.read().values()}:
            return SendResult("refused", OWN_EMAIL, recipient=recipient)
        # While the agent's own reply to it still waits, an approver of both would answer twice.
        reply_id = email.tags.get(REPLY_ID_TAG)
        try:
            status = self.multimail.get_email(mailbox_id, reply_id).status if reply_id else None
        except PermanentError:
            status = None
        if status in PENDING_STATUSES:
            return SendResult("refused", REPLY_WAITS, recipient=recipient)
        read = [Source("", SourceKind.SENDER, "", text) for sender, text in self._read if sender == recipient]
        sources = [Source("", SourceKind.APPROVED, "", self.question), *read]
        key = self._build_key(mailbox_id, f"reply {email.id}")
        return self._submit(Outgoing(mailbox_id, recipient, markdown, key, email.id), sources)

    def _read_back(self, outgoing: Outgoing, reply: SubmittedReply) -> SendResult:
        """What was accepted, unless it turns out to go to others: that is withdrawn."""
        try:
            wrong = self.submitter.find_wrong_recipients(outgoing, reply)
        except AgentError as error:
            log.warning("a submission could not be read back: %s", error)
            return SendResult("in_doubt", IN_DOUBT, reply.id, recipient=outgoing.recipient)
        if wrong is not None:
            reason = render_cause(wrong.cause, wrong.detail)
            return SendResult("refused", reason, reply.id, recipient=outgoing.recipient)
        return SendResult("submitted", "", reply.id, reply.status, outgoing.recipient)

    def _build_key(self, mailbox_id: str, target: str) -> str:
        """One email for each target: a question asked again has the same key, however the model words it."""
        return hashlib.sha256(json.dumps([*self.key_seed, mailbox_id, target]).encode()).hexdigest()

    def _submit(self, outgoing: Outgoing, sources: Sequence[Source]) -> SendResult:
        if outgoing.idempotency_key in self._used_keys:
            return SendResult("refused", DONE_BEFORE, recipient=outgoing.recipient)
        mailbox = self.mailboxes.get(outgoing.mailbox_id)
        addresses = f"{parse_address(mailbox.address)} {outgoing.recipient}"
        known = [*sources, Source("", SourceKind.APPROVED, "", addresses)]
        texts = [outgoing.markdown] if outgoing.answered_id else [outgoing.subject, outgoing.markdown]
        failed = [check for text in texts for check in check_draft(text, known, load_prompt("ask")).failed]
        if failed:
            reason = "; ".join(CHECK_SENTENCES[check] for check in failed)
            return SendResult("refused", reason, recipient=outgoing.recipient)
        result = self._try_twice(outgoing)
        if result.state != "refused":
            self._used_keys.add(outgoing.idempotency_key)
        return result

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
