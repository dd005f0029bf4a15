"""How good a model is on a split: its outputs in float32, judged by the task's meter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from prunedge.errors import TrainError
from prunedge.models.cost import evaluating
from prunedge.models.tf32 import full_float32
from prunedge.tasks import Meter, Metrics, Task, task_of_batches
from prunedge.train.engine import Engine
from prunedge.utils import distributed
from prunedge.utils.tracing import traced

Batches = Iterable[tuple[torch.Tensor, Any]]


@traced("evaluate")
def evaluate(
    model: nn.Module, batches: Batches, engine: Engine, task: Task | None = None
) -> Metrics:
    """Measure `model` on every batch ((N, 3, H, W) float32, the task's targets) of a split.

    Without a `task` it is the split's own. In evaluation mode and float32, whatever the engine
    trains in, since that is what the bundle runs. The model stays as it was. Several processes take
    whole batches in turn, and all get the same metrics. Raises TrainError when there is no image or
    the outputs aren't finite, ModelError when the model gives nothing that the task can read.
    """
    with engine.holding(model):
        meter = observe_held(model, batches, engine, task or task_of_batches(batches))
    return distributed.broadcast_object(meter.compute())


@traced("evaluate")
def observe(model: nn.Module, batches: Batches, engine: Engine, task: Task | None = None) -> Meter:
    """The task's meter after every batch: what `evaluate` computes metrics from, and what the
    report's gallery is chosen by.
    """
    with engine.holding(model):
        return observe_held(model, batches, engine, task or task_of_batches(batches))


def observe_held(
    model: nn.Module, batches: Batches, engine: Engine, task: Task, *, is_quick: bool = False
) -> Meter:
    """`observe` for a model that is on the engine's device already; without the metrics that are
    slow where it has to be quick.
    """
    meter = task.meter(is_quick=True) if is_quick else task.meter()
    observations = []
    with evaluating(model), torch.no_grad(), full_float32():
        for images, targets in distributed.shard_batches(batches):
            with engine.span("forward"):
                outputs = model(engine.to_device(images))
                observations.append(meter.observe(outputs, targets))

    # In the end, since a GPU that is asked for an answer can't work ahead meanwhile.
    on_cpu = [_on_cpu(observation) for observation in observations]
    gathered = distributed.gather_batches(on_cpu)
    if not gathered:
        raise TrainError("there is no image to evaluate on", remedy="give this split some images")
    for observation in gathered:
        meter.update(observation)
    return meter


def _on_cpu(observation: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu() for name, tensor in observation.items()}
