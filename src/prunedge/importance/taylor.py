"""Taylor expansion of the loss: gathered from gradients that fine-tuning computes anyway."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from prunedge.errors import GraphError
from prunedge.graph import ChannelGraph, Group, Slice
from prunedge.importance.scores import Scores

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class _Tap:
    """Where one group is read: columns (channels, k) of a consumer's input features."""

    group: str
    place: int
    columns: torch.Tensor


class TaylorCollector:
    """Accumulates the Taylor criterion while a network trains or runs backward passes.

    For each example the first-order change of the loss when a channel is zeroed at all its consumers is
    sum over consumers and places of dC/dz * z, with z the consumer's input. Its absolute value *per example*, divided by
    the M positions of the channel's map, is averaged over the examples:

        theta = 1/N sum_n | 1/M sum_m (dC/dz_nm * z_nm) |     (Molchanov et al. 2017, equations 8 and following)

    On a plain chain this is the published formula exactly (pooling between a channel and its consumer keeps the sum,
    and M counts the producer's places). The loss must be the mean over the batch; `start_batch` scales it back.
    Sums run in float64; memory does not grow with the number of pictures.

    Where a consumer is no `nn.Linear` or convolution that is called as such (torch's own attention, parametrised weights, bare
    parameters), nobody sees its input. The same sum over places and *all examples of a batch* is then read off the weights that consume the
    channel, sum of w * dC/dw, and its absolute value is averaged over the batches.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        self._groups = {group.name: group for group in graph.groups}
        self._unused: frozenset[str] = frozenset()
        self.reset()

    def reset(self) -> None:
        """Forget what was gathered."""
        self._sums = {name: torch.zeros(group.size, dtype=torch.float64) for name, group in self._groups.items()}
        self._pending: dict[str, torch.Tensor] = {}
        self._by_weight: dict[str, torch.Tensor] = {}
        self._seen: set[tuple[str, int]] = set()
        self._batch = self._examples = 0

    def start_batch(self, batch_size: int) -> None:
        """Say before each forward pass how many examples it holds."""
        self._flush()
        self._batch = batch_size

    def result(self) -> Scores:
        """The scores of everything since the last `reset`."""
        self._flush()
        if not self._examples:
            raise GraphError("the Taylor criterion has seen no pictures", remedy="rank on at least one batch")
        values = {name: total / self._examples for name, total in self._sums.items()}
        return Scores(values, "taylor", self._examples)

    @contextmanager
    def attach(self, network: nn.Module) -> Iterator[None]:
        """Watch every consumer of every group while the context lasts."""
        taps: dict[nn.Module, list[_Tap]] = {}
        handles = []
        parameters = dict(network.named_parameters())
        for group in self._groups.values():
            for place, part in enumerate(group.having("in")):
                module = _consumer(network, part)
                if module is not None:
                    taps.setdefault(module, []).append(_Tap(group.name, place, _columns(module, part, group)))
                weight = parameters.get(part.tensor)
                if weight is not None and weight.requires_grad:
                    handles.append(weight.register_hook(self._watch_weight(group, part, weight)))
        handles += [module.register_forward_pre_hook(self._watch(tuple(found))) for module, found in taps.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

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

        def hook(gradient: torch.Tensor) -> None:
            if self._sees(group):
                return
            lines = (weight.detach() * gradient.detach()).movedim(part.dim, 0).flatten(1).sum(1)
            change = lines[indices.to(lines.device)].sum(1)  # (channels,)
            before = self._by_weight.get(group.name)
            self._by_weight[group.name] = change if before is None else before + change

        return hook

    def _watch(self, taps: tuple[_Tap, ...]):  # type: ignore[no-untyped-def]
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

    def _gather(self, module: nn.Module, taps: tuple[_Tap, ...], z: torch.Tensor, gradient: torch.Tensor) -> None:
        features = 1 if isinstance(module, _CONVOLUTIONS) else z.dim() - 1
        places = [d for d in range(1, z.dim()) if d != features]
        product = z.float() * gradient.float()
        change = product.sum(places) if places else product  # (examples, features)
        for tap in taps:
            columns = tap.columns.to(change.device)
            part = change[:, columns.reshape(-1)].reshape(len(change), *columns.shape).sum(-1)  # (examples, channels)
            before = self._pending.get(tap.group)
            self._pending[tap.group] = part if before is None else before + part

    def _flush(self) -> None:
        for name, change in self._pending.items():
            if self._sees(self._groups[name]):
                scale = self._batch / self._groups[name].positions
                self._sums[name] += change.double().abs().sum(0).cpu() * scale
        for name, change in self._by_weight.items():
            self._sums[name] += change.double().abs().cpu() * self._batch / self._groups[name].positions
        if self._pending or self._by_weight:
            self._examples += self._batch
        self._pending, self._by_weight, self._seen = {}, {}, set()


def _consumer(network: nn.Module, part: Slice) -> nn.Module | None:
    """The linear layer or convolution whose input is what this weight consumes; None where the weight is used by other code."""
    path, _, leaf = part.tensor.rpartition(".")
    module = network.get_submodule(path)
    return module if leaf == "weight" and isinstance(module, (nn.Linear, *_CONVOLUTIONS)) else None


def _columns(module: nn.Module, part: Slice, group: Group) -> torch.Tensor:
    """Which input features of a consumer belong to each channel, (channels, k) int64."""
    if not isinstance(module, nn.modules.conv._ConvNd):
        return torch.as_tensor(part.indices)
    width = module.in_channels // module.groups
    blocks = np.arange(module.groups) * width
    spread = part.indices[:, :, None] + (blocks if part.dim == 1 else np.zeros(1, dtype=np.int64))
    return torch.as_tensor(spread.reshape(group.size, -1))
