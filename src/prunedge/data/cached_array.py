"""One array of decoded images in a file: uint8 (N, H, W, channels), or of masks (N, H, W), read at
any of its rows.

Not through a mapping: the pages of a mapping count as the process's memory, 15 GB of them after one
epoch of 100,000 images.

The file is an array of numpy's with notes and checksums behind its pixels. What is damaged is
noticed by these: the frame (header, notes) when the array is opened, each image when it is first
read. An array in use is locked (flock), so that nobody deletes it to make room.
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.lib.format import read_array_header_1_0, read_magic, write_array_header_1_0

from prunedge.edge.image.read import Look
from prunedge.errors import DataError
from prunedge.utils.files import written
from prunedge.utils.systems import lock_shared

log = logging.getLogger(__name__)

# The end of an array's file: how long its header and its notes are, and the SHA-256 of both. For
# the pixels the notes have digests.
LENGTHS = 20
SEAL = 64

# What reading a damaged array raises.
_DAMAGE = (ValueError, KeyError, TypeError, IndexError, EOFError)
# Errors of the system by which an array is lost. Others (too many open files, no memory) are no
# fault of the array.
_LOST = (errno.EIO, errno.EACCES, errno.EPERM, errno.EISDIR)


class Notes(NamedTuple):
    """What is known of each image of an array, by its row.

    `digests` has an empty string, `looks` None, and `unreadable` the reason, at the row of an image
    that can't be read. Of masks `shown` has the numbers of the classes, but for the first, that
    each shows.
    """

    digests: tuple[str, ...]
    unreadable: dict[int, str]
    looks: tuple[Look | None, ...]
    shown: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class _Array:
    """An open array: its file, where in it the pixels begin, their shape (N, H, W, channels), or of
    masks (N, H, W),
    and the notes behind them.

    `checked` has a 1 at each row that was compared with its digest.
    """

    file: IO[bytes]
    start: int
    shape: tuple[int, ...]
    notes: Notes
    checked: bytearray = field(default_factory=bytearray)


# One for each array and process. The open file keeps the lock by which other processes leave it
# alone.
_open: dict[Path, _Array] = {}


def notes_of(cache: Path) -> Notes:
    """What the cache remembers of its images, by row."""
    return _opened(cache).notes


def is_open(cache: Path) -> bool:
    """Whether this process has opened the array, and may read it."""
    return cache in _open


def read_pixels(cache: Path, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """These rows of an array, in this order: (len(rows), H, W, channels) uint8, or of masks
    (len(rows), H, W), read anew; several threads may.

    Raises DataError when the file was deleted or is damaged; it is removed then, so that the next
    command makes it anew.
    """
    try:
        array = _opened(cache)
    except FileNotFoundError:
        raise DataError(
            "the cache of decoded images was deleted", where=cache, remedy="load the data again"
        ) from None
    except _DAMAGE as error:
        raise _given_up(cache, error) from None

    wanted = np.asarray(rows, np.int64).reshape(-1)
    if hasattr(os, "preadv"):
        pixels = _read_at(cache, array, wanted)
    else:
        # Windows and macOS: a mapping that ends with the call.
        mapped = np.memmap(array.file, np.uint8, "r", array.start, array.shape)
        pixels = np.asarray(mapped[wanted])
    _check(cache, array, wanted, pixels)
    return pixels


def _read_at(cache: Path, array: _Array, rows: np.ndarray) -> np.ndarray:
    """The images at these rows; DataError when the file ends before one does."""
    pixels = np.empty((len(rows), *array.shape[1:]), np.uint8)
    image_bytes = int(np.prod(array.shape[1:]))
    # Forwards through the file, as disks like it.
    for position in np.argsort(rows, kind="stable").tolist():
        row = int(rows[position])
        if not 0 <= row < array.shape[0]:
            raise IndexError(f"row {row} of {array.shape[0]}")

        rest = memoryview(pixels[position]).cast("B")
        offset = array.start + row * image_bytes
        while len(rest):
            count = os.preadv(array.file.fileno(), [rest], offset)
            if not count:
                raise _given_up(cache, ValueError("it was cut short"))
            rest = rest[count:]
            offset += count
    return pixels


def write_array(target: Path, shape: tuple[int, ...], fill: Callable[[IO[bytes]], Notes]) -> None:
    """Write an array (N, ...) under another name and rename it when whole; the notes follow the
    pixels, so that both come at once. `fill` writes the pixels in order, and gives the notes.
    """
    # Written in order, not through a mapping: a full disk is then an error and not a crash of the
    # process.
    with written(target) as temporary, temporary.open("wb") as file:
        about = {"descr": "|u1", "fortran_order": False, "shape": shape}
        frame = io.BytesIO()
        write_array_header_1_0(frame, about)
        header = frame.getvalue()
        file.write(header)

        text = _notes_text(fill(file))
        lengths = f"{len(header):8d}{len(text):12d}".encode()
        file.write(text + lengths + _seal(header, text, lengths).encode())


def is_sound(cache: Path) -> bool:
    """Whether there is such an array, and it can be opened; one that can't is said, and removed."""
    try:
        _opened(cache)
    except FileNotFoundError:
        return False
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _LOST:
            raise
        log.warning("a file of the cache is damaged and made anew: %s (%s)", cache, error)
        _remove(cache)
        return False
    return True


