"""What a training's loss is, and what it counts more, by its config and its images."""

from __future__ import annotations

from typing import Any

import torch

from prunedge.edge.tasks import refusal_of
from prunedge.errors import TrainError
from prunedge.tasks import LossWeighting, Task
from prunedge.train.config import TrainConfig
from prunedge.utils.advice import option


def weighting_of(
    task: Task, train: Any, config: TrainConfig, device: torch.device
) -> LossWeighting | None:
    """What a config asks a task's loss to count more, with class weights by the images of the
    training split `train`; None where all counts alike.

    TrainError where the task has no such loss, or bare batches don't say what they are of.
    """
    if config.balance == "none" and not config.focal and config.area_loss is None:
        return None
    if task.spec is None and config.area_loss is not None:
        raise TrainError(
            "bare batches don't say of which task they are, which "
            f"{option('area_loss', config.area_loss)} asks for",
            remedy="train on a split, such as data.train",
        )
    if task.spec is not None:
        refusal = refusal_of(task.spec.name, config.balance, config.focal, config.area_loss)
        if refusal is not None:
            raise TrainError(refusal)
    if config.balance != "none" and not hasattr(train, "rarest_strata"):
        raise TrainError(
            f"bare batches don't say how rare a class is, which balance={config.balance} asks for",
            remedy="train on a split, such as data.train",
        )
    weights = None
    if config.balance == "loss":
        weights = task.loss_weights(train.targets()).to(device)
    if weights is None and not config.focal and config.area_loss is None:
        return None  # the sampler has given rare classes their share
    return LossWeighting(weights, config.focal, config.area_loss)
