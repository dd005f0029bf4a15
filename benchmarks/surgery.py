"""What a step's surgery takes, with its proof and the graph of the smaller network, beside one training epoch.

    python benchmarks/surgery.py

A step removes 10 % of the channels: choosing them, cutting, running both networks for the proof, slicing the momentum, following the graph.
`traced anew` is the same with the graph traced, as it was before it could be followed. An epoch is 1,224 pictures, the training split of the
masonry cracks; with the 50,000 of Wu et al. (2019) it is 41 times as long. Its time is that of four batches, extrapolated.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from common import ratio, save, turns

from prunedge.graph import derive, trace
from prunedge.importance import Scores
from prunedge.models import build
from prunedge.pruning.select import choose
from prunedge.surgery import operate, slice_state
from prunedge.train import TrainConfig, TrainExtras, fit, make_engine

NETWORKS = (("resnet18", 224, 16), ("resnet18", 64, 32), ("vgg16_bn", 224, 8), ("vgg16_bn", 64, 32), ("mobilenet_v2", 224, 16))
PICTURES, BATCHES = 1224, 4


def main() -> None:
    """Measure every network, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="bf16")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    rows = []
    for name, size, batch in NETWORKS:
        torch.manual_seed(0)
        network, engine = build(name, ["a", "b"], "none", seed=0), make_engine(given.engine)
        batches = [(torch.randn(batch, 3, size, size), torch.arange(batch) % 2) for _ in range(BATCHES)]
        fitted: dict[str, Any] = {}

        def epoch(network=network, batches=batches, engine=engine, batch=batch, fitted=fitted) -> None:  # type: ignore[no-untyped-def]
            fitted["state"] = fit(
                network, batches, epochs=1, config=TrainConfig(lr=1e-4, batch_size=batch), engine=engine, seed=0, extras=TrainExtras(optimizer_state=fitted.get("state"))
            ).optimizer_state

        epoch()
        graph = trace(network, batches[0][0][:2])
        generator = torch.Generator().manual_seed(0)
        scores = Scores({group.name: torch.rand(group.size, generator=generator, dtype=torch.float64) for group in graph.groups}, "random")

        def step(followed: bool, network=network, graph=graph, scores=scores, fitted=fitted) -> None:  # type: ignore[no-untyped-def]
            surgery = operate(network, graph, choose(graph, scores, 0.1))
            slice_state(fitted["state"], graph, surgery.plan)
            if followed:
                derive(graph, surgery.plan, surgery.model)
            else:
                trace(surgery.model, graph.example)
                trace(network, graph.example)  # the next step began with a trace of its own

        took = turns({"epoch": epoch, "followed": lambda step=step: step(True), "traced anew": lambda step=step: step(False)}, given.rounds)
        epochs = [seconds * PICTURES / (batch * BATCHES) for seconds in took["epoch"]]
        row = {
            "network": name, "size": size, "engine": engine.name, "epoch_s": statistics.median(epochs), "regular": graph.regular,
            **{key: {"seconds": statistics.median(took[key]), "of_an_epoch": ratio(took[key], epochs)} for key in ("followed", "traced anew")},
        }  # fmt: skip
        rows.append(row)
        print(f"{name:13} {size:4} px  epoch {row['epoch_s']:7.1f} s  followed {row['followed']['seconds']:.3f} s, "
              f"{row['followed']['of_an_epoch']['median']:.2%} of it  traced anew {row['traced anew']['seconds']:.3f} s, "
              f"{row['traced anew']['of_an_epoch']['median']:.2%}", flush=True)  # fmt: skip
    save("surgery", {"target": 0.01, "pictures": PICTURES, "rows": rows})


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
