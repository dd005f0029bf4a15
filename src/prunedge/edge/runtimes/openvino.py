"""OpenVINO on the CPU: Intel's processors, and Arm's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prunedge.edge.runtimes import Network
from prunedge.errors import BundleError


def version() -> str:
    """Name, version and device."""
    import openvino

    return f"openvino {openvino.__version__.split('-')[0]}, CPU"


def load(file: Path, threads: int) -> tuple[Network, list[int | str]]:
    """The network in an OpenVINO IR file, computed in float32 (some processors would choose bfloat16 by themselves)."""
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    try:
        compiled = core.compile_model(core.read_model(file), "CPU", settings)
        first, *others = compiled.inputs
        shape = [axis.get_length() if axis.is_static else "batch" for axis in first.get_partial_shape()]
    except Exception as error:  # openvino raises RuntimeError and kinds of its own
        why = " ".join(str(error).split())[:160]
        raise BundleError(f"OpenVINO can't load the network: {why}", where=file, remedy="export the bundle again") from None
    if others:
        raise BundleError("the network takes more than one input", where=file, remedy="export the bundle again")
    request = compiled.create_infer_request()

    def network(inputs: np.ndarray) -> np.ndarray:
        request.infer([inputs], share_inputs=True)
        return request.get_output_tensor(0).data.copy()

    return network, shape
