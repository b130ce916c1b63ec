"""The child process that reads one file: its bytes on stdin, what was found on stdout as one JSON object."""

import json
import sys
from dataclasses import asdict
from typing import Any

from shared.attachments.contents import read_file
from shared.attachments.formats import Format, Unread, UnreadError

MAX_MEMORY_BYTES = 512 * 1024 * 1024  # of address space: the interpreter and its libraries have 100 of them
MAX_CPU_SECONDS = 10
MAX_OPEN_FILES = 32
# Reading a file needs none of these.
REFUSED_EVENTS = (
    "socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn",
    "os.kill", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod",
    "os.chown", "os.truncate",
)  # fmt: skip


def main() -> None:
    """Read the file on stdin, which `sys.argv` promises to be of a format. Never raises for its content."""
    limit_process()
    found: dict[str, Any]
    try:
        file = read_file(sys.stdin.buffer.read(), Format(sys.argv[-1]))
        found = asdict(file)
    except UnreadError as error:
        found = {"unread": error.why}
    except MemoryError:
        found = {"unread": Unread.TOO_LARGE}
    except Exception:  # noqa: BLE001 - parsers raise anything at hostile files
        found = {"unread": Unread.UNREADABLE}
    sys.stdout.buffer.write(json.dumps(found).encode())


def limit_process() -> None:
    """Give up what reading does not need: memory, time, writing files, processes, the network.

    That bounds what a file can do to a reader in pure Python. It is no sandbox for code that a file might get
    to run: such code could still read what the agent's user can read.
    """
    sys.addaudithook(_refuse)
    try:
        import resource  # noqa: PLC0415 - Windows, where only the parent's time limit holds, has none
    except ImportError:
        return
    for kind, limit in (
        (resource.RLIMIT_AS, MAX_MEMORY_BYTES),
        (resource.RLIMIT_CPU, MAX_CPU_SECONDS),  # then SIGXCPU ends it
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
    ):
        highest = resource.getrlimit(kind)[1]  # which may be lower already, and cannot be raised
        is_lower = highest != resource.RLIM_INFINITY and highest < limit + 1
        resource.setrlimit(kind, (min(limit, highest), highest) if is_lower else (limit, limit + 1))


def _refuse(event: str, _arguments: tuple[Any, ...]) -> None:
    if event.startswith(REFUSED_EVENTS):
        raise PermissionError(event)
