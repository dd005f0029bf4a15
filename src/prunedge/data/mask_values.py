"""What the file of a mask holds: greys or numbers of classes of eight bits, whatever its depth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from prunedge.data.annotations.draw import DrawnMask, DrawnNotes, draw
from prunedge.data.decode import MOST_MEGAPIXELS, source_of
from prunedge.edge.image.photograph import opened_within
from prunedge.edge.image.read import (
    SWAPPED,
    TURN,
    Depth,
    depth_of,
    is_deep,
    orientation_of,
    refuse_no_numbers,
    settled,
    upright,
    upright_size,
)
from prunedge.errors import DataError

WHITE = 255
MOST_CLASSES = 32  # a lossless mask with no value above this holds class numbers, not grey
DEEP_WHITE = WHITE << 8  # from here on greys of sixteen bits are white
NOTHING_UNUSUAL = DrawnNotes()


@dataclass(frozen=True)
class MaskValues:
    """What a mask holds, `values` (height, width) uint8, for its photograph as it is seen upright.

    `is_numbered`: its file has a palette, or more bits than greys of up to 255 need, so that its
    values are numbers of classes; `is_deep`: they are greys of sixteen bits, and no numbers.
    `may_be_turned`: its photograph is turned or mirrored by its EXIF, and nothing tells whether the
    mask was drawn on it as it is seen, as is assumed here, or as it is stored. `notes` say what is
    unusual about one that is drawn from annotations.
    """

    values: np.ndarray
    is_numbered: bool
    is_deep: bool = False
    may_be_turned: bool = False
    notes: DrawnNotes = NOTHING_UNUSUAL


@dataclass(frozen=True)
class _Frame:
    """A photograph's size as it is seen upright, and how its EXIF turns it."""

    width: int
    height: int
    orientation: int

    @classmethod
    def of(cls, photo: Path) -> _Frame:
        """That of a photograph, from its header alone."""
        with opened_within(source_of(photo), MOST_MEGAPIXELS) as opened:
            width, height = upright_size(opened)
            return cls(width, height, orientation_of(opened) or 1)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height

    @property
    def is_told(self) -> bool:
        """Whether a mask's size says if it was drawn on the photograph as it is seen."""
        return self.orientation in SWAPPED and self.width != self.height

    @property
    def turn(self) -> Image.Transpose | None:
        """What turns the stored photograph upright; None where it is so."""
        return TURN.get(self.orientation)

    def is_stored(self, size: tuple[int, int]) -> bool:
        """Whether this is the size of the photograph as the camera stored it, and not upright."""
        return size == (self.height, self.width) != self.size and self.turn is not None


def mask_values(mask: Path, photo: Path, *, is_grey: bool = False) -> MaskValues:
    """What a mask holds: white of one bit is 255, and greys of sixteen bits have their upper eight.

    Raises ValueError when the mask's size is another than its photograph's, when it has colours and
    must be `is_grey`, is partly transparent, or has values that are neither greys nor numbers up to
    255; and whatever Pillow raises when it can't be read.
    """
    frame = _Frame.of(photo)
    with opened_within(source_of(mask), MOST_MEGAPIXELS) as opened:
        depth = depth_of(opened)
        image = settled(opened)
    is_upright = orientation_of(image) in (None, 1)
    may_be_turned = frame.turn is not None and not frame.is_told and is_upright
    image = upright(image)
    _refuse_transparent(image)
    if is_grey and image.mode in ("RGB", "RGBA") and _has_colours(image):
        raise ValueError("its mask has colours and no palette: save it with class numbers")
    grey = image if image.mode in ("1", "P") or is_deep(image) else image.convert("L")
    if frame.is_stored(grey.size) and frame.turn is not None:
        # Drawn on the photograph as the camera stored it: turn it as the photograph is turned.
        grey = grey.transpose(frame.turn)
    if grey.size != frame.size:
        raise ValueError(
            f"its mask is {image.width}x{image.height} and not {frame.width}x{frame.height}"
        )
    values = np.asarray(grey)
    is_numbered = image.mode == "P"
    has_deep_greys = is_deep(image) and values.max(initial=0) > WHITE
    if is_deep(image):
        values, is_numbered = _of_deep(values, depth)
    elif image.mode == "1":
        values = values.astype(np.uint8) * np.uint8(WHITE)
    return MaskValues(values, is_numbered, has_deep_greys, may_be_turned)


def drawn_values(mask: DrawnMask, photo: Path) -> MaskValues:
    """The same of a mask that annotations hold, as large as they say that its photograph is.

    Raises ValueError when that is another size than the photograph's, or shapes can't be drawn.
    """
    frame = _Frame.of(photo)
    size = mask.drawing.size or frame.size
    is_stored = frame.is_stored(size)
    if size != frame.size and not is_stored:
        raise ValueError(
            f"its annotations are for {size[0]}x{size[1]} pixels and not "
            f"{frame.width}x{frame.height}"
        )
    values, notes = draw(mask, *size)
    if is_stored and frame.turn is not None:
        values = np.asarray(Image.fromarray(values).transpose(frame.turn))
    is_told = frame.is_told and mask.drawing.size is not None
    may_be_turned = frame.turn is not None and not is_told
    return MaskValues(values, is_numbered=True, may_be_turned=may_be_turned, notes=notes)


def photo_size(photo: Path) -> tuple[int, int]:
    """Width and height of a photograph as it is seen, from its header alone."""
    with opened_within(source_of(photo), MOST_MEGAPIXELS) as opened:
        return upright_size(opened)


def _refuse_transparent(image: Image.Image) -> None:
    """ValueError where what is opaque may be meant, or what is white: nobody knows."""
    if image.mode in ("RGBA", "LA"):
        low, high = image.getchannel("A").getextrema()
        if low != high:
            raise ValueError("its mask is partly transparent: save it in black and white")


def _has_colours(image: Image.Image) -> bool:
    """Whether red, green and blue differ by more than a JPEG makes them."""
    colours = np.asarray(image)[:, :, :3]
    return int((colours.max(2) - colours.min(2)).max(initial=0)) > MOST_CLASSES


def _of_deep(values: np.ndarray, depth: Depth) -> tuple[np.ndarray, bool]:
    """Values of more than eight bits as uint8: numbers up to 255, or greys of sixteen bits; and
    whether they are numbers.
    """
    if values.dtype.kind == "f":
        _refuse_fractions(values)
    least = values.min(initial=0)
    most = values.max(initial=0)
    if least < 0:
        raise ValueError(f"its mask has values below 0 ({least:,.0f}): save it with eight bits")
    if most <= WHITE:
        numbers = values.astype(np.uint8)
        is_white = not ((numbers > 0) & (numbers < WHITE)).any()
        return numbers, not is_white
    if depth != "16 bits" or most < DEEP_WHITE:
        raise ValueError(
            f"its mask has values up to {most:,.0f}: neither numbers up to {WHITE} nor black and "
            "white of sixteen bits (0 and 65,535): save it with eight bits"
        )
    return (values >> 8).astype(np.uint8), False


def _refuse_fractions(values: np.ndarray) -> None:
    """ValueError where floats are no numbers, or no whole ones."""
    try:
        refuse_no_numbers(values)
    except DataError as error:
        raise ValueError(f"its mask: {error.what}") from None
    if (values != np.trunc(values)).any():
        raise ValueError("its mask has fractions: save it with eight bits, damage white")
