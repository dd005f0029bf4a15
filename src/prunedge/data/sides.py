"""On which side of the split each image lies: the user's own split, a stratified one, or a fold."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prunedge.data.dataset import Split
from prunedge.data.records import SPLITS, LabelledImages, Listing
from prunedge.data.splits import assign
from prunedge.errors import DataError
from prunedge.utils.advice import option
from prunedge.utils.wording import first_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fold:
    """One of so many equal parts, from 0, that is the test split of a cross-validation."""

    number: int
    count: int


def refuse_impossible_shares(shares: tuple[float, float], fold: Fold | None, seed: int) -> None:
    """DataError for what no split can be made by: shares of val and test, a fold, a seed."""
    if fold is not None and not (fold.count >= 2 and 0 <= fold.number < fold.count):
        raise DataError(
            f"fold {fold.number} of {fold.count}",
            where=option("fold"),
            remedy="give at least 2 folds, and one from 0 to folds - 1",
        )
    val, test = shares
    if min(shares) <= 0 or sum(shares) >= 1:
        raise DataError(
            f"shares of val {val} and test {test} leave nothing for one of the splits",
            remedy="both must be above 0 and below 1 together",
        )
    if seed < 0:
        raise DataError(
            f"a seed of {seed}", where=option("seed"), remedy="give a whole number of at least 0"
        )


def sides_of(
    images: LabelledImages,
    kept: Sequence[int],
    groups: np.ndarray,
    shares: tuple[float, float],
    fold: Fold | None,
    seed: int,
) -> list[str]:
    """The side (train, val, test) of each image whose index is in `kept`.

    `groups` (n,) int64 are equal for images that stay together, of all images. `shares` are those
    of val and test where the data doesn't come split.
    """
    kept_groups = groups[np.array(kept)]
    if fold is None:
        return _given_or_cut(images, kept, kept_groups, shares, seed)
    return _folded(images.strata(kept), kept_groups, shares[0], seed, fold)


def _given_or_cut(
    images: LabelledImages,
    kept: Sequence[int],
    groups: np.ndarray,
    shares: tuple[float, float],
    seed: int,
) -> list[str]:
    """The user's own split, with what is missing from it cut out of train."""
    records = images.listing.records
    sides = np.array([records[index].split or "train" for index in kept])
    missing = {}
    for side, share in zip(("val", "test"), shares, strict=True):
        if side not in sides:
            missing[side] = share
    if not missing:
        return sides.tolist()

    free = np.flatnonzero(sides == "train")
    names = np.array(["train", *missing])
    all_shares = [1 - sum(missing.values()), *missing.values()]
    strata = images.strata([kept[place] for place in free.tolist()])
    sides[free] = names[assign(strata, groups[free], all_shares, seed)]
    return sides.tolist()


def _folded(
    strata: np.ndarray,
    groups: np.ndarray,
    val: float,
    seed: int,
    fold: Fold,
) -> list[str]:
    """The sides in cross-validation: the fold is the test split, and `val` is cut out of the
    rest.
    """
    is_test = assign(strata, groups, [1 / fold.count] * fold.count, seed) == fold.number
    sides = np.where(is_test, "test", "train").astype("<U5")

    rest = np.flatnonzero(~is_test)
    # The fold's number is no part of the seed's draw: what validates one fold says nothing about
    # another.
    rest_seed = seed * fold.count + fold.number
    is_val = assign(strata[rest], groups[rest], [1 - val, val], rest_seed)
    sides[rest] = np.array(["train", "val"])[is_val]
    return sides.tolist()


def check_splits(listing: Listing, splits: Sequence[Split]) -> None:
    """Refuse splits that can't be trained on; warn of those that can't be judged by."""
    for side, split in zip(SPLITS, splits, strict=True):
        missing = split.labelling.missing([sample.target for sample in split.samples])
        if missing and (side == "train" or not len(split)):
            raise DataError(
                f"no images of {first_of(missing)} for {side}",
                where=listing.where,
                remedy="more images, or more sources: a source is never split",
            )
        if missing:
            log.warning("%s: no images of %s for %s", listing.where, first_of(missing), side)

    train, val, test = (_sources(split) for split in splits)
    leaking = (train & val) | (train & test) | (val & test)
    if leaking:
        log.warning(
            "%s: the given splits have %d sources on two sides: see `prunedge check`",
            listing.where,
            len(leaking),
        )


def _sources(split: Split) -> set[str]:
    return {sample.source for sample in split.samples if sample.source is not None}
