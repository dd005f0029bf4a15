"""Recovery without training: what the removed channels gave on average, or what others can say in their place, goes to their consumers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from prunedge.graph import ChannelGraph
from prunedge.graph.inputs import brought_to
from prunedge.graph.plan import Plan
from prunedge.importance.consumers import CONVOLUTIONS, feature_dim, taps
from prunedge.models.cost import evaluating
from prunedge.models.tf32 import full_float32
from prunedge.utils.tracing import timed

log = logging.getLogger(__name__)

How = Literal["none", "mean", "lstsq"]
Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]

LARGEST = 8192  # input features (times the kernel's places) up to which a layer's least squares are solved
_PLACES = 24  # of each picture's map that least squares look at
_RIDGE = 1e-3  # of the features' mean square: keeps the new weights near the old where the pictures don't tell


@dataclass(frozen=True)
class Compensation:
    """Which consumers were given something: whole `solved` layers, `shifted` biases; those `left` as they were, with the reason."""

    solved: tuple[str, ...]
    shifted: tuple[str, ...]
    left: dict[str, str]


@dataclass(frozen=True)
class _Consumer:
    """A layer that loses inputs: how many it keeps, which of its outputs stay, and where its shift can go."""

    name: str
    inputs: int
    kept_outputs: torch.Tensor
    home: str | None  # the layer's own bias, or the running mean of the batch norm behind it


@timed("compensate")
@full_float32()
def compensate(network: nn.Module, graph: ChannelGraph, plan: Plan, small: nn.Module, batches: Batches, how: How = "mean") -> Compensation:
    """Change the consumers of removed channels in `small`, in place, so that they miss as little as possible; nothing is trained.

    `mean`: each consumer's bias takes over the mean contribution of the removed channels, E[f(z) - f(z without them)] over the `batches`
    (inputs, labels), which must be the same each time. Where a layer has no bias, the batch norm behind it takes it off its running mean.
    `lstsq`: also solves each linear layer's and ungrouped convolution's weights, in the order in which they run, for the least squared
    difference between its outputs in the pruned network, which sees what the layers before it now give, and those in the whole one (the
    asymmetric reconstruction of He et al. 2017, section 3.2), with a ridge around the old weights. Layers with more than `LARGEST`
    inputs, and others, get the mean alone.
    """
    if how == "none" or not plan.keep:
        return Compensation((), (), {})
    pictures = [brought_to(inputs, network) for inputs, _ in batches]
    consumers, order, means = _observed(network, graph, plan, pictures)
    solvable = {one.name: _solvable(network.get_submodule(one.name), one) for one in consumers}
    solved: list[str] = []
    shifted: list[str] = []
    left: dict[str, str] = {}
    tensors = {**dict(small.named_parameters()), **dict(small.named_buffers())}
    targets = _targets(network, [one for one in consumers if solvable[one.name]], pictures) if how == "lstsq" else {}
    for one in sorted(consumers, key=lambda one: order[one.name]):
        if one.home is None:
            left[one.name] = "it has no bias, and no batch norm right behind it"
        if one.name in targets:
            _solve(small, one, pictures, targets[one.name], tensors)
            solved.append(one.name)
        elif one.home is not None:
            _shift(tensors, one.home, means[one.name][one.kept_outputs])
            shifted.append(one.name)
    return Compensation(tuple(solved), tuple(shifted), {name: why for name, why in left.items() if name not in solved})


def _observed(
    network: nn.Module, graph: ChannelGraph, plan: Plan, batches: Sequence[torch.Tensor]
) -> tuple[list[_Consumer], dict[str, int], dict[str, torch.Tensor]]:
    """The consumers that lose inputs, the order in which they run, and the mean contribution to each of their outputs, float64."""
    names = {module: name for name, module in network.named_modules()}
    gone: dict[str, torch.Tensor] = {}
    for module, several in taps(network, graph).items():
        features = [tap.columns[_absent(len(tap.columns), plan.keep[tap.group])].flatten() for tap in several if tap.group in plan.keep]
        if features:
            gone[names[module]] = torch.cat(features).unique()
    sums: dict[str, torch.Tensor] = {}
    counts: dict[str, int] = {}
    order: dict[str, int] = {}
    norms: dict[str, str] = {}
    outputs: dict[int, tuple[torch.Tensor, str]] = {}

    def consumed(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], out: torch.Tensor) -> None:
            order.setdefault(name, len(order))
            z = args[0]
            cut = z.index_fill(feature_dim(module, z), gone[name].to(z.device), 0)
            change = (out - type(module).forward(module, cut)).double()
            dims = [d for d in range(out.dim()) if d != (1 if isinstance(module, CONVOLUTIONS) else out.dim() - 1)]
            sums[name] = sums.get(name, 0) + change.sum(dims).cpu()
            counts[name] = counts.get(name, 0) + change.numel() // len(sums[name])
            outputs[id(out)] = (out, name)

        return hook

    def normed(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            if id(args[0]) in outputs:
                norms[outputs[id(args[0])][1]] = name

        return hook

    handles = [network.get_submodule(name).register_forward_hook(consumed(name)) for name in gone]
    handles += [
        module.register_forward_pre_hook(normed(name))
        for name, module in network.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None
    ]
    try:
        with evaluating(network), torch.no_grad():
            for inputs in batches:
                network(inputs)
                outputs.clear()
    finally:
        for handle in handles:
            handle.remove()
    kept = graph.kept(plan)
    found = []
    for name in order:
        module = network.get_submodule(name)
        home = f"{name}.bias" if module.bias is not None else f"{norms[name]}.running_mean" if name in norms else None
        own = home or f"{name}.weight"
        stays = kept.get(own, {}).get(0, np.arange(len(sums[name])))
        width = module.in_features if isinstance(module, nn.Linear) else module.in_channels
        found.append(_Consumer(name, int(width) - len(gone[name]), torch.as_tensor(stays), home))  # type: ignore[arg-type]
    return found, order, {name: sums[name] / counts[name] for name in order}


def _targets(network: nn.Module, consumers: Sequence[_Consumer], batches: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the whole network's layers give at the sampled places, (rows, outputs that stay) for each."""
    found: dict[str, list[torch.Tensor]] = {one.name: [] for one in consumers}
    number = 0

    def watch(one: _Consumer) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], out: torch.Tensor) -> None:
            if len(found[one.name]) == number:  # a layer that is called twice is solved for its first call
                found[one.name].append(_rows(module, out, number)[:, one.kept_outputs])

        return hook

    handles = [network.get_submodule(one.name).register_forward_hook(watch(one)) for one in consumers]
    try:
        with evaluating(network), torch.no_grad():
            for number, inputs in enumerate(batches):  # noqa: B007  the hooks read it
                network(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.cat(rows) for name, rows in found.items()}


