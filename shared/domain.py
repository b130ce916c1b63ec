"""The values the agent speaks in: mailboxes, emails, triage, drafts, outcomes."""

import hashlib
import json
import re
import string
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from email.errors import HeaderParseError
from email.header import decode_header
from enum import StrEnum

import idna

from shared.errors import PermanentError

MAX_HEADER_CHARACTERS = 998  # RFC 5322, 2.1.1
# What was said of a reply counts for a rejection seen by then: a later one may be anybody's.
REVIEW_COUNTS_FOR = timedelta(minutes=10)
_ADDRESS = re.compile(r"[^<>\s\0@,;:\"()\\]+@[^<>\s\0@,;:\"()\\]+")
# A quoted name may hold anything. With a backslash readers differ about its end, so then no address.
_QUOTED = re.compile(r'"(?:[^"\\]*|(?:[^"\\@<>]|\\[^@<>])*)"')
_ANGLED = re.compile(r"<\s*([^<>\s]*)\s*>")
_COMMENT = re.compile(r"\([^()]*\)")
_GROUP = re.compile(r"[^:;@]*:([^:;]*);")
_DELIMITER = re.compile(r"[<>,;:\"()\\]")
# Some readers make an "@" or a dot of letters that look like one.
_AT = re.compile("[@\ufe6b\uff20]")
_DOTTED = re.compile("[.\u3002\uff0e\uff61].")
_BEFORE_ANGLE = re.compile(r"[^<>@,;:\"()\[\]\\]*<")
_SURROGATE = re.compile("[\ud800-\udfff]")
_TO_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


class Action(StrEnum):
    """What triage decides to do with an inbound email."""

    REPLY = "reply"
    ESCALATE = "escalate"
    IGNORE = "ignore"


class Urgency(StrEnum):
    """How soon a human would want to see the email."""

    CRITICAL = "critical"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Sentiment(StrEnum):
    """The mood of the sender."""

    NEGATIVE = "negative"
    NEUTRAL = "neutral"
    POSITIVE = "positive"


class Outcome(StrEnum):
    """Where an inbound email ended; every email ends in exactly one."""

    REPLY_SUBMITTED = "reply_submitted"
    WOULD_REPLY = "would_reply"
    IGNORED = "ignored"
    ESCALATED = "escalated"
    SKIPPED = "skipped"
    BLOCKED_UNGATED = "blocked_ungated"
    BLOCKED_CONTENT_SAFETY = "blocked_content_safety"
    NEEDS_HUMAN = "needs_human"
    FAILED = "failed"


class Cause(StrEnum):
    """Why an email ended with its outcome, or why it waits. `render_cause` has a sentence for each."""

    # reply_submitted
    TRIAGED = "triaged"  # the model's own decision: also behind ignored and escalated
    OPEN_POINTS = "open_points"

    # would_reply
    OBSERVED = "observed"

    # skipped
    OWN_ADDRESS = "own_address"
    MACHINE_SENDER = "machine_sender"
    MACHINE_SUBJECT = "machine_subject"
    MACHINE_HEADERS = "machine_headers"
    SPAM = "spam"
    HANDLED_BY_PERSON = "handled_by_person"
    DELETED = "deleted"
    ANSWERED = "answered"
    COVERED = "covered"
    SAME_EMAIL = "same_email"
    NEVER_ANSWERED = "never_answered"

    # ignored or escalated
    NOT_ADDRESSED = "not_addressed"

    # escalated
    THREAD_LIMIT = "thread_limit"
    SENDER_LIMIT = "sender_limit"
    SENDER_FLOOD = "sender_flood"
    SENDER_TOKENS = "sender_tokens"
    TOO_OLD = "too_old"
    WAITED_TOO_LONG = "waited_too_long"
    THREAD_MISSING = "thread_missing"
    REPLY_REJECTED = "reply_rejected"
    REPLY_CANCELLED = "reply_cancelled"
    REPLY_UNDELIVERED = "reply_undelivered"
    REPLY_GONE = "reply_gone"
    RECIPIENTS_DIFFER = "recipients_differ"
    CONTACT_FORM = "contact_form"
    UNREADABLE_SENDER = "unreadable_sender"
    TRIAGE_UNREADABLE = "triage_unreadable"
    THOUGHT_TOO_LONG = "thought_too_long"
    TRIAGE_UNSURE = "triage_unsure"
    CATEGORY_RULE = "category_rule"
    WORD_RULE = "word_rule"
    SENDER_RULE = "sender_rule"
    IMPORTANT_SENDER = "important_sender"
    ADDRESSES_TRIAGE = "addresses_triage"
    DRAFT_UNREADABLE = "draft_unreadable"
    DRAFT_UNSURE = "draft_unsure"
    DRAFT_UNVERIFIED = "draft_unverified"
    DRAFT_CHECK = "draft_check"
    LOOKED_UP_FACTS = "looked_up_facts"
    READ_ONLY = "read_only"

    # blocked_ungated and blocked_content_safety
    UNGATED_MODE = "ungated_mode"
    UNKNOWN_MODE = "unknown_mode"
    ALLOWLISTED = "allowlisted"
    CONTENT_FILTER = "content_filter"

    # needs_human
    REPLY_REFUSED = "reply_refused"
    REPLY_UNCONFIRMED = "reply_unconfirmed"
    ERASED = "erased"

    # failed
    ATTEMPTS_USED_UP = "attempts_used_up"
    REFUSED = "refused"
    CRASHED = "crashed"

    # waiting
    INBOUND_APPROVAL = "inbound_approval"
    NOT_SHOWN_YET = "not_shown_yet"
    THREAD_BUSY = "thread_busy"
    SLOT_TAKEN = "slot_taken"
    NAMED_COPY = "named_copy"
    MAILBOX_LEFT_OUT = "mailbox_left_out"
    PAUSED = "paused"
    TOKEN_BUDGET = "token_budget"  # noqa: S105  # not a password
    THROTTLED = "throttled"
    UNAVAILABLE = "unavailable"
    CONFIGURATION = "configuration"


