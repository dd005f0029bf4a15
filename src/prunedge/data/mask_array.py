"""The masks of images at the size that a model sees, beside the images' own array in the cache."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from prunedge.data.cache import keep_array
from prunedge.data.cached_array import Notes, digest_of, read_pixels
from prunedge.data.decode import Progress, appearance, at_once, reason
from prunedge.data.mask_look import values_of
from prunedge.data.mask_values import photo_size
from prunedge.data.masks import Pair
from prunedge.data.records import Masked, Record
from prunedge.data.tiles import Box, own_parts, tile_path
from prunedge.edge.image.size import Resize, Size, cropped_box, padded_box
from prunedge.edge.tasks.mask_targets import IGNORE
from prunedge.errors import DataError
from prunedge.utils.machine import pass_on_reading
from prunedge.utils.wording import counted, first_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Masks:
    """The masks of all listed images, by their rows: the number of each pixel's class, uint8, and
    IGNORE where it counts for nothing (also in the border around an image that is padded).

    `cache` is the file that holds them, None where it would not fit: masks are read anew then.
    `shown` are the numbers of the classes, but for the first, that each shows at this size: what a
    model is shown, and not what its photograph's file shows. `own` is the part of each image whose
    pixels count in it (left, top, right, bottom of its photograph), where several show the same
    pixels and each is to count once; () where all count.
    """

    pairs: tuple[Pair, ...]
    table: bytes
    size: Size
    resize: Resize
    cache: Path | None
    digests: tuple[str, ...]
    shown: tuple[tuple[int, ...], ...]
    own: tuple[Box, ...] = ()

    def counting_once(self) -> Masks:
        """The same, where a pixel that several tiles of a photograph show counts in one of them and
        is IGNORE in the others: what is judged by them has each pixel once, as a photograph has.
        """
        tiles: dict[Path, list[Box]] = defaultdict(list)
        for pair in self.pairs:
            if pair.box is not None:
                tiles[pair.photo].append(pair.box)
        parts = {photo: own_parts(boxes) for photo, boxes in tiles.items()}
        own = tuple(parts[pair.photo][pair.box] for pair in self.pairs if pair.box is not None)
        is_overlapping = own != tuple(pair.box for pair in self.pairs)
        return replace(self, own=own if tiles and is_overlapping else ())

    def read(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """These masks, (len(rows), height, width) uint8. Raises DataError when one can't be read
        any more.
        """
        masks = self._read(rows)
        if self.own:
            for mask, row in zip(masks, rows, strict=True):
                mask[~self._is_own(int(row))] = IGNORE
        return masks

    def _read(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        if self.cache is not None:
            return read_pixels(self.cache, rows)
        chosen = [self.pairs[int(row)] for row in rows]
        return np.stack(list(at_once(_reader(self.table, self.size, self.resize), chosen)))

    def _is_own(self, row: int) -> np.ndarray:
        """Which pixels of an image (height, width) bool count in it, resized as its mask is."""
        tile = self.pairs[row].box
        assert tile is not None
        left, top, right, bottom = tile
        first_column, first_row, last_column, last_row = self.own[row]
        is_own = np.zeros((bottom - top, right - left), np.uint8)
        is_own[first_row - top : last_row - top, first_column - left : last_column - left] = 1
        return resized_mask(is_own, self.size, self.resize) == 1


def masks_of(
    masked: Masked,
    classes: Sequence[str],
    size: Size,
    resize: Resize,
    *,
    folder: Path | str | None = None,
    progress: Progress | None = None,
) -> Masks:
    """The masks at this size, with the numbers of these classes, read once into the cache folder.

    DataError where one can't be read any more. That of a photograph that can't be read is all
    IGNORE: nobody asks for it.
    """
    table = masked.reading.table(classes).tobytes()
    read = _reader(table, size, resize)

    def fill(file: IO[bytes] | None) -> Notes:
        digests = []
        shown = []
        for mask in at_once(read, masked.pairs):
            if file is not None:
                file.write(mask.tobytes())
            digests.append(digest_of(mask))
            shown.append(tuple(np.setdiff1d(mask, (0, IGNORE)).tolist()))
            if progress is not None:
                progress(len(digests), len(masked.pairs), "decoding masks")
        return Notes(tuple(digests), {}, (None,) * len(digests), tuple(shown))

    paths = []
    digest = hashlib.sha256(table)
    for pair in masked.pairs:
        photo = pair.photo if pair.box is None else tile_path(pair.photo, pair.box)
        paths += [photo] if pair.mask is None else [photo, pair.mask]
        if pair.drawn is not None:
            digest.update(pair.drawn.digest.encode())
    meaning = digest.hexdigest()[:16]
    use = f"masks and what they show {appearance(size, resize)} {meaning}"
    cache, notes = keep_array(paths, use, (len(masked.pairs), *size), fill, folder=folder)
    return Masks(masked.pairs, table, size, resize, cache, notes.digests, notes.shown)


def shown_targets(masks: Masks, records: Sequence[Record]) -> list[tuple[int, ...]]:
    """What the masks of these records show at the size that a model sees, told where they have no
    damage left of what their files show.
    """
    lost = []
    showing = 0
    for record, numbers in zip(records, masks.shown, strict=True):
        showing += bool(record.label)
        if record.label and not numbers:
            lost.append(record.name)
    if lost:
        log.warning(
            "%s of %s with damage show none at %s px: larger images, or tiles, keep it (%s)",
            f"{len(lost):,}",
            counted(showing, "mask"),
            masks.size,
            first_of(lost),
        )
    return list(masks.shown)


def _reader(table: bytes, size: Size, resize: Resize) -> Callable[[Pair], np.ndarray]:
    """What reads a mask as (height, width) uint8."""
    numbers = [*table]

    def read(pair: Pair) -> np.ndarray:
        try:
            photo_size(pair.photo)
        except Exception as error:  # decoding says what is wrong with it
            pass_on_reading(error, pair.photo)
            return np.full(size, IGNORE, np.uint8)
        try:
            values = values_of(pair).values
        except Exception as error:  # a damaged file can make a decoder raise anything
            pass_on_reading(error, pair.mask or pair.photo)
            raise DataError(
                f"can't read a mask any more: {reason(error, pair.mask)}",
                where=pair.mask or pair.photo,
                remedy="load the data again",
            ) from None
        # Indices of numpy's would take eight bytes a pixel.
        return resized_mask(np.asarray(Image.fromarray(values).point(numbers)), size, resize)

    return read


def resized_mask(numbers: np.ndarray, size: Size, resize: Resize) -> np.ndarray:
    """A mask (rows, columns) uint8 as its image is resized, each pixel that of the nearest place:
    classes have no mean. A border is IGNORE.
    """
    image = Image.fromarray(numbers)
    if image.size == (size.width, size.height):
        return numbers
    nearest = Image.Resampling.NEAREST
    if resize == "crop":
        box = cropped_box(image.width, image.height, size)
        return np.asarray(image.resize((size.width, size.height), nearest, box=box))
    if resize == "stretch":
        return np.asarray(image.resize((size.width, size.height), nearest))
    left, top, right, bottom = padded_box(image.width, image.height, size)
    mask = np.full(size, IGNORE, np.uint8)
    mask[top:bottom, left:right] = np.asarray(image.resize((right - left, bottom - top), nearest))
    return mask
