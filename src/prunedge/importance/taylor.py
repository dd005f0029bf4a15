"""Taylor expansion of the loss: gathered from gradients that fine-tuning computes anyway."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import nn
from torch.utils._pytree import tree_flatten

from prunedge import ranks
from prunedge.errors import GraphError
from prunedge.graph import ChannelGraph, Group, Slice, call
from prunedge.importance.scores import Scores, checked
from prunedge.importance.taps import Tap, feature_dim, scales_of
from prunedge.importance.taps import taps as taps_of
from prunedge.spans import timed

CHUNK = 2**18  # numbers that are multiplied at once on a processor: 1 MB
KINDS = ("taylor", "taylor-fo", "fisher", "signed")


class TaylorCollector:
    """Accumulates a criterion of the Taylor family while a network trains or runs backward passes.

    For each example n the first-order change of the loss when a channel is zeroed at all its consumers is minus
    c_n = sum over consumers and places of dC/dz * z, with z the consumer's input. With w the weights that consume the channel, c_n is
    also sum w * dC/dw. Four criteria come from it:

    `taylor`: its absolute value *per example*, divided by the M positions of the channel's map, averaged over the examples:

        theta = 1/N sum_n | 1/M sum_m (dC/dz_nm * z_nm) |     (Molchanov et al. 2017, equations 8 and following)

    On a plain chain this is the published formula exactly (pooling between a channel and its consumer keeps the sum,
    and M counts the producer's places).

    `taylor-fo`: (1/N sum_n c_n)^2, the squared sum of weight * gradient of the mean loss (Molchanov et al. 2019, equation 8, with
    the gate of section 3.2 at the channel's consumers).

    `fisher`: 1/(2N) sum_n c_n^2, the second-order term with the empirical Fisher information in the Hessian's place (Theis et al. 2018,
    equation 13).

    `signed`: -1/N sum_n c_n, the first-order estimate of the loss's change itself.

    With a `function`, which gives a number for each of the c_n, (examples, channels), its mean: a user's own.

    The loss must be the mean over the batch; `start_batch` scales it back. Several processes may each see a part of the batch, and of
    the gradient of the mean over the whole.
    Sums run in float64; memory does not grow with the number of pictures.

    Where a consumer is no `nn.Linear` or convolution that is called as such (torch's own attention, parametrised weights, bare
    parameters), nobody sees its input. The same sum over places and *all examples of a batch* is then read off the weights that consume the
    channel, sum of w * dC/dw: exact for `taylor-fo` and `signed`, a batch in the place of an example for the others.
    """

    def __init__(self, graph: ChannelGraph, kind: str = "taylor", function: Callable[[torch.Tensor], torch.Tensor] | None = None) -> None:
        if function is None and kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind}")
        self._graph, self._kind, self._function = graph, kind, function
        self._groups = {group.name: group for group in graph.groups}
        self._unused: frozenset[str] = frozenset()
        self.reset()

    def reset(self) -> None:
        """Forget what was gathered."""
        self._sums = {name: torch.zeros(group.size, dtype=torch.float64) for name, group in self._groups.items()}
        self._pending: dict[str, torch.Tensor] = {}
        self._by_weight: dict[str, torch.Tensor] = {}
        self._seen: set[tuple[str, int]] = set()
        self._batch = self._here = self._examples = 0
        self._is_divided = False

    def start_batch(self, batch_size: int, here: int | None = None) -> None:
        """Say before each forward pass how many examples the batch holds, and how many of them pass `here` (None: all, undivided)."""
        self._flush()
        self._batch, self._here, self._is_divided = batch_size, batch_size if here is None else here, here is not None

    def absorb(self, other: Self) -> None:
        """Take over what another collector has gathered, on other pictures or in another process."""
        self.take_over(other.gathered())

    def gathered(self) -> Any:
        """The sums and the number of examples since the last `reset`, for another process."""
        self._flush()
        return self._sums, self._examples

    def take_over(self, gathered: Any) -> None:
        """Add what another collector's `gathered` gave."""
        self._flush()
        sums, examples = gathered
        for name, total in sums.items():
            self._sums[name] += total
        self._examples += examples

    def result(self) -> Scores:
        """The scores of everything since the last `reset`."""
        self._flush()
        if not self._examples:
            raise GraphError("the Taylor criterion has seen no pictures", remedy="rank on at least one batch")
        values = {name: total / self._examples for name, total in self._sums.items()}
        if self._kind == "taylor-fo":
            values = {name: value.square() for name, value in values.items()}
        return Scores(values, self._kind, self._examples)

    @contextmanager
    def attach(self, network: nn.Module) -> Iterator[None]:
        """Watch every consumer of every group while the context lasts."""
        taps = taps_of(network, self._graph)
        handles = []
        parameters = dict(network.named_parameters())
        for group in self._groups.values():
            for part in group.having("in"):
                weight = parameters.get(part.tensor)
                if weight is not None and weight.requires_grad:
                    handles.append(weight.register_hook(self._watch_weight(group, part, weight)))
        handles += [module.register_forward_pre_hook(self._watch(tuple(found))) for module, found in taps.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def needs(self, network: nn.Module) -> set[str]:
        """The weights whose gradients the criterion reads, because they take part though nobody sees their input.

        Runs the graph's example once, to tell them from those that don't take part; gradients and flags of the parameters change.
        """
        for parameter in network.parameters():
            parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())
            parameter.grad = None
        with self.attach(network), torch.enable_grad():
            outputs = tree_flatten(call(network, self._graph.example))[0]
            unseen = self.unseen()
            total = torch.zeros(())
            for output in outputs:
                if isinstance(output, torch.Tensor) and output.requires_grad:
                    total = total.to(output.device) + output.float().sum()
            total.backward()
        self.reset()
        idle = {name for name, parameter in network.named_parameters() if parameter.grad is None}
        self.leave_out(idle)
        return unseen - idle

    def unseen(self) -> set[str]:
        """Tensors that consume groups of which the last forward pass did not show every consumer."""
        return {part.tensor for group in self._groups.values() if not self._sees(group) for part in group.having("in")}

    def leave_out(self, tensors: Collection[str]) -> None:
        """These tensors take no part in the network's mode (auxiliary heads in evaluation): their layers are not waited for."""
        self._unused = frozenset(tensors)

    def _sees(self, group: Group) -> bool:
        parts = enumerate(group.having("in"))
        return all((group.name, place) in self._seen or part.tensor in self._unused for place, part in parts)

    def _watch_weight(self, group: Group, part: Slice, weight: torch.Tensor):  # type: ignore[no-untyped-def]
        indices = torch.as_tensor(part.indices)

        @timed("rank")
        def hook(gradient: torch.Tensor) -> None:
            if self._sees(group):
                return
            lines = (weight.detach() * gradient.detach()).movedim(part.dim, 0).flatten(1).sum(1)
            change = lines[indices.to(lines.device)].sum(1)  # (channels,)
            if self._is_divided:
                change = ranks.total(change)
            before = self._by_weight.get(group.name)
            self._by_weight[group.name] = change if before is None else before + change

        return hook

    def _watch(self, taps: tuple[Tap, ...]):  # type: ignore[no-untyped-def]
        def hook(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
            self._seen.update((tap.group, tap.place) for tap in taps)
            if not torch.is_grad_enabled():
                return None
            # A view of its own: the gradient at *this* consumer, not the sum over all that use the tensor.
            # Behind frozen layers nothing asks for gradients, so the view asks itself.
            z = args[0].view_as(args[0]) if args[0].requires_grad else args[0].detach().requires_grad_()
            # The hook must not hold `z` itself: a tensor that its own hook refers to keeps the whole batch's graph alive.
            value = z.detach()
            z.register_hook(lambda gradient: self._gather(module, taps, value, gradient.detach()))
            return (z, *args[1:])

        return hook

    @timed("rank")
    def _gather(self, module: nn.Module, taps: tuple[Tap, ...], z: torch.Tensor, gradient: torch.Tensor) -> None:
        features = feature_dim(module, z)
        places = [d for d in range(1, z.dim()) if d != features]
        change = _products(z, gradient, places)  # (examples, features)
        for tap in taps:
            columns = tap.columns.to(change.device)
            part = change[:, columns.reshape(-1)].reshape(len(change), *columns.shape).sum(-1)  # (examples, channels)
            before = self._pending.get(tap.group)
            self._pending[tap.group] = part if before is None else before + part

    @timed("rank")
    def _flush(self) -> None:
        for name, change in self._pending.items():
            # A process without examples runs one that doesn't count.
            if self._here and self._sees(self._groups[name]):
                # The loss is a mean over the batch: an example's own gradient is the batch's size times larger.
                self._sums[name] += self._worth(change.double() * self._batch, self._groups[name]).sum(0).cpu()
        for name, change in self._by_weight.items():
            self._sums[name] += self._worth(change.double()[None], self._groups[name])[0].cpu() * self._here
        if self._pending or self._by_weight:
            self._examples += self._here
        self._pending, self._by_weight, self._seen = {}, {}, set()

    def _worth(self, change: torch.Tensor, group: Group) -> torch.Tensor:
        """What the criterion adds up, from the examples' c."""
        if self._function is not None:
            return checked(self._function(change), change.shape, self._kind)
        if self._kind == "taylor":
            return change.abs() / group.positions
        if self._kind == "fisher":
            return change.square() / 2
        return -change if self._kind == "signed" else change


def _products(z: torch.Tensor, gradient: torch.Tensor, places: list[int]) -> torch.Tensor:
    """z * gradient, added up over the places, for each example: at least in float32."""
    precise = torch.promote_types(z.dtype, torch.float32)
    # On a processor a few examples at a time, in memory that is at hand: fresh memory for whole maps costs more than the arithmetic.
    step = max(1, CHUNK * len(z) // max(1, z.numel())) if z.device.type == "cpu" and places else max(1, len(z))
    parts = [
        (product.sum(places) if places else product)
        for start in range(0, len(z), step)
        for product in (z[start : start + step].to(precise) * gradient[start : start + step].to(precise),)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class ScaleCollector:
    """`taylor-bn`: the first-order change of the loss when the norms behind a channel put out nothing, squared.

    theta = (sum over the group's norms of gamma * dC/dgamma + beta * dC/dbeta)^2, C the mean loss over all pictures (Molchanov et al. 2019,
    equation 9). Groups without a norm have no score.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        self._graph = graph
        self.reset()

    def reset(self) -> None:
        """Forget what was gathered."""
        self._sums: dict[str, torch.Tensor] = {}
        self._batch = self._examples = 0

    def start_batch(self, batch_size: int, here: int | None = None) -> None:
        """Say before each forward pass how many examples the batch holds, and how many of them pass `here` (None: all)."""
        self._batch = batch_size
        self._examples += batch_size if here is None else here

    def needs(self, network: nn.Module) -> set[str]:
        """The weights whose gradients the criterion reads."""
        return {name for group in self._graph.groups for name, _ in self._parts(network, group)}

    @contextmanager
    def attach(self, network: nn.Module) -> Iterator[None]:
        """Watch the scales and shifts of every group while the context lasts."""
        parameters = dict(network.named_parameters())
        handles = [
            parameters[name].register_hook(self._watch(group, parameters[name], indices))
            for group in self._graph.groups
            for name, indices in self._parts(network, group)
            if parameters[name].requires_grad
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def absorb(self, other: Self) -> None:
        """Take over what another collector has gathered, on other pictures or in another process."""
        self.take_over(other.gathered())

    def gathered(self) -> Any:
        """The sums and the number of examples since the last `reset`, for another process."""
        return self._sums, self._examples

    def take_over(self, gathered: Any) -> None:
        """Add what another collector's `gathered` gave."""
        sums, examples = gathered
        for name, total in sums.items():
            self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._examples += examples

    def result(self) -> Scores:
        """The scores of everything since the last `reset`."""
        if not self._examples:
            raise GraphError("the criterion 'taylor-bn' has seen no pictures", remedy="rank on at least one batch")
        if not self._sums:
            raise GraphError("the criterion 'taylor-bn' reads batch norms, and this network has none", remedy="use taylor")
        return Scores({name: (total / self._examples).square() for name, total in self._sums.items()}, "taylor-bn", self._examples)

    def _parts(self, network: nn.Module, group: Group) -> list[tuple[str, torch.Tensor]]:
        scales = scales_of(network, group)
        shifts = {f"{name.removesuffix('weight')}bias" for name, _ in scales}
        return scales + [(part.tensor, torch.as_tensor(part.indices)) for part in group.having("channel") if part.tensor in shifts]

    def _watch(self, group: Group, parameter: torch.Tensor, indices: torch.Tensor):  # type: ignore[no-untyped-def]
        @timed("rank")
        def hook(gradient: torch.Tensor) -> None:
            change = (parameter.detach().double() * gradient.double()).cpu()[indices].sum(1) * self._batch
            self._sums[group.name] = self._sums[group.name] + change if group.name in self._sums else change

        return hook
