"""How two photographs of one place lie on each other, or that they don't.

Features (SIFT, Lowe 2004) of both are matched, and a homography is fitted to the matches
(MAGSAC++, Barath et al. 2020). It is believed where more matches agree with it than would by chance
(Brown and Lowe 2007). Needs OpenCV.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from prunedge.errors import DataError, ExtraMissing
from prunedge.utils.machine import pass_on

LONGEST = 1600  # pixels of the longer side at which features are looked for
SHORTEST = 800  # to which smaller photographs are enlarged: small ones have few features
MOST_FEATURES = 5000
RATIO = 0.8  # of the distances to the nearest and the second nearest feature (Lowe 2004)
TOLERANCE = 3.0  # pixels that a match may lie off, at that size
LEAST_MATCHES = 20
# Brown and Lowe 2007: matches that agree are no chance where they are more than this, and so many
# of all matches in the part that both photographs show.
CHANCE, CHANCE_SHARE = 8.0, 0.3
LEAST_OVERLAP = 0.2  # of the smaller photograph
MOST_ZOOM = 4.0
NEAR = 0.2  # of the photograph's diagonal, within which matches speak for a place
NEIGHBOURS = 5


@dataclass(frozen=True)
class Registration:
    """`matrix` (3, 3) float64 takes a place (x, y, 1) of the new photograph to the old one, in
    pixels. `points` (n, 2) are the matches that agree with it, in the old photograph; `errors` (n,)
    is how many of its pixels each lies off. `overlap` is the share of the old photograph that the
    new one shows. Two copies of one file have no matches, and no error.
    """

    matrix: np.ndarray
    points: np.ndarray
    errors: np.ndarray
    overlap: float
    diagonal: float

    @property
    def is_of_copies(self) -> bool:
        """Whether both are one file."""
        return not len(self.points)

    @property
    def error(self) -> float:
        """The root mean square of the matches' errors, in pixels of the old photograph."""
        return 0.0 if self.is_of_copies else _rms(self.errors)

    def error_at(self, box: tuple[float, float, float, float]) -> float | None:
        """How far the registration is off around a box (left, top, right, bottom) of the old
        photograph: the root mean square of the nearest matches' errors, and no less than that of
        all. None where no match is near.
        """
        if self.is_of_copies:
            return 0.0
        left, top, right, bottom = box
        across = np.maximum(np.maximum(left - self.points[:, 0], self.points[:, 0] - right), 0)
        down = np.maximum(np.maximum(top - self.points[:, 1], self.points[:, 1] - bottom), 0)
        distances = np.hypot(across, down)
        nearest = np.argsort(distances, kind="stable")[:NEIGHBOURS]
        if distances[nearest[-1]] > NEAR * self.diagonal:
            return None
        return max(self.error, _rms(self.errors[nearest]))


def opencv() -> Any:
    """OpenCV; ExtraMissing where it is not installed."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    try:
        import cv2
    except ImportError as error:
        pass_on(error)
        raise ExtraMissing(
            "to compare inspections needs OpenCV, which is not installed",
            remedy="pip install 'prunedge[compare]'",
        ) from None
    return cv2


def same_file(size: tuple[int, int]) -> Registration:
    """The registration of two copies of one file of this size (width, height)."""
    nothing = np.zeros((0, 2))
    return Registration(np.eye(3), nothing, nothing[:, 0], 1.0, float(np.hypot(*size)))


def register(
    old: Image.Image, new: Image.Image, old_size: tuple[int, int], new_size: tuple[int, int]
) -> Registration:
    """How `new` lies on `old`: small copies (RGB) of photographs of these sizes (width, height).

    DataError, without a place, where they can't be laid on each other.
    """
    cv2 = opencv()
    old_points, old_features, old_scale = _features(cv2, old, old_size)
    new_points, new_features, new_scale = _features(cv2, new, new_size)
    pairs = _matches(cv2, new_features, old_features)
    if len(pairs) < LEAST_MATCHES:
        raise _refused(f"only {len(pairs)} places of them are alike")
    sources = new_points[pairs[:, 0]]
    targets = old_points[pairs[:, 1]]
    matrix, agrees = _homography(cv2, sources, targets)

    # In pixels of the photographs.
    to_old = np.diag([1 / old_scale, 1 / old_scale, 1.0])
    from_new = np.diag([new_scale, new_scale, 1.0])
    full = to_old @ matrix @ from_new
    full /= full[2, 2]
    overlap = _overlap(cv2, full, old_size, new_size)
    frame = (old_size[0] * old_scale, old_size[1] * old_scale)
    _refuse_chance(agrees, moved(matrix, sources), frame)
    off = np.linalg.norm(moved(matrix, sources[agrees]) - targets[agrees], axis=1) / old_scale
    points = targets[agrees] / old_scale
    return Registration(full, points, off, overlap, float(np.hypot(*old_size)))


def moved(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (n, 2) through a homography."""
    ahead = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ matrix.T
    result: np.ndarray = ahead[:, :2] / ahead[:, 2:]
    return result


