"""The table of a study, arranged for its figures and tables: groups of trials and means over them.
Pure: rows in, numbers out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from statistics import fmean
from typing import Any

from prunedge.study.statistics import Spread, at_fractions, spread
from prunedge.study.summary import by_combination, seconds

Row = Mapping[str, Any]
Trial = Sequence[Row]  # its steps, the unpruned model first
Groups = dict[str, list[Trial]]

FEW_GROUPS = 6  # that overlap readably
MOST_GROUPS = 12  # that one figure shows
MOST_VIEWS = 24  # that a reader can choose from
FINE = (*(round(0.025 * number, 3) for number in range(40)), 0.99)
_PLAIN = ("data", "model", "criterion")  # whose values say by themselves what they are


def groups(rows: Sequence[Row], axes: Sequence[str]) -> Groups:
    """The finished trials of each combination, under its name."""
    paths = {row["data"]: row["data_name"] for row in rows}
    is_clear = len(set(paths.values())) == len(paths)
    named: Groups = {}
    for trials in by_combination(rows, axes).values():
        first = dict(trials[0][0])
        if is_clear:
            first["data"] = first["data_name"]
        named[name_of(first, axes)] = [*trials]
    return named


def name_of(row: Row, axes: Sequence[str]) -> str:
    """A combination in words."""
    words = []
    for key in axes:
        value = str(row[key])
        words.append(value if key in _PLAIN else f"{key.replace('_', ' ')} {value}")
    return ", ".join(words) or "all trials"


def rows_of(trials: Sequence[Trial]) -> list[Row]:
    """The steps of all trials in one list."""
    return [row for trial in trials for row in trial]


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
        inner = outer[-1:]
        outer = outer[:-1]

    seen: dict[str, Groups] = {}
    for context, trials in groups(rows, outer).items():
        for name, view in _views_within(context if outer else "", rows_of(trials), inner).items():
            seen.update(_leaves(name or context, view))
    return dict(islice(seen.items(), MOST_VIEWS)), max(0, len(seen) - MOST_VIEWS)


def _views_within(context: str, rows: Sequence[Row], inner: Sequence[str]) -> dict[str, Groups]:
    """The views of one set of images and model: all combinations together, or an axis at a time."""
    together = groups(rows, inner)
    if len(inner) < 2 or len(together) <= MOST_GROUPS:
        return {context: together}
    by_axis = {}
    for axis in inner:
        view = groups(rows, [axis])
        if len(view) > 1:
            name = f"by {axis.replace('_', ' ')}"
            by_axis[f"{context}, {name}" if context else name] = view
    return by_axis


def _leaves(name: str, view: Groups) -> dict[str, Groups]:
    """A view, or several where it has too many groups for one."""
    if len(view) <= MOST_GROUPS:
        return {name: view}
    names = list(view)
    leaves = {}
    for start in range(0, len(names), MOST_GROUPS):
        chosen = names[start : start + MOST_GROUPS]
        title = f"{name}, {start + 1} to {start + len(chosen)}"
        leaves[title] = {group: view[group] for group in chosen}
    return leaves


def curve(
    trials: Sequence[Trial], key: str, fractions: Sequence[float] = FINE
) -> dict[float, Spread]:
    """`key` at each fraction of the channels pruned, over the trials that reached it with accepted
    steps.
    """
    of_trials = [at_fractions(trial, key, fractions) for trial in trials]
    means = {}
    for fraction in fractions:
        values = [reached[fraction] for reached in of_trials if fraction in reached]
        if values:
            means[fraction] = spread(values)
    return means


def drawn_curve(trials: Sequence[Trial], key: str) -> dict[float, Spread]:
    """The same as far as half of the trials came: beyond, the mean is that of the few that did
    best.
    """
    means = curve(trials, key)
    return {fraction: mean for fraction, mean in means.items() if 2 * mean.n >= len(trials)}


def end(trial: Trial) -> Row:
    """The step that was handed over."""
    return next(row for row in trial if row["is_best"])


def over(trials: Sequence[Trial], what: Callable[[Row, Row], float]) -> Spread:
    """A figure of the unpruned and the pruned model, over trials."""
    return spread([what(trial[0], end(trial)) for trial in trials])


def at_start(trials: Sequence[Trial], key: str, per: float = 1) -> Spread:
    """A figure of the unpruned models, in units of `per`."""
    return over(trials, lambda first, _: first[key] / per)


def at_end(trials: Sequence[Trial], key: str, per: float = 1) -> Spread:
    """A figure of the models that were handed over, in units of `per`."""
    return over(trials, lambda _, best: best[key] / per)


def saving(trials: Sequence[Trial], key: str) -> Spread:
    """How many times smaller a figure of the model handed over is than the unpruned model's."""
    return over(trials, lambda first, best: first[key] / best[key])


def total_seconds(trial: Trial) -> float:
    """What all steps of a trial took on the machine that pruned."""
    return sum(seconds(row) for row in trial)


def shares(trials: Sequence[Trial]) -> dict[str, float]:
    """The mean share of its channels that each layer kept, in the model's order."""
    names: dict[str, None] = {}
    for trial in trials:
        names.update(dict.fromkeys(trial[0]["original"]))
    kept = {}
    for name in names:
        with_layer = [trial for trial in trials if trial[0]["original"].get(name)]
        kept[name] = fmean(
            end(trial)["kept"].get(name, 0) / trial[0]["original"][name] for trial in with_layer
        )
    return kept


def time_ratios(
    rows: Sequence[Row], axes: Sequence[str]
) -> dict[str, dict[int, tuple[list[float], list[float]]]]:
    """For each combination of the other axes and each number of epochs: the pruning seconds of its
    trials, and the ratios.

    A ratio is that of the largest number of epochs to this one, between trials that are equal in
    all else (fold and seed too).
    """
    rest = [key for key in axes if key != "epochs"]
    combinations = {}
    for name, trials in groups(rows, rest).items():
        times: dict[int, dict[tuple[Any, Any], float]] = {}
        for trial in trials:
            repeat = (trial[0]["fold"], trial[0]["seed"])
            times.setdefault(trial[0]["epochs"], {})[repeat] = total_seconds(trial)
        longest = times[max(times)]

        by_epochs = {}
        for epochs in sorted(times):
            took = times[epochs]
            ratios = [longest[r] / took[r] for r in took if r in longest and took[r]]
            by_epochs[epochs] = (list(took.values()), ratios)
        combinations[name] = by_epochs
    return combinations
