"""Integer labels, pushed through the running network, find the channels that leave together.

The idea. Give every position along every dimension of every parameter a number of its own, an *atom*. Run the network
once. Beside each tensor travels a tensor of labels of the same shape that says, element by element, which atom made it:

    weight (4 filters)        conv         relu       view(1, 2, 2, ...) -> transpose -> view      (a channel shuffle)
    atoms 11 12 13 14   ->  11 12 13 14  -> same  ->  11 12 | 13 14  ->  11 13 | 12 14  ->  11 13 12 14

Operations that only move elements are done to the labels *by the same operation with the same arguments*: slices,
concatenations, permutations and flattenings need no rule of their own. Operations that combine elements *tie* labels:
a residual sum ties the atoms of its two branches, a convolution ties its input's labels to the slices of its weight
that meet them. What is tied must leave together; the connected components of all ties are the channels.

Label 0 means 'not a channel' (batch, space, constants). Whatever an operation does that no rule describes *freezes* the
labels that it touches: the network keeps those channels, with the reason. So a missing rule costs compression, never
correctness.

Labels are constant over batch and space, and kept *compact*: a dimension along which they don't vary has size 1.
Parameters and their views carry, instead of labels, the coordinates of each element along each of the parameter's
dimensions, moved by the same operations: a weight that reaches `addmm` transposed still knows which dimension is which.

What is written in place into part of a tensor must reach the tensor, and whatever else looks at its memory. From the first
such write on, that memory has labels of its own, one for each element, and every tensor in it reads them there (`Memory`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from prunedge.graph.calls import Call
from prunedge.graph.channels import Operation, Role
from prunedge.graph.indexing import Picked, Positions
from prunedge.graph.inputs import tensors_of
from prunedge.graph.size_calls import Call as Site
from prunedge.graph.size_calls import SizedCalls

if TYPE_CHECKING:
    from prunedge.graph.rules.registry import Rule

Labels = torch.Tensor


@dataclass(frozen=True)
class ParamView:
    """A parameter, or a view of one: for each of its dimensions, where along it each element comes from."""

    name: str
    coordinates: tuple[torch.Tensor, ...]

    def along(self, dim: int) -> tuple[int, torch.Tensor] | None:
        """(parameter's dimension, index per position along the view's `dim`); None when `dim` mixes several or has size 1."""
        varying = [d for d, c in enumerate(self.coordinates) if compact(c).shape[dim] > 1]
        if len(varying) != 1:
            return None
        line = self._line(self.coordinates[varying[0]], dim)
        # Values that were padded on come from nowhere in the parameter: -1.
        return None if line is None or bool((line < 0).any()) else (varying[0], line)

    @staticmethod
    def _line(coordinate: torch.Tensor, dim: int) -> torch.Tensor | None:
        small = compact(coordinate)
        return small.reshape(-1) if small.numel() == small.shape[dim] else None


def compact(labels: torch.Tensor) -> torch.Tensor:
    """The same labels with size 1 in every dimension along which they don't vary."""
    for dim in range(labels.dim()):
        if labels.shape[dim] > 1 and (labels.stride(dim) == 0 or _constant(labels, dim)):
            labels = labels.narrow(dim, 0, 1)
    return labels


def _constant(labels: torch.Tensor, dim: int) -> bool:
    first = labels.narrow(dim, 0, 1)
    # Most dimensions that vary do so between the first two places: look there before reading everything.
    if not torch.equal(first, labels.narrow(dim, 1, 1)):
        return False
    return bool((labels == first).all())


FILL = -1  # in a memory: nothing but a number that the code has filled it with


