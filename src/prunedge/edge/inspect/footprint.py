"""Where the pixels of a photograph lie on the ground, for a camera that looks straight down.

The ground is taken for a plane, north and east of the photograph's middle, and metres there for
degrees by the radii of curvature of the WGS 84 ellipsoid: meridian M = a (1 - e²) / w³ and prime
vertical N = a / w, w = sqrt(1 - e² sin² latitude) (J. P. Snyder, Map projections: a working manual,
USGS Professional Paper 1395, 1987, equations 4-18 to 4-21). Over a kilometre that is right to a few
centimetres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, degrees, hypot, radians, sin, sqrt
from typing import Any

from prunedge.edge.image.photograph import Photo
from prunedge.edge.inspect.scale.quantity import (
    METRES_OF_LENGTHS,
    Quantity,
    parse_quantity,
)
from prunedge.edge.inspect.scale.scale import Scale
from prunedge.errors import DataError

EQUATORIAL_M = 6378137.0  # WGS 84: semi-major axis
FLATTENING = 1 / 298.257223563
POLES = 85.0  # degrees of latitude, beyond which a plane north and east is none

Point = tuple[float, float]


@dataclass(frozen=True)
class Pose:
    """Where the camera was, as far as the user tells: `height` above what it looked at in metres,
    or the altitude of that (`ground`, in the system of the photographs' GPSAltitude), and the
    `heading` of the photographs' upper edge in degrees clockwise from true north.
    """

    height: Quantity | None = None
    ground: Quantity | None = None
    heading: float | None = None

    def height_mm(self, photo: Photo) -> Quantity | None:
        """The camera's height in millimetres; None where it is not known, or not above 0."""
        height = self.height
        if height is None and self.ground is not None and photo.position is not None:
            altitude = photo.position[2]
            if altitude is not None:
                height = Quantity(altitude - self.ground.value, self.ground.uncertainty)
        if height is None or height.value <= 0:
            return None
        return Quantity(1000 * height.value, 1000 * height.uncertainty)


@dataclass(frozen=True)
class Footprint:
    """Where a photograph's middle lies, in degrees, to which heading it is turned, and its size in
    pixels.
    """

    latitude: float
    longitude: float
    heading: float
    mm_per_pixel: float
    width: int
    height: int

    def place(self, point: Point) -> Point:
        """Longitude and latitude in degrees of a point (x, y) in pixels."""
        right = (point[0] - self.width / 2) * self.mm_per_pixel / 1000
        up = (self.height / 2 - point[1]) * self.mm_per_pixel / 1000
        turn = radians(self.heading)
        east = right * cos(turn) + up * sin(turn)
        north = up * cos(turn) - right * sin(turn)

        latitude = radians(self.latitude)
        squared = FLATTENING * (2 - FLATTENING)
        w = sqrt(1 - squared * sin(latitude) ** 2)
        meridian = EQUATORIAL_M * (1 - squared) / w**3
        prime_vertical = EQUATORIAL_M / w
        return (
            self.longitude + degrees(east / (prime_vertical * cos(latitude))),
            self.latitude + degrees(north / meridian),
        )

    def polygon(self, points: Sequence[Point]) -> list[list[float]]:
        """A ring of places around points (x, y) in pixels, counterclockwise and closed, as RFC 7946
        (3.1.6) wants the outer ring of a polygon; to a tenth of a millimetre.
        """
        ring = [self.place(point) for point in points]
        if ring[0] == ring[-1]:
            ring.pop()
        if _signed_area(ring) < 0:
            ring.reverse()
        ring.append(ring[0])
        return [[round(longitude, 9), round(latitude, 9)] for longitude, latitude in ring]

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {
            "latitude": self.latitude,
            "longitude": self.longitude,
            "heading": self.heading,
            "mm_per_pixel": self.mm_per_pixel,
        }


def footprint_of(photo: Photo, pose: Pose, scale: Scale | None) -> Footprint | str:
    """Where a photograph's pixels lie, or what is missing for that, in words."""
    missing = []
    if photo.position is None:
        missing.append("no GPS position in its EXIF")
    heading = pose.heading
    if heading is None:
        heading = photo.camera.heading
        if heading is not None and photo.camera.is_magnetic:
            heading = None
            missing.append("its GPSImgDirection is from magnetic north (give --heading)")
        elif heading is None:
            missing.append("no heading (GPSImgDirection in its EXIF, or --heading)")
    if pose.height_mm(photo) is None:
        missing.append(without_height(photo, pose))
    if scale is None:
        missing.append("no scale (see its notes)" if pose.height_mm(photo) else "no scale")
    if missing:
        return "; ".join(missing)

    assert photo.position is not None
    assert heading is not None
    assert scale is not None
    latitude, longitude, _ = photo.position
    found = Footprint(latitude, longitude, heading, scale.mm_per_pixel, photo.width, photo.height)
    return _trouble(found) or found


def without_height(photo: Photo, pose: Pose) -> str:
    """Why the camera's height is not known."""
    if pose.ground is None:
        return "no height (--height, or GPSAltitude in its EXIF and --ground)"
    altitude = photo.position[2] if photo.position is not None else None
    if altitude is None:
        return "no GPSAltitude in its EXIF (give --height)"
    return f"its GPSAltitude of {altitude:g} m is not above --ground {pose.ground.value:g} m"


def _trouble(footprint: Footprint) -> str | None:
    """What makes a plane of the ground wrong there, or None."""
    if abs(footprint.latitude) > POLES:
        return f"within {90 - POLES:g} degrees of a pole"
    reach = hypot(footprint.width, footprint.height) / 2 * footprint.mm_per_pixel / 1000
    across = degrees(reach / (EQUATORIAL_M * cos(radians(footprint.latitude))))
    if abs(footprint.longitude) + across > 180:
        # RFC 7946, 3.1.9: such polygons would have to be cut in two.
        return "across the antimeridian"
    return None


def _signed_area(ring: Sequence[Point]) -> float:
    """Above 0 where the ring runs counterclockwise. Counted from its first point, since degrees are
    large beside the ring.
    """
    first = ring[0]
    total = 0.0
    for (x, y), (next_x, next_y) in zip(ring, [*ring[1:], first], strict=True):
        total += (x - first[0]) * (next_y - first[1]) - (next_x - first[0]) * (y - first[1])
    return total / 2


def parse_height(text: str) -> Quantity:
    """`30m` or `30±0.5m`, in metres. DataError where it is neither."""
    return parse_quantity(text, "--height", METRES_OF_LENGTHS, "30m or 30±0.5m")


def parse_ground(text: str) -> Quantity:
    """`412m` or `412±3m` in metres, also below 0. DataError where it is neither."""
    return parse_quantity(
        text, "--ground", METRES_OF_LENGTHS, "412m or 412±3m", may_be_negative=True
    )


def parse_heading(value: float) -> float:
    """Degrees from 0 to 360. DataError where it lies beyond."""
    if not 0 <= value <= 360:
        raise DataError(
            f"a heading of {value:g}",
            where="--heading",
            remedy="give degrees clockwise from true north, from 0 to 360",
        )
    return value % 360
