"""A bench that looks closely: layers from ONNX Runtime's and OpenVINO's own clocks, without touching what was measured."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import pytest

from prunedge.edge import BenchResult, Candidate, bench, open_bundle
from prunedge.edge.bench.breakdown import PASSES, LayerCall, calls_of, profile_of, trace_of
from prunedge.edge.runtimes import runtime_of
from prunedge.edge.targets import TARGETS
from tests.export.test_bundle import IMAGES, export
from tests.small_models import Mobile, randomise


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(
        randomise(Mobile()),
        tmp_path_factory.mktemp("bundles") / "two",
        formats=("onnx", "openvino"),
    )


@pytest.fixture(scope="module")
def result(two: Path) -> BenchResult:
    opened = open_bundle(two)
    return bench(
        [Candidate(opened, "onnx"), Candidate(opened, "openvino")],
        patches=8,
        batch=2,
        batches=[3],
        profile=True,
    )


def test_every_contestant_says_where_its_time_went(result: BenchResult) -> None:
    assert result.profile is not None
    assert [one["target"] for one in result.profile] == [
        "onnx",
        "openvino",
    ]
    for one, measured in zip(result.profile, result.bundles, strict=True):
        seconds = {part["part"]: part["seconds"] for part in one["parts"]}
        assert list(seconds) == [
            "load",
            "self-test",
            "images",
            "warm-up",
            "inference",
            "larger batches",
            "closer look",
            "layers",
        ]
        # The blocks hold what was timed in them, and the load its own figure.
        assert seconds["inference"] >= measured["seconds_total"]
        assert 0 < seconds["load"] <= measured["load_seconds"]
        assert set(one["image_ms"]) == {"preprocess", "model", "decode"}
        assert all(ms > 0 for ms in one["image_ms"].values())
        assert one["passes"] == PASSES
        assert one["layers"] == sorted(one["layers"], key=lambda layer: -layer["ms"])
        assert sum(layer["share"] for layer in one["layers"]) == pytest.approx(1)
        assert any("Conv" in layer["kind"] for layer in one["layers"])
    json.dumps(result.to_json())


def test_onnx_runtime_s_layers_have_their_macs(result: BenchResult) -> None:
    assert result.profile is not None
    stem = next(
        layer
        for layer in result.profile[0]["layers"]
        if "3x16x16 -> " in layer["shape"] and layer["kind"] == "Conv"
    )
    sizes, kernel = stem["shape"].split(" -> ")[1].split(", ")
    assert stem["macs"] == 2 * prod(map(int, sizes.split("x"))) * 3 * prod(
        map(int, kernel.split("x"))
    )
    assert stem["macs_per_ms"] == pytest.approx(stem["macs"] / stem["ms"])


def test_what_is_timed_is_not_looked_at(result: BenchResult) -> None:
    """Spans of an image's way are those of the closer look alone."""
    assert result.profile is not None
    for one in result.profile:
        look = next(span for span in one["spans"] if span[0] == "closer look")
        inside = [span for span in one["spans"] if span[0] in ("preprocess", "model", "decode")]
        assert inside
        assert all(look[2] <= span[2] and span[2] + span[3] <= look[2] + look[3] for span in inside)


def test_the_trace_has_a_process_for_each(result: BenchResult) -> None:
    assert result.profile is not None
    events = trace_of(result.profile)
    spans = [one for one in events if one["ph"] == "X"]
    assert all(
        {"ph", "ts", "dur", "pid", "tid", "name"} <= set(one) and one["ts"] >= 0 and one["dur"] >= 0
        for one in spans
    )
    assert {one["args"]["name"] for one in events if one["name"] == "process_name"} == {
        "two, onnx",
        "two, openvino",
    }
    for pid in (1, 2):
        layers = sorted(
            (one for one in spans if one["pid"] == pid and one["tid"] == 2),
            key=lambda one: one["ts"],
        )
        passes = next(one for one in spans if one["pid"] == pid and one["name"] == "layers")
        assert layers
        assert passes["ts"] <= layers[0]["ts"]
        assert layers[-1]["ts"] + layers[-1]["dur"] <= passes["ts"] + passes["dur"] + 5e3
    # The candidates took turns on one clock.
    turns = [
        one["pid"]
        for one in sorted(
            (one for one in spans if one["name"] == "inference"), key=lambda one: one["ts"]
        )
    ]
    assert turns == [1, 2, 2, 1, 1, 2, 2, 1]


def test_without_it_nothing_is_there(two: Path) -> None:
    assert bench([Candidate(open_bundle(two))], patches=2).profile is None


def test_a_runtime_that_tells_nothing_has_no_layers(two: Path) -> None:
    assert runtime_of(TARGETS["tensorrt"]).layers(two / "model.onnx", 1, IMAGES.numpy(), 3) == []
    found = profile_of(
        {"bundle": "b", "target": "tensorrt"},
        [
            ["load", 0, 0, 5],
            *(["preprocess", 0, 5, 1],) * 2,
            ["model", 0, 6, 1],
            ["decode", 0, 7, 1],
        ],
        [],
    )
    assert found["layers"] == []
    assert found["passes"] == 0
    assert trace_of([found])


def node(
    name: str, kind: str, ts: int, dur: int, inputs: list[list[int]], outputs: list[list[int]]
) -> dict[str, Any]:
    shapes = {
        "input_type_shape": [{"float": one} for one in inputs],
        "output_type_shape": [{"float": one} for one in outputs],
        "op_name": kind,
    }
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": shapes}


def test_events_of_onnx_runtime_become_calls_of_each_run() -> None:
    run = {"cat": "Session", "name": "model_run", "dur": 50, "args": {}}
    conv, gemm = ([[1, 4, 8, 8], [6, 2, 3, 3]], [[1, 6, 4, 4]]), ([[1, 6], [2, 6]], [[1, 2]])
    events = [
        {**run, "ts": 200},
        {**run, "ts": 100},
        node("relu", "Relu", 90, 9, [[]], [[]]),
        node("conv", "Conv", 101, 20, *conv),
        node("head", "Gemm", 130, 3, *gemm),
        node("conv", "Conv", 201, 30, *conv),
        node("head", "Gemm", 240, 5, *gemm),
    ]
    first, second = calls_of(events, 1_000_000)
    assert first == [
        LayerCall("conv", "Conv", "4x8x8 -> 6x4x4, 3x3", 6 * 2 * 9 * 16, 1_001_000, 20_000),
        LayerCall("head", "Gemm", "6 -> 2", 12, 1_030_000, 3_000),
    ]
    assert [(call.start_ns, call.ns) for call in second] == [
        (1_101_000, 30_000),
        (1_140_000, 5_000),
    ]


def test_a_layer_that_is_called_twice_counts_twice() -> None:
    twice = [
        LayerCall("a", "Conv", "", 0, 0, 2_000_000),
        LayerCall("b", "Relu", "", 0, 0, 1_000_000),
        LayerCall("a", "Conv", "", 0, 0, 2_000_000),
    ]
    spans = [[name, 0, place, 1] for place, name in enumerate(("preprocess", "model", "decode"))]
    found = profile_of({}, spans, [twice, twice, twice])
    assert [(one["name"], one["ms"], one["share"]) for one in found["layers"]] == [
        ("a", 4.0, 0.8),
        ("b", 1.0, 0.2),
    ]
