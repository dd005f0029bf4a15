"""Decoded images on disk: one array for each set of files, size and way to resize.

Safe when runs share it: an array is filled under a lock in a hidden place and renamed when whole
and on the disk, so another run sees all of it or nothing, also after a `kill -9` or a power cut.
What is damaged nevertheless (`cached_array` notices it) is said, and made anew. Bounded: the arrays
that were used least lately make room.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from filelock import FileLock, Timeout

from prunedge.data.cached_array import Notes, digest_of, is_open, is_sound, notes_of, write_array
from prunedge.data.decode import TILE, Progress, appearance, at_once, try_looking
from prunedge.data.paths import cache_folder
from prunedge.data.webdataset.shards import drop_copies, fetch_all, stamp_of
from prunedge.edge.image.read import Greys, InChannels, Look
from prunedge.edge.image.size import Resize, Size
from prunedge.utils.files import clear_leftovers, make_folder
from prunedge.utils.machine import unusable_cache
from prunedge.utils.systems import locked_against_readers

log = logging.getLogger(__name__)

VERSION = 4  # of the decoding and its notes; a change makes old arrays useless
LIMIT_BYTES = 20 * 2**30

# The pixels of a file or the reason why there are none, their digest, and how it is stored.
Decoder = Callable[[Path], tuple[np.ndarray | str, str, Look | None]]


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
    in_channels: InChannels = 3,
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

    def fill(file: IO[bytes] | None) -> Notes:
        return _decode_into(file, paths, work, blank, progress)

    work = decoder(size, greys, resize, in_channels)
    blank = np.zeros((*size, in_channels), np.uint8)
    use = appearance(size, resize, in_channels)
    shape = (len(paths), *blank.shape)
    cache, notes = keep_array(paths, use, shape, fill, greys=greys, folder=folder, limit=limit)
    return Decoded(cache, notes.digests, notes.unreadable, notes.looks)


def keep_array(
    paths: Sequence[Path],
    use: str,
    shape: tuple[int, ...],
    fill: Callable[[IO[bytes] | None], Notes],
    *,
    greys: Greys | None = None,
    folder: Path | str | None = None,
    limit: int = LIMIT_BYTES,
) -> tuple[Path | None, Notes]:
    """The file of the array (N, ...) uint8 that `fill` makes of these files for this use, and its
    notes: made now, or found from before. Without room for it there is no file, and `fill` is given
    none. Raises MachineError when the cache folder can't be written.
    """
    home = cache_folder(folder)
    target = home / f"{fingerprint(paths, use, greys)}.npy"
    needed = int(np.prod(shape))
    try:
        make_folder(home)
        clear_leftovers(home)
        with FileLock(target.with_suffix(".lock")):
            if not is_sound(target):
                fetch_all(paths)
                # What the cache holds already can make room.
                room = min(limit, shutil.disk_usage(home).free // 2 + _used(home))
                if needed > room:
                    text = (
                        "%.1f GB of decoded images don't fit the cache %s: decoding anew each epoch"
                    )
                    log.warning(text, needed / 2**30, home)
                    return None, fill(None)
                _make_room(home, limit - needed)
                write_array(target, shape, fill)
            drop_copies(paths)
            return target, notes_of(target)
    except OSError as error:
        raise unusable_cache(error, home) from None


def fingerprint(paths: Sequence[Path], use: str, greys: Greys | None = None) -> str:
    """Stands for these files, as they are now, for this use (an `appearance`, or another purpose)
    and with this range of greys.
    """
    span = None if greys is None else (float(greys.low), float(greys.high))
    digest = hashlib.sha256(f"{VERSION} {use} {span} {len(paths)}".encode())
    for path in paths:
        digest.update(f"\n{stamp(path)}".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]


def stamp(path: Path) -> str:
    """What changes with a file, or with an image in a shard."""
    return stamp_of(path) or _stamp(path)


def _stamp(path: Path) -> str:
    try:
        status = (path.parent if path.suffix == TILE else path).stat()
    except OSError:
        return f"{path.absolute()}\tmissing"
    return f"{path.absolute()}\t{status.st_size}\t{status.st_mtime_ns}\t{status.st_ctime_ns}"


def _decode_into(
    file: IO[bytes] | None,
    paths: Sequence[Path],
    work: Decoder,
    blank: np.ndarray,
    progress: Progress | None,
) -> Notes:
    """Decode all by `work`, into `file` if there is one, where one that can't be read is `blank`
    (height, width, channels) uint8; digests, the reasons of those, and how each is stored.
    """
    digests = []
    unreadable = {}
    looks = []
    for index, (image, digest, look) in enumerate(at_once(work, paths)):
        if isinstance(image, str):
            unreadable[index] = image
            image = blank
        if file is not None:
            file.write(image.tobytes())
        digests.append(digest)
        looks.append(look)
        if progress is not None:
            progress(index + 1, len(paths), "decoding images")
    return Notes(tuple(digests), unreadable, tuple(looks))


def decoder(size: Size, greys: Greys | None, resize: Resize, in_channels: InChannels) -> Decoder:
    """What decodes a file to pixels (or the reason why not), their digest, and how the image is
    stored.
    """

    def work(path: Path) -> tuple[np.ndarray | str, str, Look | None]:
        decoded = try_looking(path, size, greys, resize, in_channels)
        if isinstance(decoded, str):
            return decoded, "", None
        image, look = decoded
        return image, digest_of(image), look

    return work


def _arrays(home: Path) -> list[Path]:
    """The arrays, least lately used first."""
    by_use = []
    for path in home.glob("*.npy"):
        with contextlib.suppress(FileNotFoundError):  # another run just made room
            by_use.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(by_use)]


def _copies(home: Path) -> list[Path]:
    """The copies of shards from behind URLs; whoever misses one asks the store instead."""
    return list((home / "shards").glob("*.tar"))


def _used(home: Path) -> int:
    """Bytes of all arrays and copies."""
    files = (*_arrays(home), *_copies(home))
    return sum(path.stat().st_size for path in files if path.exists())


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
        free = not is_open(array)
        try:
            stack.enter_context(FileLock(array.with_suffix(".lock"), timeout=0))
            if free and array.exists():
                stack.enter_context(locked_against_readers(array))
        except (Timeout, BlockingIOError):
            free = False
        yield free
