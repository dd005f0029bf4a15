"""One label for one image: probabilities over the classes, by a softmax."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from prunedge.edge.probabilities import is_share, is_sigmoid, squash_of, squash_warning
from prunedge.edge.tasks.base import DecoderDefinition, Findings, TaskSpec, Tiles

TOLERANCE = 1e-3  # of a sum of probabilities
NEAR = 0.05  # between an image alone and among others: quantised models may round by the batch


@dataclass(frozen=True)
class Classification:
    """Outputs are logits (n, classes), predictions probabilities (n, classes)."""

    spec: TaskSpec

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """Softmax over the classes."""
        exponents = np.exp(outputs - outputs.max(1, keepdims=True))
        return exponents / exponents.sum(1, keepdims=True)

    def check(self, outputs: np.ndarray, count: int) -> str | None:
        """Whether there is one logit for each class of each image."""
        classes = len(self.spec.classes)
        if outputs.shape == (count, classes):
            return None
        return f"the model gives {outputs.shape}, the manifest has {classes} classes"

    def check_predictions(self, predictions: np.ndarray, count: int) -> str | None:
        """Whether they are one row of probabilities for each image."""
        wanted = (count, len(self.spec.classes))
        if predictions.shape != wanted:
            return f"answers of shape {predictions.shape}, wanted {wanted}"
        if not np.isfinite(predictions).all():
            return "answers that are no numbers"
        sums = predictions.sum(1)
        if predictions.min() < -TOLERANCE or np.abs(sums - 1).max() > TOLERANCE:
            return "answers that are no probabilities"
        return None

    def is_near(self, predictions: np.ndarray, others: np.ndarray) -> bool:
        """Whether no probability differs by more than `NEAR`."""
        return not np.abs(predictions - others).max() > NEAR

    def agreement(self, outputs: np.ndarray, wanted: np.ndarray, tolerance: float) -> np.ndarray:
        """The same label, or one whose wanted logit is within `tolerance` of the highest."""
        highest = np.take_along_axis(wanted, wanted.argmax(1)[:, None], 1)
        chosen = np.take_along_axis(wanted, outputs.argmax(1)[:, None], 1)
        return (highest - chosen)[:, 0] <= tolerance

    def warning(self, outputs: np.ndarray, loud: Callable[[], np.ndarray]) -> str | None:
        """Whether the outputs are probabilities already: a second softmax would squeeze them."""
        squash = squash_of(outputs)
        if squash is None and is_share(outputs):
            squash = "sigmoid" if is_sigmoid(outputs, loud()) else None
        return None if squash is None else squash_warning(squash)

    def findings(
        self, predictions: np.ndarray, tiles: Tiles, damage: Sequence[str], threshold: float
    ) -> Findings:
        """A tile is as damaged as its damage classes are probable together."""
        chosen = [self.spec.classes.index(label) for label in damage]
        values = predictions[:, chosen]  # (tiles, damage classes)
        sums = values.sum(1, dtype=np.float64).clip(0, 1).astype(np.float32)
        labels = np.asarray(damage)[values.argmax(1)]

        by_tile = sums.reshape(tiles.shape)
        mean, surest = tiles.maps(by_tile, threshold)
        return Findings(
            mean=mean,
            peak=sums[surest],
            labels=labels[surest],
            is_damaged=tiles.damaged(by_tile, mean, threshold),
            surest=float(sums.max()),
            tiles=int((sums >= threshold).sum()),
        )


DEFINITION = DecoderDefinition("classification", Classification)
