"""Millimetres a pixel: from a number, a marker, or distance and focal length, with what is unsure of them."""

from __future__ import annotations

from math import hypot, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prunedge.edge.image.camera import Camera, camera_of
from prunedge.edge.image.photograph import open_photo
from prunedge.edge.inspect import Settings, inspect_image
from prunedge.edge.inspect.footprint import Pose, parse_height
from prunedge.edge.inspect.scale import Quantity, Scale
from prunedge.edge.inspect.scale.distance import parse_distance, scale_from_distance
from prunedge.edge.inspect.scale.marker import parse_marker, scale_from_marker
from prunedge.edge.inspect.scale.scale import length_uncertainty, width_uncertainty
from prunedge.edge.inspect.scale.scaling import Scaling, parse_mm_per_pixel, scale_of
from prunedge.edge.session import Session
from prunedge.errors import DataError

SIZE = (640, 480)


@pytest.mark.parametrize(
    ("text", "value", "uncertainty"),
    [
        ("0.12", 0.12, 0),
        ("0.12±0.01", 0.12, 0.01),
        ("0.12+-0.01", 0.12, 0.01),
        ("0.12 +/- 0.01", 0.12, 0.01),
        ("0.12 mm", 0.12, 0),
        ("0.12±0.01mm", 0.12, 0.01),
    ],
)
def test_numbers_with_an_uncertainty(text: str, value: float, uncertainty: float) -> None:
    assert parse_mm_per_pixel(text) == Quantity(value, uncertainty)
    assert Quantity(value, uncertainty).standard == uncertainty / 2  # ± is two standard ones


@pytest.mark.parametrize("text", ["2.5m", "2500mm", "250 cm", "2.5±0.1m", "2.5m±10cm", "2.5m+-0.1"])
def test_distances(text: str) -> None:
    found = parse_distance(text)
    assert found.value == pytest.approx(2500)
    assert found.uncertainty == pytest.approx(100 if len(text) > 6 and text != "250 cm" else 0)


@pytest.mark.parametrize(
    "text", ["", "x", "0,12", "0.12±", "-1", "0", "nan", "inf", "0.1±0.2", "1m", "1e999"]
)
def test_no_numbers_with_an_uncertainty(text: str) -> None:
    with pytest.raises(DataError, match=r"--mm-per-pixel 0\.12"):
        parse_mm_per_pixel(text)


@given(
    scale=st.floats(0.01, 10),
    relative=st.floats(0, 0.3),
    width=st.floats(0.5, 100),
    resolution=st.floats(1, 8),
)
@settings(max_examples=20, deadline=None)
def test_uncertainties_are_those_of_drawn_numbers(
    scale: float, relative: float, width: float, resolution: float
) -> None:
    """Against the spread of products of numbers that are drawn, each edge within half a pixel."""
    draw = np.random.default_rng(0)
    n = 40_000
    scales = scale * (1 + relative / 2 * draw.standard_normal(n))
    edges = draw.uniform(-resolution / 2, resolution / 2, (2, n))
    spread = 2 * float(np.std(scales * (width + edges[0] - edges[1])))
    product = relative / 2 * scale * width_uncertainty(resolution)  # of second order, left out
    mm, uncertainty = Scale(scale, scale * relative / 2).length(
        width, width_uncertainty(resolution)
    )
    assert mm == pytest.approx(scale * width)
    assert uncertainty == pytest.approx(spread, rel=0.03, abs=2 * product)


def test_uncertainties_by_hand() -> None:
    of_width = sqrt(2) * 0.5 / sqrt(3)
    assert width_uncertainty(1) == pytest.approx(of_width)
    assert length_uncertainty(100, 1) == pytest.approx(hypot(of_width, 3 / sqrt(3)))
    area, uncertainty = Scale(0.5, 0.01).area(200, 0)
    assert area == 50
    assert uncertainty == pytest.approx(2 * (2 * 0.01 / 0.5) * 50)


def marker_image(kind: str) -> tuple[np.ndarray, float]:
    """A marker's picture with a white border, and its pixels a millimetre."""
    cv2 = pytest.importorskip("cv2")
    if kind == "checkerboard":
        squares = np.kron(np.indices((6, 8)).sum(0) % 2 * 255, np.ones((32, 32)))
        return np.pad(squares.astype(np.uint8), 32, constant_values=255), 32 / 10
    dictionary = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_APRILTAG_36h11)
    tag = cv2.aruco.generateImageMarker(dictionary, 7, 240)
    return np.pad(tag, 48, constant_values=255), 240 / 50


