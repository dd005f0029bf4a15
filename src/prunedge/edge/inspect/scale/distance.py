"""The scale from the distance of the camera and its focal length, as EXIF tells it."""

from __future__ import annotations

from math import hypot, sqrt

from prunedge.edge.image.camera import Camera
from prunedge.edge.inspect.scale.quantity import MM_OF_LENGTHS, Quantity, parse_quantity
from prunedge.edge.inspect.scale.scale import Scale
from prunedge.errors import DataError

DIAGONAL_MM = hypot(36, 24)  # of 35 mm film
NOMINAL = 0.02  # of a focal length, by which the one that EXIF tells may be off: assumed
SAME_SHAPE = 0.02  # by which width over height may differ in a copy of another size
CONTRADICTION = 0.1  # by which the two ways to a pixel's angle may differ
REMEDY = "give --mm-per-pixel, or a --marker"


def parse_distance(text: str) -> Quantity:
    """`2.5m`, `2.5±0.1m` in millimetres. DataError where it is none."""
    return parse_quantity(text, "--distance", MM_OF_LENGTHS, "2.5m or 2.5±0.1m")


def scale_from_distance(
    camera: Camera, size: tuple[int, int], distance: Quantity, source: str = "distance"
) -> Scale:
    """The scale of a plane at this distance (mm) from the lens, which the camera looks at squarely,
    in a photograph of this size (width, height).

    By the thin lens a pixel of the sensor, p wide, shows p (d - f) / f of what is in focus at the
    distance d with the focal length f. DataError where the EXIF doesn't tell enough, or contradicts
    itself.
    """
    angle = _angle_of_a_pixel(camera, size)
    focal_length = camera.focal_length_mm or 0.0
    beyond = distance.value - focal_length
    if beyond <= 0:
        raise DataError(
            f"a distance of {distance.value:g} mm is within the focal length, {focal_length:g} mm",
            remedy="give --distance from the lens to what is photographed",
        )
    standard = hypot(angle.value * distance.standard, beyond * angle.standard)
    return Scale(beyond * angle.value, standard, source)


def _angle_of_a_pixel(camera: Camera, size: tuple[int, int]) -> Quantity:
    """The side of a pixel over the focal length."""
    if camera.zoom is not None and camera.zoom > 1.001:
        raise DataError(f"taken with a digital zoom of {camera.zoom:g}", remedy=REMEDY)
    by_sensor = _by_sensor(camera, size)
    by_film = _by_film(camera, size)
    if by_sensor is None and by_film is None:
        raise DataError(
            "its EXIF tells no focal length with the size of the sensor (FocalLength and "
            "FocalPlaneXResolution, or FocalLengthIn35mmFilm)",
            remedy=REMEDY,
        )
    if by_sensor is None or by_film is None:
        found = by_sensor or by_film
        assert found is not None
        return found
    if abs(by_sensor.value / by_film.value - 1) > CONTRADICTION + by_film.standard / by_film.value:
        raise DataError(
            "its EXIF contradicts itself: by FocalPlaneXResolution a pixel shows "
            f"{by_sensor.value / by_film.value:.2f} times what it does by FocalLengthIn35mmFilm "
            "(was the photograph cropped, or made smaller?)",
            remedy=REMEDY,
        )
    return by_sensor


def _by_sensor(camera: Camera, size: tuple[int, int]) -> Quantity | None:
    """By the focal length and the sensor's resolution."""
    if camera.focal_length_mm is None or camera.pixels_per_mm is None:
        return None
    shrunk = _shrunk(camera, size)
    angle = shrunk / camera.pixels_per_mm / camera.focal_length_mm
    return Quantity(angle, 2 * angle * NOMINAL / sqrt(3))


def _by_film(camera: Camera, size: tuple[int, int]) -> Quantity | None:
    """By the focal length on 35 mm film: of a frame with the same diagonal, by most makers, or of
    the same width, by some. It is a whole number.
    """
    equivalent = camera.focal_length_35mm
    if equivalent is None:
        return None
    _shrunk(camera, size)
    diagonal = hypot(*size)
    angle = DIAGONAL_MM / diagonal / equivalent
    by_width = 36 / max(size) / equivalent
    standard = hypot(angle * 0.5 / equivalent, by_width - angle, angle * NOMINAL) / sqrt(3)
    return Quantity(angle, 2 * standard)


def _shrunk(camera: Camera, size: tuple[int, int]) -> float:
    """How many pixels that the camera wrote are one of this photograph. DataError where it was
    cropped.
    """
    if camera.size is None:
        return 1.0
    written = sorted(camera.size)
    here = sorted(size)
    if abs(written[0] * here[1] / (written[1] * here[0]) - 1) > SAME_SHAPE:
        raise DataError(
            f"its EXIF tells of {camera.size[0]} x {camera.size[1]} pixels: it was cropped since",
            remedy=REMEDY,
        )
    return written[1] / here[1]
