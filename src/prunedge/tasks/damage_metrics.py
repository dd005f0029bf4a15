"""How well damage is found, whichever kind of it: by the classes that are damage against those that
are sound. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from prunedge.edge.tasks.classification import AT_ALARMS, AT_RECALL, COST, METRICS
from prunedge.tasks.figures import Figure, average_precision, parts_of
from prunedge.tasks.figures import alarms_at as alarms_at_weighted
from prunedge.tasks.figures import least_cost as least_cost_weighted
from prunedge.tasks.figures import recall_at as recall_at_weighted

Costs = tuple[float, float]  # of a miss and of a false alarm

NAMES = ("damage_f1", "average_precision", *AT_ALARMS.levels, *AT_RECALL.levels, COST)


def damage_metrics(
    logits: torch.Tensor,
    labels: torch.Tensor,
    damage: Sequence[int],
    costs: Costs | None = None,
    others: Sequence[str] = (),
) -> dict[str, float | None]:
    """The metrics of `NAMES`, and `others` of these families at other levels, for logits (n,
    classes) float32 and labels (n,) int64, where the classes `damage` are damage. All are None
    where there is no image of damage or no sound one, or nobody knows which classes are damage;
    `cost` is None without the `costs` of a miss and a false alarm.

    An image is ranked by the probability of all its damage classes together, as an inspection does
    (`prunedge.edge.tasks.classification`); damage is what the most probable class says.
    """
    chosen = torch.zeros(logits.shape[1], dtype=torch.bool)
    chosen[list(damage)] = True
    is_damaged = chosen[labels]
    if not damage or is_damaged.all() or not is_damaged.any():
        return dict.fromkeys((*NAMES, *others))

    # Seconds to import.
    from torchmetrics.functional.classification import binary_average_precision, binary_f1_score

    scores = _ranks(logits, chosen)
    target = is_damaged.int()
    curve = operating_points(scores, is_damaged)
    values: dict[str, float | None] = {
        "damage_f1": float(binary_f1_score(chosen[logits.argmax(1)].int(), target)),
        "average_precision": float(binary_average_precision(scores, target)),
    }
    at_alarms, at_recall = _levels(others)
    values |= {name: recall_at(curve, rate) for name, rate in at_alarms.items()}
    values |= {name: alarms_at(curve, rate) for name, rate in at_recall.items()}
    values[COST] = None if costs is None else least_cost(curve, is_damaged, costs)
    return {name: values[name] for name in (*NAMES, *others)}


def damage_figures(
    logits: torch.Tensor,
    labels: torch.Tensor,
    damage: Sequence[int],
    weights: np.ndarray,
    costs: Costs | None = None,
    others: Sequence[str] = (),
) -> tuple[Figure, ...]:
    """The same metrics where each image counts as often as `weights` (rows, n) say."""
    names = (*NAMES, *others)
    at_alarms, at_recall = _levels(others)
    metrics = METRICS | {name: AT_ALARMS.at(level) for name, level in at_alarms.items()}
    metrics |= {name: AT_RECALL.at(level) for name, level in at_recall.items()}
    chosen = torch.zeros(logits.shape[1], dtype=torch.bool)
    chosen[list(damage)] = True
    is_damaged = chosen[labels].numpy()
    if not damage or is_damaged.all() or not is_damaged.any():
        unknown = np.full(len(weights), np.nan)
        return tuple(Figure(metrics[name], unknown) for name in names)

    scores = _ranks(logits, chosen).numpy()
    is_answered = chosen[logits.argmax(1)].numpy()
    (part,) = parts_of(("damage",), is_damaged[:, None], is_answered[:, None], weights)
    values = {
        "damage_f1": part.figures[2].values,
        "average_precision": average_precision(weights, scores, is_damaged),
    }
    for name, rate in at_alarms.items():
        values[name] = recall_at_weighted(weights, scores, is_damaged, rate)
    for name, rate in at_recall.items():
        values[name] = alarms_at_weighted(weights, scores, is_damaged, rate)
    values[COST] = np.full(len(weights), np.nan)
    if costs is not None:
        values[COST] = least_cost_weighted(weights, scores, is_damaged, costs)
    over = {"damage_f1": is_damaged | is_answered, "average_precision": is_damaged}
    over |= dict.fromkeys(at_alarms, is_damaged)
    over |= dict.fromkeys(at_recall, ~is_damaged)
    return tuple(Figure(metrics[name], values[name], over.get(name)) for name in names)


def _levels(others: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
    """The levels of false alarms, and those of recall, that are measured at, by the metrics' names:
    the usual ones and those of the metrics `others`.
    """
    at_alarms = AT_ALARMS.levels
    at_recall = AT_RECALL.levels
    for name in others:
        for family, levels in ((AT_ALARMS, at_alarms), (AT_RECALL, at_recall)):
            level = family.level_of(name)
            if level is not None:
                levels[name] = level
    return at_alarms, at_recall


def operating_points(scores: torch.Tensor, is_damaged: torch.Tensor) -> torch.Tensor:
    """The ROC curve (points, 2) float64: which share of sound images is called damaged, and which
    share of damage is found, by each threshold from above all `scores` (n,) to below all.
    """
    from torchmetrics.functional.classification import binary_roc

    alarms, found, _ = binary_roc(scores, is_damaged.int())
    # float32 shares, of whole numbers.
    sound = int((~is_damaged).sum())
    damaged = int(is_damaged.sum())
    exact = (
        (alarms.double() * sound).round() / sound,
        (found.double() * damaged).round() / damaged,
    )
    return torch.stack(exact, 1)


def recall_at(curve: torch.Tensor, most: float) -> float:
    """The largest share of damage that is found where at most this share of sound images is called
    damaged.
    """
    return float(curve[curve[:, 0] <= most + 1e-9, 1].max())


def alarms_at(curve: torch.Tensor, least: float) -> float:
    """The smallest share of sound images that is called damaged where at least this share of damage
    is found.
    """
    return float(curve[curve[:, 1] >= least - 1e-9, 0].min())


def least_cost(curve: torch.Tensor, is_damaged: torch.Tensor, costs: Costs) -> float:
    """What misses and false alarms cost an image, at the threshold where that is least."""
    miss, alarm = costs
    share = float(is_damaged.double().mean())
    totals = miss * share * (1 - curve[:, 1]) + alarm * (1 - share) * curve[:, 0]
    return float(totals.min())


def _ranks(logits: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Numbers from 0 to 1 in the order of the probability of damage (n,) float64, equal for equal
    ones; probabilities themselves are all 1 where logits are large.
    """
    wide = logits.double()
    odds = wide[:, chosen].logsumexp(1) - wide[:, ~chosen].logsumexp(1)
    _, places = odds.unique(return_inverse=True)
    return places.double() / len(odds)
