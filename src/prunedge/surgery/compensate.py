"""Recovery without training: the consumers of removed channels make up for their contribution.

Its mean goes into a bias (`mean`), and what the remaining channels can predict of it into the
weights, by least squares (`lstsq`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from prunedge.graph import ChannelGraph
from prunedge.graph.inputs import brought_to
from prunedge.graph.plan import Plan
from prunedge.importance.consumers import CONVOLUTIONS, feature_dim, taps
from prunedge.models.cost import evaluating
from prunedge.models.tf32 import full_float32
from prunedge.surgery.least_squares import is_solvable, layer_outputs, solve_weights
from prunedge.utils.tracing import traced

How = Literal["none", "mean", "lstsq"]
Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Compensation:
    """Which consumers were compensated.

    Layers whose weights were `solved`, or whose bias alone was `shifted`; those `left` as they
    were, with the reason.
    """

    solved: tuple[str, ...]
    shifted: tuple[str, ...]
    left: dict[str, str]


@dataclass(frozen=True)
class _Consumer:
    """A layer that loses inputs.

    `inputs` is the number of those that it keeps, `outputs` are those of its outputs that stay, and
    `change` is the mean contribution of the lost inputs to each of its outputs (float64).
    `shift_into` names the tensor that can take a shift: the layer's own bias, or the running mean
    of the batch norm behind it.
    """

    name: str
    inputs: int
    outputs: torch.Tensor
    change: torch.Tensor
    shift_into: str | None


@traced("compensate")
@full_float32()
def compensate(
    model: nn.Module,
    graph: ChannelGraph,
    plan: Plan,
    small: nn.Module,
    batches: Batches,
    how: How = "mean",
) -> Compensation:
    """Change the consumers of removed channels in `small`, in place, so that they miss little.

    Nothing is trained. The `batches` are (inputs, labels), and must be the same each time.

    `mean`: each consumer's bias takes over the mean contribution of the removed channels, E[f(z) -
    f(z without them)] over the batches. Where a layer has no bias, the batch norm behind it takes
    it off its running mean.

    `lstsq`: also solves each linear layer's and ungrouped convolution's weights, in the order in
    which they run, for the least squared difference between its outputs in the pruned model, which
    sees what the layers before it now give, and those in the whole one (the asymmetric
    reconstruction of He et al. 2017, section 3.2), with a ridge around the old weights. Layers with
    more than `least_squares.LARGEST` inputs, and others, get the mean alone.
    """
    if how == "none" or not plan.keep:
        return Compensation((), (), {})
    images = [brought_to(inputs, model) for inputs, _ in batches]
    consumers = _observe(model, graph, plan, images)
    targets: dict[str, torch.Tensor] = {}
    if how == "lstsq":
        outputs = {}
        for consumer in consumers:
            if is_solvable(model.get_submodule(consumer.name), consumer.inputs):
                outputs[consumer.name] = consumer.outputs
        targets = layer_outputs(model, outputs, images)

    solved: list[str] = []
    shifted: list[str] = []
    left: dict[str, str] = {}
    tensors = {**dict(small.named_parameters()), **dict(small.named_buffers())}
    for consumer in consumers:
        if consumer.name in targets:
            _solve(small, consumer, images, targets[consumer.name], tensors)
            solved.append(consumer.name)
        elif consumer.shift_into is not None:
            _shift(tensors, consumer.shift_into, consumer.change[consumer.outputs])
            shifted.append(consumer.name)
        else:
            left[consumer.name] = "it has no bias, and no batch norm right behind it"
    return Compensation(tuple(solved), tuple(shifted), left)


def _solve(
    small: nn.Module,
    consumer: _Consumer,
    images: Sequence[torch.Tensor],
    target: torch.Tensor,
    tensors: dict[str, torch.Tensor],
) -> None:
    """Change a layer's weights, and its bias, by the least-squares solution, in place."""
    can_shift = consumer.shift_into is not None
    change, shift = solve_weights(small, consumer.name, images, target, can_shift)
    weight = tensors[f"{consumer.name}.weight"]
    with torch.no_grad():
        weight += change.reshape(weight.shape).to(weight)
    if consumer.shift_into is not None:
        _shift(tensors, consumer.shift_into, shift)


