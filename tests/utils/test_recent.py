"""What was asked for last is kept, as far as there is room."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from time import sleep

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunedge.utils.recent import Recent


@given(asked=st.lists(st.integers(0, 5), max_size=30), limit=st.integers(0, 12))
def test_it_makes_what_is_not_among_the_last_that_there_is_room_for(
    asked: list[int], limit: int
) -> None:
    made: list[int] = []
    recent: Recent[int] = Recent(limit, lambda thing: thing)
    kept: list[int] = []
    for key in asked:
        before = len(made)

        def make(key: int = key) -> int:
            made.append(key)
            return key

        assert recent.get(key, make) == key
        assert (len(made) == before) == (key in kept)
        kept = [other for other in kept if other != key] + [key]
        if len(made) > before:  # room is made where something is new
            while sum(kept) > limit and len(kept) > 1:
                kept.pop(0)


def test_threads_that_ask_at_once_wait_for_one_of_them() -> None:
    made = []
    recent: Recent[str] = Recent(10, len)

    def make() -> str:
        sleep(0.02)
        made.append(1)
        return "photo"

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: recent.get("a", make), range(8)))
    assert found == ["photo"] * 8
    assert len(made) == 1


def test_what_could_not_be_made_is_tried_again() -> None:
    recent: Recent[str] = Recent(10, len)

    def fail() -> str:
        raise OSError("gone")

    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            recent.get("a", fail)
    assert recent.get("a", lambda: "here") == "here"
