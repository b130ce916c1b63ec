"""The settings: the only place that reads the environment."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from shared.domain import TokenPrice
from shared.errors import ConfigurationError

DEFAULT_CONFIG_PATH = Path(__file__).parent.parent / "config"  # beside function_app.py
MODEL_SDKS = ("azure-ai-inference", "openai")
LEDGER_PATH = ".data/ledger.sqlite"


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
class Settings:
    """Everything an operator can set. Times are in the unit that the name says."""

    multimail_api_url: str
    multimail_api_key: Secret | None
    multimail_api_key_secret: str
    multimail_webhook_secret: Secret | None
    multimail_webhook_secret_name: str
    multimail_mailbox_ids: tuple[str, ...]
    key_vault_url: str | None
    managed_identity_client_id: str | None
    has_managed_identity: bool
    model_sdk: str
    model_endpoint: str
    model_api_key: Secret | None
    triage_deployment: str
    draft_deployment: str
    token_prices: Mapping[str, TokenPrice]
    work_queue_name: str
    service_bus_namespace: str | None
    service_bus_connection_string: Secret | None
    ledger_table_endpoint: str | None
    ledger_path: Path
    config_path: Path
    search_endpoint: str | None
    search_index: str
    poll_schedule: str
    track_schedule: str
    initial_lookback_hours: float
    max_email_age_hours: float
    max_attempts: int
    lease_seconds: float
    retry_base_seconds: float
    retry_max_seconds: float
    max_replies_per_thread: int
    max_replies_per_sender_per_day: int
    daily_token_budget: int
    min_confidence: float
    allow_ungated_replies: bool

    @classmethod
    def from_env(cls, environment: Mapping[str, str]) -> "Settings":
        """Read every setting. Raises one ConfigurationError that names all that are wrong, with remedies."""
        read = _Reader(environment)
        settings = cls(
            multimail_api_url=read.url("MULTIMAIL_API_URL", default="https://api.multimail.dev"),
            multimail_api_key=read.secret("MULTIMAIL_API_KEY"),
            multimail_api_key_secret=read.text("MULTIMAIL_API_KEY_SECRET", default="multimail-api-key"),
            multimail_webhook_secret=read.secret("MULTIMAIL_WEBHOOK_SECRET"),
            multimail_webhook_secret_name=read.text(
                "MULTIMAIL_WEBHOOK_SECRET_NAME", default="multimail-webhook-secret"
            ),
            multimail_mailbox_ids=read.names("MULTIMAIL_MAILBOX_IDS"),
            key_vault_url=read.optional_url("KEY_VAULT_URL"),
            managed_identity_client_id=read.optional("MANAGED_IDENTITY_CLIENT_ID"),
            has_managed_identity=read.optional("IDENTITY_ENDPOINT") is not None,
            model_sdk=read.choice("MODEL_SDK", MODEL_SDKS),
            model_endpoint=read.url("MODEL_ENDPOINT", remedy="set it to https://RESOURCE.openai.azure.com"),
            model_api_key=read.secret("MODEL_API_KEY"),
            triage_deployment=read.required(
                "TRIAGE_DEPLOYMENT", "set it to the name of a chat deployment at MODEL_ENDPOINT"
            ),
            draft_deployment=read.optional("DRAFT_DEPLOYMENT") or read.optional("TRIAGE_DEPLOYMENT") or "",
            token_prices=read.token_prices("TOKEN_PRICES"),
            work_queue_name=read.text("WORK_QUEUE_NAME", default="inbound-email"),
            service_bus_namespace=read.optional("ServiceBusConnection__fullyQualifiedNamespace"),
            service_bus_connection_string=read.secret("ServiceBusConnection"),
            ledger_table_endpoint=read.table_endpoint(),
            ledger_path=find_ledger_path(environment),
            config_path=read.folder("CONFIG_PATH", default=DEFAULT_CONFIG_PATH),
            search_endpoint=read.optional_url("SEARCH_ENDPOINT"),
            search_index=read.text("SEARCH_INDEX", default="knowledge"),
            poll_schedule=read.text("POLL_SCHEDULE", default="0 */1 * * * *"),
            track_schedule=read.text("TRACK_SCHEDULE", default="30 */5 * * * *"),
            initial_lookback_hours=read.number("INITIAL_LOOKBACK_HOURS", 24, 0, 8760),
            max_email_age_hours=read.number("MAX_EMAIL_AGE_HOURS", 72, 0.1, 8760),
            max_attempts=read.whole("MAX_ATTEMPTS", 8, 1, 100),
            lease_seconds=read.number("LEASE_SECONDS", 600, 1, 86400),
            retry_base_seconds=read.number("RETRY_BASE_SECONDS", 5, 0, 3600),
            retry_max_seconds=read.number("RETRY_MAX_SECONDS", 900, 0, 86400),
            max_replies_per_thread=read.whole("MAX_REPLIES_PER_THREAD", 3, 1, 100),
            max_replies_per_sender_per_day=read.whole("MAX_REPLIES_PER_SENDER_PER_DAY", 5, 1, 1000),
            daily_token_budget=read.whole("DAILY_TOKEN_BUDGET", 2_000_000, 1, 10**12),
            min_confidence=read.number("MIN_CONFIDENCE", 0.6, 0, 1),
            allow_ungated_replies=read.flag("ALLOW_UNGATED_REPLIES"),
        )
        read.check_multimail_key(settings)
        read.check_plain_http(settings)
        read.check_azure(settings)
        if read.problems:
            raise ConfigurationError(read.problems)
        return settings


def find_ledger_path(environment: Mapping[str, str]) -> Path:
    """Where the SQLite ledger is, or would be: also for commands that need no other setting."""
    return Path(_Reader(environment).text("LEDGER_PATH", default=LEDGER_PATH))


@dataclass
class _Reader:
    """Reads one variable at a time and collects a sentence for each that is wrong."""

    environment: Mapping[str, str]
    problems: list[str] = field(default_factory=list)

    def optional(self, name: str) -> str | None:
        return self.environment.get(name, "").strip() or None

    def text(self, name: str, default: str) -> str:
        return self.optional(name) or default

    def required(self, name: str, remedy: str) -> str:
        value = self.optional(name)
        if value is None:
            self.problems.append(f"{name} is not set: {remedy}.")
        return value or ""

    def secret(self, name: str) -> Secret | None:
        value = self.optional(name)
        if value is None:
            return None
        if value.startswith("@Microsoft.KeyVault("):
            self.problems.append(
                f"{name} is a Key Vault reference that the platform did not resolve: "
                "grant the app's identity the role Key Vault Secrets User, or set KEY_VAULT_URL instead."
            )
        elif not value.isascii() or any(c.isspace() for c in value):
            self.problems.append(f"{name} holds white space or characters outside ASCII: copy it again.")
        return Secret(value)

    def names(self, name: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in self.environment.get(name, "").split(",") if part.strip())

    def folder(self, name: str, default: Path) -> Path:
        value = self.optional(name)
        if value is not None and not Path(value).is_dir():
            self.problems.append(f"{name} is no folder: set it to the one with mailboxes.yaml, or remove it.")
        return Path(value) if value else default

    def url(
        self, name: str, default: str | None = None, remedy: str = "set it to an https:// address"
    ) -> str:
        value = self.optional(name) or default
        if value is None:
            self.problems.append(f"{name} is not set: {remedy}.")
            return ""
        return self._checked_url(name, value)

    def optional_url(self, name: str) -> str | None:
        value = self.optional(name)
        return None if value is None else self._checked_url(name, value)

    def _checked_url(self, name: str, value: str) -> str:
        try:
            parts = urlsplit(value)
            usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) > 0
        except ValueError:
            usable = False
        if not usable:
            self.problems.append(f"{name} is not an http(s) address: write it as https://HOST.")
        elif parts.query or parts.fragment or parts.username:
            self.problems.append(f"{name} must be a bare address: remove user, query and fragment.")
        return value.rstrip("/")

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        value = self.text(name, default=choices[0])
        if value not in choices:
            self.problems.append(f"{name} is none of {', '.join(choices)}: choose one.")
        return value

    def number(self, name: str, default: float, low: float, high: float) -> float:
        try:
            number = float(self.text(name, default=str(default)))
        except ValueError:
            number = float("nan")
        if not low <= number <= high:
            self.problems.append(f"{name} must be a number from {low:g} to {high:g}.")
            return default
        return number

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        number = self.number(name, default, low, high)
        if number != int(number):
            self.problems.append(f"{name} must be a whole number.")
        return int(number)

    def token_prices(self, name: str) -> Mapping[str, TokenPrice]:
        """`DEPLOYMENT=INPUT/OUTPUT` in US dollars per million tokens, comma-separated."""
        prices = {}
        for part in self.names(name):
            match = re.fullmatch(r"([^=\s]+)=(\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)", part)
            if match is None:
                self.problems.append(
                    f"{name} is not a list such as small=0.40/1.60,large=2/8: write for each deployment "
                    "the US dollars per million input and output tokens."
                )
                return {}
            prices[match[1]] = TokenPrice(float(match[2]), float(match[3]))
        return prices

    def flag(self, name: str) -> bool:
        value = self.text(name, default="false").lower()
        if value not in ("true", "false"):
            self.problems.append(f"{name} must be true or false.")
        return value == "true"

    def table_endpoint(self) -> str | None:
        if self.optional("LEDGER_PATH"):
            return None
        account = self.optional("AzureWebJobsStorage__accountName")
        if account and not re.fullmatch(r"[a-z0-9]{3,24}", account):
            self.problems.append("AzureWebJobsStorage__accountName is not the name of a storage account.")
        derived = f"https://{account}.table.core.windows.net" if account else None
        return (
            self.optional_url("LEDGER_TABLE_ENDPOINT")
            or self.optional_url("AzureWebJobsStorage__tableServiceUri")
            or derived
        )

    def check_multimail_key(self, settings: Settings) -> None:
        if settings.multimail_api_key is None and settings.key_vault_url is None:
            self.problems.append(
                "MULTIMAIL_API_KEY is not set: set it to a key with the scopes read and send "
                "(in Azure, set KEY_VAULT_URL to the vault that holds it instead)."
            )

    def check_azure(self, settings: Settings) -> None:
        """In Azure (it offers an identity) a file or a queue in memory would die with the instance."""
        if not settings.has_managed_identity or self.optional("LEDGER_PATH"):
            return
        if settings.ledger_table_endpoint is None:
            self.problems.append(
                "LEDGER_TABLE_ENDPOINT is not set: set it to https://ACCOUNT.table.core.windows.net, "
                "or set AzureWebJobsStorage__accountName."
            )
        if settings.service_bus_namespace is None and settings.service_bus_connection_string is None:
            self.problems.append(
                "ServiceBusConnection__fullyQualifiedNamespace is not set: "
                "set it to NAMESPACE.servicebus.windows.net."
            )

    def check_plain_http(self, settings: Settings) -> None:
        """A key must not cross a network in the clear; only this machine may be asked over http."""
        for name, value in (
            ("MULTIMAIL_API_URL", settings.multimail_api_url),
            ("MODEL_ENDPOINT", settings.model_endpoint),
            ("KEY_VAULT_URL", settings.key_vault_url or ""),
            ("SEARCH_ENDPOINT", settings.search_endpoint or ""),
        ):
            try:
                parts = urlsplit(value)
                remote = parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1")
            except ValueError:
                continue
            if remote or (name == "KEY_VAULT_URL" and parts.scheme == "http"):
                self.problems.append(f"{name} is plain http, which would show the key on the way: use https.")
