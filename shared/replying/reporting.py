"""What people see of an email: the sentence for its cause, its tags, and its entry in the audit trail."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime

from shared.checks.draft_checks import SENTENCES as CHECK_SENTENCES
from shared.checks.draft_checks import DraftCheck
from shared.domain import Cause, Draft, Outcome, Support
from shared.errors import NotFoundError, PermanentError
from shared.ledger.entries import FOR_PEOPLE, LedgerEntry
from shared.mail.multimail import MultiMailClient
from shared.model.prompting import clean_line
from shared.profiles.profiles import MailboxProfile
from shared.telemetry import EMAIL_DECIDED, EMAIL_ERASED, Value, record

MAX_REASON_CHARACTERS = 200  # of a tag
MAX_WHOLE_REASON_CHARACTERS = 1_000  # where the remedy at its end must be read too
STATUS_TAG = "agent.reply_status"
# A reviewer writes this tag on the pending reply before rejecting it: the contract's decision has no reason.
REJECT_REASON_TAG = "agent.reject_reason"
# On the pending reply.
CLAIMS_TAG = "agent.claims"
SOURCES_TAG = "agent.sources"
OPEN_POINTS_TAG = "agent.open_points"
NOTE_TAG = "agent.note"
SENDER_TAG = "agent.sender"
LOOKUPS_TAG = "agent.lookups"
MAX_SOURCES = 10
MAX_ADDRESS_CHARACTERS = 100
SUPPORT_WORDS: Mapping[Support, str] = {
    Support.VERIFIED: "verified",
    Support.FROM_SENDER: "from the sender",
    Support.ASSERTED: "asserted",
}
MAX_PROPOSAL_CHARACTERS = 2_000
# Tags that the audit trail leaves out: the model's words, and what it has elsewhere.
NOT_AUDITED = (
    "agent.reason",
    "agent.reply_status",
    "agent.proposed_reply",
    "agent.language",
    "agent.needs_case_facts",
)
# What a finished row and the trail's last record of it have in common.
ROW_FACTS = (
    "outcome",
    "cause",
    "action",
    "category",
    "reply_id",
    "revision",
    "draft_model",
    "edited_by",
    "content_digest",
    "observed",
    "finished_at",
    "erased_at",
)
# How the trail has the decision of a reviewer whose reason the row has.
REJECTED_WITH_REASON = "rejected with a reason"
WAITING_TAG = "agent.waiting_for"  # gone once there is an outcome

# `{detail}` is what code noted with the cause.
SENTENCES: Mapping[Cause, str] = {
    Cause.TRIAGED: "",
    Cause.OPEN_POINTS: "a person must still see to",
    Cause.OBSERVED: "the agent only observes: nothing was submitted",
    Cause.OWN_ADDRESS: "the sender is one of our own mailboxes",
    Cause.MACHINE_SENDER: "the sender is a no-reply, bounce or mailing-list address",
    Cause.MACHINE_SUBJECT: "the subject is that of an automatic reply or a bounce",
    Cause.MACHINE_HEADERS: "the headers say that a machine or a mailing list sent it",
    Cause.SPAM: "MultiMail flagged it as spam",
    Cause.TOO_OLD: "it is too old for an automatic reply",
    Cause.HANDLED_BY_PERSON: "a person handled it at MultiMail first: it was {detail}",
    Cause.DELETED: "it no longer exists",
    Cause.ANSWERED: "its thread was answered after it",
    Cause.COVERED: "a reply to another email of its thread covers it",
    Cause.SAME_EMAIL: "the same email is worked on as {detail}",
    Cause.NEVER_ANSWERED: "its mailbox answers no mail of its sender",
    Cause.NOT_ADDRESSED: "it is addressed to others, not to this mailbox",
    Cause.THREAD_LIMIT: "its thread already has {detail} replies",
    Cause.SENDER_LIMIT: "its sender already got {detail} replies today",
    Cause.SENDER_FLOOD: "its sender wrote more than {detail} emails today",
    Cause.SENDER_TOKENS: "its sender's emails used up their share ({detail}) of the mailbox's tokens today",
    Cause.THREAD_MISSING: "MultiMail does not find a part of its thread: answer it there",
    Cause.REPLY_REJECTED: "the reply to it was rejected",
    Cause.REPLY_CANCELLED: "the reply to it was cancelled",
    Cause.REPLY_UNDELIVERED: "the reply to it could not be delivered",
    Cause.REPLY_GONE: "the reply to it no longer exists",
    Cause.RECIPIENTS_DIFFER: "MultiMail addressed the reply to others than the sender: {detail}",
    Cause.CONTACT_FORM: "a contact form sent it: a human has to answer",
    Cause.UNREADABLE_SENDER: "its sender is not one readable address",
    Cause.TRIAGE_UNREADABLE: "the model's triage could not be read",
    Cause.THOUGHT_TOO_LONG: "{detail}",
    Cause.TRIAGE_UNSURE: "{detail}",
    Cause.CATEGORY_RULE: "its mailbox escalates the category {detail}",
    Cause.WORD_RULE: "its mailbox escalates a word in it",
    Cause.SENDER_RULE: "its mailbox escalates all mail of its sender",
    Cause.IMPORTANT_SENDER: "it needs no answer, but its sender is important to its mailbox",
    Cause.ADDRESSES_TRIAGE: "the email tries to influence its own triage",
    Cause.DRAFT_UNREADABLE: "the model's draft could not be read",
    Cause.DRAFT_UNSURE: "the draft's confidence is only {detail}",
    Cause.DRAFT_UNVERIFIED: "only {detail} of the draft's statements are verified",
    Cause.DRAFT_CHECK: "the draft was held back: {detail}",
    Cause.LOOKED_UP_FACTS: "the reply holds facts that were looked up about the customer, and {detail}",
    Cause.READ_ONLY: "the mailbox is read_only: a human has to answer",
    Cause.UNGATED_MODE: "the mailbox is {detail}: a reply would leave without approval",
    Cause.UNKNOWN_MODE: "the mailbox's oversight mode is unknown",
    Cause.ALLOWLISTED: "the recipient is on the sending allowlist: a reply would leave without approval",
    Cause.CONTENT_FILTER: "the model's content filter refused it ({detail})",
    Cause.REPLY_REFUSED: "MultiMail refused the reply: {detail}",
    Cause.REPLY_UNCONFIRMED: "its reply cannot be found, but may have been accepted: {detail}",
    Cause.ERASED: "the agent's data about its sender was erased: a human has to answer, if one is due",
    Cause.ATTEMPTS_USED_UP: "every attempt failed; the last one: {detail}",
    Cause.REFUSED: "{detail}",
    Cause.CRASHED: "processing crashed {detail} times",
    Cause.WAITED_TOO_LONG: "it became too old while waiting: {detail}",
    Cause.INBOUND_APPROVAL: "waiting for inbound approval",
    Cause.NOT_SHOWN_YET: "waiting until MultiMail shows it",
    Cause.THREAD_BUSY: "waiting for another reply in the same thread",
    Cause.SLOT_TAKEN: "waiting: another email of its thread or sender is being answered",
    Cause.MAILBOX_LEFT_OUT: "waiting: its mailbox is inactive, or not named in MULTIMAIL_MAILBOX_IDS",
    Cause.PAUSED: "waiting: its mailbox is paused",
    Cause.NAMED_COPY: "waiting for the copy in the mailbox that the email names",
    Cause.TOKEN_BUDGET: "waiting: the mailbox's token budget for today is used up",
    Cause.THROTTLED: "{detail}",
    Cause.UNAVAILABLE: "{detail}",
    Cause.CONFIGURATION: "{detail}",
}


def render_cause(cause: Cause, detail: str = "") -> str:
    """The sentence for a cause. The only place where a cause becomes words."""
    if cause is Cause.DRAFT_CHECK:
        detail = "; ".join(CHECK_SENTENCES[DraftCheck(check)] for check in detail.split(","))
    return SENTENCES[cause].format(detail=detail)


def render_waiting(entry: LedgerEntry) -> str:
    """Why a row waits; empty when it was never deferred."""
    return render_cause(entry.waiting_for, entry.waiting_detail) if entry.waiting_for else ""


def render_reason(entry: LedgerEntry, limit: int = MAX_REASON_CHARACTERS) -> str:
    """Why a decided row ended with its outcome. It may quote the model: for people, never for a log."""
    if entry.cause is None:
        return ""
    parts = [render_cause(entry.cause, entry.detail)]
    if entry.cause is Cause.OPEN_POINTS and entry.draft is not None:
        parts += [render_open_points(entry.draft)]
    elif entry.triage is not None and entry.triage.cause is entry.cause:
        parts += [entry.triage.reason.text]
    return clean_line(": ".join(filter(None, parts)), limit)


def build_tags(entry: LedgerEntry, escalate_to: str = "") -> dict[str, str]:
    """The tags that show a decided row on its inbound email; absent facts have no tag."""
    triage, proposal = entry.triage, entry.proposal if entry.outcome in FOR_PEOPLE else None
    values = {
        "agent.outcome": entry.outcome,
        "agent.cause": entry.cause,
        "agent.action": triage and triage.action,
        "agent.category": triage and triage.category,
        "agent.urgency": triage and triage.urgency,
        "agent.sentiment": triage and triage.sentiment,
        "agent.language": triage and triage.language,
        "agent.needs_case_facts": triage and triage.needs_case_facts and "yes",
        "agent.reply_id": entry.reply_id,
        "agent.reply_status": entry.reply_status,
        "agent.reason": render_reason(entry),
        "agent.escalate_to": escalate_to,
        "agent.proposed_reply": proposal and _render_proposal(proposal),
    }
    return {key: str(value) for key, value in values.items() if value}


def build_reply_tags(draft: Draft) -> dict[str, str]:
    """The tags that show on a pending reply what carries it and whom it goes to, for its approver."""
    counts = Counter[Support](claim.support for claim in draft.claims)
    claims = [f"{counts[kind]} {words}" for kind, words in SUPPORT_WORDS.items() if counts[kind]]
    sources = dict.fromkeys(quote.source for claim in draft.claims for quote in claim.quotes)
    values = {
        CLAIMS_TAG: ", ".join(claims),
        SOURCES_TAG: "; ".join([*sources][:MAX_SOURCES]),
        OPEN_POINTS_TAG: render_open_points(draft),
        LOOKUPS_TAG: render_lookups(draft),
        SENDER_TAG: "; ".join(draft.sender_facts),
    }
    tags = {name: clean_line(text, MAX_REASON_CHARACTERS) for name, text in values.items() if text}
    return tags | ({NOTE_TAG: render_notes(draft.notes)} if draft.notes else {})


def shorten(name: str, limit: int) -> str:
    """An address or a host in at most `limit` characters: how it begins, and its end, which tells whose."""
    line, half = clean_line(name, len(name)), (limit - 1) // 2
    return line if len(line) <= limit else f"{line[: limit - 1 - half]}…{line[-half:]}"


def render_open_points(draft: Draft) -> str:
    """What a draft leaves open, for a tag: of one that may hold looked-up facts only how much it is."""
    if draft.looked_up and draft.open_points:
        return f"{len(draft.open_points)} (shown at the desk: they may repeat looked-up facts)"
    return "; ".join(point.text for point in draft.open_points)


def render_lookups(draft: Draft) -> str:
    """Of which look-ups a draft may hold facts, and from when."""
    return "; ".join(f"{note.name} {note.at:%Y-%m-%d %H:%M} UTC" for note in draft.looked_up)


def _render_proposal(proposal: Draft) -> str:
    if proposal.looked_up:
        return "It is shown at the desk: it may hold looked-up facts."
    return proposal.reply_markdown[:MAX_PROPOSAL_CHARACTERS]


def render_notes(notes: Iterable[str]) -> str:
    """What an approver has to know, in one line. Each note is cut by itself: none drives out another."""
    return "; ".join(clean_line(note, MAX_REASON_CHARACTERS) for note in notes)


def name_handler(entry: LedgerEntry, profile: MailboxProfile) -> str:
    """Whom the profile names to handle a row that is left to people; empty for other rows."""
    category = entry.triage.category if entry.triage is not None else ""
    return profile.find_handler(category) if entry.outcome in FOR_PEOPLE else ""


def tag_emails(writer: MultiMailClient | None, entry: LedgerEntry, profile: MailboxProfile) -> None:
    """Show a decided row on its emails: the inbound one, and its reply. One does not keep the other from it.

    Without a `writer` the emails are only observed, and nothing shows on them.
    Raises NotFoundError with everything that is missing, the first other refusal, and TransientError.
    """
    wanted = {entry.email_id: build_tags(entry, name_handler(entry, profile))}
    if entry.outcome is Outcome.REPLY_SUBMITTED and entry.reply_id and entry.draft is not None:
        wanted[entry.reply_id] = build_reply_tags(entry.draft)
    refused: list[PermanentError] = []
    for email_id, tags in wanted.items():
        try:
            if tags and writer is not None:
                write_tags(writer, entry.mailbox_id, email_id, tags)
        except PermanentError as error:
            refused.append(error)
    missing = [str(error) for error in refused if isinstance(error, NotFoundError)]
    if missing:
        raise NotFoundError("; ".join(missing))
    if refused:
        raise refused[0]


def write_tags(multimail: MultiMailClient, mailbox_id: str, email_id: str, tags: dict[str, str]) -> None:
    """Write the agent's tags on an email, next to the tags of others as they are now."""
    existing = multimail.get_tags(mailbox_id, email_id)
    others = {
        key: value
        for key, value in existing.items()
        if key == REJECT_REASON_TAG or not key.startswith("agent.")
    }
    wanted = others | tags
    if wanted != existing:
        multimail.set_tags(mailbox_id, email_id, wanted)


