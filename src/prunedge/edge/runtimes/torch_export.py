"""torch's own exported program, a .pt2, run by torch."""

from __future__ import annotations

from importlib.metadata import version as installed
from pathlib import Path

import numpy as np

from prunedge.edge.bench.breakdown import LayerCall
from prunedge.edge.runtimes import Model
from prunedge.edge.runtimes.pt2_file import require_plain
from prunedge.errors import BundleError
from prunedge.utils.machine import pass_on


def version() -> str:
    """Name, version and device."""
    return f"torch {installed('torch')}, CPU"


def load(file: Path, threads: int, *, flush: bool = True) -> tuple[Model, list[int | str]]:
    """The model in a .pt2 file; it takes one image at a time. `flush` and `threads` are of torch as
    a whole in this process.
    """
    import torch

    try:
        shape = require_plain(file)
    except ValueError as error:
        raise _unloadable(file, str(error)) from None
    try:
        module = torch.export.load(file).module()
    except Exception as error:  # torch raises many kinds
        pass_on(error, where=file)
        raise _unloadable(file, " ".join(str(error).split())[:160]) from None
    torch.set_num_threads(threads)
    torch.set_flush_denormal(flush)

    def model(inputs: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.concatenate([module(torch.from_numpy(image[None])) for image in inputs])

    return model, ["one by one", *shape[1:]]


def layers(file: Path, threads: int, inputs: np.ndarray, passes: int) -> list[list[LayerCall]]:
    """Nothing: torch's profiler has a form of its own."""
    return []


def tiny_weights(file: Path) -> int | None:
    """Not looked for: what runs torch can export the bundle again."""
    return None


def _unloadable(file: Path, why: str) -> BundleError:
    return BundleError(
        f"torch can't load the model: {why}", where=file, remedy="export the bundle again"
    )
