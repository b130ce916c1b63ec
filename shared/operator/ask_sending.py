"""What may leave for an operator's question: known recipients, the gate, the checks, one email per target."""

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from shared.domain import Email, SubmittedReply, parse_address
from shared.errors import (
    AgentError,
    ConfigurationError,
    ConflictError,
    NotFoundError,
    PermanentError,
    ThrottledError,
    TransientError,
)
from shared.mail.draft_checks import find_addresses, find_draft_problems
from shared.mail.mailboxes import MailboxDirectory
from shared.mail.multimail import MultiMailClient
from shared.model.prompting import clean_line, load_prompt
from shared.replying.gate import find_mode_refusal, find_recipient_refusal
from shared.replying.threads import PENDING_STATUSES

MAX_SUBJECT_CHARACTERS = 200
CLOCK_MARGIN = timedelta(minutes=10)  # how far our clock and the service's may be apart

UNKNOWN_RECIPIENT = "the recipient stands neither in the operator's question nor in the contacts"
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


@dataclass(frozen=True, slots=True)
class _Wanted:
    mailbox_id: str
    recipient: str
    target: str  # what it answers, or whom it is for: at most one email for each
    texts: Sequence[str]
    known_texts: Sequence[str]
    submit: Callable[[str], SubmittedReply]


