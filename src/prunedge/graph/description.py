"""A channel graph as plain data, for machines and tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prunedge.graph.channels import ChannelGraph, Slice


def description(graph: ChannelGraph) -> dict[str, Any]:
    """The graph as plain data: groups in the model's order, what is frozen, totals."""
    total = max(1, graph.macs())
    return {
        "macs": graph.macs(),
        "params": graph.params(),
        "prunable_params": graph.prunable_share(),
        "groups": [
            {
                "name": group.name,
                "channels": group.size,
                "makers": _layers(group.having("out")),
                "consumers": _layers(group.having("in")),
                "along": _layers(group.having("channel")),
                "macs_share": graph.macs_of(group) / total,
            }
            for group in graph.groups
        ],
        "frozen": [
            {"name": frozen.name, "channels": frozen.size, "reason": frozen.reason}
            for frozen in graph.frozen
        ],
    }


def _layers(slices: Iterable[Slice]) -> list[str]:
    """The layers whose tensors are sliced, each once."""
    tensors = [slice_.tensor for slice_ in slices]
    return list(dict.fromkeys(tensor.rpartition(".")[0] or tensor for tensor in tensors))
