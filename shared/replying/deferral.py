"""Deferral: an email that cannot go on now waits, is tried again, or is given up visibly."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from shared.domain import Cause, Decision, Outcome
from shared.errors import (
    AgentError,
    ConfigurationError,
    DeferredError,
    PermanentError,
    ThrottledError,
    TransientError,
    UnavailableError,
)
from shared.mail.multimail import MultiMailClient
from shared.model.prompting import clean_line
from shared.replying.claim import Claim, Waiting
from shared.replying.reporting import MAX_REASON_CHARACTERS, WAITING_TAG, render_cause, render_waiting
from shared.replying.submission import ReplySubmission
from shared.services.health import ServiceHealth
from shared.settings import Settings
from shared.telemetry import EMAIL_DEFERRED, record

# How long to wait, in seconds.
THROTTLED_SECONDS = 15.0  # where the service names no delay
MAX_WAIT_SECONDS = 6 * 3600.0
SHOWN_WAIT_SECONDS = 600.0  # a longer wait is shown on the email, and a pause, which ends when people say so

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Deferral:
    """Decides what an error means for one email. `random` returns 0 <= x < 1.

    `writer` shows on the email that it waits; None where the email is only observed.
    """

    claim: Claim
    submission: ReplySubmission
    writer: MultiMailClient | None
    settings: Settings
    health: ServiceHealth
    clock: Callable[[], datetime]
    random: Callable[[], float]

    def handle(self, error: AgentError, tag: Callable[[], None]) -> bool:
        """Defer the row, or give the email up; say whether its row is decided and ready to be finished.

        `tag` writes the tags of a decided row.
        """
        end = self._end_waiting(error)
        if end is None and isinstance(error, ConfigurationError):
            self._wait_for_others(error, self.settings.retry_base_seconds)
            return False
        if end is None and isinstance(error, TransientError) and self._waits(error):
            return False
        # Given up visibly. A decision that was already made stands; only its tags may be missing.
        entry = self.claim.entry
        log.error("email %r of mailbox %r is given up: %s", entry.email_id, entry.mailbox_id, error)
        if entry.outcome is None:
            self.claim.decide(end or self._conclude(error))
        try:
            tag()
        except ConfigurationError as tag_error:  # another account's key, perhaps for some minutes
            self._wait_for_others(tag_error, self.settings.retry_base_seconds)
            return False
        except (PermanentError, TransientError) as tag_error:
            if isinstance(tag_error, TransientError) and self._waits(tag_error):
                return False
            log.error("email %r could not be tagged: %s", entry.email_id, tag_error)  # noqa: TRY400  # no trace needed
        return True

    def _end_waiting(self, error: AgentError) -> Decision | None:
        """The end of an email that waited for a service or a setting until it was too old for a reply."""
        entry = self.claim.entry
        is_open = entry.outcome is None and entry.intent_in_doubt is None
        is_outside = not isinstance(error, PermanentError | Waiting) or (
            isinstance(error, Waiting) and error.cause is Cause.TOKEN_BUDGET
        )
        oldest = self.clock() - timedelta(hours=self.settings.max_email_age_hours)
        if not (is_open and is_outside and entry.waiting_for is not None and entry.open_since < oldest):
            return None
        reason = render_cause(error.cause) if isinstance(error, Waiting) else error.reason
        return Decision(Outcome.ESCALATED, Cause.WAITED_TOO_LONG, reason)

    def _waits(self, error: TransientError) -> bool:
        """Defer the row, unless this was the last attempt at what fails for this email."""
        settings, asked = self.settings, error.retry_after_seconds
        age = self.clock() - self.claim.entry.open_since
        if isinstance(error, DeferredError):
            # The longer it waits already, the less a minute matters.
            is_throttled = isinstance(error, ThrottledError)
            usual = THROTTLED_SECONDS if is_throttled else max(THROTTLED_SECONDS, age.total_seconds() / 2)
            fallback = min(usual, settings.retry_max_seconds)
            self._wait_for_others(error, fallback if asked is None else asked)
            return True
        outage = None
        if isinstance(error, UnavailableError):
            outage = self.health.note_failure(error, self.claim.entry.email_id)
        # An outage is not the email's fault, until it is too old: even what can never be done has an end.
        if outage is not None and age <= timedelta(hours=settings.max_email_age_hours):
            # With full jitter: on average a quarter of the time that the outage already lasts.
            ceiling = max(settings.retry_base_seconds, outage.total_seconds() / 2)
            wait = self.random() * min(settings.retry_max_seconds, ceiling)
            self._wait_for_others(error, max(wait, asked or 0.0))
            return True
        attempts = self.claim.entry.attempts
        if attempts >= settings.max_attempts:
            return False
        # Exponential back-off with full jitter, unless the service asked for a delay.
        ceiling = min(settings.retry_max_seconds, settings.retry_base_seconds * 2 ** (attempts - 1))
        self._defer(error, asked or self.random() * ceiling)
        return True

    def _wait_for_others(self, error: AgentError, seconds: float) -> None:
        """Wait without counting an attempt: nothing was wrong with this email."""
        self.claim.note(attempts=self.claim.entry.attempts - 1)
        self._defer(error, seconds * (1 + self.random() / 10))

    def _defer(self, error: AgentError, seconds: float) -> None:
        seconds = min(seconds, MAX_WAIT_SECONDS)
        cause, detail = Cause.UNAVAILABLE, error.reason
        if isinstance(error, Waiting):
            cause, detail = error.cause, ""
        elif isinstance(error, ThrottledError):
            cause = Cause.THROTTLED
        elif isinstance(error, ConfigurationError):
            cause = Cause.CONFIGURATION
        record(
            EMAIL_DEFERRED,
            self.claim.ids
            | {"attempts": self.claim.entry.attempts, "seconds": round(seconds, 1)}
            | {"error": type(error).__name__, "waiting_for": cause, "detail": str(error) if detail else None},
        )
        known = (self.claim.entry.waiting_for, self.claim.entry.waiting_detail)
        self.claim.defer(self.clock() + timedelta(seconds=seconds), cause, detail)
        is_short = seconds < SHOWN_WAIT_SECONDS and cause is not Cause.PAUSED
        if is_short or known == (cause, detail) or self.writer is None:
            return
        # Show on the email that it waits; best effort, because the service may be what it waits for.
        entry = self.claim.entry
        tag = {WAITING_TAG: clean_line(render_waiting(entry), MAX_REASON_CHARACTERS)}
        try:
            tags = self.writer.get_tags(entry.mailbox_id, entry.email_id) | tag
            self.writer.set_tags(entry.mailbox_id, entry.email_id, tags)
        except (ConfigurationError, PermanentError, TransientError) as tag_error:
            log.warning("email %r could not be tagged as waiting: %s", entry.email_id, tag_error)

    def _conclude(self, error: AgentError) -> Decision:
        """What can be said of an email that is given up: with a reply on its way it did not simply fail."""
        intent_at = self.claim.entry.intent_in_doubt
        if intent_at is None:
            cause = Cause.ATTEMPTS_USED_UP if isinstance(error, TransientError) else Cause.REFUSED
            return Decision(Outcome.FAILED, cause, error.reason)
        try:
            found = self.submission.find(intent_at)
        except (ConfigurationError, PermanentError, TransientError):
            found = None
        return found or Decision(Outcome.NEEDS_HUMAN, Cause.REPLY_UNCONFIRMED, error.reason)
