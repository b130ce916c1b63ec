"""The settings: each is declared once, and they are read from the environment that the caller hands in."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from shared.domain import TokenPrice
from shared.errors import ConfigurationError

DEFAULT_CONFIG_PATH = Path(__file__).parent.parent / "config"  # next to function_app.py
MODEL_SDKS = ("azure-ai-inference", "openai")
DEFAULT_EFFORT = "default"  # the model's own: nothing is asked for
REASONING_EFFORTS = (DEFAULT_EFFORT, "none", "minimal", "low", "medium", "high", "xhigh")
LEDGER_PATH = ".data/ledger.sqlite"
OBSERVED = "observed"  # the folder, and the table, of what is only observed
# Of the variables with the secrets that profiles name: addresses and keys of targets, and keys of look-ups.
SECRET_PREFIXES = ("NOTIFY_", "LOOKUP_")
LOOKUP_SECRET = "lookup-"  # noqa: S105  # how the name of a look-up's secret begins, so that it is no other
# Each says where tables are that may hold the ledger.
TABLES = ("LEDGER_TABLE_ENDPOINT", "AzureWebJobsStorage__tableServiceUri", "AzureWebJobsStorage__accountName")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# The platform's own variables, among them near relatives of ours (AzureWebJobsStorage__blobServiceUri).
PLATFORM_PREFIXES = (
    "APPLICATIONINSIGHTS_",
    "AZURE_",
    "AzureWebJobs",
    "FUNCTIONS_",
    "IDENTITY_",
    "OTEL_",
    "WEBSITE_",
)
# How alike two names are, from 0 to 1 (difflib): one wrong letter in nine, the shortest name, gives 0.889.
# A test holds it against common variables: those nearest to a name of ours (PKG_CONFIG_PATH) reach 0.85.
RESEMBLANCE = 0.88

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Secret:
    """A text that shows itself only when asked."""

    value: str

    @property
    def fingerprint(self) -> str:
        """Eight hex digits of its SHA-256: they tell which secret it was, and nothing about it."""
        return sha256(self.value.encode()).hexdigest()[:8]

    def __repr__(self) -> str:
        return "Secret('***')"

    __str__ = __repr__


@dataclass(frozen=True, slots=True)
class Setting:
    """The declaration of one setting: `read` turns the text of the environment into the value.

    `default` is text, as the environment would have it. `name` is that of the environment; it is the
    attribute's name in capitals unless another is given. A setting with a `remedy` is required by what asks a
    model.
    """

    group: str
    read: Callable[["Setting", str], object]
    meaning: str
    default: str = ""
    bounds: tuple[float, float] = (0, 0)
    choices: tuple[str, ...] = ()
    remedy: str = ""
    name: str = ""

    @property
    def is_secret(self) -> bool:
        """Whether its value must not be shown or stored in plain text."""
        return self.read is _secret

    def refuse(self, problem: str) -> ConfigurationError:
        """The error that says what is wrong with the value, without the value."""
        return ConfigurationError(f"{self.name} {problem}")


def _text(setting: Setting, text: str) -> str:
    if setting.choices and text not in setting.choices:
        raise setting.refuse(f"must be one of {', '.join(setting.choices)}.")
    return text


def _switch(setting: Setting, text: str) -> bool:
    return _text(setting, text.lower()) == "true"


def _optional(_setting: Setting, text: str) -> str | None:
    return text or None


def _number(setting: Setting, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    low, high = setting.bounds
    if not low <= number <= high:
        raise setting.refuse(f"must be a number from {low:g} to {high:.15g}.")
    return number


def _whole(setting: Setting, text: str) -> int:
    number = _number(setting, text)
    if number != int(number):
        raise setting.refuse("must be a whole number.")
    return int(number)


def _names(_setting: Setting, text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _secret(setting: Setting, text: str) -> Secret | None:
    if text.startswith("@Microsoft.KeyVault("):
        raise setting.refuse(
            "is a Key Vault reference that the platform did not resolve: "
            "grant the app's identity the role Key Vault Secrets User, or set KEY_VAULT_URL instead."
        )
    if not text.isascii() or any(c.isspace() for c in text):
        raise setting.refuse("contains white space or characters outside ASCII: copy it again.")
    return Secret(text) if text else None


def _url(setting: Setting, text: str) -> str:
    """Check the address. A key must not cross a network in the clear: http is for this machine only."""
    try:
        parts = urlsplit(text)
        is_usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) > 0
    except ValueError:
        is_usable = False
    if not is_usable:
        raise setting.refuse("is not an http(s) address: write it as https://HOST.")
    if parts.query or parts.fragment or parts.username:
        raise setting.refuse("must be a bare address: remove user, query and fragment.")
    if parts.scheme == "http" and (parts.hostname not in LOOPBACK or setting.name == "KEY_VAULT_URL"):
        raise setting.refuse("is plain http, which would expose the key in transit: use https.")
    return text.rstrip("/")


def _optional_url(setting: Setting, text: str) -> str | None:
    return _url(setting, text) if text else None


def _account(setting: Setting, text: str) -> str | None:
    if text and not re.fullmatch(r"[a-z0-9]{3,24}", text):
        raise setting.refuse("is not the name of a storage account.")
    return text or None


def _directory(setting: Setting, text: str) -> Path:
    if text and not Path(text).is_dir():
        raise setting.refuse("is not a directory: set it to the one with mailboxes.yaml, or remove it.")
    return Path(text) if text else DEFAULT_CONFIG_PATH


def _prices(setting: Setting, text: str) -> Mapping[str, TokenPrice]:
    prices = {}
    for part in _names(setting, text):
        match = re.fullmatch(r"([^=\s]+)=(\d+(?:\.\d+)?(?:/\d+(?:\.\d+)?){1,2})", part)
        if match is None:
            raise setting.refuse(
                "is not a list such as small=0.40/1.60/0.04,large=2/8/0.2: write for each deployment "
                "the US dollars per million input, output and cached input tokens."
            )
        prices[match[1]] = TokenPrice(*map(float, match[2].split("/")))
    return prices


def _setting(
    group: str, read: Callable[[Setting, str], T], meaning: str, default: str = "", **rest: Any
) -> T:
    declared: T = field(metadata={"setting": Setting(group, read, meaning, default, **rest)})
    return declared


class Need(StrEnum):
    """What a command takes from others, besides the ledger: settings for it are required only then."""

    MODEL = "model"
    READ = "the scope read"
    SEND = "the scopes read and send"


AGENT = frozenset({Need.MODEL, Need.SEND})  # which does all there is

MULTIMAIL, MODEL, STATE = "MultiMail", "Chat models", "Ledger and work queue"
CONTENT, SCHEDULES, LIMITS, AZURE = "Profiles and knowledge", "Schedules", "Limits", "Azure"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything an operator can set. Times are in the unit that the name says.

    `has_managed_identity` is the platform's: whether it offers an identity, as Azure does.
    `named_secrets`: the secrets that profiles name, by the variable's name.
    """

    has_managed_identity: bool
    named_secrets: Mapping[str, Secret]

    multimail_api_url: str = _setting(
        MULTIMAIL, _url, "Root of the MultiMail service, without /v1.", "https://api.multimail.dev"
    )
    multimail_api_key: Secret | None = _setting(
        MULTIMAIL, _secret, "Key with the scopes read and send; required unless KEY_VAULT_URL is set."
    )
    multimail_api_key_secret_name: str = _setting(
        MULTIMAIL, _text, "Name of the vault's secret with the MultiMail key.", "multimail-api-key"
    )
    multimail_webhook_secret: Secret | None = _setting(
        MULTIMAIL, _secret, "Signing secret of MultiMail's webhooks; empty to read it from the vault."
    )
    multimail_webhook_secret_name: str = _setting(
        MULTIMAIL,
        _text,
        "Name of the vault's secret that signs MultiMail's webhooks.",
        "multimail-webhook-secret",
    )
    multimail_mailbox_ids: tuple[str, ...] = _setting(
        MULTIMAIL,
        _names,
        "Ids or addresses of the mailboxes to answer; empty for every active one of the account.",
    )
    observe_only: bool = _setting(
        MULTIMAIL,
        _switch,
        "Only write down what the agent would do with each email, in a ledger of its own; submit and tag "
        "nothing.",
        "false",
        choices=("true", "false"),
    )
    pause_all: bool = _setting(
        MULTIMAIL,
        _switch,
        "Let the new mail of every mailbox wait, unread.",
        "false",
        choices=("true", "false"),
    )

    model_sdk: str = _setting(
        MODEL, _text, "Python SDK that calls the models.", MODEL_SDKS[0], choices=MODEL_SDKS
    )
    model_endpoint: str = _setting(
        MODEL,
        _url,
        "Root, or v1 address, of the Azure OpenAI resource that has the deployments.",
        remedy="set it to https://RESOURCE.openai.azure.com",
    )
    model_api_key: Secret | None = _setting(
        MODEL, _secret, "Key of that resource; empty to sign in by identity, or by az login."
    )
    triage_deployment: str = _setting(
        MODEL,
        _text,
        "Name of the deployment for triage, of a chat model with structured outputs; "
        "reasoning models work too.",
        remedy="set it to the name of a chat deployment at MODEL_ENDPOINT",
    )
    draft_deployment: str = _setting(
        MODEL, _text, "Name of the deployment for drafts; empty for that of TRIAGE_DEPLOYMENT."
    )
    draft_reasoning_effort: str = _setting(
        MODEL,
        _text,
        "How much the model thinks before it writes a draft: default leaves it to the model. "
        "Models before gpt-5.1 have no none, gpt-5-pro has only high.",
        DEFAULT_EFFORT,
        choices=REASONING_EFFORTS,
    )
    embedding_deployment: str = _setting(
        MODEL,
        _text,
        "Name of an embedding deployment (text-embedding-3), to search knowledge files by meaning as well; "
        "empty for words alone.",
    )
    token_prices: Mapping[str, TokenPrice] = _setting(
        MODEL,
        _prices,
        "US dollars per million input, output and cached input tokens of each deployment: "
        "small=0.40/1.60/0.04,large=2/8/0.2; without the third, cached input costs as much as other.",
    )

    ledger_path: Path = _setting(
        STATE,
        lambda _, text: Path(text or LEDGER_PATH),
        f"File of the ledger; empty for {LEDGER_PATH}, or for tables where they are set.",
    )
    ledger_table_endpoint: str | None = _setting(
        STATE, _optional_url, "Tables endpoint of the ledger; empty for the one of the host's own storage."
    )
    storage_account: str | None = _setting(
        STATE, _account, "Storage account of the host.", name="AzureWebJobsStorage__accountName"
    )
    storage_table_endpoint: str | None = _setting(
        STATE,
        _optional_url,
        "Tables endpoint of the host's storage, where its name is not enough.",
        name="AzureWebJobsStorage__tableServiceUri",
    )
    audit_key_file: Path | None = _setting(
        STATE,
        lambda _, text: Path(text) if text else None,
        "File with the key of the audit trail; empty for the vault's, or without a vault for audit.key next "
        "to LEDGER_PATH, which the first run creates.",
    )
    audit_key_secret_name: str = _setting(
        STATE, _text, "Name of the vault's secret with the key of the audit trail.", "audit-key"
    )
    work_queue_name: str = _setting(STATE, _text, "Name of the queue with the work items.", "inbound-email")
    service_bus_namespace: str | None = _setting(
        STATE,
        _optional,
        "Host name of the queue's namespace; empty for a queue in memory.",
        name="ServiceBusConnection__fullyQualifiedNamespace",
    )
    service_bus_connection_string: Secret | None = _setting(
        STATE,
        _secret,
        "Connection string of the namespace instead, for the Service Bus emulator.",
        name="ServiceBusConnection",
    )

    config_path: Path = _setting(
        CONTENT, _directory, "Directory with mailboxes.yaml and knowledge; empty for config in the project."
    )
    search_endpoint: str | None = _setting(
        CONTENT,
        _optional_url,
        "Root of an Azure AI Search service with the approved knowledge; empty for files.",
    )
    search_index: str = _setting(CONTENT, _text, "Name of the search index.", "knowledge")
    search_vector_field: str = _setting(
        CONTENT,
        _text,
        "Field of the index that has a vectorizer, to search by meaning as well; empty for words alone.",
    )
    knowledge_tokens: int = _setting(
        CONTENT,
        _whole,
        "Maximum tokens of approved text in a draft: what fits goes in whole, the rest is searched.",
        "24000",
        bounds=(1_000, 200_000),
    )

    poll_schedule: str = _setting(
        SCHEDULES, _text, "When to poll: NCRONTAB with seconds, in UTC.", "0 */1 * * * *"
    )
    track_schedule: str = _setting(
        SCHEDULES,
        _text,
        "When to check what became of replies: NCRONTAB with seconds, in UTC.",
        "30 */5 * * * *",
    )

    initial_lookback_hours: float = _setting(
        LIMITS, _number, "How far back the first poll of a mailbox looks.", "24", bounds=(0, 8760)
    )
    max_email_age_hours: float = _setting(
        LIMITS, _number, "Maximum age of an email that is still answered.", "72", bounds=(1, 8760)
    )
    max_attempts: int = _setting(
        LIMITS,
        _whole,
        "Attempts at one email before its outcome is failed; an outage of a service counts none.",
        "8",
        bounds=(1, 100),
    )
    lease_seconds: float = _setting(
        LIMITS,
        _number,
        "How long a worker owns an email: longer than functionTimeout in host.json.",
        "600",
        bounds=(600, 86400),
    )
    retry_base_seconds: float = _setting(
        LIMITS,
        _number,
        "Maximum of the random delay before the first retry; it doubles each time.",
        "5",
        bounds=(0, 3600),
    )
    retry_max_seconds: float = _setting(
        LIMITS, _number, "Maximum delay between retries.", "900", bounds=(0, 86400)
    )
    max_replies_per_thread: int = _setting(
        LIMITS, _whole, "Maximum replies in one thread.", "3", bounds=(1, 100)
    )
    max_replies_per_sender_per_day: int = _setting(
        LIMITS, _whole, "Maximum replies to one sender in a day.", "5", bounds=(1, 1000)
    )
    daily_token_budget: int = _setting(
        LIMITS,
        _whole,
        "Maximum tokens for one mailbox in a day; further mail waits until tomorrow, UTC.",
        "12000000",
        bounds=(1, 10**12),
    )
    max_sender_token_share: float = _setting(
        LIMITS,
        _number,
        "Maximum share of a mailbox's daily tokens for one sender; beyond it, mail goes to a person.",
        "0.2",
        bounds=(0.001, 1),
    )
    min_confidence: float = _setting(
        LIMITS, _number, "What triage is less sure of goes to a person.", "0.6", bounds=(0, 1)
    )
    min_draft_confidence: float = _setting(
        LIMITS,
        _number,
        "A draft that the model is less sure of is proposed to a person, not submitted.",
        "0",
        bounds=(0, 1),
    )
    retention_days: int = _setting(
        LIMITS,
        _whole,
        "Days after which the ledger erases the drafts, senders and texts of an email that is done.",
        "90",
        bounds=(1, 3650),
    )
    allow_ungated_replies: bool = _setting(
        LIMITS,
        _switch,
        "Let replies leave without a person's approval where the mailbox allows that.",
        "false",
        choices=("true", "false"),
    )

    key_vault_url: str | None = _setting(
        AZURE,
        _optional_url,
        "Vault with the MultiMail key, the audit trail's, and the secrets of webhooks, targets and look-ups.",
    )
    managed_identity_client_id: str | None = _setting(
        AZURE,
        _optional,
        "Client id of the identity to sign in with; empty for the only one, or for az login.",
    )

    @classmethod
    def from_env(cls, environment: Mapping[str, str], needs: Collection[Need] = AGENT) -> "Settings":
        """Read every setting; what is not among the `needs` may be empty.

        Raises one ConfigurationError that names all that are wrong, with remedies.
        """
        declared = declared_settings()
        texts = {s.name: environment.get(s.name, "").strip() or s.default for s in declared.values()}
        is_in_azure = is_set(environment, "IDENTITY_ENDPOINT")
        problems = _find_misspelled(environment, texts) + _find_missing(texts, needs, is_in_azure=is_in_azure)
        values: dict[str, Any] = {
            "has_managed_identity": is_in_azure,
            "named_secrets": read_named_secrets(environment),
        }
        for attribute, setting in declared.items():
            if setting.remedy and not texts[setting.name]:
                if Need.MODEL in needs:
                    problems.append(f"{setting.name} is not set: {setting.remedy}.")
                values[attribute] = ""
                continue
            try:
                values[attribute] = setting.read(setting, texts[setting.name])
            except ConfigurationError as error:
                problems += error.problems
        if problems:
            raise ConfigurationError(problems)
        values["draft_deployment"] = values["draft_deployment"] or values["triage_deployment"]
        account = values["storage_account"]
        derived = f"https://{account}.table.core.windows.net" if account else None
        tables = values["ledger_table_endpoint"] or values["storage_table_endpoint"] or derived
        values["ledger_table_endpoint"] = None if texts["LEDGER_PATH"] else tables
        values["ledger_path"] = find_ledger_path(environment)
        return cls(**values)


