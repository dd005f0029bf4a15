"""The one place that knows every criterion by name."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, Protocol, Self, cast

import torch
from torch import nn

from prunedge.errors import PrunedgeError
from prunedge.graph import ChannelGraph
from prunedge.importance.activation import ActivationMean, ActivationStd, Apoz, MutualInformation, PredictionInformation
from prunedge.importance.scores import Scores
from prunedge.importance.taylor import ScaleCollector, TaylorCollector

Values = dict[str, torch.Tensor]
WeightFunction = Callable[[nn.Module, ChannelGraph, torch.Generator], Values]


class Collector(Protocol):
    """Gathers a criterion from the batches that go through a network."""

    def reset(self) -> None:
        """Forget what was gathered."""

    def attach(self, network: nn.Module) -> AbstractContextManager[None]:
        """Watch the network while the context lasts."""

    def absorb(self, other: Self) -> None:
        """Take over what another collector has gathered, on other pictures or in another process: the same as one that saw all."""

    def result(self) -> Scores:
        """The scores of everything since the last `reset`."""


class GradientCollector(Collector, Protocol):
    """A collector of what the backward pass shows."""

    def start_batch(self, batch_size: int) -> None:
        """Say before each forward pass how many examples it holds."""


@dataclass(frozen=True)
class Criterion:
    """A way to score channels.

    `reads` says what it needs: the `weights` alone (`compute`), the `activations` or the `gradients` of batches (`collect` makes its
    collector). What reads gradients can be gathered while fine-tuning.
    """

    name: str
    reads: Literal["weights", "activations", "gradients"]
    compute: WeightFunction | None = None
    collect: Callable[[ChannelGraph], Collector] | None = None


def _gradients(name: Literal["taylor", "taylor-fo", "fisher"]) -> Criterion:
    return Criterion(name, "gradients", collect=lambda graph: TaylorCollector(graph, name))


CRITERIA: dict[str, Criterion] = {
    **{name: _gradients(name) for name in ("taylor", "taylor-fo", "fisher")},
    "taylor-bn": Criterion("taylor-bn", "gradients", collect=ScaleCollector),
    **{
        kind.criterion: Criterion(kind.criterion, "activations", collect=kind)
        for kind in (ActivationMean, ActivationStd, Apoz, MutualInformation, PredictionInformation)
    },
}


def criterion(name: str) -> Callable[[WeightFunction], WeightFunction]:
    """Register a function (network, graph, generator) -> {group: (channels,) float64 scores} under a name.

    Higher matters more. Groups that it leaves out keep all their channels.
    """

    def register(function: WeightFunction) -> WeightFunction:
        CRITERIA[name] = Criterion(name, "weights", compute=function)
        return function

    return register


def find(name: str) -> Criterion:
    """The criterion of that name; PrunedgeError with the nearest names when there is none."""
    if name not in CRITERIA:
        near = get_close_matches(name, CRITERIA, n=3, cutoff=0.3) or sorted(CRITERIA)
        raise PrunedgeError(f"unknown criterion '{name}'", where="--criterion", remedy=f"use one of {', '.join(near)}")
    return CRITERIA[name]


def gathered_while_training(name: str, graph: ChannelGraph) -> GradientCollector | None:
    """The collector that ranks while a network fine-tunes; None for criteria that need a pass of their own."""
    chosen = find(name)
    return cast(GradientCollector, chosen.collect(graph)) if chosen.reads == "gradients" and chosen.collect is not None else None
