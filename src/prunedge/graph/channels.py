"""The channel graph: groups of channels that can be removed, their slices, and what they cost."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from prunedge.errors import GraphError
from prunedge.graph.observations import Operation, Read, Reshape, Resize, Statistic
from prunedge.graph.sizes import CodeCall, Shape
from prunedge.utils.arguments import require

if TYPE_CHECKING:
    from torch import nn

    from prunedge.graph.plan import Plan

Role = Literal["out", "in", "channel"]
ROLES: tuple[Role, ...] = get_args(Role)
KeptIndices = dict[str, dict[int, np.ndarray]]


@dataclass(frozen=True)
class Slice:
    """The slice of one parameter or buffer that belongs to the channels of a group.

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

    `positions` is the number of positions in the feature map (height * width; 1 for a neuron) where
    the first producer makes each channel: the M of the Taylor criterion.
    """

    name: str
    size: int
    slices: tuple[Slice, ...]
    positions: int

    def having(self, role: Role) -> tuple[Slice, ...]:
        """The slices with that role."""
        return tuple(piece for piece in self.slices if piece.role == role)


@dataclass(frozen=True)
class Frozen:
    """Channels that stay, and why."""

    name: str
    size: int
    reason: str


@dataclass(frozen=True)
class ChannelGraph:
    """Which channels of a model leave together, which stay and why, and what each costs.

    `shapes` holds the shape of every parameter and floating buffer; `trainable` names the
    parameters among them; `example` is the batch of inputs that the model was traced with: a
    tensor, or the tuple or dict of its arguments. `sized_calls` says for each module which sites
    in its code name sizes or factors, and how often its forwards pass there; `factors` holds the
    factors among them, `reshaped` the shapes that reshapes come to (None along dimensions where
    that varies). `forward_methods` names the methods of modules that answer as forward does
    (`forward_split`). `reads` are the sites in code that read the sizes of channels, `dividing` the
    modules that multiply or divide values by such a size. `regular` says that each operation does
    to any number of channels what it does to these (`prunedge.graph.derive`).
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
    forward_methods: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
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
        removed: KeptIndices = {}
        for name, dims in self._staying(plan, roles).items():
            removed[name] = {dim: np.flatnonzero(~stays) for dim, stays in dims.items()}
        return removed

    def kept(self, plan: Plan) -> KeptIndices:
        """What stays of each tensor that the plan touches: {name: {dim: indices}}, sorted int64.

        This is all that the surgery does to the numbers: whoever slices the original tensors by it
        gets the pruned ones.
        """
        kept: KeptIndices = {}
        for name, dims in self._staying(plan).items():
            kept[name] = {dim: np.flatnonzero(stays) for dim, stays in dims.items()}
        return kept

    def _staying(
        self, plan: Plan, roles: Iterable[Role] = ROLES
    ) -> dict[str, dict[int, np.ndarray]]:
        """What stays of each tensor that the plan touches: {name: {dim: (size,) bool}}."""
        unknown = plan.keep.keys() - {group.name for group in self.groups}
        if unknown:
            names = ", ".join(sorted(unknown))
            raise ValueError(f"the plan names groups that this model doesn't have: {names}")

        staying: dict[str, dict[int, np.ndarray]] = {}
        for group in self.groups:
            if group.name not in plan.keep:
                continue
            leaves = _leaving(group, plan)
            if not leaves.any():
                continue
            for piece in group.slices:
                if piece.role not in roles:
                    continue
                dims = staying.setdefault(piece.tensor, {})
                if piece.dim not in dims:
                    dims[piece.dim] = np.ones(self.shapes[piece.tensor][piece.dim], dtype=bool)
                dims[piece.dim][piece.indices[leaves]] = False
        return staying

    def sizes(self, plan: Plan | None = None) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor after the plan, without doing it."""
        shapes = dict(self.shapes)
        if plan is None:
            return shapes

        for name, dims in self._staying(plan).items():
            shape = list(shapes[name])
            for dim, stays in dims.items():
                shape[dim] = int(np.count_nonzero(stays))
            shapes[name] = tuple(shape)
        return shapes

    def macs(
        self, plan: Plan | None = None, sizes: Mapping[str, tuple[int, ...]] | None = None
    ) -> int:
        """Multiply-accumulates for one image after the plan; `sizes` are those after it
        (`self.sizes`), where they are known.

        Equals what torch's FLOP counter measures, halved.
        """
        shapes = self.sizes(plan) if sizes is None else sizes
        count = 0.0
        for operation in self.operations:
            count += operation.positions * operation.factor(shapes, plan)
        return round(count)

    def macs_of(self, group: Group) -> int:
        """Multiply-accumulates for one image in which the group's channels take part.

        What removing all of them would free.
        """
        shares = {}  # (tensor, dimension) -> share of its positions that is the group's
        for piece in group.slices:
            size = self.shapes[piece.tensor][piece.dim]
            shares[piece.tensor, piece.dim] = piece.indices.size / size

        total = 0.0
        for operation in self.operations:
            weight = operation.weight
            layout = operation.layout
            if weight is not None:
                others = 1.0  # share of the weight's elements that is not the group's
                for (tensor, _), share in shares.items():
                    if tensor == weight:
                        others *= 1 - share
                total += operation.positions * prod(self.shapes[weight]) * (1 - others)
            elif layout is not None and group.name in layout.names:
                number = layout.names.index(group.name)
                total += operation.positions * int((layout.number == number).sum())
        return round(total)

    def params(
        self, plan: Plan | None = None, sizes: Mapping[str, tuple[int, ...]] | None = None
    ) -> int:
        """Number of parameters after the plan; `sizes` are those after it, where they are known."""
        shapes = self.sizes(plan) if sizes is None else sizes
        return sum(prod(shapes[name]) for name in self.trainable)

    def prunable_share(self, without: Collection[str] = ()) -> float:
        """Share (0 to 1) of all parameter elements that leave with at least one channel.

        Channels of the groups that are named in `without` don't count.
        """
        touched: dict[tuple[str, int], set[int]] = {}
        for group in self.groups:
            if group.name in without:
                continue
            for piece in group.slices:
                indices = touched.setdefault((piece.tensor, piece.dim), set())
                indices.update(piece.indices.ravel().tolist())

        stays = 0
        for name in self.trainable:
            elements = 1
            for dim, size in enumerate(self.shapes[name]):
                elements *= size - len(touched.get((name, dim), ()))
            stays += elements
        return 1 - stays / max(1, self.params())

    def widths(self, plan: Plan | None = None) -> dict[str, int]:
        """How many channels each prunable layer makes after the plan, in the model's order."""
        dims = {}  # weight -> the dimension along which its own channels lie
        for group in self.groups:
            for piece in group.slices:
                if piece.role != "in":
                    dims[piece.tensor] = piece.dim

        shapes = self.sizes(plan)
        widths = {}
        for layer, weight in self.layers:
            if weight in dims:
                widths[layer] = shapes[weight][dims[weight]]
        return widths


