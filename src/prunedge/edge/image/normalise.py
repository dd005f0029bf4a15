"""From pixels to the numbers that a model reads."""

from __future__ import annotations

from typing import Literal

import numpy as np

ImageNorm = Literal["imagenet", "half"]
Statistics = tuple[tuple[float, ...], tuple[float, ...]]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)

# name -> mean and standard deviation of each colour, of values from 0 to 1
NORMS: dict[ImageNorm, Statistics] = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "half": (HALF, HALF),
}


def statistics(image_norm: ImageNorm, in_channels: int = 3) -> Statistics:
    """Mean and standard deviation of each channel that a model sees; of one, both are the means
    over the three colours.
    """
    mean, std = NORMS[image_norm]
    if in_channels == len(mean):
        return mean, std
    return (sum(mean) / len(mean),), (sum(std) / len(std),)


def normalise(
    pixels: np.ndarray,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> np.ndarray:
    """Pixels (n, s, s, channels) uint8 as the model's input (n, channels, s, s) float32:
    (x / 255 - mean) / std per channel.
    """
    # Planes first, then in place: a quarter of the time of arithmetic on interleaved colours.
    return normalise_planes(pixels.transpose(0, 3, 1, 2).astype(np.float32, order="C"), mean, std)


def normalise_planes(
    planes: np.ndarray,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> np.ndarray:
    """The same, in place, of planes (n, channels, s, s) float32 from 0 to 255."""
    scale: np.ndarray = 1 / (255 * np.asarray(std, dtype=np.float32))
    shift: np.ndarray = np.asarray(mean, dtype=np.float32) / np.asarray(std, dtype=np.float32)
    for image in planes:
        image *= scale[:, None, None]
        image -= shift[:, None, None]
    return planes