def declared_settings() -> Mapping[str, Setting]:
    """Every declaration, by its attribute of `Settings`, in the order in which they are documented."""
    declared = {f.name: f.metadata["setting"] for f in fields(Settings) if f.metadata}
    return {
        attribute: replace(setting, name=setting.name or attribute.upper())
        for attribute, setting in declared.items()
    }


def read_named_secrets(environment: Mapping[str, str]) -> Mapping[str, Secret]:
    """The secrets that profiles name, by the variable's name."""
    return {
        name: Secret(text.strip())
        for name, text in environment.items()
        if name.startswith(SECRET_PREFIXES) and text.strip()
    }


def find_config_path(environment: Mapping[str, str]) -> Path:
    """Where the profiles are, for a command that needs no other setting. Raises ConfigurationError."""
    return _directory(declared_settings()["config_path"], environment.get("CONFIG_PATH", "").strip())


def find_ledger_path(environment: Mapping[str, str]) -> Path:
    """Where the SQLite ledger is, or would be: also for commands that need no other setting.

    What is only observed has a folder of its own next to it, for its ledger and its audit trail.
    """
    path = Path(environment.get("LEDGER_PATH", "").strip() or LEDGER_PATH)
    return path.parent / OBSERVED / path.name if is_observing(environment) else path


