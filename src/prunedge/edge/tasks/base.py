"""A task's half on the device: what a model's outputs mean, and whether they can be right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

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


class Tiles(Protocol):
    """The overlapping tiles that a photograph was cut into (`prunedge.edge.inspect.grid.Grid`), and
    the cells that their edges make.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of tiles."""

    def maps(self, values: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        """From a value a tile (rows, columns) to each cell's mean (float32), and the place of its
        highest in `values.ravel()` (int64).
        """

    def damaged(self, values: np.ndarray, mean: np.ndarray, threshold: float) -> np.ndarray:
        """Which cells are damaged (bool), by the tiles' values and the means of `maps`."""


@dataclass(frozen=True)
class Findings:
    """What a photograph's tiles tell of its damage. Arrays are (rows, columns) of cells.

    `mean` float32 is the probability of damage; `peak` float32 that of the surest tile that holds
    the cell, `labels` (str) that tile's damage class; `is_damaged` bool. `surest` is the highest
    probability of a tile, `tiles` how many reach the threshold.
    """

    mean: np.ndarray
    peak: np.ndarray
    labels: np.ndarray
    is_damaged: np.ndarray
    surest: float
    tiles: int


class Decoder(Protocol):
    """What a task makes of a model's outputs; numpy only.

    Outputs are the model's, float32, an image along the first axis; predictions are what `decode`
    makes of them.
    """

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """The predictions: for classification probabilities (n, classes) of as many logits."""

    def check(self, outputs: np.ndarray, count: int) -> str | None:
        """Why outputs of this shape can't be those of `count` images, in words; None where they
        can.
        """

    def check_predictions(self, predictions: np.ndarray, count: int) -> str | None:
        """Why these can't be right for `count` images, in words; None where they can."""

    def is_near(self, predictions: np.ndarray, others: np.ndarray) -> bool:
        """Whether predictions of the same images, made in other batches, differ by no more than a
        quantised model's rounding.
        """

    def agreement(self, outputs: np.ndarray, wanted: np.ndarray, tolerance: float) -> np.ndarray:
        """For each image whether outputs mean the same as those that are `wanted`, (n,) bool; what
        these can't tell apart within `tolerance` counts as the same.
        """

    def warning(self, outputs: np.ndarray, loud: Callable[[], np.ndarray]) -> str | None:
        """What is wrong with a model whose outputs are decoded already, None where they are not.

        `loud` gives the outputs of the same images `prunedge.edge.probabilities.LOUD` times as
        strong; it costs a pass.
        """

    def findings(
        self, predictions: np.ndarray, tiles: Tiles, damage: Sequence[str], threshold: float
    ) -> Findings:
        """What an inspection draws, measures and sends of a photograph, by the predictions of its
        tiles, row by row. `damage` are the classes that count, from a probability of `threshold`
        on.
        """


@dataclass(frozen=True)
class DecoderDefinition:
    """A task's half on the device, by the task's name."""

    name: str
    make: Callable[[TaskSpec], Decoder]