@dataclass(slots=True)
class Outbox:
    """Everything that leaves for one question. `key_seed` is the same when the question is asked again.

    Raises TransientError and ConfigurationError only while nothing can have been sent.
    """

    multimail: MultiMailClient
    mailboxes: MailboxDirectory
    clock: Callable[[], datetime]
    question: str
    key_seed: Sequence[str]
    allow_ungated: bool
    _read: list[tuple[str, str]] = field(default_factory=list)
    _targets: set[tuple[str, str]] = field(default_factory=set)

    @property
    def is_used(self) -> bool:
        """Whether anything was or may have been submitted."""
        return bool(self._targets)

    def note_read(self, email: Email, shown_text: str) -> None:
        """Remember what of an email the model saw: links and numbers may be taken from there."""
        self._read.append((parse_address(email.sender), shown_text))

    def send(self, mailbox_id: str, to: str, subject: str, markdown: str) -> SendResult:
        """Submit a new email to an address that the operator wrote, or that is a contact's."""
        recipient = parse_address(to)
        if not recipient:
            return SendResult("refused", NOT_ONE_ADDRESS)
        if recipient not in find_addresses(self.question) and not self._is_contact(recipient):
            return SendResult("refused", UNKNOWN_RECIPIENT, recipient=recipient)
        if subject != clean_line(subject, MAX_SUBJECT_CHARACTERS):
            reason = f"the subject is not one line of at most {MAX_SUBJECT_CHARACTERS} visible characters"
            return SendResult("refused", reason, recipient=recipient)

        def submit(key: str) -> SubmittedReply:
            return self.multimail.send_email(mailbox_id, recipient, subject, markdown, key)

        known_texts = (self.question, *(text for _, text in self._read))
        return self._submit(
            _Wanted(mailbox_id, recipient, f"to {recipient}", (subject, markdown), known_texts, submit)
        )

    def reply(self, mailbox_id: str, email: Email, markdown: str) -> SendResult:
        """Submit a reply to an email's sender. What others wrote is not to be repeated to them."""
        recipient = parse_address(email.sender)
        if not recipient:
            return SendResult("refused", NOT_ONE_ADDRESS)
        if recipient in {parse_address(mailbox.address) for mailbox in self.mailboxes.read().values()}:
            return SendResult("refused", OWN_EMAIL, recipient=recipient)
        if self._is_reply_pending(mailbox_id, email):
            return SendResult("refused", REPLY_WAITS, recipient=recipient)

        def submit(key: str) -> SubmittedReply:
            return self.multimail.submit_reply(mailbox_id, email.id, markdown, key)

        known_texts = (self.question, *(text for sender, text in self._read if sender == recipient))
        return self._submit(
            _Wanted(mailbox_id, recipient, f"reply {email.id}", (markdown,), known_texts, submit)
        )

    def _is_reply_pending(self, mailbox_id: str, email: Email) -> bool:
        """Whether the agent's own reply to it still waits: an approver of both would answer twice."""
        reply_id = email.tags.get(REPLY_ID_TAG)
        if not reply_id:
            return False
        try:
            return self.multimail.get_email(mailbox_id, reply_id).status in PENDING_STATUSES
        except (NotFoundError, PermanentError):
            return False

    def _is_contact(self, address: str) -> bool:
        found = self.multimail.search_contacts(address)
        return address in {parse_address(contact.address) for contact in found}

    def _submit(self, wanted: _Wanted) -> SendResult:
        target = (wanted.mailbox_id, wanted.target)
        refusal = DONE_BEFORE if target in self._targets else self._find_refusal(wanted)
        if refusal is not None:
            return SendResult("refused", refusal, recipient=wanted.recipient)
        result = self._try_twice(wanted, self._build_key(target))
        if result.state != "refused":
            self._targets.add(target)
        return result

    def _find_refusal(self, wanted: _Wanted) -> str | None:
        """The checks on the text, then the gate, whose mode and allowlist are read now."""
        mailbox = self.mailboxes.get(wanted.mailbox_id, max_age_seconds=0)
        own = (parse_address(mailbox.address), wanted.recipient)
        problems = _find_problems(wanted, own)
        if problems:
            return "; ".join(problems)
        decision = find_mode_refusal(mailbox, allow_ungated=self.allow_ungated) or find_recipient_refusal(
            wanted.recipient, self.multimail.get_allowlist(mailbox.id), allow_ungated=self.allow_ungated
        )
        return None if decision is None else decision.reason

    def _build_key(self, target: tuple[str, str]) -> str:
        """The same for a question that is asked again, even if the model words the email differently."""
        return hashlib.sha256(json.dumps([*self.key_seed, *target]).encode()).hexdigest()

    def _try_twice(self, wanted: _Wanted, key: str) -> SendResult:
        """Submit; after an answer that never came, once more with the same key and the same bytes."""
        is_in_doubt = False
        for _ in range(2):
            try:
                submitted = wanted.submit(key)
            except ConflictError:
                return self._find_submitted(wanted)
            except (ConfigurationError, PermanentError, ThrottledError) as error:
                if is_in_doubt:
                    break
                if isinstance(error, ConfigurationError):
                    raise
                return SendResult("refused", str(error), recipient=wanted.recipient)
            except TransientError:
                is_in_doubt = True
                continue
            return SendResult(
                "submitted", email_id=submitted.id, status=submitted.status, recipient=wanted.recipient
            )
        return SendResult("in_doubt", IN_DOUBT, recipient=wanted.recipient)

    def _find_submitted(self, wanted: _Wanted) -> SendResult:
        """After a 409 the service has the same text from a moment ago: look for it."""
        try:
            for summary in self.multimail.list_emails(
                wanted.mailbox_id, direction="outbound", date_after=self.clock() - CLOCK_MARGIN
            ):
                is_to_recipient = wanted.recipient in {parse_address(to) for to in summary.to}
                if is_to_recipient and self._carries(wanted, summary.id):
                    return SendResult("submitted", "", summary.id, summary.status, wanted.recipient)
        except AgentError as error:
            log.warning("a submission is in doubt and could not be looked for: %s", error)
        return SendResult("in_doubt", IN_DOUBT, recipient=wanted.recipient)

    def _carries(self, wanted: _Wanted, email_id: str) -> bool:
        try:
            sent = self.multimail.get_email(wanted.mailbox_id, email_id)
        except NotFoundError:
            return False
        return " ".join(wanted.texts[-1].split()) in " ".join(sent.markdown.split())


def _find_problems(wanted: _Wanted, known_addresses: Collection[str]) -> list[str]:
    instructions = load_prompt("ask")
    return [
        problem
        for text in wanted.texts
        for problem in find_draft_problems(text, wanted.known_texts, known_addresses, instructions)
    ]
