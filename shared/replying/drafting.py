"""Drafting: from what the mailbox knows to a reply whose claims, links and numbers code has judged."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from shared.attachments.documents import bound_attachments, list_open_points
from shared.checks.draft_checks import DRAFT_CHECKS, MAX_REPLY_CHARACTERS, Verdict, check_draft
from shared.checks.evidence import Source, SourceKind, judge_claims, promises, split_sentences
from shared.checks.gate import find_facts_refusal
from shared.domain import (
    Cause,
    Claim,
    Contact,
    Decision,
    Draft,
    Email,
    JudgedClaim,
    LookedUp,
    Mailbox,
    ModelText,
    Outcome,
    Rejection,
    Support,
    build_idempotency_key,
    parse_address,
)
from shared.errors import (
    ConfigurationError,
    ContentFilteredError,
    PermanentError,
    ThoughtTooLongError,
    TransientError,
)
from shared.knowledge.lookup import NO_FACTS, Facts
from shared.knowledge.lookups import LookUps
from shared.knowledge.words import find_words
from shared.ledger.entries import LedgerEntry
from shared.mail.multimail import MultiMailReader
from shared.mail.own_words import split_own_words
from shared.model.chat import ChatCompletion, ChatRequest
from shared.model.prompting import (
    clean_sentence,
    clean_text,
    cut_text,
    escape_untrusted,
    load_prompt,
    text_version,
)
from shared.profiles.disclosure import drop_disclosures, find_disclosure
from shared.profiles.profiles import MailboxProfile
from shared.replying.draft_request import (
    MAX_HEADER_CHARACTERS,
    DraftText,
    Material,
    build_draft_instructions,
    build_draft_request,
    drop_time,
    parse_draft,
)
from shared.replying.envelope import Envelope
from shared.replying.threads import ThreadText
from shared.settings import Settings

MAX_EMAIL_TOKENS = 4_000
MAX_CONTEXT_EMAIL_TOKENS = 500  # of each of the thread's other emails: 6,000 together
MAX_ATTACHMENT_TOKENS = 2_000  # of the text of each
MAX_ATTACHMENTS_TOKENS = 4_000  # of the texts of all
MAX_POINT_CHARACTERS = 200
MAX_QUOTE_CHARACTERS = 600  # of what is stored with each sentence
ATTEMPTS = 2
SAME_PROMISE = 0.5  # of its words are in a sentence that makes it

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JudgedDraft:
    """A draft with what code found. `refusal` says why it may not be submitted; None when it may."""

    draft: Draft
    refusal: Decision | None = None

    @property
    def proposal(self) -> Draft:
        """The draft as it is kept for a person: what nobody could see in it left out."""
        return replace(self.draft, reply_markdown=clean_text(self.draft.reply_markdown))


def find_facts_obstacle(mailbox: Mailbox, entry: LedgerEntry, envelope: Envelope) -> str:
    """Why looked-up facts may not stand in the reply; "" where only its sender would get it."""
    refusal = find_facts_refusal(mailbox, (entry.sender, *envelope.cc), entry.sender)
    if refusal is not None:
        return refusal.detail
    return "Reply-To names another address" if envelope.asks_elsewhere else ""


def bound_texts(
    thread: Sequence[ThreadText], answered_id: str, *, with_facts: bool = True
) -> list[ThreadText]:
    """The texts in the order of arrival, each cut to what a draft is shown of it.

    `with_facts`: also those that may hold looked-up facts.
    """
    shown = [text for text in thread if with_facts or not text.looked_up]
    return [
        replace(
            text,
            markdown=cut_text(
                text.markdown,
                MAX_EMAIL_TOKENS if text.email_id == answered_id else MAX_CONTEXT_EMAIL_TOKENS,
                escape_untrusted,
            ),
            attachments=bound_attachments(text.attachments, MAX_ATTACHMENT_TOKENS, MAX_ATTACHMENTS_TOKENS),
        )
        for text in sorted(shown, key=lambda text: text.received_at)
    ]


def find_contact(multimail: MultiMailReader, address: str) -> Contact | None:
    """What the address book has about an address, with the tags of all its entries.

    None also when it cannot be read: no draft waits, and what is for tagged contacts stays closed.
    """
    try:
        found = multimail.find_contacts(address)
        return replace(found[0], tags=tuple(tag for c in found for tag in c.tags)) if found else None
    except (ConfigurationError, PermanentError, TransientError) as error:
        log.info("a draft is written without the address book: %s", type(error).__name__)
        return None


def start_lookups(
    lookups: LookUps,
    profile: MailboxProfile,
    mailbox: Mailbox,
    entry: LedgerEntry,
    *,
    envelope: Envelope,
    email: Email,
) -> Callable[[], Facts]:
    """Begin the look-ups that a draft may hold facts of: none unless only the sender can get it.

    See `LookUps.start`. A redraft looks up again. A reviewer's own text waits for none: they only check it.
    """
    category = entry.triage.category if entry.triage is not None else ""
    wanted = [one for one in profile.lookups if category in one.categories or not one.categories]
    if not wanted or entry.is_observed or envelope.is_form or envelope.is_proposal:
        return lambda: NO_FACTS
    obstacle = find_facts_obstacle(mailbox, entry, envelope)
    if obstacle:
        log.info("email %r: no look-up is used, because %s", entry.email_id, obstacle)
        return lambda: Facts(gaps=(f"no look-up is used, because {obstacle}",))
    said = f"{split_own_words(email.markdown).own}\n{email.subject}"  # whose first reference is the text's
    return lookups.start(
        wanted, entry.sender, said,
        email_id=entry.email_id, is_fresh=bool(entry.rejections), may_wait=entry.edit is None,
    )  # fmt: skip


def write_draft(
    material: Material,
    entry: LedgerEntry,
    envelope: Envelope,
    settings: Settings,
    complete: Callable[[ChatRequest], ChatCompletion],
) -> JudgedDraft | Decision:
    """Have a reply written and judge it; a decision alone when no answer of the model can be read.

    Where the profile wants verified statements and too few are, it is written once more without the others.
    `settings`: with the limits that the mailbox has of its own. Raises what `ChatModel.complete` raises.
    """
    try:
        written = _ask(material, settings, complete)
    except (ContentFilteredError, ThoughtTooLongError):
        raise
    except PermanentError:  # perhaps a picture that no model can read
        if not any(file.picture for file in material.attachments):
            raise
        material = material.without_pictures()
        written = _ask(material, settings, complete)
    if written is None:
        return Decision(Outcome.ESCALATED, Cause.DRAFT_UNREADABLE)
    claims = judge_claims(written.reply_markdown, written.claims, material.sources)
    if _share_verified(claims) < material.profile.min_verified:
        unsupported = [c.sentence for c in claims if c.support not in (Support.VERIFIED, Support.FREE)]
        try:
            again = _ask(replace(material, unsupported=unsupported), settings, complete)
        except PermanentError:  # the content filter included: the first draft is there for a person
            again = None
        if again is not None:
            written = again
            claims = judge_claims(written.reply_markdown, written.claims, material.sources)
    verdict = _check(written, material, entry)
    profile = material.profile
    language = entry.triage.language if entry.triage is not None else ""
    disclosure = find_disclosure(language) if profile.disclosure else ""
    points = [clean_sentence(point, MAX_POINT_CHARACTERS) for point in list_open_points(material.attachments)]
    signed = replace(
        written,
        reply_markdown=sign_reply(written.reply_markdown, profile.signature, disclosure),
        open_points=(*written.open_points, *map(ModelText, points)),
    )
    instructions = build_draft_instructions(material.mailbox_address, profile)
    draft = _build_draft(
        signed, material, entry, envelope,
        claims=claims, verdict=verdict, prompt_version=text_version(instructions),
    )  # fmt: skip
    share = _share_verified(claims)
    reasons = (
        (bool(verdict.failed), Cause.DRAFT_CHECK, ",".join(verdict.failed)),
        (share < profile.min_verified, Cause.DRAFT_UNVERIFIED, f"{share:.0%}"),
        (written.confidence < settings.min_draft_confidence, Cause.DRAFT_UNSURE, f"{written.confidence:.2f}"),
    )
    refusals = (Decision(Outcome.ESCALATED, cause, detail) for holds, cause, detail in reasons if holds)
    return JudgedDraft(draft, next(refusals, None))


def judge_edit(edited: Draft, material: Material, entry: LedgerEntry, envelope: Envelope) -> JudgedDraft:
    """The draft with a reviewer's own text: byte for byte, and never held back.

    What the checks find is told to its approver. A sentence that the reviewer left keeps its source. The open
    points stay: no code can tell whether the text answers them.
    """
    ids = {drop_time(source.title): source.id for source in material.sources}
    written = DraftText(
        reply_markdown=edited.reply_markdown,
        claims=tuple(
            Claim(claim.sentence, ids.get(drop_time(quote.source), ""), quote.text)
            for claim in edited.claims
            for quote in claim.quotes
            if quote.text
        ),
        open_points=edited.open_points,
        follow_up=find_promise(edited, entry.rejections[-1].reply_markdown),
        confidence=1.0,
        model=edited.model,
    )
    stated = _drop_signature(drop_disclosures(edited.reply_markdown), material.profile.signature)
    draft = _build_draft(
        written, material, entry, envelope,
        claims=judge_claims(stated, written.claims, material.sources),
        verdict=_check(written, material, entry), prompt_version=edited.prompt_version,
    )  # fmt: skip
    return JudgedDraft(draft)


def find_promise(edited: Draft, before: str) -> ModelText:
    """What a reviewer's own text promises; `before` is the text of the draft that it replaces.

    That is the draft's promise while a sentence that makes it is left, or such a sentence as it was changed.
    Without one, it is what the reviewer adds that a colleague, or who writes, will see to.
    """
    old, new = (dict.fromkeys(split_sentences(text)) for text in (before, edited.reply_markdown))
    words = set(find_words(edited.follow_up.text))
    shares = {s: len(words & set(find_words(s))) / max(1, len(words)) for s in (*old, *new)}
    best = max((shares[sentence] for sentence in old), default=0.0)
    if best >= SAME_PROMISE:
        making = [sentence for sentence in old if shares[sentence] == best]
    else:  # in other words, or another language: any sentence between greeting and closing may make it
        making = ([*old][1:-1] or [*old]) if words else []
    if any(sentence in new for sentence in making):
        return edited.follow_up
    added = [s for s in new if s not in old and (shares[s] >= SAME_PROMISE or promises(s))]
    return ModelText(clean_sentence(max(added, key=shares.__getitem__, default=""), MAX_HEADER_CHARACTERS))


def _build_draft(
    written: DraftText,
    material: Material,
    entry: LedgerEntry,
    envelope: Envelope,
    *,
    claims: Sequence[JudgedClaim],
    verdict: Verdict,
    prompt_version: str,
) -> Draft:
    """The draft of the row's next revision."""
    without = "it is written without" if entry.edit is None else "its facts could not be checked"
    return Draft(
        reply_markdown=written.reply_markdown,
        confidence=written.confidence,
        open_points=written.open_points,
        attachments=tuple(file.state for file in material.attachments),
        covers=tuple(text.email_id for text in material.thread if not text.is_ours),
        idempotency_key=build_idempotency_key(entry.mailbox_id, entry.email_id, entry.revision),
        claims=tuple(map(_cut_quotes, claims)),
        follow_up=written.follow_up,
        model=written.model,
        prompt_version=prompt_version,
        cc=envelope.cc,
        sender_facts=envelope.describe_sender(material.contact),
        looked_up=_list_looked_up(material, entry),
        subject=f"Your message to {material.mailbox_address}" if envelope.is_form else "",
        # What a check found shows on a proposal too, whatever its email was escalated for.
        notes=(
            *envelope.notes,
            *verdict.warnings,
            *(DRAFT_CHECKS[check].sentence for check in verdict.failed),
            *(f"{gap}: {without}" for gap in material.facts.gaps),
        ),
    )


