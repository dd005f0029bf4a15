"""What answers are worth where each image counts any number of times, as in a resample: the metrics
of a task, and those of each of its classes. Numpy alone, and pure.

Weights (rows, n) say how often each of n images counts, a resample a row; every figure has a value
a row. Where each image counts once it is what torchmetrics gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prunedge.edge.tasks.metric import Metric

RECALL = Metric("recall")
PRECISION = Metric("precision")
F1 = Metric("f1")


@dataclass(frozen=True)
class Figure:
    """A metric of weighted images: `values` (rows,) float64, NaN where it is not defined.

    `over` (n,) bool are the images that a share (0 to 1) is one of: where all of them are right,
    every resample is, and the number of them alone says how sure that is. None where the metric is
    no share.
    """

    metric: Metric
    values: np.ndarray
    over: np.ndarray | None = None


@dataclass(frozen=True)
class Part:
    """A class (a degree, a number) by itself. `support` is how many images show it, None of what
    all images have.
    """

    name: str
    support: int | None
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Figures:
    """The metrics of a task, in its order, and the figures of each of its classes."""

    metrics: tuple[Figure, ...]
    parts: tuple[Part, ...] = ()


def ratio(counts: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """counts / totals (rows,), NaN where the total is 0."""
    result = np.full(np.broadcast(counts, totals).shape, np.nan)
    return np.divide(counts, totals, out=result, where=totals != 0)


def mean(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The weighted mean (rows,) of values (n,)."""
    return ratio(weights @ values.astype(np.float64), weights.sum(1))


def share(metric: Metric, weights: np.ndarray, is_right: np.ndarray) -> Figure:
    """The share of all images that are right (n,) bool."""
    return Figure(metric, mean(weights, is_right), np.ones(len(is_right), bool))


def parts_of(
    names: Sequence[str], is_there: np.ndarray, is_answered: np.ndarray, weights: np.ndarray
) -> tuple[Part, ...]:
    """Recall, precision and F1 of each class, of truth and answers (n, classes) bool.

    Recall is not defined without an image of the class, precision without an answer of it, F1
    without both.
    """
    parts = []
    for place, name in enumerate(names):
        there = is_there[:, place]
        answered = is_answered[:, place]
        found = weights @ (there & answered).astype(np.float64)
        shown = weights @ there.astype(np.float64)
        told = weights @ answered.astype(np.float64)
        figures = (
            Figure(RECALL, ratio(found, shown), there),
            Figure(PRECISION, ratio(found, told), answered),
            Figure(F1, ratio(2 * found, shown + told), there | answered),
        )
        parts.append(Part(name, int(there.sum()), figures))
    return tuple(parts)


def one_hot(numbers: np.ndarray, classes: int) -> np.ndarray:
    """(n, classes) bool of the number of each image's class (n,)."""
    return numbers[:, None] == np.arange(classes)


def rarest(is_there: np.ndarray) -> np.ndarray:
    """Which images show the class that fewest show, (n,) bool of (n, classes): a mean over the
    classes is no surer than that one.
    """
    counts = is_there.sum(0)
    return is_there[:, int(np.where(counts > 0, counts, len(is_there) + 1).argmin())]


def mean_of(columns: Sequence[np.ndarray], *, undefined: float | None = None) -> np.ndarray:
    """The mean (rows,) of figures (rows,) each; those that are not defined count as `undefined`, or
    are left out.
    """
    table = np.stack(columns)
    if undefined is not None:
        return np.where(np.isnan(table), undefined, table).mean(0)
    is_known = ~np.isnan(table)
    return ratio(np.where(is_known, table, 0.0).sum(0), is_known.sum(0))


def auroc(weights: np.ndarray, scores: np.ndarray, is_there: np.ndarray) -> np.ndarray:
    """The area under the ROC curve (rows,) of scores (n,): the probability that an image of the
    class scores higher than another, ties being half. NaN where one of both kinds is missing.
    """
    there, others = _by_score(weights, scores, is_there)
    below = there.cumsum(1) - there / 2  # images of the class that score higher than these others
    return ratio((others * below).sum(1), there.sum(1) * others.sum(1))


def average_precision(weights: np.ndarray, scores: np.ndarray, is_there: np.ndarray) -> np.ndarray:
    """The mean precision (rows,) at each image of the class, by falling scores (n,). NaN without
    one.
    """
    there, others = _by_score(weights, scores, is_there)
    found = there.cumsum(1)
    precision = np.nan_to_num(ratio(found, found + others.cumsum(1)))
    return ratio((there * precision).sum(1), there.sum(1))


def recall_at(
    weights: np.ndarray, scores: np.ndarray, is_there: np.ndarray, most: float
) -> np.ndarray:
    """The largest share of the class's images (rows,) that is found by a threshold of scores (n,)
    at which at most this share of the others is; NaN where one of both kinds is missing.
    """
    found, alarms = _curve(weights, scores, is_there)
    best = np.where(alarms <= most + 1e-9, found, 0.0).max(1)
    return np.where(np.isnan(found + alarms).any(1), np.nan, best)


def alarms_at(
    weights: np.ndarray, scores: np.ndarray, is_there: np.ndarray, least: float
) -> np.ndarray:
    """The smallest share of the others (rows,) that is taken for the class by a threshold at which
    at least this share of the class's images is found; NaN where one of both kinds is missing.
    """
    found, alarms = _curve(weights, scores, is_there)
    best = np.where(found >= least - 1e-9, alarms, 1.0).min(1)
    return np.where(np.isnan(found + alarms).any(1), np.nan, best)


def least_cost(
    weights: np.ndarray, scores: np.ndarray, is_there: np.ndarray, costs: tuple[float, float]
) -> np.ndarray:
    """What misses and false alarms cost an image (rows,), at the threshold where that is least;
    NaN where one of both kinds is missing.
    """
    miss, alarm = costs
    found, alarms = _curve(weights, scores, is_there)
    share = (weights @ is_there / weights.sum(1))[:, None]
    return (miss * share * (1 - found) + alarm * (1 - share) * alarms).min(1)


def _curve(
    weights: np.ndarray, scores: np.ndarray, is_there: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which shares of the class's images and of the others score at least as much as each
    threshold, from above all down: (rows, thresholds) each.
    """
    shares = []
    for counts in _by_score(weights, scores, is_there):
        summed = np.concatenate((np.zeros((len(counts), 1)), counts.cumsum(1)), axis=1)
        shares.append(ratio(summed, np.broadcast_to(counts.sum(1)[:, None], summed.shape)))
    found, alarms = shares
    return found, alarms


def _by_score(
    weights: np.ndarray, scores: np.ndarray, is_there: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How often images of the class, and others, count at each different score, from the highest
    down: (rows, scores) each.
    """
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    there = (weights * is_there)[:, order]
    others = (weights * ~is_there)[:, order]
    return np.add.reduceat(there, starts, axis=1), np.add.reduceat(others, starts, axis=1)
