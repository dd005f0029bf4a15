"""Where a photograph was taken: EXIF's GPS entries as numbers."""

from __future__ import annotations

from math import isfinite
from typing import Any

from PIL import ExifTags, Image

Position = tuple[
    float, float, float | None
]  # latitude and longitude in degrees (north and east are positive), altitude in metres

GPS = ExifTags.GPS


def position_of(exif: Image.Exif) -> Position | None:
    """Latitude, longitude and altitude (None where it isn't told); None when the EXIF has no
    position or one that can't be.
    """
    try:
        entries = exif.get_ifd(ExifTags.IFD.GPSInfo)
        if not entries or _text(entries.get(GPS.GPSStatus, "A")) == "V":
            return None
        latitude = _degrees(entries[GPS.GPSLatitude], entries[GPS.GPSLatitudeRef], "NS", 90)
        longitude = _degrees(entries[GPS.GPSLongitude], entries[GPS.GPSLongitudeRef], "EW", 180)
        # Receivers without a fix write zeros.
        return None if latitude == longitude == 0 else (latitude, longitude, _altitude(entries))
    except MemoryError:
        raise
    except (
        Exception
    ):  # damaged EXIF raises all kinds; a photograph without a position is still a photograph
        return None


def _degrees(parts: Any, reference: Any, signs: str, most: float) -> float:
    degrees, minutes, seconds = (float(part) for part in (*parts, 0, 0)[:3])
    value = degrees + minutes / 60 + seconds / 3600
    sign = {signs[0]: 1, signs[1]: -1}[_text(reference)]
    if not isfinite(value) or not 0 <= value <= most:
        raise ValueError("no such place")
    return sign * value


def _altitude(entries: Any) -> float | None:
    if GPS.GPSAltitude not in entries:
        return None
    value = float(entries[GPS.GPSAltitude])
    below = entries.get(GPS.GPSAltitudeRef, 0) in (1, b"\x01", b"\x01\x00")
    return (-value if below else value) if isfinite(value) else None


def _text(value: Any) -> str:
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return text.strip("\0 ").upper()
