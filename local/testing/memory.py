"""How much memory a process holds: asked by the load run and by the benchmarks."""

import os
import sys
from pathlib import Path


def read_resident_megabytes() -> float:
    """The memory that this process holds now."""
    if sys.platform != "linux":
        import resource  # noqa: PLC0415 - Windows has none

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
