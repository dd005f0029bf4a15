"""What a pass over the images asks of whatever computes it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import nn


class Computes(Protocol):
    """How a pass over the images computes: `prunedge.train.Engine`, which training uses as
    well.
    """

    @property
    def device(self) -> torch.device:
        """Where."""

    def suited(self, model: nn.Module) -> Computes:
        """One that is safe for this model."""

    def holding(self, model: nn.Module) -> AbstractContextManager[None]:
        """The model is on the device, and in the memory format, while inside."""

    def to_device(self, batch: torch.Tensor) -> torch.Tensor:
        """A tensor of a batch, as the model is."""

    def autocast(self) -> AbstractContextManager[Any]:
        """Operations run in the engine's precision while inside."""
