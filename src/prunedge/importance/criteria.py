"""The criteria by name, and how a function or a class becomes one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol, Self, TypeVar, get_args, overload

import torch
from torch import nn

from prunedge.graph import ChannelGraph
from prunedge.importance.scores import Scores
from prunedge.utils.arguments import require

Reads = Literal["weights", "activations", "gradients", "features"]
Values = dict[str, torch.Tensor]  # group -> the score of each of its channels

# What a user's criterion is: of the weights, or of a batch (`criterion` says of what shape).
WeightFunction = Callable[[nn.Module, ChannelGraph, torch.Generator], Values]
BatchFunction = Callable[[torch.Tensor], torch.Tensor]

# These read the scales of the norms that channels pass, and nothing else.
NORM_CRITERIA = ("bn-scale", "taylor-bn")


class Collector(Protocol):
    """Gathers a criterion from the batches that go through a model."""

    def reset(self) -> None:
        """Forget what was gathered."""

    def attach(self, model: nn.Module) -> AbstractContextManager[None]:
        """Watch the model while the context lasts."""

    def absorb(self, other: Self) -> None:
        """Take over what another collector has gathered, on other images or in another process:
        the same as one that saw all.
        """

    def gathered(self) -> Any:
        """What `absorb` needs of this collector, to be sent to another process."""

    def take_over(self, gathered: Any) -> None:
        """Absorb what another process's collector has `gathered`."""

    def result(self) -> Scores:
        """The scores of everything since the last `reset`."""


class GradientCollector(Collector, Protocol):
    """A collector of what the backward pass shows."""

    def start_batch(self, batch_size: int, here: int | None = None) -> None:
        """Say before each forward pass how many examples the batch holds, and how many of them pass
        `here` (None: all, undivided).
        """


@dataclass(frozen=True)
class Criterion:
    """A way to score channels.

    `reads` says what it needs: the `weights` alone (`compute`), or of batches (`collect` makes its
    collector) the `activations`, the `gradients` of the loss, or those of the model's own
    `features`. What reads the loss's gradients can be gathered while fine-tuning.
    """

    name: str
    reads: Reads
    compute: WeightFunction | None = None
    collect: Callable[[ChannelGraph], Collector] | None = None


CollectorClass = TypeVar("CollectorClass", bound=Callable[..., Any])

CRITERIA: dict[str, Criterion] = {}


@overload
def criterion(
    name: str, reads: Literal["weights"] = "weights"
) -> Callable[[WeightFunction], WeightFunction]: ...
@overload
def criterion(
    name: str, reads: Literal["activations", "gradients"]
) -> Callable[[BatchFunction], BatchFunction]: ...
def criterion(name: str, reads: Reads = "weights") -> Callable[[Any], Any]:
    """Register a function as the criterion of that name. Higher scores matter more.

    What the function takes and gives depends on what it reads:

    - `weights`: takes (model, graph, generator), gives {group: (channels,) float64}. A group that
      it leaves out keeps all its channels.
    - `activations`: takes what a consumer of the group reads in a batch, (examples, channels,
      places) float64, gives a number for each example and channel, (examples, channels).
    - `gradients`: takes the first-order change of each example's loss when a channel is zeroed at
      all its consumers, negated (the sum of z * dC/dz), (examples, channels) float64, gives as
      many numbers.

    The score of a channel is the mean of its numbers over the examples and the consumers.

        @criterion("peak", reads="activations")
        def peak(values):
            return values.amax(2)
    """

    require("name", name, str, 'the name of the criterion: @criterion("peak")')
    known = [kind for kind in get_args(Reads) if kind != "features"]
    if reads not in known:
        raise ValueError(f"reads must be one of {', '.join(known)}, not {reads!r}")

    def register(function: Any) -> Any:
        if reads == "weights":
            CRITERIA[name] = Criterion(name, reads, compute=function)
        elif reads == "activations":
            CRITERIA[name] = Criterion(
                name, reads, collect=partial(_of_activations, name, function)
            )
        else:
            make = partial(_of_gradients, name, function)
            CRITERIA[name] = Criterion(name, reads, collect=make)
        return function

    return register


# The collectors register criteria themselves: they are imported when they are made.


def _of_activations(name: str, function: BatchFunction, graph: ChannelGraph) -> Collector:
    from prunedge.importance.activation import ActivationFunction

    return ActivationFunction(graph, name, function)


def _of_gradients(name: str, function: BatchFunction, graph: ChannelGraph) -> Collector:
    from prunedge.importance.taylor import TaylorCollector

    return TaylorCollector(graph, name, function)


def collected(
    reads: Literal["activations", "gradients", "features"], *names: str
) -> Callable[[CollectorClass], CollectorClass]:
    """Register a class of collectors as the criteria of these names.

    It is called with the graph; with the graph and the name where it gathers several criteria.
    """

    def register(kind: CollectorClass) -> CollectorClass:
        for name in names:
            make = kind if len(names) == 1 else partial(_named, kind, name)
            CRITERIA[name] = Criterion(name, reads, collect=make)
        return kind

    return register


def _named(kind: Callable[..., Collector], name: str, graph: ChannelGraph) -> Collector:
    return kind(graph, name)
