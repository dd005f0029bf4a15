"""Steps are found in staircases, and not in lines."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from prunedge.latency.staircase import step_of

N = np.arange(48, 81)


@given(
    st.sampled_from([2, 4, 8, 16]),
    st.floats(0.02, 1.0),
    st.floats(0.1, 50.0),
    st.floats(0.0, 0.5),
    st.integers(0, 10_000),
)
@settings(deadline=None, max_examples=60)
def test_a_staircase_has_its_step(
    step: int, rise: float, base: float, price: float, seed: int
) -> None:
    clean = base * (1 + rise * np.ceil(N / step) + price * (N % step != 0))
    noise = np.random.default_rng(seed).normal(0, 0.001 * base * rise, len(N))
    assert step_of(N, clean + noise) == step


@given(st.floats(0.001, 1.0), st.floats(0.1, 50.0), st.floats(0.0, 0.02), st.integers(0, 10_000))
@settings(deadline=None, max_examples=60)
def test_a_line_has_none(slope: float, base: float, noise: float, seed: int) -> None:
    times = base * (1 + slope * N) * (1 + np.random.default_rng(seed).normal(0, noise, len(N)))
    assert step_of(N, times) == 1


def test_few_points_tell_nothing() -> None:
    assert step_of([1, 2, 3], [1.0, 1.0, 2.0]) == 1
