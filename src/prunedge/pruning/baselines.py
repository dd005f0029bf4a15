"""The baselines that honest work needs: would the same shape, or other channels, have done as
well?
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import nn

from prunedge.data import Dataset
from prunedge.graph import ChannelGraph, copied, trace
from prunedge.graph.plan import Plan
from prunedge.pruning.steps import Step, lineage
from prunedge.surgery import operate
from prunedge.tasks import make_task
from prunedge.train import Engine, FitResult, TrainConfig, TrainExtras, fit

Baseline = Literal["scratch", "random"]
Progress = Callable[[int, int, str], None]


def epochs_of(steps: Sequence[Step], best: int, train_epochs: int) -> int:
    """How many epochs the model of step `best` has seen in all."""
    return train_epochs + sum(step.epochs for step in lineage(steps, best))


def scratch(
    model: nn.Module,
    plan: Plan,
    data: Dataset,
    *,
    epochs: int,
    config: TrainConfig,
    engine: Engine,
    seed: int,
    progress: Progress | None = None,
) -> FitResult:
    """Train the pruned shape from random weights (Liu et al. 2019, 'Rethinking the value of network
    pruning', scratch-E with equal epochs).

    `model` is the unpruned one with its own random weights. They are cut down to the plan's
    shape, and scaled so that layers with fewer inputs still give values of the same size.
    """
    graph = trace(model, data.example())
    surgery = operate(model, graph, plan)
    small = _rescaled(surgery.model, graph, surgery.plan)
    return fit(
        small,
        data.train,
        epochs=epochs,
        config=config,
        engine=engine,
        seed=seed,
        val=data.val,
        task=make_task(data.spec),
        extras=TrainExtras(progress=progress),
    )


def random(
    model: nn.Module,
    plans: Sequence[tuple[Plan, int]],
    data: Dataset,
    *,
    config: TrainConfig,
    engine: Engine,
    seed: int,
    progress: Progress | None = None,
) -> FitResult:
    """Prune the trained `model` step by step to as many channels of each group as `plans` leave,
    drawn at random, with the same epochs.

    `plans` holds each accepted step's plan, counted in the unpruned model, and its epochs of
    fine-tuning.
    """
    generator = torch.Generator().manual_seed(seed)
    small, fitted = copied(model), None
    for number, (plan, epochs) in enumerate(plans):
        graph = trace(small, data.example())
        surgery = operate(small, graph, _as_many(graph, plan, generator))
        fitted = fit(
            surgery.model,
            data.train,
            epochs=epochs,
            config=config,
            engine=engine,
            seed=seed + number,
            val=data.val,
            task=make_task(data.spec),
            extras=TrainExtras(progress=progress),
        )
        small = fitted.model
    if fitted is None:
        raise ValueError("there is no plan to follow")
    return fitted


def _as_many(graph: ChannelGraph, plan: Plan, generator: torch.Generator) -> Plan:
    keep = {}
    for group in graph.groups:
        stay = min(group.size, len(plan.keep.get(group.name, range(group.size))))
        if stay < group.size:
            keep[group.name] = tuple(
                sorted(torch.randperm(group.size, generator=generator)[:stay].tolist())
            )
    return Plan(keep)


def _rescaled(small: nn.Module, graph: ChannelGraph, plan: Plan) -> nn.Module:
    inputs = {(part.tensor, part.dim) for group in graph.groups for part in group.having("in")}
    tensors = dict(small.named_parameters())
    with torch.no_grad():
        for name, dims in graph.kept(plan).items():
            for dim, kept in dims.items():
                if (name, dim) in inputs and name in tensors and tensors[name].dim() > 1:
                    tensors[name].mul_((graph.shapes[name][dim] / len(kept)) ** 0.5)
    return small
