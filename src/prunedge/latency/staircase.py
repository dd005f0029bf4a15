"""Which numbers of channels a runtime likes: found in times that were measured, assumed nowhere.
Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import numpy as np

STEPS = (2, 4, 8, 16, 32)
# difference of the Bayesian information criteria that is called very strong (Kass and Raftery 1995)
EVIDENCE = 10.0


def step_of(channels: Sequence[int], ms: Sequence[float]) -> int:
    """The step of the staircase in the times `ms` of layers with these numbers of channels: 1 where
    time just grows with each channel.

    A line (time = a + b n) is compared with staircases that rise only at multiples of a step s, and
    may charge a fixed price for numbers in between (time = a + b ceil(n / s) + c [s does not divide
    n], b and c not negative), by their Bayesian information criteria.
    """
    n = np.asarray(channels, dtype=np.float64)
    times = np.asarray(ms, dtype=np.float64)
    if len(n) < 8:
        return 1
    best = _bic(times, [n]) - EVIDENCE
    step = 1
    for candidate in STEPS:
        if n.max() - n.min() < 2 * candidate:
            break
        stairs = [np.ceil(n / candidate), (n % candidate != 0).astype(np.float64)]
        criterion = min(_bic(times, stairs), _bic(times, stairs[:1]))
        if criterion < best:
            best = criterion
            step = candidate
    return step


def _bic(times: np.ndarray, causes: list[np.ndarray]) -> float:
    """Of the least-squares fit by a constant and these causes; infinite where a cause would have to
    make it faster.
    """
    design = np.stack([np.ones_like(times), *causes], 1)
    weights, *_ = np.linalg.lstsq(design, times, rcond=None)
    if (weights[1:] < 0).any():
        return float("inf")
    rest = float(((times - design @ weights) ** 2).mean())
    # Times are known to a thousandth at best: a fit can't be better than that.
    floor = (1e-3 * float(times.mean())) ** 2
    return len(times) * log(max(rest, floor)) + (len(causes) + 1) * log(len(times))
