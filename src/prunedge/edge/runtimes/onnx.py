"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prunedge.edge.runtimes import Network
from prunedge.errors import BundleError


def version() -> str:
    """Name, version and device."""
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}, CPU"


def load(file: Path, threads: int) -> tuple[Network, list[int | str]]:
    """The network in an ONNX file."""
    session = start(file, threads, ["CPUExecutionProvider"])
    first = session.get_inputs()[0]
    return lambda inputs: session.run(None, {first.name: inputs})[0], list(first.shape)


def start(file: Path, threads: int, providers: Sequence[Any]) -> Any:
    """A session of ONNX Runtime; BundleError when it can't load the file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=list(providers))
        if len(session.get_inputs()) == 1 and session.get_inputs()[0].type == "tensor(float)":
            return session
        why = "it takes something else than one tensor of float32"
    except Exception as error:  # onnxruntime raises kinds of its own, none of them public
        why = " ".join(str(error).split())[:160]
    raise BundleError(f"ONNX Runtime can't load the network: {why}", where=file, remedy="export the bundle again")
