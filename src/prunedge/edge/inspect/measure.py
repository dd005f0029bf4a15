"""How long and how wide a crack is, from the map of its probability: to a fraction of a pixel.

The map is enlarged first (bilinear), so that the edge, where the probability is a half, may lie
between pixels; the less, the thicker the region is. The centreline is the skeleton without the
spurs that corners leave; the mean width is the area over its length, the largest twice the largest
distance from it to the edge. Needs scikit-image (the extra `[measure]`), which brings scipy.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from math import ceil, sqrt
from typing import Any

import numpy as np
from PIL import Image

from prunedge.edge.inspect.centreline import Centreline
from prunedge.edge.inspect.scale.quantity import COVERAGE
from prunedge.edge.inspect.scale.scale import Scale, length_uncertainty, width_uncertainty

FINEST = 4  # times that a map is enlarged, where the region is small enough
MOST_PLACES = 4_000_000  # of an enlarged map
THICKEST = 64  # enlarged places from the middle to the edge: skeletons take time by the thickness
TOO_THICK = 256  # places from the middle to the edge, from which on a region is made smaller first
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
    line = Centreline(skeletonize(is_inside), distances)
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