@dataclass
class Memory:
    """Labels of each element of a memory into which code has written part by part, (elements,) int64.

    An element that holds `FILL` was not written to since the memory was filled with one number (zeros, or nothing at all). What
    it holds is the same in each channel, so that it may belong to any: along places it is part of the channel around it. Where
    no channel is around it, it is no channel.
    """

    elements: torch.Tensor
    _read: dict[int, torch.Tensor] = field(default_factory=dict)

    def read(self, tensor: torch.Tensor) -> torch.Tensor:
        """The labels of a tensor that lies in this memory, compact; holds `FILL` where nothing but that is around."""
        if id(tensor) not in self._read:
            found = self._part(tensor)
            self._read[id(tensor)] = _around(found) if bool((found == FILL).any()) else compact(found)
        return self._read[id(tensor)]

    def is_filled(self, tensor: torch.Tensor) -> bool:
        """Whether nothing was written where the tensor lies."""
        return bool((self._part(tensor) == FILL).all())

    def has_filled(self, tensor: torch.Tensor) -> bool:
        """Whether somewhere nothing was written where the tensor lies."""
        return bool((self._part(tensor) == FILL).any())

    def write(self, tensor: torch.Tensor, labels: torch.Tensor) -> None:
        """These labels now stand where the tensor lies."""
        self._part(tensor).copy_(labels)
        self._read.clear()

    def _part(self, tensor: torch.Tensor) -> torch.Tensor:
        return self.elements.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())


def _around(labels: torch.Tensor) -> torch.Tensor:
    """Compact labels in which filled elements belong to the channel that they share a dimension of places with."""
    for dim in range(labels.dim()):
        most = labels.amax(dim, keepdim=True)
        if bool(((labels == most) | (labels == FILL)).all()):
            labels = most
    return labels


@dataclass
class Ledger:
    """What the run of the network taught: ties, frozen atoms, roles, costs. Written by the rules, read at the end."""

    shapes: dict[str, tuple[int, ...]]
    base: dict[tuple[str, int], int] = field(default_factory=dict)
    atoms: int = 1
    ties: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    frozen: list[tuple[np.ndarray, str]] = field(default_factory=list)
    roles: dict[tuple[str, int], Role] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)
    operations: list[Operation | tuple[int, torch.Tensor]] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    conditions: list[Condition] = field(default_factory=list)
    divisions: list[tuple[str, torch.Tensor]] = field(default_factory=list)
    parts: list[tuple[str, torch.Tensor]] = field(default_factory=list)
    resizes: list[Sized] = field(default_factory=list)
    reads: list[Sized] = field(default_factory=list)
    mixings: list[Mixing] = field(default_factory=list)
    pieces: list[torch.Tensor] = field(default_factory=list)
    irregular: bool = False

    def __post_init__(self) -> None:
        for name, shape in self.shapes.items():
            for dim, size in enumerate(shape):
                self.base[name, dim] = self.new(size)

    def new(self, count: int) -> int:
        """The first of `count` fresh atoms."""
        first, self.atoms = self.atoms, self.atoms + count
        return first

    def of(self, view: ParamView, dim: int, role: Role | None) -> torch.Tensor | None:
        """Atoms along one dimension of a parameter's view, (size,) int64; None when they can't be told apart.

        `role` says what the parameter does with these channels, if it does anything yet.
        """
        line = view.along(dim)
        if line is None:
            return None
        if role is not None:
            self.roles.setdefault((view.name, line[0]), role)
        return line[1] + self.base[view.name, line[0]]

    def tie(self, a: torch.Tensor, b: torch.Tensor, reason: str = "meets values that are no channels") -> None:
        """These labels leave together, pair by pair; what meets a 0 is frozen for `reason`."""
        left, right = (x.reshape(-1).numpy() for x in torch.broadcast_tensors(a, b))
        lonely = (left == 0) != (right == 0)
        if lonely.any():
            self.frozen.append((np.maximum(left, right)[lonely], reason))
        both = (left != 0) & (right != 0) & (left != right)
        if both.any():
            self.ties.append((left[both], right[both]))

    def squash(self, labels: torch.Tensor, dims: Iterable[int]) -> torch.Tensor:
        """Tie the labels along these dimensions: they are one channel; gives the labels with size 1 there."""
        for dim in dims:
            if labels.shape[dim] > 1:
                first = labels.narrow(dim, 0, 1)
                self.tie(first, labels)
                labels = first
        return labels

    def freeze(self, labels: torch.Tensor | None, reason: str) -> None:
        """These labels stay."""
        if labels is not None:
            found = compact(labels).reshape(-1).numpy()
            self.frozen.append((found[found != 0], reason))

    def freeze_param(self, view: ParamView, reason: str) -> None:
        """Every position along every dimension of this parameter stays."""
        for dim, size in enumerate(self.shapes[view.name]):
            self.frozen.append((self.base[view.name, dim] + np.arange(size), reason))


