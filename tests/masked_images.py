"""Tiny photographs with dark lines and blots, and their masks, which a small model can tell; and
that model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

SIDE = 32
LINE, BLOT = 1, 2  # the numbers of the classes


class TinyUNet(nn.Module):
    """A skip over one halving, and a map of logits as large as the image."""

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.low = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.up = nn.Sequential(nn.Conv2d(24, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Conv2d(8, num_classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        high = self.down(images)
        low = F.interpolate(self.low(F.max_pool2d(high, 2)), scale_factor=2)
        return self.head(self.up(torch.cat((high, low), 1)))


class TinyDict(TinyUNet):
    """The same as torchvision's models of pixels answer."""

    def forward(self, images: torch.Tensor) -> Any:
        return {"out": super().forward(images)}


def tiny_unet(num_classes: int) -> nn.Module:
    return TinyUNet(num_classes)


def tiny_dict(num_classes: int) -> nn.Module:
    return TinyDict(num_classes)


def write_pair(
    root: Path,
    name: str,
    numbers: np.ndarray,
    *,
    values: tuple[int, ...] = (0, 255, 255),
    seed: int = 0,
) -> None:
    """A photograph that is dark where a mask of class numbers (height, width) is not 0, and that
    mask with these `values` for the numbers."""
    noise = np.random.default_rng(seed).normal(170, 12, (*numbers.shape, 3))
    noise[numbers == LINE] = 20
    noise[numbers == BLOT] = (20, 20, 220)
    table = np.array(values, np.uint8)
    for folder, pixels in (
        ("photos", noise.clip(0, 255).astype(np.uint8)),
        ("masks", table[numbers]),
    ):
        path = root / folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def numbers_with(
    seed: int, *, line: bool = True, blot: bool = False, side: int = SIDE
) -> np.ndarray:
    """A mask with a line three pixels wide and a blot, where asked for."""
    generator = np.random.default_rng(seed)
    numbers = np.zeros((side, side), np.uint8)
    if line:
        at = int(generator.integers(3, side - 6))
        numbers[at : at + 3] = LINE
        if seed % 2:
            numbers = np.ascontiguousarray(numbers.T)
    if blot:
        y, x = generator.integers(2, side - 10, 2)
        numbers[y : y + 7, x : x + 7] = BLOT
    return numbers


def write_lines(root: Path, count: int = 40) -> Path:
    """Photographs and masks of black and white; every fifth shows nothing."""
    for index in range(count):
        write_pair(root, f"{index:03d}", numbers_with(index, line=index % 5 > 0), seed=index)
    return root


def write_kinds(root: Path, count: int = 40) -> Path:
    """Photographs with lines and blots, masks of their numbers, and names beside these."""
    for index in range(count):
        numbers = numbers_with(index, line=index % 3 > 0, blot=index % 2 > 0)
        write_pair(root, f"{index:03d}", numbers, values=(0, 1, 2), seed=index)
    (root / "masks" / "classes.txt").write_text("sound\ncrack\nspalling\n")
    return root
