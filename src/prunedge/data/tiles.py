"""Tiles of photographs as images of their own, cut when they are read.

A tile has a path as if its photograph were a folder: `wall.jpg/0-256-256-512.tile` (left, top,
right, bottom, in pixels of the upright photograph).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path

from prunedge.data.decode import MOST_MEGAPIXELS, TILE
from prunedge.data.patch_grid import corners
from prunedge.data.webdataset.shards import read_member, stamp_of
from prunedge.edge.image.photograph import Photo, open_photo, opened_within
from prunedge.edge.image.size import Size, square
from prunedge.utils.recent import Recent

_NAME = re.compile(r"(\d+)-(\d+)-(\d+)-(\d+)\.tile")
_PLAIN = ("L", "RGB")  # what is kept without compression; other greys are a TIFF

Box = tuple[int, int, int, int]

# Decoded photographs by their pixels, four bytes each: tiles that are not in the cache are read in
# any order, and to decode a photograph for each of them takes forty times as long as to cut it.
_opened: Recent[Photo] = Recent(128_000_000, lambda photo: photo.width * photo.height)


def boxes_of(width: int, height: int, side: int, overlap: float) -> Iterator[Box]:
    """Squares of `side` pixels that cover a photograph and share `overlap` of themselves with the
    next one, the last of a row or column flush with the edge; narrower or lower where the
    photograph is.
    """
    across = min(side, width)
    down = min(side, height)
    stride = square(max(1, round(side * (1 - overlap))))
    for left, top in corners(width, height, Size(down, across), stride).tolist():
        yield left, top, left + across, top + down


def own_parts(boxes: Iterable[Box]) -> dict[Box, Box]:
    """The part of each tile of a photograph whose pixels count in this tile, by the tile: those
    that are nearer to its middle than to that of any other, so that each pixel counts in one tile.

    Left, top, right, bottom in pixels of the photograph, of the tiles that `boxes_of` gives.
    """
    tiles = list(boxes)
    across = _own_spans({(left, right) for left, _, right, _ in tiles})
    down = _own_spans({(top, bottom) for _, top, _, bottom in tiles})
    parts = {}
    for left, top, right, bottom in tiles:
        first_column, last_column = across[left, right]
        first_row, last_row = down[top, bottom]
        parts[left, top, right, bottom] = (first_column, first_row, last_column, last_row)
    return parts


def _own_spans(spans: Iterable[tuple[int, int]]) -> dict[tuple[int, int], tuple[int, int]]:
    """The part of each span along a side that is its own: neighbours share what both have in the
    middle of it.
    """
    ordered = sorted(spans)
    starts = [ordered[0][0]]
    stops = []
    for (_, stop), (start, _) in pairwise(ordered):
        middle = (start + stop) // 2
        stops.append(min(stop, middle))
        starts.append(max(start, middle))  # tiles between them may have been left out
    stops.append(ordered[-1][1])
    return dict(zip(ordered, zip(starts, stops, strict=True), strict=True))


def tile_path(photo: Path, box: Box) -> Path:
    """The path of a tile of a photograph."""
    return photo / f"{'-'.join(map(str, box))}{TILE}"


def tile_of(path: Path) -> tuple[Path, Box] | None:
    """The photograph and the box of a tile; None of any other path."""
    match = _NAME.fullmatch(path.name) if path.suffix == TILE else None
    if match is None:
        return None
    left, top, right, bottom = map(int, match.groups())
    return path.parent, (left, top, right, bottom)


def read_tile(path: Path) -> BytesIO | None:
    """A tile as an image's file, upright, its greys as they are stored; None of any other path.

    Raises FileNotFoundError where the photograph is gone, and what `open_photo` does.
    """
    tile = tile_of(path)
    if tile is None:
        return None
    file, box = tile
    in_shard = stamp_of(file)
    if in_shard is None:
        status = file.stat()
        stamp = f"{status.st_mtime_ns} {status.st_size}"
    else:
        stamp = in_shard
    photo = _opened.get((file, stamp), lambda: _open(file))
    part = photo.crop(box)
    content = BytesIO()
    part.save(content, "PPM" if part.mode in _PLAIN else "TIFF")
    content.seek(0)
    return content


def _open(file: Path) -> Photo:
    """A photograph of which tiles are cut, also one in a shard."""
    data = read_member(file)
    if data is not None:
        with opened_within(BytesIO(data), MOST_MEGAPIXELS) as image:
            return open_photo(image, MOST_MEGAPIXELS, as_stored=True)
    return open_photo(file, MOST_MEGAPIXELS, as_stored=True)
