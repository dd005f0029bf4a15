"""Whether a model's answers are probabilities already: prunedge applies a softmax or a sigmoid of
its own, and twice is once too often.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

TOLERANCE = 1e-4
LOUD = 100.0  # times the usual inputs: what is no probability leaves 0 to 1 then

Squash = Literal["softmax", "sigmoid"]


def squash_of(outputs: np.ndarray) -> Squash | None:
    """`softmax` when outputs (n, classes, ...) of several images are all from 0 to 1 and add up
    to 1 over two or more classes.
    """
    if outputs.ndim < 2 or outputs.shape[1] < 2 or not is_share(outputs):
        return None
    return "softmax" if bool((np.abs(outputs.sum(1) - 1) <= TOLERANCE).all()) else None


def is_sigmoid(outputs: np.ndarray, loud: np.ndarray) -> bool:
    """Whether outputs behave as a sigmoid's: on both sides of a half, and from 0 to 1 even where
    images are `LOUD` times as strong.
    """
    both = np.concatenate([outputs, loud])
    return is_share(both) and bool(both.min(initial=1) < 0.5 < both.max(initial=0))


def is_share(values: np.ndarray) -> bool:
    """Whether all of these are from 0 to 1."""
    return bool(((values >= 0) & (values <= 1)).all())


def squash_warning(squash: Squash) -> str:
    """The fault in words."""
    return (
        f"this model ends in a {squash}, and prunedge applies one of its own: its "
        "probabilities would be squeezed"
    )


REMEDY = "remove the last layer, so that it returns logits"
