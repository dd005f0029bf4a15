"""Splits: stratified, grouped, repeatable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from prunedge.data.splits import assign, portions

SHARES = (0.7, 0.15, 0.15)


def test_single_images_are_shared_out_exactly() -> None:
    labels = np.repeat([0, 1], [200, 1000])
    sides = assign(labels, np.arange(1200), SHARES, seed=3)
    table = [
        [int(((sides == side) & (labels == label)).sum()) for label in (0, 1)] for side in range(3)
    ]
    assert table == [[140, 700], [30, 150], [30, 150]]


def test_the_seed_decides() -> None:
    labels, groups = np.arange(300) % 3, np.arange(300) // 7
    first, again, other = (assign(labels, groups, SHARES, seed) for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 5), st.integers(5, 60), st.integers(0, 10_000))
@example(5, 5, 1182)
@example(5, 5, 36)
@example(5, 6, 32)
def test_a_group_is_never_parted_and_no_class_is_lost(
    classes: int, n_groups: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), rng.integers(1, 12, n_groups))
    labels = rng.integers(0, classes, len(groups))
    sides = assign(labels, groups, SHARES, seed)
    assert all(len(set(sides[groups == group])) == 1 for group in range(n_groups))
    for label in range(classes):
        having = len(set(groups[labels == label]))
        if having:
            assert len(set(sides[labels == label])) >= min(having, 2), (
                "a class of several groups lies on several sides"
            )


def test_groups_come_close_to_the_shares() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(100), rng.integers(10, 200, 100))
    labels = (rng.random(len(groups)) < rng.random(100)[groups]).astype(int)
    sides = assign(labels, groups, SHARES, 0)
    for label in (0, 1):
        found = np.bincount(sides[labels == label], minlength=3) / (labels == label).sum()
        assert found == pytest.approx(SHARES, abs=0.01)


def test_a_rare_class_reaches_every_side() -> None:
    labels = np.r_[np.zeros(500, int), np.ones(12, int)]
    groups = np.r_[
        np.arange(500), np.repeat([500, 501, 502], 4)
    ]  # twelve images of three photographs
    sides = assign(labels, groups, SHARES, 0)
    assert set(sides[labels == 1]) == {0, 1, 2}


@pytest.mark.parametrize(
    ("wanted", "total", "most", "least", "parts"),
    [
        ([1.5, 1.5], 3, [9, 9], 0, [2, 1]),
        ([0.2, 9.8], 10, [1, 20], 1, [1, 9]),
        ([5.0, 5.0], 10, [2, 20], 0, [2, 8]),
        ([0.4, 0.3, 0.3], 1, [5, 5, 5], 0, [1, 0, 0]),
    ],
)
def test_portions(
    wanted: list[float], total: int, most: list[int], least: int, parts: list[int]
) -> None:
    assert portions(np.array(wanted), total, np.array(most), least).tolist() == parts
