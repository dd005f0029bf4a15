"""Overlapping patches that cover a photograph, and the map that their probabilities make. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

MOST_PATCHES = 1_000_000


@dataclass(frozen=True)
class Grid:
    """Square patches of `patch` pixels, `stride` apart, on a photograph of width x height pixels.

    The last patch of a row and of a column ends at the photograph's edge. A photograph narrower or lower than a patch has patches as narrow
    or low as itself. Map cells are `stride` x `stride` pixels, those at the right and bottom edge what is left.
    """

    width: int
    height: int
    patch: int
    stride: int

    @cached_property
    def xs(self) -> np.ndarray:
        """Left edges of the patches' columns, int64."""
        return _starts(self.width, self.patch, self.stride)

    @cached_property
    def ys(self) -> np.ndarray:
        """Upper edges of the patches' rows, int64."""
        return _starts(self.height, self.patch, self.stride)

    @property
    def patches(self) -> int:
        """How many patches there are."""
        return len(self.xs) * len(self.ys)

    def boxes(self) -> Iterator[tuple[int, int, int, int]]:
        """Left, top, right, bottom of each patch, row by row."""
        width, height = min(self.patch, self.width), min(self.patch, self.height)
        for y in self.ys.tolist():
            for x in self.xs.tolist():
                yield x, y, x + width, y + height

    def cells(self) -> tuple[np.ndarray, np.ndarray]:
        """Edges of the map's columns (columns + 1,) and rows (rows + 1,) in pixels."""
        return _edges(self.width, self.stride), _edges(self.height, self.stride)

    def maps(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """From a value per patch (rows of patches, columns of patches) to one per cell: the mean, and the place of the highest.

        A patch counts for a cell when the cell's centre lies in it. Both results are (rows, columns): float32, and int64 places in
        `values.ravel()`.
        """
        columns, rows = self.cells()
        x0, x1 = _covering(columns, self.xs, min(self.patch, self.width))
        y0, y1 = _covering(rows, self.ys, min(self.patch, self.height))
        sums = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
        sums[1:, 1:] = values.cumsum(0, dtype=np.float64).cumsum(1)
        totals = sums[y1][:, x1] - sums[y0][:, x1] - sums[y1][:, x0] + sums[y0][:, x0]
        mean = totals / np.outer(y1 - y0, x1 - x0)
        highest = np.full(mean.shape, -np.inf)
        places = np.zeros(mean.shape, dtype=np.int64)
        for down in range(int((y1 - y0).max())):
            for right in range(int((x1 - x0).max())):
                y, x = np.minimum(y0 + down, y1 - 1), np.minimum(x0 + right, x1 - 1)
                found = values[y][:, x]
                places = np.where(found > highest, y[:, None] * values.shape[1] + x, places)
                highest = np.maximum(highest, found)
        return mean.clip(0, 1).astype(np.float32), places


def _starts(length: int, patch: int, stride: int) -> np.ndarray:
    return np.append(np.arange(0, length - patch, stride), max(0, length - patch))


def _edges(length: int, cell: int) -> np.ndarray:
    return np.append(np.arange(0, length, cell), length)


def _covering(edges: np.ndarray, starts: np.ndarray, patch: int) -> tuple[np.ndarray, np.ndarray]:
    """For each cell the first patch that covers its centre and the first after it that doesn't."""
    centres = (edges[:-1] + edges[1:]) / 2
    return np.searchsorted(starts, centres - patch, side="right"), np.searchsorted(starts, centres, side="right")