def record_decision(entry: LedgerEntry, now: datetime, key_id: str | None) -> None:
    """Write a decided row into the audit trail. `key_id`: the fingerprint of MultiMail's key."""
    record(
        EMAIL_DECIDED,
        describe_decision(entry)
        | {
            "mailbox_id": entry.mailbox_id,
            "email_id": entry.email_id,
            "seconds_since_received": round((now - entry.open_since).total_seconds(), 1),
            "key_id": key_id,
            "actor": "agent",
        },
    )


def record_erasure(erased: LedgerEntry, actor: str) -> None:
    """Write into the audit trail that the ledger has erased a row, and what it has left of it."""
    kept = (*ROW_FACTS, "settled_as", "settled_at")
    record(
        EMAIL_ERASED,
        {name: value for name, value in describe_decision(erased).items() if name in kept}
        | {"mailbox_id": erased.mailbox_id, "email_id": erased.email_id, "actor": actor},
    )


def describe_decision(entry: LedgerEntry) -> dict[str, Value]:
    """What the audit trail has about a decided row.

    The model's words may quote the email: they stay in the ledger and the tags. So does the sentence for the
    cause; the trail has the cause and what code noted with it. A proposal counts as the draft.
    """
    draft, usage = entry.draft or entry.proposal, entry.usage
    facts: dict[str, Value] = {
        key.removeprefix("agent."): value
        for key, value in build_tags(entry).items()
        if key not in NOT_AUDITED
    }
    if entry.content_digest:
        facts |= {"content_digest": entry.content_digest}
    if entry.detail:
        facts |= {"detail": clean_line(entry.detail, MAX_WHOLE_REASON_CHARACTERS)}
    facts |= _describe_authors(entry)
    if draft is not None:
        counts = Counter(claim.support for claim in draft.claims)
        facts |= {"claims_verified": counts[Support.VERIFIED]}
        facts |= {"claims_from_sender": counts[Support.FROM_SENDER]}
        facts |= {"claims_asserted": counts[Support.ASSERTED]}
        facts |= {"lookups": render_lookups(draft)} if draft.looked_up else {}
    if entry.is_observed:
        facts |= {"observed": "yes"}
    if entry.reply_settled_at is not None:
        facts |= {"settled_as": entry.reply_status, "settled_at": render_time(entry.reply_settled_at)}
    if entry.erased_at is not None:
        facts |= {"erased_at": render_time(entry.erased_at)}
    if entry.finished_at is not None:
        facts |= {"finished_at": render_time(entry.finished_at)}
    return facts | {
        "revision": entry.revision,
        "attempts": entry.attempts,
        "calls": usage.calls,
        "input_tokens": usage.input_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "output_tokens": usage.output_tokens,
    }


def _describe_authors(entry: LedgerEntry) -> dict[str, Value]:
    """Which models decided and wrote, or which reviewer did: for an edit no model was asked."""
    triage, draft = entry.triage, entry.draft or entry.proposal
    facts: dict[str, Value] = {} if triage is None else {"confidence": triage.confidence}
    if entry.edited_by:
        return facts | {"edited_by": entry.edited_by}
    if triage is not None:
        facts |= {"triage_model": triage.model, "triage_prompt": triage.prompt_version}
    if draft is not None:
        facts |= {"draft_model": draft.model, "draft_prompt": draft.prompt_version}
    return facts


def render_time(moment: datetime) -> str:
    """A moment as the audit trail has it: texts sort as the moments do."""
    return moment.isoformat(timespec="microseconds")
