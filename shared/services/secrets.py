"""Secrets as their users ask for them, and those that come from a setting."""

from typing import Protocol

from shared.settings import Secret


class SecretSource(Protocol):
    """Where a secret comes from."""

    def get(self) -> Secret:
        """The secret as known now. Raises ConfigurationError or TransientError."""
        ...

    def refresh(self, stale: Secret) -> Secret:
        """The secret after `stale` was refused: read again, unless a newer one is known already."""
        ...


class StaticSecret:
    """A secret from the settings, which cannot change while the process lives."""

    def __init__(self, secret: Secret) -> None:
        self._secret = secret

    def get(self) -> Secret:
        """The secret."""
        return self._secret

    def refresh(self, stale: Secret) -> Secret:  # noqa: ARG002  # the protocol's
        """The same secret again."""
        return self._secret
