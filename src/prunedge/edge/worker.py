"""The process that a bundle is measured in, so that its memory is its own. Commands come on stdin, answers go to stdout, as JSON."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from time import perf_counter

import numpy as np

from prunedge.edge.bundle import open_bundle
from prunedge.edge.runtime import Session, open_session
from prunedge.errors import PrunedgeError


def main() -> None:
    """Load the bundle named first on the command line, then time the blocks that stdin asks for."""
    path, threads, batch, pool = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    try:
        started = perf_counter()
        bundle = open_bundle(path)
        session = open_session(bundle, threads)
        answer({"ready": True, "load_seconds": perf_counter() - started})
        pixels = _pool(Path(pool) if pool != "-" else None, bundle.manifest.input_size, batch)
        for line in sys.stdin:
            answer({"seconds": _block(session, pixels, batch, int(json.loads(line)["batches"])), "peak_rss_mb": _peak_mb()})
    except PrunedgeError as error:
        answer({"error": [error.what, str(error.where), error.remedy]})


def answer(value: object) -> None:
    """One line of JSON to the parent."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _block(session: Session, pixels: np.ndarray, batch: int, batches: int) -> list[float]:
    """Seconds of each batch: preprocessing of decoded pixels, network, probabilities."""
    seconds, places = [], max(1, len(pixels) - batch + 1)
    for i in range(batches):
        first = (i * batch) % places
        started = perf_counter()
        session.predict(pixels[first : first + batch])
        seconds.append(perf_counter() - started)
    return seconds


def _pool(file: Path | None, size: int, batch: int) -> np.ndarray:
    """Pictures to classify, (n, size, size, 3) uint8: those in `file`, or noise from a fixed seed."""
    if file is not None:
        found = np.load(file, allow_pickle=False)
        return np.concatenate([found] * -(-batch // len(found)))
    return np.random.default_rng(0).integers(0, 256, (max(16, batch), size, size, 3), dtype=np.uint8)


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10) * 2**20 / 1e6


if __name__ == "__main__":
    main()
