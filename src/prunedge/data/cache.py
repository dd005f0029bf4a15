"""Decoded images on disk: one uint8 array (N, H, W, 3) for each set of files and size, read at
its rows' places.

Not through a mapping: the pages of a mapping count as the process's memory, 15 GB of them after one
epoch of 100,000 images.

Safe when runs share it: an array is filled under a lock in a hidden place and renamed when whole
and on the disk, so another run sees all of it or nothing, also after a `kill -9` or a power cut.
What is damaged nevertheless is noticed by its checksums (an array's frame when it is opened, each
image when it is first read), said, and made anew. Bounded: the arrays that were used least lately
make room. An array in use is locked (flock) and stays.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from filelock import FileLock, Timeout
from numpy.lib.format import read_array_header_1_0, read_magic, write_array_header_1_0

from prunedge.data.decode import Progress, appearance, at_once, try_looking
from prunedge.data.paths import cache_folder
from prunedge.data.webdataset.shards import drop_copies, fetch_all, stamp_of
from prunedge.edge.image.read import Greys, Look
from prunedge.edge.image.size import Resize, Size
from prunedge.errors import DataError
from prunedge.utils.files import clear_leftovers, make_folder, written
from prunedge.utils.machine import unusable_cache
from prunedge.utils.systems import lock_shared, locked_against_readers

log = logging.getLogger(__name__)

VERSION = 4  # of the decoding and its notes; a change makes old arrays useless
LIMIT_BYTES = 20 * 2**30
# The end of an array's file: how long its header and its notes are, and the SHA-256 of both. For
# the pixels the notes have digests.
LENGTHS, SEAL = 20, 64


@dataclass(frozen=True)
class Decoded:
    """What decoding every image gave: the array's file (None when it would not fit), digests,
    what failed, how each is stored.

    `digests` has an empty string, `looks` None, and `unreadable` the reason, at the index of an
    image that can't be read.
    """

    cache: Path | None
    digests: tuple[str, ...]
    unreadable: dict[int, str]
    looks: tuple[Look | None, ...]


def decode_all(
    paths: Sequence[Path],
    size: Size,
    greys: Greys | None = None,
    *,
    resize: Resize = "stretch",
    folder: Path | str | None = None,
    limit: int = LIMIT_BYTES,
    progress: Progress | None = None,
) -> Decoded:
    """Decode every image once, into the cache, or find them there from before.

    Without room for the array (`limit` bytes in all, and half of what is free on the disk) every
    image is still decoded, to know that it can be, but nothing is kept, and a warning says so.
    Raises MachineError when the folder can't be written, DeepGreys at the first image with deep
    greys when `greys` doesn't say what they mean.
    """
    home = cache_folder(folder)
    target = home / f"{fingerprint(paths, appearance(size, resize), greys)}.npy"
    needed = len(paths) * size.height * size.width * 3
    try:
        make_folder(home)
        clear_leftovers(home)
        with FileLock(target.with_suffix(".lock")):
            if not _is_sound(target):
                fetch_all(paths)
                # What the cache holds already can make room.
                if needed > min(limit, shutil.disk_usage(home).free // 2 + _used(home)):
                    text = (
                        "%.1f GB of decoded images don't fit the cache %s: decoding anew each epoch"
                    )
                    log.warning(text, needed / 2**30, home)
                    return Decoded(None, *_decode_into(None, paths, size, greys, resize, progress))
                _make_room(home, limit - needed)
                _write(target, paths, size, greys, resize, progress)
            drop_copies(paths)
            return Decoded(target, *_opened(target).notes)
    except OSError as error:
        raise unusable_cache(error, home) from None


Notes = tuple[
    tuple[str, ...], dict[int, str], tuple[Look | None, ...]
]  # digests, unreadable, looks


@dataclass(frozen=True)
class _Array:
    """An open array: its file, where in it the pixels begin, their shape (N, H, W, 3), and the
    notes behind them.

    `checked` has a 1 at the place of each row that was compared with its digest.
    """

    file: IO[bytes]
    start: int
    shape: tuple[int, ...]
    notes: Notes
    checked: bytearray = field(default_factory=bytearray)


# One for each array and process. The open file keeps the lock by which other processes' _make_room
# leaves it alone.
_open: dict[Path, _Array] = {}


def notes_of(cache: Path) -> Notes:
    """What the cache remembers of its images, by row."""
    return _opened(cache).notes


def read_pixels(cache: Path, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """These rows of a cache file, in this order: (len(rows), H, W, 3) uint8, read anew; several
    threads may. Raises DataError when the file was deleted or is damaged; it is removed then, so
    that the next command makes it anew.
    """
    try:
        array = _opened(cache)
    except FileNotFoundError:
        remedy = "load the data again"
        raise DataError(
            "the cache of decoded images was deleted", where=cache, remedy=remedy
        ) from None
    except _DAMAGE as error:
        raise _given_up(cache, error) from None
    wanted = np.asarray(rows, np.int64).reshape(-1)
    if not hasattr(os, "preadv"):  # Windows and macOS: a mapping that ends with the call
        pixels = np.asarray(np.memmap(array.file, np.uint8, "r", array.start, array.shape)[wanted])
        _check(cache, array, wanted, pixels)
        return pixels
    pixels = np.empty((len(wanted), *array.shape[1:]), np.uint8)
    one = int(np.prod(array.shape[1:]))
    for place in np.argsort(
        wanted, kind="stable"
    ).tolist():  # forwards through the file, as disks like it
        if not 0 <= (row := int(wanted[place])) < array.shape[0]:
            raise IndexError(f"row {row} of {array.shape[0]}")
        left, offset = memoryview(pixels[place]).cast("B"), array.start + row * one
        while len(left):
            got = os.preadv(array.file.fileno(), [left], offset)
            if not got:
                raise _given_up(cache, ValueError("it was cut short"))
            left, offset = left[got:], offset + got
    _check(cache, array, wanted, pixels)
    return pixels


def _opened(cache: Path) -> _Array:
    """The open array; FileNotFoundError when it isn't there, one of `_DAMAGE` when it is
    damaged.
    """
    if cache not in _open:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(cache.open("rb"))
            lock_shared(file)
            with contextlib.suppress(OSError):  # somebody else's cache
                os.utime(cache)  # the last use, by which room is made
            _open[cache] = _read(file)
            stack.pop_all()  # it stays open
    return _open[cache]


# What reading a damaged array raises.
_DAMAGE = (ValueError, KeyError, TypeError, IndexError, EOFError)


def _read(file: IO[bytes]) -> _Array:
    whole = os.fstat(file.fileno()).st_size
    file.seek(max(0, whole - LENGTHS - SEAL))
    end = file.read()
    header_size, notes_size = int(end[:8]), int(end[8:LENGTHS])
    notes_at = whole - LENGTHS - SEAL - notes_size
    file.seek(0)
    header = file.read(header_size)
    file.seek(notes_at)
    text = file.read(notes_size)
    if end[LENGTHS:].decode() != _seal(header, text, end[:LENGTHS]):
        raise ValueError("it differs from its checksum")
    file.seek(0)
    read_magic(file)
    shape, _, _ = read_array_header_1_0(file)
    if notes_at - file.tell() != int(np.prod(shape)):
        raise ValueError("it was cut short")
    notes = json.loads(text)
    unreadable = {int(i): why for i, why in notes["unreadable"].items()}
    kinds = [kind and Look(*kind) for kind in notes["kinds"]]
    looks = tuple(kinds[i] for i in notes["looks"])
    return _Array(
        file, header_size, shape, (tuple(notes["digests"]), unreadable, looks), bytearray(shape[0])
    )


def _is_sound(cache: Path) -> bool:
    """Whether there is such an array, and it can be opened; one that can't is said, and removed."""
    try:
        _opened(cache)
    except FileNotFoundError:
        return False
    except (*_DAMAGE, OSError) as error:
        # Too many open files, or no memory: that is no fault of the array.
        if isinstance(error, OSError) and error.errno not in (
            errno.EIO,
            errno.EACCES,
            errno.EPERM,
            errno.EISDIR,
        ):
            raise
        log.warning("a file of the cache is damaged and made anew: %s (%s)", cache, error)
        _remove(cache)
        return False
    return True


