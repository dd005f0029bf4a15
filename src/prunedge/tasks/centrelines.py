"""How well the centrelines of thin damage are found, which a pixel more or less at its edges says
little of. Numpy and scikit-image.

A mask's centreline is its skeleton (Zhang and Suen 1984). clIoU is that of OmniCrack30k (Benz and
Rodehorst, CVPR Workshops 2024), which OpenCrack reports as clIoU(4): a pixel of either centreline
within `TOLERANCE` of the other counts as found. clDice is that of Shit et al., CVPR 2021.
"""

from __future__ import annotations

from importlib.util import find_spec
from math import isqrt

import numpy as np

from prunedge.errors import ExtraMissing

TOLERANCE = 4  # pixels
COUNTS = ("true", "found", "false", "answered", "answered_inside", "true_inside")


def can_draw() -> bool:
    """Whether there is what draws skeletons."""
    return find_spec("skimage") is not None


def require_drawing(metric: str) -> None:
    """ExtraMissing where nothing draws skeletons."""
    if not can_draw():
        raise ExtraMissing(
            f"{metric} needs scikit-image, which draws centrelines",
            remedy="pip install 'prunedge[measure]'",
        )


def counts_of(truth: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """What centrelines of masks (height, width) bool have in common, (6,) int64 by `COUNTS`.

    Of the true centreline: its pixels, those within `TOLERANCE` of the answered one, and those
    inside of the answered mask; of the answered one: those that are false (not within `TOLERANCE`
    of the true one), all, and those inside of the true mask.
    """
    true = _centreline(truth)
    answered = _centreline(answer)
    numbers = (
        true.sum(),
        (true & _near(answered)).sum(),
        (answered & ~_near(true)).sum(),
        answered.sum(),
        (answered & truth).sum(),
        (true & answer).sum(),
    )
    return np.array(numbers, np.int64)


def _centreline(mask: np.ndarray) -> np.ndarray:
    from skimage.morphology import skeletonize

    # Most images show no damage.
    return np.asarray(skeletonize(mask)) if mask.any() else mask


def _near(line: np.ndarray) -> np.ndarray:
    """The pixels within `TOLERANCE` of a line (height, width) bool."""
    if not line.any():
        return line
    rows, columns = line.shape
    padded = np.pad(line, ((TOLERANCE, TOLERANCE), (TOLERANCE + 1, TOLERANCE)))
    counts = padded.cumsum(1, dtype=np.int32)
    near = np.zeros_like(line)
    # A disk is a span of each of its rows, and a span holds a pixel where the counts at its ends
    # differ: four times as fast as the distance of every pixel.
    for row in range(2 * TOLERANCE + 1):
        half = isqrt(TOLERANCE**2 - (row - TOLERANCE) ** 2)
        first = TOLERANCE - half
        last = TOLERANCE + half + 1
        seen = counts[row : row + rows]
        near |= seen[:, last : last + columns] > seen[:, first : first + columns]
    return near
