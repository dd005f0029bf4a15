"""Which images train, validate and test: stratified, never a source on two sides. Pure: counts by
stratum and sources in, sides out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Tries cost about 20 microseconds a group each; this bounds a split to a second or so.
_GROUPS_IN_ALL_TRIES = 40_000
_MOST_TRIES = 32


def assign(
    strata: np.ndarray, groups: np.ndarray, shares: Sequence[float], seed: int
) -> np.ndarray:
    """The side of each image, (n,) int64 in 0 .. len(shares) - 1, for group ids (n,) of integers
    and `strata` (n, k) of integers: how often each image counts in each stratum.

    An image may count in several strata; those that count in none are a stratum of their own. A
    group lies wholly on one side. Each stratum is shared out as closely to `shares` (which sum to
    1) as the groups allow: exactly, to the image, where every group is a single image of one
    stratum. A stratum reaches every side if it has at least that many groups, and other strata can
    spare them.

    It is the greedy rule of scikit-learn's StratifiedGroupKFold (largest group first, to the side
    where it helps most), for shares that needn't be equal, repeated from several shuffles of which
    the closest is kept. The same arguments give the same sides.
    """
    ids = np.unique(groups, return_inverse=True)[1].reshape(-1)
    images = np.bincount(ids)  # (groups,)
    strata = with_rest(strata)
    counts = np.zeros((len(images), strata.shape[1]), np.int64)  # (groups, strata)
    np.add.at(counts, ids, strata)
    is_there = counts.sum(0) > 0
    if not is_there.all():
        counts = counts[:, is_there]

    wanted = np.outer(shares, counts.sum(0))  # (sides, strata): counts that each side should get
    large = int((images > 1).sum())
    tries = int(np.clip(_GROUPS_IN_ALL_TRIES // max(large, 1), 1, _MOST_TRIES)) if large else 1
    candidates = []
    for number in range(tries):
        rng = np.random.default_rng([seed, number])
        candidates.append(_share_out(counts, images, wanted, rng))
    closest = min(candidates, key=lambda sides: _distance(sides, counts, wanted))
    return _parted(closest, counts, wanted)[ids]


def with_rest(strata: np.ndarray) -> np.ndarray:
    """(n, k) counts with a stratum more, of the images that count in none; as they are where there
    is no such image.
    """
    is_rest = ~(strata > 0).any(1)
    return np.column_stack((strata, is_rest)) if is_rest.any() else strata


def rarest(strata: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """The rarest stratum that each row of (n, k) counts has, (n,) int64: 0 for rows without any.
    `totals` (k,) are the counts of all.
    """
    kinds = np.zeros(len(strata), np.int64)
    fewest = np.full(len(strata), np.iinfo(np.int64).max)
    for stratum, total in enumerate(totals):
        is_rarer = (strata[:, stratum] > 0) & (total < fewest)
        kinds[is_rarer] = stratum
        fewest[is_rarer] = total
    return kinds


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


def _share_out(
    counts: np.ndarray, images: np.ndarray, wanted: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """One try: the side of each group, of which each has so many `images`."""
    sides = np.full(len(counts), -1)
    totals = counts.sum(0)
    weight = 1 / np.maximum(totals, 1) ** 2  # a rare stratum counts as much as a common one
    have = np.zeros_like(wanted)
    order = rng.permutation(np.flatnonzero(images > 1))
    for group in order[np.argsort(-images[order], kind="stable")]:
        gap = have - wanted
        cost = (((gap + counts[group]) ** 2 - gap**2) * weight).sum(1)
        sides[group] = np.argmin(cost)
        have[sides[group]] += counts[group]

    # A single image of several strata goes with the others of its rarest one: that has the fewest
    # images to make up for it. The common ones make up for the rare ones, and so come last.
    kinds = rarest(counts, totals)
    singles = []
    for stratum in range(counts.shape[1]):
        singles.append(rng.permutation(np.flatnonzero((images == 1) & (kinds == stratum))))
    for stratum in np.argsort(totals, kind="stable"):
        single = singles[stratum]
        rest = np.maximum(wanted[:, stratum] - have[:, stratum], 0)
        rest *= len(single) / max(rest.sum(), 1e-12)
        parts = portions(rest, len(single), np.full(len(wanted), len(single)))
        sides[single] = np.repeat(np.arange(len(wanted)), parts)
        np.add.at(have, sides[single], counts[single])
    return _repair(sides, counts, len(wanted))


def _repair(sides: np.ndarray, counts: np.ndarray, n_sides: int) -> np.ndarray:
    """Move the smallest possible group to each side that lacks a stratum which another side can
    spare.
    """
    for stratum in range(counts.shape[1]):
        having = np.flatnonzero(counts[:, stratum])
        for side in range(n_sides):
            per_side = np.bincount(sides[having], minlength=n_sides)
            if per_side[side] or per_side.max() < 2:
                continue
            sides[_spared(sides, counts, having, per_side)] = side
    return sides


def _spared(sides: np.ndarray, counts: np.ndarray, having: np.ndarray, per_side: np.ndarray) -> int:
    """Of the groups `having` a stratum the one to move: small, of a side with many, and the last
    there of no other stratum if possible.
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
    """Part strata whose groups still lie together, by the moves of one group that bring the sides
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
    """(sides, strata): the counts that each side has."""
    have = np.zeros((n_sides, counts.shape[1]), np.int64)
    np.add.at(have, sides, counts)
    return have


def _together(have: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(strata,) bool: several groups have the stratum, and all of them lie on one side."""
    return ((have > 0).sum(0) == 1) & ((counts > 0).sum(0) > 1)


def _distance(sides: np.ndarray, counts: np.ndarray, wanted: np.ndarray) -> tuple[int, int, float]:
    """How far a try is: first strata of several groups that lie on one side, then those missing on
    a side, then squared differences.
    """
    have = _have(sides, counts, len(wanted))
    relative = (have - wanted) / np.maximum(counts.sum(0), 1)
    return int(_together(have, counts).sum()), int((have == 0).sum()), float((relative**2).sum())
