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
IMAGE = ("preprocess", "model", "decode")  # the spans of `Session.predict`


class LayerCall(NamedTuple):
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


def calls_of(events: Sequence[Mapping[str, Any]], began_ns: int) -> list[list[LayerCall]]:
    """The calls of each run in a profile of ONNX Runtime, whose first run began at `began_ns`."""
    in_time = sorted(events, key=lambda event: event["ts"])
    runs = [event for event in in_time if event["name"] == "model_run"]
    nodes = [event for event in in_time if event["cat"] == "Node"]
    calls = []
    for run in runs:
        end = run["ts"] + max(1, run["dur"])
        inside = [node for node in nodes if run["ts"] <= node["ts"] < end]
        calls.append(
            [_call(node, began_ns + 1000 * (node["ts"] - runs[0]["ts"])) for node in inside]
        )
    return calls


def _call(node: Mapping[str, Any], start_ns: int) -> LayerCall:
    about = node["args"]
    inputs = _shapes(about.get("input_type_shape", []))
    outputs = _shapes(about.get("output_type_shape", []))
    kind = about.get("op_name", "")
    return LayerCall(
        name=node["name"].removesuffix("_kernel_time"),
        kind=kind,
        shape=_shape_text(inputs, outputs),
        macs=_macs(kind, inputs, outputs),
        start_ns=start_ns,
        ns=1000 * node["dur"],
    )


def _shapes(typed: Sequence[Mapping[str, list[int]]]) -> list[list[int]]:
    return [shape for tensor in typed for shape in tensor.values()]


def _shape_text(inputs: list[list[int]], outputs: list[list[int]]) -> str:
    """`64x56x56 -> 128x28x28, 3x3`: an example's shape, and a filter's."""
    kernel = ""
    if len(inputs) > 1 and len(inputs[1]) == 4 and len(inputs[0]) == 4:
        kernel = f", {inputs[1][2]}x{inputs[1][3]}"
    return f"{_example_text(inputs)} -> {_example_text(outputs)}{kernel}"


def _example_text(shapes: list[list[int]]) -> str:
    return "x".join(map(str, shapes[0][1:])) if shapes else ""


def _macs(kind: str, inputs: list[list[int]], outputs: list[list[int]]) -> int:
    """Multiply-accumulates from the shapes alone; 0 where they don't say."""
    if len(inputs) < 2 or not outputs:
        return 0
    if "Conv" in kind:
        # Quantised convolutions have scales between the two.
        weight = next((shape for shape in inputs[1:] if len(shape) == 4), None)
        return prod(weight) * outputs[0][0] * prod(outputs[0][2:]) if weight else 0
    if kind in ("Gemm", "MatMul", "FusedGemm") and inputs[0]:
        return prod(outputs[0]) * inputs[0][-1]
    return 0


def profile_of(
    about: Mapping[str, Any], spans: Sequence[Sequence[Any]], passes: Sequence[Sequence[LayerCall]]
) -> dict[str, Any]:
    """What a worker saw, as a plain record: `parts` in seconds, `image_ms`, `layers` with the
    slowest first, and each span and call.

    Milliseconds are medians, of one batch; shares are of all layers together.
    """
    recorded = [Span(*span) for span in spans]
    numbers: dict[tuple[Any, ...], int] = {}
    calls = []
    for call in (call for calls_of_pass in passes for call in calls_of_pass):
        number = numbers.setdefault(call[:4], len(numbers))
        calls.append([number, call.start_ns, call.ns])

    names = dict.fromkeys(span.name for span in recorded)
    parts = []
    for name in names:
        if name not in IMAGE:
            nanoseconds = sum(span.duration_ns for span in recorded if span.name == name)
            parts.append({"part": name, "seconds": nanoseconds / 1e9})
    image_ms = {}
    for name in IMAGE:
        image_ms[name] = median(span.duration_ns for span in recorded if span.name == name) / 1e6
    return {
        **about,
        "parts": parts,
        "image_ms": image_ms,
        "layers": _layers(numbers, passes),
        "passes": len(passes),
        "spans": [list(span) for span in recorded],
        "calls": calls,
    }


def _layers(
    numbers: Mapping[tuple[Any, ...], int], passes: Sequence[Sequence[LayerCall]]
) -> list[dict[str, Any]]:
    """Each layer's median milliseconds over the passes, the slowest first."""
    taken: dict[int, list[float]] = {}
    for calls in passes:
        in_pass: dict[int, float] = {}
        for call in calls:
            number = numbers[call[:4]]
            in_pass[number] = in_pass.get(number, 0.0) + call.ns / 1e6
        for number, milliseconds in in_pass.items():
            taken.setdefault(number, []).append(milliseconds)
    ms = {number: median(times) for number, times in taken.items()}
    total = sum(ms.values())

    layers = []
    for (name, kind, shape, macs), number in numbers.items():
        layer = {
            "name": name,
            "kind": kind,
            "shape": shape,
            "macs": macs,
            "ms": ms[number],
            "share": ms[number] / total if total else 0.0,
            "macs_per_ms": macs / ms[number] if macs and ms[number] else None,
            "place": number,
        }
        layers.append(layer)
    return sorted(layers, key=lambda layer: -layer["ms"])


def trace_of(profiles: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Trace events of all candidates, a process each: what it was doing, and its layers below."""
    origin = min(span[2] for profile in profiles for span in profile["spans"])
    events: list[dict[str, Any]] = []
    for number, profile in enumerate(profiles, 1):
        layers = {layer["place"]: layer["name"] for layer in profile["layers"]}
        spans = [Span(*span) for span in profile["spans"]]
        calls = [Span(layers[place], 1, start, ns) for place, start, ns in profile["calls"]]
        process = f"{Path(profile['bundle']).name}, {profile['target']}"
        events += trace_events([*spans, *calls], TRACKS, origin, process, number)
    return events
