"""The audit trail's file on one machine: a line of JSON for every decision, next to the ledger."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from shared.errors import ConfigurationError
from shared.telemetry import EVENT_LOGGER

FILE_NAME = "audit.jsonl"
MAX_BYTES, KEPT_FILES = 10_000_000, 9  # then the oldest go

Record = dict[str, Any]


class AuditFile(RotatingFileHandler):
    """Writes every event that has an actor as a line of JSON, while it is used as a context."""

    def __init__(self, ledger_path: Path) -> None:
        path = ledger_path.parent / FILE_NAME
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            super().__init__(path, maxBytes=MAX_BYTES, backupCount=KEPT_FILES, encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(
                f"LEDGER_PATH: {path} cannot be written ({error.strerror}): choose a writable folder."
            ) from error
        self.addFilter(lambda record: hasattr(record, "agent.actor"))

    def __enter__(self) -> "AuditFile":
        logger = logging.getLogger(EVENT_LOGGER)
        logger.setLevel(logging.INFO)
        logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger(EVENT_LOGGER).removeHandler(self)
        with suppress(OSError):  # of a full disk, which `handleError` has named
            self.close()

    def _open(self) -> TextIOWrapper:
        """Also the file that follows at each rotation is the operator's alone."""
        Path(self.baseFilename).touch(mode=0o600)
        return super()._open()

    def handleError(self, record: logging.LogRecord) -> None:
        """Say which decision is missing from the file; the work goes on, and the ledger has its outcome."""
        email_id = record.__dict__.get("agent.email_id", "")
        sys.stderr.write(
            f"LEDGER_PATH: a decision {email_id} is missing from {self.baseFilename} "
            f"({sys.exc_info()[1]}): free space on its disk.\n"
        )

    def format(self, record: logging.LogRecord) -> str:
        """One event as one line: its attributes without their prefix, and when it was."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        facts = {k.removeprefix("agent."): v for k, v in record.__dict__.items() if k.startswith("agent.")}
        return json.dumps({"at": at} | facts)


def read_records(ledger_path: Path) -> Iterator[Record]:
    """Every record, oldest first, over the files that are kept; a line cut by a crash is left out."""
    path = ledger_path.parent / FILE_NAME
    files = [path.with_name(f"{path.name}.{n}") for n in range(KEPT_FILES, 0, -1)] + [path]
    for file in files:
        if not file.exists():
            continue
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                continue
