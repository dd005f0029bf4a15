"""The oracle audit, a channel's share of one evaluation: every channel of a network zeroed in turn, beside evaluating the network for each.

    python benchmarks/oracle.py

All channels of each group would take hours and tell the same: of each layer a sample is measured, and weighted by the layer's width.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import perf_counter

import torch
from common import save, spread, told
from torch.nn import functional

from prunedge.graph import trace
from prunedge.importance.oracle import oracle, sample
from prunedge.models import build
from prunedge.models.cost import evaluating

NETWORKS = (("resnet18", 224), ("vgg16_bn", 224), ("mobilenet_v2", 224), ("resnet18", 64))
PICTURES, CHANNELS = {224: 16, 64: 128}, 3


def main() -> None:
    """Measure every network several times, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    rows = []
    for name, size in NETWORKS:
        if given.only and given.only != name:
            continue
        torch.manual_seed(0)
        network = build(name, ["a", "b"], "none", seed=0).eval()
        x, y = torch.randn(PICTURES[size], 3, size, size), torch.arange(PICTURES[size]) % 2
        graph = trace(network, x[:2])
        several = [_measure(network, graph, x, y, seed) for seed in range(given.rounds)]
        found = spread(several)
        rows.append({"model": name, "size": size, "channels": graph.channels, "fraction": found})
        print(f"{name:14} {size:4} px  {graph.channels:6} channels  {told(found, 3)} of an evaluation each", flush=True)
    if not given.only:
        save(
            "oracle",
            {"target": 0.25, "pictures": {str(size): count for size, count in PICTURES.items()}, "sampled": CHANNELS, "rows": rows},
        )


def _measure(network, graph, x, y, seed: int) -> float:  # type: ignore[no-untyped-def]
    """The mean over all channels of a channel's seconds, through those of an evaluation."""
    chosen, laps, last = sample(graph, CHANNELS, seed), {}, perf_counter()

    def lap(partial) -> None:  # type: ignore[no-untyped-def]
        nonlocal last
        now = perf_counter()
        laps[graph.groups[partial.next - 1].name] = now - last
        last = now

    def ready(done: int, total: int, what: str) -> None:
        nonlocal last
        if not laps and done == 1:
            last = perf_counter()  # recording and the whole run are not a channel's; the first channel of the first group is left out

    oracle(network, graph, [(x, y)], chosen, keep=lap, progress=ready)
    count = {name: len(channels) - (place == 0) for place, (name, channels) in enumerate(chosen.items())}
    each = sum(laps[group.name] / count[group.name] * group.size for group in graph.groups) / graph.channels
    evaluations = []
    with evaluating(network), torch.no_grad():
        for _ in range(5):
            start = perf_counter()
            functional.cross_entropy(network(x), y)
            evaluations.append(perf_counter() - start)
    return each / sorted(evaluations)[2]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
