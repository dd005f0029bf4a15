"""Weights and constants that are too small to matter become zero before a model goes to a device,
where they would make it slow. Training with weight decay leaves such numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn

from prunedge.edge.denormals import count_tiny, tiny
from prunedge.graph import copied

SMALLEST = float(np.finfo(np.float32).tiny)  # of the normal numbers; its half is denormal


def without_tiny(model: nn.Module) -> tuple[nn.Module, int]:
    """A model on the CPU with zeros in place of parameters and buffers below `TINY`, and how many
    these are; the model itself where there are none.
    """
    count = sum(count_tiny(values) for values in _arrays(model))
    if not count:
        return model, 0
    flushed = copied(model).eval()
    for values in _arrays(flushed):
        values[tiny(values)] = 0.0
    return flushed, count


def flush_onnx(model: Any) -> int:
    """Put zeros in place of an ONNX model's constants below `TINY`, such as the exporter has folded
    of weights; gives how many.
    """
    from onnx import numpy_helper

    count = 0
    functions = [function.node for function in model.functions]
    for tensor in chain(_tensors(model.graph), *(_constants(nodes) for nodes in functions)):
        values = numpy_helper.to_array(tensor)
        found = count_tiny(values)
        if found:
            mended = np.where(tiny(values), np.float32(0), values)
            tensor.CopyFrom(numpy_helper.from_array(mended, tensor.name))
            count += found
    return count


@contextmanager
def torchs_own_denormals() -> Iterator[None]:
    """Let this thread compute with denormal numbers as before, whatever runtimes inside were asked
    for: ONNX Runtime changes how the thread computes that opens a session, and torch goes on in it.
    """
    was_flushing = bool(torch.tensor(SMALLEST) * torch.tensor(0.5) == 0)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_flushing)


def _arrays(model: nn.Module) -> Iterator[np.ndarray]:
    """The float32 parameters and buffers, each once, as arrays of the same memory."""
    with torch.no_grad():
        for tensor in chain(model.parameters(), model.buffers()):
            if tensor.dtype == torch.float32 and tensor.layout == torch.strided:
                yield tensor.detach().numpy()


def _tensors(graph: Any) -> Iterator[Any]:
    """The constants of a graph, and of those inside its nodes."""
    yield from graph.initializer
    yield from _constants(graph.node)


def _constants(nodes: Any) -> Iterator[Any]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)
            for graph in attribute.graphs:
                yield from _tensors(graph)