@dataclass(frozen=True, slots=True)
class ModelText:
    """Words that a model wrote; they may quote an email.

    They show themselves only when asked for, so that they cannot reach a log line by accident.
    """

    text: str = field(repr=False)

    def __str__(self) -> str:
        return "[model text]"

    def __bool__(self) -> bool:
        return bool(self.text)


NO_MODEL_TEXT = ModelText("")


@dataclass(frozen=True, slots=True)
class Decision:
    """Where an email ends, and why. `detail` is written by code; `reply_id` names the accepted reply.

    `depends_on` names the reply, of another email or of a person, that answers this one too: as long as it is
    not delivered, the decision may have to be taken back.
    """

    outcome: Outcome
    cause: Cause
    detail: str = ""
    reply_id: str | None = None
    depends_on: str | None = None


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A MultiMail mailbox. `oversight_mode` is the service's word, unknown ones included.

    `copies`: the addresses that the service puts in copy of whatever leaves, openly or not.
    """

    id: str
    address: str
    oversight_mode: str
    is_active: bool = True
    display_name: str = ""
    copies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EmailSummary:
    """One email as listings and threads show it: no body, no tags. `sender` is the raw From value.

    The last two times are those of an outbound email.
    """

    id: str
    sender: str
    to: tuple[str, ...]
    subject: str
    direction: str
    status: str
    received_at: datetime
    thread_id: str | None = None
    spam_verdict: str | None = None
    delivered_at: datetime | None = None
    bounced_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Attachment:
    """What is known of an attachment without fetching it. `size` is in bytes; all text is hostile input."""

    name: str
    content_type: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True)
class Email:
    """One full email with its markdown body. All text in it is hostile input.

    `headers` has lower-case names; it is empty unless the service returns headers, which its
    contract does not promise. The last three times are those of an outbound email.
    """

    id: str
    sender: str
    to: tuple[str, ...]
    subject: str
    status: str
    received_at: datetime
    markdown: str
    cc: tuple[str, ...] = ()
    bcc: tuple[str, ...] = ()
    thread_id: str | None = None
    spam_verdict: str | None = None
    attachments: tuple[Attachment, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    approved_at: datetime | None = None
    delivered_at: datetime | None = None
    bounced_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Contact:
    """An entry of the account's address book, with what people tagged it. Its name is untrusted text."""

    name: str
    address: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SubmittedReply:
    """MultiMail's answer to a reply or a new email. `already_sent`: the idempotency key was known."""

    id: str
    status: str
    already_sent: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """Chat-completion calls and tokens, as the model service counted them.

    `cached_input_tokens` are part of the input tokens: the service had them in its prompt cache.
    `dollars`: what they cost, as far as the deployments have prices.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    dollars: float = 0.0

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            self.dollars + other.dollars,
        )


NO_USAGE = Usage()


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """US dollars per million tokens of a deployment; cached input without a price costs as much as other."""

    input: float
    output: float
    cached: float | None = None

    def cost(self, usage: Usage) -> float:
        """US dollars for some usage."""
        cached = self.input if self.cached is None else self.cached
        new_input_tokens = usage.input_tokens - usage.cached_input_tokens
        return (
            new_input_tokens * self.input
            + usage.cached_input_tokens * cached
            + usage.output_tokens * self.output
        ) / 1e6


@dataclass(frozen=True, slots=True)
class Triage:
    """What the first chat completion said about an email, and what code made of it.

    `cause` is TRIAGED where the model's action stands; otherwise it says which rule escalates the email,
    with `detail` from code. `model` is the service's name for what answered, `prompt_version` that of the
    instructions.
    """

    action: Action
    category: str
    urgency: Urgency
    sentiment: Sentiment
    confidence: float
    summary: ModelText
    reason: ModelText
    cause: Cause = Cause.TRIAGED
    detail: str = ""
    model: str = ""
    prompt_version: str = ""
    query: ModelText = NO_MODEL_TEXT
    language: str = ""
    knowledge_answers: bool = False
    needs_case_facts: bool = False

    def erased(self) -> "Triage":
        """Without what it says of a person: its action, category, cause and confidence stay."""
        return replace(
            self,
            summary=NO_MODEL_TEXT,
            reason=NO_MODEL_TEXT,
            query=NO_MODEL_TEXT,
            language="",
            urgency=Urgency.NORMAL,
            sentiment=Sentiment.NEUTRAL,
        )


class Support(StrEnum):
    """What carries a sentence of a draft, as code has found it."""

    VERIFIED = "verified"  # approved knowledge, or an email that we sent in this thread
    FROM_SENDER = "from_sender"  # inbound mail alone
    ASSERTED = "asserted"  # nothing
    FREE = "free"  # it states no fact


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence of a draft, the source that the model names for it, and the words there that carry it."""

    sentence: str = field(repr=False)
    source: str
    quote: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Quote:
    """Words of a source that a draft was shown. `source` is the title of the passage or email."""

    source: str = field(repr=False)
    text: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class JudgedClaim:
    """A sentence of a draft and the quotes that carry it together, or that were named for it in vain."""

    sentence: str = field(repr=False)
    support: Support
    quotes: tuple[Quote, ...] = ()


