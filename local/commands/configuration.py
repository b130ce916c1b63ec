"""`python -m local profiles` and `knowledge`: whether the profiles are right, and which text a draft gets."""

import os
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table
from rich.text import Text

from local.host.run import (
    MISCONFIGURED,
    OK,
    load_local_settings,
    read_settings,
    report_failure,
    report_misconfigured,
)
from shared.composition import open_knowledge, open_profiles
from shared.errors import ConfigurationError, PermanentError, TransientError
from shared.knowledge.files import KnowledgeFiles
from shared.knowledge.lookup import ADDRESS, REFERENCE, LookUp
from shared.knowledge.passages import SHARED_FOLDER, KnowledgeSource, Passage
from shared.profiles.profile_file import MAX_PROFILE_CHARACTERS, PROFILE_FILE
from shared.profiles.profiles import MailboxProfile, Profiles
from shared.settings import find_config_path, is_set

MAX_SHOWN = 20


def profiles(console: Console) -> int:
    """Check the file in CONFIG_PATH as the agent does at its start; return the exit status.

    It needs no other setting. Whether the account has the mailboxes only the agent knows.
    """
    try:
        load_local_settings(os.environ)
        folder = find_config_path(os.environ)
        path = folder / PROFILE_FILE
        if not path.exists():
            console.print(Text(f"{path} does not exist: write it, or set CONFIG_PATH to its folder.", "red"))
            return MISCONFIGURED
        found = open_profiles(folder, has_search=is_set(os.environ, "SEARCH_ENDPOINT"))
    except ConfigurationError as error:
        return report_misconfigured(console, error)
    for name, profile in {"default": found.default, **found.own}.items():
        size = f"{profile.prompt_characters:,} of {MAX_PROFILE_CHARACTERS:,} characters"
        console.print(Text(f"{name}: {size}, {len(profile.category_names)} categories"))
        for look_up in profile.lookups:
            console.print(Text(f"  look-up {look_up.name}: {_describe(look_up)}"))
    console.print(Text(f"{path} is right.", "green"))
    return OK


def knowledge(console: Console, mailbox: str | None, question: str | None, *, embed: bool) -> int:
    """Print how much approved text there is and what the question finds; return the exit status.

    `mailbox`: as the profiles name it; any other has the default profile. `embed`: first write the vectors.
    """
    if mailbox is None and not embed:
        console.print(Text("Name a mailbox, or give --embed.", "red"))
        return MISCONFIGURED
    try:
        settings = read_settings("knowledge")
        profiles, source = open_knowledge(settings)
        if embed:
            _write_vectors(console, source)
        if mailbox is not None:
            profile = find_profile(console, profiles, mailbox)
            _print_knowledge(console, source, profile.folders, question, settings.knowledge_tokens)
    except ConfigurationError as error:
        return report_misconfigured(console, error)
    except (PermanentError, TransientError) as error:
        return report_failure(console, "Reading the knowledge", error)
    return OK


def _describe(look_up: LookUp) -> str:
    """Where it goes with what, and for which emails."""
    keys = " and ".join(key for key in (ADDRESS, REFERENCE) if key in look_up.url)
    way = "does not sign in"
    if look_up.audience:
        way = f"signs in as the app's identity to {look_up.audience}"
    elif look_up.secret:
        way = f"signs in with {look_up.secret} in {look_up.header}"
    emails = f"for {', '.join(look_up.categories)}" if look_up.categories else "for every category"
    tags = f", contacts tagged {', '.join(look_up.only_for)}" if look_up.only_for else ""
    return f"{urlsplit(look_up.url).netloc} by {keys}, {way}, {emails}{tags}"


def find_profile(console: Console, profiles: Profiles, mailbox: str) -> MailboxProfile:
    """The profile that names a mailbox so; the default one, which is said, where none does."""
    own = profiles.own.get(mailbox) or profiles.own.get(mailbox.lower())
    if own is None:
        names = ", ".join(profiles.own) or "none"
        said = (
            f"No profile names {mailbox}: it has the default one. Those with a profile of their own: {names}."
        )
        console.print(Text(said, "yellow"))
    return own or profiles.default


def _write_vectors(console: Console, source: KnowledgeSource) -> None:
    if not isinstance(source, KnowledgeFiles):
        raise ConfigurationError("--embed is for knowledge in files: remove SEARCH_ENDPOINT, or --embed.")
    count = source.save_vectors()
    console.print(Text(f"Wrote the vectors of {count} passages. Deploy them with the rest of config/."))


def _print_knowledge(
    console: Console, source: KnowledgeSource, folders: tuple[str, ...], question: str | None, limit: int
) -> None:
    names = ", ".join((SHARED_FOLDER, *folders))
    if isinstance(source, KnowledgeFiles):
        everything = source.list_passages(folders)
        tokens = sum(passage.tokens for passage in everything)
        is_whole = tokens <= limit
        what = "All of it goes into every draft" if is_whole else "A draft gets the passages that are found"
        size = f"{len(everything)} passages, about {tokens:,} tokens"
        console.print(Text(f"{names}: {size}. {what} (KNOWLEDGE_TOKENS {limit:,})."))
    else:
        is_whole = False
        console.print(Text(f"{names}: in the index at SEARCH_ENDPOINT, which is searched for every draft."))
    if question is None:
        return
    if isinstance(source, KnowledgeFiles):
        found = source.search(folders, question)
        shown = len(found) if is_whole else len(source.read(folders, question, limit).passages)
    else:
        found = source.read(folders, question, limit).passages
        shown = len(found)
    _print_passages(console, found[:MAX_SHOWN])
    rest = "" if is_whole else f", of which a draft would get {shown}"
    console.print(Text(f"Passages that the question finds: {len(found)}{rest}."))


def _print_passages(console: Console, passages: tuple[Passage, ...]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bright_black")
    table.add_column("", justify="right")
    for heading in ("file", "passage"):
        table.add_column(heading, overflow="fold")
    table.add_column("tokens", justify="right")
    for number, passage in enumerate(passages, 1):
        table.add_row(str(number), Text(passage.source), Text(passage.title), f"{passage.tokens:,}")
    console.print(table)
