"""The one place that knows every criterion by name."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import import_module
from typing import Any, Literal, Protocol, Self, cast, overload

import torch
from torch import nn

from prunedge.errors import PrunedgeError
from prunedge.graph import ChannelGraph
from prunedge.importance.activation import (
    ActivationFunction,
    ActivationMean,
    ActivationStd,
    Apoz,
)
from prunedge.importance.fingerprint import function_digest
from prunedge.importance.mutual_information import MutualInformation, PredictionInformation
from prunedge.importance.scores import Scores
from prunedge.importance.taylor import TaylorCollector
from prunedge.importance.taylor_bn import ScaleCollector
from prunedge.models import working_directory_importable
from prunedge.utils.advice import option

Reads = Literal["weights", "activations", "gradients"]
Values = dict[str, torch.Tensor]  # group -> the score of each of its channels

# What a user's criterion is: of the weights, or of a batch (`criterion` says of what shape).
WeightFunction = Callable[[nn.Module, ChannelGraph, torch.Generator], Values]
BatchFunction = Callable[[torch.Tensor], torch.Tensor]

# These read the scales of the norms that channels pass, and nothing else.
OF_NORMS = ("bn-scale", "taylor-bn")


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

    `reads` says what it needs: the `weights` alone (`compute`), the `activations` or the
    `gradients` of batches (`collect` makes its collector). What reads gradients can be gathered
    while fine-tuning.
    """

    name: str
    reads: Reads
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

    def register(function: Any) -> Any:
        if reads == "weights":
            CRITERIA[name] = Criterion(name, reads, compute=function)
        elif reads == "activations":
            CRITERIA[name] = Criterion(
                name, reads, collect=lambda graph: ActivationFunction(graph, name, function)
            )
        else:
            CRITERIA[name] = Criterion(
                name, reads, collect=lambda graph: TaylorCollector(graph, name, function)
            )
        return function

    return register


def criterion_named(name: str) -> Criterion:
    """The criterion of that name, or `package.module:name` of the user's own.

    The latter imports the module; what `name` names in it is a criterion that the module registers,
    or a function of the weights that needs no decorator. PrunedgeError with the nearest names when
    there is none.
    """
    if name not in CRITERIA and ":" in name:
        _own(name)
    if name not in CRITERIA:
        near = get_close_matches(name, CRITERIA, n=3, cutoff=0.5)
        guess = f"did you mean {', '.join(near)}? " if near else ""
        remedy = f"{guess}there are {', '.join(sorted(CRITERIA))}"
        raise PrunedgeError(f"unknown criterion '{name}'", where=option("criterion"), remedy=remedy)
    return CRITERIA[name]


def identity(name: str) -> str | None:
    """The criterion's name with a digest of what it does: another function under the same name is
    another criterion.

    None where that can't be told (a function that refers to an object of the user's own).
    """
    chosen = criterion_named(name)
    digest = function_digest((chosen.reads, chosen.compute, chosen.collect))
    return None if digest is None else f"{name} {digest}"


def _own(name: str) -> None:
    """Register what the user's module calls so under its whole name."""
    module_name, _, short = name.partition(":")
    try:
        with working_directory_importable():
            module = import_module(module_name)
    except Exception as error:  # whatever is in the user's module, or names that lead up or nowhere
        raise PrunedgeError(
            f"can't import {module_name}: {error}",
            where=option("criterion"),
            remedy="write it as package.module:name, run where it can be imported",
        ) from error
    function = getattr(module, short, None)
    if short in CRITERIA:
        CRITERIA[name] = replace(CRITERIA[short], name=name)
    elif callable(function):
        criterion(name)(function)
    else:
        remedy = "name a function, or what its @criterion(...) says"
        raise PrunedgeError(
            f"{module_name} has no criterion '{short}'", where=option("criterion"), remedy=remedy
        )


def gathered_while_training(name: str, graph: ChannelGraph) -> GradientCollector | None:
    """The collector that ranks while a model fine-tunes; None for criteria that need a pass of
    their own.
    """
    chosen = criterion_named(name)
    return (
        cast(GradientCollector, chosen.collect(graph))
        if chosen.reads == "gradients" and chosen.collect is not None
        else None
    )
