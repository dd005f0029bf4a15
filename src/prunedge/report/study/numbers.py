"""The table of a study, arranged for its figures and tables: groups of trials and means over them.
Pure: rows in, numbers out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import fmean
from typing import Any

from prunedge.study.statistics import Spread, at_fractions, spread
from prunedge.study.summary import by_combination, seconds

Row = Mapping[str, Any]
Trial = Sequence[Row]  # its steps, the unpruned model first
Groups = dict[str, list[Trial]]

FEW_GROUPS, MOST_GROUPS, MOST_VIEWS = (
    6,
    12,
    24,
)  # that overlap readably, that one figure shows, views that a reader can choose from
FINE = (*(round(0.025 * place, 3) for place in range(40)), 0.99)
_PLAIN = ("data", "model", "criterion")  # whose values say by themselves what they are
_CELLS = (60, 40)


@dataclass(frozen=True)
class Place:
    """A point that a model can have: cost, metric, of how many, and what it is."""

    x: float
    y: float
    n: int = 1
    text: str = ""


def groups(rows: Sequence[Row], axes: Sequence[str]) -> Groups:
    """The finished trials of each combination, under its name."""
    paths = {row["data"]: row["data_name"] for row in rows}
    is_clear = len(set(paths.values())) == len(paths)
    found: Groups = {}
    for several in by_combination(rows, axes).values():
        first = {**several[0][0], **({"data": several[0][0]["data_name"]} if is_clear else {})}
        found[name_of(first, axes)] = [*several]
    return found


def name_of(row: Row, axes: Sequence[str]) -> str:
    """A combination in words."""
    return (
        ", ".join(
            str(row[key]) if key in _PLAIN else f"{key.replace('_', ' ')} {row[key]}"
            for key in axes
        )
        or "all trials"
    )


def views(
    rows: Sequence[Row], axes: Sequence[str], most: int = MOST_GROUPS
) -> tuple[dict[str, Groups], int]:
    """What a figure shows, one view at a time, and how many views were left out.

    Up to `most` combinations are one view. More are a view for each set of images and model;
    where even that is too many, one for each axis, whose groups then hold all values of the others.
    """
    every = groups(rows, axes)
    if len(every) <= most:
        return ({"all": every} if every else {}), 0
    outer = [key for key in axes if key in ("data", "model")]
    inner = [key for key in axes if key not in outer]
    if not inner:
        outer, inner = outer[:-1], outer[-1:]
    found: dict[str, Groups] = {}
    for context, several in groups(rows, outer).items():
        some = [row for trial in several for row in trial]
        parts = {context: groups(some, inner)}
        if len(inner) > 1 and len(parts[context]) > MOST_GROUPS:
            by = {f"by {axis.replace('_', ' ')}": groups(some, [axis]) for axis in inner}
            parts = {
                f"{context}, {name}" if outer else name: part
                for name, part in by.items()
                if len(part) > 1
            }
        for name, part in parts.items():
            found.update(_leaves(name, part))
    return dict(islice(found.items(), MOST_VIEWS)), max(0, len(found) - MOST_VIEWS)


def curve(
    trials: Sequence[Trial], key: str, fractions: Sequence[float] = FINE
) -> dict[float, Spread]:
    """`key` at each fraction of the channels pruned, over the trials that reached it with accepted
    steps.
    """
    found = [at_fractions(trial, key, fractions) for trial in trials]
    return {
        f: spread(values) for f in fractions if (values := [one[f] for one in found if f in one])
    }


def drawn_curve(trials: Sequence[Trial], key: str) -> dict[float, Spread]:
    """The same as far as half of the trials came: beyond, the mean is that of the few that did
    best.
    """
    return {f: one for f, one in curve(trials, key).items() if 2 * one.n >= len(trials)}


def end(trial: Trial) -> Row:
    """The step that was handed over."""
    return next(row for row in trial if row["is_best"])


def over(trials: Sequence[Trial], what: Callable[[Row, Row], float]) -> Spread:
    """A figure of the unpruned and the pruned model, over trials."""
    return spread([what(trial[0], end(trial)) for trial in trials])


def total_seconds(trial: Trial) -> float:
    """What all steps of a trial took on the machine that pruned."""
    return sum(seconds(row) for row in trial)


def shares(trials: Sequence[Trial]) -> dict[str, float]:
    """The mean share of its channels that each layer kept, in the model's order."""
    names = dict.fromkeys(name for trial in trials for name in trial[0]["original"])
    return {
        name: fmean(
            end(trial)["kept"].get(name, 0) / whole
            for trial in trials
            if (whole := trial[0]["original"].get(name))
        )
        for name in names
    }


