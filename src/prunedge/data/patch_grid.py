"""Where the patches of photographs lie, and what share of each is damaged: planned from headers and
masks, before anything is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from prunedge.data.decode import Progress, at_once, reason
from prunedge.data.mask_values import photo_size
from prunedge.data.masks import Pair
from prunedge.edge.image.size import Size
from prunedge.errors import DataError
from prunedge.utils.machine import pass_on_reading
from prunedge.utils.wording import counted, first_of


@dataclass(frozen=True)
class Patches:
    """The patches of one photograph: corners (n, 2) as x, y in pixels, and the damaged share of
    each (n,).
    """

    pair: Pair
    source: str
    corners: np.ndarray
    shares: np.ndarray

    def __len__(self) -> int:
        """Number of patches."""
        return len(self.shares)

    def at(self, keep: np.ndarray) -> Patches:
        """Those for which `keep`, (n,) bool, is true."""
        return Patches(self.pair, self.source, self.corners[keep], self.shares[keep])


def corners(width: int, height: int, size: Size, strides: Size) -> np.ndarray:
    """Upper left corners (n, 2) as x, y of the patches that cover a photograph; the last of a row
    or column is flush with the edge.
    """
    x, y = np.meshgrid(
        _along(width, size.width, strides.width), _along(height, size.height, strides.height)
    )
    return np.stack([x.reshape(-1), y.reshape(-1)], axis=1)


def _along(side: int, size: int, stride: int) -> np.ndarray:
    """Where patches begin along one side of a photograph, (n,) int64."""
    last = side - size
    return np.unique([*range(0, last + 1, stride), last])


def damaged_shares(mask: np.ndarray, at: np.ndarray, size: Size) -> np.ndarray:
    """The share (n,) of each patch that is damaged, from a mask (height, width) bool and corners
    (n, 2).
    """
    sums = np.pad(mask.cumsum(0).cumsum(1), ((1, 0), (1, 0)))  # pixels above and left of each point
    x, y = at[:, 0], at[:, 1]
    below, right = y + size.height, x + size.width
    damaged = sums[below, right] - sums[y, right] - sums[below, x] + sums[y, x]
    return damaged / (size.height * size.width)


def plan_patches(
    pairs: Sequence[Pair],
    source: dict[str, str],
    size: Size,
    strides: Size,
    damaged: Callable[[Pair], np.ndarray],
    progress: Progress | None,
) -> tuple[list[Patches], tuple[str, ...]]:
    """All patches of all photographs, and the names of the photographs that are too small for
    one. `damaged` says where a mask shows damage, (height, width) bool.
    """

    def work(pair: Pair) -> Patches | str | None:
        try:
            width, height = photo_size(pair.photo)
            mask = damaged(pair) if pair.has_mask else None
        except Exception as error:  # a damaged file can make a decoder raise anything
            pass_on_reading(error, pair.photo)
            return f"{pair.name} ({reason(error, pair.photo, pair.mask)})"

        if width < size.width or height < size.height:
            return None
        at = corners(width, height, size, strides)
        shares = np.zeros(len(at)) if mask is None else damaged_shares(mask, at, size)
        return Patches(pair, source[pair.name], at, shares)

    planned: list[Patches] = []
    unusable = []
    small = []
    for index, patches in enumerate(at_once(work, pairs)):
        if isinstance(patches, Patches):
            planned.append(patches)
        elif patches is None:
            small.append(pairs[index].name)
        else:
            unusable.append(patches)
        if progress is not None:
            progress(index + 1, len(pairs), "reading masks")
    if unusable:
        raise DataError(
            f"{len(unusable)} of {counted(len(pairs), 'photograph')} can't be used: "
            f"{first_of(unusable)}",
            remedy="each must be readable and have a mask of its size",
        )
    return planned, tuple(small)


def choose_patches(
    planned: Sequence[Patches], min_damage: float, ratio: float | None, seed: int
) -> tuple[list[Patches], int, int]:
    """The patches to cut, and how many are too faintly damaged and how many intact ones too
    many.
    """
    clear = []
    for patches in planned:
        clear.append(patches.at((patches.shares == 0) | (patches.shares >= min_damage)))
    faint = sum(map(len, planned)) - sum(map(len, clear))

    shares = np.concatenate([np.zeros(0), *(patches.shares for patches in clear)])
    intact = np.flatnonzero(shares == 0)
    n_damaged = int((shares > 0).sum())
    wanted = len(intact) if ratio is None else min(len(intact), round(ratio * n_damaged))
    dropped = np.random.default_rng(seed).permutation(intact)[wanted:]
    keep = np.ones(len(shares), bool)
    keep[dropped] = False

    chosen = []
    start = 0
    for patches in clear:
        chosen.append(patches.at(keep[start : start + len(patches)]))
        start += len(patches)
    return chosen, faint, len(dropped)
