"""The drafting call: what the second chat completion is shown, and how its answer is read.

What stays the same for a mailbox comes first (instructions, profile, knowledge), so that the service caches
it; then what changes (date, thread, rejected drafts).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from shared.attachments.documents import ReadAttachment
from shared.checks.evidence import Source, SourceKind
from shared.domain import Cause, Claim, Contact, Decision, JudgedClaim, ModelText, Outcome, Rejection
from shared.knowledge.lookup import NO_FACTS, Facts
from shared.knowledge.passages import LOOKED_UP, LOOKUP_MARK, TITLE_MARK, Knowledge
from shared.ledger.entries import LedgerEntry
from shared.mail.own_words import split_own_words
from shared.model.answers import parse_answer
from shared.model.chat import ChatRequest
from shared.model.prompting import (
    build_documents,
    clean_line,
    clean_sentence,
    clean_text,
    escape_untrusted,
    fit_untrusted,
    load_prompt,
)
from shared.profiles.profiles import MailboxProfile
from shared.replying.threads import ThreadText
from shared.settings import DEFAULT_EFFORT

MAX_ADDED_TOKENS = 1_000  # of a rejected draft, and of what nothing carries
MAX_HEADER_CHARACTERS = 200
MAX_OUTPUT_TOKENS = 3_000
MAX_OPEN_POINTS = 5
MAX_CLAIMS = 40
MAX_CLAIM_CHARACTERS = 600  # of its sentence and of its quote

# Not for what its sender used up, the content filter, or what speaks to the triage.
PROPOSED_FOR = (
    Cause.TRIAGED, Cause.TRIAGE_UNSURE, Cause.CATEGORY_RULE, Cause.WORD_RULE, Cause.SENDER_RULE,
    Cause.TOO_OLD, Cause.THREAD_LIMIT, Cause.READ_ONLY,
)  # fmt: skip

_TEXT = {"type": "string"}
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["reply_markdown", "claims", "open_points", "follow_up", "confidence"],
    "properties": {
        "reply_markdown": _TEXT,
        "claims": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["sentence", "source", "quote"],
                "properties": {"sentence": _TEXT, "source": _TEXT, "quote": _TEXT},
            },
        },
        "open_points": {"type": "array", "items": _TEXT},
        "follow_up": _TEXT,
        "confidence": {"type": "number"},
    },
}


@dataclass(frozen=True, slots=True)
class DraftText:
    """What the model wrote; nothing of it has been checked."""

    reply_markdown: str = field(repr=False)
    claims: tuple[Claim, ...]
    open_points: tuple[ModelText, ...]
    follow_up: ModelText
    confidence: float
    model: str = ""


@dataclass(frozen=True, slots=True)
class Material:
    """Everything that a reply may be written from. `thread` is in the order of arrival, its texts bounded.

    `now`: the line that tells date and business hours. `contact`: the sender's entry in the address book, of
    which only the name is shown: tags are not meant for the sender. `rejections`: earlier drafts that a
    reviewer turned down. `unsupported`: sentences of an earlier draft that nothing carries. `facts`: what
    look-ups found, which comes after the knowledge and counts as it.
    """

    mailbox_address: str
    profile: MailboxProfile
    knowledge: Knowledge
    now: str
    thread: Sequence[ThreadText]
    answered_id: str
    contact: Contact | None = None
    rejections: Sequence[Rejection] = ()
    unsupported: Sequence[str] = ()
    facts: Facts = NO_FACTS

    @property
    def known(self) -> Knowledge:
        """The knowledge and the facts: what the draft is shown as approved, in its order."""
        return self.knowledge.with_facts(self.facts.passages)

    @property
    def attachments(self) -> tuple[ReadAttachment, ...]:
        """Those of the thread's emails: of the one that is answered."""
        return tuple(file for text in self.thread for file in text.attachments)

    def without_pictures(self) -> "Material":
        """The same without pictures, each of which counts as not looked at."""
        return replace(
            self,
            thread=[
                replace(text, attachments=tuple(file.without_picture() for file in text.attachments))
                for text in self.thread
            ],
        )

    @property
    def sources(self) -> tuple[Source, ...]:
        """The passages and emails under the ids that the model knows them by, as far as it sees them."""
        passages = (
            Source(f"K{n}", SourceKind.APPROVED, f"{passage.source}{TITLE_MARK}{passage.title}", passage.text)
            for n, passage in enumerate(self.known.passages, 1)
        )
        emails = []
        for n, text in enumerate(self.thread, 1):
            title, said = f"email of {text.received_at:%Y-%m-%d}", f"{text.subject}\n{text.markdown}"
            if text.is_ours:
                # What our own email quotes, and its subject, are others' words.
                words = split_own_words(text.markdown)
                own = [line for line in words.own.splitlines() if not line.lstrip().startswith(">")]
                quoted = [line for line in words.own.splitlines() if line.lstrip().startswith(">")]
                emails.append(Source(f"E{n}", SourceKind.OURS, f"our {title}", "\n".join(own)))
                said = "\n".join((text.subject, words.rest, *quoted))
            id_ = f"E{n}, quoted" if text.is_ours else f"E{n}"  # no claim can name what ours only quotes
            emails.append(Source(id_, SourceKind.SENDER, title, said))
            # Their names are the sender's, and titles outlive a draft that is erased.
            for file in text.attachments:
                file_id, file_title = f"E{n}.{file.number}", f"attachment {file.number} of {title}"
                emails += [Source(file_id, SourceKind.SENDER, file_title, file.text)] if file.text else []
        # What the profile says of the mailbox is the company's own word.
        profile = Source(
            "profile", SourceKind.APPROVED, "the mailbox's profile", self.profile.build_draft_part()
        )
        return (*passages, *emails, profile)


