"""Score every channel of a network in a pass of its own."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional

import prunedge.importance.weight  # noqa: F401  registers its criteria
from prunedge import ranks
from prunedge.errors import PrunedgeError
from prunedge.graph import ChannelGraph
from prunedge.importance.registry import Values, find
from prunedge.importance.scores import Scores
from prunedge.spans import timed

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


class Computes(Protocol):
    """How a pass over the pictures computes: `prunedge.train.Engine`, which training uses as well."""

    @property
    def device(self) -> torch.device:
        """Where."""

    def suited(self, net: nn.Module) -> Computes:
        """One that is safe for this network."""

    def holding(self, net: nn.Module) -> AbstractContextManager[None]:
        """The network is on the device, and in the memory format, while inside."""

    def picture(self, batch: torch.Tensor) -> torch.Tensor:
        """A batch, as the network is."""

    def autocast(self) -> AbstractContextManager[Any]:
        """Operations run in the engine's precision while inside."""


@timed("rank")
def rank(
    network: nn.Module, graph: ChannelGraph, batches: Batches, criterion: str = "taylor", *, seed: int = 0, engine: Computes | None = None
) -> Scores:  # fmt: skip
    """Score every channel in each group of the graph; higher matters more.

    `batches` yields (inputs (n, 3, h, w) float32, labels (n,) int64); criteria that read the weights alone don't touch it.
    An `engine` lets the pictures pass in its precision and on its device; without one they do in float32, where the network is.
    The network runs in evaluation mode with its own weights unchanged; parameters' gradients are not touched.
    Groups that the criterion can't judge (no batch norm for `bn-scale`) have no score. Raises PrunedgeError for an unknown criterion, and
    for one that can't judge any.
    """
    chosen = find(criterion)
    if chosen.compute is not None:
        values = _fitting(chosen.compute(network, graph, torch.Generator().manual_seed(seed)), graph, criterion)
        if graph.groups and not values:
            raise PrunedgeError(
                f"the criterion '{criterion}' can't judge any channel of this network", remedy="use another, such as taylor"
            )
        return Scores(values, criterion)
    assert chosen.collect is not None
    collector: Any = chosen.collect(graph)
    gather(network, batches, [collector], engine)
    return collector.result()


def _fitting(values: Values, graph: ChannelGraph, criterion: str) -> Values:
    """What a function of the weights gave, if it is a finite number for each channel of groups that there are."""
    sizes = {group.name: group.size for group in graph.groups}
    for name, value in values.items():
        if name not in sizes or value.shape != (sizes[name],) or not bool(value.isfinite().all()):
            wanted = f"{sizes[name]} finite numbers" if name in sizes else "no such group"
            raise PrunedgeError(
                f"the criterion '{criterion}' gave {tuple(value.shape)} for the group '{name}': {wanted} expected",
                remedy="return {group.name: (group.size,) numbers} for groups of graph.groups",
            )
    return {name: value.double() for name, value in values.items()}


def gather(network: nn.Module, batches: Batches, collectors: list[Any], engine: Computes | None = None) -> None:
    """Let the batches go through the network once, in evaluation mode, in front of all these collectors.

    Several processes take whole batches in turn; in the end all collectors hold what all have gathered.
    """
    backward = [collector for collector in collectors if hasattr(collector, "start_batch")]
    forward = [collector for collector in collectors if not hasattr(collector, "start_batch")]
    modes = {module: module.training for module in network.modules()}
    wanted = [(parameter, parameter.requires_grad, parameter.grad) for parameter in network.parameters()]
    network.eval()
    try:
        needed = {name for collector in backward for name in collector.needs(network)}
        # Only gradients at the activations are needed, where they can be seen: those of the weights cost a third of the backward pass.
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in needed)
            parameter.grad = None
        with ExitStack() as attached:
            if engine is not None:
                engine = engine.suited(network)
                attached.enter_context(engine.holding(network))
                attached.enter_context(engine.autocast())
            for collector in collectors:
                attached.enter_context(collector.attach(network))
            for inputs, labels in ranks.dealt(batches):
                if engine is not None:
                    inputs, labels = engine.picture(inputs), labels.to(engine.device)
                for collector in backward:
                    collector.start_batch(len(inputs))
                with torch.set_grad_enabled(bool(backward)):
                    outputs = network(inputs)
                    if backward:
                        functional.cross_entropy(outputs.float(), labels).backward()
                for collector in forward:
                    collector.observe(labels, outputs.detach())
        for collector in collectors:
            ranks.join(collector)
    finally:
        for parameter, before, gradient in wanted:
            parameter.requires_grad_(before)
            parameter.grad = gradient
        for module, mode in modes.items():
            module.training = mode