def digest_of(image: np.ndarray) -> str:
    """Stands for an image's pixels."""
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=12).hexdigest()


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


def _read(file: IO[bytes]) -> _Array:
    file_bytes = os.fstat(file.fileno()).st_size
    file.seek(max(0, file_bytes - LENGTHS - SEAL))
    end = file.read()
    header_bytes = int(end[:8])
    notes_bytes = int(end[8:LENGTHS])
    notes_start = file_bytes - LENGTHS - SEAL - notes_bytes

    file.seek(0)
    header = file.read(header_bytes)
    file.seek(notes_start)
    text = file.read(notes_bytes)
    if end[LENGTHS:].decode() != _seal(header, text, end[:LENGTHS]):
        raise ValueError("it differs from its checksum")

    file.seek(0)
    read_magic(file)
    shape, _, _ = read_array_header_1_0(file)
    if notes_start - file.tell() != int(np.prod(shape)):
        raise ValueError("it was cut short")
    return _Array(file, header_bytes, shape, _notes_from(text), bytearray(shape[0]))


def _notes_text(notes: Notes) -> bytes:
    # Looks are few, where there are many images: each is written once, and numbered.
    numbers = {look: number for number, look in enumerate(dict.fromkeys(notes.looks))}
    record = {
        "digests": notes.digests,
        "unreadable": notes.unreadable,
        "kinds": list(numbers),
        "looks": [numbers[look] for look in notes.looks],
        "shown": notes.shown,
    }
    return json.dumps(record).encode()


def _notes_from(text: bytes) -> Notes:
    record = json.loads(text)
    unreadable = {int(row): reason for row, reason in record["unreadable"].items()}
    kinds = [kind and Look(*kind) for kind in record["kinds"]]
    looks = tuple(kinds[number] for number in record["looks"])
    shown = tuple(tuple(numbers) for numbers in record.get("shown", ()))
    return Notes(tuple(record["digests"]), unreadable, looks, shown)


def _check(cache: Path, array: _Array, rows: np.ndarray, pixels: np.ndarray) -> None:
    """Compare rows with their digests when they are read for the first time; DataError when one
    differs.
    """
    for position, row in enumerate(rows.tolist()):
        if array.checked[row]:
            continue
        digest = array.notes.digests[row]
        # Without a digest: the image can't be read, and its row is nobody's.
        if digest and digest_of(pixels[position]) != digest:
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
    array = _open.pop(cache, None)
    if array is not None:
        array.file.close()
    if cache.is_dir():
        shutil.rmtree(cache)
    else:
        cache.unlink(missing_ok=True)


def _seal(header: bytes, notes: bytes, lengths: bytes) -> str:
    return hashlib.sha256(header + notes + lengths).hexdigest()
