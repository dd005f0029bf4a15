"""What the trials say together: means with their spread, and paired comparisons. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special, stats

RESAMPLES = 10_000
FRACTIONS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.99)

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Spread:
    """Of `n` values: mean, sample variance, and the 95 % interval of the mean (Student's t). With
    one value there is no spread: NaN.
    """

    mean: float
    variance: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Comparison:
    """How much larger the first of each of `n` pairs is: the mean difference, its 95 % bootstrap
    interval, and Wilcoxon's p (two-sided).

    `p` is NaN where all pairs are equal or there is only one. With 5 pairs it can't fall below
    0.06: the interval says more.
    """

    difference: float
    low: float
    high: float
    p: float
    n: int


def spread(values: Sequence[float]) -> Spread:
    """Mean, variance and interval; ValueError without values."""
    if not len(values):
        raise ValueError("there are no values")
    mean = float(np.mean(values))
    n = len(values)
    if n == 1:
        return Spread(mean, float("nan"), float("nan"), float("nan"), 1)
    variance = float(np.var(values, ddof=1))
    half = float(special.stdtrit(n - 1, 0.975)) * (variance / n) ** 0.5
    return Spread(mean, variance, mean - half, mean + half, n)


def compared(first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> Comparison:
    """Compare two methods over the same folds and seeds, pair by pair; ValueError when the pairs
    don't match.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(f"{len(first)} and {len(second)} values make no pairs")
    differences = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    n = len(differences)
    mean = float(differences.mean())
    if n == 1:
        return Comparison(mean, float("nan"), float("nan"), float("nan"), 1)

    chosen = np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))
    low, high = np.percentile(differences[chosen].mean(1), (2.5, 97.5))
    p = float(stats.wilcoxon(differences).pvalue) if np.any(differences) else float("nan")
    return Comparison(mean, float(low), float(high), p, n)


def at_fractions(
    rows: Sequence[Row],
    key: str,
    fractions: Sequence[float] = FRACTIONS,
    by: str = "fraction_removed",
) -> dict[float, float]:
    """A trial's `key` at each fraction that it reached with accepted steps, linear between them.

    `rows` are the trial's steps, the unpruned model first. Fractions beyond its last accepted
    step are left out: nothing is extrapolated.
    """
    # A polish adds no fraction.
    passed = [row for row in rows if row["accepted"] and not row.get("is_polish")]
    accepted = sorted(passed, key=lambda row: row[by])
    positions = [row[by] for row in accepted]
    values = [row[key] for row in accepted]
    if not positions:
        return {}
    reached = [f for f in fractions if positions[0] <= f <= positions[-1] + 1e-9]
    interpolated = np.interp(reached, positions, values).tolist()
    return dict(zip(reached, interpolated, strict=True))
