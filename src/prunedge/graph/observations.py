"""What a run of the model has shown, by groups and channels: layouts, mixing calls, named sizes.

While the model is traced these are labels (`prunedge.graph.ledger`); `prunedge.graph.layouts` turns
them into what stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from prunedge.graph.sizes import CodeCall

if TYPE_CHECKING:
    from prunedge.graph.plan import Plan


@dataclass(frozen=True)
class Layout:
    """Which channel each position of an activation belongs to, or of a weight that is moved.

    `number` and `channel` have the shape of those dimensions along which channels vary: the index
    of the group in `names` (-1 where what is there always stays) and the channel in it.
    """

    names: tuple[str, ...]
    number: np.ndarray
    channel: np.ndarray

    def mask(self, plan: Plan | None) -> np.ndarray:
        """True where the channel stays after the plan."""
        stays = np.ones(self.number.shape, dtype=bool)
        if plan is None:
            return stays

        for number, name in enumerate(self.names):
            if name in plan.keep:
                here = self.number == number
                stays[here] = np.isin(self.channel[here], np.asarray(plan.keep[name]))
        return stays

    def kept(self, plan: Plan | None) -> list[np.ndarray]:
        """For each dimension the positions at which anything stays."""
        mask = self.mask(plan)
        kept = []
        for axis in range(mask.ndim):
            others = tuple(other for other in range(mask.ndim) if other != axis)
            kept.append(np.flatnonzero(mask.any(axis=others)))
        return kept


@dataclass(frozen=True)
class Statistic:
    """A call that mixes channels without weights: layer norm, a mean over the channels, softmax.

    It is the `call`-th (from 0) of the ATen operation `op` in a run of the model. `layouts` says
    for each dimension of its first argument over which it mixes (`dims`) who lives there. The
    smaller model takes it over the channels that stay, and so does the masked model that it is
    compared with.
    """

    op: str
    call: int
    dims: tuple[int, ...]
    layouts: tuple[tuple[int, Layout], ...]


@dataclass(frozen=True)
class Reshape:
    """Where the code of `module` divides channels.

    A reshape into blocks (heads, shuffled groups), or a slice that it takes of them.
    """

    module: str
    layout: Layout


@dataclass(frozen=True)
class Resize:
    """A call in the code of `module` that names sizes of channels (a reshape or a split).

    `sizes` says for each index among the sizes whose channels it counts: (index, layout, axis of
    the layout). `off_path`: evaluation at the traced size does not come there; training,
    another size, or a method beside forward does. A call that picks positions by numbers (a slice)
    has an index for each dimension that it picks along, whose whole layout stands there; `picked`
    holds the positions.
    """

    module: str
    call: CodeCall
    sizes: tuple[tuple[int, Layout, int], ...]
    off_path: bool = False
    picked: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Read:
    """A site in the code of `module` that reads the sizes of channels.

    `sizes`: (dimension, layout, axis of the layout). `off_path` as in `Resize`.
    """

    module: str
    site: str
    sizes: tuple[tuple[int, Layout, int], ...]
    off_path: bool = False


@dataclass(frozen=True)
class Operation:
    """One contraction.

    Its MACs for one image are `positions` (a fraction where only a slice of the weight is used) *
    the weight's elements. A product of two activations (attention) has no weight but a `layout`,
    whose kept positions count instead; with neither, `positions` is the whole, fixed number.
    """

    weight: str | None
    positions: float
    layout: Layout | None = None

    def factor(self, shapes: Mapping[str, tuple[int, ...]], plan: Plan | None) -> int:
        """What `positions` is multiplied by after the plan, which gives the tensors `shapes`."""
        if self.weight:
            return prod(shapes[self.weight])
        if self.layout:
            return int(self.layout.mask(plan).sum())
        return 1
