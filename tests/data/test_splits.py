"""Splits: stratified, grouped, repeatable."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from prunedge.data.splits import assign, portions

SHARES = (0.7, 0.15, 0.15)


def one_hot(labels: np.ndarray) -> np.ndarray:
    """Counts (n, classes) of images of one class each."""
    return np.eye(labels.max() + 1, dtype=np.int64)[labels]


def several(rng: np.random.Generator, images: int, strata: int) -> np.ndarray:
    """Counts (n, strata) of images that show up to three of each of several things, or nothing."""
    is_there = rng.random((images, strata)) < rng.random(strata)
    return is_there * rng.integers(1, 4, (images, strata))


def test_single_images_are_shared_out_exactly() -> None:
    labels = np.repeat([0, 1], [200, 1000])
    sides = assign(one_hot(labels), np.arange(1200), SHARES, seed=3)
    table = [
        [int(((sides == side) & (labels == label)).sum()) for label in (0, 1)] for side in range(3)
    ]
    assert table == [[140, 700], [30, 150], [30, 150]]


def test_the_seed_decides() -> None:
    labels, groups = np.arange(300) % 3, np.arange(300) // 7
    first, again, other = (assign(one_hot(labels), groups, SHARES, seed) for seed in (0, 0, 1))
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
    sides = assign(one_hot(labels), groups, SHARES, seed)
    assert all(len(set(sides[groups == group])) == 1 for group in range(n_groups))
    for label in range(classes):
        having = len(set(groups[labels == label]))
        if having:
            assert len(set(sides[labels == label])) >= min(having, 2), (
                "a class of several groups lies on several sides"
            )


@pytest.mark.parametrize(
    ("largest", "classes", "digest"),
    [
        (1, 3, "3090999674ecfcb4"),
        (9, 4, "c6fa46ef71b6e14f"),
        (40, 2, "494858444798d6ea"),
    ],
)
def test_runs_of_earlier_versions_find_their_splits_again(
    largest: int, classes: int, digest: str
) -> None:
    rng = np.random.default_rng(largest)
    groups = np.repeat(np.arange(120), rng.integers(1, largest + 1, 120))
    labels = rng.integers(0, classes, len(groups))
    sides = assign(one_hot(labels), groups, SHARES, 5)
    assert hashlib.sha256(bytes(sides.tolist())).hexdigest()[:16] == digest


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 60), st.integers(1, 6), st.integers(0, 10_000))
def test_images_of_several_strata_each_get_a_side_and_their_groups_are_not_parted(
    strata: int, n_groups: int, largest: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), rng.integers(1, largest + 1, n_groups))
    counts = several(rng, len(groups), strata)
    sides = assign(counts, groups, SHARES, seed)
    assert sides.shape == groups.shape
    assert set(sides) <= {0, 1, 2}
    assert all(len(set(sides[groups == group])) == 1 for group in range(n_groups))
    assert (sides == assign(counts, groups, SHARES, seed)).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(15, 80), st.integers(1, 4), st.integers(0, 10_000))
def test_a_stratum_of_enough_groups_reaches_every_side(
    strata: int, n_groups: int, largest: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), rng.integers(1, largest + 1, n_groups))
    counts = several(rng, len(groups), strata)
    in_stratum = np.column_stack((counts > 0, ~(counts > 0).any(1)))
    having = [len(set(groups[column])) for column in in_stratum.T]
    # So many that the strata need not share what they lie on a side by.
    assume(all(number == 0 or number >= len(SHARES) * (strata + 1) for number in having))

    sides = assign(counts, groups, SHARES, seed)
    for column in in_stratum.T:
        assert not column.any() or set(sides[column]) == {0, 1, 2}


def test_strata_that_share_images_come_close_to_the_shares() -> None:
    rng = np.random.default_rng(3)
    crack = rng.random(2000) < 0.4
    rust = rng.random(2000) < np.where(crack, 0.5, 0.03)
    sides = assign(np.column_stack((crack, rust)).astype(int), np.arange(2000), SHARES, 0)
    for stratum in (crack, rust, ~(crack | rust)):
        shares = np.bincount(sides[stratum], minlength=3) / stratum.sum()
        assert shares == pytest.approx(SHARES, abs=0.02)


def test_images_of_no_stratum_are_shared_out_as_well() -> None:
    sides = assign(np.zeros((100, 2), int), np.repeat(np.arange(50), 2), SHARES, 0)
    assert np.bincount(sides).tolist() == [70, 16, 14]


def test_groups_come_close_to_the_shares() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(100), rng.integers(10, 200, 100))
    labels = (rng.random(len(groups)) < rng.random(100)[groups]).astype(int)
    sides = assign(one_hot(labels), groups, SHARES, 0)
    for label in (0, 1):
        found = np.bincount(sides[labels == label], minlength=3) / (labels == label).sum()
        assert found == pytest.approx(SHARES, abs=0.01)


def test_a_rare_class_reaches_every_side() -> None:
    labels = np.r_[np.zeros(500, int), np.ones(12, int)]
    groups = np.r_[
        np.arange(500), np.repeat([500, 501, 502], 4)
    ]  # twelve images of three photographs
    sides = assign(one_hot(labels), groups, SHARES, 0)
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
