"""The fields of a profile: each is declared once, for the reader of the file and for editors' schema."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from urllib.parse import urlsplit

from shared.domain import Action, parse_address, to_ascii_host
from shared.knowledge.lookup import CONTINUE, WAIT, LookUp
from shared.knowledge.references import check_pattern
from shared.mail.contact_forms import ContactForm
from shared.profiles.business_hours import (
    WEEKDAYS,
    BusinessHours,
    Holiday,
    Span,
    check_hours,
    name_each_day,
    parse_days,
    parse_zone,
)
from shared.profiles.notify import DURATION, TARGET, Notify, parse_duration
from shared.profiles.profiles import ANY_CATEGORY, Example, KnowledgeFolder
from shared.profiles.senders import SenderRules
from shared.profiles.values import (
    ITEM,
    SENTENCE,
    SWITCH,
    TEXT,
    Kind,
    built,
    filled,
    limited,
    list_of,
    mapping_of,
    matching,
    number,
    one_of,
    one_or_more,
    one_or_named,
    parsed,
    some,
)
from shared.services.judged_https import find_address, find_forbidden
from shared.settings import LOOKUP_SECRET, declared_settings

MAX_SIGNATURE_CHARACTERS = 2_000
MAX_LINE_CHARACTERS = 200
MAX_OWN_CATEGORIES = 20
MAX_HANDLERS = 31  # every category, and `default`
MAX_SENDERS = 1_000  # in each list
MAX_HOLIDAYS = 60
MAX_TAGS = 20
MAX_LOOKUPS = 5  # each is a request for every email that it is for
MAX_SHOWN_FIELDS = 20
MAX_CACHE = timedelta(hours=24)
# Of the connection or of the message's form: no system reads a key in them, and they would break the request.
CONNECTION_HEADERS = frozenset(
    (
        "accept-encoding", "connection", "content-length", "expect", "host", "keep-alive",
        "proxy-authenticate", "proxy-authorization", "proxy-connection",
        "te",  # codespell:ignore te
        "trailer", "transfer-encoding", "upgrade",
    )
)  # fmt: skip

# Without a sign of ASCII but a single space, _ or - within: so editors and Python read the pattern alike.
_LETTER = r"[^\x00-/:-@\[-`{-\x7f\s]"
CATEGORY = limited(
    matching(
        rf"{_LETTER}+(?:[ _-]{_LETTER}+)*", "a name of letters and digits, with single spaces, _ or - within"
    ),
    40,
)
FOLDER = matching(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}", "a valid name: correct it")
_HOST = r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,63}"
_SHOWN_HOST = r"[^@\s]+\.[^@\s]+"
DOMAIN = matching(_HOST, "a valid name: correct it", shown_pattern=_SHOWN_HOST)
LINE = limited(SENTENCE, MAX_LINE_CHARACTERS)


@dataclass(frozen=True, slots=True)
class Field:
    """The declaration of one field. `meaning` is what an editor shows."""

    kind: Kind
    meaning: str


def _check_cache(duration: timedelta) -> timedelta:
    if duration > MAX_CACHE:
        raise ValueError("keeps answers for more than 24 hours: shorten it")
    return duration


def _check_header(name: str) -> str:
    if name.lower() in CONNECTION_HEADERS:
        raise ValueError(f"names {name}, which HTTP itself sets: name the one that a key is read from")
    return name


def _check_address_in_url(look_up: LookUp) -> LookUp:
    """The look-up, unless its url has an address, in place of a name, that is never asked."""
    address = find_address(urlsplit(look_up.url).hostname or "")
    reason = find_forbidden(address, allow_private=look_up.allow_private) if address else ""
    if reason:
        raise ValueError(f"would not be asked: {address} {reason}")
    return look_up


def _parse_sender(text: str) -> str:
    address = parse_address(text)
    if not address:
        raise ValueError("has a text that is not one email address: write it as name@host")
    return address


def _parse_sender_or_domain(text: str) -> str:
    local, at, host = text.rpartition("@")
    if "*" in local:
        raise ValueError(f"has {text[:40]!r}, which no address is: write {host} for all its addresses")
    return _parse_sender(text) if at else to_ascii_host(text)


_ADDRESS = parsed(SENTENCE, _parse_sender, pattern="@")
_SENDER = parsed(
    matching(
        rf"(?:[^@\s]+@)?{_HOST}",
        "an address or a domain: write it as name@host or host",
        shown_pattern=rf"(?:[^@\s*]+@)?{_SHOWN_HOST}",
    ),
    _parse_sender_or_domain,
)
_SENDER_LIST = list_of(_SENDER, "an address or a domain a line, each after a dash", limit=MAX_SENDERS)
_DAY = "(?:" + "|".join(WEEKDAYS) + ")"
_DAYS = parsed(matching(f"{_DAY}(?:-{_DAY})?", "a weekday or a range such as mon or mon-fri"), parse_days)
_TIME = r"(?:[01]?\d|2[0-3]):[0-5]\d"
_SPAN = parsed(
    matching(rf"{_TIME} ?[-–] ?(?:{_TIME}|24:00)", "a time from and to: write it as 09:00-17:30"), Span.parse
)
_DATE = r"\d{4}-\d\d-\d\d"
_HOLIDAY = parsed(
    matching(f"{_DATE}(?: to {_DATE})?", "a date such as 2026-12-25 or 2026-12-24 to 2027-01-01"),
    Holiday.parse,
)
_BUSINESS_HOURS = built(
    BusinessHours,
    required={
        "time_zone": parsed(SENTENCE, parse_zone),
        "days": parsed(
            mapping_of(
                _DAYS, parsed(one_or_more(_SPAN), check_hours),
                "hours for each open day (mon-fri: 09:00-17:30)", limit=len(WEEKDAYS),
            ),
            name_each_day,
        ),
    },
    optional={"holidays": list_of(_HOLIDAY, "one date a line, each after a dash", limit=MAX_HOLIDAYS)},
)  # fmt: skip
_TARGET = matching(TARGET, "a target such as teams-support, slack-support or json-support")
_DURATION = parsed(matching(DURATION, "a duration such as 30m or 4h"), parse_duration)
_NOTIFY = built(
    Notify,
    required={"first": _TARGET},
    optional={
        "deputy": _TARGET, "interval": _DURATION, "nudge_after": _DURATION, "promise_after": _DURATION,
        "show_sender": SWITCH,
    },
)  # fmt: skip
_EXAMPLES = list_of(
    built(
        Example,
        required={"email": ITEM, "action": parsed(one_of(*Action), Action)},
        optional={"category": CATEGORY, "why": ITEM},
    ),
    "each example after a dash, with email and action",
)
_SENDERS = built(
    SenderRules, required={}, optional=dict.fromkeys(("important", "escalate", "never_answer"), _SENDER_LIST)
)
_WHO_HANDLES = "who handles each category (billing: accounts), and default for the others"
_HANDLERS = one_or_named(
    LINE,
    mapping_of(
        CATEGORY,
        LINE,
        _WHO_HANDLES,
        limit=MAX_HANDLERS,
    ),
    ANY_CATEGORY,
    _WHO_HANDLES,
)
_LABEL = filled(
    parsed(LINE, lambda text: text.removesuffix(":")), "is empty: write how the form's address line begins"
)
_FORMS = list_of(
    built(ContactForm, required={"sender": _ADDRESS, "label": _LABEL}, optional={}),
    "each form after a dash, with sender and label",
)

_TAGS = some(  # without a tag it would be for everybody
    list_of(filled(LINE, "has an empty tag: remove it"), "a tag a line, each after a dash", limit=MAX_TAGS),
    "has no tag: write one, or remove only_for, which then is for everybody",
)
_FOLDERS = list_of(
    parsed(
        one_or_named(
            FOLDER,
            built(KnowledgeFolder, required={"folder": FOLDER}, optional={"only_for": _TAGS}),
            "folder",
            "the folder, and only_for with the contacts' tags",
        ),
        lambda found: KnowledgeFolder(**found) if isinstance(found, dict) else found,
    ),
    "a folder's name a line, each after a dash",
)
_LOOKUP_NAME = matching(r"[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?", "a name such as orders: use a-z, digits and -")
_STEP = r"[^\s.\[\]$]+"
_PATH = matching(
    rf"{_STEP}(?:\.{_STEP})*",
    "a path of names and numbers with dots between, such as status or orders.0.status",
)
_FILE_NAME = r"[^\s/\\.][^\s/\\]*"
_LOOKUP = built(
    LookUp,
    required={
        "url": SENTENCE,
        "show": parsed(
            some(
                mapping_of(
                    CATEGORY, _PATH, "a field of the answer for each label (Status: order.status)",
                    limit=MAX_SHOWN_FIELDS,
                ),
                "has no field: write a label and the path of its field",
            ),
            lambda shown: tuple(shown.items()),
        ),
    },
    optional={
        "categories": list_of(CATEGORY),
        "only_for": _TAGS,
        "references": parsed(SENTENCE, check_pattern),
        "address_field": _PATH,
        "audience": matching(r"[a-z]+://[^\s]+|[0-9a-f-]{36}", "an application's id URI such as api://orders"),
        "header": parsed(
            matching(r"[A-Za-z][A-Za-z0-9-]{0,59}", "the name of a header such as x-functions-key"),
            _check_header,
        ),
        "secret": matching(
            rf"{LOOKUP_SECRET}[a-z0-9-]{{1,60}}",
            f"the name of a secret that begins with {LOOKUP_SECRET}: store the secret under such a name",
            is_secret=True,
        ),
        "ca_file": matching(  # of which the deployed package has a copy
            rf"(?:{_FILE_NAME}/)*{_FILE_NAME}\.pem",
            "a file in the folder of mailboxes.yaml, such as own-ca.pem: put it there, with this ending",
        ),
        "allow_private": SWITCH,
        "time_limit": number(float, (0.5, 10)),
        "cache": parsed(_DURATION, _check_cache),
        "on_failure": one_of(CONTINUE, WAIT),
    },
)  # fmt: skip
_LOOKUPS = parsed(
    mapping_of(
        _LOOKUP_NAME,
        parsed(_LOOKUP, _check_address_in_url),
        "a name for each look-up, with url and show below it",
        limit=MAX_LOOKUPS,
    ),
    lambda found: tuple(replace(look_up, name=name) for name, look_up in found.items()),
)


def _limit(setting: str, kind: type[int] | type[float], meaning: str) -> Field:
    """A field that overrides the setting of its name, within its bounds."""
    declared = declared_settings()[setting]
    return Field(number(kind, declared.bounds), f"{meaning}; without it, {declared.name} applies.")


FIELDS: Mapping[str, Field] = {
    "purpose": Field(TEXT, "What the mailbox is for: shown to triage and draft."),
    "voice": Field(TEXT, "How replies sound: shown to the draft."),
    "language": Field(LINE, "The language of every reply; without it, that of the email."),
    "signature": Field(limited(TEXT, MAX_SIGNATURE_CHARACTERS), "Put under every reply, once, by code."),
    "disclosure": Field(
        SWITCH, "Put a line under every reply, in the sender's language, that an AI system wrote it."
    ),
    "answer": Field(list_of(ITEM), "What to reply to, in your words: shown to triage."),
    "escalate": Field(list_of(ITEM), "What to hand to a person, in your words: shown to triage."),
    "escalate_words": Field(
        list_of(ITEM), "Texts that escalate an email whose subject or body contains one. Checked in code."
    ),
    "escalate_categories": Field(list_of(CATEGORY), "Categories that are always escalated. Checked in code."),
    "escalate_to": Field(
        _HANDLERS,
        "Who should handle an escalated email, for all or by category: the tag agent.escalate_to on it.",
    ),
    "senders": Field(
        _SENDERS,
        "Addresses and domains whose mail is important, always escalated or never answered. Checked in code.",
    ),
    "observe": Field(
        SWITCH,
        "Whether the agent only writes down what it would do with this mailbox's mail; false by default.",
    ),
    "paused": Field(SWITCH, "Whether this mailbox's new mail waits, unread; false by default."),
    "ignore": Field(list_of(ITEM), "What nobody expects an answer to, in your words: shown to triage."),
    "ignore_categories": Field(list_of(CATEGORY), "Categories that are never answered. Checked in code."),
    "categories": Field(
        mapping_of(
            CATEGORY,
            SENTENCE,
            "a description for each category (name: description)",
            limit=MAX_OWN_CATEGORIES,
        ),
        "Your own categories with a description each, instead of the built-in ones; other is always added.",
    ),
    "examples": Field(
        _EXAMPLES,
        "Emails and what to do with each (reply, escalate, ignore), in your words: shown to triage.",
    ),
    "knowledge": Field(
        _FOLDERS,
        "Folders of approved text in config/knowledge, besides shared; with only_for, for contacts with one"
        " of its tags.",
    ),
    "lookups": Field(_LOOKUPS, "Facts about the sender that are read from other systems for a draft."),
    "business_hours": Field(_BUSINESS_HOURS, "When people are at work, in its time zone: drafts are told."),
    "addresses": Field(list_of(_ADDRESS), "Other addresses under which this mailbox gets mail."),
    "not_addressed": Field(
        one_of("escalate", "ignore"),
        "What to do with mail whose To and Cc name others and none of our addresses.",
    ),
    "reply_all": Field(
        list_of(parsed(DOMAIN, to_ascii_host)), "Domains whose people stay in copy of a reply."
    ),
    "contact_forms": Field(_FORMS, "Forms whose emails are answered to the person who filled them in."),
    "max_replies_per_thread": _limit("max_replies_per_thread", int, "Replies in one thread"),
    "max_replies_per_sender_per_day": _limit(
        "max_replies_per_sender_per_day", int, "Replies to one sender in a day"
    ),
    "daily_token_budget": _limit("daily_token_budget", int, "Model tokens in a day"),
    "max_sender_token_share": _limit(
        "max_sender_token_share", float, "Share of a day's model tokens for one sender's emails"
    ),
    "min_confidence": _limit("min_confidence", float, "Confidence under which an email is escalated"),
    "min_draft_confidence": _limit(
        "min_draft_confidence", float, "Confidence under which a draft is proposed to a person, not submitted"
    ),
    "min_verified": Field(
        number(float, (0, 1)),
        "Share of a draft's factual sentences that must be verified, from 0 to 1; 0 by default.",
    ),
    "allowed_hosts": Field(
        list_of(parsed(DOMAIN, to_ascii_host)),
        "Hosts to which a draft may link though only received mail names the link.",
    ),
    "hold_back_sender_values": Field(
        SWITCH,
        "Whether a draft is held back that repeats a phone number, account number, address, key, password or"
        " code which only received mail has; false by default: the approver is warned.",
    ),
    "edit_needs_second_reviewer": Field(
        SWITCH, "Whether a draft that a reviewer edited has to be approved by another one; false by default."
    ),
    "images": Field(
        SWITCH,
        "Whether attached pictures go to the draft's model, which has to take images; false by default.",
    ),
    "notify": Field(
        _NOTIFY,
        "Who is notified of escalations, pending drafts and promises: targets, whose addresses are secrets.",
    ),
}