def build_draft_request(
    material: Material, deployment: str, reasoning_effort: str = DEFAULT_EFFORT
) -> ChatRequest:
    """The drafting call for one email of a thread.

    A reviewer's reason is an instruction; the draft that it speaks of is data, as a model wrote it from mail.
    """
    numbers = {text.email_id: number for number, text in enumerate(material.thread, 1)}
    added = [
        f"The sender's name in the address book\nName: {clean_line(contact.name, MAX_HEADER_CHARACTERS)}"
        for contact in filter(None, [material.contact])
    ]
    added += [
        f"Draft {n}, rejected by a colleague\nBody:\n{said.reply_markdown}"
        for n, said in enumerate(material.rejections, 1)
    ]
    reasons = [
        f"A colleague rejected draft {n} and said what to change: {said.reason}"
        for n, said in enumerate(material.rejections, 1)
    ]
    if material.unsupported:
        added.append("\n".join(("Statements that no source carries", *material.unsupported)))
        reasons.append(
            "Your last draft was held back: no source carries the statements in the last document. "
            "Write the reply without them and make what they answered an open point."
        )
    parts = (
        material.known.render(),
        material.now,
        build_documents(
            [
                *(
                    escape_untrusted(shown)
                    for n, text in enumerate(material.thread, 1)
                    for shown in (
                        text.render(n),
                        *(file.render(n) for file in text.attachments if file.unread is None),
                    )
                ),
                *(fit_untrusted(text, MAX_ADDED_TOKENS) for text in added),
            ]
        ),
        f"Write the reply to email E{numbers[material.answered_id]}.",
        *reasons,
    )
    return ChatRequest(
        deployment=deployment,
        system=build_draft_instructions(material.mailbox_address, material.profile),
        user="\n\n".join(filter(None, parts)),
        schema_name="draft",
        schema=SCHEMA,
        max_output_tokens=MAX_OUTPUT_TOKENS,
        reasoning_effort=reasoning_effort,
        pictures=tuple(file.picture for file in material.attachments if file.picture is not None),
    )


def wants_proposal(entry: LedgerEntry, refusal: Decision) -> bool:
    """Whether a person who answers an escalated email gets a draft: where the knowledge has the answer."""
    is_answerable = entry.triage is not None and entry.triage.knowledge_answers
    is_wanted = refusal.cause in PROPOSED_FOR and refusal.outcome is Outcome.ESCALATED
    return is_answerable and is_wanted and entry.attempts == 1  # what failed before may have been this


def find_passages(claim: JudgedClaim) -> list[str]:
    """The approved passages among the sources of a claim, each once, as `name_source` has them."""
    titles = (quote.source for quote in claim.quotes if TITLE_MARK in quote.source)
    return [*dict.fromkeys(map(name_source, titles))]


def name_source(title: str) -> str:
    """The title of a source; of a look-up only its name, as it has another time for every draft."""
    return title.partition(TITLE_MARK)[0] if title.startswith(LOOKUP_MARK) else title


def drop_time(title: str) -> str:
    """The title of a source, of a look-up without its time: the same in the next draft of the email."""
    return title.partition(LOOKED_UP)[0] if title.startswith(LOOKUP_MARK) else title


def build_draft_instructions(mailbox_address: str, profile: MailboxProfile) -> str:
    """The trusted part: what all mailboxes share comes first, so that the service can cache it."""
    instructions = f"{load_prompt('draft')}\n\nThe mailbox you write for: {mailbox_address}"
    return "\n".join(filter(None, (instructions, profile.build_draft_part())))


def parse_draft(text: str) -> DraftText:
    """Read the model's answer. Raises ValueError when it does not keep the schema."""
    value = parse_answer(text)
    if not isinstance(value, dict):
        raise ValueError("the draft is not an object")  # noqa: TRY004 - one error for any bad answer
    reply, confidence = value.get("reply_markdown"), value.get("confidence")
    if isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0 <= confidence <= 1:
        raise ValueError("the draft's confidence is not a number from 0 to 1")
    if not isinstance(reply, str):
        raise ValueError("the draft's text is not a text")  # noqa: TRY004 - one error for any bad draft
    open_points, follow_up = value.get("open_points", []), value.get("follow_up", "")
    if not isinstance(open_points, list) or not all(
        isinstance(part, str) for part in (*open_points, follow_up)
    ):
        raise ValueError("the draft's open points are not a list of texts, or what it promises is not a text")
    return DraftText(
        reply_markdown=reply.strip(),
        claims=_parse_claims(value.get("claims", [])),
        open_points=tuple(
            ModelText(clean_sentence(part, MAX_HEADER_CHARACTERS)) for part in open_points[:MAX_OPEN_POINTS]
        ),
        follow_up=ModelText(clean_sentence(follow_up, MAX_HEADER_CHARACTERS)),
        confidence=float(confidence),
    )


def _parse_claims(value: object) -> tuple[Claim, ...]:
    claims = []
    for raw in value if isinstance(value, list) else [value]:
        parts = [raw.get(name) for name in ("sentence", "source", "quote")] if isinstance(raw, dict) else []
        texts = [part for part in parts if isinstance(part, str)]
        if len(texts) != len(fields(Claim)):
            raise ValueError("the draft's claims are not a list of texts with their sources")
        sentence, source, quote = (clean_text(text[:MAX_CLAIM_CHARACTERS]) for text in texts)
        claims.append(Claim(sentence, source.strip("[] "), quote))
    return tuple(claims[:MAX_CLAIMS])
