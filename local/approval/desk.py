"""`python -m local desk`: the review desk for an account, on loopback, with the reviewer's own key."""

import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from rich.console import Console
from rich.prompt import Prompt
from rich.text import Text

from local.approval.agent import AgentAccess, DeskAgent
from local.approval.oversight import Oversight
from local.approval.page import TIMEOUT_SECONDS, build_desk
from local.host.http_server import LOOPBACK_HOST, build_server
from local.host.run import OK, UNFINISHED, report_misconfigured, stopped_by_signals
from shared.errors import AgentError, ConfigurationError
from shared.mail.multimail import MultiMailClient
from shared.services.secrets import StaticSecret
from shared.settings import Secret

MULTIMAIL_URL = "https://api.multimail.dev"
PORT = 8484
# What a person is asked for where the environment does not say it.
QUESTIONS: Mapping[str, str] = {
    "REVIEWER_KEY": "Your MultiMail key, with the scopes read and oversight",
    "AGENT_URL": "Address of the agent (https://NAME.azurewebsites.net, or what `run` printed)",
    "AGENT_KEY": "Function key of the agent",
}
SECRETS = ("REVIEWER_KEY", "AGENT_KEY")
OWN_KEY = "a key of your own in MultiMail's dashboard, with the scopes read and oversight and no other"
KEY_REFUSED = (
    "REVIEWER_KEY: MultiMail does not know this key, or it lacks the scope read: copy it again, or make "
    f"{OWN_KEY}."
)
NO_OVERSIGHT = (
    "REVIEWER_KEY lacks the scope oversight, as the agent's own key does, which cannot approve: make "
    f"{OWN_KEY}."
)
SCOPE_REFUSED = (
    "AGENT_SCOPE: Entra ID gave no token for it: sign in with `az login` and start again, or ask who runs "
    "the agent for the scope, which looks like api://CLIENT-ID/.default."
)

Ask = Callable[[str, str], str]


@dataclass(frozen=True, slots=True)
class DeskSettings:
    """The two places that the desk talks to, and what lets it in. None of it is ever stored."""

    multimail_url: str
    key: Secret
    agent: AgentAccess


def desk(console: Console) -> int:
    """Serve the desk until stopped; return the exit status."""
    try:
        settings = read_settings(os.environ, _ask(console))
        check_access(settings)
        app = build_desk(settings.multimail_url, settings.key, settings.agent)
    except ConfigurationError as error:
        return report_misconfigured(console, error)
    except AgentError as error:
        console.print(Text(f"The desk cannot start now: {error}. Try again in a minute.", "red"))
        return UNFINISHED
    with stopped_by_signals() as stop, build_server(app, PORT) as server:
        console.print(Text(f"Review desk: {server.url}   (Ctrl-C ends)", "bold green"))
        while not stop.wait(1):  # on Windows a wait without an end would not see Ctrl-C
            pass
    return OK


def read_settings(environment: Mapping[str, str], ask: Ask) -> DeskSettings:
    """Take the settings from the environment, and ask for the others by name and question.

    With AGENT_SCOPE the desk also sends a token of Entra ID, for whom `az login` signed in: the app then
    demands one besides the function key. Raises ConfigurationError.
    """
    scope = environment.get("AGENT_SCOPE", "").strip()
    values = {
        name: environment.get(name, "").strip() or ask(name, text).strip() for name, text in QUESTIONS.items()
    }
    values["AGENT_URL"] = values["AGENT_URL"].rstrip("/").removesuffix("/api")
    values["MULTIMAIL_API_URL"] = environment.get("MULTIMAIL_API_URL", "").strip() or MULTIMAIL_URL
    problems = [
        f"{name} contains white space or characters outside ASCII: copy it again."
        for name in SECRETS
        if not values[name].isascii() or any(character.isspace() for character in values[name])
    ]
    problems += [
        f"{name} must be an https:// address, or an http:// address of this machine."
        for name in ("MULTIMAIL_API_URL", "AGENT_URL")
        if not _is_safe(values[name])
    ]
    if problems:
        raise ConfigurationError(problems)
    access = AgentAccess(values["AGENT_URL"], Secret(values["AGENT_KEY"]), _sign_in(scope) if scope else None)
    return DeskSettings(values["MULTIMAIL_API_URL"], Secret(values["REVIEWER_KEY"]), access)


def check_access(settings: DeskSettings) -> None:
    """Knock at both places with what the reviewer gave.

    Raises one ConfigurationError for all that is wrong, and TransientError where a service is away.
    """
    key = StaticSecret(settings.key)
    problems: list[str] = []
    multimail = MultiMailClient(settings.multimail_url, key, timeout=TIMEOUT_SECONDS)
    oversight = Oversight(settings.multimail_url, key, timeout=TIMEOUT_SECONDS)
    agent = DeskAgent(settings.agent, settings.key.fingerprint, timeout=TIMEOUT_SECONDS)
    refusal = KEY_REFUSED
    try:
        multimail.list_mailboxes()
        refusal = NO_OVERSIGHT
        oversight.pending()
    except ConfigurationError:
        problems.append(refusal)
    try:
        agent.list_items()
    except ConfigurationError as error:
        problems += error.problems
    if problems:
        raise ConfigurationError(problems)


def _ask(console: Console) -> Ask:
    def ask(name: str, text: str) -> str:
        if not sys.stdin.isatty():
            raise ConfigurationError(f"{name} is not set: {text[0].lower()}{text[1:]}.")
        return Prompt.ask(Text(text), console=console, password=name in SECRETS)

    return ask


def _is_safe(url: str) -> bool:
    """Whether a key may go there: it must not cross a network in the clear."""
    try:
        parts = urlsplit(url)
        is_own = LOOPBACK_HOST.fullmatch(parts.netloc) is not None
        return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and is_own))
    except ValueError:
        return False


def _sign_in(scope: str) -> Callable[[], str]:
    from azure.identity import AzureCliCredential, AzureDeveloperCliCredential, ChainedTokenCredential  # noqa: PLC0415 - of no use with a key

    from shared.services.credentials import TokenSource  # noqa: PLC0415 - its SDK

    logging.getLogger("azure.identity").setLevel(logging.CRITICAL)  # its warnings are for programmers
    source = TokenSource(
        ChainedTokenCredential(AzureCliCredential(), AzureDeveloperCliCredential()), scope, "AGENT_SCOPE"
    )

    def get_token() -> str:
        try:
            return source.get_bearer()
        except ConfigurationError:
            raise ConfigurationError(SCOPE_REFUSED) from None

    return get_token
