"""Many patches: pictures a second and memory with 1,000, 10,000 and 100,000 of them at 224x224, from files and from WebDataset shards.

    python benchmarks/scale.py DATA [--most 100000]

The pictures of DATA (a manifest or class folders) are linked again and again under new names until there are enough. For each number a
process of its own loads them (decoding once, into the cache; and once more, when they lie there), passes the same number of random batches through a small
pruned ResNet18 in training, and says what memory it took beyond that of the same training on pictures in memory. Needs 16 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tarfile
import tempfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from common import in_process, peak_mb, save

from prunedge.data import Split, load
from prunedge.graph import trace
from prunedge.models import build
from prunedge.pruning.select import random_plan
from prunedge.surgery import operate
from prunedge.train import TrainConfig, fit, make_engine

SIZE, BATCHES, ROUNDS, PER_SHARD = 224, 20, 5, 1000
COUNTS = (1_000, 10_000, 100_000)


def main() -> None:
    """Make the pictures, measure every number of them, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--most", type=int, default=100_000)
    parser.add_argument("--engine", default="bf16")
    parser.add_argument("--one", choices=("files", "memory"))
    given = parser.parse_args()
    if given.one:
        print(json.dumps(_measure(given.data, given.engine) if given.one == "files" else _in_memory(given.data, given.engine)))
        return
    rows = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("PRUNEDGE_CACHE")) as folder:
        home = Path(folder)
        cache = {"PRUNEDGE_CACHE": str(home / "cache")}
        for count in [count for count in COUNTS if count <= given.most]:
            for kind, make in (("files", _linked), ("shards", _packed)):
                made = home / kind / str(count)
                make(given.data, made, count)
                first = in_process(__file__, str(made), "--one", "files", "--engine", given.engine, environment=cache)
                again = in_process(__file__, str(made), "--one", "files", "--engine", given.engine, environment=cache)
                memory = in_process(__file__, str(made), "--one", "memory", "--engine", given.engine, environment=cache)
                for file in (home / "cache").glob("*.npy"):
                    file.unlink()
                row = {
                    "pictures": count, "kind": kind, "load_first_s": first["load_s"], "load_again_s": again["load_s"],
                    "pictures_per_second": again["rates"], "in_memory_pictures_per_second": memory["rates"],
                    "pipeline_pictures_per_second": again["pipeline"],
                    "beyond_the_network_mb": {"decoding": first["peak_mb"] - memory["peak_mb"], "training": again["peak_mb"] - memory["peak_mb"]},
                }  # fmt: skip
                rows.append(row)
                print(json.dumps({**row, "pictures_per_second": _middle(again["rates"]),
                                  "in_memory_pictures_per_second": _middle(memory["rates"])}), flush=True)  # fmt: skip
    save("scale", {"target": {"beyond_the_network_mb": 2000}, "size": SIZE, "batch": 32, "batches": BATCHES, "rows": rows})


def _middle(rates: list[float]) -> float:
    return sorted(rates)[len(rates) // 2]


def _measure(data: Path, engine_name: str) -> dict[str, Any]:
    start = perf_counter()
    dataset = load(data, size=SIZE)
    loaded = perf_counter() - start
    start, seen = perf_counter(), 0
    for pictures, _ in _some(dataset.train, 99).batches(32, shuffle_seed=0, augment="full"):
        seen += len(pictures)
    pipeline = seen / (perf_counter() - start)
    rates = _rates(dataset.classes, dataset.example(), engine_name, lambda turn: _some(dataset.train, turn))
    return {"load_s": loaded, "pipeline": pipeline, "rates": rates, "peak_mb": peak_mb()}


def _in_memory(data: Path, engine_name: str) -> dict[str, Any]:
    torch.manual_seed(0)
    batches = [(torch.randn(32, 3, SIZE, SIZE), torch.arange(32) % 2) for _ in range(4)] * (BATCHES // 4)
    return {"rates": _rates(("a", "b"), batches[0][0][:2], engine_name, lambda turn: batches), "peak_mb": peak_mb()}


def _some(split: Split, turn: int) -> Split:
    """As many pictures as an epoch of this measurement has, from anywhere in the split."""
    return split.at(np.random.default_rng(turn).permutation(len(split))[: 32 * BATCHES])


def _rates(classes: Any, example: torch.Tensor, engine_name: str, pictures: Any) -> list[float]:
    network, engine = build("resnet18", classes, "none", seed=0), make_engine(engine_name)
    graph = trace(network, example)
    network = operate(network, graph, random_plan(graph, 0.7, torch.Generator().manual_seed(0))).model
    rates = []
    for turn in range(ROUNDS):
        batches = pictures(turn)
        start = perf_counter()
        fit(network, batches, epochs=1, config=replace(TrainConfig(), lr=1e-4), engine=engine, seed=turn)
        rates.append(32 * BATCHES / (perf_counter() - start))
    return rates[1:]


def _sources(data: Path, count: int) -> list[tuple[Path, str]]:
    found = load(data, size=32)
    samples = [sample for split in found.splits().values() for sample in split.samples]
    return [(samples[i % len(samples)].path, found.classes[samples[i % len(samples)].target]) for i in range(count)]


def _linked(data: Path, out: Path, count: int) -> None:
    for i, (path, label) in enumerate(_sources(data, count)):
        folder = out / label
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:06}{path.suffix}").symlink_to(path.resolve())


def _packed(data: Path, out: Path, count: int) -> None:
    out.mkdir(parents=True)
    sources = list(enumerate(_sources(data, count)))
    for begin in range(0, count, PER_SHARD):
        with tarfile.open(out / f"{begin // PER_SHARD:06}.tar", "w") as shard:
            for i, (path, label) in sources[begin : begin + PER_SHARD]:
                for suffix, content in ((path.suffix, path.read_bytes()), (".cls", label.encode())):
                    member = tarfile.TarInfo(f"{i:06}{suffix}")
                    member.size = len(content)
                    shard.addfile(member, BytesIO(content))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
