"""A photograph file to upright crops of it, without ever copying a large one: hostile files give
one clear error.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from prunedge.edge.image.camera import Camera, camera_of
from prunedge.edge.image.gps import Position, position_of
from prunedge.edge.image.halved import (
    BAND,
    FORMATS,
    Box,
    Cut,
    is_halved,
    is_ycbcr,
    split_jpeg,
    split_png,
    split_progressive,
)
from prunedge.edge.image.png import has_bands
from prunedge.edge.image.read import (
    COLOURS,
    SUFFIXES,
    SWAPPED,
    TURN,
    UNKNOWN_FORMAT,
    Greys,
    InChannels,
    depth_of,
    in_so_many,
    is_deep,
    orientation_of,
    refuse_no_numbers,
    rgb,
    settled,
)
from prunedge.edge.image.size import Resize, Size, resized
from prunedge.edge.image.tiff import STRANGE_REMEDY, strange_numbers
from prunedge.errors import DataError
from prunedge.utils.files import require_regular
from prunedge.utils.machine import pass_on_reading

PHOTO_SUFFIXES = SUFFIXES | {".gif"}

# Pillow keeps four bytes for a pixel of colour. Above these sizes a JPEG's or PNG's brightness and
# its colours (at half size, as most cameras store them in the first place) are kept apart: a byte
# and a half.
SPLIT_HALVED, SPLIT_OTHERS = 20e6, 64e6
# A progressive JPEG takes three bytes a pixel more while it is decoded, which a process of its own
# gives back.
APART = 40e6
STRANGE = 0.25  # of an image's greys, outside the range of the training images

_MIRRORED_X, _MIRRORED_Y = {2, 3, 7, 8}, {3, 4, 6, 7}


@dataclass(frozen=True)
class Photo:
    """A decoded photograph. `width` and `height` are the upright one's; `notes` say what was
    unusual; `position` and `camera` are from its EXIF.
    """

    width: int
    height: int
    notes: tuple[str, ...]
    position: Position | None
    _orientation: int
    _cut: Cut
    camera: Camera = field(default_factory=Camera)

    def crop(self, box: Box) -> Image.Image:
        """A part of the upright photograph, as RGB; of one opened `as_stored`, greys as its file
        keeps them.
        """
        part = self._cut(stored_box(box, self.width, self.height, self._orientation))
        return part.transpose(TURN[self._orientation]) if self._orientation in TURN else part

    def patch(
        self, box: Box, size: Size, resize: Resize = "stretch", in_channels: InChannels = 3
    ) -> np.ndarray:
        """A part as (height, width, in_channels) uint8: the pixels that `read_image` gives for a
        file of that part.
        """
        return resized(in_so_many(self.crop(box), in_channels), size, resize)

    def resized(self, width: int, height: int) -> Image.Image:
        """The whole photograph at another size, made band by band."""
        image = Image.new("RGB", (width, height))
        rows = max(1, BAND * height // max(self.height, self.width // 4))
        for first in range(0, height, rows):
            last = min(height, first + rows)
            top = first * self.height // height
            band = self.crop((0, top, self.width, max(top + 1, last * self.height // height)))
            image.paste(
                band.resize(
                    (width, last - first),
                    Image.Resampling.BOX if width < self.width else Image.Resampling.BICUBIC,
                ),
                (0, first),
            )
        return image


def open_photo(
    image: Path | Image.Image,
    max_megapixels: float,
    greys: Greys | None = None,
    *,
    as_stored: bool = False,
) -> Photo:
    """Decode a photograph (a file, or a Pillow image).

    `greys` says what greys of more than eight bits mean; `as_stored` leaves greys as they are.

    Raises DataError when it has more pixels than allowed (found in its header, before anything is
    decoded), can't be decoded whole, holds values that are no numbers, or is of another depth than
    `greys` tells; MachineError when the machine can't read it now.
    """
    where = image if isinstance(image, Path) else None
    with _allowing(max_megapixels):
        try:
            if where is not None:
                require_regular(where, DataError)
            if where is not None and not where.is_file():
                raise DataError("not a file", where=where, remedy="name an image")
            opened = Image.open(image, formats=FORMATS) if isinstance(image, Path) else image
            _refuse_bombs(opened, max_megapixels, where)
            return _decoded(opened, where, _Way(greys, as_stored))
        except DataError as error:
            raise DataError(error.what, where=error.where or where, remedy=error.remedy) from None
        except Image.DecompressionBombError:
            raise _too_large("the image has", max_megapixels, where) from None
        except UnidentifiedImageError:
            if where is not None and (kind := strange_numbers(where)) is not None:
                raise DataError(
                    f"{kind}, which can't be read", where=where, remedy=STRANGE_REMEDY
                ) from None
            raise DataError(UNKNOWN_FORMAT, where=where, remedy="replace or remove it") from None
        except Exception as error:  # a hostile file makes Pillow's decoders raise all kinds
            pass_on_reading(error, where)
            why = (
                " ".join(str(error).replace(str(where), "the file").split())[:160]
                or type(error).__name__
            )
            raise DataError(
                f"can't be decoded: {why}", where=where, remedy="replace or remove it"
            ) from None


@dataclass(frozen=True)
class _Way:
    """How `open_photo` was asked to decode."""

    greys: Greys | None
    as_stored: bool


def stored_box(box: Box, width: int, height: int, orientation: int) -> Box:
    """Where a box of the upright photograph (width x height) lies in the stored one, which EXIF
    says to turn.
    """
    left, top, right, bottom = box
    if orientation in SWAPPED:
        left, top, right, bottom = top, left, bottom, right
        width, height = height, width
    if orientation in _MIRRORED_X:
        left, right = width - right, width - left
    if orientation in _MIRRORED_Y:
        top, bottom = height - bottom, height - top
    return left, top, right, bottom


@contextmanager
def opened_within(file: Path | IO[bytes], max_megapixels: float) -> Iterator[Image.Image]:
    """An opened file, not decoded yet, that may be larger than Pillow allows. Raises DataError when
    it has more pixels than that, and whatever Pillow raises when it can't be opened.
    """
    with _allowing(max_megapixels), Image.open(file) as image:
        _refuse_bombs(image, max_megapixels, file if isinstance(file, Path) else None)
        yield image


class _Limit:
    """Pillow's own limit while it is replaced by ours: several threads may open files at once."""

    lock = Lock()
    users = 0
    before: int | None = None


