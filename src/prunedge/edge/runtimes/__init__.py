"""The runtimes that a device may have, one small module each: `version` and `load`.
`prunedge.edge.targets` says which file each runs.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from prunedge.edge.bench.breakdown import LayerCall
from prunedge.edge.targets import Target
from prunedge.errors import ExtraMissing
from prunedge.utils.machine import pass_on

Model = Callable[
    [np.ndarray], np.ndarray
]  # (n, channels, height, width) float32 to logits (n, classes) float32


class Runtime(Protocol):
    """What a module of this package has."""

    def version(self) -> str:
        """Name, version and device of the runtime, as a result should say it."""

    def load(
        self, file: Path, threads: int, *, flush: bool = True
    ) -> tuple[Model, list[int | str]]:
        """The model in the file, with `threads` threads, and the shape (n, channels, height, width)
        that it takes; a name stands for any number. With `flush` denormal numbers are taken for
        zeros, where the runtime can be asked to.

        Raises BundleError when the runtime can't load it, ImportError when the runtime is not
        installed.
        """

    def layers(
        self, file: Path, threads: int, inputs: np.ndarray, passes: int
    ) -> list[list[LayerCall]]:
        """What each layer took in each of so many passes of a batch, with the runtime's own clock;
        empty where it tells nothing.
        """

    def tiny_weights(self, file: Path) -> int | None:
        """How many of the model's float32 constants are so small that they make processors slow
        (`prunedge.edge.denormals`); None where that isn't known.
        """


def at_fixed_batch(model: Model, size: int) -> Model:
    """A model that takes `size` images at a time as one that takes any number: the last are
    repeated to fill a batch, and what comes of these is left out.
    """

    def run(inputs: np.ndarray) -> np.ndarray:
        outputs = []
        for first in range(0, len(inputs), size):
            batch = inputs[first : first + size]
            outputs.append(model(filled(batch, size))[: len(batch)])
        return np.concatenate(outputs)

    return run


def filled(inputs: np.ndarray, size: int | str) -> np.ndarray:
    """Inputs (n, ...) as (size, ...): the first of them, or the last one repeated; as they are
    where `size` is no number.
    """
    if isinstance(size, str):
        return inputs
    repeated = np.repeat(inputs[-1:], max(0, size - len(inputs)), axis=0)
    return np.concatenate([inputs[:size], repeated])


def runtime_of(target: Target) -> Runtime:
    """The runtime that a target needs."""
    return cast("Runtime", import_module(f"prunedge.edge.runtimes.{target.runtime}"))


def missing(target: Target, error: ImportError, extra: str | None = None) -> ExtraMissing:
    """What to say when the target's runtime, or what another `extra` brings, is not installed.

    Raises MachineError where it can't be loaded now.
    """
    pass_on(error)  # a library that gets no memory can't be loaded, and is installed all the same
    extra = extra or target.extra
    remedy = f"pip install 'prunedge[{extra}]'" if extra else "pip install prunedge"
    return ExtraMissing(
        f"'{target.name}' needs {error.name}, which is not installed", remedy=remedy
    )
