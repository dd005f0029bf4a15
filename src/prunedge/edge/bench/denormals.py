"""What numbers that are too small cost on this device, where a model still has them."""

from __future__ import annotations

from statistics import median
from typing import Any

from prunedge.edge.bench.breakdown import WARMUP
from prunedge.edge.bench.candidates import CandidateProcess
from prunedge.edge.bench.workload import Workload
from prunedge.edge.runtimes import runtime_of
from prunedge.edge.targets import TARGETS

ROUNDS = 3
BATCHES = 3  # in each round


def denormals_of(worker: CandidateProcess, workload: Workload) -> dict[str, Any] | None:
    """How many weights below `prunedge.edge.denormals.TINY` a candidate's model has (`weights`),
    and how many times as long it takes where they are not taken for zeros (`slower`: of the
    medians, in blocks that alternate). None where it has none, or nobody knows.
    """
    bundle, target = worker.bundle, worker.candidate.target
    runtime = runtime_of(TARGETS[target or bundle.target])
    count = runtime.tiny_weights(bundle.model(target))
    if not count:
        return None
    flushed: list[float] = []
    kept: list[float] = []
    with CandidateProcess(worker.candidate, workload, worker.pool, flush=False) as other:
        other.block(workload.batch, WARMUP, "denormals")
        for _ in range(ROUNDS):
            flushed += worker.block(workload.batch, BATCHES, "denormals")
            kept += other.block(workload.batch, BATCHES, "denormals")
    return {"weights": count, "slower": median(kept) / median(flushed)}
