"""A level from 0 to 1 as a probability, or as the number that it stands for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunedge.edge.inspect.levels import level_of, level_text, number_at

SPAN = (1000.0, 3000.0)


def test_a_probability_is_read_in_percent_and_a_number_in_its_unit() -> None:
    assert level_text(0.734, None) == "73%"
    assert level_text(0.734, None, 1) == "73.4%"
    assert level_text(0.5, SPAN) == "2,000"
    assert level_text(0.5, (0.0, 1.0), 1) == "0.5"


@given(st.floats(0, 1))
def test_a_number_s_level_is_where_it_came_from(level: float) -> None:
    assert level_of(number_at(level, SPAN), SPAN) == pytest.approx(level, abs=1e-12)
    assert level_of(level, None) == level
