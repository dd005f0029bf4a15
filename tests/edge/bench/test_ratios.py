"""A ratio of times is that of the times beside it, and is no ratio where its interval holds 1."""

from __future__ import annotations

from typing import Any

import pytest

from prunedge.edge.bench.ratios import UNTOLD, in_words, speed_of, speedup


def bench(before: float, after: float, **record: float) -> dict[str, Any]:
    """As bench.json has it."""
    return {
        "bundles": [{"latency_ms": {"median": ms}} for ms in (before, after)],
        "ratios": [{"speedup": record}],
    }


def test_the_ratio_is_that_of_the_medians_not_of_the_totals() -> None:
    """One slow batch of each block of the first: by the totals it would take 3.2 times as long, by the medians it is the faster one."""
    first, other = [[2.32, 2.32, 20.0]] * 12, [[2.40, 2.40, 2.40]] * 12
    found = speedup(first, other)
    assert found["median"] == pytest.approx(2.32 / 2.40)
    assert found["low"] <= found["median"] <= found["high"] < 1
    assert speed_of(bench(2.32, 2.40, **found)).words() == "1.03 x slower"


def test_blocks_that_disagree_are_not_told_apart() -> None:
    first, other = [[1.0], [1.2], [0.9], [1.1]], [[1.0]] * 4
    found = speed_of(bench(1.05, 1.0, **speedup(first, other)))
    assert found.words() == UNTOLD
    assert found.low < 1 < found.high


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"median": 1.3, "low": 0.9, "high": 1.5, "blocks": 12}, UNTOLD),
        ({"median": 4.0, "low": 3.5, "high": 4.4, "blocks": 12}, "4.0 x faster"),
        # One block of each: nothing says how much they vary.
        ({"median": 4.0, "low": 4.0, "high": 4.0, "blocks": 1}, UNTOLD),
    ],
)
def test_what_is_said_goes_with_the_times_beside_it(record: dict[str, float], said: str) -> None:
    assert speed_of(bench(8.0, 2.0, **record)).words() == said


def test_a_slower_one_is_called_slower() -> None:
    assert in_words(0.5, 0.4, 0.6, "×") == "2.0 × slower"
    assert in_words(1.02) == "1.02 x faster"