@dataclass(frozen=True)
class Condition:
    """What must hold along one dimension of an activation *if* its channels can leave one by one there.

    Dividing channels into heads and their width gives an activation with two dimensions of channels, of which only one is
    pruned in the end. A scale of the head's width, say, ties the heads together when the width is pruned, and means
    nothing when whole heads are. `partner` (broadcastable labels) is tied to `labels` then; without one they are frozen
    for `reason`. With `dim` -1 the partner has fewer channels than `labels` and is tied where they agree, else frozen.
    """

    labels: torch.Tensor
    dim: int
    partner: torch.Tensor | None
    reason: str


@dataclass(frozen=True)
class Mixing:
    """A call that mixes channels, as it is seen while tracing: labels by dimension (see `concepts.Statistic`)."""

    op: str
    call: int
    dims: tuple[int, ...]
    labels: tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Sized:
    """A call that names the sizes of channels, as it is seen while tracing: (place, labels, dimension) (see `concepts.Resize`)."""

    module: str
    call: Site
    sizes: tuple[tuple[int, torch.Tensor, int], ...]
    picked: tuple[Positions, ...] = ()


def _lying(atoms: torch.Tensor, dim: int, rank: int) -> torch.Tensor:
    """Atoms of one dimension as labels of a tensor of so many."""
    return atoms.reshape([-1 if d == dim else 1 for d in range(rank)])


def _address(tensor: torch.Tensor) -> int:
    try:
        return int(tensor.untyped_storage()._cdata)
    except NotImplementedError:  # sparse tensors have several
        return -id(tensor)


