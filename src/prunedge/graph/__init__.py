"""Which channels of a model can leave together: `trace(model, example) -> ChannelGraph`."""

from prunedge.graph.channels import ChannelGraph, Frozen, Group, Operation, Slice, Statistic
from prunedge.graph.derive import derive
from prunedge.graph.preserve import copied
from prunedge.graph.rules.norms import norm_by_blocks
from prunedge.graph.trace import call, trace

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
