"""How far probabilities of damage can be believed. Numpy alone, and pure.

Scores (m,) float64 are probabilities of damage, `is_damaged` (m,) bool the truth.
"""

from __future__ import annotations

import numpy as np

ERROR_BINS = 15  # of the expected calibration error, as in Guo et al.
RELIABILITY_BINS = 10


def calibration_error(scores: np.ndarray, is_damaged: np.ndarray) -> float:
    """The expected calibration error of the probability of damage: how far its mean is from the
    share of the damaged, in each of `ERROR_BINS` ranges, weighted by how many lie there.
    """
    error = 0.0
    for chosen in _bins(scores, ERROR_BINS):
        if chosen.any():
            distance = abs(scores[chosen].mean() - is_damaged[chosen].mean())
            error += float(chosen.mean()) * float(distance)
    return error


def reliability_of(scores: np.ndarray, is_damaged: np.ndarray) -> list[tuple[int, float, float]]:
    """Of each tenth of the probabilities that has any: how many, their mean, and the share of the
    damaged among them.
    """
    listed = []
    for chosen in _bins(scores, RELIABILITY_BINS):
        if chosen.any():
            share = float(is_damaged[chosen].mean())
            listed.append((int(chosen.sum()), float(scores[chosen].mean()), share))
    return listed


def _bins(scores: np.ndarray, count: int) -> list[np.ndarray]:
    """Which scores lie in each of so many equal ranges from 0 to 1."""
    places = np.minimum((scores * count).astype(int), count - 1)
    return [places == place for place in range(count)]
