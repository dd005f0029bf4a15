"""One step: a batch forward and backward, and the optimizer's step."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from prunedge.tasks import LossWeighting, Task
from prunedge.train.config import TrainConfig
from prunedge.train.distill import teacher_distance
from prunedge.train.engine import Engine
from prunedge.train.extras import TrainExtras
from prunedge.train.optim import set_rate
from prunedge.train.sync import add_gradients, synchronized_batch
from prunedge.utils import distributed
from prunedge.utils.distributed import BatchShard


@dataclass(frozen=True)
class Stepper:
    """What every step of a training works with.

    `optimizer` is torch's; `wrapped` and `driver` are Fabric's model and optimizer. `averaged` is
    the model's moving average, where there is one; `weighting` is what the loss counts more.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    wrapped: Any
    driver: Any
    config: TrainConfig
    engine: Engine
    extras: TrainExtras
    task: Task
    averaged: AveragedModel | None = None
    weighting: LossWeighting | None = None

    @property
    def kept(self) -> nn.Module:
        """The model that is evaluated and kept."""
        return self.model if self.averaged is None else self.averaged.module


def make_stepper(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
    engine: Engine,
    extras: TrainExtras,
    task: Task,
    averaged: AveragedModel | None = None,
    weighting: LossWeighting | None = None,
) -> Stepper:
    """Wrap the model and its optimizer as Fabric wants them."""
    wrapped: Any = model
    driver: Any = optimizer
    # Fabric would wrap a model of several processes in DistributedDataParallel, which
    # `add_gradients` says why not.
    if distributed.world_size() == 1:
        wrapped, driver = engine.fabric.setup(model, optimizer, move_to_device=False)
    return Stepper(
        model, optimizer, wrapped, driver, config, engine, extras, task, averaged, weighting
    )


def train_batch(stepper: Stepper, shard: BatchShard, lr: float, along: float) -> float:
    """Take one step, `along` (0 to 1) of all; gives the batch's mean loss.

    NaN, and no step, where the loss or the gradients aren't finite.
    """
    engine = stepper.engine
    is_divided = distributed.world_size() > 1
    set_rate(stepper.driver, lr)
    if stepper.extras.collector is not None:
        here = (shard.here,) if is_divided else ()
        stepper.extras.collector.start_batch(shard.whole, *here)

    with engine.span("forward"), synchronized_batch(shard, engine):
        inputs = engine.to_device(shard.images)
        targets = shard.targets.to(engine.device, non_blocking=True)
        outputs = stepper.task.outputs_of(stepper.wrapped(inputs))
    loss = _loss(stepper, inputs, outputs, targets, along)
    if is_divided:
        loss = loss * (shard.here / shard.whole)  # its part of the mean over the whole batch
    whole_loss = distributed.all_reduce_sum(loss.detach().clone())

    with engine.span("backward"):
        engine.fabric.backward(loss)
        if is_divided:
            add_gradients(stepper.model)
    with engine.span("optimiser"):
        return _take_step(stepper, whole_loss, along)


def _loss(
    stepper: Stepper,
    inputs: torch.Tensor,
    outputs: torch.Tensor,
    targets: torch.Tensor,
    along: float,
) -> torch.Tensor:
    """The task's loss, mixed with the distance from the teacher where there is one."""
    config = stepper.config
    smoothing = config.label_smoothing
    if stepper.weighting is None:
        loss = stepper.task.loss(outputs, targets, label_smoothing=smoothing)
    else:
        weighting = replace(stepper.weighting, along=along)
        loss = stepper.task.weighted_loss(outputs, targets, weighting, label_smoothing=smoothing)
    if not config.distill or stepper.extras.teacher is None:
        return loss
    teacher = stepper.extras.teacher
    distance = teacher_distance(
        teacher, stepper.task, stepper.engine, inputs, outputs, config.temperature
    )
    return (1 - config.distill) * loss + config.distill * distance


def _take_step(stepper: Stepper, loss: torch.Tensor, along: float) -> float:
    """Let the optimizer take its step unless the loss or the gradients aren't finite.

    Gives the loss; NaN where only the gradients aren't.
    """
    if stepper.extras.penalty is not None:
        stepper.extras.penalty(stepper.model, along)
    norm = stepper.engine.fabric.clip_gradients(
        stepper.wrapped,
        stepper.driver,
        max_norm=stepper.config.clip,
        error_if_nonfinite=False,
    )
    value, length = _numbers(loss, norm)
    if not math.isfinite(value):
        return value
    if not math.isfinite(length):
        return math.nan
    stepper.driver.step()
    stepper.driver.zero_grad(set_to_none=True)
    if stepper.averaged is not None:
        stepper.averaged.update_parameters(stepper.model)
    return value


def _numbers(loss: torch.Tensor, norm: torch.Tensor | None) -> tuple[float, float]:
    """The loss and the gradients' norm as numbers.

    Both at once: each number that the program asks a GPU for makes it wait until all before is
    done.
    """
    if norm is None:
        return float(loss), 0.0
    value, length = torch.stack((loss.float(), norm.detach().float().to(loss.device))).tolist()
    return value, length
