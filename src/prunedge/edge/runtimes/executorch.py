"""ExecuTorch with XNNPACK: phones and small boards."""

from __future__ import annotations

from importlib.metadata import version as installed
from pathlib import Path

import numpy as np

from prunedge.edge.bench.breakdown import LayerCall
from prunedge.edge.runtimes import Model
from prunedge.errors import BundleError
from prunedge.utils.machine import pass_on


def version() -> str:
    """Name, version and device."""
    return f"executorch {installed('executorch')}, XNNPACK on the CPU"


def load(file: Path, threads: int, *, flush: bool = True) -> tuple[Model, list[int | str]]:
    """The model in a .pte file; it takes one image at a time. It has no setting for denormals."""
    import torch
    from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
    from executorch.runtime import Runtime, Verification

    _unsafe_reset_threadpool(threads)  # unsafe while a model runs; none does yet
    try:
        method = (
            Runtime.get()
            .load_program(file, verification=Verification.InternalConsistency)
            .load_method("forward")
        )
        assert method is not None
        shape = list(method.metadata.input_tensor_meta(0).sizes())
    except Exception as error:  # executorch raises RuntimeError and kinds of its own
        pass_on(error, where=file)
        why = " ".join(str(error).split())[:160]
        raise BundleError(
            f"ExecuTorch can't load the model: {why}",
            where=file,
            remedy="export the bundle again",
        ) from None

    def model(inputs: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [method.execute([torch.from_numpy(image[None])])[0].numpy() for image in inputs]
        )

    return model, ["one by one", *shape[1:]]


def layers(file: Path, threads: int, inputs: np.ndarray, passes: int) -> list[list[LayerCall]]:
    """Nothing: its Python binding doesn't tell."""
    return []


def tiny_weights(file: Path) -> int | None:
    """Not known: XNNPACK's own form of the weights is in the file."""
    return None
