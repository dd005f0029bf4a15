"""The mathematics: patches cover the photograph, cells get their patches' mean, connected cells become regions."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from prunedge.edge.inspect.grid import Grid
from prunedge.edge.inspect.regions import find_regions, label_components

grids = st.builds(
    lambda width, height, patch, share: Grid(width, height, patch, max(1, round(patch * share))),
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 30), st.floats(0.05, 1),
)  # fmt: skip


@given(grids)
def test_patches_cover_the_photograph_and_never_leave_it(grid: Grid) -> None:
    seen = np.zeros((grid.height, grid.width), dtype=int)
    boxes = list(grid.boxes())
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= grid.width and 0 <= top < bottom <= grid.height
        assert right - left == min(grid.patch, grid.width) and bottom - top == min(grid.patch, grid.height)
        seen[top:bottom, left:right] += 1
    assert seen.min() >= 1 and len(boxes) == len(set(boxes)) == grid.patches


@settings(max_examples=40)
@given(grids, st.integers(0, 2**32 - 1))
def test_a_cell_is_the_mean_of_the_patches_that_hold_its_centre(grid: Grid, seed: int) -> None:
    values = np.random.default_rng(seed).random((len(grid.ys), len(grid.xs))).astype(np.float32)
    mean, places = grid.maps(values)
    columns, rows = grid.cells()
    assert mean.shape == (len(rows) - 1, len(columns) - 1) and rows[-1] == grid.height and columns[-1] == grid.width
    boxes = list(grid.boxes())
    for row in range(mean.shape[0]):
        for column in range(mean.shape[1]):
            x, y = (columns[column] + columns[column + 1]) / 2, (rows[row] + rows[row + 1]) / 2
            held = [i for i, (left, top, right, bottom) in enumerate(boxes) if left <= x < right and top <= y < bottom]
            assert abs(mean[row, column] - values.ravel()[held].mean()) < 1e-5
            assert values.ravel()[places[row, column]] == values.ravel()[held].max() and places[row, column] in held


@given(st.one_of(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))), arrays(bool, (40, 40), fill=st.booleans())))
def test_components_are_those_of_scipy(mask: np.ndarray) -> None:
    labels, count = label_components(mask)
    wanted, number = ndimage.label(mask, structure=np.ones((3, 3)))
    assert count == number and ((labels > 0) == mask).all()
    assert len(set(zip(labels[mask].tolist(), wanted[mask].tolist(), strict=True))) == number


def test_a_long_snake_is_one_component() -> None:
    mask = np.zeros((201, 200), dtype=bool)
    mask[::2] = True
    mask[1::4, -1] = mask[3::4, 0] = True
    assert label_components(mask)[1] == 1 == ndimage.label(mask, structure=np.ones((3, 3)))[1]
    assert label_components(np.ones((1000, 1000), dtype=bool))[1] == 1


@given(arrays(np.float32, (7, 9), elements=st.floats(0, 1, width=32)), st.floats(0.05, 1))
def test_regions_are_what_the_cells_say(mean: np.ndarray, threshold: float) -> None:
    columns, rows = np.append(np.arange(0, 45, 5), 43), np.append(np.arange(0, 35, 5), 33)
    peak, names = np.minimum(1, mean * 1.5), np.where(mean > 0.7, "a", "b")
    damaged = mean >= threshold
    found = find_regions(mean, peak, names, columns, rows, damaged)
    labels, count = ndimage.label(damaged, structure=np.ones((3, 3)))
    assert len(found) == count and [r.weight for r in found] == sorted((r.weight for r in found), reverse=True)
    areas = np.outer(np.diff(rows), np.diff(columns))
    wanted = []
    for number, (ys, xs) in enumerate(ndimage.find_objects(labels), 1):
        at = labels == number
        surest = np.argmax(np.where(at, peak, -1))
        box = (columns[xs.start], rows[ys.start], columns[xs.stop], rows[ys.stop])
        wanted.append((*map(int, box), names.flat[surest], int(areas[at].sum()), round(float(peak[at].max()), 5)))
    assert sorted(wanted) == sorted((r.left, r.top, r.right, r.bottom, r.label, r.area, round(r.probability, 5)) for r in found)
