"""What a photograph's EXIF tells of its camera: focal length, sensor and heading as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

from PIL import ExifTags, Image

TAGS = ExifTags.Base
GPS = ExifTags.GPS
# EXIF 2.32, FocalPlaneResolutionUnit; 4 and 5 are not of the standard, but cameras write them.
MM_OF_UNIT = {1: 25.4, 2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}


@dataclass(frozen=True)
class Camera:
    """What the EXIF tells; None where it doesn't, or tells what can't be.

    `focal_length_mm` is the lens's own, `focal_length_35mm` that of a lens with the same angle of
    view on 36 x 24 mm. `pixels_per_mm` counts the sensor's pixels in photographs of `size` (width,
    height), which is what the camera wrote. `zoom` is its digital zoom. `heading` is where the
    camera looked, in degrees clockwise from true north, or from magnetic north.
    """

    focal_length_mm: float | None = None
    focal_length_35mm: float | None = None
    pixels_per_mm: float | None = None
    size: tuple[int, int] | None = None
    zoom: float | None = None
    heading: float | None = None
    is_magnetic: bool = False


def camera_of(exif: Image.Exif | None) -> Camera:
    """What an EXIF tells; nothing where there is none, or a damaged one."""
    if exif is None:
        return Camera()
    entries = _entries(exif, ExifTags.IFD.Exif)
    places = _entries(exif, ExifTags.IFD.GPSInfo)
    heading = _number(places.get(GPS.GPSImgDirection))
    reference = places.get(GPS.GPSImgDirectionRef, "T")
    return Camera(
        focal_length_mm=_positive(entries.get(TAGS.FocalLength)),
        focal_length_35mm=_positive(entries.get(TAGS.FocalLengthIn35mmFilm)),
        pixels_per_mm=_pixels_per_mm(entries),
        size=_size(entries),
        zoom=_positive(entries.get(TAGS.DigitalZoomRatio)),
        heading=None if heading is None or not 0 <= heading <= 360 else heading % 360,
        is_magnetic="M" in str(reference).upper(),
    )


def _entries(exif: Image.Exif, directory: int) -> dict[int, Any]:
    try:
        return dict(exif.get_ifd(directory))
    except MemoryError:
        raise
    except Exception:  # damaged EXIF raises all kinds; the photograph itself is sound
        return {}


def _pixels_per_mm(entries: dict[int, Any]) -> float | None:
    resolution = _positive(entries.get(TAGS.FocalPlaneXResolution))
    unit = _positive(entries.get(TAGS.FocalPlaneResolutionUnit, 2))
    if resolution is None or unit not in MM_OF_UNIT:
        return None
    return resolution / MM_OF_UNIT[int(unit)]


def _size(entries: dict[int, Any]) -> tuple[int, int] | None:
    width = _positive(entries.get(TAGS.ExifImageWidth))
    height = _positive(entries.get(TAGS.ExifImageHeight))
    if width is None or height is None:
        return None
    return int(width), int(height)


def _positive(value: Any) -> float | None:
    """A number above 0: cameras write 0 for what they don't know."""
    number = _number(value)
    return None if number is None or number <= 0 else number


def _number(value: Any) -> float | None:
    if value is None or isinstance(value, str | bytes):
        return None
    try:
        number = float(value[0] if isinstance(value, tuple) else value)
    except (TypeError, ValueError, ZeroDivisionError, IndexError):
        return None
    return number if isfinite(number) else None
