"""Which channels of a model can leave together: `trace(model, example) -> ChannelGraph`."""

from prunedge.graph.channels import ChannelGraph, Frozen, Group, Slice
from prunedge.graph.derive import derive
from prunedge.graph.observations import Operation, Statistic
from prunedge.graph.preserve import copied
from prunedge.graph.rules.norms import norm_by_blocks
from prunedge.graph.trace import trace
from prunedge.graph.tracer import call

__all__ = [
    "ChannelGraph",
    "Frozen",
    "Group",
    "Operation",
    "Slice",
    "Statistic",
    "call",
    "copied",
    "derive",
    "norm_by_blocks",
    "trace",
]
