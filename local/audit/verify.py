"""`python -m local audit verify`: whether the audit trail is whole, unchanged, and borne out by others."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing

from rich.console import Console
from rich.prompt import Prompt
from rich.text import Text

from local.audit.checking import Facts, compare_with_ledger, compare_with_service
from local.host.run import OK, UNFINISHED
from shared.composition import open_audit_key, open_ledger
from shared.errors import AgentError, ConfigurationError
from shared.ledger.audit_chains import AuditChain, check_anchor, find_anchor, find_problems, read_facts
from shared.mail.multimail import MultiMailClient
from shared.services.secrets import StaticSecret
from shared.settings import Secret, Settings

ADMIN_KEY = "ADMIN_KEY"


def verify(console: Console, *, anchor: str | None, with_service: bool) -> int:
    """Print every difference that is found, and the anchor to keep; return the exit status. Changes nothing.

    Raises ConfigurationError and TransientError.
    """
    settings = Settings.from_env(os.environ)
    key = open_audit_key(settings, read_only=True).get()
    account = _open_account(console, settings) if with_service else None
    _, ledger = open_ledger(settings, read_only=True)
    with closing(ledger):
        entries = list(ledger.entries())
        heads = ledger.audit.find_heads()
        chains = ledger.audit.read()
    facts = read_facts(chains)
    problems = [*_check_chains(chains, key, anchor), *compare_with_ledger(facts, entries)]
    if account is not None:
        problems += _compare_with(account, facts)
    for problem in problems:
        console.print(Text(f"✗ {problem}", "red"))
    count = sum(len(chain.records) for chain in chains)
    if problems:
        console.print(Text(f"{count} records were checked: {len(problems)} differences.", "bold red"))
        return UNFINISHED
    others = "the ledger and MultiMail's audit log agree" if with_service else "the ledger agrees"
    console.print(Text(f"✓ {count} records were checked: none is changed or missing, and {others}.", "green"))
    console.print("Anchor; keep it elsewhere and give it to a later check (--anchor):")
    console.print(Text(find_anchor(heads, key)), soft_wrap=True)
    return OK


def _check_chains(chains: Sequence[AuditChain], key: Secret, anchor: str | None) -> Iterator[str]:
    for chain in chains:
        yield from find_problems(chain, key)
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
