"""The scale from a marker of known size in the photograph: an AprilTag or a checkerboard. Needs
OpenCV (the extra `[marker]`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from math import hypot, sqrt
from typing import Any, Literal

import numpy as np

from prunedge.edge.image.photograph import Photo
from prunedge.edge.inspect.scale.quantity import MM_OF_LENGTHS, Quantity, parse_quantity
from prunedge.edge.inspect.scale.scale import Scale
from prunedge.errors import DataError, ExtraMissing
from prunedge.utils.wording import counted

FAMILIES = ("16h5", "25h9", "36h10", "36h11")
MOST_CORNERS = 100  # of a side of a checkerboard
SEARCHED = 2400  # pixels of the longer side in which markers are looked for at first
SMALLEST_SIDE = 12  # pixels of a marker's side
LARGEST_CROP = 4000  # pixels of the longer side in which a marker is looked at again, in full
CORNER = 0.3  # pixels, the standard uncertainty of a corner, where no others tell
TILTED = 1.1  # longest over shortest direction, from which on it is told

Corners = np.ndarray  # (n, 2) float64, x and y
Finder = Callable[[np.ndarray], list[Corners]]  # of a grey image (rows, columns) uint8


@dataclass(frozen=True)
class Marker:
    """A marker of known size. An `apriltag` is of a `family`, and `size` is the side of its black
    square in millimetres; a `checkerboard` has `corners` (across, down) where four squares meet,
    and `size` is a square's side.
    """

    kind: Literal["apriltag", "checkerboard"]
    size: Quantity
    family: str = ""
    corners: tuple[int, int] = (0, 0)

    def text(self) -> str:
        """What to look for, in words."""
        size = self.size.text("mm")
        if self.kind == "apriltag":
            return f"AprilTag {self.family} of {size}"
        across, down = self.corners
        return f"checkerboard of {across} x {down} inner corners and squares of {size}"

    def plane(self) -> np.ndarray:
        """Where its corners lie in its plane, (n, 2) in millimetres, in the order of `_found`."""
        side = self.size.value
        if self.kind == "apriltag":
            return side * np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
        across, down = self.corners
        rows, columns = np.divmod(np.arange(across * down), across)
        return side * np.stack([columns, rows], axis=1).astype(float)


def parse_marker(text: str) -> Marker:
    """`apriltag:36h11:50mm` or `checkerboard:9x6:25mm`. DataError where it is neither, ExtraMissing
    where OpenCV is not installed.
    """
    example = "apriltag:36h11:50mm, or checkerboard:9x6:25mm (inner corners, a square's side)"
    remedy = f"give --marker {example}"
    kind, _, rest = text.partition(":")
    which, _, size = rest.partition(":")
    if kind not in ("apriltag", "checkerboard") or not size:
        raise DataError(f"'{text}' is no marker", where="--marker", remedy=remedy)
    side = parse_quantity(size, "--marker", MM_OF_LENGTHS, example)
    if not find_spec("cv2"):
        raise ExtraMissing(
            "markers need OpenCV, which is not installed", remedy="pip install 'prunedge[marker]'"
        )
    if kind == "apriltag":
        if which not in FAMILIES:
            raise DataError(
                f"'{which}' is no family of AprilTags",
                where="--marker",
                remedy=f"give one of {', '.join(FAMILIES)}",
            )
        return Marker("apriltag", side, family=which)
    match = re.fullmatch(r"(\d{1,3})[xX×](\d{1,3})", which)
    corners = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 3 <= min(corners) <= max(corners) <= MOST_CORNERS:
        raise DataError(
            f"'{which}' are no inner corners of a checkerboard (from 3 to {MOST_CORNERS} a side)",
            where="--marker",
            remedy=remedy,
        )
    return Marker("checkerboard", side, corners=corners)


def scale_from_marker(photo: Photo, marker: Marker) -> tuple[Scale, tuple[str, ...]]:
    """The scale at the marker, valid in its plane, and what is unusual about it. Of several
    AprilTags it is the mean, and what they differ by is part of the uncertainty.

    DataError where the marker is not found.
    """
    found = list(_found(photo, marker))
    if not found:
        raise DataError(
            f"no {marker.text()} found in it",
            remedy="show it whole, sharp and with its white border",
        )
    views = [_seen(corners, marker) for corners in found]
    scales = [view.mm_per_pixel for view in views]
    mean = float(np.mean(scales))
    spread = (max(scales) - min(scales)) / 2 / sqrt(3)
    own = max(view.standard / view.mm_per_pixel for view in views)
    printed = marker.size.standard / marker.size.value
    standard = hypot(mean * own, mean * printed, spread)

    notes: tuple[str, ...] = ()
    tilt = max(view.tilt for view in views)
    if tilt > TILTED:
        notes = (
            f"the camera looks at the marker from the side (one direction is {tilt:.2f} times as "
            "long as another): sizes elsewhere are further off than told",
        )
    name = "marker" if len(found) == 1 else counted(len(found), "marker")
    return Scale(mean, standard, f"{name}: {marker.text()}"), notes


@dataclass(frozen=True)
class _View:
    """How a marker is seen: the scale at its middle with its standard uncertainty, and the longest
    over the shortest direction there.
    """

    mm_per_pixel: float
    standard: float
    tilt: float


def _seen(corners: Corners, marker: Marker) -> _View:
    """How a marker is seen, by the homography from the photograph to its plane.

    The scale is the root of the homography's area ratio in its middle. Its uncertainty is that of
    the corners, by the law of propagation with numerical derivatives (GUM 5.1.3, note 2), and that
    other directions are scaled otherwise.
    """
    plane = marker.plane()
    to_plane = _homography(corners, plane)
    middle = corners.mean(0)
    across, along = _singular_values(to_plane, middle)
    scale = sqrt(across * along)

    moved = 0.1
    squares = 0.0
    for place in np.ndindex(*corners.shape):
        other = corners.copy()
        other[place] += moved
        changed = sqrt(np.prod(_singular_values(_homography(other, plane), middle)))
        squares += ((changed - scale) / moved) ** 2
    corner = _corner_uncertainty(corners, plane)
    standard = hypot(sqrt(squares) * corner, (across - along) / 2 / sqrt(3))
    return _View(scale, standard, across / along)


def _corner_uncertainty(corners: Corners, plane: np.ndarray) -> float:
    """How far a corner may be off, in pixels: by how far many of them are off the plane, but at
    least a third of what is assumed of four.
    """
    if len(corners) <= 4:
        return CORNER
    off = _through(_homography(plane, corners), plane) - corners
    freedom = off.size - 8  # of a homography
    return max(CORNER / 3, sqrt(float((off**2).sum()) / freedom))


def _homography(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The homography (3, 3) that leads from points (n, 2) to others, by least squares."""
    import cv2

    matrix, _ = cv2.findHomography(source.astype(np.float64), target.astype(np.float64), 0)
    if matrix is None:
        raise DataError("the marker's corners lie on a line", remedy="photograph it from the front")
    return np.asarray(matrix)


