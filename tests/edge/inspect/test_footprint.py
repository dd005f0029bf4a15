"""Places on a map, against a computation over the earth's centre."""

from __future__ import annotations

from itertools import pairwise
from math import atan2, cos, degrees, hypot, radians, sin, sqrt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunedge.edge.image.camera import Camera
from prunedge.edge.image.photograph import Photo
from prunedge.edge.inspect.footprint import (
    Footprint,
    Pose,
    footprint_of,
    parse_ground,
    parse_heading,
    parse_height,
)
from prunedge.edge.inspect.scale import Quantity, Scale
from prunedge.errors import DataError

A, F = 6378137.0, 1 / 298.257223563
E2 = F * (2 - F)


def place_of(latitude: float, longitude: float, east: float, north: float) -> tuple[float, float]:
    """Longitude and latitude of a point on the plane that touches the ellipsoid there: to the
    earth's centre and back (Bowring's formula)."""
    phi, lam = radians(latitude), radians(longitude)
    n = A / sqrt(1 - E2 * sin(phi) ** 2)
    x = n * cos(phi) * cos(lam) - sin(lam) * east - sin(phi) * cos(lam) * north
    y = n * cos(phi) * sin(lam) + cos(lam) * east - sin(phi) * sin(lam) * north
    z = n * (1 - E2) * sin(phi) + cos(phi) * north
    b = A * (1 - F)
    p = hypot(x, y)
    theta = atan2(z * A, p * b)
    second = (A**2 - b**2) / b**2
    found = atan2(z + second * b * sin(theta) ** 3, p - E2 * A * cos(theta) ** 3)
    return degrees(atan2(y, x)), degrees(found)


@given(
    latitude=st.floats(-80, 80),
    longitude=st.floats(-179, 179),
    heading=st.floats(0, 359),
    x=st.floats(0, 4000),
    y=st.floats(0, 3000),
)
def test_places_are_those_of_another_computation(
    latitude: float, longitude: float, heading: float, x: float, y: float
) -> None:
    footprint = Footprint(latitude, longitude, heading, 10.0, 4000, 3000)
    right, up = (x - 2000) / 100, (1500 - y) / 100
    # Of a vector that is turned clockwise by the heading.
    east = right * cos(radians(heading)) + up * sin(radians(heading))
    north = up * cos(radians(heading)) - right * sin(radians(heading))
    found = footprint.place((x, y))
    wanted = place_of(latitude, longitude, east, north)
    metre = 1 / 111_320
    assert abs(found[1] - wanted[1]) < 0.002 * metre
    assert abs(found[0] - wanted[0]) * cos(radians(latitude)) < 0.002 * metre


def test_headings_turn_clockwise() -> None:
    north_up = Footprint(0, 0, 0, 1000, 100, 100)
    assert north_up.place((50, 0))[1] > 0
    assert north_up.place((100, 50))[0] > 0
    east_up = Footprint(0, 0, 90, 1000, 100, 100)
    assert east_up.place((50, 0))[0] > 0
    assert east_up.place((100, 50))[1] < 0


@pytest.mark.parametrize("reverse", [False, True])
def test_rings_are_closed_and_counterclockwise(reverse: bool) -> None:
    points = [(10.0, 10.0), (20.0, 10.0), (20.0, 20.0), (10.0, 20.0)]
    ring = Footprint(52, 4, 33, 5, 100, 100).polygon(points[::-1] if reverse else points)
    assert ring[0] == ring[-1]
    assert len(ring) == 5
    centred = [(x - 4, y - 52) for x, y in ring]
    area = sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise(centred)) / 2
    assert area > 0
    square_metres = area * 111_320**2 * cos(radians(52))
    assert square_metres == pytest.approx((10 * 0.005) ** 2, rel=0.01)


def photo(position: Any = (52.0, 4.0, 80.0), **camera: Any) -> Photo:
    return Photo(400, 300, (), position, 1, lambda box: None, Camera(**camera))  # type: ignore[arg-type, return-value]


SCALE = Scale(5.0)
KNOWN = Pose(height=Quantity(30.0))


@pytest.mark.parametrize(
    ("of", "pose", "scale", "words"),
    [
        (photo(None, heading=0.0), KNOWN, SCALE, "no GPS position"),
        (photo(), KNOWN, SCALE, "no heading"),
        (photo(heading=10.0, is_magnetic=True), KNOWN, SCALE, "magnetic north"),
        (photo(heading=0.0), Pose(), SCALE, "no height"),
        (photo(heading=0.0), Pose(ground=Quantity(90.0)), SCALE, "not above --ground 90 m"),
        (
            photo((52.0, 4.0, None), heading=0.0),
            Pose(ground=Quantity(9.0)),
            SCALE,
            "no GPSAltitude",
        ),
        (photo(heading=0.0), KNOWN, None, "no scale"),
        (photo((89.0, 4.0, 80.0), heading=0.0), KNOWN, SCALE, "pole"),
        (photo((52.0, 179.99999, 80.0), heading=0.0), KNOWN, SCALE, "antimeridian"),
    ],
)
def test_what_is_missing_for_a_map(of: Photo, pose: Pose, scale: Scale | None, words: str) -> None:
    found = footprint_of(of, pose, scale)
    assert isinstance(found, str)
    assert words in found


def test_height_from_the_altitude_of_the_ground_and_a_heading_that_is_given() -> None:
    pose = Pose(ground=parse_ground("50±4m"), heading=parse_heading(360))
    assert pose.height_mm(photo()) == Quantity(30_000.0, 4_000.0)
    found = footprint_of(photo(heading=10.0, is_magnetic=True), pose, SCALE)
    assert isinstance(found, Footprint)
    assert found.heading == 0
    assert parse_height("100ft").value == pytest.approx(30.48)
    assert parse_ground("-3m").value == -3
    with pytest.raises(DataError, match="--heading"):
        parse_heading(361)
