"""The identity that the agent shows to Azure, and the tokens that it gets for a service."""

from typing import Any

from azure.core.credentials import AccessToken, TokenCredential
from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.identity import (
    AzureCliCredential,
    AzureDeveloperCliCredential,
    ChainedTokenCredential,
    ManagedIdentityCredential,
    get_bearer_token_provider,
)

from shared.errors import ConfigurationError, UnavailableError
from shared.settings import Settings


def build_credential(settings: Settings) -> TokenCredential:
    """Build the managed identity's credential in Azure, the developer's own on a developer's machine.

    Build one per process: a managed identity's tokens are kept in it. Never a guess between several
    identities in production
    (https://learn.microsoft.com/azure/developer/python/sdk/authentication/best-practices).
    """
    if settings.managed_identity_client_id or settings.has_managed_identity:
        return ManagedIdentityCredential(client_id=settings.managed_identity_client_id)
    return ChainedTokenCredential(AzureCliCredential(), AzureDeveloperCliCredential())


class TokenSource:
    """The tokens of one service, each kept until it is to be renewed: not every credential keeps its own.

    It is a TokenCredential itself, for SDKs that want one. `setting` names the service in messages.
    Every method raises ConfigurationError when the identity is not usable, and UnavailableError.
    """

    def __init__(self, credential: TokenCredential, scope: str, setting: str) -> None:
        self._credential = credential
        self._setting = setting
        self._provide = get_bearer_token_provider(self, scope)

    def get_bearer(self) -> str:
        """The token for a request."""
        return self._provide()

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        """A new token. See azure.core's TokenCredential."""
        failed = f"Signing in at {self._setting} failed: no token for {' '.join(scopes)}"
        try:
            return self._credential.get_token(*scopes, **options)
        except ClientAuthenticationError as error:
            raise ConfigurationError(
                f"{failed} ({type(error).__name__}). Assign the managed identity to the app and check "
                "MANAGED_IDENTITY_CLIENT_ID; on one machine, run az login."
            ) from error
        except AzureError as error:
            raise UnavailableError(f"{failed} ({type(error).__name__}).") from error
