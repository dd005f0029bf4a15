"""What differs between operating systems: reaching the disk, locks, limits and peak memory.

Linux, macOS and Windows each lack something that the others have. Every function here says what it
does where its usual means is missing, so that no other module asks which system it runs on, or
imports what only one of them has.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from prunedge.errors import PrunedgeError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
try:
    import msvcrt
except ImportError:  # everywhere but on Windows
    msvcrt = None  # type: ignore[assignment]
try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

# Windows can't replace a file while somebody reads it, and readers of small files are soon done.
REPLACE_PATIENCE_S = 2.0
# Each file waits for the disk by itself; more of them than this are waited for at once.
MANY = 256


def sync_open_file(opened: IO[Any]) -> None:
    """Bring what was written to an open file to the disk itself, so that it outlives a power
    cut.
    """
    opened.flush()
    os.fsync(opened.fileno())


def sync_file(file: Path) -> None:
    """Bring a closed, writable file to the disk itself. Opened for writing, since Windows syncs
    nothing else.
    """
    with file.open("r+b") as opened:
        os.fsync(opened.fileno())


def sync_folder(folder: Path) -> None:
    """Bring a folder's list of names to the disk itself; nothing on Windows, which can't, and whose
    file system keeps a journal.
    """
    try:
        opened = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def sync_tree(folder: Path) -> None:
    """Bring all files below a folder to the disk itself.

    One by one, or where they are many, with all else that waits for the disk.
    """
    files = [file for file in folder.rglob("*") if file.is_file()]
    if len(files) > MANY and hasattr(os, "sync"):
        os.sync()
        return
    for file in files:
        sync_file(file)


def replace(written: Path | str, target: Path | str) -> None:
    """Rename a file or folder to `target`, atomically.

    Where a reader is in the way (Windows), wait a moment for it.
    """
    until = time.monotonic() + REPLACE_PATIENCE_S
    while True:
        try:
            os.replace(written, target)
            return
        except PermissionError:
            if os.name != "nt" or time.monotonic() > until:
                raise
            time.sleep(0.05)


def can_lock() -> bool:
    """Whether the system has locks at all."""
    return fcntl is not None or msvcrt is not None


def lock(opened: IO[Any]) -> None:
    """Lock an open file for this process until it is closed, or the process ends. Raises
    BlockingIOError when another holds it.

    Where the system has no locks a warning says that nothing keeps a second process away.
    """
    if fcntl is not None:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    elif msvcrt is not None:
        _lock_on_windows(opened)
    else:
        log.warning(
            "this system can't lock files: don't let two processes work on %s at once",
            Path(opened.name).parent,
        )


def lock_shared(opened: IO[Any]) -> None:
    """Lock an open file against `lock`, but not against other readers, until it is closed.

    Nothing on Windows: what is open there can't be deleted anyway.
    """
    if fcntl is not None:
        fcntl.flock(opened, fcntl.LOCK_SH)


@contextmanager
def locked_against_readers(file: Path) -> Iterator[None]:
    """While inside, nobody can `lock_shared` this file. Raises BlockingIOError when somebody has;
    nothing on Windows, likewise.
    """
    with file.open("rb") as opened:
        if fcntl is not None:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _lock_on_windows(opened: IO[Any]) -> None:
    assert msvcrt is not None
    opened.seek(0)
    try:
        msvcrt.locking(opened.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    except OSError as error:
        raise BlockingIOError(error.errno, "another process holds the lock") from None


def cores() -> int:
    """How many processors this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def limit_processors(count: int) -> None:
    """Keep this process to so many of its processors. Raises PrunedgeError where there are fewer,
    or the system can't.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise PrunedgeError(
            "this system can't limit a process to some processors",
            where="--cpus",
            remedy="leave it out; Linux can",
        )
    mine = sorted(os.sched_getaffinity(0))
    if count > len(mine):
        raise PrunedgeError(
            f"{count} processors of {len(mine)}",
            where="--cpus",
            remedy=f"give {len(mine)} or fewer",
        )
    os.sched_setaffinity(0, mine[:count])


def limit_memory(size_bytes: int) -> None:
    """Keep this process's data to so many bytes. Raises PrunedgeError where the system can't."""
    if resource is None:
        raise PrunedgeError(
            "this system can't limit a process's memory",
            where="--memory",
            remedy="leave it out; Linux can",
        )
    resource.setrlimit(resource.RLIMIT_DATA, (size_bytes, size_bytes))


def limit_memory_to_machine() -> None:
    """Let this process have as much data as the machine has memory, and no more: what asks for more
    shall fail, and not the machine.

    Nothing where the system doesn't tell or can't. A model of a few bytes may ask for hundreds of
    gigabytes.
    """
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        kilobytes = [
            int(line.split()[1]) for line in lines if line.startswith(("MemTotal:", "SwapTotal:"))
        ]
    except (OSError, ValueError, IndexError):
        return
    if resource is None or not kilobytes:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    there = sum(kilobytes) * 1024
    if soft == resource.RLIM_INFINITY or soft > there:
        resource.setrlimit(
            resource.RLIMIT_DATA,
            (there if hard == resource.RLIM_INFINITY else min(there, hard), hard),
        )


def peak_memory_bytes() -> float:
    """The most memory that this process has had at once (resident set); nan where the system
    doesn't tell.
    """
    try:
        # getrusage would tell the parent's peak where that was larger: Linux hands it on to what a
        # process starts.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return (
            int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))
            * 1024
        )
    except (OSError, StopIteration):
        pass
    if resource is not None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return _peak_on_windows()


def _peak_on_windows() -> float:
    import ctypes

    if not hasattr(ctypes, "WinDLL"):
        return float("nan")
    names = (
        "page_faults",
        "peak",
        "now",
        "paged_peak",
        "paged",
        "pool_peak",
        "pool",
        "pagefile",
        "pagefile_peak",
    )

    class Counters(ctypes.Structure):
        # PROCESS_MEMORY_COUNTERS: two double words, then sizes.
        _fields_ = [
            ("size", ctypes.c_ulong),
            *(
                (name, ctypes.c_ulong if name == "page_faults" else ctypes.c_size_t)
                for name in names
            ),
        ]

    counters = Counters()
    counters.size = ctypes.sizeof(counters)
    kernel = ctypes.WinDLL("kernel32")
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    asked = kernel.K32GetProcessMemoryInfo(
        ctypes.c_void_p(kernel.GetCurrentProcess()), ctypes.byref(counters), counters.size
    )
    return float(counters.peak) if asked else float("nan")
