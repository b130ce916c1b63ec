"""Mailbox profiles: what an operator writes about each mailbox, for the prompts and for the rules in code."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from shared.domain import Mailbox
from shared.mail.contact_forms import ContactForm
from shared.settings import Settings

CATEGORIES = (
    "question", "support", "complaint", "billing", "scheduling", "sales",
    "security", "legal", "feedback", "promotion", "other",
)  # fmt: skip
OTHER_CATEGORY = "other"

LIMITS = (
    "max_replies_per_thread",
    "max_replies_per_sender_per_day",
    "daily_token_budget",
    "min_confidence",
    "min_draft_confidence",
)


@dataclass(frozen=True, slots=True)
class MailboxProfile:
    """What is to be known about one mailbox; absent fields mean: as the settings and prompts have it.

    All of it is the operator's text and trusted. `categories` maps own categories to their descriptions;
    `knowledge` names folders of passages. `addresses`: under which the mailbox gets mail too, bare and in
    lower case. `not_addressed`: what to do with mail to others, "escalate" or "ignore". `reply_all`: the
    domains whose people stay in copy. The limits override the settings of the same name.
    """

    purpose: str = ""
    voice: str = ""
    language: str = ""
    signature: str = ""
    answer: tuple[str, ...] = ()
    escalate: tuple[str, ...] = ()
    escalate_words: tuple[str, ...] = ()
    escalate_categories: tuple[str, ...] = ()
    escalate_to: str = ""
    ignore: tuple[str, ...] = ()
    ignore_categories: tuple[str, ...] = ()
    categories: Mapping[str, str] = field(default_factory=dict)
    knowledge: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    not_addressed: str = "escalate"
    reply_all: tuple[str, ...] = ()
    contact_forms: tuple[ContactForm, ...] = ()
    max_replies_per_thread: int | None = None
    max_replies_per_sender_per_day: int | None = None
    daily_token_budget: int | None = None
    min_confidence: float | None = None
    min_draft_confidence: float | None = None
    min_verified: float = 0.0

    @property
    def category_names(self) -> tuple[str, ...]:
        """The categories that triage may choose from; `other` is always one."""
        return tuple(dict.fromkeys((*self.categories, OTHER_CATEGORY))) if self.categories else CATEGORIES

    def override(self, settings: Settings) -> Settings:
        """The settings with this mailbox's limits."""
        own = {name: getattr(self, name) for name in LIMITS}
        return replace(settings, **{name: value for name, value in own.items() if value is not None})

    def build_triage_part(self) -> str:
        """What the triage's instructions say about this mailbox; empty when there is nothing to say."""
        categories = [f"{name}: {text}" for name, text in self.categories.items()]
        return _build_part(
            {
                "The mailbox is for": self.purpose,
                "Reply to": "; ".join(self.answer),
                "Always escalate": "; ".join((*self.escalate, *_in_words(self.escalate_categories))),
                "Ignore": "; ".join((*self.ignore, *_in_words(self.ignore_categories))),
                "Categories": "; ".join(categories),
            }
        )

    @property
    def triage_characters(self) -> int:
        """What this profile adds to a triage call: own categories are in its schema, too."""
        return len(self.build_triage_part()) + sum(len(name) + 4 for name in self.categories)

    def build_draft_part(self) -> str:
        """What the draft's instructions say about this mailbox; empty when there is nothing to say."""
        return _build_part(
            {
                "The mailbox is for": self.purpose,
                "Voice": self.voice,
                "Language": f"always {self.language}, whatever the email's" if self.language else "",
                "Signature": "a fixed one is put under your closing; write none" if self.signature else "",
            }
        )

    def describe_now(self, now: datetime) -> str:
        """The line that tells a draft what day and time it is."""
        return f"Now it is {now.astimezone(UTC):%A, %Y-%m-%d, %H:%M} UTC."


NO_PROFILE = MailboxProfile()


@dataclass(frozen=True, slots=True)
class Profiles:
    """The profile of every mailbox: `own` by id or lower-case address, `default` for all others.

    `places` says where each of `own` is in the file.
    """

    default: MailboxProfile = NO_PROFILE
    own: Mapping[str, MailboxProfile] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)

    def get(self, mailbox: Mailbox) -> MailboxProfile:
        """The profile of a mailbox, under its id or its address."""
        return self.own.get(mailbox.id) or self.own.get(mailbox.address.lower()) or self.default

    def find_problems(self, mailboxes: Iterable[Mailbox]) -> list[str]:
        """A sentence for each profile that none of the account's mailboxes has, or that another one hides."""
        known = list(mailboxes)
        named = {mailbox.id for mailbox in known} | {mailbox.address.lower() for mailbox in known}
        unknown = [
            f"{self.places[key]}: the account has no mailbox {key!r}: correct or remove it."
            for key in self.own
            if key not in named
        ]
        twice = [
            f"{self.places[m.id]}: {m.id!r} is the mailbox {m.address!r}, which is there too: remove one."
            for m in known
            if m.id in self.own and m.address.lower() in self.own
        ]
        return unknown + twice


NO_PROFILES = Profiles()


def _in_words(categories: Sequence[str]) -> tuple[str, ...]:
    return (f"the categories {', '.join(categories)}",) if categories else ()


def _build_part(lines: Mapping[str, str]) -> str:
    return "\n".join(f"{label}: {text.rstrip('.')}." for label, text in lines.items() if text)
