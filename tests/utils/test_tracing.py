"""Spans: what is inside is taken off, threads have tracks of their own, and nothing grows without bound."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunedge.utils.tracing import (
    Place,
    Recorder,
    is_recording,
    phase,
    recording,
    span,
    trace_events,
    traced,
)

Tree = list[tuple[str, list[int], "Tree"]]  # name, ticks before each child and at the end, children

TREES: st.SearchStrategy[Tree] = st.recursive(
    st.just([]),
    lambda inner: st.lists(
        st.tuples(
            st.sampled_from("abc"), st.lists(st.integers(0, 50), min_size=5, max_size=5), inner
        ),
        max_size=4,
    ),
    max_leaves=20,
)


class Clock:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def play(tree: Tree, clock: Clock) -> int:
    """Open and close the tree's spans; gives the ticks that its roots took."""
    total = 0
    for name, ticks, children in tree:
        start = clock.now
        with span(name):
            clock.now += ticks[0]
            for place, child in enumerate(children):
                play([child], clock)
                clock.now += ticks[1 + place % 4]
        total += clock.now - start
        clock.now += 3  # outside of every span
    return total


@given(TREES)
def test_a_thread_s_own_times_add_up_to_its_outermost_spans(tree: Tree) -> None:
    clock = Clock()
    recorder = Recorder(clock=clock)
    with recording(recorder):
        roots = play(tree, clock)
    assert sum(total.self_ns for total in recorder.totals.values()) == roots
    assert (
        sum(total.total_ns for place, total in recorder.totals.items() if len(place.path) == 1)
        == roots
    )
    for place, total in recorder.totals.items():
        inside = sum(
            one.total_ns for other, one in recorder.totals.items() if other.path[:-1] == place.path
        )
        assert total.self_ns == total.total_ns - inside >= 0
    assert sum(total.count for total in recorder.totals.values()) == len(recorder.spans)


@given(TREES, st.integers(1, 8))
def test_a_full_recorder_leaves_out_the_shorter_spans_and_counts_them(
    tree: Tree, most: int
) -> None:
    clock = Clock()
    small, whole = Recorder(most, clock), Recorder(clock=clock)
    with recording(whole):
        play(tree, clock)
    clock.now = 0
    with recording(small):
        play(tree, clock)
    assert small.totals == whole.totals
    assert len(small.spans) <= most
    assert len(small.spans) + small.left_out == len(whole.spans)
    kept = {(one.name, one.start_ns, one.duration_ns) for one in small.spans}
    gone = {(one.name, one.start_ns, one.duration_ns) for one in whole.spans} - kept
    assert not kept or not gone or min(one[2] for one in kept) >= max(one[2] for one in gone)


def test_a_long_run_keeps_what_holds_the_rest() -> None:
    ticks = count()
    recorder = Recorder(most=100, clock=lambda: next(ticks))
    with recording(recorder), phase("train"):
        for _ in range(1000):
            with span("batch"), span("forward"):
                pass
    assert len(recorder.spans) <= 100
    assert recorder.left_out >= 1900
    assert recorder.spans[-1].name == "train"
    assert recorder.totals[Place("main", "train", ("batch",))].count == 1000


def test_chapters_are_told_apart() -> None:
    clock = Clock()
    recorder = Recorder(clock=clock)
    with recording(recorder):
        for name, ticks in (("step 1", 5), ("step 2", 7)):
            with phase(name):
                clock.now += 1
                with span("surgery"), span("cut"):
                    clock.now += ticks
    found = {
        (place.phase, place.path): (total.self_ns, total.total_ns)
        for place, total in recorder.totals.items()
    }
    assert found["step 1", ("surgery", "cut")] == (5, 5)
    assert found["step 2", ("surgery",)] == (0, 7)
    assert found["step 2", ()] == (1, 8)


def test_other_threads_are_heard_and_share_tracks_of_their_name() -> None:
    recorder = Recorder()

    def work() -> None:
        with span("read"):
            pass

    with recording(recorder):
        for _ in range(3):
            thread = threading.Thread(target=work, name="batches")
            thread.start()
            thread.join()
        with span("data"):
            pass
    assert recorder.tracks == ["main", "batches"]
    assert {place: total.count for place, total in recorder.totals.items()} == {
        Place("batches", "", ("read",)): 3,
        Place("main", "", ("data",)): 1,
    }


def test_threads_of_one_name_at_one_time_do_not_share_a_track() -> None:
    recorder, meet = Recorder(), threading.Barrier(2)

    def work() -> None:
        with span("read"):
            meet.wait(10)

    with recording(recorder):
        threads = [threading.Thread(target=work, name="batches") for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert recorder.tracks == ["main", "batches", "batches"]
    assert {one.track for one in recorder.spans} == {1, 2}


def test_nothing_is_kept_while_nobody_records() -> None:
    recorder = Recorder()
    with recording(recorder):
        assert is_recording()
    with span("forward"), phase("train"):
        pass
    assert not is_recording()
    assert not recorder.totals
    assert span("a") is span("b")


def test_an_error_ends_its_spans() -> None:
    recorder = Recorder()

    @traced("inner")
    def fails() -> Iterator[None]:
        raise KeyError("x")

    with pytest.raises(KeyError), recording(recorder), span("outer"):
        fails()
    assert [one.name for one in recorder.spans] == ["inner", "outer"]
    assert not is_recording()


def test_a_trace_has_microseconds_and_names() -> None:
    clock = Clock()
    clock.now = 5_000
    recorder = Recorder(clock=clock)
    with recording(recorder), span("forward"):
        clock.now += 2_500
    *about, event = trace_events(recorder.spans, recorder.tracks, 4_000, "prunedge run", pid=7)
    assert event == {"ph": "X", "name": "forward", "pid": 7, "tid": 1, "ts": 1.0, "dur": 2.5}
    assert [(one["name"], one["args"]["name"]) for one in about] == [
        ("process_name", "prunedge run"),
        ("thread_name", "main"),
    ]
