"""How sure a drop is: a paired bootstrap over the pictures that two networks have answered. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 4000


def packed(correct: Sequence[bool] | np.ndarray) -> str:
    """Which pictures were answered right, as a short string of hexadecimal digits: `count:bits`."""
    bits = np.asarray(correct, dtype=bool)
    return f"{len(bits)}:{np.packbits(bits).tobytes().hex()}"


def unpacked(text: str) -> np.ndarray:
    """The (n,) bool that `packed` was given."""
    count, _, digits = text.partition(":")
    return np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8))[: int(count)].astype(bool)


def drop_bounds(before: str, after: str, confidence: float, sources: Sequence[object] | None = None) -> tuple[float, float]:
    """Points of accuracy lost from `before` to `after` (both `packed`, over the same pictures): bounds that hold with `confidence` each.

    One-sided percentile bounds of a paired bootstrap (Efron and Tibshirani 1993, chapter 13) that draws whole sources (photographs) where
    `sources` (one for each picture, None for a picture of its own) tells them: patches of one photograph are right or wrong together. The
    same answers give the same bounds. ValueError when the two don't cover as many pictures.
    """
    first, second = unpacked(before), unpacked(after)
    if len(first) != len(second) or (sources is not None and len(sources) != len(first)):
        raise ValueError(f"{len(first)} and {len(second)} answers can't be paired")
    names = [source if source is not None else (place,) for place, source in enumerate(sources or [None] * len(first))]
    numbers: dict[object, int] = {}
    clusters = np.array([numbers.setdefault(name, len(numbers)) for name in names])
    lost = np.bincount(clusters, first.astype(float) - second)
    sizes = np.bincount(clusters)
    drawn = np.random.default_rng(0).multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), RESAMPLES)  # (resamples, clusters)
    drops = 100 * (drawn @ lost) / np.maximum(drawn @ sizes, 1)
    low, high = np.percentile(drops, (100 * (1 - confidence), 100 * confidence))
    return float(low), float(high)
