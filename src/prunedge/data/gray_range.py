"""Greys of more than eight bits: what a set's images hold, and from which value to which they go
from black to white.

One range for all images, found on those that are trained on: stretched by itself, each image
would be as bright as the next, and what an X-ray or a thermal camera measured would be lost.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from filelock import FileLock
from PIL import Image

from prunedge.data.cache import fingerprint
from prunedge.data.decode import Progress, at_once, tried
from prunedge.data.paths import cache_folder
from prunedge.data.records import LabelledImages
from prunedge.data.records_cache import cached, keep_cached
from prunedge.data.splits import with_rest
from prunedge.edge.image.read import (
    COLOURS,
    EIGHT,
    Depth,
    Greys,
    depth_of,
    is_deep,
    refuse_no_numbers,
    rgb,
    settled,
    upright,
)
from prunedge.errors import DataError
from prunedge.utils.advice import option
from prunedge.utils.machine import unusable_cache
from prunedge.utils.wording import counted

TAIL = 0.1  # per cent of an image's pixels that are left out at each end: dead and hot ones
STRANGE = 0.05  # share of a stratum's images that may be quite unlike the others
# Of the range, on either side: rare bright damage keeps its greys, as far as there are any.
MARGIN = 0.5


@dataclass(frozen=True)
class Shade:
    """The greys of one image as its file holds them.

    `low` and `high` leave the extreme 0.1 % of its pixels out, `least` and `most` don't; all are 0
    to 255 where it is not deep. `digest` stands for all values.
    """

    depth: Depth
    low: float
    high: float
    least: float
    most: float
    digest: str

    @property
    def is_deep(self) -> bool:
        """Whether its greys have more than eight bits."""
        return self.depth in ("16 bits", "32 bits", "floats")


class MixedGreys(DataError):
    """A set whose images have no range of greys in common; `deep` would be that of its deep
    ones.
    """

    deep: tuple[float, float] = (0.0, 255.0)


def known_survey(
    paths: Sequence[Path], folder: Path | str | None = None
) -> tuple[Shade | str, ...] | None:
    """What an earlier `survey` of these images found, if there was one: None for sets of
    eight-bit images alone.
    """
    records = cached(_file(paths, folder))
    if records is None:
        return None
    return tuple(record if isinstance(record, str) else Shade(**record) for record in records)


def survey(
    paths: Sequence[Path], folder: Path | str | None = None, progress: Progress | None = None
) -> tuple[Shade | str, ...]:
    """The greys of each image, or why it can't be read; decoded once, and kept in the cache
    folder. Raises MachineError.
    """
    known = known_survey(paths, folder)
    if known is not None:
        return known

    shades: list[Shade | str] = []
    records = []
    for shade in at_once(_shade, paths):
        shades.append(shade)
        records.append(shade if isinstance(shade, str) else asdict(shade))
        if progress is not None:
            progress(len(shades), len(paths), "finding the range of greys")

    file = _file(paths, folder)
    try:
        with FileLock(file.with_suffix(".lock")):
            keep_cached(file, records)
    except OSError as error:
        raise unusable_cache(error, file.parent) from None
    return tuple(shades)


def choose_range(
    images: LabelledImages,
    shades: Sequence[Shade | str],
    training: Sequence[int],
    given: tuple[float, float] | None,
) -> Greys:
    """The range of a set with deep images: `given`, or what the readable ones among the training
    images (indices) need. `shades` are those of all images.

    Raises MixedGreys when kinds are mixed that have no range in common, unless one is given;
    DataError without any training image.
    """
    where = images.listing.where
    readable = [shade for shade in shades if isinstance(shade, Shade)]
    if given is not None:
        return Greys(*given, mixed=not all(shade.is_deep for shade in readable))
    deep = []
    places = []
    for index in training:
        shade = shades[index]
        if isinstance(shade, Shade) and shade.is_deep:
            deep.append(shade)
            places.append(index)
    if not deep:
        remedy = f"say what is black and white: {option('range', 'LOW:HIGH')}"
        raise DataError(
            "no training image has greys of more than eight bits, others have",
            where=where,
            remedy=remedy,
        )
    usual = usual_range(deep, images.strata(places))
    mixed = mixture(Counter(shade.depth for shade in readable))
    if mixed is not None:
        remedy = (
            f"give the deep ones' by {option('range', 'LOW:HIGH')} (eight bits keep 0 to 255), "
            "or save all images alike"
        )
        error = MixedGreys(f"{mixed} have no range of greys in common", where=where, remedy=remedy)
        error.deep = (usual.low, usual.high)
        raise error
    return usual


def refuse_idle_range(given: tuple[float, float] | None, where: object) -> None:
    """DataError when a range is given for a set of eight-bit images alone, unless it is
    theirs.
    """
    if given is not None and given != (0, 255):
        what = (
            f"{option('range', str(Greys(*given)))} is for greys of more than eight bits, and "
            "these images have eight"
        )
        raise DataError(what, where=where, remedy="leave it out")


def mixture(kinds: Counter[Depth]) -> str | None:
    """Which kinds of greys a set mixes that can't share one range, in words; None when it mixes
    none.
    """
    integers = kinds["16 bits"] + kinds["32 bits"]
    counts = {
        "of 8 bits": kinds[EIGHT] + kinds[COLOURS],
        "of more bits": integers,
        "of floats": kinds["floats"],
    }
    present = [f"{counted(count, 'image')} {name}" for name, count in counts.items() if count]
    return " and ".join(present) if len(present) > 1 else None


def usual_range(shades: Sequence[Shade], strata: np.ndarray) -> Greys:
    """The greys that the images of every stratum (for classification: class) need, robust against
    dead pixels and a few strange images. `strata` (n, k) is how often each image counts in which.

    Of each stratum the lowest `low` and the highest `high`, but for the strangest 5 % of its images
    (at least one of several); the extremes of all strata; a margin of half that range on both
    sides, but no further than the least and most that there are.
    """
    lows = []
    highs = []
    for column in with_rest(strata).T:
        of_stratum = [shades[index] for index in np.flatnonzero(column).tolist()]
        if not of_stratum:
            continue
        stratum_lows = [shade.low for shade in of_stratum]
        stratum_highs = [shade.high for shade in of_stratum]
        lows.append(float(np.quantile(stratum_lows, STRANGE, method="higher")))
        highs.append(float(np.quantile(stratum_highs, 1 - STRANGE, method="lower")))
    least = min(shade.least for shade in shades)
    most = max(shade.most for shade in shades)
    low = min(lows)
    high = max(highs)
    if not low < high:
        low = least
        high = most
    margin = MARGIN * (high - low)
    low = max(least, low - margin)
    high = min(most, high + margin)
    # Images of one grey alone are black.
    return Greys(low, high if low < high else low + 1)


def levels_of(path: Path, greys: Greys | None) -> tuple[int, int] | None:
    """How many different values an image has in its file, as Pillow reads it, and how many are
    left of them; None when it can't be read.

    Of colours, the colour with the most counts.
    """

    def work(file: Path | BytesIO) -> tuple[int, int]:
        with Image.open(file) as opened:
            stored = settled(opened)
            seen = np.asarray(rgb(stored, greys))
        left = levels_in(seen)
        if not is_deep(stored):
            return left, left
        return len(np.unique(np.asarray(stored))), left

    levels = tried(path, work)
    return None if isinstance(levels, str) else levels


def levels_in(pixels: np.ndarray) -> int:
    """How many different values the richest colour of an image (height, width, 3) has."""
    return max(len(np.unique(pixels[..., colour])) for colour in range(3))


def _shade(path: Path) -> Shade | str:
    return tried(path, _look)


def _look(file: Path | BytesIO) -> Shade:
    with Image.open(file) as opened:
        depth = depth_of(opened)
        image = upright(settled(opened))
    if not is_deep(image):
        pixels = np.asarray(rgb(image))
        return Shade(depth, 0, 255, 0, 255, _digest(pixels))
    values = np.asarray(image)
    refuse_no_numbers(values)
    # Values that are there, not means of two: an image of two greys has no third.
    low = float(np.percentile(values, TAIL, method="nearest"))
    high = float(np.percentile(values, 100 - TAIL, method="nearest"))
    return Shade(depth, low, high, float(values.min()), float(values.max()), _digest(values))


def _digest(values: np.ndarray) -> str:
    shape = f"{values.shape} {values.dtype.name}".encode()
    content = np.ascontiguousarray(values).tobytes()
    return hashlib.blake2b(shape + content, digest_size=12).hexdigest()


def _file(paths: Sequence[Path], folder: Path | str | None) -> Path:
    return cache_folder(folder) / f"{fingerprint(paths, 'greys')}.survey"
