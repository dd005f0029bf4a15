"""OpenVINO on the CPU: Intel's processors, and Arm's."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np

from prunedge.edge.bench.breakdown import LayerCall
from prunedge.edge.denormals import count_tiny
from prunedge.edge.runtimes import Model, at_fixed_batch, filled
from prunedge.errors import BundleError
from prunedge.utils.machine import pass_on


def version() -> str:
    """Name, version and device."""
    import openvino

    return f"openvino {openvino.__version__.split('-')[0]}, CPU"


def load(file: Path, threads: int, *, flush: bool = True) -> tuple[Model, list[int | str]]:
    """The model in an OpenVINO IR file, computed in float32 (some processors would choose
    bfloat16 by themselves).
    """
    compiled = _compiled(file, threads, {"CPU_DENORMALS_OPTIMIZATION": flush})
    try:
        first, *others = compiled.inputs
        shape = [
            axis.get_length() if axis.is_static else "batch" for axis in first.get_partial_shape()
        ]
    except Exception as error:
        raise _unloadable(file, error) from None
    if others:
        raise BundleError(
            "the model takes more than one input", where=file, remedy="export the bundle again"
        )
    request = compiled.create_infer_request()

    def model(inputs: np.ndarray) -> np.ndarray:
        request.infer([inputs], share_inputs=True)
        return request.get_output_tensor(0).data.copy()

    return (at_fixed_batch(model, shape[0]) if isinstance(shape[0], int) else model), shape


def layers(file: Path, threads: int, inputs: np.ndarray, passes: int) -> list[list[LayerCall]]:
    """What each node that ran took in each pass. OpenVINO tells how long, not when: they are laid
    one after the other.
    """
    compiled = _compiled(file, threads, {"PERF_COUNT": True})
    size = compiled.inputs[0].get_partial_shape()[0]
    inputs = filled(inputs, size.get_length() if size.is_static else "batch")
    request = compiled.create_infer_request()
    calls_of_passes = []
    for _ in range(passes):
        start, calls = perf_counter_ns(), []
        request.infer([inputs], share_inputs=True)
        for node in request.get_profiling_info():
            if ns := round(node.real_time.total_seconds() * 1e9):
                calls.append(LayerCall(node.node_name, node.node_type, "", 0, start, ns))
                start += ns
        calls_of_passes.append(calls)
    return calls_of_passes


def tiny_weights(file: Path) -> int | None:
    """How many of its constants are tiny."""
    import openvino

    nodes = openvino.Core().read_model(file).get_ops()
    constants = [node for node in nodes if node.get_type_name() == "Constant"]
    return sum(count_tiny(node.data) for node in constants)


def _compiled(file: Path, threads: int, more: dict[str, Any] | None = None) -> Any:
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    try:
        return core.compile_model(core.read_model(file), "CPU", {**settings, **(more or {})})
    except Exception as error:  # openvino raises RuntimeError and kinds of its own
        raise _unloadable(file, error) from None


def _unloadable(file: Path, error: Exception) -> BundleError:
    pass_on(error, where=file)
    why = " ".join(str(error).split())[:160]
    return BundleError(
        f"OpenVINO can't load the model: {why}", where=file, remedy="export the bundle again"
    )
