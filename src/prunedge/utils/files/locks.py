"""Who is writing where, and what killed processes left.

Whoever writes holds a lock file, which the system unlocks when the process ends, however it ends.
So nobody has to guess from ages or process ids whether a hidden file is still needed: whoever gets
its lock may remove it.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from prunedge.errors import PrunedgeError
from prunedge.utils.files.reading import require_regular
from prunedge.utils.systems import can_lock, lock

PREFIX = ".prunedge-"  # of hidden names
LOCK = ".lock"  # ends the name of a lock file
NEW = ".new"  # ends the name of a hidden folder
WRITER = f"{PREFIX}writer{LOCK}"  # held by whoever writes into a folder that it lies in

# Folders that this thread holds, and folders in which this process has looked for what killed
# processes left.
_held: set[tuple[str, int]] = set()
_cleared: set[Path] = set()


class InUse(PrunedgeError):
    """Another process is writing there."""


class Writer(NamedTuple):
    """A process that holds a lock: its id, and who it is in words."""

    pid: int
    description: str


@contextmanager
def held(folder: Path, what: str) -> Iterator[None]:
    """Hold an existing folder for writing until the block ends.

    What killed processes left in it is removed. InUse, which says who it is, when another process
    (or thread) holds it. Where this thread holds it already, nothing more happens. `what` is being
    held, in words.
    """
    key = (os.path.realpath(folder), threading.get_ident())
    if key in _held:
        yield
        return
    with held_lock(folder / WRITER, folder, what):
        _held.add(key)
        try:
            clear_leftovers(folder)
            yield
        finally:
            _held.discard(key)


def clear_leftovers(folder: Path) -> None:
    """Remove what killed processes left in a folder: what no living process holds.

    Nothing where the system has no locks.
    """
    if not can_lock():
        return
    _cleared.add(folder)
    # Not glob: a folder's name may hold brackets. A folder that can't be listed has nothing to
    # clear.
    names: set[str] = set()
    with suppress(OSError):
        for name in os.listdir(folder):
            if is_ours(name):
                names.add(name.removesuffix(LOCK).removesuffix(NEW))
    for name in names:
        # Another process may hold it, or the folder may be read-only: then it stays. So does what
        # is no file.
        with suppress(OSError, PrunedgeError):
            opened = _locked(folder / f"{name}{LOCK}")
            try:
                shutil.rmtree(folder / f"{name}{NEW}", ignore_errors=True)
            finally:
                _unlock(opened)


def clear_below(folder: Path) -> None:
    """The same in a folder and all folders in it."""
    for path, folders, _ in os.walk(folder):
        folders[:] = [name for name in folders if not is_ours(name)]
        clear_leftovers(Path(path))


def is_ours(name: str) -> bool:
    """Whether a file or folder of this name is a lock or a hidden folder of prunedge's."""
    return name.startswith(PREFIX) and name.endswith((LOCK, NEW))


def _new_lock(parent: Path) -> IO[bytes]:
    """A lock file of a name that nobody else has, locked."""
    while True:
        # Whoever clears what killed processes left may hold it, between its making and its locking.
        with suppress(BlockingIOError):
            return _locked(parent / f"{PREFIX}{secrets.token_hex(6)}{LOCK}", quiet=True)


@contextmanager
def held_lock(file: Path, target: Path, what: str) -> Iterator[None]:
    """Hold this lock file until the block ends; InUse when another process writes the target."""
    try:
        opened = _locked(file)
    except BlockingIOError:
        raise _in_use(_writer_of(file), target, what) from None
    try:
        with suppress(OSError):  # a full disk: then the error of others doesn't say who it is
            _sign(opened)
        yield
    finally:
        _unlock(opened)


def _locked(file: Path, *, quiet: bool = False) -> IO[bytes]:
    """The lock file, made where it is not there, and locked.

    BlockingIOError when another process holds it. `quiet` says nothing of a system without locks.
    """
    while True:
        require_regular(file)
        opened = file.open("a+b")
        try:
            if can_lock() or not quiet:
                lock(opened)
            # Whoever held it has deleted it, maybe just when it had been opened here.
            if os.path.samestat(os.fstat(opened.fileno()), file.stat()):
                return opened
        except FileNotFoundError:
            pass
        except BaseException:
            opened.close()
            raise
        opened.close()


def _unlock(opened: IO[bytes]) -> None:
    """Release a lock and delete its file.

    In this order only where an open file can't be deleted (Windows).
    """
    file = Path(opened.name)
    try:
        file.unlink(missing_ok=True)
    except PermissionError:
        opened.close()
        with suppress(OSError):
            file.unlink(missing_ok=True)
    except OSError:
        pass
    with suppress(OSError):
        opened.close()


def _sign(opened: IO[bytes]) -> None:
    """Write into a lock file who holds it.

    Its first byte stays empty: it is what Windows locks, and lets nobody read.
    """
    command = " ".join(shlex.quote(word) for word in ("prunedge", *sys.argv[1:]))
    about = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%H:%M:%S"),
        "command": command[:300],
    }
    opened.truncate(0)
    opened.write(b"\n" + json.dumps(about).encode())
    opened.flush()


def _writer_of(file: Path) -> Writer | None:
    """The process that holds a lock file; None where the file doesn't say."""
    try:
        with file.open("rb", buffering=0) as opened:
            opened.seek(1)
            record = json.loads(opened.read())
        pid = record["pid"]
        host = record["host"]
        where = "" if host == socket.gethostname() else f" on {host}"
        since = f"since {record['since']}: {record['command']}"
        return Writer(pid, f"process {pid}{where} ({since})")
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _in_use(writer: Writer | None, target: Path, what: str) -> InUse:
    who = "another process"
    end = "end it"
    if writer is not None:
        who = writer.description
        end = f"end it (process {writer.pid})"
    return InUse(
        f"{who} is writing this {what}",
        where=target,
        remedy=f"wait until it has ended, or {end}, and give the command again",
    )


def hidden_folder_of(lock_file: Path) -> Path:
    """The hidden folder that a lock is of."""
    return lock_file.with_name(lock_file.name.removesuffix(LOCK) + NEW)


@contextmanager
def own_hidden_folder(parent: Path) -> Iterator[Path]:
    """A hidden folder in this one, of a name that nobody else has; removed in the end."""
    if parent not in _cleared:
        clear_leftovers(parent)
    opened = _new_lock(parent)
    folder = hidden_folder_of(Path(opened.name))
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _unlock(opened)