@contextmanager
def _allowing(megapixels: float) -> Iterator[None]:
    """Pillow's own limit is replaced by ours, here and nowhere else."""
    with _Limit.lock:
        if not _Limit.users:
            _Limit.before = Image.MAX_IMAGE_PIXELS
        _Limit.users += 1
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, int(megapixels * 1e6))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        with _Limit.lock:
            _Limit.users -= 1
            if not _Limit.users:
                Image.MAX_IMAGE_PIXELS = _Limit.before


def _refuse_bombs(image: Image.Image, max_megapixels: float, where: Path | None) -> None:
    megapixels = image.width * image.height / 1e6
    if megapixels > max_megapixels:
        raise _too_large(f"{image.width} x {image.height} pixels are", max_megapixels, where)
    if not megapixels:
        raise DataError("the image has no pixels", where=where, remedy="replace or remove it")


def _too_large(what: str, max_megapixels: float, where: Path | None) -> DataError:
    remedy = "raise --max-megapixels if the image is genuine"
    return DataError(f"{what} more than {max_megapixels:g} megapixels", where=where, remedy=remedy)


def _decoded(image: Image.Image, where: Path | None, way: _Way) -> Photo:
    notes = []
    if (
        getattr(image, "is_animated", False) and image.format != "MPO"
    ):  # the second of an MPO is a preview of the first
        notes.append("holds several frames or pages: only the first was inspected")
    if depth_of(image) == COLOURS:
        notes.append("colours of sixteen bits: the upper eight were read, as in training")
    cut, more = _read(image, where, way)
    orientation = orientation_of(image)
    if orientation is None:
        notes.append("its EXIF can't be read: not turned, no position")
    elif orientation != 1:
        notes.append("turned as its EXIF says")
    cut((0, 0, 1, 1))  # modes that can't become RGB fail here, with the decoder's other errors
    width, height = (image.height, image.width) if orientation in SWAPPED else image.size
    exif = _exif(image)
    return Photo(
        width,
        height,
        (*more, *notes),
        position_of(exif) if exif is not None else None,
        orientation or 1,
        cut,
        camera_of(exif),
    )


def _exif(image: Image.Image) -> Image.Exif | None:
    try:
        return image.getexif()
    except MemoryError:
        raise
    except Exception:  # damaged EXIF raises all kinds; the image itself is sound
        return None


def _read(image: Image.Image, where: Path | None, way: _Way) -> tuple[Cut, list[str]]:
    """An image decoded whole, unless that would take too much memory and there is another way; and
    what is unusual about it.
    """
    # What knows deep greys alone refuses eight bits.
    if where is None or (way.greys is not None and not way.greys.mixed):
        return _whole(image, way)
    pixels = image.width * image.height
    if image.format in ("JPEG", "MPO") and is_ycbcr(image):
        if pixels > (SPLIT_HALVED if is_halved(image) else SPLIT_OTHERS):
            if image.info.get("progressive") and pixels > APART:
                return split_progressive(image, where)
            return split_jpeg(image, where)
        return _whole(image, way)
    if image.format == "PNG" and pixels > SPLIT_OTHERS and has_bands(where):
        return split_png(image, where, way.greys)
    return _whole(image, way)


def _whole(image: Image.Image, way: _Way) -> tuple[Cut, list[str]]:
    image = settled(image)
    notes: list[str] = []
    outside = 0
    for y in range(0, image.height if is_deep(image) else 0, BAND):
        values = np.asarray(image.crop((0, y, image.width, min(y + BAND, image.height))))
        refuse_no_numbers(values)
        if way.greys is not None:
            outside += int(((values < way.greys.low) | (values > way.greys.high)).sum())
    if way.as_stored and (
        is_deep(image) or (image.mode == "L" and "transparency" not in image.info)
    ):
        return image.crop, notes
    if is_deep(image) and way.greys is not None:
        notes = [
            f"greys of more than eight bits: {way.greys.low:g} is black, {way.greys.high:g} white"
        ]
        share = outside / (image.width * image.height)
        if share > STRANGE:
            notes.append(
                f"{share:.0%} of its greys lie outside that range: was it taken as the "
                "training images were?"
            )
    elif image.mode == "CMYK":
        notes = ["in printing colours (CMYK): turned to RGB without a colour profile"]
    return lambda box: rgb(image.crop(box), way.greys), notes
