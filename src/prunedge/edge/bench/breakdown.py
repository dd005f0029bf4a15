"""Where the time of a bundle goes: phases of its measurement, parts of an image's way, layers of
the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from prunedge.utils.tracing import Span, trace_events

WARMUP = 3  # batches before those that count
PASSES = 20  # batches that are looked at layer by layer
TRACKS = ("bench", "layers")
IMAGE = ("preprocess", "model", "probabilities")  # the spans of `Session.predict`


class Call(NamedTuple):
    """One layer at work once. `shape` says what it takes and gives, where the runtime tells; `macs`
    only of convolutions and products.

    `start_ns` is on `perf_counter_ns`, which the processes of a machine share.
    """

    name: str
    kind: str
    shape: str
    macs: int
    start_ns: int
    ns: int


def calls_of(events: Sequence[Mapping[str, Any]], began_ns: int) -> list[list[Call]]:
    """The calls of each run in a profile of ONNX Runtime, whose first run began at `began_ns`."""
    runs = sorted((one for one in events if one["name"] == "model_run"), key=lambda one: one["ts"])
    nodes = sorted((one for one in events if one["cat"] == "Node"), key=lambda one: one["ts"])
    return [
        [
            _call(node, began_ns + 1000 * (node["ts"] - runs[0]["ts"]))
            for node in nodes
            if run["ts"] <= node["ts"] < run["ts"] + max(1, run["dur"])
        ]
        for run in runs
    ]


def _call(node: Mapping[str, Any], start_ns: int) -> Call:
    about = node["args"]
    inputs, outputs = (_shapes(about.get(f"{side}_type_shape", [])) for side in ("input", "output"))
    name = node["name"].removesuffix("_kernel_time")
    return Call(
        name,
        about.get("op_name", ""),
        _said(inputs, outputs),
        _macs(about.get("op_name", ""), inputs, outputs),
        start_ns,
        1000 * node["dur"],
    )


def _shapes(told: Sequence[Mapping[str, list[int]]]) -> list[list[int]]:
    return [shape for one in told for shape in one.values()]


def _said(inputs: list[list[int]], outputs: list[list[int]]) -> str:
    first, last = ("x".join(map(str, one[0][1:])) if one else "" for one in (inputs, outputs))
    kernel = (
        f", {inputs[1][2]}x{inputs[1][3]}"
        if len(inputs) > 1 and len(inputs[1]) == 4 and len(inputs[0]) == 4
        else ""
    )
    return f"{first} -> {last}{kernel}"


def _macs(kind: str, inputs: list[list[int]], outputs: list[list[int]]) -> int:
    """Multiply-accumulates from the shapes alone; 0 where they don't say."""
    if len(inputs) < 2 or not outputs:
        return 0
    if "Conv" in kind:
        # Quantised convolutions have scales between the two.
        weight = next((one for one in inputs[1:] if len(one) == 4), None)
        return prod(weight) * outputs[0][0] * prod(outputs[0][2:]) if weight else 0
    return (
        prod(outputs[0]) * inputs[0][-1]
        if kind in ("Gemm", "MatMul", "FusedGemm") and inputs[0]
        else 0
    )


def profile_of(
    about: Mapping[str, Any], spans: Sequence[Sequence[Any]], passes: Sequence[Sequence[Call]]
) -> dict[str, Any]:
    """What a worker saw, as a plain record: `parts` in seconds, `image_ms`, `layers` with the
    slowest first, and each span and call.

    Milliseconds are medians, of one batch; shares are of all layers together.
    """
    recorded = [Span(*one) for one in spans]
    names = list(
        dict.fromkeys(
            (call.name, call.kind, call.shape, call.macs) for one in passes for call in one
        )
    )
    places = {name: place for place, name in enumerate(names)}
    taken: dict[int, list[float]] = {}
    for calls in passes:
        once: dict[int, float] = {}
        for call in calls:
            place = places[call[:4]]
            once[place] = once.get(place, 0.0) + call.ns / 1e6
        for place, sum_ms in once.items():
            taken.setdefault(place, []).append(sum_ms)
    ms = {place: median(several) for place, several in taken.items()}
    whole = sum(ms.values())
    layers = [
        {
            "name": name,
            "kind": kind,
            "shape": shape,
            "macs": macs,
            "ms": ms[place],
            "share": ms[place] / whole if whole else 0.0,
            "macs_per_ms": macs / ms[place] if macs and ms[place] else None,
            "place": place,
        }
        for place, (name, kind, shape, macs) in enumerate(names)
    ]
    return {
        **about,
        "parts": [
            {
                "part": part,
                "seconds": sum(one.duration_ns for one in recorded if one.name == part) / 1e9,
            }
            for part in dict.fromkeys(one.name for one in recorded)
            if part not in IMAGE
        ],
        "image_ms": {
            part: median(one.duration_ns for one in recorded if one.name == part) / 1e6
            for part in IMAGE
        },
        "layers": sorted(layers, key=lambda one: -one["ms"]),
        "passes": len(passes),
        "spans": [list(one) for one in recorded],
        "calls": [[places[call[:4]], call.start_ns, call.ns] for one in passes for call in one],
    }


def trace_of(profiles: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Trace events of all candidates, a process each: what it was doing, and its layers below."""
    origin = min(one[2] for profile in profiles for one in profile["spans"])
    events: list[dict[str, Any]] = []
    for number, profile in enumerate(profiles, 1):
        layers = {one["place"]: one["name"] for one in profile["layers"]}
        spans = [Span(*one) for one in profile["spans"]]
        calls = [Span(layers[place], 1, start, ns) for place, start, ns in profile["calls"]]
        events += trace_events(
            [*spans, *calls],
            TRACKS,
            origin,
            f"{Path(profile['bundle']).name}, {profile['target']}",
            number,
        )
    return events
