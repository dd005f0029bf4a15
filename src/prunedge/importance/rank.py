"""Score every channel of a network in a pass of its own."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional

import prunedge.importance.weight  # noqa: F401  registers its criteria
from prunedge.graph import ChannelGraph
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
    wanted = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    network.eval()
    try:
        # Only gradients at the activations are needed: those of the weights would cost a third of the backward pass.
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        with collector.attach(network), torch.enable_grad():
            for inputs, labels in batches:
                collector.start_batch(len(inputs))
                functional.cross_entropy(network(inputs), labels).backward()
    finally:
        for parameter, before in wanted:
            parameter.requires_grad_(before)
        for module, mode in modes.items():
            module.training = mode
    return collector.result()
