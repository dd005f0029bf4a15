"""Overlapping patches that cover a photograph, and the map that their probabilities make. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from prunedge.edge.inspect.regions import label_components

MOST_PATCHES = 1_000_000
NEARLY = 0.9
# of a patch's side: damage there may reach beyond the patch, so that a patch that isn't sure says
# little of it
RIM = 0.25


@dataclass(frozen=True)
class Grid:
    """Patches of `patch` (width, height) pixels, `stride` (across, down) apart, on a photograph of
    width x height pixels.

    The last patch of a row and of a column ends at the photograph's edge. A photograph narrower or
    lower than a patch has patches as narrow or low as itself. `seen` (left, top, right, bottom) is
    the part of it that patches cover, and takes the photograph's place in all this; None: all.

    The map's cells are what the patches' edges, and those of their cores, cut the photograph into:
    a cell lies in a patch, or in its core, wholly or not at all. The core is the patch less its
    rim, a quarter of its side, where it doesn't end with the photograph.
    """

    width: int
    height: int
    patch: tuple[int, int]
    stride: tuple[int, int]
    seen: tuple[int, int, int, int] | None = None

    @cached_property
    def xs(self) -> np.ndarray:
        """Left edges of the patches' columns, int64."""
        left, right = self._columns
        return left + _starts(right - left, self.patch[0], self.stride[0])

    @cached_property
    def ys(self) -> np.ndarray:
        """Upper edges of the patches' rows, int64."""
        top, bottom = self._rows
        return top + _starts(bottom - top, self.patch[1], self.stride[1])

    @property
    def _columns(self) -> tuple[int, int]:
        return (0, self.width) if self.seen is None else (self.seen[0], self.seen[2])

    @property
    def _rows(self) -> tuple[int, int]:
        return (0, self.height) if self.seen is None else (self.seen[1], self.seen[3])

    @property
    def _sides(self) -> tuple[int, int]:
        """Width and height of a patch, which is no larger than what is seen."""
        left, right = self._columns
        top, bottom = self._rows
        return min(self.patch[0], right - left), min(self.patch[1], bottom - top)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return len(self.ys), len(self.xs)

    @property
    def extent(self) -> tuple[int, int]:
        """Width and height of the photograph."""
        return self.width, self.height

    @property
    def patches(self) -> int:
        """How many patches there are."""
        left, right = self._columns
        top, bottom = self._rows
        across = _count(right - left, self.patch[0], self.stride[0])
        down = _count(bottom - top, self.patch[1], self.stride[1])
        return across * down

    def boxes(self) -> Iterator[tuple[int, int, int, int]]:
        """Left, top, right, bottom of each patch, row by row."""
        width, height = self._sides
        for y in self.ys.tolist():
            for x in self.xs.tolist():
                yield x, y, x + width, y + height

    @cached_property
    def across(self) -> Axis:
        """The columns."""
        return _axis(self.xs, self._sides[0], *self._columns)

    @cached_property
    def down(self) -> Axis:
        """The rows."""
        return _axis(self.ys, self._sides[1], *self._rows)

    def maps(self, values: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        """From a value per patch (rows of patches, columns of patches) to one per cell: the mean,
        and the place of the highest.

        The mean is that of the patches that hold the cell; those below the threshold count only
        where their core holds it. A cell that no patch counts for has the plain mean. Damage no
        wider than the rim is whole in every patch that has some of it in its core, so no patch that
        has seen a part of it alone can outvote those that have seen all.

        Both results are (rows, columns): float32, and int64 places in `values.ravel()`.
        """
        is_sure = values >= threshold
        rim = np.where(is_sure, 0.0, 1.0)
        held = _Boxes(self.down.first, self.down.last, self.across.first, self.across.last)
        core = _Boxes(
            self.down.core_first, self.down.core_last, self.across.core_first, self.across.core_last
        )
        counted = held.sums(1 - rim) + core.sums(rim)
        total = held.sums(np.where(is_sure, values, 0)) + core.sums(np.where(is_sure, 0, values))
        plain = held.sums(values) / held.sums(np.ones_like(rim))
        mean = np.where(counted > 0.5, total / np.maximum(counted, 1), plain)
        return mean.clip(0, 1).astype(np.float32), self._highest(values)

    def damaged(self, values: np.ndarray, mean: np.ndarray, threshold: float) -> np.ndarray:
        """Which cells are damaged, (rows, columns) bool, by the patches' values and the map that
        `maps` made of them.

        Those whose mean reaches the threshold, without areas that no patch needs: where a patch is
        sure because of a better place, what is left of it elsewhere is no damage of its own. A sure
        patch of which nothing is left is damaged all over: the place is known no better.
        """
        is_sure = values >= threshold
        # Where each sure patch has its damage: nearly the highest mean that it holds.
        needed = np.where(is_sure, NEARLY * self._largest_in(mean), np.inf)
        is_place = mean >= needed.ravel()[self._highest(-needed)]
        is_damaged = mean >= threshold
        labels, count = label_components(is_damaged)
        has_place = np.zeros(count + 1, dtype=bool)
        has_place[labels[is_damaged & is_place]] = True
        is_damaged &= has_place[labels]
        return is_damaged | self._lost(is_sure, is_damaged)

    def _largest_in(self, cells: np.ndarray) -> np.ndarray:
        """The highest of the cells (rows, columns) that each patch holds: (rows of patches, columns
        of patches).
        """
        largest = cells
        for direction, axis in enumerate((self.down, self.across)):
            padded = np.pad(
                largest, [(0, int(direction == side)) for side in (0, 1)], constant_values=-np.inf
            )
            # Every second of the ranges that reduceat takes is one of a patch, the others are
            # between two of them.
            ranges = np.stack([axis.begin, axis.end], axis=1).ravel()
            largest = np.maximum.reduceat(padded, ranges, axis=direction).take(
                np.arange(0, len(ranges), 2), axis=direction
            )
        return largest

    def _lost(self, is_sure: np.ndarray, damaged: np.ndarray) -> np.ndarray:
        """The cells (rows, columns) bool of those sure patches (rows of patches, columns of
        patches) that hold no damaged cell.
        """
        columns, rows = self.across, self.down
        sums = np.zeros((damaged.shape[0] + 1, damaged.shape[1] + 1), dtype=np.int64)
        sums[1:, 1:] = damaged.cumsum(0).cumsum(1)
        lower, upper = sums[rows.end], sums[rows.begin]
        inside = (
            lower[:, columns.end]
            - lower[:, columns.begin]
            - upper[:, columns.end]
            + upper[:, columns.begin]
        )
        lost = np.zeros_like(damaged)
        for y, x in np.argwhere(is_sure & (inside == 0)).tolist():
            lost[rows.begin[y] : rows.end[y], columns.begin[x] : columns.end[x]] = True
        return lost

    @property
    def edges(self) -> tuple[np.ndarray, np.ndarray]:
        """The edges of the rows and of the columns of cells, in pixels."""
        return self.down.edges, self.across.edges

    def uniform(
        self, values: np.ndarray, edges: tuple[np.ndarray, np.ndarray], cell: int
    ) -> np.ndarray:
        """A map's values (rows, columns) between these edges in squares of `cell` pixels, each that
        of its centre, 0 where nothing was seen; at the right and bottom what is left.
        """
        padded = np.pad(values, 1)  # what is not seen is 0
        rows = _cells_at(edges[0], self.height, cell)
        columns = _cells_at(edges[1], self.width, cell)
        return padded[np.ix_(rows + 1, columns + 1)]

    def _highest(self, values: np.ndarray) -> np.ndarray:
        # One direction after the other: the best column of each row of patches, then the best row.
        rows = np.arange(len(values))[:, None]
        columns = np.tile(self.across.first, (len(values), 1))
        for right in range(1, int((self.across.last - self.across.first).max())):
            x = np.minimum(self.across.first + right, self.across.last - 1)
            columns = np.where(values[rows, x] > values[rows, columns], x, columns)
        best = values[rows, columns]
        cells = np.arange(best.shape[1])
        chosen = np.tile(self.down.first[:, None], (1, best.shape[1]))
        for down in range(1, int((self.down.last - self.down.first).max())):
            y = np.minimum(self.down.first + down, self.down.last - 1)[:, None]
            chosen = np.where(best[y, cells] > best[chosen, cells], y, chosen)
        return chosen * values.shape[1] + columns[chosen, cells]


@dataclass(frozen=True)
class Axis:
    """One direction of a grid. `edges` (cells + 1,) of the cells in pixels.

    For each cell the first patch that holds it and the first after it that doesn't (`first`,
    `last`), and the same for cores; for each patch its first cell and the first after it (`begin`,
    `end`). All int64.
    """

    edges: np.ndarray
    first: np.ndarray
    last: np.ndarray
    core_first: np.ndarray
    core_last: np.ndarray
    begin: np.ndarray
    end: np.ndarray


@dataclass(frozen=True)
class _Boxes:
    """For each cell the rows and columns of patches that count for it: from `y0` to before `y1`,
    from `x0` to before `x1`.
    """

    y0: np.ndarray
    y1: np.ndarray
    x0: np.ndarray
    x1: np.ndarray

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Of a value per patch, the sum for each cell: (cells down, cells across) float64."""
        sums = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
        sums[1:, 1:] = values.cumsum(0, dtype=np.float64).cumsum(1)
        upper, lower = sums[self.y0], sums[np.maximum(self.y0, self.y1)]
        right = np.maximum(self.x0, self.x1)
        return lower[:, right] - upper[:, right] - lower[:, self.x0] + upper[:, self.x0]


def _starts(length: int, patch: int, stride: int) -> np.ndarray:
    return np.append(np.arange(0, length - patch, stride), max(0, length - patch))


def _count(length: int, patch: int, stride: int) -> int:
    return max(0, -((patch - length) // stride)) + 1


def _cells_at(edges: np.ndarray, length: int, cell: int) -> np.ndarray:
    """The cell between `edges` that the centre of each square of `cell` pixels lies in, int64: -1
    before the first, their number behind the last.
    """
    squares = np.append(np.arange(0, length, cell), length)
    centres = (squares[:-1] + squares[1:]) / 2
    return np.searchsorted(edges, centres, side="right") - 1


def _axis(starts: np.ndarray, patch: int, begin: int, end: int) -> Axis:
    rim = int(RIM * patch)
    ends = starts + patch
    core_starts = np.where(starts == begin, begin, starts + rim)
    core_ends = np.where(ends == end, end, ends - rim)
    edges = np.unique(np.concatenate([starts, ends, core_starts, core_ends]))
    lefts = edges[:-1]
    return Axis(
        edges=edges,
        first=np.searchsorted(ends, lefts, side="right"),
        last=np.searchsorted(starts, lefts, side="right"),
        core_first=np.searchsorted(core_ends, lefts, side="right"),
        core_last=np.searchsorted(core_starts, lefts, side="right"),
        begin=np.searchsorted(edges, starts),
        end=np.searchsorted(edges, ends),
    )
