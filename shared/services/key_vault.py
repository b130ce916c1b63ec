"""Secrets from Azure Key Vault: MultiMail's key, the secret of its webhooks, and what targets need."""

import copy
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from azure.core.credentials import TokenCredential
from azure.core.exceptions import AzureError, ClientAuthenticationError, ServiceRequestError
from azure.core.pipeline.transport import RequestsTransport
from azure.keyvault.secrets import SecretClient

from shared.errors import AgentError, ConfigurationError, TransientError, UnavailableError
from shared.services.http_session import build_session, describe_failure
from shared.services.secrets import is_sendable
from shared.settings import Secret
from shared.telemetry import span

CONNECT_TIMEOUT_SECONDS = 5
READ_TIMEOUT_SECONDS = 10
PAUSE_AFTER_FAILURE_SECONDS = (
    60.0  # how long a known secret is used on before an unreachable vault is asked again
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Reading:
    """What came of asking the vault, good until `read_again_at`.

    `usable` is an older secret while the vault cannot be reached, and None when there is none.
    """

    read_again_at: float
    answer: Secret | AgentError
    usable: Secret | None


class KeyVaultSecret:
    """A secret in Azure Key Vault, cached for `ttl_seconds`, safe to share between threads.

    However many threads want it at once, the vault is asked once, and all of them share what came
    of it. When the vault or the identity cannot be reached, a cached secret is used on; when the
    vault answers that the secret is gone or forbidden, it is not: that is how an operator takes
    it away. `setting` names the secret and `content` says what it is, for messages. `clock` counts
    seconds.
    """

    def __init__(
        self,
        vault_url: str,
        name: str,
        credential: TokenCredential,
        *,
        setting: str = "MULTIMAIL_API_KEY_SECRET_NAME",
        content: str = "MultiMail key",
        ttl_seconds: float = 900.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._vault_url = vault_url
        self._name = name
        self._credential = credential
        self._setting = setting
        self._content = content
        self._ttl_seconds = ttl_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._client: SecretClient | None = None
        self._reading: _Reading | None = None

    def get(self) -> Secret:
        """The secret, at most `ttl_seconds` old while the vault can be reached.

        Raises ConfigurationError (absent, forbidden, unusable, no identity) and TransientError.
        """
        reading = self._reading
        if reading is None or self._clock() >= reading.read_again_at:
            reading = self._read_unless_newer(reading)
        return _unwrap(reading.usable or reading.answer)

    def refresh(self, stale: Secret) -> Secret:
        """The secret after `stale` was refused: asks the vault, unless a different one is known already.

        Raises like `get`, also when `stale` is still cached but the vault cannot be reached.
        """
        reading = self._reading
        if reading is not None and reading.usable is not None and reading.usable != stale:
            return reading.usable
        return _unwrap(self._read_unless_newer(reading).answer)

    def _read_unless_newer(self, seen: _Reading | None) -> _Reading:
        """Replace the reading `seen`, unless another thread did while this one waited for the lock."""
        with self._lock:
            if self._reading is None or self._reading is seen:
                self._reading = self._read(seen.usable if seen else None)
            return self._reading

    def _read(self, known: Secret | None) -> _Reading:
        now = self._clock()
        try:
            secret = self._read_vault(was_readable=known is not None)
        except TransientError as failure:
            if known is None:
                return _Reading(now, failure, None)
            log.warning("%s The cached value is used on.", failure)
            return _Reading(now + PAUSE_AFTER_FAILURE_SECONDS, failure, known)
        except ConfigurationError as failure:
            return _Reading(now, failure, None)
        return _Reading(now + self._ttl_seconds, secret, secret)

    def _read_vault(self, *, was_readable: bool) -> Secret:
        try:
            if self._client is None:
                self._client = self._build_client()
            with span("get secret", server=self._vault_url):
                stored = self._client.get_secret(self._name).value
        except AzureError as error:
            raise self._explain(error, was_readable=was_readable) from error
        except ValueError as error:  # the SDK's word for a host that is not a Key Vault
            raise ConfigurationError(
                f"{self} cannot be read: KEY_VAULT_URL is not the address of a Key Vault. "
                "Set it to https://NAME.vault.azure.net."
            ) from error
        value = (stored or "").rstrip("\r\n")  # `echo KEY | az keyvault secret set` stores one
        if is_sendable(value):
            return Secret(value)
        raise ConfigurationError(
            f"{self} is empty, or holds white space or characters outside ASCII. "
            f"Store the {self._content} there again."
        )

    def _build_client(self) -> SecretClient:
        session = build_session(self._vault_url)
        # No retries by status: the SDK would sleep as long as Retry-After says, without a bound.
        return SecretClient(
            self._vault_url,
            self._credential,
            retry_total=1,
            retry_status=0,
            transport=RequestsTransport(
                session=session,
                session_owner=False,
                connection_verify=session.verify,
                connection_timeout=CONNECT_TIMEOUT_SECONDS,
                read_timeout=READ_TIMEOUT_SECONDS,
            ),
        )

    def _explain(self, error: AzureError, *, was_readable: bool) -> AgentError:
        """Say what to do about a failed reading. The SDK's own texts are left out: some mislead."""
        status: int | None = getattr(error, "status_code", None)
        if isinstance(error, ClientAuthenticationError) and status is None:
            if was_readable:
                return UnavailableError(
                    f"{self} cannot be read: the identity that could read it is unavailable."
                )
            return ConfigurationError(
                f"{self} cannot be read: no identity is available. In Azure, set "
                "MANAGED_IDENTITY_CLIENT_ID to the client id of an identity assigned to the app; "
                "on your own machine, run az login."
            )
        failure = f"HTTP {status}" if status else describe_failure(error)
        if failure == ServiceRequestError.__name__:  # no more is known than that no connection came about
            return UnavailableError(
                f"{self} cannot be reached (no connection): check the name in KEY_VAULT_URL, your network or "
                "HTTPS_PROXY, and whether the vault is in a private network."
            )
        answered = f"{self} cannot be read: {failure}."
        if status in _REMEDIES:
            remedy = _REMEDIES[status].format(setting=self._setting, content=self._content)
            return ConfigurationError(f"{answered} {remedy}")
        return UnavailableError(answered)

    def __str__(self) -> str:
        return f"The secret {self._name} ({self._setting}) in {self._vault_url} (KEY_VAULT_URL)"


_REMEDIES = {
    400: "Set {setting} to a secret's name: letters, digits and hyphens.",
    401: "The vault refuses the identity's token: use a vault in the identity's own tenant.",
    403: (
        "Grant the app's identity the role Key Vault Secrets User on the vault, "
        "and check that its firewall admits the app and that the secret is enabled."
    ),
    404: "Store the {content} there under that name, or correct the two settings.",
}


def _unwrap(answer: Secret | AgentError) -> Secret:
    if isinstance(answer, Secret):
        return answer
    # A copy, because one instance raised by many threads would mix their tracebacks.
    raise copy.copy(answer) from answer.__cause__
