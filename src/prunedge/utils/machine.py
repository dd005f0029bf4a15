"""The machine's trouble in one line: a full disk, a place that can't be written, no memory. The one
place that knows how each shows itself.

What Python calls OSError and MemoryError comes from torch, ONNX Runtime, OpenVINO and safetensors
as errors of their own, which can be told by their words alone.
"""

from __future__ import annotations

import errno
import mmap
import os
import re
import sys

from prunedge.errors import MachineError, PrunedgeError

_NO_MEMORY = re.compile(
    r"can't allocate memory|cannot allocate memory|not enough memory|out of memory|bad[_ "
    r"]alloc|failed to allocate|"
    r"can't start new thread|resource temporarily unavailable|failed to map segment|unable to "
    r"mmap|allocation failed|"
    # Python's words where C code failed and there was no memory for the MemoryError.
    r"error return without exception set|returned null without setting an exception|"
    # oneDNN's words; that it has no descriptor says that a processor can't do something.
    r"could not (create|execute) a primitive(?! descriptor)|could not create a memory",
    re.IGNORECASE,
)
_NUMBER = re.compile(
    r"\(os error (\d+)\)|\[Errno (\d+)\]|errno[ =:]+(\d+)|system error number (\d+)", re.IGNORECASE
)
# How torch, ONNX Runtime and numpy tell how much memory they were asked for.
_ASKED = re.compile(
    (
        r"tried to allocate (\d+)( )bytes|requested buffer of size (\d+)()|unable to allocate "
        r"([\d.]+) ([KMGTPE]?)i?B"
    ),
    re.IGNORECASE,
)
_NO_TEMPORARY = (
    "No usable temporary directory"  # tempfile, which tries them all and keeps no reason
)
_OWN_ERRORS = ("safetensors", "onnxruntime")  # libraries whose errors are of none of Python's kinds
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_LITTLE = 16 * 2**20  # bytes, reserved and not touched
_THREAD = (
    136 * 2**20
)  # bytes of address space that a thread takes: its stack, and what glibc reserves for its objects
_MEMORY = "there is not enough memory"
_FREE_MEMORY = "free some, or do less at a time (a smaller batch, fewer threads)"
# What the system answers when a name, or what a damaged file makes its decoder ask for, can't be:
# no trouble of the machine's.
_OF_THE_FILE = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.EINVAL,
        errno.EOVERFLOW,
        errno.ESPIPE,
    }
)


def machine_error(error: BaseException, *, where: object = None) -> MachineError | None:
    """The error in a line with the file, the cause and the remedy; None unless it is the machine's.

    `where` is named where the error itself names no file.
    """
    if isinstance(error, PrunedgeError):
        return error if isinstance(error, MachineError) else None
    if isinstance(error, FileNotFoundError) and _NO_TEMPORARY in str(error):
        remedy = "free space in one of them, or set TMPDIR to a folder with room"
        return MachineError(
            f"no folder for temporary files can be written ({error.strerror})",
            where=where,
            remedy=remedy,
        )
    if isinstance(error, OSError) and error.errno is not None:
        file = where if error.filename is None else error.filename
        return _of_number(error.errno, error.strerror, file)
    if isinstance(error, MemoryError) or _says_no_memory(error):
        return MachineError(_MEMORY, where=where, remedy=_FREE_MEMORY)
    if isinstance(error, (OSError, RuntimeError)) or _is_own(error):
        for groups in _NUMBER.findall(str(error)):
            number = int(next(filter(None, groups)))
            return _of_number(number, os.strerror(number), where)
    # Without memory Python loses its own MemoryErrors ("error return without exception set"), and
    # modules seem not to be installed.
    return MachineError(_MEMORY, where=where, remedy=_FREE_MEMORY) if is_scarce() else None


def lacks_memory(error: BaseException) -> bool:
    """Whether an error is that there is no memory, in whatever words."""
    trouble = machine_error(error)
    return trouble is not None and trouble.what == _MEMORY


def is_scarce() -> bool:
    """Whether not even a little memory is to be had now: then no error tells what it seems to
    tell.
    """
    try:
        bytearray(_LITTLE)
    except MemoryError:
        return True
    return False


def require_memory(threads: int = 0) -> None:
    """Raise MemoryError where next to none is left, or too little for so many new threads, before
    work that would not raise it.

    A thread that gets no memory dies before it begins, and Python waits for it for ever; a library
    that is not Python's may end the process.
    """
    if is_scarce():
        raise MemoryError
    if threads and sys.platform != "win32":
        try:
            mmap.mmap(
                -1, threads * _THREAD + _LITTLE, prot=0, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            ).close()
        except OSError:
            raise MemoryError from None


