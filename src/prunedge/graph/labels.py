"""Integer labels, pushed through the running model, find the channels that leave together.

The idea. Give every position along every dimension of every parameter a number of its own, an
*atom*. Run the model once. Beside each tensor travels a tensor of labels of the same shape that
says, element by element, which atom made it:

    weight (4 filters)     conv        relu    view(1, 2, 2, ...)  transpose       view
    atoms 11 12 13 14 -> 11 12 13 14 -> same ->  11 12 | 13 14 -> 11 13 | 12 14 -> 11 13 12 14

(the last three are a channel shuffle).

Operations that only move elements are done to the labels *by the same operation with the same
arguments*: slices, concatenations, permutations and flattenings need no rule of their own.
Operations that combine elements *tie* labels: a residual sum ties the atoms of its two branches, a
convolution ties its input's labels to the slices of its weight that meet them. What is tied must
leave together; the connected components of all ties are the channels.

Label 0 means 'not a channel' (batch, space, constants). Whatever an operation does that no rule
describes *freezes* the labels that it touches: the model keeps those channels, with the reason.
So a missing rule costs compression, never correctness.

Labels are constant over batch and space, and kept *compact*: a dimension along which they don't
vary has size 1. Parameters and their views carry, instead of labels, the coordinates of each
element along each of the parameter's dimensions, moved by the same operations: a weight that
reaches `addmm` transposed still knows which dimension is which.

What is written in place into part of a tensor must reach the tensor, and whatever else looks at its
memory. From the first such write on, that memory has labels of its own, one for each element, and
every tensor in it reads them there (`Memory`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from prunedge.graph.calls import Call
from prunedge.graph.inputs import tensors_of
from prunedge.graph.label_tensors import Labels, lying_along
from prunedge.graph.ledger import Ledger, Mixing
from prunedge.graph.memory import Memories
from prunedge.graph.named_sizes import NamedSizes
from prunedge.graph.parameters import ParamView
from prunedge.graph.sizes import SizedCalls

if TYPE_CHECKING:
    from prunedge.graph.rules.registry import Rule

Tag = Labels | ParamView  # what is known of a tensor: an activation's labels, or a parameter's view


class Labeller(TorchDispatchMode):
    """Runs beside the model and labels each tensor that it makes; see the module's first lines.

    What it learns goes into the `ledger`. `memory` knows what was written in place, `sizes` what
    the model's code names, and `code` whose code is running. `by_width`: of attention the width of
    the heads leaves, not whole heads.
    """

    def __init__(
        self,
        ledger: Ledger,
        rule_for: Callable[[Any], Rule],
        batch: int,
        *,
        by_width: bool = False,
    ) -> None:
        super().__init__()
        self.ledger = ledger
        self.batch = batch
        self.by_width = by_width
        self.memory = Memories(self.labels)
        self.sizes = NamedSizes(self)
        self.code = SizedCalls(self.sizes)
        self.states: dict[str, Labels] = {}  # the units of each recurrent layer's state, by path

        self._rule_for = rule_for
        self._calls: Counter[str] = Counter()
        self._tags: dict[int, Tag] = {}
        self._varying: set[int] = set()  # tensors that depend on the model's input, or on chance
        # Tensors are known by identity, and Python reuses the ids of the dead: keep all alive.
        self._alive: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        call = Call.of(func, args, kwargs, out)
        if torch.Tag.nondeterministic_seeded in func.tags or any(map(self.varies, call.tensors)):
            self.vary(call.results)
        self.sizes.follow_gaps(call)

        rule = self._rule_for(func)
        if not rule.is_regular and any(self.labels(x) is not None for x in call.tensors):
            self.ledger.irregular = True
        rule.label(self, call)
        self._calls[call.signature.text] += 1
        return out

    @property
    def module(self) -> str:
        """The module whose forward is running."""
        return self.code.module

    def vary(self, tensors: Iterable[torch.Tensor]) -> None:
        """These tensors hold other values each time."""
        for tensor in tensors:
            self._alive.append(tensor)
            self._varying.add(id(tensor))

    def varies(self, tensor: torch.Tensor) -> bool:
        """Whether this tensor holds other values each time: by the model's input, or by chance."""
        return id(tensor) in self._varying

    def name(self, tensor: torch.Tensor, tag: Tag | None) -> None:
        """Give a tensor its labels (broadcastable to its shape) or its coordinates."""
        self._alive.append(tensor)
        if tag is None or (isinstance(tag, torch.Tensor) and not bool((tag != 0).any())):
            self._tags.pop(id(tensor), None)
        else:
            self._tags[id(tensor)] = tag

    def tag(self, tensor: object) -> Tag | None:
        """What is known of a tensor."""
        if not isinstance(tensor, torch.Tensor):
            return None
        memory = self.memory.at(tensor)
        if memory is None:
            return self._tags.get(id(tensor))

        self._alive.append(tensor)
        labels = memory.read(tensor).clamp_min(0)
        if labels.numel() == 1 < tensor.numel() and memory.has_filled(tensor):
            beside = "a single channel is written into a tensor beside a fill"
            self.ledger.freeze(labels, f"{beside}, which may or may not belong to it")
        return labels if bool(labels.any()) else None

    def labels(self, tensor: object) -> Labels | None:
        """The compact labels of an activation; None where it has none."""
        tag = self.tag(tensor)
        return tag if isinstance(tag, torch.Tensor) else None

    def param(self, tensor: object) -> ParamView | None:
        """The coordinates of a parameter's view; None for anything else."""
        tag = self.tag(tensor)
        return tag if isinstance(tag, ParamView) else None

    def promote(self, tensor: torch.Tensor) -> Labels | None:
        """Labels of an activation, or of a parameter that stands in for one (a class token).

        Such a parameter's channels are those of its last dimension.
        """
        view = self.param(tensor)
        if view is None:
            return self.labels(tensor)
        self.ledger.used.add(view.name)
        channels = next((d for d in reversed(range(tensor.dim())) if tensor.shape[d] > 1), None)
        if channels is None:
            return None
        atoms = self.ledger.of(view, channels, "channel")
        if atoms is None:
            self.ledger.freeze_param(view, "a parameter is used in an order that can't be followed")
            return None
        return lying_along(atoms, channels, tensor.dim())

    def over_places(self, tensor: torch.Tensor, places: int) -> Labels | None:
        """Labels of a tensor over whose last dimensions something mixes places.

        What varies along those is one channel. Of an activation, or of a parameter that stands in
        for one (a table of positions). None where there are none, or where a parameter has not one
        but several dimensions besides its places.
        """
        view = self.param(tensor)
        rank = tensor.dim()
        if view is None:
            labels = self.labels(tensor)
            if labels is None:
                return None
            return self.ledger.squash(labels, range(rank - places, rank))

        self.ledger.used.add(view.name)
        channels = _channels_beside(tensor, places)
        line = None if channels is None else view.along(channels)
        if channels is None or line is None:
            reason = "a parameter is resampled in an order that can't be followed"
            self.ledger.freeze_param(view, reason)
            return None
        self.ledger.freeze_other_axes(view, line[0])
        atoms = self.ledger.of(view, channels, "channel")
        assert atoms is not None
        return lying_along(atoms, channels, rank)

    def fill(self, tensor: torch.Tensor) -> None:
        """This new tensor holds one number throughout, or nothing yet."""
        self.memory.fill(tensor)
        self.sizes.made(tensor)

    def freeze_all(self, values: Any, reason: str) -> None:
        """Freeze whatever the tensors among these values carry."""
        for tensor in tensors_of(values):
            view = self.param(tensor)
            if view is not None:
                self.ledger.used.add(view.name)
                self.ledger.freeze_param(view, reason)
            else:
                self.ledger.freeze(self.labels(tensor), reason)

    def mixes(self, call: Call, labels: Mapping[int, Iterable[Labels]]) -> None:
        """Note that this call mixes the channels along dimensions of its first argument.

        `labels` holds for each dimension those that live there.
        """
        dims: list[int] = []
        mixed: list[Labels] = []
        for dim, lines in labels.items():
            for line in lines:
                dims.append(dim)
                mixed.append(line)
        if not mixed:
            return

        self.ledger.irregular = True
        operation = call.signature.text
        number = self._calls[operation]
        self.ledger.mixings.append(Mixing(operation, number, tuple(dims), tuple(mixed)))


def _channels_beside(tensor: torch.Tensor, places: int) -> int | None:
    """The dimension of a table's channels, which lie next to its places."""
    last = tensor.dim() - places - 1
    besides = [dim for dim in range(last + 1) if tensor.shape[dim] > 1]
    if last in besides:
        return last  # of several tables at once (one a layer)
    return besides[0] if len(besides) == 1 else None
