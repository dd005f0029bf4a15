"""How time and memory grow with the channels and the layers of a network, and how a training step does with the processes that share it.

    python benchmarks/growth.py

Chains of 3x3 convolutions with batch norms: one gets wider, one gets longer. Each is measured in a process of its own, for its memory.
`work` is what the part has to do at least: the parameters to copy for a surgery with its proof and for a plan's channels, the layers to
run for a trace. An exponent of 1 is growth in proportion to the work; below 1 something fixed still counts.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from common import in_process, peak_mb, save, spread, told
from torch import nn

from prunedge.graph import derive, trace
from prunedge.importance import Scores
from prunedge.pruning.select import PlanConstraints, choose
from prunedge.surgery import operate

WIDTHS, LENGTHS = (64, 128, 256, 512, 1024), (8, 16, 32, 64, 128)
PARTS = ("trace", "plan", "surgery", "derive")
ROUNDS = 5
PROCESS_SIZES = (128, 224)


def main() -> None:
    """Measure everything, or one network in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=2, type=int, metavar=("WIDTH", "LAYERS"))
    given = parser.parse_args()
    if given.one:
        print(json.dumps(_measure(*given.one)))
        return
    base = in_process(__file__, "--one", "8", "2")["peak_mb"]
    found: dict[str, Any] = {}
    for name, sizes in (("channels", [(width, 8) for width in WIDTHS]), ("layers", [(32, length) for length in LENGTHS])):
        rows = [in_process(__file__, "--one", str(width), str(layers)) for width, layers in sizes]
        for row in rows:
            row["memory_mb"] = row.pop("peak_mb") - base
        exponents = {part: _exponent([row["params"] for row in rows], [row[part] for row in rows]) for part in PARTS}
        exponents["memory_mb"] = _exponent([row["params"] for row in rows[1:]], [max(1.0, row["memory_mb"]) for row in rows[1:]])
        found[name] = {"rows": rows, "exponents_of_params": exponents}
        for row in rows:
            print({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}, flush=True)
        print(f"growth with the parameters, more {name}: { ({key: round(value, 2) for key, value in exponents.items()}) }", flush=True)
    found["processes"] = _processes()
    save("growth", found)


def _measure(width: int, layers: int) -> dict[str, Any]:
    torch.manual_seed(0)
    chain: list[nn.Module] = []
    for place in range(layers):
        chain += [nn.Conv2d(width if place else 3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    network = nn.Sequential(*chain, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2)).eval()
    example = torch.randn(2, 3, 16, 16)
    laps: dict[str, list[float]] = {part: [] for part in PARTS}
    for _ in range(ROUNDS):
        clock = [perf_counter()]
        graph = trace(network, example)
        clock.append(perf_counter())
        generator = torch.Generator().manual_seed(0)
        scores = Scores({group.name: torch.rand(group.size, generator=generator, dtype=torch.float64) for group in graph.groups}, "random")
        clock.append(perf_counter())
        plan = choose(graph, scores, 0.1, constraints=PlanConstraints())
        clock.append(perf_counter())
        surgery = operate(network, graph, plan)
        clock.append(perf_counter())
        derive(graph, surgery.plan, surgery.model)
        clock.append(perf_counter())
        for part, place in zip(PARTS, (0, 2, 3, 4), strict=True):
            laps[part].append(clock[place + 1] - clock[place])
    params = sum(parameter.numel() for parameter in network.parameters())
    middle = {part: sorted(several)[ROUNDS // 2] for part, several in laps.items()}
    return {"width": width, "layers": layers, "channels": graph.channels, "params": params, **middle, "peak_mb": peak_mb()}


def _exponent(work: list[float], took: list[float]) -> float:
    """The slope of the larger half on doubly logarithmic paper: what growth comes to when nothing fixed counts any more."""
    half = len(work) // 2
    return math.log(took[-1] / took[half]) / math.log(work[-1] / work[half])


def _processes() -> list[dict[str, Any]]:
    """Pictures a second of one training, shared by one process for each core, each with one thread."""
    code = (
        "import json, sys, time, torch\nfrom prunedge.utils import distributed as ranks\nfrom prunedge.models import build\n"
        "from prunedge.train import TrainConfig, fit, make_engine\n"
        "torch.set_num_threads(1)\nsize = int(sys.argv[1])\nnet = build('resnet18', ['a', 'b'], 'none', seed=0)\nengine = make_engine('bf16')\n"
        "batches = [(torch.randn(32, 3, size, size), torch.arange(32) % 2) for _ in range(4)]\n"
        "work = lambda: fit(net, batches, epochs=1, config=TrainConfig(lr=1e-4), engine=engine, seed=0)\nwork()\nrates = []\n"
        "for _ in range(9):\n    start = time.perf_counter(); work(); rates.append(128 / (time.perf_counter() - start))\n"
        "if ranks.rank() == 0: print(json.dumps(rates))\n"
    )
    found = []
    script = Path(__file__).with_name(f".growth-{os.getpid()}.py")
    script.write_text(code, encoding="utf-8")
    try:
        for size, count in product(PROCESS_SIZES, range(1, min(4, len(os.sched_getaffinity(0))) + 1)):
            launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run([*launch, str(script), str(size)], capture_output=True, text=True, check=True, env=environment)
            rates = json.loads(done.stdout.strip().splitlines()[-1])
            found.append({"size": size, "processes": count, "pictures_per_second": rates})
            print(f"{size} px, {count} processes: {told(spread(rates), 0)} pictures/s", flush=True)
    finally:
        script.unlink()
    return found


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