def _check(cache: Path, array: _Array, rows: np.ndarray, pixels: np.ndarray) -> None:
    """Compare rows with their digests when they are read for the first time; DataError when one
    differs.
    """
    for place, row in enumerate(rows.tolist()):
        if array.checked[row]:
            continue
        # Without a digest: the image can't be read, and its row is nobody's.
        if (known := array.notes[0][row]) and _digest(pixels[place]) != known:
            raise _given_up(cache, ValueError(f"image {row} differs from its checksum"))
        array.checked[row] = 1


def _given_up(cache: Path, error: Exception) -> DataError:
    """Remove a damaged array, and say so."""
    _remove(cache)
    remedy = (
        "it has been removed: the same command makes it anew, and `--resume` goes on with a "
        "run that has begun"
    )
    return DataError(
        f"the cache of decoded images is damaged ({error})", where=cache, remedy=remedy
    )


def _remove(cache: Path) -> None:
    known = _open.pop(cache, None)
    if known is not None:
        known.file.close()
    shutil.rmtree(cache) if cache.is_dir() else cache.unlink(missing_ok=True)


def _seal(header: bytes, notes: bytes, lengths: bytes) -> str:
    return hashlib.sha256(header + notes + lengths).hexdigest()


def _digest(image: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=12).hexdigest()


