"""How well criteria agree with the oracle: Spearman's rank correlation with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from prunedge.importance.oracle import Truth
from prunedge.importance.scores import NORMALISERS, Scores, normalised
from prunedge.utils.wording import counted

RESAMPLES = 500

Pair = tuple[np.ndarray, np.ndarray]  # scores and changes of a group's channels, (channels,) each


@dataclass(frozen=True)
class Correlation:
    """Spearman's rho with its 95 % interval from resampled channels; NaN where it is not defined
    (one value, or all the same).
    """

    rho: float
    low: float
    high: float

    def __str__(self) -> str:
        return "-" if np.isnan(self.rho) else f"{self.rho:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Agreement:
    """One criterion against the oracle.

    `layers` holds rho in each group, `per_layer` their mean weighed by the groups' channels,
    `overall` rho over all channels at once after each normalisation (`NORMALISERS`; `none` is raw).
    Columns of Molchanov et al. 2017, table 1. `channels` were compared.
    """

    criterion: str
    per_layer: Correlation
    overall: Mapping[str, Correlation]
    layers: Mapping[str, float]
    channels: int

    def to_json(self) -> dict[str, Any]:
        """A plain dict of everything, NaN as None."""
        return _plain(asdict(self))


def agreement(
    truth: Truth,
    scores: Scores,
    *,
    absolute: bool = True,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Agreement:
    """Compare a criterion's scores with the oracle's changes (their absolute values, or signed),
    over the channels that both have judged.

    The scores are normalised, as a plan does before it compares channels of different groups; the
    oracle's changes are of one loss, and compare as they are.
    """
    known: dict[str, torch.Tensor] = {}  # which channels the oracle has judged
    pairs: dict[str, Pair] = {}
    for name, change in truth.changes.items():
        if name not in scores.values:
            continue
        is_known = ~torch.isnan(change)
        if not bool(is_known.any()):
            continue
        known[name] = is_known
        changes = change.abs() if absolute else change
        score = scores.values[name].double()
        pairs[name] = (score[is_known].numpy(), changes[is_known].numpy())

    generator = np.random.default_rng(seed)
    layers = {name: _rho(score, change) for name, (score, change) in pairs.items()}
    all_changes = _concatenated([change for _, change in pairs.values()])
    overall = {}
    for how in NORMALISERS:
        by_group = normalised({name: scores.values[name] for name in pairs}, how)
        all_scores = _concatenated([by_group[name][known[name]].numpy() for name in pairs])
        overall[how] = _with_interval(all_scores, all_changes, generator, resamples)
    return Agreement(
        scores.criterion,
        _mean_of_layers(pairs, layers, generator, resamples),
        overall,
        layers,
        sum(len(score) for score, _ in pairs.values()),
    )


def recommendation(agreements: list[Agreement], model: str) -> str:
    """Which criterion to use, in words.

    The one that orders all channels most like the oracle, and those that can't be told from it.
    """
    ranked: list[tuple[Correlation, Agreement, str]] = []  # with the normalisation
    for agreement in agreements:
        if agreement.criterion == "random":
            continue
        for how, correlation in agreement.overall.items():
            if not np.isnan(correlation.rho):
                ranked.append((correlation, agreement, how))
    if not ranked:
        return f"No criterion could be compared on {model}: measure more channels."

    ranked.sort(key=lambda entry: -entry[0].rho)
    best, winner, how = ranked[0]
    near: list[str] = []  # criteria whose interval reaches the best one's
    for correlation, agreement, _ in ranked[1:]:
        name = agreement.criterion
        if correlation.high >= best.low and name not in (winner.criterion, *near):
            near.append(name)

    text = (
        f"For {model} on these images use --criterion {winner.criterion} --normalise {how}: "
        f"rho {best} over {counted(winner.channels, 'channel')}."
    )
    if near:
        text += f" Not told apart from it: {', '.join(near)}."
    most = max(agreement.channels for agreement in agreements)
    if winner.channels < most:
        text += f" It judges only {winner.channels} of {most} channels; the others would stay."
    if best.rho < 0.3:
        text += " That is little: prune in small steps, and compare with --criterion random."
    return text


def _concatenated(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0)


def _with_interval(
    score: np.ndarray, change: np.ndarray, generator: np.random.Generator, resamples: int
) -> Correlation:
    """Spearman's rho with its percentile bootstrap interval."""
    rho = _rho(score, change)
    if np.isnan(rho):
        return Correlation(rho, rho, rho)
    draws = generator.integers(0, len(score), (resamples, len(score)))
    low, high = _interval(_spearman(score[draws], change[draws]))
    return Correlation(rho, low, high)


def _mean_of_layers(
    pairs: Mapping[str, Pair],
    layers: Mapping[str, float],
    generator: np.random.Generator,
    resamples: int,
) -> Correlation:
    """The mean of the groups' rho, weighed by their channels, with its bootstrap interval."""
    defined = [name for name, rho in layers.items() if not np.isnan(rho)]
    if not defined:
        return Correlation(np.nan, np.nan, np.nan)

    sizes = []
    drawn = []
    for name in defined:
        score, change = pairs[name]
        draws = generator.integers(0, len(score), (resamples, len(score)))
        drawn.append(_spearman(score[draws], change[draws]))
        sizes.append(len(score))
    weights = np.array(sizes, dtype=float)
    resampled = np.stack(drawn, 1)  # (resamples, groups); NaN where a resample is constant
    weights_used = ~np.isnan(resampled) * weights
    means = np.nansum(resampled * weights, 1) / np.maximum(weights_used.sum(1), 1e-12)

    rho = float(np.average([layers[name] for name in defined], weights=weights))
    low, high = _interval(means)
    return Correlation(rho, low, high)


def _rho(score: np.ndarray, change: np.ndarray) -> float:
    """Spearman's rho; NaN of fewer than two channels."""
    if len(score) < 2:
        return float("nan")
    return float(_spearman(score[None], change[None])[0])


def _spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of each pair of rows (n, m) and (n, m): (n,)."""
    from scipy.stats import rankdata  # takes half a second to import, which only an audit needs

    return _pearson(rankdata(a, axis=1), rankdata(b, axis=1))


def _pearson(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each pair of rows; NaN where a row is constant.

    Of ranks it is Spearman's.
    """
    a = a - a.mean(1, keepdims=True)
    b = b - b.mean(1, keepdims=True)
    scale = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.divide((a * b).sum(1), scale, out=np.full(len(a), np.nan), where=scale > 0)


def _interval(values: np.ndarray) -> tuple[float, float]:
    """The bounds of the 95 % interval."""
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return float(low), float(high)


def _plain(value: Any) -> Any:
    """The value with None for NaN, in dicts as well."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value
