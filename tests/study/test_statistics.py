"""Means, intervals and pairs against other ways to compute them."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from prunedge.study import at_fractions, compared, spread
from prunedge.study.summary import axes_of, by_combination, comparisons, summary

NUMBERS = st.floats(0, 1, allow_subnormal=False)


@given(st.lists(NUMBERS, min_size=2, max_size=20))
def test_spread_is_that_of_the_textbook(values: list[float]) -> None:
    found = spread(values)
    assert found.mean == pytest.approx(statistics.fmean(values))
    assert found.variance == pytest.approx(statistics.variance(values), abs=1e-12)
    if found.variance > 1e-12:
        low, high = stats.t.interval(0.95, len(values) - 1, loc=found.mean, scale=stats.sem(values))
        assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_one_value_has_no_spread() -> None:
    found = spread([0.5])
    assert found.mean == 0.5
    assert math.isnan(found.low)
    assert math.isnan(found.variance)
    with pytest.raises(ValueError, match="no values"):
        spread([])


@settings(max_examples=20)  # each of them resamples twice
@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=12))
def test_pairs_change_sign_when_they_are_turned_round(pairs: list[tuple[float, float]]) -> None:
    first, second = map(list, zip(*pairs, strict=True))
    there, back = compared(first, second), compared(second, first)
    assert there.difference == pytest.approx(-back.difference)
    assert (there.low, there.high) == (
        pytest.approx(-back.high),
        pytest.approx(-back.low),
    )
    assert there.p == pytest.approx(back.p, nan_ok=True)
    assert there.low - 1e-12 <= there.difference <= there.high + 1e-12


def test_a_clear_difference_is_seen_and_none_is_not_invented() -> None:
    base = [0.80, 0.82, 0.79, 0.85, 0.81, 0.83, 0.84, 0.80]
    better = compared([value + 0.03 + 0.002 * i for i, value in enumerate(base)], base)
    assert better.low > 0.02
    assert better.p < 0.01
    assert better.n == 8
    assert math.isnan(compared(base, base).p)
    with pytest.raises(ValueError, match="make no pairs"):
        compared(base, base[:3])


def test_fractions_lie_between_accepted_steps_and_not_beyond() -> None:
    steps = [
        {"accepted": good, "fraction_removed": fraction, "metric_after": value}
        for good, fraction, value in (
            (True, 0.0, 0.9),
            (True, 0.2, 0.8),
            (False, 0.5, 0.1),
            (True, 0.4, 0.6),
        )
    ]
    found = at_fractions(steps, "metric_after", (0.0, 0.1, 0.3, 0.4, 0.5))
    assert found == {
        0.0: 0.9,
        0.1: pytest.approx(0.85),
        0.3: pytest.approx(0.7),
        0.4: pytest.approx(0.6),
    }


def row(
    trial: str, criterion: str, fold: int, best: float, index: int, **more: object
) -> dict[str, object]:
    return {
        "trial": trial,
        "criterion": criterion,
        "fold": fold,
        "seed": 0,
        "folds": 2,
        "is_done": True,
        "index": index,
        "is_best": index == 1,
        "test_baseline": 0.9,
        "test_best": best,
        "fraction_removed": 0.5 * index,
        "macs": 100 // (1 + 3 * index),
        "size_mb": 8.0 / (1 + index),
        "seconds_rank": 1.0,
        "seconds_surgery": 0.0,
        "seconds_finetune": 2.0 * index,
        "seconds_evaluate": 0.5,
        **more,
    }


ROWS = [
    row(f"{name}{fold}", name, fold, best + 0.01 * fold, index)
    for name, best in (("taylor", 0.88), ("random", 0.80))
    for fold in range(2)
    for index in range(2)
]


def test_combinations_are_summed_up_over_their_folds() -> None:
    axes = axes_of(ROWS, ("criterion", "fold", "seed"))
    assert axes == ("criterion",)
    taylor, random = summary([*ROWS, row("late", "taylor", 1, 0.1, 1, is_done=False)], axes)
    assert taylor.values == {"criterion": "taylor"}
    assert taylor.n == 2
    assert taylor.after.mean == pytest.approx(0.885)
    assert random.after.mean == pytest.approx(0.805)
    assert taylor.macs_ratio.mean == 4.0
    assert taylor.size_ratio.mean == 2.0
    assert taylor.seconds.mean == pytest.approx(5.0)
    assert {key: len(steps) for key, steps in by_combination(ROWS, axes).items()} == {
        ("taylor",): 2,
        ("random",): 2,
    }


def test_only_what_is_equal_in_all_else_is_compared() -> None:
    ((first, second, pair),) = comparisons(ROWS, ("criterion",), "criterion")
    assert (first, second, pair.n) == ("taylor", "random", 2)
    assert pair.difference == pytest.approx(0.08)
    unmatched = [one for one in ROWS if not (one["criterion"] == "random" and one["fold"] == 0)]
    assert comparisons(unmatched, ("criterion",), "criterion")[0][2].n == 1
