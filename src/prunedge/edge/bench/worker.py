"""The process that a model is measured in, so that its memory is its own. Commands come on stdin,
answers go to stdout, as JSON.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from prunedge.edge.bench.breakdown import WARMUP
from prunedge.edge.bench.workload import ResourceLimits
from prunedge.edge.bundle import open_bundle
from prunedge.edge.image.normalise import normalise
from prunedge.edge.runtimes import runtime_of
from prunedge.edge.session import Session, open_session
from prunedge.edge.tasks.base import TaskSpec
from prunedge.errors import MachineError, PrunedgeError
from prunedge.utils.machine import lacks_memory, machine_error
from prunedge.utils.systems import (
    limit_memory,
    limit_memory_to_machine,
    limit_processors,
    peak_memory_bytes,
)
from prunedge.utils.tracing import Recorder, recording, span


def main() -> None:
    """Load what the command line's JSON names (`candidates.CandidateProcess`), then time the blocks
    that stdin asks for.
    """
    orders = json.loads(sys.argv[1])
    try:
        if orders["cpus"] is not None:
            limit_processors(orders["cpus"])
        limit_memory_to_machine()
        if orders["memory_mb"] is not None:
            limit_memory(orders["memory_mb"] * 10**6)
        recorder = Recorder()
        with recording(recorder):
            started = perf_counter()
            with span("load"):
                bundle = open_bundle(orders["bundle"])
                session = open_session(
                    bundle, orders["threads"], orders["target"], flush=orders["flush"]
                )
            loaded = perf_counter() - started
            with span("self-test"):
                tested = asdict(session.self_test())
            answer({"load_seconds": loaded, "runtime": session.runtime, "self_test": tested})
            with span("images"):
                pixels = _pool(
                    Path(orders["pool"]) if orders["pool"] else None,
                    bundle.manifest.task,
                    orders["largest"],
                )
        for line in sys.stdin:
            asked = json.loads(line)
            if asked["what"] == "profile":
                answer(_profile(recorder, session, pixels[: asked["batch"]], asked["batches"]))
                continue
            # Not `recording`: what an image passes through would be timed as well, and that takes
            # time.
            recorder.open(asked["what"])
            seconds = _block(session, pixels, asked["batch"], asked["batches"])
            recorder.close()
            answer({"seconds": seconds, "peak_rss_mb": peak_memory_bytes() / 1e6})
    except Exception as error:
        if lacks_memory(error):
            answer(_no_memory(orders))
        elif isinstance(error, PrunedgeError):
            where = orders["bundle"] if error.where is None else error.where
            answer({"error": [error.what, str(where), error.remedy]})
        else:
            trouble = machine_error(error, where=orders["bundle"])
            if trouble is None:
                raise
            told = [trouble.what, str(trouble.where), trouble.remedy]
            answer({"error": told, "is_machines": True})


def _no_memory(orders: dict[str, Any]) -> dict[str, Any]:
    """What is told where there is too little memory."""
    error = ResourceLimits(memory_mb=orders["memory_mb"]).no_memory(orders["bundle"])
    told = [error.what, str(error.where), error.remedy]
    return {"error": told, "is_machines": isinstance(error, MachineError)}


def answer(value: Any) -> None:
    """One line of JSON to the parent."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _block(session: Session, pixels: np.ndarray, batch: int, batches: int) -> list[float]:
    """Seconds of each batch: preprocessing of decoded pixels, model, decoding of its outputs."""
    seconds, places = [], max(1, len(pixels) - batch + 1)
    for i in range(batches):
        first = (i * batch) % places
        started = perf_counter()
        session.predict(pixels[first : first + batch])
        seconds.append(perf_counter() - started)
    return seconds


def _profile(
    recorder: Recorder, session: Session, pixels: np.ndarray, passes: int
) -> dict[str, Any]:
    """All spans so far, and those of a few more batches: on the way through the model, and layer
    by layer.
    """
    with recording(recorder), span("closer look"):
        for _ in range(WARMUP + passes):
            session.predict(pixels)
    manifest, file = session.bundle.manifest, session.bundle.model(session.target.name)
    inputs = normalise(pixels, manifest.mean, manifest.std)
    with recording(recorder), span("layers"):
        calls = runtime_of(session.target).layers(file, session.threads, inputs, WARMUP + passes)
    return {"spans": recorder.spans, "calls": calls[WARMUP:]}


def _pool(file: Path | None, task: TaskSpec, batch: int) -> np.ndarray:
    """Images (n, height, width, channels) uint8: those in `file`, or noise from a fixed seed."""
    if file is not None:
        images = np.load(file, allow_pickle=False)
        return np.concatenate([images] * -(-batch // len(images)))
    shape = (max(16, batch), *task.size, task.in_channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


if __name__ == "__main__":
    main()
