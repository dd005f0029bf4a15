"""What a consumer of channels reads while the model runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from prunedge.importance.consumers import Tap
from prunedge.importance.folds import Fold

ConsumerKey = tuple[str, int]  # a group, and the number of one of its consumers


@dataclass(frozen=True)
class Reading:
    """One consumer's input as it runs, with the channels along `features`, for the `taps`.

    `arranged` gives it with the examples along the first dimension, where the hooks tell them
    apart; otherwise with any dimension there. `examples` is the number of examples in the batch.
    """

    taps: tuple[Tap, ...]
    features: int
    fold: Fold | None
    examples: int

    def arranged(self, z: torch.Tensor) -> torch.Tensor:
        """`z`, or its gradient, with the first dimension as promised."""
        if self.fold is not None:
            return self.fold.apart(z, self.examples)
        return z[None] if self._is_bare else z

    @property
    def channel_dim(self) -> int:
        """The dimension of the channels in what `arranged` gives."""
        if self.fold is not None:
            return self.fold.features(self.features)
        return self.features + self._is_bare

    @property
    def _is_bare(self) -> bool:
        """Whether it is a single example, or has the channels first: a dimension goes before it."""
        return self.examples == 1 or self.features == 0
