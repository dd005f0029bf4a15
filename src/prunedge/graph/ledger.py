"""What the run of the model taught: the ledger that rules write and that groups are read off."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch

from prunedge.graph.channels import Role
from prunedge.graph.label_tensors import Labels, compact, lying_along
from prunedge.graph.observations import Operation
from prunedge.graph.parameters import ParamView
from prunedge.graph.sizes import CodeCall
from prunedge.graph.sizes.picks import Positions


@dataclass(frozen=True)
class Condition:
    """What must hold along one dimension of an activation *if* channels leave one by one there.

    Dividing channels into heads and their width gives an activation with two dimensions of
    channels, of which only one is pruned in the end. A scale of the head's width, say, ties the
    heads together when the width is pruned, and means nothing when whole heads are. `partner`
    (broadcastable labels) is tied to `labels` then; without one they are frozen for `reason`. With
    `dim` -1 the partner has fewer channels than `labels` and is tied where they agree, else frozen.
    """

    labels: Labels
    dim: int
    partner: Labels | None
    reason: str


@dataclass(frozen=True)
class Mixing:
    """A call that mixes channels, as it is seen while tracing: labels by dimension.

    It becomes a `channels.Statistic`.
    """

    op: str
    call: int
    dims: tuple[int, ...]
    labels: tuple[Labels, ...]


@dataclass(frozen=True)
class Sized:
    """A call that names the sizes of channels, as it is seen while tracing: (place, labels, dim).

    It becomes a `channels.Resize`, or a `channels.Read`.
    """

    module: str
    call: CodeCall
    sizes: tuple[tuple[int, Labels, int], ...]
    picked: tuple[Positions, ...] = ()


@dataclass
class Ledger:
    """What the run of the model taught: ties, frozen atoms, roles, costs.

    `shapes` are those of the parameters and floating buffers. `base` says for each dimension of
    them which atom its first position has; `atoms` counts all that were given out. `slices` are
    what modules' code takes of channels (by a slice, a split, a depthwise convolution), `pieces`
    labels of which something has to stay.
    """

    shapes: dict[str, tuple[int, ...]]
    base: dict[tuple[str, int], int] = field(default_factory=dict)
    atoms: int = 1
    ties: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    frozen: list[tuple[np.ndarray, str]] = field(default_factory=list)
    roles: dict[tuple[str, int], Role] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)
    operations: list[Operation | tuple[int, Labels]] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    conditions: list[Condition] = field(default_factory=list)
    divisions: list[tuple[str, Labels]] = field(default_factory=list)
    slices: list[tuple[str, Labels]] = field(default_factory=list)
    resizes: list[Sized] = field(default_factory=list)
    reads: list[Sized] = field(default_factory=list)
    mixings: list[Mixing] = field(default_factory=list)
    pieces: list[Labels] = field(default_factory=list)
    irregular: bool = False

    def __post_init__(self) -> None:
        for name, shape in self.shapes.items():
            for dim, size in enumerate(shape):
                self.base[name, dim] = self.new(size)

    def new(self, count: int) -> int:
        """The first of `count` fresh atoms."""
        first = self.atoms
        self.atoms += count
        return first

    def constants(self, count: int, dim: int, rank: int) -> Labels:
        """New labels of so many constants along a dimension.

        Each leaves with the channel that it meets.
        """
        return lying_along(torch.arange(count) + self.new(count), dim, rank)

    def of(self, view: ParamView, dim: int, role: Role | None) -> Labels | None:
        """Atoms along one dimension of a parameter's view, (size,) int64.

        None when they can't be told apart. `role` says what the parameter does with these channels,
        if it does anything yet.
        """
        line = view.along(dim)
        if line is None:
            return None
        axis, indices = line
        if role is not None:
            self.roles.setdefault((view.name, axis), role)
        return indices + self.base[view.name, axis]

    def tie(self, a: Labels, b: Labels, reason: str = "meets values that are no channels") -> None:
        """These labels leave together, pair by pair; what meets a 0 is frozen for `reason`."""
        first, second = torch.broadcast_tensors(a, b)
        left = first.reshape(-1).numpy()
        right = second.reshape(-1).numpy()

        meets_zero = (left == 0) != (right == 0)
        if meets_zero.any():
            self.frozen.append((np.maximum(left, right)[meets_zero], reason))
        both = (left != 0) & (right != 0) & (left != right)
        if both.any():
            self.ties.append((left[both], right[both]))

    def squash(self, labels: Labels, dims: Iterable[int]) -> Labels:
        """Tie the labels along these dimensions: they are one channel, of size 1 there."""
        for dim in dims:
            if labels.shape[dim] > 1:
                first = labels.narrow(dim, 0, 1)
                self.tie(first, labels)
                labels = first
        return labels

    def freeze(self, labels: Labels | None, reason: str) -> None:
        """These labels stay."""
        if labels is not None:
            atoms = compact(labels).reshape(-1).numpy()
            self.frozen.append((atoms[atoms != 0], reason))

    def freeze_where_pruned(self, labels: Labels, dim: int, reason: str) -> None:
        """These labels stay where channels leave one by one along this dimension."""
        if sum(size > 1 for size in labels.shape) > 1:
            self.conditions.append(Condition(labels, dim, None, reason))
        else:
            self.freeze(labels, reason)

    def freeze_param(self, view: ParamView, reason: str) -> None:
        """Every position along every dimension of this parameter stays."""
        for dim, size in enumerate(self.shapes[view.name]):
            self.frozen.append((self.base[view.name, dim] + np.arange(size), reason))

    def freeze_other_axes(self, view: ParamView, axis: int) -> None:
        """A parameter's channels lie along this one of its dimensions; its other places stay."""
        for other, size in enumerate(self.shapes[view.name]):
            if other != axis:
                atoms = torch.arange(size) + self.base[view.name, other]
                self.freeze(atoms, "are places of a table")
