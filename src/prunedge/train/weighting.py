"""What a training's loss is, and what it counts more, by its config and its images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from prunedge.edge.tasks import DEFINITIONS, refusal_of
from prunedge.errors import TrainError
from prunedge.tasks import LossWeighting, Task
from prunedge.train.config import TrainConfig
from prunedge.utils.advice import option


def settled(config: TrainConfig, task: Task, train: Any) -> TrainConfig:
    """The config with a `balance` that says what to do, in the place of `auto`.

    Pixels of damage are few, and where most images of the training split `train` show none of them
    a model learns to answer nothing: U-Nets from VGG16 were at an IoU of 0 on magnetic tiles (71 %
    without defects) after 20 epochs, and with as many images of each kind at 13 % after three.
    """
    if config.balance != "auto":
        return config
    is_rare = task.spec is not None and DEFINITIONS[task.spec.name].samples_rare
    if is_rare and hasattr(train, "rarest_strata") and _shows_little(train):
        return replace(config, balance="sampler")
    return replace(config, balance="none")


def _shows_little(train: Any) -> bool:
    """Whether most images of a split show none of the classes."""
    strata = train.rarest_strata()
    none_of_them = len(train.labelling.strata_names)
    return 2 * int((strata == none_of_them).sum()) > len(strata)


def weighting_of(
    task: Task, train: Any, config: TrainConfig, device: torch.device
) -> LossWeighting | None:
    """What a config asks a task's loss to count more, with class weights by the images of the
    training split `train`; None where all counts alike.

    TrainError where the task has no such loss, or bare batches don't say what they are of.
    """
    if config.balance in ("auto", "none") and not config.focal and config.area_loss is None:
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
    if config.balance in ("loss", "sampler") and not hasattr(train, "rarest_strata"):
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
