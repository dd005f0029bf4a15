"""How long a device takes for a number of patches, how much memory and energy: each candidate in
its own process, blocks interleaved.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prunedge.edge.bench.breakdown import WARMUP
from prunedge.edge.bench.candidates import Candidate, CandidateProcess
from prunedge.edge.bench.denormals import denormals_of
from prunedge.edge.bench.hardware import device, state
from prunedge.edge.bench.images import pool_of
from prunedge.edge.bench.ratios import speedup
from prunedge.edge.bench.workload import ROUNDS, ResourceLimits, Workload
from prunedge.errors import BundleError
from prunedge.utils.arguments import require

# Seconds of each batch, block by block.
Blocks = list[list[float]]
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class BenchResult:
    """Measurements of one or several candidates on one machine.

    `bundles` holds, for each: `seconds_total` (all patches), `latency_ms` (median, p95, p99, of one
    batch), `throughput` (images a second by batch size), `peak_rss_mb` (10^6 bytes), `size_mb`
    (the model's files), `float_layers` (of a form in integers, those that are float),
    `load_seconds`, `self_test` (its answers here beside those where it was
    exported), `joules` for an image where the device has a counter, and `denormals`
    (`denormals.denormals_of`). `ratios` compare each with
    the first: `speedup` (`ratios.speedup`: of the medians, with the percentiles of the interleaved
    blocks), `memory`, `size`, `macs`. `before` and `after` say what temperature, clock and
    throttling were. Decoding is not timed. `profile` says for each where its time went
    (`breakdown.profile_of`), where that was asked for.
    """

    bundles: list[dict[str, Any]]
    ratios: list[dict[str, Any]]
    device: dict[str, Any]
    threads: int
    batch: int
    patches: int
    limits: dict[str, Any]
    before: dict[str, float]
    after: dict[str, float]
    profile: list[dict[str, Any]] | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain dict of everything."""
        return asdict(self)


def bench(
    candidates: Sequence[Candidate],
    *,
    patches: int = 3720,
    batch: int = 1,
    threads: int = 1,
    batches: Sequence[int] = (),
    images: Path | None = None,
    limits: ResourceLimits | None = None,
    profile: bool = False,
    progress: Progress | None = None,
) -> BenchResult:
    """Time each candidate on `patches` images, `batch` at a time, with `threads` threads; then a
    few blocks of each size in `batches`.

    The run is cut into blocks that alternate between the candidates, so that whatever else slows
    the machine slows all alike. Each must first pass its self-test. `images` is a folder whose
    images are classified (decoded beforehand); without it they are noise of a fixed seed, which
    takes a dense model the same time. With `profile` a few more batches are looked at closely,
    after all others. Raises BundleError when a bundle can't be run or answers wrongly, DataError
    when the folder has no image.
    """
    require("candidates", candidates, (list, tuple), "a list of prunedge.Candidate")
    for candidate in candidates:
        require("candidates", candidate, Candidate, "a list of prunedge.Candidate(bundle)")
    if not candidates:
        raise BundleError("no bundle to measure", remedy="give a prunedge.Candidate(bundle)")
    for name, number in (("patches", patches), ("batch", batch), ("threads", threads)):
        require(name, number, int, "a whole number")
    workload = Workload(
        patches=patches,
        batch=batch,
        threads=threads,
        batches=tuple(batches),
        limits=limits or ResourceLimits(),
        profile=profile,
    )
    return measure(candidates, workload, images, progress)


def measure(
    candidates: Sequence[Candidate],
    workload: Workload,
    images: Path | None = None,
    progress: Progress | None = None,
) -> BenchResult:
    """The same, for a workload."""
    before = state()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workers = []
        for candidate in candidates:
            pool = pool_of(candidate.bundle, images, folder)
            workers.append(stack.enter_context(CandidateProcess(candidate, workload, pool)))
        blocks = _blocks(workers, workload, progress)
        rates = _rates(workers, workload, progress)
        denormals = [denormals_of(worker, workload) for worker in workers]
        seen = None
        if workload.profile:
            seen = [worker.profile(workload.batch) for worker in workers]

    figures = []
    for worker, own_blocks, own_rates, found in zip(workers, blocks, rates, denormals, strict=True):
        figures.append({**_figures(worker, own_blocks, own_rates), "denormals": found})
    return BenchResult(
        bundles=figures,
        ratios=_ratios(figures, blocks),
        device=device(),
        threads=workload.threads,
        batch=workload.batch,
        patches=workload.patches,
        limits=workload.limits.given(),
        before=before,
        after=state(),
        profile=seen,
    )


def _blocks(
    workers: Sequence[CandidateProcess], workload: Workload, progress: Progress | None
) -> list[Blocks]:
    """Each worker's blocks of the patches, after a warm-up, and what energy they took."""
    batch = workload.batch
    counts = workload.blocks()
    for worker in workers:
        worker.block(batch, min(WARMUP, workload.total), "warm-up")

    blocks: list[Blocks] = [[] for _ in workers]
    for done, count in enumerate(counts):
        _round(workers, blocks, batch, count, done)
        if progress is not None:
            progress(done + 1, _steps(workload), "measuring")

    for worker in workers:
        if worker.has_counter:
            worker.joules_for_image = worker.joules / (batch * sum(counts))
    return blocks


def _rates(
    workers: Sequence[CandidateProcess], workload: Workload, progress: Progress | None
) -> list[dict[int, float]]:
    """Images a second of each worker by batch size: the median over the blocks."""
    rates: list[dict[int, float]] = [{} for _ in workers]
    done = len(workload.blocks())
    for batch in workload.batches:
        blocks: list[Blocks] = [[] for _ in workers]
        for number in range(ROUNDS):
            _round(workers, blocks, batch, 2, number, "larger batches")
            done += 1
            if progress is not None:
                progress(done, _steps(workload), "larger batches")
        for rate, own_blocks in zip(rates, blocks, strict=True):
            # The first block of a new size is the warm-up.
            rate[batch] = batch / float(np.median(np.concatenate(own_blocks[1:])))
    return rates


def _round(
    workers: Sequence[CandidateProcess],
    blocks: list[Blocks],
    batch: int,
    batches: int,
    number: int,
    what: str = "inference",
) -> None:
    """One block of each; every other round begins at the other end: a drifting clock speed favours
    nobody.
    """
    order = list(range(len(workers)))
    if number % 2:
        order.reverse()
    for place in order:
        blocks[place].append(workers[place].block(batch, batches, what))


def _steps(workload: Workload) -> int:
    """The blocks of a whole bench, which its progress counts."""
    return len(workload.blocks()) + ROUNDS * len(workload.batches)


def _figures(worker: CandidateProcess, blocks: Blocks, rates: dict[int, float]) -> dict[str, Any]:
    """What was measured of a candidate."""
    seconds = np.concatenate(blocks)
    manifest = worker.bundle.manifest
    target = worker.candidate.target
    latency_ms = {"median": float(np.median(seconds)) * 1e3}
    for percentile in (95, 99):
        latency_ms[f"p{percentile}"] = float(np.percentile(seconds, percentile)) * 1e3
    return {
        "bundle": str(worker.bundle.path),
        "model": manifest.model,
        "target": target or worker.bundle.target,
        **worker.about,
        "seconds_total": float(seconds.sum()),
        "latency_ms": latency_ms,
        "throughput": rates,
        "peak_rss_mb": worker.peak_rss_mb,
        "size_mb": worker.bundle.size_bytes(target) / 1e6,
        "float_layers": worker.bundle.form(target).float_layers,
        "joules": worker.joules_for_image,
        "input_size": manifest.task.size.plain(),
        "macs": manifest.macs,
        "params": manifest.params,
    }


def _ratios(figures: list[dict[str, Any]], blocks: list[Blocks]) -> list[dict[str, Any]]:
    """What each but the first has over the first."""
    first = figures[0]
    ratios = []
    for other, others_blocks in zip(figures[1:], blocks[1:], strict=True):
        ratio: dict[str, Any] = {
            "speedup": speedup(blocks[0], others_blocks),
            "memory": first["peak_rss_mb"] / other["peak_rss_mb"],
            "size": first["size_mb"] / other["size_mb"],
        }
        if first["joules"] and other["joules"]:
            ratio["energy"] = first["joules"] / other["joules"]
        ratio["macs"] = first["macs"] / max(1, other["macs"])
        ratios.append(ratio)
    return ratios