def _list_looked_up(material: Material, entry: LedgerEntry) -> tuple[LookedUp, ...]:
    """Of which look-ups a draft may hold facts: it may repeat earlier drafts of its row, and its thread."""
    texts: tuple[Rejection | ThreadText, ...] = (*entry.rejections, *material.thread)
    earlier = [note for text in texts for note in text.looked_up]
    # What lost its address when it was erased is about the sender: replies to others are not shown.
    known = [replace(note, address=note.address or entry.sender) for note in earlier]
    known = [*sorted(known, key=lambda note: note.at), *material.facts.looked_up]
    return tuple({(note.name, note.address): note for note in known}.values())


def _ask(
    material: Material, settings: Settings, complete: Callable[[ChatRequest], ChatCompletion]
) -> DraftText | None:
    request = build_draft_request(material, settings.draft_deployment, settings.draft_reasoning_effort)
    for _ in range(ATTEMPTS):
        completion = complete(request)
        try:
            written = replace(parse_draft(completion.text), model=completion.model)
        except (ValueError, RecursionError):  # the latter from JSON that is nested too deep
            continue
        # One letter more than a reply may have is enough to hold it back: the rest is neither read nor kept.
        markdown = written.reply_markdown[: MAX_REPLY_CHARACTERS + 1]
        if material.profile.disclosure:
            markdown = drop_disclosures(markdown)
        return replace(written, reply_markdown=markdown)
    return None


