"""The batches of an epoch, of a Split or of whatever else yields them."""

from __future__ import annotations

from typing import Any

from prunedge.train.config import TrainConfig


def batches_of(data: Any, config: TrainConfig, seed: int, epoch: int) -> Any:
    """The epoch's batches: shuffled and augmented by a Split, or as they come from any other."""
    if not hasattr(data, "batches"):
        return data
    rest = len(data) % config.batch_size
    # Batch normalisation can't learn from a last batch of one image and is misled by two or three.
    drop_last = 0 < rest < 4 and len(data) > config.batch_size
    return data.batches(
        config.batch_size,
        shuffle_seed=seed,
        augment=config.augment,
        epoch=epoch,
        drop_last=drop_last,
    )


def repeatable(data: Any) -> Any:
    """The data itself, or its batches in a list when it can't be counted or gone through twice."""
    if hasattr(data, "batches") or (hasattr(data, "__len__") and iter(data) is not data):
        return data
    return list(data)
