"""The audit trail as it is written: every event that has an actor is appended to the ledger's chains."""

import json
import logging
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Self

from shared.errors import AgentError, PermanentError
from shared.ledger.audit_chains import MAX_RECORDS, AuditChains, find_anchor
from shared.services.secrets import SecretSource
from shared.telemetry import AUDIT_ANCHORED, EVENT_LOGGER, record

MOST_WAITING = 1_000  # records that could not be written yet

log = logging.getLogger(__name__)


class AuditTrail(logging.Handler):
    """Writes the audit trail while it is attached. No work stops for it.

    What cannot be written now waits for the next event, or the end of this process; the log has the cause at
    once. After an outage of the store a record may be in the trail twice.
    """

    def __init__(self, chains: AuditChains, key: SecretSource) -> None:
        super().__init__(logging.INFO)
        self._chains = chains
        self._key = key
        self._waiting: list[str] = []
        self._anchor = ""
        self._is_attached = False
        self.addFilter(lambda event: hasattr(event, "agent.actor"))

    def attach(self) -> None:
        """Begin to write every event of this process."""
        logger = logging.getLogger(EVENT_LOGGER)
        logger.setLevel(logging.INFO)
        logger.addHandler(self)
        self._is_attached = True

    def __enter__(self) -> Self:
        self.attach()
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def detach(self) -> None:
        """Write what waits, and no more: what comes now is a trial."""
        self._is_attached = False
        logging.getLogger(EVENT_LOGGER).removeHandler(self)
        self.flush()

    @property
    def waiting(self) -> int:
        """How many records could not be written yet."""
        return len(self._waiting)

    def emit(self, record: logging.LogRecord) -> None:
        """Append one event, after those that wait. `logging` calls this for one thread at a time."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        facts = {k.removeprefix("agent."): v for k, v in record.__dict__.items() if k.startswith("agent.")}
        self._waiting.append(json.dumps({"at": at} | facts))
        self.flush()

    def flush(self) -> None:
        """Try to write what waits. `logging` calls this once more when the process ends."""
        with self.lock or nullcontext():
            try:
                self._write_waiting()
            except Exception as error:  # noqa: BLE001 - whatever the trail meets, mail goes on
                lost = max(0, len(self._waiting) - MOST_WAITING)
                del self._waiting[:lost]
                log.error(  # noqa: TRY400  # the message says it all
                    "the audit trail lacks %d decisions until it can be written, %d of them for good, "
                    "the last one about %s: %s",
                    len(self._waiting) + lost, lost, _name_email(self._waiting[-1]),
                    error if isinstance(error, AgentError) else type(error).__name__,
                )  # fmt: skip

    def _write_waiting(self) -> None:
        """Write in the order of the events. What the store refuses for good is left out, by itself alone."""
        most = MAX_RECORDS
        while self._waiting:
            some = self._waiting[:most]
            try:
                self._chains.append(some, self._key.get())
            except PermanentError as error:
                if len(some) > 1:
                    most = 1
                    continue
                log.error(  # noqa: TRY400  # the message says it all
                    "the audit trail lacks a decision about %s for good: %s", _name_email(some[0]), error
                )
            del self._waiting[: len(some)]

    def note_anchor(self) -> None:
        """Put into the log how far the trail has come, if it has: there it is kept apart from the ledger.

        Raises what the ledger raises.
        """
        if not self._is_attached:
            return
        try:
            key = self._key.get()
        except AgentError:
            return  # which the next decision reports
        heads = self._chains.find_heads()
        anchor = find_anchor(heads, key)
        if anchor != self._anchor:
            self._anchor = anchor
            record(AUDIT_ANCHORED, {"anchor": anchor, "records": sum(h.number for h in heads.values())})


def _name_email(facts: str) -> str:
    return str(json.loads(facts).get("email_id", "no email"))
