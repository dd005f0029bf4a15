"""Which regions are one place, and from when on a difference is growth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunedge.edge.inspect.compare.changes import compare_maps, groups_of, touching
from prunedge.edge.inspect.compare.damage_maps import DamageMap
from prunedge.edge.inspect.compare.extents import Extent, extent_of, growth_of
from prunedge.edge.inspect.compare.registration import Registration, same_file

CRACK = Extent((0, 0, 100, 4), 400.0, 100.0, 100.0, 4.0, 5.0)


@pytest.mark.parametrize(
    ("after", "kind"),
    [
        (CRACK, "unchanged"),
        (replace(CRACK, length=103.9), "unchanged"),  # 1 pixel at each end, and 2 %
        (replace(CRACK, length=104.2), "grown"),
        (replace(CRACK, length=95.9), "smaller"),
        (replace(CRACK, mean_width=4.9), "unchanged"),
        (replace(CRACK, mean_width=5.1), "grown"),
        (replace(CRACK, area=500.0), "unchanged"),
        (replace(CRACK, area=510.0), "grown"),
        (replace(CRACK, length=110.0, mean_width=2.0), "grown"),
    ],
)
def test_growth_is_more_than_the_uncertainty(after: Extent, kind: str) -> None:
    assert growth_of(CRACK, after, 1.0) == kind


@given(st.floats(0, 5), st.floats(1, 200), st.floats(0.5, 20), st.floats(1, 200))
def test_what_grew_one_way_did_not_grow_the_other_way(
    doubt: float, length: float, width: float, other: float
) -> None:
    before = Extent((0, 0, 9, 9), length * width, length, length, width, width)
    after = Extent((0, 0, 9, 9), other * width, other, other, width, width)
    there, back = growth_of(before, after, doubt), growth_of(after, before, doubt)
    assert {there, back} in ({"grown", "smaller"}, {"unchanged"})


pairs = st.sets(st.tuples(st.integers(1, 6), st.integers(1, 6)), max_size=12)


@given(pairs)
def test_every_region_is_in_one_place_and_touching_ones_in_the_same(
    given_pairs: set[tuple[int, int]],
) -> None:
    groups = groups_of(given_pairs, range(1, 7), range(1, 7))
    for side in (0, 1):
        members = [number for group in groups for number in group[side]]
        assert sorted(members) == list(range(1, 7))
    for old, new in given_pairs:
        assert any(old in group[0] and new in group[1] for group in groups)


def map_of(labels: np.ndarray, cell: int = 1) -> DamageMap:
    return DamageMap((labels > 0).astype(np.float32), labels.astype(np.int32), cell, 0.5)


@given(st.integers(0, 4), st.integers(0, 8))
@settings(max_examples=30)
def test_regions_touch_within_their_reach(reach: int, gap: int) -> None:
    old, new = np.zeros((9, 40), np.int32), np.zeros((9, 40), np.int32)
    old[3:6, 5:10] = 1
    new[3:6, 10 + gap : 15 + gap] = 2
    assert touching(old, new, reach) == ({(1, 2)} if gap < reach else set())


def test_a_crack_that_was_seen_in_two_pieces_is_one_place() -> None:
    old, new = np.zeros((40, 80), np.int32), np.zeros((40, 80), np.int32)
    old[20, 10:30] = 1
    old[20, 40:60] = 2
    new[20, 10:60] = 1
    changes, _ = compare_maps(map_of(old), map_of(new), same_file((80, 40)), 0, is_measured=False)
    (change,) = changes
    assert (change.old, change.new, change.kind) == ((1, 2), (1,), "unchanged")
    assert change.before is not None
    assert (change.before.area, change.before.longest) == (40, 50)


def far(points: np.ndarray, matrix: np.ndarray) -> Registration:
    return Registration(matrix, points, np.full(len(points), 0.5), 1.0, 100.0)


def test_what_no_matched_point_is_near_to_can_t_be_told() -> None:
    labels = np.zeros((60, 80), np.int32)
    labels[5:8, 5:20] = 1
    labels[50:53, 60:75] = 2
    points = np.array([(8.0, 8.0)] * 6)
    registration = far(points, np.eye(3))
    nothing = np.zeros_like(labels)
    changes, _ = compare_maps(map_of(labels), map_of(nothing), registration, 0, is_measured=False)
    assert {change.old: change.kind for change in changes} == {(1,): "gone", (2,): "unclear"}
    gone = next(change for change in changes if change.kind == "gone")
    assert gone.uncertainty == pytest.approx(0.5 + 0.5)


def test_what_the_other_photograph_doesn_t_show_is_neither_new_nor_gone() -> None:
    old, new = np.zeros((60, 80), np.int32), np.zeros((60, 80), np.int32)
    old[10:13, 5:20] = 1  # left of what the new one shows
    old[30:33, 20:60] = 2  # reaches into it
    new[30:33, 0:20] = 1
    new[50:53, 60:75] = 2  # right of the old one
    shift = np.array([[1.0, 0, 40], [0, 1, 0], [0, 0, 1]])
    points = np.array([(x, y) for x in (45.0, 75.0) for y in (20.0, 30.0, 40.0)])
    changes, _ = compare_maps(map_of(old), map_of(new), far(points, shift), 0, is_measured=False)
    kinds = {(change.old, change.new): (change.kind, change.is_cut) for change in changes}
    assert kinds == {
        ((2,), (1,)): ("unchanged", True),
        ((1,), ()): ("outside", False),
        ((), (2,)): ("outside", False),
    }


def test_an_extent_is_measured_along_the_line() -> None:
    labels = np.zeros((40, 120), np.int32)
    labels[18:22, 10:110] = 1
    extent = extent_of(map_of(labels), [1], is_measured=True)
    assert extent is not None
    assert extent.length == pytest.approx(100, abs=2)
    assert extent.mean_width == pytest.approx(4, abs=0.5)
    assert extent_of(map_of(labels), [2], is_measured=True) is None
