"""The size that a model sees, and how an image of another size becomes one of it."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from prunedge.errors import DataError
from prunedge.utils.advice import option

SMALLEST = 8  # pixels of a side
LARGEST = 4096

# stretch: the whole image, its sides scaled apart. pad: the whole image, scaled alike, with a grey
# border on two sides. crop: the middle of it, scaled alike, without what lies beyond.
Resize = Literal["stretch", "pad", "crop"]

# ImageNet's mean colour and grey, which normalisation turns into nearly 0.
PADDING = (124, 116, 104)
GREY_PADDING = (114,)


class Size(NamedTuple):
    """Height and width in pixels, in torch's order."""

    height: int
    width: int

    def __str__(self) -> str:
        """As `--size` takes it: `224`, or `128x384` (height x width)."""
        if self.height == self.width:
            return str(self.height)
        return f"{self.height}x{self.width}"

    def plain(self) -> int | list[int]:
        """As results tell it: one side of a square, else height and width."""
        return self.height if self.height == self.width else [self.height, self.width]

    def in_words(self) -> str:
        """As a sentence says it: `224`, or `384 x 128` (width x height)."""
        return str(self.height) if self.height == self.width else f"{self.width} x {self.height}"


def square(side: int) -> Size:
    """The size of as many rows as columns."""
    return Size(side, side)


def parse_size(text: str | int) -> Size:
    """`224` or `128x384` (height x width) as a Size.

    Raises DataError when it is neither, or a side lies outside of `SMALLEST` to `LARGEST` pixels.
    """
    match = re.fullmatch(r"(\d{1,6})(?:[xX×](\d{1,6}))?", str(text).strip())
    if match is None:
        raise DataError(
            f"'{text}' is no size of images",
            where=option("size"),
            remedy=(
                f"give one side, or height x width: {option('size', 224)}, "
                f"{option('size', '128x384')}"
            ),
        )
    height = int(match[1])
    width = height if match[2] is None else int(match[2])
    if not (SMALLEST <= height <= LARGEST and SMALLEST <= width <= LARGEST):
        raise DataError(
            f"images of {height} x {width} pixels",
            where=option("size"),
            remedy=f"give sides from {SMALLEST} to {LARGEST:,}",
        )
    return Size(height, width)


def resized(image: Image.Image, size: Size, resize: Resize = "stretch") -> np.ndarray:
    """An upright RGB image as (height, width, 3) uint8, a grey one (L) as (height, width, 1)
    (bilinear, antialiased).
    """
    if image.size == (size.width, size.height):
        return _pixels(image)
    if resize == "stretch":
        return _pixels(_scaled(image, size.width, size.height))
    if resize == "pad":
        return _padded(image, size)
    return _cropped(image, size)


def cropped_box(width: int, height: int, size: Size) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of what `crop` sees of an image of width x height pixels: the
    largest middle part of the aspect of `size`.
    """
    scale = max(size.width / width, size.height / height)
    seen_width = min(width, size.width / scale)
    seen_height = min(height, size.height / scale)
    left = (width - seen_width) / 2
    top = (height - seen_height) / 2
    return left, top, left + seen_width, top + seen_height


def padded_box(width: int, height: int, size: Size) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of where `pad` puts an image of width x height pixels within
    `size`.
    """
    scale = min(size.width / width, size.height / height)
    across = max(1, min(size.width, round(width * scale)))
    down = max(1, min(size.height, round(height * scale)))
    left = (size.width - across) // 2
    top = (size.height - down) // 2
    return left, top, left + across, top + down


def _padded(image: Image.Image, size: Size) -> np.ndarray:
    left, top, right, bottom = padded_box(image.width, image.height, size)
    scaled = _pixels(_scaled(image, right - left, bottom - top))
    channels = scaled.shape[-1]
    pixels = np.empty((size.height, size.width, channels), np.uint8)
    pixels[:] = GREY_PADDING if channels == 1 else PADDING
    pixels[top:bottom, left:right] = scaled
    return pixels


def _cropped(image: Image.Image, size: Size) -> np.ndarray:
    # In the image's own pixels, so that it is read and scaled once.
    box = cropped_box(image.width, image.height, size)
    return _pixels(image.resize((size.width, size.height), Image.Resampling.BILINEAR, box=box))


def _scaled(image: Image.Image, width: int, height: int) -> Image.Image:
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _pixels(image: Image.Image) -> np.ndarray:
    """An image as (height, width, channels) uint8, which a grey one of Pillow's is not."""
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels
