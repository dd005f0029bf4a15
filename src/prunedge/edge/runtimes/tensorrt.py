"""TensorRT, through ONNX Runtime's provider for it: Jetsons and other NVIDIA cards."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prunedge.edge.bench.breakdown import LayerCall
from prunedge.edge.runtimes import Model, at_fixed_batch
from prunedge.edge.runtimes.onnx import start
from prunedge.errors import BundleError

PROVIDER = "TensorrtExecutionProvider"
CACHE = (
    ".tensorrt"  # beside the bundle's files: engines belong to one card and one version of TensorRT
)


def version() -> str:
    """Name, version and device."""
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}, TensorRT"


def load(file: Path, threads: int, *, flush: bool = True) -> tuple[Model, list[int | str]]:
    """The model in an ONNX file as a TensorRT engine of half precision: built at the first start
    (minutes), kept beside the file.

    Raises BundleError where this ONNX Runtime has no TensorRT: nothing else runs in its place.
    """
    import onnxruntime

    if PROVIDER not in onnxruntime.get_available_providers():
        remedy = (
            "on a Jetson install the onnxruntime-gpu wheel of its JetPack, elsewhere "
            "onnxruntime-gpu in the place of onnxruntime"
        )
        raise BundleError("this ONNX Runtime has no TensorRT", where=file, remedy=remedy)
    cache = file.parent / CACHE
    settings = {
        "trt_fp16_enable": True,
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(cache),
    }
    session = start(file, threads, [(PROVIDER, settings)], flush=flush)
    if session.get_providers()[0] != PROVIDER:
        raise BundleError(
            "TensorRT did not start on this machine",
            where=file,
            remedy="is the NVIDIA driver installed? try trtexec",
        )
    first = session.get_inputs()[0]

    def model(inputs: np.ndarray) -> np.ndarray:
        return session.run(None, {first.name: inputs})[0]

    shape = list(first.shape)
    return (at_fixed_batch(model, shape[0]) if isinstance(shape[0], int) else model), shape


def layers(file: Path, threads: int, inputs: np.ndarray, passes: int) -> list[list[LayerCall]]:
    """Nothing: an engine is one node for ONNX Runtime."""
    return []


def tiny_weights(file: Path) -> int | None:
    """Of no account: an engine of half precision has no such numbers."""
    return 0
