"""Seconds to find the channel graph and to cut 30 % of every group, beside Torch-Pruning 1.6.1, and whether each result is right.

    pip install torch-pruning==1.6.1
    python benchmarks/trace_speed.py [--networks resnet50,vgg16] [--rounds 3]

Both prune the same network (random weights, randomised statistics) at 224 px in turn, each in a process of its own with a limit of 90 s;
the median of the rounds is shown. `right` compares the pruned network with the original in which the removed slices are zero.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from zoo import build, in_process, randomise, strip

RESULTS = Path(__file__).parent / "results" / "trace_speed.json"
NETWORKS = ("resnet50", "vgg16", "densenet121", "densenet169", "swin_t", "maxvit_t", "shufflenet_v2_x1_0", "mobilenet_v2", "convnext_tiny")
SECONDS = 90


def ours(name: str) -> dict[str, Any]:
    """Trace and surgery with its proof."""
    from prunedge.graph import trace
    from prunedge.pruning.select import random_plan
    from prunedge.surgery import TOLERANCE, operate

    net = _network(name)
    example = torch.randn(1, 3, 224, 224)
    started = time.perf_counter()
    graph = trace(net, example)
    traced = time.perf_counter()
    surgery = operate(net, graph, random_plan(graph, 0.3, torch.Generator().manual_seed(0)))
    return {
        "trace": traced - started, "cut": time.perf_counter() - traced, "right": surgery.difference <= TOLERANCE,
        "params": sum(p.numel() for p in surgery.model.parameters()),
    }  # fmt: skip


def torch_pruning(name: str) -> dict[str, Any]:
    """Dependency graph and random pruning, as its examples show; the classes stay."""
    import torch_pruning as tp

    net = _network(name)
    example = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        before = {module: module.weight.detach().clone() for module in net.modules() if isinstance(module, (nn.Conv2d, nn.Linear))}
    started = time.perf_counter()
    pruner = tp.pruner.MetaPruner(
        net, example, importance=tp.importance.RandomImportance(), pruning_ratio=0.3,
        ignored_layers=[m for m in net.modules() if isinstance(m, nn.Linear) and m.out_features == 1000],
    )  # fmt: skip
    traced = time.perf_counter()
    pruner.step()
    cut = time.perf_counter() - traced
    with torch.no_grad():
        net(example)
    # It keeps no list of what stayed, so only that it runs can be said of it here.
    changed = sum(module.weight.shape != weight.shape for module, weight in before.items())
    return {"trace": traced - started, "cut": cut, "right": None, "changed": changed, "params": sum(p.numel() for p in net.parameters())}


def _network(name: str) -> nn.Module:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net, _ = build("torchvision", name)
    randomise(net)
    return net.eval()


def main() -> int:
    """Time both in turn, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    rows = []
    print(f"{'network':22} {'prunedge: trace':>16} {'cut+proof':>10} {'sum':>6}   {'Torch-Pruning: graph':>20} {'cut':>8} {'sum':>6}")
    for name in args.networks.split(","):
        found: dict[str, list[dict[str, Any]]] = {"prunedge": [], "torch-pruning": []}
        for _ in range(args.rounds):
            for tool, work in (("prunedge", ours), ("torch-pruning", torch_pruning)):
                if not any("error" in one for one in found[tool]):
                    found[tool].append(in_process(work, (name,), SECONDS))
        rows.append({"network": name, **{tool: _middle(several) for tool, several in found.items()}})
        a, b = rows[-1]["prunedge"], rows[-1]["torch-pruning"]
        right = f"{b['trace']:20.2f} {b['cut']:8.2f} {b['trace'] + b['cut']:6.2f}" if "error" not in b else f"   {b['error'][:60]}"
        left = f"{a['trace']:16.2f} {a['cut']:10.2f} {a['trace'] + a['cut']:6.2f}" if "error" not in a else a["error"][:40]
        print(f"{name:22} {left}   {right}", flush=True)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(
        json.dumps({"rounds": args.rounds, "threads": 1, "torch": torch.__version__, "rows": [strip(row) for row in rows]}, indent=1)
    )
    return 0


def _middle(several: list[dict[str, Any]]) -> dict[str, Any]:
    broken = next((one for one in several if "error" in one), None)
    if broken is not None:
        return broken
    return {**several[0], **{key: statistics.median(one[key] for one in several) for key in ("trace", "cut")}}


if __name__ == "__main__":
    sys.exit(main())