def _leaving(group: Group, plan: Plan) -> np.ndarray:
    """Which of the group's channels leave, (size,) bool."""
    keep = np.asarray(plan.keep[group.name], dtype=np.int64)
    if ((keep < 0) | (keep >= group.size)).any():
        raise ValueError(
            f"the plan keeps a channel that {group.name} doesn't have: it has "
            f"{group.size}, from 0 on"
        )
    leaves = np.ones(group.size, dtype=bool)
    leaves[keep] = False
    return leaves


def require_graph(graph: object) -> None:
    """TypeError where something else was given than a channel graph."""
    require("graph", graph, ChannelGraph, "a ChannelGraph, such as prunedge.trace(...) gives")


def refuse_graph_of_another(model: nn.Module, graph: ChannelGraph) -> None:
    """GraphError where the channels of a graph are not those of the model: tensors that it names
    belong to no module there, or have another shape.
    """
    modules = {name for name, _ in model.named_modules(remove_duplicate=False)}
    tensors = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    for group in graph.groups:
        for part in group.slices:
            name = part.tensor
            is_there = name.rpartition(".")[0] in modules
            if name in tensors and name in graph.shapes:
                is_there = tuple(tensors[name].shape) == tuple(graph.shapes[name])
            if not is_there:
                raise GraphError(
                    "this channel graph is another model's",
                    where=name,
                    remedy="trace this one: trace(model, example)",
                )
