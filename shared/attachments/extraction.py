"""Reading a file in a child process, which hostile files may crash, fill or keep busy."""

import json
import logging
import ntpath
import os
import signal
import subprocess  # the child is this very program, with fixed arguments
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shared.attachments.formats import FileText, Format, Unread, UnreadError
from shared.errors import ThrottledError

MAX_SECONDS = 15.0
MAX_CHILDREN = 2  # at once: each may fill its memory
MAX_WAIT_SECONDS = 30.0  # of each file for one that ends

# Isolated (-I): neither a folder nor the environment chooses what is imported. The search path is ours.
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    " from shared.attachments.child import main; main()"
)
_ROOT = str(Path(__file__).resolve().parent.parent.parent)
# None of our variables, which hold keys. Python on Windows does not start without this one.
_ENVIRONMENT = {"SYSTEMROOT": ntpath.expandvars("%SYSTEMROOT%")} if os.name == "nt" else {}
_children = threading.BoundedSemaphore(MAX_CHILDREN)

log = logging.getLogger(__name__)


@contextmanager
def take_child(seconds: float = MAX_WAIT_SECONDS) -> Iterator[None]:
    """One of the few processes that may read at once. Raises ThrottledError where none ends in that time."""
    if not _children.acquire(timeout=seconds):
        raise ThrottledError(
            f"The {MAX_CHILDREN} processes that read attachments are busy with other emails."
        )
    try:
        yield
    finally:
        _children.release()


def extract_text(content: bytes, promised: Format, seconds: float = MAX_SECONDS) -> FileText:
    """The text of a file that its name or content type promises to be of a format. Raises UnreadError.

    Within `take_child`, where others read too.
    """
    path = json.dumps([_ROOT, *(entry for entry in sys.path if os.path.isabs(entry))])
    try:
        ended = subprocess.run(  # noqa: S603 - no shell, and no argument is from the file
            [sys.executable, "-I", "-c", _BOOT, path, promised],
            input=content, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_ENVIRONMENT,
            timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise UnreadError(Unread.TOOK_TOO_LONG) from None
    except OSError as error:
        log.warning("the process that reads attachments cannot be started: %s", type(error).__name__)
        raise UnreadError(Unread.UNREADABLE) from None
    return _read_child(ended.stdout, ended.returncode)


def _read_child(answer: bytes, return_code: int) -> FileText:
    try:
        found: Mapping[str, Any] = json.loads(answer)
    except ValueError:  # it was ended, by a limit of the system or by a fault
        is_slow = os.name != "nt" and return_code == -signal.SIGXCPU
        log.warning("the process that reads attachments ended with %d and without an answer", return_code)
        raise UnreadError(Unread.TOOK_TOO_LONG if is_slow else Unread.UNREADABLE) from None
    if "unread" in found:
        raise UnreadError(Unread(found["unread"]))
    return FileText(found["text"], found["is_cut"], found["media_type"])
