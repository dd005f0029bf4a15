"""The nouns of the channel graph: what can be removed, where it lives, and what it costs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from prunedge.graph.sizes import CodeCall, Shape

if TYPE_CHECKING:
    from prunedge.graph.plan import Plan

Role = Literal["out", "in", "channel"]
ROLES: tuple[Role, ...] = get_args(Role)
KeptIndices = dict[str, dict[int, np.ndarray]]


@dataclass(frozen=True)
class Slice:
    """The part of one parameter or buffer that belongs to the channels of a group.

    `indices` has shape (channels, k), int64: row c lists the k positions along `dim` that leave
    with channel c. `role` is `out` where a contraction makes the channel, `in` where one consumes
    it, `channel` where it is scaled, shifted or filtered by itself (batch norm, bias, depthwise
    convolution).
    """

    tensor: str
    dim: int
    indices: np.ndarray
    role: Role


@dataclass(frozen=True)
class Group:
    """Channels of one kind that can be removed one by one.

    `positions` is the number of places in the feature map (height * width; 1 for a neuron) where
    the first producer makes each channel: the M of the Taylor criterion.
    """

    name: str
    size: int
    slices: tuple[Slice, ...]
    positions: int

    def having(self, role: Role) -> tuple[Slice, ...]:
        """The slices with that role."""
        return tuple(part for part in self.slices if part.role == role)


@dataclass(frozen=True)
class Frozen:
    """Channels that stay, and why."""

    name: str
    size: int
    reason: str


@dataclass(frozen=True)
class Layout:
    """Which channel each position of an activation belongs to, or of a weight that is moved.

    `number` and `channel` have the shape of those dimensions along which channels vary: the place
    of the group in `names` (-1 where what is there always stays) and the channel in it.
    """

    names: tuple[str, ...]
    number: np.ndarray
    channel: np.ndarray

    def mask(self, plan: Plan | None) -> np.ndarray:
        """True where the channel stays after the plan."""
        stays = np.ones(self.number.shape, dtype=bool)
        for number, name in enumerate(self.names):
            if plan is not None and name in plan.keep:
                here = self.number == number
                stays[here] = np.isin(self.channel[here], np.asarray(plan.keep[name]))
        return stays

    def kept(self, plan: Plan | None) -> list[np.ndarray]:
        """For each dimension the positions at which anything stays."""
        mask = self.mask(plan)
        axes = range(mask.ndim)
        return [
            np.flatnonzero(mask.any(axis=tuple(other for other in axes if other != axis)))
            for axis in axes
        ]


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

    A reshape into blocks (heads, shuffled groups), or one part that it takes of them.
    """

    module: str
    layout: Layout


@dataclass(frozen=True)
class Resize:
    """A call in the code of `module` that names sizes of channels (a reshape or a split).

    `sizes` says for each place among the sizes whose channels it counts: (place, layout, axis of
    the layout). `aside`: evaluation at the traced size does not come there; training, another size,
    or a method beside forward does. A call that picks positions by numbers (a slice) has a place
    for each dimension that it picks along, whose whole layout stands there; `picked` holds the
    positions.
    """

    module: str
    call: CodeCall
    sizes: tuple[tuple[int, Layout, int], ...]
    aside: bool = False
    picked: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Read:
    """A place in the code of `module` that reads the sizes of channels.

    (dimension, layout, axis of the layout).

    `aside` as in `Resize`.
    """

    module: str
    site: str
    sizes: tuple[tuple[int, Layout, int], ...]
    aside: bool = False


@dataclass(frozen=True)
class Operation:
    """One contraction.

    Its MACs for one image are `positions` (a fraction where a part of the weight is used) * the
    weight's elements. A product of two activations (attention) has no weight but a `layout`, whose
    kept positions count instead; with neither, `positions` is the whole, fixed number.
    """

    weight: str | None
    positions: float
    layout: Layout | None = None