@dataclass(frozen=True, slots=True)
class LookedUp:
    """A note that a draft may hold facts of a look-up: its name and when it was read, without the facts.

    `address`: the one bare address that they are about, and that the draft may go to; "" once it is erased.
    """

    name: str
    at: datetime
    address: str = field(repr=False)

    def erased(self) -> "LookedUp":
        """Without whom it is about. What was sent still stands in the thread, and may be shown to a draft."""
        return replace(self, address="")


@dataclass(frozen=True, slots=True)
class Draft:
    """An unsent reply, submitted byte for byte under its `idempotency_key`.

    `claims`: its sentences, each with what carries it. `open_points` lists what a human must still supply,
    `follow_up` what it promises. `covers` has the ids of the sender's emails
    in the thread that the draft was written from, the answered one included. `cc`: who else gets it. With a
    `subject` it is a new email to the row's sender, not a reply. `notes`: what its approver has to know;
    `sender_facts`: who the sender is to us. `looked_up`: of which look-ups it may
    hold facts. `attachments`: for each of the answered email's, in their order,
    whether it was read, or why not. `erased_words`: how many words its text had before it was erased.
    """

    reply_markdown: str = field(repr=False)
    confidence: float
    open_points: tuple[ModelText, ...]
    covers: tuple[str, ...]
    idempotency_key: str
    claims: tuple[JudgedClaim, ...] = ()
    follow_up: ModelText = NO_MODEL_TEXT
    model: str = ""
    prompt_version: str = ""
    cc: tuple[str, ...] = ()
    subject: str = ""
    notes: tuple[str, ...] = field(default=(), repr=False)
    sender_facts: tuple[str, ...] = field(default=(), repr=False)
    looked_up: tuple[LookedUp, ...] = ()
    erased_words: int = 0
    attachments: tuple[str, ...] = ()

    @property
    def words(self) -> int:
        """How many words its text has, or had."""
        return len(self.reply_markdown.split()) or self.erased_words

    @property
    def version(self) -> str:
        """The model and the instructions that wrote it; empty where they are not known."""
        return f"{self.model} {self.prompt_version}".strip()

    @property
    def wordless_claims(self) -> tuple[JudgedClaim, ...]:
        """Of its statements only what carries them."""
        return tuple(
            JudgedClaim("", claim.support, tuple(Quote(quote.source) for quote in claim.quotes))
            for claim in self.claims
            if claim.support is not Support.FREE
        )

    def erased(self) -> "Draft":
        """Without what it says, and whom it names: what the trust report counts stays."""
        return Draft(
            reply_markdown="",
            confidence=self.confidence,
            open_points=(),
            covers=self.covers,
            idempotency_key=self.idempotency_key,
            claims=self.wordless_claims,
            notes=tuple("" for _ in self.notes),
            model=self.model,
            prompt_version=self.prompt_version,
            looked_up=tuple(note.erased() for note in self.looked_up),
            erased_words=self.words,
        )

    def rejected(
        self,
        reply_id: str,
        reason: str,
        *,
        submitted_at: datetime,
        decided_at: datetime | None,
        review: "Review | None" = None,
        status: str = "rejected",
    ) -> "Rejection":
        """What is kept of it once another is to be written: of its statements only what carries them."""
        is_edited = review is not None and review.edited is not None
        return Rejection(
            reply_id,
            reason,
            self.reply_markdown,
            submitted_at,
            decided_at,
            self.wordless_claims,
            edited_by=review.reviewer if review is not None and is_edited else "",
            edit_distance=review.edit_distance if review is not None else 0,
            looked_up=self.looked_up,
            version=self.version,
            status=status,
        )


