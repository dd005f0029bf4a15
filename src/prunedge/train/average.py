"""The exponential moving average of a model's weights: torch's own, warmed up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def averaged_model(model: nn.Module, decay: float) -> AveragedModel:
    """The average of `model`'s weights and buffers, which follows it by `update_parameters`."""
    return AveragedModel(model, multi_avg_fn=_average(decay), use_buffers=True)


def _average(decay: float) -> Callable[[Any, Any, Any], None]:
    """What brings averages nearer to what is current, both of one type and on one device."""

    def average(
        averaged: Sequence[torch.Tensor], current: Sequence[torch.Tensor], count: torch.Tensor | int
    ) -> None:
        # Numbers of batches and tables of places have no average.
        if not averaged[0].is_floating_point():
            for held, new in zip(averaged, current, strict=True):
                held.copy_(new)
            return
        get_ema_multi_avg_fn(warmed(decay, int(count)))(averaged, current, count)

    return average


def warmed(decay: float, steps: int) -> float:
    """The decay after so many steps. The weights of the first ones would weigh for a thousand steps
    otherwise, which a short training doesn't have (as in TensorFlow's and timm's averages).
    """
    return min(decay, (1 + steps) / (10 + steps))
