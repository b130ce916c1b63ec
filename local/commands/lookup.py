"""`python -m local lookup`: what a mailbox's look-ups say of one address, asked as the agent asks them."""

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from local.commands.configuration import find_profile
from local.host.run import MISCONFIGURED, OK, UNFINISHED, read_settings, report_misconfigured
from shared.composition import open_lookups
from shared.domain import parse_address
from shared.errors import AgentError, ConfigurationError
from shared.knowledge.lookup import Answer, LookUp
from shared.knowledge.lookups import Read
from shared.knowledge.references import find_references
from shared.mail.own_words import split_own_words
from shared.model.prompting import clean_line

MAX_SHOWN_CHARACTERS = 400


def lookup(console: Console, mailbox: str, address: str, text: str) -> int:
    """Ask each look-up of a mailbox about an address and print what came of it; return the exit status.

    `mailbox`: as the profiles name it; any other has the default profile. `text`: what the customer might
    write; references are looked for in what is not quoted. Each is asked, whatever emails and contacts it is
    for.
    """
    customer = parse_address(address)
    if not customer:
        console.print(Text(f"{_show(address)} is not one email address: write it as name@host.", "red"))
        return MISCONFIGURED
    try:
        profiles, read = open_lookups(read_settings("lookup"))
    except ConfigurationError as error:
        return report_misconfigured(console, error)
    wanted = find_profile(console, profiles, mailbox).lookups
    if not wanted:
        console.print(Text(f"The profile of {mailbox} has no lookups: docs/lookups.md shows one."))
        return MISCONFIGURED
    own = split_own_words(text).own  # as of an email
    worked = [_try(console, read, look_up, customer, own) for look_up in wanted]
    return OK if all(worked) else UNFINISHED


def _try(console: Console, read: Read, look_up: LookUp, customer: str, text: str) -> bool:
    """Whether the look-up can give facts, as far as its answers tell."""
    console.print(Text.assemble((look_up.name, "bold"), _describe_limits(look_up)))
    references = find_references(look_up.references, text) if look_up.references else ("",)
    if look_up.references:
        found = _show(", ".join(references)) or f"none that {look_up.references} finds, so nothing is asked"
        console.print(Text(f"  references in TEXT: {found}"))
    works = True
    for reference in references:
        url = look_up.build_url(customer, reference)
        if not url:
            why = "a mark that some servers read as part of a url, or what needs address_field"
            console.print(Text(f"  not asked: {_show(reference or customer)} has {why}.", "yellow"))
            continue
        console.print(Text(f"  GET {url}"))
        works = _ask(console, read, look_up, url, customer) and works
    return works


def _ask(console: Console, read: Read, look_up: LookUp, url: str, customer: str) -> bool:
    try:
        content = read(look_up, url)
        answer = None if content is None else look_up.read_facts(content, customer)
    except AgentError as error:
        console.print(Text(f"  {str(error).rstrip('.')}.", "red"))
        return False
    except ValueError:
        console.print(Text("  HTTP 200, but the answer is not JSON: correct the url, or the system.", "red"))
        return False
    if answer is None:
        console.print(
            Text("  HTTP 404, 410 or 204: nothing about this customer. If it has, correct the url.")
        )
        return True
    console.print(Text("  HTTP 200", "green"))
    for line, style in _describe(look_up, answer, customer):
        console.print(Text(f"  {line}", style))
    return not answer.missing


def _describe(look_up: LookUp, answer: Answer, customer: str) -> Iterator[tuple[str, str]]:
    """What the answer has and lacks: lines and their styles."""
    field = look_up.address_field
    reasons = dict.fromkeys(answer.missing, "the answer has no such field: correct the path, or the system")
    reasons |= dict.fromkeys(answer.parts, "an object or a list, not a text: name a field in it")
    if not answer.is_about_customer:
        found = "another address" if answer.has_address else "empty in the answer, or not one address"
        reason = reasons.get(field, f"{found}, so nothing of the answer is used")
        yield f"address_field {field}: {reason}", "red" if answer.is_unlike else "yellow"
        return
    values = dict(answer.shown)
    if field:
        yield f"address_field {field}: {customer}", ""
    for label, path in look_up.show:
        if label in values:
            yield f"{label}: {values[label]}", ""
        else:
            reason = reasons.get(path, "empty in the answer")
            yield f"{label}: no value, {path}: {reason}", "red" if path in reasons else "yellow"


def _show(typed: str) -> str:
    """What was typed, or stands in an address, without what a terminal would obey."""
    return clean_line(typed, MAX_SHOWN_CHARACTERS)


def _describe_limits(look_up: LookUp) -> str:
    """What it is for, which is said because it is asked all the same."""
    limits = [
        f"{what} {', '.join(names)}"
        for what, names in (("emails of", look_up.categories), ("contacts tagged", look_up.only_for))
        if names
    ]
    return f": only for {' and '.join(limits)}" if limits else ""
