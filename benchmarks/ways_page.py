"""The tables of docs/search-measured.md from the lines of benchmarks/ways.py, with milliseconds by ONNX Runtime.

    python benchmarks/ways_page.py ways.jsonl --model vgg16 --size 96

Every model is built anew with its widths and random weights, which take as long, and timed with one thread and batch 1, in turns with the
unpruned one (median of the rounds).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from common import ratio, turns
from torch import nn

from prunedge.export.onnx import write_onnx
from prunedge.graph import trace
from prunedge.graph.plan import Plan
from prunedge.models import build
from prunedge.surgery import remove

Row = Mapping[str, Any]


def main() -> None:
    """Read, time, print a table for each set of images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, nargs="+")
    parser.add_argument("--model", default="vgg16")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", default="2,3", help="of which milliseconds are measured")
    given = parser.parse_args()
    rows = []
    for file in given.rows:
        rows += [json.loads(line) for line in file.read_text().splitlines()]
    rows = [row for row in rows if "error" not in row and row["way"] != "oracle"]
    timed = {int(step) for step in given.steps.split(",")}
    for name in dict.fromkeys(row["data"] for row in rows):
        table([row for row in rows if row["data"] == name], name, given, timed)


def table(rows: Sequence[Row], name: str, given: argparse.Namespace, timed: set[int]) -> None:
    """One set's rows: changes of the test figure, mean and spread over the seeds."""
    unpruned = {row["seed"]: row for row in rows if row["way"] == "unpruned"}
    print(f"\n**{name}**: unpruned {percent([row['test'] for row in unpruned.values()])} on test\n")
    print("| way | step | times fewer MACs | times smaller | times faster | test, points | validation, points | seeds |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for way in dict.fromkeys(row["way"] for row in rows if row["way"] != "unpruned"):
        for step in sorted({row["step"] for row in rows if row["way"] == way}):
            for polished in (False, True):
                chosen = [row for row in rows if row["way"] == way and row["step"] == step and bool(row.get("polished")) == polished]
                if chosen:
                    fast = faster(chosen, given) if step in timed and not polished else ""
                    line(way, step, polished, chosen, unpruned, fast)


def line(way: str, step: int, polished: bool, rows: Sequence[Row], unpruned: Mapping[int, Row], fast: str) -> None:
    """One row of the table."""
    of = [(row, unpruned[row["seed"]]) for row in rows]
    macs = statistics.median(whole["macs"] / row["macs"] for row, whole in of)
    size = statistics.median(whole["params"] / row["params"] for row, whole in of)
    tests = [100 * (row["test"] - whole["test"]) for row, whole in of]
    vals = [100 * (row["val"] - whole["val"]) for row, whole in of]
    label = f"{step}, polished" if polished else str(step)
    print(f"| {way} | {label} | {macs:.0f} | {size:.0f} | {fast} | {spread(tests)} | {spread(vals)} | {len(rows)} |", flush=True)


def spread(values: Sequence[float]) -> str:
    """The mean, and the lowest and highest."""
    return f"{statistics.mean(values):+.1f} ({min(values):+.1f} to {max(values):+.1f})"


def percent(values: Sequence[float]) -> str:
    """Every seed's figure."""
    return ", ".join(f"{value:.1%}" for value in values)


def faster(rows: Sequence[Row], given: argparse.Namespace) -> str:
    """How many times faster than the unpruned network, over the seeds."""
    ratios = [one(row, given) for row in rows]
    return f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"


def one(row: Row, given: argparse.Namespace) -> float:
    """The median ratio of one row's network."""
    whole = build(given.model, ["a", "b"], "none", seed=0).eval()
    small = of_widths(whole, row["widths"], given.size)
    with tempfile.TemporaryDirectory() as folder:
        runs = {name: session(model, Path(folder) / f"{name}.onnx", given.size) for name, model in (("whole", whole), ("small", small))}
        took = turns(runs, given.rounds)
    return ratio(took["whole"], took["small"])["median"]


def of_widths(model: nn.Module, widths: Mapping[str, int], size: int) -> nn.Module:
    """The model with the first channels of each layer: as wide as the one that was pruned."""
    graph = trace(model, torch.randn(2, 3, size, size))
    keep = {group.name: tuple(range(widths[group.name])) for group in graph.groups}
    return remove(model, graph, Plan(keep))


def session(model: nn.Module, file: Path, size: int) -> Any:
    """A function that runs the model once, by ONNX Runtime, with one thread."""
    write_onnx(model, file, (3, size, size))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    runner = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    image = torch.randn(1, 3, size, size).numpy()
    name = runner.get_inputs()[0].name
    return lambda: runner.run(None, {name: image})


if __name__ == "__main__":
    main()
