"""Files to pixels, several at once. Pixels are those that the device sees: `prunedge.edge.pictures` decodes for both."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from prunedge.edge.pictures import read_picture
from prunedge.errors import DataError

A = TypeVar("A")
B = TypeVar("B")

Progress = Callable[[int, int, str], None]


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
    try:
        if path.stat().st_size == 0:
            return "empty file"
        return read_picture(path, size)
    except FileNotFoundError:
        return "no such file"
    except Exception as error:  # a damaged file can make a decoder raise anything: struct.error, zlib.error ...
        return reason(error, path)


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
