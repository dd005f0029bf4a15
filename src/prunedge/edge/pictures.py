"""From a picture file to the numbers that a network reads: the same code for training and for the device."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from prunedge.errors import DataError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm"})


def read_picture(path: Path | str | IO[bytes], size: int) -> np.ndarray:
    """A picture as (size, size, 3) uint8 RGB: turned as its EXIF says, then stretched to a square (bilinear, antialiased).

    `path` may be an open file, too. Sixteen-bit greys are scaled to eight bits; transparency is laid on black. Raises DataError when the
    file can't be decoded whole.
    """
    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened)
            picture = rgb(picture)
            if picture.size != (size, size):
                picture = picture.resize((size, size), Image.Resampling.BILINEAR)
            return np.asarray(picture)
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        why = str(error).replace(str(path), "the file") or type(error).__name__
        raise DataError(f"can't be decoded: {why}", where=path, remedy="replace or remove it, or use --skip-unreadable") from None


def rgb(picture: Image.Image, top: float | None = None) -> Image.Image:
    """A picture of any mode as RGB: deep greys are scaled to eight bits, transparency is laid on black.

    `top` is the grey that becomes white; without it `white_of` finds it in the picture. A crop of a larger picture needs the whole one's.
    """
    if is_deep(picture):
        values = np.nan_to_num(np.asarray(picture, dtype=np.float64))
        # Sixteen-bit greys: Pillow's own conversion would clip at 255 instead of scaling.
        top = white_of(values.max(initial=0)) if top is None else top
        return Image.fromarray((values.clip(0, top) / top * 255).round().astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        seen = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, "black"), seen).convert("RGB")
    return picture.convert("RGB")


def is_deep(picture: Image.Image) -> bool:
    """Whether its greys have more than eight bits."""
    return picture.mode.startswith("I") or picture.mode == "F"


def white_of(brightest: float) -> float:
    """The grey that counts as white in a deep picture whose brightest is this."""
    return 65535.0 if brightest > 255 else 255.0


def normalise(pixels: np.ndarray, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD) -> np.ndarray:
    """Pixels (n, s, s, 3) uint8 as the network's input (n, 3, s, s) float32: (x / 255 - mean) / std per colour."""
    # Planes first, then in place: a quarter of the time of arithmetic on interleaved colours.
    return normalise_planes(pixels.transpose(0, 3, 1, 2).astype(np.float32, order="C"), mean, std)


def normalise_planes(planes: np.ndarray, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD) -> np.ndarray:
    """The same, in place, of planes (n, 3, s, s) float32 from 0 to 255."""
    scale: np.ndarray = 1 / (255 * np.asarray(std, dtype=np.float32))
    shift: np.ndarray = np.asarray(mean, dtype=np.float32) / np.asarray(std, dtype=np.float32)
    for picture in planes:
        picture *= scale[:, None, None]
        picture -= shift[:, None, None]
    return planes