def _cut_quotes(claim: JudgedClaim) -> JudgedClaim:
    """The claim as it is stored: its quotes share the room."""
    room = MAX_QUOTE_CHARACTERS // max(1, len(claim.quotes))
    return replace(claim, quotes=tuple(replace(quote, text=quote.text[:room]) for quote in claim.quotes))


def _share_verified(claims: Sequence[JudgedClaim]) -> float:
    """The share of the factual sentences that are verified; 1 where nothing is stated."""
    factual = [claim.support for claim in claims if claim.support is not Support.FREE]
    return factual.count(Support.VERIFIED) / len(factual) if factual else 1.0


def _check(written: DraftText, material: Material, entry: LedgerEntry) -> Verdict:
    """What code says of the text: neither the fixed instructions nor a reviewer's reason may be repeated."""
    profile = material.profile
    addresses = f"{parse_address(material.mailbox_address)} {entry.sender}"
    ours = (addresses, profile.signature, profile.purpose, profile.voice)
    return check_draft(
        written.reply_markdown,
        (*material.sources, *(Source("", SourceKind.APPROVED, "", text) for text in ours)),
        "\n\n".join((load_prompt("draft"), *(said.reason for said in entry.rejections))),
        allowed_hosts=profile.allowed_hosts,
        hold_back_sender_values=profile.hold_back_sender_values,
    )


def sign_reply(reply_markdown: str, signature: str, disclosure: str = "") -> str:
    """The reply with the signature and the disclosure under it, each once: what it already has stays."""
    signed = reply_markdown
    for own in (_visible_lines(signature), _visible_lines(disclosure)):
        lines = _visible_lines(signed)
        if own and not any(lines[i : i + len(own)] == own for i in range(len(lines))):
            # Two spaces end a line in Markdown; without them the signature would run together.
            signed = "\n\n".join(filter(None, (signed, "  \n".join(own))))
    return signed


def _drop_signature(reply_markdown: str, signature: str) -> str:
    """The reply without the profile's signature, which is no statement of who wrote it."""
    own, lines = _visible_lines(signature), reply_markdown.splitlines()
    shown = [number for number, line in enumerate(lines) if line.strip()]
    places = (shown[i : i + len(own)] for i in range(len(shown) - len(own) + 1))
    found = next((place for place in places if [lines[n].strip() for n in place] == own), [])
    return "\n".join(line for number, line in enumerate(lines) if number not in found)


def _visible_lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]