class _Seen(Exception):
    """The layer at hand has seen its input; the rest of the network need not run."""


def _solve(
    small: nn.Module, one: _Consumer, batches: Sequence[torch.Tensor], target: torch.Tensor, tensors: dict[str, torch.Tensor]
) -> None:
    """Give the layer the weights (and the shift) that bring its outputs nearest to the target."""
    layer = small.get_submodule(one.name)
    gram = product = torch.zeros(())
    taken = number = 0

    def look(module: nn.Module, args: tuple[Any, ...]) -> None:
        nonlocal gram, product, taken
        rows = _patches(module, args[0], number).double()
        missing = target[taken : taken + len(rows)].double() - _rows(module, type(module).forward(module, args[0]), number).double()
        taken += len(rows)
        with_one = torch.cat([rows, torch.ones(len(rows), 1, dtype=rows.dtype)], 1) if one.home is not None else rows
        gram, product = gram + with_one.T @ with_one, product + with_one.T @ missing
        raise _Seen

    handle = layer.register_forward_pre_hook(look)
    try:
        with evaluating(small), torch.no_grad():
            for number, inputs in enumerate(batches):  # noqa: B007  the hook reads it
                try:
                    small(inputs)
                except _Seen:
                    continue
    finally:
        handle.remove()
    weight = tensors[f"{one.name}.weight"]
    features = weight[0].numel()
    ridge = torch.zeros(len(gram), dtype=gram.dtype)
    ridge[:features] = _RIDGE * gram.diagonal()[:features].mean().clamp_min(1e-12)
    change = torch.linalg.solve(gram + ridge.diag(), product)
    with torch.no_grad():
        weight += change[:features].T.reshape(weight.shape).to(weight)
    if one.home is not None:
        _shift(tensors, one.home, change[features])


def _shift(tensors: dict[str, torch.Tensor], home: str, values: torch.Tensor) -> None:
    """Add to a bias, or take off a running mean."""
    sign = -1 if home.endswith("running_mean") else 1
    with torch.no_grad():
        tensors[home] += sign * values.to(tensors[home])


def _rows(module: nn.Module, out: torch.Tensor, number: int) -> torch.Tensor:
    """A layer's outputs at the sampled places of batch `number`, (rows, outputs)."""
    if not isinstance(module, nn.Conv2d):
        return out.reshape(-1, out.shape[-1]).cpu()
    across = _sampled(out.shape[2:], number)
    return torch.cat([out[:, :, i, j] for i, j in across]).cpu()


def _patches(module: nn.Module, z: torch.Tensor, number: int) -> torch.Tensor:
    """The inputs that these outputs are made from, (rows, input features * kernel places)."""
    if not isinstance(module, nn.Conv2d):
        return z.reshape(-1, z.shape[-1]).cpu()
    shape = functional.conv2d(z[:1], module.weight[:1], None, module.stride, module.padding, module.dilation).shape[2:]
    padded = functional.pad(z, _padding(module))
    (high, wide), (down, along), (far, apart) = module.kernel_size, module.stride, module.dilation
    found = []
    for i, j in _sampled(shape, number):
        top, start = i * down, j * along
        found.append(padded[:, :, top : top + far * (high - 1) + 1 : far, start : start + apart * (wide - 1) + 1 : apart].flatten(1))
    return torch.cat(found).cpu()


def _padding(module: nn.Conv2d) -> list[int]:
    if isinstance(module.padding, str):
        if module.padding == "valid":
            return [0, 0, 0, 0]
        total = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        return [total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2]
    high, wide = module.padding
    return [wide, wide, high, high]


def _sampled(shape: Sequence[int], number: int) -> list[tuple[int, int]]:
    """Places of a map, drawn anew for each batch; the same in the whole and in the pruned network."""
    high, wide = shape
    drawn = torch.randperm(high * wide, generator=torch.Generator().manual_seed(number))[:_PLACES]
    return [(int(place) // wide, int(place) % wide) for place in drawn]


def _solvable(module: nn.Module, one: _Consumer) -> bool:
    kernel = module.weight[0, 0].numel() if isinstance(module, nn.Conv2d) else 1
    plain = isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1 and module.padding_mode == "zeros")
    return plain and one.inputs * kernel <= LARGEST


def _absent(size: int, kept: Iterable[int]) -> torch.Tensor:
    stays = torch.ones(size, dtype=torch.bool)
    stays[list(kept)] = False
    return stays.nonzero().flatten()
