"""ONNX Runtime on a bundle: pixels in, probabilities out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from prunedge.edge.bundle import Bundle
from prunedge.edge.pictures import normalise
from prunedge.errors import BundleError


@dataclass(frozen=True)
class Session:
    """A loaded network. `threads` is what one inference may use."""

    bundle: Bundle
    threads: int
    _session: Any

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """Outputs (n, classes) float32 for inputs (n, 3, size, size) float32."""
        return self._session.run(None, {self._session.get_inputs()[0].name: inputs})[0]

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Probabilities (n, classes) float32 for pictures (n, size, size, 3) uint8."""
        manifest = self.bundle.manifest
        values = self.logits(normalise(pixels, manifest.mean, manifest.std))
        exponents = np.exp(values - values.max(1, keepdims=True))
        return exponents / exponents.sum(1, keepdims=True)


def open_session(bundle: Bundle, threads: int = 1) -> Session:
    """Load a bundle's network with ONNX Runtime on the CPU; BundleError when it can't be loaded or doesn't fit the manifest."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(bundle.network), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises kinds of its own, none of them public
        why = " ".join(str(error).split())[:160]
        raise BundleError(f"ONNX Runtime can't load the network: {why}", where=bundle.network, remedy="export the bundle again") from None
    shape = session.get_inputs()[0].shape
    size = bundle.manifest.input_size
    if list(shape[1:]) != [3, size, size]:
        raise BundleError(
            f"the network wants {shape}, the manifest says {size} pixels", where=bundle.network, remedy="export the bundle again"
        )
    return Session(bundle, threads, session)
