"""What every exporter gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from prunedge.edge.image.size import Size


@dataclass(frozen=True)
class Source:
    """A trained model in evaluation mode on the CPU, the `size` of its images, and the folder that
    files go to.

    `onnx` gives the path of its float32 ONNX file, written when first asked for. `calibration`
    holds training images (n, 3, height, width) float32, normalised, for those who count in
    integers.
    """

    model: nn.Module
    size: Size
    folder: Path
    onnx: Callable[[], Path]
    calibration: torch.Tensor | None
