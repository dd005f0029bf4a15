"""How sure a drop is: a paired bootstrap over the images that two models have answered. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prunedge.tasks.packed import unpacked

RESAMPLES = 4000


def paired_drop_interval(
    before: str, after: str, confidence: float, sources: Sequence[object] | None = None
) -> tuple[float, float]:
    """Bounds of the points of accuracy lost from `before` to `after`, with `confidence` each.

    Both are `packed`, over the same images. One-sided percentile bounds of a paired bootstrap
    (Efron and Tibshirani 1993, chapter 13) that draws whole sources (photographs) where `sources`
    (one for each image, None for an image of its own) tells them: patches of one photograph are
    right or wrong together. The same answers give the same bounds. ValueError when the two don't
    cover as many images.
    """
    first = unpacked(before)
    second = unpacked(after)
    if len(first) != len(second) or (sources is not None and len(sources) != len(first)):
        raise ValueError(f"{len(first)} and {len(second)} answers can't be paired")
    clusters = cluster_of_each(sources or [None] * len(first))
    lost = np.bincount(clusters, first.astype(float) - second)
    sizes = np.bincount(clusters)
    count = len(sizes)
    generator = np.random.default_rng(0)
    drawn = generator.multinomial(count, np.full(count, 1 / count), RESAMPLES)  # (resamples, count)
    drops = 100 * (drawn @ lost) / np.maximum(drawn @ sizes, 1)
    low, high = np.percentile(drops, (100 * (1 - confidence), 100 * confidence))
    return float(low), float(high)


def cluster_of_each(sources: Sequence[object]) -> np.ndarray:
    """The number of each image's source, counted as they come; an image without one is its own."""
    numbers: dict[object, int] = {}
    clusters = []
    for place, source in enumerate(sources):
        name = (place,) if source is None else source
        clusters.append(numbers.setdefault(name, len(numbers)))
    return np.array(clusters)
