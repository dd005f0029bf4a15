"""Ask a model which example is where: run a few examples, then the same with one exchanged."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunedge.importance.folds import Fold, find_fold

PROBED = 3  # examples that tell two ways to fold apart

CallKey = tuple[Any, int]  # a consumer, and how often it was called before in this forward
Folds = dict[CallKey, Fold | None]


@dataclass(frozen=True)
class ProbeRecord:
    """What a consumer read in a probe."""

    call: CallKey
    value: torch.Tensor
    features: int


@dataclass(frozen=True)
class Probes:
    """Which examples of a batch go through the model together, probe by probe.

    The first `base` are the same examples; in each of the others one of them is exchanged.
    """

    examples: list[list[int]]
    base: int


def plan_probes(size: int, is_exact: bool) -> Probes:
    """The probes of a batch of that size.

    `is_exact`: the same examples give the same bits when they come again. A GPU may add up in
    another order, so that they come twice there.
    """
    few = min(PROBED, size)
    order = list(range(few))
    examples = [order] if is_exact else [order, order]
    base = len(examples)
    for exchanged in order:
        probe = list(order)
        probe[exchanged] = size - 1 if size > few else (exchanged + 1) % few
        examples.append(probe)
    return Probes(examples, base)


def folds_from(passes: Sequence[Sequence[ProbeRecord]], base: int) -> Folds:
    """How the examples are folded at each call of a consumer, from what was read in each probe.

    Nothing where the model takes other ways through its code for other examples.
    """
    ways = set()
    for records in passes:
        ways.add(tuple((record.call, record.value.shape) for record in records))
    if len(ways) > 1:
        return {}

    folds: Folds = {}
    for records in zip(*passes, strict=True):
        first = records[0]
        values = [record.value for record in records]
        folds[first.call] = find_fold(values, base, first.features)
    return folds


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Inside, batch norms are in evaluation mode; buffers and random generators are put back."""
    norms = []
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            norms.append(module)
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    python_state = random.getstate()
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    try:
        for norm in norms:
            norm.training = False
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            yield
    finally:
        random.setstate(python_state)
        for norm in norms:
            norm.training = True
        for buffer, before in buffers:
            # Otherwise it isn't touched: a forward pass under way may have kept it.
            if not torch.equal(buffer, before):
                with torch.no_grad():
                    buffer.copy_(before)
