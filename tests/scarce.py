"""A process that has next to no memory left."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

ERROR = 3  # the exit code of work that ended in a MemoryError
MOST_S = 60  # after which work that hangs is ended


def exit_code_without_memory(
    work: Callable[[], object], spare: int = 2**20, *, hoards: bool = False
) -> int:
    """How a fork of this process ends that does the work with so many bytes left: 0, ERROR, or minus a signal's number.

    Beside them it has what freed objects have left to it, unless it `hoards` that.
    """
    child = os.fork()
    if child == 0:
        signal.alarm(MOST_S)
        kept, pieces = bytearray(spare if hoards else 0), list[bytearray]()
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + (0 if hoards else spare)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        if hoards:
            _hoard(pieces)
        del kept
        try:
            work()
        except MemoryError:
            os._exit(ERROR)
        except BaseException:
            os._exit(70)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _hoard(pieces: list[bytearray]) -> None:
    """Take all memory that is to be had, in smaller and smaller pieces, but for a few of the smallest."""
    for size in (2**20, 2**14, 2**10):
        try:
            while True:
                pieces.append(bytearray(size))
        except MemoryError:
            continue
    del pieces[-20:]
