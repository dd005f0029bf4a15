"""From an image file to the numbers that a model reads: the same code for training and for the
device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from prunedge.edge.image.size import Resize, Size, resized
from prunedge.edge.image.tiff import SIGNED, STRANGE_REMEDY, sample_format, strange_numbers
from prunedge.errors import DataError
from prunedge.utils.advice import option
from prunedge.utils.files import require_regular
from prunedge.utils.machine import pass_on_reading

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm"})

# How a file keeps its values. Pillow reads colours of sixteen bits as eight: the upper half of
# each.
Depth = Literal["8 bits", "16 bits", "32 bits", "floats", "colours of 16 bits"]

# How many channels of an image a model sees: red, green and blue, or grey alone.
InChannels = Literal[1, 3]
EIGHT: Depth = "8 bits"
COLOURS: Depth = "colours of 16 bits"

# What sets an image upright, by its EXIF orientation; 1, and whatever isn't here, is upright
# already.
TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SWAPPED = frozenset({5, 6, 7, 8})  # the orientations that swap width and height

UNKNOWN_FORMAT = "not an image of a known format, or its beginning is damaged"


@dataclass(frozen=True)
class Greys:
    """What greys of more than eight bits mean: the stored values that become black (0) and white
    (255), linearly between them.

    A model's training images decide it, once for all images that it ever sees. `mixed`: there
    were eight-bit images among them; these keep their 0 to 255. Without it an eight-bit image
    is another kind than the model knows. Raises DataError unless both are finite and low is below
    high.
    """

    low: float
    high: float
    mixed: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            what = f"a range of greys from {self.low:g} to {self.high:g}"
            remedy = f"give two finite numbers, the lower one first: {option('range', '0:4095')}"
            raise DataError(what, where=option("range"), remedy=remedy)

    def __str__(self) -> str:
        """As `--range` takes it, to the last bit."""
        return ":".join(
            str(int(value)) if float(value).is_integer() else repr(float(value))
            for value in (self.low, self.high)
        )


def parse_range(text: str) -> tuple[float, float]:
    """`LOW:HIGH` as two numbers. Raises DataError when it isn't that, or LOW isn't below HIGH."""
    low, colon, high = text.partition(":")
    try:
        greys = Greys(float(low), float(high if colon else ""))
    except ValueError:
        remedy = (
            "write it as LOW:HIGH, the stored values that become black and white: "
            f"{option('range', '0:4095')}"
        )
        raise DataError(
            f"'{text}' is no range of greys", where=option("range"), remedy=remedy
        ) from None
    return greys.low, greys.high


class DeepGreys(DataError):
    """Greys of more than eight bits where nothing says which of them are black and white."""


class Look(NamedTuple):
    """How an image is stored: pixels as it is seen upright, Pillow's mode (RGB, L, ...), the
    format (PNG, JPEG, ...) and depth.
    """

    width: int
    height: int
    mode: str
    format: str
    depth: Depth


def read_image(
    path: Path | str | IO[bytes],
    size: Size,
    greys: Greys | None = None,
    resize: Resize = "stretch",
    in_channels: InChannels = 3,
) -> np.ndarray:
    """An image as (height, width, in_channels) uint8, RGB or grey: turned as its EXIF says, then
    made one of `size` in the way of `resize` (bilinear, antialiased).

    `path` may be an open file, too. `greys` says what greys of more than eight bits mean;
    transparency is laid on black. Colours become grey as Pillow's L has it (ITU-R BT.601: 299, 587
    and 114 thousandths of red, green and blue), before the image is resized.

    Raises DeepGreys when an image has greys of more than eight bits and `greys` is None, DataError
    when it can't be decoded whole or holds no numbers, MachineError when the machine can't read it
    now.
    """
    return read_and_look(path, size, greys, resize, in_channels)[0]


def read_and_look(
    path: Path | str | IO[bytes],
    size: Size,
    greys: Greys | None = None,
    resize: Resize = "stretch",
    in_channels: InChannels = 3,
) -> tuple[np.ndarray, Look]:
    """What `read_image` gives, and how the image is stored."""
    if isinstance(path, (str, Path)):
        require_regular(path, DataError)
    try:
        with Image.open(path) as opened:
            # Known before it is decoded.
            mode = opened.mode
            file_format = opened.format or "?"
            depth = depth_of(opened)
            image = upright(settled(opened))
            look = Look(*image.size, mode, file_format, depth)
            seen = in_so_many(rgb(image, greys), in_channels)
            return resized(seen, size, resize), look
    except DataError as error:
        raise type(error)(error.what, where=path, remedy=error.remedy) from None
    except (
        OSError,
        MemoryError,
        UnidentifiedImageError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:
        pass_on_reading(error, path)
        if (
            isinstance(error, UnidentifiedImageError)
            and (kind := strange_numbers(path)) is not None
        ):
            raise DataError(
                f"{kind}, which can't be read", where=path, remedy=STRANGE_REMEDY
            ) from None
        why = str(error).replace(str(path), "the file") or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            why = UNKNOWN_FORMAT
        remedy = f"replace or remove it, or use {option('skip_unreadable', True)}"
        raise DataError(f"can't be decoded: {why}", where=path, remedy=remedy) from None


def settled(image: Image.Image) -> Image.Image:
    """The image, decoded, with the values that its file means: Pillow gives some signed and
    unsigned numbers as each other.

    Raises DataError for numbers that no mode of Pillow's holds, and whatever Pillow raises when it
    can't be decoded whole.
    """
    kind = sample_format(image)
    if image.format == "TIFF" and orientation_of(image) in SWAPPED:
        # Pillow maps uncompressed files into memory by their name, and takes their rows to be as
        # long as the turned image's.
        vars(image)["filename"] = ""
    image.load()
    if image.mode == "L" and kind == SIGNED:
        signed = np.asarray(image).view(np.int8).astype(np.int32)
        return Image.fromarray(signed)
    if image.mode == "I" and kind not in (None, SIGNED) and np.asarray(image).min(initial=0) < 0:
        what = "counts of 32 bits above 2,147,483,647, which can't be read"
        raise DataError(what, remedy="save it as signed numbers, as floats or with 16 bits")
    return image


def depth_of(image: Image.Image) -> Depth:
    """How an opened file keeps its values; asked for before it is decoded."""
    if image.mode == "F":
        return "floats"
    if image.mode.startswith("I;16"):
        return "16 bits"
    raw = _raw_mode(image)
    if image.mode == "I":
        return "16 bits" if ";16" in raw or raw == "L" else "32 bits"
    if image.mode == "L" and sample_format(image) == SIGNED:
        return "16 bits"  # signed eight bits: more than Pillow's eight can hold
    return COLOURS if ";16" in raw else EIGHT


def _raw_mode(image: Image.Image) -> str:
    """How the file's decoder finds its pixels: `RGB;16B`. Empty once it is decoded."""
    tiles: Any = getattr(image, "tile", None)
    if not tiles:
        return ""
    raw = tiles[0][3]
    raw = raw[0] if isinstance(raw, tuple) and raw else raw
    return raw if isinstance(raw, str) else ""


