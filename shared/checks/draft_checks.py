"""Draft checks: what must not be in a reply, decided in code on what its recipient would see."""

import functools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from shared.checks.characters import find_hidden, fold
from shared.checks.contacts import Contacts, Known, normalise_place, read_contacts
from shared.checks.evidence import Source, SourceKind
from shared.checks.keys import drop_known, has_known_format, list_secrets
from shared.checks.phrases import (
    asks_for_secret,
    find_placeholders,
    is_remark,
    names_field,
    repeats,
)
from shared.checks.rendering import Rendered, render

MAX_REPLY_CHARACTERS = 8_000
MAX_SOURCE_CHARACTERS = 200_000  # of each source
MAX_PASSAGES_KEPT = 4_096  # read once, not for each draft


class DraftCheck(StrEnum):
    """What is wrong with a draft, as a code."""

    EMPTY = "empty"
    TOO_LONG = "too_long"
    FOREIGN_LINK = "foreign_link"
    FOREIGN_ADDRESS = "foreign_address"
    FOREIGN_NUMBER = "foreign_number"
    PLACEHOLDER = "placeholder"
    REMARK = "remark"
    INSTRUCTIONS = "instructions"
    KEY = "key"
    PASSWORD_REQUEST = "password_request"  # noqa: S105  # not a password
    MARKUP = "markup"
    HIDDEN = "hidden"
    BLANK_LINES = "blank_lines"
    INVISIBLE = "invisible"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the checks say of a draft: `failed` holds it back, `warnings` are for the approver."""

    failed: tuple[DraftCheck, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Case:
    """A draft as the checks see it, with what its sources say.

    Foreign is what it may not show: places to go to, addresses, numbers to call or to pay to, and secrets.
    """

    markdown: str
    rendered: Rendered
    plain: str
    foreign_places: Sequence[str]
    foreign_addresses: Sequence[str]
    foreign_numbers: Sequence[str]
    foreign_secrets: Sequence[str]
    source_text: str
    instructions: str


@dataclass(frozen=True, slots=True)
class CheckRule:
    """A check: the sentence that a person reads, whether a draft fails it, and drafts that do or do not."""

    sentence: str
    fails: Callable[[_Case], bool]
    bad: tuple[str, ...]
    good: tuple[str, ...]


def check_draft(
    reply_markdown: str,
    sources: Sequence[Source],
    instructions: str,
    *,
    allowed_hosts: Collection[str] = (),
    hold_back_sender_values: bool = False,
) -> Verdict:
    """Judge a draft by what a mail program shows of it.

    A link must come from what is approved or from our own emails, or lead to one of `allowed_hosts`. So must
    phone numbers, account numbers, addresses and what looks like a secret, but the sender's own may be
    repeated with a warning, unless `hold_back_sender_values`. `instructions`: the fixed part of the prompt
    and reviewers' reasons, which no draft repeats.
    """
    if len(reply_markdown) > MAX_REPLY_CHARACTERS:
        return Verdict((DraftCheck.TOO_LONG,))
    rendered = render(reply_markdown)
    plain, contacts = fold(rendered.text), read_contacts(rendered.text, rendered.links)
    # Trusted: approved knowledge, the profile, our own emails and the sender's address.
    said, said_text = _read_sources([s for s in sources if s.kind is SourceKind.SENDER])
    trusted, trusted_text = _read_sources([s for s in sources if s.kind is not SourceKind.SENDER])
    hosts = frozenset(map(normalise_place, allowed_hosts))
    places = trusted.contacts.places | trusted.hosts | hosts
    said_addresses, said_numbers = _list_foreign(contacts, trusted, said, is_said=True)
    addresses, numbers = _list_foreign(contacts, trusted, said, is_said=False)
    not_ours = drop_known(list_secrets(plain), trusted_text)
    secrets = drop_known(not_ours, said_text)
    said_secrets = [secret for secret in not_ours if secret not in secrets]
    case = _Case(
        markdown=reply_markdown,
        rendered=rendered,
        plain=plain,
        foreign_places=[
            place
            for place in contacts.places | contacts.hosts
            if place not in places and re.split("[/?#:]", place, maxsplit=1)[0] not in hosts
        ],
        foreign_addresses=[*addresses, *(said_addresses if hold_back_sender_values else ())],
        foreign_numbers=[*numbers, *(said_numbers if hold_back_sender_values else ())],
        foreign_secrets=[*secrets, *(said_secrets if hold_back_sender_values else ())],
        source_text=f"{trusted_text}\n{said_text}",
        instructions=instructions,
    )
    warnings = (
        f"it repeats {kind} that only received mail has: {' '.join(', '.join(values).split())}"
        for kind, values in (
            ("an address", said_addresses),
            ("a phone or account number", said_numbers),
            ("a key, a password or a code", said_secrets),
        )
        if values
    )
    return Verdict(tuple(check for check, rule in DRAFT_CHECKS.items() if rule.fails(case)), tuple(warnings))


# Approved passages are the same for every draft; what people wrote is read each time and kept nowhere.
_read_approved = functools.lru_cache(maxsize=MAX_PASSAGES_KEPT)(lambda text: Known.read([text]))
_fold_approved = functools.lru_cache(maxsize=MAX_PASSAGES_KEPT)(fold)


def _read_sources(sources: Sequence[Source]) -> tuple[Known, str]:
    """What the sources show, and their folded text."""
    texts = [(source.text[:MAX_SOURCE_CHARACTERS], source.is_knowledge) for source in sources]
    known = [_read_approved(text) if is_kept else Known.read([text]) for text, is_kept in texts]
    folded = [_fold_approved(text) if is_kept else fold(text) for text, is_kept in texts]
    return Known.join(known), "\n".join(folded)


def _list_foreign(
    contacts: Contacts, trusted: Known, said: Known, *, is_said: bool
) -> tuple[list[str], list[str]]:
    """Addresses and numbers of no trusted source: those that the sender wrote, or that nobody did."""
    addresses = [
        address
        for address in sorted(contacts.addresses - trusted.contacts.addresses)
        if (address in said.contacts.addresses) is is_said
    ]
    numbers = [
        number.text
        for number in contacts.numbers
        if not trusted.has_number(number) and said.has_number(number) is is_said
    ]
    numbers += [
        account
        for account in contacts.accounts
        if account not in trusted.squeezed and (account in said.squeezed) is is_said
    ]
    return addresses, list(dict.fromkeys(numbers))


DRAFT_CHECKS: Mapping[DraftCheck, CheckRule] = {
    DraftCheck.EMPTY: CheckRule(
        "it is empty",
        lambda case: not case.plain.strip() and not case.rendered.has_markup,
        bad=("", "  \n", "&nbsp;"),
        good=("Thank you.",),
    ),
    DraftCheck.TOO_LONG: CheckRule(
        f"it is longer than {MAX_REPLY_CHARACTERS} characters",
        lambda case: len(case.markdown) > MAX_REPLY_CHARACTERS,
        bad=("x" * (MAX_REPLY_CHARACTERS + 1),),
        good=("x" * 80,),
    ),
    DraftCheck.FOREIGN_LINK: CheckRule(
        "it contains a link from neither our own mail nor approved knowledge",
        lambda case: bool(case.foreign_places),
        bad=("See https://evil.example/login", "[here](//evil.com/x)", "See evil.com"),
        good=("It runs on ASP.NET, e.g. version 2.1.", "Mamy m.in. certyfikaty."),
    ),
    DraftCheck.FOREIGN_ADDRESS: CheckRule(
        "it contains an address from neither the thread nor approved knowledge",
        lambda case: bool(case.foreign_addresses),
        bad=("Write to eve@evil.example", "Write to eve&#64;evil&#46;example"),
        good=("We are open from 9 to 17 @ the main gate.",),
    ),
    DraftCheck.FOREIGN_NUMBER: CheckRule(
        "it contains a phone or account number from neither the thread nor approved knowledge",
        lambda case: bool(case.foreign_numbers),
        bad=("Call 020 **7946** 0958", "Pay to GB29 NWBK 6016 1331 9268 19"),
        good=("We meet on 2026. 10. 12. or on 12-16.10.2026, 14:00-15:00.",),
    ),
    DraftCheck.PLACEHOLDER: CheckRule(
        "it contains a placeholder",
        lambda case: any(
            names_field(found) or found.strip("[]{}<>【】") not in case.source_text
            for found in find_placeholders(case.rendered.text)
            if found not in case.source_text
        ),
        bad=("Dear [Name],", "Your order {{order}}"),
        good=("- [x] invoice", "Revisaremos que TODO esté listo."),
    ),
    DraftCheck.REMARK: CheckRule(
        "it contains a remark about the draft",
        lambda case: is_remark(case.rendered.text),
        bad=("Here is a draft reply:\n\nHello", "Subject: Re: order"),
        good=("Here is a short answer to your question.",),
    ),
    DraftCheck.INSTRUCTIONS: CheckRule(
        "it repeats the instructions",
        lambda case: repeats(case.rendered.text, case.instructions),
        bad=("Never reveal a secret to anybody who asks for one by email.",),
        good=("Never mind.",),
    ),
    DraftCheck.KEY: CheckRule(
        "it contains something that looks like a key or a password",
        lambda case: has_known_format(case.plain) or bool(case.foreign_secrets),
        bad=("The key is mm_live_abc123", "Ihr Passwort lautet Wolke7!Regen42"),
        good=("Open Settings/Devices/Logger-2/Calibration.", "Our DIN-EN-ISO-9001-Zertifizierung is valid."),
    ),
    DraftCheck.PASSWORD_REQUEST: CheckRule(
        "it asks for a password, a code or a card's numbers",
        lambda case: asks_for_secret(
            "\n".join((case.rendered.text, *(link.target for link in case.rendered.links)))
        ),
        bad=("Please send us your password.", "Bitte nennen Sie uns Ihre TAN."),
        good=("We never ask for your password.", "You can reset your password under Profile."),
    ),
    DraftCheck.MARKUP: CheckRule(
        "it contains markup or an image",
        lambda case: case.rendered.has_markup,
        bad=("<b>Hello</b>", "![x](https://acme.example/help)"),
        good=("The export shows `<br>`.", "5 < 6 and 7 > 3"),
    ),
    DraftCheck.HIDDEN: CheckRule(
        "it contains text that its reader does not see",
        lambda case: case.rendered.has_hidden,
        bad=("Hello\n\n[x]: https://acme.example/help 'we take the blame'", "[](https://acme.example/help)"),
        good=("Hello, see the table.",),
    ),
    DraftCheck.BLANK_LINES: CheckRule(
        "it contains a long run of blank lines or spaces",
        lambda case: case.rendered.has_gap,
        bad=(
            "Hello" + "\n" * 9 + "We take the blame.",
            "Hello" + "\n\n&nbsp;" * 9 + "\n\nWe take the blame.",
        ),
        good=("Hello\n\n\nBest regards",),
    ),
    DraftCheck.INVISIBLE: CheckRule(
        "it contains invisible or look-alike characters",
        lambda case: find_hidden(case.markdown) or find_hidden(case.rendered.text),
        bad=("a\u202eb", "pass\u00adword"),
        good=("هزینه می\u200cشود. 👩\u200d🔧",),
    ),
}
SENTENCES: Mapping[DraftCheck, str] = {check: rule.sentence for check, rule in DRAFT_CHECKS.items()}
