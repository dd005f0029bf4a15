"""How long and how wide a crack is, from the map of its probability: to a fraction of a pixel.

The map is enlarged first (bilinear), so that the edge, where the probability is a half, may lie
between pixels; the less, the thicker the region is. The centreline is the skeleton without the
spurs that corners leave; the mean width is the area over its length, the largest twice the largest
distance from it to the edge. Needs scikit-image (the extra `[measure]`), which brings scipy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from importlib.util import find_spec
from math import ceil, sqrt
from typing import Any

import numpy as np
from PIL import Image

from prunedge.edge.inspect.scale.quantity import COVERAGE
from prunedge.edge.inspect.scale.scale import Scale, length_uncertainty, width_uncertainty

FINEST = 4  # times that a map is enlarged, where the region is small enough
MOST_PLACES = 4_000_000  # of an enlarged map
THICKEST = 64  # enlarged places from the middle to the edge: skeletons take time by the thickness
TOO_THICK = 256  # places from the middle to the edge, from which on a region is made smaller first
SMOOTHINGS = 24  # how often each place of a centreline is drawn between its neighbours
CORNER = 1.5  # times the distance to the edge, which a branch into a corner doesn't reach
SPUR = 2.0  # times the same, below which a side branch is one of a rough edge
POLYGON_TOLERANCE = 0.5  # places that a polygon may be off, and more where it has too many points
MOST_POINTS = 200


def _no_centreline() -> np.ndarray:
    return np.zeros((0, 3), np.float32)


@dataclass(frozen=True)
class Measures:
    """A region's size, in pixels of the photograph: `length` along its centreline and all its
    branches, `mean_width` and `largest_width` across it, and the `direction` in which it runs, in
    degrees from 0 (to the right) counterclockwise to 180. `polygon` is its outline, as (x, y).
    `centreline` are the places of its centreline with the width there, (n, 3) float32.
    """

    length: float
    mean_width: float
    largest_width: float
    direction: float
    polygon: tuple[tuple[float, float], ...]
    centreline: np.ndarray = field(compare=False, repr=False, default_factory=_no_centreline)

    def moved(self, left: int, top: int) -> Measures:
        """The same with a polygon that lies so many pixels further to the right and down."""
        polygon = tuple((round(x + left, 2), round(y + top, 2)) for x, y in self.polygon)
        centreline = self.centreline + np.array([left, top, 0], np.float32)
        return replace(self, polygon=polygon, centreline=centreline)

    def to_json(self, scale: Scale | None = None, resolution: float = 1.0) -> dict[str, Any]:
        """A plain dict, in millimetres too when the scale is known, with expanded uncertainties
        (k = 2): a pixel of the model has `resolution` pixels of the photograph.
        """
        of_width = width_uncertainty(resolution)
        sizes = {
            "length": (self.length, length_uncertainty(self.length, resolution)),
            "mean_width": (self.mean_width, of_width),
            "largest_width": (self.largest_width, of_width),
        }
        record: dict[str, Any] = {}
        for name, (value, standard) in sizes.items():
            record[f"{name}_px"] = value
            record[f"{name}_px_uncertainty"] = COVERAGE * standard
        record["direction_deg"] = self.direction
        record["polygon"] = [list(point) for point in self.polygon]
        if scale is None:
            return record
        for name, (value, standard) in sizes.items():
            in_mm, uncertainty = scale.length(value, standard)
            record[f"{name}_mm"] = in_mm
            record[f"{name}_mm_uncertainty"] = uncertainty
        return record


def can_measure() -> bool:
    """Whether scikit-image is installed."""
    return find_spec("skimage") is not None


def measure(values: np.ndarray, threshold: float, cell: int = 1) -> Measures | None:
    """The measures of the region in `values` (rows, columns) float32, the probability of damage at
    places of `cell` pixels: what reaches the threshold, all of it connected. None where it has no
    centreline. The polygon counts from the first place.
    """
    from scipy.ndimage import distance_transform_edt
    from skimage.morphology import skeletonize

    padded = np.pad(values, 1)  # a region that ends with the photograph has an edge there
    thickest = max(1.0, float(distance_transform_edt(padded >= threshold).max()))
    if thickest > TOO_THICK:
        factor = ceil(thickest / THICKEST)
        coarse = _reduced(values, threshold, factor)
        found = None if coarse is None else measure(coarse, threshold, cell * factor)
        if found is not None:
            return replace(found, polygon=_outline(padded, threshold, cell))
    most = min(sqrt(MOST_PLACES / padded.size), THICKEST / thickest)
    scale = max(1, min(FINEST, int(most)))
    fine = _enlarged(padded, scale)
    is_inside = fine >= threshold
    if not is_inside.any():
        return None

    distances = distance_transform_edt(is_inside)
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
        centreline=_places(points, line.distances(), scale, cell),
    )


def trace(values: np.ndarray, threshold: float, cell: int = 1) -> tuple[tuple[float, float], ...]:
    """The outline of a region in `values` alone, as in `measure`."""
    return _outline(np.pad(values, 1), threshold, cell)


def _reduced(values: np.ndarray, threshold: float, factor: int) -> np.ndarray | None:
    """A map with a place for each `factor` x `factor` of its own, their mean; None where thin parts
    of the region would be lost by that.
    """
    sides = [(0, -side % factor) for side in values.shape]
    padded = np.pad(values, sides)
    rows, columns = (side // factor for side in padded.shape)
    coarse = padded.reshape(rows, factor, columns, factor).mean((1, 3), dtype=np.float32)

    # What is left, and a place around it, must hold all of the region.
    framed = np.pad(coarse >= threshold, 1)
    down = framed[:-2] | framed[1:-1] | framed[2:]
    is_near = down[:, :-2] | down[:, 1:-1] | down[:, 2:]
    blocks = (padded >= threshold).reshape(rows, factor, columns, factor)
    return None if (blocks.any((1, 3)) & ~is_near).any() else coarse


def _places(points: np.ndarray, distances: np.ndarray, scale: int, cell: int) -> np.ndarray:
    """The places (n, 2) of a centreline as x, y and the width there, (n, 3) float32 in pixels from
    the first place of the map, of which there are `scale` for one in the padded one.
    """
    middles = (points[:, ::-1] + 0.5) / scale - 1
    widths = (2 * distances - 0.5) / scale
    return (np.column_stack([middles, widths]) * cell).astype(np.float32)


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
        self._steps = _steps(skeleton)
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
        spurs = _Spurs(self._steps, self._reach, len(self._places))
        while shortest := spurs.shortest():
            self._is_kept[spurs.drop(shortest)] = False

    def length(self) -> float:
        """The sum of all steps of the smoothed line, and from its ends to the edge."""
        steps = self._steps[self._is_kept[self._steps].all(1)]
        degrees = np.bincount(steps.ravel(), minlength=len(self._places))

        inner = np.flatnonzero(self._is_kept & (degrees == 2))
        beside = _by_place(steps, inner)
        smooth = self._places.astype(np.float64)
        for _ in range(SMOOTHINGS):
            smooth[inner] = (smooth[inner] + smooth[beside].sum(1)) / 3
        drawn = float(np.linalg.norm(smooth[steps[:, 0]] - smooth[steps[:, 1]], axis=1).sum())
        is_end = self._is_kept & (degrees <= 1)
        beyond = (self._distances[is_end] - 0.5) * np.where(degrees[is_end] == 0, 2, 1)
        return drawn + float(beyond.sum())

    def _reach(self, end: int, fork: int) -> float:
        """How far a branch reaches, in distances from its fork to the edge."""
        reach = np.linalg.norm(self._places[end] - self._places[fork])
        return float(reach / self._distances[fork])


class _Spurs:
    """The branches of a skeleton, each from an end to its first fork, while spurs are dropped: only
    branches at a fork that one was dropped from are followed on.

    `steps` (m, 2) are the pairs of places beside each other, of so many `places`; `reach` is how
    far a branch reaches, by its end and its fork.
    """

    def __init__(self, steps: np.ndarray, reach: Callable[[int, int], float], places: int) -> None:
        self._reach = reach
        self._beside: list[list[int]] = [[] for _ in range(places)]  # that are left
        for first, second in steps.tolist():
            self._beside[first].append(second)
            self._beside[second].append(first)
        self._paths: dict[int, list[int]] = {}  # of each end, as far as it was followed
        self._reaches: dict[int, float] = {}  # of each end with a branch
        self._ends: dict[int, set[int]] = defaultdict(set)  # of each fork
        self._queue: list[tuple[float, int]] = []
        for place, others in enumerate(self._beside):
            if len(others) == 1:
                self._follow(place)

    def shortest(self) -> list[int]:
        """The ends of the branches to drop next; none where all are long."""
        chosen: list[int] = []
        shortest = 0.0
        while self._queue:
            reach, end = self._queue[0]
            is_known = self._reaches.get(end) == reach  # or else it was followed on since
            is_spur = reach < SPUR and (not chosen or reach < CORNER or reach == shortest)
            if is_known and not is_spur:
                break
            heappop(self._queue)
            if is_known:
                shortest = shortest if chosen else reach
                chosen.append(end)
                del self._reaches[end]
        return chosen

    def drop(self, ends: Sequence[int]) -> list[int]:
        """Drop their branches: the places that are gone."""
        gone = []
        forks = set()
        for end in ends:
            *branch, fork = self._paths.pop(end)
            gone += branch
            self._beside[fork].remove(branch[-1])
            self._ends[fork].remove(end)
            forks.add(fork)
        for fork in forks:
            degree = len(self._beside[fork])
            if degree > 2:
                continue
            for end in self._ends.pop(fork):
                self._follow(end)
            if degree == 1:
                self._follow(fork)
        return gone

    def _follow(self, end: int) -> None:
        """Follow the path from an end, on from where it was followed to, as far as a fork."""
        path = self._paths.setdefault(end, [end])
        self._reaches.pop(end, None)
        before = path[-2] if len(path) > 1 else -1
        while True:
            onward = [place for place in self._beside[path[-1]] if place != before]
            if len(onward) != 1:
                break
            before = path[-1]
            path.append(onward[0])
        fork = path[-1]
        if len(self._beside[fork]) > 2:
            reach = self._reach(end, fork)
            self._reaches[end] = reach
            self._ends[fork].add(end)
            heappush(self._queue, (reach, end))


def _steps(skeleton: np.ndarray) -> np.ndarray:
    """The pairs (m, 2) int64 of places beside each other of a skeleton: above, below and at its
    sides, and across a corner where no third one lies between.
    """
    rows, columns = skeleton.shape
    numbers = np.full((rows + 2, columns + 2), -1)
    numbers[1:-1, 1:-1][skeleton] = np.arange(int(skeleton.sum()))
    at_rows, at_columns = np.nonzero(numbers >= 0)
    own = numbers[at_rows, at_columns]
    steps = []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        other = numbers[at_rows + down, at_columns + right]
        is_step = other >= 0
        if down and right:
            is_step &= numbers[at_rows + down, at_columns] < 0
            is_step &= numbers[at_rows, at_columns + right] < 0
        steps.append(np.stack([own[is_step], other[is_step]], axis=1))
    return np.concatenate(steps)


def _by_place(steps: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """The two places beside each of these `inner` ones (k, 2), by the steps (m, 2)."""
    both = np.concatenate([steps, steps[:, ::-1]])
    both = both[np.argsort(both[:, 0], kind="stable")]
    starts = np.searchsorted(both[:, 0], inner)
    beside: np.ndarray = both[:, 1][starts[:, None] + np.arange(2)]
    return beside


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
