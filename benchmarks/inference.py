"""Inference of a pruned network on each runtime, beside the time that its MACs would take at the runtime's speed on the unpruned one.

    python benchmarks/inference.py [--networks resnet18,vgg16_bn] [--patches 200]

Channels go at random over the whole network until 15 % of the MACs are left: once in any number, once in multiples of 16. One thread, batch 1,
224 px, all forms interleaved. `beside its MACs` is the measured time through (MACs left / all MACs) * the unpruned network's time: 1 is a
network that got faster by exactly what was removed. The machine's peak is the fastest of some float32 products of large matrices, one thread.
Layers are ONNX Runtime's own figures, from a pass after the measurement.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import save
from torch import nn

from prunedge.edge import Bundle, Candidate, bench
from prunedge.edge.image.size import square
from prunedge.edge.tasks.base import TaskSpec
from prunedge.export import Judge, export_bundle
from prunedge.graph import trace
from prunedge.importance import Scores
from prunedge.models import build, cost
from prunedge.pruning.select import PlanConstraints, choose
from prunedge.surgery import operate

TARGETS = ("onnx", "openvino", "executorch")
LEFT, SIZE = 0.15, 224


def main() -> None:
    """Measure every network, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="resnet18,vgg16_bn")
    parser.add_argument("--patches", type=int, default=200)
    given = parser.parse_args()
    peak = _peak()
    print(f"a large matrix product: {peak:.1f} GMAC/s", flush=True)
    rows = []
    for name in given.networks.split(","):
        with tempfile.TemporaryDirectory() as folder:
            rows += _network(name, Path(folder), given.patches, peak)
    save("inference", {"target": 1.3, "peak_gmacs": peak, "left": LEFT, "size": SIZE, "patches": given.patches, "rows": rows})


def _network(name: str, folder: Path, patches: int, peak: float) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    whole = build(name, ["a", "b"], "none", seed=0).eval()
    example = torch.randn(4, 3, SIZE, SIZE)
    graph = trace(whole, example[:2])
    generator = torch.Generator().manual_seed(0)
    scores = Scores({group.name: torch.rand(group.size, generator=generator, dtype=torch.float64) for group in graph.groups}, "random")
    networks = {"unpruned": whole}
    for label, multiple in (("any number", 1), ("multiples of 16", 16)):
        limits = PlanConstraints(round_to=multiple, max_ratio=0.9)
        plan = choose(graph, scores, 0.95, constraints=limits, enough=lambda plan: graph.macs(plan) <= LEFT * graph.macs())
        networks[label] = operate(whole, graph, plan).model
    bundles = {label: _bundle(network, folder / label.replace(" ", "-"), name, example) for label, network in networks.items()}
    candidates = [Candidate(one, target) for target in TARGETS for one in bundles.values()]
    labels = [(target, label) for target in TARGETS for label in bundles]
    measured = bench(candidates, patches=patches, profile=True).to_json()
    rows: list[dict[str, Any]] = []
    first: dict[str, tuple[float, int]] = {}
    for (target, label), found, seen in zip(labels, measured["bundles"], measured["profile"], strict=True):
        ms, macs = found["latency_ms"]["median"], bundles[label].manifest.macs
        whole_ms, whole_macs = first.setdefault(target, (ms, macs))
        share = ms / (whole_ms * macs / whole_macs)
        speed = macs / ms / 1e6
        row = {"network": name, "runtime": target, "channels": label, "ms": ms, "p95": found["latency_ms"]["p95"], "macs": macs,
               "beside_its_macs": share, "gmacs_per_second": speed, "share_of_peak": speed / peak,
               "layers": _layers(seen["layers"], whole_macs / whole_ms) if target == "onnx" else []}  # fmt: skip
        rows.append(row)
        print(f"{name:10} {target:11} {label:16} {ms:8.2f} ms  {macs / 1e6:8.1f} million MACs  {speed:6.1f} GMAC/s = {speed / peak:.0%} of the "
              f"peak  {share:.2f} times the time of its MACs", flush=True)  # fmt: skip
    return rows


def _layers(layers: list[dict[str, Any]], macs_per_ms: float) -> list[dict[str, Any]]:
    """Layers in their order, with what their time would be at the whole network's speed."""
    return [
        {"kind": one["kind"], "shape": one["shape"], "ms": one["ms"], "macs": one["macs"],
         "beside_its_macs": one["ms"] / (one["macs"] / macs_per_ms) if one["macs"] else None}
        for one in sorted(layers, key=lambda one: one["place"])
    ]  # fmt: skip


def _bundle(network: nn.Module, out: Path, name: str, example: torch.Tensor) -> Bundle:
    spent = cost(network, example[:1])
    params = sum(parameter.numel() for parameter in network.parameters())
    judge = Judge("accuracy", lambda found: (0.0, found(example.numpy())), 100.0)
    return export_bundle(
        network, out, model_name=name, task=TaskSpec(name="classification", classes=("a", "b"), size=square(SIZE)), images=example, macs=spent.macs, params=params, formats=TARGETS,
        calibration=example, judge=judge,
    )  # fmt: skip


def _peak() -> float:
    """Giga multiply-accumulates a second."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        best = 0.0
        for size in (1024, 1536, 2048):
            a, b = (torch.from_numpy(np.random.default_rng(0).random((size, size), dtype=np.float32)) for _ in range(2))
            a @ b
            for _ in range(5):
                start = time.perf_counter()
                a @ b
                best = max(best, size**3 / (time.perf_counter() - start) / 1e9)
        return best
    finally:
        torch.set_num_threads(before)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
