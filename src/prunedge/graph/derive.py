"""The channel graph of a pruned model, worked out from that of the model it was cut from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import nn

from prunedge.graph.channels import ChannelGraph, Group, KeptIndices, Layout, Read, Slice
from prunedge.graph.plan import Plan
from prunedge.graph.trace import floating, trace
from prunedge.utils.tracing import traced


@traced("derive")
def derive(graph: ChannelGraph, plan: Plan, small: nn.Module) -> ChannelGraph:
    """The graph of `small`, which is what the plan leaves of the graph's model.

    A `regular` graph is derived through the surgery: none of its operations treats one number of
    channels otherwise than another, so that the run of the smaller model gives the same labels,
    those of the removed channels left out. What that comes to must agree with the smaller model's
    own shapes. Any other graph is traced anew.
    """
    derived = _derived(graph, plan) if graph.regular else None
    shapes = {name: tuple(tensor.shape) for name, tensor in floating(small).items()}
    if derived is not None and derived.shapes == shapes:
        return derived
    return trace(small, graph.example)


def _derived(graph: ChannelGraph, plan: Plan) -> ChannelGraph | None:
    """The graph after the plan.

    None where a group of one channel is left, which would be no group, or not even that.
    """
    if any(len(plan.keep.get(group.name, range(group.size))) < 2 for group in graph.groups):
        return None
    kept = graph.kept(plan)
    return replace(
        graph,
        groups=tuple(_group_after(group, plan, kept) for group in graph.groups),
        shapes=graph.sizes(plan),
        reads=tuple(_read_after(read, plan) for read in graph.reads),
    )


def _group_after(group: Group, plan: Plan, kept: KeptIndices) -> Group:
    rows = np.asarray(plan.keep.get(group.name, np.arange(group.size)), dtype=np.int64)
    slices = []
    for part in group.slices:
        indices = part.indices[rows]
        left = kept.get(part.tensor, {}).get(part.dim)
        if left is not None:
            indices = np.searchsorted(left, indices)
        slices.append(Slice(part.tensor, part.dim, indices, part.role))
    return replace(group, size=len(rows), slices=tuple(slices))


def _read_after(read: Read, plan: Plan) -> Read:
    sizes = [(place, _layout_after(layout, plan), axis) for place, layout, axis in read.sizes]
    return replace(read, sizes=tuple(sizes))


def _layout_after(layout: Layout, plan: Plan) -> Layout:
    """Who lives where once the plan is carried out."""
    stays = np.ix_(*layout.kept(plan))
    number = layout.number[stays]
    channel = layout.channel[stays]
    for place, name in enumerate(layout.names):
        if name in plan.keep:
            here = number == place
            keep = np.asarray(plan.keep[name], dtype=np.int64)
            channel[here] = np.searchsorted(keep, channel[here])
    return Layout(layout.names, number, channel)
