"""Files and folders that are there whole or not at all, who is writing where, and what killed
processes left.

Whatever prunedge writes is made in a hidden place beside its target (`.prunedge-NAME.new`), brought
to the disk, and renamed. As long as that goes on its writer holds a lock (`.prunedge-NAME.lock`),
which the system gives back when the process ends, however it ends. So nobody has to guess from ages
or numbers whether a hidden place is still needed: whoever gets its lock may remove it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import shutil
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import IO

from prunedge.errors import MachineError, PrunedgeError
from prunedge.utils.systems import can_lock, lock, replace, sync_file, sync_folder, sync_tree

PREFIX, LOCK, NEW = ".prunedge-", ".lock", ".new"
WRITER = f"{PREFIX}writer{LOCK}"  # held by whoever writes into a folder that it lies in
LARGEST_SECRET = 65_536  # bytes
LONGEST = 100  # bytes of a target's name that a hidden name repeats

# Folders that this thread holds, and folders in which this process has looked for what killed ones
# left.
_held: set[tuple[str, int]] = set()
_cleared: set[Path] = set()


class InUse(PrunedgeError):
    """Another process is writing there."""


def irregular_kind(file: Path | str) -> str | None:
    """What lies at a path that is no regular file: `a named pipe`. None for a regular file, and
    where nothing lies there.
    """
    try:
        mode = os.stat(file).st_mode
    except (OSError, ValueError):
        # Whoever opens it hears the same, and says it in its own words.
        return None
    if stat.S_ISREG(mode):
        return None
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")


def require_regular(file: Path | str, kind: type[PrunedgeError] = PrunedgeError) -> None:
    """Raise an error of this kind where something other than a regular file lies at a path that is
    to be read.

    A pipe would be waited for without end, and a device may never come to its own. What is missing,
    or can't be looked at, passes: whoever opens it says so.
    """
    if (found := irregular_kind(file)) is not None:
        raise kind(
            f"this is {found}, not a file",
            where=file,
            remedy="put a regular file in its place, or name another",
        )


def read_bytes(file: Path, kind: type[PrunedgeError] = PrunedgeError) -> bytes:
    """What a regular file holds; an error of this kind for anything else that lies there, OSError
    where it can't be read.
    """
    require_regular(file, kind)
    return file.read_bytes()


def read_text(file: Path, kind: type[PrunedgeError] = PrunedgeError) -> str:
    """The same of a text in UTF-8."""
    require_regular(file, kind)
    return file.read_text(encoding="utf-8")


def read_secret(file: Path) -> bytes:
    """What a file of a key or a password holds, which may well be a pipe: `<(pass show broker)`.
    Never more than such a file has.
    """
    with file.open("rb") as opened:
        found = opened.read(LARGEST_SECRET + 1)
    if len(found) > LARGEST_SECRET:
        what = f"more than {LARGEST_SECRET:,} bytes are no key and no password"
        raise PrunedgeError(what, where=file, remedy="name the file that holds it")
    return found


def real_path(path: Path | str) -> Path:
    """The absolute path without links. Unlike Path.resolve it takes one that leads to itself:
    whoever opens that hears of it.
    """
    return Path(os.path.realpath(path))


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are not there; Path.mkdir can't where there are
    a thousand of them.
    """
    missing = []
    place = folder
    while True:
        try:
            place.mkdir()
            break
        except FileNotFoundError:
            if place.parent == place:
                raise
            missing.append(place)
            place = place.parent
        except OSError:
            if not place.is_dir():
                raise
            break

    for place in reversed(missing):
        place.mkdir(exist_ok=True)


def behind_links(target: Path) -> Path:
    """The path that is really written to: where a symbolic link leads, whether something lies there
    or not.

    PrunedgeError for a link that leads to itself.
    """
    if not os.path.islink(target):
        return target
    real = real_path(target)
    if os.path.islink(real):
        remedy = "remove the link, or choose another place"
        raise PrunedgeError("this is a link that leads to itself", where=target, remedy=remedy)
    return real