@dataclass(frozen=True, slots=True)
class AuditLogEntry:
    """What MultiMail says that a key did, in its own words. `actor_key_id`: its id of the key, or ""."""

    action: str
    resource_id: str
    actor_key_id: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Review:
    """What a reviewer says of a pending reply, kept at `said_at` before it is rejected at MultiMail.

    `reviewer`: the fingerprint of the key that decides. `edited`: the draft with the reviewer's own text,
    which is submitted next, byte for byte; without one, a `reason` asks the model for the next draft.
    `superseded`: what the tag for a reason said before, and this takes the place of. `edit_distance`: the
    words that the edit takes out or puts in.
    """

    reply_id: str
    reviewer: str
    said_at: datetime
    reason: str = field(default="", repr=False)
    superseded: str = field(default="", repr=False)
    edited: Draft | None = None
    edit_distance: int = 0

    def is_void(self, now: datetime) -> bool:
        """Whether a rejection that is first seen now is not this reviewer's any more."""
        return now - self.said_at > REVIEW_COUNTS_FOR

    def is_taken_over(self, tag: str) -> bool:
        """Whether somebody gave another reason since, as the tag says, which a service may have cut."""
        return bool(tag) and tag != self.superseded and not self.reason.startswith(tag)


@dataclass(frozen=True, slots=True)
class Rejection:
    """A reply that was followed by a new draft, and its text. Times are aware, UTC.

    A reviewer rejected it with a reason or an edit; or it reached nobody, as its `status` says, and an
    operator had its email worked on again. `decided_at`: None where it is not known that anybody decided.
    `claims`: what carried its statements, without their words. `edited_by`: the fingerprint of the reviewer's
    key where the next draft is the reviewer's own text, which has `edit_distance` words more or less.
    `looked_up`: as the draft's. `version`: that of its draft.
    """

    reply_id: str
    reason: str = field(repr=False)
    reply_markdown: str = field(repr=False)
    submitted_at: datetime
    decided_at: datetime | None
    claims: tuple[JudgedClaim, ...] = ()
    edited_by: str = ""
    edit_distance: int = 0
    looked_up: tuple[LookedUp, ...] = ()
    version: str = ""
    status: str = "rejected"

    @property
    def is_edit(self) -> bool:
        """Whether the reviewer wrote the next draft."""
        return bool(self.edited_by)

    def erased(self) -> "Rejection":
        """Without what was written, and whom it was about."""
        notes = tuple(note.erased() for note in self.looked_up)
        return replace(self, reason="", reply_markdown="", looked_up=notes)


@dataclass(frozen=True, slots=True)
class WorkItem:
    """Look at this ledger row. It says nothing else: the ledger is the truth."""

    mailbox_id: str
    email_id: str

    def to_json(self) -> str:
        """The body of a queue message; `parse_work_item` reads it back."""
        return json.dumps({"mailbox_id": self.mailbox_id, "email_id": self.email_id})


