"""A network in, out comes which of its channels can leave together: `trace(network, example) -> ChannelGraph`."""

from prunedge.graph.concepts import ChannelGraph, Frozen, Group, Operation, Slice
from prunedge.graph.trace import trace

__all__ = ["ChannelGraph", "Frozen", "Group", "Operation", "Slice", "trace"]
