"""A study in a few lines: each combination of values over its folds and seeds, and how they
compare. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunedge.study.statistics import Comparison, Spread, compared, spread

Row = Mapping[str, Any]
REPEATS = ("fold", "seed", "folds")  # what only repeats a combination


@dataclass(frozen=True)
class Line:
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


def by_combination(
    rows: Sequence[Row], axes: Sequence[str]
) -> dict[tuple[str, ...], list[list[Row]]]:
    """The steps of each finished trial, grouped by what its combination's values are."""
    by_trial: dict[str, list[Row]] = {}
    for row in rows:
        if row["is_done"]:
            by_trial.setdefault(row["trial"], []).append(row)
    found: dict[tuple[str, ...], list[list[Row]]] = {}
    for steps in by_trial.values():
        found.setdefault(tuple(str(steps[0][key]) for key in axes), []).append(steps)
    return found


def summary(rows: Sequence[Row], axes: Sequence[str]) -> list[Line]:
    """A line for each combination that has a finished trial."""
    lines = []
    for values, several in by_combination(rows, axes).items():
        ends = [(steps[0], next(row for row in steps if row["is_best"])) for steps in several]
        lines.append(
            Line(
                dict(zip(axes, values, strict=True)),
                len(several),
                spread([best["test_baseline"] for _, best in ends]),
                spread([best["test_best"] for _, best in ends]),
                spread([best["fraction_removed"] for _, best in ends]),
                spread([first["macs"] / best["macs"] for first, best in ends]),
                spread([first["size_mb"] / best["size_mb"] for first, best in ends]),
                spread([sum(seconds(row) for row in steps) for steps in several]),
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
    rest = [*(one for one in axes if one != axis), "fold", "seed"]
    by_value: dict[str, dict[tuple[str, ...], float]] = {}
    for row in rows:
        if row["is_done"] and row["is_best"]:
            by_value.setdefault(str(row[axis]), {})[tuple(str(row[one]) for one in rest)] = row[key]
    names, found = list(by_value), []
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            both = sorted(by_value[first].keys() & by_value[second].keys())
            if both:
                pair = compared(
                    [by_value[first][one] for one in both], [by_value[second][one] for one in both]
                )
                found.append((first, second, pair))
    return found
