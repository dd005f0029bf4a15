"""How well criteria agree with the oracle: Spearman's rank correlation, by layer and over all, with
bootstrap intervals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from prunedge.importance.oracle import Truth
from prunedge.importance.scores import NORMALISERS, Scores, normalised

RESAMPLES = 500


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
    real = {
        name: change.abs() if absolute else change
        for name, change in truth.changes.items()
        if name in scores.values
    }
    known = {name: ~torch.isnan(change) for name, change in real.items()}
    pairs = {
        name: (scores.values[name].double()[known[name]], change[known[name]])
        for name, change in real.items()
    }
    pairs = {name: pair for name, pair in pairs.items() if len(pair[0])}
    generator = np.random.default_rng(seed)
    layers = {name: _rho(guess.numpy(), change.numpy()) for name, (guess, change) in pairs.items()}
    sizes = {name: len(guess) for name, (guess, _) in pairs.items()}
    overall = {}
    for how in NORMALISERS:
        guesses = normalised({name: scores.values[name] for name in pairs}, how)
        guess = (
            np.concatenate([guesses[name][known[name]].numpy() for name in pairs])
            if pairs
            else np.zeros(0)
        )
        change = (
            np.concatenate([change.numpy() for _, change in pairs.values()])
            if pairs
            else np.zeros(0)
        )
        overall[how] = _with_interval(guess, change, generator, resamples)
    return Agreement(
        scores.criterion,
        _mean_of_layers(pairs, layers, sizes, generator, resamples),
        overall,
        layers,
        sum(sizes.values()),
    )


def recommendation(found: list[Agreement], model: str) -> str:
    """Which criterion to use, in words: the one that orders all channels most like the oracle, and
    those that can't be told from it.
    """
    ranked = sorted(
        (
            (one.overall[how], one, how)
            for one in found
            for how in one.overall
            if not np.isnan(one.overall[how].rho)
        ),
        key=lambda entry: -entry[0].rho,
    )
    ranked = [entry for entry in ranked if entry[1].criterion != "random"]
    if not ranked:
        return f"No criterion could be compared on {model}: measure more channels."
    best, winner, how = ranked[0]
    near = list(
        dict.fromkeys(
            one.criterion
            for value, one, _ in ranked[1:]
            if value.high >= best.low and one.criterion != winner.criterion
        )
    )
    text = (
        f"For {model} on these images use --criterion {winner.criterion} --normalise {how}: "
        f"rho {best} over {winner.channels} channels."
    )
    if near:
        text += f" Not told apart from it: {', '.join(near)}."
    partly = max(one.channels for one in found)
    if winner.channels < partly:
        text += f" It judges only {winner.channels} of {partly} channels; the others would stay."
    if best.rho < 0.3:
        text += " That is little: prune in small steps, and compare with --criterion random."
    return text


def _with_interval(
    guess: np.ndarray, change: np.ndarray, generator: np.random.Generator, resamples: int
) -> Correlation:
    rho = _rho(guess, change)
    if np.isnan(rho):
        return Correlation(rho, rho, rho)
    draws = generator.integers(0, len(guess), (resamples, len(guess)))
    return Correlation(rho, *_interval(_spearman(guess[draws], change[draws])))


def _mean_of_layers(
    pairs: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
    layers: Mapping[str, float],
    sizes: Mapping[str, int],
    generator: np.random.Generator,
    resamples: int,
) -> Correlation:
    defined = [name for name, rho in layers.items() if not np.isnan(rho)]
    if not defined:
        return Correlation(np.nan, np.nan, np.nan)
    weights = np.array([sizes[name] for name in defined], dtype=float)
    drawn = []
    for name in defined:
        guess, change = (one.numpy() for one in pairs[name])
        draws = generator.integers(0, len(guess), (resamples, len(guess)))
        drawn.append(_spearman(guess[draws], change[draws]))
    resampled = np.stack(drawn, 1)
    there = ~np.isnan(resampled) * weights
    means = np.nansum(resampled * weights, 1) / np.maximum(there.sum(1), 1e-12)
    return Correlation(
        float(np.average([layers[name] for name in defined], weights=weights)), *_interval(means)
    )


def _rho(guess: np.ndarray, change: np.ndarray) -> float:
    return float(_spearman(guess[None], change[None])[0]) if len(guess) > 1 else float("nan")


def _spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The rank correlation of each pair of rows (n, m) and (n, m): (n,)."""
    from scipy.stats import rankdata  # takes half a second to import, which only an audit needs

    return _pearson(rankdata(a, axis=1), rankdata(b, axis=1))


def _pearson(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each pair of rows; of ranks, Spearman's. NaN where a row is
    constant.
    """
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    scale = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.divide((a * b).sum(1), scale, out=np.full(len(a), np.nan), where=scale > 0)


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return float(low), float(high)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value