def seen(kind: str, tilt: float, distance: float = 600) -> tuple[Image.Image, float]:
    """A photograph of a marker that is tilted (degrees), and the true millimetres a pixel at its middle."""
    cv2 = pytest.importorskip("cv2")
    picture, per_mm = marker_image(kind)
    turn, roll = np.radians(tilt), np.radians(12)
    rx = np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])
    rz = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    focal = 900.0
    camera = np.array([[focal, 0, SIZE[0] / 2], [0, focal, SIZE[1] / 2], [0, 0, 1]])
    rotated = rx @ rz
    plane = camera @ np.column_stack([rotated[:, 0], rotated[:, 1], [0, 0, distance]])
    centred = np.array(
        [
            [1 / per_mm, 0, -picture.shape[1] / 2 / per_mm],
            [0, 1 / per_mm, -picture.shape[0] / 2 / per_mm],
            [0, 0, 1],
        ]
    )
    finer = np.diag([4.0, 4.0, 1.0]) @ plane @ centred
    large = cv2.warpPerspective(picture, finer, (4 * SIZE[0], 4 * SIZE[1]), borderValue=180)
    small = cv2.resize(large, SIZE, interpolation=cv2.INTER_AREA).astype(float)
    noisy = small + np.random.default_rng(0).normal(0, 3, small.shape)
    # At the middle a step along the tilt is shown shorter by its cosine.
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8)), distance / focal / sqrt(
        np.cos(turn)
    )


@pytest.mark.parametrize("tilt", [0, 25])
@pytest.mark.parametrize("marker", ["apriltag:36h11:50mm", "checkerboard:7x5:1cm"])
def test_a_marker_tells_the_scale_at_its_place(marker: str, tilt: float) -> None:
    image, true = seen(marker.partition(":")[0], tilt)
    scale, notes = scale_from_marker(open_photo(image.convert("RGB"), 10), parse_marker(marker))
    assert scale.mm_per_pixel == pytest.approx(true, rel=0.003)
    assert abs(scale.mm_per_pixel - true) < scale.uncertainty
    assert bool(notes) == (tilt > 20)
    assert scale.uncertainty / true < (0.02 if tilt == 0 else 0.15)


@pytest.mark.parametrize("inset", [8, 12, 20])
def test_a_tag_near_the_border_is_found_as_exactly(inset: int) -> None:
    cv2 = pytest.importorskip("cv2")
    dictionary = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_APRILTAG_36h11)
    pixels = np.random.default_rng(0).normal(150, 8, (300, 400)).clip(0, 255).astype(np.uint8)
    tag = np.pad(cv2.aruco.generateImageMarker(dictionary, 7, 80), 5, constant_values=255)
    pixels[inset - 5 : inset + 85, inset - 5 : inset + 85] = tag
    photo = open_photo(Image.fromarray(pixels).convert("RGB"), 10)
    scale, notes = scale_from_marker(photo, parse_marker("apriltag:36h11:50mm"))
    assert scale.mm_per_pixel == pytest.approx(50 / 80, rel=0.001)
    assert notes == ()


def test_a_height_that_is_not_known_is_said_as_any_missing_scale() -> None:
    photo = open_photo(Image.new("RGB", (120, 90)), 10)
    why = "no GPSAltitude in its EXIF (give --height)"
    _, notes = scale_of(photo, None, Scaling(), None, why)
    assert notes == (f"measured in pixels: {why}",)
    with pytest.raises(DataError, match="GPSAltitude"):
        scale_of(photo, None, Scaling(missing="skip"), None, why)


def test_distance_and_height_exclude_each_other() -> None:
    scaling = Scaling(distance=parse_distance("2m"))
    with pytest.raises(DataError, match="--distance and --height each tell the distance"):
        Settings(scaling=scaling, pose=Pose(height=parse_height("30m")))


def test_without_a_scale_an_only_photograph_is_named(session: Session, tmp_path: Path) -> None:
    file = tmp_path / "wall.png"
    Image.new("RGB", (40, 40)).save(file)
    scaling = Scaling(distance=parse_distance("2m"), missing="skip")
    with pytest.raises(DataError, match=r"no focal length.*wall\.png"):
        inspect_image(file, session, Settings(patch=32, scaling=scaling))


