"""Ranking while fine-tuning beside the same epoch without ranking: time and memory.

python benchmarks/ranking.py
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from common import in_process, peak_mb, ratio, save, told, turns

from prunedge.graph import trace
from prunedge.importance import gathered_while_training
from prunedge.models import build
from prunedge.train import TrainConfig, TrainExtras, fit, make_engine

NETWORKS = (("resnet18", 224, 16), ("resnet18", 64, 32), ("vgg16_bn", 96, 16), ("vgg16", 96, 16), ("mobilenet_v2", 128, 16))
BATCHES = 4


def main() -> None:
    """Measure every network, or one in this process (for its memory)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="bf16")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="")
    parser.add_argument("--memory", nargs=4, metavar=("MODEL", "SIZE", "BATCH", "COLLECTOR"))
    given = parser.parse_args()
    if given.memory:
        model, size, batch, collects = given.memory
        epoch = _epoch(model, int(size), int(batch), given.engine, collects=collects == "yes")
        epoch()
        print(json.dumps(peak_mb()))
        return
    found = []
    for model, size, batch in NETWORKS:
        if given.only and given.only != model:
            continue
        rivals = {name: _epoch(model, size, batch, given.engine, collects=name == "ranking") for name in ("ranking", "plain")}
        took = turns(rivals, given.rounds)
        engine = ("--engine", given.engine)
        memory = [
            in_process(__file__, "--memory", model, str(size), str(batch), collects, *engine) for collects in ("yes", "no", "yes", "no")
        ]
        time, space = ratio(took["ranking"], took["plain"]), ratio(memory[0::2], memory[1::2])
        ms = {name: sorted(seconds)[len(seconds) // 2] * 1e3 / (batch * BATCHES) for name, seconds in took.items()}
        found.append({"model": model, "size": size, "batch": batch, "engine": given.engine, "time": time, "memory": space,
                      "ms_a_picture": ms, "peak_mb": {"ranking": memory[0::2], "plain": memory[1::2]}})  # fmt: skip
        print(f"{model:12} {size:4} px  time {told(time, 3)}  memory {told(space, 3)}  {ms['plain']:.2f} ms a picture", flush=True)
    if not given.only:
        save("ranking", {"target": {"time": 1.10, "memory": 1.15}, "rows": found})


def _epoch(model: str, size: int, batch: int, engine_name: str, *, collects: bool):  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    network, engine = build(model, ["a", "b"], "none", seed=0), make_engine(engine_name)
    batches = [(torch.randn(batch, 3, size, size), torch.arange(batch) % 2) for _ in range(BATCHES)]
    collector = gathered_while_training("taylor", trace(network, batches[0][0][:2])) if collects else None
    recipe = TrainConfig(lr=1e-4, batch_size=batch)
    return lambda: fit(network, batches, epochs=1, config=recipe, engine=engine, seed=0, extras=TrainExtras(collector=collector))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
