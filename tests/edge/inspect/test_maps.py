"""The mathematics: patches cover the photograph, cells get the mean of what has a say, connected cells become regions."""

from __future__ import annotations

import tracemalloc
from time import perf_counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from prunedge.edge.inspect.grid import Grid
from prunedge.edge.inspect.regions import find_regions, label_components
from prunedge.edge.tasks.base import Findings


def _grid(size: tuple[int, int], patch: tuple[int, int], overlap: float) -> Grid:
    across, down = (max(1, round(side * (1 - overlap))) for side in patch)
    return Grid(*size, patch, (across, down))


grids = st.builds(
    _grid,
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
    st.floats(0, 0.95),
)


@given(grids)
def test_patches_cover_the_photograph_and_never_leave_it(grid: Grid) -> None:
    seen = np.zeros((grid.height, grid.width), dtype=int)
    boxes = list(grid.boxes())
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= grid.width
        assert 0 <= top < bottom <= grid.height
        assert right - left == min(grid.patch[0], grid.width)
        assert bottom - top == min(grid.patch[1], grid.height)
        seen[top:bottom, left:right] += 1
    assert seen.min() >= 1
    assert len(boxes) == len(set(boxes)) == grid.patches


def _core(box: tuple[int, int, int, int], grid: Grid) -> tuple[int, int, int, int]:
    """A patch less a quarter of its side, where it doesn't end with the photograph."""
    left, top, right, bottom = box
    across, down = (right - left) // 4, (bottom - top) // 4
    return (
        left + (across if left else 0),
        top + (down if top else 0),
        right - (across if right < grid.width else 0),
        bottom - (down if bottom < grid.height else 0),
    )


@settings(max_examples=40, deadline=None)
@given(grids, st.integers(0, 2**32 - 1), st.floats(0.1, 0.9))
def test_a_cell_is_the_mean_of_the_patches_that_have_a_say(
    grid: Grid, seed: int, threshold: float
) -> None:
    values = np.random.default_rng(seed).random((len(grid.ys), len(grid.xs))).astype(np.float32)
    mean, places = grid.maps(values, threshold)
    columns, rows = grid.across.edges, grid.down.edges
    assert mean.shape == (len(rows) - 1, len(columns) - 1)
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (0, grid.height, 0, grid.width)
    boxes, flat = list(grid.boxes()), values.ravel()
    for row in range(mean.shape[0]):
        for column in range(mean.shape[1]):
            x, y = (columns[column] + columns[column + 1]) / 2, (rows[row] + rows[row + 1]) / 2

            def holds(box: tuple[int, int, int, int], x: float = x, y: float = y) -> bool:
                return box[0] <= x < box[2] and box[1] <= y < box[3]

            held = [i for i, box in enumerate(boxes) if holds(box)]
            said = [i for i in held if flat[i] >= threshold or holds(_core(boxes[i], grid))]
            assert abs(mean[row, column] - flat[said or held].mean()) < 1e-5
            assert flat[places[row, column]] == flat[held].max()
            assert places[row, column] in held


@settings(max_examples=300, deadline=None)
@given(
    size=st.tuples(st.integers(8, 130), st.integers(8, 130)),
    patch=st.tuples(st.integers(8, 70), st.integers(8, 70)),
    overlap=st.floats(0, 0.9),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    side=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    sees=st.sampled_from(["any of it", "all of it"]),
)
def test_damage_that_a_patch_is_sure_of_is_found_in_its_place(
    size, patch, overlap, place, side, sees
) -> None:  # type: ignore[no-untyped-def]
    """A model that is sure exactly where it sees the damage (any pixel of it, or all): no overlap, place or border loses it."""
    grid = _grid(size, patch, overlap)
    wide, high = min(side[0], size[0]), min(side[1], size[1])
    left, top = round(place[0] * (size[0] - wide)), round(place[1] * (size[1] - high))
    right, bottom = left + wide, top + high
    boxes = list(grid.boxes())
    if sees == "any of it":
        is_sure = [
            box[0] < right and left < box[2] and box[1] < bottom and top < box[3] for box in boxes
        ]
    else:
        is_sure = [
            box[0] <= left and right <= box[2] and box[1] <= top and bottom <= box[3]
            for box in boxes
        ]
    by_place = (
        np.where(is_sure, 0.999, 0.001).astype(np.float32).reshape(len(grid.ys), len(grid.xs))
    )
    mean, surest = grid.maps(by_place, 0.5)
    damaged = grid.damaged(by_place, mean, 0.5)
    labels = np.zeros(mean.shape, np.uint8)
    found = Findings(
        mean, by_place.ravel()[surest], labels, ("crack",), damaged, surest=1.0, tiles=1
    )
    regions = find_regions(found, grid.across.edges, grid.down.edges)
    if not any(is_sure):
        assert not regions  # damage that lies on the edge of every patch
        return
    is_small = wide <= min(patch[0], size[0]) // 4 and high <= min(patch[1], size[1]) // 4
    covers = [
        one
        for one in regions
        if one.left <= left and right <= one.right and one.top <= top and bottom <= one.bottom
    ]
    near = [
        one
        for one in regions
        if one.left < right and left < one.right and one.top < bottom and top < one.bottom
    ]
    assert near, "no region touches the damage"
    if sees == "any of it" or is_small:
        assert len(regions) == 1
        assert covers
    for region in regions:  # nothing is damaged that no sure patch has seen
        seen = [box for box, sure in zip(boxes, is_sure, strict=True) if sure]
        assert min(box[0] for box in seen) <= region.left
        assert region.right <= max(box[2] for box in seen)
        assert min(box[1] for box in seen) <= region.top
        assert region.bottom <= max(box[3] for box in seen)
        assert region.probability == np.float32(0.999)


