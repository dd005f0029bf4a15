"""A run that is watched: the same result, its time accounted for, a trace that a viewer can nest."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunedge.config import RunConfig
from prunedge.errors import RunError
from prunedge.runs import execute
from prunedge.runs.callbacks import Callbacks
from prunedge.runs.profile import OTHER, part_of, profile_of, profiled, summed
from prunedge.runs.run import open_run


@pytest.fixture(scope="module")
def recipe(tiny_data: Path) -> RunConfig:
    return RunConfig.make(
        "test",
        data=str(tiny_data),
        model="tests.runs.test_run:small",
        weights="none",
        size=16,
        train_epochs=3,
        precision="32",
        step_ratio=0.3,
        max_drop=100.0,
        max_steps=2,
        epochs=1,
        polish=0,
        batch_size=8,
        seed=3,
    )


@pytest.fixture(scope="module")
def watched(recipe: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "watched"
    with profiled(out):
        execute.prune(recipe, out)
    return out


def check_trace(file: Path) -> list[dict[str, Any]]:
    """The spans of a trace, whose events are whole and lie inside each other or apart on each track."""
    events = json.loads(file.read_text())["traceEvents"]
    spans = [one for one in events if one["ph"] == "X"]
    assert {one["ph"] for one in events} == {"X", "M"}
    assert all(
        {"ph", "ts", "dur", "pid", "tid", "name"} <= set(one) and one["ts"] >= 0 and one["dur"] >= 0
        for one in spans
    )
    assert {one["tid"] for one in spans} <= {
        one["tid"] for one in events if one["name"] == "thread_name"
    }
    for tid in {one["tid"] for one in spans}:
        open_until: list[float] = []
        for one in sorted(
            (one for one in spans if one["tid"] == tid), key=lambda one: (one["ts"], -one["dur"])
        ):
            while open_until and open_until[-1] <= one["ts"] + 1e-3:
                open_until.pop()
            assert not open_until or one["ts"] + one["dur"] <= open_until[-1] + 1e-3, one
            open_until.append(one["ts"] + one["dur"])
    return spans


def test_being_watched_changes_nothing(recipe: RunConfig, watched: Path, tmp_path: Path) -> None:
    alone, seen = execute.prune(recipe, tmp_path / "alone"), open_run(watched)
    assert "profile" not in (watched / "config.toml").read_text()
    assert alone.config == seen.config
    for step in alone.steps():
        weights = seen.load(step.index).state_dict()
        assert all(
            torch.equal(value, weights[name])
            for name, value in alone.load(step.index).state_dict().items()
        )
    assert alone.test() == seen.test()
    assert alone.summary()["profile"] is None


def test_the_parts_and_what_is_left_are_the_whole_time(watched: Path) -> None:
    found = open_run(watched).summary()["profile"]
    assert {
        "data",
        "forward",
        "backward",
        "optimiser",
        "rank",
        "surgery",
        "evaluate",
        "keep",
        "load",
    } <= {one["part"] for one in found["parts"]}
    assert sum(one["seconds"] for one in found["parts"]) + found["unaccounted_s"] == pytest.approx(
        found["wall_s"]
    )
    assert 0 <= found["unaccounted_s"] < found["wall_s"]
    assert [one["phase"] for one in found["phases"]] == [
        "start",
        "train",
        "step 1",
        "step 2",
        "test",
    ]
    for one in found["phases"]:
        assert sum(one["parts"].values()) == pytest.approx(one["seconds"])
    assert {"trace", "surgery/prove", "surgery/cut", "slice state"} <= {
        within["path"] for one in found["parts"] for within in one["within"]
    }
    assert {one["part"] for one in found["background"]} == {"read", "augment", "normalise"}
    assert found["threads"] == torch.get_num_threads()
    assert found["precision"] == "32"
    assert found["machine"]
    assert found["spans_left_out"] == 0


def test_what_the_collector_does_is_taken_off_the_backward_pass(watched: Path) -> None:
    rows = {
        row["path"]: row
        for row in json.loads((watched / "profile" / "profile.json").read_text())["rows"]
        if row["phase"] == "step 1"
    }
    backward, rank = rows["backward"], rows["backward/rank"]
    assert rank["count"] > backward["count"]
    assert backward["self_s"] == pytest.approx(backward["total_s"] - rank["total_s"])


def test_the_trace_can_be_nested(watched: Path) -> None:
    spans = check_trace(watched / "profile" / "trace.json")
    steps = [one for one in spans if one["name"] == "step 1"]
    assert len(steps) == 2  # the turn, and what it is kept with
    assert {"read", "augment", "normalise"} & {one["name"] for one in spans if one["tid"] != 1}
    inside = {
        one["name"]
        for one in spans
        if steps[0]["ts"] <= one["ts"] <= steps[0]["ts"] + steps[0]["dur"] and one["tid"] == 1
    }
    assert {"forward", "backward", "optimiser", "evaluate", "surgery", "prove", "data"} <= inside


def test_a_second_recording_stands_beside_the_first(recipe: RunConfig, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with profiled(out):
        execute.train(recipe, out)
    first = (out / "profile" / "profile.json").read_bytes()
    with profiled(out):
        execute.resume(out)
    assert {file.name for file in (out / "profile").iterdir()} == {
        "profile.json",
        "profile-2.json",
        "trace.json",
        "trace-2.json",
    }
    assert (out / "profile" / "profile.json").read_bytes() == first
    both, parts = (
        profile_of(out),
        [json.loads((out / "profile" / f"profile{n}.json").read_text()) for n in ("", "-2")],
    )
    assert both is not None
    assert both["recordings"] == 2
    assert both["wall_s"] == pytest.approx(sum(one["wall_s"] for one in parts))
    assert [one["phase"] for one in both["phases"]] == [
        "start",
        "train",
        "step 1",
        "step 2",
        "test",
    ]
    start = [one["phases"][0]["seconds"] for one in parts]
    assert both["phases"][0]["seconds"] == pytest.approx(sum(start))
    with profiled(out):
        execute.resume(out)  # nothing is left to do
    assert not (out / "profile" / "profile-3.json").exists()


def test_what_is_cut_off_is_written(recipe: RunConfig, tmp_path: Path) -> None:
    out = tmp_path / "run"

    def stop(step: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), profiled(out):
        execute.prune(recipe, out, Callbacks(on_step=stop))
    check_trace(out / "profile" / "trace.json")
    found = profile_of(out)
    assert found is not None
    assert "train" in {one["phase"] for one in found["phases"]}


def test_a_run_that_never_began_leaves_nothing(recipe: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="nowhere"), profiled(tmp_path / "out"):
        execute.prune(recipe.with_values(**{"data": "/nowhere"}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_profile_is_named(watched: Path, tmp_path: Path) -> None:
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "profile.json").write_text("{")
    with pytest.raises(RunError, match="delete it"):
        profile_of(tmp_path)


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("forward", "forward"),
        ("evaluate/forward", "evaluate"),
        ("evaluate/data", "data"),
        ("backward/rank", "rank"),
        ("rank/data", "data"),
        ("trace", "surgery"),
        ("derive/trace", "surgery"),
        ("surgery/cut", "surgery"),
        ("load model/build", "load model"),
    ],
)
def test_what_a_span_counts_to(path: str, part: str) -> None:
    assert part_of(path) == part


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["train", "step 1", "step 2", ""]),
        st.sampled_from(["forward", "backward/rank", "data", "surgery/prove"]),
        st.floats(0, 100),
    ),
    max_size=12,
    unique_by=lambda one: one[:2],
)


@given(ROWS, st.floats(0, 100))
def test_the_sums_by_part_and_by_chapter_agree(
    given: list[tuple[str, str, float]], loose: float
) -> None:
    rows = [
        {"thread": "main", "phase": phase, "path": path, "count": 1, "self_s": s, "total_s": s}
        for phase, path, s in given
    ]
    for phase in {one[0] for one in given if one[0]}:
        inside = sum(s for name, _, s in given if name == phase)
        rows.append(
            {
                "thread": "main",
                "phase": phase,
                "path": "",
                "count": 1,
                "self_s": loose,
                "total_s": inside + loose,
            }
        )
    wall = sum(one[2] for one in given) + loose * 4 + 1
    found = summed(
        [
            *rows,
            {
                "thread": "batches",
                "phase": "",
                "path": "read",
                "count": 9,
                "self_s": 1e6,
                "total_s": 1e6,
            },
        ],
        wall,
    )
    assert sum(one["seconds"] for one in found["parts"]) + found["unaccounted_s"] == pytest.approx(
        wall
    )
    assert all(
        earlier["seconds"] >= later["seconds"] for earlier, later in pairwise(found["parts"])
    )
    for one in found["phases"]:
        assert one["parts"][OTHER] == pytest.approx(loose, abs=1e-9)
        assert sum(one["parts"].values()) == pytest.approx(one["seconds"])
