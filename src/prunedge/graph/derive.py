"""The channel graph of a pruned network, worked out from that of the network it was cut from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import nn

from prunedge.graph.channels import ChannelGraph, Group, Keeps, Layout, Read, Slice
from prunedge.graph.trace import floating, trace
from prunedge.utils.tracing import timed


@timed("follow")
def follow(graph: ChannelGraph, plan: Keeps, small: nn.Module) -> ChannelGraph:
    """The graph of `small`, which is what the plan leaves of the graph's network.

    Followed through the surgery, or traced anew.

    A `regular` graph is followed: none of its operations treats one number of channels otherwise
    than another, so that the run of the smaller network gives the same labels, those of the removed
    channels left out. What that comes to must agree with the smaller network's own shapes. Any
    other graph is traced.
    """
    found = _followed(graph, plan) if graph.regular else None
    if found is not None and found.shapes == {
        name: tuple(tensor.shape) for name, tensor in floating(small).items()
    }:
        return found
    return trace(small, graph.example)


def _followed(graph: ChannelGraph, plan: Keeps) -> ChannelGraph | None:
    """The graph after the plan.

    None where a group of one channel is left, which would be no group, or not even that.
    """
    if any(len(plan.keep.get(group.name, range(group.size))) < 2 for group in graph.groups):
        return None
    kept = graph.kept(plan)
    groups = tuple(_after(group, plan, kept) for group in graph.groups)
    return replace(
        graph,
        groups=groups,
        shapes=graph.sizes(plan),
        reads=tuple(_read_after(one, plan) for one in graph.reads),
    )


def _read_after(one: Read, plan: Keeps) -> Read:
    return replace(
        one,
        sizes=tuple(
            (place, _layout_after(layout, plan), axis) for place, layout, axis in one.sizes
        ),
    )


def _layout_after(layout: Layout, plan: Keeps) -> Layout:
    """Who lives where once the plan is carried out."""
    stays = np.ix_(*layout.kept(plan))
    number, channel = layout.number[stays], layout.channel[stays]
    for place, name in enumerate(layout.names):
        if name in plan.keep:
            here = number == place
            channel[here] = np.searchsorted(
                np.asarray(plan.keep[name], dtype=np.int64), channel[here]
            )
    return Layout(layout.names, number, channel)


def _after(group: Group, plan: Keeps, kept: dict[str, dict[int, np.ndarray]]) -> Group:
    rows = np.asarray(plan.keep.get(group.name, np.arange(group.size)), dtype=np.int64)
    slices = []
    for part in group.slices:
        indices = part.indices[rows]
        left = kept.get(part.tensor, {}).get(part.dim)
        slices.append(
            Slice(
                part.tensor,
                part.dim,
                indices if left is None else np.searchsorted(left, indices),
                part.role,
            )
        )
    return replace(group, size=len(rows), slices=tuple(slices))