def parse_work_item(body: bytes) -> WorkItem:
    """Read a queue message's body. Raises PermanentError when it is not a work item."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise PermanentError(f"a work item must be JSON, got {len(body)} bytes that are not") from error
    ids = [value.get("mailbox_id"), value.get("email_id")] if isinstance(value, dict) else []
    # JSON can carry lone surrogates, which no store can look up.
    texts = [text for text in ids if isinstance(text, str) and text and not _SURROGATE.search(text)]
    if len(texts) != 2:  # noqa: PLR2004 - the two ids
        raise PermanentError("a work item must be a JSON object with the texts mailbox_id and email_id")
    return WorkItem(*texts)


def parse_address(header: str) -> str:
    """The one bare address in a From value, or "" when there is none or more than one.

    Its A to Z are in lower case, its host as DNS has it, so that both spellings of an international one are
    equal. Other letters of the name stay: the Kelvin sign is no k, and may be another person's.

    It stands in `<>`, or alone with a comment or in a group of one. Any name may stand around it: decoded
    display names lose their quotes, so "Doe, Jane <jane@host>" is common. Another address may not, unless it
    is quoted: the service could reply to that one, while the gate looks at this one. Nor may a reader see
    another one that decodes the header first, or that joins a host over blanks and comments, as the obsolete
    syntax of RFC 5322 does. The parsers of the standard library do not serve: they take "Doe, Jane" for two
    mailboxes and fail on nested comments.
    """
    if len(header) > MAX_HEADER_CHARACTERS:
        return ""
    try:
        found = {_parse_decoded(header), _parse_decoded(_decode_words(header))}
    except HeaderParseError:
        return ""
    return found.pop() if len(found) == 1 else ""


def _decode_words(header: str) -> str:
    """The header with its encoded words (RFC 2047) as text."""
    if "=?" not in header:
        return header
    parts = []
    for part, charset in decode_header(header):
        try:
            # Without a charset it was text, which the library has encoded in this way.
            text = part if isinstance(part, str) else part.decode(charset or "raw-unicode-escape", "replace")
        except (LookupError, UnicodeError):
            text = part.decode("latin-1")
        parts.append(text)
    return "".join(parts)


def _parse_decoded(header: str) -> str:
    unquoted = _QUOTED.sub("\0", header)  # a part of no address
    around, angled = _ANGLED.sub(",", unquoted), _ANGLED.findall(unquoted)
    outside = _COMMENT.sub(" ", around)
    found = {_fold_case(address) for address in angled}
    if not found:
        alone = outside.strip(", \t\r\n")
        group = _GROUP.fullmatch(alone)
        found = {_fold_case((group[1] if group else alone).strip())}
    address = found.pop()
    if found or not _ADDRESS.fullmatch(address) or address != address.strip("'"):
        return ""
    if any(mark in around for mark in '<>"'):
        return ""
    quoted = (name for name in _QUOTED.finditer(header) if "@" in name[0])
    is_unclear = (
        _ANGLED.findall(_COMMENT.sub(" ", unquoted)) != angled  # it is in a comment
        or ("@" in around and any(mark in outside for mark in "()[]\\"))
        # Some readers find an address in a quoted text that is no name of one.
        or not all(_BEFORE_ANGLE.match(header, name.end()) for name in quoted)
        or not _find_reachable(around) | _find_reachable(outside) <= {address}
    )
    return "" if is_unclear else to_ascii_host(address)


def _find_reachable(text: str) -> set[str]:
    """What a reader could take for addresses; an "@" before a word without a dot is a name's."""
    found = set()
    for part in _DELIMITER.split(text):
        word = "".join(part.split())
        if any(map(_DOTTED.search, _AT.split(word, maxsplit=1)[1:])):
            found.add(_fold_case(word[1:-1] if word[0] == word[-1] == "'" else word))
    return found


def to_ascii_host(address: str) -> str:
    """An address or host, folded as `parse_address` does: its host as DNS has it (RFC 5891)."""
    local, at, host = _fold_case(address).rpartition("@")
    host = host.removesuffix(".")  # the root's, which changes nothing
    if not host.isascii():
        with suppress(idna.IDNAError):  # no name that DNS could have: it is compared as it is
            host = idna.encode(host, uts46=True).decode()
    return f"{local}{at}{host}"


def _fold_case(address: str) -> str:
    """The address without letter case, where that cannot make another mailbox's of it."""
    local, at, host = address.rpartition("@")
    return f"{local.translate(_TO_LOWER)}{at}{host.lower()}"


def base_address(address: str) -> str:
    """The address without its subaddress: `ann@host` for `ann+orders@host`.

    Mail to a subaddress arrives at the base address (RFC 5233, "detail" after a `+`). Nothing else
    is taken off: in `reply-4711@host` no rule says where a name ends and a ticket's number begins.
    """
    local_part, at, host = address.rpartition("@")
    return (local_part.partition("+")[0] or local_part) + at + host


def build_idempotency_key(mailbox_id: str, email_id: str, revision: int) -> str:
    """The key under which one revision of one reply is submitted: the same on every retry."""
    return hashlib.sha256(json.dumps([mailbox_id, email_id, revision]).encode()).hexdigest()