def refuse_url(path: Path) -> None:
    """PrunedgeError where a path to be written is an address, of which a local folder would be
    made: `s3:`.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:[/\\]", str(path)):
        raise PrunedgeError(
            "this can't be written to an address",
            where=path,
            remedy="name a folder of this machine",
        )


def write_text(file: Path, text: str) -> None:
    """Write a file whole or not at all, readable by others."""
    with written(file) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_bytes(file: Path, content: bytes) -> None:
    """The same of bytes."""
    with written(file) as temporary:
        temporary.write_bytes(content)


@contextmanager
def written(file: Path) -> Iterator[Path]:
    """A hidden place for a file: when the block ends well, what lies there is on the disk, readable
    by others, and takes the file's name.

    Where it doesn't, the file is as it was. An OSError that comes of it names the file. A symbolic
    link is replaced: somebody else's run could hold one that leads to a file of yours. Where you
    named the link yourself, say `behind_links`. Raises PrunedgeError where something lies there
    that is no regular file: a device would be replaced.
    """
    if (found := irregular_kind(file)) is not None:
        remedy = "choose another name, or remove it"
        raise PrunedgeError(
            f"can't write here: this is {found}, not a file", where=file, remedy=remedy
        )
    with _naming(file), _hidden_folder(file.parent) as folder:
        temporary = folder / file.name
        yield temporary
        os.chmod(temporary, 0o644)
        sync_file(temporary)
        replace(temporary, file)
        sync_folder(file.parent)


@contextmanager
def written_folder(target: Path, what: str) -> Iterator[Path]:
    """The same for a folder, in the place of whatever `target` is; one process at a time: InUse
    when another makes that target.

    `what` is being made, in words. What killed processes left beside the target is removed. A
    symbolic link is replaced, as by `written`, and what it leads to stays.
    """
    parent = target.absolute().parent
    make_folder(parent)
    lock_file = parent / f"{PREFIX}{_short(target.name)}{LOCK}"
    with _naming(target), _held_lock(lock_file, target, what):
        clear_leftovers(parent)
        folder = _place_of(lock_file)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir()
            yield folder
            sync_tree(folder)
            if target.is_symlink():
                target.unlink()
            elif target.is_dir():
                shutil.rmtree(target)
            replace(folder, target)
            sync_folder(parent)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def held(folder: Path, what: str) -> Iterator[None]:
    """Hold an existing folder for writing until the block ends; what killed processes left in it is
    removed.

    InUse, which says who it is, when another process (or thread) holds it. Where this thread holds
    it already, nothing more happens. `what` is being held, in words.
    """
    key = (os.path.realpath(folder), threading.get_ident())
    if key in _held:
        yield
        return
    with _held_lock(folder / WRITER, folder, what):
        _held.add(key)
        try:
            clear_leftovers(folder)
            yield
        finally:
            _held.discard(key)


def clear_leftovers(folder: Path) -> None:
    """Remove what killed processes left in a folder: what no living process holds. Nothing where
    the system has no locks.
    """
    if not can_lock():
        return
    _cleared.add(folder)
    # Not glob: a folder's name may hold brackets. A folder that can't be listed has nothing to
    # clear.
    names: set[str] = set()
    with suppress(OSError):
        names = {
            name.removesuffix(LOCK).removesuffix(NEW)
            for name in os.listdir(folder)
            if is_ours(name)
        }
    for name in names:
        # Another process may hold it, or the place may be read-only: then it stays. So does what is
        # no file.
        with suppress(OSError, PrunedgeError):
            opened = _locked(folder / f"{name}{LOCK}")
            try:
                shutil.rmtree(folder / f"{name}{NEW}", ignore_errors=True)
            finally:
                _unlock(opened)


def clear_below(folder: Path) -> None:
    """The same in a folder and all folders in it."""
    for place, folders, _ in os.walk(folder):
        folders[:] = [name for name in folders if not is_ours(name)]
        clear_leftovers(Path(place))


def is_ours(name: str) -> bool:
    """Whether a file or folder of this name is a lock or a hidden place of prunedge's, and none of
    the user's.
    """
    return name.startswith(PREFIX) and name.endswith((LOCK, NEW))


@contextmanager
def _hidden_folder(parent: Path) -> Iterator[Path]:
    if parent not in _cleared:
        clear_leftovers(parent)
    opened = _new_lock(parent)
    folder = _place_of(Path(opened.name))
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _unlock(opened)


def _new_lock(parent: Path) -> IO[bytes]:
    """A lock file of a name that nobody else has, locked."""
    while True:
        # Whoever clears what killed processes left may hold it, between its making and its locking.
        with suppress(BlockingIOError):
            return _locked(parent / f"{PREFIX}{secrets.token_hex(6)}{LOCK}", quiet=True)


@contextmanager
def _held_lock(file: Path, target: Path, what: str) -> Iterator[None]:
    try:
        opened = _locked(file)
    except BlockingIOError:
        who = _writer_of(file)
        remedy = (
            f"wait until it has ended, or end it{f' (process {who[0]})' if who else ''}, and "
            "give the command again"
        )
        raise InUse(
            f"{who[1] if who else 'another process'} is writing this {what}",
            where=target,
            remedy=remedy,
        ) from None
    try:
        with suppress(OSError):  # a full disk: nobody will be told who it is, and that is all
            _sign(opened)
        yield
    finally:
        _unlock(opened)


def _locked(file: Path, *, quiet: bool = False) -> IO[bytes]:
    """The lock file, made where it is not there, and locked; BlockingIOError when another process
    holds it.

    `quiet` says nothing of a system without locks.
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
    """Give a lock back and delete its file: in this order only where an open file can't be deleted
    (Windows).
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
    """Say in a lock file who holds it. Its first byte stays empty: it is what Windows locks, and
    lets nobody read.
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


def _writer_of(file: Path) -> tuple[int, str] | None:
    """The number of the process that holds a lock file, and who it is in words; None where the file
    doesn't say.
    """
    try:
        with file.open("rb", buffering=0) as opened:
            opened.seek(1)
            found = json.loads(opened.read())
        where = "" if found["host"] == socket.gethostname() else f" on {found['host']}"
        return found[
            "pid"
        ], f"process {found['pid']}{where} (since {found['since']}: {found['command']})"
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _place_of(lock_file: Path) -> Path:
    """The hidden place that a lock is of."""
    return lock_file.with_name(lock_file.name.removesuffix(LOCK) + NEW)


def _short(name: str) -> str:
    """A name that is short enough to become part of another, and still stands for the whole of
    it.
    """
    return name if len(os.fsencode(name)) <= LONGEST else sha256(os.fsencode(name)).hexdigest()[:24]


@contextmanager
def _naming(target: Path) -> Iterator[None]:
    """Let an OSError name the target instead of a hidden place or nothing; what other libraries
    make of one becomes one again.
    """
    try:
        yield
    except OSError as error:
        named = error.filename
        if error.errno is not None and (named is None or PREFIX in str(named)):
            error.filename, error.filename2 = str(target), None
        raise
    except MachineError as error:
        if error.where is not None:
            raise
        raise MachineError(error.what, where=target, remedy=error.remedy) from error
    except Exception as error:
        # safetensors: "Error while serializing: I/O error: No space left on device (os error 28)"
        if (
            isinstance(error, PrunedgeError)
            or (found := re.search(r"\(os error (\d+)\)", str(error))) is None
        ):
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(target)) from error
