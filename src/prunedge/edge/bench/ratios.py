"""Two times beside each other, and their ratio in words. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

UNTOLD = "not told apart"
LEAST_BLOCKS = 3  # fewer have no percentiles to speak of
FINE = 1.1  # a ratio below has two decimals: "1.0 x faster" says nothing


@dataclass(frozen=True)
class Speed:
    """The median times of a batch with two models, in ms, and what their ratio may be: `low` to
    `high`.
    """

    before_ms: float
    after_ms: float
    low: float
    high: float

    @property
    def ratio(self) -> float:
        """How many times as long the first takes: of the very times that stand beside it."""
        return self.before_ms / self.after_ms

    def words(self, sign: str = "x") -> str:
        """`2.4 x faster`, `1.3 x slower`, or that the two are not told apart."""
        return in_words(self.ratio, self.low, self.high, sign)

    def bounds(self) -> str:
        """The interval of the ratio."""
        if math.isinf(self.high):
            return "open: too few blocks"
        return f"{self.low:.2f} to {self.high:.2f}"


def in_words(
    ratio: float, low: float | None = None, high: float | None = None, sign: str = "x"
) -> str:
    """A ratio of times, earlier to later, in words. Where its interval, if it has one, holds 1,
    nothing is said to be faster.
    """
    if low is not None and high is not None and low <= 1 <= high:
        return UNTOLD
    times, word = (ratio, "faster") if ratio >= 1 else (1 / ratio, "slower")
    return f"{times:.{1 if times >= FINE else 2}f} {sign} {word}"


def speed_of(bench: Mapping[str, Any], place: int = 1) -> Speed:
    """What the `place`-th bundle of a bench (as `bench.json` has it) has over its first.

    The interval is that of the record. With too few blocks it is open: they tell nothing apart.
    """
    before = bench["bundles"][0]["latency_ms"]["median"]
    after = bench["bundles"][place]["latency_ms"]["median"]
    record = bench["ratios"][place - 1]["speedup"]
    if record["blocks"] < LEAST_BLOCKS:
        return Speed(before, after, 0.0, math.inf)
    return Speed(before, after, record["low"], record["high"])


def speedup(first: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> dict[str, float]:
    """How many times as long a batch takes with the first of two candidates, from the seconds of
    their interleaved blocks.

    `median` is the ratio of the medians over all batches, `low` and `high` the 10th and 90th
    percentile of the blocks' own ratios of medians (and of that one), `blocks` how many there are.
    """
    ratio = float(_median_of_all(first) / _median_of_all(other))
    pairs = [float(np.median(a) / np.median(b)) for a, b in zip(first, other, strict=True)]
    low = float(np.percentile(pairs, 10))
    high = float(np.percentile(pairs, 90))
    return {"median": ratio, "low": min(low, ratio), "high": max(high, ratio), "blocks": len(pairs)}


def _median_of_all(blocks: Sequence[Sequence[float]]) -> float:
    return float(np.median([seconds for block in blocks for seconds in block]))
