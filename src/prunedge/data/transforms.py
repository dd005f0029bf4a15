"""Random changes that leave an image's class as it is: flips, quarter turns, a little brightness
and contrast.

A quarter turn gives an image of 128 x 384 pixels the shape 384 x 128, which no batch of the others
takes: where images are not square, those turns are left out (half turns and flips stay).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

# `flips`: left for right, top for bottom. `full`: all eight ways to lay a square, and a little
# brightness and contrast.
Augment = Literal["none", "flips", "full"]

BRIGHTNESS = 0.15
CONTRAST = 0.15
GREY = np.array([0.2989, 0.587, 0.114], dtype=np.float32)  # of red, green and blue (ITU-R BT.601)
SHARES = {3: GREY, 1: np.ones(1, np.float32)}  # what each channel is of an image's grey


@dataclass(frozen=True)
class Changes:
    """What happens to each image.

    `flip` is (n,) bool, `turns` (n,) quarter turns, `brightness` and `contrast` (n,) factors around
    1.

    A flip and four turns are all eight ways to lay a square: a vertical flip is a horizontal one
    turned twice.
    """

    flip: Tensor
    turns: Tensor
    brightness: Tensor
    contrast: Tensor

    def at(self, start: int, stop: int) -> Changes:
        """The changes of the images from `start` up to `stop`."""
        chosen = slice(start, stop)
        return Changes(
            self.flip[chosen], self.turns[chosen], self.brightness[chosen], self.contrast[chosen]
        )


def draw(n: int, generator: torch.Generator, kind: Augment = "full") -> Changes:
    """Changes of this kind for `n` images, each of them by itself, from this generator alone."""
    flip = torch.rand(n, generator=generator) < 0.5
    turns = torch.randint(4, (n,), generator=generator)
    if kind == "none":
        return Changes(
            torch.zeros_like(flip), torch.zeros_like(turns), torch.ones(n), torch.ones(n)
        )
    if kind == "flips":
        return Changes(flip, _half_turns(turns), torch.ones(n), torch.ones(n))
    brightness = 1 + BRIGHTNESS * (2 * torch.rand(n, generator=generator) - 1)
    contrast = 1 + CONTRAST * (2 * torch.rand(n, generator=generator) - 1)
    return Changes(flip, turns, brightness, contrast)


def augment(pixels: np.ndarray, changes: Changes) -> np.ndarray:
    """The changed images as planes, (N, channels, H, W) float32 from 0 to 255; `pixels`, (N, H, W,
    channels) uint8, stay as they are. Quarter turns are left out where H is not W.

    An image x becomes contrast * x' + (1 - contrast) * (the mean grey of x'), with x' = brightness
    * x, cut off at black and white.
    """
    n, height, width, channels = pixels.shape
    made = np.empty((n, channels, height, width), dtype=np.float32)
    brightness = changes.brightness.tolist()
    contrast = changes.contrast.tolist()
    # One image after the other, in place: it stays in the processor's cache from the first change
    # to the last.
    for i, (planes, move) in enumerate(zip(made, _moves(changes, height, width), strict=True)):
        planes[:] = move(pixels[i].transpose(2, 0, 1))
        grey = brightness[i] * float(planes.reshape(channels, -1).mean(axis=1) @ SHARES[channels])
        planes *= np.float32(contrast[i] * brightness[i])
        planes += np.float32((1 - contrast[i]) * grey)
        np.clip(planes, 0, 255, out=planes)
    return made


def moved(masks: np.ndarray, changes: Changes) -> np.ndarray:
    """Masks (n, H, W) laid as `augment` lays their images; `masks` stay as they are."""
    laid = np.empty_like(masks)
    for mask, own, move in zip(laid, masks, _moves(changes, *masks.shape[1:]), strict=True):
        mask[:] = move(own)
    return laid


def _moves(
    changes: Changes, height: int, width: int
) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
    """How each image (..., H, W) is laid: flipped, then turned."""
    turns = changes.turns if height == width else _half_turns(changes.turns)
    for is_flipped, times in zip(changes.flip.tolist(), turns.tolist(), strict=True):
        yield partial(_laid, is_flipped, times)


def _laid(is_flipped: bool, times: int, image: np.ndarray) -> np.ndarray:
    seen = image[..., ::-1] if is_flipped else image
    return np.rot90(seen, times, axes=(-2, -1))


def _half_turns(turns: Tensor) -> Tensor:
    """The nearest half turns below: none for 0 and 1, one for 2 and 3."""
    return turns // 2 * 2
