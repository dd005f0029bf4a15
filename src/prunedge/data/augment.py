"""Random changes that leave a picture's class as it is: flips, quarter turns, a little brightness and contrast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transform

BRIGHTNESS = 0.15
CONTRAST = 0.15


@dataclass(frozen=True)
class Changes:
    """What happens to each picture.

    `flip` is (n,) bool, `turns` (n,) quarter turns, `brightness` and `contrast` (n,) factors around 1.

    A flip and four turns are all eight ways to lay a square: a vertical flip is a horizontal one turned twice.
    """

    flip: Tensor
    turns: Tensor
    brightness: Tensor
    contrast: Tensor

    def at(self, start: int, stop: int) -> Changes:
        """The changes of the pictures from `start` up to `stop`."""
        part = slice(start, stop)
        return Changes(self.flip[part], self.turns[part], self.brightness[part], self.contrast[part])


def draw(n: int, generator: torch.Generator) -> Changes:
    """Changes for `n` pictures, each of them by itself, from this generator alone."""
    flip = torch.rand(n, generator=generator) < 0.5
    turns = torch.randint(4, (n,), generator=generator)
    brightness = 1 + BRIGHTNESS * (2 * torch.rand(n, generator=generator) - 1)
    contrast = 1 + CONTRAST * (2 * torch.rand(n, generator=generator) - 1)
    return Changes(flip, turns, brightness, contrast)


def augment(pixels: np.ndarray, changes: Changes) -> np.ndarray:
    """The changed pictures, (N, S, S, 3) uint8 as `pixels`, which stay as they are."""
    pictures = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    made = []
    for i, picture in enumerate(pictures):
        if changes.flip[i]:
            picture = transform.horizontal_flip(picture)
        picture = transform.rotate(picture, 90.0 * int(changes.turns[i]))
        picture = transform.adjust_brightness(picture, float(changes.brightness[i]))
        made.append(transform.adjust_contrast(picture, float(changes.contrast[i])))
    return torch.stack(made).numpy().transpose(0, 2, 3, 1)