@dataclass(frozen=True)
class ChannelGraph:
    """Which channels of a model leave together, which stay and why, and what each costs.

    `shapes` holds the shape of every parameter and floating buffer; `trainable` names the
    parameters among them; `example` is the batch of inputs that the model was traced with: a
    tensor, or the tuple or dict of its arguments. `sized_calls` says for each module which places
    in its code name sizes or factors, and how often its forwards pass there; `factors` holds the
    factors among them, `reshaped` the shapes that reshapes come to (None along dimensions where
    that varies). `ways` names the methods of modules that answer as forward does (`forward_split`).
    `reads` are the places in code that read the sizes of channels, `dividing` the modules that
    multiply or divide values by such a size. `regular` says that each operation does to any number
    of channels what it does to these (`prunedge.graph.derive`).
    """

    groups: tuple[Group, ...]
    frozen: tuple[Frozen, ...]
    operations: tuple[Operation, ...]
    shapes: Mapping[str, tuple[int, ...]]
    trainable: frozenset[str]
    layers: tuple[tuple[str, str], ...]
    example: Any = field(repr=False)
    statistics: tuple[Statistic, ...] = ()
    reshapes: tuple[Reshape, ...] = ()
    resizes: tuple[Resize, ...] = ()
    sized_calls: Mapping[str, Mapping[str, frozenset[int]]] = field(default_factory=dict)
    factors: Mapping[str, Mapping[CodeCall, float]] = field(default_factory=dict)
    reshaped: Mapping[str, Mapping[CodeCall, Shape]] = field(default_factory=dict)
    ways: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reads: tuple[Read, ...] = ()
    dividing: frozenset[str] = frozenset()
    regular: bool = False

    @property
    def channels(self) -> int:
        """Number of channels that can be removed, all groups together."""
        return sum(group.size for group in self.groups)

    def group(self, name: str) -> Group:
        """The group of that name; KeyError when there is none."""
        for candidate in self.groups:
            if candidate.name == name:
                return candidate
        raise KeyError(name)

    def removed(self, plan: Plan, roles: Iterable[Role] = ROLES) -> KeptIndices:
        """What leaves of each tensor that the plan touches: {name: {dim: sorted int64}}."""
        return {
            name: {dim: np.flatnonzero(~stays) for dim, stays in dims.items()}
            for name, dims in self._staying(plan, roles).items()
        }

    def kept(self, plan: Plan) -> KeptIndices:
        """What stays of each tensor that the plan touches: {name: {dim: indices}}, sorted int64.

        This is all that the surgery does to the numbers: whoever slices the original tensors by it
        gets the pruned ones.
        """
        return {
            name: {dim: np.flatnonzero(stays) for dim, stays in dims.items()}
            for name, dims in self._staying(plan).items()
        }

    def _staying(
        self, plan: Plan, roles: Iterable[Role] = ROLES
    ) -> dict[str, dict[int, np.ndarray]]:
        """What stays of each tensor that the plan touches: {name: {dim: (size,) bool}}."""
        if unknown := plan.keep.keys() - {group.name for group in self.groups}:
            names = ", ".join(sorted(unknown))
            raise ValueError(f"the plan names groups that this model doesn't have: {names}")
        staying: dict[str, dict[int, np.ndarray]] = {}
        for group in self.groups:
            if group.name not in plan.keep:
                continue
            keep = np.asarray(plan.keep[group.name], dtype=np.int64)
            if ((keep < 0) | (keep >= group.size)).any():
                raise ValueError(
                    f"the plan keeps a channel that {group.name} doesn't have: it has "
                    f"{group.size}, from 0 on"
                )
            leaves = np.ones(group.size, dtype=bool)
            leaves[keep] = False
            if not leaves.any():
                continue
            for part in group.slices:
                if part.role in roles:
                    dims = staying.setdefault(part.tensor, {})
                    if part.dim not in dims:
                        dims[part.dim] = np.ones(self.shapes[part.tensor][part.dim], dtype=bool)
                    dims[part.dim][part.indices[leaves]] = False
        return staying

    def sizes(self, plan: Plan | None = None) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor after the plan, without doing it."""
        shapes = dict(self.shapes)
        for name, dims in (self._staying(plan) if plan is not None else {}).items():
            shape = list(shapes[name])
            for dim, stays in dims.items():
                shape[dim] = int(np.count_nonzero(stays))
            shapes[name] = tuple(shape)
        return shapes

    def macs(self, plan: Plan | None = None) -> int:
        """Multiply-accumulates for one image after the plan.

        Equals what torch's FLOP counter measures, halved.
        """
        shapes = self.sizes(plan)
        count = 0.0
        for op in self.operations:
            factor = (
                prod(shapes[op.weight])
                if op.weight
                else int(op.layout.mask(plan).sum())
                if op.layout
                else 1
            )
            count += op.positions * factor
        return round(count)

    def macs_of(self, group: Group) -> int:
        """Multiply-accumulates for one image in which the group's channels take part.

        What removing all of them would free.
        """
        kept = {
            (part.tensor, part.dim): part.indices.size / self.shapes[part.tensor][part.dim]
            for part in group.slices
        }
        total = 0.0
        for op in self.operations:
            if op.weight is not None:
                stays = prod(
                    (1 - share for (tensor, _), share in kept.items() if tensor == op.weight),
                    start=1.0,
                )
                total += op.positions * prod(self.shapes[op.weight]) * (1 - stays)
            elif op.layout is not None and group.name in op.layout.names:
                total += op.positions * int(
                    (op.layout.number == op.layout.names.index(group.name)).sum()
                )
        return round(total)

    def params(self, plan: Plan | None = None) -> int:
        """Number of parameters after the plan."""
        shapes = self.sizes(plan)
        return sum(prod(shapes[name]) for name in self.trainable)

    def prunable_share(self, without: Collection[str] = ()) -> float:
        """Share (0 to 1) of all parameter elements that leave with at least one channel.

        Of a group that is not named in `without`.
        """
        touched: dict[str, dict[int, set[int]]] = {}
        for group in self.groups:
            for part in () if group.name in without else group.slices:
                touched.setdefault(part.tensor, {}).setdefault(part.dim, set()).update(
                    part.indices.ravel().tolist()
                )
        stays = sum(
            prod(
                size - len(touched.get(name, {}).get(dim, ()))
                for dim, size in enumerate(self.shapes[name])
            )
            for name in self.trainable
        )
        return 1 - stays / max(1, self.params())

    def widths(self, plan: Plan | None = None) -> dict[str, int]:
        """How many channels each prunable layer makes after the plan, in the model's order."""
        shapes = self.sizes(plan)
        dims = {
            part.tensor: part.dim
            for group in self.groups
            for part in group.slices
            if part.role != "in"
        }
        return {
            layer: shapes[weight][dims[weight]] for layer, weight in self.layers if weight in dims
        }
