"""ncnn on the CPU in half precision, where the processor has it (Arm's do); else in float32 with
weights that are stored in half precision.
"""

from __future__ import annotations

from pathlib import Path

from prunedge.edge.runtimes import Model
from prunedge.edge.runtimes.ncnn import layers, load_with, tiny_weights, version

__all__ = ["layers", "load", "tiny_weights", "version"]


def load(file: Path, threads: int, *, flush: bool = True) -> tuple[Model, list[int | str]]:
    """The model in a .param file and the .bin beside it; it takes one image at a time."""
    return load_with(file, threads, is_half=True)
