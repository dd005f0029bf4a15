"""The pixels of a polygon.

A pixel belongs to it where its centre lies inside or on the outline; centres are at whole numbers,
as in the outlines that OpenCV and scikit-image find in masks, which so give back the masks that
they were found in. Where a row or a column runs through a part that is thinner than a pixel, the
nearest pixel belongs to it: a thin crack is not lost. What an outline encloses an even number of
times lies outside (the even-odd rule, OpenCV's and Pillow's), so an outline that goes in, around a
hole and back out again leaves the hole out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GRAIN = 32  # parts of a pixel: coordinates in shares or per cent come back to what they were
FAR = 1  # of the image's own side, beyond which a point is no slip of the hand
MOST_CROSSINGS = 10_000_000  # of an outline with the rows of an image
BAND = 4_000_000  # pixels that are filled at once, four bytes each


@dataclass(frozen=True)
class Area:
    """Which pixels (rows, columns) bool belong to a shape, from row `top` and column `left` on.

    `is_cut`: some of the shape lies outside of the image. `disputed` are the pixels that an outline
    encloses twice in one direction, so that others fill them.
    """

    left: int
    top: int
    is_inside: np.ndarray
    is_cut: bool = False
    disputed: int = 0


@dataclass(frozen=True)
class _Crossings:
    """Where an outline crosses the lines of one axis, (n,) each, in pairs: line after line, from
    low to high along the line. `turns` is +1 or -1, the direction in which it does.
    """

    lines: np.ndarray
    at: np.ndarray
    turns: np.ndarray


def fill_polygon(points: np.ndarray, width: int, height: int) -> Area:
    """The pixels of a polygon (n, 2) x and y in an image of this size.

    Raises ValueError where it has fewer than three points, points that are no numbers or far
    outside, and where all of it lies outside.
    """
    refuse_wrong(points, width, height)
    points = np.round(points * GRAIN) / GRAIN
    least = points.min(0)
    most = points.max(0)
    # Whoever counts from the corner of the first pixel ends at the last one's other side.
    if (most < -1).any() or (least > (width, height)).any():
        raise ValueError("a polygon outside of the image")
    is_cut = bool((least < -1).any() or (most > (width, height)).any())
    left, top = (max(0, int(np.floor(value))) for value in least.tolist())
    right = min(width, int(np.ceil(most[0])) + 1)
    bottom = min(height, int(np.ceil(most[1])) + 1)
    shape = (max(bottom - top, 0), max(right - left, 0))

    moved = points - (left, top)
    rows = _crossings(moved, shape[0])
    lines, first, last = _row_runs(rows, moved)
    columns = _crossings(moved[:, ::-1], shape[1])
    thin_columns, thin_rows = _thin(columns)
    lines = np.concatenate([lines, thin_rows])
    first = np.concatenate([first, thin_columns])
    last = np.concatenate([last, thin_columns])
    return Area(left, top, _painted(lines, first, last, shape), is_cut, _disputed(rows, shape[1]))


def refuse_wrong(points: np.ndarray, width: int, height: int) -> None:
    """ValueError for points that are no polygon of an image of this size."""
    if len(points) < 3:
        raise ValueError(f"a polygon of {len(points)} points")
    if not np.isfinite(points).all():
        raise ValueError("a polygon with points that are no numbers")
    side = np.array([width, height])
    far = (points < -FAR * side) | (points > (1 + FAR) * side)
    if far.any():
        x, y = points[far.any(1)][0].tolist()
        raise ValueError(f"a polygon with a point at {x:g}, {y:g}, far outside of the image")


def _crossings(points: np.ndarray, count: int) -> _Crossings:
    """Where an outline crosses the lines y = 0, 1 ... up to `count`. An edge has its lower end and
    not its upper one, so that each line is crossed an even number of times.
    """
    ends = np.roll(points, -1, 0)
    low = np.minimum(points[:, 1], ends[:, 1])
    high = np.maximum(points[:, 1], ends[:, 1])
    first = np.maximum(np.ceil(low), 0).astype(np.int64)
    beyond = np.minimum(np.ceil(high), count).astype(np.int64)
    times = np.maximum(beyond - first, 0)
    total = int(times.sum())
    if total > MOST_CROSSINGS:
        raise ValueError(f"an outline that crosses the image {total:,} times")

    edges = np.repeat(np.arange(len(points)), times)
    before = np.repeat(times.cumsum() - times, times)
    lines = first[edges] + np.arange(total) - before
    start = points[edges]
    way = ends[edges] - start
    at = start[:, 0] + (lines - start[:, 1]) * way[:, 0] / way[:, 1]
    order = np.lexsort((at, lines))
    turns = np.sign(way[:, 1]).astype(np.int64)
    return _Crossings(lines[order], at[order], turns[order])


def _row_runs(rows: _Crossings, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of pixels as row, first and last column, (n,) int64 each: what lies between crossings,
    and the corners and edges on the line itself, of which crossings lack the upper ones.
    """
    thin_rows, thin = _thin(rows)
    ends = np.roll(points, -1, 0)
    is_flat = (points[:, 1] == ends[:, 1]) & (points[:, 1] % 1 == 0)
    is_corner = (points % 1 == 0).all(1)
    flat = points[is_flat]
    corners = points[is_corner].astype(np.int64)
    along = np.stack([flat[:, 0], ends[is_flat][:, 0]], 1)
    lines = [rows.lines[::2], thin_rows, flat[:, 1].astype(np.int64), corners[:, 1]]
    first = [_up(rows.at[::2]), thin, _up(along.min(1)), corners[:, 0]]
    last = [_down(rows.at[1::2]), thin, _down(along.max(1)), corners[:, 0]]
    return np.concatenate(lines), np.concatenate(first), np.concatenate(last)


