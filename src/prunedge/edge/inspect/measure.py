"""How long and how wide a crack is, from the map of its probability: to a fraction of a pixel.

The map is enlarged first (bilinear), so that the edge, where the probability is a half, may lie
between pixels. The centreline is the skeleton without the spurs that corners leave; the mean width
is the area over its length, the largest twice the largest distance from it to the edge. Needs
scikit-image (the extra `[measure]`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from math import sqrt
from typing import Any

import numpy as np
from PIL import Image

FINEST = 4  # times that a map is enlarged, where the region is small enough
MOST_PLACES = 4_000_000  # of an enlarged map
SMOOTHINGS = 24  # how often each place of a centreline is drawn between its neighbours
CORNER = 1.5  # times the distance to the edge, which a branch into a corner doesn't reach
SPUR = 2.0  # times the same, below which a side branch is one of a rough edge
POLYGON_TOLERANCE = 0.5  # places that a polygon may be off, and more where it has too many points
MOST_POINTS = 200


@dataclass(frozen=True)
class Measures:
    """A region's size, in pixels of the photograph: `length` along its centreline and all its
    branches, `mean_width` and `largest_width` across it, and the `direction` in which it runs, in
    degrees from 0 (to the right) counterclockwise to 180. `polygon` is its outline, as (x, y).
    """

    length: float
    mean_width: float
    largest_width: float
    direction: float
    polygon: tuple[tuple[float, float], ...]

    def moved(self, left: int, top: int) -> Measures:
        """The same with a polygon that lies so many pixels further to the right and down."""
        polygon = tuple((round(x + left, 2), round(y + top, 2)) for x, y in self.polygon)
        return replace(self, polygon=polygon)

    def to_json(self, mm_per_pixel: float | None = None) -> dict[str, Any]:
        """A plain dict, in millimetres too when the scale is known."""
        sizes = {
            "length": self.length,
            "mean_width": self.mean_width,
            "largest_width": self.largest_width,
        }
        record: dict[str, Any] = {f"{name}_px": value for name, value in sizes.items()}
        record["direction_deg"] = self.direction
        record["polygon"] = [list(point) for point in self.polygon]
        if mm_per_pixel is not None:
            record |= {f"{name}_mm": value * mm_per_pixel for name, value in sizes.items()}
        return record


def can_measure() -> bool:
    """Whether scikit-image is installed."""
    return find_spec("skimage") is not None


def measure(values: np.ndarray, threshold: float, cell: int = 1) -> Measures | None:
    """The measures of the region in `values` (rows, columns) float32, the probability of damage at
    places of `cell` pixels: what reaches the threshold, all of it connected. None where it has no
    centreline. The polygon counts from the first place.
    """
    from skimage.morphology import medial_axis, skeletonize

    padded = np.pad(values, 1)  # a region that ends with the photograph has an edge there
    scale = max(1, min(FINEST, int(sqrt(MOST_PLACES / padded.size))))
    fine = _enlarged(padded, scale)
    is_inside = fine >= threshold
    if not is_inside.any():
        return None

    _, distances = medial_axis(is_inside, return_distance=True)
    line = _Centreline(skeletonize(is_inside), distances)
    line.drop_spurs()
    points = line.points()
    if not len(points):
        return None
    length = line.length()
    # From the middle of a place to the middle of the first one outside is half a place too far; in
    # the mean the true middle lies a quarter beside it.
    widest = 2 * float(line.distances().max()) - 0.5
    to_pixels = cell / scale
    return Measures(
        length=length * to_pixels,
        mean_width=float(is_inside.sum()) / length * to_pixels,
        largest_width=widest * to_pixels,
        direction=_direction(points),
        polygon=_outline(padded, threshold, cell),
    )


def _enlarged(values: np.ndarray, scale: int) -> np.ndarray:
    """A map with `scale` times as many places along each side."""
    if scale == 1:
        return values
    size = (values.shape[1] * scale, values.shape[0] * scale)
    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR))


class _Centreline:
    """A skeleton as places and the steps between them.

    `skeleton` (rows, columns) bool, `distances` (rows, columns) to the nearest place outside.
    """

    def __init__(self, skeleton: np.ndarray, distances: np.ndarray) -> None:
        self._places = np.argwhere(skeleton)  # (n, 2) rows and columns
        self._distances = distances[skeleton]
        self._neighbours = _neighbours(skeleton)
        self._is_kept = np.ones(len(self._places), dtype=bool)

    def points(self) -> np.ndarray:
        """The places that are left, (n, 2) as row and column."""
        return self._places[self._is_kept]

    def distances(self) -> np.ndarray:
        """Their distances to the nearest place outside (n,)."""
        return self._distances[self._is_kept]

    def drop_spurs(self) -> None:
        """Take branches away that are hardly longer than the region is wide where they begin: those
        of a corner's length together, also both at the end of a line, then others one by one.
        """
        while reaches := self._reaches():
            shortest = min(reach for reach, _ in reaches)
            if shortest >= SPUR:
                return
            for reach, branch in reaches:
                if reach < CORNER or reach == shortest:
                    self._is_kept[branch[:-1]] = False

    def length(self) -> float:
        """The sum of all steps of the smoothed line, and from its ends to the edge."""
        steps = []
        for place, others in enumerate(self._neighbours):
            steps += [(place, other) for other in others if place < other]
        pairs = np.array(steps, dtype=np.int64).reshape(-1, 2)
        pairs = pairs[self._is_kept[pairs].all(1)]
        degrees = np.bincount(pairs.ravel(), minlength=len(self._places))

        smooth = self._places.astype(np.float64)
        inner = self._is_kept & (degrees == 2)
        for _ in range(SMOOTHINGS):
            sums = smooth.copy()
            np.add.at(sums, pairs[:, 0], smooth[pairs[:, 1]])
            np.add.at(sums, pairs[:, 1], smooth[pairs[:, 0]])
            smooth[inner] = sums[inner] / 3
        drawn = float(np.linalg.norm(smooth[pairs[:, 0]] - smooth[pairs[:, 1]], axis=1).sum())
        is_end = self._is_kept & (degrees <= 1)
        beyond = (self._distances[is_end] - 0.5) * np.where(degrees[is_end] == 0, 2, 1)
        return drawn + float(beyond.sum())

    def _branches(self) -> list[list[int]]:
        """The places from each end to the first fork, which is the last of them."""
        branches = []
        for end in np.flatnonzero(self._is_kept).tolist():
            if len(self._kept_beside(end)) != 1:
                continue
            branch = [end]
            before = -1
            while True:
                onward = [place for place in self._kept_beside(branch[-1]) if place != before]
                if len(onward) != 1:
                    break
                before = branch[-1]
                branch.append(onward[0])
            if len(self._kept_beside(branch[-1])) > 2:
                branches.append(branch)
        return branches

    def _reaches(self) -> list[tuple[float, list[int]]]:
        """How far each branch reaches, in distances from its fork to the edge."""
        reaches = []
        for branch in self._branches():
            fork = branch[-1]
            reach = np.linalg.norm(self._places[branch[0]] - self._places[fork])
            reaches.append((float(reach / self._distances[fork]), branch))
        return reaches

    def _kept_beside(self, place: int) -> list[int]:
        return [other for other in self._neighbours[place] if self._is_kept[other]]


def _neighbours(skeleton: np.ndarray) -> list[list[int]]:
    """The places beside each place of a skeleton: above, below and at its sides, and across a
    corner where no third one lies between.
    """
    numbers = np.full((skeleton.shape[0] + 2, skeleton.shape[1] + 2), -1)
    inner = numbers[1:-1, 1:-1]
    inner[skeleton] = np.arange(int(skeleton.sum()))
    neighbours: list[list[int]] = [[] for _ in range(int(skeleton.sum()))]
    for row, column in np.argwhere(numbers >= 0).tolist():
        own = int(numbers[row, column])
        for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
            other = int(numbers[row + down, column + right])
            between = (numbers[row + down, column], numbers[row, column + right])
            is_corner = bool(down and right)
            if other < 0 or (is_corner and max(between) >= 0):
                continue
            neighbours[own].append(other)
            neighbours[other].append(own)
    return neighbours


def _direction(points: np.ndarray) -> float:
    """In which direction points (n, 2) of rows and columns spread most, in degrees."""
    centred = points - points.mean(0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    down, right = axes[:, -1]
    return float(np.degrees(np.arctan2(-down, right)) % 180)


def _outline(padded: np.ndarray, threshold: float, cell: int) -> tuple[tuple[float, float], ...]:
    """The longest outline of a map that has a border of one place, in pixels from its first place,
    without points that hardly matter.
    """
    from skimage.measure import approximate_polygon, find_contours

    contours = find_contours(np.pad(padded, 1), threshold - 1e-6)  # what reaches it is inside
    longest = max(contours, key=len)
    tolerance = POLYGON_TOLERANCE
    while len(points := approximate_polygon(longest, tolerance)) > MOST_POINTS:
        tolerance *= 2
    # From the middles of places to edges of pixels, without the two borders.
    scaled = (points - 1.5) * cell
    return tuple((round(float(x), 2), round(float(y), 2)) for y, x in scaled)
