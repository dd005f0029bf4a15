"""Metric against cost: the points of a study, and its Pareto front. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from prunedge.report.study.numbers import Groups, Trial, at_end, curve
from prunedge.tasks import Metric

_CELLS = (60, 40)  # along the cost and along the metric, that points close together share


@dataclass(frozen=True)
class Place:
    """A point that a model can have: cost, metric, of how many, and what it is."""

    x: float
    y: float
    n: int = 1
    text: str = ""


def step_places(trials: Sequence[Trial], cost: str, key: str = "metric_after") -> list[Place]:
    """All accepted steps, those that lie close together (in the logarithm of the cost) as one place
    with their number.
    """
    points = []
    for trial in trials:
        for row in trial:
            if row["accepted"] and row[cost] > 0:
                points.append((math.log10(row[cost]), row[key]))
    if not points:
        return []

    columns = list(zip(*points, strict=True))
    lows = [min(values) for values in columns]
    sides = []
    for values, count in zip(columns, _CELLS, strict=True):
        sides.append((max(values) - min(values)) / count or 1.0)

    cells: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for x, y in points:
        cell = (int((x - lows[0]) / sides[0]), int((y - lows[1]) / sides[1]))
        cells.setdefault(cell, []).append((x, y))
    return [_mean_place(cell) for cell in cells.values()]


def mean_places(combinations: Groups, cost: str, key: str = "metric_after") -> list[Place]:
    """Each combination at each fraction that all of its trials reached: the mean cost and the mean
    metric.
    """
    places = []
    for name, trials in combinations.items():
        costs = curve(trials, cost)
        for fraction, value in curve(trials, key).items():
            if value.n == len(trials):
                text = f"{name}, {fraction:.1%} of the channels pruned"
                places.append(Place(costs[fraction].mean, value.mean, len(trials), text))
    return places


def end_places(combinations: Groups, cost: str) -> list[Place]:
    """The models that each combination handed over: the means of cost and metric on the
    validation split.
    """
    places = []
    for name, trials in combinations.items():
        text = f"{name}: handed over, mean of {len(trials)}"
        value = at_end(trials, "metric_after").mean
        places.append(Place(at_end(trials, cost).mean, value, text=text))
    return places


def front(places: Sequence[Place], metric: Metric) -> list[Place]:
    """Those that no other beats in both, the cheapest first."""
    best = -math.inf
    unbeaten = []
    for place in sorted(places, key=lambda place: (place.x, -metric.order(place.y))):
        if metric.order(place.y) > best:
            best = metric.order(place.y)
            unbeaten.append(place)
    return unbeaten


def _mean_place(points: Sequence[tuple[float, float]]) -> Place:
    """The points of a cell as one, its cost back from the logarithm."""
    x = fmean(x for x, _ in points)
    y = fmean(y for _, y in points)
    return Place(10**x, y, len(points))