def machine_trouble(error: BaseException, where: object = None) -> MachineError | None:
    """`machine_error` for whoever reads or decodes a file: an error that tells of the file or its
    path, not of the machine, is None.

    Decoders raise OSErrors as well: those without a number are about the file, but for Pillow's
    "out of memory". A file that asks for more memory than any such machine has is damaged.
    """
    if isinstance(error, OSError) and error.errno in _OF_THE_FILE:
        return None
    trouble = machine_error(error, where=where)
    if trouble is None or _is_absurd(error):
        return None
    if isinstance(error, MachineError):
        return (
            error
            if error.where is not None
            else MachineError(error.what, where=where, remedy=error.remedy)
        )
    if not isinstance(error, OSError) or error.errno in (None, errno.ENOMEM, errno.EAGAIN):
        return trouble
    return MachineError(f"can't be read now ({trouble.what})", where=where, remedy=trouble.remedy)


def pass_on_reading(error: BaseException, where: object) -> None:
    """Raise `machine_trouble` where an error is that: a file is not called damaged because it can't
    be read now.
    """
    if (trouble := machine_trouble(error, where)) is not None:
        raise trouble from None


def unwritable(error: OSError, where: object, what: str = "can't write") -> MachineError:
    """`what` and the cause in one line, with the remedy for that cause: a full disk wants another
    than a missing right.
    """
    trouble = _of_number(
        error.errno or errno.EIO, error.strerror or str(error), error.filename or where
    )
    return MachineError(f"{what} ({trouble.what})", where=trouble.where, remedy=trouble.remedy)


def unusable_cache(error: OSError, where: object) -> MachineError:
    """What keeps the cache from being read or written, and what to do about it."""
    remedy = "make it writable, or set PRUNEDGE_CACHE to a folder with room"
    return MachineError(
        f"can't use the cache ({error.strerror or error})", where=where, remedy=remedy
    )


def pass_on(error: BaseException, *, where: object = None) -> None:
    """Raise MachineError where an error is the machine's trouble: that says nothing about what was
    just tried.

    For whoever takes every error of a model, a library or a file for a fault of that: what fails
    for want of memory would be called impossible, and another result come of it. Paths, rights and
    connections stay theirs to tell, and so does a model that asks for more memory than any such
    machine has.
    """
    trouble = machine_error(error, where=where)
    if trouble is None:
        # A library calls it a failure of its own.
        behind = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if behind is not None:
            pass_on(behind, where=where)
        return
    if _is_absurd(error):
        return
    if isinstance(error, OSError) and error.errno not in (
        None,
        errno.ENOMEM,
        errno.EROFS,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        *_FULL,
    ):
        return
    raise trouble from error


def _is_absurd(error: BaseException) -> bool:
    """Whether a library reports that more memory was asked for than this machine has in all."""
    asked = _ASKED.search(str(error))
    if asked is None or "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return False
    number, unit = (group for group in asked.groups() if group is not None)
    size_bytes = float(number) * 1024 ** " KMGTPE".index(unit.upper() or " ")
    return size_bytes > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _says_no_memory(error: BaseException) -> bool:
    """Whether a library says in its own words that there is no memory."""
    kinds = (RuntimeError, ImportError, OSError, SystemError)
    if not isinstance(error, kinds) and not _is_own(error):
        return False
    return bool(_NO_MEMORY.search(str(error)))


def _is_own(error: BaseException) -> bool:
    """Whether it is of a kind that a library has made for itself."""
    return type(error).__module__.startswith(_OWN_ERRORS)


def _of_number(number: int, text: str | None, where: object) -> MachineError:
    """What an error number of the system means, and its remedy."""
    if number in (errno.ENOMEM, errno.EAGAIN):
        return MachineError(_MEMORY, where=where, remedy=_FREE_MEMORY)
    if number in _FULL:
        remedy = "free space there, or choose another place"
    elif number in _FORBIDDEN:
        remedy = "give yourself the right to it, or choose another place"
    elif number in (errno.EMFILE, errno.ENFILE):
        remedy = "raise the limit (`ulimit -n`), or end what holds so many files open"
    elif number == errno.ENAMETOOLONG:
        remedy = "choose a shorter name"
    elif number in (errno.ENOENT, errno.ENOTDIR):
        remedy = "see whether the path is right, and whether something else removed it"
    elif number == errno.ELOOP:
        remedy = "remove the link that leads to itself, or choose another place"
    elif number == errno.EEXIST:
        remedy = "something else lies there: remove it, or choose another place"
    elif number == errno.EIO:
        remedy = "look after the disk"
    else:
        remedy = "mend that"
    return MachineError(text or os.strerror(number), where=where, remedy=remedy)
