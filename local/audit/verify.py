"""`python -m local audit verify`: whether the audit trail is whole, unchanged, and borne out by others."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from rich.console import Console
from rich.prompt import Prompt
from rich.text import Text

from local.audit.checking import Facts, compare_with_ledger, compare_with_service
from local.host.run import OK, UNFINISHED, read_settings
from shared.composition import open_audit_key, open_ledger
from shared.errors import AgentError, ConfigurationError
from shared.ledger.audit_chains import AuditChain, check_anchor, find_anchor, find_problems, read_facts
from shared.ledger.entries import LedgerEntry
from shared.ledger.ledger import Ledger
from shared.mail.multimail import MultiMailClient
from shared.services.secrets import StaticSecret
from shared.settings import Secret, Settings

ADMIN_KEY = "ADMIN_KEY"
LEDGER_AGREES = "the ledger agrees"
BOTH_AGREE = "the ledger and MultiMail's audit log agree"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many records there are, every difference that was found, and the anchor of the trail as it is."""

    records: int
    differences: Sequence[str]
    anchor: str


def verify(console: Console, *, anchor: str | None, with_service: bool) -> int:
    """Check the trail, print what was found, and return the exit status. Changes nothing.

    Raises ConfigurationError and TransientError.
    """
    settings = read_settings("audit")
    key = open_audit_key(settings).get()
    account = _open_account(console, settings) if with_service else None
    with closing(open_ledger(settings, read_only=True)) as ledger:
        verdict = check_trail(ledger, key, anchor=anchor, account=account)
    print_verdict(console, verdict, BOTH_AGREE if with_service else LEDGER_AGREES)
    return UNFINISHED if verdict.differences else OK


def check_trail(
    ledger: Ledger, key: Secret, *, anchor: str | None = None, account: MultiMailClient | None = None
) -> Verdict:
    """Check the chains, and hold the trail against the ledger and, with an account, MultiMail's audit log.

    A difference is there at a second look too: an agent at work makes others, which pass.
    Raises ConfigurationError, and what the ledger raises.
    """
    verdict = _look(ledger, key, anchor, account)
    if not verdict.differences:
        return verdict
    again = _look(ledger, key, anchor, account)
    seen_before = set(verdict.differences)
    return replace(again, differences=[one for one in again.differences if one in seen_before])


def _look(ledger: Ledger, key: Secret, anchor: str | None, account: MultiMailClient | None) -> Verdict:
    differences: list[str] = []
    entries = list(_read_entries(ledger, differences))  # before the trail: a row is written before its record
    chains = ledger.audit.read()
    facts = read_facts(chains)
    differences += _check_chains(chains, key, anchor)
    differences += compare_with_ledger(facts, entries)
    if account is not None:
        differences += _compare_with(account, facts)
    return Verdict(len(facts), differences, find_anchor({chain.name: chain.head for chain in chains}, key))


def _read_entries(ledger: Ledger, differences: list[str]) -> Iterator[LedgerEntry]:
    """Every row that can be read; how many cannot is a difference."""
    entries, damaged = ledger.entries(), 0
    while True:
        try:
            yield next(entries)
        except StopIteration:
            break
        except (TypeError, ValueError, AttributeError):
            damaged += 1
    if damaged:
        differences.append(f"Rows of emails that the ledger cannot read: {damaged}. They were changed.")


def print_verdict(console: Console, verdict: Verdict, others: str = LEDGER_AGREES) -> None:
    """Print each difference; without one, what was checked and the anchor to keep."""
    for difference in verdict.differences:
        console.print(Text(f"✗ {difference}", "red"))
    if verdict.differences:
        found = f"Records checked: {verdict.records}. Differences: {len(verdict.differences)}."
        console.print(Text(found, "bold red"))
        return
    found = f"✓ Records checked: {verdict.records}. None is changed or missing; {others}."
    console.print(Text(found, "green"))
    console.print("Anchor; keep it elsewhere and give it to a later check (--anchor):")
    console.print(Text(verdict.anchor), soft_wrap=True)


def _check_chains(chains: Sequence[AuditChain], key: Secret, anchor: str | None) -> Iterator[str]:
    yield from find_problems(chains, key)
    if anchor is not None:
        try:
            yield from check_anchor(anchor, chains, key)
        except ValueError:
            yield "--anchor is not what this command printed: copy it again."


def _open_account(console: Console, settings: Settings) -> MultiMailClient:
    """The account as its admin sees it, with a key for this run alone. Raises ConfigurationError."""
    text = os.environ.get(ADMIN_KEY, "").strip()
    if not text and not sys.stdin.isatty():
        raise ConfigurationError(
            f"{ADMIN_KEY} is not set: set it to a MultiMail key with the scope admin, for this run alone."
        )
    text = text or Prompt.ask("MultiMail key with the scope admin", console=console, password=True).strip()
    if not text or not text.isascii() or any(character.isspace() for character in text):
        raise ConfigurationError(
            f"{ADMIN_KEY} is empty, or contains white space or characters outside ASCII: copy it again."
        )
    return MultiMailClient(settings.multimail_api_url, StaticSecret(Secret(text)))


def _compare_with(account: MultiMailClient, facts: Sequence[Facts]) -> list[str]:
    try:
        return list(compare_with_service(facts, account.list_audit_log()))
    except ConfigurationError as error:
        raise ConfigurationError(
            [problem.replace("MULTIMAIL_API_KEY", ADMIN_KEY) for problem in error.problems]
        ) from error
    except AgentError as error:
        return [f"MultiMail's audit log could not be read: {error}. Run this again."]
