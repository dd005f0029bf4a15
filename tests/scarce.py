"""A process that has next to no memory left."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

ERROR = 3  # the exit code of work that ended in a MemoryError
MOST_S = 60  # after which work that hangs is ended


def exit_code_without_memory(work: Callable[[], object], spare: int = 2**20) -> int:
    """How a fork of this process ends that does the work with so many bytes left: 0, ERROR, or minus a signal's number."""
    child = os.fork()
    if child == 0:
        signal.alarm(MOST_S)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + spare
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        try:
            work()
        except MemoryError:
            os._exit(ERROR)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
