"""Score every channel of a network in a pass of its own."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional
from torch.utils._pytree import tree_flatten

import prunedge.importance.weight  # noqa: F401  registers its criteria
from prunedge.graph import ChannelGraph, call
from prunedge.importance.registry import find
from prunedge.importance.scores import Scores
from prunedge.importance.taylor import TaylorCollector


def rank(
    network: nn.Module,
    graph: ChannelGraph,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    criterion: str = "taylor",
    *,
    seed: int = 0,
) -> Scores:
    """Score every channel in each group of the graph; higher matters more.

    `batches` yields (inputs (n, 3, h, w) float32, labels (n,) int64); criteria that read the weights alone don't touch it.
    The network runs in evaluation mode with its own weights unchanged; parameters' gradients are not touched.
    Raises PrunedgeError for an unknown criterion.
    """
    chosen = find(criterion)
    if chosen.compute is not None:
        return Scores(chosen.compute(network, graph, torch.Generator().manual_seed(seed)), criterion)
    collector, modes = TaylorCollector(graph), {module: module.training for module in network.modules()}
    wanted = [(parameter, parameter.requires_grad, parameter.grad) for parameter in network.parameters()]
    network.eval()
    try:
        blind = _blind(network, graph, collector)
        # Only gradients at the activations are needed, where they can be seen: those of the weights cost a third of the backward pass.
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in blind)
            parameter.grad = None
        with collector.attach(network), torch.enable_grad():
            for inputs, labels in batches:
                collector.start_batch(len(inputs))
                functional.cross_entropy(network(inputs), labels).backward()
    finally:
        for parameter, before, gradient in wanted:
            parameter.requires_grad_(before)
            parameter.grad = gradient
        for module, mode in modes.items():
            module.training = mode
    return collector.result()


def _blind(network: nn.Module, graph: ChannelGraph, collector: TaylorCollector) -> set[str]:
    """Run the example once, and tell the weights that take part though nobody sees their input from those that don't take part."""
    for parameter in network.parameters():
        parameter.requires_grad_(True)
        parameter.grad = None
    with collector.attach(network), torch.enable_grad():
        outputs = tree_flatten(call(network, graph.example))[0]
        unseen = collector.unseen()
        total = torch.zeros(())
        for output in outputs:
            if isinstance(output, torch.Tensor) and output.requires_grad:
                total = total.to(output.device) + output.float().sum()
        total.backward()
    collector.reset()
    idle = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    collector.leave_out(idle)
    return unseen - idle
