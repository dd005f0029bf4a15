"""How long a device takes for the talk's protocol, how much memory and energy: each candidate in
its own process, blocks interleaved.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prunedge.edge.bench.breakdown import PASSES, WARMUP, Call, profile_of
from prunedge.edge.bench.hardware import device, metered, state
from prunedge.edge.bench.images import pool_of
from prunedge.edge.bench.ratios import speedup
from prunedge.edge.bundle import Bundle
from prunedge.errors import BundleError, MachineError

BLOCKS = 12
ROUNDS = 6  # blocks of each further batch size


@dataclass(frozen=True)
class Candidate:
    """A bundle, in its form for a target (None: its first)."""

    bundle: Bundle
    target: str | None = None


@dataclass(frozen=True)
class ResourceLimits:
    """A smaller device on this one: so many processors, so many megabytes (10^6) of data in each
    process. None: no limit. Linux only.
    """

    cpus: int | None = None
    memory_mb: int | None = None


@dataclass(frozen=True)
class BenchResult:
    """Measurements of one or several candidates on one machine.

    `bundles` holds, for each: `seconds_total` (all patches), `latency_ms` (median, p95, p99, of one
    batch), `throughput` (images a second by batch size), `peak_rss_mb` (10^6 bytes), `size_mb`
    (the model's files), `load_seconds`, `self_test` (its answers here beside those where it was
    exported) and `joules` for an image where the device has a counter. `ratios` compare each with
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
    progress: Callable[[int, int, str], None] | None = None,
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
    counted = {
        "patches": patches,
        "batch": batch,
        "threads": threads,
        "batches": min(batches, default=1),
    }
    if wrong := [f"--{name}" for name, value in counted.items() if value < 1]:
        raise BundleError(f"{' and '.join(wrong)} must be at least 1", remedy="mend these values")
    limits, whole = limits or ResourceLimits(), -(-patches // batch)
    counts = [len(part) for part in np.array_split(np.arange(whole), min(BLOCKS, whole))]
    steps, before = len(counts) + ROUNDS * len(batches), state()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workers = []
        for candidate in candidates:
            pool = pool_of(candidate.bundle, images, folder)
            workers.append(
                stack.enter_context(
                    _Worker(candidate, threads, max(batch, *batches, 1), pool, limits)
                )
            )
        for worker in workers:
            worker.block(batch, min(WARMUP, whole), "warm-up")
        blocks: list[list[list[float]]] = [[] for _ in workers]
        for done, count in enumerate(counts):
            _round(workers, blocks, batch, count, done)
            if progress is not None:
                progress(done + 1, steps, "measuring")
        for worker in workers:
            worker.joules_for_image = (
                worker.joules / (batch * sum(counts)) if worker.has_counter else None
            )
        rates = _rates(
            workers,
            batches,
            lambda done: (
                None if progress is None else progress(len(counts) + done, steps, "larger batches")
            ),
        )
        seen = [worker.profile(batch) for worker in workers] if profile else None
        measured = zip(workers, blocks, rates, strict=True)
        figures = [_figures(*measurement) for measurement in measured]
    return BenchResult(
        bundles=figures,
        ratios=_ratios(figures, blocks),
        device=device(),
        threads=threads,
        batch=batch,
        patches=patches,
        limits={key: value for key, value in asdict(limits).items() if value is not None},
        before=before,
        after=state(),
        profile=seen,
    )


class _Worker:
    """A child process that has one model loaded."""

    def __init__(
        self,
        candidate: Candidate,
        threads: int,
        largest: int,
        pool: str | None,
        limits: ResourceLimits,
    ) -> None:
        self.candidate, self.bundle = candidate, candidate.bundle
        orders = {
            "bundle": str(self.bundle.path),
            "target": candidate.target,
            "threads": threads,
            "largest": largest,
            "pool": pool,
            **asdict(limits),
        }
        command = [sys.executable, "-m", "prunedge.edge.bench.worker", json.dumps(orders)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.about = self._read()
        self.peak_rss_mb, self.joules, self.has_counter = 0.0, 0.0, False
        self.joules_for_image: float | None = None

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def block(self, batch: int, batches: int, what: str) -> list[float]:
        with metered() as energy:
            answer = self._ask(batch, batches, what)
        if energy.joules is not None:
            self.joules, self.has_counter = self.joules + energy.joules, True
        self.peak_rss_mb = answer["peak_rss_mb"]
        return answer["seconds"]

    def profile(self, batch: int) -> dict[str, Any]:
        answer = self._ask(batch, PASSES, "profile")
        about = {
            "bundle": str(self.bundle.path),
            "target": self.candidate.target or self.bundle.target,
            "runtime": self.about["runtime"],
        }
        return profile_of(
            about, answer["spans"], [[Call(*call) for call in calls] for calls in answer["calls"]]
        )

    def _ask(self, batch: int, batches: int, what: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(
                json.dumps({"batch": batch, "batches": batches, "what": what}) + "\n"
            )
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # its last words say why
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            remedy = "is there enough memory?"
            raise BundleError(
                f"the process that measures it died (exit code {code})",
                where=self.bundle.path,
                remedy=remedy,
            )
        answer = json.loads(line)
        if "error" in answer:
            what, where, remedy = answer["error"]
            kind = MachineError if answer.get("is_machines") else BundleError
            raise kind(what, where=where, remedy=remedy)
        return answer


def _round(
    workers: Sequence[_Worker],
    blocks: list[list[list[float]]],
    batch: int,
    batches: int,
    number: int,
    what: str = "inference",
) -> None:
    """One block of each; every other round begins at the other end: a drifting clock speed favours
    nobody.
    """
    for place in range(len(workers))[:: 1 if number % 2 == 0 else -1]:
        blocks[place].append(workers[place].block(batch, batches, what))


def _rates(
    workers: Sequence[_Worker], batches: Sequence[int], advance: Callable[[int], None]
) -> list[dict[int, float]]:
    """Images a second of each worker by batch size: the median over the blocks."""
    rates: list[dict[int, float]] = [{} for _ in workers]
    for place, batch in enumerate(batches):
        blocks: list[list[list[float]]] = [[] for _ in workers]
        for number in range(ROUNDS):
            _round(workers, blocks, batch, 2, number, "larger batches")
            advance(place * ROUNDS + number + 1)
        for rate, several in zip(rates, blocks, strict=True):
            # The first block of a new size is the warm-up.
            rate[batch] = batch / float(
                np.median([seconds for block in several[1:] for seconds in block])
            )
    return rates


def _figures(worker: _Worker, blocks: list[list[float]], rates: dict[int, float]) -> dict[str, Any]:
    seconds, manifest, target = (
        np.array([s for block in blocks for s in block]),
        worker.bundle.manifest,
        worker.candidate.target,
    )
    return {
        "bundle": str(worker.bundle.path),
        "model": manifest.model,
        "target": target or worker.bundle.target,
        **worker.about,
        "seconds_total": float(seconds.sum()),
        "latency_ms": {"median": float(np.median(seconds)) * 1e3}
        | {f"p{p}": float(np.percentile(seconds, p)) * 1e3 for p in (95, 99)},
        "throughput": rates,
        "peak_rss_mb": worker.peak_rss_mb,
        "size_mb": worker.bundle.size_bytes(target) / 1e6,
        "joules": worker.joules_for_image,
        "input_size": manifest.task.size.plain(),
        "macs": manifest.macs,
        "params": manifest.params,
    }


def _ratios(figures: list[dict[str, Any]], blocks: list[list[list[float]]]) -> list[dict[str, Any]]:
    """What each but the first has over the first."""
    first, found = figures[0], []
    for other, theirs in zip(figures[1:], blocks[1:], strict=True):
        ratios = {
            "memory": first["peak_rss_mb"] / other["peak_rss_mb"],
            "size": first["size_mb"] / other["size_mb"],
        }
        if first["joules"] and other["joules"]:
            ratios["energy"] = first["joules"] / other["joules"]
        found.append(
            {
                "speedup": speedup(blocks[0], theirs),
                **ratios,
                "macs": first["macs"] / max(1, other["macs"]),
            }
        )
    return found
