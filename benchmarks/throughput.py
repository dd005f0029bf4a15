"""Pictures a second of fine-tuning and of evaluation, beside the bare network on tensors that lie in memory already.

    python benchmarks/throughput.py DATA [--size 224]

The bare network does forward, backward and the optimiser's step (evaluation: forward) in the same precision and memory format, on batches
that are ready; prunedge also reads, augments and normalises the pictures, clips gradients, follows the loss and judges the answers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from common import ratio, save, told, turns
from torch import nn

from prunedge.data import Split, load
from prunedge.graph import trace
from prunedge.models import build
from prunedge.models.cost import cost, evaluating
from prunedge.pruning.select import random_plan
from prunedge.surgery import operate
from prunedge.train import TrainConfig, evaluate, fit, make_engine
from prunedge.train.engine import Engine
from prunedge.train.optim import make_optimizer

PICTURES = {224: 192, 64: 1224}  # small ones are soon done, and what a training begins and ends with is no part of their epochs


def main() -> None:
    """Measure ResNet18 whole, and with 70 % of its channels gone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--size", type=int, default=224, choices=PICTURES)
    parser.add_argument("--engine", default="bf16")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    data = load(given.data, size=given.size)
    engine, recipe = make_engine(given.engine), TrainConfig(lr=1e-4)
    rows = []
    for share in (0.0, 0.7):
        network = build("resnet18", data.classes, "none", seed=0)
        if share:
            graph = trace(network, data.example())
            network = operate(network, graph, random_plan(graph, share, torch.Generator().manual_seed(0))).model
        split = data.train.take(PICTURES[given.size])
        rivals = {
            "fine-tuning": (_fitted(network, split, engine, recipe), _bare_training(network, split, engine, recipe)),
            "evaluation": (_evaluated(network, split, engine), _bare_evaluation(network, split, engine)),
        }
        macs = cost(network, data.example()).macs
        for what, (ours, bare) in rivals.items():
            took = turns({"prunedge": ours, "bare": bare}, given.rounds)
            found = ratio(took["bare"], took["prunedge"])
            rate = {name: len(split) / sorted(seconds)[len(seconds) // 2] for name, seconds in took.items()}
            rows.append({"network": "resnet18", "removed": share, "macs": macs, "what": what, "engine": engine.name,
                         "size": given.size, "pictures": len(split), "share_of_bare": found, "pictures_per_second": rate})  # fmt: skip
            print(
                f"{what:12} {macs / 1e6:8.1f} million MACs  {told(found)} of the bare network's  {rate['prunedge']:.0f} pictures/s",
                flush=True,
            )
    save(f"throughput_{given.size}", {"target": 0.9, "rows": rows})


def _fitted(network: nn.Module, split: Split, engine: Engine, recipe: TrainConfig) -> Callable[[], object]:
    return lambda: fit(network, split, epochs=1, config=recipe, engine=engine, seed=0)


def _bare_training(network: nn.Module, split: Split, engine: Engine, recipe: TrainConfig) -> Callable[[], None]:
    batches = [(engine.to_device(x), y.to(engine.device)) for x, y in split.batches(recipe.batch_size, shuffle_seed=0, augment="full")]

    def work() -> None:
        network.train()
        with engine.holding(network):
            optimiser = make_optimizer(network, recipe)
            for x, y in batches:
                with engine.fabric.autocast():
                    logits = network(x)
                F.cross_entropy(logits.float(), y).backward()
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)

    return work


def _evaluated(network: nn.Module, split: Split, engine: Engine) -> Callable[[], object]:
    return lambda: evaluate(network, split, engine)


def _bare_evaluation(network: nn.Module, split: Split, engine: Engine) -> Callable[[], None]:
    batches = [engine.to_device(x) for x, _ in split.batches(32)]

    def work() -> None:
        with engine.holding(network), evaluating(network), torch.no_grad():
            for x in batches:
                network(x)

    return work


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
