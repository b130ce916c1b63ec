"""Mailbox profiles: what an operator writes about each mailbox, for the prompts and for the rules in code."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from shared.domain import Action, Mailbox
from shared.knowledge.lookup import LookUp
from shared.mail.contact_forms import ContactForm
from shared.profiles.business_hours import USUAL_HOURS, BusinessHours, describe_utc
from shared.profiles.notify import Notify
from shared.profiles.senders import NO_RULES, SenderRules
from shared.settings import Settings

CATEGORIES = (
    "question", "support", "complaint", "billing", "scheduling", "sales",
    "security", "legal", "feedback", "promotion", "other",
)  # fmt: skip
OTHER_CATEGORY = "other"
ANY_CATEGORY = "default"  # in `escalate_to`: every category that it does not name

LIMITS = (
    "max_replies_per_thread",
    "max_replies_per_sender_per_day",
    "daily_token_budget",
    "max_sender_token_share",
    "min_confidence",
    "min_draft_confidence",
)


@dataclass(frozen=True, slots=True)
class Example:
    """An email as it could arrive, and what to do with it; `category` and `why` may be empty."""

    email: str
    action: Action
    category: str = ""
    why: str = ""

    def render(self) -> str:
        """The example as lines of a prompt."""
        verdict = f"action {self.action}" + (f", category {self.category}" if self.category else "")
        return f"Email: {self.email}\n  Right: {verdict}" + (f". Why: {self.why}" if self.why else "")


@dataclass(frozen=True, slots=True)
class KnowledgeFolder:
    """A folder of passages; `only_for`: the tags of the contacts that it is for, empty for everybody."""

    folder: str
    only_for: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MailboxProfile:
    """What is to be known about one mailbox; absent fields mean: as the settings and prompts have it.

    All of it is the operator's text and trusted. `categories` maps own categories to their descriptions;
    `examples` are shown to triage. `escalate_to` names by category who handles what is escalated. While it is
    `paused`, its mail waits; while the agent is to `observe` it, nothing of it is submitted, tagged or told.
    `knowledge` names folders of passages, `lookups` reads of other systems. `addresses`: under which the
    mailbox gets mail too, bare and in lower case. `not_addressed`: what to do with mail to others, "escalate"
    or "ignore". `reply_all`: the domains whose people stay in copy. `min_verified`: the share of a draft's
    factual sentences that must be verified. `allowed_hosts`: to which a draft may link though only received
    mail names the link. `hold_back_sender_values`: numbers, addresses and secrets of the sender hold a draft
    back. `edit_needs_second_reviewer`: who edits a draft may not approve the edit. `disclosure`: whether a
    line under each reply says that an AI system wrote it. `images`: whether attached pictures go to the
    draft's model. `notify`: who is told of what waits for a person. The limits override the settings of the
    same name.
    """

    purpose: str = ""
    voice: str = ""
    language: str = ""
    signature: str = ""
    disclosure: bool = False
    answer: tuple[str, ...] = ()
    escalate: tuple[str, ...] = ()
    escalate_words: tuple[str, ...] = ()
    escalate_categories: tuple[str, ...] = ()
    escalate_to: Mapping[str, str] = field(default_factory=dict)
    senders: SenderRules = NO_RULES
    paused: bool = False
    observe: bool = False
    ignore: tuple[str, ...] = ()
    ignore_categories: tuple[str, ...] = ()
    categories: Mapping[str, str] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()
    knowledge: tuple[KnowledgeFolder, ...] = ()
    lookups: tuple[LookUp, ...] = ()
    business_hours: BusinessHours | None = None
    addresses: tuple[str, ...] = ()
    not_addressed: str = "escalate"
    reply_all: tuple[str, ...] = ()
    contact_forms: tuple[ContactForm, ...] = ()
    max_replies_per_thread: int | None = None
    max_replies_per_sender_per_day: int | None = None
    daily_token_budget: int | None = None
    max_sender_token_share: float | None = None
    min_confidence: float | None = None
    min_draft_confidence: float | None = None
    min_verified: float = 0.0
    allowed_hosts: tuple[str, ...] = ()
    hold_back_sender_values: bool = False
    edit_needs_second_reviewer: bool = False
    images: bool = False
    notify: Notify | None = None

    @property
    def category_names(self) -> tuple[str, ...]:
        """The categories that triage may choose from; `other` is always one."""
        return tuple(dict.fromkeys((*self.categories, OTHER_CATEGORY))) if self.categories else CATEGORIES

    def find_handler(self, category: str) -> str:
        """Who should handle an escalated email of a category; "" where nobody is named."""
        return self.escalate_to.get(category) or self.escalate_to.get(ANY_CATEGORY, "")

    @property
    def folders(self) -> tuple[str, ...]:
        """The names of its folders of knowledge."""
        return tuple(known.folder for known in self.knowledge)

    @property
    def asks_for_tags(self) -> bool:
        """Whether what a draft may know depends on the sender's tags in the address book."""
        only_for = (*(part.only_for for part in self.knowledge), *(part.only_for for part in self.lookups))
        return any(only_for)

    def opened_for(self, tags: Collection[str]) -> "MailboxProfile":
        """The profile without the folders and look-ups that are for contacts with other tags."""
        known = {tag.casefold() for tag in tags}
        return replace(
            self,
            knowledge=tuple(part for part in self.knowledge if _is_open(part.only_for, known)),
            lookups=tuple(part for part in self.lookups if _is_open(part.only_for, known)),
        )

    def override(self, settings: Settings) -> Settings:
        """The settings with this mailbox's limits."""
        own = {name: getattr(self, name) for name in LIMITS}
        return replace(settings, **{name: value for name, value in own.items() if value is not None})

    @property
    def prompt_characters(self) -> int:
        """The characters of all texts that triage and draft are given, each counted once."""
        texts = [self.purpose, self.voice, self.language, *self.answer, *self.escalate, *self.ignore]
        texts += [*self.categories, *self.categories.values()]
        texts += [
            text for example in self.examples for text in (example.email, example.category, example.why)
        ]
        return sum(map(len, texts))

    def build_triage_part(self) -> str:
        """What the triage's instructions say about this mailbox; empty when there is nothing to say.

        It is the same for every email, so that the service can cache what comes before the email.
        """
        categories = [f"{name}: {text}" for name, text in self.categories.items()]
        return _build_part(
            {
                "What the mailbox is for": self.purpose,
                "Reply to": _list(self.answer),
                "Always escalate": _list((*self.escalate, *_in_words(self.escalate_categories))),
                "Ignore": _list((*self.ignore, *_in_words(self.ignore_categories))),
                "Categories": _list(categories),
                "Examples": _list([example.render() for example in self.examples]),
            }
        )

    def build_draft_part(self) -> str:
        """What the draft's instructions say about this mailbox, the same for every email; may be empty."""
        hours = self.business_hours
        return _build_part(
            {
                "What the mailbox is for": self.purpose,
                "Voice": self.voice,
                "Language": f"Always {self.language}, whatever the email's." if self.language else "",
                "Signature": "A fixed one is put under your closing; write none." if self.signature else "",
                "Disclosure": "A fixed line that an AI system wrote the reply is put under it; write none."
                if self.disclosure
                else "",
                "Business hours": hours.render() if hours else "",
            }
        )

    @property
    def working_hours(self) -> BusinessHours:
        """When its people are at work, or when most people are."""
        return self.business_hours or USUAL_HOURS

    def describe_now(self, now: datetime) -> str:
        """One line for the part of a prompt that changes: weekday, date and time, and whether it is open."""
        return self.business_hours.describe(now) if self.business_hours else describe_utc(now)


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

    @property
    def has_targets(self) -> bool:
        """Whether any profile says who is notified."""
        return any(profile.notify is not None for profile in (self.default, *self.own.values()))

    @property
    def lookup_secrets(self) -> Mapping[str, str]:
        """What names each secret that look-ups send, by its name. For an observed mailbox none runs."""
        acting = (profile for profile in (self.default, *self.own.values()) if not profile.observe)
        lookups = [look_up for profile in acting for look_up in profile.lookups if look_up.secret]
        named = {look_up.secret: dict[str, None]() for look_up in lookups}
        for look_up in lookups:
            named[look_up.secret][f"lookups.{look_up.name}.secret"] = None
        return {secret: ", ".join(places) for secret, places in named.items()}

    def observing(self) -> "Profiles":
        """The same profiles where every mailbox is only observed."""
        own = {key: replace(profile, observe=True) for key, profile in self.own.items()}
        return replace(self, default=replace(self.default, observe=True), own=own)

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


def _is_open(only_for: Collection[str], tags: Collection[str]) -> bool:
    return not only_for or any(tag.casefold() in tags for tag in only_for)


def _in_words(categories: Sequence[str]) -> tuple[str, ...]:
    return (f"the categories {', '.join(categories)}",) if categories else ()


def _list(texts: Sequence[str]) -> str:
    return "\n".join(f"- {text}" for text in texts)


def _build_part(texts: Mapping[str, str]) -> str:
    """The texts that are not empty, each under its heading."""
    return "\n\n".join(f"{heading}:\n{text}" for heading, text in texts.items() if text)