def time_ratios(
    rows: Sequence[Row], axes: Sequence[str]
) -> dict[str, dict[int, tuple[list[float], list[float]]]]:
    """For each combination of the other axes and each number of epochs: the pruning seconds of its
    trials, and the ratios.

    A ratio is that of the largest number of epochs to this one, between trials that are equal in
    all else (fold and seed too).
    """
    rest = [key for key in axes if key != "epochs"]
    found: dict[str, dict[int, tuple[list[float], list[float]]]] = {}
    for name, trials in groups(rows, rest).items():
        times: dict[int, dict[tuple[Any, Any], float]] = {}
        for trial in trials:
            times.setdefault(trial[0]["epochs"], {})[trial[0]["fold"], trial[0]["seed"]] = (
                total_seconds(trial)
            )
        most = times[max(times)]
        found[name] = {
            epochs: (
                list(times[epochs].values()),
                [
                    most[pair] / took
                    for pair, took in times[epochs].items()
                    if pair in most and took
                ],
            )
            for epochs in sorted(times)
        }
    return found


def step_places(trials: Sequence[Trial], cost: str, key: str = "metric_after") -> list[Place]:
    """All accepted steps, those that lie close together (in the logarithm of the cost) as one place
    with their number.
    """
    points = [
        (math.log10(row[cost]), row[key])
        for trial in trials
        for row in trial
        if row["accepted"] and row[cost] > 0
    ]
    if not points:
        return []
    lows = [min(values) for values in zip(*points, strict=True)]
    sizes = [
        (max(values) - min(values)) / cells or 1.0
        for values, cells in zip(zip(*points, strict=True), _CELLS, strict=True)
    ]
    cells: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for x, y in points:
        cells.setdefault((int((x - lows[0]) / sizes[0]), int((y - lows[1]) / sizes[1])), []).append(
            (x, y)
        )
    return [
        Place(10 ** fmean(x for x, _ in cell), fmean(y for _, y in cell), len(cell))
        for cell in cells.values()
    ]


def mean_places(found: Groups, cost: str, key: str = "metric_after") -> list[Place]:
    """Each combination at each fraction that all of its trials reached: the mean cost and the mean
    metric.
    """
    places = []
    for name, trials in found.items():
        costs, values = curve(trials, cost), curve(trials, key)
        places += [
            Place(
                costs[f].mean,
                values[f].mean,
                len(trials),
                f"{name}, {f:.1%} of the channels pruned",
            )
            for f in values
            if values[f].n == len(trials)
        ]
    return places


def end_places(found: Groups, cost: str) -> list[Place]:
    """The models that each combination handed over: the means of cost and metric on the
    validation split.
    """
    return [
        Place(
            over(trials, lambda _, best: best[cost]).mean,
            over(trials, lambda _, best: best["metric_after"]).mean,
            text=f"{name}: handed over, mean of {len(trials)}",
        )
        for name, trials in found.items()
    ]


def front(places: Sequence[Place]) -> list[Place]:
    """Those that no other beats in both, the cheapest first."""
    best, found = -math.inf, []
    for place in sorted(places, key=lambda one: (one.x, -one.y)):
        if place.y > best:
            best = place.y
            found.append(place)
    return found


def _leaves(name: str, part: Groups) -> dict[str, Groups]:
    """A view, or several where it has too many groups for one."""
    if len(part) <= MOST_GROUPS:
        return {name: part}
    names = list(part)
    return {
        f"{name}, {start + 1} to {min(start + MOST_GROUPS, len(names))}": {
            one: part[one] for one in names[start : start + MOST_GROUPS]
        }
        for start in range(0, len(names), MOST_GROUPS)
    }