@settings(max_examples=200, deadline=None)
@given(
    size=st.tuples(st.integers(20, 130), st.integers(20, 130)),
    patch=st.integers(16, 60),
    side=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    share=st.floats(0.01, 1),
)
def test_damage_no_larger_than_what_patches_share_lies_whole_in_a_region(
    size, patch, side, place, share
) -> None:  # type: ignore[no-untyped-def]
    """Whatever part of it a patch must show for the model to be sure; a quarter of a patch at most, as `looked` has it."""
    wide, high = (min(one, patch // 4, all_) for one, all_ in zip(side, size, strict=True))
    grid = Grid(*size, (patch, patch), (patch - wide, patch - high))
    left, top = round(place[0] * (size[0] - wide)), round(place[1] * (size[1] - high))
    right, bottom = left + wide, top + high
    seen = [
        max(0, min(box[2], right) - max(box[0], left))
        * max(0, min(box[3], bottom) - max(box[1], top))
        / (wide * high)
        for box in grid.boxes()
    ]
    by_place = (
        np.where(np.array(seen) >= share, 0.99, 0.01)
        .astype(np.float32)
        .reshape(len(grid.ys), len(grid.xs))
    )
    mean, surest = grid.maps(by_place, 0.5)
    labels = np.zeros(mean.shape, np.uint8)
    damaged = grid.damaged(by_place, mean, 0.5)
    found = Findings(
        mean, by_place.ravel()[surest], labels, ("crack",), damaged, surest=1.0, tiles=1
    )
    regions = find_regions(found, grid.across.edges, grid.down.edges)
    assert any(
        one.left <= left and right <= one.right and one.top <= top and bottom <= one.bottom
        for one in regions
    )


@given(grids, st.integers(1, 9))
def test_a_map_in_squares_has_the_value_of_each_square_s_centre(grid: Grid, cell: int) -> None:
    values = np.random.default_rng(0).random((len(grid.down.edges) - 1, len(grid.across.edges) - 1))
    found = grid.uniform(values, grid.edges, cell)
    assert found.shape == (-(-grid.height // cell), -(-grid.width // cell))
    y, x = (found.shape[0] - 1) * cell, (found.shape[1] - 1) * cell
    centre = ((y + grid.height) / 2, (x + grid.width) / 2)
    row = np.flatnonzero(grid.down.edges <= centre[0])[-1]
    column = np.flatnonzero(grid.across.edges <= centre[1])[-1]
    assert found[-1, -1] == values[row, column]


@given(
    st.one_of(
        arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))),
        arrays(bool, (40, 40), fill=st.booleans()),
    )
)
def test_components_are_those_of_scipy(mask: np.ndarray) -> None:
    labels, count = label_components(mask)
    wanted, number = ndimage.label(mask, structure=np.ones((3, 3)))
    assert count == number
    assert ((labels > 0) == mask).all()
    assert len(set(zip(labels[mask].tolist(), wanted[mask].tolist(), strict=True))) == number


def test_a_photograph_that_is_damaged_all_over_takes_little_memory_and_time() -> None:
    """Two megapixels, of which every place is damaged, and half of them in a pattern of its own."""
    for step in (1, 2):
        mean = np.full((1250, 1600), 0.9, np.float32)
        mean[1::2, ::step] = 0.1 if step > 1 else 0.9
        labels = np.zeros(mean.shape, np.uint8)
        findings = Findings(mean, mean, labels, ("crack",), mean >= 0.5, surest=0.9, tiles=1)
        rows, columns = (np.arange(side + 1) for side in mean.shape)
        tracemalloc.start()
        started = perf_counter()
        regions = find_regions(findings, columns, rows)
        seconds = perf_counter() - started
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(regions) == 1
        assert regions[0].area == int(findings.is_damaged.sum())
        assert regions[0].mean_probability == pytest.approx(0.9)
        assert highest < 150e6
        assert seconds < 5


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
    numbers = (mean <= 0.7).astype(np.uint8)
    findings = Findings(mean, peak, numbers, ("a", "b"), damaged, surest=1.0, tiles=1)
    found = find_regions(findings, columns, rows)
    labels, count = ndimage.label(damaged, structure=np.ones((3, 3)))
    assert len(found) == count
    assert [r.weight for r in found] == sorted((r.weight for r in found), reverse=True)
    areas = np.outer(np.diff(rows), np.diff(columns))
    wanted = []
    for number, (ys, xs) in enumerate(ndimage.find_objects(labels), 1):
        at = labels == number
        surest = np.argmax(np.where(at, peak, -1))
        box = (columns[xs.start], rows[ys.start], columns[xs.stop], rows[ys.stop])
        wanted.append(
            (
                *map(int, box),
                names.flat[surest],
                int(areas[at].sum()),
                round(float(peak[at].max()), 5),
            )
        )
    assert sorted(wanted) == sorted(
        (r.left, r.top, r.right, r.bottom, r.label, r.area, round(r.probability, 5)) for r in found
    )
