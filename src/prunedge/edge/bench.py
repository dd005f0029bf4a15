"""How long a device takes for the talk's protocol, and how much memory: each bundle in a process of its own, blocks interleaved."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from prunedge.edge.bundle import Bundle
from prunedge.edge.pictures import SUFFIXES, read_picture
from prunedge.errors import BundleError, DataError

BLOCKS = 12
WARMUP = 3
POOL = 64  # pictures of --data that are kept decoded


@dataclass(frozen=True)
class BenchResult:
    """Measurements of one or two bundles on one machine.

    `bundles` holds, for each: `seconds_total` (all patches), `latency_ms` (median, p95, of one batch), `peak_rss_mb` (10^6 bytes),
    `size_mb` (the network's file), `load_seconds`. `ratios` compare the second with the first, block by block of an interleaved
    run: `speedup` median, low and high (10th and 90th percentile of the blocks), `memory`, `size`. Decoding is not timed.
    """

    bundles: list[dict[str, Any]]
    ratios: dict[str, Any] | None
    device: dict[str, Any]
    runtime: str
    threads: int
    batch: int
    patches: int

    def to_json(self) -> dict[str, Any]:
        """A plain dict of everything."""
        return asdict(self)


def bench(
    bundles: Sequence[Bundle], *, patches: int = 3720, batch: int = 1, threads: int = 1, pictures: Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> BenchResult:  # fmt: skip
    """Time bundles on `patches` pictures each, `batch` at a time, with `threads` threads.

    The run is cut into blocks that alternate between the bundles, so that whatever else slows the machine slows all alike.
    `pictures` is a folder whose pictures are classified (decoded beforehand); without it they are noise of a fixed seed, which takes
    a dense network the same time. Raises BundleError when a bundle can't be run, DataError when the folder has no picture.
    """
    if min(patches, batch, threads) < 1:
        raise BundleError("patches, batch and threads must be at least 1", remedy="mend these values")
    batches = -(-patches // batch)
    counts = [len(part) for part in np.array_split(np.arange(batches), min(BLOCKS, batches))]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workers = [stack.enter_context(_Worker(bundle, threads, batch, _pool(bundle, pictures, folder))) for bundle in bundles]
        for worker in workers:
            worker.block(min(WARMUP, batches))
        blocks: list[list[list[float]]] = [[] for _ in workers]
        for done, count in enumerate(counts):
            # Every other block the other bundle goes first: a drifting clock speed favours nobody.
            for place in range(len(workers))[:: 1 if done % 2 == 0 else -1]:
                blocks[place].append(workers[place].block(count))
            if progress is not None:
                progress(sum(counts[: done + 1]), batches, "measuring")
        figures = [_figures(worker, found) for worker, found in zip(workers, blocks, strict=True)]
    return BenchResult(
        bundles=figures, ratios=_ratios(figures, blocks) if len(figures) == 2 else None, device=device(),
        runtime=f"onnxruntime {version('onnxruntime')}, CPU", threads=threads, batch=batch, patches=patches,
    )  # fmt: skip


def device() -> dict[str, Any]:
    """What this machine is: processor, cores that this process may use, operating system, architecture."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": processor(), "cores": cores, "system": f"{platform.system()} {platform.release()}", "machine": platform.machine()}


def processor() -> str:
    """The processor's or board's name, as far as the system tells it."""
    for file, key in (("/proc/device-tree/model", None), ("/proc/cpuinfo", "model name")):
        try:
            text = Path(file).read_text(encoding="utf-8").strip("\0\n")
        except OSError:
            continue
        if key is None:
            return text
        for line in text.splitlines():
            if line.startswith(key):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


class _Worker:
    """A child process that has one bundle loaded."""

    def __init__(self, bundle: Bundle, threads: int, batch: int, pool: str) -> None:
        self.bundle = bundle
        command = [sys.executable, "-m", "prunedge.edge.worker", str(bundle.path), str(threads), str(batch), pool]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.load_seconds = float(self._read()["load_seconds"])
        self.peak_rss_mb = 0.0

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def block(self, batches: int) -> list[float]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"batches": batches}) + "\n")
        self._process.stdin.flush()
        found = self._read()
        self.peak_rss_mb = found["peak_rss_mb"]
        return found["seconds"]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise BundleError(
                f"the process that measures it died (exit code {code})", where=self.bundle.path, remedy="is there enough memory?"
            )
        found = json.loads(line)
        if "error" in found:
            what, where, remedy = found["error"]
            raise BundleError(what, where=where, remedy=remedy)
        return found


def _pool(bundle: Bundle, pictures: Path | None, folder: Path) -> str:
    if pictures is None:
        return "-"
    files = [file for file in sorted(Path(pictures).rglob("*")) if file.suffix.lower() in SUFFIXES]
    if not files:
        raise DataError("no pictures to classify", where=pictures, remedy="name a folder with pictures, or leave --data out")
    size = bundle.manifest.input_size
    chosen = [files[i] for i in np.linspace(0, len(files) - 1, min(POOL, len(files))).astype(int)]
    file = folder / f"{size}.npy"
    if not file.exists():
        np.save(file, np.stack([read_picture(path, size) for path in chosen]))
    return str(file)


def _figures(worker: _Worker, blocks: list[list[float]]) -> dict[str, Any]:
    seconds = np.array([s for block in blocks for s in block])
    return {
        "bundle": str(worker.bundle.path), "model": worker.bundle.manifest.model, "seconds_total": float(seconds.sum()),
        "latency_ms": {"median": float(np.median(seconds)) * 1e3, "p95": float(np.percentile(seconds, 95)) * 1e3},
        "peak_rss_mb": worker.peak_rss_mb, "size_mb": worker.bundle.size_bytes / 1e6, "load_seconds": worker.load_seconds,
        "input_size": worker.bundle.manifest.input_size, "macs": worker.bundle.manifest.macs, "params": worker.bundle.manifest.params,
    }  # fmt: skip


def _ratios(figures: list[dict[str, Any]], blocks: list[list[list[float]]]) -> dict[str, Any]:
    pairs = np.array([sum(a) / sum(b) for a, b in zip(*blocks, strict=True)])
    first, second = figures
    return {
        "speedup": {"median": float(np.median(pairs)), "low": float(np.percentile(pairs, 10)), "high": float(np.percentile(pairs, 90))},
        "memory": first["peak_rss_mb"] / second["peak_rss_mb"], "size": first["size_mb"] / second["size_mb"],
        "macs": first["macs"] / max(1, second["macs"]),
    }  # fmt: skip