def fingerprint(paths: Sequence[Path], use: str, greys: Greys | None = None) -> str:
    """Stands for these files, as they are now, for this use (an `appearance`, or another purpose)
    and with this range of greys.
    """
    span = None if greys is None else (float(greys.low), float(greys.high))
    digest = hashlib.sha256(f"{VERSION} {use} {span} {len(paths)}".encode())
    for path in paths:
        digest.update(f"\n{stamp_of(path) or _stamp(path)}".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]


def _stamp(path: Path) -> str:
    try:
        found = path.stat()
        return f"{path.absolute()}\t{found.st_size}\t{found.st_mtime_ns}\t{found.st_ctime_ns}"
    except OSError:
        return f"{path.absolute()}\tmissing"


def _write(
    target: Path,
    paths: Sequence[Path],
    size: Size,
    greys: Greys | None,
    resize: Resize,
    progress: Progress | None,
) -> None:
    """Fill the array under another name and rename it when whole; the notes follow the pixels, so
    that both come at once.
    """
    # Written in order, not through a mapping: a full disk is then an error and not a crash of the
    # process.
    with written(target) as temporary, temporary.open("wb") as file:
        about = {"descr": "|u1", "fortran_order": False, "shape": (len(paths), *size, 3)}
        frame = io.BytesIO()
        write_array_header_1_0(frame, about)
        header = frame.getvalue()
        file.write(header)
        digests, unreadable, looks = _decode_into(file, paths, size, greys, resize, progress)
        kinds = {
            look: i for i, look in enumerate(dict.fromkeys(looks))
        }  # few, where there are many images
        notes = {
            "digests": digests,
            "unreadable": unreadable,
            "kinds": list(kinds),
            "looks": [kinds[look] for look in looks],
        }
        text = json.dumps(notes).encode()
        lengths = f"{len(header):8d}{len(text):12d}".encode()
        file.write(text + lengths + _seal(header, text, lengths).encode())


def _decode_into(
    file: IO[bytes] | None,
    paths: Sequence[Path],
    size: Size,
    greys: Greys | None,
    resize: Resize,
    progress: Progress | None,
) -> Notes:
    """Decode all, into `file` if there is one; digests, the reasons of those that can't be read,
    and how each is stored.
    """
    digests, unreadable, looks = [], {}, []
    for i, (image, digest, look) in enumerate(at_once(decoder(size, greys, resize), paths)):
        if isinstance(image, str):
            unreadable[i] = image
            image = np.zeros((*size, 3), np.uint8)
        if file is not None:
            file.write(image.tobytes())
        digests.append(digest)
        looks.append(look)
        if progress is not None:
            progress(i + 1, len(paths), "decoding images")
    return tuple(digests), unreadable, tuple(looks)


def decoder(
    size: Size, greys: Greys | None, resize: Resize
) -> Callable[[Path], tuple[np.ndarray | str, str, Look | None]]:
    """What decodes a file to pixels (or the reason why not), their digest, and how the image is
    stored.
    """

    def work(path: Path) -> tuple[np.ndarray | str, str, Look | None]:
        found = try_looking(path, size, greys, resize)
        if isinstance(found, str):
            return found, "", None
        image, look = found
        return image, _digest(image), look

    return work


def _arrays(home: Path) -> list[Path]:
    """The arrays, least lately used first."""
    aged = []
    for path in home.glob("*.npy"):
        with contextlib.suppress(FileNotFoundError):  # another run just made room
            aged.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(aged)]


def _copies(home: Path) -> list[Path]:
    """The copies of shards from behind URLs; whoever misses one asks the store instead."""
    return list((home / "shards").glob("*.tar"))


def _used(home: Path) -> int:
    return sum(path.stat().st_size for path in (*_arrays(home), *_copies(home)) if path.exists())


def _make_room(home: Path, limit: int) -> None:
    """Delete what killed runs left, then copies of shards, then unused arrays, the least lately
    used first, until `limit` bytes remain.
    """
    with FileLock(home / "room.lock"):
        clear_leftovers(home)
        for path in _copies(home):
            if _used(home) > limit:
                path.unlink(missing_ok=True)
        for path in _arrays(home):
            if _used(home) <= limit:
                return
            with _unused(path) as free:
                if free:
                    log.info("making room in the cache: %s", path.name)
                    path.unlink(missing_ok=True)


@contextlib.contextmanager
def _unused(array: Path) -> Iterator[bool]:
    """Whether nobody fills or reads this array; until the end of the block nobody can begin to."""
    with contextlib.ExitStack() as stack:
        free = array not in _open
        try:
            stack.enter_context(FileLock(array.with_suffix(".lock"), timeout=0))
            if free and array.exists():
                stack.enter_context(locked_against_readers(array))
        except (Timeout, BlockingIOError):
            free = False
        yield free