def is_set(environment: Mapping[str, str], name: str) -> bool:
    """Whether a setting has a value, right or wrong."""
    return bool(environment.get(name, "").strip())


def is_observing(environment: Mapping[str, str]) -> bool:
    """Whether the agent only observes, for what needs no other setting."""
    return environment.get("OBSERVE_ONLY", "").strip().lower() == "true"


def _find_missing(texts: Mapping[str, str], needs: Collection[Need], *, is_in_azure: bool) -> list[str]:
    """What is required only if something else is not set, or only in Azure.

    In Azure a ledger in a file or a queue in memory would be lost with the instance.
    """
    problems = []
    sends = Need.SEND in needs and not is_observing(texts)
    has_key = texts["MULTIMAIL_API_KEY"] or texts["KEY_VAULT_URL"]
    if not has_key and not {Need.READ, Need.SEND}.isdisjoint(needs):
        problems.append(
            f"MULTIMAIL_API_KEY is not set: set it to a key with {Need.SEND if sends else Need.READ} "
            "(in Azure, set KEY_VAULT_URL to the vault that holds it instead)."
        )
    if not is_in_azure or texts["LEDGER_PATH"]:
        return problems
    if not any(texts[name] for name in TABLES):
        problems.append(
            "LEDGER_TABLE_ENDPOINT is not set: set it to https://ACCOUNT.table.core.windows.net, "
            "or set AzureWebJobsStorage__accountName."
        )
    if not texts["ServiceBusConnection__fullyQualifiedNamespace"] and not texts["ServiceBusConnection"]:
        problems.append(
            "ServiceBusConnection__fullyQualifiedNamespace is not set: "
            "set it to NAMESPACE.servicebus.windows.net."
        )
    return problems


def _find_misspelled(environment: Mapping[str, str], known: Iterable[str]) -> list[str]:
    """Names that resemble a setting's and are not one: an unread limit would be believed to hold."""
    right = {name.upper(): name for name in known}
    problems = []
    for name in environment:
        if name in right.values() or name.startswith(PLATFORM_PREFIXES) or not environment[name].strip():
            continue
        nearest = get_close_matches(name.upper(), right, n=1, cutoff=RESEMBLANCE)
        if nearest and not (name.upper() == nearest[0] and right[nearest[0]] in environment):
            problems.append(
                f"{name} is not a setting. Did you mean {right[nearest[0]]}? Rename or remove {name}."
            )
    return problems