def test_a_marker_that_is_printed_unsurely_and_one_that_is_not_there() -> None:
    pytest.importorskip("cv2")
    image, _ = seen("apriltag", 0)
    photo = open_photo(image.convert("RGB"), 10)
    exact, _ = scale_from_marker(photo, parse_marker("apriltag:36h11:50mm"))
    unsure, _ = scale_from_marker(photo, parse_marker("apriltag:36h11:50±1mm"))
    assert unsure.standard**2 == pytest.approx(exact.standard**2 + (0.01 * exact.mm_per_pixel) ** 2)
    other = Scaling(marker=parse_marker("checkerboard:9x6:25mm"))
    photo = open_photo(Image.new("RGB", (120, 90)), 10)
    scale, notes = scale_of(photo, None, other, None)
    assert scale is None
    assert notes[0].startswith("measured in pixels: no checkerboard of 9 x 6 inner corners")
    skipping = Scaling(marker=other.marker, missing="skip")
    with pytest.raises(DataError, match="no checkerboard"):
        scale_of(photo, None, skipping, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "apriltag",
        "apriltag:36h11",
        "apriltag:36h12:5cm",
        "aruco:1:5mm",
        "checkerboard:9:25mm",
        "checkerboard:2x2:25mm",
        "apriltag:36h11:50",
        "apriltag:36h11:0mm",
    ],
)
def test_no_markers(text: str) -> None:
    with pytest.raises(DataError, match="--marker"):
        parse_marker(text)


FULL = {"focal_length_mm": 50.0, "pixels_per_mm": 4000 / 36, "size": (4000, 2667)}


def test_distance_and_sensor_by_the_thin_lens() -> None:
    scale = scale_from_distance(Camera(**FULL), (4000, 2667), Quantity(2500.0, 100.0))
    assert scale.mm_per_pixel == pytest.approx((2500 - 50) * 36 / 4000 / 50)
    nominal = 0.02 / sqrt(3) * scale.mm_per_pixel
    assert scale.standard == pytest.approx(hypot(50 * 36 / 4000 / 50, nominal), rel=1e-6)
    # A copy at half the size, and one that is turned.
    half = scale_from_distance(Camera(**FULL), (1333, 2000), Quantity(2500.0))
    assert half.mm_per_pixel == pytest.approx(2 * scale.mm_per_pixel, rel=1e-3)


def test_the_focal_length_on_film_goes_by_the_diagonal() -> None:
    full = scale_from_distance(Camera(focal_length_35mm=50), (3600, 2400), Quantity(1000.0))
    assert full.mm_per_pixel == pytest.approx(1000 * 0.01 / 50)
    other = scale_from_distance(Camera(focal_length_35mm=50), (4000, 3000), Quantity(1000.0))
    assert other.mm_per_pixel == pytest.approx(1000 * hypot(36, 24) / 5000 / 50)
    by_width = 1000 * 36 / 4000 / 50
    assert abs(other.mm_per_pixel - by_width) <= 2 * other.standard  # as some makers have it


@pytest.mark.parametrize(
    ("changes", "size", "words"),
    [
        ({"focal_length_mm": None}, (4000, 2667), "no focal length"),
        ({"pixels_per_mm": None}, (4000, 2667), "no focal length"),
        ({}, (4000, 4000), "cropped"),
        ({"zoom": 2.0}, (4000, 2667), "digital zoom"),
        ({"focal_length_35mm": 100.0}, (4000, 2667), "contradicts itself"),
        ({"focal_length_mm": 5000.0}, (4000, 2667), "within the focal length"),
    ],
)
def test_cameras_that_tell_no_scale(
    changes: dict[str, Any], size: tuple[int, int], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        scale_from_distance(Camera(**{**FULL, **changes}), size, Quantity(2500.0))


def exif(**changes: Any) -> Image.Exif:
    tags = {"length": 0x920A, "film": 0xA405, "plane": 0xA20E, "unit": 0xA210, "wide": 0xA002}
    tags |= {"high": 0xA003}
    made = Image.Exif()
    entries = {"length": 35.0, "film": 53, "plane": 2540.0, "unit": 2, "wide": 60, "high": 40}
    for name, value in {**entries, **changes}.items():
        made.get_ifd(0x8769)[tags[name]] = value
    made.get_ifd(0x8825).update({0x10: "T", 0x11: 90.0})
    return made


def test_what_exif_tells_of_a_camera() -> None:
    found = camera_of(exif())
    assert (found.focal_length_mm, found.focal_length_35mm) == (35, 53)
    assert found.pixels_per_mm == pytest.approx(100)
    assert found.size == (60, 40)
    assert (found.heading, found.is_magnetic) == (90, False)
    assert camera_of(exif(unit=3)).pixels_per_mm == pytest.approx(254)
    assert camera_of(None) == Camera()


@pytest.mark.parametrize("wrong", ["x", b"\0", 0, -3.0, float("nan"), (), None])
def test_damaged_exif_tells_nothing(wrong: object) -> None:
    found = camera_of(exif(length=wrong, film=wrong, plane=wrong, wide=wrong))
    assert (found.focal_length_mm, found.focal_length_35mm, found.size) == (None, None, None)
