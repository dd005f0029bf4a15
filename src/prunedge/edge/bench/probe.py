"""Times of many small models on this device: what a latency table is made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from prunedge.edge.bench.hardware import device
from prunedge.edge.runtimes import missing, runtime_of
from prunedge.edge.targets import TARGETS
from prunedge.errors import BundleError, PrunedgeError
from prunedge.utils.advice import option

PASSES = (
    3  # over all files, so that a slow moment of the machine does not fall on one of them alone
)
PASS_S = 0.01  # a file is run for so many seconds in a pass
LEAST = 5  # times, whatever that takes
MOST = 50


def require_timed(target: str) -> None:
    """PrunedgeError where single layers can't be timed with a target's runtime."""
    if target not in TARGETS or not TARGETS[target].times_layers:
        *others, last = (name for name, known in TARGETS.items() if known.times_layers)
        raise PrunedgeError(
            f"layers can't be timed as '{target}'",
            where=option("runtime"),
            remedy=f"choose {', '.join(others)} or {last}",
        )


def time_files(
    folder: Path,
    *,
    target: str = "onnx",
    threads: int = 1,
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, Any]:
    """Milliseconds of one run of every *.onnx in a folder: {"ms": {file name: ms}, "runtime": ...,
    "device": ...}.

    A file's time is the median of its runs in the fastest of `PASSES` passes: what disturbs a
    device only ever makes it slower. Raises BundleError when the folder has none, or one can't be
    run.
    """
    files = sorted(folder.glob("*.onnx"))
    if not files:
        raise BundleError(
            "no .onnx file",
            where=folder,
            remedy="this verb is for prunedge itself: see prunedge prune --target-latency",
        )
    require_timed(target)
    runtime = runtime_of(TARGETS[target])
    best: dict[str, float] = {}
    try:
        version = runtime.version()
        for number in range(PASSES):
            for done, file in enumerate(files):
                model, shape = runtime.load(file, threads)
                sizes = [size if isinstance(size, int) else 1 for size in shape]
                image = np.zeros(sizes, np.float32)
                ms = _once(model, image)
                best[file.name] = min(best.get(file.name, ms), ms)
                if progress is not None:
                    progress(number * len(files) + done + 1, PASSES * len(files), "timing layers")
    except ImportError as error:
        raise missing(TARGETS[target], error) from None
    return {"ms": best, "runtime": version, "device": device(), "threads": threads}


def _once(model: Callable[[np.ndarray], np.ndarray], image: np.ndarray) -> float:
    model(image)
    seconds: list[float] = []
    while len(seconds) < LEAST or (sum(seconds) < PASS_S and len(seconds) < MOST):
        started = perf_counter()
        model(image)
        seconds.append(perf_counter() - started)
    return float(np.median(seconds)) * 1e3
