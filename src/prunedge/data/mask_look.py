"""What one mask, or a tile of one, holds, before anybody knows what its values mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from prunedge.data.annotations.draw import DrawnMask, DrawnNotes
from prunedge.data.cache import stamp
from prunedge.data.mask_values import (
    MOST_CLASSES,
    NOTHING_UNUSUAL,
    WHITE,
    MaskValues,
    drawn_values,
    mask_values,
)
from prunedge.data.masks import HALF, LOSSY, Pair
from prunedge.utils.recent import Recent

BAND = 64  # rows whose values are counted at once: numpy takes eight bytes for each
MOST_FLAT = 0.5  # of the greys between black and white of a mask, that lie in areas of one grey

Kind = Literal["nothing", "white", "greys", "numbers"]

# Whole masks, by their bytes, of which tiles are cut.
_kept: Recent[MaskValues] = Recent(128_000_000, lambda mask: mask.values.nbytes)


@dataclass(frozen=True)
class MaskLook:
    """What one mask holds: its different `values` from 0 to 255. `is_numbered`: its file says that
    they are numbers of classes (`MaskValues`); `is_lossy`: they are none exactly (JPEG).

    `between` is how many of its pixels are neither nearly black nor nearly white, and `flat` how
    many of these are as their neighbours are: greys at edges are not, classes are.
    `may_be_turned` and `notes`, those of the whole mask: see `MaskValues`.
    """

    values: tuple[int, ...]
    is_numbered: bool
    is_lossy: bool
    between: int = 0
    flat: int = 0
    may_be_turned: bool = False
    notes: DrawnNotes = NOTHING_UNUSUAL

    def kind(self, most: int) -> Kind:
        """What its values are, where numbers of classes go up to `most`."""
        if self.is_lossy:
            return "greys" if any(self.values) else "nothing"
        if set(self.values) <= {0, WHITE}:
            return "white" if WHITE in self.values and not self.is_numbered else "nothing"
        is_between = any(most < value < WHITE for value in self.values)
        return "greys" if is_between and not self.is_numbered else "numbers"

    @property
    def may_be_classes(self) -> bool:
        """Whether its greys lie in areas rather than at edges."""
        return not self.is_lossy and self.flat > self.between * MOST_FLAT

    def joined(self, other: MaskLook) -> MaskLook:
        """What two parts of one mask hold together."""
        return MaskLook(
            values=tuple(sorted({*self.values, *other.values})),
            is_numbered=self.is_numbered,
            is_lossy=self.is_lossy,
            between=self.between + other.between,
            flat=self.flat + other.flat,
            may_be_turned=self.may_be_turned,
            notes=self.notes,
        )


def values_of(pair: Pair) -> MaskValues:
    """What a mask, or the part of it that is meant, holds. Raises what `mask_values` and
    `drawn_values` do.
    """
    mask = pair.drawn or pair.mask
    assert mask is not None
    if pair.box is None:
        return _whole(mask, pair.photo)
    changed = [stamp(pair.photo)]
    if pair.mask is not None:
        changed.append(stamp(pair.mask))
    key = (mask, pair.photo, tuple(changed))
    whole = _kept.get(key, lambda: _whole(mask, pair.photo))
    left, top, right, bottom = pair.box
    return replace(whole, values=np.ascontiguousarray(whole.values[top:bottom, left:right]))


def _whole(mask: Path | DrawnMask, photo: Path) -> MaskValues:
    """A whole mask, deep greys in black and white: the upper bits of a dark one look like a
    number.
    """
    if isinstance(mask, DrawnMask):
        return drawn_values(mask, photo)
    held = mask_values(mask, photo, is_grey=True)
    if not held.is_deep:
        return held
    return replace(held, values=(held.values > HALF) * np.uint8(WHITE))


def look_at_mask(pair: Pair) -> MaskLook:
    """What the mask of a photograph holds. Raises what `values_of` does."""
    held = values_of(pair)
    values = held.values
    is_there = np.zeros(WHITE + 1, bool)
    for first in range(0, len(values), BAND):
        is_there[values[first : first + BAND]] = True
    different = tuple(np.flatnonzero(is_there).tolist())
    between = flat = 0
    if pair.drawn is None and any(
        MOST_CLASSES < value < WHITE - MOST_CLASSES for value in different
    ):
        is_between = (values > MOST_CLASSES) & (values < WHITE - MOST_CLASSES)
        between = int(is_between.sum())
        flat = int((is_between & _is_flat(values)).sum())
    return MaskLook(
        values=different,
        is_numbered=held.is_numbered,
        is_lossy=pair.mask is not None and pair.mask.suffix.lower() in LOSSY,
        between=between,
        flat=flat,
        may_be_turned=held.may_be_turned,
        notes=held.notes,
    )


def _is_flat(values: np.ndarray) -> np.ndarray:
    """Which pixels (height, width) bool are one of four with the same value, in a square."""
    is_square = values[1:, 1:] == values[1:, :-1]
    is_square &= values[:-1, 1:] == values[:-1, :-1]
    is_square &= values[1:, 1:] == values[:-1, 1:]
    flat = np.zeros(values.shape, bool)
    for rows in (slice(1, None), slice(None, -1)):
        for columns in (slice(1, None), slice(None, -1)):
            flat[rows, columns] |= is_square
    return flat