class Labeller(TorchDispatchMode):
    """Runs beside the network and labels each tensor that it makes; see the module's first lines."""

    def __init__(
        self, ledger: Ledger, rule_for: Callable[[Any], Rule], batch: int, *, by_width: bool = False
    ) -> None:
        super().__init__()
        self.ledger, self.rule_for, self.batch, self.by_width = ledger, rule_for, batch, by_width
        self.sized = SizedCalls(self)
        self.calls: Counter[str] = Counter()
        self.states: dict[str, torch.Tensor] = {}  # the units of each recurrent layer's state, by its path
        self._tags: dict[int, torch.Tensor | ParamView] = {}
        # Tensors are known by identity, and Python reuses the ids of the dead: keep all alive until the end.
        self._alive: list[torch.Tensor] = []
        # The same of memories, by their addresses.
        self._memories: dict[int, Memory] = {}
        self._owners: dict[int, torch.Tensor] = {}
        self._filled: set[int] = set()
        self._made_at: dict[int, tuple[tuple[str, Site], torch.Size]] = {}  # where filled tensors were made, and of what size
        self._noise: set[int] = set()
        self._varying: set[int] = set()  # tensors that depend on the network's input, or on chance
        self._picks: list[tuple[tuple[str, Site], torch.Tensor, dict[int, torch.Tensor], list[Picked]]] = []
        self._places_read: set[tuple[str, str, int]] = set()
        self._reads: dict[tuple[str, str, int, tuple[int, ...]], tuple[torch.Tensor, torch.Tensor | ParamView]] = {}
        self._gaps: dict[int, tuple[torch.Tensor, int, Positions]] = {}  # views of every n-th channel: labels of all, dimension, places

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # The labels of an in-place operation's target must be read before the operation.
        out = func(*args, **kwargs)
        call = Call.of(func, args, kwargs, out)
        self._trail(call)
        rule = self.rule_for(func)
        if not rule.is_regular and any(self.labels(x) is not None for x in call.tensors):
            self.ledger.irregular = True
        rule.label(self, call)
        self.calls[call.signature.text] += 1
        return out

    def vary(self, tensors: Iterable[torch.Tensor]) -> None:
        """These tensors hold other values each time."""
        for tensor in tensors:
            self._alive.append(tensor)
            self._varying.add(id(tensor))

    def varies(self, tensor: torch.Tensor) -> bool:
        """Whether this tensor holds other values each time: it depends on the network's input, or on chance."""
        return id(tensor) in self._varying

    def _trail(self, call: Call) -> None:
        """Note what depends on the input, and what is a view of every n-th channel."""
        args = call.args
        if torch.Tag.nondeterministic_seeded in call.func.tags or any(id(x) in self._varying for x in call.tensors):
            self.vary(call.results)
        gaps = self._gaps.get(id(args[0])) if self._gaps and args else None
        if gaps is None:
            return
        if call.func._schema.is_mutable:
            labels, dim, positions = gaps
            step = positions[1] - positions[0]
            inside = labels.narrow(dim, positions[0], labels.shape[dim] - positions[0])
            for block in inside.split(step, dim):
                # Only as long as all of a block leaves, every n-th is every n-th that stays: a view, which can be written to.
                self.ledger.tie(block.narrow(dim, 0, 1), block, "lies between channels that are written to")
        else:
            for x in call.results:
                if x._is_view() and _address(x) == _address(args[0]):
                    self._gaps[id(x)] = gaps
                    self._alive.append(x)

    def names(self, site: tuple[str, Site], x: torch.Tensor, places: Mapping[int, int]) -> None:
        """A call names the sizes of these dimensions of a tensor; place among them -> dimension."""
        labels = self.labels(x)
        sizes = () if labels is None else tuple((place, labels, dim) for place, dim in places.items() if labels.shape[dim] > 1)
        if sizes:
            self.ledger.resizes.append(Sized(*site, sizes))

    def reads(self, site: tuple[str, str], x: torch.Tensor, dims: tuple[int, ...]) -> None:
        """Code reads the sizes of these dimensions of a tensor."""
        if torch._C._functorch.is_functorch_wrapped_tensor(x):
            return
        tag = self._tags.get(id(x)) if _address(x) not in self._memories else self.labels(x)
        if isinstance(tag, ParamView) or _address(x) in self._memories or self.is_filled(x):
            places = set()
        else:
            places = {dim for dim in dims if x.shape[dim] > 1 and (tag is None or tag.shape[dim] == 1)}
        self._places_read.update((*site, dim) for dim in places)
        if tag is not None:
            self._alive.append(x)
            self._reads.setdefault((*site, id(x), dims), (x, tag))

    def _settle_reads(self) -> None:
        """Which channels a size counts is known for sure when all has been written into the tensors."""
        known: set[tuple[str, str, int, int]] = set()
        for (module, site, _, dims), (x, first) in self._reads.items():
            final = self.labels(x) if _address(x) in self._memories else None
            tag = first if final is None else final
            sizes = []
            for dim in dims:
                if (module, site, dim) in self._places_read:
                    continue  # there it counts places, too, which may be as many
                atoms = self.ledger.of(tag, dim, None) if isinstance(tag, ParamView) else None
                labels = tag if isinstance(tag, torch.Tensor) else atoms if atoms is None else _lying(atoms, dim, x.dim())
                if labels is None or dim >= labels.dim() or labels.shape[dim] == 1 or labels.shape[dim] != x.shape[dim]:
                    continue
                # Labels that are the same object are read once only.
                key = (module, site, dim, id(tag))
                if key not in known:
                    known.add(key)
                    sizes.append((dim, labels, dim))
            if sizes:
                self.ledger.reads.append(Sized(module, Site(site, 0), tuple(sizes)))

    def picks(self, site: tuple[str, Site], x: torch.Tensor, found: list[Picked], beyond: str) -> None:
        """A call picks positions of this tensor by numbers: where they are channels, other positions when some of those have left."""
        if torch._C._functorch.is_functorch_wrapped_tensor(x):
            self.freeze_all(torch._C._functorch.get_unwrapped(x), "is picked inside of a vmap")
            return
        tag = self.tag(x)
        if tag is None and not self.is_filled(x):
            return
        lines: dict[int, torch.Tensor] = {}
        for one in found:
            if isinstance(tag, ParamView):
                atoms = self.ledger.of(tag, one.dim, None)
                labels = None if atoms is None else atoms.reshape([-1 if d == one.dim else 1 for d in range(x.dim())])
            else:
                labels = tag
            if labels is None:
                continue
            fixed = one.numbers is None or not self.varies(one.numbers)
            if labels.shape[one.dim] > 1 and (one.positions is None or not fixed or beyond):
                why = "in a way that can't be followed" if fixed else "by numbers that depend on the input or on chance"
                why = beyond or why
                self._stay(labels, one.dim, f"is picked {why}")
            lines[one.dim] = labels
        self._picks.append((site, x, lines, found))

    def picked(self, x: torch.Tensor, found: list[Picked], out: Any) -> None:
        """A call has picked this: writes into a view of every n-th channel must still reach these."""
        labels = self.labels(x)
        for one in found:
            gaps = one.how == "range" and one.positions is not None and len(one.positions) > 1 and one.positions[1] - one.positions[0] > 1
            if gaps and labels is not None and labels.shape[one.dim] > 1 and isinstance(out, torch.Tensor):
                assert one.positions is not None
                self._alive.append(out)
                self._gaps[id(out)] = (labels, one.dim, one.positions)

    def _stay(self, labels: torch.Tensor, dim: int, reason: str) -> None:
        """These labels stay where channels leave one by one along this dimension."""
        if sum(size > 1 for size in labels.shape) > 1:
            self.ledger.conditions.append(Condition(labels, dim, None, reason))
        else:
            self.ledger.freeze(labels, reason)

    def _settle_picks(self) -> None:
        """Which channels were picked is known for sure when all has been written into the tensors."""
        same: dict[tuple[str, Site, int, tuple[int | None, ...]], tuple[torch.Tensor, Positions]] = {}
        for (module, call), x, lines, found in self._picks:
            final = self.labels(x) if _address(x) in self._memories else None
            for one in found:
                labels = final if final is not None and final.dim() == x.dim() else lines.get(one.dim)
                if labels is None or labels.shape[one.dim] == 1 or one.positions is None:
                    continue
                size = labels.shape[one.dim]
                if any(not 0 <= place < size for place in one.positions):
                    continue  # the code has turned the tensor round in place since
                self.ledger.resizes.append(Sized(module, call, ((one.dim, labels, one.dim),), (one.positions,)))
                if one.said is not None:
                    whole, before = same.setdefault((module, call, one.dim, one.said), (labels, one.positions))
                    self._pick_alike(whole, labels, one.dim, before, one.positions)
                if len(set(one.positions)) < size:
                    self.ledger.pieces.append(labels.index_select(one.dim, torch.tensor(one.positions, dtype=torch.int64)))

    def _pick_alike(self, whole: torch.Tensor, labels: torch.Tensor, dim: int, before: Positions, positions: Positions) -> None:
        """The same numbers pick from tensors of two widths (a module that is called twice): what they count must leave alike."""
        single = all(sum(size > 1 for size in one.shape) == 1 for one in (whole, labels))
        if whole.shape[dim] != labels.shape[dim] and before == positions and positions and single:
            until = max(positions) + 1
            ours, theirs = whole.narrow(dim, 0, until), labels.narrow(dim, 0, until)
            self.ledger.tie(ours, theirs, "is picked by the same numbers as channels that stay")

    @property
    def module(self) -> str:
        """The module whose forward is running."""
        return self.sized.module

    def resizes(self, sizes: Iterable[tuple[int, torch.Tensor, int]]) -> None:
        """Note that the call under way names the sizes of channels: (place among its sizes, labels, dimension)."""
        found = tuple(sizes)
        if found and self.sized.site is not None:
            self.ledger.resizes.append(Sized(*self.sized.site, found))

    def name(self, tensor: torch.Tensor, tag: torch.Tensor | ParamView | None) -> None:
        """Give a tensor its labels (broadcastable to its shape) or its coordinates."""
        self._alive.append(tensor)
        if tag is None or (isinstance(tag, torch.Tensor) and not bool((tag != 0).any())):
            self._tags.pop(id(tensor), None)
        else:
            self._tags[id(tensor)] = tag

    def tag(self, tensor: object) -> torch.Tensor | ParamView | None:
        """What is known of a tensor."""
        if not isinstance(tensor, torch.Tensor):
            return None
        memory = self._memories.get(_address(tensor)) if self._memories else None
        if memory is None:
            return self._tags.get(id(tensor))
        self._alive.append(tensor)
        labels = memory.read(tensor).clamp_min(0)
        if labels.numel() == 1 < tensor.numel() and memory.has_filled(tensor):
            self.ledger.freeze(labels, "a single channel is written into a tensor beside a fill, which may or may not belong to it")
        return labels if bool(labels.any()) else None

    def labels(self, tensor: object) -> torch.Tensor | None:
        """The compact labels of an activation; None where it has none."""
        found = self.tag(tensor)
        return found if isinstance(found, torch.Tensor) else None

    def fill(self, tensor: torch.Tensor) -> None:
        """This new tensor holds one number throughout, or nothing yet."""
        self._alive.append(tensor)
        self._filled.add(_address(tensor))
        if self.sized.site is not None:
            self._made_at[_address(tensor)] = (self.sized.site, tensor.shape)

    def constants(self, tensor: torch.Tensor, dim: int) -> torch.Tensor | None:
        """Labels of a new tensor of one number that is joined with channels along a dimension: each of its places may leave.

        None where it can't be made smaller, since it is part of another, or its size is not named by the call that made it.
        """
        where = _address(tensor)
        site, size = self._made_at.get(where, (None, None))
        if site is None or size != tensor.shape or where in self._memories or where not in self._filled:
            return None
        labels = self.places(tensor, dim)
        self.ledger.resizes.append(Sized(*site, ((dim, labels, dim),)))
        return labels

    def places(self, like: torch.Tensor, dim: int, count: int | None = None) -> torch.Tensor:
        """Labels along a dimension of places that hold a constant: each leaves with the channel that it meets."""
        count = like.shape[dim] if count is None else count
        atoms = torch.arange(count) + self.ledger.new(count)
        return atoms.reshape([-1 if d == dim else 1 for d in range(like.dim())])

    def is_filled(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor holds nothing but what its memory was filled with."""
        memory = self._memories.get(_address(tensor))
        return _address(tensor) in self._filled if memory is None else memory.is_filled(tensor)

    def settle_memories(self) -> None:
        """The run is over: calls that made tensors into which channels were written name the sizes of these channels."""
        for where, owner in self._owners.items():
            site, size = self._made_at.get(where, (None, None))
            labels = self.labels(owner)
            if site is not None and size == owner.shape and labels is not None:
                sizes = tuple((dim, labels, dim) for dim, count in enumerate(labels.shape) if count > 1)
                self.ledger.resizes.append(Sized(*site, sizes))
        self._settle_picks()
        self._settle_reads()

    def noise(self, tensor: torch.Tensor) -> None:
        """This tensor holds random values, drawn for each element by itself."""
        self._alive.append(tensor)
        self._noise.add(_address(tensor))

    def is_noise(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor holds random values."""
        return bool(self._noise) and _address(tensor) in self._noise

    def write(self, tensor: torch.Tensor, labels: torch.Tensor | None) -> None:
        """The tensor has been written to: it has these labels, or none, and so has what else lies in its memory."""
        where = _address(tensor)
        self._noise.discard(where)
        if where not in self._memories:
            if labels is None:
                self._filled.discard(where)
                return
            self._remember(tensor)
        self._memories[where].write(tensor, torch.zeros(1, dtype=torch.int64) if labels is None else labels)

    def rewrite(self, tensor: torch.Tensor, labels: torch.Tensor | None) -> None:
        """Values with labels were added to what the tensor held, which had these: what was filled is so no more."""
        memory = self._memories.get(_address(tensor))
        if memory is not None and memory.has_filled(tensor):
            self.write(tensor, labels)

    def _remember(self, tensor: torch.Tensor) -> None:
        """Give the memory of this tensor labels of its own, those that its owner has now."""
        owner = tensor if tensor._base is None else tensor._base
        size = tensor.untyped_storage().nbytes() // tensor.element_size()
        memory = Memory(torch.full((size,), FILL if _address(tensor) in self._filled else 0))
        labels = self.labels(owner)
        if labels is not None:
            memory.write(owner, labels)
        self._alive += [tensor, owner]
        self._memories[_address(tensor)] = memory
        self._owners[_address(tensor)] = owner

    def mixes(self, call: Call, labels: Mapping[int, Iterable[torch.Tensor]]) -> None:
        """Note that this call mixes the channels along dimensions of its first argument: dim -> labels that live there."""
        text = call.signature.text
        found = [(dim, one) for dim, several in labels.items() for one in several]
        if found:
            self.ledger.irregular = True
            dims, lines = zip(*found, strict=True)
            self.ledger.mixings.append(Mixing(text, self.calls[text], dims, lines))

    def promote(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """Labels of an activation, or of a parameter that stands in for one (a class token): its last dimension's atoms."""
        view = self.param(tensor)
        if view is None:
            return self.labels(tensor)
        self.ledger.used.add(view.name)
        for dim in reversed(range(tensor.dim())):
            if tensor.shape[dim] > 1:
                atoms = self.ledger.of(view, dim, "channel")
                if atoms is None:
                    self.ledger.freeze_param(view, "a parameter is used in an order that can't be followed")
                    return None
                return atoms.reshape([-1 if d == dim else 1 for d in range(tensor.dim())])
        return None

    def over_places(self, tensor: torch.Tensor, places: int) -> torch.Tensor | None:
        """Labels of an activation, or of a parameter that stands in for one (a table of positions), over whose last dimensions
        something mixes places; what varies along those is one channel.

        None where there are none, or where a parameter has not one but several dimensions besides its places.
        """
        view, rank = self.param(tensor), tensor.dim()
        if view is None:
            labels = self.labels(tensor)
            return None if labels is None else self.ledger.squash(labels, range(rank - places, rank))
        self.ledger.used.add(view.name)
        besides = [d for d in range(rank - places) if tensor.shape[d] > 1]
        # Of several tables at once (one a layer) the channels lie next to the places.
        channels = rank - places - 1 if rank - places - 1 in besides else besides[0] if len(besides) == 1 else None
        found = None if channels is None else view.along(channels)
        if channels is None or found is None:
            self.ledger.freeze_param(view, "a parameter is resampled in an order that can't be followed")
            return None
        for axis, size in enumerate(self.ledger.shapes[view.name]):
            if axis != found[0]:
                self.ledger.freeze(torch.arange(size) + self.ledger.base[view.name, axis], "are places of a table")
        atoms = self.ledger.of(view, channels, "channel")
        assert atoms is not None
        return atoms.reshape([-1 if d == channels else 1 for d in range(rank)])

    def param(self, tensor: object) -> ParamView | None:
        """The coordinates of a parameter's view; None for anything else."""
        found = self.tag(tensor)
        return found if isinstance(found, ParamView) else None

    def freeze_all(self, values: Any, reason: str) -> None:
        """Freeze whatever the tensors among these values carry."""
        for tensor in tensors_of(values):
            view = self.param(tensor)
            if view is not None:
                self.ledger.used.add(view.name)
                self.ledger.freeze_param(view, reason)
            else:
                self.ledger.freeze(self.labels(tensor), reason)
