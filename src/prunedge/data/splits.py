"""Which images train, validate and test: stratified by class, never a source on two sides. Pure:
labels and sources in, sides out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Tries cost about 20 microseconds a group each; this bounds a split to a second or so.
_GROUPS_IN_ALL_TRIES = 40_000
_MOST_TRIES = 32


def assign(
    labels: np.ndarray, groups: np.ndarray, shares: Sequence[float], seed: int
) -> np.ndarray:
    """The side of each image, (n,) int64 in 0 .. len(shares) - 1, for labels (n,) and group ids
    (n,) of integers.

    A group lies wholly on one side. Each class is shared out as closely to `shares` (which sum to
    1) as the groups allow: exactly, to the image, where every group is a single image. A class
    reaches every side if it has at least that many groups.

    It is the greedy rule of scikit-learn's StratifiedGroupKFold (largest group first, to the side
    where it helps most), for shares that needn't be equal, repeated from several shuffles of which
    the closest is kept. The same arguments give the same sides.
    """
    ids = np.unique(groups, return_inverse=True)[1].reshape(-1)
    counts = np.zeros(
        (ids.max(initial=-1) + 1, labels.max(initial=0) + 1), np.int64
    )  # (groups, classes)
    np.add.at(counts, (ids, labels), 1)
    counts = counts[:, counts.sum(0) > 0]
    wanted = np.outer(shares, counts.sum(0))  # (sides, classes): images that each side should get
    large = int((counts.sum(1) > 1).sum())
    tries = int(np.clip(_GROUPS_IN_ALL_TRIES // max(large, 1), 1, _MOST_TRIES)) if large else 1
    candidates = [
        _share_out(counts, wanted, np.random.default_rng([seed, number])) for number in range(tries)
    ]
    closest = min(candidates, key=lambda sides: _distance(sides, counts, wanted))
    return _parted(closest, counts, wanted)[ids]


def portions(wanted: np.ndarray, total: int, most: np.ndarray, least: int = 0) -> np.ndarray:
    """Whole numbers (k,) near `wanted` that sum to `total`, each between `least` and `most` (which
    wins where it is smaller).

    Largest remainders get what rounding down leaves over. `total` must lie between the sums of the
    bounds.
    """
    low = np.minimum(most, least)
    parts = np.clip(np.floor(wanted).astype(np.int64), low, most)
    while (short := total - int(parts.sum())) != 0:
        step = 1 if short > 0 else -1
        movable = parts < most if short > 0 else parts > low
        parts[np.argmax(np.where(movable, (wanted - parts) * step, -np.inf))] += step
    return parts


def _share_out(counts: np.ndarray, wanted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One try: the side of each group."""
    sides = np.full(len(counts), -1)
    weight = 1 / np.maximum(counts.sum(0), 1) ** 2  # a rare class counts as much as a common one
    have = np.zeros_like(wanted)
    images = counts.sum(1)
    order = rng.permutation(np.flatnonzero(images > 1))
    for group in order[np.argsort(-images[order], kind="stable")]:
        gap = have - wanted
        cost = (((gap + counts[group]) ** 2 - gap**2) * weight).sum(1)
        sides[group] = np.argmin(cost)
        have[sides[group]] += counts[group]
    for label in range(counts.shape[1]):
        single = rng.permutation(np.flatnonzero((images == 1) & (counts[:, label] == 1)))
        rest = np.maximum(wanted[:, label] - have[:, label], 0)
        rest *= len(single) / max(rest.sum(), 1e-12)
        parts = portions(rest, len(single), np.full(len(wanted), len(single)))
        sides[single] = np.repeat(np.arange(len(wanted)), parts)
    return _repair(sides, counts, len(wanted))


def _repair(sides: np.ndarray, counts: np.ndarray, n_sides: int) -> np.ndarray:
    """Move the smallest possible group to each side that lacks a class which another side can
    spare.
    """
    for label in range(counts.shape[1]):
        having = np.flatnonzero(counts[:, label])
        for side in range(n_sides):
            per_side = np.bincount(sides[having], minlength=n_sides)
            if per_side[side] or per_side.max() < 2:
                continue
            sides[_spared(sides, counts, having, per_side)] = side
    return sides


def _spared(sides: np.ndarray, counts: np.ndarray, having: np.ndarray, per_side: np.ndarray) -> int:
    """Of the groups `having` a class the one to move: small, of a side with many, and the last
    there of no other class if possible.
    """
    first = None
    for giver in np.argsort(-per_side, kind="stable"):
        if per_side[giver] < 2:
            break
        there = having[sides[having] == giver]
        there = there[np.argsort(counts[there].sum(1), kind="stable")]
        first = there[0] if first is None else first
        holders = (counts[sides == giver] > 0).sum(0)
        for group in there:
            if (holders[counts[group] > 0] > 1).all():
                return int(group)
    assert first is not None
    return int(first)


def _parted(sides: np.ndarray, counts: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Part classes whose groups still lie together, by the moves of one group that bring the sides
    closest, as long as one does.
    """
    while (together := _together(_have(sides, counts, len(wanted)), counts)).any():
        tries = []
        for group in np.flatnonzero(counts[:, together].any(1)):
            for side in range(len(wanted)):
                moved = sides.copy()
                moved[group] = side
                tries.append(moved)
        closest = min(tries, key=lambda moved: _distance(moved, counts, wanted))
        if _distance(closest, counts, wanted) >= _distance(sides, counts, wanted):
            break
        sides = closest
    return sides


def _have(sides: np.ndarray, counts: np.ndarray, n_sides: int) -> np.ndarray:
    """(sides, classes): images that each side has."""
    have = np.zeros((n_sides, counts.shape[1]), np.int64)
    np.add.at(have, sides, counts)
    return have


def _together(have: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(classes,) bool: several groups have the class, and all of them lie on one side."""
    return ((have > 0).sum(0) == 1) & ((counts > 0).sum(0) > 1)


def _distance(sides: np.ndarray, counts: np.ndarray, wanted: np.ndarray) -> tuple[int, int, float]:
    """How far a try is: first classes of several groups that lie on one side, then those missing on
    a side, then squared differences.
    """
    have = _have(sides, counts, len(wanted))
    relative = (have - wanted) / np.maximum(counts.sum(0), 1)
    return int(_together(have, counts).sum()), int((have == 0).sum()), float((relative**2).sum())