def _through(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (n, 2) through a homography."""
    moved = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return moved[:, :2] / moved[:, 2:]


def _singular_values(matrix: np.ndarray, point: np.ndarray) -> tuple[float, float]:
    """By how much a homography lengthens the longest and the shortest direction at a point."""
    x, y, w = matrix @ np.array([*point, 1.0])
    upper = matrix[:2, :2] / w
    jacobian = upper - np.outer([x, y], matrix[2, :2]) / w**2
    longest, shortest = np.linalg.svd(jacobian, compute_uv=False)
    return float(longest), float(shortest)


def _found(photo: Photo, marker: Marker) -> Iterator[Corners]:
    """The corners of every marker of the kind, in pixels of the photograph: looked for in a copy
    that is no larger than needed, then found again around each, in full and more exactly.
    """
    shrunk = min(1.0, SEARCHED / max(photo.width, photo.height))
    size = (round(photo.width * shrunk), round(photo.height * shrunk))
    search, refine = _finders(marker)
    for rough in search(np.asarray(photo.resized(*size).convert("L"))):
        yield _refined(photo, rough / shrunk, refine)


def _refined(photo: Photo, corners: Corners, refine: Finder) -> Corners:
    """The corners of a marker, found again around it; as they are where that fails, or it is too
    large.
    """
    margin = 0.3 * float(np.ptp(corners, axis=0).max()) + 8
    left, top = (max(0, int(low - margin)) for low in corners.min(0))
    right = min(photo.width, int(corners[:, 0].max() + margin))
    bottom = min(photo.height, int(corners[:, 1].max() + margin))
    if max(right - left, bottom - top) > LARGEST_CROP:
        return corners
    origin = np.array([left, top], np.float64)
    found = refine(np.asarray(photo.crop((left, top, right, bottom)).convert("L")))
    moved = [each + origin for each in found]
    if not moved:
        return corners
    # Of several the one that was meant.
    return min(moved, key=lambda each: float(np.linalg.norm(each.mean(0) - corners.mean(0))))


def _finders(marker: Marker) -> tuple[Finder, Finder]:
    """What finds a kind of marker soon, and what finds it exactly."""
    import cv2

    if marker.kind == "checkerboard":
        board = _board_finder(marker.corners)
        return board, board
    # Lines through the sides' gradients are exact to a hundredth of a pixel, where the corners'
    # own gradients lie a fifth inside; in a whole photograph they take seconds.
    aruco: Any = cv2.aruco
    soon = _tag_finder(marker.family, aruco.CORNER_REFINE_SUBPIX)
    exact = _tag_finder(marker.family, aruco.CORNER_REFINE_APRILTAG)

    def search(grey: np.ndarray) -> list[Corners]:
        # The fast search passes over tags near the photograph's border.
        return soon(grey) or exact(grey)

    return search, exact


def _tag_finder(family: str, refinement: int) -> Finder:
    import cv2

    aruco: Any = cv2.aruco
    dictionary = aruco.getPredefinedDictionary(getattr(aruco, f"DICT_APRILTAG_{family}"))

    def find(grey: np.ndarray) -> list[Corners]:
        parameters = aruco.DetectorParameters()
        parameters.cornerRefinementMethod = refinement
        parameters.minMarkerPerimeterRate = 4 * SMALLEST_SIDE / max(grey.shape)
        found, _, _ = aruco.ArucoDetector(dictionary, parameters).detectMarkers(grey)
        return [np.asarray(each, np.float64).reshape(4, 2) for each in found]

    return find


def _board_finder(corners: tuple[int, int]) -> Finder:
    import cv2

    flags = cv2.CALIB_CB_NORMALIZE_IMAGE | cv2.CALIB_CB_EXHAUSTIVE | cv2.CALIB_CB_ACCURACY

    def find(grey: np.ndarray) -> list[Corners]:
        is_found, found = cv2.findChessboardCornersSB(grey, corners, flags=flags)
        return [np.asarray(found, np.float64).reshape(-1, 2)] if is_found else []

    return find
