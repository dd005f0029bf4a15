"""Whether images are grey, so that a model that sees three colours sees the same three times."""

from __future__ import annotations

import numpy as np

from prunedge.data.dataset import Dataset, Split
from prunedge.data.stored import looks_of

MOST = 256  # images of a split whose pixels are looked at before a run begins
_BLOCK = 32  # images that are read at a time

# Pillow's modes that hold no colours; those of deep greys begin with an I.
_GREY_MODES = ("1", "L", "LA", "La", "F")


def is_all_grey(data: Dataset, most: int | None = MOST) -> bool:
    """Whether all images are grey: as they are stored, or, where they are stored as colours, by
    the pixels of at most so many of each split (None: all), evenly chosen.

    As far as a model that sees three channels would gain by seeing one: False where it sees one.
    """
    if data.in_channels == 1:
        return False
    return all(_is_grey(split, most) for split in data.splits().values() if len(split))


def _is_grey(split: Split, most: int | None) -> bool:
    in_colour = []
    for place, look in enumerate(looks_of(split)):
        if look.mode not in _GREY_MODES and not look.mode.startswith("I"):
            in_colour.append(place)

    count = len(in_colour) if most is None else min(most, len(in_colour))
    chosen = [in_colour[i] for i in np.linspace(0, len(in_colour) - 1, count).astype(int)]
    for start in range(0, count, _BLOCK):
        pixels = split.pixels(chosen[start : start + _BLOCK])  # (n, height, width, 3)
        if (pixels != pixels[..., :1]).any():
            return False
    return True