def _shift(tensors: dict[str, torch.Tensor], name: str, values: torch.Tensor) -> None:
    """Add to a bias, or take off a running mean."""
    sign = -1 if name.endswith("running_mean") else 1
    with torch.no_grad():
        tensors[name] += sign * values.to(tensors[name])


# -- what the removed channels gave ----------------------------------------------------------------


def _observe(
    model: nn.Module, graph: ChannelGraph, plan: Plan, images: Sequence[torch.Tensor]
) -> list[_Consumer]:
    """The consumers that lose inputs, in the order in which they run."""
    removed = _removed_inputs(model, graph, plan)
    observer = _Observer(removed)
    handles = observer.attach(model)
    try:
        with evaluating(model), torch.no_grad():
            for inputs in images:
                model(inputs)
                observer.finish_batch()
    finally:
        for handle in handles:
            handle.remove()

    kept = graph.kept(plan)
    consumers = []
    for name, total in observer.sums.items():
        layer: Any = model.get_submodule(name)
        shift_into = observer.norm_behind.get(name)
        if layer.bias is not None:
            shift_into = f"{name}.bias"
        stays = kept.get(shift_into or f"{name}.weight", {}).get(0, np.arange(len(total)))
        width = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
        consumer = _Consumer(
            name,
            inputs=int(width) - len(removed[name]),
            outputs=torch.as_tensor(stays),
            change=total / observer.counts[name],
            shift_into=shift_into,
        )
        consumers.append(consumer)
    return consumers


def _removed_inputs(model: nn.Module, graph: ChannelGraph, plan: Plan) -> dict[str, torch.Tensor]:
    """For each layer that loses inputs, which of its input features leave."""
    names = {module: name for name, module in model.named_modules()}
    removed: dict[str, torch.Tensor] = {}
    for module, module_taps in taps(model, graph).items():
        features = []
        for tap in module_taps:
            if tap.group in plan.keep:
                leaving = _absent(len(tap.columns), plan.keep[tap.group])
                features.append(tap.columns[leaving].flatten())
        if features:
            removed[names[module]] = torch.cat(features).unique()
    return removed


def _absent(size: int, kept: Iterable[int]) -> torch.Tensor:
    stays = torch.ones(size, dtype=torch.bool)
    stays[list(kept)] = False
    return stays.nonzero().flatten()


class _Observer:
    """Forward hooks on the whole model: what removed inputs contribute to each layer's outputs.

    `sums` and `counts` make the mean of each output's change, by layer in the order in which layers
    run. `norm_behind` names the running mean of the batch norm right behind a layer.
    """

    def __init__(self, removed: Mapping[str, torch.Tensor]) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, int] = {}
        self.norm_behind: dict[str, str] = {}
        self._removed = removed
        self._outputs: dict[int, tuple[torch.Tensor, str]] = {}  # held, so that ids stay theirs

    def attach(self, model: nn.Module) -> list[Any]:
        """Hook into the model; gives the handles."""
        handles: list[Any] = []
        for name in self._removed:
            layer = model.get_submodule(name)
            handles.append(layer.register_forward_hook(self._consumer_hook(name)))
        for name, module in model.named_modules():
            is_batch_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
            if is_batch_norm and module.running_mean is not None:
                handles.append(module.register_forward_pre_hook(self._norm_hook(name)))
        return handles

    def finish_batch(self) -> None:
        """Release the batch's outputs."""
        self._outputs.clear()

    def _consumer_hook(self, name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple[Any, ...], out: torch.Tensor) -> None:
            z = args[0]
            removed = self._removed[name].to(z.device)
            without = z.index_fill(feature_dim(layer, z), removed, 0)
            change = (out - type(layer).forward(layer, without)).double()

            features = 1 if isinstance(layer, CONVOLUTIONS) else out.dim() - 1
            others = [dim for dim in range(out.dim()) if dim != features]
            self.sums[name] = self.sums.get(name, 0) + change.sum(others).cpu()
            positions = change.numel() // len(self.sums[name])
            self.counts[name] = self.counts.get(name, 0) + positions
            self._outputs[id(out)] = (out, name)

        return hook

    def _norm_hook(self, name: str) -> Callable[..., None]:
        def hook(norm: nn.Module, args: tuple[Any, ...]) -> None:
            if id(args[0]) in self._outputs:
                _, layer = self._outputs[id(args[0])]
                self.norm_behind[layer] = f"{name}.running_mean"

        return hook
