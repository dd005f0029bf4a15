"""Is a network that latency steered faster on the device than one that MACs steered, at the same accuracy?

    python benchmarks/latency_steering.py START [START ...] --out results.json [--steps 6 --step 0.3 --epochs 2]

START is a run folder of `prunedge train` (or a study's start). From each, three runs with the same schedule: channels ranked by Taylor
divided by the MACs that they cost, by the milliseconds that they cost on this machine, and by neither. Every network of every run is then
timed beside all the others, in passes over all of them, and tested on the run's test split.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from prunedge import data as pictures
from prunedge.edge.device import device
from prunedge.export.onnx import write_onnx
from prunedge.job import prune
from prunedge.latency import Timer
from prunedge.recipe import PICTURE_KEYS, Recipe
from prunedge.runs import Run, open_run
from prunedge.train import make_engine, measure, predict

WAYS = {"latency": {"device": "local"}, "macs": {"per_mac": True}, "score": {}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("starts", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True, help="folder for the runs; what is there is taken")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--step", type=float, default=0.3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--cap", type=float, default=0.5)
    given = parser.parse_args()
    points = []
    for place, start in enumerate(given.starts):
        source = open_run(start)
        for way, more in WAYS.items():
            folder = given.runs / f"{place}-{way}"
            if not (folder / "test.json").exists():
                _run(source, folder, given, more)
            points += _points(open_run(folder), place, way)
            print(f"{folder}: {len(points)} networks so far", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for number, point in enumerate(points):
            name = f"n{number:03d}.onnx"
            run = open_run(given.runs / f"{point['start']}-{point['way']}")
            write_onnx(run.load(point["step"]), Path(folder) / name, run.recipe["size"])
            files[name] = Path(folder) / name
        timed = Timer().time(files)
    for number, point in enumerate(points):
        point["ms"] = timed.ms[f"n{number:03d}.onnx"]
    result = {"device": device(), "runtime": timed.runtime, "threads": 1, "batch": 1, "points": points, "compared": _compared(points)}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1))
    print(json.dumps(result["compared"], indent=1))


def _run(source: Run, folder: Path, given: argparse.Namespace, more: dict[str, object]) -> None:
    kept = {key: source.recipe[key] for key in ("data", "model", "weights", "metric", "batch_size", "precision", *PICTURE_KEYS)}
    recipe = Recipe.make(
        "benchmark", **kept, start=str(source.path.resolve()), train_epochs=0, schedule_epochs=source.recipe["train_epochs"], step=given.step,
        epochs=given.epochs, max_drop=100.0, max_steps=given.steps, extra_rounds=0, cap=given.cap, **more,
    )  # fmt: skip
    prune(recipe, folder)


def _points(run: Run, start: int, way: str) -> list[dict[str, object]]:
    """Accuracy of every network of a run on the test split."""
    recipe = run.recipe
    data = pictures.load(recipe["data"], **{key: recipe[key] for key in PICTURE_KEYS})
    engine = make_engine("32")
    found = []
    for step in run.steps():
        p, labels = predict(run.load(step.index), data.test, engine)
        accuracy = measure(p.clamp_min(1e-30).log(), labels).accuracy
        found.append(
            {"start": start, "way": way, "step": step.index, "macs": step.macs, "params": step.params, "validation": step.metric_after,
             "test": accuracy, "said_ms": step.latency_ms, "predicted_ms": step.predicted_ms}
        )  # fmt: skip
    return found


def _compared(points: list[dict]) -> dict[str, object]:
    """For each start: how many times less time latency's networks take than the others', on average over accuracies that both reach.

    The time at an accuracy is that of the fastest network at least as accurate, between networks along the line of log times.
    """
    found: dict[str, object] = {}
    for split in ("test", "validation"):
        for other in ("macs", "score"):
            ratios = []
            for start in sorted({point["start"] for point in points}):
                ours, theirs = (_front([p for p in points if p["start"] == start and p["way"] == way], split) for way in ("latency", other))
                low, high = max(min(ours[0]), min(theirs[0])), min(max(ours[0]), max(theirs[0]))
                levels = np.linspace(low, high, 21)
                ratios.append(float(np.exp(np.mean(np.interp(levels, *theirs) - np.interp(levels, *ours)))))
            found[f"{other} against latency, {split}"] = {"faster": ratios, "mean": float(np.mean(ratios))}
    return found


def _front(points: list[dict], split: str) -> tuple[list[float], list[float]]:
    """Accuracies, rising, and the log of the least time in which each is reached."""
    best: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda one: one["ms"]):
        if not best or point[split] > best[-1][0]:
            best.append((point[split], float(np.log(point["ms"]))))
    return [a for a, _ in best], [t for _, t in best]


if __name__ == "__main__":
    main()
