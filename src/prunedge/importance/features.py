"""What a channel's removal does to what the model gives, whatever that is: no target, no label."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from prunedge.graph import ChannelGraph, call
from prunedge.graph.outputs import tensors_in
from prunedge.importance import batch as examples
from prunedge.importance.criteria import collected
from prunedge.importance.scores import Scores
from prunedge.importance.taylor import TaylorCollector

NAME = "feature-distance"
PROBES = 4  # random directions in which each batch's features are looked at
SEED = 9_000


@collected("features", NAME)
class FeatureCollector(TaylorCollector):
    """The first-order estimate of how far the features move when a channel is zeroed at all its
    consumers:

        theta = 1/N sum_n || J_n z_n ||^2

    with z_n what the consumers read of the channel and J_n the derivative of all that the model
    gives by it. It is not computed for each output: for a vector v of random signs the mean of
    (v . J z)^2 over v is || J z ||^2 (Hutchinson 1990, the estimator of a trace), and v . J z is
    the first-order change of the loss v . f, which one backward pass gives for every channel
    (`TaylorCollector`). Each batch passes `PROBES` times, each time with other signs; all examples
    share them, so that scores don't depend on how examples are divided into batches.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        super().__init__(graph, NAME, torch.square)

    def result(self) -> Scores:
        """The scores of everything since the last `reset`, of so many examples."""
        scores = super().result()
        return replace(scores, examples=scores.examples // PROBES)


@dataclass(frozen=True)
class Probe:
    """A batch, and in which of the random directions its features are looked at."""

    batch: Any
    direction: int


def probes(batches: Iterable[Any]) -> Iterator[Probe]:
    """Every batch in every direction."""
    for batch in batches:
        for direction in range(PROBES):
            yield Probe(batch, direction)


def projected(model: nn.Module, probe: Probe) -> torch.Tensor:
    """v . f, the mean over the examples: the sum over all real numbers that the model gives and
    that have gradients, each with its random sign.
    """
    inputs, _ = examples.as_pair(probe.batch)
    outputs = tensors_in(call(model, inputs))
    held = examples.count(inputs)
    total = torch.zeros(())
    for number, output in enumerate(outputs.values()):
        if not output.requires_grad or not output.is_floating_point():
            continue
        is_by_example = output.dim() > 0 and output.shape[0] == held
        shape = output.shape[1:] if is_by_example else output.shape
        signs = _signs(shape, probe.direction, number).to(output)
        total = total.to(output.device) + (output * signs).float().sum()
    return total / held


def _signs(shape: torch.Size, direction: int, number: int) -> torch.Tensor:
    """Random signs of this shape, the same whenever they are asked for."""
    generator = torch.Generator().manual_seed(SEED + 1_000 * number + direction)
    return torch.randint(0, 2, tuple(shape), generator=generator) * 2 - 1
