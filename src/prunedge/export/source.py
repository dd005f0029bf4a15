"""What every exporter gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from prunedge.edge.tasks.base import TaskSpec


@dataclass(frozen=True)
class Source:
    """A trained model in evaluation mode on the CPU, its task, which says what its images are like,
    and the folder that files go to.

    `onnx` gives the path of its float32 ONNX file, written when first asked for. `calibration`
    holds training images (n, channels, height, width) float32, normalised, for those who count in
    integers.
    """

    model: nn.Module
    task: TaskSpec
    folder: Path
    onnx: Callable[[], Path]
    calibration: torch.Tensor | None
