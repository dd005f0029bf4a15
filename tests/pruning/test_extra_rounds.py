"""How long a smaller model is fine-tuned before it is judged."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from prunedge.pruning.recover import is_recovering


def test_a_first_extra_round_is_always_tried() -> None:
    assert is_recovering([50.0], 1.0)


def test_a_model_that_gets_better_fast_goes_on() -> None:
    # 44, then 21 points below: 23 gained, 20 missing.
    assert is_recovering([44.0, 21.0], 1.0)
    assert is_recovering([44.0, 21.0, 7.0], 1.0)


def test_a_model_that_stays_where_it_is_is_given_up() -> None:
    assert not is_recovering([44.0, 43.0], 1.0)
    assert not is_recovering([44.0, 21.0, 20.0], 1.0)
    assert not is_recovering([20.0, 30.0], 1.0), "it became worse"


def test_half_of_what_is_missing_is_enough() -> None:
    assert is_recovering([6.0, 4.0], 0.0)
    assert not is_recovering([6.0, 4.1], 0.0)


@given(st.lists(st.floats(0, 100), min_size=2, max_size=5), st.floats(0, 10), st.floats(0, 5))
def test_a_stricter_rule_is_never_easier_to_hope_for(
    drops: list[float], allowed: float, looser: float
) -> None:
    if is_recovering(drops, allowed):
        assert is_recovering(drops, allowed + looser)
