"""The learning rate's schedule."""

from __future__ import annotations

import math

from prunedge.train.config import TrainConfig


def learning_rate(batch: int, total: int, config: TrainConfig) -> float:
    """The rate of the 0-based `batch` out of `total`.

    Linear up to `lr`, then a cosine to `final * lr`; from `start` on.
    """
    whole = round(total / (1 - config.start))
    done = batch + whole - total
    warm = int(config.warmup * whole)
    if done < warm:
        return config.lr * (done + 1) / (warm + 1)
    along = (done - warm) / max(1, whole - warm - 1)
    cosine = (1 + math.cos(math.pi * along)) / 2
    return config.lr * (config.final + (1 - config.final) * cosine)
