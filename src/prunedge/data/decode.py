"""Files to pixels, several at once. Pixels are those that the device sees:
`prunedge.edge.image.read` decodes for both.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import islice
from pathlib import Path
from time import sleep
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from prunedge.data.webdataset.shards import read_member
from prunedge.edge.image.normalise import ImageNorm
from prunedge.edge.image.read import (
    UNKNOWN_FORMAT,
    DeepGreys,
    Greys,
    InChannels,
    Look,
    depth_of,
    read_and_look,
    read_image,
    upright_size,
)
from prunedge.edge.image.size import Resize, Size
from prunedge.errors import DataError, MachineError
from prunedge.utils.files import require_regular
from prunedge.utils.machine import pass_on_reading, require_memory

A = TypeVar("A")
B = TypeVar("B")

TILE = ".tile"  # of `prunedge.data.tiles`
MOST_MEGAPIXELS = 1000.0  # photographs and masks of one's own are no bombs
PAUSES_S = (0.2, 1.0)  # before a second and a third try, when the machine is in trouble

Progress = Callable[[int, int, str], None]


def appearance(size: Size, resize: Resize, in_channels: InChannels = 3) -> str:
    """Size, resize mode and channels for a checksum: `224`, `128x384 pad`, `224 grey`."""
    words = [str(size)]
    if resize != "stretch":
        words.append(resize)
    if in_channels == 1:
        words.append("grey")
    return " ".join(words)


def seen_as(size: Size, resize: Resize, image_norm: ImageNorm, in_channels: InChannels = 3) -> str:
    """The same with the normalisation, which stored pixels don't have yet: `224 half`."""
    seen = appearance(size, resize, in_channels)
    return seen if image_norm == "imagenet" else f"{seen} {image_norm}"


def decode(
    paths: Sequence[Path],
    size: Size,
    greys: Greys | None = None,
    resize: Resize = "stretch",
    in_channels: InChannels = 3,
) -> np.ndarray:
    """These images as (N, height, width, in_channels) uint8. Raises DataError at the first that
    can't be read.
    """

    def read(path: Path) -> np.ndarray | str:
        return try_image(path, size, greys, resize, in_channels)

    pixels = np.empty((len(paths), *size, in_channels), np.uint8)
    for i, image in enumerate(at_once(read, paths)):
        if isinstance(image, str):
            raise DataError(
                f"can't read an image any more: {image}",
                where=paths[i],
                remedy="load the data again",
            )
        pixels[i] = image
    return pixels


def try_image(
    path: Path,
    size: Size,
    greys: Greys | None = None,
    resize: Resize = "stretch",
    in_channels: InChannels = 3,
) -> np.ndarray | str:
    """The image as (height, width, in_channels) uint8, or in a few words why it can't be read."""
    return tried(path, lambda file: read_image(file, size, greys, resize, in_channels))


def try_looking(
    path: Path,
    size: Size,
    greys: Greys | None = None,
    resize: Resize = "stretch",
    in_channels: InChannels = 3,
) -> tuple[np.ndarray, Look] | str:
    """The image as (height, width, in_channels) uint8 and how it is stored, asked for once; or in a
    few words why it can't be read.
    """
    return tried(path, lambda file: read_and_look(file, size, greys, resize, in_channels))


def tried(path: Path, read: Callable[[Path | BytesIO], A]) -> A | str:
    """What `read` makes of an image's file, or in a few words why it can't be read.

    Raises DeepGreys: that a set's greys have no range yet is no fault of the image. Raises
    MachineError, after three tries, when the machine can't read it now: that is no fault of the
    image either.
    """
    for again_s in (*PAUSES_S, None):
        try:
            return _once(path, read)
        except MachineError:
            if again_s is None:
                raise
            sleep(again_s)
    raise AssertionError("the last try returns or raises")


def _once(path: Path, read: Callable[[Path | BytesIO], A]) -> A | str:
    try:
        file = source_of(path)
        if (file.stat().st_size if isinstance(file, Path) else file.getbuffer().nbytes) == 0:
            return "empty file"
        return read(file)
    except FileNotFoundError:
        return "no such file"
    except DeepGreys:
        raise
    except (
        Exception
    ) as error:  # a damaged file can make a decoder raise anything: struct.error, zlib.error ...
        pass_on_reading(error, path)
        return reason(error, path)


def source_of(path: Path | str) -> Path | BytesIO:
    """What a decoder opens for this image: the file, or the bytes of an image in a shard, or of a
    tile of a photograph.

    Raises FileNotFoundError or DataError when the shard can't give it, or where it is no regular
    file.
    """
    if Path(path).suffix == TILE:
        # A photograph is cut by what patches are cut by, which reads images itself.
        from prunedge.data.tiles import read_tile

        tile = read_tile(Path(path))
        if tile is not None:
            return tile
    data = read_member(path)
    if data is not None:
        return BytesIO(data)
    require_regular(path, DataError)
    return Path(path)


def look_at(path: Path) -> Look:
    """How an image is stored, from its header as far as that tells."""
    with Image.open(source_of(path)) as image:
        depth = depth_of(image)  # before its size: to tell that may take decoding it
        width, height = upright_size(image)
        return Look(width, height, image.mode, image.format or "?", depth)


def at_once(work: Callable[[A], B], items: Iterable[A], threads: int | None = None) -> Iterator[B]:
    """`work` on each item, in order, on several threads (Pillow decodes without Python's lock); few
    results wait at any time.
    """
    source, threads = iter(items), threads or min(os.cpu_count() or 1, 16)
    require_memory(threads)
    with ThreadPoolExecutor(threads) as pool:
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
    if isinstance(error, DataError):
        text = error.what
    elif isinstance(error, UnidentifiedImageError):
        text = UNKNOWN_FORMAT
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror
    else:
        text = str(error)
    for file in files:
        text = text.replace(repr(str(file)), "the file").replace(str(file), "the file")
    return " ".join(text.removeprefix("can't be decoded: ").split()) or type(error).__name__
