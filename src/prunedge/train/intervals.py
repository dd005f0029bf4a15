"""Between which values a figure lies: percentile intervals of a bootstrap over the images that were
judged, images of one source being drawn together. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from prunedge.edge.tasks.metric import Metric
from prunedge.tasks import Task
from prunedge.tasks.figures import Figure, Figures
from prunedge.tasks.figures import Part as FiguresPart
from prunedge.train.bootstrap import cluster_of_each

RESAMPLES = 2000
CONFIDENCE = 0.95
LARGEST_CHUNK = 4_000_000  # weights in memory at once


@dataclass(frozen=True)
class Estimate:
    """A metric of some images, and the bounds of its interval; None where it is not defined, and
    bounds also where these images can't tell.
    """

    metric: Metric
    value: float | None
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, float | None]:
        """As plain numbers."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Part:
    """A class (a degree, a number) by itself; `support` is how many images show it."""

    name: str
    support: int | None
    estimates: tuple[Estimate, ...]


@dataclass(frozen=True)
class Intervals:
    """The metrics and those of each class, from so many `resamples` of so many `groups`; `decided`
    are the figures of a decision between damaged and sound, where there is one.
    """

    metrics: tuple[Estimate, ...]
    parts: tuple[Part, ...]
    groups: int
    resamples: int
    seed: int
    confidence: float = CONFIDENCE
    decided: Part | None = None


def intervals_of(
    task: Task,
    meter: Any,
    sources: Sequence[object],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    decided: Callable[[np.ndarray], FiguresPart] | None = None,
) -> Intervals:
    """The figures of the images that a meter has taken in, each with its interval; with `decided`
    those of a decision (`prunedge.tasks.operating`), by the images' weights.

    `sources` has one for each image (None: an image of its own). Images of one source (patches of a
    photograph) are right or wrong together, so whole sources are drawn, as many as there are, with
    replacement, and the 2.5th and 97.5th percentile of the figures of all resamples are the bounds
    (Efron and Tibshirani 1993, chapter 13; Field and Welsh 2007 for clusters). They are widened to
    hold the figure itself, which those of curved figures of few images may miss. Where a share is
    all or nothing, resamples can't differ: the bound on the other side is the exact one of Clopper
    and Pearson (1934) for as many sources. The same `seed` gives the same bounds.
    """
    clusters = cluster_of_each(sources)

    def figures(weights: np.ndarray) -> Figures:
        found = task.figures(meter, weights)
        if decided is None:
            return found
        return replace(found, parts=(*found.parts, decided(weights)))

    point = figures(np.ones((1, len(clusters))))
    chunks = [figures(weights) for weights in resampled_weights(clusters, resamples, seed)]

    metrics = []
    for place, figure in enumerate(point.metrics):
        drawn = [chunk.metrics[place].values for chunk in chunks]
        metrics.append(_estimate(figure, drawn, clusters))
    parts = _parts(point, chunks, clusters)
    return Intervals(
        metrics=tuple(metrics),
        parts=parts if decided is None else parts[:-1],
        decided=None if decided is None else parts[-1],
        groups=int(clusters.max()) + 1,
        resamples=resamples,
        seed=seed,
    )


def resampled_weights(clusters: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each image (n,) counts in each resample, (rows, n) float64, a few resamples at a
    time. `clusters` (n,) int64 are the numbers of the images' sources, from 0.
    """
    generator = np.random.default_rng(seed)
    count = int(clusters.max()) + 1
    rows = max(1, LARGEST_CHUNK // len(clusters))
    for start in range(0, resamples, rows):
        times = []
        for _ in range(min(rows, resamples - start)):
            drawn = generator.integers(count, size=count)
            times.append(np.bincount(drawn, minlength=count))
        yield np.stack(times)[:, clusters].astype(np.float64)


def _parts(point: Figures, chunks: Sequence[Figures], clusters: np.ndarray) -> tuple[Part, ...]:
    parts = []
    for number, part in enumerate(point.parts):
        estimates = []
        for place, figure in enumerate(part.figures):
            drawn = [chunk.parts[number].figures[place].values for chunk in chunks]
            estimates.append(_estimate(figure, drawn, clusters))
        parts.append(Part(part.name, part.support, tuple(estimates)))
    return tuple(parts)


def _estimate(figure: Figure, drawn: Sequence[np.ndarray], clusters: np.ndarray) -> Estimate:
    """A figure of all images, with the bounds that its resamples give."""
    value = float(figure.values[0])
    if not np.isfinite(value):
        return Estimate(figure.metric, None, None, None)
    is_share = figure.over is not None
    groups = len(np.unique(clusters[figure.over] if is_share else clusters))
    if is_share and value in (0.0, 1.0):
        low, high = exact_bounds(value, groups)
        return Estimate(figure.metric, value, low, high)

    values = np.concatenate(drawn)
    known = values[np.isfinite(values)]
    if groups < 2 or not len(known):
        return Estimate(figure.metric, value, None, None)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(known, (tail, 100 - tail))
    return Estimate(figure.metric, value, min(float(low), value), max(float(high), value))


def exact_bounds(share: float, trials: int) -> tuple[float, float]:
    """The two-sided interval of Clopper and Pearson of a share that is 0 or 1 of so many trials."""
    miss = ((1 - CONFIDENCE) / 2) ** (1 / max(trials, 1))
    return (miss, 1.0) if share else (0.0, 1 - miss)
