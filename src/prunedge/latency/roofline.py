"""Milliseconds of an image where no device is named: an estimate by the roofline model.

A processor multiplies so many numbers a second, and fetches so many bytes a second from its memory
(Williams et al. 2009). A model's multiply-accumulates alone say nothing of the second: the linear
layers of a VGG16 are a twentieth of its work at 96 pixels, and a third of its time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from prunedge.graph import ChannelGraph
from prunedge.graph.plan import Plan
from prunedge.latency.layers import layers_of, shapes_after
from prunedge.models.cost import FLOAT32_BYTES


@dataclass(frozen=True)
class Roofline:
    """What a processor can do in a millisecond: `macs` multiply-accumulates in float32, and
    `bytes` that come from its memory.
    """

    macs: float
    bytes: float

    def ms(self, macs: float, numbers: float) -> float:
        """Milliseconds of so many multiply-accumulates, and float32 `numbers` that are fetched.

        One after the other, and not the longer of the two: some layers wait for the one, some for
        the other.
        """
        return macs / self.macs + FLOAT32_BYTES * numbers / self.bytes


# One core of a server's processor, which benchmarks/roofline.py measures. A slower one multiplies
# and fetches less alike, and their ratio alone decides which channels are dear.
ONE_CORE = Roofline(macs=50e6, bytes=20e6)


def estimate(
    model: nn.Module, graph: ChannelGraph, processor: Roofline = ONE_CORE
) -> Callable[[Plan | None], float]:
    """Milliseconds that a model takes for one image after a plan: every weight, and every value
    that a layer reads or writes, is fetched once.

    Values are counted of models that take images alone; of others weights only.
    """
    layers = []
    if isinstance(graph.example, torch.Tensor):
        layers = layers_of(model, graph.example)

    def ms(plan: Plan | None) -> float:
        sizes = graph.sizes(plan)
        activations = sum(shape.activations for shape in shapes_after(layers, sizes))
        numbers = graph.params(plan, sizes) + activations
        return processor.ms(graph.macs(plan, sizes), numbers)

    return ms