def orientation_of(image: Image.Image) -> int | None:
    """How its EXIF says that an image lies, 1 to 8; None when the EXIF can't be read.

    Of a file it is asked for after decoding: Pillow turns TIFFs itself, and then forgets that they
    were turned.
    """
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except MemoryError:
        raise
    except Exception:  # damaged EXIF raises all kinds; the image itself is sound
        return None
    return orientation if orientation in TURN else 1


def upright(image: Image.Image) -> Image.Image:
    """A decoded image turned as its EXIF says; as it is when that can't be read."""
    turn = TURN.get(orientation_of(image) or 1)
    return image if turn is None else image.transpose(turn)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an opened file as it is seen, from its header."""
    width, height = image.size
    # Of a TIFF Pillow tells the turned size from the start.
    is_swapped = image.format != "TIFF" and orientation_of(image) in SWAPPED
    return (height, width) if is_swapped else (width, height)


def rgb(image: Image.Image, greys: Greys | None = None) -> Image.Image:
    """A settled image of any mode, or a part of one, as RGB: deep greys as `greys` says,
    transparency laid on black.

    Raises DeepGreys when it has deep greys and `greys` is None, DataError when its values are no
    numbers, or when it has eight bits and `greys` knows deep images alone.
    """
    if is_deep(image):
        if greys is None:
            raise DeepGreys(
                "greys of more than eight bits, and nothing says which of them are black and white",
                remedy=f"say it by {option('range', 'LOW:HIGH')} (0:4095 for 12 bits)",
            )
        return Image.fromarray(eight_bits(np.asarray(image), greys)).convert("RGB")
    if greys is not None and not greys.mixed:
        what = (
            f"an image of eight bits; the model learned from greys of more, {greys.low:g} "
            f"(black) to {greys.high:g} (white)"
        )
        raise DataError(what, remedy="give images as they came from the same camera")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        seen = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, "black"), seen).convert("RGB")
    return image.convert("RGB")


def in_so_many(image: Image.Image, in_channels: InChannels) -> Image.Image:
    """An RGB image as it is for a model that sees three channels, and in grey (L) for one that
    sees one.
    """
    return image.convert("L") if in_channels == 1 else image


def eight_bits(values: np.ndarray, greys: Greys) -> np.ndarray:
    """Deep greys of any shape and kind as uint8: round(255 (value - low) / (high - low)), what lies
    outside clipped.

    Raises DataError for NaN and infinity, which have no grey.
    """
    numbers = values.astype(np.float64)
    refuse_no_numbers(numbers)
    numbers -= greys.low
    numbers *= 255 / (greys.high - greys.low)
    return numbers.round().clip(0, 255).astype(np.uint8)


def refuse_no_numbers(values: np.ndarray) -> None:
    """DataError when some of these are NaN or infinite."""
    wrong = values.size - int(np.isfinite(values).sum())
    if wrong:
        what = f"{wrong:,} of its {values.size:,} values are no numbers (NaN or infinite)"
        raise DataError(what, remedy="replace them by numbers, or remove the image")


def is_deep(image: Image.Image) -> bool:
    """Whether its greys have more than eight bits."""
    return image.mode.startswith("I") or image.mode == "F"
