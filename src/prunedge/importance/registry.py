"""The one place that knows every criterion by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import nn

from prunedge.errors import PrunedgeError
from prunedge.graph import ChannelGraph

Values = dict[str, torch.Tensor]
WeightFunction = Callable[[nn.Module, ChannelGraph, torch.Generator], Values]


@dataclass(frozen=True)
class Criterion:
    """A way to score channels. `compute` reads the network alone; None means that pictures are needed (Taylor)."""

    name: str
    compute: WeightFunction | None


CRITERIA: dict[str, Criterion] = {"taylor": Criterion("taylor", None)}


def criterion(name: str) -> Callable[[WeightFunction], WeightFunction]:
    """Register a function (network, graph, generator) -> {group: (channels,) float64 scores} under a name."""

    def register(function: WeightFunction) -> WeightFunction:
        CRITERIA[name] = Criterion(name, function)
        return function

    return register


def find(name: str) -> Criterion:
    """The criterion of that name; PrunedgeError with the nearest names when there is none."""
    if name not in CRITERIA:
        near = get_close_matches(name, CRITERIA, n=3, cutoff=0.3) or sorted(CRITERIA)
        raise PrunedgeError(f"unknown criterion '{name}'", where="--criterion", remedy=f"use one of {', '.join(near)}")
    return CRITERIA[name]
