"""Criteria that read the network's weights alone."""

from __future__ import annotations

import torch
from torch import nn

from prunedge.graph import ChannelGraph
from prunedge.importance.registry import Values, criterion


@criterion("weight")
def weight(network: nn.Module, graph: ChannelGraph, generator: torch.Generator) -> Values:
    """Mean of w^2 over a channel's filter, and over the filters of all layers that make it.

    theta = 1 / |w| * sum_i w_i^2 (Molchanov et al. 2017, section 2.2, 'minimum weight').
    """
    tensors = dict(network.named_parameters())
    values: Values = {}
    for group in graph.groups:
        total = torch.zeros(group.size, dtype=torch.float64)
        count = 0
        for part in group.having("out"):
            filters = tensors[part.tensor].detach().double().cpu().movedim(part.dim, 0).flatten(1)  # (filters, weights)
            chosen = filters.square().sum(1)[torch.as_tensor(part.indices)]  # (channels, k)
            total += chosen.sum(1)
            count += part.indices.shape[1] * filters.shape[1]
        values[group.name] = total / count
    return values


@criterion("random")
def random(network: nn.Module, graph: ChannelGraph, generator: torch.Generator) -> Values:
    """A number drawn uniformly from [0, 1) for each channel: the control that every criterion must beat."""
    return {group.name: torch.rand(group.size, dtype=torch.float64, generator=generator) for group in graph.groups}
