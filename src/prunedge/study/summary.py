"""A study in a few lines: each combination of values over its folds and seeds, and how they
compare. Pure.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prunedge.study.statistics import Comparison, Spread, compared, spread
from prunedge.tasks import Metric, metric_named

Row = Mapping[str, Any]
REPEATS = ("fold", "seed", "folds")  # what only repeats a combination


@dataclass(frozen=True)
class SummaryLine:
    """One combination over its `n` finished trials: the metric on the test split before and after
    pruning, and what pruning saved.
    """

    values: Mapping[str, Any]
    n: int
    before: Spread
    after: Spread
    removed: Spread
    macs_ratio: Spread
    size_ratio: Spread
    seconds: Spread


def axes_of(rows: Sequence[Row], candidates: Iterable[str]) -> tuple[str, ...]:
    """Those of the candidates, repeats left out, that differ between the rows."""
    return tuple(
        key for key in candidates if key not in REPEATS and len({str(row[key]) for row in rows}) > 1
    )


def metric_of(rows: Sequence[Row]) -> Metric:
    """The metric that all rows are judged by. Where they are judged by different ones it is called
    `metric`, and has the first one's unit and direction.
    """
    if not rows:
        return Metric("metric")
    metric = metric_named(rows[0]["metric"], rows[0]["task"])
    is_common = all(row["metric"] == metric.name for row in rows)
    return metric if is_common else replace(metric, name="metric")


def by_combination(
    rows: Sequence[Row], axes: Sequence[str]
) -> dict[tuple[str, ...], list[list[Row]]]:
    """The steps of each finished trial, grouped by what its combination's values are."""
    by_trial: dict[str, list[Row]] = {}
    for row in rows:
        if row["is_done"]:
            by_trial.setdefault(row["trial"], []).append(row)
    combinations: dict[tuple[str, ...], list[list[Row]]] = {}
    for steps in by_trial.values():
        values = tuple(str(steps[0][key]) for key in axes)
        combinations.setdefault(values, []).append(steps)
    return combinations


def summary(rows: Sequence[Row], axes: Sequence[str]) -> list[SummaryLine]:
    """A line for each combination that has a finished trial."""
    lines = []
    for values, trials in by_combination(rows, axes).items():
        ends = [(steps[0], next(row for row in steps if row["is_best"])) for steps in trials]
        lines.append(
            SummaryLine(
                dict(zip(axes, values, strict=True)),
                len(trials),
                spread([best["test_baseline"] for _, best in ends]),
                spread([best["test_best"] for _, best in ends]),
                spread([best["fraction_removed"] for _, best in ends]),
                spread([first["macs"] / best["macs"] for first, best in ends]),
                spread([first["size_mb"] / best["size_mb"] for first, best in ends]),
                spread([sum(seconds(row) for row in steps) for steps in trials]),
            )
        )
    return lines


def seconds(row: Row) -> float:
    """What a step took on the machine that pruned."""
    return float(
        sum(row[f"seconds_{part}"] for part in ("rank", "surgery", "finetune", "evaluate"))
    )


def comparisons(
    rows: Sequence[Row], axes: Sequence[str], axis: str, key: str = "test_best"
) -> list[tuple[str, str, Comparison]]:
    """Each two values of `axis`, pair by pair over trials that are equal in all else (other values,
    fold and seed).
    """
    rest = [*(name for name in axes if name != axis), "fold", "seed"]
    by_value: dict[str, dict[tuple[str, ...], float]] = {}
    for row in rows:
        if row["is_done"] and row["is_best"]:
            others = tuple(str(row[name]) for name in rest)
            by_value.setdefault(str(row[axis]), {})[others] = row[key]

    pairs = []
    for first, second in itertools.combinations(by_value, 2):
        shared = sorted(by_value[first].keys() & by_value[second].keys())
        if shared:
            of_first = [by_value[first][others] for others in shared]
            of_second = [by_value[second][others] for others in shared]
            pairs.append((first, second, compared(of_first, of_second)))
    return pairs
