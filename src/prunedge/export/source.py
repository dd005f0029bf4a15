"""What every exporter gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from prunedge.edge.runtimes import filled
from prunedge.edge.tasks.base import TaskSpec


@dataclass(frozen=True)
class Source:
    """A trained model in evaluation mode on the CPU, its task, which says what its images are like,
    and the folder that files go to.

    `onnx` gives the path of its float32 ONNX file, written when first asked for. `calibration`
    holds training images (n, channels, height, width) float32, normalised, for those who count in
    integers. `batch` is how many images the ONNX file takes at a time, None for any number.
    """

    model: nn.Module
    task: TaskSpec
    folder: Path
    onnx: Callable[[], Path]
    calibration: torch.Tensor | None
    batch: int | None = None

    def calibration_batches(self) -> list[np.ndarray]:
        """The training images for integers in batches such as the ONNX file takes: one by one, or
        as many as it is fixed to.
        """
        assert self.calibration is not None  # export_bundle refuses to begin without
        size = self.batch or 1
        batches = [batch.numpy() for batch in self.calibration.split(size)]
        return [filled(batch, size) for batch in batches]
