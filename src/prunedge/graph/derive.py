"""The channel graph of a pruned model, worked out from that of the model it was cut from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import nn

from prunedge.graph.channels import ChannelGraph, Group, KeptIndices, Slice
from prunedge.graph.observations import Layout, Read
from prunedge.graph.plan import Plan
from prunedge.graph.trace import trace
from prunedge.graph.tracer import floating
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
    for group in graph.groups:
        if len(plan.keep.get(group.name, range(group.size))) < 2:
            return None

    kept = graph.kept(plan)
    return replace(
        graph,
        groups=tuple(_group_after(group, plan, kept) for group in graph.groups),
        shapes=graph.sizes(plan),
        reads=tuple(_read_after(read, plan) for read in graph.reads),
    )


def _group_after(group: Group, plan: Plan, kept: KeptIndices) -> Group:
    channels = np.asarray(plan.keep.get(group.name, np.arange(group.size)), dtype=np.int64)
    slices = []
    for piece in group.slices:
        indices = piece.indices[channels]
        remaining = kept.get(piece.tensor, {}).get(piece.dim)
        if remaining is not None:
            indices = np.searchsorted(remaining, indices)
        slices.append(Slice(piece.tensor, piece.dim, indices, piece.role))
    return replace(group, size=len(channels), slices=tuple(slices))


def _read_after(read: Read, plan: Plan) -> Read:
    sizes = []
    for dim, layout, axis in read.sizes:
        sizes.append((dim, _layout_after(layout, plan), axis))
    return replace(read, sizes=tuple(sizes))


def _layout_after(layout: Layout, plan: Plan) -> Layout:
    """The layout once the plan is carried out."""
    stays = np.ix_(*layout.kept(plan))
    number = layout.number[stays]
    channel = layout.channel[stays]
    for index, name in enumerate(layout.names):
        if name in plan.keep:
            here = number == index
            keep = np.asarray(plan.keep[name], dtype=np.int64)
            channel[here] = np.searchsorted(keep, channel[here])
    return Layout(layout.names, number, channel)
