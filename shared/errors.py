"""Errors, split by what the caller must do.

AgentError
├── ConfigurationError   stop: a setting, a key or a permission is wrong; the message names the remedy
├── TransientError       try the same thing again later
│   ├── UnavailableError   the service is not there: while it is down, this burns no attempt
│   └── DeferredError    nothing failed, the work has to wait: this burns no attempt
│       └── ThrottledError   the service asked to be left alone
├── PermanentError       trying again cannot help: record it on the email for a human
│   ├── NotFoundError
│   ├── ConflictError
│   ├── ContentFilteredError   a security signal, never retried
│   └── ThoughtTooLongError
└── LeaseLostError       another worker owns the row now: stop, write nothing

Anything else is a bug and is left untouched.
"""

from collections.abc import Sequence


class AgentError(Exception):
    """Any failure this package raises on purpose. Messages hold ids and remedies, never bodies or keys.

    `request` is the call that failed, for the log: the text has it behind `reason`, which people read.
    """

    request = ""

    @property
    def reason(self) -> str:
        """What went wrong, in words for people."""
        return super().__str__()

    def __str__(self) -> str:
        return f"{self.reason} ({self.request})" if self.request else self.reason


class ConfigurationError(AgentError):
    """Stop: what is configured cannot work. `problems` has one sentence per wrong setting."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class TransientError(AgentError):
    """Try again later, after `retry_after_seconds` where the service named a delay."""

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(message)


class UnavailableError(TransientError):
    """The service cannot be reached, or says that it fails: no fault of what it was asked.

    `operation` names the call, once `ServiceHealth.watch` has seen the error.
    """

    operation = ""


class DeferredError(TransientError):
    """Nothing failed, the work has to wait (inbound approval, token budget); this burns no attempt.

    Without a delay of its own it waits longer each time: what a system refuses for one customer.
    """


class ThrottledError(DeferredError):
    """The service asked to be left alone (rate limit, quota, warm-up)."""


class PermanentError(AgentError):
    """Trying again cannot help: a human has to look. `status_code` is the HTTP refusal's, if it was one."""

    def __init__(self, message: str, *, status_code: int | None = None) -> None:
        self.status_code = status_code
        super().__init__(message)


class NotFoundError(PermanentError):
    """The named thing does not exist (HTTP 404)."""


class ConflictError(PermanentError):
    """The service already has this (HTTP 409)."""


class ContentFilteredError(PermanentError):
    """The model service refused the prompt or the completion. `categories` names the filters that fired."""

    def __init__(self, message: str, *, categories: Sequence[str] = ()) -> None:
        self.categories = tuple(categories)
        super().__init__(message)


class ThoughtTooLongError(PermanentError):
    """The model used up the answer's limit on thinking. The message names the limit and the remedy."""


class LeaseLostError(AgentError):
    """Another worker wrote the ledger row after we claimed it."""


def raise_together(failures: Sequence[AgentError], sentence: str) -> None:
    """Raise what parts of a run failed with, if any did, now that the others are done.

    That is one ConfigurationError with every problem that they name, or else a TransientError with the
    `sentence` and the first of them.
    """
    problems = [p for error in failures if isinstance(error, ConfigurationError) for p in error.problems]
    if problems:
        raise ConfigurationError(list(dict.fromkeys(problems)))
    if failures:
        raise TransientError(f"{sentence}: {failures[0]}")
