"""Files to pixels, several at once. Pixels are those that the device sees: `prunedge.edge.pictures` decodes for both."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from prunedge.data.shards import read_member
from prunedge.edge.pictures import read_picture
from prunedge.errors import DataError

A = TypeVar("A")
B = TypeVar("B")

Progress = Callable[[int, int, str], None]


class Look(NamedTuple):
    """How a picture is stored: pixels, Pillow's mode (RGB, L, ...) and the format (PNG, JPEG, ...)."""

    width: int
    height: int
    mode: str
    format: str


def decode(paths: Sequence[Path], size: int) -> np.ndarray:
    """These pictures as (N, size, size, 3) uint8. Raises DataError at the first that can't be read."""
    pixels = np.empty((len(paths), size, size, 3), np.uint8)
    for i, picture in enumerate(at_once(lambda path: try_picture(path, size), paths)):
        if isinstance(picture, str):
            raise DataError(f"can't read a picture any more: {picture}", where=paths[i], remedy="load the data again")
        pixels[i] = picture
    return pixels


def try_picture(path: Path, size: int) -> np.ndarray | str:
    """The picture as (size, size, 3) uint8, or in a few words why it can't be read."""
    return _tried(path, lambda file: read_picture(file, size))


def try_looking(path: Path, size: int) -> tuple[np.ndarray, Look] | str:
    """The picture as (size, size, 3) uint8 and how it is stored, asked for once; or in a few words why it can't be read."""
    return _tried(path, lambda file: (read_picture(file, size), _look(file)))


def _tried(path: Path, read: Callable[[Path | BytesIO], A]) -> A | str:
    try:
        file = source_of(path)
        if (file.stat().st_size if isinstance(file, Path) else file.getbuffer().nbytes) == 0:
            return "empty file"
        return read(file)
    except FileNotFoundError:
        return "no such file"
    except Exception as error:  # a damaged file can make a decoder raise anything: struct.error, zlib.error ...
        return reason(error, path)


def source_of(path: Path | str) -> Path | BytesIO:
    """What a decoder opens for this picture: the file, or the bytes of a picture in a shard.

    Raises FileNotFoundError or DataError when the shard can't give it.
    """
    data = read_member(path)
    return Path(path) if data is None else BytesIO(data)


def look_at(path: Path) -> Look:
    """How a picture is stored; its header alone is decoded."""
    return _look(source_of(path))


def _look(file: Path | BytesIO) -> Look:
    if isinstance(file, BytesIO):
        file.seek(0)
    with Image.open(file) as picture:
        return Look(*picture.size, picture.mode, picture.format or "?")


def at_once(work: Callable[[A], B], items: Iterable[A], threads: int | None = None) -> Iterator[B]:
    """`work` on each item, in order, on several threads (Pillow decodes without Python's lock); few results wait at any time."""
    source = iter(items)
    with ThreadPoolExecutor(threads or min(os.cpu_count() or 1, 16)) as pool:
        waiting = deque(pool.submit(work, item) for item in islice(source, 64))
        try:
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(work, item) for item in islice(source, 1))
        finally:
            for future in waiting:
                future.cancel()


def reason(error: Exception, *files: Path | None) -> str:
    """The decoder's words, without the paths that the caller names anyway."""
    text = error.what if isinstance(error, DataError) else str(error)
    for file in files:
        text = text.replace(repr(str(file)), "the file").replace(str(file), "the file")
    return " ".join(text.removeprefix("can't be decoded: ").split()) or type(error).__name__
