"""The torchvision classifiers of benchmarks/zoo.py, pruned by Torch-Pruning 1.6.1, with the same check: does it run, is it equal?

    pip install torch-pruning==1.6.1
    python benchmarks/zoo_torch_pruning.py [--only resnet18,vgg16]

30 % of every group go, drawn at random, the classes stay, batch-norm statistics and affine parameters randomised. What it removes is
recorded group by group, and the pruned network is compared with the original in which the weights that consume removed channels are
zero. A layer norm's statistics change when channels go, so networks with one can't be judged so: of them only `runs` is told.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from zoo import build, in_process, names_of, randomise, strip

RESULTS = Path(__file__).parent / "results" / "zoo_torch_pruning.json"
SECONDS = 90


def examine(name: str) -> dict[str, Any]:
    """Prune one network, and compare."""
    import torch_pruning as tp

    torch.set_num_threads(1)
    torch.manual_seed(0)
    net, example = build("torchvision", name)
    randomise(net)
    net.eval()
    whole = copy.deepcopy(net)
    params = sum(p.numel() for p in net.parameters())
    names = {module: path for path, module in net.named_modules()}
    heads = [m for m in net.modules() if isinstance(m, nn.Linear) and m.out_features == 1000]
    heads += [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.out_channels == 1000]
    pruner = tp.pruner.MetaPruner(net, example, importance=tp.importance.RandomImportance(), pruning_ratio=0.3, ignored_layers=heads)
    left: dict[str, np.ndarray] = {}
    for group in pruner.step(interactive=True):
        gone = [(names.get(dep.target.module), dep.target.module, list(idxs)) for dep, idxs in group if _reads(pruner.DG, dep)]
        group.prune()
        for path, _, idxs in gone:
            if path is not None:
                original = whole.get_submodule(path)
                now = left.get(path, np.arange(_inputs(original)))
                _silence(original, now[idxs])
                left[path] = np.delete(now, idxs)
    with torch.no_grad():
        pruned, masked = _first(net(example)), _first(whole(example))
    norms = any(isinstance(m, (nn.LayerNorm, nn.GroupNorm)) for m in net.modules())
    difference = float((pruned - masked).abs().max() / masked.abs().max())
    return {
        "params": sum(p.numel() for p in net.parameters()) / params, "difference": difference,
        "equal": None if norms else difference <= 1e-4,
    }  # fmt: skip


def _reads(graph: Any, dep: Any) -> bool:
    return graph.is_in_channel_pruning_fn(dep.handler) and isinstance(dep.target.module, (nn.Conv2d, nn.Linear))


def _inputs(module: nn.Module) -> int:
    return module.in_channels if isinstance(module, nn.Conv2d) else module.in_features


def _silence(module: nn.Module, channels: np.ndarray) -> None:
    """Zero what reads these input channels."""
    with torch.no_grad():
        if isinstance(module, nn.Linear):
            module.weight[:, channels] = 0
            return
        wide, made = module.in_channels // module.groups, module.out_channels // module.groups
        for channel in channels:
            block = channel // wide
            module.weight[block * made : (block + 1) * made, channel % wide] = 0


def _first(output: Any) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output[0]


def main() -> int:
    """Examine every network, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    rows = []
    for name in filter(None, args.only.split(",")) if args.only else names_of("torchvision"):
        rows.append({"name": name, **in_process(examine, (name,), SECONDS)})
        print(json.dumps({key: value for key, value in rows[-1].items() if key != "trace"}), flush=True)
    print(Counter("error" if "error" in row else {True: "equal", False: "NOT equal", None: "runs"}[row["equal"]] for row in rows))
    if not args.only:
        RESULTS.write_text(json.dumps({"torch_pruning": "1.6.1", "limit_s": SECONDS, "rows": [strip(row) for row in rows]}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
