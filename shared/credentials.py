"""The identity that the agent shows to Azure."""

from typing import TYPE_CHECKING

from shared.settings import Settings

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential


def build_credential(settings: Settings) -> "TokenCredential":
    """Build the managed identity's credential in Azure, the developer's own on a developer's machine.

    Build one per process: a managed identity's tokens are kept in it. Never a guess between several
    identities in production
    (https://learn.microsoft.com/azure/developer/python/sdk/authentication/best-practices).
    """
    # Imported here because it costs 200 ms, which a start without Azure need not pay.
    from azure.identity import (  # noqa: PLC0415 - cold start
        AzureCliCredential,
        AzureDeveloperCliCredential,
        ChainedTokenCredential,
        ManagedIdentityCredential,
    )

    if settings.managed_identity_client_id or settings.has_managed_identity:
        return ManagedIdentityCredential(client_id=settings.managed_identity_client_id)
    return ChainedTokenCredential(AzureCliCredential(), AzureDeveloperCliCredential())