def _thin(crossings: _Crossings) -> tuple[np.ndarray, np.ndarray]:
    """The lines that run through a part between two pixels' centres, and the nearer of these, (n,)
    int64 each.
    """
    low = crossings.at[::2]
    high = crossings.at[1::2]
    is_thin = _up(low) > _down(high)
    middle = np.floor((low[is_thin] + high[is_thin]) / 2 + 0.5)
    return crossings.lines[::2][is_thin], middle.astype(np.int64)


def _disputed(rows: _Crossings, width: int) -> int:
    """How many pixels lie between two runs of a row and are enclosed nevertheless."""
    winding = rows.turns.cumsum()[1::2]
    if not winding.any():
        return 0
    first = np.clip(_down(rows.at[1::2]) + 1, 0, width)
    beyond = np.clip(_up(np.append(rows.at[2::2], 0)), 0, width)
    return int(np.maximum(beyond - first, 0)[winding != 0].sum())


def _painted(
    lines: np.ndarray, first: np.ndarray, last: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Runs of pixels in an array of this shape, what lies outside cut off."""
    height, width = shape
    is_inside = np.zeros(shape, bool)
    is_there = (lines >= 0) & (lines < height) & (last >= first) & (last >= 0) & (first < width)
    order = np.argsort(lines[is_there], kind="stable")
    lines = lines[is_there][order]
    first = np.maximum(first[is_there][order], 0)
    beyond = np.minimum(last[is_there][order], width - 1) + 1
    step = max(1, BAND // max(width, 1))
    for top in range(0, height, step):
        rows = min(step, height - top)
        start, end = np.searchsorted(lines, (top, top + rows))
        row = (lines[start:end] - top) * (width + 1)
        size = rows * (width + 1)
        begun = np.bincount(row + first[start:end], minlength=size)
        ended = np.bincount(row + beyond[start:end], minlength=size)
        change = (begun - ended).astype(np.int32).reshape(rows, width + 1)
        is_inside[top : top + rows] = change.cumsum(1, dtype=np.int32)[:, :width] > 0
    return is_inside


def _up(values: np.ndarray) -> np.ndarray:
    return np.ceil(values).astype(np.int64)


def _down(values: np.ndarray) -> np.ndarray:
    return np.floor(values).astype(np.int64)
