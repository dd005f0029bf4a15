"""Small networks beside the pruned models of a study: how good and how fast each is over folds and
seeds. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunedge.study.statistics import Comparison, Spread, compared, spread
from prunedge.study.summary import Row, metric_of


@dataclass(frozen=True)
class ModelFigures:
    """A model over trials: the metric on the test split, milliseconds of an image (medians of the
    rounds of each trial), multiply-accumulates of an image, megabytes of the float32 weights.
    """

    test: Spread
    ms: Spread
    macs: Spread
    size_mb: Spread


@dataclass(frozen=True)
class BesideSmall:
    """A small network beside the pruned models of one `combination`, over the `n` finished trials
    in which it was taught and timed.

    `pairs` compares the metric on the test split trial by trial, the network's minus the pruned
    model's; `speedups` are how many times faster than the pruned model it is in each. In `wins`
    trials it is at least as good and at least as fast; `is_better` says that it is so in the mean.
    """

    combination: str
    network: str
    n: int
    unpruned: ModelFigures
    pruned: ModelFigures
    small: ModelFigures
    pairs: Comparison
    speedups: tuple[float, ...]
    wins: int
    is_better: bool


@dataclass(frozen=True)
class _Trial:
    """The unpruned and the pruned model of a trial, and a small network that was taught beside."""

    first: Row
    best: Row
    network: Mapping[str, Any]


def beside_small(combinations: Mapping[str, Sequence[Sequence[Row]]]) -> list[BesideSmall]:
    """Each small network of each combination, whose finished trials are given as their steps."""
    lines = []
    for combination, trials in combinations.items():
        by_network: dict[str, list[_Trial]] = {}
        for steps in trials:
            best = next(row for row in steps if row["is_best"])
            for network in best["small_networks"]:
                trial = _Trial(steps[0], best, network)
                by_network.setdefault(network["title"], []).append(trial)
        for title, found in by_network.items():
            lines.append(_line(combination, title, found))
    return lines


def _line(combination: str, title: str, trials: Sequence[_Trial]) -> BesideSmall:
    bests = [trial.best for trial in trials]
    networks = [trial.network for trial in trials]
    pruned = _figures(bests, "test_best", "side_ms_best")
    small = _figures(networks, "test", "ms")
    unpruned = ModelFigures(
        spread([best["test_baseline"] for best in bests]),
        spread([best["side_ms_baseline"] for best in bests]),
        spread([trial.first["macs"] for trial in trials]),
        spread([trial.first["size_mb"] for trial in trials]),
    )

    metric = metric_of(bests)
    wins = 0
    for trial in trials:
        is_as_good = metric.order(trial.network["test"]) >= metric.order(trial.best["test_best"])
        wins += is_as_good and trial.network["ms"] <= trial.best["side_ms_best"]
    is_as_good = metric.order(small.test.mean) >= metric.order(pruned.test.mean)
    return BesideSmall(
        combination=combination,
        network=title,
        n=len(trials),
        unpruned=unpruned,
        pruned=pruned,
        small=small,
        pairs=compared([row["test"] for row in networks], [row["test_best"] for row in bests]),
        speedups=tuple(trial.best["side_ms_best"] / trial.network["ms"] for trial in trials),
        wins=wins,
        is_better=is_as_good and small.ms.mean <= pruned.ms.mean,
    )


def _figures(rows: Sequence[Mapping[str, Any]], test: str, ms: str) -> ModelFigures:
    return ModelFigures(
        spread([row[test] for row in rows]),
        spread([row[ms] for row in rows]),
        spread([row["macs"] for row in rows]),
        spread([row["size_mb"] for row in rows]),
    )
