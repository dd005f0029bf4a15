"""Masks as run lengths: the text of COCO's compressed form, the bits of Label Studio's brush, and
the pixels of either.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prunedge.data.annotations.fill import Area
from prunedge.data.annotations.shapes import Runs

_LOWEST = 48  # the character 0, which stands for 0 in COCO's text
_COLOURS = 4  # of a pixel of Label Studio's: red, green, blue and how opaque it is


def area_of(runs: Runs, width: int, height: int) -> Area:
    """The pixels of a mask that lie in an image of this size.

    Raises ValueError where its runs are none of a box of its size, or the box lies outside.
    """
    refuse_wrong(runs, width, height)
    values = np.arange(len(runs.counts)) % 2 == 1
    pixels = np.repeat(values, runs.counts)
    if runs.by_columns:
        box = np.ascontiguousarray(pixels.reshape(runs.width, runs.height).T)
    else:
        box = pixels.reshape(runs.height, runs.width)
    left = max(runs.left, 0)
    top = max(runs.top, 0)
    right = min(runs.left + runs.width, width)
    bottom = min(runs.top + runs.height, height)
    if right <= left or bottom <= top:
        raise ValueError("a mask outside of the image")
    inside = box[top - runs.top : bottom - runs.top, left - runs.left : right - runs.left]
    return Area(left, top, inside, is_cut=inside.size < box.size)


def refuse_wrong(runs: Runs, width: int, height: int) -> None:
    """ValueError for runs that are no mask of a box as large as an image of this size at most."""
    if not (0 < runs.width <= width and 0 < runs.height <= height):
        raise ValueError(
            f"a mask of {runs.width}x{runs.height} pixels in an image of {width}x{height}"
        )
    counts = runs.counts
    if (counts < 0).any() or (counts > runs.width * runs.height).any():
        raise ValueError("a mask with impossible run lengths")
    total = int(counts.sum())
    if total != runs.width * runs.height:
        raise ValueError(
            f"a mask whose runs have {total:,} pixels, and not {runs.width}x{runs.height}"
        )


def runs_of(mask: np.ndarray, left: int = 0, top: int = 0) -> Runs:
    """A mask (height, width) bool as runs, row after row."""
    height, width = mask.shape
    flat = mask.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], changes, [flat.size]])
    counts = np.diff(edges)
    if flat.size and flat[0]:
        counts = np.concatenate([[0], counts])
    return Runs(left, top, width, height, counts.astype(np.int64))


def coco_counts(text: str) -> np.ndarray:
    """The run lengths (n,) int64 of COCO's compressed text.

    Five bits a character from the lowest up, the sixth says that more follow; from the fourth
    number on each is the difference to the one before the last. Raises ValueError.
    """
    counts: list[int] = []
    value = 0
    shift = 0
    for char in text:
        part = ord(char) - _LOWEST
        if not 0 <= part < 64 or shift > 60:
            raise ValueError("a mask whose text is no run lengths")
        value |= (part & 31) << shift
        shift += 5
        if part & 32:
            continue
        if part & 16:
            value -= 1 << shift  # the highest bit is the sign
        if len(counts) > 2:
            value += counts[-2]
        counts.append(value)
        value = 0
        shift = 0
    if shift:
        raise ValueError("a mask whose text was cut short")
    try:
        return np.array(counts, np.int64)
    except OverflowError:
        raise ValueError("a mask with impossible run lengths") from None


def brush_mask(packed: Sequence[int], width: int, height: int) -> np.ndarray:
    """What a brush has painted, (height, width) bool, from Label Studio's packed bits.

    A head of 32 bits (how many values), 5 (the bits of a value, less one) and four times 4 (the
    bits of a length, less one); then runs: a bit that says whether one value is repeated, two that
    choose among the four lengths, the length less one, and the value or values. The values are red,
    green, blue and opacity of each pixel, of which the last says what is painted. Raises
    ValueError.
    """
    count = width * height * _COLOURS
    try:
        content = bytes(packed)
    except (TypeError, ValueError):
        raise ValueError("a brush whose rle is no list of bytes") from None
    bits = _Bits(content)
    total = bits.read(32)
    if total != count:
        raise ValueError(f"a brush of {total:,} values, and not {width}x{height}x{_COLOURS}")
    word = bits.read(5) + 1
    lengths = [bits.read(4) + 1 for _ in range(4)]
    values = np.zeros(count, bool)
    place = 0
    while place < count:
        is_repeated = bits.read(1)
        end = place + 1 + bits.read(lengths[bits.read(2)])
        if end > count:
            raise ValueError("a brush whose runs are longer than its image")
        if is_repeated:
            values[place:end] = bits.read(word) > 0
        else:
            for at in range(place, end):
                values[at] = bits.read(word) > 0
        place = end
    return values[_COLOURS - 1 :: _COLOURS].reshape(height, width)


class _Bits:
    """Bits from the highest of the first byte on."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._place = 0

    def read(self, count: int) -> int:
        """The number of the next so many bits. ValueError where there are fewer."""
        end = self._place + count
        if end > 8 * len(self._content):
            raise ValueError("a brush whose rle was cut short")
        part = self._content[self._place // 8 : (end + 7) // 8]
        value = int.from_bytes(part, "big") >> (-end % 8)
        self._place = end
        return value & ((1 << count) - 1)