def _features(
    cv2: Any, image: Image.Image, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, float]:
    """The places (n, 2) and descriptors (n, 128) float32 of an image's features, and how many
    pixels of the grey image one of the photograph is.
    """
    longest = max(image.size)
    factor = min(LONGEST, max(SHORTEST, longest)) / longest
    grey = image.convert("L")
    if factor != 1:
        shape = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        grey = grey.resize(shape, Image.Resampling.BICUBIC)
    finder = cv2.SIFT_create(nfeatures=MOST_FEATURES, contrastThreshold=0.02)
    places, features = finder.detectAndCompute(np.asarray(grey), None)
    if features is None or len(places) < LEAST_MATCHES:
        raise _refused("one of them shows hardly anything to recognise")
    # The square root of descriptors that sum to 1 is compared better (Arandjelovic and Zisserman
    # 2012).
    features = np.sqrt(features / np.maximum(features.sum(1, keepdims=True), 1e-6))
    points = np.array([place.pt for place in places], dtype=np.float64)
    # OpenCV counts from the middle of the first pixel, prunedge from its edge.
    return points + 0.5, features.astype(np.float32), grey.width / size[0]


def _matches(cv2: Any, new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """The pairs (n, 2) of features that are each other's nearest, and clearly nearer than the next.
    Each feature is in one pair.
    """
    matcher = cv2.BFMatcher(cv2.NORM_L2)
    back = {match.queryIdx: match.trainIdx for (match,) in matcher.knnMatch(old, new, k=1)}
    pairs = []
    for first, second in matcher.knnMatch(new, old, k=2):
        is_clear = first.distance < RATIO * second.distance
        if is_clear and back[first.trainIdx] == first.queryIdx:
            pairs.append((first.queryIdx, first.trainIdx))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _homography(
    cv2: Any, sources: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The homography (3, 3) that most matches agree with, fitted to these, and which do (n,)."""
    found, agrees = cv2.findHomography(
        sources, targets, cv2.USAC_MAGSAC, TOLERANCE, maxIters=10_000, confidence=0.9999
    )
    if found is None:
        raise _refused("no view from another place explains what is alike in them")
    agrees = agrees.ravel().astype(bool)
    if agrees.sum() >= LEAST_MATCHES:
        finer, _ = cv2.findHomography(sources[agrees], targets[agrees], 0)
        found = found if finer is None else finer
        agrees = np.linalg.norm(moved(found, sources) - targets, axis=1) < TOLERANCE
    return np.asarray(found, dtype=np.float64), agrees


def _refuse_chance(agrees: np.ndarray, landed: np.ndarray, frame: tuple[float, float]) -> None:
    """DataError where no more matches (n,) agree than would by chance. `landed` (n, 2) is where the
    homography takes them, `frame` the width and height of the old image.
    """
    is_shown = ((landed >= 0) & (landed < frame)).all(1)
    needed = max(LEAST_MATCHES, CHANCE + CHANCE_SHARE * int(is_shown.sum()))
    if agrees.sum() < needed:
        raise _refused(
            f"{int(agrees.sum())} of {len(agrees)} places that are alike agree, as might be by "
            "chance"
        )


def _overlap(
    cv2: Any, matrix: np.ndarray, old_size: tuple[int, int], new_size: tuple[int, int]
) -> float:
    """The share of the old photograph that the new one shows. DataError where a homography is none
    of a camera: it mirrors, folds, or enlarges too much.
    """
    width, height = new_size
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], dtype=np.float64)
    depths = np.concatenate([corners, np.ones((4, 1))], axis=1) @ matrix[2]
    frame = moved(matrix, corners).astype(np.float32)
    area = _signed_area(frame)
    zoom = np.sqrt(max(area, 0) / (width * height))
    is_view = (depths > 0).all() and bool(cv2.isContourConvex(frame.reshape(-1, 1, 2)))
    if not is_view or not 1 / MOST_ZOOM < zoom < MOST_ZOOM:
        raise _refused("what is alike in them gives no possible view")
    old = np.array(
        [(0, 0), (old_size[0], 0), old_size, (0, old_size[1])],
        dtype=np.float32,
    )
    shared, _ = cv2.intersectConvexConvex(old, frame)
    whole = old_size[0] * old_size[1]
    if shared < LEAST_OVERLAP * min(whole, area):
        raise _refused(f"they share only {shared / min(whole, area):.0%} of what they show")
    return float(min(1.0, shared / whole))


def _signed_area(polygon: np.ndarray) -> float:
    """The area of a polygon (n, 2), negative where it runs the other way round."""
    after = np.roll(polygon, -1, axis=0).astype(np.float64)
    x, y = polygon[:, 0].astype(np.float64), polygon[:, 1].astype(np.float64)
    return float((x * after[:, 1] - after[:, 0] * y).sum() / 2)


def _rms(errors: np.ndarray) -> float:
    return float(np.sqrt((errors**2).mean()))


def _refused(why: str) -> DataError:
    return DataError(
        f"the two photographs can't be laid on each other: {why}",
        remedy="do they show the same place? --pairs says which belong together",
    )
