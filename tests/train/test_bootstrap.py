"""How sure a drop is, against what is known of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from prunedge.tasks import packed
from prunedge.train.bootstrap import paired_drop_interval


def test_the_bounds_are_those_of_the_normal_approximation_where_it_holds() -> None:
    rng = np.random.default_rng(1)
    before, after = rng.random(4000) < 0.9, rng.random(4000) < 0.86
    low, high = paired_drop_interval(packed(before), packed(after), 0.95)
    differences = 100 * (before.astype(float) - after)
    half = stats.norm.ppf(0.95) * differences.std(ddof=1) / 4000**0.5
    assert (low, high) == (
        pytest.approx(differences.mean() - half, abs=0.1),
        pytest.approx(differences.mean() + half, abs=0.1),
    )


def test_patches_of_one_photograph_count_once() -> None:
    """Twenty copies of each answer say no more than one."""
    rng = np.random.default_rng(2)
    before, after = rng.random(60) < 0.9, rng.random(60) < 0.8
    alone = paired_drop_interval(packed(before), packed(after), 0.9)
    copies = paired_drop_interval(
        packed(np.repeat(before, 20)),
        packed(np.repeat(after, 20)),
        0.9,
        np.repeat(np.arange(60), 20).tolist(),
    )
    blind = paired_drop_interval(packed(np.repeat(before, 20)), packed(np.repeat(after, 20)), 0.9)
    assert copies == pytest.approx(alone, abs=0.5)
    assert blind[1] - blind[0] < 0.5 * (alone[1] - alone[0])


@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=50), st.floats(0.5, 0.99)
)
def test_bounds_turn_with_the_sign_and_hold_the_drop(
    pairs: list[tuple[bool, bool]], confidence: float
) -> None:
    first, second = (packed(one) for one in zip(*pairs, strict=True))
    low, high = paired_drop_interval(first, second, confidence)
    assert low <= high
    assert paired_drop_interval(second, first, confidence) == (
        pytest.approx(-high),
        pytest.approx(-low),
    )
    assert paired_drop_interval(first, first, confidence) == (0.0, 0.0)


def test_answers_to_other_images_are_refused() -> None:
    with pytest.raises(ValueError, match="3 and 2 answers"):
        paired_drop_interval(packed([True] * 3), packed([True] * 2), 0.95)
