"""Criteria that read the model's weights alone."""

from __future__ import annotations

import torch
from torch import nn

from prunedge.graph import ChannelGraph, Group
from prunedge.importance.consumers import refuse_without_norms, scales_of
from prunedge.importance.criteria import Values, criterion


@criterion("weight-l1")
def weight_l1(model: nn.Module, graph: ChannelGraph, generator: torch.Generator) -> Values:
    """theta = 1 / |w| sum_i |w_i| over a channel's filters in all layers that make it.

    Li et al. 2017, section 3.1.
    """
    return {group.name: filters.abs().mean(1) for group, filters in _filters(model, graph)}


@criterion("weight-l2")
def weight_l2(model: nn.Module, graph: ChannelGraph, generator: torch.Generator) -> Values:
    """theta = 1 / |w| sum_i w_i^2 over a channel's filters in all layers that make it.

    Molchanov et al. 2017, section 2.2, 'minimum weight': in each layer the order of the filters'
    Euclidean norms.
    """
    return {group.name: filters.square().mean(1) for group, filters in _filters(model, graph)}


@criterion("fpgm")
def fpgm(model: nn.Module, graph: ChannelGraph, generator: torch.Generator) -> Values:
    """theta = sum_j ||F_c - F_j||_2, F a channel's filters in all layers that make it.

    Low next to the geometric median, where others can stand in for it (He et al. 2019, equation 4).
    """
    return {
        group.name: torch.cdist(filters, filters).sum(1)
        for group, filters in _filters(model, graph)
    }


@criterion("bn-scale")
def bn_scale(model: nn.Module, graph: ChannelGraph, generator: torch.Generator) -> Values:
    """theta = |gamma| of the batch norm behind a channel, the mean where there are more.

    Liu et al. 2017, network slimming, section 3. Group and instance norm count as well. Groups
    without a norm have no score, and stay whole.
    PrunedgeError where no channel passes one.
    """
    refuse_without_norms(model, graph, "the criterion 'bn-scale'")
    tensors = dict(model.named_parameters())
    values: Values = {}
    for group in graph.groups:
        scales = []
        for name, indices in scales_of(model, group):
            scale = tensors[name].detach().double().cpu()
            scales.append(scale[indices])
        if scales:
            values[group.name] = torch.cat(scales, 1).abs().mean(1)
    return values


@criterion("random")
def random(model: nn.Module, graph: ChannelGraph, generator: torch.Generator) -> Values:
    """A number drawn uniformly from [0, 1) for each channel: the baseline that every criterion must
    beat.
    """
    return {
        group.name: torch.rand(group.size, dtype=torch.float64, generator=generator)
        for group in graph.groups
    }


def _filters(model: nn.Module, graph: ChannelGraph) -> list[tuple[Group, torch.Tensor]]:
    """Each group with the weights that make its channels, (channels, weights) float64."""
    tensors = dict(model.named_parameters())
    filters = []
    for group in graph.groups:
        by_layer = []
        for produced in group.having("out"):
            weight = tensors[produced.tensor].detach().double().cpu()
            by_filter = weight.movedim(produced.dim, 0).flatten(1)  # (filters, weights)
            by_layer.append(by_filter[torch.as_tensor(produced.indices)].flatten(1))
        filters.append((group, torch.cat(by_layer, 1)))
    return filters
