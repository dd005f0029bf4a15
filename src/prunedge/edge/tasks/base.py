"""A task's half on the device: what a model's outputs mean, and whether they can be right."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from prunedge.edge.image.size import LARGEST, Resize, Size


class TaskSpec(BaseModel):
    """What a model predicts, and from which images: JSON, in a run's config and a bundle's
    manifest.

    `size` is (height, width) of the images that it sees, `resize` how others become such.
    `thresholds` are probabilities by class, of tasks whose decision has one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    classes: tuple[str, ...] = Field(min_length=1)
    size: Size
    resize: Resize = "stretch"
    thresholds: dict[str, float] = {}

    @field_validator("size")
    @classmethod
    def _size_is_one(cls, size: Size) -> Size:
        if not (1 <= size.height <= LARGEST and 1 <= size.width <= LARGEST):
            raise ValueError(f"sides from 1 to {LARGEST:,} pixels")
        return size


class Decoder(Protocol):
    """What a task makes of a model's outputs; numpy only."""

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """The prediction: for classification probabilities (n, classes) float32 of outputs of that
        shape.
        """

    def check(self, outputs: np.ndarray, count: int) -> str | None:
        """Why these outputs of `count` images can't be right, in words; None where they can."""

    def agreement(self, found: np.ndarray, wanted: np.ndarray, tolerance: float) -> np.ndarray:
        """For each image (n,) bool whether outputs mean the same as those that are `wanted`; what
        these can't tell apart within `tolerance` counts as the same.
        """

    def findings(self, prediction: Any, tile: Any) -> Any:
        """What an inspection draws, measures and sends of a prediction for one tile of a
        photograph.
        """
