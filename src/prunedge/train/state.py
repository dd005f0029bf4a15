"""What is kept of a training and gone back to.

Its epochs, the best of them, and where it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from prunedge.tasks import Metric, Metrics
from prunedge.train.optim import OptimState


@dataclass(frozen=True)
class Epoch:
    """One epoch: the mean training `loss` per image, and the seconds of each part.

    `val` holds the metrics on validation data, if there is any.
    """

    loss: float
    val: Metrics | None
    seconds: float
    seconds_evaluate: float


@dataclass(frozen=True)
class Snapshot:
    """The best epoch so far.

    `rank` orders epochs, `optimizer_state` is that by parameter name, `collected` what the
    collector gave. `weights` is empty where the model itself has those of that epoch and nothing
    can come after it.
    """

    epoch: int
    rank: tuple[float, float]
    val: Metrics | None
    collected: Any
    weights: dict[str, torch.Tensor]
    optimizer_state: OptimState


@dataclass(frozen=True)
class TrainingCheckpoint:
    """A training after its first `epochs` epochs.

    The model's `weights`, the optimizer's state, the best epoch and all epochs so far; the state of
    the weights' moving average, empty where there is none.
    """

    epochs: int
    weights: dict[str, torch.Tensor]
    optimizer_state: OptimState
    best: Snapshot
    history: tuple[Epoch, ...]
    averaged: Mapping[str, torch.Tensor] = field(default_factory=dict)


class Checkpointer(Protocol):
    """Keeps a training while it goes on, so that one that is cut off goes on from there."""

    def kept(self) -> TrainingCheckpoint | None:
        """What was kept last; None when nothing was."""

    def keep(self, checkpoint: TrainingCheckpoint) -> None:
        """Keep it in the place of what was kept before."""


def rank_of(metrics: Metrics | None, metric: Metric, epoch: int) -> tuple[float, float]:
    """What orders epochs: the metric, the lower loss breaking ties.

    Without validation data the later one is the better.
    """
    if metrics is None:
        return float(epoch), 0.0
    return metric.order(metrics.value(metric.name)), -metrics.loss
