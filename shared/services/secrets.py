"""Secrets as their users ask for them, and those that come from a setting."""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from secrets import token_hex
from typing import Protocol

from shared.errors import ConfigurationError, TransientError
from shared.settings import Secret

KEY_BYTES = 32

log = logging.getLogger(__name__)


class SecretSource(Protocol):
    """Where a secret comes from."""

    def get(self) -> Secret:
        """The secret as known now. Raises ConfigurationError or TransientError."""
        ...

    def refresh(self, stale: Secret) -> Secret:
        """The secret after `stale` was refused: read again, unless a newer one is known already."""
        ...


FindSecret = Callable[[str], SecretSource]
"""Where the secret of a name is. Raises ConfigurationError where it can be nowhere."""


def is_sendable(value: str) -> bool:
    """Whether a secret can stand in a header."""
    return bool(value) and value.isascii() and value.isprintable() and " " not in value


def list_missing_secrets(names: Mapping[str, str], find_secret: FindSecret) -> list[str]:
    """A sentence for each secret that cannot be had.

    `names`: by secret, the field that names it, with which its sentence begins. While their vault cannot be
    reached, nothing is known of those that are left.
    """
    problems: list[str] = []
    for name, where in names.items():
        try:
            find_secret(name).get()
        except ConfigurationError as error:
            problems += [f"{where}: {problem}" for problem in error.problems]
        except TransientError as error:
            log.warning("whether the secrets of the look-ups are there is not known: %s", error)
            break
    return problems


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


class SecretFile:
    """A secret in a file of its own, which is created with the first `get`, for its owner alone.

    `setting` names the file in errors. `may_create` is asked where there is none: without its leave a missing
    file is an error.
    """

    def __init__(
        self,
        path: Path,
        setting: str,
        *,
        may_create: Callable[[], bool],
        new_secret: Callable[[], str] = lambda: token_hex(KEY_BYTES),
    ) -> None:
        self._path, self._setting = path, setting
        self._may_create, self._new_secret = may_create, new_secret
        self._known: Secret | None = None

    def get(self) -> Secret:
        """The secret, as it was read first. Raises ConfigurationError, and what `may_create` raises."""
        if self._known is None:
            self._known = self._read()
        return self._known

    def refresh(self, stale: Secret) -> Secret:  # noqa: ARG002  # the protocol's
        """The same secret again."""
        return self.get()

    def _read(self) -> Secret:
        try:
            if not self._path.exists() and self._may_create():
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                opened = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(opened, "w", encoding="ascii") as file:
                    file.write(self._new_secret())
                log.info("%s was created (%s): keep a copy of it elsewhere", self._path, self._setting)
            text = self._path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"{self._setting}: {self._path} cannot be read ({error.__class__.__name__}): "
                "put the key back there, or name the file that has it, or its vault (KEY_VAULT_URL)."
            ) from error
        if not text:
            raise ConfigurationError(f"{self._setting}: {self._path} is empty: put the key back there.")
        return Secret(text)
