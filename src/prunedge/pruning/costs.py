"""What pruning saves: the cost that a step's share is of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from prunedge.config.sections import Currency
from prunedge.errors import ConfigError
from prunedge.graph import ChannelGraph
from prunedge.graph.plan import Plan
from prunedge.latency.layers import layers_of, shapes_after
from prunedge.latency.roofline import estimate
from prunedge.models.cost import FLOAT32_BYTES
from prunedge.utils.advice import option


class Cost(Protocol):
    """What a model costs, in one currency."""

    def total(self, plan: Plan | None = None) -> float:
        """What it costs after a plan; as it is, without one."""


class Device(Protocol):
    """A device that steers the pruning (`prunedge.latency`): milliseconds of one image on it."""

    @property
    def multiple(self) -> int:
        """The numbers of channels that it likes are multiples of this."""

    def cost(self, model: nn.Module, graph: ChannelGraph) -> Cost:
        """What a model is predicted to take."""

    def measure(self, model: nn.Module, example: torch.Tensor) -> float:
        """What the model takes."""


@dataclass(frozen=True)
class CountedCost:
    """A cost that follows from the widths alone: `total` counts it after a plan."""

    count: Callable[[Plan | None], float]

    def total(self, plan: Plan | None = None) -> float:
        """What the model costs after a plan."""
        return self.count(plan)


def cost_of(
    currency: Currency, model: nn.Module, graph: ChannelGraph, device: Device | None = None
) -> Cost:
    """What `model` costs in a currency.

    `latency`: milliseconds on the `device`, or without one as `prunedge.latency.roofline` estimates
    them. `macs`: multiply-accumulates
    for one image. `params`: parameters. `memory`: bytes of the weights and of the largest input and
    output of a layer together, in float32. `channels`: channels that can be removed.
    """
    if currency == "latency":
        if device is None:
            return CountedCost(estimate(model, graph))
        return device.cost(model, graph)
    if currency == "macs":
        return CountedCost(graph.macs)
    if currency == "params":
        return CountedCost(graph.params)
    if currency == "memory":
        return CountedCost(_memory(model, graph))
    return CountedCost(lambda plan: _channels(graph, plan))


def _channels(graph: ChannelGraph, plan: Plan | None) -> float:
    removed = 0
    for name, kept in (plan.keep if plan is not None else {}).items():
        removed += graph.group(name).size - len(kept)
    return graph.channels - removed


def _memory(model: nn.Module, graph: ChannelGraph) -> Callable[[Plan | None], float]:
    """Bytes that a runtime holds at once, by the plan."""
    if not isinstance(graph.example, torch.Tensor):
        raise ConfigError(
            f"{option('cost', 'memory')} is known of models that take images alone",
            remedy=f"save {option('cost', 'params')}",
        )
    layers = layers_of(model, graph.example)

    def count(plan: Plan | None) -> float:
        sizes = graph.sizes(plan)
        largest = 0
        for shape in shapes_after(layers, sizes):
            largest = max(largest, shape.activations)
        return FLOAT32_BYTES * (graph.params(plan, sizes) + largest)

    return count
