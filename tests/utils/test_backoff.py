"""Pauses double from the first to the longest, and are cut at random where that is asked for."""

from __future__ import annotations

import pytest

from prunedge.utils.backoff import Backoff


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 0.5), (2, 1), (3, 2), (6, 16), (7, 20), (8, 20), (10**9, 20)]
)
def test_pauses_double_up_to_the_longest(failures: int, seconds: float) -> None:
    assert Backoff(0.5, 20).pause(failures) == seconds


def test_jitter_only_ever_shortens_a_pause() -> None:
    pauses = [Backoff(1, 60, jitter=0.3).pause(4) for _ in range(200)]
    assert all(0.7 * 8 <= pause <= 8 for pause in pauses)
    assert len(set(pauses)) > 100
